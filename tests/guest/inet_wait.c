/* Waiting for TCP: masks of poll and epoll at each stage, by level and by edge; calls that signals, other threads and ends wake. */
#include "inet.h"
#include <sys/select.h>
static char buf[1 << 16];
static volatile int caught;
static void on(int n) { caught++; }
/* Every bit that there is. */
#define ALL(fd, want) do { reached(fd, want); struct pollfd p_ = { fd, POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND | POLLMSG }; poll(&p_, 1, 0); printf("%d all of %s: %s\n", __LINE__, #fd, mask(p_.revents)); } while (0)
static int ep;
static int add(int fd, int events) { struct epoll_event e = { events, { .fd = fd } }; return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e); }
/* What epoll says within `ms`, all that comes within 20 ms after it put together: an edge may come in two. */
static void events(int line, int ms) {
    struct epoll_event e[8]; int all = 0, n;
    while ((n = epoll_wait(ep, e, 8, all ? 20 : ms)) > 0) { for (int i = 0; i < n; i++) all |= e[i].events; if (ms == 0) break; }
    printf("%d event: %s\n", line, mask(all));
}
#define COMES events(__LINE__, 3000)
#define NONE events(__LINE__, 0)
#define EDGE (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

static void masks(void) {
    puts("masks");
    int s[2], l, c; fd_set r, w, x; struct timeval t = { 0 };
    c = tcp(); ALL(c, 0); bind_to(c, LOCAL, 0); ALL(c, 0); listen(c, 3); ALL(c, 0); l = c; c = tcp(); connect_to(c, LOCAL, port_of(l)); ALL(l, POLLIN); ALL(c, 0); int a = accept(l, 0, 0); ALL(l, 0); ALL(a, 0); send(c, "x", 1, 0); ALL(a, POLLIN); shutdown(c, SHUT_WR); ALL(a, POLLRDHUP); ALL(c, 0); recv(a, buf, 1, 0); ALL(a, 0); shutdown(a, SHUT_RD); ALL(a, 0); shutdown(a, SHUT_WR); ALL(a, POLLHUP); ALL(c, POLLHUP); close(a); close(c); close(l);
    pair_of(s, LOCAL); close(s[1]); ALL(s[0], POLLRDHUP); send(s[0], "x", 1, 0); ALL(s[0], POLLHUP); recv(s[0], buf, 1, 0); ALL(s[0], 0); ERROR(s[0]); ALL(s[0], 0); struct pollfd p = { s[0], 0 }; T(poll(&p, 1, 0)); printf("%s\n", mask(p.revents)); close(s[0]);
    pair_of(s, LOCAL); FD_ZERO(&r); FD_ZERO(&w); FD_ZERO(&x); FD_SET(s[0], &r); FD_SET(s[0], &w); FD_SET(s[0], &x); T(select(99, &r, &w, &x, &t)); V(FD_ISSET(s[0], &r) != 0); V(FD_ISSET(s[0], &w) != 0); V(FD_ISSET(s[0], &x) != 0); send(s[1], "u", 1, MSG_OOB); reached(s[0], POLLPRI); FD_SET(s[0], &r); FD_SET(s[0], &x); T(select(99, &r, &w, &x, &t)); V(FD_ISSET(s[0], &r) != 0); V(FD_ISSET(s[0], &x) != 0); both(s);
    /* Full: writable again only when a third is free. */
    pair_of(s, LOCAL); blocking(s[0], 0); while (send(s[0], buf, sizeof buf, 0) > 0 || (usleep(20000), send(s[0], buf, sizeof buf, 0) > 0)) ; ALL(s[0], 0); ALL(s[1], POLLIN); blocking(s[1], 0); T(recv(s[1], buf, 1, 0)); NOT(s[0], POLLOUT); while (recv(s[1], buf, sizeof buf, 0) > 0 || (usleep(20000), recv(s[1], buf, sizeof buf, 0) > 0)) ; ALL(s[0], POLLOUT); both(s);
    /* Waiting while it changes. */
    pair_of(s, LOCAL); fflush(stdout); if (!fork()) { usleep(20000); send(s[1], "x", 1, 0); _exit(0); } p = (struct pollfd){ s[0], POLLIN }; T(poll(&p, 1, 3000)); printf("%s\n", mask(p.revents)); wait(0); recv(s[0], buf, 1, 0); fflush(stdout); if (!fork()) { usleep(20000); shutdown(s[1], SHUT_WR); _exit(0); } p = (struct pollfd){ s[0], POLLRDHUP }; T(poll(&p, 1, 3000)); printf("%s\n", mask(p.revents)); wait(0); fflush(stdout); if (!fork()) { usleep(20000); shutdown(s[0], SHUT_WR); _exit(0); } p = (struct pollfd){ s[0], 0 }; T(poll(&p, 1, 3000)); printf("%s\n", mask(p.revents)); wait(0); both(s);
}

static void edges(void) {
    puts("edges");
    int s[2], l = listener(LOCAL, 5), c, d, a; ep = epoll_create1(0);
    add(l, EDGE); NONE; c = tcp(); connect_to(c, LOCAL, port_of(l)); COMES; NONE; d = tcp(); connect_to(d, LOCAL, port_of(l)); COMES; NONE; close(accept(l, 0, 0)); NONE; close(accept(l, 0, 0)); NONE; close(c); close(d); c = tcp(); connect_to(c, LOCAL, port_of(l)); COMES; T(shutdown(l, SHUT_RD)); COMES; close(l); close(c); close(ep);
    ep = epoll_create1(0); c = tcp(); add(c, EDGE); COMES; NONE; l = listener(LOCAL, 5); blocking(c, 0); T(connect_to(c, LOCAL, port_of(l))); COMES; NONE; a = accept(l, 0, 0); T(send(a, "one", 3, 0)); COMES; NONE; T(recv(c, buf, 1, 0)); NONE; T(send(a, "two", 3, 0)); COMES; NONE; T(recv(c, buf, 9, 0)); T(recv(c, buf, 9, 0)); NONE; T(send(a, "!", 1, MSG_OOB)); COMES; NONE; T(shutdown(a, SHUT_WR)); COMES; NONE; T(recv(c, buf, 9, 0)); T(recv(c, buf, 9, 0)); NONE; T(shutdown(c, SHUT_WR)); COMES; NONE; close(a); close(c); close(ep);
    /* Refused, reset. */
    ep = epoll_create1(0); int h, port = deaf(&h); c = tcp(); blocking(c, 0); T(connect_to(c, LOCAL, port)); add(c, EDGE); COMES; NONE; ERROR(c); NONE; close(c); close(ep);
    ep = epoll_create1(0); pair_of(s, LOCAL); add(s[0], EDGE); COMES; struct linger g = { 1, 0 }; setsockopt(s[1], SOL_SOCKET, SO_LINGER, &g, sizeof g); close(s[1]); COMES; NONE; T(recv(s[0], buf, 1, 0)); NONE; close(s[0]); NONE; close(ep);
    /* Once; changed; what nobody asked for is told all the same. */
    ep = epoll_create1(0); pair_of(s, LOCAL); add(s[0], EPOLLIN | EPOLLONESHOT); NONE; send(s[1], "x", 1, 0); COMES; send(s[1], "x", 1, 0); reached(s[0], POLLIN); NONE; struct epoll_event e = { EPOLLIN | EPOLLONESHOT }; T(epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &e)); COMES; e.events = 0; T(epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &e)); NONE; close(s[1]); reached(s[0], POLLRDHUP); NONE; T(send(s[0], "x", 1, 0)); reached(s[0], POLLHUP); NONE; e.events = EPOLLRDHUP | EPOLLET; T(epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &e)); COMES; NONE; close(s[0]); close(ep);
    /* Room to write is an edge only after there was none. */
    ep = epoll_create1(0); pair_of(s, LOCAL); blocking(s[0], 0); blocking(s[1], 0); add(s[0], EPOLLOUT | EPOLLET); COMES; NONE; T(send(s[0], "x", 1, 0)); V(drained(s[0])); NONE; while (send(s[0], buf, sizeof buf, 0) > 0 || (usleep(20000), send(s[0], buf, sizeof buf, 0) > 0)) ; NONE; while (recv(s[1], buf, sizeof buf, 0) > 0 || (usleep(20000), recv(s[1], buf, sizeof buf, 0) > 0)) ; COMES; NONE; both(s); close(ep);
    /* Two that wait for one socket; one that waits for one that waits. */
    ep = epoll_create1(0); int outer = epoll_create1(0); pair_of(s, LOCAL); add(s[0], EPOLLIN); e = (struct epoll_event){ EPOLLIN }; epoll_ctl(outer, EPOLL_CTL_ADD, ep, &e); T(epoll_wait(outer, &e, 1, 0)); send(s[1], "x", 1, 0); T(epoll_wait(outer, &e, 1, 3000)); NONE; recv(s[0], buf, 1, 0); T(epoll_wait(outer, &e, 1, 0)); NONE; close(outer); both(s); close(ep);
}


/* Threads: one blocks in a call, and others do something about it. */
struct job { int what, fd, port; long r; int e; volatile int done; pthread_t t; };
static void *blocks(void *p) {
    struct job *j = p; static char big[1 << 20]; struct epoll_event ev; struct pollfd q = { j->fd, POLLIN }; char b[100]; struct iovec v = { b, 100 }; struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 }; struct mmsghdr mm = { m };
    errno = 0;
    switch (j->what) {
    case 0: j->r = accept(j->fd, 0, 0); break;
    case 1: j->r = recv(j->fd, b, sizeof b, 0); break;
    case 2: j->r = connect_to(j->fd, LOCAL, j->port); break;
    case 3: do j->r = send(j->fd, big, sizeof big, 0); while (j->r == sizeof big); break;
    case 4: j->r = poll(&q, 1, 3000); break;
    case 5: j->r = epoll_wait(j->fd, &ev, 1, 3000); break;
    case 6: j->r = recvmsg(j->fd, &m, MSG_WAITALL); break;
    case 7: j->r = recvmmsg(j->fd, &mm, 1, 0, 0); break;
    case 8: j->r = read(j->fd, b, sizeof b); break;
    case 9: j->r = recv(j->fd, b, sizeof b, MSG_PEEK); break;
    }
    j->e = errno; j->done = 1;
    return 0;
}
static void begin(struct job *j, int what, int fd) { *j = (struct job){ .what = what, .fd = fd, .port = j->port }; pthread_create(&j->t, 0, blocks, j); }
static void end(int line, struct job *j) { pthread_join(j->t, 0); if (j->r < 0) printf("%d call %d: %s\n", line, j->what, strerrorname_np(j->e)); else printf("%d call %d = %ld\n", line, j->what, j->what == 0 ? 0 : j->what == 3 ? (j->r > 0) : j->r); }
#define END(j) end(__LINE__, j)
/* Signals until the call ends. */
static void interrupt(struct job *j) { for (int i = 0; i < 3000 && !j->done; i++) { pthread_kill(j->t, SIGUSR1); usleep(1000); } }
static void handle(int flags) { struct sigaction a = { .sa_handler = on, .sa_flags = flags }; sigaction(SIGUSR1, &a, 0); }
static void signals(void) {
    puts("signals");
    struct job j = { 0 }; int s[2], l = listener(LOCAL, 0), c, n; struct timeval t = { 3, 0 };
    handle(0);
    begin(&j, 0, l); interrupt(&j); END(&j); pair_of(s, LOCAL); begin(&j, 1, s[0]); interrupt(&j); END(&j); begin(&j, 6, s[0]); interrupt(&j); END(&j); begin(&j, 3, s[0]); usleep(100000); interrupt(&j); END(&j); both(s);
    /* What a call has done by then counts. */
    pair_of(s, LOCAL); send(s[1], "abc", 3, 0); waiting(s[0], 3); begin(&j, 6, s[0]); interrupt(&j); END(&j); begin(&j, 7, s[0]); interrupt(&j); END(&j); begin(&j, 9, s[0]); interrupt(&j); END(&j); both(s);
    puts("again");
    handle(SA_RESTART);
    begin(&j, 0, l); for (int i = 0; i < 5; i++) { usleep(5000); pthread_kill(j.t, SIGUSR1); } V(j.done); c = tcp(); connect_to(c, LOCAL, port_of(l)); END(&j); close(c);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); for (int i = 0; i < 5; i++) { usleep(5000); pthread_kill(j.t, SIGUSR1); } V(j.done); send(s[1], "abc", 3, 0); END(&j);
    /* With a limit of time it is not begun again. */
    T(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t)); begin(&j, 1, s[0]); interrupt(&j); END(&j); both(s); setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); begin(&j, 0, l); interrupt(&j); END(&j); close(l);
    /* Connecting goes on after the call has ended. */
    l = listener(LOCAL, 0); c = tcp(); connect_to(c, LOCAL, port_of(l)); reached(l, POLLIN); int d = tcp(); handle(0); j.port = port_of(l); begin(&j, 2, d); interrupt(&j); END(&j); blocking(d, 0); T(connect_to(d, LOCAL, port_of(l))); STATE(d, TCP_SYN_SENT); blocking(d, 1); close(accept(l, 0, 0)); T(connect_to(d, LOCAL, port_of(l))); T(connect_to(d, LOCAL, port_of(l))); close(d); close(c); close(l);
    V(caught > 10);
}
/* Shut, closed, reset while another thread waits. */
static void closes(void) {
    puts("closes");
    struct job j = { 0 }, k = { 0 }; int s[2], l, c;
    l = listener(LOCAL, 5); begin(&j, 0, l); begin(&k, 0, l); others_wait(); T(shutdown(l, SHUT_RDWR)); END(&j); END(&k); close(l);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); begin(&k, 8, s[0]); others_wait(); T(shutdown(s[0], SHUT_RD)); END(&j); END(&k); both(s);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); others_wait(); T(shutdown(s[1], SHUT_WR)); END(&j); both(s);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); others_wait(); struct linger g = { 1, 0 }; setsockopt(s[1], SOL_SOCKET, SO_LINGER, &g, sizeof g); close(s[1]); END(&j); close(s[0]);
    signal(SIGPIPE, SIG_IGN);
    pair_of(s, LOCAL); begin(&j, 3, s[0]); usleep(50000); others_wait(); T(shutdown(s[0], SHUT_WR)); END(&j); both(s);
    pair_of(s, LOCAL); begin(&j, 3, s[0]); usleep(50000); others_wait(); close(s[1]); pthread_join(j.t, 0); V(j.r < 0 || j.r < 1 << 20); V(send(s[0], "x", 1, 0) < 0); close(s[0]);
    /* A closed descriptor is one thing, what a call waits for another: it goes on, and ends with it. */
    l = listener(LOCAL, 5); int port = port_of(l); begin(&j, 0, l); others_wait(); T(close(l)); V(j.done); c = tcp(); T(connect_to(c, LOCAL, port)); END(&j); close(c); c = tcp(); int r = -1; for (int i = 0; i < 1000 && (r = connect_to(c, LOCAL, port)) == 0; i++) { close(c); usleep(1000); c = tcp(); } V(r); close(c);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); others_wait(); T(close(s[0])); NOT(s[1], POLLIN); V(j.done); T(send(s[1], "late", 4, 0)); END(&j); P(s[1], POLLRDHUP); close(s[1]);
    /* Another socket under the same number makes no difference to it. */
    pair_of(s, LOCAL); begin(&j, 1, s[0]); others_wait(); c = tcp(); T(dup2(c, s[0]) == s[0]); V(j.done); T(send(s[1], "to the old one", 14, 0)); END(&j); close(c); both(s);
    /* Polled ones: told of nothing when closed. */
    pair_of(s, LOCAL); begin(&j, 4, s[0]); others_wait(); T(shutdown(s[0], SHUT_RD)); END(&j); both(s);
    ep = epoll_create1(0); pair_of(s, LOCAL); add(s[0], EPOLLIN); begin(&j, 5, ep); others_wait(); T(close(s[0])); NOT(s[1], POLLERR); V(j.done); c = tcp(); connect_to(c, LOCAL, 1); add(c, EPOLLIN); END(&j); close(c); both(s); close(ep);
    /* Connecting while another waits for it. */
    l = listener(LOCAL, 0); c = tcp(); connect_to(c, LOCAL, port_of(l)); reached(l, POLLIN); int d = tcp(); j.port = port_of(l); begin(&j, 2, d); others_wait(); T(shutdown(d, SHUT_RDWR)); END(&j); STATE(d, TCP_CLOSE); begin(&j, 2, d); others_wait(); addr none = { .s.sa_family = AF_UNSPEC }; T(connect(d, &none.s, sizeof none.s)); T(shutdown(d, SHUT_RDWR)); END(&j); close(d); close(c); close(l);
    pair_of(s, LOCAL); begin(&j, 1, s[0]); others_wait(); T(connect(s[0], &none.s, sizeof none.s)); T(send(s[1], "x", 1, 0)); END(&j); both(s);
    /* Two that read: each byte goes to one of them. */
    pair_of(s, LOCAL); begin(&j, 1, s[0]); begin(&k, 1, s[0]); others_wait(); send(s[1], "a", 1, 0); while (!j.done && !k.done) usleep(1000); V(j.done + k.done); send(s[1], "b", 1, 0); END(&j); END(&k); both(s);
    /* Two that accept. */
    l = listener(LOCAL, 5); begin(&j, 0, l); begin(&k, 0, l); others_wait(); c = tcp(); connect_to(c, LOCAL, port_of(l)); while (!j.done && !k.done) usleep(1000); usleep(20000); V(j.done + k.done); d = tcp(); connect_to(d, LOCAL, port_of(l)); END(&j); END(&k); close(c); close(d); close(l);
}

static volatile int io, code, band;
static void on_io(int n, siginfo_t *i, void *u) { io++; if (n != SIGIO) { code = i->si_code; band = i->si_band; } }
static void asynchronous(void) {
    puts("SIGIO");
    int s[2]; struct sigaction a = { .sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART }; sigaction(SIGIO, &a, 0); sigaction(SIGRTMIN, &a, 0);
    pair_of(s, LOCAL); T(fcntl(s[0], F_SETOWN, getpid())); T(fcntl(s[0], F_SETFL, O_ASYNC | O_NONBLOCK)); V((fcntl(s[0], F_GETFL) & O_ASYNC) != 0); send(s[1], "x", 1, 0); for (int i = 0; i < 1000 && !io; i++) usleep(1000); V(io > 0); T(recv(s[0], buf, 9, 0));
    T(fcntl(s[0], F_SETSIG, SIGRTMIN)); io = 0; send(s[1], "y", 1, 0); for (int i = 0; i < 1000 && !io; i++) usleep(1000); V(io > 0); V(code == POLL_IN); printf("%s\n", mask(band)); recv(s[0], buf, 9, 0); usleep(10000); io = 0; shutdown(s[1], SHUT_WR); for (int i = 0; i < 1000 && !io; i++) usleep(1000); V(io > 0); int off = 0; T(ioctl(s[0], FIOASYNC, &off)); V((fcntl(s[0], F_GETFL) & O_ASYNC) != 0); both(s);
}

int main(void) {
    void (*const parts[])(void) = { masks, edges, signals, closes, asynchronous };
    at_once(sizeof parts / sizeof *parts, parts);
    return 0;
}
