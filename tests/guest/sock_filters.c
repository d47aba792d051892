/* Filters of Unix sockets: SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_GET_FILTER, SO_LOCK_FILTER. */
#include "guest.h"
#include <linux/filter.h>
static int s[2];
static char b[100];
#define ST(c, k) { c, 0, 0, k }
#define JP(c, k, t, f) { c, t, f, k }
#define SET(...) ({ struct sock_filter f_[] = { __VA_ARGS__ }; struct sock_fprog p_ = { sizeof f_ / sizeof *f_, f_ }; setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &p_, sizeof p_); })
static void round_(int line, const char *text, int len) {
    int sent = send(s[0], text, len, MSG_DONTWAIT), e = errno; memset(b, 0, sizeof b);
    int got = recv(s[1], b, sizeof b, MSG_DONTWAIT | MSG_TRUNC);
    printf("%d sent %d %s, received %d '%.20s'\n", line, sent, sent < 0 ? strerrorname_np(e) : "", got, b);
}
#define X(text) round_(__LINE__, text, sizeof text - 1)
static void *send_rights(int fd) { char c[CMSG_SPACE(4)] = { 0 }; struct iovec v = { "r", 1 }; struct msghdr m = { 0, 0, &v, 1, c, sizeof c, 0 }; struct cmsghdr *h = (void *)c; h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(4); *(int *)CMSG_DATA(h) = fd; T(sendmsg(s[0], &m, 0)); return 0; }

static void runs(int type) {
    printf("type %d\n", type); socketpair(AF_UNIX, type, 0, s);
    T(SET(ST(BPF_RET | BPF_K, 0))); X("gone"); T(SET(ST(BPF_RET | BPF_K, 3))); X("three of them"); X("2"); X(""); T(SET(ST(BPF_RET | BPF_K, -1))); X("all");
    T(SET(ST(BPF_LD | BPF_W | BPF_LEN, 0), JP(BPF_JMP | BPF_JGT | BPF_K, 4, 0, 1), ST(BPF_RET | BPF_K, 0), ST(BPF_RET | BPF_K, 99))); X("four"); X("fives");
    T(SET(ST(BPF_LD | BPF_B | BPF_ABS, 0), JP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1), ST(BPF_RET | BPF_K, 99), ST(BPF_RET | BPF_K, 0))); X("yes"); X("no"); X("");
    T(SET(ST(BPF_LD | BPF_H | BPF_ABS, 1), JP(BPF_JMP | BPF_JEQ | BPF_K, 'b' << 8 | 'c', 0, 1), ST(BPF_RET | BPF_K, 99), ST(BPF_RET | BPF_K, 0))); X("abc"); X("acb"); X("ab");
    T(SET(ST(BPF_LD | BPF_W | BPF_ABS, 0), ST(BPF_ALU | BPF_RSH | BPF_K, 24), ST(BPF_ALU | BPF_SUB | BPF_K, '0'), ST(BPF_RET | BPF_A, 0))); X("3twentyone"); X("0twentyone"); X("1tw"); X("5twe");
    T(SET(ST(BPF_LDX | BPF_B | BPF_MSH, 0), ST(BPF_LD | BPF_B | BPF_IND, 1), ST(BPF_ALU | BPF_MOD | BPF_K, 16), ST(BPF_RET | BPF_A, 0))); X("1....2345678901234"); X("2345678.35678901234"); X("3");
    T(SET(ST(BPF_LDX | BPF_W | BPF_LEN, 0), ST(BPF_MISC | BPF_TXA, 0), ST(BPF_ALU | BPF_SUB | BPF_K, 2), ST(BPF_MISC | BPF_TAX, 0), ST(BPF_LD | BPF_B | BPF_IND, 0), ST(BPF_ALU | BPF_AND | BPF_K, 7), ST(BPF_RET | BPF_A, 0))); X("abcdefgh3x"); X("xx"); X("x");
    T(SET(ST(BPF_LDX | BPF_IMM, 0), ST(BPF_LD | BPF_IMM, 5), ST(BPF_ALU | BPF_DIV | BPF_X, 0), ST(BPF_RET | BPF_K, 9))); X("by zero"); T(SET(ST(BPF_LDX | BPF_IMM, 0), ST(BPF_LD | BPF_IMM, 5), ST(BPF_ALU | BPF_MOD | BPF_X, 0), ST(BPF_RET | BPF_K, 9))); X("by zero");
    int ad[] = { SKF_AD_PROTOCOL, SKF_AD_PKTTYPE, SKF_AD_IFINDEX, SKF_AD_MARK, SKF_AD_QUEUE, SKF_AD_HATYPE, SKF_AD_VLAN_TAG, SKF_AD_VLAN_TAG_PRESENT };
    for (int i = 0; i < 8; i++) { printf("%d ", ad[i]); T(SET(ST(BPF_LD | BPF_IMM, 7), ST(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + ad[i]), ST(BPF_ALU | BPF_ADD | BPF_K, 2), ST(BPF_RET | BPF_A, 0))); X("ancillary"); }
    T(SET(ST(BPF_LD | BPF_IMM, 6), ST(BPF_LDX | BPF_IMM, 3), ST(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_ALU_XOR_X), ST(BPF_RET | BPF_A, 0))); X("exclusive");
    T(SET(ST(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_RANDOM), ST(BPF_ALU | BPF_AND | BPF_K, 0), ST(BPF_ALU | BPF_OR | BPF_K, 4), ST(BPF_RET | BPF_A, 0))); X("random");
    /* What comes along is gone, too. */
    int p[2]; pipe(p); T(SET(ST(BPF_RET | BPF_K, 0))); send_rights(p[1]); close(p[1]); if (type != SOCK_STREAM) { struct pollfd f = { p[0], POLLIN }; T(poll(&f, 1, 2000)); V(f.revents); } close(p[0]);
    T(write(s[0], "w", 1)); T(sendto(s[0], "t", 1, 0, 0, 0)); int v = 0; T(setsockopt(s[1], SOL_SOCKET, SO_DETACH_FILTER, &v, 4)); recv(s[1], b, 9, MSG_DONTWAIT); recv(s[1], b, 9, MSG_DONTWAIT); X("again"); T(setsockopt(s[1], SOL_SOCKET, SO_DETACH_FILTER, &v, 4));
    close(s[0]); close(s[1]);
}
static void get(int line, int n) { struct sock_filter f[8]; memset(f, 0xee, sizeof f); socklen_t l = n; errno = 0; int r = getsockopt(s[1], SOL_SOCKET, SO_GET_FILTER, f, &l); printf("%d get %d: %d %s len %u, %x %u\n", line, n, r, r ? strerrorname_np(errno) : "", l, f[0].code, f[0].k); }
int main(void) {
    int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET }, v = 0;
    for (int i = 0; i < 3; i++) runs(types[i]);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    get(__LINE__, 8); get(__LINE__, 0); T(SET(ST(BPF_LD | BPF_IMM, 6), ST(BPF_ALU | BPF_ADD | BPF_K, 1), ST(BPF_RET | BPF_A, 0))); get(__LINE__, 0); get(__LINE__, 2); get(__LINE__, 3); get(__LINE__, 8);
    struct sock_filter one = ST(BPF_RET | BPF_K, 5); struct sock_fprog p = { 1, &one }, none = { 0, &one }, much = { 4097, &one }, away = { 1, BAD }, null = { 1, 0 };
    T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &p, 8)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &p, 17)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, BAD, 16)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &none, 16)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &much, 16)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &away, 16)); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &null, 16)); get(__LINE__, 8);
    T(SET(ST(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + 64), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + 2), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_LD | BPF_IMM, 0))); T(SET(ST(BPF_ALU | BPF_MOD | BPF_K, 0), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_JMP | BPF_JA, 1), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_LD | BPF_MEM, 3), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_LDX | BPF_W | BPF_ABS, 3), ST(BPF_RET | BPF_A, 0))); T(SET(ST(BPF_RET | BPF_X, 0))); T(SET(ST(BPF_LD | BPF_W | BPF_ABS, 1), ST(BPF_RET | BPF_A, 0))); X("odd places");
    T(setsockopt(s[1], SOL_SOCKET, SO_DETACH_FILTER, &v, 3)); v = 1; T(setsockopt(s[1], SOL_SOCKET, SO_LOCK_FILTER, &v, 4)); T(SET(ST(BPF_RET | BPF_K, 1))); T(setsockopt(s[1], SOL_SOCKET, SO_DETACH_FILTER, &v, 4)); v = 0; T(setsockopt(s[1], SOL_SOCKET, SO_LOCK_FILTER, &v, 4)); get(__LINE__, 8); T(setsockopt(s[1], SOL_SOCKET, SO_ATTACH_FILTER, &none, 16));
    return 0;
}
