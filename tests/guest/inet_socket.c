/* Internet sockets: which there are, the forms of addresses, names, ports and who may have which at the same time. In a network
 * namespace of its own, so that its ports are free. */
#include "inet.h"
#include <linux/capability.h>
#include <sys/prctl.h>
static char buf[4096];
static void rights(unsigned long long set) {
    struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct d[2] = { { set, set, 0 }, { set >> 32, set >> 32, 0 } };
    T(SYS(capset, &h, d));
}
static const char *outcome(int r) { return r == -1 ? strerrorname_np(errno) : "ok"; }

static void kinds(void) {
    /* None that a module may bring: SCTP, DCCP, MPTCP, L2TP. */
    static const int families[] = { AF_INET, AF_INET6 }, types[] = { 0, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, 7, 11, 15 }, protocols[] = { 0, 1, 2, 4, 6, 17, 41, 58, 255, 263, 1000, -1 };
    for (int f = 0; f < 2; f++)
        for (int t = 0; t < 9; t++) {
            printf("family %d type %d:", families[f], types[t]);
            for (int p = 0; p < 12; p++) {
                int s = socket(families[f], types[t], protocols[p]);
                printf(" %d %s", protocols[p], outcome(s));
                if (s >= 0) { if (get(s, SOL_SOCKET, SO_PROTOCOL) != protocols[p] || get(s, SOL_SOCKET, SO_TYPE) != types[t]) printf(" (%d %d)", get(s, SOL_SOCKET, SO_TYPE), get(s, SOL_SOCKET, SO_PROTOCOL)); close(s); }
            }
            puts("");
        }
}
static void made(void) {
    puts("made");
    T(socket(AF_UNSPEC, SOCK_STREAM, 0)); T(socket(-1, SOCK_STREAM, 0)); T(socket(1000, SOCK_STREAM, 0)); T(socket(AF_INET, SOCK_STREAM | 0x10, 0)); T(socket(AF_INET, SOCK_STREAM | 0x100000, 0)); T(socket(AF_INET, -1, 0));
    int p[2]; T(socketpair(AF_INET, SOCK_STREAM, 0, p)); T(socketpair(AF_INET, SOCK_DGRAM, 0, p)); T(socketpair(AF_INET6, SOCK_STREAM, 0, p)); T(socketpair(AF_INET, SOCK_RAW, 0, p));
    int f = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); V(fcntl(f, F_GETFL)); V(fcntl(f, F_GETFD)); close(f); f = udp6(); V(fcntl(f, F_GETFL)); V(fcntl(f, F_GETFD));
    struct stat s; T(fstat(f, &s)); printf("%o links %d size %ld block %ld\n", s.st_mode, (int)s.st_nlink, (long)s.st_size, (long)s.st_blksize); V(s.st_uid == geteuid()); char l[64] = "", w[64]; readlink("/proc/self/fd/3", l, 63); sprintf(w, "socket:[%lu]", s.st_ino); V(strcmp(l, w)); V(f);
    T(open("/proc/self/fd/3", O_RDWR)); T(lseek(f, 0, 0)); T(pread(f, buf, 1, 0)); T(pwrite(f, buf, 1, 0)); T(fsync(f)); T(ftruncate(f, 0)); T(fchmod(f, 0600)); T((long)mmap(0, 4096, PROT_READ, MAP_SHARED, f, 0)); T(read(f, buf, 0)); int n = 1; T(ioctl(f, FIONBIO, &n)); V(fcntl(f, F_GETFL)); n = 0; T(ioctl(f, FIONBIO, &n)); V(fcntl(f, F_GETFL)); T(ioctl(f, FIONBIO, BAD)); T(ioctl(f, 0x1234, &n)); T(ioctl(f, TCGETS, buf)); T(isatty(f)); T(posix_fadvise(f, 0, 0, 0)); T(fallocate(f, 0, 0, 1)); T(flock(f, 2)); T(SYS(getdents64, f, buf, 100)); T(fchdir(f)); close(f);
    IN(rights(0); kinds());
    IN(rights(1 << CAP_NET_RAW); OK(socket(AF_INET, SOCK_RAW, 6)); OK(socket(AF_INET6, SOCK_RAW, 58)));
}

#define FORM(fd, call, who, l) do { addr a_ = who; printf("%d %s %s, %d bytes: ", __LINE__, #call, #who, (int)(l)); printf("%s\n", outcome(call(fd, &a_.s, l))); } while (0)
static addr odd(const char *text, int port, int family) { addr a = at(text, port); a.s.sa_family = family; return a; }
static void forms(void) {
    puts("forms");
    static const int lens[] = { -1, 0, 1, 2, 8, 15, 16, 17, 23, 24, 27, 28, 29, 100, 128, 129, 100000 };
    for (int k = 0; k < 17; k++) {
        char big[200]; int l = lens[k]; addr a = at(LOCAL, 0), b = at("::1", 0); errno = 0; printf("%d bytes:", l);
        int f = tcp(); printf(" tcp %s", outcome(bind(f, &a.s, l))); close(f); f = udp(); printf(", udp %s", outcome(bind(f, &a.s, l))); close(f); f = tcp6(); printf(", tcp6 %s", outcome(bind(f, &b.s, l))); close(f); f = udp6(); printf(", udp6 %s", outcome(bind(f, &b.s, l))); close(f);
        a.i.sin_port = b.j.sin6_port = htons(7); f = tcp(); printf("; connect tcp %s", outcome(connect(f, &a.s, l))); close(f); f = udp(); printf(", udp %s", outcome(connect(f, &a.s, l))); printf(", send %s", outcome(sendto(f, "", 0, 0, &a.s, l))); close(f); f = tcp6(); printf("; tcp6 %s", outcome(connect(f, &b.s, l))); close(f); f = udp6(); printf(", udp6 %s", outcome(connect(f, &b.s, l))); close(f); f = udp6(); printf(", send %s\n", outcome(sendto(f, "", 0, 0, &b.s, l))); close(f);
    }
    int f = tcp(); T(bind(f, BAD, 16)); T(bind(f, 0, 16)); T(connect(f, BAD, 16)); T(sendto(f, "x", 1, MSG_NOSIGNAL, BAD, 16)); T(bind(f, 0, 0)); close(f); f = udp(); T(bind(f, BAD, 16)); T(connect(f, 0, 0)); T(sendto(f, "x", 1, 0, BAD, 16)); T(sendto(f, "x", 1, 0, 0, 16)); T(sendto(f, "x", 1, 0, 0, 0)); close(f);
    /* Families. Port 7 has nobody. */
    static const int families[] = { AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, 99 };
    for (int k = 0; k < 5; k++) {
        printf("family %d\n", families[k]);
        f = tcp(); FORM(f, bind, odd("0.0.0.0", 0, families[k]), 16); close(f); f = tcp(); FORM(f, bind, odd(LOCAL, 0, families[k]), 16); close(f); f = udp(); FORM(f, bind, odd(LOCAL, 0, families[k]), 16); FORM(f, bind, odd("0.0.0.0", 0, families[k]), 16); close(f); f = tcp6(); FORM(f, bind, odd("::", 0, families[k]), 28); close(f); f = tcp6(); FORM(f, bind, odd(LOCAL, 0, families[k]), 16); FORM(f, bind, odd(LOCAL, 0, families[k]), 28); close(f);
        f = tcp(); FORM(f, connect, odd(LOCAL, 7, families[k]), 16); close(f); f = udp(); FORM(f, connect, odd(LOCAL, 7, families[k]), 16); close(f); f = tcp6(); FORM(f, connect, odd("::1", 7, families[k]), 28); FORM(f, connect, odd(LOCAL, 7, families[k]), 16); close(f); f = udp6(); FORM(f, connect, odd("::1", 7, families[k]), 28); FORM(f, connect, odd(LOCAL, 7, families[k]), 16); close(f);
#define TO(fd, who, l) do { addr a_ = who; printf("%d send to %s: ", __LINE__, #who); printf("%s\n", outcome(sendto(fd, "x", 1, 0, &a_.s, l))); } while (0)
        f = udp(); TO(f, odd(LOCAL, 7, families[k]), 16); close(f); f = udp6(); TO(f, odd("::1", 7, families[k]), 28); close(f); f = udp6(); TO(f, odd(LOCAL, 7, families[k]), 16); set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1); close(f); f = udp6(); set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1); TO(f, odd(LOCAL, 7, families[k]), 16); close(f);
    }
    /* Addresses. */
    static const char *of[] = { "0.0.0.0", LOCAL, "127.1.2.3", "127.255.255.255", "127.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.2.7", "0.1.2.3", "240.0.0.1", "::", "::1", "::2", "2001:db8::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:192.0.2.7", "::127.0.0.1" };
    for (int k = 0; k < 20; k++) {
        int fam = family_of(of[k]); printf("%s:", of[k]);
        for (int t = 0; t < 2; t++) {
            int type = t ? SOCK_DGRAM : SOCK_STREAM; addr a;
            f = socket(fam, type, 0); printf("%s bind %s", t ? "; udp" : " tcp", outcome(bind_to(f, of[k], 0))); close(f);
            f = socket(fam, type, 0); printf(", connect %s", outcome(connect_to(f, of[k], 7))); close(f);
            f = socket(fam, type, 0); printf(", port 0 %s", outcome(connect_to(f, of[k], 0))); close(f);
            if (t) { f = socket(fam, type, 0); a = at(of[k], 7); printf(", send %s", outcome(sendto(f, "x", 1, 0, &a.s, len_of(&a)))); close(f); f = socket(fam, type, 0); a = at(of[k], 0); printf(", port 0 %s", outcome(sendto(f, "x", 1, 0, &a.s, len_of(&a)))); close(f); }
            if (fam == AF_INET6) { f = socket(fam, type, 0); set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1); printf(", alone %s", outcome(bind_to(f, of[k], 0))); printf(" %s", outcome(connect_to(f, of[k], 7))); close(f); }
        }
        puts("");
    }
    /* From one family to the other. */
    f = tcp6(); T(bind_to(f, "::1", 0)); T(connect_to(f, "::ffff:127.0.0.1", 7)); close(f); f = tcp6(); T(bind_to(f, "::ffff:127.0.0.1", 0)); T(connect_to(f, "::1", 7)); NAME(f); close(f); f = udp6(); T(bind_to(f, "::1", 0)); T(connect_to(f, "::ffff:127.0.0.1", 7)); close(f); f = udp6(); T(bind_to(f, "::ffff:127.0.0.1", 0)); T(connect_to(f, "::1", 7)); TO(f, at("::1", 7), 28); TO(f, at("::ffff:127.0.0.1", 7), 28); close(f);
    f = tcp(); T(bind_to(f, LOCAL, 0)); T(connect_to(f, "192.0.2.7", 7)); close(f); f = udp(); T(bind_to(f, LOCAL, 0)); T(connect_to(f, "192.0.2.7", 7)); close(f);
    f = tcp(); T(bind_to(f, LOCAL, 0)); T(bind_to(f, LOCAL, 0)); T(bind_to(f, "0.0.0.0", 0)); close(f); f = udp6(); T(bind_to(f, "::1", 0)); T(bind_to(f, "::1", 0)); close(f); f = udp(); T(connect_to(f, LOCAL, 7)); T(bind_to(f, LOCAL, 0)); close(f); f = tcp(); T(bind_to(f, "192.0.2.7", 0)); T(bind_to(f, LOCAL, 0)); close(f);
    f = tcp6(); T(bind_to(f, "::1", 0)); T(set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1)); close(f); f = tcp6(); T(set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1)); T(set(f, IPPROTO_IPV6, IPV6_V6ONLY, 0)); T(get(f, IPPROTO_IPV6, IPV6_V6ONLY)); close(f);
}

static void names(void) {
    puts("names");
    addr a; socklen_t l;
    int f = tcp(); NAME(f); PEER(f); T(getsockname(f, &a.s, BAD)); l = 16; T(getsockname(f, BAD, &l)); l = 0; T(getsockname(f, BAD, &l)); V(l); l = -1; T(getsockname(f, &a.s, &l)); l = 16; T(getpeername(f, BAD, BAD)); T(getsockname(0, &a.s, &l)); T(getsockname(99, &a.s, &l)); close(f);
    int u = udp6(); NAME(u); PEER(u); T(bind_to(u, "::", 0)); NAME(u); T(connect_to(u, "::1", 7)); NAME(u); PEER(u); close(u);
    u = udp(); T(connect_to(u, "127.3.3.3", 9)); forget(); nick(9); NAME(u); PEER(u); close(u); u = udp(); T(connect_to(u, "0.0.0.0", 9)); NAME(u); PEER(u); close(u); u = udp6(); T(connect_to(u, "::ffff:127.0.0.1", 9)); NAME(u); PEER(u); close(u); u = udp6(); T(connect_to(u, "::", 9)); NAME(u); PEER(u); close(u);
    f = listener("127.9.9.9", 3); forget(); NAME(f); PEER(f); int c = tcp(); T(connect_to(c, "127.9.9.9", port_of(f))); NAME(c); PEER(c); int s = accept(f, 0, 0); NAME(s); PEER(s);
    for (int k = 0; k < 20; k += 3) { memset(&a, 0x55, sizeof a); l = k; T(getpeername(c, &a.s, &l)); printf("len %d:", l); for (int i = 0; i < 18; i++) if (i < 2 || i > 3) printf(" %d", a.bytes[i]); puts(""); }
    close(f); close(c); close(s);
    f = listener("::", 3); forget(); NAME(f); c = tcp(); T(connect_to(c, "127.0.0.1", port_of(f))); s = accept(f, 0, 0); NAME(s); PEER(s); NAME(c); close(c); close(s); c = tcp6(); T(connect_to(c, "::1", port_of(f))); s = accept(f, 0, 0); NAME(s); PEER(s); NAME(c); close(c); close(s); c = tcp6(); T(connect_to(c, "::", port_of(f))); NAME(c); PEER(c); close(c); close(f);
    f = listener("0.0.0.0", 3); forget(); c = tcp(); T(connect_to(c, "127.0.0.8", port_of(f))); s = accept(f, 0, 0); NAME(s); PEER(s); NAME(c); close(c); close(s); c = tcp(); T(bind_to(c, "127.0.0.9", 0)); T(connect_to(c, "127.0.0.8", port_of(f))); s = accept(f, 0, 0); PEER(s); close(c); close(s); c = tcp6(); T(connect_to(c, "::1", port_of(f))); close(c); close(f);
    f = tcp6(); set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1); bind_to(f, "::", 0); listen(f, 1); c = tcp(); T(connect_to(c, LOCAL, port_of(f))); close(c); c = tcp6(); T(connect_to(c, "::ffff:127.0.0.1", port_of(f))); close(c); c = tcp6(); T(connect_to(c, "::1", port_of(f))); close(c); close(f);
}

static void low(void) {
    puts("low ports");
    IN(rights(0); static const int p[] = { 1, 80, 1023, 1024 }; for (int i = 0; i < 4; i++) { int f = tcp(); T(bind_to(f, LOCAL, p[i])); close(f); f = udp6(); T(bind_to(f, "::1", p[i])); close(f); f = udp(); T(bind_to(f, "192.0.2.7", p[i])); close(f); });
    IN(rights(1 << CAP_NET_BIND_SERVICE); int f = tcp(); T(bind_to(f, LOCAL, 80)); T(listen(f, 1)); int c = tcp(); T(connect_to(c, LOCAL, 80)));
    /* Root of the namespace may change it without any right. */
    IN(rights(0); T(put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "79")); int f = tcp(); T(bind_to(f, LOCAL, 78)); T(bind_to(f, LOCAL, 79)));
    T(put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "70000")); T(put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "-1")); T(put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "x")); T(put("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"));
    /* The right counts where the port is bound, in the namespace's owner. */
    int f = tcp(); IN(T(unshare(CLONE_NEWUSER)); T(bind_to(f, LOCAL, 81))); T(bind_to(f, LOCAL, 81)); close(f);
}

/* Who may have a port that another has: each address after each, with each pair of options. */
static const struct { const char *text; int alone; const char *name; } PLACES[] = { { "0.0.0.0", 0, "*" }, { LOCAL, 0, "127.1" }, { "127.0.0.2", 0, "127.2" }, { "::", 0, "::" }, { "::", 1, "::only" }, { "::1", 0, "::1" }, { "::ffff:127.0.0.1", 0, "mapped" }, { "::ffff:0.0.0.0", 0, "mapped*" } };
static int place(int type, int port, int at_, int options, int listens) {
    int f = socket(family_of(PLACES[at_].text), type, 0);
    if (options & 1) set(f, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options & 2) set(f, SOL_SOCKET, SO_REUSEPORT, 1);
    if (PLACES[at_].alone) set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    int r = bind_to(f, PLACES[at_].text, port);
    if (!r && listens) r = listen(f, 1) ? -2 : 0;
    if (r) { int e = errno; close(f); errno = e; return r; }
    return f;
}
static void taken(void) {
    puts("taken");
    for (int kind = 0; kind < 3; kind++) {
        int type = kind == 2 ? SOCK_DGRAM : SOCK_STREAM;
        for (int options = 0; options < 16; options++)
            for (int i = 0; i < 8; i++) {
                printf("%s %s%s%s then%s%s:", kind == 0 ? "bound" : kind == 1 ? "listening" : "udp", PLACES[i].name, options & 1 ? " addr" : "", options & 2 ? " port" : "", options & 4 ? " addr" : "", options & 8 ? " port" : "");
                for (int j = 0; j < 8; j++) {
                    int a = place(type, 5000, i, options & 3, kind == 1), b = place(type, 5000, j, options >> 2, kind == 1);
                    printf(" %s", a < 0 ? "?" : b >= 0 ? PLACES[j].name : b == -2 ? "(listen)" : errno == EADDRINUSE ? "-" : strerrorname_np(errno));
                    if (b >= 0) close(b);
                    close(a);
                }
                puts("");
            }
    }
    /* One listens, another is only bound; options that change after. */
    int a = place(SOCK_STREAM, 5001, 1, 1, 0), b = place(SOCK_STREAM, 5001, 1, 1, 0); T(listen(a, 1)); T(listen(b, 1)); int c = place(SOCK_STREAM, 5001, 1, 1, 0); V(c); T(set(a, SOL_SOCKET, SO_REUSEADDR, 0)); close(a); T(listen(b, 1)); close(b);
    a = place(SOCK_STREAM, 5001, 1, 1, 0); T(set(a, SOL_SOCKET, SO_REUSEADDR, 0)); b = place(SOCK_STREAM, 5001, 1, 1, 0); V(b >= 0); close(a); close(b);
    a = place(SOCK_DGRAM, 5001, 1, 1, 0); T(set(a, SOL_SOCKET, SO_REUSEADDR, 0)); V(place(SOCK_DGRAM, 5001, 1, 1, 0)); T(set(a, SOL_SOCKET, SO_REUSEADDR, 1)); V((b = place(SOCK_DGRAM, 5001, 1, 1, 0)) >= 0); close(b); close(a);
    a = place(SOCK_STREAM, 5001, 1, 0, 1); b = place(SOCK_DGRAM, 5001, 1, 0, 0); V(a >= 0 && b >= 0); T(set(a, SOL_SOCKET, SO_REUSEPORT, 1)); V((c = place(SOCK_STREAM, 5001, 1, 2, 1)) >= 0); close(c); close(a); close(b);
    /* Ports are shared within one user only, and who has a connection from a port is in the way of who asks for it. */
    a = place(SOCK_STREAM, 5002, 0, 2, 1); b = place(SOCK_DGRAM, 5002, 0, 2, 0); V(a >= 0 && b >= 0); IN(T(setresuid(1234, 1234, 1234)); V(place(SOCK_STREAM, 5002, 0, 2, 1)); V(place(SOCK_STREAM, 5002, 0, 3, 0)); V(place(SOCK_DGRAM, 5002, 0, 2, 0)); V(place(SOCK_DGRAM, 5002, 1, 2, 0)); V(place(SOCK_DGRAM, 5002, 1, 3, 0))); IN(T(seteuid(1234)); V(place(SOCK_STREAM, 5002, 0, 2, 1)); T(seteuid(0)); V(place(SOCK_STREAM, 5002, 0, 2, 1) >= 0)); int moved = place(SOCK_STREAM, 5002, 0, 2, 1); IN(T(setresuid(1234, 1234, 1234)); V(fchown(moved, 1234, -1) < 0); V(place(SOCK_STREAM, 5002, 0, 2, 1))); close(moved); close(a); close(b);
    a = place(SOCK_DGRAM, 5003, 0, 1, 0); IN(setresuid(1234, 1234, 1234); V(place(SOCK_DGRAM, 5003, 0, 1, 0) >= 0)); close(a); a = place(SOCK_STREAM, 5003, 0, 1, 0); IN(setresuid(1234, 1234, 1234); V(place(SOCK_STREAM, 5003, 0, 1, 0) >= 0)); close(a);
    a = listener(LOCAL, 3); c = tcp(); T(bind_to(c, LOCAL, 5004)); T(connect_to(c, LOCAL, port_of(a))); V(place(SOCK_STREAM, 5004, 1, 0, 0)); V(place(SOCK_STREAM, 5004, 1, 1, 0)); V((b = place(SOCK_STREAM, 5004, 2, 0, 0)) >= 0); close(b); V(place(SOCK_STREAM, 5004, 0, 0, 0)); V(place(SOCK_STREAM, 5004, 3, 0, 0)); V((b = place(SOCK_STREAM, 5004, 4, 0, 0)) >= 0); close(b); close(c); close(a);
}

static int range(const char *text) { return put("/proc/sys/net/ipv4/ip_local_port_range", text); }
static void ephemeral(void) {
    puts("ephemeral");
    T(range("40000 40009\n")); char t[64] = ""; int s = open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY); V(read(s, t, 63)); S(t); close(s);
    for (int kind = 0; kind < 4; kind++) {
        int f[12], seen = 0, n = 0, in = 1; printf("kind %d\n", kind);
        for (; n < 12; n++) { f[n] = socket(kind & 1 ? AF_INET6 : AF_INET, kind & 2 ? SOCK_DGRAM : SOCK_STREAM, 0); if (bind_to(f[n], kind & 1 ? "::1" : LOCAL, 0)) break; int p = port_of(f[n]); in &= p >= 40000 && p <= 40009; seen |= 1 << (p - 40000); }
        printf("%d bound, in the range %d, all %d, then %s\n", n, in, seen == 1023, strerrorname_np(errno));
        /* Elsewhere there are some left. */
        int g = socket(kind & 1 ? AF_INET6 : AF_INET, kind & 2 ? SOCK_DGRAM : SOCK_STREAM, 0); T(bind_to(g, kind & 1 ? "::" : "0.0.0.0", 0)); if (!(kind & 1)) T(bind_to(g, "127.0.0.2", 0)); close(g);
        if (kind == 2) { g = udp(); T(connect_to(g, LOCAL, 7)); addr a = at(LOCAL, 7); T(sendto(g, "x", 1, 0, &a.s, sizeof a.i)); close(g); }
        if (kind == 0) { g = tcp(); T(listen(g, 1)); close(g); g = tcp(); set(g, SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(g, LOCAL, 0)); close(g); }
        for (int i = 0; i <= n && i < 12; i++) close(f[i]);
    }
    /* To one place as many connections as there are ports; to another again. */
    int l = listener(LOCAL, 50), c[12], n = 0, m = 0; T(range("40020 40029")); for (; n < 12; n++) { c[n] = tcp(); if (connect_to(c[n], LOCAL, port_of(l))) break; int p = port_of(c[n]); V(p >= 40020 && p <= 40029); } V(n); T(connect_to(c[n], LOCAL, port_of(l))); T(connect_to(c[n], "127.0.0.2", port_of(l))); close(c[n]); int o = tcp(); T(bind_to(o, LOCAL, 0)); T(listen(o, 1)); close(o);
    int k = tcp(); T(bind_to(k, LOCAL, 0)); close(k); for (int i = 0; i < n; i++) { struct linger g = { 1, 0 }; setsockopt(c[i], SOL_SOCKET, SO_LINGER, &g, sizeof g); close(c[i]); } close(l);
    /* Ports kept back, and a range of the socket's own. */
    T(range("40040 40043")); T(put("/proc/sys/net/ipv4/ip_local_reserved_ports", "40040-40041,40043")); int f = tcp(); T(bind_to(f, LOCAL, 0)); V(port_of(f)); close(f); f = udp(); T(bind_to(f, LOCAL, 0)); V(port_of(f)); int g = udp(); T(bind_to(g, LOCAL, 0)); T(bind_to(g, LOCAL, 40041)); close(g); close(f); T(put("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n"));
    f = tcp(); unsigned own = 40041 | 40041 << 16; T(setsockopt(f, IPPROTO_IP, 51, &own, 4)); T(get(f, IPPROTO_IP, 51) == own); T(bind_to(f, LOCAL, 0)); V(port_of(f)); close(f); f = tcp(); own = 5 | 4 << 16; T(setsockopt(f, IPPROTO_IP, 51, &own, 4)); T(setsockopt(f, IPPROTO_IP, 51, &own, 2)); close(f);
    T(range("50 40")); T(range("0 100")); T(range("100")); T(range("x y")); T(range("1000 70000")); T(range("32768 60999"));
    /* The address now, the port when it connects. */
    l = listener("127.0.0.5", 3); f = tcp(); T(set(f, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)); T(bind_to(f, "127.0.0.6", 0)); forget(); nick(port_of(l)); NAME(f); T(connect_to(f, "127.0.0.5", port_of(l))); NAME(f); close(f); f = tcp(); set(f, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1); T(bind_to(f, "127.0.0.6", 0)); T(listen(f, 1)); NAME(f); close(f); close(l); f = udp(); set(f, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1); T(bind_to(f, "127.0.0.6", 0)); NAME(f); T(connect_to(f, LOCAL, 9)); nick(9); NAME(f); close(f);
    f = tcp(); T(set(f, IPPROTO_IP, IP_FREEBIND, 1)); T(bind_to(f, "192.0.2.7", 0)); T(listen(f, 1)); close(f); IN(rights(0); int f = tcp(); T(set(f, IPPROTO_IP, IP_FREEBIND, 1)); T(bind_to(f, "192.0.2.7", 0)); T(set(f, IPPROTO_IP, IP_TRANSPARENT, 1)));
}

int main(void) {
    own_network();
    kinds(); made(); forms(); names(); low(); taken(); ephemeral();
    return 0;
}
