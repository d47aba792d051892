# What the client scripts share. Each prints a line a check: `ok NAME`, or `not ok NAME` with what was wanted and what came.
# RUNTIME: the OCI runtime under test. WORK: a folder of the test's own, under which everything lies.
set -u
export LC_ALL=C
check() { # NAME WANTED GOT
  if [[ "$3" == $2 ]]; then echo "ok $1"; else echo "not ok $1: wanted $(printf %q "$2"), got $(printf %q "$3")"; fi
}
# Waits until a command succeeds, ten seconds at most.
until_true() {
  local n
  for n in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  return 1
}
# A tar archive of a rootfs of busybox alone.
busybox_tar() { # FILE
  local root=$WORK/busybox applet
  mkdir -p "$root"/{bin,tmp,etc,proc,sys,dev}
  cp /bin/busybox "$root/bin/busybox"
  for applet in $(/bin/busybox --list); do ln -f "$root/bin/busybox" "$root/bin/$applet" 2>/dev/null; done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  chmod 1777 "$root/tmp"
  tar -C "$root" -cf "$1" .
}
# An image of one layer, as docker-archive, made by hand: ARCHIVE NAME LAYER CONFIG, where CONFIG is JSON of what a container of it runs.
image_tar() {
  local image=$1.d sum
  mkdir -p "$image"; cp "$3" "$image/layer.tar"
  sum=$(sha256sum "$3" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$4" "$sum" >"$image/config.json"
  printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$2" >"$image/manifest.json"
  tar -C "$image" -cf "$1" manifest.json config.json layer.tar
}
# An ordinary user, who may go to WORK and has an image of busybox and a copy of RUNTIME there: the test's own folders are the caller's.
user=cofferdam-rootless
new_user() {
  local part
  userdel -rf $user >/dev/null 2>&1
  useradd --create-home --home-dir "$WORK/home" --shell /bin/bash $user || exit 1
  busybox_tar "$WORK/bb.tar"
  chmod 755 "$WORK"
  chmod 644 "$WORK/bb.tar"
  mkdir "$WORK/bin"
  cp "$RUNTIME" "$WORK/bin/"
  for part in supervisor sentry gofer netd; do cp "$RUNTIME-$part" "$WORK/bin/" 2>/dev/null; done
  chown $user: "$WORK"
}
# Whatever stays of the user would keep the mounts of its namespace.
remove_user() { pkill -KILL -u $user; sleep 0.3; userdel -rf $user 2>/dev/null; }
# A program of awk's that fills 256 MiB by itself.
hungry='BEGIN{s=1;for(i=0;i<28;i++)s=s s}'
# What a command prints on a terminal. Without what script(1) and the terminal add; nothing is typed.
on_tty() { script -qec "$*" /dev/null </dev/null 2>&1 | tr -d '\r' | sed 's/^\^@//'; }
# Points podman at a configuration of the test's own, with these lines for its containers.
podman_conf() { # LINES
  export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
  cat >"$CONTAINERS_CONF" <<EOF
[containers]
$1
[engine]
cgroup_manager = "${CGROUPS-cgroupfs}"
events_logger = "file"
EOF
  cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "overlay"
graphroot = "$WORK/graph"
runroot = "$WORK/run"
EOF
}
# A containerd of the test's own, without CRI, and `c`, which speaks to it.
containerd_begin() {
  mkdir -p "$WORK/root" "$WORK/state"
  cat >"$WORK/config.toml" <<EOF
version = 2
root = "$WORK/root"
state = "$WORK/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$WORK/c.sock"
EOF
  containerd --config "$WORK/config.toml" >"$WORK/containerd.log" 2>&1 &
  daemon=$! space=t$$
  c() { timeout 30 ctr -a "$WORK/c.sock" -n $space "$@" 2>&1; }
  until_true c version
}
containerd_end() { # IMAGE
  c images rm "$1" >/dev/null
  c namespaces rm $space >/dev/null
  kill $daemon; wait $daemon 2>/dev/null
}
# A dockerd of the test's own, with this driver of cgroups and an image of busybox, and `d`, which speaks to it.
dockerd_begin() { # DRIVER
  cat >"$WORK/daemon.json" <<EOF
{"data-root": "$WORK/data", "exec-root": "$WORK/exec", "pidfile": "$WORK/pid", "hosts": ["unix://$WORK/d.sock"],
 "storage-driver": "overlay2", "bridge": "none", "iptables": false, "ip-forward": false, "exec-opts": ["native.cgroupdriver=$1"],
 "runtimes": {"tested": {"path": "$RUNTIME"}}, "default-runtime": "tested"}
EOF
  /usr/sbin/dockerd --config-file "$WORK/daemon.json" >"$WORK/dockerd.log" 2>&1 &
  daemon=$! image=bb:latest run=(run --network none)
  d() { timeout 60 /usr/bin/docker -H "unix://$WORK/d.sock" "$@" 2>&1; }
  until_true d info
  busybox_tar "$WORK/bb.tar"
  d import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" $image >/dev/null
}
dockerd_end() {
  kill $daemon; wait $daemon 2>/dev/null
  rm -rf "$WORK/data" "$WORK/exec"
}
