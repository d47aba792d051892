/* What sock_diag tells of internet sockets: lists by family, protocol and state, one by its addresses, filters, and what is no request. */
#include "inet.h"
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
static char text[1 << 17];
static unsigned long inode(int fd) { struct stat s; fstat(fd, &s); return s.st_ino; }

/* Sockets that inet_diag tells of. */
static void diag(int line, int family, int protocol, int states_, int fd) {
    struct { struct nlmsghdr h; struct inet_diag_req_v2 r; } m = { { sizeof m, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 7 }, { family, protocol, 0, 0, states_ } };
    int n = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG), r, found = 0, others = 0, done = 0;
    if (n < 0) { printf("%d %s\n", line, strerrorname_np(errno)); return; }
    send(n, &m, sizeof m, 0);
    while (!done && (r = recv(n, text, sizeof text, 0)) > 0)
        for (struct nlmsghdr *h = (void *)text; NLMSG_OK(h, r); h = NLMSG_NEXT(h, r)) {
            if (h->nlmsg_type == NLMSG_DONE) { done = 1; break; }
            if (h->nlmsg_type == NLMSG_ERROR) { printf("%d error %s\n", line, strerrorname_np(-((struct nlmsgerr *)NLMSG_DATA(h))->error)); done = 1; break; }
            struct inet_diag_msg *d = NLMSG_DATA(h); char x[60], y[60];
            if (d->idiag_inode != inode(fd)) { others++; continue; }
            found++; printf("%d family %d state %d timer %d retrans %d %s:%s %s:%s if %d rqueue %u wqueue %u uid %d flags %x number %u\n", line, d->idiag_family, d->idiag_state, d->idiag_timer, d->idiag_retrans, inet_ntop(family, d->id.idiag_src, x, 60), nick(ntohs(d->id.idiag_sport)), inet_ntop(family, d->id.idiag_dst, y, 60), nick(ntohs(d->id.idiag_dport)), d->id.idiag_if, d->idiag_rqueue, d->idiag_wqueue, d->idiag_uid == geteuid(), h->nlmsg_flags, h->nlmsg_seq);
        }
    printf("%d found %d, others %d\n", line, found, others); close(n);
}
#define DIAG(...) diag(__LINE__, __VA_ARGS__)
static void diags(void) {
    puts("diag"); forget();
    int l = listener("127.0.0.3", 7), c = tcp(), a; nick(port_of(l)); DIAG(AF_INET, IPPROTO_TCP, 1 << TCP_LISTEN, l); DIAG(AF_INET, IPPROTO_TCP, -1, l); DIAG(AF_INET, IPPROTO_TCP, 1 << TCP_ESTABLISHED, l); DIAG(AF_INET6, IPPROTO_TCP, -1, l); connect_to(c, "127.0.0.3", port_of(l)); reached(l, POLLIN); DIAG(AF_INET, IPPROTO_TCP, 1 << TCP_LISTEN, l); a = accept(l, 0, 0); send(c, "abc", 3, 0); waiting(a, 3); drained(c); DIAG(AF_INET, IPPROTO_TCP, 1 << TCP_ESTABLISHED, a); close(a); close(c); close(l);
    l = listener("::", 3); DIAG(AF_INET6, IPPROTO_TCP, 1 << TCP_LISTEN, l); close(l); int u = udp(); bind_to(u, LOCAL, 0); DIAG(AF_INET, IPPROTO_UDP, -1, u); c = udp(); connect_to(c, LOCAL, port_of(u)); DIAG(AF_INET, IPPROTO_UDP, -1, c); DIAG(AF_INET, IPPROTO_UDP, 1 << TCP_CLOSE, c); close(u); close(c); u = udp(); DIAG(AF_INET, IPPROTO_UDP, -1, u); DIAG(AF_INET, 200, -1, u); close(u);
}

/* Asks with what follows a header of netlink; tells how many sockets come, and what is wrong. */
static void ask(int line, int kind, int flags, const void *request, int len) {
    char m[400] = ""; struct nlmsghdr h = { 16 + len, kind, NLM_F_REQUEST | flags, 9 };
    int n = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG), r, found = 0, end = 0;
    memcpy(m, &h, 16); memcpy(m + 16, request, len);
    if (send(n, m, 16 + len, 0) < 0) { printf("%d send: %s\n", line, strerrorname_np(errno)); return; }
    while (!end && (r = recv(n, text, sizeof text, MSG_DONTWAIT)) > 0)
        for (struct nlmsghdr *h = (void *)text; NLMSG_OK(h, r); h = NLMSG_NEXT(h, r)) {
            int e = h->nlmsg_type <= NLMSG_DONE ? -*(int *)NLMSG_DATA(h) : 0;
            if (h->nlmsg_type == NLMSG_ERROR) printf("%d error %s\n", line, e ? strerrorname_np(e) : "none");
            if (h->nlmsg_type == NLMSG_DONE) printf("%d done %s\n", line, e ? strerrorname_np(e) : "well"), end = 1;
            found += h->nlmsg_type == SOCK_DIAG_BY_FAMILY || h->nlmsg_type == TCPDIAG_GETSOCK;
        }
    printf("%d found %d\n", line, found); close(n);
}
#define ASK(...) ask(__LINE__, __VA_ARGS__)
static void requests(void) {
    puts("requests");
    int l = listener(LOCAL, 3), l6 = listener("::1", 3), s[2]; pair_of(s, LOCAL);
    struct inet_diag_req_v2 r = { AF_INET, IPPROTO_TCP, 0, 0, -1 };
    ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof r); r.idiag_states = 1 << TCP_LISTEN; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof r); r.sdiag_family = AF_INET6; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof r);
    ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, 1); ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, 20); ASK(17, NLM_F_DUMP, &r, sizeof r); ASK(25, NLM_F_DUMP, &r, sizeof r); r.sdiag_family = 200; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof r); r.sdiag_family = AF_UNSPEC; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof r);
    /* One, by its addresses. */
    struct inet_diag_req_v2 o = { AF_INET, IPPROTO_TCP, 0, 0, 0, { htons(port_of(l)), 0, { htonl(INADDR_LOOPBACK) } } };
    ASK(SOCK_DIAG_BY_FAMILY, 0, &o, sizeof o); o.id.idiag_cookie[0] = o.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE; ASK(SOCK_DIAG_BY_FAMILY, 0, &o, sizeof o); ASK(SOCK_DIAG_BY_FAMILY, NLM_F_ACK, &o, sizeof o); o.id.idiag_sport = htons(port_of(s[0])); ASK(SOCK_DIAG_BY_FAMILY, 0, &o, sizeof o); o.id.idiag_dport = htons(port_of(s[1])); o.id.idiag_dst[0] = htonl(INADDR_LOOPBACK); ASK(SOCK_DIAG_BY_FAMILY, 0, &o, sizeof o); o.sdiag_protocol = 200; ASK(SOCK_DIAG_BY_FAMILY, 0, &o, sizeof o);
    /* Filters: a port, a network. */
    struct { struct inet_diag_req_v2 r; struct { unsigned short len, kind; } a; struct inet_diag_bc_op op[2]; } p = { { AF_INET, IPPROTO_TCP, 0, 0, -1 }, { 12, INET_DIAG_REQ_BYTECODE }, { { INET_DIAG_BC_S_EQ, 8, 12 }, { INET_DIAG_BC_NOP, 4, port_of(l) } } };
    ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &p, sizeof p); p.op[0].code = INET_DIAG_BC_D_EQ; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &p, sizeof p); p.op[0].yes = 9; ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &p, sizeof p);
    struct { struct inet_diag_req_v2 r; struct { unsigned short len, kind; } a; struct inet_diag_bc_op op; unsigned char family, prefix, pad[2]; int port; unsigned addr; } q = { { AF_INET, IPPROTO_TCP, 0, 0, -1 }, { 20, INET_DIAG_REQ_BYTECODE }, { INET_DIAG_BC_D_COND, 16, 20 }, AF_INET, 8, { 0 }, -1, htonl(INADDR_LOOPBACK) };
    ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q); q.port = port_of(s[0]); ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q); q.port = -1; q.addr = htonl(0x0a000000); ASK(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &q, sizeof q);
    close(l); close(l6); both(s);
}

/* More than fits into the socket's buffer comes whole, as it is read. */
static void many(void) {
    puts("many");
    int l = listener(LOCAL, 9), n = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG), found = 0, end = 0, r; set(n, SOL_SOCKET, SO_RCVBUF, 4000);
    for (int i = 0; i < 400; i++) { int u = udp(); bind_to(u, LOCAL, 0); }
    struct { struct nlmsghdr h; struct inet_diag_req_v2 r; } m = { { sizeof m, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 7 }, { AF_INET, IPPROTO_UDP, 0, 0, -1 } };
    send(n, &m, sizeof m, 0);
    while (!end && (r = recv(n, text, sizeof text, MSG_DONTWAIT)) > 0) for (struct nlmsghdr *h = (void *)text; NLMSG_OK(h, r); h = NLMSG_NEXT(h, r)) { end |= h->nlmsg_type == NLMSG_DONE; found += h->nlmsg_type == SOCK_DIAG_BY_FAMILY; }
    V(found); V(end);
}

int main(void) {
    own_network(); diags(); requests(); many();
    return 0;
}
