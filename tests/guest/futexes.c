/* futex(2) beyond what threads use every day: priority inheritance, robust locks of it, several words, the newer calls. */
#include "guest.h"
#include <linux/futex.h>
#include <sys/prctl.h>

#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif
#define U32 2
#define PRIV 128
struct waitv { uint64_t val, uaddr; uint32_t flags, reserved; };
static uint32_t w[4];
static long fx(uint32_t *a, int op, uint32_t v, void *t, uint32_t *b, uint32_t v3) { return SYS(futex, a, op, v, t, b, v3); }
static struct timespec at(int clock, long ms) { struct timespec t; clock_gettime(clock, &t); t.tv_nsec += ms * 1000000; t.tv_sec += t.tv_nsec / 1000000000; t.tv_nsec %= 1000000000; return t; }
static int me(void) { return SYS(gettid); }
static const char *word(uint32_t v) {
    static char b[60];
    uint32_t tid = v & FUTEX_TID_MASK;
    sprintf(b, "%s%s%s", tid == (uint32_t)me() ? "mine" : tid ? "other" : "free", v & FUTEX_WAITERS ? " waiters" : "", v & FUTEX_OWNER_DIED ? " died" : "");
    return b;
}
#define W(v) printf("%d word: %s\n", __LINE__, word(v))

static volatile int step, result, err;
static void *locker(void *op) { result = fx(w, (int)(long)op, 0, 0, 0, 0); err = errno; if (!result) { step = 1; while (step != 2) usleep(1000); fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0); } return 0; }
static void *sleeper(void *i) { struct timespec t = at(CLOCK_MONOTONIC, 300); return (void *)(long)fx(w + (long)i, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &t, 0, ~0U); }
static void *newer(void *i) { return (void *)(long)SYS(futex_wait, w + (long)i, 0, ~0U, U32 | PRIV, 0, CLOCK_MONOTONIC); }
static void *several(void *a) {
    (void)a;
    struct waitv v[3];
    for (int i = 0; i < 3; i++) v[i] = (struct waitv){ 0, (uintptr_t)(w + i), U32 | PRIV, 0 };
    return (void *)(long)SYS(futex_waitv, v, 3, 0, 0, 0);
}
static void nothing(int s) { (void)s; }

static pthread_mutex_t mutex;
static long count;
static void *adds(void *n) { for (long i = 0; i < (long)n; i++) { pthread_mutex_lock(&mutex); count++; pthread_mutex_unlock(&mutex); } return 0; }
static void *dies(void *a) { pthread_mutex_lock(&mutex); step = 5; if (a) usleep(50000); return 0; }

static void pi(void) {
    struct timespec t;
    pthread_t th;
    T(fx((uint32_t *)((char *)w + 1), FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx(BAD, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx(w, FUTEX_LOCK_PI, 0, 0, 0, 0)); W(w[0] & ~FUTEX_WAITERS);
    T(fx(w, FUTEX_LOCK_PI, 0, 0, 0, 0));
    T(fx(w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    T(fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0)); W(w[0]);
    T(fx(w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0)); W(w[0] & ~FUTEX_WAITERS);
    T(fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0)); W(w[0]);
    w[0] = 0x3ffffff; T(fx(w, FUTEX_LOCK_PI, 0, 0, 0, 0)); w[0] = 0;
    /* one that waits for us */
    w[0] = me(); step = 0;
    pthread_create(&th, 0, locker, (void *)FUTEX_LOCK_PI);
    others_wait(); W(w[0]); V(step);
    T(fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    while (step != 1) usleep(1000);
    W(w[0]);
    T(fx(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    T(fx(w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    t = at(CLOCK_REALTIME, 30); T(fx(w, FUTEX_LOCK_PI, 0, &t, 0, 0));
    t = at(CLOCK_MONOTONIC, 30); T(fx(w, FUTEX_LOCK_PI2, 0, &t, 0, 0));
    t = at(CLOCK_REALTIME, 30); T(fx(w, FUTEX_LOCK_PI2 | FUTEX_CLOCK_REALTIME, 0, &t, 0, 0));
    t.tv_nsec = -1; T(fx(w, FUTEX_LOCK_PI, 0, &t, 0, 0));
    W(w[0]);
    step = 2; pthread_join(th, 0); V(result);
    W(w[0]);
    /* a signal does not end the wait */
    w[0] = me(); step = 0;
    struct sigaction sa = { .sa_handler = nothing };
    sigaction(SIGUSR1, &sa, 0);
    pthread_create(&th, 0, locker, (void *)FUTEX_LOCK_PI_PRIVATE);
    others_wait(); pthread_kill(th, SIGUSR1); usleep(30000); V(step);
    T(fx(w, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0)); while (step != 1) usleep(1000); step = 2; pthread_join(th, 0);
    w[0] = 0;
    /* as libc uses it */
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a); pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT); pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
    V(pthread_mutex_init(&mutex, &a));
    pthread_t many[4];
    for (int i = 0; i < 4; i++) pthread_create(&many[i], 0, adds, (void *)2000);
    for (int i = 0; i < 4; i++) pthread_join(many[i], 0);
    V(count);
    V(pthread_mutex_lock(&mutex)); V(pthread_mutex_lock(&mutex)); V(pthread_mutex_unlock(&mutex)); V(pthread_mutex_unlock(&mutex));
    t = at(CLOCK_REALTIME, 20);
    V(pthread_mutex_timedlock(&mutex, &t)); V(pthread_mutex_unlock(&mutex));
    /* robust ones: the owner ends */
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    for (long waits = 0; waits < 2; waits++) {
        pthread_mutex_init(&mutex, &a);
        step = 0; pthread_create(&th, 0, dies, (void *)waits);
        if (waits) while (step != 5) usleep(1000); else pthread_join(th, 0);
        V(pthread_mutex_lock(&mutex)); V(pthread_mutex_consistent(&mutex)); V(pthread_mutex_unlock(&mutex));
        V(pthread_mutex_lock(&mutex)); V(pthread_mutex_unlock(&mutex));
        if (waits) pthread_join(th, 0);
    }
    /* between processes */
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(m, &a);
    fflush(stdout);
    pid_t kid = fork();
    volatile int *locked = (void *)((char *)m + 2048);
    if (!kid) { pthread_mutex_lock(m); *locked = 1; usleep(50000); _exit(0); }
    while (!*locked) usleep(1000);
    V(pthread_mutex_lock(m)); V(pthread_mutex_consistent(m)); V(pthread_mutex_unlock(m));
    waitpid(kid, 0, 0);
}

static void vectors(void) {
    pthread_t th;
    void *r;
    struct timespec t;
    struct waitv v[2] = { { 0, (uintptr_t)w, U32 | PRIV, 0 }, { 0, (uintptr_t)(w + 1), U32 | PRIV, 0 } };
    memset(w, 0, sizeof w);
    T(SYS(futex_waitv, v, 0, 0, 0, 0)); T(SYS(futex_waitv, v, 129, 0, 0, 0)); T(SYS(futex_waitv, 0, 1, 0, 0, 0));
    T(SYS(futex_waitv, BAD, 1, 0, 0, 0)); T(SYS(futex_waitv, v, 2, 1, 0, 0));
    v[1].reserved = 1; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].reserved = 0;
    v[1].flags = PRIV; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].flags = U32 | 256; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].flags = U32 | PRIV;
    v[1].uaddr += 1; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].uaddr = 8; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].uaddr = (uintptr_t)(w + 1);
    v[1].val = 5; T(SYS(futex_waitv, v, 2, 0, 0, 0)); v[1].val = 0;
    t = at(CLOCK_MONOTONIC, 20); T(SYS(futex_waitv, v, 2, 0, &t, CLOCK_MONOTONIC));
    t = at(CLOCK_REALTIME, 20); T(SYS(futex_waitv, v, 2, 0, &t, CLOCK_REALTIME));
    T(SYS(futex_waitv, v, 2, 0, &t, CLOCK_BOOTTIME)); t.tv_nsec = -1; T(SYS(futex_waitv, v, 2, 0, &t, CLOCK_MONOTONIC)); T(SYS(futex_waitv, v, 2, 0, BAD, CLOCK_MONOTONIC));
    for (int i = 0; i < 3; i++) {
        pthread_create(&th, 0, several, 0);
        others_wait();
        T(fx(w + i, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
        pthread_join(th, &r); V((long)r);
    }
    T(fx(w, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0));
    /* the newer calls */
    T(SYS(futex_wake, w, ~0U, 1, U32)); T(SYS(futex_wake, w, 0, 1, U32)); T(SYS(futex_wake, w, ~0U, 1, 0)); T(SYS(futex_wake, (char *)w + 2, ~0U, 1, U32)); T(SYS(futex_wake, w, ~0U, 1, 1 << 10));
    T(SYS(futex_wait, w, 1, ~0U, U32 | PRIV, 0, 0)); T(SYS(futex_wait, w, 0, 0, U32 | PRIV, 0, 0)); T(SYS(futex_wait, w, 1UL << 32, ~0U, U32, 0, 0)); T(SYS(futex_wait, BAD, 0, ~0U, U32, 0, 0));
    t = at(CLOCK_MONOTONIC, 20); T(SYS(futex_wait, w, 0, ~0U, U32 | PRIV, &t, CLOCK_MONOTONIC));
    for (int n = 0; n < 2; n++) {
        pthread_create(&th, 0, n ? newer : sleeper, (void *)1);
        others_wait();
        T(SYS(futex_wake, w + 1, ~0U, 0, U32 | PRIV)); T(SYS(futex_wake, w + 1, ~0U, 5, U32 | PRIV));
        pthread_join(th, &r); V((long)r);
    }
    pthread_t three[3];
    for (int i = 0; i < 3; i++) pthread_create(&three[i], 0, sleeper, (void *)0);
    others_wait();
    struct waitv q[2] = { { 7, (uintptr_t)w, U32 | PRIV, 0 }, { 0, (uintptr_t)(w + 1), U32 | PRIV, 0 } };
    T(SYS(futex_requeue, q, 0, 1, 1)); q[0].val = 0; T(SYS(futex_requeue, q, 1, 1, 1)); T(SYS(futex_requeue, q, 0, -1, 1)); T(SYS(futex_requeue, 0, 0, 1, 1));
    T(SYS(futex_requeue, q, 0, 1, 1));
    T(fx(w, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0)); T(fx(w + 1, FUTEX_WAKE_PRIVATE, 9, 0, 0, 0));
    for (int i = 0; i < 3; i++) { pthread_join(three[i], &r); V((long)r); }
}

/* A waiter whose process ends leaves nothing behind: its child has the same addresses. */
static void *ends(void *a) { (void)a; usleep(20000); _exit(0); }
static void ghosts(void) {
    for (int i = 0; i < 6; i++) {
        pid_t kid = fork();
        if (!kid) { pthread_t th; pthread_create(&th, 0, i % 2 ? ends : sleeper, (void *)3); if (i % 2) fx(w + 3, FUTEX_WAIT, 0, 0, 0, 0); others_wait(); w[3] = 1; V(fx(w + 3, FUTEX_WAKE, 1, 0, 0, 0) == 1); pthread_join(th, 0); fflush(stdout); _exit(0); }
        waitpid(kid, 0, 0);
    }
}

int main(void) { pi(); vectors(); ghosts(); return 0; }
