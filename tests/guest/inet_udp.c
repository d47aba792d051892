/* UDP over the loopback: addresses and connections, sizes, what comes along with datagrams, errors that come back, groups and queues. */
#include "inet.h"
#include <linux/errqueue.h>
#include <netinet/udp.h>
static char buf[1 << 17];
#define GOT(call) do { memset(buf, 0, 64); errno = 0; long r_ = call; int e_ = errno; if (r_ < 0) printf("%d %s: %s\n", __LINE__, #call, strerrorname_np(e_)); else printf("%d %s = %ld \"%.40s\"\n", __LINE__, #call, r_, buf); } while (0)
static int bound(const char *text) { int f = socket(family_of(text), SOCK_DGRAM, 0); if (bind_to(f, text, 0)) perror("bind"); return f; }
static long to(int fd, const char *text, int port, const void *data, long n, int flags) { addr a = at(text, port); return sendto(fd, data, n, flags, &a.s, len_of(&a)); }
/* One message, with all that comes along: within a second, if any is on its way. */
static void receive(int line, int fd, long len, int flags) {
    char c[1024]; addr a; struct iovec v = { buf, len }; struct msghdr m = { &a, sizeof a, &v, 1, c, sizeof c, 0 };
    memset(buf, 0, 64); memset(&a, 0, sizeof a);
    struct pollfd p = { fd, POLLIN }; if (!(flags & (MSG_ERRQUEUE | MSG_DONTWAIT))) poll(&p, 1, 1000);
    long r = recvmsg(fd, &m, flags | MSG_DONTWAIT);
    if (r < 0) { printf("%d receive: %s\n", line, strerrorname_np(errno)); return; }
    printf("%d receive %ld \"%.30s\" flags %x from ", line, r, buf, m.msg_flags); if (m.msg_namelen) show_addr(&a, m.msg_namelen); else puts("nobody");
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        void *d = CMSG_DATA(h); printf("  level %d type %d len %ld", h->cmsg_level, h->cmsg_type, (long)h->cmsg_len);
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMP) { struct timeval *t = d; printf(" near %d", labs(t->tv_sec - time(0)) < 5); }
        else if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMPNS) { struct timespec *t = d; printf(" near %d", labs(t->tv_sec - time(0)) < 5); }
        else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_PKTINFO) { struct in_pktinfo *i = d; char x[20], y[20]; printf(" lo %d %s %s", i->ipi_ifindex == if_nametoindex("lo"), inet_ntop(AF_INET, &i->ipi_spec_dst, x, 20), inet_ntop(AF_INET, &i->ipi_addr, y, 20)); }
        else if (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_PKTINFO) { struct in6_pktinfo *i = d; char x[50]; printf(" lo %d %s", i->ipi6_ifindex == if_nametoindex("lo"), inet_ntop(AF_INET6, &i->ipi6_addr, x, 50)); }
        else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_TOS) printf(" %d", *(unsigned char *)d);
        else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_ORIGDSTADDR) { printf(" "); show_addr(d, 16); continue; }
        else if ((h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_RECVERR) || (h->cmsg_level == IPPROTO_IPV6 && h->cmsg_type == IPV6_RECVERR)) { struct sock_extended_err *e = d; addr *o = (void *)SO_EE_OFFENDER(e); printf(" %s origin %d type %d code %d pad %d info %d data %d by ", strerrorname_np(e->ee_errno), e->ee_origin, e->ee_type, e->ee_code, e->ee_pad, e->ee_info, e->ee_data); show_addr(o, o->s.sa_family ? len_of(o) : 0); continue; }
        else if (h->cmsg_len == CMSG_LEN(4)) printf(" %d", *(int *)d);
        puts("");
    }
}
#define R(fd, len, flags) receive(__LINE__, fd, len, flags)

static void plain(const char *here, const char *other, const char *wild) {
    printf("plain %s\n", here); forget();
    int fam = family_of(here), a = bound(here), b = socket(fam, SOCK_DGRAM, 0), pa = port_of(a); addr from; socklen_t l; nick(pa);
    NAME(b); T(to(b, here, pa, "hello", 5, 0)); NAME(b); int pb = port_of(b); R(a, 60, 0); T(to(a, here, pb, "back", 4, 0)); R(b, 2, 0); T(to(a, here, pb, "back", 4, 0)); R(b, 2, MSG_TRUNC); T(to(a, here, pb, "", 0, 0)); T(to(a, here, pb, "after", 5, 0)); P(b, POLLIN); int n = -1; T(ioctl(b, FIONREAD, &n)); V(n); T(recv(b, buf, 0, MSG_PEEK)); R(b, 9, 0); V(waiting(b, 5)); R(b, 3, MSG_PEEK); R(b, 9, MSG_PEEK | MSG_TRUNC); R(b, 3, MSG_TRUNC | MSG_PEEK); R(b, 0, 0); T(recv(b, buf, 9, MSG_DONTWAIT)); P(b, 0); T(ioctl(b, FIONREAD, &n)); V(n); T(ioctl(b, TIOCOUTQ, &n)); V(n);
    l = 5; memset(&from, 0x55, sizeof from); T(to(a, here, pb, "x", 1, 0)); T(recvfrom(b, buf, 9, 0, &from.s, &l)); V(l); V(from.bytes[5]); T(to(a, here, pb, "bad", 3, 0)); reached(b, POLLIN); T(recv(b, BAD, 9, MSG_DONTWAIT)); T(recv(b, buf, 9, MSG_DONTWAIT)); T(to(a, here, pb, "bad", 3, 0)); l = sizeof from; reached(b, POLLIN); T(recvfrom(b, buf, 9, MSG_DONTWAIT, BAD, &l)); T(recv(b, buf, 9, MSG_DONTWAIT)); T(to(a, here, pb, BAD, 9, 0)); T(send(b, "x", 1, 0)); T(write(b, "x", 1)); T(send(b, "", 0, 0)); PEER(b);
    /* Sizes. */
    T(to(a, here, pb, buf, 65507, 0)); T(recv(b, buf, sizeof buf, 0)); T(to(a, here, pb, buf, 65508, 0)); T(to(a, here, pb, buf, 65527, 0)); if (fam == AF_INET6) { T(recv(b, buf, sizeof buf, 0)); T(recv(b, buf, sizeof buf, 0)); } T(to(a, here, pb, buf, 65528, 0)); T(to(a, here, pb, buf, 65536, 0)); T(to(a, here, pb, buf, 100000, 0)); T(to(a, here, pb, buf, -1, 0)); for (int i = 0; i < 65507; i++) buf[i] = i * 13 >> 3; T(to(a, here, pb, buf, 65507, 0)); memset(buf, 0, sizeof buf); T(recv(b, buf, sizeof buf, 0)); int bad = 0; for (int i = 0; i < 65507; i++) bad += buf[i] != (char)(i * 13 >> 3); V(bad);
    /* Order. */
    for (int i = 0; i < 50; i++) to(a, here, pb, &i, 4, 0); bad = 0; for (int i = 0; i < 50; i++) { int v = -1; recv(b, &v, 4, 0); bad += v != i; } V(bad);
    /* Flags. */
    T(to(a, here, pb, "x", 1, MSG_OOB)); T(to(a, here, pb, "x", 1, MSG_EOR)); T(to(a, here, pb, "x", 1, MSG_CONFIRM)); T(to(a, here, pb, "x", 1, MSG_DONTROUTE)); T(to(a, here, pb, "x", 1, MSG_NOSIGNAL)); T(to(a, here, pb, "", 0, 0x10)); for (int i = 0; i < 4; i++) T(recv(b, buf, 9, 0)); T(recv(b, buf, 9, MSG_DONTWAIT)); T(to(a, here, pb, "ab", 2, 0)); T(recv(b, buf, 9, MSG_WAITALL)); T(to(a, here, pb, "one ", 4, MSG_MORE)); NOT(b, POLLIN); T(to(a, here, pb, "two", 3, 0)); R(b, 60, 0); T(set(a, IPPROTO_UDP, UDP_CORK, 1)); T(to(a, here, pb, "in ", 3, 0)); T(to(a, here, pb, "parts", 5, 0)); NOT(b, POLLIN); T(ioctl(a, TIOCOUTQ, &n)); T(set(a, IPPROTO_UDP, UDP_CORK, 0)); R(b, 60, 0); T(set(a, IPPROTO_UDP, UDP_CORK, 1)); T(to(a, here, pb, buf, 40000, 0)); T(to(a, here, pb, buf, 40000, 0)); T(set(a, IPPROTO_UDP, UDP_CORK, 0)); NOT(b, POLLIN);
    while (recv(b, buf, 9, MSG_DONTWAIT) >= 0) ;
    /* Connected: others are not heard, and it is not heard by others. */
    int c = bound(here), pc = port_of(c); T(connect_to(b, here, pa)); NAME(b); PEER(b); T(send(b, "hi", 2, 0)); R(a, 9, 0); T(to(c, here, pb, "stranger", 8, 0)); NOT(b, POLLIN | POLLERR); T(to(a, here, pb, "friend", 6, 0)); R(b, 60, 0); T(write(b, "", 0)); R(a, 9, 0); T(send(b, "", 0, 0)); R(a, 9, 0); T(to(b, here, pc, "elsewhere", 9, 0)); R(c, 60, 0); T(connect_to(b, here, pc)); T(write(b, "x", 1)); R(c, 9, 0); struct iovec v[2] = { { "ve", 2 }, { "ctor", 4 } }; T(writev(b, v, 2)); R(c, 60, 0); addr none = { .s.sa_family = AF_UNSPEC }; T(connect(b, &none.s, sizeof none.s)); PEER(b); NAME(b); T(send(b, "x", 1, 0)); T(to(b, here, pa, "x", 1, 0)); R(a, 9, 0);
    /* What was there before it was connected is read all the same. */
    T(to(c, here, pb, "before", 6, 0)); pb = port_of(b); T(to(c, here, pb, "before", 6, 0)); reached(b, POLLIN); T(connect_to(b, here, pa)); R(b, 60, 0); close(b);
    /* A socket bound to no address becomes one that is, and back. */
    b = socket(fam, SOCK_DGRAM, 0); T(bind_to(b, wild, 0)); NAME(b); T(connect_to(b, here, pa)); NAME(b); T(connect(b, &none.s, sizeof none.s)); NAME(b); close(b);
    b = bound(wild); int own = port_of(b); close(b); b = socket(fam, SOCK_DGRAM, 0); T(bind_to(b, wild, own)); T(connect_to(b, here, pa)); T(connect(b, &none.s, sizeof none.s)); NAME(b); T(to(a, other, own, "wild", 4, 0)); R(b, 60, 0); T(to(a, wild, own, "nowhere", 7, 0)); R(b, 60, 0); close(b); b = socket(fam, SOCK_DGRAM, 0); T(connect_to(b, here, pa)); T(connect(b, &none.s, sizeof none.s)); NAME(b); close(b);
    /* To oneself. */
    T(to(a, here, pa, "self", 4, 0)); R(a, 60, 0); T(connect_to(a, here, pa)); T(send(a, "self", 4, 0)); R(a, 60, 0); T(shutdown(a, SHUT_WR)); T(send(a, "x", 1, MSG_NOSIGNAL)); P(a, 0); T(shutdown(a, SHUT_RD)); P(a, 0); T(recv(a, buf, 9, 0)); T(recv(a, buf, 9, MSG_DONTWAIT)); T(shutdown(a, 5)); close(a); T(shutdown(c, SHUT_RD)); T(recv(c, buf, 9, 0)); P(c, 0); T(shutdown(c, SHUT_WR)); T(to(c, here, pc, "x", 1, MSG_NOSIGNAL)); close(c);
}

static void refused(const char *here) {
    printf("refused %s\n", here); forget();
    int fam = family_of(here), h = bound(here), dead = port_of(h), b; nick(dead); close(h);
    b = socket(fam, SOCK_DGRAM, 0); T(connect_to(b, here, dead)); T(send(b, "a", 1, 0)); P(b, POLLERR); T(recv(b, buf, 9, MSG_DONTWAIT)); T(recv(b, buf, 9, MSG_DONTWAIT)); T(send(b, "a", 1, 0)); reached(b, POLLERR); T(send(b, "a", 1, 0)); T(send(b, "a", 1, 0)); reached(b, POLLERR); ERROR(b); ERROR(b); T(send(b, "", 0, 0)); P(b, POLLERR); struct pollfd p = { b, 0 }; T(poll(&p, 1, 0)); printf("%s\n", mask(p.revents)); PEER(b); T(connect_to(b, here, dead)); P(b, 0); ERROR(b);
    struct timeval t = { 1, 0 }; setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); T(send(b, "a", 1, 0)); T(recv(b, buf, 9, 0)); close(b);
    /* Not connected, nobody is told; unless one asks for it. */
    b = socket(fam, SOCK_DGRAM, 0); T(to(b, here, dead, "a", 1, 0)); NOT(b, POLLERR); T(to(b, here, dead, "a", 1, 0)); ERROR(b);
    T(set(b, fam == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, fam == AF_INET ? IP_RECVERR : IPV6_RECVERR, 1)); T(to(b, here, dead, "payload", 7, 0)); P(b, POLLERR); R(b, 60, MSG_ERRQUEUE | MSG_PEEK); R(b, 60, MSG_ERRQUEUE); P(b, 0); R(b, 60, MSG_ERRQUEUE); ERROR(b); T(to(b, here, dead, "payload", 7, 0)); reached(b, POLLERR); ERROR(b); P(b, 0); R(b, 3, MSG_ERRQUEUE); P(b, 0); T(to(b, here, dead, "x", 1, 0)); reached(b, POLLERR); T(to(b, here, dead, "x", 1, 0)); T(to(b, here, dead, "y", 1, 0)); usleep(20000); R(b, 60, MSG_ERRQUEUE); R(b, 60, MSG_ERRQUEUE); R(b, 60, MSG_ERRQUEUE); T(recv(b, buf, 9, MSG_DONTWAIT));
    T(connect_to(b, here, dead)); T(send(b, "payload", 7, 0)); reached(b, POLLERR); T(recv(b, buf, 9, MSG_DONTWAIT)); R(b, 60, MSG_ERRQUEUE); T(to(b, here, dead, buf, 70000, 0)); R(b, 60, MSG_ERRQUEUE); T(set(b, fam == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, fam == AF_INET ? IP_RECVERR : IPV6_RECVERR, 0)); T(send(b, "a", 1, 0)); reached(b, POLLERR); R(b, 60, MSG_ERRQUEUE); ERROR(b); close(b);
}

static void along(void) {
    puts("along"); forget();
    int a = bound("0.0.0.0"), b = bound(LOCAL), pa = port_of(a); nick(port_of(b));
    T(set(a, IPPROTO_IP, IP_PKTINFO, 1)); T(to(b, "127.0.0.1", pa, "x", 1, 0)); R(a, 9, 0); T(to(b, "127.4.5.6", pa, "x", 1, 0)); R(a, 9, 0); T(set(a, IPPROTO_IP, IP_RECVTTL, 1)); T(set(a, IPPROTO_IP, IP_RECVTOS, 1)); T(to(b, LOCAL, pa, "x", 1, 0)); R(a, 9, 0); T(set(b, IPPROTO_IP, IP_TTL, 33)); T(set(b, IPPROTO_IP, IP_TOS, 0x28)); T(to(b, LOCAL, pa, "x", 1, 0)); R(a, 9, 0); T(set(a, SOL_SOCKET, SO_TIMESTAMP, 1)); T(set(a, IPPROTO_IP, IP_RECVORIGDSTADDR, 1)); T(to(b, LOCAL, pa, "x", 1, 0)); forget(); nick(port_of(b)); R(a, 9, 0); T(set(a, SOL_SOCKET, SO_TIMESTAMPNS, 1)); T(set(a, SOL_SOCKET, SO_RXQ_OVFL, 1)); T(set(a, IPPROTO_IP, IP_PKTINFO, 0)); T(set(a, IPPROTO_IP, IP_RECVORIGDSTADDR, 0)); T(to(b, LOCAL, pa, "x", 1, 0)); R(a, 9, 0); T(set(a, SOL_SOCKET, SO_TIMESTAMPNS, 0)); T(set(a, SOL_SOCKET, SO_RXQ_OVFL, 0));
    /* Sent along. */
    struct { struct cmsghdr h; union { int i; struct in_pktinfo p; struct in6_pktinfo q; char b[32]; }; } c; addr d = at(LOCAL, pa); struct iovec v = { "with", 4 }; struct msghdr m = { .msg_name = &d, .msg_namelen = 16, .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c };
#define WITH(fd, level, type, member, ...) do { memset(&c, 0, sizeof c); c.member = (__typeof__(c.member))__VA_ARGS__; c.h = (struct cmsghdr){ CMSG_LEN(sizeof c.member), level, type }; m.msg_controllen = CMSG_SPACE(sizeof c.member); T(sendmsg(fd, &m, 0)); } while (0)
    WITH(b, IPPROTO_IP, IP_TTL, i, 7); R(a, 9, 0); WITH(b, IPPROTO_IP, IP_TOS, i, 0x48); R(a, 9, 0); WITH(b, IPPROTO_IP, IP_TTL, i, 0); WITH(b, IPPROTO_IP, IP_TTL, i, 256); WITH(b, IPPROTO_IP, IP_TOS, i, 256); WITH(b, IPPROTO_IP, 99, i, 1); WITH(b, SOL_SOCKET, 99, i, 1); WITH(b, IPPROTO_TCP, 1, i, 1); T(recv(a, buf, 9, MSG_DONTWAIT)); c.h = (struct cmsghdr){ 3, IPPROTO_IP, IP_TTL }; T(sendmsg(b, &m, 0)); c.h.cmsg_len = 500; T(sendmsg(b, &m, 0)); while (recv(a, buf, 9, MSG_DONTWAIT) >= 0) ;
    T(set(a, IPPROTO_IP, IP_PKTINFO, 1)); int w = bound("0.0.0.0"); nick(port_of(w)); WITH(w, IPPROTO_IP, IP_PKTINFO, p, { .ipi_spec_dst.s_addr = htonl(0x7f000009) }); R(a, 9, 0); WITH(w, IPPROTO_IP, IP_PKTINFO, p, { .ipi_spec_dst.s_addr = htonl(0xc0000207) }); WITH(w, IPPROTO_IP, IP_PKTINFO, p, { .ipi_ifindex = 1 }); R(a, 9, 0); WITH(w, IPPROTO_IP, IP_PKTINFO, p, { .ipi_ifindex = 9999 }); close(w);
    /* Room for part of it. */
    char small[24]; struct iovec rv = { buf, 9 }; struct msghdr rm = { .msg_iov = &rv, .msg_iovlen = 1, .msg_control = small }; for (unsigned i = 0; i <= 24; i += 8) { to(b, LOCAL, pa, "x", 1, 0); reached(a, POLLIN); rm.msg_controllen = i; T(recvmsg(a, &rm, 0)); V(rm.msg_controllen); V(rm.msg_flags); } close(a); close(b);
    puts("along IPv6");
    a = bound("::"); b = bound("::1"); pa = port_of(a); forget(); nick(port_of(b)); T(set(a, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)); T(set(a, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)); T(set(a, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)); T(to(b, "::1", pa, "x", 1, 0)); R(a, 9, 0); T(set(b, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9)); T(set(b, IPPROTO_IPV6, IPV6_TCLASS, 0x30)); T(to(b, "::1", pa, "x", 1, 0)); R(a, 9, 0); d = at("::1", pa); m.msg_namelen = 28; WITH(b, IPPROTO_IPV6, IPV6_HOPLIMIT, i, 5); R(a, 9, 0); WITH(b, IPPROTO_IPV6, IPV6_TCLASS, i, 5); R(a, 9, 0); WITH(b, IPPROTO_IPV6, IPV6_HOPLIMIT, i, 300); WITH(b, IPPROTO_IPV6, IPV6_TCLASS, i, 300); WITH(b, IPPROTO_IPV6, 99, i, 0); WITH(b, IPPROTO_IPV6, IPV6_PKTINFO, q, { .ipi6_ifindex = 9999 }); WITH(b, IPPROTO_IPV6, IPV6_PKTINFO, q, { .ipi6_ifindex = if_nametoindex("lo") }); R(a, 9, 0); close(b);
    /* From the other family. */
    b = bound(LOCAL); nick(port_of(b)); T(to(b, LOCAL, pa, "x", 1, 0)); R(a, 9, 0); T(set(a, IPPROTO_IP, IP_PKTINFO, 1)); T(set(a, IPPROTO_IP, IP_RECVTTL, 1)); T(to(b, LOCAL, pa, "x", 1, 0)); R(a, 9, 0); T(to(a, "::ffff:127.0.0.1", port_of(b), "mapped", 6, 0)); R(b, 60, 0); addr four = at(LOCAL, port_of(b)); T(sendto(a, "four", 4, 0, &four.s, 16)); R(b, 60, 0); T(connect_to(a, "::ffff:127.0.0.1", port_of(b))); NAME(a); T(send(a, "x", 1, 0)); R(b, 60, 0); T(to(a, "::1", port_of(b), "x", 1, 0)); close(a); close(b);
    a = udp6(); T(set(a, IPPROTO_IPV6, IPV6_V6ONLY, 1)); T(bind_to(a, "::", 0)); b = udp(); T(connect_to(b, LOCAL, port_of(a))); T(send(b, "x", 1, 0)); P(b, POLLERR); T(to(a, "::ffff:127.0.0.1", port_of(a), "x", 1, 0)); close(a); close(b);
}

static void queues(void) {
    puts("queues");
    int a = bound(LOCAL), b = udp(), pa = port_of(a), n = 0; long r; T(set(a, SOL_SOCKET, SO_RCVBUF, 10000)); T(connect_to(b, LOCAL, pa)); for (int i = 0; i < 200; i++) n += send(b, buf, 1000, MSG_DONTWAIT) == 1000; V(n); reached(a, POLLIN); usleep(20000); n = 0; while ((r = recv(a, buf, 2000, MSG_DONTWAIT)) >= 0) n += r == 1000; V(n > 0); V(n < 200); T(send(b, "x", 1, 0)); T(recv(a, buf, 9, 0)); close(b); close(a);
    /* Many at once. */
    a = bound(LOCAL); b = udp(); pa = port_of(a); connect_to(b, LOCAL, pa); struct iovec v[5] = { { "one", 3 }, { "", 0 }, { "three", 5 }, { BAD, 4 }, { "five", 4 } }; struct mmsghdr m[5] = { { { .msg_iov = v, .msg_iovlen = 1 } }, { { .msg_iov = v + 1, .msg_iovlen = 1 } }, { { .msg_iov = v + 2, .msg_iovlen = 1 } }, { { .msg_iov = v + 3, .msg_iovlen = 1 } }, { { .msg_iov = v + 4, .msg_iovlen = 1 } } }; T(sendmmsg(b, m, 5, 0)); V(m[0].msg_len); V(m[1].msg_len); V(m[2].msg_len); T(sendmmsg(b, m + 3, 2, 0)); T(sendmmsg(b, m + 4, 1, 0));
    usleep(20000); struct iovec w[6]; struct mmsghdr g[6]; memset(g, 0, sizeof g); for (int i = 0; i < 6; i++) { w[i] = (struct iovec){ buf + 100 * i, i == 2 ? 2 : 100 }; g[i].msg_hdr.msg_iov = &w[i]; g[i].msg_hdr.msg_iovlen = 1; } T(recvmmsg(a, g, 2, 0, 0)); V(g[0].msg_len); V(g[1].msg_len); struct timespec t = { 0, 30000000 }; T(recvmmsg(a, g + 2, 3, MSG_WAITFORONE, &t)); V(g[2].msg_len); V(g[2].msg_hdr.msg_flags); V(g[3].msg_len); T(recvmmsg(a, g, 2, MSG_DONTWAIT, 0)); T(recvmmsg(a, g, 2, 0, &(struct timespec){ 0, -1 })); T(recvmmsg(a, g, 2, MSG_DONTWAIT, BAD));
    /* The limit counts only when something has come. */
    fflush(stdout); if (!fork()) { usleep(50000); send(b, "z", 1, 0); _exit(0); } t = (struct timespec){ 0, 10000000 }; T(recvmmsg(a, g, 3, 0, &t)); wait(0); V(t.tv_sec); V(t.tv_nsec); struct timeval tv = { 0, 30000 }; T(setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)); T(recv(a, buf, 9, 0)); T(send(b, "x", 1, 0)); T(recvmmsg(a, g, 3, 0, 0)); close(a); close(b);
    /* Ports that are shared: each datagram comes to one; or to the last. */
    puts("shared ports"); int s[4], got[4] = { 0 }, sum = 0, port = 0; for (int i = 0; i < 4; i++) { s[i] = udp(); set(s[i], SOL_SOCKET, SO_REUSEPORT, 1); T(bind_to(s[i], LOCAL, port)); if (!port) port = port_of(s[i]); } for (int i = 0; i < 64; i++) { b = udp(); to(b, LOCAL, port, "x", 1, 0); close(b); } usleep(20000); for (int i = 0; i < 4; i++) while (recv(s[i], buf, 9, MSG_DONTWAIT) == 1) got[i]++, sum++; V(sum); V((got[0] > 0) + (got[1] > 0) + (got[2] > 0) + (got[3] > 0) > 1);
    /* One sender always comes to the same. */
    b = udp(); bind_to(b, LOCAL, 0); for (int i = 0; i < 20; i++) to(b, LOCAL, port, "x", 1, 0); usleep(20000); memset(got, 0, sizeof got); for (int i = 0; i < 4; i++) while (recv(s[i], buf, 9, MSG_DONTWAIT) == 1) got[i]++; V(got[0] == 20 || got[1] == 20 || got[2] == 20 || got[3] == 20); close(b); for (int i = 0; i < 4; i++) close(s[i]);
    for (int i = 0; i < 2; i++) { s[i] = udp(); set(s[i], SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(s[i], LOCAL, i ? port_of(s[0]) : 0)); } b = udp(); T(to(b, LOCAL, port_of(s[0]), "x", 1, 0)); usleep(20000); T(recv(s[0], buf, 9, MSG_DONTWAIT)); T(recv(s[1], buf, 9, MSG_DONTWAIT)); close(s[1]); T(to(b, LOCAL, port_of(s[0]), "x", 1, 0)); T(recv(s[0], buf, 9, 0)); close(s[0]);
    /* The one that fits best: connected, then with an address, then any. */
    for (int i = 0; i < 3; i++) { s[i] = udp(); set(s[i], SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(s[i], i ? LOCAL : "0.0.0.0", i ? port_of(s[0]) : 0)); } bind_to(b, LOCAL, 0); T(connect_to(s[1], LOCAL, port_of(b))); T(to(b, LOCAL, port_of(s[0]), "connected", 9, 0)); usleep(10000); T(recv(s[1], buf, 60, MSG_DONTWAIT)); int o = udp(); T(to(o, LOCAL, port_of(s[0]), "bound", 5, 0)); usleep(10000); T(recv(s[2], buf, 60, MSG_DONTWAIT)); T(to(o, "127.0.0.2", port_of(s[0]), "any", 3, 0)); usleep(10000); T(recv(s[0], buf, 60, MSG_DONTWAIT)); close(o); close(b); for (int i = 0; i < 3; i++) close(s[i]);
    /* Edges. */
    int e = epoll_create1(0); struct epoll_event ev = { EPOLLIN | EPOLLOUT | EPOLLET }; a = bound(LOCAL); b = udp(); epoll_ctl(e, EPOLL_CTL_ADD, a, &ev); T(epoll_wait(e, &ev, 1, 0)); printf("%s\n", mask(ev.events)); T(epoll_wait(e, &ev, 1, 0)); for (int i = 0; i < 2; i++) { to(b, LOCAL, port_of(a), "x", 1, 0); T(epoll_wait(e, &ev, 1, 2000)); printf("%s\n", mask(ev.events)); T(epoll_wait(e, &ev, 1, 0)); } recv(a, buf, 9, 0); T(epoll_wait(e, &ev, 1, 0)); close(a); close(b); close(e);
    struct pollfd p = { a = udp(), ASKED | POLLRDNORM | POLLWRNORM | POLLWRBAND }; T(poll(&p, 1, 0)); printf("%s\n", mask(p.revents)); close(a);
}

static void groups(void) {
    puts("groups"); own_network(); forget();
    int a = udp(), b = udp(), c = udp(), port = 5555; struct in_addr lo = { htonl(INADDR_LOOPBACK) }; struct ip_mreq q = { { inet_addr("224.1.2.3") }, lo }, bad = q; struct ip_mreqn qn = { q.imr_multiaddr, { 0 }, 1 };
    nick(port); set(a, SOL_SOCKET, SO_REUSEADDR, 1); set(b, SOL_SOCKET, SO_REUSEADDR, 1); T(bind_to(a, "0.0.0.0", port)); T(bind_to(b, "224.1.2.3", port)); NAME(b);
    T(to(c, "224.1.2.3", port, "x", 1, 0)); T(setsockopt(c, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo)); T(to(c, "224.1.2.3", port, "nobody", 6, 0)); NOT(a, POLLIN); T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, sizeof q)); T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, sizeof q)); T(to(c, "224.1.2.3", port, "group", 5, 0)); nick(port_of(c)); R(a, 60, 0); R(b, 60, 0); T(setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &qn, sizeof qn)); T(to(c, "224.1.2.3", port, "both", 4, 0)); R(a, 60, 0); R(b, 60, 0);
    T(set(c, IPPROTO_IP, IP_MULTICAST_LOOP, 0)); T(to(c, "224.1.2.3", port, "unlooped", 8, 0)); R(a, 60, 0); R(b, 60, 0); T(set(c, IPPROTO_IP, IP_MULTICAST_LOOP, 1)); T(set(a, IPPROTO_IP, IP_PKTINFO, 1)); T(set(a, IPPROTO_IP, IP_RECVTTL, 1)); T(to(c, "224.1.2.3", port, "told", 4, 0)); R(a, 60, 0); R(b, 60, 0); T(set(c, IPPROTO_IP, IP_MULTICAST_TTL, 0)); T(to(c, "224.1.2.3", port, "stays", 5, 0)); R(a, 60, 0); R(b, 60, 0); T(connect_to(c, "224.1.2.3", port)); T(send(c, "connected", 9, 0)); R(a, 60, 0); R(b, 60, 0); T(set(a, IPPROTO_IP, IP_MULTICAST_ALL, 0)); T(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &q, sizeof q)); T(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &q, sizeof q)); T(send(c, "one left", 8, 0)); NOT(a, POLLIN); R(b, 60, 0); T(set(a, IPPROTO_IP, IP_MULTICAST_ALL, 1)); T(send(c, "all", 3, 0)); R(a, 60, 0); R(b, 60, 0);
    close(b); T(send(c, "none left", 9, 0)); NOT(a, POLLIN);
    bad.imr_multiaddr.s_addr = inet_addr("10.0.0.1"); T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &bad, sizeof bad)); bad = q; bad.imr_interface.s_addr = inet_addr("192.0.2.7"); T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &bad, sizeof bad)); bad = (struct ip_mreq){ q.imr_multiaddr }; T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &bad, sizeof bad)); T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, 7)); qn.imr_ifindex = 99; T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &qn, sizeof qn)); T(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &qn, sizeof qn)); int t = tcp(); T(setsockopt(t, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, sizeof q)); close(t); for (int i = 0; i < 22; i++) { q.imr_multiaddr.s_addr = htonl(0xe0020000 + i); if (i < 2 || i > 18) { T(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, sizeof q)); } else setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &q, sizeof q); } close(a); close(c);
    /* To all. */
    a = udp(); b = udp(); T(bind_to(a, "0.0.0.0", 5556)); T(to(b, "127.255.255.255", 5556, "x", 1, 0)); T(connect_to(b, "127.255.255.255", 5556)); T(set(b, SOL_SOCKET, SO_BROADCAST, 1)); T(to(b, "127.255.255.255", 5556, "broad", 5, 0)); nick(5556); nick(port_of(b)); R(a, 60, 0); T(to(b, "255.255.255.255", 5556, "x", 1, 0)); T(connect_to(b, "127.255.255.255", 5556)); T(send(b, "again", 5, 0)); R(a, 60, 0); close(a); a = udp(); T(bind_to(a, LOCAL, 5556)); T(send(b, "bound", 5, 0)); NOT(a, POLLIN); close(a); close(b);
    /* IPv6. */
    a = udp6(); b = udp6(); T(bind_to(a, "::", 5557)); struct ipv6_mreq r = { .ipv6mr_interface = 1 }; inet_pton(AF_INET6, "ff01::123", &r.ipv6mr_multiaddr); T(setsockopt(a, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r)); T(setsockopt(a, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r)); T(set(b, IPPROTO_IPV6, IPV6_MULTICAST_IF, 1)); T(set(b, IPPROTO_IPV6, IPV6_MULTICAST_IF, 99)); T(setsockopt(a, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &r, sizeof r)); T(setsockopt(a, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &r, sizeof r)); r.ipv6mr_interface = 99; T(setsockopt(a, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r)); inet_pton(AF_INET6, "::1", &r.ipv6mr_multiaddr); T(setsockopt(a, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, sizeof r)); T(setsockopt(a, IPPROTO_IPV6, IPV6_JOIN_GROUP, &r, 19)); close(a); close(b);
}
static void four(void) { plain(LOCAL, "127.0.0.9", "0.0.0.0"); }
static void six(void) { plain("::1", "::1", "::"); }
static void refusals(void) { refused(LOCAL); refused("::1"); }

int main(void) {
    void (*const parts[])(void) = { four, six, refusals, along, queues, groups };
    at_once(sizeof parts / sizeof *parts, parts);
    return 0;
}
