#include "guest.h"
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
/* Memory policies as on a machine with one node: set_mempolicy, get_mempolicy, mbind, their home node, migrate_pages, move_pages, numa_maps;
 * and mseal. Needs a native machine with one node, as the one that the sandbox shows. */
enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, MANY, WEIGHTED, STATIC = 1 << 15, RELATIVE = 1 << 14, BALANCING = 1 << 13 };
#define P 4096
static int mode; static unsigned long mask[64];
static void now(int line) { mode = -1; memset(mask, 0xff, sizeof mask); long r = SYS(get_mempolicy, &mode, mask, 64 + 1, 0, 0); printf("%d policy %ld %x %lx\n", line, r, mode, mask[0]); }
static void at(int line, void *p) { mode = -1; memset(mask, 0xff, sizeof mask); long r = SYS(get_mempolicy, &mode, mask, 64 + 1, p, 2); printf("%d at %ld %x %lx\n", line, r, mode, mask[0]); }
/* The words about an address in numa_maps, but for its counts. */
static void numa(int line, void *p) {
    char l[4096], head[32]; sprintf(head, "%08lx ", (long)p); FILE *f = fopen("/proc/self/numa_maps", "r");
    while (fgets(l, sizeof l, f)) if (!strncmp(l, head, strlen(head))) { char *end = l + strlen(head); end += strncmp(end, "prefer (many)", 13) && strncmp(end, "weighted ", 9) ? strcspn(end, " \n") : 16 + strcspn(end + 16, " \n"); *end = 0; printf("%d numa %s\n", line, l + strlen(head)); }
    fclose(f);
}
static void flags(int line, void *p) {
    char l[4096], head[32]; sprintf(head, "%lx-", (long)p); FILE *f = fopen("/proc/self/smaps", "r"); int in = 0;
    while (fgets(l, sizeof l, f)) { if (strchr(l, '-') && strspn(l, "0123456789abcdef") >= 8) in = !strncmp(l, head, strlen(head)); if (in && !strncmp(l, "VmFlags", 7)) printf("%d sealed %d\n", line, strstr(l, " sl") != 0); }
    fclose(f);
}
int main(void) {
    unsigned long n0 = 1, n1 = 2, n01 = 3, none = 0, two[2] = {1, 0}, high[2] = {1, 1}; int i; char *a = mmap(0, 16 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    now(__LINE__);
    int modes[] = {DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, MANY, WEIGHTED, 7, 99, -1, BIND | STATIC, BIND | RELATIVE, BIND | STATIC | RELATIVE, BIND | BALANCING, MANY | BALANCING, INTERLEAVE | BALANCING, DEFAULT | STATIC, LOCAL | STATIC, PREFERRED | STATIC, PREFERRED | RELATIVE, 1 << 12, BIND | 1 << 16};
    unsigned long *masks[] = {&n0, &n1, &n01, &none, 0};
    for (unsigned m = 0; m < sizeof modes / sizeof *modes; m++) for (int k = 0; k < 5; k++) { printf("%x %d: ", modes[m], k); T(SYS(set_mempolicy, modes[m], masks[k], 65)); now(__LINE__); }
    T(SYS(set_mempolicy, BIND, BAD, 65)); T(SYS(set_mempolicy, 99, BAD, 65)); T(SYS(set_mempolicy, BIND, &n0, 0)); T(SYS(set_mempolicy, BIND, &n0, 1)); T(SYS(set_mempolicy, BIND, &n0, 2)); T(SYS(set_mempolicy, BIND, &n01, 2)); now(__LINE__); T(SYS(set_mempolicy, BIND, two, 129)); T(SYS(set_mempolicy, BIND, &n0, 1 << 20)); T(SYS(set_mempolicy, DEFAULT, 0, 0)); T(SYS(set_mempolicy, PREFERRED, 0, 0)); now(__LINE__); T(SYS(set_mempolicy, DEFAULT, 0, -1L)); now(__LINE__);
    T(SYS(get_mempolicy, 0, 0, 0, 0, 0)); T(SYS(get_mempolicy, &mode, 0, 0, 0, 8)); T(SYS(get_mempolicy, &mode, mask, 0, 0, 0)); T(SYS(get_mempolicy, BAD, 0, 0, 0, 0)); T(SYS(get_mempolicy, &mode, BAD, 65, 0, 0)); T(SYS(get_mempolicy, &mode, mask, 64 * 64, 0, 4)); V(mask[0]); V(mask[1]); V(mode); T(SYS(get_mempolicy, &mode, mask, 65, 0, 5)); T(SYS(get_mempolicy, &mode, mask, 65, 0, 6)); T(SYS(get_mempolicy, &mode, mask, 65, a, 0)); T(SYS(get_mempolicy, &mode, mask, 65, a, 4)); V(mode); T(SYS(get_mempolicy, &mode, mask, 65, 16, 2)); T(SYS(get_mempolicy, &mode, mask, 65, 0, 1)); T(SYS(get_mempolicy, &mode, mask, 65, 16, 3)); T(SYS(get_mempolicy, &mode, mask, 65, a, 3)); V(mode); SYS(set_mempolicy, INTERLEAVE, &n0, 65); T(SYS(get_mempolicy, &mode, mask, 65, 0, 1)); V(mode); SYS(set_mempolicy, BIND, &n0, 65); T(SYS(get_mempolicy, &mode, mask, 65, 0, 1)); T(SYS(get_mempolicy, &mode, mask, 1L << 40, 0, 0));
    /* Inherited; a thread's own. */
    if (!fork()) { now(__LINE__); at(__LINE__, a); SYS(set_mempolicy, DEFAULT, 0, 0); _exit(0); } wait(0); now(__LINE__); numa(__LINE__, a); SYS(set_mempolicy, DEFAULT, 0, 0);
    /* Of ranges. */
    T(SYS(mbind, a + 4 * P, 4 * P, BIND, &n0, 65, 0)); at(__LINE__, a); at(__LINE__, a + 4 * P); at(__LINE__, a + 8 * P); at(__LINE__, a + 5 * P + 17); numa(__LINE__, a); numa(__LINE__, a + 4 * P); numa(__LINE__, a + 8 * P);
    for (i = 1; i < 7; i++) { printf("%d ", i); T(SYS(mbind, a + 4 * P, 4 * P, i, i == LOCAL ? &none : &n0, 65, 0)); at(__LINE__, a + 4 * P); numa(__LINE__, a + 4 * P); } T(SYS(mbind, a + 4 * P, 4 * P, BIND | STATIC, &n01, 65, 0)); at(__LINE__, a + 4 * P); numa(__LINE__, a + 4 * P); T(SYS(mbind, a + 4 * P, 4 * P, BIND | RELATIVE, &n1, 65, 0)); at(__LINE__, a + 4 * P); numa(__LINE__, a + 4 * P); T(SYS(mbind, a + 4 * P, 4 * P, BIND | BALANCING, &n0, 65, 0)); at(__LINE__, a + 4 * P); numa(__LINE__, a + 4 * P); T(SYS(mbind, a + 4 * P, 4 * P, MANY | BALANCING | STATIC, &n0, 65, 0)); numa(__LINE__, a + 4 * P);
    T(SYS(mbind, a, 16 * P, DEFAULT, 0, 0, 1)); at(__LINE__, a + 4 * P); T(SYS(mbind, a + 1, P, BIND, &n0, 65, 0)); T(SYS(mbind, a, 0, BIND, &n0, 65, 0)); T(SYS(mbind, a, 0, BIND, &n1, 65, 0)); T(SYS(mbind, a, P, BIND, &n0, 65, 8)); T(SYS(mbind, a, P, 99, &n0, 65, 8)); T(SYS(mbind, a, P, BIND, &n1, 65, 0)); T(SYS(mbind, a, P, BIND, BAD, 65, 0)); T(SYS(mbind, a, -1L, BIND, &n0, 65, 0)); T(SYS(mbind, P, P, BIND, &n0, 65, 0)); memset(a, 1, 8 * P); T(SYS(mbind, a, 8 * P, BIND, &n0, 65, 3)); T(SYS(mbind, a, 8 * P, BIND, &n0, 65, 7)); munmap(a + 2 * P, P); T(SYS(mbind, a, 8 * P, BIND, &n0, 65, 0)); if (!fork()) { setuid(1000); T(SYS(mbind, a, P, BIND, &n0, 65, 4)); T(SYS(mbind, a, P, BIND, &n0, 65, 2)); T(SYS(move_pages, 0, 0, 0, 0, 0, 4)); T(SYS(move_pages, getppid(), 0, 0, 0, 0, 0)); T(SYS(migrate_pages, getppid(), 65, &n0, &n0)); T(SYS(migrate_pages, 0, 65, &n0, &n01)); _exit(0); } wait(0);
    T(SYS(set_mempolicy_home_node, a, P, 0, 0)); T(SYS(set_mempolicy_home_node, a, P, 1, 0)); T(SYS(set_mempolicy_home_node, a, P, 0, 1)); T(SYS(set_mempolicy_home_node, a + 1, P, 0, 0)); T(SYS(set_mempolicy_home_node, a, 0, 0, 0)); T(SYS(set_mempolicy_home_node, a + 10 * P, P, 0, 0)); SYS(mbind, a + 10 * P, P, INTERLEAVE, &n0, 65, 0); T(SYS(set_mempolicy_home_node, a + 10 * P, P, 0, 0)); T(SYS(set_mempolicy_home_node, a, -1L, 0, 0)); T(SYS(set_mempolicy_home_node, a, P, 9999, 0));
    /* Pages. */
    T(SYS(migrate_pages, 0, 65, &n0, &n0)); T(SYS(migrate_pages, 0, 65, &n0, &n1)); T(SYS(migrate_pages, 0, 65, &n0, &n01)); T(SYS(migrate_pages, 0, 65, &n0, &none)); T(SYS(migrate_pages, 999999, 65, &n0, &n0)); T(SYS(migrate_pages, 0, 65, BAD, &n0)); T(SYS(migrate_pages, 0, 129, high, two));
    char *b = mmap(0, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); b[0] = 1; b[P] = 1; volatile char zero = b[2 * P]; munmap(b + 3 * P, P); void *pages[] = {b, b + P + 5, b + 2 * P, b + 3 * P, a + 15 * P, main}; int st[6], to[6] = {0}; memset(st, 0x55, sizeof st); T(SYS(move_pages, 0, 6, pages, 0, st, 0)); for (i = 0; i < 6; i++) printf("%d ", st[i]); puts(""); memset(st, 0x55, sizeof st); T(SYS(move_pages, getpid(), 2, pages, to, st, 2)); for (i = 0; i < 3; i++) printf("%d ", st[i]); puts(""); to[1] = 1; T(SYS(move_pages, 0, 2, pages, to, st, 2)); to[1] = -1; T(SYS(move_pages, 0, 2, pages, to, st, 2)); T(SYS(move_pages, 0, 0, 0, 0, 0, 0)); T(SYS(move_pages, 0, 2, BAD, 0, st, 0)); T(SYS(move_pages, 0, 2, pages, 0, BAD, 0)); T(SYS(move_pages, 0, 2, pages, 0, st, 1)); T(SYS(move_pages, 999999, 2, pages, 0, st, 0)); (void)zero;
    /* Sealed memory. */
    char *s = mmap(0, 8 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); s[3 * P] = 'x'; T(SYS(mseal, s + 2 * P, 4 * P, 1)); T(SYS(mseal, s + 1, P, 0)); T(SYS(mseal, s, 0, 0)); T(SYS(mseal, s, -1L, 0)); T(SYS(mseal, 0x10000, P, 0)); T(SYS(mseal, s + 2 * P, 4 * P, 0)); T(SYS(mseal, s + 2 * P, 4 * P, 0)); flags(__LINE__, s); flags(__LINE__, s + 2 * P); flags(__LINE__, s + 6 * P);
    T(munmap(s + 2 * P, P)); T(munmap(s, 8 * P)); T(munmap(s, 3 * P)); T(mprotect(s + 3 * P, P, PROT_READ)); OK(mremap(s + 2 * P, P, 2 * P, MREMAP_MAYMOVE)); OK(mremap(s + 3 * P, 2 * P, P, 0)); OK(mmap(s + 2 * P, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)); OK(mremap(s, P, P, MREMAP_MAYMOVE | MREMAP_FIXED, s + 3 * P)); T(madvise(s + 3 * P, P, MADV_DONTNEED)); V(s[3 * P]); s[3 * P] = 'y'; V(s[3 * P]); T(munmap(s + 6 * P, 2 * P)); T(munmap(s, P));
    char *r = mmap(0, 2 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); r[0] = 'r'; mprotect(r, 2 * P, PROT_READ); T(SYS(mseal, r, 2 * P, 0)); T(madvise(r, P, MADV_DONTNEED)); T(madvise(r, P, MADV_FREE)); T(madvise(r, P, MADV_DONTFORK)); T(madvise(r, P, MADV_WIPEONFORK)); T(madvise(r, P, MADV_WILLNEED)); T(madvise(r, P, MADV_NORMAL)); V(r[0]); T(mprotect(r, P, PROT_READ)); if (!fork()) { T(munmap(r, P)); _exit(0); } wait(0);
    char *brk0 = sbrk(0); sbrk(4 * P); char *low = (char *)(((long)brk0 + P - 1) & -P); T(SYS(mseal, low + P, P, 0)); T(SYS(brk, brk0) != (long)brk0); V((char *)SYS(brk, 0) == brk0 + 4 * P);
    return 0;
}
