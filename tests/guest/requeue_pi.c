/* FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI: waiters that are moved to a lock. */
#include "guest.h"
#include <linux/futex.h>
static unsigned words[8];
#define cond words[0]
#define lock words[4]
#define P FUTEX_PRIVATE_FLAG
static long wait_(unsigned *c, unsigned v, const struct timespec *t, unsigned *l, int flags) { return SYS(futex, c, FUTEX_WAIT_REQUEUE_PI | flags, v, t, l, 0); }
static long requeue(unsigned *c, int wake, int more, unsigned *l, unsigned v, int flags) { return SYS(futex, c, FUTEX_CMP_REQUEUE_PI | flags, wake, (long)more, l, v); }
static volatile unsigned tids[8];
/* Until the thread sleeps. */
static void settle(int i) {
    for (int n = 0, asleep = 0; n < 5000 && asleep < 4; n++) {
        char path[64], state = 0; sprintf(path, "/proc/self/task/%u/stat", tids[i]);
        FILE *f = tids[i] ? fopen(path, "r") : 0; if (f) { fscanf(f, "%*d (%*[^)]) %c", &state); fclose(f); }
        asleep = state == 'S' ? asleep + 1 : 0; usleep(2000);
    }
}
static int done_, order[8], results[8], owned[8];
static unsigned tid(void) { return SYS(gettid); }
#define HERE(i) (tids[i] = tid())
static volatile int signals;
static void on(int s) { signals++; }
static struct timespec soon(int clock, int ms) { struct timespec t; clock_gettime(clock, &t); t.tv_nsec += ms * 1000000L; t.tv_sec += t.tv_nsec / 1000000000; t.tv_nsec %= 1000000000; return t; }
static __thread int me;
static void *waiter(void *a) {
    int i = (long)a; me = i; HERE(i);
    errno = 0; long r = wait_(&cond, 0, 0, &lock, P);
    results[i] = r ? errno : 0;
    owned[i] = (__atomic_load_n(&lock, __ATOMIC_SEQ_CST) & FUTEX_TID_MASK) == tid();
    order[__atomic_fetch_add(&done_, 1, __ATOMIC_SEQ_CST)] = i;
    if (owned[i]) { usleep(2000); unsigned mine = tid(); if (!__atomic_compare_exchange_n(&lock, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0); }
    return (void *)(long)tid();
}
static pthread_t t[4];
static void start(int n) { done_ = 0; cond = 0; lock = 0; for (long i = 0; i < n; i++) { results[i] = owned[i] = -1; tids[i] = 0; pthread_create(&t[i], 0, waiter, (void *)i); settle(i); } }
static void finish(int n) { for (int i = 0; i < n; i++) pthread_join(t[i], 0); for (int i = 0; i < n; i++) printf("  %d: result %s owned %d, %d.\n", i, strerrorname_np(results[i]) ? strerrorname_np(results[i]) : "?", owned[i], order[i]); printf("  lock %x\n", lock); }

static void moved(void) {
    printf("a free lock\n"); start(3); T(requeue(&cond, 1, INT_MAX, &lock, 0, P)); finish(3);
    printf("a free lock, one\n"); start(2); T(requeue(&cond, 1, 0, &lock, 0, P)); while (!done_) usleep(1000); usleep(20000); V(done_); T(requeue(&cond, 1, 0, &lock, 0, P)); finish(2);
    printf("a lock that is held\n"); start(3); lock = tid(); T(requeue(&cond, 1, INT_MAX, &lock, 0, P)); V(lock == (tid() | FUTEX_WAITERS)); usleep(30000); V(done_); T(SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0)); finish(3);
    printf("held, some moved\n"); start(3); lock = tid(); T(requeue(&cond, 1, 1, &lock, 0, P)); T(SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0)); while (done_ < 2) usleep(1000); usleep(20000); V(done_); T(requeue(&cond, 1, 9, &lock, 0, P)); finish(3);
    printf("held and waited for\n"); start(2); T(SYS(futex, &lock, FUTEX_LOCK_PI | P, 0, 0, 0, 0)); T(requeue(&cond, 1, 9, &lock, 0, P)); T(requeue(&cond, 1, 9, &lock, 0, P)); T(SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0)); finish(2);
}
static void refused(void) {
    struct timespec past = { 1, 0 }, bad = { 0, -1 };
    cond = 3; lock = 0;
    T(wait_(&cond, 3, 0, &cond, P)); T(wait_(&cond, 4, 0, &lock, P)); T(wait_(BAD, 4, 0, &lock, P)); T(wait_((unsigned *)((char *)&cond + 1), 3, 0, &lock, P)); T(wait_(&cond, 3, 0, (unsigned *)((char *)&lock + 1), P)); T(wait_(&cond, 3, &past, &lock, P)); T(wait_(&cond, 3, &past, &lock, P | FUTEX_CLOCK_REALTIME)); T(wait_(&cond, 3, &bad, &lock, P)); T(wait_(&cond, 3, BAD, &lock, P));
    struct timespec s = soon(CLOCK_MONOTONIC, 20); T(wait_(&cond, 3, &s, &lock, P)); s = soon(CLOCK_REALTIME, 20); T(wait_(&cond, 3, &s, &lock, P | FUTEX_CLOCK_REALTIME)); s = soon(CLOCK_MONOTONIC, 20); T(wait_(&cond, 3, &s, &lock, 0));
    T(requeue(&cond, 1, 1, &cond, 3, P)); T(requeue(&cond, 2, 1, &lock, 3, P)); T(requeue(&cond, 0, 1, &lock, 3, P)); T(requeue(&cond, -1, 1, &lock, 3, P)); T(requeue(&cond, 1, -1, &lock, 3, P)); T(requeue(&cond, 1, 1, &lock, 4, P)); T(requeue(&cond, 1, 1, &lock, 3, P)); V(lock); T(requeue(BAD, 1, 1, &lock, 3, P)); T(requeue(&cond, 1, 1, BAD, 3, P)); T(requeue(&cond, 1, 1, &lock, 3, P | FUTEX_CLOCK_REALTIME)); V(lock);
    /* The wrong sort of waker. */
    start(1); T(SYS(futex, &cond, FUTEX_WAKE | P, 1, 0, 0, 0)); T(SYS(futex, &cond, FUTEX_REQUEUE | P, 1, 1, &words[2], 0)); T(SYS(futex, &cond, FUTEX_CMP_REQUEUE | P, 0, 1, &words[2], 0)); T(requeue(&cond, 1, 1, &words[6], 0, P)); V(words[6] & FUTEX_TID_MASK);
    lock = 0x3ffffff0; T(requeue(&cond, 1, 1, &lock, 0, P)); lock = 0; T(requeue(&cond, 1, 1, &lock, 0, P)); finish(1);
}
static void *plain(void *a) { HERE(0); (void)(SYS(futex, &words[2], FUTEX_WAIT | P, 0, 0, 0, 0)); return 0; }
static void *timed(void *a) { HERE(0); struct timespec s = soon(CLOCK_MONOTONIC, 1000); errno = 0; long r = wait_(&cond, 0, &s, &lock, P); results[0] = r ? errno : 0; return 0; }
static pthread_t who;
static void *signalled(void *a) { HERE(0); errno = 0; long r = wait_(&cond, 0, 0, &lock, P); results[0] = r ? errno : 0; return 0; }
static void ends(void) {
    pthread_t p; struct sigaction a = { .sa_handler = on }; sigaction(SIGUSR1, &a, 0);
    tids[0] = 0; pthread_create(&p, 0, plain, 0); settle(0); T(requeue(&words[2], 1, 1, &lock, 0, P)); V(SYS(futex, &words[2], FUTEX_WAKE | P, 1, 0, 0, 0)); pthread_join(p, 0);
    printf("a timeout in the lock's queue\n"); cond = 0; tids[0] = 0; pthread_create(&p, 0, timed, 0); settle(0); lock = tid(); T(requeue(&cond, 1, 1, &lock, 0, P)); pthread_join(p, 0); printf("%s\n", strerrorname_np(results[0])); V((lock & FUTEX_TID_MASK) == tid()); T(SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0)); V(lock);
    printf("a signal before it was moved\n"); signals = 0; tids[0] = 0; pthread_create(&p, 0, signalled, 0); settle(0); pthread_kill(p, SIGUSR1); while (!signals) usleep(1000); settle(0); V(signals); T(requeue(&cond, 1, 1, &lock, 0, P)); pthread_join(p, 0); V(results[0]); V(lock != 0); lock = 0;
    printf("and after\n"); signals = 0; tids[0] = 0; pthread_create(&p, 0, signalled, 0); settle(0); lock = tid(); T(requeue(&cond, 1, 1, &lock, 0, P)); pthread_kill(p, SIGUSR1); while (!signals) usleep(1000); usleep(50000); V(signals); T(SYS(futex, &lock, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0)); pthread_join(p, 0); printf("%s\n", results[0] ? strerrorname_np(results[0]) : "0"); lock = 0;
    printf("the owner ends\n"); start(1); fflush(stdout);
}
static void shared(void) {
    unsigned *w = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t c = fork(); if (!c) { long r = wait_(&w[0], 0, 0, &w[64], 0); V(r); V((w[64] & FUTEX_TID_MASK) == tid()); T(SYS(futex, &w[64], FUTEX_UNLOCK_PI, 0, 0, 0, 0)); fflush(stdout); _exit(0); }
    usleep(300000); w[64] = tid(); T(requeue(&w[0], 1, 5, &w[64], 0, P)); T(requeue(&w[0], 1, 5, &w[64], 0, 0)); fflush(stdout); long unlocked = SYS(futex, &w[64], FUTEX_UNLOCK_PI, 0, 0, 0, 0); waitpid(c, 0, 0); V(unlocked); V(w[64]);
    c = fork(); if (!c) { wait_(&w[0], 0, 0, &w[64], 0); _exit(1); } usleep(200000); kill(c, SIGKILL); waitpid(c, 0, 0); T(requeue(&w[0], 1, 5, &w[64], 0, 0)); V(w[64]);
}
/* glibc 2.36 does without, so a condition variable of our own: nobody is lost. */
static unsigned seq, mtx; static int turn; static long total;
static void lock_(void) { unsigned zero = 0; while (!__atomic_compare_exchange_n(&mtx, &zero, tid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) { if (!SYS(futex, &mtx, FUTEX_LOCK_PI | P, 0, 0, 0, 0)) return; zero = 0; } }
static void unlock_(void) { unsigned mine = tid(); if (!__atomic_compare_exchange_n(&mtx, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) SYS(futex, &mtx, FUTEX_UNLOCK_PI | P, 0, 0, 0, 0); }
static void *player(void *a) {
    int i = (long)a;
    lock_();
    for (int n = 0; n < 200; n++) {
        while (turn != i) { unsigned s = seq; unlock_(); if (wait_(&seq, s, 0, &mtx, P)) lock_(); }
        turn = (turn + 1) % 3; total++;
        seq++; requeue(&seq, 1, INT_MAX, &mtx, seq, P);
    }
    unlock_();
    return 0;
}
static void game(void) { for (long i = 0; i < 3; i++) pthread_create(&t[i], 0, player, (void *)i); for (int i = 0; i < 3; i++) pthread_join(t[i], 0); V(total); V(mtx); }
int main(void) { moved(); refused(); ends(); T(requeue(&cond, 1, 1, &lock, 0, P)); finish(1); shared(); game(); return 0; }
