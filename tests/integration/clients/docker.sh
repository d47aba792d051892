#!/bin/bash
# dockerd and docker, with the runtime in RUNTIME.
. "$(dirname "$0")/lib.sh"
dockerd_begin cgroupfs
state() { d inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }

check run hello "$(d "${run[@]}" --rm $image echo hello)"
d "${run[@]}" --rm $image sh -c 'exit 6' >/dev/null; check run-status 6 $?
d "${run[@]}" --rm $image nosuch >/dev/null; check run-not-found 127 $?
d "${run[@]}" --rm $image /etc/passwd >/dev/null; check run-not-executable 126 $?
check run-stdin fed "$(echo fed | d "${run[@]}" -i --rm $image cat)"
check run-tty '/dev/pts/*' "$(on_tty "docker -H unix://$WORK/d.sock ${run[*]} -it --rm $image sh -c 'tty; sleep 0.5'")"
check hostname boat "$(d "${run[@]}" --rm --hostname boat $image hostname)"
check user '65534 65534' "$(d "${run[@]}" --rm --user 65534:65534 $image sh -c 'echo $(id -u) $(id -g)')"
check read-only '*Read-only file system*' "$(d "${run[@]}" --rm --read-only $image touch /x)"
mkdir -p "$WORK/volume"; echo from-host >"$WORK/volume/a"
check volume from-host "$(d "${run[@]}" --rm -v "$WORK/volume:/v" $image cat /v/a)"
d volume create data >/dev/null; d "${run[@]}" --rm -v data:/d $image sh -c 'echo kept >/d/f'
check named-volume kept "$(d "${run[@]}" --rm -v data:/d $image cat /d/f)"
d volume rm data >/dev/null
check cap-drop '*0000000000000000' "$(d "${run[@]}" --rm --cap-drop ALL $image grep CapEff /proc/self/status)"
check tmpfs tmpfs "$(d "${run[@]}" --rm --tmpfs /t:size=1m $image sh -c "grep ' /t ' /proc/mounts | cut -d' ' -f3")"
check ulimit 100 "$(d "${run[@]}" --rm --ulimit nofile=100:100 $image sh -c 'ulimit -n')"
check init '*' "$(d "${run[@]}" --rm --init $image echo init)"
d "${run[@]}" --name keeps $image sh -c 'echo x >>/written; wc -l </written' >/dev/null
check rootfs-kept 2 "$(d start -a keeps)"
check commit x "$(d commit keeps committed >/dev/null; d "${run[@]}" --rm committed head -1 /written)"
check diff '*A /written*' "$(d diff keeps)"
d rm -f keeps >/dev/null

d "${run[@]}" -d --name stays $image sh -c 'trap "exit 3" TERM; trap "exit 5" USR1; echo begun; while :; do sleep 0.1; done' >/dev/null
check detached running "$(state stays)"
sleep 0.5; check logs begun "$(d logs stays)"
check exec 'in 0' "$(d exec stays sh -c 'echo in $(id -u)')"
d exec stays sh -c 'exit 9' >/dev/null; check exec-status 9 $?
d exec stays nosuch >/dev/null; check exec-not-found '12[67]' $?
check exec-stdin fed "$(echo fed | d exec -i stays cat)"
check exec-user 65534 "$(d exec --user 65534 stays id -u)"
check exec-tty '/dev/pts/*' "$(on_tty "docker -H unix://$WORK/d.sock exec -it stays sh -c 'tty; sleep 0.5'")"
check exec-detached 5 "$(d exec -d stays sh -c 'echo 5 >/tmp/d'; sleep 0.5; d exec stays cat /tmp/d)"
check top '*PID*[0-9]*' "$(d top stays)"
check stats '*stays*' "$(d stats --no-stream stays --format '{{.Name}} {{.PIDs}}')"
d pause stays >/dev/null; check pause paused "$(state stays)"
d unpause stays >/dev/null; check unpause running "$(state stays)"
check update '*stays*' "$(d update --memory 64m --memory-swap 64m stays)"
d kill -s USR1 stays >/dev/null; until_true exited stays; check kill-signal 5 "$(d inspect --format '{{.State.ExitCode}}' stays)"
d start stays >/dev/null; sleep 0.3; d stop -t 5 stays >/dev/null; check stop 3 "$(d inspect --format '{{.State.ExitCode}}' stays)"
d start stays >/dev/null; d kill stays >/dev/null; until_true exited stays; check kill 137 "$(d inspect --format '{{.State.ExitCode}}' stays)"
d start stays >/dev/null; d rm -f stays >/dev/null; check rm-gone '' "$(d ps -aq)"
check wait 4 "$(d "${run[@]}" -d --name waits $image sh -c 'sleep 0.3; exit 4' >/dev/null; d wait waits)"; d rm -f waits >/dev/null
d "${run[@]}" -dit --name screen $image sh >/dev/null
check attach '*12*' "$( (sleep 1; echo 'echo $((3*4))'; sleep 1; echo exit; sleep 1) | script -qec "docker -H unix://$WORK/d.sock attach screen" /dev/null | tr -d '\0\r')"
d rm -f screen >/dev/null
d "${run[@]}" -d --restart on-failure:2 --name again $image sh -c 'exit 1' >/dev/null
sleep 3; check restart-policy 2 "$(d inspect --format '{{.RestartCount}}' again)"; d rm -f again >/dev/null
d "${run[@]}" -d --name healthy --health-cmd 'test -e /etc/passwd' --health-interval 1s $image sleep 100 >/dev/null
health() { d inspect --format '{{.State.Health.Status}}' healthy; }
is_healthy() { [ "$(health)" = healthy ]; }
until_true is_healthy; check healthcheck healthy "$(health)"; d rm -f healthy >/dev/null

# A network of its own: names are asked of Docker, at an address within.
d network create lan >/dev/null
d run -d --name server --network lan $image sh -c 'mkdir /w; echo from server >/w/index.html; httpd -f -p 80 -h /w' >/dev/null
serves() { d run --rm --network lan $image wget -qO- http://server/ | grep -q from; }
until_true serves; check network 'from server' "$(d run --rm --network lan $image wget -qO- http://server/)"
check names '*127.0.0.11*' "$(d run --rm --network lan $image cat /etc/resolv.conf)"
check no-such-name '*bad address*' "$(d run --rm --network lan $image wget -qO- http://nobody/)"
d rm -f server >/dev/null; check network-rm lan "$(d network rm lan)"

d rmi -f $image committed >/dev/null
dockerd_end
