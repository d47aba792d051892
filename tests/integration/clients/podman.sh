#!/bin/bash
# podman, with the runtime in RUNTIME: its own commands, each seen to do what it says.
. "$(dirname "$0")/lib.sh"
podman_conf 'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]'
image=localhost/bb:latest
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@" 2>&1; }
gone() { p rm -f -t 0 "$@" >/dev/null; }
state() { p inspect --format '{{.State.Status}}' "$1"; }
exited() { [ "$(state "$1")" = exited ]; }

busybox_tar "$WORK/bb.tar"
p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" "$image" >/dev/null

check run 'hello' "$(p run --rm $image echo hello)"
p run --rm $image sh -c 'exit 7' >/dev/null; check run-status 7 $?
check run-signal '*137*' "$(p run --rm $image sh -c 'sh -c "kill -9 \$\$"; echo $?')"
p run --rm $image nosuch >/dev/null; check run-not-found 127 $?
p run --rm $image /etc/passwd >/dev/null; check run-not-executable 126 $?
check run-stdin 'abc' "$(echo abc | p run -i --rm $image cat)"
check run-big-output '20000' "$(p run --rm $image seq 20000 | tail -1)"
check run-stderr 'e' "$(p run --rm $image sh -c 'echo o; echo e >&2' 2>&1 >/dev/null || true; p run --rm $image sh -c 'echo e >&2')"
check env 'v w' "$(p run --rm -e A=v -e B=w $image sh -c 'echo $A $B')"
check workdir '/tmp' "$(p run --rm -w /tmp $image pwd)"
check hostname 'boat' "$(p run --rm --hostname boat $image hostname)"
check user '65534:65534' "$(p run --rm --user 65534:65534 $image sh -c 'echo $(id -u):$(id -g)')"
check user-by-name '65534' "$(p run --rm --user nobody $image id -u)"
check groups '*7 8 *' "$(p run --rm --group-add 7 --group-add 8 $image id -G | tr ' ' '\n' | sort -n | tr '\n' ' ')"
check read-only '*Read-only file system*' "$(p run --rm --read-only $image touch /x)"
check read-only-tmp 'fine' "$(p run --rm --read-only $image sh -c 'touch /tmp/x && echo fine')"
mkdir -p "$WORK/volume"; echo from-host >"$WORK/volume/a"
check volume 'from-host' "$(p run --rm -v "$WORK/volume:/v" $image cat /v/a)"
p run --rm -v "$WORK/volume:/v" $image sh -c 'echo inside >/v/b'
check volume-write 'inside' "$(cat "$WORK/volume/b")"
check volume-ro '*Read-only file system*' "$(p run --rm -v "$WORK/volume:/v:ro" $image touch /v/c)"
check volume-overlay 'from-host changed' "$(p run --rm -v "$WORK/volume:/v:O" $image sh -c 'cat /v/a; echo changed >/v/a; rm /v/b; cat /v/*' | tr '\n' ' ' | sed 's/ $//')"
check volume-overlay-kept 'from-host inside' "$(cat "$WORK/volume/"* | tr '\n' ' ' | sed 's/ $//')"
mkdir -p "$WORK/upper" "$WORK/work"
laid() { p run --rm -v "$WORK/volume:/v:O,upperdir=$WORK/upper,workdir=$WORK/work" $image sh -c "$1" | tr '\n' ' ' | sed 's/ $//'; }
laid 'echo c >/v/c; rm /v/b' >/dev/null
check volume-upper 'a c' "$(laid 'ls /v')"
check volume-upper-outside 'b c' "$(ls "$WORK/upper" | tr '\n' ' ' | sed 's/ $//')"
check mount-image 'sh *Read-only file system*' "$(p run --rm --mount type=image,source=$image,destination=/i $image sh -c 'ls /i/bin | grep -x sh; touch /i/x' | tr '\n' ' ')"
check mount-image-rw 'sh x' "$(p run --rm --mount type=image,source=$image,destination=/i,rw=true $image sh -c 'ls /i/bin | grep -x sh; touch /i/x; ls /i | grep x' | tr '\n' ' ' | sed 's/ $//')"
p volume create data >/dev/null
p run --rm -v data:/d $image sh -c 'echo kept >/d/f'
check named-volume 'kept' "$(p run --rm -v data:/d $image cat /d/f)"
p volume rm data >/dev/null
check tmpfs 'tmpfs' "$(p run --rm --tmpfs /t:size=1m $image sh -c "grep ' /t ' /proc/mounts | cut -d' ' -f3")"
check cap-drop 'CapEff:*0000000000000000' "$(p run --rm --cap-drop all $image grep CapEff /proc/self/status)"
check cap-add '*00000002' "$(p run --rm --cap-drop all --cap-add DAC_OVERRIDE $image grep CapEff /proc/self/status)"
check no-new-privs '*1' "$(p run --rm --security-opt no-new-privileges $image grep NoNewPrivs /proc/self/status)"
check ulimit '100' "$(p run --rm --ulimit nofile=100:100 --ulimit nproc=32768:32768 $image sh -c 'ulimit -n')"
check init 'CMD' "$(p run --rm --init $image sh -c 'echo CMD')"
check shm-size '*2048*' "$(p run --rm --shm-size 2m $image df -k /dev/shm)"
check pid1 '1' "$(p run --rm $image sh -c 'echo $$')"
check masked '' "$(p run --rm $image sh -c 'cat /proc/keys /proc/timer_list 2>/dev/null')"
check cidfile '????????????*' "$(p run --rm --cidfile "$WORK/cid" $image true; cat "$WORK/cid")"

echo kept-open >"$WORK/kept"
check preserve-fds kept-open "$(p run --preserve-fds 1 --rm $image sh -c 'cat <&3' 3<"$WORK/kept")"

# News for a service manager: a listener on the host, and a program inside that says that it is ready where it is told to. What podman
# says itself (MAINPID, of conmon) differs in numbers.
mkdir -p "$WORK/news"
cat >"$WORK/news/say.c" <<'SAY'
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int n, char **v) {
	struct sockaddr_un to = {AF_UNIX};
	const char *at = getenv("NOTIFY_SOCKET");
	if (!at) return 3;
	strcpy(to.sun_path, at);
	sleep(1);
	if (sendto(socket(AF_UNIX, SOCK_DGRAM, 0), v[1], strlen(v[1]), 0, (void *)&to, sizeof to) < 0) return 4;
	return sleep(n > 2 ? 1000 : 1);
}
SAY
gcc -static -o "$WORK/news/say" "$WORK/news/say.c"
cat >"$WORK/news/hear.py" <<'HEAR'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(4)
try:
    while True:
        print(s.recv(4096).decode().strip(), flush=True)
except TimeoutError:
    pass
HEAR
news() { # MODE WORDS...: what a manager hears of a container that says READY=1
  rm -f "$WORK/news/socket"
  python3 "$WORK/news/hear.py" "$WORK/news/socket" >"$WORK/news/heard" &
  until_true test -S "$WORK/news/socket"
  NOTIFY_SOCKET=$WORK/news/socket p run -d --name news --sdnotify="$1" -v "$WORK/news:/n" $image /n/say READY=1 stay >"$WORK/news/said"
  wait $!
  gone news
  sed 's/=[0-9]\{2,\}$/=N/' "$WORK/news/heard" | sort | tr '\n' ' '
}
for mode in container conmon ignore; do
  echo "news of $mode: $(news $mode)" >>"$WORK/news/all"
done
check sdnotify 'news of container: MAINPID=N READY=1 news of conmon: MAINPID=N READY=1 news of ignore: ' "$(tr '\n' ' ' <"$WORK/news/all" | tr -s ' ')"

# The rootfs is the container's own: what one start wrote the next one sees.
p run --name keeps $image sh -c 'echo x >>/written; wc -l </written' >/dev/null
check rootfs-kept '2' "$(p start -a keeps)"
check commit 'x' "$(p commit -q keeps localhost/committed >/dev/null; p run --rm localhost/committed head -1 /written)"
check diff '*A /written*' "$(p diff keeps)"
check cp-out 'x' "$(p cp keeps:/written "$WORK/written"; head -1 "$WORK/written")"
gone keeps

# One that stays.
p run -d --name stays $image sh -c 'trap "exit 3" TERM; trap "exit 5" USR1; echo begun; while :; do sleep 0.1; done' >/dev/null
check detached running "$(state stays)"
check logs begun "$(until_true sh -c 'true'; sleep 0.5; p logs stays)"
check exec 'in 0' "$(p exec stays sh -c 'echo in $(id -u)')"
p exec stays sh -c 'exit 9' >/dev/null; check exec-status 9 $?
p exec stays nosuch >/dev/null; check exec-not-found 127 $?
check exec-stdin 'fed' "$(echo fed | p exec -i stays cat)"
check exec-user '65534' "$(p exec --user 65534 stays id -u)"
check exec-env 'y' "$(p exec -e X=y stays sh -c 'echo $X')"
check exec-workdir '/tmp' "$(p exec -w /tmp stays pwd)"
check exec-preserve-fds kept-open "$(p exec --preserve-fds 1 stays sh -c 'cat <&3' 3<"$WORK/kept")"
check exec-detached '5' "$(p exec -d stays sh -c 'echo 5 >/tmp/d' >/dev/null; sleep 0.5; p exec stays cat /tmp/d)"
check exec-tty '/dev/pts/*' "$(on_tty "podman --runtime $RUNTIME --tmpdir $WORK/tmp exec -it stays tty")"
check ps '*stays*' "$(p ps)"
check top '*PID*sleep*' "$(p top stays -ef 2>&1 || p exec stays ps)"
check stats-pids '*stays*' "$(p stats --no-stream --format '{{.Name}} {{.PIDs}}' stays)"
p pause stays >/dev/null; check pause paused "$(state stays)"
p unpause stays >/dev/null; check unpause running "$(state stays)"
check exec-after-pause alive "$(p exec stays echo alive)"
check cp-in 'put' "$(echo put >"$WORK/put"; p cp "$WORK/put" stays:/tmp/put; p exec stays cat /tmp/put)"
p stop -t 5 stays >/dev/null; check stop 'exited 3' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' stays)"
p restart -t 0 stays >/dev/null; check restart running "$(state stays)"
p kill -s USR1 stays >/dev/null; until_true exited stays; check kill-signal '5' "$(p inspect --format '{{.State.ExitCode}}' stays)"
p start stays >/dev/null; p kill stays >/dev/null; until_true exited stays; check kill '137' "$(p inspect --format '{{.State.ExitCode}}' stays)"
p start stays >/dev/null; check rm-force "*" "$(p rm -f -t 0 stays)"; check rm-gone '' "$(p ps -aq)"
p run -d --name waits $image sh -c 'sleep 0.3; exit 4' >/dev/null; check wait 4 "$(p wait waits)"; gone waits

# Terminals.
check run-tty '/dev/pts/*' "$(on_tty "podman --runtime $RUNTIME --tmpdir $WORK/tmp run -it --rm $image sh -c 'tty; sleep 0.3'")"
check run-tty-size '33 44' "$(on_tty "stty rows 33 cols 44; podman --runtime $RUNTIME --tmpdir $WORK/tmp run -it --rm $image sh -c 'sleep 1; stty size'")"
p run -dit --name screen $image sh >/dev/null
check attach '*12*' "$( (sleep 1; echo 'echo $((3*4))'; sleep 1; echo exit; sleep 1) | script -qec "podman --runtime $RUNTIME --tmpdir $WORK/tmp attach screen" /dev/null | tr -d '\0\r')"
gone screen

# Limits.
check memory '*137*' "$(p run --memory 32m --memory-swap 32m --name eats $image sh -c 'head -c 100m /dev/zero | tail -c 90m | wc -c' >/dev/null; echo "$?"; p run --memory 32m --memory-swap 32m --rm $image sh -c 'x=$(head -c 60m /dev/zero | tr "\0" a); echo ${#x}' >/dev/null; echo $?)"
gone eats
check pids-limit '*fork*' "$(p run --rm --pids-limit 10 $image sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 2 & done; wait')"

# Health checks.
p run -d --name healthy --health-cmd 'test -e /tmp/ok' --health-interval disable --health-retries 1 $image sh -c 'touch /tmp/ok; sleep 100' >/dev/null
sleep 0.5; p healthcheck run healthy >/dev/null; check healthcheck 0 $?
p exec healthy rm /tmp/ok; p healthcheck run healthy >/dev/null; check healthcheck-fails 1 $?
gone healthy

# Whoever is killed, what it made goes on, or is told of as ended, and can be removed.
p run -d --name left $image sleep 1000 >/dev/null
kill -9 "$(p inspect --format '{{.State.ConmonPid}}' left)"; sleep 0.3
check conmon-killed 'running in' "$(state left) $(p exec left echo in)"
id=$(p inspect --format '{{.Id}}' left)
check conmon-killed-rm left "$(p rm -f -t 0 left)"
# What the runtime still has of it conmon's last act would have deleted.
check conmon-killed-delete '' "$("$RUNTIME" delete --force "$id" 2>&1)"
timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" run --name left $image sleep 1000 >/dev/null 2>&1 & client=$!
running() { [ "$(state left)" = running ]; }
until_true running; kill -9 "$(pgrep -P $client)"; wait $client 2>/dev/null
check client-killed running "$(state left)"
check client-killed-rm left "$(p rm -f -t 0 left)"
p run -d --name left $image sleep 1000 >/dev/null
p exec left sleep 500 >/dev/null & sleep 0.3
kill -9 "$(p inspect --format '{{.State.Pid}}' left)"; until_true exited left
check container-killed 'exited 137' "$(p inspect --format '{{.State.Status}} {{.State.ExitCode}}' left)"
check container-killed-rm left "$(p rm -f -t 0 left)"; wait $!

# Pods.
p pod create --name pod --infra-image $image --infra-command 'sleep 1000' >/dev/null
p run -d --pod pod --name one $image sleep 1000 >/dev/null
p run -d --pod pod --name two $image sleep 1000 >/dev/null
check pod running "$(state one)"
check pod-exec 'two' "$(p exec two echo two)"
check pod-hostname 'pod' "$(p exec one hostname)"
check pod-restart-one running "$(p restart -t 0 one >/dev/null; state one)"
check pod-stop 'exited' "$(p pod stop -t 0 pod >/dev/null; state one)"
p pod rm -f -t 0 pod >/dev/null
check pod-gone '' "$(p ps -aq)"

cat >"$WORK/kube.yaml" <<EOF
apiVersion: v1
kind: Pod
metadata: {name: played}
spec:
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - {name: writes, image: $image, imagePullPolicy: Never, command: [sh, -c, 'echo through >/s/f; sleep 1000'], volumeMounts: [{name: shared, mountPath: /s}]}
  - {name: reads, image: $image, imagePullPolicy: Never, command: [sleep, '1000'], volumeMounts: [{name: shared, mountPath: /s}]}
EOF
CONTAINERS_CONF_OVERRIDE= p play kube --no-hosts "$WORK/kube.yaml" >"$WORK/kube.log"
check kube-play running "$(state played-reads)"
check kube-shared-volume through "$(sleep 0.5; p exec played-reads cat /s/f)"
p play kube --down "$WORK/kube.yaml" >/dev/null
check kube-down '' "$(p ps -aq)"

p rmi -af >/dev/null
p system prune -af >/dev/null
