#!/bin/bash
# podman's own system tests (bats), from the source of Debian's package.
# podman.sh prepare SOURCE: makes what they need, once. podman.sh run SOURCE RUNTIME OUT: runs them with a runtime; OUT/FILE is what each file said.
set -eu
source=$2
tests=$source/test/system
# Left out: files of what podman does without a runtime (images, pull, tags, login, events, completion, help, system service, df...), of
# what there is none of here (journald, systemd: 220-healthcheck, 250-systemd, 260-sdnotify, 420-cgroups; SELinux, criu, slirp4netns), of
# networks (500-networking, as there is no netd yet) and of limits that no device here has (180-blkio); 170-run-userns asks for crun or cgroups
# of version 2, but for one test. Of the files that are run podman.left names what is not. What runs at the same time is a line.
files=(
  '030-run 032-sig-proxy 035-logs 040-ps'
  '045-start 050-stop 055-rm 060-mount 070-build 075-exec 080-pause 125-import'
  '065-cp 130-kill 140-diff'
  '160-volumes 190-run-ipcns 200-pod 280-update 300-cli-parsing 400-unprivileged-access 450-interactive 700-play'
)
[ -z "${FILES:-}" ] || IFS=: read -ra files <<<"$FILES"

prepare() {
  local work root applet sum
  work=$(mktemp -d)
  # The tests' image without a registry (build-testimage in the source says what is in it): busybox under all its names instead of Alpine.
  root=$work/root
  mkdir -p "$root"/{bin,dev,etc,home/podman,mnt,opt,proc,root,run,sbin,srv,sys,tmp,usr/bin,usr/lib,usr/local,usr/sbin,var/lib,var/log,var/tmp}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
  done
  ln "$root/bin/busybox" "$root/usr/bin/nsenter"
  # Debian's busybox has none.
  gcc -static -O1 -o "$root/bin/printenv" -x c - <<'PROGRAM'
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words, char **environment) {
  const char *value = count > 1 ? getenv(words[1]) : NULL;
  if (count > 1) return value ? puts(value) < 0 : 1;
  while (*environment) puts(*environment++);
  return 0;
}
PROGRAM
  printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:2:2:daemon:/sbin:/sbin/nologin nobody:x:65534:65534:nobody:/:/sbin/nologin >"$root/etc/passwd"
  printf '%s\n' root:x:0:root daemon:x:2:root tty:x:5: nogroup:x:65533: nobody:x:65534: >"$root/etc/group"
  printf '%s\n' 'NAME="Alpine Linux"' ID=alpine VERSION_ID=3.16.0 >"$root/etc/os-release"
  echo 3.16.0 >"$root/etc/alpine-release"
  echo 'Welcome to Alpine Linux 3.16' >"$root/etc/issue"
  printf 'domain\t53/tcp\n' >"$root/etc/services"
  ln -s /proc/mounts "$root/etc/mtab"
  echo 20220615 >"$root/home/podman/testimage-id"
  touch --date=@1600000000 "$root/home/podman/testimage-id"
  printf '#!/bin/sh\necho Confirmed: testimage pause invoked as $0\nwhile :; do sleep 0.1; done\n' >"$root/home/podman/pause"
  chmod 755 "$root/home/podman/pause"
  chmod 555 "$root"
  tar -C "$root" -cf "$work/layer.tar" .
  sum=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  cat >"$work/config.json" <<CONFIG
{"architecture": "amd64", "os": "linux", "created": "2022-06-15T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]},
 "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/home/podman",
  "Cmd": ["/bin/echo", "This container is intended for podman CI testing"],
  "Labels": {"created_by": "test/system/build-testimage", "created_at": "2022-06-15T00:00:00Z"}},
 "history": [{"created": "2022-06-15T00:00:00Z", "created_by": "podman.sh"}]}
CONFIG
  printf '[{"Config":"config.json","RepoTags":["quay.io/libpod/testimage:20220615"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$tests/testimage.tar" manifest.json config.json layer.tar
  rm -rf "$work"
}

run() {
  local runtime=$1 out=$2 shard shards=() file status=0
  cp -r "$tests" "$out/tests"
  # The tests clear up after themselves: once each is enough, and no network is made that `network prune` would find.
  sed -i -e '/^    # Clean up all containers$/,/^    # Argh/d' -e '/network prune --force/d' "$out/tests/helpers.bash"
  for file in "$out"/tests/*.bats; do
    awk -v file="$(basename "$file" .bats)" 'NR == FNR { split($0, part, " [|] "); left["@test \"" part[2] "\" {"] = part[1] == file; next }
      left[$0] { $0 = "left_" FNR "() {" } { print }' "${0%.sh}.left" "$file" >"$out/edited"
    mv "$out/edited" "$file"
  done
  for shard in "${!files[@]}"; do
    unshare -mnpf --mount-proc --propagation private --kill-child "$0" shard "$source" "$runtime" "$out" "$shard" &
    shards+=($!)
  done
  for shard in "${shards[@]}"; do wait "$shard" || status=1; done
  return $status
}

# Some of the files, in namespaces of their own: what podman has on the host (/run, its storage, locks in /dev/shm, networks) is theirs
# alone, beside other podmans, and goes with them.
shard() {
  local runtime=$1 out=$2 host=$2/host/$3 place file id tries left status=0
  ip link set lo up
  mount -t tmpfs tmpfs /dev/shm
  for place in run var/lib/containers var/cache/containers var/tmp etc/containers; do
    mkdir -p "$host/$place" "/$place"
    [ $place != etc/containers ] || cp -r /etc/containers/. "$host/etc/containers"
    mount --bind "$host/$place" "/$place"
  done
  chmod 1777 /var/tmp
  # Only cgroups that there are: podman makes folders for others, too, and fails as it cannot remove those.
  mkdir /run/cgroup
  mount -t tmpfs tmpfs /run/cgroup
  for place in /sys/fs/cgroup/*; do
    mountpoint -q "$place" || continue
    mkdir "/run/cgroup/${place##*/}"
    mount --bind "$place" "/run/cgroup/${place##*/}"
  done
  mount --rbind /run/cgroup /sys/fs/cgroup
  mount -o remount,bind,ro /sys/fs/cgroup
  umount -l /run/cgroup
  # Nothing else of the host's is theirs to write: a copy into a container must end up there. A /tmp of their own, with this test's folder.
  mkdir /run/folder
  mount --rbind "$(dirname "$out")" /run/folder
  mount -t tmpfs tmpfs /tmp
  mkdir -p "$(dirname "$out")"
  mount --rbind /run/folder "$(dirname "$out")"
  umount -l /run/folder
  mount -o remount,bind,ro /
  cat >/etc/containers/containers.conf <<CONF
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "$runtime"
CONF
  printf '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n' >/etc/containers/storage.conf
  export TMPDIR=$host/tmp HOME=$host/home PODMAN_TIMEOUT=30
  mkdir -p "$TMPDIR" "$HOME"
  podman load -q -i "$tests/testimage.tar" >/dev/null
  cd "$out/tests"
  for file in ${files[$3]}; do
    timeout -k 5 300 bats --tap ${TIMING:+-T} "$file.bats" >"$out/$file" 2>&1 </dev/null || true
  done
  # Nothing may be left: here all processes are this shard's, and its first one is this shell.
  for tries in {1..100}; do
    left=(/proc/[0-9]*)
    [ ${#left[@]} -gt 1 ] || break
    sleep 0.1
  done
  [ ${#left[@]} = 1 ] || { echo "processes are left:"; ps -ef; status=1; }
  for id in $(jq -r 'select(.Type == "container").ID' /run/libpod/events/events.log | sort -u); do
    for left in /sys/fs/cgroup/*/libpod_parent/*"$id"*; do
      [ ! -e "$left" ] || { echo "a cgroup is left: $left"; find "$left" -depth -type d -exec rmdir {} + || true; status=1; }
    done
  done
  return $status
}

"$1" "${@:3}"
