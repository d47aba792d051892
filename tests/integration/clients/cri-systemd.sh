#!/bin/bash
# containerd through Kubernetes' Container Runtime Interface with `SystemdCgroup = true`, as where a kubelet has `cgroupDriver: systemd`, in a
# systemd of the test's own that has the controllers of cgroups: the pod's slice is the kubelet's, its containers are scopes in there.
. "$(dirname "$0")/lib.sh"
systemd=true
. "$(dirname "$0")/cri-lib.sh"
# As a kubelet names it.
slice() { echo "kubetest-burstable-pod$1.slice"; }
parent() { echo "/kubetest.slice/kubetest-burstable.slice/$(slice "$1")"; }
unit() { echo "cri-containerd-${id[$1]}.scope"; }
property() { systemctl show --value --property "$2" "$(unit "$1")"; }
memory=MemoryLimit weight=CPUShares share=512
[ -e /sys/fs/cgroup/cgroup.controllers ] && memory=MemoryMax weight=CPUWeight share=20
# A file of a container's cgroup, of either version: NAME CONTROLLER V1 V2
file() {
  local place; place=$(property "$1" ControlGroup)
  cat "/sys/fs/cgroup/$2$place/$3" 2>/dev/null || cut -d' ' -f1 "/sys/fs/cgroup$place/$4"
}
limit() { file "$1" memory memory.limit_in_bytes memory.max; }
processes() { file "$1" memory cgroup.procs cgroup.procs | wc -l; }
scopes() { systemctl list-units --all --plain --no-legend 'cri-containerd-*' | cut -d' ' -f1 | tr '\n' ' '; }
# A pod of a kubelet: its slice is there first.
slice_pod() {
  systemd-run --quiet --collect --slice "$(slice "$1")" --unit "holds-$1" sleep 1000
  systemctl set-property --runtime "$(slice "$1")" $memory=100M
  pod "$1"
}
loop='echo begun; trap "exit 3" TERM; while :; do sleep 0.1; done'

begin_with_images
pod_options='{"network":"NODE","pid":"CONTAINER"}' hostname=
slice_pod boat
check pod SANDBOX_READY "$(pod_state boat)"
check pod-unit "$(slice boat) active running yes" "$(echo $(property boat Slice) $(property boat ActiveState) $(property boat SubState) $(property boat Delegate))"
check pod-place "$(parent boat)/$(unit boat)" "$(property boat ControlGroup)"
resources='"memory_limit_in_bytes":67108864,"cpu_period":100000,"cpu_quota":50000,"cpu_shares":512' started boat one "$loop"
started boat two "$loop"
alive boat one; alive boat two
check unit "$(slice boat) active running yes" "$(echo $(property one Slice) $(property one ActiveState) $(property one SubState) $(property one Delegate))"
check place "$(parent boat)/$(unit one)" "$(property one ControlGroup)"
check memory '67108864 67108864' "$(property one $memory) $(limit one)"
check cpu '500ms 50000' "$(property one CPUQuotaPerSecUSec) $(file one cpu cpu.cfs_quota_us cpu.max)"
check shares "$share $share" "$(property one $weight) $(file one cpu cpu.shares cpu.weight)"
check unlimited infinity "$(property two $memory)"
check processes yes "$([ "$(processes boat)" -ge 1 ] && [ "$(processes one)" -ge 1 ] && [ "$(processes two)" -ge 1 ] && echo yes)"
before=$(processes one)
in_ "${id[one]}" sh -c 'for i in 1 2 3; do sleep 4321 >/dev/null 2>&1 & done'
check exec-in-unit yes "$([ "$(processes one)" -gt $((before + 1)) ] && echo yes)"
check exec 'in two' "$(in_ "${id[two]}" echo in two)"
check exec-status 9 "$(in_ "${id[one]}" sh -c 'exit 9'; echo $?)"
stats() { call ContainerStats "{\"container_id\":\"${id[$1]}\"}" "stats.$2.value"; }
check stats-memory yes "$([ "$(stats one memory.working_set_bytes)" -gt 100000 ] && echo yes)"
cpu=$(stats one cpu.usage_core_nano_seconds); in_ "${id[one]}" sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done' >/dev/null
check stats-cpu yes "$([ "$(stats one cpu.usage_core_nano_seconds)" -gt $((cpu + 10000000)) ] && echo yes)"
update() { call UpdateContainerResources "{\"container_id\":\"${id[one]}\",\"linux\":{$1}}"; }
update '"memory_limit_in_bytes":83886080,"cpu_quota":20000,"cpu_period":100000' >/dev/null
check updated '83886080 83886080 200ms 20000' "$(property one $memory) $(limit one) $(property one CPUQuotaPerSecUSec) $(file one cpu cpu.cfs_quota_us cpu.max)"
systemctl daemon-reload
check reload '83886080 20000' "$(limit one) $(file one cpu cpu.cfs_quota_us cpu.max)"

eats="awk '$hungry'"
resources='"memory_limit_in_bytes":50331648' started boat hungry "$eats"
check memory-kept 'CONTAINER_EXITED 137 OOMKilled' "$(end_of hungry)"
remove hungry >/dev/null
check others-stay 'CONTAINER_RUNNING CONTAINER_RUNNING' "$(status one state) $(status two state)"

finish; begin
check daemon-again 'CONTAINER_RUNNING still' "$(status one state) $(in_ "${id[one]}" echo still)"
check stop '{}' "$(stop one)"
check stopped 'CONTAINER_EXITED 3 Error' "$(end_of one)"
check stopped-unit not-found "$(property one LoadState)"
check remove '{}' "$(remove one)"
attempt=1 started boat one "$loop"; alive boat one
check restarted 'CONTAINER_RUNNING active' "$(status one state) $(property one ActiveState)"
# What systemd does with a unit, it does with the container.
systemctl kill --signal KILL "$(unit one)"
check systemd-kills 'CONTAINER_EXITED 137 Error' "$(end_of one)"
remove one >/dev/null
check others-go-on here "$(in_ "${id[two]}" echo here)"
systemctl stop "$(unit two)"
check systemd-stops CONTAINER_EXITED "$(end_of two | cut -d' ' -f1)"
check stop-pod '{}' "$(stop_pod boat)"
check remove-pod '{}' "$(remove_pod boat)"
check scopes-left '' "$(scopes)"

slice_pod raft
started raft one "$loop"; alive raft one
started raft greedy "$eats"
check pod-memory-kept 'CONTAINER_EXITED 137 *' "$(end_of greedy)"
check remove-running-pod '{}' "$(remove_pod raft)"
nothing() { [ -z "$(left)" ]; }
left() {
  scopes
  pgrep -af -- "-address $CRI_SOCKET"
  grep "$WORK/" /proc/self/mounts
  find /sys/fs/cgroup -type d -name 'cri-containerd-*'
  ls -A "$WORK/runc/k8s.io" 2>/dev/null | grep -v supervisor.lock
}
until_true nothing; check nothing-left '' "$(left)"
finish
systemctl stop holds-boat holds-raft
