#!/bin/bash
# podman of an ordinary user with that user's own systemd as its cgroup manager, with the runtime in RUNTIME: called by root in a systemd of
# the test's own (cgroups of version 2), it makes the user, starts his systemd and goes on as him in sessions as a login makes them.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" = 0 ]; then
  new_user
  id=$(id -u $user)
  over() { systemctl stop "user@$id.service"; remove_user; }
  trap over EXIT
  systemctl start "user@$id.service"
  session() { # UNIT PART
    systemd-run --scope --quiet --collect --unit "$1" --slice "user-$id.slice" -- setpriv --reuid $user --regid $user --init-groups \
      env -i PATH="$PATH" WORK="$WORK" RUNTIME="$WORK/bin/$(basename "$RUNTIME")" HOME="$WORK/home" XDG_RUNTIME_DIR="/run/user/$id" \
      USER=$user PART="$2" bash "$0"
  }
  session first first
  # The session ends, with all that is in it.
  systemctl stop first.scope 2>/dev/null
  session second second
  none() { ! pgrep -u $user 'coffer|conmon'; }
  until_true none; check no-process-left '' "$(pgrep -u $user -l 'coffer|conmon' | tr '\n' ' ')"
  check no-cgroup-left '' "$(find /sys/fs/cgroup -type d '(' -name 'libpod-*' -o -name 'cofferdam*' ')' | head -3)"
  exit
fi
cd "$HOME" || exit 1
# This machine's version 2 may have no controllers: limits of a user are seen by the test systemd_cgroups.
CGROUPS=systemd podman_conf 'netns = "none"
pids_limit = 0'
image=localhost/bb:latest
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$XDG_RUNTIME_DIR/t" "$@" 2>&1; }
state() { p inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }
unit() { echo "libpod-$(p inspect --format '{{.Id}}' "$1").scope"; }
property() { systemctl --user show --value --property "$2" "$(unit "$1")"; }
processes() { wc -l <"/sys/fs/cgroup$(property "$1" ControlGroup)/cgroup.procs"; }
units() { systemctl --user list-units --all --plain --no-legend 'libpod*' 'user-libpod*' | cut -d' ' -f1 | grep -v conmon | tr '\n' ' '; }
# What of the runtime and of its containers is in the session, or anywhere but below the user's own systemd.
outside() {
  local pid group
  for pid in $(pgrep -u "$(id -u)" 'coffer|sleep'); do
    group=$(sed -n 's/^0:://p' "/proc/$pid/cgroup" 2>/dev/null)
    case $group in '' | */user@*.service/*) ;; *) echo "$(cat "/proc/$pid/comm") $group" ;; esac
  done
}
loop='trap "exit 3" TERM; while :; do sleep 0.1; done'
if [ "$PART" = first ]; then
  p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" "$image" >/dev/null
  check run hello "$(p run --rm $image echo hello)"
  p run --rm $image sh -c 'exit 7' >/dev/null; check run-status 7 $?
  check left-by-run '' "$(units)"
  p run -d --name boat $image sleep 1000 >/dev/null
  check running running "$(state boat)"
  exit
fi
check session-ended running "$(state boat)"
check session-ended-exec 'in 0' "$(p exec boat sh -c 'echo in $(id -u)')"
check place "/user.slice/user-$(id -u).slice/user@$(id -u).service/user.slice/$(unit boat)" "$(property boat ControlGroup)"
check active 'user.slice active running yes' "$(echo $(property boat Slice) $(property boat ActiveState) $(property boat SubState) $(property boat Delegate))"
check pid-in-unit yes "$(grep -q "$(unit boat)" "/proc/$(p inspect --format '{{.State.Pid}}' boat)/cgroup" && echo yes)"
check outside '' "$(outside)"
before=$(processes boat)
p exec -d boat sleep 1000 >/dev/null
more() { [ "$(processes boat)" -gt "$before" ]; }
check exec-in-unit yes "$(until_true more && echo yes)"
check exec-outside '' "$(outside)"
p exec boat sh -c 'exit 9' >/dev/null; check exec-status 9 $?
p pause boat >/dev/null; check pause paused "$(state boat)"
p unpause boat >/dev/null; check unpause 'running alive' "$(state boat) $(p exec boat echo alive)"
p rm -f -t 0 boat >/dev/null; check left-by-rm '' "$(units)"

p run -d --name boat $image sh -c "$loop" >/dev/null
p stop -t 5 boat >/dev/null; check stop 'exited 3' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' boat)"
check stop-unit not-found "$(property boat LoadState)"
p start boat >/dev/null; check start 'running active' "$(state boat) $(property boat ActiveState)"
p restart -t 0 boat >/dev/null; check restart 'running active' "$(state boat) $(property boat ActiveState)"
p kill boat >/dev/null; until_true exited boat; check kill 137 "$(p inspect --format '{{.State.ExitCode}}' boat)"
p start boat >/dev/null; systemctl --user stop "$(unit boat)"; until_true exited boat
check systemd-stops exited "$(state boat)"
p start boat >/dev/null; systemctl --user kill --signal KILL "$(unit boat)"; until_true exited boat
check systemd-kills 'exited 137' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' boat)"
p rm -f -t 0 boat >/dev/null

p pod create --name pod --infra-image $image --infra-command 'sleep 1000' >/dev/null
p run -d --pod pod --name one $image sh -c "$loop" >/dev/null
p run -d --pod pod --name two $image sh -c "$loop" >/dev/null
slice=$(property one Slice)
check pod-slice "user-libpod_pod_*.slice $slice" "$slice $(property two Slice)"
check pod-outside '' "$(outside)"
check pod-own yes "$([ "$(processes one)" -ge 1 ] && [ "$(processes two)" -ge 1 ] && echo yes)"
check pod-exec two "$(p exec two echo two)"
check pod-stop-one 'exited running' "$(p stop -t 0 one >/dev/null; state one) $(state two)"
p pod rm -f -t 0 pod >/dev/null
check pod-left '' "$(units)"
check nothing-left '' "$(p ps -aq)"
p rmi -af >/dev/null
p system migrate >/dev/null
