/* Descriptors in flight that nobody can receive any more: cycles of Unix sockets are collected, and nothing else is. */
#include "guest.h"
#include <stdarg.h>
#include <sys/epoll.h>

static long pass(int to, int n, ...) {
    char b[CMSG_SPACE(8 * sizeof(int))] = { 0 }, x = 'x';
    struct iovec v = { &x, 1 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    va_list a;
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(n * sizeof(int));
    va_start(a, n);
    for (int i = 0; i < n; i++) ((int *)CMSG_DATA(c))[i] = va_arg(a, int);
    va_end(a);
    return sendmsg(to, &m, MSG_DONTWAIT);
}
/* Receives into `fds`: how many came. */
static int take(int from, int *fds, int flags) {
    char b[CMSG_SPACE(8 * sizeof(int))], x;
    struct iovec v = { &x, 1 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b };
    if (recvmsg(from, &m, flags | MSG_DONTWAIT) < 0) return -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!c || c->cmsg_type != SCM_RIGHTS) return 0;
    int n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(c), n * sizeof(int));
    return n;
}
static int p[2];
static void begin(void) { if (pipe(p)) perror("pipe"); }
/* Closes a socket of no account, which makes the collector look; it works beside us. */
static void stir(void) { int s[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, s); close(s[0]); close(s[1]); }
/* Whether all descriptors of the pipe's writing end are closed. */
static int gone(int wait) {
    struct pollfd f = { p[0], POLLIN };
    for (int i = 0; i < 200; i++) {
        stir();
        if (poll(&f, 1, wait ? 10 : 0) > 0) return f.revents == POLLHUP;
        if (!wait && i > 4) return 0;
    }
    return 0;
}
static void end(int collected) { V(gone(collected)); close(p[0]); }

static void cycles(void) {
    int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET }, s[2], t[2], u[2], got[8];
    for (int k = 0; k < 3; k++) {
        printf("type %d\n", types[k]);
        /* In its own queue. */
        begin(); socketpair(AF_UNIX, types[k], 0, s);
        T(pass(s[0], 2, s[1], p[1]));
        close(p[1]); close(s[0]); V(gone(0)); close(s[1]); end(1);
        /* Each in the other's; also twice. */
        begin(); socketpair(AF_UNIX, types[k], 0, s); socketpair(AF_UNIX, types[k], 0, t);
        T(pass(s[0], 3, t[1], p[1], t[1])); T(pass(t[0], 1, s[1])); T(pass(t[0], 2, s[1], s[1]));
        close(p[1]); close(s[0]); close(t[0]); close(s[1]); V(gone(0)); close(t[1]); end(1);
        /* Both ends in both queues. */
        begin(); socketpair(AF_UNIX, types[k], 0, s);
        T(pass(s[0], 3, s[0], s[1], p[1])); T(pass(s[1], 3, s[0], s[1], p[1]));
        close(p[1]); close(s[0]); close(s[1]); end(1);
        /* A ring of three, with a tail: what hangs on it goes too. */
        begin(); socketpair(AF_UNIX, types[k], 0, s); socketpair(AF_UNIX, types[k], 0, t); socketpair(AF_UNIX, types[k], 0, u);
        int w[2]; socketpair(AF_UNIX, types[k], 0, w);
        T(pass(w[0], 1, p[1])); T(pass(s[0], 1, t[1])); T(pass(t[0], 1, u[1])); T(pass(u[0], 2, s[1], w[1]));
        close(p[1]); close(w[0]); close(w[1]); close(s[0]); close(t[0]); close(u[0]); close(s[1]); close(t[1]); V(gone(0)); close(u[1]); end(1);
        /* A ring that another queue leads to stays until that is gone. */
        begin(); socketpair(AF_UNIX, types[k], 0, s); socketpair(AF_UNIX, types[k], 0, t); socketpair(AF_UNIX, types[k], 0, u);
        T(pass(s[0], 1, t[1])); T(pass(t[0], 2, s[1], p[1])); T(pass(u[0], 1, s[1]));
        close(p[1]); close(s[0]); close(t[0]); close(s[1]); close(t[1]); V(gone(0));
        T(take(u[1], got, MSG_PEEK)); V(gone(0)); V(take(got[0], got + 1, 0)); V(take(got[1], got + 2, 0));
        close(got[3]); V(gone(0)); close(got[2]); close(got[0]); close(u[0]); close(u[1]); V(gone(0)); close(got[1]); end(0 + 1);
        /* A chain is no cycle. */
        begin(); socketpair(AF_UNIX, types[k], 0, s); socketpair(AF_UNIX, types[k], 0, t); socketpair(AF_UNIX, types[k], 0, u);
        T(pass(s[0], 1, p[1])); T(pass(t[0], 1, s[1])); T(pass(u[0], 1, t[1]));
        close(p[1]); close(s[0]); close(s[1]); close(t[0]); close(t[1]); V(gone(0));
        T(take(u[1], got, 0)); V(gone(0)); T(take(got[0], got + 1, 0)); V(gone(0)); T(take(got[1], got + 2, 0)); close(got[0]); V(gone(0));
        close(got[2]); close(got[1]); end(1); close(u[0]); close(u[1]);
        begin(); socketpair(AF_UNIX, types[k], 0, s); socketpair(AF_UNIX, types[k], 0, t);
        T(pass(s[0], 1, p[1])); T(pass(t[0], 1, s[1])); close(p[1]); close(s[0]); close(s[1]); close(t[0]); V(gone(0)); close(t[1]); end(1);
    }
    close_range(3, ~0U, 0);
}

/* Connections that wait to be accepted hold what was sent to them. */
static void listening(void) {
    struct sockaddr_un a = { AF_UNIX, "\0scm-garbage" };
    socklen_t len = 2 + 12;
    int got[8], l, c, q, s[2];
    begin();
    T(l = socket(AF_UNIX, SOCK_STREAM, 0)); T(bind(l, (void *)&a, len)); T(listen(l, 5));
    T(c = socket(AF_UNIX, SOCK_STREAM, 0)); T(connect(c, (void *)&a, len));
    T(pass(c, 2, l, p[1])); close(p[1]); close(c); V(gone(0));
    T(q = accept(l, 0, 0)); T(take(q, got, 0)); V(gone(0)); T(fcntl(got[0], F_GETFD)); close(got[0]); close(got[1]); close(q); end(1);
    begin();
    T(c = socket(AF_UNIX, SOCK_STREAM, 0)); T(connect(c, (void *)&a, len)); T(pass(c, 2, l, p[1])); close(p[1]); close(c); V(gone(0)); close(l); end(1);
    /* And through another: a listener in a queue of a connection of its own, and the other way round. */
    begin();
    T(l = socket(AF_UNIX, SOCK_SEQPACKET, 0)); T(bind(l, (void *)&a, len)); T(listen(l, 5));
    T(c = socket(AF_UNIX, SOCK_SEQPACKET, 0)); T(connect(c, (void *)&a, len)); socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(pass(c, 3, s[1], c, p[1])); T(pass(s[0], 1, l)); close(p[1]); close(s[0]); close(s[1]); close(c); V(gone(0)); close(l); end(1);
    /* Accepted, then part of a ring. */
    begin();
    T(l = socket(AF_UNIX, SOCK_STREAM, 0)); T(bind(l, (void *)&a, len)); T(listen(l, 5));
    T(c = socket(AF_UNIX, SOCK_STREAM, 0)); T(connect(c, (void *)&a, len)); T(pass(c, 1, l)); T(q = accept(l, 0, 0)); T(pass(c, 2, q, p[1]));
    close(p[1]); close(c); close(l); V(gone(0)); T(take(q, got, MSG_PEEK)); close(got[0]); V(gone(0)); close(q); end(1);
    close_range(3, ~0U, 0);
}

/* What polls them does not hold them; what is polled from within a ring goes with it. */
static void polled(void) {
    int s[2], t[2], e, f, got[8];
    struct epoll_event ev = { EPOLLIN };
    begin(); socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(e = epoll_create1(0)); T(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev)); T(pass(s[0], 2, s[1], p[1])); T(epoll_wait(e, &ev, 1, 0));
    close(p[1]); close(s[0]); V(gone(0)); close(s[1]); end(1); T(epoll_wait(e, &ev, 1, 0)); close(e);
    begin(); socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(e = epoll_create1(0)); T(f = epoll_create1(0)); T(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev)); T(epoll_ctl(f, EPOLL_CTL_ADD, e, &ev));
    T(pass(s[0], 4, s[1], p[1], e, f)); close(p[1]); close(s[0]); close(e); close(f); V(gone(0)); close(s[1]); end(1);
    /* Held by an instance alone. */
    begin(); socketpair(AF_UNIX, SOCK_STREAM, 0, s); socketpair(AF_UNIX, SOCK_STREAM, 0, t);
    T(e = epoll_create1(0)); T(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev)); T(pass(t[0], 1, e)); T(pass(s[0], 2, t[1], p[1])); close(e);
    close(p[1]); close(s[0]); close(t[0]); V(gone(0)); T(take(t[1], got, MSG_PEEK)); T(epoll_wait(got[0], &ev, 1, 0)); close(s[1]); V(gone(1));
    close(got[0]); close(t[1]); close(p[0]);
    /* dup, fork: more references from outside. */
    begin(); socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(pass(s[0], 2, s[1], p[1])); close(p[1]); close(s[0]);
    int d = dup(s[1]), go[2]; close(s[1]); V(gone(0)); pipe(go);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) { char c; close(go[1]); close(p[0]); _exit(read(go[0], &c, 1) == 0 ? take(d, got, 0) : 99); }
    close(d); V(gone(0)); close(go[1]); close(go[0]);
    int st; waitpid(pid, &st, 0); V(WEXITSTATUS(st)); end(1);
    close_range(3, ~0U, 0);
}

/* Again and again: neither the count of the user's descriptors in flight grows nor what the kernel keeps. */
static void again(void) {
    struct rlimit l = { 3000, 3000 };
    int failed = 0, s[2], t[2];
    T(setresuid(1234, 1234, 1234)); T(setrlimit(RLIMIT_NOFILE, &l));
    for (int i = 0; i < 3000; i++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, s); socketpair(AF_UNIX, SOCK_DGRAM, 0, t);
        failed += pass(s[0], 2, t[1], s[1]) != 1; failed += pass(t[0], 2, s[1], t[0]) != 1;
        close(s[0]); close(s[1]); close(t[0]); close(t[1]);
    }
    V(failed);
    /* A chain: freed link by link. */
    begin();
    int last = p[1];
    for (int i = 0; i < 1000; i++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, s);
        if (pass(s[0], 1, last) != 1) { failed++; break; }
        close(last); close(s[0]); last = s[1];
    }
    V(failed); V(gone(0)); close(last); end(1);
    fflush(stdout); _exit(0);
}

/* Threads make rings, and receive and peek at what is in them, as others are collected. */
static int rings, pipes[2];
static void *work(void *arg) {
    int got[8], s[2], t[2];
    unsigned seed = (long)arg;
    for (int i = 0; i < 400; i++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, s); socketpair(AF_UNIX, SOCK_STREAM, 0, t);
        pass(s[0], 2, t[1], pipes[1]); pass(t[0], 2, s[1], pipes[1]);
        close(s[0]); close(t[0]);
        int how = rand_r(&seed) % 4, keep = s[1], bad = 0;
        close(t[1]);
        if (how) {
            /* The other is reached through this one alone, and must still be whole. */
            int n = take(keep, got, how == 1 ? MSG_PEEK : 0);
            bad = n != 2;
            if (!bad) {
                if (how == 2) close(keep);
                n = take(got[0], got + 2, how == 3 ? MSG_PEEK : 0);
                bad = n != 2;
                if (!bad) { close(got[2]); close(got[3]); }
                close(got[0]); close(got[1]);
            }
            if (how == 2) keep = -1;
        }
        if (bad) __atomic_fetch_add(&rings, 1, __ATOMIC_RELAXED);
        if (keep >= 0) close(keep);
    }
    return 0;
}
static void threads(void) {
    pthread_t t[4];
    begin(); pipes[1] = p[1];
    for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, work, (void *)(i + 1));
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    printf("%d of the rings were broken\n", rings);
    close(p[1]); end(1);
}

int main(void) {
    cycles();
    listening();
    polled();
    fflush(stdout);
    if (!fork()) again();
    wait(0);
    threads();
    return 0;
}
