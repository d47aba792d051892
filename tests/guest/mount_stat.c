#include "guest.h"
#include <sys/mount.h>
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
#endif
/* Mounts by their unique numbers: statmount, listmount, and what statx says of them. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
struct req { uint32_t size, fd; uint64_t id, param, ns; };
struct sm { uint32_t size, opts; uint64_t mask; uint32_t major, minor; uint64_t magic; uint32_t flags, type; uint64_t id, parent; uint32_t old, old_parent; uint64_t attr, prop, peer, master, from; uint32_t root, point; uint64_t ns; uint32_t subtype, source, optn, opta, secn, seca; uint64_t supported; uint32_t maps[4]; uint64_t spare[43]; char str[4096]; };
static char base[4096];
static struct sm s;
static uint64_t unique(const char *p) { struct { uint32_t mask, a; uint64_t b[17]; uint64_t id, rest[13]; } x = {0}; char b[256] = {0}; if (SYS(statx, AT_FDCWD, p, AT_SYMLINK_NOFOLLOW, 0x4000, b)) return 0; if (!(*(uint32_t *)b & 0x4000) || *(uint32_t *)b & 0x1000) return 1; return *(uint64_t *)(b + 0x90); }
static uint64_t old(const char *p) { char b[256] = {0}; if (SYS(statx, AT_FDCWD, p, 0, 0x1000, b) || !(*(uint32_t *)b & 0x1000) || *(uint32_t *)b & 0x4000) return 0; return *(uint64_t *)(b + 0x90); }
static int stat_of(uint64_t id, uint64_t mask, unsigned flags) { struct req r = {32, 0, id, mask, 0}; memset(&s, 0x55, sizeof s); return SYS(statmount, &r, &s, sizeof s, flags); }
static void tell(int line, const char *p, uint64_t mask) {
    if (stat_of(unique(p), mask, 0)) { printf("%d %s: %s\n", line, p, strerrorname_np(errno)); return; } mask = s.mask; printf("%d %s: mask %lx", line, p, (long)mask); if (mask & 1) printf(" magic %lx sb %x", (long)s.magic, s.flags); if (mask & 2) printf(" attr %lx prop %lx peer %d master %d old %d unique %d parent %d", (long)s.attr, (long)s.prop, !!s.peer, !!s.master, s.old == old(p), s.id == unique(p), s.parent == s.id); if (mask & 4) printf(" from %d", s.from == s.master); if (mask & 8) printf(" root %s", s.str + s.root); if (mask & 16) { char *at = s.str + s.point; printf(" point %s", strncmp(at, base, strlen(base)) ? at : at + strlen(base)); } if (mask & 32) printf(" type %s", s.str + s.type); if (mask & 64) printf(" ns %d", s.ns > 0); if (mask & 128) { char *o = s.str + s.opts, *i = strstr(o, ",inode64"); if (i) *i = 0; printf(" options %s", o); } if (mask & 0x200) printf(" source %s", s.str + s.source); if (mask & 0x400) { printf(" %d:", s.optn); char *o = s.str + s.opta; for (int i = 0; i < s.optn; i++, o += strlen(o) + 1) if (strcmp(o, "inode64")) printf(" %s", o); } if (mask & 0x1000) printf(" supported %d", (s.supported & 0x16ff) == 0x16ff); puts("");
}
#define TELL(p, mask) tell(__LINE__, p, mask)
static uint64_t ids[4096];
static long all(uint64_t of, uint64_t after, long n, unsigned flags) { struct req r = {32, 0, of, after, 0}; return SYS(listmount, &r, ids, n, flags); }
/* Which of ours are told of, in order. */
static void names(int line, long n) { printf("%d lists %s:", line, n < 0 ? strerrorname_np(errno) : ""); const char *of[] = {"a", "a/in", "b", "b/in", "."}; for (long i = 0; i < n; i++) for (int k = 0; k < 5; k++) if (ids[i] == unique(of[k]) && strlen(of[k])) { printf(" %s", of[k]); break; } puts(""); }
#define NAMES(...) names(__LINE__, all(__VA_ARGS__))
static void body(void) {
    mkdir("w", 0755); T(mount("ground", "w", "tmpfs", 0, 0)); chdir("w"); getcwd(base, 4096); mkdir("a", 0755); mkdir("b", 0755); mkdir("a b", 0755); T(mount("x", "a", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=711")); mkdir("a/in", 0755); T(mount("r", "a/in", "ramfs", MS_RDONLY | MS_NOATIME, 0)); T(mount("a", "b", 0, MS_BIND | MS_REC, 0));
    V(unique(".") > 1UL << 31); V(unique("a") != unique("b")); V(unique("a") == unique("a/in")); V(unique("a") > unique(".")); V(old("a") != unique("a"));
    TELL("a", 3); TELL("a", 0); TELL("a", 0xfff); TELL("a/in", 0x7ff); TELL("b", 0x7ff); TELL("b/in", 0x21f); TELL(".", 0x5f & ~16UL); TELL("a", 0x1002); T(mount(0, "a", 0, MS_SHARED, 0)); T(mount("a", "a b", 0, MS_BIND, 0)); T(mount(0, "a b", 0, MS_SLAVE, 0)); TELL("a", 6); TELL("a b", 0x1e); T(mount(0, "b", 0, MS_UNBINDABLE, 0)); T(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_NOEXEC | MS_STRICTATIME | MS_NODIRATIME, 0)); TELL("b", 6); T(umount("a b"));
    /* Things that are said wrongly. */
    struct req r = {32, 0, unique("a"), 3, 0}; T(stat_of(1, 3, 0)); T(stat_of(1UL << 31, 3, 0)); T(stat_of(1UL << 62, 3, 0)); T(stat_of(unique("a"), 3, 1)); T(SYS(statmount, BAD, &s, sizeof s, 0)); T(SYS(statmount, &r, BAD, sizeof s, 0)); r.size = 23; T(SYS(statmount, &r, &s, sizeof s, 0)); r.size = 24; T(SYS(statmount, &r, &s, sizeof s, 0)); r.size = 5000; T(SYS(statmount, &r, &s, sizeof s, 0)); char more[64] = {0}; r.size = 64; memcpy(more, &r, 32); T(SYS(statmount, more, &s, sizeof s, 0)); more[60] = 1; T(SYS(statmount, more, &s, sizeof s, 0)); r.size = 32; r.ns = 12345; T(SYS(statmount, &r, &s, sizeof s, 0)); r.ns = 0; stat_of(unique("a"), 0x40, 0); r.ns = s.ns; T(SYS(statmount, &r, &s, sizeof s, 0)); r.ns = 0; memset(&s, 0x55, sizeof s); T(SYS(statmount, &r, &s, 16, 0)); printf("%x %x %lx\n", s.size, s.opts, (long)s.mask); r.param = 0x20; T(SYS(statmount, &r, &s, 512, 0)); T(SYS(statmount, &r, &s, 515, 0)); T(SYS(statmount, &r, &s, 540, 0)); T(SYS(statmount, &r, &s, 0, 0));
    NAMES(~0UL, 0, 4096, 0); NAMES(unique("."), 0, 4096, 0); NAMES(unique("a"), 0, 10, 0); NAMES(unique("a/in"), 0, 10, 0); NAMES(unique("."), unique("a"), 10, 0); NAMES(unique("."), 0, 1, 0); NAMES(unique("."), 0, 0, 0); NAMES(unique("."), 0, 10, 1); NAMES(unique("."), unique("b"), 10, 1); NAMES(unique("."), 0, 10, 2); NAMES(5, 0, 10, 0); NAMES(1UL << 62, 0, 10, 0); NAMES(unique("."), 5, 10, 0); NAMES(unique("."), 0, 1000001, 0); struct req l = {32, 0, unique("."), 0, 0}; T(SYS(listmount, &l, BAD, 4, 0)); T(SYS(listmount, BAD, ids, 4, 0)); l.ns = 99; T(SYS(listmount, &l, ids, 4, 0));
    /* From within. */
    uint64_t a = unique("a"), dot = unique("."), in = unique("a/in"); IN(chroot("a"); chdir("/"); T(all(~0UL, 0, 10, 0)); V(ids[0] == a); V(ids[1] == in); T(stat_of(a, 0x1a, 0)); printf("%s\n", s.mask & 16 ? s.str + s.point : "?"); T(stat_of(in, 0x1a, 0)); printf("%s\n", s.str + s.point); T(stat_of(dot, 0x1a, 0)); V(s.mask); setuid(1000); T(stat_of(a, 2, 0)); T(stat_of(dot, 2, 0)); T(all(dot, 0, 10, 0)); T(all(~0UL, 0, 10, 0)));
    /* Detached ones are in no namespace. */
    int t = open_tree(AT_FDCWD, "a", OPEN_TREE_CLONE); char b[256] = {0}; T(SYS(statx, t, "", AT_EMPTY_PATH, 0x4000, b)); T(stat_of(*(uint64_t *)(b + 0x90), 3, 0)); T(umount2("a", MNT_DETACH)); T(stat_of(a, 3, 0)); chdir("/");
}
int main(void) { IN(body()); return 0; }
