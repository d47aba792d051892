#!/bin/bash
# podman's networks, with the runtime in RUNTIME: bridges of netavark with addresses, names, published ports, pods.
. "$(dirname "$0")/lib.sh"
podman_conf 'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]'
image=localhost/bb:latest
net=cdn$$
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@" 2>&1; }
q() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@" 2>/dev/null; }
gone() { p rm -f -t 0 "$@" >/dev/null; }
# What a server says on a connection, tried until it says something.
ask() { # ADDRESS PORT
  local n said
  for n in $(seq 60); do
    said=$(timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2 && echo hello >&3 && head -1 <&3" 2>/dev/null)
    [ -n "$said" ] && break
    sleep 0.1
  done
  echo "$said"
}
busybox_tar "$WORK/bb.tar"
p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" "$image" >/dev/null
p network create --subnet 10.98.7.0/24 --ipv6 --subnet fd98:7::/64 $net >/dev/null

check address '10.98.7.*' "$(q run --rm --network $net $image sh -c "ip -4 -o addr show eth0 | grep -o '10[0-9.]*' | head -1")"
check address6 'fd98:7*' "$(q run --rm --network $net $image sh -c "ip -6 -o addr show eth0 | grep -o 'fd98[0-9a-f:]*' | head -1")"
check fixed-address '10.98.7.77' "$(q run --rm --network $net:ip=10.98.7.77 $image sh -c "ip -4 -o addr show eth0 | grep -o '10[0-9.]*' | head -1")"
check fixed-mac '02:00:00:11:22:33' "$(q run --rm --network $net:mac=02:00:00:11:22:33 $image cat /sys/class/net/eth0/address)"
check route '*default via 10.98.7.1 dev eth0*' "$(p run --rm --network $net $image ip route)"
check loopback '127.0.0.1' "$(p run --rm --network none $image sh -c "ip -4 -o addr | grep -o '127[0-9.]*' | head -1")"
check none 'lo' "$(p run --rm --network none $image sh -c "ip -o link | cut -d: -f2 | tr -d ' \n'")"
check ping '*1 packets received*' "$(p run --rm --network $net $image ping -c 1 -W 5 10.98.7.1)"
check ping6 '*1 packets received*' "$(p run --rm --network $net $image ping -6 -c 1 -W 5 fd98:7::1)"

# Its server, published on the host.
p run -d --name web --network $net -p 127.0.0.1:18080:80 -p 18081:81/udp $image sh -c '
  (while :; do nc -l -p 80 -e sh -c "read a; echo got \$a"; done) & while :; do echo pong | nc -u -l -p 81 -w 1; done' >/dev/null
check published 'got hello' "$(ask 127.0.0.1 18080)"
own=$(p inspect --format "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}" web)
check by-address 'got hello' "$(ask "$own" 80)"
check inspect '10.98.7.*' "$own"
check port '*18080*' "$(p port web)"
# Others of its network: by address and by name.
check other-container 'got hi' "$(p run --rm --network $net $image sh -c "echo hi | timeout 5 nc $own 80")"
check by-name 'got hi' "$(p run --rm --network $net $image sh -c "echo hi | timeout 5 nc web 80")"
check exec-network '*10.98.7.*' "$(p exec web ip addr show eth0)"
p restart -t 0 web >/dev/null
check after-restart 'got hello' "$(ask 127.0.0.1 18080)"
gone web

# A pod has one network.
p pod create --name boats --network $net -p 127.0.0.1:18082:80 >/dev/null
p run -d --pod boats --name bow $image sh -c 'while :; do nc -l -p 80 -e sh -c "read a; echo pod \$a"; done' >/dev/null
check pod-published 'pod hello' "$(ask 127.0.0.1 18082)"
check pod-localhost 'pod hi' "$(p run --rm --pod boats $image sh -c 'for n in 1 2 3 4 5 6 7 8 9; do echo hi | timeout 5 nc 127.0.0.1 80 && break; sleep 0.2; done')"
p pod rm -f -t 0 boats >/dev/null

# The host's own network: its interfaces, its ports, also those that need a right, and what listens at its loopback address.
p run -d --name bare --network host $image sh -c 'while :; do nc -l -p 87 -s 127.0.0.1 -e sh -c "read a; echo bare \$a"; done' >/dev/null
check host-port 'bare hello' "$(ask 127.0.0.1 87)"
check host-port-taken '*in use*' "$(p run --rm --network host $image nc -l -p 87 -s 127.0.0.1)"
check host-loopback 'bare hi' "$(p run --rm --network host $image sh -c "echo hi | timeout 5 nc 127.0.0.1 87")"
check host-exec 'bare from exec' "$(p exec bare sh -c "echo from exec | timeout 5 nc 127.0.0.1 87")"
hosts=$(ip -4 -o addr show scope global up | awk '$2 !~ /^(podman|docker|cni|veth)/ {sub("/.*", "", $4); print $4}' | sort)
check host-addresses "$hosts" "$(p run --rm --network host $image sh -c "ip -4 -o addr show scope global" | awk '$2 !~ /^(podman|docker|cni|veth)/ {sub("/.*", "", $4); print $4}' | sort)"
p restart -t 0 bare >/dev/null
check host-after-restart 'bare hello' "$(ask 127.0.0.1 87)"
gone bare

p network rm -f $net >/dev/null
p rmi -f $image >/dev/null
