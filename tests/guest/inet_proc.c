/* What tells of the network: files of /proc/net, calls about devices, and namespaces with networks of their own. */
#include "inet.h"
#include <ifaddrs.h>
static char text[1 << 17];
static unsigned long inode(int fd) { struct stat s; fstat(fd, &s); return s.st_ino; }
static int slurp(const char *file) { int f = open(file, O_RDONLY), n = 0, r; if (f < 0) return -1; while (n < sizeof text - 1 && (r = read(f, text + n, sizeof text - 1 - n)) > 0) n += r; text[n] = 0; close(f); return n; }

/* The line of one's own socket: addresses, state, queues, user; ports by nick. */
static void row(int line, const char *file, int fd) {
    char want[32]; sprintf(want, " %lu ", inode(fd));
    if (slurp(file) < 0) { printf("%d %s: %s\n", line, file, strerrorname_np(errno)); return; }
    int seen = 0, width = 0;
    for (char *l = strtok(text, "\n"); l; l = strtok(0, "\n")) {
        char padded[600]; snprintf(padded, sizeof padded, "%s ", l);
        char *at_ = strstr(padded, want);
        if (!at_) continue;
        char a[40], b[40], tx[20], rx[20], tr[20], when[20], retry[20], more[200] = ""; unsigned pa, pb, st, uid, to; unsigned long ino;
        int n = sscanf(l, " %*d: %32[0-9A-F]:%x %32[0-9A-F]:%x %x %8[0-9A-F]:%8[0-9A-F] %2[0-9A-F]:%8[0-9A-F] %8[0-9A-F] %u %u %lu %199[^\n]", a, &pa, b, &pb, &st, tx, rx, tr, when, retry, &uid, &to, &ino, more);
        int words = 0; for (char *p = more; *p;) { words += *p != ' '; while (*p && *p != ' ') p++; while (*p == ' ') p++; }
        /* What a datagram takes is the kernel's own affair. */
        if (strstr(file, "udp") && strtoul(rx, 0, 16)) strcpy(rx, "some");
        printf("%d %s fields %d: %s:%s %s:%s state %02X queues %s:%s retry %s uid %d then %d words\n", line, file, n, a, nick(pa), b, nick(pb), st, tx, rx, retry, uid == geteuid(), words);
        seen++;
    }
    if (!seen) printf("%d %s: not there\n", line, file);
}
#define ROW(file, fd) row(__LINE__, "/proc/net/" file, fd)
static void head(const char *file, int lines) { if (slurp(file) < 0) { printf("%s: %s\n", file, strerrorname_np(errno)); return; } for (char *l = strtok(text, "\n"); l && lines--; l = strtok(0, "\n")) printf("%s: %s|\n", file, l); }
/* Only what is no number. */
static void words(const char *file) { if (slurp(file) < 0) { printf("%s: %s\n", file, strerrorname_np(errno)); return; } for (char *w = strtok(text, " \n"); w; w = strtok(0, " \n")) if (!strchr("0123456789", *w)) printf("%s ", w); puts(""); }
/* Each name of a table's header has a number. */
static void table(const char *file) {
    if (slurp(file) < 0) { printf("%s: %s\n", file, strerrorname_np(errno)); return; }
    static char copy[1 << 17]; strcpy(copy, text); char *save, *names = 0;
    for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(0, "\n", &save)) {
        int words = 0; for (char *p = l; *p; p++) words += *p == ' ';
        if (!names) { names = l; continue; }
        int w = 0; for (char *p = names; *p; p++) w += *p == ' ';
        char *colon = strchr(l, ':'); if (!strncmp(l, "MPTcp", 5)) { names = 0; continue; }
        printf("%s: %.*s same %d\n", file, (int)(colon - l), l, w == words && !strncmp(names, l, colon - l)); names = 0;
    }
}
static long counter(const char *which, const char *name) {
    slurp("/proc/net/snmp"); char *save, *h = 0;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(0, "\n", &save)) {
        if (strncmp(l, which, strlen(which)) || l[strlen(which)] != ':') continue;
        if (!h) { h = l; continue; }
        char *s1, *s2, *n = strtok_r(h, " ", &s1), *v = strtok_r(l, " ", &s2);
        while (n && v) { if (!strcmp(n, name)) return atol(v); n = strtok_r(0, " ", &s1); v = strtok_r(0, " ", &s2); }
        return -1;
    }
    return -2;
}

static void files(void) {
    puts("files"); forget();
    static const char *of[] = { "tcp", "tcp6", "udp", "udp6", "raw", "raw6", "dev", "if_inet6", "route", "arp", "icmp", "icmp6", "sockstat", "sockstat6", "unix", "netlink", "packet" };
    for (int i = 0; i < 17; i++) { char p[64]; struct stat s; sprintf(p, "/proc/net/%s", of[i]); int r = stat(p, &s); printf("%s %s mode %o size %ld\n", p, r ? strerrorname_np(errno) : "ok", r ? 0 : s.st_mode, r ? 0 : (long)s.st_size); }
    head("/proc/net/tcp", 1); head("/proc/net/tcp6", 1); head("/proc/net/udp", 1); head("/proc/net/udp6", 1); head("/proc/net/raw", 1); head("/proc/net/raw6", 1); head("/proc/net/dev", 2); head("/proc/net/if_inet6", 9); head("/proc/net/route", 1); head("/proc/net/arp", 1); table("/proc/net/snmp");
    char l[64] = ""; readlink("/proc/net", l, 63); S(l); T(access("/proc/self/net/tcp", R_OK)); T(access("/proc/thread-self/net/tcp", R_OK)); T(open("/proc/net/nosuch", O_RDONLY));
    /* Each stage of a connection. */
    int f = tcp(), c = tcp(), a; ROW("tcp", f); bind_to(f, LOCAL, 0); nick(port_of(f)); ROW("tcp", f); listen(f, 3); ROW("tcp", f); connect_to(c, LOCAL, port_of(f)); reached(f, POLLIN); ROW("tcp", f); ROW("tcp", c); a = accept(f, 0, 0); ROW("tcp", f); ROW("tcp", a); send(c, "hello", 5, 0); waiting(a, 5); drained(c); ROW("tcp", a); ROW("tcp", c); shutdown(c, SHUT_WR); STATE(c, TCP_FIN_WAIT2); STATE(a, TCP_CLOSE_WAIT); ROW("tcp", c); ROW("tcp", a); close(a); close(c); close(f);
    f = listener("::1", 5); ROW("tcp6", f); ROW("tcp", f); close(f); f = listener("::", 5); ROW("tcp6", f); c = tcp(); connect_to(c, "127.0.0.1", port_of(f)); a = accept(f, 0, 0); ROW("tcp6", a); ROW("tcp", c); close(a); close(c); close(f);
    /* Datagrams. */
    f = udp(); ROW("udp", f); bind_to(f, "127.1.2.3", 0); ROW("udp", f); c = udp(); connect_to(c, "127.1.2.3", port_of(f)); ROW("udp", c); send(c, "x", 1, 0); reached(f, POLLIN); row(__LINE__, "/proc/self/net/udp", f); close(f); close(c); f = udp6(); bind_to(f, "::", 0); ROW("udp6", f); close(f); f = socket(AF_INET, SOCK_RAW, 253); ROW("raw", f); bind_to(f, LOCAL, 0); ROW("raw", f); close(f); f = socket(AF_INET6, SOCK_RAW, 253); ROW("raw6", f); close(f);
    /* Whose. */
    IN(setresuid(1234, 1234, 1234); int f = listener(LOCAL, 1); ROW("tcp", f));
    words("/proc/net/sockstat"); f = tcp(); listen(f, 1); c = udp(); bind_to(c, LOCAL, 0); if (slurp("/proc/net/sockstat") > 0) { int inuse = -1; sscanf(strstr(text, "UDP:"), "UDP: inuse %d", &inuse); V(inuse); sscanf(strstr(text, "TCP:"), "TCP: inuse %d", &inuse); V(inuse); } close(f); close(c);
    long before = counter("Udp", "OutDatagrams"), in = counter("Udp", "InDatagrams"), none = counter("Udp", "NoPorts"), opened = counter("Tcp", "ActiveOpens"); f = udp(); bind_to(f, LOCAL, 0); c = udp(); addr to = at(LOCAL, port_of(f)); for (int i = 0; i < 3; i++) { sendto(c, "x", 1, 0, &to.s, 16); recv(f, l, 9, 0); } V(counter("Udp", "OutDatagrams") - before); V(counter("Udp", "InDatagrams") - in); close(f); sendto(c, "x", 1, 0, &to.s, 16); for (int i = 0; i < 1000 && counter("Udp", "NoPorts") == none; i++) usleep(1000); V(counter("Udp", "NoPorts") - none); close(c); f = listener(LOCAL, 1); c = tcp(); connect_to(c, LOCAL, port_of(f)); V(counter("Tcp", "ActiveOpens") - opened); for (int i = 0; i < 1000 && counter("Tcp", "CurrEstab") != 2; i++) usleep(1000); V(counter("Tcp", "CurrEstab")); close(c); close(f); V(counter("Ip", "DefaultTTL"));
}
static void values(void) {
    puts("values");
    /* Those that a new namespace begins with, whatever the machine says. */
    static const char *of[] = { "ipv4/ip_local_port_range", "ipv4/ip_unprivileged_port_start", "ipv4/ip_default_ttl", "ipv4/tcp_fin_timeout", "ipv4/tcp_keepalive_time", "ipv4/tcp_keepalive_intvl", "ipv4/tcp_keepalive_probes", "ipv4/tcp_syn_retries", "ipv4/tcp_retries2", "ipv4/tcp_timestamps", "ipv4/tcp_sack", "ipv4/tcp_window_scaling", "ipv4/ping_group_range", "ipv4/ip_nonlocal_bind", "ipv4/icmp_echo_ignore_all", "ipv6/bindv6only", "ipv6/conf/all/disable_ipv6" };
    for (int i = 0; i < sizeof of / sizeof *of; i++) { char p[100]; sprintf(p, "/proc/sys/net/%s", of[i]); head(p, 1); struct stat s; if (!stat(p, &s)) printf("  mode %o\n", s.st_mode); }
    static const char *shapes[] = { "ipv4/tcp_rmem", "ipv4/tcp_wmem", "core/somaxconn", "core/rmem_max", "core/wmem_max", "core/rmem_default", "ipv4/tcp_congestion_control", "ipv4/tcp_available_congestion_control", "ipv4/tcp_max_syn_backlog" };
    for (int i = 0; i < 9; i++) { char p[100]; sprintf(p, "/proc/sys/net/%s", shapes[i]); int n = slurp(p); long a = 0, b = 0, c = 0; int got = sscanf(text, "%ld %ld %ld", &a, &b, &c); printf("%s %d numbers %d ordered %d line %d\n", p, n > 0, got, got < 3 || (a <= b && b <= c), n > 0 && text[n - 1] == '\n'); }
    T(put("/proc/sys/net/ipv4/ip_default_ttl", "33")); int f = udp(); V(get(f, IPPROTO_IP, IP_TTL)); close(f); T(put("/proc/sys/net/ipv4/ip_default_ttl", "0")); T(put("/proc/sys/net/ipv4/ip_default_ttl", "256")); T(put("/proc/sys/net/ipv4/tcp_keepalive_time", "77")); f = tcp(); V(get(f, IPPROTO_TCP, TCP_KEEPIDLE)); close(f); T(put("/proc/sys/net/core/somaxconn", "2")); f = tcp(); listen(f, 100); struct tcp_info i; socklen_t l = sizeof i; getsockopt(f, IPPROTO_TCP, TCP_INFO, &i, &l); V(i.tcpi_sacked); close(f); T(put("/proc/sys/net/ipv6/bindv6only", "1")); f = tcp6(); V(get(f, IPPROTO_IPV6, IPV6_V6ONLY)); close(f); T(put("/proc/sys/net/ipv6/bindv6only", "0"));
}

/* Settings that act, each in a network of its own. */
static void acting(void) {
    puts("acting"); own_network(); char b[64];
#define SET(name, to) T(put("/proc/sys/net/ipv4/" name, to))
#define GET(name) do { head("/proc/sys/net/ipv4/" name, 1); } while (0)
    SET("ip_local_port_range", "40000 40003"); SET("ip_local_reserved_ports", "40001-40002,39,38"); GET("ip_local_reserved_ports");
    for (int i = 0; i < 3; i++) { int f = udp(); T(bind_to(f, LOCAL, 0)); int p = port_of(f); V(p == 40000 || p == 40003 || !p); }
    for (int i = 0; i < 3; i++) { int f = tcp(); T(bind_to(f, LOCAL, 0)); int p = port_of(f); V(p == 40000 || p == 40003 || !p); }
    int f = tcp(); T(bind_to(f, LOCAL, 40001)); close(f); SET("ip_local_reserved_ports", "5-2"); SET("ip_local_reserved_ports", "70000"); SET("ip_local_reserved_ports", "\n"); GET("ip_local_reserved_ports");
    f = tcp(); T(bind_to(f, "192.0.2.7", 0)); SET("ip_nonlocal_bind", "1"); T(bind_to(f, "192.0.2.7", 0)); close(f); SET("ip_nonlocal_bind", "2");
    f = tcp6(); T(bind_to(f, "::1", 0)); close(f); T(put("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")); head("/proc/net/if_inet6", 9); f = tcp6(); T(bind_to(f, "::1", 0)); close(f); T(put("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0")); head("/proc/net/if_inet6", 9); f = tcp6(); T(bind_to(f, "::1", 0)); close(f);
}

static void devices(void) {
    puts("devices");
    int f = udp(), s = tcp6(); struct ifreq r[8]; struct ifconf c = { sizeof r, { (void *)r } };
    T(ioctl(f, SIOCGIFCONF, &c)); V(c.ifc_len / (int)sizeof *r); S(r[0].ifr_name); S(inet_ntoa(((struct sockaddr_in *)&r[0].ifr_addr)->sin_addr)); c = (struct ifconf){ 0 }; T(ioctl(f, SIOCGIFCONF, &c)); V(c.ifc_len / (int)sizeof *r); c = (struct ifconf){ 20, { (void *)r } }; T(ioctl(f, SIOCGIFCONF, &c)); V(c.ifc_len); T(ioctl(s, SIOCGIFCONF, &c)); c = (struct ifconf){ sizeof r, { BAD } }; T(ioctl(f, SIOCGIFCONF, &c));
    struct ifreq q;
#define ASK(what, ...) do { memset(&q, 0, sizeof q); strcpy(q.ifr_name, "lo"); T(ioctl(f, what, &q)); __VA_ARGS__; } while (0)
#define INET(a) S(inet_ntoa(((struct sockaddr_in *)&a)->sin_addr))
    ASK(SIOCGIFADDR, V(q.ifr_addr.sa_family); INET(q.ifr_addr)); ASK(SIOCGIFNETMASK, INET(q.ifr_netmask)); ASK(SIOCGIFBRDADDR, INET(q.ifr_broadaddr)); ASK(SIOCGIFDSTADDR, INET(q.ifr_dstaddr)); ASK(SIOCGIFFLAGS, printf("%x\n", q.ifr_flags)); ASK(SIOCGIFMTU, V(q.ifr_mtu)); ASK(SIOCGIFINDEX, V(q.ifr_ifindex)); ASK(SIOCGIFHWADDR, V(q.ifr_hwaddr.sa_family); V(q.ifr_hwaddr.sa_data[0])); ASK(SIOCGIFMETRIC, V(q.ifr_metric)); ASK(SIOCGIFTXQLEN, V(q.ifr_qlen)); ASK(SIOCGIFMAP, V(q.ifr_map.irq)); ASK(SIOCGIFNAME); q.ifr_ifindex = 1; T(ioctl(f, SIOCGIFNAME, &q)); S(q.ifr_name); q.ifr_ifindex = 77; T(ioctl(f, SIOCGIFNAME, &q));
    strcpy(q.ifr_name, "none"); T(ioctl(f, SIOCGIFADDR, &q)); T(ioctl(f, SIOCGIFFLAGS, &q)); T(ioctl(f, SIOCGIFADDR, BAD)); strcpy(q.ifr_name, "lo:1"); T(ioctl(f, SIOCGIFADDR, &q)); strcpy(q.ifr_name, "lo:1"); T(ioctl(f, SIOCGIFFLAGS, &q));
    V(if_nametoindex("lo")); V(if_nametoindex("none")); char n[IF_NAMESIZE]; V(if_indextoname(1, n) != 0); V(if_indextoname(77, n) != 0); struct if_nameindex *x = if_nameindex(); int found = 0; for (struct if_nameindex *i = x; i && i->if_index; i++) found += !strcmp(i->if_name, "lo"); V(found); if_freenameindex(x);
    struct ifaddrs *a = 0; T(getifaddrs(&a)); for (struct ifaddrs *i = a; i; i = i->ifa_next) if (!strcmp(i->ifa_name, "lo") && i->ifa_addr) { char t[60] = "", m[60] = ""; int fam = i->ifa_addr->sa_family; if (fam == AF_INET || fam == AF_INET6) { inet_ntop(fam, fam == AF_INET ? (void *)&((struct sockaddr_in *)i->ifa_addr)->sin_addr : (void *)&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, t, 60); inet_ntop(fam, fam == AF_INET ? (void *)&((struct sockaddr_in *)i->ifa_netmask)->sin_addr : (void *)&((struct sockaddr_in6 *)i->ifa_netmask)->sin6_addr, m, 60); } printf("family %d flags %x %s mask %s\n", fam, i->ifa_flags, t, m); } freeifaddrs(a);
    /* Changes: a second address by another name, masks, sizes. */
    memset(&q, 0, sizeof q); strcpy(q.ifr_name, "lo"); q.ifr_mtu = 3000; T(ioctl(f, SIOCSIFMTU, &q)); ASK(SIOCGIFMTU, V(q.ifr_mtu)); q.ifr_mtu = 65536; T(ioctl(f, SIOCSIFMTU, &q)); memset(&q, 0, sizeof q); strcpy(q.ifr_name, "lo:1"); addr ad = at("127.77.0.1", 0); memcpy(&q.ifr_addr, &ad, 16); T(ioctl(f, SIOCSIFADDR, &q)); T(ioctl(f, SIOCGIFADDR, &q)); INET(q.ifr_addr); c = (struct ifconf){ sizeof r, { (void *)r } }; T(ioctl(f, SIOCGIFCONF, &c)); V(c.ifc_len / (int)sizeof *r); close(s); s = tcp(); T(bind_to(s, "127.77.0.1", 0)); close(s);
    IN(setresuid(1234, 1234, 1234); strcpy(q.ifr_name, "lo"); q.ifr_flags = 0; T(ioctl(f, SIOCSIFFLAGS, &q)); T(ioctl(f, SIOCGIFFLAGS, &q)); q.ifr_mtu = 900; T(ioctl(f, SIOCSIFMTU, &q)); int g = udp(); T(ioctl(g, SIOCSIFMTU, &q))); close(f);
}

static int try(const char *text_, int type, int doing) { int f = socket(family_of(text_), type | (doing == 2 ? SOCK_NONBLOCK : 0), 0), r = doing ? connect_to(f, text_, 9) : bind_to(f, text_, 0), e = errno; close(f); errno = e; return r; }
static void namespaces(void) {
    puts("namespaces"); forget();
    T(unshare(CLONE_NEWNET)); V(if_nametoindex("lo")); head("/proc/net/if_inet6", 9); head("/proc/net/route", 9); head("/proc/net/dev", 1);
    int f = udp(); struct ifreq q = { .ifr_name = "lo" }; T(ioctl(f, SIOCGIFFLAGS, &q)); printf("%x\n", q.ifr_flags); T(ioctl(f, SIOCGIFADDR, &q)); close(f);
    /* Nothing is up. */
    static const char *of[] = { LOCAL, "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "192.0.2.7" };
    for (int i = 0; i < 7; i++) { printf("%s\n", of[i]); T(try(of[i], SOCK_STREAM, 0)); T(try(of[i], SOCK_STREAM, 1)); T(try(of[i], SOCK_DGRAM, 0)); T(try(of[i], SOCK_DGRAM, 1)); }
    f = udp(); addr a = at(LOCAL, 9); T(sendto(f, "x", 1, 0, &a.s, 16)); close(f); f = tcp(); T(listen(f, 1)); close(f);
    T(lo_up(1)); puts("up"); for (int i = 0; i < 7; i++) { printf("%s\n", of[i]); T(try(of[i], SOCK_STREAM, 0)); T(try(of[i], SOCK_STREAM, 1)); T(try(of[i], SOCK_DGRAM, 0)); T(try(of[i], SOCK_DGRAM, 1)); } head("/proc/net/if_inet6", 9); f = udp(); T(ioctl(f, SIOCGIFFLAGS, &q)); printf("%x\n", q.ifr_flags); T(ioctl(f, SIOCGIFADDR, &q)); INET(q.ifr_addr); close(f);
    /* Ports of one are not those of the other. */
    int l = tcp(); T(bind_to(l, LOCAL, 6000)); T(listen(l, 3)); int here = open("/proc/self/ns/net", O_RDONLY);
    IN(T(unshare(CLONE_NEWNET)); lo_up(1); int c = tcp(); T(connect_to(c, LOCAL, 6000)); close(c); int m = tcp(); T(bind_to(m, LOCAL, 6000)); T(listen(m, 1)); ROW("tcp", m); ROW("tcp", l); c = tcp(); T(connect_to(c, LOCAL, 6000)); NOT(l, POLLIN); int k = accept(m, 0, 0); V(k >= 0);
       /* A socket keeps the namespace that it was made in. */
       int old = dup(l); T(setns(here, CLONE_NEWNET)); int d = tcp(); T(connect_to(d, LOCAL, 6000)); P(l, POLLIN); T(close(accept(old, 0, 0))); T(send(c, "still", 5, 0)); char b[9]; T(recv(k, b, 9, 0)); ROW("tcp", l); ROW("tcp", m));
    T(lo_up(0)); puts("down again"); T(try(LOCAL, SOCK_STREAM, 0)); T(try("192.0.2.7", SOCK_STREAM, 0)); T(try(LOCAL, SOCK_STREAM, 2)); T(try(LOCAL, SOCK_DGRAM, 1)); T(try("::1", SOCK_STREAM, 0)); T(try("::1", SOCK_STREAM, 2)); f = udp(); T(ioctl(f, SIOCGIFADDR, &q)); close(f); T(lo_up(1)); T(try("::1", SOCK_STREAM, 1)); f = tcp(); T(connect_to(f, LOCAL, 6000)); close(f); close(l);
    /* Who may not. */
    IN(T(setresuid(1234, 1234, 1234)); T(unshare(CLONE_NEWNET)); T(lo_up(0)); T(unshare(CLONE_NEWUSER | CLONE_NEWNET)); T(lo_up(1)); T(try(LOCAL, SOCK_STREAM, 1)); T(socket(AF_INET, SOCK_RAW, 1) >= 0));
}

int main(void) {
    own_network();
    values();
    put("/proc/sys/net/core/somaxconn", "4096"); put("/proc/sys/net/ipv4/ip_default_ttl", "64");
    files(); acting(); devices();
    own_network(); namespaces();
    return 0;
}
