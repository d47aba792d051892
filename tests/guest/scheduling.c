#include "guest.h"
#include <sys/sysinfo.h>
/* What scheduling calls do, not only what they tell: affinity binds, nice values give way; also after fork, exec and in threads. Where a thread
 * runs is asked of the processor (the vDSO). */
static int pinned(int cpu) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(cpu, &s); return sched_setaffinity(0, sizeof s, &s); }
/* Whether it ran on that processor only, over some calls and some work. */
static int stays(int cpu) { for (int i = 0; i < 200; i++) { if (sched_getcpu() != cpu) return 0; if (i % 20 == 0) usleep(500); for (volatile int k = 0; k < 5000; k++); } return 1; }
static long cpu_ns(pid_t p) { clockid_t c; struct timespec t; clock_getcpuclockid(p, &c); clock_gettime(c, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }
static pid_t spinner(int nice, int policy) { pid_t p = fork(); if (!p) { struct sched_param z = {0}; pinned(0); if (nice) setpriority(PRIO_PROCESS, 0, nice); if (policy) sched_setscheduler(0, policy, &z); for (;;); } return p; }
/* Whether the first of two that spin on one processor gets at least `times` what the other gets. */
static int more(pid_t a, pid_t b, int times) { usleep(50000); long a0 = cpu_ns(a), b0 = cpu_ns(b); usleep(600000); long x = cpu_ns(a) - a0, y = cpu_ns(b) - b0; kill(a, SIGKILL); kill(b, SIGKILL); waitpid(a, 0, 0); waitpid(b, 0, 0); return x >= times * y; }
static void *thread(void *cpu) { return (void *)(long)stays((int)(long)cpu); }
static void *pins(void *cpu) { T(pinned((int)(long)cpu)); return (void *)(long)stays((int)(long)cpu); }
static int ready[2], go[2];
/* Sleeps until it is told that it has been pinned. */
static void *sleeper(void *x) { char c; *(volatile int *)x = gettid(); if (read(go[0], &c, 1) != 1) return 0; return (void *)(long)stays(0); }
int main(int argc, char **argv) {
    if (argc > 1) { cpu_set_t s; sched_getaffinity(0, sizeof s, &s); V(CPU_COUNT(&s)); V(CPU_ISSET(atoi(argv[1]), &s)); V(stays(atoi(argv[1]))); V(getpriority(PRIO_PROCESS, 0)); return 0; }
    /* Without the first processor there is nothing to test; with one the test is short. */
    int last = get_nprocs() - 1; cpu_set_t all; sched_getaffinity(0, sizeof all, &all); void *r; pthread_t t;
    T(pinned(0)); V(stays(0)); T(pinned(last)); V(stays(last)); pid_t p = fork(); if (!p) { V(stays(last)); char n[8]; sprintf(n, "%d", last); nice(3); execl("/proc/self/exe", "again", n, NULL); _exit(1); } waitpid(p, 0, 0);
    pthread_create(&t, 0, thread, (void *)(long)last); pthread_join(t, &r); V((long)r); pthread_create(&t, 0, pins, (void *)0); pthread_join(t, &r); V((long)r); V(stays(last));
    if (pipe(go)) return 1;
    pthread_create(&t, 0, sleeper, ready); while (!*(volatile int *)ready) usleep(100); cpu_set_t first; CPU_ZERO(&first); CPU_SET(0, &first); T(sched_setaffinity(ready[0], sizeof first, &first)); if (write(go[1], "", 1) != 1) return 1; pthread_join(t, &r); V((long)r); T(sched_setaffinity(0, sizeof all, &all)); V(CPU_COUNT(&all) == last + 1);
    V(more(spinner(0, 0), spinner(19, 0), 8)); V(more(spinner(0, 0), spinner(0, SCHED_IDLE), 8)); V(more(spinner(0, SCHED_BATCH), spinner(15, 0), 4));
    /* From outside. */
    pid_t a = spinner(0, 0), b = spinner(0, 0); usleep(20000); T(setpriority(PRIO_PROCESS, b, 19)); V(more(a, b, 8)); T(getpriority(PRIO_PROCESS, 0));
    return 0;
}
