#!/bin/bash
# containerd through Kubernetes' Container Runtime Interface, as a kubelet speaks it. The last part needs the containers of a pod to be in
# one kernel.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cri-lib.sh"
cgroup=/coffer-$$
parent() { echo "$cgroup/$1"; }
# A file of a container's cgroup: version 2, or the controller's own hierarchy. POD NAME CONTROLLER V1 V2
limit() { cat "/sys/fs/cgroup/$3$cgroup/$1/${id[$2]}/$4" 2>/dev/null || cat "/sys/fs/cgroup$cgroup/$1/${id[$2]}/$5"; }

begin_with_images

check version containerd "$(call Version '{}' runtime_name)"
ready() { [ "$(call Status '{}' status.conditions.0.status)$(call Status '{}' status.conditions.1.status)" = truetrue ]; }
until_true ready; check ready '*RuntimeReady*true*NetworkReady*true*' "$(call Status '{}' status.conditions)"
check unknown-handler '*no runtime*' "$(handler=nosuch; pod refused; echo "${id[refused]}")"

# A pod of two containers with a directory of their own (what an emptyDir is to the runtime).
mkdir -p "$WORK/shared"; echo host >"$WORK/shared/host"
pod boat
[[ ${id[boat]} == *[^0-9a-f]* ]] && { echo "not ok pod: wanted an id, got ${id[boat]}"; finish; exit 1; }
check pod SANDBOX_READY "$(pod_state boat)"
check pod-handler sandboxed "$(call PodSandboxStatus "{\"pod_sandbox_id\":\"${id[boat]}\"}" status.runtime_handler)"
check pod-address '10.213.0.*' "$(call PodSandboxStatus "{\"pod_sandbox_id\":\"${id[boat]}\"}" status.network.ip)"
check pod-listed "${id[boat]}" "$(call ListPodSandbox '{}' items.0.id)"
volume="\"mounts\":[{\"container_path\":\"/v\",\"host_path\":\"$WORK/shared\"}]"
loop='echo begun; trap "exit 3" TERM; while :; do sleep 0.1; done'
more=$volume create boat one "echo out; echo err >&2; printf part; echo through >/v/one; $loop"
check created CONTAINER_CREATED "$(status one state)"
check created-silent '' "$(log boat one 2>/dev/null)"
check start '{}' "$(start one)"
check running CONTAINER_RUNNING "$(status one state)"
check start-again '*in CONTAINER_RUNNING state*' "$(start one)"
more=${volume/\}/,\"readonly\":true\}} started boat two "$loop"
check two CONTAINER_RUNNING "$(status two state)"
check listed 2 "$(call ListContainers "{\"filter\":{\"pod_sandbox_id\":\"${id[boat]}\"}}" containers | grep -o CONTAINER_RUNNING | wc -l)"
alive boat one; alive boat two
check log-out 'stdout F out*stdout F partbegun' "$(grep stdout "$WORK/logs/boat/one.log" | cut -d' ' -f2- | paste -sd,)"
check log-err 'stderr F err' "$(grep stderr "$WORK/logs/boat/one.log" | cut -d' ' -f2-)"
check log-times '????-??-??T*' "$(head -1 "$WORK/logs/boat/one.log")"

check exec 'in two' "$(in_ "${id[two]}" echo in two)"
check exec-status 9 "$(in_ "${id[one]}" sh -c 'exit 9'; echo $?)"
check exec-stderr 'bad' "$(timeout 60 /usr/bin/python3 "$clients/cri.py" exec "${id[one]}" sh -c 'echo good; echo bad >&2' 2>&1 >/dev/null)"
check exec-killed 137 "$(in_ "${id[one]}" sh -c 'kill -9 $$'; echo $?)"
check exec-not-found '*executable file not found*' "$(in_ "${id[one]}" nosuch)"
check exec-timeout '*DEADLINE_EXCEEDED*' "$(in_ -s 1 "${id[one]}" sleep 1234)"
check exec-timeout-ends 0 "$(in_ "${id[one]}" ps | grep -c 'sleep 123[4]')"
check exec-big 20000 "$(in_ "${id[one]}" seq 20000 | tail -1)"
check stream $'o\n6' "$(cri stream "${id[one]}" sh -c 'echo o; exit 6'; echo $?)"
check stream-err e "$(timeout 60 /usr/bin/python3 "$clients/cri.py" stream "${id[one]}" sh -c 'echo o; echo e >&2' 2>&1 >/dev/null)"
check stream-in got-fed "$(echo fed | cri stream -i "${id[one]}" sh -c 'read x; echo got-$x')"
check stream-tty '/dev/pts/*' "$(cri stream -i -t "${id[one]}" tty </dev/null | tr -d '\r')"
check stream-size '33 44' "$(cri stream -i -t -w 33 44 "${id[one]}" sh -c 'sleep 1; stty size' </dev/null | tr -d '\r')"

check volume through "$(in_ "${id[two]}" cat /v/one)"
check volume-host host "$(in_ "${id[one]}" cat /v/host)"
check volume-later more "$(in_ "${id[one]}" sh -c 'echo more >>/v/one'; in_ "${id[two]}" tail -1 /v/one)"
check volume-read-only '*Read-only file system*' "$(in_ "${id[two]}" touch /v/x)"
check volume-gone '*No such file*' "$(in_ "${id[one]}" rm /v/one; in_ "${id[two]}" cat /v/one)"
check hostname 'boat boat' "$(echo $(in_ "${id[one]}" hostname) $(in_ "${id[two]}" hostname))"
check hostname-file boat "$(in_ "${id[one]}" cat /etc/hostname)"
check resolv nameserver "$(in_ "${id[one]}" grep -o -m 1 nameserver /etc/resolv.conf)"
check pid1 sh "$(in_ "${id[two]}" cat /proc/1/comm)"
in_ "${id[one]}" sh -c 'sleep 4321 >/dev/null 2>&1 &'
check pids-own 0 "$(in_ "${id[two]}" ps | grep -c 'sleep 432[1]')"
check pids-mine 1 "$(in_ "${id[one]}" ps | grep -c 'sleep 432[1]')"
check root-own '*No such file*' "$(in_ "${id[one]}" touch /tmp/mine; in_ "${id[two]}" ls /tmp/mine)"

# What a kubelet mounts beside: the file for a last word, a configuration that it replaces as a whole, a volume whose mounts follow the host's.
mkdir -p "$WORK"/config/..{first,second} "$WORK/follows"; : >"$WORK/told"
for n in first second; do echo $n >"$WORK/config/..$n/key"; done
ln -s ..first "$WORK/config/..data"; ln -s ..data/key "$WORK/config/key"
mount -t tmpfs volume "$WORK/follows"; mount --make-shared "$WORK/follows"; mkdir "$WORK/follows/later"
mounted() { printf '{"container_path":"%s","host_path":"%s"%s}' "$1" "$WORK/$2" "${3:+,$3}"; }
more="\"mounts\":[$(mounted /dev/termination-log told),$(mounted /config config '"readonly":true'),$(mounted /deep/er/key config/..first/key),
  $(mounted /follows follows '"propagation":"PROPAGATION_HOST_TO_CONTAINER"')]" started boat mounts "$loop"
alive boat mounts
in_ "${id[mounts]}" sh -c 'echo bye >/dev/termination-log'; check mount-file bye "$(cat "$WORK/told")"
check mount-one-file first "$(in_ "${id[mounts]}" cat /deep/er/key)"
check mount-links first "$(in_ "${id[mounts]}" cat /config/key)"
ln -s ..second "$WORK/config/..new"; mv -T "$WORK/config/..new" "$WORK/config/..data"
check mount-links-changed second "$(in_ "${id[mounts]}" cat /config/key)"
mount -t tmpfs volume "$WORK/follows/later"; echo here >"$WORK/follows/later/file"
check mount-follows here "$(in_ "${id[mounts]}" cat /follows/later/file)"
remove mounts >/dev/null; umount "$WORK/follows/later" "$WORK/follows"; check mount-free 0 $?

stats() { call ContainerStats "{\"container_id\":\"${id[one]}\"}" "stats.$1.value"; }
check stats-memory yes "$([ "$(stats memory.working_set_bytes)" -gt 100000 ] && echo yes)"
cpu=$(stats cpu.usage_core_nano_seconds); in_ "${id[one]}" sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done' >/dev/null
check stats-cpu yes "$([ "$(stats cpu.usage_core_nano_seconds)" -gt $((cpu + 10000000)) ] && echo yes)"
# What one container uses is not the other's.
stats_two() { call ContainerStats "{\"container_id\":\"${id[two]}\"}" stats.cpu.usage_core_nano_seconds.value; }
cpu=$(stats_two); began=$(stats cpu.usage_core_nano_seconds); in_ "${id[one]}" sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done' >/dev/null
cpu=$(($(stats_two) - cpu)) began=$(($(stats cpu.usage_core_nano_seconds) - began))
check stats-own yes "$([ $((cpu * 3)) -lt $began ] && echo yes || echo "$cpu of $began")"
check stats-list 2 "$(call ListContainerStats "{\"filter\":{\"pod_sandbox_id\":\"${id[boat]}\"}}" stats | grep -o working_set_bytes | wc -l)"
check stats-pod yes "$([ "$(call PodSandboxStats "{\"pod_sandbox_id\":\"${id[boat]}\"}" stats.linux.memory.working_set_bytes.value)" -gt 100000 ] && echo yes)"

mv "$WORK/logs/boat/one.log" "$WORK/logs/boat/one.log.1"
check reopen '{}' "$(call ReopenContainerLog "{\"container_id\":\"${id[one]}\"}")"
in_ "${id[one]}" sh -c 'echo rotated >/proc/1/fd/1'
check reopened rotated "$(until_true prints boat one rotated; said boat one)"

# One container begins anew while the other runs on.
check stop '{}' "$(stop one)"
check stopped 'CONTAINER_EXITED 3 Error' "$(end_of one)"
check stop-again '{}' "$(stop one)"
check exec-stopped '*in CONTAINER_EXITED state*' "$(in_ "${id[one]}" true)"
check remains CONTAINER_RUNNING "$(status two state)"
check remains-exec here "$(in_ "${id[two]}" echo here)"
check remove '{}' "$(remove one)"
check remove-again '{}' "$(remove one)"
check removed '*NOT_FOUND*' "$(status one state)"
attempt=1 more=$volume started boat one "echo again; $loop"
alive boat one
check restarted again "$(said boat one | tr , '\n' | grep again)"
check restarted-volume host "$(in_ "${id[one]}" cat /v/host)"

# How containers end.
started boat ends 'exit 7'; check exit 'CONTAINER_EXITED 7 Error' "$(end_of ends)"; remove ends >/dev/null
started boat ends 'true'; check exit-well 'CONTAINER_EXITED 0 Completed' "$(end_of ends)"; remove ends >/dev/null
started boat ends 'kill -9 $$; exit 4'; check exit-kill-init 'CONTAINER_EXITED 4 Error' "$(end_of ends)"; remove ends >/dev/null
started boat deaf 'trap true TERM; echo begun; while :; do sleep 0.1; done'; alive boat deaf
began=$(date +%s%N); stop deaf 1 >/dev/null; took=$((($(date +%s%N) - began) / 1000000))
check stop-deaf 'CONTAINER_EXITED 137 Error' "$(end_of deaf)"
check stop-waits yes "$([ $took -ge 1000 ] && [ $took -lt 10000 ] && echo yes || echo "$took ms")"
remove deaf >/dev/null
started boat now "$loop"; alive boat now; stop now 0 >/dev/null; check stop-now 'CONTAINER_EXITED 137 Error' "$(end_of now)"; remove now >/dev/null
started boat forced "$loop"; check remove-running '{}' "$(remove forced)"
command='["nosuch"]' create boat lacks
check start-not-found '*executable file not found*' "$(start lacks)"
check start-not-found-status 'CONTAINER_EXITED 128 StartError' "$(end_of lacks)"
remove lacks >/dev/null
create boat early "$loop"; check remove-created '{}' "$(remove early)"

# Several begin at once, and end at once.
for n in 1 2 3 4 5 6; do create boat many$n "$loop"; done
for n in 1 2 3 4 5 6; do start many$n >/dev/null & done; wait $(jobs -p | grep -v "^$daemon$")
check many 6 "$(for n in 1 2 3 4 5 6; do in_ "${id[many$n]}" echo in-$n & done | sort -u | grep -c in-)"
for n in 1 2 3 4 5 6; do (stop many$n 5; remove many$n) >/dev/null & done; wait $(jobs -p | grep -v "^$daemon$")
check many-gone 2 "$(call ListContainers '{}' containers | grep -o CONTAINER_ | wc -l)"

# Limits.
resources='"memory_limit_in_bytes":67108864,"cpu_period":100000,"cpu_quota":50000,"cpu_shares":512' started boat limited "$loop"
check limit-memory 67108864 "$(limit boat limited memory memory.limit_in_bytes memory.max)"
check limit-cpu 50000 "$(limit boat limited cpu cpu.cfs_quota_us cpu.max | cut -d' ' -f1)"
check limit-in yes "$(pids=$(limit boat limited memory cgroup.procs cgroup.procs); [ -n "$pids" ] && echo yes)"
call UpdateContainerResources "{\"container_id\":\"${id[limited]}\",\"linux\":{\"memory_limit_in_bytes\":134217728}}" >/dev/null
check limit-updated 134217728 "$(limit boat limited memory memory.limit_in_bytes memory.max)"
remove limited >/dev/null
resources='"memory_limit_in_bytes":33554432' started boat hungry 'x=$(head -c 100m /dev/zero | tr "\0" a); echo ${#x}'
check limit-killed 'CONTAINER_EXITED 137 OOMKilled' "$(end_of hungry)"
remove hungry >/dev/null

# What a container may.
check user '7 8' "$(security='"run_as_user":{"value":7},"run_as_group":{"value":8}' output boat says 'echo $(id -u) $(id -g)')"
check user-name 65534 "$(security='"run_as_username":"nobody"' output boat says 'id -u')"
check groups '*7*8*' "$(security='"supplemental_groups":[7,8]' output boat says 'id -G')"
check read-only '*Read-only file system*' "$(security='"readonly_rootfs":true' output boat says 'touch /x')"
caps="grep CapEff /proc/self/status"
check caps-dropped '*0000000000000000' "$(security='"capabilities":{"drop_capabilities":["ALL"]}' output boat says "$caps")"
check caps-some '*0000000000000002' "$(security='"capabilities":{"drop_capabilities":["ALL"],"add_capabilities":["DAC_OVERRIDE"]}' output boat says "$caps")"
check caps-default '*00000000a80425fb' "$(output boat says "$caps")"
check no-new-privs '*1' "$(security='"no_new_privs":true' output boat says 'grep NoNewPrivs /proc/self/status')"
check masked '' "$(security='"masked_paths":["/etc/group"]' output boat says 'cat /etc/group')"
check read-only-path '*Read-only file system*' "$(security='"readonly_paths":["/proc/sys"]' output boat says 'echo x >/proc/sys/kernel/domainname')"
check seccomp '*2' "$(security='"seccomp":{"profile_type":"RuntimeDefault"}' output boat says 'grep Seccomp: /proc/self/status')"
check environment 'v /tmp' "$(more='"working_dir":"/tmp","envs":[{"key":"K","value":"v"}]' output boat says 'echo $K $(pwd)')"
check log-long 5000 "$(output boat says 'seq 5000' | tr , '\n' | sort -nu | wc -l)"

# Terminals and input.
more='"tty":true,"stdin":true' started boat screen 'tty; read x; echo got-$x; exit 5'
check tty '/dev/pts/*' "$(until_true prints boat screen /dev/pts; said boat screen)"
check attach '*got-typed*' "$( (sleep 1; echo typed; sleep 1) | cri attach -t "${id[screen]}" | tr -d '\r')"
check attach-exit 'CONTAINER_EXITED 5 Error' "$(end_of screen)"
check attach-log '*got-typed' "$(said boat screen)"
remove screen >/dev/null
more='"stdin":true' started boat fed 'while read x; do echo got-$x; done'
check attach-plain 'got-typed*' "$( (sleep 1; echo typed; sleep 1) | timeout 3 /usr/bin/python3 "$clients/cri.py" attach "${id[fed]}" 2>&1)"
check attach-left CONTAINER_RUNNING "$(status fed state)"
remove fed >/dev/null

# The daemon ends and comes again; its pods stay.
finish; begin
until_true ready
check daemon-pod SANDBOX_READY "$(pod_state boat)"
check daemon-container CONTAINER_RUNNING "$(status two state)"
check daemon-exec still "$(in_ "${id[two]}" echo still)"
in_ "${id[two]}" sh -c 'echo after >/proc/1/fd/1'
check daemon-log '*after' "$(until_true prints boat two after; said boat two)"

# A second pod, on the network of the host and privileged, beside the first; then a pod goes with containers in it.
pod_options='{"network":"NODE","pid":"CONTAINER"}' hostname='' privileged=true pod node
check node SANDBOX_READY "$(pod_state node)"
options='{"network":"NODE","pid":"CONTAINER"}' started node alone "$loop"
check node-exec "$(hostname)" "$(in_ "${id[alone]}" hostname)"
check privileged 'CapEff:*000001fff?ffffff,set' "$(security='"privileged":true' options='{"network":"NODE","pid":"CONTAINER"}' \
  output node says 'grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo 1 >/proc/sys/kernel/panic_on_oops && echo set')"
check node-removed '{}' "$(remove_pod node)"
check node-gone '*NOT_FOUND*' "$(status alone state)"
check other-pod-stays here "$(in_ "${id[two]}" echo here)"
check stop-pod '{}' "$(stop_pod boat)"
check stopped-pod SANDBOX_NOTREADY "$(pod_state boat)"
check stopped-pod-containers 'CONTAINER_EXITED CONTAINER_EXITED' "$(until_true is one EXITED; until_true is two EXITED; echo $(status one state) $(status two state))"
check stop-pod-again '{}' "$(stop_pod boat)"
check remove-pod '{}' "$(remove_pod boat)"
check remove-pod-again '{}' "$(remove_pod boat)"
check list-empty '\[\] \[\]' "$(echo $(call ListPodSandbox '{}' items) $(call ListContainers '{}' containers))"

# ---- What only containers in one kernel have of one another. A pod whose containers have one PID namespace:
gcc -static -O1 -Wall -D_GNU_SOURCE -o "$WORK/shared/pod" "$clients/pod.c"
pod_options='{"pid":"POD"}' pod raft
options='{"pid":"POD"}'
more=$volume started raft left "echo begun \$\$; $loop"; alive raft left
more=$volume started raft right "$loop"; alive raft right
check pod-pid1 'sleep' "$(in_ "${id[left]}" cat /proc/1/comm)"
pid=$(said raft left | sed -n 's/begun \([0-9]*\).*/\1/p')
check pod-pid yes "$([ "$pid" -gt 1 ] && echo yes)"
in_ "${id[right]}" sh -c 'sleep 9876 >/dev/null 2>&1 &'
check pod-ps 1 "$(in_ "${id[left]}" ps | grep -c 'sleep 987[6]')"
check pod-same-pid "$pid" "$(in_ "${id[right]}" sh -c "tr -d '\0' </proc/$pid/cmdline | grep -c begun; echo $pid" | tail -1)"
in_ "${id[left]}" touch /tmp/mine
check pod-root /proc/$pid/root/tmp/mine "$(in_ "${id[right]}" ls "/proc/$pid/root/tmp/mine")"
for kind in pid ipc uts net; do
  check "pod-namespace-$kind" same "$(a=$(in_ "${id[left]}" readlink /proc/self/ns/$kind); b=$(in_ "${id[right]}" readlink /proc/self/ns/$kind); [ -n "$a" ] && [ "$a" = "$b" ] && echo same || echo "$a $b")"
done
check pod-namespace-mnt other "$(a=$(in_ "${id[left]}" readlink /proc/self/ns/mnt); b=$(in_ "${id[right]}" readlink /proc/self/ns/mnt); [ "$a" != "$b" ] && echo other || echo "$a $b")"
check pod-shm yes "$(in_ "${id[left]}" sh -c 'echo yes >/dev/shm/x'; in_ "${id[right]}" cat /dev/shm/x)"
in_ "${id[left]}" sh -c 'mkfifo /v/fifo; (echo passed >/v/fifo) >/dev/null 2>&1 &'
check pod-fifo passed "$(in_ -s 5 "${id[right]}" cat /v/fifo)"
# The program PROGRAM WORDS in the left container, once it said that it is ready; what it says next is in /tmp/PROGRAM there.
beside() { in_ "${id[left]}" sh -c "/v/pod $* >/tmp/$1 2>&1 &"; until_true in_ "${id[left]}" grep . "/tmp/$1"; }
right() { in_ -s 5 "${id[right]}" /v/pod "$@"; }
beside hold /v/lock; check pod-lock EAGAIN "$(right try /v/lock)"
beside watch /v; in_ "${id[right]}" touch /v/news; check pod-inotify $'watching\nnews' "$(sleep 0.5; in_ "${id[left]}" cat /tmp/watch)"
beside see /v/mapped; right show /v/mapped >/dev/null; check pod-mapped $'waiting\nseen' "$(sleep 0.5; in_ "${id[left]}" cat /tmp/see)"
beside serve /v/socket; check pod-socket answer "$(right ask /v/socket)"
beside serve @pod; check pod-abstract-socket answer "$(right ask @pod)"
beside put 77; check pod-shared-memory kept "$(right get 77)"
in_ "${id[left]}" sh -c 'echo heard | nc -l -p 5000 >/dev/null 2>&1 &'
sleep 0.5
check pod-localhost heard "$(in_ -s 5 "${id[right]}" nc 127.0.0.1 5000)"
check pod-address-inside '*10.213.0.*' "$(in_ "${id[left]}" ip -4 addr show eth0)"
in_ "${id[right]}" kill -TERM "$pid"
check pod-kill 'CONTAINER_EXITED 3 Error' "$(end_of left)"
remove left >/dev/null
attempt=1 more=$volume started raft left "sleep 7654 & echo begun; $loop"; alive raft left
check pod-restarted 1 "$(in_ "${id[right]}" ps | grep -c ' sleep 7654$')"
check pod-stop-one '{}' "$(stop left 1)"
check pod-leaves-none 0 "$(in_ "${id[right]}" ps | grep -c ' sleep 7654$')"
check pod-remains 1 "$(in_ "${id[right]}" ps | grep -c 'sleep 987[6]')"
remove_pod raft >/dev/null
unset options
# Settings of the kernel are the pod's: those that Kubernetes calls safe and are not of the network, and one that it must be told to allow.
more='"sysctls":{"kernel.shm_rmid_forced":"1","kernel.msgmax":"4321"}' pod tuned
started tuned asks 'cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax'
check pod-sysctl '1,4321' "$(until_true is asks EXITED; said tuned asks)"
remove_pod tuned >/dev/null
# A container that looks into another's PID namespace, as `kubectl debug --target` makes it.
pod dinghy
started dinghy app "$loop"; alive dinghy app
options="{\"pid\":\"TARGET\",\"target_id\":\"${id[app]}\"}" started dinghy debug "$loop"; alive dinghy debug
in_ "${id[app]}" sh -c 'sleep 5432 >/dev/null 2>&1 &'
check target-ps 1 "$(in_ "${id[debug]}" ps | grep -c 'sleep 543[2]')"
check target-remains CONTAINER_RUNNING "$(remove debug >/dev/null; status app state)"
remove_pod dinghy >/dev/null

# Nothing is left.
nothing() { [ -z "$(left)" ]; }
left() {
  pgrep -af -- "-address $CRI_SOCKET"
  grep "$WORK/" /proc/self/mounts
  find /sys/fs/cgroup -mindepth 1 -path "*$cgroup/*/*" -type d -prune
  ls -A "$WORK/state/io.containerd.grpc.v1.cri/netns" "$WORK/runc/k8s.io" 2>/dev/null | grep -v -e : -e '^$' -e supervisor.lock
  ls "/sys/class/net/$bridge/brif"
}
until_true nothing; check nothing-left '' "$(left)"
finish
ip link del "$bridge"
for path in $(find /sys/fs/cgroup -depth -path "*$cgroup*" -type d); do rmdir "$path"; done
