# Pipelines, redirections, substitutions, traps and the rest of the shell that is made of fork, pipe, dup and wait.
seq 1 200000 | sort -R --random-source=<(yes) | sort -n | md5sum
set +e; false | true | (exit 7); echo "${PIPESTATUS[@]}"; set -e
status bash -c 'set -o pipefail; (exit 5) | cat'
yes | head -c 1000000 | wc -c
yes 2>/dev/null | head -n 3
diff <(seq 5) <(seq 2 6) || true
tee >(wc -l > lines) >(md5sum > sum) < <(seq 1000) > copy
while [ ! -s lines ] || [ ! -s sum ]; do sleep 0.01; done
cat lines sum; wc -c < copy
coproc UP { while read -r x; do echo "${x^^}"; done; }
echo hello >&"${UP[1]}"; read -r answer <&"${UP[0]}"; echo "$answer"
eval "exec ${UP[1]}>&-"; wait "$UP_PID"; echo "coproc $?"
mkfifo pipe
(for i in 1 2 3; do echo "line $i"; done > pipe) & cat pipe; wait
exec {fd}<>pipe; echo through >&$fd; read -r x <&$fd; echo "$x"; exec {fd}>&-
cat <<EOT | tr a-z A-Z
here $((6 * 7)) $(echo nested $(echo deeper))
EOT
cat <<< "here string"
exec 5> five; echo to five >&5; echo more >&5; exec 5>&-; cat five
{ echo out; echo err >&2; } 3>&1 1>&2 2>&3 | sed s/^/piped:/
echo a > x; echo b >> x; set -C; status eval 'echo c > x' 2>/dev/null; set +C; echo d >| x; cat x
trap 'echo usr1' USR1; kill -USR1 $$; trap - USR1
(trap 'echo bye from subshell' EXIT; exit 3) || echo "subshell $?"
bash -c 'trap "echo term; exit 9" TERM; kill -TERM $$; sleep 10' || echo "trapped $?"
status bash -c 'kill -TERM $BASHPID'
status bash -c 'kill -SEGV $BASHPID' 2>/dev/null
status bash -c 'bash -c "kill -9 \$BASHPID"' 2>&1 | sed 's/.*line [0-9]*: *[0-9]* //'
for i in 1 2 3 4 5 6 7 8; do (exit $i) & pids[$i]=$!; done
for i in 8 7 6 5 4 3 2 1; do wait "${pids[$i]}" || echo -n "$? "; done; echo
(sleep 0.05; exit 4) & (sleep 5; exit 5) & keep=$!
wait -n || echo "first $?"; kill $keep; wait $keep || echo "killed $?"
read -r -t 0.05 x < <(sleep 1) || echo "timeout $?"
declare -A map=([one]=1 [two]=2 [three]=3); for k in $(printf '%s\n' "${!map[@]}" | sort); do echo "$k=${map[$k]}"; done
printf '%q %s %05.2f\n' "a b'c" x 3.14159
shopt -s extglob globstar nullglob
mkdir -p d/e/f; touch d/1.c d/2.h d/e/3.c d/e/f/4.c; echo **/*.c; echo d/!(*.c)
echo {a..e}{1..3} | wc -w
f() { local IFS=:; echo "$*"; }; f a b c
time_up() { SECONDS=0; sleep 1; [ "$SECONDS" -ge 1 ] && echo slept; }; time_up
ulimit -n 64; echo "$(ulimit -n)"; (ulimit -f 1; trap '' XFSZ; head -c 100000 /dev/zero > big) 2>/dev/null || echo "limit $?"; stat -c %s big
# In a shell of its own: this one has a directory to remove at its end.
(exec -a renamed bash -c 'echo "I am $0"')
