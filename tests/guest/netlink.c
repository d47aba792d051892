/* Netlink sockets: ports, names, options, datagrams, and what NETLINK_ROUTE tells and changes in a fresh network namespace. */
#include "guest.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
static unsigned char buf[65536];
static int f;
static int own(unsigned port) { return port == getpid() ? 1 : port ? 2 : 0; }
static void attributes(struct rtattr *a, int len) {
    /* Those that every kernel of late has and that say something of the device. */
    static const int told[] = { IFLA_IFNAME, IFLA_TXQLEN, IFLA_OPERSTATE, IFLA_LINKMODE, IFLA_MTU, IFLA_GROUP, IFLA_PROMISCUITY, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_CARRIER, IFLA_ADDRESS, IFLA_BROADCAST, IFLA_QDISC, IFLA_PROTO_DOWN };
    for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        int known = 0;
        for (unsigned i = 0; i < sizeof told / sizeof *told; i++) known |= told[i] == a->rta_type;
        if (!known) continue;
        printf("   %d:", a->rta_type);
        for (unsigned i = 0; i < RTA_PAYLOAD(a); i++) printf(" %02x", ((unsigned char *)RTA_DATA(a))[i]);
        printf("\n");
    }
}
static void addresses(struct nlmsghdr *h) {
    struct ifaddrmsg *i = NLMSG_DATA(h);
    /* There may be no IPv6. */
    if (i->ifa_family != AF_INET) return;
    printf("  address: /%d flags %x scope %d index %u\n", i->ifa_prefixlen, i->ifa_flags, i->ifa_scope, i->ifa_index);
    int len = IFA_PAYLOAD(h);
    for (struct rtattr *a = IFA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        if (a->rta_type == IFA_CACHEINFO || a->rta_type > IFA_FLAGS) continue;
        printf("   %d:", a->rta_type);
        for (unsigned j = 0; j < RTA_PAYLOAD(a); j++) printf(" %02x", ((unsigned char *)RTA_DATA(a))[j]);
        printf("\n");
    }
}
/* Answers, as many as there are. */
static void answers(void) {
    for (;;) {
        struct sockaddr_nl from; socklen_t l = sizeof from;
        int n = recvfrom(f, buf, sizeof buf, MSG_DONTWAIT, (void *)&from, &l);
        if (n < 0) { printf("  then %s\n", strerrorname_np(errno)); return; }
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == RTM_NEWADDR && ((struct ifaddrmsg *)NLMSG_DATA(h))->ifa_family != AF_INET) continue;
            printf(" type %d flags %x number %u to %d from %d/%u\n", h->nlmsg_type, h->nlmsg_flags, h->nlmsg_seq, own(h->nlmsg_pid), own(from.nl_pid), from.nl_groups);
            if (h->nlmsg_type == NLMSG_ERROR) {
                struct nlmsgerr *e = NLMSG_DATA(h);
                printf("  len %u: %s, of type %d len %u\n", h->nlmsg_len, e->error ? strerrorname_np(-e->error) : "done", e->msg.nlmsg_type, e->msg.nlmsg_len);
            } else if (h->nlmsg_type == RTM_NEWLINK) {
                struct ifinfomsg *i = NLMSG_DATA(h);
                printf("  link: family %d type %d index %d flags %x change %x\n", i->ifi_family, i->ifi_type, i->ifi_index, i->ifi_flags, i->ifi_change);
                attributes(IFLA_RTA(i), IFLA_PAYLOAD(h));
            } else if (h->nlmsg_type == RTM_NEWADDR) addresses(h);
        }
    }
}
static unsigned number;
static struct { struct nlmsghdr h; char b[400]; } m;
static void begin(int type, int flags, const void *header, int len) {
    memset(&m, 0, sizeof m);
    m.h = (struct nlmsghdr){ .nlmsg_len = NLMSG_LENGTH(len), .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = ++number };
    memcpy(m.b, header, len);
}
static void add(int type, const void *data, int len) {
    struct rtattr *a = (void *)((char *)&m + NLMSG_ALIGN(m.h.nlmsg_len));
    a->rta_type = type; a->rta_len = RTA_LENGTH(len); memcpy(RTA_DATA(a), data, len);
    m.h.nlmsg_len = NLMSG_ALIGN(m.h.nlmsg_len) + RTA_LENGTH(len);
}
static void ask(const char *what) { printf("%s:", what); errno = 0; long r = send(f, &m, m.h.nlmsg_len, 0); printf(" %s\n", r == m.h.nlmsg_len ? "sent" : strerrorname_np(errno)); answers(); }
static void plain(const char *what, int type, int flags, int family, int len) { char zero[64] = { family }; begin(type, flags, zero, len); ask(what); }
#define REQ NLM_F_REQUEST
#define ALL (NLM_F_REQUEST | NLM_F_DUMP)
static void link_by(const char *what, int type, int flags, int index, const char *name, unsigned set, unsigned change) {
    struct ifinfomsg i = { .ifi_index = index, .ifi_flags = set, .ifi_change = change };
    begin(type, flags, &i, sizeof i);
    if (name) add(IFLA_IFNAME, name, strlen(name) + 1);
    ask(what);
}
static void address(const char *what, int type, int flags, int index, int prefix, const char *local, const char *to) {
    struct ifaddrmsg a = { .ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_flags = IFA_F_PERMANENT, .ifa_scope = RT_SCOPE_HOST, .ifa_index = index };
    begin(type, flags, &a, sizeof a);
    if (local) add(IFA_LOCAL, local, 4);
    if (to) add(IFA_ADDRESS, to, 4);
    ask(what);
}
static void sockets(void) {
    T(socket(AF_NETLINK, SOCK_STREAM, 0)); T(socket(AF_NETLINK, SOCK_SEQPACKET, 0)); T(socket(AF_NETLINK, SOCK_RAW, 99)); T(socket(AF_NETLINK, SOCK_RAW, -1)); T(socket(AF_NETLINK, SOCK_RAW, 32)); T(socket(AF_NETLINK, SOCK_RAW, 22)); T(socket(AF_NETLINK, SOCK_RAW | 0x100, 0));
    int p[2]; T(socketpair(AF_NETLINK, SOCK_RAW, 0, p)); T(socketpair(AF_NETLINK, SOCK_STREAM, 0, p));
    int a = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), b = socket(AF_NETLINK, SOCK_RAW, 0);
    T(fcntl(a, F_GETFD)); T(fcntl(a, F_GETFL) & O_NONBLOCK);
    int n; socklen_t l;
#define GET(s, level, name) do { n = -1; l = sizeof n; T(getsockopt(s, level, name, &n, &l)); V(n); V(l); } while (0)
    GET(a, SOL_SOCKET, SO_TYPE); GET(b, SOL_SOCKET, SO_TYPE); GET(a, SOL_SOCKET, SO_DOMAIN); GET(a, SOL_SOCKET, SO_PROTOCOL); GET(a, SOL_SOCKET, SO_ERROR); GET(a, SOL_SOCKET, SO_ACCEPTCONN);
    for (int o = NETLINK_PKTINFO; o <= NETLINK_NO_ENOBUFS; o++) { n = 1; GET(a, SOL_NETLINK, o); n = 1; T(setsockopt(a, SOL_NETLINK, o, &n, sizeof n)); GET(a, SOL_NETLINK, o); n = 0; T(setsockopt(a, SOL_NETLINK, o, &n, sizeof n)); }
    for (int o = NETLINK_CAP_ACK; o <= 12; o++) { n = 1; T(setsockopt(a, SOL_NETLINK, o, &n, sizeof n)); GET(a, SOL_NETLINK, o); n = 0; T(setsockopt(a, SOL_NETLINK, o, &n, sizeof n)); }
    n = 1; T(setsockopt(a, SOL_NETLINK, 99, &n, sizeof n)); GET(a, SOL_NETLINK, 99);
    T(setsockopt(a, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &n, sizeof n)); n = 0; T(setsockopt(a, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &n, sizeof n)); n = 1000; T(setsockopt(a, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &n, sizeof n)); n = 1; T(setsockopt(a, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &n, sizeof n));
    n = 32768; T(setsockopt(a, SOL_SOCKET, SO_SNDBUF, &n, sizeof n)); GET(a, SOL_SOCKET, SO_SNDBUF); n = 1; T(setsockopt(a, SOL_SOCKET, SO_RCVBUF, &n, sizeof n)); GET(a, SOL_SOCKET, SO_RCVBUF);
    struct sockaddr_nl s = { 0 };
#define NAME(get, fd) do { l = sizeof s; memset(&s, 9, sizeof s); T(get(fd, (void *)&s, &l)); V(l); V(s.nl_family); V(own(s.nl_pid)); V(s.nl_groups); } while (0)
    NAME(getsockname, a); NAME(getpeername, a);
    s = (struct sockaddr_nl){ .nl_family = AF_UNIX }; T(bind(a, (void *)&s, sizeof s)); s.nl_family = AF_NETLINK; T(bind(a, (void *)&s, 11)); T(bind(a, (void *)&s, 1)); T(bind(a, BAD, sizeof s)); T(bind(a, (void *)&s, 200));
    s.nl_groups = 0x11; T(bind(a, (void *)&s, sizeof s)); NAME(getsockname, a);
    s = (struct sockaddr_nl){ .nl_family = AF_NETLINK }; T(bind(b, (void *)&s, sizeof s)); NAME(getsockname, b);
    s = (struct sockaddr_nl){ .nl_family = AF_NETLINK, .nl_pid = 12345 }; T(bind(b, (void *)&s, sizeof s));
    int c = socket(AF_NETLINK, SOCK_RAW, 0), d = socket(AF_NETLINK, SOCK_RAW, 0); s.nl_pid = 1 << 28; T(bind(c, (void *)&s, sizeof s)); T(bind(d, (void *)&s, sizeof s)); T(bind(c, (void *)&s, sizeof s)); close(c); T(bind(d, (void *)&s, sizeof s));
    T(listen(a, 1)); T(accept(a, 0, 0)); T(shutdown(a, 2)); T(send(a, "", 0, 0)); T(send(a, "abc", 3, MSG_OOB)); T(recv(a, buf, 10, MSG_OOB)); T(send(b, "abc", 3, 0)); T(recv(b, buf, 10, MSG_DONTWAIT)); T(send(b, BAD, 30, 0)); T(send(b, buf, 65536 * 4, 0));
    s = (struct sockaddr_nl){ .nl_family = AF_NETLINK, .nl_pid = 99 }; T(sendto(b, "abc", 3, 0, (void *)&s, sizeof s)); T(connect(b, (void *)&s, sizeof s)); NAME(getpeername, b); s.nl_pid = 1 << 28; T(connect(b, (void *)&s, sizeof s)); T(send(b, "hello", 5, 0)); T(recv(d, buf, 3, MSG_PEEK | MSG_TRUNC)); T(recv(d, buf, 3, 0)); T(recv(d, buf, 3, MSG_DONTWAIT)); s = (struct sockaddr_nl){ 0 }; T(connect(b, (void *)&s, sizeof s)); T(connect(b, (void *)&s, 1));
    T(ioctl(d, FIONREAD, &n)); T(ioctl(d, 0x12345, &n)); T(lseek(d, 0, 1)); T(pread(d, buf, 1, 0) == -1 ? -1 : 0);
    close(a); close(b); close(d);
}
static void reads(void) {
    struct pollfd p = { f, POLLIN | POLLOUT, 0 };
    T(poll(&p, 1, 0)); V(p.revents);
    char zero[16] = { 0 };
    begin(RTM_GETLINK, REQ | NLM_F_ACK, zero, 4);
    T(write(f, &m, m.h.nlmsg_len)); T(poll(&p, 1, 0)); V(p.revents);
    int e = epoll_create1(0); struct epoll_event ev = { EPOLLIN | EPOLLET }; epoll_ctl(e, EPOLL_CTL_ADD, f, &ev); T(epoll_wait(e, &ev, 1, 0)); T(epoll_wait(e, &ev, 1, 0));
    char name[20]; struct iovec v = { buf, 18 }; struct msghdr h = { .msg_name = name, .msg_namelen = sizeof name, .msg_iov = &v, .msg_iovlen = 1 };
    T(recvmsg(f, &h, MSG_PEEK)); V(h.msg_flags); V(h.msg_namelen); T(recvmsg(f, &h, MSG_PEEK | MSG_TRUNC)); V(h.msg_flags == MSG_TRUNC);
    int on = 1; char control[64]; T(setsockopt(f, SOL_SOCKET, SO_PASSCRED, &on, sizeof on)); h.msg_control = control; h.msg_controllen = sizeof control; T(recvmsg(f, &h, 0)); V(h.msg_controllen); struct cmsghdr *c = CMSG_FIRSTHDR(&h); if (c) { V(c->cmsg_level); V(c->cmsg_type); struct ucred *u = (void *)CMSG_DATA(c); V(u->pid); V(u->uid); V(u->gid); }
    on = 0; setsockopt(f, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    T(write(f, &m, m.h.nlmsg_len)); T(epoll_wait(e, &ev, 1, 0)); T(read(f, buf, sizeof buf)); close(e);
    struct timeval t = { 0, 20000 }; T(setsockopt(f, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t)); T(recv(f, buf, 10, 0)); t.tv_usec = 0; T(setsockopt(f, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    fcntl(f, F_SETFL, O_NONBLOCK); T(read(f, buf, 10)); fcntl(f, F_SETFL, 0);
    /* More answers than fit. */
    int small = 2304; T(setsockopt(f, SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
    for (int i = 0; i < 100; i++) write(f, &m, m.h.nlmsg_len);
    T(poll(&p, 1, 0)); V(p.revents & (POLLIN | POLLERR)); T(recv(f, buf, sizeof buf, MSG_DONTWAIT)); V(recv(f, buf, sizeof buf, MSG_DONTWAIT) > 0);
    while (recv(f, buf, sizeof buf, MSG_DONTWAIT) > 0) ;
    small = 212992; setsockopt(f, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    /* Two requests in one. */
    char two[40]; memcpy(two, &m, 20); memcpy(two + 20, &m, 20); T(send(f, two, 40, 0)); answers(); two[0] = 15; T(send(f, two, 40, 0)); answers(); two[0] = 21; T(send(f, two, 20, 0)); answers();
}
static void devices(void) {
    V(if_nametoindex("lo")); V(if_nametoindex("none")); char name[IF_NAMESIZE]; V(if_indextoname(1, name) && !strcmp(name, "lo"));
    int u = socket(AF_UNIX, SOCK_DGRAM, 0); struct ifreq r = { .ifr_name = "lo" }; T(ioctl(u, SIOCGIFFLAGS, &r)); V(r.ifr_flags); T(ioctl(u, SIOCGIFMTU, &r)); V(r.ifr_mtu); T(ioctl(u, SIOCGIFHWADDR, &r)); V(r.ifr_hwaddr.sa_family); T(ioctl(u, SIOCGIFTXQLEN, &r)); V(r.ifr_qlen); strcpy(r.ifr_name, "x"); T(ioctl(u, SIOCGIFFLAGS, &r)); r.ifr_ifindex = 9; T(ioctl(u, SIOCGIFNAME, &r)); T(ioctl(u, SIOCGIFINDEX, BAD)); close(u);
}
int main(void) {
    T(unshare(CLONE_NEWUSER | CLONE_NEWNET));
    sockets();
    f = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    devices();
    plain("links", RTM_GETLINK, ALL, 0, 16); plain("addresses", RTM_GETADDR, ALL, 0, 8); plain("routes", RTM_GETROUTE, ALL, 0, 12); plain("IPv4 routes", RTM_GETROUTE, ALL, AF_INET, 12); plain("neighbours", RTM_GETNEIGH, ALL, 0, 12); plain("queues", RTM_GETQDISC, ALL, 0, 20); plain("ids", RTM_GETNSID, ALL, 0, 4);
    plain("links and an acknowledgement", RTM_GETLINK, ALL | NLM_F_ACK, AF_INET, 16);
    plain("a link without a name", RTM_GETLINK, REQ, 0, 16); plain("too short to ask", RTM_GETLINK, REQ | NLM_F_ACK, 0, 0); plain("too short", RTM_GETLINK, REQ | NLM_F_ACK, 0, 4); plain("no such kind", 200, REQ | NLM_F_ACK, 0, 16); plain("control", 3, REQ | NLM_F_ACK, 0, 16); plain("control without", 3, REQ, 0, 16); plain("no request", RTM_GETLINK, NLM_F_ACK, 0, 16); plain("one address", RTM_GETADDR, REQ, AF_INET, 8); plain("a new link without a name", RTM_NEWLINK, REQ | NLM_F_ACK, 0, 16); plain("no link to delete", RTM_DELLINK, REQ | NLM_F_ACK, 0, 16);
    link_by("by index", RTM_GETLINK, REQ, 1, 0, 0, 0); link_by("by name", RTM_GETLINK, REQ | NLM_F_ACK, 0, "lo", 0, 0); link_by("by wrong index", RTM_GETLINK, REQ, 7, 0, 0, 0); link_by("by wrong name", RTM_GETLINK, REQ, 0, "none", 0, 0); link_by("delete lo", RTM_DELLINK, REQ | NLM_F_ACK, 1, 0, 0, 0); link_by("delete none", RTM_DELLINK, REQ, 0, "none", 0, 0); link_by("exclusive", RTM_NEWLINK, REQ | NLM_F_CREATE | NLM_F_EXCL, 1, 0, 0, 0); link_by("replace", RTM_NEWLINK, REQ | NLM_F_REPLACE, 1, 0, 0, 0);
    address("no device", RTM_NEWADDR, REQ | NLM_F_ACK, 5, 8, "\x7f\0\0\1", 0); address("no local", RTM_NEWADDR, REQ | NLM_F_ACK, 1, 8, 0, "\x7f\0\0\1"); address("prefix", RTM_NEWADDR, REQ | NLM_F_ACK, 1, 33, "\x7f\0\0\1", 0);
    address("new", RTM_NEWADDR, REQ | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 8, "\x7f\0\0\1", "\x7f\0\0\1"); address("again", RTM_NEWADDR, REQ | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 8, "\x7f\0\0\1", "\x7f\0\0\1"); address("second", RTM_NEWADDR, REQ | NLM_F_ACK | NLM_F_CREATE, 1, 8, "\x7f\0\0\2", "\x7f\0\0\2"); address("other", RTM_NEWADDR, REQ | NLM_F_ACK | NLM_F_CREATE, 1, 32, "\x0a\0\0\2", 0);
    plain("addresses", RTM_GETADDR, ALL, AF_INET, 8);
    address("delete", RTM_DELADDR, REQ | NLM_F_ACK, 1, 32, "\x0a\0\0\2", 0); address("delete again", RTM_DELADDR, REQ | NLM_F_ACK, 1, 32, "\x0a\0\0\2", 0); address("delete elsewhere", RTM_DELADDR, REQ | NLM_F_ACK, 9, 32, "\x0a\0\0\2", 0);
    link_by("up", RTM_NEWLINK, REQ | NLM_F_ACK, 1, 0, IFF_UP, IFF_UP); link_by("up by name", RTM_SETLINK, REQ | NLM_F_ACK, 0, "lo", IFF_UP, IFF_UP); link_by("links", RTM_GETLINK, REQ, 1, 0, 0, 0); link_by("down", RTM_NEWLINK, REQ | NLM_F_ACK, 1, 0, 0, IFF_UP); link_by("links", RTM_GETLINK, REQ, 1, 0, 0, 0);
    reads();
    /* One that is taken up without an address gets one. */
    fflush(stdout);
    if (!fork()) {
        T(unshare(CLONE_NEWNET)); close(f); f = socket(AF_NETLINK, SOCK_RAW, 0);
        link_by("up", RTM_NEWLINK, REQ | NLM_F_ACK, 1, 0, IFF_UP, IFF_UP); plain("addresses", RTM_GETADDR, ALL, AF_INET, 8);
        link_by("down", RTM_NEWLINK, REQ | NLM_F_ACK, 1, 0, 0, IFF_UP); plain("addresses", RTM_GETADDR, ALL, AF_INET, 8);
        _exit(0);
    }
    wait(0);
    /* Who has no right there only looks. */
    fflush(stdout);
    if (!fork()) {
        struct { unsigned version; int pid; } head = { 0x20080522, 0 }; unsigned data[6] = { 0 }; T(SYS(capset, &head, data));
        close(f); f = socket(AF_NETLINK, SOCK_RAW, 0);
        link_by("no right", RTM_NEWLINK, REQ | NLM_F_ACK, 1, 0, IFF_UP, IFF_UP); address("nor here", RTM_NEWADDR, REQ, 1, 8, "\x7f\0\0\3", 0); plain("may look", RTM_GETADDR, ALL, AF_INET, 8); plain("even at none", RTM_NEWLINK, REQ, 0, 1);
        struct sockaddr_nl s = { .nl_family = AF_NETLINK, .nl_pid = 99 }; T(sendto(f, "abc", 3, 0, (void *)&s, sizeof s)); T(connect(f, (void *)&s, sizeof s)); s.nl_pid = 0; s.nl_groups = 1; T(connect(f, (void *)&s, sizeof s)); T(bind(f, (void *)&s, sizeof s));
        _exit(0);
    }
    wait(0);
    return 0;
}
