#include "guest.h"
static struct sockaddr_un un(const char *p, int n, socklen_t *l) { struct sockaddr_un u = {AF_UNIX}; memcpy(u.sun_path, p, n); *l = 2 + n; return u; }
/* Descriptors on their way are limited: they have no numbers. */
static long send_many(int to, int fd, int count) {
    char b[CMSG_SPACE(64 * sizeof(int))] = { 0 }, x = 'x';
    struct iovec v = { &x, 1 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (int i = 0; i < count; i++) ((int *)CMSG_DATA(c))[i] = fd;
    return sendmsg(to, &m, MSG_DONTWAIT);
}
static void in_flight(void) {
    int p[2];
    char b[64];
    struct rlimit l = { 100, 1000 };
    fflush(stdout);
    if (!fork()) {
        T(setresuid(1234, 1234, 1234));
        T(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); T(setrlimit(RLIMIT_NOFILE, &l));
        for (int i = 0; i < 5; i++) T(send_many(p[0], 0, 50));
        T(send(p[0], "plain", 5, 0));
        T(read(p[1], b, 1)); T(send_many(p[0], 0, 50)); T(send_many(p[0], 0, 50));
        close(p[0]); close(p[1]);
        T(socketpair(AF_UNIX, SOCK_DGRAM, 0, p));
        for (int i = 0; i < 4; i++) T(send_many(p[0], 0, 50));
        fflush(stdout); _exit(0);
    }
    wait(0);
}

int main(void) {
    int s[2], f; char b[200000]; T(socketpair(AF_UNIX, SOCK_STREAM, 0, s)); T(socket(AF_UNIX, 99, 0)); T(socket(999, SOCK_STREAM, 0)); T(socket(AF_UNIX, SOCK_STREAM, 99)); T(socketpair(AF_UNIX, SOCK_STREAM, 0, BAD)); T(write(s[0], "hello", 5)); T(recv(s[1], b, 2, MSG_PEEK)); T(read(s[1], b, 3)); T(recv(s[1], b, 9, MSG_DONTWAIT)); T(recv(s[1], b, 9, MSG_DONTWAIT)); T(shutdown(s[0], 99)); T(shutdown(s[0], SHUT_WR)); T(read(s[1], b, 9)); signal(SIGPIPE, SIG_IGN); T(write(s[0], "x", 1)); T(write(s[1], "back", 4)); T(read(s[0], b, 9)); T(send(s[0], "x", 1, MSG_NOSIGNAL)); struct pollfd p = {s[1], POLLIN | POLLOUT | POLLRDHUP}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); close(s[0]); T(poll(&p, 1, 0)); printf("%x\n", p.revents); T(read(s[1], b, 1)); T(write(s[1], b, 1)); close(s[1]); T(lseek(s[1], 0, 0));
    socklen_t l; struct sockaddr_un u = un("sock", 5, &l), c; int a, k, q; T(a = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); T(connect(a, (void *)&u, l)); T(listen(a, 5)); T(accept(a, 0, 0)); T(bind(a, (void *)&u, l)); T(bind(a, (void *)&u, l)); T(accept(a, 0, 0)); k = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(k, (void *)&u, l)); T(connect(k, (void *)&u, l)); T(listen(a, 5)); T(connect(k, (void *)&u, l)); T(connect(k, (void *)&u, l)); l = sizeof c; T(q = accept4(a, (void *)&c, &l, SOCK_NONBLOCK)); V(l); V(c.sun_family); l = sizeof c; T(getpeername(k, (void *)&c, &l)); V(l); S(c.sun_path); l = sizeof c; T(getsockname(a, (void *)&c, &l)); V(l); T(getpeername(a, (void *)&c, &l)); T(read(q, b, 5)); T(write(k, "abc", 3)); T(read(q, b, 5)); fcntl(a, F_SETFL, O_NONBLOCK); T(accept(a, 0, 0)); T(open("sock", O_RDWR)); struct stat st; stat("sock", &st); printf("%o\n", st.st_mode & S_IFMT); struct ucred uc; l = sizeof uc; T(getsockopt(q, SOL_SOCKET, SO_PEERCRED, &uc, &l)); V(uc.uid); V(uc.pid == getpid()); int v; l = 4; T(getsockopt(q, SOL_SOCKET, SO_TYPE, &v, &l)); V(v); T(getsockopt(a, SOL_SOCKET, SO_ACCEPTCONN, &v, &l)); V(v); T(getsockopt(a, SOL_SOCKET, SO_ERROR, &v, &l)); V(v); T(getsockopt(a, SOL_SOCKET, SO_DOMAIN, &v, &l)); V(v); T(getsockopt(a, SOL_SOCKET, 999, &v, &l)); T(setsockopt(a, SOL_SOCKET, 999, &v, 4)); T(setsockopt(a, 999, 1, &v, 4)); T(getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &l)); close(q); T(read(k, b, 5)); close(k); close(a); k = socket(AF_UNIX, SOCK_STREAM, 0); u = un("sock", 5, &l); T(connect(k, (void *)&u, l)); unlink("sock"); T(connect(k, (void *)&u, l)); u = un("\0abs", 4, &l); a = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(a, (void *)&u, l)); T(listen(a, 1)); T(connect(k, (void *)&u, l)); l = sizeof c; T(getpeername(k, (void *)&c, &l)); V(l); close(k); close(a); k = socket(AF_UNIX, SOCK_STREAM, 0); u = un("\0abs", 4, &l); T(connect(k, (void *)&u, l)); T(bind(k, (void *)&u, 2)); l = sizeof c; T(getsockname(k, (void *)&c, &l)); V(l); T(bind(k, (void *)&u, 1)); T(bind(k, (void *)&u, 200)); close(k);
    int d1 = socket(AF_UNIX, SOCK_DGRAM, 0), d2 = socket(AF_UNIX, SOCK_DGRAM, 0); u = un("dg", 3, &l); T(bind(d1, (void *)&u, l)); T(send(d2, "x", 1, 0)); T(sendto(d2, "hello", 5, 0, (void *)&u, l)); T(sendto(d2, "", 0, 0, (void *)&u, l)); T(sendto(d2, "world!", 6, 0, (void *)&u, l)); socklen_t z = sizeof c; T(recvfrom(d1, b, 3, MSG_TRUNC, (void *)&c, &z)); V(z); T(recv(d1, b, 10, 0)); T(recv(d1, b, 3, 0)); T(recv(d1, b, 3, MSG_DONTWAIT)); T(connect(d2, (void *)&u, l)); T(send(d2, "c", 1, 0)); T(write(d2, b, 1 << 20)); int st2 = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(st2, (void *)&u, l)); close(d1); T(send(d2, "c", 1, 0)); T(sendto(d2, "c", 1, 0, (void *)&u, l)); T(listen(d2, 1)); T(accept(d2, 0, 0)); close(d2); close(st2);
    T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s)); T(write(s[0], "one", 3)); T(write(s[0], "three", 5)); T(read(s[1], b, 2)); T(read(s[1], b, 20)); T(recv(s[1], b, 1, MSG_DONTWAIT)); struct iovec io = {b, 50}; char cb[200]; struct msghdr m = {0}; m.msg_iov = &io; m.msg_iovlen = 1; write(s[0], "longer", 6); io.iov_len = 2; T(recvmsg(s[1], &m, 0)); printf("%x\n", m.msg_flags); close(s[0]); T(read(s[1], b, 1)); T(write(s[1], b, 1)); close(s[1]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s); f = open("f", O_CREAT | O_RDWR, 0600); write(f, "file", 4); m.msg_control = cb; m.msg_controllen = CMSG_SPACE(8); struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(8); int fd2[2] = {f, 1}; memcpy(CMSG_DATA(h), fd2, 8); io.iov_len = 1; T(sendmsg(s[0], &m, 0)); close(f); m.msg_controllen = sizeof cb; T(recvmsg(s[1], &m, MSG_CMSG_CLOEXEC)); h = CMSG_FIRSTHDR(&m); V(h->cmsg_len); V(m.msg_controllen); memcpy(fd2, CMSG_DATA(h), 8); V(fd2[0]); V(fcntl(fd2[0], F_GETFD)); T(pread(fd2[0], b, 10, 0)); m.msg_controllen = CMSG_SPACE(8); T(sendmsg(s[0], &m, 0)); m.msg_controllen = CMSG_LEN(4); T(recvmsg(s[1], &m, 0)); printf("%x %ld\n", m.msg_flags, (long)m.msg_controllen); fd2[0] = 999; m.msg_controllen = CMSG_SPACE(8); h = CMSG_FIRSTHDR(&m); h->cmsg_len = CMSG_LEN(8); memcpy(CMSG_DATA(h), fd2, 8); T(sendmsg(s[0], &m, 0)); m.msg_controllen = 0; v = 1; T(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &v, 4)); T(sendmsg(s[0], &m, 0)); m.msg_controllen = sizeof cb; T(recvmsg(s[1], &m, 0)); h = CMSG_FIRSTHDR(&m); V(h && h->cmsg_type == SCM_CREDENTIALS); V(h ? ((struct ucred *)CMSG_DATA(h))->pid == getpid() : 0);
    struct timeval tv = {0, 30000}; T(setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)); T(read(s[1], b, 1)); tv.tv_usec = 0; setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv); if (!fork()) { for (int i = 0; i < 5; i++) write(s[0], b, 100000); _exit(0); } long sum = 0; close(s[0]); int n; while ((n = read(s[1], b, sizeof b)) > 0) sum += n; V(sum); wait(0); in_flight();
    return 0;
}
