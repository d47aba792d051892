#!/bin/bash
# What a network costs: servers and clients within, the others on the host's kernel at the other end of a pair of interfaces. Prints a row a
# line, a rate or nanoseconds. RUNTIME: an OCI runtime with its options, or nothing for the host's kernel; WORK: a folder of one's own.
set -uo pipefail
inner=cbi$$ outer=cbo$$ middle=cbm$$ bundle=$WORK/network
mkdir -p "$bundle/www"; chmod 755 "$WORK" "$bundle"
# Whoever is within, and what serves beyond.
running=()
trap 'stop; kill ${path:-} 2>/dev/null; for n in $inner $outer $middle; do ip netns del "$n" 2>/dev/null; done; rm -rf "$bundle"' EXIT
ip netns add $inner; ip netns add $outer
ip link add v0 netns $outer type veth peer name eth0 netns $inner
for at in "$outer v0 1" "$inner eth0 2"; do
  read -r namespace device n <<<"$at"
  ip -n "$namespace" link set lo up; ip -n "$namespace" addr add "10.99.0.$n/24" dev "$device"; ip -n "$namespace" link set "$device" up
done
sleep 1
beyond() { ip netns exec $outer "$@"; }
# A command within, to its end.
within() {
  if [ -z "${RUNTIME:-}" ]; then exec ip netns exec $inner "$@"; fi
  local id=bench-$BASHPID
  mkdir -p "$bundle/$id"
  python3 - "$bundle/$id/config.json" "/run/netns/$inner" "$@" <<'E'
import json, sys
file, namespace, *words = sys.argv[1:]
rights = ["CAP_" + c for c in "NET_RAW NET_BIND_SERVICE SETUID SETGID CHOWN DAC_OVERRIDE KILL".split()]
mount = lambda at, kind: {"destination": at, "type": kind, "source": kind}
namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")] + [{"type": "network", "path": namespace}]
json.dump({
    "ociVersion": "1.0.2",
    "process": {"args": words, "cwd": "/", "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": rights, "effective": rights, "permitted": rights}},
    "root": {"path": "/", "readonly": True},
    "mounts": [mount("/proc", "proc"), mount("/tmp", "tmpfs"), mount("/run", "tmpfs"), mount("/dev", "tmpfs")],
    "linux": {"namespaces": namespaces},
}, open(file, "w"))
E
  # shellcheck disable=SC2086
  exec $RUNTIME run --bundle "$bundle/$id" $id
}
# Starts a server within and waits until somebody beyond can connect to it.
serve() { # PORT COMMAND
  local port=$1 n; shift
  within "$@" >/dev/null 2>"$bundle/log" &
  running=($!)
  for n in $(seq 100); do
    beyond bash -c "exec 3<>/dev/tcp/10.99.0.2/$port" 2>/dev/null && return
    kill -0 "${running[0]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "network.sh: no server within: $*: $(tail -3 "$bundle/log")" >&2
  exit 1
}
stop() {
  [ ${#running[@]} = 0 ] || { kill "${running[@]}" 2>/dev/null; wait "${running[@]}" 2>/dev/null; }
  running=()
}
flow() { # ROW KEY ARGUMENTS
  local row=$1 key=$2; shift 2
  beyond iperf3 -J -t "${SECONDS_EACH:-2}" -c 10.99.0.2 "$@" | python3 -c 'import json, sys
end = json.load(sys.stdin)["end"]
key = sys.argv[2]
print(sys.argv[1], (end["sum"]["packets"] - end["sum"]["lost_packets"]) / end["sum"]["seconds"] if key == "packets" else end[key]["bits_per_second"])' "$row" "$key"
  sleep 0.3
}
serve 5201 iperf3 -s
flow 'iperf3 in, bit/s' sum_received
flow 'iperf3 out, bit/s' sum_received -R
flow 'iperf3 in, four streams, bit/s' sum_received -P 4
flow 'iperf3 out, four streams, bit/s' sum_received -P 4 -R
flow 'UDP of 100 B in, packets/s' packets -u -b 0 -l 100
flow 'UDP of 100 B out, packets/s' packets -u -b 0 -l 100 -R
stop

requests() { # WHERE ARGUMENTS: a row for each test
  local where=$1; shift
  sed 1d | tr -d '"' | awk -F, -v where="$where" '{ print "redis " $1 where ", requests/s " $2 }'
}
redis=(redis-server --bind 0.0.0.0 --protected-mode no --port 6379 --save '' --appendonly no)
serve 6379 "${redis[@]}"
beyond redis-benchmark -h 10.99.0.2 -t set,get -n 60000 -c 50 --csv 2>/dev/null | requests ''
beyond redis-benchmark -h 10.99.0.2 -t set,get -n 600000 -c 50 -P 16 --csv 2>/dev/null | requests ' with 16 at once'
stop

head -c 1024 /dev/urandom >"$bundle/www/small"; head -c 1048576 /dev/urandom >"$bundle/www/large"
cat >"$bundle/nginx.conf" <<C
daemon off; pid /tmp/cofferdam-bench-nginx.pid; error_log stderr crit; worker_processes 2; user root;
events { worker_connections 1024; }
http { access_log off; sendfile on; keepalive_requests 10000000; server { listen 8080 backlog=511; root $bundle/www; } }
C
serve 8080 nginx -c "$bundle/nginx.conf" -e stderr
web() { # ROW ARGUMENTS
  local row=$1; shift
  beyond wrk -t 2 -d 3 "$@" | awk -v row="$row" '/^Requests\/sec/ { print row " " $2 }'
}
web 'nginx, 1 KiB, requests/s' -c 20 http://10.99.0.2:8080/small
web 'nginx, 1 KiB, a connection each, requests/s' -c 20 -H 'Connection: close' http://10.99.0.2:8080/small
web 'nginx, 1 MiB, requests/s' -c 8 http://10.99.0.2:8080/large
stop

beyond ping -q -c 500 -i 0.002 10.99.0.2 >/dev/null
serve 6379 "${redis[@]}"
beyond ping -q -c 1000 -i 0.002 10.99.0.2 | awk -F/ '/^rtt/ { print "ping, round trip " $5 * 1e6 }'
stop
# All of it within.
(within bash -c 'iperf3 -s >/dev/null & sleep 0.5; iperf3 -J -t 2 -c 127.0.0.1; kill %1' </dev/null) |
  python3 -c 'import json, sys; print("iperf3 within, loopback, bit/s", json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"])'
(within bash -c "${redis[*]@Q} >/dev/null & sleep 0.5; redis-benchmark -t set,get -n 30000 -c 50 --csv; kill %1" </dev/null 2>/dev/null) |
  requests ' within, loopback'

# A path that loses two of a hundred frames, doubles one, and delays all by 2 to 4 ms, out of order (tests/integration/tests/network/path.py).
ip netns add $middle
ip -n $outer link set v0 netns $middle name m0
ip link add v0 netns $outer type veth peer name m1 netns $middle
ip -n $outer addr add 10.99.0.1/24 dev v0
for at in "$outer v0" "$middle m0" "$middle m1" "$inner eth0"; do
  read -r namespace device <<<"$at"
  ip -n "$namespace" link set "$device" up
  ip netns exec "$namespace" ethtool -K "$device" tso off gso off gro off tx off >/dev/null
done
ip netns exec $middle python3 "$(dirname "$0")/../../tests/integration/tests/network/path.py" m0 m1 >/dev/null &
path=$!
sleep 1
serve 5201 iperf3 -s
for row in in out; do
  # What a host has for a default would be compared with it else (BBR takes no loss for a sign).
  SECONDS_EACH=8 flow "iperf3 over a bad path (CUBIC), $row, bit/s" sum_received -C cubic $([ $row = in ] || echo -R)
done
stop
