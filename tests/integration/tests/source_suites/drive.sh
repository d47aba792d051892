#!/bin/bash
# drive.sh SUITE SOURCE: makes a suite ready in its source. drive.sh SUITE SOURCE OUT: runs it, two tests at a time; what each said, and its
# status, is then in OUT.
set -u
suite=$1 source=$2
. "$suite"
cd "$source" || exit
[ $# = 3 ] || { prepare; exit; }
export suite out=$3
kept() {
  . "$suite"
  (ulimit -t 120; one "$1") >"$out/${1//\//_}" 2>&1 </dev/null
  echo "status $?" >>"$out/${1//\//_}"
}
export -f kept
list | xargs -P2 -I{} bash -c 'kept {}'
