#!/bin/bash
# containerd with ctr, and the runtime in RUNTIME as the binary of io.containerd.runc.v2.
. "$(dirname "$0")/lib.sh"
containerd_begin
run=(run --runtime io.containerd.runc.v2 --runc-binary "$RUNTIME")
image=localhost/bb:latest
busybox_tar "$WORK/bb.tar"
image_tar "$WORK/image.tar" $image "$WORK/bb.tar" '{"Cmd":["/bin/sh"],"Env":["PATH=/bin"]}'
check import "*$image*" "$(c images import "$WORK/image.tar")"
status() { c task ls | awk -v id="$1" '$1 == id { print $3 }'; }
is() { [ "$(status "$1")" = "$2" ]; }

check run hello "$(c "${run[@]}" --rm $image r1 echo hello)"
c "${run[@]}" --rm $image r2 sh -c 'exit 6' >/dev/null; check run-status 6 $?
check run-not-found '*executable file not found*' "$(c "${run[@]}" --rm $image r3 nosuch)"
check run-stdin fed "$(echo fed | c "${run[@]}" --rm $image r4 sh -c 'read x; echo $x')"
check run-tty '/dev/pts/*' "$(on_tty "ctr -a $WORK/c.sock -n $space ${run[*]} --rm -t $image r5 sh -c 'tty; sleep 1'")"
check read-only '*Read-only file system*' "$(c "${run[@]}" --rm --read-only $image r7 touch /x)"
echo h >"$WORK/h"; check mount h "$(c "${run[@]}" --rm --mount "type=bind,src=$WORK/h,dst=/h,options=rbind:ro" $image r8 cat /h)"
check env-cwd 'v /tmp' "$(c "${run[@]}" --rm --env K=v --cwd /tmp $image r9 sh -c 'echo $K $(pwd)')"

c "${run[@]}" -d $image stays sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
check detached RUNNING "$(status stays)"
check exec 'in' "$(c task exec --exec-id e1 stays echo in)"
c task exec --exec-id e2 stays sh -c 'exit 9' >/dev/null; check exec-status 9 $?
check exec-not-found '*executable file not found*' "$(c task exec --exec-id e3 stays nosuch)"
check exec-stdin fed "$(echo fed | c task exec --exec-id e4 stays sh -c 'read x; echo $x')"
check exec-tty '/dev/pts/*' "$(on_tty "ctr -a $WORK/c.sock -n $space task exec -t --exec-id e5 stays sh -c 'tty; sleep 1'")"
check exec-user 7 "$(c task exec --user 7 --exec-id e6 stays id -u)"
c task exec -d --exec-id e7 stays sleep 100 >/dev/null
check ps '[0-9]*' "$(c task ps stays | sed -n 3p)"
c task kill --exec-id e7 -s 9 stays >/dev/null
check exec-killed '*stays*' "$(c task ls)"
check metrics '*memory*' "$(c task metrics stays)"
c task pause stays >/dev/null; check pause PAUSED "$(status stays)"
c task resume stays >/dev/null; check resume RUNNING "$(status stays)"
c task kill stays >/dev/null; until_true is stays STOPPED; check kill STOPPED "$(status stays)"
check delete '' "$(c task delete stays >/dev/null; c task ls -q)"
c container delete stays >/dev/null

c "${run[@]}" -d $image all sh -c 'sleep 100 & sleep 101 & wait'
c task kill --all -s 9 all >/dev/null; until_true is all STOPPED; check kill-all STOPPED "$(status all)"
check delete-again '' "$(c task delete all >/dev/null; c container delete all; c container ls -q)"

for n in 1 2 3 4 5 6; do c "${run[@]}" -d $image many$n sleep 1000 & done; wait $(jobs -p | grep -v "^$daemon$")
check many 6 "$(c task ls | grep -c RUNNING)"
for n in 1 2 3 4 5 6; do (c task kill -s 9 many$n >/dev/null; until_true is many$n STOPPED; c task delete many$n; c container delete many$n) >/dev/null & done; wait $(jobs -p | grep -v "^$daemon$")
check many-gone 0 "$(c task ls | grep -c many)"

# Whoever is killed.
c "${run[@]}" -d $image orphan sleep 1000; c "${run[@]}" -d $image kept sleep 1000
pid=$(c task ls | awk '$1 == "orphan" { print $2 }')
kill -9 "$(pgrep -f "containerd-shim.* -id orphan .*$WORK")"
cleared() { [ -z "$(c task ls | grep orphan)" ] && ! grep -q '^State:.[^Z]' /proc/$pid/status; }
until_true cleared; check shim-killed 'gone 1' "$(cleared && echo gone) $(c task ls | grep -c kept)"
c container delete orphan >/dev/null
kill -9 $daemon; wait $daemon 2>/dev/null; containerd_begin
check daemon-killed in "$(c task exec --exec-id back kept echo in)"
c task kill -s 9 kept >/dev/null; until_true is kept STOPPED; c task delete kept >/dev/null 2>&1; c container delete kept
check killed-gone '' "$(c task ls -q; c container ls -q)"

containerd_end $image
