/* Unix sockets: urgent data, times, descriptors of processes, and what else goes along with messages. */
#include "guest.h"
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#define SCM_PIDFD 4
#define PASSPIDFD 76
#define PEERPIDFD 77
#define PASSRIGHTS 83
#define INQ 84
static char buf[4096];
static int seti(int f, int o, int v) { return setsockopt(f, SOL_SOCKET, o, &v, 4); }
static int s[2];
static void pair(int type) { if (socketpair(AF_UNIX, type, 0, s)) perror("socketpair"); }
static void done(void) { close(s[0]); close(s[1]); }
static void rcv(int line, int fd, int len, int room, int flags) {
    char c[512], w[32] = { 0 };
    struct iovec v = { w, len };
    struct msghdr m = { 0, 0, &v, 1, c, room, 99 };
    errno = 0;
    long r = recvmsg(fd, &m, flags | MSG_DONTWAIT);
    int mark = -1, in = -1;
    int e = errno;
    ioctl(fd, SIOCATMARK, &mark); ioctl(fd, FIONREAD, &in);
    struct pollfd p = { fd, POLLIN | POLLPRI | POLLRDBAND };
    poll(&p, 1, 0);
    printf("%d receive %ld %s '%s' flags %x, then mark %d in %d poll %x", line, r, r < 0 ? strerrorname_np(e) : "", w, r < 0 ? 0 : m.msg_flags, mark, in, p.revents);
    for (struct cmsghdr *h = r < 0 || !room ? 0 : CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        printf(" [%d len %ld", h->cmsg_type, (long)h->cmsg_len);
        if (h->cmsg_type == SCM_RIGHTS) for (int *f = (int *)CMSG_DATA(h); (char *)f + 4 <= (char *)h + h->cmsg_len; f++) { printf(" fd"); close(*f); }
        if (h->cmsg_type == INQ) printf(" %d", *(int *)CMSG_DATA(h));
        if (h->cmsg_type == SCM_PIDFD) { int f = *(int *)CMSG_DATA(h); if (f < 0) printf(" %s", strerrorname_np(-f)); else { printf(" cloexec %d", fcntl(f, F_GETFD)); siginfo_t i = { 0 }; printf(" signal %d", (int)SYS(pidfd_send_signal, f, 0, 0, 0)); close(f); } }
        if (h->cmsg_type == SO_TIMESTAMP || h->cmsg_type == SO_TIMESTAMPNS || h->cmsg_type == 63 || h->cmsg_type == 64) { long *t = (long *)CMSG_DATA(h); printf(" near %d", labs(t[0] - time(0)) < 3 && t[1] >= 0); }
        if (h->cmsg_type == 37 || h->cmsg_type == 65) { long *t = (long *)CMSG_DATA(h); printf(" near %d, %ld %ld %ld %ld", labs(t[0] - time(0)) < 3, t[2], t[3], t[4], t[5]); }
        printf("]");
    }
    puts("");
}
#define R(len, flags) rcv(__LINE__, s[1], len, 0, flags)
#define RC(room) rcv(__LINE__, s[1], 9, room, 0)
static long snd(int fd, const char *text, int flags) { return send(fd, text, strlen(text), flags); }
static long with(int fd, const char *text, int flags, int file) {
    char b[CMSG_SPACE(4)] = { 0 };
    struct iovec v = { (void *)text, strlen(text) };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(4);
    *(int *)CMSG_DATA(c) = file;
    return sendmsg(fd, &m, flags);
}
static volatile int urgent, code, from;
static void on(int n, siginfo_t *i, void *u) { urgent++; code = i->si_code; from = i->si_pid; }

static void out_of_band(int inline_) {
    printf("inline %d\n", inline_);
#define NEW() do { done(); pair(SOCK_STREAM); seti(s[1], SO_OOBINLINE, inline_); } while (0)
    pair(SOCK_STREAM); seti(s[1], SO_OOBINLINE, inline_);
    R(9, MSG_OOB); R(9, 0);
    T(snd(s[0], "", MSG_OOB)); T(snd(s[0], "a", MSG_OOB)); R(9, MSG_OOB | MSG_PEEK); R(9, MSG_OOB); R(9, MSG_OOB); R(9, 0);
    NEW(); T(snd(s[0], "hello", MSG_OOB)); R(9, MSG_PEEK); R(2, 0); R(9, 0); R(9, MSG_PEEK); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "hello", MSG_OOB)); R(9, MSG_OOB | MSG_PEEK); R(9, MSG_OOB); R(3, 0); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "hello", MSG_OOB)); T(snd(s[0], "world", 0)); R(9, MSG_PEEK); R(9, 0); R(9, MSG_PEEK); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "hello", MSG_OOB)); T(snd(s[0], "world", 0)); R(9, MSG_OOB); R(9, MSG_PEEK); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "one", MSG_OOB)); T(snd(s[0], "two", MSG_OOB)); T(snd(s[0], "x", 0)); R(9, MSG_PEEK); R(9, 0); R(9, MSG_OOB); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "one", MSG_OOB)); R(9, MSG_OOB); T(snd(s[0], "two", MSG_OOB)); R(9, MSG_OOB); T(snd(s[0], "x", 0)); R(3, 0); R(9, MSG_PEEK); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "a", MSG_OOB)); R(9, MSG_OOB); T(snd(s[0], "b", MSG_OOB)); R(9, MSG_OOB); T(snd(s[0], "c", MSG_OOB)); R(9, 0); R(9, MSG_OOB); R(9, 0);
    NEW(); T(snd(s[0], "a", MSG_OOB)); T(snd(s[0], "bcd", 0)); R(2, MSG_PEEK); R(2, 0); R(9, 0); R(9, MSG_OOB);
    NEW(); T(snd(s[0], "a", MSG_OOB)); T(snd(s[0], "b", MSG_OOB)); T(snd(s[0], "c", 0)); R(9, 0); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); R(9, MSG_WAITALL); R(9, MSG_WAITALL);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); T(snd(s[0], "cdefghij", 0)); R(5, MSG_WAITALL); R(5, MSG_WAITALL); R(9, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); R(0, MSG_OOB); R(1, MSG_OOB); R(9, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); errno = 0; T(recv(s[1], BAD, 1, MSG_OOB)); R(9, 0); R(9, MSG_OOB);
    NEW(); T(with(s[0], "x", MSG_OOB, 0)); T(with(s[0], "yz", MSG_OOB, 0)); rcv(__LINE__, s[1], 9, 200, 0); rcv(__LINE__, s[1], 9, 200, MSG_OOB); rcv(__LINE__, s[1], 9, 200, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); seti(s[1], SO_PEEK_OFF, 0); R(1, MSG_PEEK); R(1, MSG_PEEK); R(1, MSG_PEEK); R(1, 0); R(9, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); T(seti(s[1], SO_OOBINLINE, !inline_)); R(9, MSG_OOB); R(9, 0); R(9, 0);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); close(s[0]); R(9, 0); R(9, MSG_OOB); R(9, 0); R(9, MSG_OOB);
    NEW(); T(snd(s[0], "ab", MSG_OOB)); T(shutdown(s[1], SHUT_RD)); R(9, 0); R(9, MSG_OOB); R(9, 0); signal(SIGPIPE, SIG_IGN); T(snd(s[0], "c", MSG_OOB));
    NEW(); T(snd(s[0], "ab", MSG_OOB)); T(read(s[1], buf, 9)); T(snd(s[0], "cd", 0)); struct iovec v[2] = { { buf, 1 }, { buf + 1, 1 } }; T(readv(s[1], v, 2)); T(recv(s[1], buf, 9, MSG_DONTWAIT));
    done();
}

static void signals(void) {
    struct sigaction a = { .sa_sigaction = on, .sa_flags = SA_SIGINFO };
    sigaction(SIGURG, &a, 0);
    pair(SOCK_STREAM);
    T(snd(s[0], "a", MSG_OOB)); V(urgent);
    T(fcntl(s[1], F_SETOWN, getpid())); T(snd(s[0], "b", MSG_OOB)); V(urgent); V(code); V(from); T(snd(s[0], "c", 0)); V(urgent);
    T(fcntl(s[0], F_SETOWN, getpid())); T(snd(s[1], "d", MSG_OOB)); V(urgent); T(fcntl(s[1], F_SETOWN, 0)); T(snd(s[0], "e", MSG_OOB)); V(urgent);
    T(fcntl(s[1], F_SETOWN, -getpgrp())); T(snd(s[0], "f", MSG_OOB)); V(urgent);
    struct pollfd p = { s[1], POLLPRI }; T(poll(&p, 1, 0)); V(p.revents);
    int e = epoll_create1(0), n = 0; struct epoll_event ev = { EPOLLPRI | EPOLLET, { .u32 = 7 } };
    T(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev)); T(epoll_wait(e, &ev, 1, 0)); V(ev.events); T(epoll_wait(e, &ev, 1, 0)); T(snd(s[0], "g", MSG_OOB)); T(epoll_wait(e, &ev, 1, 0)); R(9, MSG_OOB); T(epoll_wait(e, &ev, 1, 0));
    T(ioctl(s[1], SIOCATMARK, BAD));
    /* Who waits is woken. */
    done(); pair(SOCK_STREAM); fflush(stdout);
    if (!fork()) { usleep(50000); send(s[0], "ab", 2, MSG_OOB); _exit(0); }
    p.fd = s[1]; T(poll(&p, 1, 5000)); V(p.revents); R(9, MSG_OOB); R(9, 0); wait(0);
    fflush(stdout);
    if (!fork()) { usleep(50000); send(s[0], "c", 1, MSG_OOB); usleep(50000); send(s[0], "d", 1, 0); _exit(0); }
    T(recv(s[1], buf, 9, 0)); V(buf[0]); R(9, MSG_OOB); wait(0);
    done(); close(e);
    int types[] = { SOCK_DGRAM, SOCK_SEQPACKET };
    for (int i = 0; i < 2; i++) { pair(types[i]); T(snd(s[0], "x", MSG_OOB)); T(recv(s[1], buf, 9, MSG_OOB)); T(ioctl(s[1], SIOCATMARK, &n)); V(n); done(); }
    T(s[0] = socket(AF_UNIX, SOCK_STREAM, 0)); T(snd(s[0], "x", MSG_OOB | MSG_NOSIGNAL)); T(recv(s[0], buf, 9, MSG_OOB)); T(ioctl(s[0], SIOCATMARK, &n)); V(n); close(s[0]);
    /* As much as there is room for, and the urgent byte waits as the others do. */
    pair(SOCK_STREAM); int f = 0; fcntl(s[0], F_SETFL, O_NONBLOCK); while (send(s[0], buf, sizeof buf, 0) > 0) f++; V(f > 10); T(snd(s[0], "x", MSG_OOB)); done();
}

static void times(void) {
    int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET }, o[] = { SO_TIMESTAMP, SO_TIMESTAMPNS, 63, 64, 37, 65 };
#define SHOW() do { for (int j = 0; j < 6; j++) { int v[2] = { 0 }; socklen_t l = 8; getsockopt(s[1], SOL_SOCKET, o[j], v, &l); printf(" %d: %d %d len %d", o[j], v[0], v[1], l); } puts(""); } while (0)
    for (int k = 0; k < 3; k++) {
        printf("type %d\n", types[k]);
        for (int i = 0; i < 6; i++) { pair(types[k]); T(seti(s[1], o[i], i < 4 ? 1 : 0x18)); SHOW(); snd(s[0], "x", 0); RC(400); done(); }
        pair(types[k]); seti(s[1], 29, 1); seti(s[1], 37, 0x18); snd(s[0], "x", 0); RC(400); seti(s[1], 64, 1); SHOW(); snd(s[0], "x", 0); RC(400); seti(s[1], 63, 0); SHOW(); snd(s[0], "x", 0); RC(400);
        seti(s[1], 35, 1); seti(s[1], 29, 1); SHOW(); seti(s[1], 35, 0); SHOW();
        for (int i = 0; i < 24; i++) T(seti(s[1], 37, 1u << i));
        T(seti(s[1], 37, 0x1800)); T(seti(s[1], 37, 0x10080)); T(seti(s[1], 37, -1)); SHOW();
        /* Which times of SO_TIMESTAMPING. */
        int flags[] = { 0x10, 0x18, 0x8, 0x20010, 0x20018, 0x40 };
        for (int i = 0; i < 6; i++) { seti(s[1], 29, 1); T(seti(s[1], 37, flags[i])); snd(s[0], "x", 0); RC(400); }
        /* Asked for after it was sent; by read; by a peek. */
        done(); pair(types[k]); snd(s[0], "x", 0); seti(s[1], 29, 1); RC(400); snd(s[0], "y", 0); rcv(__LINE__, s[1], 9, 400, MSG_PEEK); T(read(s[1], buf, 9));
        for (int room = 0; room < 120; room += 12) { seti(s[1], SO_PASSCRED, 1); seti(s[1], PASSPIDFD, 1); with(s[0], "z", 0, 0); RC(room); }
        done();
    }
}

static void processes(void) {
    int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET }, v; socklen_t l;
    for (int k = 0; k < 3; k++) {
        printf("type %d\n", types[k]);
        pair(types[k]);
        l = 4; T(getsockopt(s[0], SOL_SOCKET, PEERPIDFD, &v, &l)); V(l); T(fcntl(v, F_GETFD)); T(SYS(pidfd_send_signal, v, 0, 0, 0)); close(v);
        l = 4; T(getsockopt(s[0], SOL_SOCKET, PASSPIDFD, &v, &l)); V(v); T(seti(s[1], PEERPIDFD, 1));
        snd(s[0], "before", 0); T(seti(s[1], PASSPIDFD, 1)); RC(400); snd(s[0], "after", 0); RC(400);
        T(seti(s[1], PASSPIDFD, 0)); T(seti(s[0], PASSPIDFD, 1)); snd(s[0], "x", 0); RC(400); T(seti(s[1], PASSPIDFD, 1)); snd(s[0], "y", 0); T(seti(s[0], PASSPIDFD, 0)); RC(400);
        /* Of one that has ended; it is another's message, so not joined. */
        fflush(stdout);
        if (!fork()) { snd(s[0], "c", 0); _exit(0); }
        wait(0); snd(s[0], "d", 0); RC(400); RC(400);
        /* Credentials that name another. */
        fflush(stdout);
        pid_t pid = fork(); if (!pid) { pause(); _exit(0); }
        struct ucred u = { getpid(), getuid(), getgid() };
        char b[CMSG_SPACE(sizeof u)] = { 0 }; struct iovec io = { "e", 1 }; struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m); c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_CREDENTIALS; c->cmsg_len = CMSG_LEN(sizeof u); memcpy(CMSG_DATA(c), &u, sizeof u); T(sendmsg(s[0], &m, 0)); RC(400);
        kill(pid, 9); waitpid(pid, 0, 0);
        /* No descriptors, please. */
        l = 4; T(getsockopt(s[1], SOL_SOCKET, PASSRIGHTS, &v, &l)); V(v); T(with(s[0], "r", 0, 0)); T(seti(s[1], PASSRIGHTS, 0)); T(with(s[0], "s", 0, 0)); T(snd(s[0], "t", 0)); RC(400); RC(400); RC(400);
        T(seti(s[1], INQ, 1)); T(seti(s[1], INQ, 2)); T(seti(s[1], INQ, -1)); seti(s[1], PASSPIDFD, 0); snd(s[0], "abc", 0); snd(s[0], "def", 0); rcv(__LINE__, s[1], 2, 100, MSG_PEEK); rcv(__LINE__, s[1], 2, 100, 0); RC(100); RC(100);
        done();
        s[0] = socket(AF_UNIX, types[k], 0); l = 4; T(getsockopt(s[0], SOL_SOCKET, PEERPIDFD, &v, &l)); close(s[0]);
        if (types[k] == SOCK_DGRAM) continue;
        /* What an accepted one has of its listener; who listens and who connects. */
        struct sockaddr_un a = { AF_UNIX, "\0extras" }; int q, got;
        T(q = socket(AF_UNIX, types[k], 0)); T(bind(q, (void *)&a, 9)); T(listen(q, 5)); l = 4; T(getsockopt(q, SOL_SOCKET, PEERPIDFD, &v, &l)); close(v); T(seti(q, PASSPIDFD, 1)); T(seti(q, PASSRIGHTS, 0)); T(seti(q, SO_OOBINLINE, 1)); T(seti(q, 29, 1));
        fflush(stdout);
        if (!(pid = fork())) { int c = socket(AF_UNIX, types[k], 0); if (connect(c, (void *)&a, 9)) perror("connect"); char x; read(c, &x, 1); l = 4; OK(getsockopt(c, SOL_SOCKET, PEERPIDFD, &v, &l)); T(SYS(pidfd_send_signal, v, 0, 0, 0)); fflush(stdout); _exit(0); }
        T(got = accept(q, 0, 0)); int names[] = { PASSPIDFD, PASSRIGHTS, SO_OOBINLINE, 29 };
        for (int i = 0; i < 4; i++) { l = 4; T(getsockopt(got, SOL_SOCKET, names[i], &v, &l)); V(v); }
        l = 4; T(getsockopt(got, SOL_SOCKET, PEERPIDFD, &v, &l)); T(SYS(pidfd_send_signal, v, 0, 0, 0)); write(got, "x", 1); waitpid(pid, 0, 0); errno = 0; T(SYS(pidfd_send_signal, v, 0, 0, 0)); close(v);
        l = 4; T(getsockopt(got, SOL_SOCKET, PEERPIDFD, &v, &l)); T(SYS(pidfd_send_signal, v, 0, 0, 0)); close(v); close(got); close(q);
    }
    long cookies[2]; pair(SOCK_STREAM); l = 8; T(getsockopt(s[0], SOL_SOCKET, SO_COOKIE, &cookies[0], &l)); V(l); T(getsockopt(s[1], SOL_SOCKET, SO_COOKIE, &cookies[1], &l)); V(cookies[0] != cookies[1]); l = 4; T(getsockopt(s[0], SOL_SOCKET, SO_COOKIE, &cookies[0], &l));
    l = 4; T(getsockopt(s[0], SOL_SOCKET, SO_LOCK_FILTER, &v, &l)); V(v); T(seti(s[0], SO_LOCK_FILTER, 0)); T(seti(s[0], SO_LOCK_FILTER, 1)); T(seti(s[0], SO_LOCK_FILTER, 0)); T(getsockopt(s[0], SOL_SOCKET, SO_LOCK_FILTER, &v, &l)); V(v);
    int more[] = { 41, SO_NOFCS, SO_SELECT_ERR_QUEUE, 75, SO_BPF_EXTENSIONS }; for (int i = 0; i < 5; i++) { T(seti(s[0], more[i], 3)); l = 4; T(getsockopt(s[0], SOL_SOCKET, more[i], &v, &l)); V(v); }
    done();
}

int main(void) {
    struct { unsigned v; int p; } ch = { 0x20080522, 0 }; unsigned cd[6] = { 0xa80c25fb, 0xa80c25fb, 0, 0, 0, 0 }; SYS(capset, &ch, cd);
    out_of_band(0);
    out_of_band(1);
    signals();
    times();
    processes();
    return 0;
}
