#!/bin/bash
# podman with systemd as its cgroup manager, in a systemd of the test's own that has the controllers of cgroups: what systemd knows of its
# containers, that limits are kept, and that nothing of them is left to systemd.
. "$(dirname "$0")/lib.sh"
CGROUPS=systemd podman_conf 'netns = "none"'
image=localhost/bb:latest
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@" 2>&1; }
gone() { p rm -f -t 0 "$@" >/dev/null; }
state() { p inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }
unit() { echo "libpod-$(p inspect --format '{{.Id}}' "$1").scope"; }
# A property of a container's unit: CONTAINER NAME
property() { systemctl show --value --property "$2" "$(unit "$1")"; }
limit=MemoryLimit weight=CPUShares share=512
[ -e /sys/fs/cgroup/cgroup.controllers ] && limit=MemoryMax weight=CPUWeight share=20
# A file of its cgroup, of either version: CONTAINER CONTROLLER V1 V2
file() {
  local place; place=$(property "$1" ControlGroup)
  cat "/sys/fs/cgroup/$2$place/$3" 2>/dev/null || cut -d' ' -f1 "/sys/fs/cgroup$place/$4"
}
limit() { file "$1" memory memory.limit_in_bytes memory.max; }
processes() { file "$1" memory cgroup.procs cgroup.procs | wc -l; }
units() { systemctl list-units --all --plain --no-legend 'libpod*' 'machine-*' | cut -d' ' -f1 | grep -v conmon | tr '\n' ' '; }
loop='trap "exit 3" TERM; while :; do sleep 0.1; done'
busybox_tar "$WORK/bb.tar"
p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" "$image" >/dev/null

check run hello "$(p run --rm $image echo hello)"
p run --rm $image sh -c 'exit 7' >/dev/null; check run-status 7 $?
check left-by-run '' "$(units)"
p run -d --name boat --memory 64m --memory-reservation 32m --pids-limit 30 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 $image sh -c "$loop" >/dev/null
check running running "$(state boat)"
check slice machine.slice "$(property boat Slice)"
check place "/machine.slice/$(unit boat)" "$(property boat ControlGroup)"
check active 'active running yes' "$(echo $(property boat ActiveState) $(property boat SubState) $(property boat Delegate))"
check memory '67108864 67108864' "$(echo $(property boat $limit) $(limit boat))"
check reservation 33554432 "$(file boat memory memory.soft_limit_in_bytes memory.low)"
check cpus '500ms 50000' "$(echo $(property boat CPUQuotaPerSecUSec) $(file boat cpu cpu.cfs_quota_us cpu.max))"
check shares "$share $share" "$(echo $(property boat $weight) $(file boat cpu cpu.shares cpu.weight))"
check processors '0 0' "$(echo $(property boat AllowedCPUs) $(file boat cpuset cpuset.cpus cpuset.cpus))"
check pid-in-unit yes "$(grep -q "$(unit boat)" "/proc/$(p inspect --format '{{.State.Pid}}' boat)/cgroup" && echo yes)"
check monitor-in-its-own yes "$(grep -q "libpod-conmon-" "/proc/$(p inspect --format '{{.State.ConmonPid}}' boat)/cgroup" && echo yes)"
check stats 'boat*/ 67.11MB*' "$(p stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' boat)"
pids() { p stats --no-stream --format '{{.PIDs}}' boat; }
check stats-pids yes "$([ "$(pids)" -ge 1 ] && echo yes)"
check exec 'in 0' "$(p exec boat sh -c 'echo in $(id -u)')"
p exec boat sh -c 'exit 9' >/dev/null; check exec-status 9 $?
before=$(processes boat)
p exec -d boat sleep 1000 >/dev/null
more() { [ "$(processes boat)" -gt "$before" ]; }
check exec-in-unit yes "$(until_true more && echo yes)"
check memory-seen 64 "$(p exec boat sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max' | awk '{print $1 / 1048576}')"
p pause boat >/dev/null; check pause paused "$(state boat)"
p unpause boat >/dev/null; check unpause 'running alive' "$(state boat) $(p exec boat echo alive)"
systemctl daemon-reload
check reload '67108864 running' "$(limit boat) $(state boat)"
p stop -t 5 boat >/dev/null; check stop 'exited 3' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' boat)"
check stop-unit not-found "$(property boat LoadState)"
p start boat >/dev/null; check start 'running 67108864' "$(state boat) $(property boat $limit)"
p restart -t 0 boat >/dev/null; check restart 'running 67108864' "$(state boat) $(property boat $limit)"
p kill boat >/dev/null; until_true exited boat; check kill 137 "$(p inspect --format '{{.State.ExitCode}}' boat)"
gone boat; check left-by-rm '' "$(units)"

p run --memory 32m --memory-swap 32m --name eats $image awk "$hungry" >/dev/null 2>&1
check memory-kept 137 $?
gone eats
check tasks-kept '*fork*' "$(p run --rm --pids-limit 10 $image sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 2 & done; wait')"
# What systemd does with a unit, it does with the container.
p run -d --name ended $image sh -c "$loop" >/dev/null
systemctl stop "$(unit ended)"; until_true exited ended
check systemd-stops exited "$(state ended)"
check systemd-stopped-starts running "$(p start ended >/dev/null; state ended)"
systemctl kill --signal KILL "$(unit ended)"; until_true exited ended
check systemd-kills 'exited 137' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' ended)"
gone ended
p run -d --name placed --cgroup-parent deep-er.slice $image sh -c "$loop" >/dev/null
check parent "deep-er.slice /deep.slice/deep-er.slice/$(unit placed)" "$(property placed Slice) $(property placed ControlGroup)"
gone placed

# Pods are slices.
p pod create --name pod --cpus 0.7 --infra-image $image --infra-command 'sleep 1000' >/dev/null
p run -d --pod pod --name one --memory 64m $image sh -c "$loop" >/dev/null
p run -d --pod pod --name two $image sh -c "$loop" >/dev/null
slice=$(property one Slice)
check pod-slice "machine-libpod_pod_*.slice $slice" "$slice $(property two Slice)"
check pod-limits '700ms 67108864 infinity' "$(systemctl show --value --property CPUQuotaPerSecUSec "$slice") $(property one $limit) $(property two $limit)"
check pod-exec two "$(p exec two echo two)"
check pod-stop-one 'exited running' "$(p stop -t 0 one >/dev/null; state one) $(state two)"
p pod rm -f -t 0 pod >/dev/null
check pod-left '' "$(units)"

# A container as a service, as Quadlet makes them.
systemd-run --quiet --collect --unit web --property Type=notify --property NotifyAccess=all --property KillMode=mixed \
  --setenv CONTAINERS_CONF="$CONTAINERS_CONF" --setenv CONTAINERS_STORAGE_CONF="$CONTAINERS_STORAGE_CONF" \
  podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" run --rm -d --name web --sdnotify=conmon --cgroups=no-conmon $image sh -c "$loop" >/dev/null 2>&1
check service active "$(systemctl is-active web)"
check service-exec served "$(p exec web echo served)"
check service-main conmon "$(cat "/proc/$(systemctl show --value --property MainPID web)/comm")"
systemctl stop web
check service-stopped '' "$(until_true test -z "$(p ps -aq)"; p ps -aq)"
check service-left '' "$(units)"

p rmi -af >/dev/null
p system prune -af >/dev/null
# Those of conmon podman leaves.
folders() { find /sys/fs/cgroup -type d '(' -name 'libpod-*' ! -name 'libpod-conmon-*' -o -name 'cofferdam*.scope' ')'; }
none() { [ -z "$(folders)" ]; }
until_true none; check folders-left '' "$(folders)"
