# strace of shells and what they start, from the start and of a process that runs: each process's calls, and what ended it.
script='echo some words | tr a-z A-Z | cat > out; wc -c < out; (exit 3); trap "echo caught" USR1; kill -USR1 $$; exec sleep 0'
# What differs from run to run: ids, addresses, times, and how often and in which order a shell waits.
clean() { sed -E -e 's/0x[0-9a-f]+/X/g' -e '/^(wait4|rt_sig|arch_prctl|set_tid|set_robust|rseq|prlimit|getrandom)/d; /SIGCHLD/d' -e 's/si_pid=[0-9]+/si_pid=P/' \
    -e 's/\b(fork|clone|vfork)(.*)= [0-9]+/\1 = P/' -e "s/kill\([0-9]+/kill(P/" -e 's/envp?: .*|\/\* [0-9]+ vars \*\//vars/' -e 's/ +=/ =/'; }
strace -ff -o log -e trace=execve,fork,vfork,clone,clone3,pipe2,kill,write,exit_group dash -c "$script"
ls log.* | wc -l
for f in $(ls log.* | sort -t. -k2 -n); do clean < $f; echo "--"; done
echo "-- in one file, with the strings"
strace -f -qq -o all -e trace=write -e signal=none dash -c 'echo one; echo two >&2; dash -c "echo three"; echo four | cat > /dev/null'
sed -E 's/^[0-9]+ +//' all | sort
echo "-- all calls of one program, counted"
strace -c -o counts true; tail -1 counts | sed 's/.* //'; strace true 2>&1 | sed 's/(.*//' | grep -c -e execve -e exit_group
strace -e inject=write:error=ENOSPC:when=1 -o log sh -c 'echo lost; echo kept' || echo "status $?"; grep -c INJECTED log
strace -e inject=getppid:retval=77 -o /dev/null python3 -c 'import os; print(os.getppid())' 2>/dev/null || echo "no python"
echo "-- a status of its own"
strace -o /dev/null sh -c 'exit 12' || echo "status $?"; { strace -o /dev/null sh -c 'kill -TERM $$' || echo "status $?"; } 2> /dev/null
echo "-- one that runs"
bash -c 'while :; do sleep 0.01; done' & pid=$!
strace -f -p $pid -o running -e trace=execve,exit_group,kill 2> /dev/null & tracer=$!
until [ -e running ] && grep -q sleep running; do sleep 0.05; done
grep -E 'TracerPid' /proc/$pid/status | sed "s/\b$tracer\b/the tracer/"
kill -INT $tracer; wait $tracer || echo "tracer $?"
grep -E 'TracerPid' /proc/$pid/status
kill -0 $pid && echo "runs on"; { kill -KILL $pid; wait $pid || echo "killed: $?"; } 2> /dev/null
grep -m1 -o 'execve("/usr/bin/sleep", \["sleep", "0.01"\]' running
