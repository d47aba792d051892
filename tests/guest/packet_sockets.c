/* Packet sockets on the loopback device, in a network namespace of its own: who may have them, names, what they hear of what is sent and
 * in which form, filters, what they send, memberships, options, statistics, rings that are mapped. */
#include "inet.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
static unsigned char buf[70000];
static void rights(unsigned long long set) { struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 }; struct __user_cap_data_struct d[2] = { { set, set, 0 }, { set >> 32, set >> 32, 0 } }; SYS(capset, &h, d); }
static int tap(int type, int protocol) { return socket(AF_PACKET, type, htons(protocol)); }
static struct sockaddr_ll ll(int protocol, int device) { return (struct sockaddr_ll){ .sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = device }; }
static int bind_ll(int fd, int protocol, int device) { struct sockaddr_ll a = ll(protocol, device); return bind(fd, (void *)&a, sizeof a); }
static void show_ll(const struct sockaddr_ll *a, socklen_t l) { printf("len %u family %d protocol %04x device %d hatype %d type %d halen %d", l, a->sll_family, ntohs(a->sll_protocol), a->sll_ifindex, a->sll_hatype, a->sll_pkttype, a->sll_halen); for (int i = 0; i < a->sll_halen && i < 8; i++) printf(":%02x", a->sll_addr[i]); puts(""); }
static void own(int line, int fd) { struct sockaddr_ll a; memset(&a, 0x55, sizeof a); socklen_t l = sizeof a; printf("%d name: ", line); if (getsockname(fd, (void *)&a, &l)) puts(strerrorname_np(errno)); else show_ll(&a, l); }
#define OWN(fd) own(__LINE__, fd)
/* A packet's protocol, sizes and what a datagram holds: identification and sums are nobody's business. */
static void show_packet(const unsigned char *p, long n, int ether) {
    if (n < 20) { printf(" short %ld", n); return; }
    if (ether == ETH_P_IP) { struct iphdr h; memcpy(&h, p, 20); printf(" ip %d/%d ttl %d protocol %d len %d %x > %x", h.version, h.ihl, h.ttl, h.protocol, ntohs(h.tot_len), ntohl(h.saddr), ntohl(h.daddr)); p += 20, n -= 20; if (h.protocol == 17 && n >= 8) printf(" udp %s > %s len %d \"%.*s\"", nick(p[0] << 8 | p[1]), nick(p[2] << 8 | p[3]), p[4] << 8 | p[5], (int)n - 8, p + 8); else if (h.protocol == 1) printf(" icmp %d/%d", p[0], p[1]); }
    else if (ether == ETH_P_IPV6) printf(" ip6 next %d hops %d len %d", p[6], p[7], p[4] << 8 | p[5]);
    else printf(" \"%.*s\"", (int)(n < 20 ? n : 20), p);
}
/* One that comes within a second. */
static void hear(int line, int fd, int raw, int flags, int wait_) {
    struct pollfd p = { fd, POLLIN }; poll(&p, 1, wait_);
    struct sockaddr_ll a; memset(&a, 0x55, sizeof a); char c[300]; struct iovec v = { buf, sizeof buf }; struct msghdr m = { &a, sizeof a, &v, 1, c, sizeof c };
    memset(buf, 0, 200); long n = recvmsg(fd, &m, flags | MSG_DONTWAIT);
    if (n < 0) { printf("%d hear: %s\n", line, strerrorname_np(errno)); return; }
    printf("%d hear %ld flags %x", line, n, m.msg_flags);
    if (raw) { printf(" [%02x%02x%02x%02x%02x%02x < %02x%02x%02x%02x%02x%02x %04x]", buf[0], buf[1], buf[2], buf[3], buf[4], buf[5], buf[6], buf[7], buf[8], buf[9], buf[10], buf[11], buf[12] << 8 | buf[13]); }
    show_packet(buf + (raw ? 14 : 0), n - (raw ? 14 : 0), ntohs(a.sll_protocol)); printf(" from "); show_ll(&a, m.msg_namelen);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        printf("  level %d type %d len %ld", h->cmsg_level, h->cmsg_type, (long)h->cmsg_len);
        if (h->cmsg_level == SOL_PACKET) { struct tpacket_auxdata x; memcpy(&x, CMSG_DATA(h), sizeof x); printf(" user %d len %d snaplen %d mac %d net %d vlan %x", x.tp_status & 1, x.tp_len, x.tp_snaplen, x.tp_mac, x.tp_net, x.tp_vlan_tci); }
        puts("");
    }
}
#define HEAR(fd, raw) hear(__LINE__, fd, raw, 0, 1000)
#define SILENT(fd) hear(__LINE__, fd, 0, 0, 30)
static int port, u, v;
static void sends(const char *t) { addr a = at(LOCAL, port); sendto(v, t, strlen(t), 0, &a.s, 16); }
static void drain(int fd) { while (recv(fd, buf, 1, MSG_DONTWAIT) >= 0) ; }

static void may(void) {
    puts("who may");
    OK(tap(SOCK_RAW, ETH_P_ALL)); OK(tap(SOCK_DGRAM, 0)); IN(rights(0); T(tap(SOCK_RAW, ETH_P_ALL)); T(tap(SOCK_DGRAM, ETH_P_IP)); T(tap(SOCK_STREAM, 0)));
    T(tap(SOCK_STREAM, 0)); T(tap(SOCK_SEQPACKET, 0)); int s[2]; T(socketpair(AF_PACKET, SOCK_RAW, 0, s)); T(socketpair(AF_PACKET, SOCK_STREAM, 0, s)); T(tap(99, 0)); T(tap(15, 0));
}
static void names(void) {
    puts("names");
    int f = tap(SOCK_RAW, ETH_P_ALL), n = 0; OWN(f); T(bind_ll(f, ETH_P_IP, 1)); OWN(f); T(bind_ll(f, 0, 1)); OWN(f); T(bind_ll(f, ETH_P_IPV6, 0)); OWN(f); T(bind_ll(f, 0, 77)); OWN(f);
    struct sockaddr_ll a = ll(ETH_P_ALL, 1); T(bind(f, (void *)&a, 19)); T(bind(f, (void *)&a, 12)); a.sll_family = AF_INET; T(bind(f, (void *)&a, sizeof a)); T(bind(f, BAD, sizeof a)); OWN(f);
    T(connect(f, (void *)&a, sizeof a)); T(listen(f, 1)); T(accept(f, 0, 0)); T(shutdown(f, SHUT_RD)); socklen_t l = sizeof a; T(getpeername(f, (void *)&a, &l));
    P(f, 0); T(recv(f, buf, 9, MSG_DONTWAIT)); T(recv(f, buf, 9, MSG_OOB)); T(recv(f, buf, 9, MSG_WAITALL)); T(recv(f, buf, 9, MSG_ERRQUEUE)); T(ioctl(f, FIONREAD, &n)); V(n); T(ioctl(f, TIOCOUTQ, &n)); V(n); struct ifreq r = { 0 }; strcpy(r.ifr_name, "lo"); T(ioctl(f, SIOCGIFINDEX, &r)); V(r.ifr_ifindex); T(ioctl(f, SIOCGIFHWADDR, &r)); V(r.ifr_hwaddr.sa_family); T(ioctl(f, SIOCGIFADDR, &r)); T(ioctl(f, TCGETS, buf));
    close(f);
}
static void hears(void) {
    puts("what is heard"); forget();
    int all = tap(SOCK_RAW, ETH_P_ALL), bare = tap(SOCK_DGRAM, ETH_P_ALL), ip = tap(SOCK_DGRAM, ETH_P_IP), six = tap(SOCK_RAW, ETH_P_IPV6), none = tap(SOCK_RAW, 0); bind_ll(all, ETH_P_ALL, 1);
    sends("hello"); HEAR(all, 1); HEAR(all, 1); HEAR(bare, 0); HEAR(bare, 0); HEAR(ip, 0); SILENT(all); SILENT(bare); SILENT(ip); SILENT(six); SILENT(none);
    T(bind_ll(none, ETH_P_IP, 1)); sends("now"); HEAR(none, 1); SILENT(none); drain(all), drain(bare), drain(ip);
    /* Six, and what nobody is there for. */
    int w = udp6(); addr a = at("::1", 9); T(sendto(w, "six", 3, 0, &a.s, len_of(&a))); HEAR(six, 1); HEAR(six, 1); SILENT(six); HEAR(bare, 0); HEAR(bare, 0); HEAR(bare, 0); HEAR(bare, 0); SILENT(bare); close(w); drain(all);
    int h = udp(); bind_to(h, LOCAL, 0); int dead = port_of(h); close(h); h = udp(); a = at(LOCAL, dead); T(sendto(h, "lost", 4, 0, &a.s, 16)); HEAR(ip, 0); HEAR(ip, 0); SILENT(ip); close(h); drain(all), drain(bare), drain(none);
    /* In part, looked at first, with what is told along. */
    sends("first"); hear(__LINE__, ip, 0, MSG_PEEK, 1000); HEAR(ip, 0); drain(none); set(ip, SOL_PACKET, PACKET_AUXDATA, 1); set(none, SOL_PACKET, PACKET_AUXDATA, 1); sends("along"); HEAR(ip, 0); HEAR(none, 1); sends("cut off"); reached(ip, POLLIN); T(recv(ip, buf, 10, MSG_PEEK)); T(recv(ip, buf, 10, MSG_PEEK | MSG_TRUNC)); int n; T(ioctl(ip, FIONREAD, &n)); V(n); struct iovec v1 = { buf, 10 }; struct msghdr m = { 0, 0, &v1, 1 }; T(recvmsg(ip, &m, 0)); V(m.msg_flags); T(recv(ip, buf, 10, MSG_DONTWAIT)); set(ip, SOL_SOCKET, SO_TIMESTAMP, 1); sends("when"); HEAR(ip, 0); sends("1"); sends("22"); usleep(20000); struct iovec vs[3]; struct mmsghdr mm[3] = { 0 }; for (int i = 0; i < 3; i++) vs[i] = (struct iovec){ buf + 100 * i, 100 }, mm[i].msg_hdr.msg_iov = vs + i, mm[i].msg_hdr.msg_iovlen = 1; T(recvmmsg(ip, mm, 3, MSG_DONTWAIT, 0)); V(mm[0].msg_len); V(mm[1].msg_len);
    /* Not what left. */
    drain(all); T(set(all, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)); sends("in only"); HEAR(all, 1); SILENT(all);
    close(all), close(bare), close(ip), close(six), close(none);
}
#define RUN(fd, ...) do { struct sock_filter c_[] = { __VA_ARGS__ }; struct sock_fprog p_ = { sizeof c_ / sizeof *c_, c_ }; T(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p_, sizeof p_)); } while (0)
static void filters(void) {
    puts("filters"); forget();
    int f = tap(SOCK_RAW, ETH_P_ALL), d = tap(SOCK_DGRAM, ETH_P_ALL);
    RUN(f, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 3), BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 1), BPF_STMT(BPF_RET | BPF_K, 46), BPF_STMT(BPF_RET | BPF_K, 0)); sends("filtered"); HEAR(f, 1); HEAR(f, 1); SILENT(f); drain(d);
    /* Only what comes in, by what is known of it. */
    RUN(d, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 5), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 3), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_HATYPE), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 772, 0, 1), BPF_STMT(BPF_RET | BPF_K, 65535), BPF_STMT(BPF_RET | BPF_K, 0)); sends("inward"); HEAR(d, 0); SILENT(d);
    RUN(d, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, SKF_LL_OFF + 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 4), BPF_STMT(BPF_LD | BPF_B | BPF_ABS, SKF_NET_OFF + 9), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 2), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_IFINDEX), BPF_STMT(BPF_RET | BPF_K, 30), BPF_STMT(BPF_RET | BPF_K, 0)); set(d, SOL_PACKET, PACKET_AUXDATA, 1); sends("by offset"); HEAR(d, 0); HEAR(d, 0); T(setsockopt(d, SOL_SOCKET, SO_DETACH_FILTER, 0, 0)); T(set(d, SOL_SOCKET, SO_DETACH_FILTER, 0)); close(f), close(d);
}
static void sending(void) {
    puts("what is sent"); forget();
    int f = tap(SOCK_RAW, ETH_P_ALL), g = tap(SOCK_RAW, ETH_P_ALL), d = tap(SOCK_DGRAM, 0); struct sockaddr_ll a = ll(0x88b5, 1); T(send(f, buf, 20, 0)); T(send(d, "x", 1, 0)); memset(buf, 0, 100); buf[12] = 0x88, buf[13] = 0xb5; strcpy((char *)buf + 14, "of our own making");
    static unsigned char frame[100]; memcpy(frame, buf, 100); T(sendto(f, frame, 60, 0, (void *)&a, sizeof a)); HEAR(g, 1); HEAR(g, 1); SILENT(g); HEAR(f, 1); SILENT(f);
    T(bind_ll(f, ETH_P_ALL, 1)); frame[0] = 1; T(send(f, frame, 60, 0)); HEAR(g, 1); HEAR(g, 1); memset(frame, 0xff, 6); T(write(f, frame, 60)); HEAR(g, 1); HEAR(g, 1); frame[0] = 2; T(send(f, frame, 60, 0)); HEAR(g, 1); HEAR(g, 1); drain(f); T(send(f, frame, 14, 0)); drain(f), drain(g); T(send(f, frame, 13, 0)); T(send(f, frame, 0, 0)); T(send(f, BAD, 60, 0));
    a.sll_ifindex = 77; T(sendto(f, frame, 60, 0, (void *)&a, sizeof a)); a.sll_ifindex = 0; T(sendto(f, frame, 60, 0, (void *)&a, sizeof a)); a.sll_ifindex = 1; T(sendto(f, frame, 60, 0, (void *)&a, 19)); T(sendto(f, frame, 60, 0, (void *)&a, 12)); a.sll_halen = 40; T(sendto(f, frame, 60, 0, (void *)&a, sizeof a));
    /* Its header is made. */
    a = ll(0x88b5, 1); a.sll_halen = 6; memcpy(a.sll_addr, "\2\0\0\0\0\7", 6); drain(f), drain(g); T(sendto(d, "payload", 7, 0, (void *)&a, sizeof a)); HEAR(g, 1); HEAR(g, 1); SILENT(g); a.sll_halen = 0; T(sendto(d, "no address", 10, 0, (void *)&a, sizeof a)); HEAR(g, 1); HEAR(g, 1); T(sendto(d, "", 0, 0, (void *)&a, sizeof a)); drain(f), drain(g);
    /* A datagram of hand-made headers: of IPv4 nothing from here comes by a device, of IPv6 it does. */
    struct { struct iphdr i; struct udphdr u; char t[5]; } __attribute__((packed)) p = { { .version = 4, .ihl = 5, .tot_len = htons(33), .ttl = 9, .protocol = 17, .saddr = htonl(0x7f000009), .daddr = htonl(0x7f000001) }, { .source = htons(4444), .dest = htons(port), .len = htons(13) }, "hand." };
    unsigned s = 0; unsigned short hw[10]; memcpy(hw, &p.i, 20); for (int i = 0; i < 10; i++) s += hw[i]; while (s >> 16) s = (s & 0xffff) + (s >> 16); p.i.check = ~s; a = ll(ETH_P_IP, 1); drain(u); T(sendto(d, &p, sizeof p, 0, (void *)&a, sizeof a)); usleep(20000); addr from; socklen_t l = sizeof from; T(recvfrom(u, buf, 99, MSG_DONTWAIT, &from.s, &l)); 
    struct { unsigned char h[40]; struct udphdr u; char t[6]; } __attribute__((packed)) q = { { 0x60, 0, 0, 0, 0, 14, 17, 64 }, { .source = htons(4444), .len = htons(14) }, "handy." }; int w = udp6(); bind_to(w, "::1", 0); q.h[23] = q.h[39] = 1, q.u.dest = htons(port_of(w)); unsigned short hq[27]; memcpy(hq, &q, sizeof q); s = htons(14) + htons(17); for (int i = 4; i < 27; i++) s += hq[i]; while (s >> 16) s = (s & 0xffff) + (s >> 16); q.u.check = ~s; a = ll(ETH_P_IPV6, 1); T(sendto(d, &q, sizeof q, 0, (void *)&a, sizeof a)); reached(w, POLLIN); T(recvfrom(w, buf, 99, MSG_DONTWAIT, &from.s, &l)); printf("%.6s from port %d\n", buf, ntohs(from.j.sin6_port)); q.u.check++; T(sendto(d, &q, sizeof q, 0, (void *)&a, sizeof a)); usleep(20000); T(recv(w, buf, 99, MSG_DONTWAIT)); q.h[5] = 99; T(sendto(d, &q, sizeof q, 0, (void *)&a, sizeof a)); q.u.check--, q.h[5] = 14, q.u.dest = htons(9); drain(f), drain(g); T(sendto(d, &q, sizeof q, 0, (void *)&a, sizeof a)); HEAR(g, 1); HEAR(g, 1); HEAR(g, 1); HEAR(g, 1); SILENT(g); close(w);
    struct ifreq r = { 0 }; strcpy(r.ifr_name, "lo"); ioctl(f, SIOCGIFFLAGS, &r); r.ifr_flags &= ~IFF_UP; T(ioctl(f, SIOCSIFFLAGS, &r)); T(sendto(d, &p, sizeof p, 0, (void *)&a, sizeof a)); r.ifr_flags |= IFF_UP; T(ioctl(f, SIOCSIFFLAGS, &r)); close(f), close(g), close(d);
}
static void options(void) {
    puts("options");
    int f = tap(SOCK_RAW, 0), n = 5; socklen_t l = 4; T(get(f, SOL_SOCKET, SO_TYPE)); T(get(f, SOL_SOCKET, SO_DOMAIN)); T(get(f, SOL_SOCKET, SO_PROTOCOL)); T(get(f, SOL_SOCKET, SO_ACCEPTCONN)); T(get(f, SOL_SOCKET, SO_RCVBUF)); T(set(f, SOL_SOCKET, SO_RCVBUF, 10000)); T(get(f, SOL_SOCKET, SO_RCVBUF)); T(get(f, SOL_SOCKET, SO_ERROR)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3)); T(setsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, "nope", 5)); char name[16] = ""; l = 16; T(getsockopt(f, SOL_SOCKET, SO_BINDTODEVICE, name, &l)); S(name); T(get(f, IPPROTO_IP, IP_TTL)); T(set(f, IPPROTO_IP, IP_TTL, 1)); T(get(f, SOL_PACKET, 99)); T(set(f, SOL_PACKET, 99, 1));
    static const int kept[] = { PACKET_AUXDATA, PACKET_ORIGDEV, PACKET_VERSION, PACKET_RESERVE, PACKET_LOSS, PACKET_TIMESTAMP, PACKET_IGNORE_OUTGOING, PACKET_QDISC_BYPASS, PACKET_TX_HAS_OFF };
    for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++) { printf("option %d\n", kept[i]); T(get(f, SOL_PACKET, kept[i])); T(set(f, SOL_PACKET, kept[i], 1)); T(get(f, SOL_PACKET, kept[i])); T(setsockopt(f, SOL_PACKET, kept[i], &n, 3)); T(set(f, SOL_PACKET, kept[i], -1)); T(set(f, SOL_PACKET, kept[i], 0)); }
    T(set(f, SOL_PACKET, PACKET_VERSION, 9)); for (int i = 0; i < 2; i++) { n = i; l = 4; T(getsockopt(f, SOL_PACKET, PACKET_HDRLEN, &n, &l)); V(n); } n = 7; T(getsockopt(f, SOL_PACKET, PACKET_HDRLEN, &n, &l)); l = 2; T(getsockopt(f, SOL_PACKET, PACKET_HDRLEN, &n, &l)); l = -1; T(getsockopt(f, SOL_PACKET, PACKET_AUXDATA, &n, &l));
    struct packet_mreq m = { .mr_ifindex = 1, .mr_type = PACKET_MR_PROMISC };
    T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); T(setsockopt(f, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof m)); T(setsockopt(f, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof m)); T(setsockopt(f, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof m)); m.mr_type = PACKET_MR_ALLMULTI; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); m.mr_type = PACKET_MR_MULTICAST; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); m.mr_alen = 6; memcpy(m.mr_address, "\1\0\136\1\1\1", 6); T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); m.mr_alen = 8; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); m.mr_alen = 9; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); m.mr_alen = 0; m.mr_ifindex = 77; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, 15)); m.mr_ifindex = 1; m.mr_type = 55; T(setsockopt(f, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof m)); close(f);
    puts("statistics"); f = tap(SOCK_DGRAM, ETH_P_IP); struct tpacket_stats t; l = sizeof t; sends("one"); sends("two"); reached(f, POLLIN); usleep(10000); T(getsockopt(f, SOL_PACKET, PACKET_STATISTICS, &t, &l)); V(l); V(t.tp_packets); V(t.tp_drops); T(getsockopt(f, SOL_PACKET, PACKET_STATISTICS, &t, &l)); V(t.tp_packets); set(f, SOL_SOCKET, SO_RCVBUF, 1); for (int i = 0; i < 50; i++) sends("flood"); usleep(20000); l = sizeof t; getsockopt(f, SOL_PACKET, PACKET_STATISTICS, &t, &l); V(t.tp_packets); V(t.tp_drops > 30); close(f);
}
static void rings(void) {
    puts("rings"); forget();
    for (int version = TPACKET_V1; version <= TPACKET_V2; version++) for (int raw = 0; raw < 2; raw++) {
        printf("version %d %s\n", version + 1, raw ? "raw" : "bare");
        int f = tap(raw ? SOCK_RAW : SOCK_DGRAM, ETH_P_IP); T(set(f, SOL_PACKET, PACKET_VERSION, version)); T(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0)); if (raw) T(set(f, SOL_PACKET, PACKET_RESERVE, 32));
        struct tpacket_req q = { 4096, 2, 256, 32 }; q.tp_block_size = 4000; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); q.tp_block_size = 4096, q.tp_frame_size = 48; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); q.tp_frame_size = 250; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); q.tp_frame_size = 256, q.tp_frame_nr = 31; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); q.tp_frame_nr = 32; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, 15)); T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); T(set(f, SOL_PACKET, PACKET_VERSION, 0)); T(set(f, SOL_PACKET, PACKET_RESERVE, 0));
        unsigned char *r = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0); V(r != MAP_FAILED); P(f, 0); sends("in a ring"); reached(f, POLLIN); P(f, 0); T(recv(f, buf, 9, MSG_DONTWAIT)); struct pollfd p = { f, POLLIN };
        for (int i = 0; i < 40; i++) {
            unsigned char *h = r + 256 * (i % 32); poll(&p, 1, 1000); volatile unsigned *status = (void *)h; unsigned len, snap; unsigned short mac, net; memcpy(&len, h + (version ? 4 : 8), 4), memcpy(&snap, h + (version ? 8 : 12), 4), memcpy(&mac, h + (version ? 12 : 16), 2), memcpy(&net, h + (version ? 14 : 18), 2);
            if (i < 2 || i == 35) { printf("status %x len %d snaplen %d mac %d net %d", *status & 7, len, snap, mac, net); show_packet(h + net, len - (net - mac), ETH_P_IP); printf(" from "); show_ll((void *)(h + 32), 20); }
            *status = TP_STATUS_KERNEL; P(f, 0); char t[30]; sprintf(t, "number %d", i); sends(t); if (i == 30) { char big[300]; memset(big, 'b', 299), big[299] = 0; sends(big); reached(f, POLLIN); usleep(20000); h = r; memcpy(&len, h + (version ? 4 : 8), 4), memcpy(&snap, h + (version ? 8 : 12), 4); printf("big: len %d snaplen %d\n", len, snap); *(volatile unsigned *)(r + 256 * 31) = 0; *(volatile unsigned *)r = 0; i = 32; sends("after"); }
        }
        struct tpacket_stats t; socklen_t l = sizeof t; usleep(20000); getsockopt(f, SOL_PACKET, PACKET_STATISTICS, &t, &l); V(t.tp_drops); for (int i = 0; i < 40; i++) sends("too many"); usleep(20000); getsockopt(f, SOL_PACKET, PACKET_STATISTICS, &t, &l); V(t.tp_packets); V(t.tp_drops); memset(&q, 0, sizeof q); T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); T(munmap(r, 8192)); T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); sends("read again"); HEAR(f, raw); q.tp_frame_nr = 1; T(setsockopt(f, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); close(f);
    }
}

int main(void) {
    own_network();
    u = udp(), v = udp(); bind_to(u, LOCAL, 0), bind_to(v, LOCAL, 0); port = port_of(u);
    may(); names(); hears(); filters(); sending(); options(); rings();
    return 0;
}
