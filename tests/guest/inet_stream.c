/* Data over TCP: flags of calls, limits of time and of bytes, urgent data, what is counted, calls of many pieces, and much of it. */
#include "inet.h"
#include <linux/sockios.h>
#include <sys/sendfile.h>
static char buf[1 << 20];
static long ms(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }
#define GOT(call) do { memset(buf, 0, 64); errno = 0; long r_ = call; int e_ = errno; if (r_ < 0) printf("%d %s: %s\n", __LINE__, #call, strerrorname_np(e_)); else printf("%d %s = %ld \"%.40s\"\n", __LINE__, #call, r_, buf); } while (0)

static void flags(void) {
    puts("flags");
    int s[2], n; pair_of(s, LOCAL);
    T(recv(s[1], buf, 9, MSG_DONTWAIT)); T(send(s[0], "hello world", 11, 0)); V(waiting(s[1], 11)); GOT(recv(s[1], buf, 5, MSG_PEEK)); GOT(recv(s[1], buf, 60, MSG_PEEK)); GOT(recv(s[1], buf, 5, 0)); T(recv(s[1], 0, 3, MSG_TRUNC)); GOT(recv(s[1], buf, 60, MSG_DONTWAIT)); GOT(recv(s[1], buf, 9, MSG_DONTWAIT | MSG_PEEK));
    T(send(s[0], "0123456789", 10, 0)); waiting(s[1], 10); T(recv(s[1], 0, 0, 0)); T(read(s[1], buf, 0)); T(recv(s[1], BAD, 3, 0)); T(recv(s[1], BAD, 4, MSG_TRUNC)); V(waiting(s[1], 0)); T(recv(s[1], BAD, 2, MSG_TRUNC | MSG_PEEK)); GOT(recv(s[1], buf, 3, MSG_WAITALL)); GOT(recv(s[1], buf, 9, MSG_WAITALL | MSG_DONTWAIT));
    T(send(s[0], 0, 0, 0)); T(write(s[0], "", 0)); NOT(s[1], POLLIN); T(send(s[0], BAD, 10, 0)); T(send(s[0], buf, 3, MSG_DONTROUTE)); T(send(s[0], buf, 3, MSG_EOR)); T(send(s[0], buf, 3, MSG_CONFIRM)); T(send(s[0], "abc", 3, 0x20000000)); V(waiting(s[1], 9)); T(recv(s[1], buf, 100, 0)); T(recv(s[1], buf, 9, MSG_ERRQUEUE)); T(recv(s[1], buf, 9, MSG_ERRQUEUE | MSG_DONTWAIT));
    /* A bad page in the middle: what came before it counts. */
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); mprotect(page + 4096, 4096, PROT_NONE); memset(page, 'p', 4096); T(send(s[0], page + 4000, 200, 0)); int more = waiting(s[1], 0); V(more); if (more) recv(s[1], buf, more, MSG_DONTWAIT);
    T(send(s[0], "0123456789", 10, 0)); waiting(s[1], 10); struct iovec half[2] = { { buf, 4 }, { BAD, 4 } }; T(readv(s[1], half, 2)); V(waiting(s[1], 0)); while (recv(s[1], buf, 100, MSG_DONTWAIT) > 0) ;
    /* All of it, though it comes in pieces. */
    fflush(stdout); if (!fork()) { for (int i = 0; i < 5; i++) { usleep(10000); send(s[0], "ab", 2, 0); } _exit(0); } GOT(recv(s[1], buf, 10, MSG_WAITALL)); wait(0);
    fflush(stdout); if (!fork()) { usleep(10000); send(s[0], "ab", 2, 0); shutdown(s[0], SHUT_WR); _exit(0); } GOT(recv(s[1], buf, 10, MSG_WAITALL)); GOT(recv(s[1], buf, 10, MSG_WAITALL)); wait(0); both(s);
    /* Addresses are of no matter in a connection; nor is where one is asked for. */
    pair_of(s, LOCAL); addr a = at("127.9.9.9", 9); T(sendto(s[0], "to", 2, 0, &a.s, sizeof a.i)); T(sendto(s[0], "to", 2, 0, &a.s, 1)); T(sendto(s[0], "to", 2, 0, BAD, 16)); memset(&a, 0x55, sizeof a); socklen_t l = sizeof a; V(waiting(s[1], 4)); GOT(recvfrom(s[1], buf, 9, 0, &a.s, &l)); V(l); V(a.bytes[0]);
    struct iovec v[3] = { { "one ", 4 }, { "", 0 }, { "two", 3 } }; struct msghdr m = { .msg_iov = v, .msg_iovlen = 3 }; T(sendmsg(s[0], &m, 0)); T(writev(s[0], v, 3)); waiting(s[1], 14); struct iovec w[2] = { { buf, 3 }, { buf + 10, 4 } }; m = (struct msghdr){ .msg_name = &a, .msg_namelen = sizeof a, .msg_iov = w, .msg_iovlen = 2, .msg_control = buf + 100, .msg_controllen = 100, .msg_flags = 77 }; T(recvmsg(s[1], &m, 0)); V(m.msg_namelen); V(m.msg_controllen); V(m.msg_flags); V(buf[0]); V(buf[10]); GOT(recvmsg(s[1], &m, MSG_TRUNC)); V(m.msg_flags); T(send(s[0], "12345", 5, 0)); waiting(s[1], 5); T(readv(s[1], w, 2)); m.msg_iovlen = 2000; T(sendmsg(s[0], &m, 0)); T(recvmsg(s[1], &m, MSG_DONTWAIT)); T(sendmsg(s[0], BAD, 0));
    struct mmsghdr mm[3] = { { { .msg_iov = v, .msg_iovlen = 1 } }, { { .msg_iov = v + 2, .msg_iovlen = 1 } }, { { .msg_iov = &(struct iovec){ BAD, 5 }, .msg_iovlen = 1 } } }; T(sendmmsg(s[0], mm, 3, 0)); V(mm[0].msg_len); V(mm[1].msg_len); waiting(s[1], 7); struct mmsghdr rm[3] = { { { .msg_iov = &(struct iovec){ buf, 3 }, .msg_iovlen = 1 } }, { { .msg_iov = &(struct iovec){ buf + 3, 3 }, .msg_iovlen = 1 } }, { { .msg_iov = &(struct iovec){ buf + 6, 3 }, .msg_iovlen = 1 } } }; T(recvmmsg(s[1], rm, 3, MSG_DONTWAIT, 0)); V(rm[2].msg_len); T(recvmmsg(s[1], rm, 3, MSG_DONTWAIT, 0)); T(send(s[0], "x", 1, 0)); struct timespec t = { 0, 1000000 }; T(recvmmsg(s[1], rm, 3, MSG_WAITFORONE, &t)); T(sendmmsg(s[0], mm, 0, 0));
    both(s);
}

/* Writes what is to wait for more. It goes after 200 ms in any case: where all of that has passed meanwhile, it is done once more. */
static void holds(int line, int s[2], int cork, const char *data, int flags) {
    long began, r; int sent = -1, unsent = -1, came = -1;
    for (int i = 0; i < 50; i++) {
        pair_of(s, LOCAL); if (cork) set(s[0], IPPROTO_TCP, TCP_CORK, 1);
        began = ms(); r = send(s[0], data, strlen(data), flags);
        struct pollfd p = { s[1], POLLIN }; came = poll(&p, 1, 30); ioctl(s[0], SIOCOUTQ, &sent); ioctl(s[0], SIOCOUTQNSD, &unsent);
        if (ms() - began < 120) break;
        both(s);
    }
    printf("%d wrote %ld, came %d, waits %d, not sent %d\n", line, r, came, sent, unsent);
}
static void held(void) {
    puts("held back");
    int s[2], n;
    holds(__LINE__, s, 1, "corked", 0); T(set(s[0], IPPROTO_TCP, TCP_CORK, 0)); GOT(recv(s[1], buf, 9, 0)); V(drained(s[0]));
    both(s); holds(__LINE__, s, 0, "more", MSG_MORE); T(send(s[0], " end", 4, 0)); V(waiting(s[1], 8)); GOT(recv(s[1], buf, 20, 0)); both(s); holds(__LINE__, s, 0, "more", MSG_MORE); T(set(s[0], IPPROTO_TCP, TCP_NODELAY, 1)); V(waiting(s[1], 4)); GOT(recv(s[1], buf, 20, 0)); T(send(s[0], "last", 4, MSG_MORE)); T(shutdown(s[0], SHUT_WR)); GOT(recv(s[1], buf, 20, 0)); GOT(recv(s[1], buf, 20, 0)); both(s);
    /* Nobody reads: what is written stays with either, and goes when there is room. */
    pair_of(s, LOCAL); set(s[1], SOL_SOCKET, SO_RCVBUF, 8192); set(s[0], SOL_SOCKET, SO_SNDBUF, 16384); blocking(s[0], 0); long sum = 0, r, got = 0; for (int i = 0; i < 20; i++) { while ((r = send(s[0], buf, 5000, 0)) > 0) sum += r; usleep(5000); } V(sum > 8192); V(sum < 4 << 20); P(s[0], 0); T(send(s[0], buf, 1, 0)); T(ioctl(s[0], SIOCOUTQ, &n)); V(n > 0); V(waiting(s[1], 1) + n >= sum); while (got < sum) got += recv(s[1], buf, sizeof buf, 0); V(got == sum); P(s[0], POLLOUT); V(drained(s[0])); both(s);
    /* Limits of time. */
    pair_of(s, LOCAL); struct timeval t = { 0, 40000 }; T(setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t)); long m = ms(); T(recv(s[1], buf, 9, 0)); V(ms() - m >= 30); T(recv(s[1], buf, 9, MSG_WAITALL)); T(send(s[0], "abc", 3, 0)); T(recv(s[1], buf, 9, MSG_WAITALL)); struct timeval back; socklen_t l2 = sizeof back; T(getsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &back, &l2)); V(back.tv_sec); V(back.tv_usec == 40000); T(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t)); set(s[0], SOL_SOCKET, SO_SNDBUF, 16384); set(s[1], SOL_SOCKET, SO_RCVBUF, 8192); sum = 0; while ((r = send(s[0], buf, sizeof buf, 0)) > 0) sum += r; V(r); V(errno == EAGAIN); V(sum > 0);
    t.tv_usec = 2000000; T(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t)); t.tv_usec = -1; T(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t)); t.tv_usec = 0; t.tv_sec = -1; T(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t)); l2 = sizeof back; T(getsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &back, &l2)); V(back.tv_sec); V(back.tv_usec); T(setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, 8)); both(s);
    int a = listener(LOCAL, 1); t = (struct timeval){ 0, 30000 }; setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); T(accept(a, 0, 0)); close(a);
    /* How much must be there before who waits is told. */
    pair_of(s, LOCAL); T(set(s[1], SOL_SOCKET, SO_RCVLOWAT, 5)); T(get(s[1], SOL_SOCKET, SO_RCVLOWAT)); T(send(s[0], "abc", 3, 0)); V(waiting(s[1], 3)); NOT(s[1], POLLIN); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); T(send(s[0], "abc", 3, 0)); fflush(stdout); if (!fork()) { usleep(30000); send(s[0], "defgh", 5, 0); _exit(0); } GOT(recv(s[1], buf, 9, 0)); wait(0); T(send(s[0], "ab", 2, 0)); waiting(s[1], 2); T(recv(s[1], buf, 1, 0)); T(shutdown(s[0], SHUT_WR)); P(s[1], POLLIN); GOT(recv(s[1], buf, 9, 0)); T(set(s[1], SOL_SOCKET, SO_RCVLOWAT, 0)); T(get(s[1], SOL_SOCKET, SO_RCVLOWAT)); T(set(s[1], SOL_SOCKET, SO_RCVLOWAT, -1)); T(get(s[1], SOL_SOCKET, SO_RCVLOWAT) > 1000000); T(set(s[1], SOL_SOCKET, SO_SNDLOWAT, 5)); T(get(s[1], SOL_SOCKET, SO_SNDLOWAT)); both(s);
}

static volatile int urgent;
static void on_urgent(int n) { urgent++; }
static void told(int fd, int line) { int mark = -1, in = -1; ioctl(fd, SIOCATMARK, &mark); ioctl(fd, FIONREAD, &in); struct pollfd p = { fd, ASKED }; poll(&p, 1, 0); printf("%d mark %d in %d poll %s\n", line, mark, in, mask(p.revents)); }
#define TOLD(fd) told(fd, __LINE__)
static void out_of_band(void) {
    puts("urgent");
    int s[2], k; signal(SIGURG, on_urgent);
    for (k = 0; k < 2; k++) {
        printf("inline %d\n", k);
        pair_of(s, LOCAL); set(s[1], SOL_SOCKET, SO_OOBINLINE, k); TOLD(s[1]); T(recv(s[1], buf, 1, MSG_OOB)); T(send(s[0], "abc", 3, MSG_OOB)); P(s[1], POLLPRI | POLLIN); V(waiting(s[1], 2)); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_OOB | MSG_PEEK)); GOT(recv(s[1], buf, 9, MSG_OOB)); GOT(recv(s[1], buf, 9, MSG_OOB)); TOLD(s[1]); GOT(recv(s[1], buf, 1, 0)); TOLD(s[1]); GOT(recv(s[1], buf, 9, 0)); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); TOLD(s[1]); both(s);
        pair_of(s, LOCAL); set(s[1], SOL_SOCKET, SO_OOBINLINE, k); T(send(s[0], "abc", 3, MSG_OOB)); P(s[1], POLLPRI); T(send(s[0], "def", 3, 0)); V(drained(s[0])); TOLD(s[1]); GOT(recv(s[1], buf, 9, 0)); TOLD(s[1]); GOT(recv(s[1], buf, 9, 0)); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_OOB)); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); both(s);
        pair_of(s, LOCAL); set(s[1], SOL_SOCKET, SO_OOBINLINE, k); T(send(s[0], "ab", 2, MSG_OOB)); P(s[1], POLLPRI); T(send(s[0], "cd", 2, MSG_OOB)); V(drained(s[0])); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_OOB)); TOLD(s[1]); GOT(recv(s[1], buf, 9, 0)); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); both(s);
        pair_of(s, LOCAL); set(s[1], SOL_SOCKET, SO_OOBINLINE, k); T(send(s[0], "a", 1, MSG_OOB)); P(s[1], POLLPRI); TOLD(s[1]); GOT(recv(s[1], buf, 0, MSG_OOB)); GOT(recv(s[1], buf, 1, MSG_OOB)); TOLD(s[1]); T(send(s[0], "bc", 2, 0)); V(drained(s[0])); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_DONTWAIT)); TOLD(s[1]); T(send(s[0], "d", 1, MSG_OOB)); P(s[1], POLLPRI); close(s[0]); reached(s[1], POLLRDHUP); TOLD(s[1]); GOT(recv(s[1], buf, 9, MSG_OOB)); GOT(recv(s[1], buf, 9, 0)); GOT(recv(s[1], buf, 9, MSG_OOB)); close(s[1]);
    }
    pair_of(s, LOCAL); V(urgent); T(send(s[0], "a", 1, MSG_OOB)); P(s[1], POLLPRI); V(urgent); T(fcntl(s[1], F_SETOWN, getpid())); T(fcntl(s[1], F_GETOWN) == getpid()); T(send(s[0], "b", 1, MSG_OOB)); for (k = 0; k < 1000 && !urgent; k++) usleep(1000); V(urgent); T(send(s[0], "c", 1, 0)); V(drained(s[0])); V(urgent); T(send(s[0], "", 0, MSG_OOB)); V(urgent);
    int e = epoll_create1(0); struct epoll_event ev = { EPOLLPRI | EPOLLET }; T(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev)); T(epoll_wait(e, &ev, 1, 0)); printf("%s\n", mask(ev.events)); T(epoll_wait(e, &ev, 1, 0)); T(send(s[0], "d", 1, MSG_OOB)); T(epoll_wait(e, &ev, 1, 2000)); close(e); both(s);
    k = tcp(); T(recv(k, buf, 1, MSG_OOB)); T(send(k, "x", 1, MSG_OOB | MSG_NOSIGNAL)); int q; T(ioctl(k, SIOCATMARK, &q)); V(q); close(k); k = udp(); T(ioctl(k, SIOCATMARK, &q)); T(recv(k, buf, 1, MSG_OOB | MSG_DONTWAIT)); T(connect_to(k, LOCAL, 9)); T(send(k, "x", 1, MSG_OOB)); close(k);
}

static void counts(void) {
    puts("counts");
    int s[2], n; int k = tcp(); T(ioctl(k, FIONREAD, &n)); V(n); T(ioctl(k, SIOCOUTQ, &n)); V(n); T(ioctl(k, SIOCOUTQNSD, &n)); V(n); T(recv(k, buf, 1, 0)); T(recv(k, buf, 1, MSG_DONTWAIT)); T(send(k, "x", 1, MSG_NOSIGNAL)); T(recv(k, buf, 0, 0)); T(read(k, buf, 0)); T(recv(k, buf, 1, MSG_PEEK)); T(shutdown(k, SHUT_WR)); addr a = at(LOCAL, 9); T(sendto(k, "x", 1, MSG_NOSIGNAL, &a.s, sizeof a.i)); close(k);
    pair_of(s, "::1"); T(send(s[0], buf, 1000, 0)); V(waiting(s[1], 1000)); T(ioctl(s[1], FIONREAD, BAD)); V(drained(s[0])); T(recv(s[1], buf, 400, 0)); V(waiting(s[1], 0)); T(shutdown(s[0], SHUT_WR)); reached(s[1], POLLRDHUP); V(waiting(s[1], 0)); T(recv(s[1], buf, 4000, 0)); V(waiting(s[1], 0)); V(drained(s[0])); both(s);
    /* Files and pipes into it and out of it. */
    pair_of(s, LOCAL); int f = open("f", O_CREAT | O_RDWR | O_TRUNC, 0600), p[2]; for (int i = 0; i < 100000; i++) buf[i] = i * 7; write(f, buf, 100000); off_t o = 10; T(sendfile(s[0], f, &o, 30)); V(o); T(recv(s[1], buf, 30, MSG_WAITALL)); V(buf[0] == (char)70); T(sendfile(s[0], f, &o, 0)); T(sendfile(f, s[1], 0, 10)); T(sendfile(s[0], s[1], 0, 10)); lseek(f, 99990, SEEK_SET); T(sendfile(s[0], f, 0, 1000)); T(recv(s[1], buf, 10, MSG_WAITALL)); T(lseek(f, 0, SEEK_CUR)); T(sendfile(s[0], f, 0, 10));
    pipe(p); T(write(p[1], "through a pipe", 14)); T(splice(p[0], 0, s[0], 0, 100, 0)); V(waiting(s[1], 14)); T(splice(s[1], 0, p[1], 0, 7, 0)); T(splice(s[1], 0, p[1], 0, 100, SPLICE_F_NONBLOCK)); blocking(s[1], 0); T(splice(s[1], 0, p[1], 0, 100, 0)); blocking(s[1], 1); GOT(read(p[0], buf, 60)); T(splice(s[1], &o, p[1], 0, 1, 0)); T(splice(s[1], 0, s[0], 0, 1, 0)); T(write(p[1], "xyz", 3)); T(tee(p[0], s[0], 3, 0)); T(splice(p[0], 0, s[0], 0, 100, SPLICE_F_MORE)); V(waiting(s[1], 3)); GOT(recv(s[1], buf, 9, 0)); struct iovec v = { "gift", 4 }; T(vmsplice(s[0], &v, 1, 0)); T(shutdown(s[0], SHUT_WR)); T(splice(s[1], 0, p[1], 0, 100, 0)); T(splice(p[0], 0, s[0], 0, 100, SPLICE_F_NONBLOCK)); T(copy_file_range(f, 0, s[0], 0, 10, 0)); both(s); close(p[0]); close(p[1]);
    /* The whole file, while the other reads. */
    pair_of(s, LOCAL); fflush(stdout); if (!fork()) { close(s[1]); o = 0; while (o < 100000) sendfile(s[0], f, &o, 100000 - o); _exit(0); } close(s[0]); long sum = 0, r; while ((r = recv(s[1], buf, 3000, 0)) > 0) for (int i = 0; i < r; i++) sum += (unsigned char)buf[i]; V(sum); wait(0); close(s[1]); close(f); unlink("f");
}

/* Both ways at once: bytes by their place, a sum of what came. */
struct way { int fd; long size; unsigned long sum; long bytes; };
static unsigned char byte(long i) { return i * 2654435761u >> 13; }
static void *sends(void *p) { struct way *w = p; unsigned char *b = malloc(70000); for (long at = 0; at < w->size;) { long n = w->size - at, r; if (n > 1000 + at % 60000) n = 1000 + at % 60000; for (long i = 0; i < n; i++) b[i] = byte(at + i); for (long d = 0; d < n; d += r) if ((r = write(w->fd, b + d, n - d)) <= 0) return p; at += n; } shutdown(w->fd, SHUT_WR); free(b); return 0; }
static void *reads(void *p) { struct way *w = p; unsigned char *b = malloc(100000); long r; while ((r = read(w->fd, b, 100 + w->bytes % 99000)) > 0) { for (long i = 0; i < r; i++) w->sum = w->sum * 31 + (b[i] ^ byte(w->bytes + i)) + 1; w->bytes += r; } free(b); return (void *)(r != 0); }
static void transfers(const char *where, long size) {
    int s[2]; pair_of(s, where); pthread_t t[4]; struct way w[4] = { { s[0], size }, { s[1], size }, { s[0] }, { s[1] } };
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, i < 2 ? sends : reads, &w[i]);
    for (int i = 0; i < 4; i++) { void *bad; pthread_join(t[i], &bad); V(bad != 0); }
    unsigned long want = 0; for (long i = 0; i < size; i++) want = want * 31 + 1; for (int i = 2; i < 4; i++) { V(w[i].bytes); V(w[i].sum == want); } both(s);
}
static void much(void) {
    puts("much"); transfers(LOCAL, 8 << 20); transfers("::1", 1 << 20);
    /* Without waiting, by poll. */
    int s[2]; pair_of(s, LOCAL); blocking(s[0], 0); blocking(s[1], 0); fflush(stdout);
    pid_t c = fork(); if (!c) { close(s[1]); struct pollfd p = { s[0], POLLOUT }; unsigned char b[30000]; for (long at = 0; at < 2 << 20;) { poll(&p, 1, 5000); int n = (2 << 20) - at < 30000 ? (2 << 20) - at : 30000; for (int i = 0; i < n; i++) b[i] = byte(at + i); long r = send(s[0], b, n, 0); if (r > 0) at += r; else if (errno != EAGAIN) _exit(1); } _exit(0); }
    close(s[0]); int e = epoll_create1(0); struct epoll_event ev = { EPOLLIN | EPOLLRDHUP | EPOLLET }; epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev); long got = 0, wrong = 0, end = 0; while (!end && epoll_wait(e, &ev, 1, 5000) == 1) { long r; while ((r = recv(s[1], buf, sizeof buf, 0)) > 0) { for (long i = 0; i < r; i++) wrong += (unsigned char)buf[i] != byte(got + i); got += r; } end = r == 0; } V(got); V(wrong); V(end); int st; waitpid(c, &st, 0); V(st); close(s[1]); close(e);
}
static void many(void) {
    puts("many");
    struct rlimit r = { 4096, 4096 }; getrlimit(RLIMIT_NOFILE, &r); r.rlim_cur = r.rlim_max > 4096 ? 4096 : r.rlim_max; setrlimit(RLIMIT_NOFILE, &r);
    enum { N = 1000 }; static int c[N], a[N]; int l = listener(LOCAL, 128), e = epoll_create1(0), bad = 0, sum = 0; struct epoll_event ev;
    for (int i = 0; i < N; i++) { c[i] = tcp(); if (connect_to(c[i], LOCAL, port_of(l)) || (a[i] = accept(l, 0, 0)) < 0) bad++; ev = (struct epoll_event){ EPOLLIN, { .u32 = i } }; epoll_ctl(e, EPOLL_CTL_ADD, a[i], &ev); }
    V(bad); T(epoll_wait(e, &ev, 1, 0));
    for (int i = 0; i < N; i++) { int v = i; if (write(c[i], &v, 4) != 4) bad++; }
    for (int i = 0; i < N; i++) { int v = -1; if (read(a[i], &v, 4) != 4 || v != i) bad++; v = -v; write(a[i], &v, 4); }
    for (int i = 0; i < N; i++) { int v = 1; if (read(c[i], &v, 4) != 4 || v != -i) bad++; sum += v; }
    V(bad); V(sum); T(epoll_wait(e, &ev, 1, 0));
    for (int i = 0; i < N; i += 2) { struct linger g = { 1, 0 }; if (i % 4) setsockopt(c[i], SOL_SOCKET, SO_LINGER, &g, sizeof g); close(c[i]); }
    int ends = 0, resets = 0; for (int i = 0; i < N; i += 2) { char b; if (recv(a[i], &b, 1, 0) == 0) ends++; else if (errno == ECONNRESET) resets++; close(a[i]); } V(ends); V(resets); T(epoll_wait(e, &ev, 1, 0)); for (int i = 1; i < N; i += 2) { close(c[i]); char b; bad += recv(a[i], &b, 1, 0) != 0; close(a[i]); } V(bad); close(e); close(l);
    /* One after another. */
    l = listener(LOCAL, 5); int port = port_of(l); fflush(stdout); pid_t p = fork(); if (!p) { for (int i = 0; i < 300; i++) { int x = accept(l, 0, 0), v; read(x, &v, 4); v++; write(x, &v, 4); close(x); } _exit(0); } close(l); sum = 0; for (int i = 0; i < 300; i++) { int x = tcp(), v = i; if (connect_to(x, LOCAL, port)) { bad++; break; } write(x, &v, 4); v = 0; if (recv(x, &v, 4, MSG_WAITALL) != 4) bad++; sum += v; close(x); } V(bad); V(sum); int st; waitpid(p, &st, 0); V(st);
}

/* A file larger than what a socket holds: what is said to be sent is what comes, and where the file is read from goes on by that. */
static void on_alarm(int sig) { (void)sig; }
static long read_all(int fd) { long sum = 0, r; while ((r = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0) sum += r; return sum; }
static void large_file(int f, off_t size, int kind, int room) {
    int s[2]; off_t o = 0; long sent = 0, r, came = 0;
#define PAIR do { if (kind == AF_UNIX) socketpair(AF_UNIX, SOCK_STREAM, 0, s); else pair_of(s, LOCAL); if (room) set(s[0], SOL_SOCKET, SO_SNDBUF, room); } while (0)
    printf("family %d, room %d\n", kind, room);
    /* Without waiting, until nothing more goes in. What is on its way makes room again: a while later, too. */
    PAIR; blocking(s[0], 0);
    for (int idle = 0; idle < 20; idle++) { while ((r = sendfile(s[0], f, &o, size - o)) > 0) { sent += r; idle = 0; } usleep(1000); }
    V(sent > 0 && sent < size); V(sent == o); for (int idle = 0; idle < 3000 && came < sent; idle++) { if ((r = read_all(s[1])) > 0) { came += r; idle = 0; } usleep(1000); } usleep(10000); came += read_all(s[1]); V(came == sent); both(s);
    /* Waiting: all of it, while the other reads. With the file's own place. */
    PAIR; fflush(stdout); pid_t child = fork();
    if (!child) { close(s[0]); while ((r = recv(s[1], buf, 100000, 0)) > 0) came += r; _exit(came != sent + size - 5); }
    lseek(f, 5, SEEK_SET); T(sendfile(s[0], f, 0, size)); V(lseek(f, 0, SEEK_CUR)); write(s[0], buf, sent); both(s); int status; waitpid(child, &status, 0); V(status);
    /* With a limit of time, and a signal: what went in until then, and nothing is an error. */
    PAIR; o = 0; struct timeval limit = { 0, 50000 }; setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); r = sendfile(s[0], f, &o, size); V(r > 0 && r < size); V(r == o); while (sendfile(s[0], f, &o, size - o) > 0) ; T(sendfile(s[0], f, &o, size - o)); both(s);
    PAIR; o = 0; sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, 0); setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, 50000 }, .it_interval = { 0, 50000 } }, 0); r = sendfile(s[0], f, &o, size); V(r > 0 && r < size); V(r == o); while (sendfile(s[0], f, &o, size - o) > 0) ; T(sendfile(s[0], f, &o, size - o)); setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, 0); alarm(60); both(s);
}
static void large_files(void) {
    off_t size = 24 << 20; int f = open("large", O_CREAT | O_RDWR | O_TRUNC, 0600), rooms[] = { 0, 128 << 10, 256 << 10, 512 << 10 }; ftruncate(f, size);
    for (int i = 0; i < 4; i++) { large_file(f, size, AF_INET, rooms[i]); large_file(f, size, AF_UNIX, rooms[i]); }
    close(f); unlink("large");
}

int main(void) {
    void (*const parts[])(void) = { flags, held, out_of_band, counts, much, many, large_files };
    at_once(sizeof parts / sizeof *parts, parts);
    return 0;
}
