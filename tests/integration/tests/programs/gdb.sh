# gdb in batch mode: breakpoints, steps, calls, watching, catching, signals, threads, forks, and a process that runs already.
cat > one.c <<'C'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
volatile int total, go_on; volatile double d = 1.5;
struct pair { int a; const char *name; } pair = { 4, "four" };
static void handler(int s) { total += s; }
__attribute__((noinline)) int twice(int n) { int r = n * 2; total += r; return r; }
__attribute__((noinline)) int deep(int n) { return n ? deep(n - 1) + 1 : twice(3); }
static void *idle(void *a) { while (!go_on) usleep(1000); return a; }
__attribute__((noinline)) void marker(void) { __asm__ volatile(""); }
int main(int argc, char **argv) {
    for (int i = 0; i < 3; i++) twice(i);
    deep(2);
    signal(SIGUSR1, handler); raise(SIGUSR1);
    pthread_t t[2]; for (int i = 0; i < 2; i++) pthread_create(&t[i], 0, idle, 0);
    marker();
    if (argc > 1 && argv[1][0] == 'w') for (;;) { twice(1); total = 0; usleep(1000); }
    go_on = 1; for (int i = 0; i < 2; i++) pthread_join(t[i], 0);
    pid_t p = fork(); if (!p) { twice(50); _exit(9); }
    int s; waitpid(p, &s, 0);
    if (argc > 1) { volatile int *null = 0; *null = 1; }
    printf("total %d child %d\n", total, WEXITSTATUS(s)); return 3;
}
C
gcc -g -O0 -pthread -o one one.c
# What differs from run to run, and from root to root: addresses, ids, what is said of the libraries.
clean() { sed -E -e 's/(LWP [0-9]+\)) "one".*/\1 one/; s/(exit_group\)|forked process [0-9]+\)), .*/\1/' -e '/^warning|debuginfod|libthread_db|^\[(New|Switching|Detaching|Attaching)|exited\]$|^Download|^Reading|No such file|^$/d' -e '/sysdeps|nptl|__GI_|__pthread|libc.so/d' \
    -e 's/0x[0-9a-f]+/X/g' -e 's/\(LWP [0-9]+\)/(LWP N)/; s/process [0-9]+/process N/; s/LWP [0-9]+/LWP N/' -e 's,/tmp/case[^ :]*/,,g; s/ +/ /g'; }
debug() { timeout 120 gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set width 0' -ex 'handle SIGUSR1 nostop noprint pass' "$@" 2>&1 | clean | sed '1,2{/^Signal |^SIGUSR1/d}'; }
echo "-- breakpoints and steps"
debug -ex 'break twice if n == 2' -ex run -ex bt -ex 'info locals' -ex next -ex 'print r' -ex 'set var r = 40' -ex finish -ex 'print total' -ex 'print pair' -ex 'print twice(21)' -ex 'print d * 2' -ex stepi -ex stepi \
    -ex 'tbreak deep if n == 0' -ex continue -ex bt -ex up -ex 'info frame' -ex down -ex step -ex continue ./one | grep -v -e ' rip ' -e 'frame at' -e 'called by' -e 'Arglist' -e 'Locals at' -e 'Saved reg' -e ' rb'
echo "-- watching"
debug -ex 'break twice' -ex run -ex delete -ex 'watch total' -ex continue -ex continue -ex 'info watchpoints' -ex 'delete' -ex 'hbreak deep' -ex continue -ex 'info breakpoints' -ex continue -ex kill ./one
echo "-- watching without hardware"
debug -ex 'set can-use-hw-watchpoints 0' -ex 'break twice' -ex run -ex 'watch total' -ex continue -ex continue -ex 'info watchpoints' -ex kill ./one
echo "-- signals and calls"
debug -ex 'handle SIGUSR1 stop print pass' -ex run -ex 'print $_siginfo.si_signo' -ex 'break handler' -ex continue -ex bt -ex 'delete' -ex 'catch syscall exit_group' -ex continue ./one | sed '/^#[1-9]/d'
echo "-- threads"
debug -ex 'break marker' -ex run -ex 'info threads' -ex 'thread apply all -q print 1' -ex 'thread 2' -ex 'print $_thread' -ex 'thread 1' -ex 'set scheduler-locking on' -ex finish -ex 'next' -ex 'set scheduler-locking off' -ex continue ./one
echo "-- forks"
debug -ex 'set follow-fork-mode child' -ex 'set detach-on-fork off' -ex 'break twice if n == 50' -ex run -ex bt -ex continue ./one
debug -ex 'catch fork' -ex run -ex 'delete' -ex continue ./one 
echo "-- a crash"
debug -ex run -ex bt -ex 'print null' -ex 'print $_siginfo.si_code' -ex 'print $_siginfo._sifields._sigfault.si_addr' -ex continue --args ./one crash
echo "-- one that runs"
exec 2> /dev/null
./one wait > /dev/null & pid=$!
until [ "$(ls /proc/$pid/task | wc -l)" -eq 3 ]; do sleep 0.05; done
debug -p $pid -ex 'info inferiors' -ex 'break twice' -ex continue -ex bt -ex up -ex 'print argv[1]' -ex 'thread apply all -q print $_thread' -ex 'delete' -ex detach | grep -v -e '^[0-9X]' -e clock
grep -E 'State|TracerPid' /proc/$pid/status | sed 's/[RS] (.*)/R or S/'
debug -p $pid -ex 'print go_on' -ex 'set var go_on = 7' -ex 'print go_on' -ex quit | grep '^\$'
debug -p $pid -ex kill > /dev/null; { wait $pid || echo "killed: $?"; } 2> /dev/null
echo "-- a sanitizer that traces its own process"
gcc -g -O0 -fsanitize=address -pthread -o leak -x c - <<'C'
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static void *keeps(void *a) { void *volatile kept = malloc(100); for (;;) usleep(1000); return kept + (a != 0); }
int main(void) { pthread_t t; pthread_create(&t, 0, keeps, 0); usleep(50000); for (int i = 0; i < 3; i++) { char *volatile p = malloc(10 + i); p[0] = 1; p = 0; } return 0; }
C
./leak > told 2>&1 || echo "leak: $?"; grep SUMMARY told
