# What scripts share that speak to containerd as a kubelet does (cri.py), with the runtime in RUNTIME as the handler of a RuntimeClass: the
# binary of io.containerd.runc.v2. `systemd=true` has it called with systemd's cgroups.
unset http_proxy HTTP_PROXY
clients=$(cd "$(dirname "$0")" && pwd)
export CRI_SOCKET=$WORK/c.sock CRI_TYPES=$WORK/cri.types
protoc -I "$clients" --descriptor_set_out="$CRI_TYPES" "$clients/cri.proto"
bridge=cri$$ image=localhost/bb:latest
mkdir -p "$WORK"/{root,state,net,logs}
cat >"$WORK/config.toml" <<EOT
version = 2
root = "$WORK/root"
state = "$WORK/state"
[grpc]
address = "$CRI_SOCKET"
[plugins."io.containerd.internal.v1.opt"]
path = "$WORK/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
stream_server_address = "127.0.0.1"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
disable_apparmor = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$WORK/net"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.sandboxed]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["dev.cofferdam.*"]
container_annotations = ["dev.cofferdam.*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.sandboxed.options]
BinaryName = "$RUNTIME"
Root = "$WORK/runc"
SystemdCgroup = ${systemd-false}
EOT
cat >"$WORK/net/10-bridge.conflist" <<EOT
{"cniVersion": "0.4.0", "name": "$bridge", "plugins": [{"type": "bridge", "bridge": "$bridge",
  "ipam": {"type": "host-local", "dataDir": "$WORK/addresses", "ranges": [[{"subnet": "10.213.0.0/24"}]]}}]}
EOT
begin() {
  containerd --config "$WORK/config.toml" >>"$WORK/containerd.log" 2>&1 &
  daemon=$!
  until_true call Version '{}' || { cat "$WORK/containerd.log"; finish; exit 1; }
}
finish() { kill $daemon; wait $daemon 2>/dev/null; }
cri() { timeout 90 /usr/bin/python3 "$clients/cri.py" "$@" 2>&1; }
call() { cri call "$@"; }
in_() { cri exec "$@"; }

declare -A id
pod_options='{"pid":"CONTAINER"}'
# Runs a pod: NAME. Its namespaces are those of pod_options, its cgroup is in that of `parent NAME`, and `more` is further fields of its
# Linux part.
pod() {
  mkdir -p "$WORK/logs/$1"
  printf '{"metadata":{"name":"%s","uid":"uid-%s","namespace":"default"},"hostname":"%s","log_directory":"%s","linux":{"cgroup_parent":"%s","security_context":{"privileged":%s,"namespace_options":%s}%s}}' \
    "$1" "$1" "${hostname-$1}" "$WORK/logs/$1" "$(parent "$1")" "${privileged-false}" "$pod_options" "${more:+,$more}" >"$WORK/$1.pod"
  id[$1]=$(call RunPodSandbox "{\"config\":$(cat "$WORK/$1.pod"),\"runtime_handler\":\"${handler-sandboxed}\"}" pod_sandbox_id)
}
# Makes a container: POD NAME COMMAND, a shell's command (or `command`, a list). More of it is in `security`, `resources` and `more`, fields
# of its security context, its limits and its configuration; `attempt` counts restarts.
create() {
  local shell=${3-}
  shell=${shell//\\/\\\\} shell=${shell//\"/\\\"}
  id[$2]=$(call CreateContainer "{\"pod_sandbox_id\":\"${id[$1]}\",\"sandbox_config\":$(cat "$WORK/$1.pod"),\"config\":{
    \"metadata\":{\"name\":\"$2\",\"attempt\":${attempt-0}},\"image\":{\"image\":\"$image\"},\"command\":${command-[\"sh\",\"-c\",\"$shell\"]},\"log_path\":\"$2.log\",
    \"linux\":{\"resources\":{${resources-}},\"security_context\":{\"namespace_options\":${options-$pod_options}${security:+,$security}}}${more:+,$more}}}" container_id)
}
start() { call StartContainer "{\"container_id\":\"${id[$1]}\"}"; }
started() { create "$@"; start "$2" >/dev/null; }
stop() { call StopContainer "{\"container_id\":\"${id[$1]}\",\"timeout\":${2-5}}"; }
remove() { call RemoveContainer "{\"container_id\":\"${id[$1]}\"}"; }
status() { call ContainerStatus "{\"container_id\":\"${id[$1]}\"}" "status.$2"; }
is() { [ "$(status "$1" state)" = "CONTAINER_$2" ]; }
# How a container ended, or that it did not.
end_of() { until_true is "$1" EXITED; echo "$(status "$1" state) $(status "$1" exit_code) $(status "$1" reason)"; }
# What a container printed, once it ended: POD NAME COMMAND.
output() { started "$@"; until_true is "$2" EXITED || echo "no end: $(status "$2" state)"; said "$1" "$2"; remove "$2" >/dev/null; rm "$WORK/logs/$1/$2.log"; }
pod_state() { call PodSandboxStatus "{\"pod_sandbox_id\":\"${id[$1]}\"}" status.state; }
stop_pod() { call StopPodSandbox "{\"pod_sandbox_id\":\"${id[$1]}\"}"; }
remove_pod() { call RemovePodSandbox "{\"pod_sandbox_id\":\"${id[$1]}\"}"; }
# Lines of a log without their times, and what they say alone.
log() { cut -d' ' -f2- "$WORK/logs/$1/$2.log" | paste -sd,; }
said() { cut -d' ' -f4- "$WORK/logs/$1/$2.log" | tr -d '\r' | paste -sd,; }
prints() { grep -q "$3" "$WORK/logs/$1/$2.log"; }
alive() { until_true prints "$1" "$2" begun; }
# Begins, with the two images.
begin_with_images() {
  begin
  busybox_tar "$WORK/bb.tar"
  image_tar "$WORK/bb.image" $image "$WORK/bb.tar" '{"Cmd":["/bin/sh"],"Env":["PATH=/bin"]}'
  # The pod's own container: one program and nothing else, as Kubernetes' `pause`.
  mkdir -p "$WORK/pause/bin"; cp /bin/busybox "$WORK/pause/bin/sleep"
  tar -C "$WORK/pause" -cf "$WORK/pause.tar" .
  image_tar "$WORK/pause.image" localhost/pause:1 "$WORK/pause.tar" '{"Entrypoint":["/bin/sleep","1000000"]}'
  for file in bb pause; do ctr -a "$CRI_SOCKET" -n k8s.io images import "$WORK/$file.image" >/dev/null; done
}
