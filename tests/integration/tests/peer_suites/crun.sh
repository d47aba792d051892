#!/bin/bash
# crun's own tests (Python), from the source of Debian's package.
# crun.sh prepare SOURCE: makes what they need, once. crun.sh run SOURCE RUNTIME OUT: runs them with a runtime; OUT/FILE is what each file said.
set -eu
source=$2
# Left out: checkpoint_restore (criu does not work here), mounts (asks for libmount's Python module, which Debian has not by itself),
# seccomp (SCMP_ACT_NOTIFY is refused, docs/OCI.md), delete (freezes the process that stands for a container in a cgroup of the test's own,
# where crun itself at times fails; the other case is crun's own --regex).
files='capabilities cwd detach devices exec hooks hostname limits paths pid pid_file preserve_fds resources rlimits start tty uid_gid
  update'

prepare() {
  printf '#define HAVE_ERROR_H 1\n' >"$source/config.h"
  # What a test leaves running goes before its state does.
  sed -i 's/^        shutil.rmtree(tests_root)/        for left in run_crun_command(["list", "-q"]).split(): run_crun_command(["delete", "-f", left])\n&/' \
    "$source/tests/tests_utils.py"
  grep -q 'for left in' "$source/tests/tests_utils.py"
  # It takes any state for `created`.
  sed -i 's/^                break$/                if "creating" not in s: break\n                time.sleep(0.1)/' "$source/tests/test_start.py"
  grep -q 'if "creating" not' "$source/tests/test_start.py"
  # It wants a pid of five digits.
  sed -i 's/\\d{5}/\\d+/' "$source/tests/test_exec.py"
  gcc -static -I"$source" -O1 -o "$source/tests/init" "$source/tests/init.c"
}

run() {
  local file
  # crun refuses hybrid hosts: none of its cgroups of version 2 here, which goes for both.
  [ -n "${ALONE:-}" ] || ALONE=1 exec unshare -m --propagation private "$0" run "$source" "$@"
  umount /sys/fs/cgroup/unified 2>/dev/null || true
  export OCI_RUNTIME=$1 INIT=$source/tests/init TMPDIR=$2/tmp PYTHONDONTWRITEBYTECODE=1
  if [ "$1" != /usr/bin/crun ]; then
    # Flags of crun's own, which runc has not: they are translated. All that the tests want of `config` is another name of the document.
    cat >"$2/runtime" <<WORDS
#!/bin/bash
words=()
while [ \$# -gt 0 ]; do
  case \$1 in
    --cgroup-manager) shift ;;
    --config) [ "\$2" = config.json ] || cp "\$2" config.json; shift ;;
    *) words+=("\$1") ;;
  esac
  shift
done
exec $1 "\${words[@]}"
WORDS
    chmod +x "$2/runtime"
    OCI_RUNTIME=$2/runtime
  fi
  mkdir -p "$TMPDIR"
  cd "$TMPDIR"
  for file in $files; do
    # Each from a folder without a ./tests/init: what only that would run is left out.
    timeout -k 5 60 script -qefc "/usr/bin/python3 $source/tests/test_$file.py >$2/$file" /dev/null </dev/null >"$2/tmp/err.$file" 2>&1 || true
  done
}

"$1" "${@:3}"
