#!/bin/bash
# The calls that CRI-O makes, by conmon and of its own, each with its arguments (`--root=R` from conmon, `--root R` from CRI-O itself); CRI-O
# is not packaged. RUNTIME is asked for its state after each step, as CRI-O does.
. "$(dirname "$0")/lib.sh"
root=$WORK/state exits=$WORK/exits sockets=$WORK/sockets spec=$WORK/spec
mkdir -p "$root" "$exits" "$sockets" "$spec"
# What a call prints goes by a file: whether a pipe ends with the call is a check of its own (exec-front-ends).
r() {
  local status said=$WORK/said.$BASHPID
  timeout 60 "$RUNTIME" --root "$root" "$@" >"$said" 2>&1
  status=$?
  cat "$said"
  return $status
}
busybox_tar "$WORK/bb.tar"
(cd "$spec" && runc spec)
json() { /usr/bin/python3 -c 'import json, sys; d = json.load(open(sys.argv[1])) if sys.argv[1] != "-" else json.load(sys.stdin); print(eval(sys.argv[2]))' "$@"; }
# A bundle whose process is a shell's command: ID TERMINAL COMMAND
bundle() {
  mkdir -p "$WORK/b/$1/rootfs"; tar -C "$WORK/b/$1/rootfs" -xf "$WORK/bb.tar"
  /usr/bin/python3 - "$spec/config.json" "$WORK/b/$1" "/coffer-$$-$1" "$2" "$3" <<'PY'
import json, sys
base, bundle, cgroup, terminal, command = sys.argv[1:]
c = json.load(open(base))
c["process"].update(terminal=terminal == "true", args=["/bin/sh", "-c", command])
c["root"]["readonly"] = False
c["linux"]["cgroupsPath"] = cgroup
c["annotations"] = {"io.kubernetes.cri-o.ContainerName": "c", "io.container.manager": "cri-o"}
json.dump(c, open(bundle + "/config.json", "w"))
PY
}
# A process for exec: FILE TERMINAL USER COMMAND
process() {
  /usr/bin/python3 - "$spec/config.json" "$@" <<'PY'
import json, sys
base, file, terminal, user, command = sys.argv[1:]
p = json.load(open(base))["process"]
p.update(terminal=terminal == "true", args=["/bin/sh", "-c", command], user={"uid": int(user), "gid": int(user)})
json.dump(p, open(file, "w"))
PY
}
# conmon's two pipes: it tells on descriptor 3 what came of the call, and begins once it has read from 4.
monitor() { # NAME WORDS...: what it told is in WORK/NAME.sync
  local name=$1; shift
  mkdir -p "$exits/$name"
  _OCI_SYNCPIPE=3 _OCI_STARTPIPE=4 _OCI_ATTACHPIPE=5 conmon "$@" -r "$RUNTIME" --runtime-arg --root="$root" --log-level info \
    --exit-dir "$exits/$name" --socket-dir-path "$sockets" -P "$WORK/$name.conmon" \
    3>"$WORK/$name.sync" 4</dev/zero 5>"$WORK/$name.attach" >/dev/null 2>"$WORK/$name.err" </dev/null
  until_true grep -q . "$WORK/$name.sync"
}
create() { # ID WORDS...
  local id=$1; shift
  monitor "$id" -b "$WORK/b/$id" -c "$id" -u "$id" -n "k8s_$id" -l "$WORK/$id.log" -p "$WORK/$id.pid" --persist-dir "$WORK/b/$id" "$@"
}
told() { json "$WORK/$1.sync" "$2"; }
state() { r state "$1" | json - 'd["status"]'; }
is() { [ "$(state "$1")" = "$2" ]; }
# What conmon wrote of a container's end: NAME ID, where an exec has its container's id.
exit_of() { until_true test -s "$exits/$1/${2-$1}" && cat "$exits/$1/${2-$1}"; }
# Lines of a log file of the Kubernetes' form, without their times.
log() { cut -d' ' -f2- "$WORK/$1.log" | paste -sd,; }

check version '*version *' "$(timeout 10 "$RUNTIME" --version)"
check version-spec '*spec: 1.*' "$(timeout 10 "$RUNTIME" --version)"
check features 'True' "$(timeout 10 "$RUNTIME" features 2>&1 | json - '"create" not in d and "linux" in d and "ociVersionMin" in d' 2>&1 | tail -1)"
check unknown '*does not exist*' "$(r state nosuch)"

bundle one false 'echo out; echo err >&2; printf part; trap "exit 5" TERM; while :; do sleep 0.1; done'
create one
check create "$(cat "$WORK/one.pid")" "$(told one 'd["pid"]')"
check created created "$(state one)"
check created-pid "$(cat "$WORK/one.pid")" "$(r state one | json - 'd["pid"]')"
check created-bundle "$WORK/b/one" "$(r state one | json - 'd["bundle"]')"
check annotations cri-o "$(r state one | json - 'd["annotations"]["io.container.manager"]')"
check nothing-runs '' "$(log one)"
check start '' "$(r start one)"
check running running "$(state one)"
check start-again '*' "$(r start one >/dev/null; [ $? != 0 ] && echo no)"
until_true grep -q part "$WORK/one.log"
check log 'stderr F err*' "$(log one | tr , '\n' | sort | head -1)"
check log-out 'stdout F out,stdout P part' "$(grep stdout "$WORK/one.log" | cut -d' ' -f2- | paste -sd,)"
check root-equals running "$("$RUNTIME" --root="$root" state one | json - 'd["status"]')"
check list one "$(r list -q)"
check cgroup 'yes' "$(grep -q "coffer-$$-one" "/proc/$(cat "$WORK/one.pid")/cgroup" && echo yes)"

process "$WORK/e1" false 0 'echo in; echo bad >&2; exit 9'
monitor e1 -c one -u e1 -n k8s_one -l "$WORK/e1.log" -p "$WORK/e1.pid" -e --exec-process-spec "$WORK/e1"
until_true grep -q exit_code "$WORK/e1.sync"
check exec 'stderr F bad,stdout F in' "$(log e1 | tr , '\n' | sort | paste -sd,)"
check exec-told 'yes' "$(grep -q '"exit_code": *9' "$WORK/e1.sync" && echo yes)"
check exec-exit 9 "$(exit_of e1 one)"
check state-after-exec running "$(state one)"
process "$WORK/e2" false 7 'id -u; exit 3'
monitor e2 --api-version 1 -c one -u e2 -n k8s_one -l "$WORK/e2.log" -p "$WORK/e2.pid" -e --exec-attach --exec-process-spec "$WORK/e2"
exit_of e2 one >/dev/null
check attach-exec 'stdout F 7' "$(log e2)"
check attach-exit 3 "$(exit_of e2 one)"
process "$WORK/e3" true 0 'tty; exit 4'
monitor e3 -c one -u e3 -n k8s_one -l "$WORK/e3.log" -p "$WORK/e3.pid" -t -e --exec-process-spec "$WORK/e3"
until_true grep -q exit_code "$WORK/e3.sync"
check exec-tty 'stdout F /dev/pts/*' "$(log e3 | tr -d '\r')"
check exec-tty-told 'yes' "$(grep -q '"exit_code": *4' "$WORK/e3.sync" && echo yes)"
printf '{"args":["/nosuch"],"cwd":"/","user":{"uid":0,"gid":0}}' >"$WORK/e4"
monitor e4 -c one -u e4 -n k8s_one -l "$WORK/e4.log" -p "$WORK/e4.pid" -e --exec-process-spec "$WORK/e4"
check exec-not-found '*no such file or directory*' "$(cat "$WORK/e4.sync")"

# CRI-O's exec of an interactive kind: in the foreground, stdio is a terminal that CRI-O made.
check exec-front $'in front\n6' "$(process "$WORK/e5" false 0 'echo in front; exit 6'; r exec --process "$WORK/e5" one; echo $?)"
# Nobody holds what an exec printed to once it has ended: each of ten pipes ends with it.
ends() { for _ in 1 2 3 4 5 6 7 8 9 10; do "$RUNTIME" --root "$root" exec --process "$WORK/e5" one | timeout 5 cat || echo waits; done; }
check exec-front-ends 'in front' "$(set +o pipefail; ends | sort -u | paste -sd,)"
# The keyboard stays open while it runs: script(1) ends a terminal early whose input has ended.
process "$WORK/e6" true 0 'tty; test -t 0 && test -t 1 && test -t 2 && echo all'
# An input that has ended: script(1) types a ^D before the runtime has the terminal.
check exec-front-ended $'/dev/pts/*\nall' "$(script -qec "$RUNTIME --root $root exec --process $WORK/e6 one" /dev/null </dev/null 2>&1 | tr -d '\r' | sed 's/^^@//; s/^^D\x08\x08//')"
check exec-front-tty $'/dev/pts/*\nall' "$(sleep 1 | script -qec "$RUNTIME --root $root exec --process $WORK/e6 one" /dev/null 2>&1 | tr -d '\r')"
check exec-front-in 'fed' "$(process "$WORK/e7" false 0 'cat'; echo fed | r exec --process "$WORK/e7" one)"
process "$WORK/e8" false 0 'kill -9 $$'
r exec --process "$WORK/e8" one >/dev/null; check exec-killed 137 $?
r exec -d --pid-file "$WORK/e9.pid" --process "$WORK/e7" one </dev/null >/dev/null 2>&1
check exec-detached '[0-9]*' "$(cat "$WORK/e9.pid")"

check pause paused "$(r pause one; state one)"
check resume running "$(r resume one; state one)"
echo '{"pids":{"limit":50}}' | r update --resources - one >/dev/null; check update 0 $?
check kill '' "$(r kill one TERM)"
check exit-file 5 "$(exit_of one)"
check persist-exit 5 "$(until_true test -s "$WORK/b/one/exit" && cat "$WORK/b/one/exit")"
until_true is one stopped
check stopped stopped "$(state one)"
check stopped-pid 0 "$(r state one | json - 'd["pid"]')"
check kill-stopped '*not running*' "$(r kill one KILL)"
check kill-all-stopped '*' "$(r kill --all one KILL)"
check delete '' "$(r delete one)"
check deleted '*does not exist*' "$(r state one)"
check delete-again '*does not exist*' "$(r delete one)"
check delete-forced '' "$(r delete --force one)"

# Several processes, all killed at once; a signal's exit status.
bundle two false 'sleep 100 & sleep 101 & sleep 102'
create two
r start two
until_true eval '[ "$(r ps --format json two | json - "len(d)")" = 3 ]'
check ps 3 "$(r ps --format json two | json - 'len(d)')"
check kill-all '' "$(r kill --all two KILL)"
check kill-all-exit 137 "$(exit_of two)"
until_true is two stopped
check kill-all-state stopped "$(state two)"
check kill-all-delete '' "$(r delete two)"

# A terminal of the container's own, made by conmon.
bundle tty true 'tty; exit 2'
create tty -t
check tty-created created "$(state tty)"
r start tty
check tty-exit 2 "$(exit_of tty)"
check tty-log 'stdout F /dev/pts/*' "$(log tty | tr -d '\r')"
r delete tty

# Stopped before it was started, and removed while it runs.
bundle early false 'echo never'
create early
check early-kill '' "$(r kill early KILL)"
check early-exit 137 "$(exit_of early)"
check early-log '' "$(log early)"
check early-delete '' "$(r delete early)"
bundle forced false 'sleep 100'
create forced
r start forced
check forced '' "$(r delete --force forced)"
check forced-exit 137 "$(exit_of forced)"

# What cannot be made: conmon tells CRI-O what the runtime said, and nothing is left.
bundle bad false true
/usr/bin/python3 -c 'import json, sys; f = sys.argv[1]; c = json.load(open(f)); c["process"]["args"] = ["nosuch"]; json.dump(c, open(f, "w"))' "$WORK/b/bad/config.json"
create bad
check bad-told '*executable file not found*' "$(cat "$WORK/bad.sync")"
check bad-pid 'True' "$(told bad 'd["pid"] < 0')"
check bad-left '*does not exist*' "$(r state bad)"
check list-empty '' "$(r list -q)"
check cgroups-gone '' "$(find /sys/fs/cgroup -maxdepth 2 -name "coffer-$$-*" 2>/dev/null)"
until_true eval '! pgrep -f "conmon.*$WORK"'
check monitors-gone '' "$(pgrep -f "conmon.*$WORK")"
