#!/bin/bash
# runc's own tests (bats), from the source of Debian's package.
# runc.sh prepare SOURCE: makes what they need, once. runc.sh run SOURCE RUNTIME OUT: runs them with a runtime; OUT/FILE is what each file said.
set -eu
source=$2
tests=$source/tests/integration
# Left out: checkpoint (criu does not work here), seccomp-notify* (SCMP_ACT_NOTIFY is refused, docs/OCI.md), mounts_sshfs (no sshfs),
# cgroup_delegation (cgroup v2 only), hooks (they mount into the container's mount namespace on the host, which a sandbox has not).
files='create cwd debug delete dev events exec help kill list mask mounts mounts_recursive no_pivot pause ps root run seccomp spec start
  start_detached start_hello state tty umask userns version cgroups update'

prepare() {
  # Debian's Go libraries lie in a GOPATH.
  local gopath applet
  gopath=$(mktemp -d)
  mkdir -p "$gopath/src/github.com/opencontainers"
  ln -s "$source" "$gopath/src/github.com/opencontainers/runc"
  (cd "$gopath/src/github.com/opencontainers/runc/contrib/cmd/recvtty" &&
    GO111MODULE=off GOPATH="$gopath:/usr/share/gocode" GOCACHE="$gopath/cache" go build -o recvtty .)
  # The image without the network: one busybox under all its names, with the accounts of the image that the tests know.
  local root=$gopath/root
  mkdir -p "$root"/{bin,dev,etc,home,root,tmp,usr/sbin,var/www}
  chmod 1777 "$root/tmp"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
  done
  printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false \
    www-data:x:33:33:www-data:/var/www:/bin/false nobody:x:65534:65534:nobody:/home:/bin/false >"$root/etc/passwd"
  printf '%s\n' root:x:0: daemon:x:1: tty:x:5: www-data:x:33: users:x:100: nogroup:x:65534: >"$root/etc/group"
  tar -C "$root" -cf "$tests/busybox.tar" .
  printf '#!/bin/sh\necho BUSYBOX_IMAGE=%s/busybox.tar DEBIAN_IMAGE=\n' "$tests" >"$tests/get-images.sh"
  # A busybox is unpacked before recvtty listens: wait for it. And 10 seconds are short for what a debug build has to do there.
  sed -i 's|^\t("$RECVTTY" --pid-file .*|&\n\tuntil [ -S "$CONSOLE_SOCKET" ] \&\& [ -s "$dir/pid" ]; do sleep 0.01; done|' "$tests/helpers.bash"
  grep -q 'until \[ -S' "$tests/helpers.bash"
  sed -i 's/retry 10 1 grep -q oom/retry 60 1 grep -q oom/' "$tests/events.bats"
  grep -q 'retry 60 1' "$tests/events.bats"
  # It wants a git repository of the net's.
  sed -i '/^@test "spec validator"/,$d' "$tests/spec.bats"
  chmod -R u+w "$gopath"
  rm -rf "$gopath"
}

run() {
  local file
  cd "$tests"
  export RUNC=$1 TMPDIR=$2/tmp
  mkdir -p "$TMPDIR"
  for file in $files; do
    # With a terminal to control them, as runc wants one for a foreground container.
    timeout -k 5 60 script -qefc "bats --tap $file.bats >$2/$file 2>&1" /dev/null </dev/null >/dev/null || true
  done
  # What a failed test mounted.
  awk -v t="$TMPDIR/" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l || true
}

"$1" "${@:3}"
