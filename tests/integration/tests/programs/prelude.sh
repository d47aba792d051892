# Comes before every case: an empty directory to work in, the same environment everywhere, errors in order, and an
# end at the first command that fails.
set -eu
exec 2>&1 < /dev/null
export LC_ALL=C TZ=UTC HOME=/nonexistent
umask 022
work=$(mktemp -d /tmp/case.XXXXXX)
trap 'cd /; rm -rf "$work"' EXIT
cd "$work"
# What a program leaves behind goes with the directory.
export TMPDIR=$work
# The status of a command that is meant to fail; what the shell itself says of its death, with a pid, is left out.
status() { local s=0; { "$@" 2>&3; } 3>&2 2> /dev/null || s=$?; echo "$1: status $s"; }
