/* TCP connections over the loopback: how they are made, refused, queued, accepted, shut down, reset and ended. Data in
 * inet_stream.c, masks and waiting in inet_wait.c. */
#include "inet.h"
static char buf[1 << 16];
static volatile int pipes;
static void on_pipe(int n) { pipes++; }
static int linger(int fd, int on, int seconds) { struct linger l = { on, seconds }; return setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); }
static long ms(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }

static void refused(void) {
    puts("refused");
    int h, port = deaf(&h), c = tcp();
    T(connect_to(c, LOCAL, port)); ERROR(c); NAME(c); PEER(c); P(c, POLLHUP); T(connect_to(c, LOCAL, port)); STATE(c, TCP_CLOSE);
    int l = listener(LOCAL, 5); T(connect_to(c, LOCAL, port_of(l))); T(connect_to(c, LOCAL, port_of(l))); STATE(c, TCP_ESTABLISHED); close(c);
    /* Without waiting: the error is told once, by whoever asks first. */
    c = tcp(); blocking(c, 0);
    T(connect_to(c, LOCAL, port)); P(c, POLLHUP); STATE(c, TCP_CLOSE); ERROR(c); ERROR(c); P(c, POLLHUP); T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port)); P(c, POLLHUP | POLLERR);
    T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port)); P(c, POLLERR); T(recv(c, buf, 1, 0)); T(recv(c, buf, 1, 0)); T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port)); P(c, POLLERR); T(send(c, "x", 1, MSG_NOSIGNAL)); T(send(c, "x", 1, MSG_NOSIGNAL)); ERROR(c);
    T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port)); P(c, POLLERR); T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port_of(l))); P(c, POLLOUT); ERROR(c); T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port_of(l))); PEER(c); close(c);
    /* A port that one bound stays bound when connecting fails. */
    c = tcp(); T(bind_to(c, "127.0.0.2", 0)); NAME(c); T(connect_to(c, LOCAL, port)); NAME(c); T(connect_to(c, LOCAL, port_of(l))); NAME(c); PEER(c); close(c);
    c = tcp(); T(bind_to(c, "0.0.0.0", 0)); T(connect_to(c, LOCAL, port)); NAME(c); T(connect_to(c, "0.0.0.0", port_of(l))); NAME(c); PEER(c); close(c);
    c = tcp6(); T(connect_to(c, "::1", port)); T(connect_to(c, "::ffff:127.0.0.1", port)); T(connect_to(c, "::ffff:127.0.0.1", port_of(l))); NAME(c); PEER(c); close(c); close(l); close(h);
}

/* No room in the queue: one connects as long as one likes. */
static void full(void) {
    puts("full queue");
    int l = listener(LOCAL, 0), a = tcp(), c = tcp(), port = port_of(l), i, o;
    T(connect_to(a, LOCAL, port)); blocking(c, 0);
    T(connect_to(c, LOCAL, port)); NOT(c, POLLIN | POLLOUT); STATE(c, TCP_SYN_SENT); P(c, 0); T(connect_to(c, LOCAL, port)); ERROR(c); NAME(c); PEER(c); T(send(c, "x", 1, 0)); T(recv(c, buf, 1, 0)); T(send(c, "", 0, 0)); T(listen(c, 1)); T(bind_to(c, LOCAL, 0)); T(ioctl(c, FIONREAD, &i)); V(i); T(ioctl(c, TIOCOUTQ, &o)); V(o); T(accept(c, 0, 0));
    T(shutdown(c, SHUT_WR)); STATE(c, TCP_CLOSE); P(c, POLLHUP); ERROR(c); T(shutdown(c, SHUT_WR)); T(connect_to(c, LOCAL, port)); NOT(c, POLLOUT); addr none = { .s.sa_family = AF_UNSPEC }; T(connect(c, &none.s, sizeof none.s)); STATE(c, TCP_CLOSE); P(c, POLLHUP); ERROR(c); T(connect_to(c, LOCAL, port)); T(close(c));
    /* With a limit of time. */
    c = tcp(); struct timeval t = { 0, 40000 }; T(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t)); T(connect_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port)); t.tv_usec = 0; T(setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    /* Asked again it is let in, as there is room by then. */
    T(close(accept(l, 0, 0))); T(connect_to(c, LOCAL, port)); STATE(c, TCP_ESTABLISHED); T(connect_to(c, LOCAL, port)); close(c); close(a); close(l);
}

static void backlogs(void) {
    puts("backlogs");
    int sizes[] = { 0, 1, 3, 7 };
    for (int k = 0; k < 4; k++) {
        int l = listener(LOCAL, sizes[k]), c[10], made = 0; struct tcp_info i; socklen_t len = sizeof i;
        T(getsockopt(l, IPPROTO_TCP, TCP_INFO, &i, &len)); V(i.tcpi_state); V(i.tcpi_unacked); V(i.tcpi_sacked);
        for (made = 0; made < sizes[k] + 1; made++) { c[made] = tcp(); T(connect_to(c[made], LOCAL, port_of(l))); }
        P(l, POLLIN);
        for (int n = 0; n < 1000 && (len = sizeof i, getsockopt(l, IPPROTO_TCP, TCP_INFO, &i, &len), i.tcpi_unacked <= sizes[k]); n++) usleep(1000);
        V(i.tcpi_unacked); V(i.tcpi_sacked);
        int more = tcp(); blocking(more, 0); T(connect_to(more, LOCAL, port_of(l))); NOT(more, POLLOUT);
        /* Another backlog counts at once, for who comes then. */
        T(listen(l, sizes[k] + 1)); int late = tcp(); T(connect_to(late, LOCAL, port_of(l))); close(late); close(more);
        for (int j = 0; j < made; j++) { int a; OK(a = accept(l, 0, 0)); close(a); close(c[j]); }
        T(close(accept(l, 0, 0))); blocking(l, 0); T(accept(l, 0, 0)); close(l);
    }
    int l = tcp(); T(listen(l, -1)); NAME(l); T(get(l, SOL_SOCKET, SO_ACCEPTCONN)); T(listen(l, 5)); T(bind_to(l, LOCAL, 0)); T(connect_to(l, LOCAL, port_of(l))); T(listen(l, INT_MAX)); close(l);
    l = udp(); T(listen(l, 1)); T(accept(l, 0, 0)); close(l); l = tcp(); T(accept(l, 0, 0)); T(accept4(l, 0, 0, 0x10)); close(l);
}

static void accepting(void) {
    puts("accepting");
    int l = listener(LOCAL, 20), port = port_of(l), c, a; addr n; socklen_t len;
    T(accept4(l, 0, 0, 1)); T(accept4(l, 0, 0, SOCK_STREAM)); T(accept4(l, 0, 0, -1));
    blocking(l, 0); T(accept(l, 0, 0)); T(recv(l, buf, 1, 0)); T(send(l, "x", 1, MSG_NOSIGNAL)); int q; T(ioctl(l, FIONREAD, &q)); T(ioctl(l, TIOCOUTQ, &q)); T(ioctl(l, SIOCATMARK, &q)); PEER(l); T(read(l, buf, 0)); T(shutdown(l, SHUT_WR));
    for (int k = 0; k < 4; k++) {
        c = tcp(); connect_to(c, LOCAL, port); reached(l, POLLIN);
        a = accept4(l, 0, 0, (k & 1 ? SOCK_NONBLOCK : 0) | (k & 2 ? SOCK_CLOEXEC : 0)); V((fcntl(a, F_GETFL) & O_NONBLOCK) != 0); V(fcntl(a, F_GETFD)); V(fcntl(a, F_GETFL) & O_ACCMODE); close(a); close(c);
    }
    blocking(l, 1);
    /* Where the address goes. */
    int room[] = { 0, 1, 2, 8, 15, 16, 28, 100, -1 };
    for (int k = 0; k < 9; k++) {
        forget(); nick(port); c = tcp(); connect_to(c, LOCAL, port); memset(&n, 0x55, sizeof n); len = room[k]; OK(a = accept(l, &n.s, &len)); V((int)len); V(n.bytes[0]); V(n.bytes[4]); V(n.bytes[7]); V(n.bytes[15]); V(n.bytes[16]);
        if (a >= 0) { if (room[k] >= 16) { printf("%d same %d\n", __LINE__, ntohs(n.i.sin_port) == port_of(c)); show_addr(&n, len); NAME(a); PEER(a); } close(a); }
        close(c);
    }
    c = tcp(); connect_to(c, LOCAL, port); len = sizeof n; T(accept(l, BAD, &len)); P(c, POLLIN); T(recv(c, buf, 1, 0)); close(c);
    c = tcp(); connect_to(c, LOCAL, port); T(accept(l, &n.s, BAD)); P(c, POLLIN); T(recv(c, buf, 1, 0)); close(c);
    /* Without a number to give, it stays in the queue. */
    struct rlimit old, low = { 3, 0 }; c = tcp(); connect_to(c, LOCAL, port); getrlimit(RLIMIT_NOFILE, &old); low.rlim_max = old.rlim_max; setrlimit(RLIMIT_NOFILE, &low); T(accept(l, 0, 0)); T(socket(AF_INET, SOCK_STREAM, 0)); setrlimit(RLIMIT_NOFILE, &old); P(l, POLLIN); OK(a = accept(l, 0, 0)); close(a); close(c);
    /* What the listening socket was told holds for those that it gives. */
    set(l, SOL_SOCKET, SO_KEEPALIVE, 1); set(l, IPPROTO_TCP, TCP_NODELAY, 1); set(l, SOL_SOCKET, SO_OOBINLINE, 1); set(l, IPPROTO_TCP, TCP_KEEPIDLE, 77); set(l, SOL_SOCKET, SO_RCVLOWAT, 3); set(l, IPPROTO_IP, IP_TTL, 99); set(l, IPPROTO_IP, IP_TOS, 0x10); linger(l, 1, 5); set(l, SOL_SOCKET, SO_PRIORITY, 3); struct timeval t = { 7, 0 }; setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); set(l, SOL_SOCKET, SO_REUSEADDR, 1); set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0); set(l, SOL_SOCKET, SO_RCVBUF, 30000); set(l, SOL_SOCKET, SO_SNDBUF, 40000); set(l, SOL_SOCKET, SO_BROADCAST, 1); set(l, SOL_SOCKET, SO_TIMESTAMP, 1); set(l, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000); set(l, IPPROTO_TCP, TCP_MAXSEG, 800);
    c = tcp(); connect_to(c, LOCAL, port); a = accept(l, 0, 0);
    T(get(a, SOL_SOCKET, SO_KEEPALIVE)); T(get(a, IPPROTO_TCP, TCP_NODELAY)); T(get(a, SOL_SOCKET, SO_OOBINLINE)); T(get(a, IPPROTO_TCP, TCP_KEEPIDLE)); T(get(a, SOL_SOCKET, SO_RCVLOWAT)); T(get(a, IPPROTO_IP, IP_TTL)); T(get(a, IPPROTO_IP, IP_TOS)); T(get(a, SOL_SOCKET, SO_LINGER)); T(get(a, SOL_SOCKET, SO_PRIORITY)); T(get(a, SOL_SOCKET, SO_REUSEADDR)); T(get(a, SOL_SOCKET, SO_RCVBUF)); T(get(a, SOL_SOCKET, SO_SNDBUF)); T(get(a, SOL_SOCKET, SO_BROADCAST)); T(get(a, SOL_SOCKET, SO_TIMESTAMP)); T(get(a, IPPROTO_TCP, TCP_USER_TIMEOUT)); T(get(a, SOL_SOCKET, SO_ACCEPTCONN));
    len = sizeof t; memset(&t, 0, sizeof t); T(getsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &t, &len)); V(t.tv_sec); linger(a, 0, 0); close(a); close(c); close(l);
    /* What happened before it was accepted. */
    l = listener(LOCAL, 9); port = port_of(l);
    c = tcp(); connect_to(c, LOCAL, port); T(send(c, "early", 5, 0)); close(c); OK(a = accept(l, 0, 0)); T(recv(a, buf, 9, MSG_WAITALL)); T(recv(a, buf, 9, 0)); close(a);
    c = tcp(); connect_to(c, LOCAL, port); reached(l, POLLIN); linger(c, 1, 0); close(c); usleep(30000); P(l, POLLIN); len = sizeof n; forget(); nick(port); OK(a = accept(l, &n.s, &len)); show_addr(&n, len); STATE(a, TCP_CLOSE); NAME(a); PEER(a); P(a, POLLHUP); T(recv(a, buf, 9, 0)); T(recv(a, buf, 9, 0)); T(shutdown(a, SHUT_RDWR)); close(a);
    c = tcp(); connect_to(c, LOCAL, port); T(send(c, "early", 5, 0)); reached(l, POLLIN); linger(c, 1, 0); close(c); usleep(30000); OK(a = accept(l, 0, 0)); P(a, POLLHUP); T(recv(a, buf, 9, 0)); T(recv(a, buf, 9, 0)); T(recv(a, buf, 9, 0)); T(send(a, "x", 1, MSG_NOSIGNAL)); close(a);
    /* Those not accepted are reset when nobody listens any more. */
    int d[3]; for (int k = 0; k < 3; k++) { d[k] = tcp(); connect_to(d[k], LOCAL, port); } T(send(d[1], "x", 1, 0)); T(shutdown(d[2], SHUT_WR)); for (int k = 0; k < 2000 && state_of(d[2]) != 5; k++) usleep(1000); close(l);
    for (int k = 0; k < 3; k++) { P(d[k], POLLERR | POLLHUP); T(recv(d[k], buf, 1, 0)); T(recv(d[k], buf, 1, 0)); T(send(d[k], buf, 1, MSG_NOSIGNAL)); STATE(d[k], TCP_CLOSE); close(d[k]); }
    c = tcp(); T(connect_to(c, LOCAL, port)); close(c);
}

static void ends(void) {
    puts("ends");
    int s[2]; signal(SIGPIPE, on_pipe);
    pair_of(s, LOCAL); T(shutdown(s[0], 3)); T(shutdown(s[0], -1)); T(shutdown(s[0], SHUT_WR)); STATE(s[0], TCP_FIN_WAIT2); STATE(s[1], TCP_CLOSE_WAIT); P(s[1], POLLRDHUP); T(recv(s[1], buf, 9, 0)); T(recv(s[1], buf, 9, 0)); P(s[0], 0); V(pipes); T(write(s[0], "x", 1)); V(pipes); T(send(s[0], "x", 1, MSG_NOSIGNAL)); V(pipes); T(write(s[0], "", 0)); V(pipes); T(shutdown(s[0], SHUT_WR)); T(send(s[1], "back", 4, 0)); T(recv(s[0], buf, 4, MSG_WAITALL)); T(shutdown(s[1], SHUT_WR)); T(recv(s[0], buf, 4, 0)); STATE(s[1], TCP_CLOSE); STATE(s[0], TCP_CLOSE); P(s[0], POLLHUP); P(s[1], POLLHUP); ERROR(s[0]); ERROR(s[1]); PEER(s[0]); T(shutdown(s[0], SHUT_RDWR)); T(shutdown(s[1], SHUT_WR)); T(recv(s[1], buf, 1, 0)); T(send(s[1], buf, 1, MSG_NOSIGNAL)); both(s);
    puts("reading shut");
    pair_of(s, LOCAL); T(shutdown(s[0], SHUT_RD)); P(s[0], POLLRDHUP); P(s[1], 0); T(recv(s[0], buf, 9, 0)); T(send(s[1], "still", 5, 0)); V(waiting(s[0], 5)); T(recv(s[0], buf, 9, 0)); T(recv(s[0], buf, 9, 0)); T(send(s[0], "y", 1, 0)); T(recv(s[1], buf, 9, 0)); T(shutdown(s[0], SHUT_WR)); P(s[0], POLLHUP); STATE(s[0], TCP_FIN_WAIT2); P(s[1], POLLRDHUP); both(s);
    puts("both shut");
    pair_of(s, LOCAL); T(send(s[0], "last", 4, 0)); T(shutdown(s[0], SHUT_RDWR)); P(s[0], POLLHUP); T(recv(s[1], buf, 9, MSG_WAITALL)); T(recv(s[1], buf, 9, 0)); T(send(s[1], "late", 4, 0)); P(s[0], POLLERR); P(s[1], POLLERR); T(recv(s[0], buf, 9, 0)); ERROR(s[1]); T(recv(s[0], buf, 9, 0)); both(s);
    puts("writes after the end");
    pair_of(s, LOCAL); close(s[1]); P(s[0], POLLRDHUP); STATE(s[0], TCP_CLOSE_WAIT); T(write(s[0], "x", 1)); P(s[0], POLLHUP); STATE(s[0], TCP_CLOSE); pipes = 0; T(send(s[0], "x", 1, MSG_NOSIGNAL)); V(pipes); T(write(s[0], "x", 1)); V(pipes); T(recv(s[0], buf, 1, 0)); ERROR(s[0]); PEER(s[0]); close(s[0]);
    pair_of(s, LOCAL); close(s[1]); reached(s[0], POLLRDHUP); T(write(s[0], "x", 1)); reached(s[0], POLLHUP); ERROR(s[0]); ERROR(s[0]); T(recv(s[0], buf, 1, 0)); T(send(s[0], "x", 1, MSG_NOSIGNAL)); close(s[0]);
    puts("unread data");
    pair_of(s, LOCAL); T(send(s[1], "data", 4, 0)); T(send(s[0], "x", 1, 0)); V(waiting(s[1], 1)); V(waiting(s[0], 4)); close(s[1]); P(s[0], POLLHUP | POLLERR); T(recv(s[0], buf, 2, 0)); T(recv(s[0], buf, 9, 0)); T(recv(s[0], buf, 9, 0)); T(recv(s[0], buf, 9, 0)); P(s[0], POLLHUP); pipes = 0; T(write(s[0], "x", 1)); V(pipes); close(s[0]);
    pair_of(s, LOCAL); send(s[0], "x", 1, 0); waiting(s[1], 1); close(s[1]); reached(s[0], POLLHUP); pipes = 0; T(write(s[0], "x", 1)); V(pipes); T(write(s[0], "x", 1)); V(pipes); T(recv(s[0], buf, 1, 0)); close(s[0]);
    pair_of(s, LOCAL); T(shutdown(s[0], SHUT_WR)); T(recv(s[1], buf, 1, 0)); T(send(s[1], "x", 1, 0)); V(waiting(s[0], 1)); close(s[0]); P(s[1], POLLHUP); ERROR(s[1]); close(s[1]);
    pair_of(s, LOCAL); send(s[0], "x", 1, 0); waiting(s[1], 1); T(shutdown(s[1], SHUT_RD)); P(s[0], 0); T(recv(s[1], buf, 5, 0)); close(s[1]); P(s[0], POLLRDHUP); T(recv(s[0], buf, 5, 0)); close(s[0]);
    puts("lingering");
    pair_of(s, LOCAL); T(linger(s[1], 1, 0)); struct linger lg; socklen_t l = sizeof lg; T(getsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, &l)); V(lg.l_onoff); V(lg.l_linger); T(send(s[1], "lost?", 5, 0)); V(waiting(s[0], 5)); close(s[1]); P(s[0], POLLHUP | POLLERR); T(recv(s[0], buf, 9, 0)); T(recv(s[0], buf, 9, 0)); T(recv(s[0], buf, 9, 0)); T(send(s[0], "x", 1, MSG_NOSIGNAL)); close(s[0]);
    pair_of(s, LOCAL); T(linger(s[1], 1, 3)); T(send(s[1], "kept", 4, 0)); long t = ms(); T(close(s[1])); V(ms() - t < 1500); T(recv(s[0], buf, 9, MSG_WAITALL)); T(recv(s[0], buf, 9, 0)); close(s[0]);
    pair_of(s, LOCAL); T(linger(s[1], -5, -1)); l = sizeof lg; T(getsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, &l)); V(lg.l_onoff); T(setsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, 4)); both(s);
    puts("at the same time");
    pair_of(s, LOCAL); T(shutdown(s[0], SHUT_WR)); T(shutdown(s[1], SHUT_WR)); T(recv(s[0], buf, 1, 0)); T(recv(s[1], buf, 1, 0)); STATE(s[0], TCP_CLOSE); STATE(s[1], TCP_CLOSE); both(s);
}

/* The time to linger runs out, as the other does not read. */
static void lingers(void) {
    puts("lingers");
    int s[2]; pair_of(s, LOCAL); set(s[0], SOL_SOCKET, SO_RCVBUF, 4096); blocking(s[1], 0); while (send(s[1], buf, sizeof buf, 0) > 0) ;
    /* Not even who does not block gets round it. */
    usleep(50000); linger(s[1], 1, 1); long t = ms(); T(close(s[1])); t = ms() - t; V(t > 700); V(t < 3000); both(s);
}

static void dissolved(void) {
    puts("dissolved");
    int s[2], l, c; addr none = { .s.sa_family = AF_UNSPEC };
    c = tcp(); T(connect(c, &none.s, sizeof none.s)); T(connect(c, &none.s, 2)); T(connect(c, &none.s, 1)); T(connect(c, &none.s, 0)); close(c);
    pair_of(s, LOCAL); nick(port_of(s[1])); T(connect(s[0], &none.s, sizeof none.s)); P(s[1], POLLERR); T(recv(s[1], buf, 1, 0)); STATE(s[0], TCP_CLOSE); NAME(s[0]); PEER(s[0]); P(s[0], POLLHUP); ERROR(s[0]); T(recv(s[0], buf, 1, 0)); T(send(s[0], "x", 1, MSG_NOSIGNAL)); l = listener(LOCAL, 2); T(connect_to(s[0], LOCAL, port_of(l))); STATE(s[0], TCP_ESTABLISHED); T(send(s[0], "again", 5, 0)); c = accept(l, 0, 0); T(recv(c, buf, 9, 0)); P(c, 0); close(c); both(s);
    /* A listening socket that becomes one that connects. */
    forget(); c = listener(LOCAL, 2); NAME(c); int q = tcp(); connect_to(q, LOCAL, port_of(c)); reached(c, POLLIN); T(connect(c, &none.s, sizeof none.s)); P(q, POLLERR); T(recv(q, buf, 1, 0)); close(q); STATE(c, TCP_CLOSE); T(get(c, SOL_SOCKET, SO_ACCEPTCONN)); NAME(c); T(accept(c, 0, 0)); T(connect_to(c, LOCAL, port_of(l))); NAME(c); STATE(c, TCP_ESTABLISHED); T(connect(c, &none.s, sizeof none.s)); T(listen(c, 1)); NAME(c); STATE(c, TCP_LISTEN); close(c);
    /* One that was shut down can be used again. */
    pair_of(s, LOCAL); T(shutdown(s[0], SHUT_RDWR)); both((int[]){ s[1], -1 }); STATE(s[0], TCP_CLOSE); T(connect_to(s[0], LOCAL, port_of(l))); T(connect(s[0], &none.s, sizeof none.s)); T(connect_to(s[0], LOCAL, port_of(l))); STATE(s[0], TCP_ESTABLISHED); T(send(s[0], "x", 1, MSG_NOSIGNAL)); close(s[0]);
    pair_of(s, LOCAL); linger(s[1], 1, 0); close(s[1]); reached(s[0], POLLHUP); T(connect_to(s[0], LOCAL, port_of(l))); T(connect_to(s[0], LOCAL, port_of(l))); ERROR(s[0]); T(connect(s[0], &none.s, sizeof none.s)); T(connect_to(s[0], LOCAL, port_of(l))); close(s[0]); close(l);
    puts("listening shut");
    l = listener(LOCAL, 2); int port = port_of(l); q = tcp(); connect_to(q, LOCAL, port); reached(l, POLLIN); T(shutdown(l, SHUT_WR)); STATE(l, TCP_LISTEN); T(shutdown(l, SHUT_RD)); STATE(l, TCP_CLOSE); P(q, POLLERR); P(l, POLLHUP); T(accept(l, 0, 0)); ERROR(l); T(shutdown(l, SHUT_RD)); c = tcp(); T(connect_to(c, LOCAL, port)); T(listen(l, 1)); V(port_of(l) == port); T(connect_to(c, LOCAL, port_of(l))); T(close(accept(l, 0, 0))); close(c); close(l); close(q);
    /* The same with a port that one asked for. */
    l = listener(LOCAL, 2); port = port_of(l); close(l); l = tcp(); T(bind_to(l, LOCAL, port)); T(listen(l, 1)); T(shutdown(l, SHUT_RDWR)); T(listen(l, 1)); V(port_of(l) == port); c = tcp(); T(connect_to(c, LOCAL, port)); close(c); close(l);
}

static void self(void) {
    puts("self");
    int c = tcp(); forget(); T(bind_to(c, LOCAL, 0)); T(connect_to(c, LOCAL, port_of(c))); STATE(c, TCP_ESTABLISHED); NAME(c); PEER(c); T(send(c, "mirror", 6, 0)); T(recv(c, buf, 9, 0)); P(c, 0); T(shutdown(c, SHUT_WR)); T(recv(c, buf, 9, 0)); P(c, POLLHUP); STATE(c, TCP_CLOSE); close(c);
    c = tcp6(); forget(); T(bind_to(c, "::1", 0)); T(connect_to(c, "::1", port_of(c))); STATE(c, TCP_ESTABLISHED); T(send(c, "mirror", 6, 0)); T(recv(c, buf, 9, 0)); close(c);
}

static void waits(void) {
    puts("what is left of connections");
    for (int k = 0; k < 4; k++) {
        int l = tcp(), c, a; set(l, SOL_SOCKET, SO_REUSEADDR, k & 1); bind_to(l, LOCAL, 0); int port = port_of(l); listen(l, 2); c = tcp(); connect_to(c, LOCAL, port); a = accept(l, 0, 0); close(l);
        int n = tcp(); set(n, SOL_SOCKET, SO_REUSEADDR, k >> 1); printf("reuse %d, then %d, while it is connected\n", k & 1, k >> 1); T(bind_to(n, LOCAL, port)); T(listen(n, 1)); close(n);
        close(a); recv(c, buf, 1, 0); close(c);
        n = tcp(); set(n, SOL_SOCKET, SO_REUSEADDR, k >> 1); printf("after it\n"); T(bind_to(n, LOCAL, port)); T(bind_to(n, "127.0.0.2", port)); close(n); n = tcp(); set(n, SOL_SOCKET, SO_REUSEADDR, k >> 1); T(bind_to(n, "0.0.0.0", port)); T(listen(n, 1)); c = tcp(); T(connect_to(c, LOCAL, port)); close(c); close(n);
    }
    /* The same ports once more. */
    int l = listener(LOCAL, 5), c = tcp(), a; set(c, SOL_SOCKET, SO_REUSEADDR, 1); bind_to(c, LOCAL, 0); int port = port_of(c); connect_to(c, LOCAL, port_of(l)); a = accept(l, 0, 0); int n = tcp(); set(n, SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(n, LOCAL, port)); T(connect_to(n, LOCAL, port_of(l))); NAME(n); close(n);
    close(c); recv(a, buf, 1, 0); close(a); c = tcp(); set(c, SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(c, LOCAL, port)); int again = -1; for (int k = 0; k < 500 && (again = connect_to(c, LOCAL, port_of(l))) && errno == EADDRNOTAVAIL; k++) usleep(1000); V(again); close(accept(l, 0, 0)); close(c);
    /* Reset ones leave nothing. */
    c = tcp(); bind_to(c, LOCAL, 0); port = port_of(c); connect_to(c, LOCAL, port_of(l)); a = accept(l, 0, 0); linger(a, 1, 0); close(a); reached(c, POLLHUP); close(c); c = tcp(); T(bind_to(c, LOCAL, port)); T(connect_to(c, LOCAL, port_of(l))); close(c); close(l);
}

static void shared(void) {
    puts("shared");
    int s[2], d; char b; pair_of(s, LOCAL); d = dup(s[1]); close(s[1]); NOT(s[0], POLLIN); T(send(d, "x", 1, 0)); T(recv(s[0], buf, 9, 0)); fflush(stdout);
    pid_t p = fork(); if (!p) { close(s[0]); send(d, "child", 5, 0); recv(d, &b, 1, 0); _exit(b); }
    T(recv(s[0], buf, 9, MSG_WAITALL & 0)); close(d); NOT(s[0], POLLIN); T(send(s[0], "\7", 1, 0)); int st; waitpid(p, &st, 0); V(WEXITSTATUS(st)); P(s[0], POLLRDHUP); T(recv(s[0], buf, 9, 0)); close(s[0]);
    /* Whoever shuts down does so for all. */
    pair_of(s, LOCAL); IN(shutdown(s[1], SHUT_WR)); P(s[0], POLLRDHUP); T(send(s[1], "x", 1, MSG_NOSIGNAL)); both(s);
    /* Who dies with data unread resets. */
    pair_of(s, LOCAL); fflush(stdout); p = fork(); if (!p) { close(s[0]); recv(s[1], &b, 1, 0); pause(); } close(s[1]); T(send(s[0], "ab", 2, 0)); V(drained(s[0])); usleep(20000); kill(p, SIGKILL); waitpid(p, 0, 0); P(s[0], POLLERR | POLLHUP); ERROR(s[0]); close(s[0]);
    /* Many accept, one gets it. */
    int l = listener(LOCAL, 5); for (int i = 0; i < 3; i++) if (!fork()) { int a = accept(l, 0, 0); char x = '0' + i; send(a, &x, 1, 0); _exit(1); }
    int sum = 0, ended = 0; for (int i = 0; i < 3; i++) { int c = tcp(); connect_to(c, LOCAL, port_of(l)); char x = 0; recv(c, &x, 1, 0); sum += x - '0'; close(c); } V(sum); while (wait(&st) > 0) ended += WEXITSTATUS(st); V(ended); close(l);
    /* Passed on through a Unix socket. */
    int u[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, u); pair_of(s, LOCAL); char cb[CMSG_SPACE(4)] = { 0 }; struct iovec v = { &b, 1 }; struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = sizeof cb }; struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(4); memcpy(CMSG_DATA(h), &s[1], 4); T(sendmsg(u[0], &m, 0)); close(s[1]); T(send(s[0], "passed", 6, 0)); NOT(s[0], POLLIN); m.msg_controllen = sizeof cb; T(recvmsg(u[1], &m, 0)); memcpy(&d, CMSG_DATA(CMSG_FIRSTHDR(&m)), 4); T(recv(d, buf, 9, 0)); close(d); P(s[0], POLLRDHUP); close(s[0]); both(u);
}

/* One port, many who listen: each connection comes to one of them, and stays there. */
static void spread(void) {
    puts("spread");
    int l[4], c[64], port = 0, sum = 0, some = 0, resets = 0, all[4] = { 0 };
    for (int i = 0; i < 4; i++) { l[i] = tcp(); T(set(l[i], SOL_SOCKET, SO_REUSEPORT, 1)); T(bind_to(l[i], LOCAL, port)); T(listen(l[i], 64)); if (!port) port = port_of(l[i]); blocking(l[i], 0); }
    for (int i = 0; i < 64; i++) { c[i] = tcp(); if (connect_to(c[i], LOCAL, port)) printf("connect: %s\n", strerrorname_np(errno)); }
    usleep(20000);
    for (int i = 0; i < 3; i++) { int a; while ((a = accept(l[i], 0, 0)) >= 0) { all[i]++; close(a); } sum += all[i]; some += all[i] > 0; }
    V(some > 0); V(sum < 64);
    /* Who stops listening takes those along that it has not accepted. */
    close(l[3]); usleep(20000);
    for (int i = 0; i < 64; i++) { char b; int r = recv(c[i], &b, 1, 0); resets += r < 0 && errno == ECONNRESET; close(c[i]); }
    V(sum + resets); for (int i = 0; i < 3; i++) close(l[i]);
    int f = tcp(); T(connect_to(f, LOCAL, port)); close(f);
}

int main(void) {
    void (*const parts[])(void) = { refused, full, backlogs, accepting, ends, lingers, dissolved, self, waits, shared, spread };
    at_once(sizeof parts / sizeof *parts, parts);
    return 0;
}
