# Before each scenario: W has what was prepared, T is a folder of one's own, the server is at A and A6.
set -euo pipefail
umask 022
fail() { echo "FAILED: $*"; exit 1; }
# Waits until somebody listens there.
up() { # HOST PORT
  local n
  for n in $(seq 400); do
    # shellcheck disable=SC2188
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return
    sleep 0.1
  done
  fail "nobody listens at $1, $2"
}
md5() { md5sum | cut -d' ' -f1; }
# Files of random content, always the same: a name and a size each.
files() { # NAME BYTES ...
  python3 -c 'import random, sys
r = random.Random(1)
a = sys.argv[1:]
for name, size in zip(a[::2], a[1::2]):
    open(name, "wb").write(r.randbytes(int(size)))' "$@"
}
# A certificate for both ends: cert.pem, key.pem.
certificate() {
  openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=cofferdam \
    -addext subjectAltName=IP:10.99.0.1,IP:10.99.0.2,DNS:localhost 2>/dev/null
  chmod 644 key.pem
}
prepare() { :; }
main() {
  case $0 in
    prepare) prepare ;;
    ask) ask ;;
    serve)
      serve >&2
      echo ready
      # Until whoever started it has heard enough.
      cat >/dev/null
      # shellcheck disable=SC2046
      kill $(jobs -p)
      wait || true
      ;;
  esac
}
