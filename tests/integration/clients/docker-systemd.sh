#!/bin/bash
# dockerd with systemd as what makes its containers' cgroups, in a systemd of the test's own that has their controllers.
. "$(dirname "$0")/lib.sh"
dockerd_begin systemd
state() { d inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }
unit() { echo "docker-$(d inspect --format '{{.Id}}' "$1").scope"; }
property() { systemctl show --value --property "$2" "$(unit "$1")"; }
units() { systemctl list-units --all --plain --no-legend 'docker-*' | cut -d' ' -f1 | tr '\n' ' '; }
memory=MemoryLimit
[ -e /sys/fs/cgroup/cgroup.controllers ] && memory=MemoryMax

check driver systemd "$(d info --format '{{.CgroupDriver}}')"
check run hello "$(d "${run[@]}" --rm $image echo hello)"
check left-by-run '' "$(units)"
d "${run[@]}" -d --name boat --memory 64m --cpus 0.5 $image sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done' >/dev/null
check unit 'system.slice active running' "$(echo $(property boat Slice) $(property boat ActiveState) $(property boat SubState))"
check limits '67108864 500ms' "$(property boat $memory) $(property boat CPUQuotaPerSecUSec)"
check pid-in-unit yes "$(grep -q "$(unit boat)" "/proc/$(d inspect --format '{{.State.Pid}}' boat)/cgroup" && echo yes)"
check exec 'in 0' "$(d exec boat sh -c 'echo in $(id -u)')"
check stats 'boat*/ 64MiB' "$(d stats --no-stream boat --format '{{.Name}} {{.MemUsage}}')"
check update 100663296 "$(d update --memory 96m --memory-swap 96m boat >/dev/null; property boat $memory)"
d pause boat >/dev/null; check pause paused "$(state boat)"
d unpause boat >/dev/null; check unpause running "$(state boat)"
d stop -t 5 boat >/dev/null; check stop '3 not-found' "$(d inspect --format '{{.State.ExitCode}}' boat) $(property boat LoadState)"
d start boat >/dev/null; check start 'running 100663296' "$(state boat) $(property boat $memory)"
systemctl kill --signal KILL "$(unit boat)"; until_true exited boat; check systemd-kills 137 "$(d inspect --format '{{.State.ExitCode}}' boat)"
d rm -f boat >/dev/null
d "${run[@]}" --name eats --memory 48m --memory-swap 48m $image awk "$hungry" >/dev/null
check memory-kept '137 true' "$? $(d inspect --format '{{.State.OOMKilled}}' eats)"
d rm -f eats >/dev/null
left() { units; find /sys/fs/cgroup -type d -name 'docker-*'; }
none() { [ -z "$(left)" ]; }
until_true none; check left '' "$(left)"
dockerd_end
