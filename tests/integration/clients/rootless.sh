#!/bin/bash
# podman of an ordinary user, with the runtime in RUNTIME: called by root, it makes the user and goes on as that.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" = 0 ]; then
  new_user
  over() { remove_user; rm -rf "$XDG"; }
  # Sockets of each container lie below it: where their paths are too long podman waits in vain each time.
  XDG=$(mktemp -d /tmp/rXXXXX)
  trap over EXIT
  chown $user: "$XDG"
  setpriv --reuid $user --regid $user --init-groups env -i PATH="$PATH" WORK="$WORK" RUNTIME="$WORK/bin/$(basename "$RUNTIME")" \
    HOME="$WORK/home" XDG_RUNTIME_DIR="$XDG" USER=$user bash "$0"
  until_true sh -c "! pgrep -u $user 'coffer|conmon'"
  check no-process-left '' "$(pgrep -u $user -l 'coffer|conmon' | tr '\n' ' ')"
  check no-cgroup-left '' "$(find /sys/fs/cgroup -maxdepth 3 -type d -name 'libpod-*' 2>/dev/null | head -3)"
  exit
fi
cd "$HOME" || exit 1
podman_conf 'netns = "none"'
image=localhost/bb:latest
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$XDG_RUNTIME_DIR/t" "$@" 2>&1; }
state() { p inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }
p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" "$image" >/dev/null

check run 'hello' "$(p run --rm $image echo hello)"
p run --rm $image sh -c 'exit 7' >/dev/null; check run-status 7 $?
p run --rm $image nosuch >/dev/null; check run-not-found 127 $?
check root-inside '0 0' "$(p run --rm $image sh -c 'echo $(id -u) $(id -g)')"
check user-inside '1000' "$(p run --rm --user 1000 $image id -u)"
mkdir "$WORK/volume" >/dev/null
check volume-write '' "$(p run --rm -v "$WORK/volume:/v" $image sh -c 'echo x >/v/mine; mkdir /v/d')"
check volume-owner "$(id -un)" "$(stat -c %U "$WORK/volume/mine")"
check volume-read 'x' "$(p run --rm -v "$WORK/volume:/v:ro" $image cat /v/mine)"
check volume-overlay 'x y' "$(p run --rm -v "$WORK/volume:/v:O" $image sh -c 'echo y >>/v/mine; cat /v/mine' | tr '\n' ' ' | sed 's/ $//')"
check volume-overlay-kept 'x' "$(cat "$WORK/volume/mine")"
check volume-read-only '*ead-only*' "$(p run --rm -v "$WORK/volume:/v:ro" $image sh -c 'echo y >/v/mine')"
check others-ids '1000' "$(p run --rm $image sh -c 'touch /tmp/f; chown 1000 /tmp/f; stat -c %u /tmp/f')"
check read-only '*ead-only*' "$(p run --rm --read-only $image touch /x)"
check no-new-file-of-root '*denied*' "$(p run --rm -v /etc:/host-etc $image sh -c 'echo >/host-etc/cofferdam-rootless')"
check stdin 'abc' "$(echo abc | p run -i --rm $image cat)"
check terminal 'tty*' "$(on_tty "podman --runtime $RUNTIME --tmpdir $XDG_RUNTIME_DIR/t run -t --rm $image sh -c 'test -t 0 && echo tty'")"
p run -d --name long $image sh -c 'trap "exit 3" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
check running running "$(state long)"
check exec '42' "$(p exec long sh -c 'echo $((6*7))')"
check exec-user '7' "$(p exec --user 7 long id -u)"
until_true sh -c "podman --runtime $RUNTIME --tmpdir $XDG_RUNTIME_DIR/t logs long | grep -q up"
check logs 'up' "$(p logs long)"
check top '*sh*' "$(p top long)"
p stop -t 5 long >/dev/null
check stopped-by-signal 3 "$(p inspect --format '{{.State.ExitCode}}' long)"
p start long >/dev/null; check started-again running "$(state long)"
p kill long >/dev/null; until_true exited long
check killed 137 "$(p inspect --format '{{.State.ExitCode}}' long)"
check removed '' "$(p rm long >/dev/null; p ps -aq)"
check commit 'made' "$(p run --name made $image sh -c 'echo made >/made' >/dev/null; p commit -q made localhost/made >/dev/null; p run --rm localhost/made cat /made)"
p rm -f made >/dev/null
printf 'FROM %s\nRUN echo built >/built\n' $image >"$WORK/Containerfile"
p build --network none -t localhost/built -f "$WORK/Containerfile" "$WORK/volume" >/dev/null
check build 'built' "$(p run --pull never --rm localhost/built cat /built)"
check pod 'in pod' "$(p pod create --name pod --infra=false >/dev/null; p run --rm --pod pod $image echo in pod; p pod rm -f pod >/dev/null)"
check nothing-left '' "$(p ps -aq)"
p system migrate >/dev/null
