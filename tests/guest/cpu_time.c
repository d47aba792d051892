#include "guest.h"
/* CPU time: RLIMIT_CPU, timers and sleeps on the clocks of threads and processes. Values are compared, never printed. */
static volatile sig_atomic_t xcpu, got;
static void on_xcpu(int s) { xcpu++; }
static void on(int s) { got = s; }
static long ns(clockid_t c) { struct timespec t; clock_gettime(c, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }
static void burn(long n) { long s = ns(CLOCK_THREAD_CPUTIME_ID); while (ns(CLOCK_THREAD_CPUTIME_ID) - s < n) for (volatile int i = 0; i < 100000; i++); }
static struct itimerspec after(long n) { return (struct itimerspec){.it_value = {n / 1000000000, n % 1000000000}}; }
static void ended(int line, pid_t p) { int st; waitpid(p, &st, 0); if (WIFSIGNALED(st)) printf("%d killed by %s\n", line, sigabbrev_np(WTERMSIG(st))); else printf("%d exit %d\n", line, WEXITSTATUS(st)); }
static volatile int stop; static clockid_t theirs; static volatile int ready, tid;
static void *spin(void *x) { pthread_getcpuclockid(pthread_self(), &theirs); tid = gettid(); ready = 1; while (!stop) for (volatile int i = 0; i < 1000; i++); return 0; }
static void *idle(void *x) { pthread_getcpuclockid(pthread_self(), &theirs); tid = gettid(); ready = 1; while (!stop) usleep(1000); return 0; }

int main(void) {
    struct rlimit l; struct rusage u; siginfo_t si; sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR1); sigprocmask(SIG_BLOCK, &s, 0);
    signal(SIGXCPU, on_xcpu); signal(SIGVTALRM, on);

    /* The soft limit moves on by a second each time, the hard one kills. */
    pid_t p = fork();
    if (!p) { l = (struct rlimit){1, 2}; T(setrlimit(RLIMIT_CPU, &l)); for (;;) { burn(50000000); if (xcpu == 1) { xcpu = 2; getrusage(RUSAGE_SELF, &u); V(u.ru_utime.tv_sec + u.ru_stime.tv_sec >= 0); T(getrlimit(RLIMIT_CPU, &l)); V(l.rlim_cur); V(l.rlim_max); } } }
    ended(__LINE__, p);
    /* By default it ends the process, and a child counts anew. */
    p = fork();
    if (!p) { signal(SIGXCPU, SIG_DFL); l = (struct rlimit){1, 9}; T(setrlimit(RLIMIT_CPU, &l)); burn(600000000); p = fork(); if (!p) { burn(600000000); _exit(7); } ended(__LINE__, p); burn(3000000000); _exit(1); }
    ended(__LINE__, p);
    /* Used up already; told by prlimit of another. */
    p = fork();
    if (!p) { burn(30000000); l = (struct rlimit){0, 9}; T(setrlimit(RLIMIT_CPU, &l)); burn(60000000); V(xcpu); T(getrlimit(RLIMIT_CPU, &l)); V(l.rlim_cur); _exit(0); }
    ended(__LINE__, p);
    p = fork(); if (!p) { signal(SIGXCPU, SIG_DFL); burn(5000000000); _exit(1); } l = (struct rlimit){0, 3}; T(prlimit(p, RLIMIT_CPU, &l, 0)); ended(__LINE__, p);
    l = (struct rlimit){5, 3}; T(setrlimit(RLIMIT_CPU, &l));
    /* A program that is executed goes on counting. */
    p = fork(); if (!p) { l = (struct rlimit){1, 1}; setrlimit(RLIMIT_CPU, &l); execl("/bin/sh", "sh", "-c", "while :; do :; done", NULL); } ended(__LINE__, p);

    /* Timers on the clock of one thread. */
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}; timer_t x, y; pthread_t t;
    T(timer_create(CLOCK_THREAD_CPUTIME_ID, &e, &x)); struct itimerspec i = after(20000000), j; T(timer_settime(x, 0, &i, 0)); usleep(50000); T(timer_gettime(x, &j)); V(j.it_value.tv_nsec > 0); V(sigtimedwait(&s, &si, &(struct timespec){0})); burn(40000000); T(sigtimedwait(&s, &si, &(struct timespec){1}) == SIGUSR1); V(si.si_code == SI_TIMER);
    pthread_create(&t, 0, spin, 0); while (!ready) usleep(100);
    T(timer_settime(x, 0, &i, 0)); usleep(60000); V(sigtimedwait(&s, &si, &(struct timespec){0}));
    T(timer_create(theirs, &e, &y)); T(timer_settime(y, 0, &i, 0)); T(sigtimedwait(&s, &si, &(struct timespec){5}) == SIGUSR1);
    struct timespec q = {0, 20000000}; T(SYS(clock_nanosleep, theirs, 0, &q, 0)); long m = ns(theirs); T(SYS(clock_nanosleep, theirs, 0, &q, 0)); V(ns(theirs) - m >= 19000000); clock_gettime(theirs, &q); T(SYS(clock_nanosleep, theirs, TIMER_ABSTIME, &q, 0));
    stop = 1; pthread_join(t, 0); thread_gone(tid); T(timer_delete(y)); T(timer_delete(x));
    /* The clock of a thread that ended. */
    T(SYS(clock_gettime, theirs, &q)); T(SYS(clock_nanosleep, theirs, 0, &q, 0)); T(SYS(timer_create, theirs, &e, &x));
    clockid_t mine; pthread_getcpuclockid(pthread_self(), &mine); q = (struct timespec){0, 1000}; T(SYS(clock_nanosleep, mine, 0, &q, 0)); T(SYS(clock_nanosleep, -2, 0, &q, 0)); T(SYS(clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &q, 0)); T(SYS(clock_nanosleep, -6, 0, BAD, 0)); T(SYS(clock_gettime, -5, &q)); T(SYS(clock_gettime, -6, &q)); T(SYS(clock_gettime, -7, &q)); T(SYS(clock_gettime, -8, &q)); T(SYS(clock_getres, mine, &q));
    /* A sleep on an idle thread's clock ends by a signal, and tells what is left. */
    stop = ready = 0; pthread_create(&t, 0, idle, 0); while (!ready) usleep(100);
    struct itimerval v = {.it_value = {0, 30000}}; signal(SIGALRM, on); setitimer(ITIMER_REAL, &v, 0); q = (struct timespec){5, 0}; struct timespec left = {0, 0}; T(SYS(clock_nanosleep, theirs, 0, &q, &left)); V(left.tv_sec == 4); V(got == SIGALRM); stop = 1; pthread_join(t, 0);
    /* ITIMER_VIRTUAL counts our own code. */
    got = 0; v = (struct itimerval){.it_value = {0, 20000}}; T(setitimer(ITIMER_VIRTUAL, &v, 0)); usleep(50000); V(got); m = ns(CLOCK_THREAD_CPUTIME_ID); while (!got && ns(CLOCK_THREAD_CPUTIME_ID) - m < 2000000000) for (volatile int k = 0; k < 1000000; k++); V(got == SIGVTALRM);
    return 0;
}
