/* Options of internet sockets: what each is at first, which values and lengths it takes, what is read back, and who may. */
#include "inet.h"
#include <linux/capability.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
static const char *outcome(int r) { return r == -1 ? strerrorname_np(errno) : "ok"; }
static void rights(unsigned long long set) { struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2] = { { set, set, 0 }, { set >> 32, set >> 32, 0 } }; SYS(capset, &h, d); }
static const struct { const char *name; int family, type, protocol; } KINDS[] = { { "tcp", AF_INET, SOCK_STREAM, 0 }, { "udp", AF_INET, SOCK_DGRAM, 0 }, { "tcp6", AF_INET6, SOCK_STREAM, 0 }, { "udp6", AF_INET6, SOCK_DGRAM, 0 } };
static int make(int kind) { return socket(KINDS[kind].family, KINDS[kind].type, KINDS[kind].protocol); }
struct option { int number; const char *name; };
#define O(name) { name, #name }

/* What it is: its bytes as a number, and how many they are. */
static void is(int f, int level, int number) {
    unsigned char v[64]; memset(v, 0x55, sizeof v); socklen_t l = 32;
    if (getsockopt(f, level, number, v, &l)) { printf("%s", strerrorname_np(errno)); return; }
    if (l == 4) printf("%d", *(int *)v); else if (l == 1) printf("%d/1", *v); else { printf("%u bytes", l); for (unsigned i = 0; i < l && i < 16; i++) printf(" %02x", v[i]); }
}
static void one(int kind, int level, const struct option *o, int from) {
    static const int values[] = { -2, -1, 0, 1, 2, 3, 6, 7, 64, 254, 255, 256, 32767, 32768, 65536, 100000 };
    int f = make(kind), same = 0;
    printf("%s %s: ", KINDS[kind].name, o->name); is(f, level, o->number); printf("; set");
    for (int i = from; i < 16; i++) {
        int e = set(f, level, o->number, values[i]) ? errno : 0;
        printf(" %d ", values[i]); if (e) printf("%s", strerrorname_np(e)); else is(f, level, o->number);
    }
    close(f); f = make(kind);
    printf("\n%s %s, lengths:", KINDS[kind].name, o->name); static const int lens[] = { 0, 1, 2, 3, 4, 5, 8, 100 };
    for (int i = 0; i < 8; i++) { char b[128] = { 1 }; int r = setsockopt(f, level, o->number, b, lens[i]); printf(" %d %s", lens[i], outcome(r)); }
    printf(", bad %s", outcome(setsockopt(f, level, o->number, BAD, 4))); printf(", none %s", outcome(setsockopt(f, level, o->number, 0, 0)));
    printf("\n%s %s, read:", KINDS[kind].name, o->name);
    for (int i = 0; i < 6; i++) { unsigned char b[128]; memset(b, 0x55, 128); socklen_t l = lens[i]; int r = getsockopt(f, level, o->number, b, &l); printf(" %d ", lens[i]); if (r) printf("%s", strerrorname_np(errno)); else { printf("%u:", l); for (int j = 0; j < 5; j++) printf("%02x", b[j]); } }
    socklen_t l = -1; char b[8]; printf(", -1 %s", outcome(getsockopt(f, level, o->number, b, &l))); l = 4; printf(", bad %s", outcome(getsockopt(f, level, o->number, BAD, &l))); printf(" %s\n", outcome(getsockopt(f, level, o->number, b, BAD)));
    close(f);
}
static void all(int level, const struct option *o, int count, const int *kinds, int many, int from) { for (int i = 0; i < count; i++) for (int k = 0; k < many; k++) one(kinds[k], level, &o[i], from); }
#define ALL(level, list, from, ...) do { static const int k_[] = { __VA_ARGS__ }; all(level, list, sizeof list / sizeof *list, k_, sizeof k_ / sizeof *k_, from); } while (0)

static const struct option SOCKET[] = { O(SO_DEBUG), O(SO_REUSEADDR), O(SO_TYPE), O(SO_ERROR), O(SO_DONTROUTE), O(SO_BROADCAST), O(SO_KEEPALIVE), O(SO_OOBINLINE), O(SO_NO_CHECK), O(SO_PRIORITY), O(SO_REUSEPORT), O(SO_PASSCRED), O(SO_SNDLOWAT), O(SO_TIMESTAMP), O(SO_ACCEPTCONN), O(SO_PASSSEC), O(SO_TIMESTAMPNS), O(SO_MARK), O(SO_PROTOCOL), O(SO_DOMAIN), O(SO_RXQ_OVFL), O(SO_PEEK_OFF), O(SO_NOFCS), O(SO_LOCK_FILTER), O(SO_SELECT_ERR_QUEUE), O(SO_BUSY_POLL), O(SO_BPF_EXTENSIONS), O(SO_ZEROCOPY), { 69, "SO_PREFER_BUSY_POLL" }, { 74, "SO_TXREHASH" }, { 75, "SO_RCVMARK" }, { 1000, "1000" } };
/* Their greatest value is the machine's. */
static const struct option SIZES[] = { O(SO_SNDBUF), O(SO_RCVBUF), O(SO_RCVLOWAT) };
static const struct option TCP[] = { O(TCP_NODELAY), O(TCP_MAXSEG), O(TCP_CORK), O(TCP_KEEPIDLE), O(TCP_KEEPINTVL), O(TCP_KEEPCNT), O(TCP_SYNCNT), O(TCP_LINGER2), O(TCP_DEFER_ACCEPT), O(TCP_WINDOW_CLAMP), O(TCP_QUICKACK), { 16, "TCP_THIN_LINEAR_TIMEOUTS" }, { 17, "TCP_THIN_DUPACK" }, O(TCP_USER_TIMEOUT), { 25, "TCP_NOTSENT_LOWAT" }, { 27, "TCP_SAVE_SYN" }, { 30, "TCP_FASTOPEN_CONNECT" }, { 34, "TCP_FASTOPEN_NO_COOKIE" }, { 36, "TCP_INQ" }, { 1000, "1000" } };
static const struct option IP[] = { O(IP_TOS), O(IP_TTL), O(IP_HDRINCL), O(IP_ROUTER_ALERT), O(IP_RECVOPTS), O(IP_RETOPTS), O(IP_PKTINFO), O(IP_MTU_DISCOVER), O(IP_RECVERR), O(IP_RECVTTL), O(IP_RECVTOS), O(IP_MTU), O(IP_FREEBIND), O(IP_TRANSPARENT), O(IP_RECVORIGDSTADDR), O(IP_MINTTL), O(IP_NODEFRAG), O(IP_CHECKSUM), O(IP_BIND_ADDRESS_NO_PORT), O(IP_RECVFRAGSIZE), { 26, "IP_RECVERR_RFC4884" }, O(IP_MULTICAST_TTL), O(IP_MULTICAST_LOOP), O(IP_MULTICAST_ALL), O(IP_UNICAST_IF), { 52, "IP_PROTOCOL" }, { 1000, "1000" } };
static const struct option IPV6[] = { O(IPV6_CHECKSUM), O(IPV6_UNICAST_HOPS), O(IPV6_MULTICAST_IF), O(IPV6_MULTICAST_HOPS), O(IPV6_MULTICAST_LOOP), O(IPV6_ROUTER_ALERT), O(IPV6_MTU_DISCOVER), O(IPV6_MTU), O(IPV6_RECVERR), O(IPV6_V6ONLY), { 29, "IPV6_MULTICAST_ALL" }, O(IPV6_RECVPKTINFO), O(IPV6_RECVHOPLIMIT), O(IPV6_RECVHOPOPTS), O(IPV6_RECVRTHDR), O(IPV6_RECVDSTOPTS), O(IPV6_RECVPATHMTU), O(IPV6_DONTFRAG), O(IPV6_RECVTCLASS), O(IPV6_TCLASS), { 33, "IPV6_FLOWINFO_SEND" }, { 73, "IPV6_MINHOPCOUNT" }, { 75, "IPV6_TRANSPARENT" }, { 76, "IPV6_UNICAST_IF" }, { 78, "IPV6_FREEBIND" }, { 1000, "1000" } };
static const struct option UDP[] = { O(UDP_CORK), { 101, "UDP_NO_CHECK6_TX" }, { 102, "UDP_NO_CHECK6_RX" }, { 103, "UDP_SEGMENT" }, { 104, "UDP_GRO" }, { 1000, "1000" } };

static void odd(void) {
    puts("others");
    int f = tcp(), u = udp(), v; socklen_t l; char b[256];
    /* Levels. */
    static const int levels[] = { -1, 0, 1, 2, 6, 17, 41, 58, 255, 256, 999 };
    for (int k = 0; k < 4; k++) { int s = make(k); printf("%s levels:", KINDS[k].name); for (int i = 0; i < 11; i++) { l = 4; printf(" %d %s", levels[i], outcome(getsockopt(s, levels[i], 500, &v, &l))); printf(" %s", outcome(setsockopt(s, levels[i], 500, &v, 4))); } puts(""); close(s); }
    T(getsockopt(f, IPPROTO_UDP, UDP_CORK, &v, &l)); T(getsockopt(u, IPPROTO_TCP, TCP_NODELAY, &v, &l)); T(set(u, IPPROTO_TCP, TCP_NODELAY, 1)); T(set(f, IPPROTO_UDP, UDP_CORK, 1)); T(set(f, IPPROTO_IPV6, IPV6_V6ONLY, 1)); T(getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &l)); T(getsockopt(99, SOL_SOCKET, SO_TYPE, &v, &l)); T(setsockopt(0, SOL_SOCKET, SO_TYPE, &v, 4)); T(setsockopt(f, SOL_SOCKET, SO_KEEPALIVE, &v, -1));
    /* Buffers: twice what was asked, and at least so much. */
    static const int sizes[] = { 0, 1, 1000, 2303, 2304, 2305, 4607, 4608, 4609, 65536, 200000 };
    for (int i = 0; i < 11; i++) { T(set(f, SOL_SOCKET, SO_SNDBUF, sizes[i])); T(get(f, SOL_SOCKET, SO_SNDBUF)); T(set(f, SOL_SOCKET, SO_RCVBUF, sizes[i])); T(get(f, SOL_SOCKET, SO_RCVBUF)); }
    T(set(u, SOL_SOCKET, SO_RCVBUFFORCE, 5000000)); T(get(u, SOL_SOCKET, SO_RCVBUF)); T(set(u, SOL_SOCKET, SO_SNDBUFFORCE, 5000000)); T(get(u, SOL_SOCKET, SO_SNDBUF)); T(get(u, SOL_SOCKET, SO_RCVBUFFORCE)); T(get(f, SOL_SOCKET, 72)); T(get(u, SOL_SOCKET, 72)); T(set(u, SOL_SOCKET, 72, 0)); T(get(u, SOL_SOCKET, 72)); T(set(u, SOL_SOCKET, 72, 4)); close(f); close(u); f = tcp(); u = udp();
    /* Structures. */
    struct linger g = { 1, 7 }; T(setsockopt(f, SOL_SOCKET, SO_LINGER, &g, 8)); l = 8; memset(&g, 0, 8); T(getsockopt(f, SOL_SOCKET, SO_LINGER, &g, &l)); V(l); V(g.l_onoff); V(g.l_linger); l = 4; T(getsockopt(f, SOL_SOCKET, SO_LINGER, &g, &l)); V(l); T(setsockopt(f, SOL_SOCKET, SO_LINGER, &g, 7)); T(setsockopt(u, SOL_SOCKET, SO_LINGER, &g, 100)); g = (struct linger){ 0, 9 }; T(setsockopt(f, SOL_SOCKET, SO_LINGER, &g, 8)); l = 8; getsockopt(f, SOL_SOCKET, SO_LINGER, &g, &l); V(g.l_onoff); V(g.l_linger);
    struct ucred c; l = sizeof c; T(getsockopt(f, SOL_SOCKET, SO_PEERCRED, &c, &l)); V(l); V(c.pid); V((int)c.uid); V((int)c.gid); l = sizeof b; T(getsockopt(f, SOL_SOCKET, SO_PEERGROUPS, b, &l)); l = sizeof b; T(getsockopt(f, SOL_SOCKET, SO_PEERNAME, b, &l)); unsigned long long cookie = 0, again = 0; l = 8; T(getsockopt(f, SOL_SOCKET, SO_COOKIE, &cookie, &l)); V(l); V(cookie != 0); l = 8; getsockopt(f, SOL_SOCKET, SO_COOKIE, &again, &l); V(cookie == again); getsockopt(u, SOL_SOCKET, SO_COOKIE, &again, &l); V(cookie != again); l = 4; T(getsockopt(f, SOL_SOCKET, SO_COOKIE, &cookie, &l)); T(setsockopt(f, SOL_SOCKET, SO_COOKIE, &cookie, 8)); l = 8; T(getsockopt(f, SOL_SOCKET, 71, &cookie, &l)); V(cookie != 0);
    l = 4; T(getsockopt(f, SOL_SOCKET, SO_INCOMING_CPU, &v, &l)); T(getsockopt(f, SOL_SOCKET, SO_INCOMING_NAPI_ID, &v, &l)); V(v); l = sizeof b; memset(b, 1, sizeof b); T(getsockopt(f, SOL_SOCKET, SO_MEMINFO, b, &l)); V(l); V(*(int *)b); l = 4; T(getsockopt(f, SOL_SOCKET, SO_MAX_PACING_RATE, &v, &l)); V(v); T(set(f, SOL_SOCKET, SO_MAX_PACING_RATE, 1000000)); T(get(f, SOL_SOCKET, SO_MAX_PACING_RATE));
    /* Devices. */
    l = sizeof b; T(getsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, b, &l)); V(l); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "none", 5)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)); l = 16; memset(b, 0x55, 20); T(getsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, b, &l)); V(l); S(b); l = 15; T(getsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, b, &l)); T(get(f, SOL_SOCKET, SO_BINDTOIFINDEX)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "", 0)); T(get(f, SOL_SOCKET, SO_BINDTOIFINDEX)); T(set(f, SOL_SOCKET, SO_BINDTOIFINDEX, 99)); T(get(f, SOL_SOCKET, SO_BINDTOIFINDEX)); T(set(f, SOL_SOCKET, SO_BINDTOIFINDEX, -1)); T(set(f, SOL_SOCKET, SO_BINDTOIFINDEX, 1)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, BAD, 3)); T(bind_to(f, LOCAL, 0)); T(listen(f, 1)); int d = tcp(); T(connect_to(d, LOCAL, port_of(f))); int a = accept(f, 0, 0); T(get(a, SOL_SOCKET, SO_BINDTOIFINDEX)); close(a); close(d); close(f); close(u);
    /* Who may. */
    IN(rights(0); int f = tcp(), u = udp(); T(set(f, SOL_SOCKET, SO_MARK, 1)); T(set(f, SOL_SOCKET, SO_MARK, 0)); T(set(f, SOL_SOCKET, SO_PRIORITY, 6)); T(set(f, SOL_SOCKET, SO_PRIORITY, 7)); T(set(f, SOL_SOCKET, SO_PRIORITY, -1)); T(get(f, SOL_SOCKET, SO_PRIORITY)); T(set(f, SOL_SOCKET, SO_DEBUG, 1)); T(set(f, SOL_SOCKET, SO_DEBUG, 0)); T(set(f, SOL_SOCKET, SO_RCVBUFFORCE, 100)); T(set(f, SOL_SOCKET, SO_SNDBUFFORCE, 100)); T(set(f, SOL_SOCKET, SO_BUSY_POLL, 1)); T(set(f, SOL_SOCKET, SO_BUSY_POLL, 0)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "", 1)); T(set(f, SOL_SOCKET, SO_BINDTOIFINDEX, 0)); T(set(f, IPPROTO_IP, IP_TRANSPARENT, 1)); T(set(f, IPPROTO_IP, IP_TRANSPARENT, 0)); T(set(f, IPPROTO_TCP, TCP_REPAIR, 1)); T(set(u, IPPROTO_IP, IP_TOS, 0xe0)); T(set(f, IPPROTO_IP, IP_TOS, 0xff)); T(get(f, IPPROTO_IP, IP_TOS)); int s = udp6(); T(set(s, IPPROTO_IPV6, 75, 1)); T(set(s, IPPROTO_IPV6, IPV6_RECVHOPOPTS, 1)););
    IN(rights(1 << CAP_NET_ADMIN); int f = tcp(); T(set(f, SOL_SOCKET, SO_MARK, 5)); T(get(f, SOL_SOCKET, SO_MARK)); T(set(f, SOL_SOCKET, SO_PRIORITY, 70)); T(set(f, IPPROTO_IP, IP_TRANSPARENT, 1))); IN(rights(1 << CAP_NET_RAW); int f = tcp(); T(set(f, SOL_SOCKET, SO_MARK, 5)); T(set(f, IPPROTO_IP, IP_TRANSPARENT, 1)); T(set(f, SOL_SOCKET, SO_PRIORITY, 70)));
    /* A service's kind sets what comes with it. */
    f = tcp(); for (int i = 0; i < 256; i += 0x11) { set(f, IPPROTO_IP, IP_TOS, i); printf(" %x:%d,%d", i, get(f, IPPROTO_IP, IP_TOS), get(f, SOL_SOCKET, SO_PRIORITY)); } puts(""); close(f); u = udp(); for (int i = 0; i < 256; i += 0x11) { set(u, IPPROTO_IP, IP_TOS, i); printf(" %x:%d,%d", i, get(u, IPPROTO_IP, IP_TOS), get(u, SOL_SOCKET, SO_PRIORITY)); } puts(""); close(u);
}

static void tcps(void) {
    puts("TCP's own");
    int f = tcp(), s[2], v; socklen_t l; char b[300]; struct tcp_info i;
    /* Ways to mind the traffic. */
    T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5)); l = 16; memset(b, 0x55, 20); T(getsockopt(f, IPPROTO_TCP, TCP_CONGESTION, b, &l)); V(l); S(b); T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, "reno", 5)); l = 3; memset(b, 0x55, 20); T(getsockopt(f, IPPROTO_TCP, TCP_CONGESTION, b, &l)); V(l); V(!memcmp(b, "renU", 4)); l = 100; T(getsockopt(f, IPPROTO_TCP, TCP_CONGESTION, b, &l)); V(l); S(b); T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6)); T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, "", 0)); T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, "reno and more of it", 19)); T(setsockopt(f, IPPROTO_TCP, TCP_CONGESTION, BAD, 4)); l = 16; getsockopt(f, IPPROTO_TCP, TCP_CONGESTION, b, &l); S(b);
    l = 16; T(getsockopt(f, IPPROTO_TCP, TCP_ULP, b, &l)); V(l); T(setsockopt(f, IPPROTO_TCP, TCP_ULP, "none", 4));
    /* What it tells of itself. */
    l = sizeof i; T(getsockopt(f, IPPROTO_TCP, TCP_INFO, &i, &l)); V(l); V(i.tcpi_state); V(i.tcpi_options); for (int n = 0; n < 9; n += 4) { memset(b, 0x55, 16); l = n; T(getsockopt(f, IPPROTO_TCP, TCP_INFO, b, &l)); V(l); V(b[0]); V(b[n]); } T(setsockopt(f, IPPROTO_TCP, TCP_INFO, b, 8)); l = 1000; char big[1000]; T(getsockopt(f, IPPROTO_TCP, TCP_INFO, big, &l)); V(l >= 104);
    pair_of(s, LOCAL); for (int k = 0; k < 2; k++) { memset(&i, 0, l = sizeof i); T(getsockopt(s[k], IPPROTO_TCP, TCP_INFO, &i, &l)); V(i.tcpi_state); V((i.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE)) == 7); V(i.tcpi_retransmits); V(i.tcpi_unacked); V(i.tcpi_lost); V(i.tcpi_snd_mss > 536); V(i.tcpi_rtt < 1000000); V(i.tcpi_total_retrans); T(get(s[k], IPPROTO_TCP, TCP_MAXSEG) > 1000); T(get(s[k], IPPROTO_IP, IP_MTU) > 1000); T(get(s[k], IPPROTO_TCP, TCP_DEFER_ACCEPT)); } T(set(s[0], IPPROTO_TCP, TCP_MAXSEG, 1000)); T(set(s[0], IPPROTO_TCP, 36, 1)); T(send(s[1], "12345", 5, 0)); waiting(s[0], 5); struct iovec w = { b, 2 }; char c[100]; struct msghdr m = { .msg_iov = &w, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c }; T(recvmsg(s[0], &m, 0)); struct cmsghdr *h = CMSG_FIRSTHDR(&m); V(h != 0); if (h) { V(h->cmsg_level); V(h->cmsg_type); V(*(int *)CMSG_DATA(h)); }
    T(set(s[0], IPPROTO_TCP, TCP_SYNCNT, 3)); T(set(s[0], IPPROTO_TCP, 30, 1)); T(set(s[0], IPPROTO_TCP, 23, 5)); T(set(s[0], SOL_SOCKET, SO_REUSEADDR, 1)); T(set(s[0], IPPROTO_IPV6, IPV6_V6ONLY, 1)); both(s); close(f);
    /* Quick open. */
    f = tcp(); T(get(f, IPPROTO_TCP, 23)); T(set(f, IPPROTO_TCP, 23, 5)); T(get(f, IPPROTO_TCP, 23)); T(set(f, IPPROTO_TCP, 23, -1)); bind_to(f, LOCAL, 0); T(set(f, IPPROTO_TCP, 23, 5)); T(listen(f, 3)); T(get(f, IPPROTO_TCP, 23)); close(f); f = tcp(); T(set(f, IPPROTO_TCP, 30, 1)); T(get(f, IPPROTO_TCP, 30)); close(f);
    /* Who says something first is accepted. */
    f = tcp(); bind_to(f, LOCAL, 0); T(set(f, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)); T(get(f, IPPROTO_TCP, TCP_DEFER_ACCEPT)); listen(f, 3); int d = tcp(); T(connect_to(d, LOCAL, port_of(f))); NOT(f, POLLIN); T(send(d, "first", 5, 0)); P(f, POLLIN); int a = accept(f, 0, 0); T(recv(a, b, 9, 0)); close(a); close(d); close(f);
    /* The packet that it began with. */
    f = tcp(); bind_to(f, LOCAL, 0); T(set(f, IPPROTO_TCP, 27, 1)); listen(f, 1); d = tcp(); connect_to(d, LOCAL, port_of(f)); a = accept(f, 0, 0); l = sizeof b; T(getsockopt(a, IPPROTO_TCP, 28, b, &l)); V(l > 40); V(b[0] == 0x45); l = sizeof b; T(getsockopt(a, IPPROTO_TCP, 28, b, &l)); V(l); close(a); close(d); close(f);
}

static void addresses(void) {
    puts("IP's own");
    int f = udp(), v; socklen_t l; struct in_addr a = { htonl(INADDR_LOOPBACK) }, back; struct ip_mreqn q = { { 0 }, { 0 }, 1 };
    T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &a, 4)); l = 4; T(getsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &back, &l)); V(l); V(ntohl(back.s_addr) == INADDR_LOOPBACK); a.s_addr = inet_addr("192.0.2.7"); T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &a, 4)); a.s_addr = 0; T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &a, 4)); T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &q, sizeof q)); q.imr_ifindex = 99; T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &q, sizeof q)); T(setsockopt(f, IPPROTO_IP, IP_MULTICAST_IF, &a, 3)); int t = tcp(); T(setsockopt(t, IPPROTO_IP, IP_MULTICAST_IF, &a, 4)); T(set(t, IPPROTO_IP, IP_MULTICAST_TTL, 3)); T(set(t, IPPROTO_IP, IP_MULTICAST_LOOP, 0)); close(t);
    T(get(f, IPPROTO_IP, IP_MTU)); T(connect_to(f, LOCAL, 9)); T(get(f, IPPROTO_IP, IP_MTU)); char o[40] = { 0 }; l = 40; T(getsockopt(f, IPPROTO_IP, IP_OPTIONS, o, &l)); V(l); T(setsockopt(f, IPPROTO_IP, IP_OPTIONS, "\1\1\1\0", 4)); l = 40; T(getsockopt(f, IPPROTO_IP, IP_OPTIONS, o, &l)); V(l); T(setsockopt(f, IPPROTO_IP, IP_OPTIONS, o, 41)); T(setsockopt(f, IPPROTO_IP, IP_OPTIONS, "\7\1", 2)); T(setsockopt(f, IPPROTO_IP, IP_OPTIONS, 0, 0)); close(f);
    f = udp6(); struct ipv6_mreq r = { .ipv6mr_interface = 1 }; T(get(f, IPPROTO_IPV6, IPV6_MTU)); T(connect_to(f, "::1", 9)); T(get(f, IPPROTO_IPV6, IPV6_MTU)); struct { struct sockaddr_in6 a; unsigned mtu; } path; l = sizeof path; T(getsockopt(f, IPPROTO_IPV6, IPV6_PATHMTU, &path, &l)); V(l); V(path.mtu); T(set(f, IPPROTO_IP, IP_TTL, 5)); T(get(f, IPPROTO_IP, IP_TTL)); T(set(f, IPPROTO_IP, IP_TOS, 8)); T(get(f, IPPROTO_IP, IP_TOS)); T(get(f, IPPROTO_IPV6, IPV6_TCLASS)); T(get(f, IPPROTO_IPV6, IPV6_UNICAST_HOPS)); T(set(f, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET)); T(get(f, IPPROTO_IPV6, IPV6_ADDRFORM)); close(f);
    /* A mapped one becomes one of the other family. */
    int s[2], ls = listener("::", 1); s[0] = tcp(); T(connect_to(s[0], LOCAL, port_of(ls))); s[1] = accept(ls, 0, 0); T(get(s[1], IPPROTO_IPV6, IPV6_ADDRFORM)); T(get(s[1], IPPROTO_IPV6, IPV6_V6ONLY)); T(set(s[1], IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET)); V(get(s[1], SOL_SOCKET, SO_DOMAIN) == AF_INET && get(s[1], IPPROTO_IPV6, IPV6_V6ONLY) == -1); T(send(s[1], "x", 1, 0)); char b; T(recv(s[0], &b, 1, 0)); both(s); close(ls); f = tcp6(); T(set(f, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET)); T(set(f, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET6)); close(f);
    /* Bigger than the path takes, and no bits to cut it. */
    f = udp(); connect_to(f, LOCAL, 9); for (int k = 0; k < 6; k++) { T(set(f, IPPROTO_IP, IP_MTU_DISCOVER, k)); T(get(f, IPPROTO_IP, IP_MTU_DISCOVER)); } close(f); f = udp(); T(set(f, IPPROTO_UDP, 103, 10)); T(get(f, IPPROTO_UDP, 103)); ls = udp(); bind_to(ls, LOCAL, 0); T(connect_to(f, LOCAL, port_of(ls))); char many[100] = { 0 }; T(send(f, many, 35, 0)); for (int k = 0; k < 4; k++) T(recv(ls, many, 99, 0)); T(set(f, IPPROTO_UDP, 103, 0)); T(set(f, IPPROTO_UDP, 103, 65536)); close(f); close(ls);
    /* Ports of a socket's own choice: one that was bound is none for a connection, not even to there. */
    IN(own_network(); unsigned two = 40041 | 40042 << 16; int l = tcp(), c[2]; T(setsockopt(l, IPPROTO_IP, 51, &two, 4)); T(bind_to(l, LOCAL, 0)); T(listen(l, 3)); int p = port_of(l); V(p == 40041 || p == 40042); for (int i = 0; i < 2; i++) { c[i] = tcp(); setsockopt(c[i], IPPROTO_IP, 51, &two, 4); T(connect_to(c[i], LOCAL, p)); V(port_of(c[i]) != p); });
}
static void sockets(void) { ALL(SOL_SOCKET, SOCKET, 0, 0, 1, 2); ALL(SOL_SOCKET, SIZES, 2, 0, 1); }
static void streams(void) { ALL(IPPROTO_TCP, TCP, 0, 0, 2); }
static void internet(void) { ALL(IPPROTO_IP, IP, 0, 0, 1, 3); }
static void six(void) { ALL(IPPROTO_IPV6, IPV6, 0, 2, 3, 0); }
static void datagrams(void) { ALL(IPPROTO_UDP, UDP, 0, 1, 3); }

int main(void) {
    own_network();
    void (*const parts[])(void) = { sockets, streams, internet, six, datagrams, odd, tcps, addresses };
    at_once(sizeof parts / sizeof *parts, parts);
    return 0;
}
