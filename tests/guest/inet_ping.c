/* Ping sockets and raw sockets over the loopback, in a network namespace of its own: who may have them, what they send and hear, whole
 * headers by IP_HDRINCL, filters, and copies of other protocols' packets. */
#include "inet.h"
#include <linux/capability.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
static unsigned char buf[70000];
static void rights(unsigned long long set) { struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2] = { { set, set, 0 }, { set >> 32, set >> 32, 0 } }; SYS(capset, &h, d); }
static unsigned short sum(const void *p, int n) { const unsigned char *b = p; unsigned s = 0; for (int i = 0; i < n; i += 2) s += b[i] << 8 | (i + 1 < n ? b[i + 1] : 0); while (s >> 16) s = (s & 0xffff) + (s >> 16); return htons(~s); }
static int range(const char *t) { return put("/proc/sys/net/ipv4/ping_group_range", t); }
/* Type, code, checksum, identifier, number, "data". */
static int packet(unsigned char *b, int type, int id, int number, const char *data, int checked) { struct icmphdr h = { type }; h.un.echo.id = htons(id); h.un.echo.sequence = htons(number); memcpy(b, &h, 8); strcpy((char *)b + 8, data); int n = 8 + strlen(data); if (checked) { unsigned short s = sum(b, n); memcpy(b + 2, &s, 2); } return n; }
static long echo(int fd, const char *to, int type, int id, int number, const char *data, int checked) { unsigned char b[200]; int n = packet(b, type, id, number, data, checked); addr a = at(to, 0); return sendto(fd, b, n, 0, &a.s, len_of(&a)); }
/* One that comes within a second, after `skip` bytes of header. */
static void hear(int line, int fd, int skip, int own, int wait_) {
    struct pollfd p = { fd, POLLIN }; poll(&p, 1, wait_);
    addr a = { 0 }; char c[300]; struct iovec v = { buf, sizeof buf }; struct msghdr m = { &a, sizeof a, &v, 1, c, sizeof c };
    memset(buf, 0, 100); long n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n < 0) { printf("%d hear: %s\n", line, strerrorname_np(errno)); return; }
    printf("%d hear %ld", line, n);
    if (skip) { struct iphdr h; memcpy(&h, buf, 20); printf(" [%d/%d tos %x len %d ttl %d protocol %d sum %s %x > %x]", h.version, h.ihl, h.tos, ntohs(h.tot_len), h.ttl, h.protocol, sum(buf, 4 * h.ihl) ? "bad" : "good", ntohl(h.saddr), ntohl(h.daddr)); }
    unsigned char *d = buf + skip; struct icmphdr h; memcpy(&h, d, 8);
    printf(" type %d code %d id %s number %d sum %s \"%.20s\" from ", h.type, h.code, ntohs(h.un.echo.id) == own ? "own" : nick(ntohs(h.un.echo.id)), ntohs(h.un.echo.sequence), a.s.sa_family == AF_INET ? sum(d, n - skip) ? "bad" : "good" : "-", d + 8);
    show_addr(&a, m.msg_namelen);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) if (h->cmsg_len == CMSG_LEN(4)) printf("  level %d type %d: %d\n", h->cmsg_level, h->cmsg_type, *(int *)CMSG_DATA(h)); else printf("  level %d type %d len %ld\n", h->cmsg_level, h->cmsg_type, (long)h->cmsg_len);
}
#define HEAR(fd, skip, own) hear(__LINE__, fd, skip, own, 1000)
#define SILENT(fd) hear(__LINE__, fd, 0, 0, 30)

static void may(void) {
    puts("who may");
    T(range("1 0")); T(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); T(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)); T(range("1 1")); T(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); T(range("0 0")); OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); IN(rights(0); OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); T(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); T(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)); T(socket(AF_INET, SOCK_RAW, IPPROTO_RAW))); T(range("5 2")); T(range("x")); T(range("0 4294967295")); T(range("0 2147483647"));
    char t[64] = ""; int f = open("/proc/sys/net/ipv4/ping_group_range", O_RDONLY); read(f, t, 63); S(t); close(f); T(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6)); T(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMP)); T(socket(AF_INET, SOCK_STREAM, IPPROTO_ICMP));
}
static void pings(const char *here, int ask, int answer) {
    printf("ping %s\n", here); forget();
    int fam = family_of(here), protocol = fam == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6, f = socket(fam, SOCK_DGRAM, protocol), g = socket(fam, SOCK_DGRAM, protocol), n;
    T(get(f, SOL_SOCKET, SO_TYPE)); T(get(f, SOL_SOCKET, SO_PROTOCOL)); NAME(f); P(f, 0); T(echo(f, here, ask, 77, 1, "hello", 0)); NAME(f); V(port_of(f) != 0); HEAR(f, 0, port_of(f)); SILENT(f); SILENT(g);
    /* The identifier is the socket's, whatever is asked. */
    T(echo(g, here, ask, port_of(f), 9, "mine", 0)); HEAR(g, 0, port_of(g)); SILENT(f); T(echo(f, here, answer, 0, 1, "x", 0)); T(echo(f, here, 13, 0, 1, "x", 0)); T(echo(f, here, ask, 0, 65535, "", 0)); HEAR(f, 0, port_of(f)); addr a = at(here, 0); T(sendto(f, buf, 7, 0, &a.s, len_of(&a))); T(sendto(f, buf, 0, 0, &a.s, len_of(&a))); T(send(f, buf, 8, 0)); buf[0] = ask; buf[1] = 1; T(sendto(f, buf, 8, 0, &a.s, len_of(&a))); buf[1] = 0; T(sendto(f, buf, 8, MSG_OOB, &a.s, len_of(&a))); T(sendto(f, BAD, 8, 0, &a.s, len_of(&a)));
    /* Sizes. */
    memset(buf, 7, sizeof buf); memset(buf, 0, 8); buf[0] = ask; T(sendto(f, buf, 65507, 0, &a.s, len_of(&a))); reached(f, POLLIN); T(recv(f, buf, sizeof buf, MSG_DONTWAIT)); V(buf[65506]); memset(buf, 0, 8); buf[0] = ask; T(sendto(f, buf, 65536, 0, &a.s, len_of(&a))); T(echo(f, here, ask, 0, 3, "cut off", 0)); reached(f, POLLIN); T(recv(f, buf, 9, MSG_PEEK)); T(recv(f, buf, 9, MSG_TRUNC)); T(recv(f, buf, 9, MSG_DONTWAIT)); T(echo(f, here, ask, 0, 3, "cut off", 0)); reached(f, POLLIN); T(ioctl(f, FIONREAD, &n)); 
    while (recv(f, buf, 9, MSG_DONTWAIT) > 0) ;
    /* Names. */
    T(connect_to(f, here, 0)); PEER(f); buf[0] = ask; memset(buf + 1, 0, 9); buf[7] = 5; T(send(f, buf, 10, 0)); HEAR(f, 0, port_of(f)); T(connect(f, &(struct sockaddr){ AF_UNSPEC }, 16)); PEER(f); NAME(f); close(g); g = socket(fam, SOCK_DGRAM, protocol); T(bind_to(g, here, 4321)); V(port_of(g)); T(bind_to(g, here, 0)); int h = socket(fam, SOCK_DGRAM, protocol); T(bind_to(h, here, 4321)); T(bind_to(h, fam == AF_INET ? "192.0.2.7" : "2001:db8::1", 0)); T(bind_to(h, fam == AF_INET ? "::1" : "127.0.0.1", 0)); addr e = at(fam == AF_INET ? "::1" : "127.0.0.1", 0); T(sendto(h, buf, 8, 0, &e.s, len_of(&e))); a.s.sa_family = AF_UNSPEC; T(sendto(h, buf, 8, 0, &a.s, len_of(&a))); close(h);
    T(echo(g, here, ask, 0, 6, "bound", 0)); HEAR(g, 0, 4321); if (fam == AF_INET) { set(g, IPPROTO_IP, IP_RECVTTL, 1); } else { set(g, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1); } T(echo(g, here, ask, 0, 7, "with", 0)); HEAR(g, 0, 4321); T(listen(g, 1)); T(accept(g, 0, 0)); if (fam == AF_INET) { T(set(g, IPPROTO_IP, IP_TTL, 1)); T(echo(g, here, ask, 0, 8, "near", 0)); HEAR(g, 0, 4321); T(echo(g, "192.0.2.7", ask, 0, 8, "far", 0)); T(echo(g, "127.255.255.255", ask, 0, 8, "all", 0)); }
    T(echo(g, fam == AF_INET ? "0.0.0.0" : "::", ask, 0, 8, "any", 0)); if (fam == AF_INET) HEAR(g, 0, 4321); T(shutdown(g, SHUT_RDWR)); P(g, 0); T(recv(g, buf, 9, 0)); T(echo(g, here, ask, 0, 9, "shut", 0)); close(f); close(g);
}

static void raw(void) {
    puts("raw"); forget();
    int f = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), g, n; nick(1000); T(get(f, SOL_SOCKET, SO_TYPE)); T(get(f, SOL_SOCKET, SO_PROTOCOL)); V(port_of(f)); P(f, 0); T(send(f, "x", 1, 0)); T(echo(f, LOCAL, ICMP_ECHO, 1000, 1, "hello", 1)); HEAR(f, 20, 0); HEAR(f, 20, 0); SILENT(f);
    /* A wrong sum is heard by raw sockets, and not answered. */
    T(echo(f, LOCAL, ICMP_ECHO, 1000, 2, "unsummed", 0)); HEAR(f, 20, 0); SILENT(f); T(echo(f, LOCAL, 99, 1000, 2, "odd", 1)); HEAR(f, 20, 0); SILENT(f); T(echo(f, "127.9.9.9", ICMP_ECHO, 1000, 3, "other", 1)); HEAR(f, 20, 0); HEAR(f, 20, 0);
    set(f, IPPROTO_IP, IP_TTL, 9); set(f, IPPROTO_IP, IP_TOS, 0x20); T(echo(f, LOCAL, ICMP_ECHO, 1000, 4, "marked", 1)); HEAR(f, 20, 0); HEAR(f, 20, 0);
    /* Filters. */
    unsigned filter = 1 << ICMP_ECHO; socklen_t l = 4; T(setsockopt(f, 255, 1, &filter, 4)); filter = 0; T(getsockopt(f, 255, 1, &filter, &l)); V(filter); T(echo(f, LOCAL, ICMP_ECHO, 1000, 5, "answer only", 1)); HEAR(f, 20, 0); SILENT(f); filter = -1; T(setsockopt(f, 255, 1, &filter, 2)); T(setsockopt(f, 255, 2, &filter, 4)); T(setsockopt(f, 255, 1, &filter, 4)); T(echo(f, LOCAL, ICMP_ECHO, 1000, 5, "none", 1)); SILENT(f); filter = 0; setsockopt(f, 255, 1, &filter, 4);
    g = socket(AF_INET, SOCK_RAW, 253); T(setsockopt(g, 255, 1, &filter, 4));
    /* What a datagram to nobody brings. */
    int h = udp(); bind_to(h, LOCAL, 0); int dead = port_of(h); close(h); h = udp(); addr a = at(LOCAL, dead); T(sendto(h, "lost", 4, 0, &a.s, 16)); struct pollfd p = { f, POLLIN }; poll(&p, 1, 1000); n = recv(f, buf, sizeof buf, MSG_DONTWAIT); V(n); printf("type %d code %d, of protocol %d to the port %d, \"%.4s\"\n", buf[20], buf[21], buf[28 + 9], ntohs(*(unsigned short *)(buf + 28 + 22)) == dead, buf + 28 + 28); close(h); close(f);
    /* A protocol of one's own. */
    puts("protocol 253"); f = socket(AF_INET, SOCK_RAW, 253); a = at(LOCAL, 99); T(sendto(f, "payload of our own", 18, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); T(bind_to(g, "127.0.0.2", 5)); NAME(g); T(sendto(f, "not for g", 9, 0, &a.s, 16)); SILENT(g); HEAR(f, 20, 0); a = at("127.0.0.2", 0); T(sendto(f, "for g only", 10, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); T(connect_to(g, "127.0.0.3", 0)); PEER(g); T(sendto(f, "stranger.", 9, 0, &a.s, 16)); SILENT(g); HEAR(f, 20, 0); T(send(g, "connected", 9, 0)); HEAR(f, 20, 0); T(bind_to(g, "192.0.2.7", 0)); T(connect(g, &(struct sockaddr){ AF_UNSPEC }, 16)); NAME(g); T(sendto(f, "unheard.", 8, 0, &a.s, 16)); SILENT(g); HEAR(f, 20, 0); close(g);
    g = socket(AF_INET, SOCK_RAW, 253); T(sendto(f, "", 0, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); T(sendto(f, buf, 65515, 0, &a.s, 16)); reached(g, POLLIN); T(recv(g, buf, sizeof buf, MSG_DONTWAIT)); T(recv(f, buf, 10, 0)); T(sendto(f, buf, 65516, 0, &a.s, 16)); T(sendto(f, buf, 70000, 0, &a.s, 16)); T(sendto(f, "x", 1, 0, &a.s, 15)); a.s.sa_family = AF_INET6; T(sendto(f, "x", 1, 0, &a.s, 16)); a.s.sa_family = AF_UNSPEC; T(sendto(f, "unspecified", 11, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); T(sendto(f, "x", 1, MSG_OOB, &a.s, 16)); T(listen(g, 1)); T(accept(g, 0, 0)); T(ioctl(g, FIONREAD, &n)); V(n); T(ioctl(g, TIOCOUTQ, &n)); V(n); T(recv(g, buf, 1, MSG_OOB));
    /* Whole headers. */
    puts("whole headers"); struct { struct iphdr i; char d[12]; } w = { { .version = 4, .ihl = 5, .ttl = 44, .protocol = 253, .tos = 4, .daddr = htonl(0x7f000002), .id = htons(7) }, "by hand" }; T(set(f, IPPROTO_IP, IP_HDRINCL, 1)); T(get(f, IPPROTO_IP, IP_HDRINCL)); a = at("127.0.0.2", 0); T(sendto(f, &w, 27, 0, &a.s, 16)); HEAR(g, 20, 0); V(ntohs(*(unsigned short *)(buf + 4))); HEAR(f, 20, 0); w.i.saddr = htonl(0x7f050505); w.i.tot_len = 1; w.i.check = 1; T(sendto(f, &w, 27, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); T(sendto(f, &w, 19, 0, &a.s, 16)); T(sendto(f, &w, 20, 0, &a.s, 16)); HEAR(g, 20, 0); HEAR(f, 20, 0); w.i.ihl = 6; T(sendto(f, &w, 20, 0, &a.s, 16)); w.i.ihl = 4; T(sendto(f, &w, 27, 0, &a.s, 16)); w.i.ihl = 5; w.i.version = 6; T(sendto(f, &w, 27, 0, &a.s, 16)); SILENT(g); close(f);
    f = socket(AF_INET, SOCK_RAW, IPPROTO_RAW); w.i.version = 4; T(get(f, IPPROTO_IP, IP_HDRINCL)); T(sendto(f, &w, 27, 0, &a.s, 16)); HEAR(g, 20, 0); SILENT(f); close(f); T(shutdown(g, SHUT_RDWR)); T(recv(g, buf, 9, 0)); T(sendto(g, "x", 1, MSG_NOSIGNAL, &a.s, 16)); close(g);
}

static void copies(void) {
    puts("copies"); forget();
    int r = socket(AF_INET, SOCK_RAW, IPPROTO_UDP), u = udp(), v = udp(); bind_to(u, LOCAL, 0); addr a = at(LOCAL, port_of(u)); T(sendto(v, "datagram", 8, 0, &a.s, 16)); T(recv(u, buf, 99, 0)); struct pollfd p = { r, POLLIN }; poll(&p, 1, 1000); long n = recv(r, buf, 99, MSG_DONTWAIT); V(n); V(ntohs(*(unsigned short *)(buf + 22)) == port_of(u)); V(ntohs(*(unsigned short *)(buf + 24))); printf("%.8s\n", buf + 28);
    /* One's own header of UDP; without a sum it is taken. */
    unsigned short h[6] = { htons(1234), htons(port_of(u)), htons(12), 0, 0x3131, 0x3131 }; T(sendto(r, h, 12, 0, &a.s, 16)); addr from; socklen_t l = sizeof from; T(recvfrom(u, buf, 99, 0, &from.s, &l)); V(ntohs(from.i.sin_port)); close(r); close(v);
    close(u);
}

static void six(void) {
    puts("raw IPv6"); forget();
    int f = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), g; nick(1000); T(get(f, SOL_SOCKET, SO_PROTOCOL)); set(f, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1); T(get(f, IPPROTO_IPV6, IPV6_CHECKSUM)); T(set(f, IPPROTO_IPV6, IPV6_CHECKSUM, 2)); T(set(f, IPPROTO_IPV6, IPV6_CHECKSUM, -1)); T(set(f, IPPROTO_RAW, IPV6_CHECKSUM, 3)); T(set(f, IPPROTO_RAW, IPV6_CHECKSUM, 2)); T(get(f, IPPROTO_RAW, IPV6_CHECKSUM)); T(echo(f, "::1", 128, 1000, 1, "six", 0)); HEAR(f, 0, 0); HEAR(f, 0, 0); SILENT(f);
    struct icmp6_filter filter; socklen_t l = sizeof filter; T(getsockopt(f, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, &l)); V(l); ICMP6_FILTER_SETBLOCKALL(&filter); ICMP6_FILTER_SETPASS(129, &filter); T(setsockopt(f, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter)); T(echo(f, "::1", 128, 1000, 2, "filtered", 0)); HEAR(f, 0, 0); SILENT(f); T(setsockopt(f, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, 3)); close(f);
    f = socket(AF_INET6, SOCK_RAW, 253); g = socket(AF_INET6, SOCK_RAW, 253); T(get(f, IPPROTO_IPV6, IPV6_CHECKSUM)); addr a = at("::1", 0); T(sendto(f, "plain payload", 13, 0, &a.s, 28)); HEAR(g, 0, 0); HEAR(f, 0, 0); T(set(f, IPPROTO_IPV6, IPV6_CHECKSUM, 2)); T(set(f, IPPROTO_IPV6, IPV6_CHECKSUM, 3)); T(get(f, IPPROTO_IPV6, IPV6_CHECKSUM)); T(sendto(f, "summed12", 8, 0, &a.s, 28)); reached(g, POLLIN); T(recv(g, buf, 99, MSG_DONTWAIT)); V(buf[2] != 'm' || buf[3] != 'm'); T(recv(f, buf, 99, 0)); T(sendto(g, "unsummed", 8, 0, &a.s, 28)); HEAR(g, 0, 0); SILENT(f); T(sendto(f, "x", 1, 0, &a.s, 28)); a.j.sin6_port = htons(17); T(sendto(f, "port", 4, 0, &a.s, 28)); a.j.sin6_port = htons(253); T(sendto(f, "port", 4, 0, &a.s, 28)); T(recv(g, buf, 99, 0)); T(bind_to(g, "::1", 0)); NAME(g); T(bind_to(f, "::2", 0)); T(bind_to(f, "::ffff:127.0.0.1", 0)); addr four = at(LOCAL, 0); T(sendto(f, "x", 1, 0, &four.s, 16)); four = at("::ffff:127.0.0.1", 0); T(sendto(f, "x", 1, 0, &four.s, 28)); close(f); close(g);
}

int main(void) {
    own_network();
    may(); pings(LOCAL, ICMP_ECHO, ICMP_ECHOREPLY); pings("::1", 128, 129); raw(); copies(); six();
    return 0;
}
