/* What the programs of internet sockets share: addresses told without the numbers of ports that vary, masks by name, and
 * waits until what is on its way has come: what one socket sends is not at the other at once, be it natively (softirqs
 * put off under load) or inside. Only 127.0.0.0/8 and ::1. */
#include "guest.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

typedef union { struct sockaddr s; struct sockaddr_in i; struct sockaddr_in6 j; char bytes[128]; } addr;
#define LOCAL "127.0.0.1"

__attribute__((unused)) static addr at(const char *text, int port) {
    addr a = { 0 };
    if (strchr(text, ':')) a.j = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) }, inet_pton(AF_INET6, text, &a.j.sin6_addr);
    else a.i = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) }, inet_pton(AF_INET, text, &a.i.sin_addr);
    return a;
}
static socklen_t len_of(const addr *a) { return a->s.sa_family == AF_INET6 ? sizeof a->j : sizeof a->i; }
__attribute__((unused)) static int bind_to(int fd, const char *text, int port) { addr a = at(text, port); return bind(fd, &a.s, len_of(&a)); }
__attribute__((unused)) static int connect_to(int fd, const char *text, int port) { addr a = at(text, port); return connect(fd, &a.s, len_of(&a)); }
static int port_of(int fd) { addr a = { 0 }; socklen_t l = sizeof a; getsockname(fd, &a.s, &l); return ntohs(a.i.sin_port); }
__attribute__((unused)) static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }
__attribute__((unused)) static int get(int fd, int level, int name) { int v = -77; socklen_t l = sizeof v; return getsockopt(fd, level, name, &v, &l) ? -1 : v; }
__attribute__((unused)) static int tcp(void) { return socket(AF_INET, SOCK_STREAM, 0); }
__attribute__((unused)) static int tcp6(void) { return socket(AF_INET6, SOCK_STREAM, 0); }
__attribute__((unused)) static int udp(void) { return socket(AF_INET, SOCK_DGRAM, 0); }
__attribute__((unused)) static int udp6(void) { return socket(AF_INET6, SOCK_DGRAM, 0); }
static int family_of(const char *text) { return strchr(text, ':') ? AF_INET6 : AF_INET; }
/* A socket that listens at a port of the kernel's choice. */
__attribute__((unused)) static int listener(const char *text, int backlog) {
    int f = socket(family_of(text), SOCK_STREAM, 0);
    if (bind_to(f, text, 0) || listen(f, backlog)) perror("listener");
    return f;
}
/* A connection: [0] made it, [1] was accepted. */
__attribute__((unused)) static void pair_of(int s[2], const char *text) {
    int l = listener(text, 1);
    s[0] = socket(family_of(text), SOCK_STREAM, 0);
    if (connect_to(s[0], text, port_of(l)) || (s[1] = accept(l, 0, 0)) < 0) perror("pair");
    close(l);
}
/* A port of 127.0.0.1 where nobody listens; held by the socket that is left open. */
__attribute__((unused)) static int deaf(int *holder) { *holder = tcp(); bind_to(*holder, LOCAL, 0); return port_of(*holder); }
__attribute__((unused)) static void both(int s[2]) { close(s[0]); close(s[1]); }
__attribute__((unused)) static int blocking(int fd, int on) { int f = fcntl(fd, F_GETFL); return fcntl(fd, F_SETFL, on ? f & ~O_NONBLOCK : f | O_NONBLOCK); }

/* Ports by the order in which they were first seen since the last `forget`: their numbers are the kernel's choice. */
static int nicks[64], nicked;
__attribute__((unused)) static void forget(void) { nicked = 0; }
static const char *nick(int port) {
    static char name[4][16]; static int turn;
    char *to = name[turn++ % 4];
    int i = 0;
    if (!port) return "0";
    while (i < nicked && nicks[i] != port) i++;
    if (i == nicked && nicked < 63) nicks[nicked++] = port;
    sprintf(to, "#%d", i + 1);
    return to;
}
__attribute__((unused)) static void show_addr(const addr *a, socklen_t l) {
    char t[64] = "";
    printf("len %u ", l);
    if (a->s.sa_family == AF_INET) printf("inet %s port %s\n", inet_ntop(AF_INET, &a->i.sin_addr, t, sizeof t), nick(ntohs(a->i.sin_port)));
    else if (a->s.sa_family == AF_INET6) printf("inet6 %s port %s flow %x scope %u\n", inet_ntop(AF_INET6, &a->j.sin6_addr, t, sizeof t), nick(ntohs(a->j.sin6_port)), a->j.sin6_flowinfo, a->j.sin6_scope_id);
    else printf("family %d\n", a->s.sa_family);
}
__attribute__((unused)) static void named(int line, const char *what, int fd, int peer) {
    addr a; memset(&a, 0x55, sizeof a);
    socklen_t l = sizeof a;
    printf("%d %s of %s: ", line, peer ? "peer" : "name", what);
    if (peer ? getpeername(fd, &a.s, &l) : getsockname(fd, &a.s, &l)) printf("%s\n", strerrorname_np(errno));
    else show_addr(&a, l);
}
#define NAME(fd) named(__LINE__, #fd, fd, 0)
#define PEER(fd) named(__LINE__, #fd, fd, 1)

static const char *mask(int m) {
    static char text[200];
    static const struct { int bit; const char *name; } bits[] = { { POLLIN, "IN" }, { POLLPRI, "PRI" }, { POLLOUT, "OUT" }, { POLLERR, "ERR" }, { POLLHUP, "HUP" }, { POLLNVAL, "NVAL" }, { POLLRDNORM, "RDNORM" }, { POLLRDBAND, "RDBAND" }, { POLLWRNORM, "WRNORM" }, { POLLWRBAND, "WRBAND" }, { 0x400, "MSG" }, { POLLRDHUP, "RDHUP" } };
    *text = 0;
    for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++) if (m & bits[i].bit) strcat(strcat(text, *text ? " " : ""), bits[i].name);
    return *text ? text : "none";
}
#define ASKED (POLLIN | POLLPRI | POLLOUT | POLLRDHUP)
/* The mask, once all of `want` is in it (after three seconds in any case). */
static int reached(int fd, int want) {
    struct pollfd p = { fd, ASKED, 0 };
    for (int i = 0; i < 3000; i++) {
        if (poll(&p, 1, 0) < 0) return -1;
        if ((p.revents & want) == want) break;
        usleep(1000);
    }
    return p.revents;
}
#define P(fd, want) printf("%d poll %s: %s\n", __LINE__, #fd, mask(reached(fd, want)))
/* That it stays as it is: nothing of `not` comes within 30 ms. */
#define NOT(fd, not) do { struct pollfd p_ = { fd, not, 0 }; printf("%d no %s: %d\n", __LINE__, #fd, poll(&p_, 1, 30)); } while (0)
/* Bytes that wait to be read, once there are `want`. */
__attribute__((unused)) static int waiting(int fd, int want) { int n = -1; for (int i = 0; i < 3000 && (ioctl(fd, FIONREAD, &n) || n < want); i++) usleep(1000); return n; }
/* Once nothing is on its way from it (Linux: not acknowledged). */
__attribute__((unused)) static int drained(int fd) { int n = -1; for (int i = 0; i < 3000 && (ioctl(fd, TIOCOUTQ, &n) || n); i++) usleep(1000); return n; }
static const char *states[] = { "?", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV" };
static int state_of(int fd) { struct tcp_info i = { 0 }; socklen_t l = sizeof i; return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &l) ? 0 : i.tcpi_state; }
__attribute__((unused)) static int becomes(int fd, int state) { int s = 0; for (int i = 0; i < 3000 && (s = state_of(fd)) != state; i++) usleep(1000); return s; }
/* Its state, once it is that. */
#define STATE(fd, state) printf("%d state of %s: %s\n", __LINE__, #fd, states[becomes(fd, state)])
/* Its pending error, by name; which is then gone. */
#define ERROR(fd) do { int e_ = get(fd, SOL_SOCKET, SO_ERROR); printf("%d error of %s: %s\n", __LINE__, #fd, e_ > 0 ? strerrorname_np(e_) : e_ ? "?" : "none"); } while (0)

/* In a process of its own. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
/* All of them at once, each in a process of its own; what they say comes in order. */
__attribute__((unused)) static void at_once(int count, void (*const what[])(void)) {
    int p[16], end[2]; pid_t c[16];
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        pipe2(end, O_CLOEXEC);
        if (!(c[i] = fork())) { alarm(50); dup2(end[1], 1); close_range(3, ~0U, 0); what[i](); fflush(stdout); _exit(0); }
        close(end[1]); p[i] = end[0];
    }
    for (int i = 0; i < count; i++) {
        char b[4096]; int n, st = -1;
        while ((n = read(p[i], b, sizeof b)) > 0) fwrite(b, 1, n, stdout);
        close(p[i]);
        waitpid(c[i], &st, 0);
        if (st) printf("part %d ended %x\n", i, st);
    }
}
/* Brings the loopback device of this network namespace up, or down. */
__attribute__((unused)) static int lo_up(int up) {
    int f = udp(), r; struct ifreq q = { .ifr_name = "lo" };
    if (f < 0) f = socket(AF_UNIX, SOCK_DGRAM, 0);
    ioctl(f, SIOCGIFFLAGS, &q);
    q.ifr_flags = up ? q.ifr_flags | IFF_UP : q.ifr_flags & ~IFF_UP;
    r = ioctl(f, SIOCSIFFLAGS, &q);
    int e = errno; close(f); errno = e;
    return r;
}
__attribute__((unused)) static int put(const char *file, const char *text) { int f = open(file, O_WRONLY); if (f < 0) return -1; int r = write(f, text, strlen(text)), e = errno; close(f); errno = e; return r; }
/* A network namespace of one's own (and, where one may not make it, a user namespace that may): its ports are free. Says nothing. */
__attribute__((unused)) static void own_network(void) {
    if (unshare(CLONE_NEWNET)) { char m[64]; int u = geteuid(), g = getegid(); unshare(CLONE_NEWUSER | CLONE_NEWNET); put("/proc/self/setgroups", "deny"); sprintf(m, "0 %d 1", u); put("/proc/self/uid_map", m); sprintf(m, "0 %d 1", g); put("/proc/self/gid_map", m); }
    lo_up(1);
}
