/* Descriptors of processes and threads, and what is near: PIDFD_THREAD, ioctls of pidfds, clone3's set_tid, KCMP_EPOLL_TFD. */
#include "guest.h"
#include <sys/epoll.h>
#include <sys/ioctl.h>
#define THREAD O_EXCL
#define INFO(size) _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, size)
#define NS(n) _IO(0xff, n)
struct info { uint64_t mask, cgroup; uint32_t pid, tgid, ppid, creds[8]; int32_t exit_code; uint32_t coredump, pad, more[8]; };
struct args { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };
static int pp[2], got[2];
static volatile int tid, signals, code, taker;
static void on(int s, siginfo_t *i, void *u) { code = i->si_code; taker = SYS(gettid); signals++; }
static void *thread(void *a) { tid = SYS(gettid); char c; if (a) *(int *)a = 1; while (read(pp[0], &c, 1) < 0) ; return 0; }
static int events(int f, int ms) { struct pollfd p = { f, POLLIN }; int r = poll(&p, 1, ms); return r > 0 ? p.revents : r; }
static int ended(int f) { for (int i = 0; i < 500; i++) { if (events(f, 0)) return events(f, 0); usleep(10000); } return 0; }

static void threads(void) {
    pthread_t t; int f, g; siginfo_t i; struct sigaction a = { .sa_sigaction = on, .sa_flags = SA_SIGINFO }; sigaction(SIGUSR1, &a, 0);
    T(pipe(pp)); pthread_create(&t, 0, thread, 0); while (!tid) usleep(1000);
    T(SYS(pidfd_open, tid, 0)); T(f = SYS(pidfd_open, tid, THREAD)); T(fcntl(f, F_GETFL)); T(fcntl(f, F_GETFD)); T(g = SYS(pidfd_open, getpid(), THREAD | O_NONBLOCK)); T(fcntl(g, F_GETFL)); T(SYS(pidfd_open, getpid(), O_TRUNC)); T(SYS(pidfd_open, getpid(), THREAD | O_TRUNC)); T(SYS(pidfd_open, 0, THREAD)); T(SYS(pidfd_open, 999999999, THREAD));
    V(events(f, 0)); T(waitid(P_PIDFD, f, &i, WEXITED)); T(waitid(P_PIDFD, g, &i, WEXITED));
    T(SYS(pidfd_send_signal, f, 0, 0, 0)); T(SYS(pidfd_send_signal, f, SIGUSR1, 0, 0)); while (signals < 1) usleep(1000); V(taker == tid); V(code);
    T(SYS(pidfd_send_signal, g, SIGUSR1, 0, 0)); while (signals < 2) usleep(1000); V(taker == getpid()); V(code);
    T(SYS(pidfd_send_signal, f, SIGUSR1, 0, 1)); while (signals < 3) usleep(1000); V(taker == tid); V(code);
    sigset_t b; sigemptyset(&b); sigaddset(&b, SIGUSR1);
    T(SYS(pidfd_send_signal, f, SIGUSR1, 0, 2)); while (signals < 4) usleep(1000); V(code);
    T(SYS(pidfd_send_signal, f, 0, 0, 8)); T(SYS(pidfd_getfd, f, 0, 0) > 2);
    struct info in = { .mask = 3 }; T(ioctl(f, INFO(64), &in)); V(in.mask); V(in.pid == tid); V(in.tgid == getpid()); V(in.ppid == getppid());
    write(pp[1], "x", 1); pthread_join(t, 0); V(ended(f)); T(SYS(pidfd_send_signal, f, 0, 0, 0)); T(SYS(pidfd_send_signal, f, SIGUSR1, 0, 2)); T(SYS(pidfd_getfd, f, 0, 0)); T(waitid(P_PIDFD, f, &i, WEXITED)); in.mask = 3; T(ioctl(f, INFO(64), &in)); T(ioctl(f, NS(1), 0));
    /* Who waits for its end. */
    tid = 0; pthread_create(&t, 0, thread, 0); while (!tid) usleep(1000); T(f = SYS(pidfd_open, tid, THREAD)); int e = epoll_create1(0); struct epoll_event ev = { EPOLLIN }; T(epoll_ctl(e, EPOLL_CTL_ADD, f, &ev)); T(epoll_wait(e, &ev, 1, 0)); write(pp[1], "x", 1); T(epoll_wait(e, &ev, 1, 5000)); V(ev.events); pthread_join(t, 0);
    /* A first thread that ends before the others. */
    fflush(stdout);
    pid_t c = fork(); if (!c) { int up = 0; pthread_create(&t, 0, thread, &up); while (!*(volatile int *)&up) usleep(1000); SYS(exit, 0); }
    int x = SYS(pidfd_open, c, 0), y = SYS(pidfd_open, c, THREAD); usleep(200000); V(events(x, 0)); V(events(y, 0)); write(pp[1], "x", 1); V(ended(x)); V(ended(y)); waitpid(c, 0, 0); V(events(x, 0)); V(events(y, 0));
    close_range(3, ~0U, 0);
}

static int child(void *a) { char c; while (read(pp[0], &c, 1) < 0) ; SYS(exit, 0); return 0; }
static char stack[65536] __attribute__((aligned(16)));
#define TH (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
static void cloned(void) {
    int f = -1, g = -1, t; pipe(pp);
    OK(t = clone(child, stack + sizeof stack, TH | CLONE_PIDFD, 0, &f)); V(f); T(fcntl(f, F_GETFL)); V(events(f, 0)); T(SYS(pidfd_send_signal, f, 0, 0, 0));
    struct info in = { .mask = 1 }; T(ioctl(f, INFO(64), &in)); V(in.pid == t); V(in.tgid == getpid()); write(pp[1], "x", 1); V(ended(f));
    T(clone(child, stack + sizeof stack, TH | CLONE_PIDFD | CLONE_PARENT_SETTID, 0, &f)); T(clone(child, stack + sizeof stack, TH | CLONE_PIDFD, 0, BAD)); T(clone(child, stack + sizeof stack, TH | CLONE_PIDFD | CLONE_DETACHED, 0, &f));
    pid_t c = clone(child, stack + sizeof stack, CLONE_PIDFD | SIGCHLD, 0, &g); V(g); T(fcntl(g, F_GETFL)); write(pp[1], "x", 1); V(ended(g)); waitpid(c, 0, 0);
    close_range(3, ~0U, 0);
}

static void about(void) {
    int f; struct info in; T(f = SYS(pidfd_open, getpid(), 0));
    for (unsigned size = 48; size <= 104; size += 8) { memset(&in, 0xee, sizeof in); in.mask = 0xff; printf("%u ", size); T(ioctl(f, INFO(size), &in)); printf("  mask %lx, cgroup %d, pid %d %d %d, exit %x coredump %x %x %x\n", (long)in.mask & 0x1f, in.cgroup != 0, in.pid == getpid(), in.tgid == getpid(), in.ppid == getppid(), in.exit_code, in.coredump, in.pad, in.more[0]); }
    in.mask = 0; T(ioctl(f, INFO(72), &in)); V(in.mask); in.mask = 8; T(ioctl(f, INFO(72), &in)); V(in.mask); V(in.coredump); for (int i = 0; i < 8; i++) V(in.creds[i]);
    T(ioctl(f, INFO(64), 0)); T(ioctl(f, INFO(64), BAD)); T(ioctl(f, _IOC(_IOC_READ, 0xff, 11, 64), &in)); T(ioctl(f, NS(11), 0)); T(ioctl(f, NS(0), 0)); T(ioctl(f, 0x5401, &in));
    char *kinds[] = { "", "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "", "", "user", "uts" };
    for (int i = 1; i <= 10; i++) { if (!*kinds[i]) continue; char p[64]; struct stat a, b; int n = ioctl(f, NS(i), 0); sprintf(p, "/proc/self/ns/%s", kinds[i]); printf("%s %d cloexec %d same %d\n", kinds[i], n > 2, fcntl(n, F_GETFD), !fstat(n, &a) && !stat(p, &b) && a.st_ino == b.st_ino); close(n); }
    T(ioctl(f, NS(1), 1)); T(ioctl(f, NS(10), 5));
    fflush(stdout);
    pid_t c = fork(); if (!c) { setresgid(5, 6, 7); setresuid(11, 12, 13); pause(); _exit(0); } usleep(100000); T(f = SYS(pidfd_open, c, 0)); in.mask = 0x13; T(ioctl(f, INFO(72), &in)); V(in.mask & 0x1f); for (int i = 0; i < 8; i++) V(in.creds[i]); V(in.ppid == getpid()); V(in.coredump == 2 || in.coredump == 8);
    if (!fork()) { setresuid(1234, 1234, 1234); T(ioctl(f, INFO(64), &in)); T(ioctl(f, NS(2), 0)); T(ioctl(f, NS(5), 7)); fflush(stdout); _exit(0); } wait(0);
    kill(c, 9); V(ended(f)); in.mask = 0xb; T(ioctl(f, INFO(64), &in)); V(in.mask); waitpid(c, 0, 0); memset(&in, 0, sizeof in); in.mask = 0xb; T(ioctl(f, INFO(64), &in)); V(in.mask); V(in.exit_code); V(in.pid); in.mask = 3; T(ioctl(f, INFO(64), &in)); T(ioctl(f, NS(2), 0)); T(ioctl(f, NS(2), 1));
    c = fork(); if (!c) _exit(42); f = SYS(pidfd_open, c, 0); waitpid(c, 0, 0); in.mask = 8; T(ioctl(f, INFO(64), &in)); V(in.exit_code);
    close_range(3, ~0U, 0);
}

static long clone3(uint64_t flags, const int *ids, size_t count) { struct args a = { .flags = flags, .exit_signal = SIGCHLD, .set_tid = (long)ids, .set_tid_size = count }; return SYS(clone3, &a, sizeof a); }
static void numbers(void) {
    int one[40] = { 31999 }, bad[] = { 0 };
    T(clone3(0, one, 0)); T(clone3(0, 0, 1)); T(clone3(0, one, 33)); T(clone3(0, BAD, 1)); T(clone3(0, bad, 1)); bad[0] = -3; T(clone3(0, bad, 1)); bad[0] = 1 << 30; T(clone3(0, bad, 1));
    fflush(stdout);
    /* Root of a user namespace, with a PID namespace of its own. */
    if (!fork()) {
        T(unshare(CLONE_NEWUSER | CLONE_NEWPID)); int st, five[] = { 5 }, first[] = { 1 }, two[] = { 9, 8 };
        T(clone3(0, five, 1)); fflush(stdout);
        long c = clone3(0, first, 1);
        if (!c) {
            V(getpid()); fflush(stdout);
            for (int i = 0; i < 2; i++) { c = clone3(0, five, 1); if (!c) { V(getpid()); fflush(stdout); _exit(3); } usleep(100000); V(c); T(clone3(0, five, 1)); waitpid(c, &st, 0); V(st); fflush(stdout); }
            T(clone3(0, first, 1)); T(clone3(0, two, 2)); int three[] = { 9, 8, 7 }; T(clone3(0, three, 40)); fflush(stdout);
            c = fork(); if (!c) { V(getpid()); fflush(stdout); _exit(0); } waitpid(c, &st, 0);
            /* Within another one. */
            int inner[] = { 1, 77 }; c = clone3(CLONE_NEWPID, inner, 2); if (!c) { V(getpid()); fflush(stdout); _exit(0); } waitpid(c, &st, 0); V(c); int odd[] = { 2, 78 }; T(clone3(CLONE_NEWPID, odd, 2)); T(clone3(CLONE_NEWPID, inner, 3)); fflush(stdout);
            _exit(0);
        }
        waitpid(c, &st, 0); V(c > 1); V(st); fflush(stdout); _exit(0);
    }
    wait(0);
}

struct slot { unsigned efd, tfd, toff; };
static void compared(void) {
    int e = epoll_create1(0), a = dup(0), b, p[2]; struct epoll_event ev = { EPOLLIN }; pipe(p); pid_t me = getpid();
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev); b = dup(p[0]); struct slot s = { e, p[0], 0 };
    T(SYS(kcmp, me, me, 7, p[0], &s)); T(SYS(kcmp, me, me, 7, b, &s)); V(SYS(kcmp, me, me, 7, p[1], &s) > 0); T(SYS(kcmp, me, me, 7, 99, &s)); s.toff = 1; T(SYS(kcmp, me, me, 7, b, &s)); s.toff = 0; s.tfd = b; T(SYS(kcmp, me, me, 7, b, &s)); s.efd = 99; T(SYS(kcmp, me, me, 7, b, &s)); s.efd = a; T(SYS(kcmp, me, me, 7, b, &s)); T(SYS(kcmp, me, me, 7, b, BAD)); T(SYS(kcmp, me, me, 8, b, &s));
    /* Two files that were added under one number. */
    s = (struct slot){ e, p[0], 1 }; int q[2]; pipe(q); dup2(q[0], p[0]); epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev); long x = SYS(kcmp, me, me, 7, b, &s); s.toff = 0; long y = SYS(kcmp, me, me, 7, b, &s); V((x == 0) + (y == 0)); s.toff = 2; T(SYS(kcmp, me, me, 7, b, &s));
    close_range(3, ~0U, 0);
}
int main(void) { threads(); cloned(); about(); numbers(); compared(); return 0; }
