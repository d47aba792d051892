/* Limits of memory: reservations, many areas, locks, RLIMIT_AS, _DATA, _STACK, _MEMLOCK, and advice. */
#include "guest.h"
#include <setjmp.h>
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
static void status(const char *name) { char line[200]; FILE *f = fopen("/proc/self/status", "r"); while (f && fgets(line, sizeof line, f)) if (!strncmp(line, name, strlen(name))) printf("  %s", line); if (f) fclose(f); }
static long depth;
static sigjmp_buf back;
static void over(int s) { (void)s; siglongjmp(back, 1); }
static __attribute__((noinline)) void deeper(void) { volatile char b[4096]; b[0] = depth; depth += 4096; deeper(); b[1] = 1; }
static void deep(long limit) {
    static char own[65536];
    stack_t ss = { .ss_sp = own, .ss_size = sizeof own };
    struct sigaction a = { .sa_handler = over, .sa_flags = SA_ONSTACK };
    sigaltstack(&ss, 0); sigaction(SIGSEGV, &a, 0);
    if (!sigsetjmp(back, 1)) deeper();
    printf("stack of %ld: %s\n", limit, depth > limit - 300000 && depth <= limit ? "as deep" : "not so");
}
/* A program's stack grows to its limit, and no further. */
static void stacks(void) {
    for (long limit = 1 << 20; limit <= 16 << 20; limit *= 4) {
        struct rlimit l = { limit, RLIM_INFINITY };
        setrlimit(RLIMIT_STACK, &l);
        fflush(stdout);
        if (!fork()) { char text[30]; sprintf(text, "%ld", limit); execl("/proc/self/exe", "memory_limits", text, NULL); _exit(1); }
        wait(0);
    }
}
/* Memory that is moved and grown in turns stays one area. */
static void moves(void) {
    char *p = mmap(0, 512 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *to;
    memset(p, 'a', 512 << 10);
    for (long len = 512 << 10, i = 0; i < 4; i++, len *= 2) {
        to = mmap(0, len * 2 + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(to, len * 2 + 4096);
        char *q = mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        V(q == to);
        p = mremap(q, len, len * 2, i % 2 ? MREMAP_MAYMOVE : 0);
        V(p == q);
        if (p == MAP_FAILED) return;
        memset(p + len, 'b', len);
        T(madvise(p, len * 2, MADV_PAGEOUT));
        V(p[0] == 'a' && p[len - 1] == (i ? 'b' : 'a') && p[2 * len - 1] == 'b');
        char *other = mremap(p, len * 2, len * 2, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
        V(other != p && other[0] == 'a' && p[0] == 0);
        munmap(p, len * 2);
        p = other;
    }
}
int main(int argc, char **argv) {
    if (argc > 1) { deep(atol(argv[1])); return 0; }
    char *p;
    T((p = mmap(0, 40L << 30, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0)) == MAP_FAILED ? -1 : 0);
    T(munmap(p, 40L << 30));
    p = mmap(0, 70000UL * 8192, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0);
    long n = 0; 
    for (; n < 70000; n++) if (mprotect(p + n * 8192, 4096, PROT_READ)) break;
    printf("areas: %s, then %s\n", n * 2 > 65000 ? "over 65000" : "too few", strerrorname_np(errno));
    T(munmap(p, 70000UL * 8192));
    moves();
    stacks();
    struct rlimit l = { 1 << 20, 1 << 20 };
    setrlimit(RLIMIT_MEMLOCK, &l);
    /* Nobody who may lock what he wants. */
    T(setresuid(1000, 1000, 1000));
    p = mmap(0, 8 << 20, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    T(mlock(p, 4096)); T(mlock(p, 2 << 20)); T(mlock2(p, 4096, 1)); T(mlock2(p,4096, 2)); T(mlockall(MCL_FUTURE)); T(munlockall());
    T(mlock(p, 1 << 20)); T(mlock(p, (1 << 20) + 1)); T(mlock(p + (4 << 20), 4096)); T(madvise(p, 4096, MADV_DONTNEED)); T(munlock(p, 8 << 20)); T(madvise(p, 4096, MADV_DONTNEED));
    OK(mmap(0, 1 << 20, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_LOCKED, -1, 0)); OK(mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_LOCKED, -1, 0));
    T(munlockall()); T(mlockall(MCL_CURRENT)); T(mlockall(4)); T(mlockall(8)); T(mlockall(MCL_FUTURE)); OK(mmap(0, 2 << 20, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)); T(munlockall());
    T(mlock(p, 4096)); status("VmLck"); fflush(stdout); if (!fork()) { status("VmLck"); fflush(stdout); _exit(0); } wait(0); T(munlock(p, 4096));
    T(mlock((void*)8, 4096)); T(munlock((void*)8, 4096));
    unsigned char v[8]; memset(v, 9, 8);
    p[0] = 1; p[8192] = 2;
    T(mincore(p, 16384, v)); printf("%d%d%d%d\n", v[0]&1, v[1]&1, v[2]&1, v[3]&1);
    T(madvise(p, 4096, MADV_FREE)); T(madvise(p, 4096, MADV_WIPEONFORK)); T(madvise(p+8192, 4096, MADV_DONTFORK));
    p[0] = 5; fflush(stdout);
    if (!fork()) { V(p[0]); int f[2]; if (pipe(f)) {} T(write(f[1], p + 8192, 1)); fflush(stdout); _exit(0); } wait(0);
    T(madvise(p, 4096, MADV_HUGEPAGE)); T(madvise(p, 4096, MADV_NOHUGEPAGE)); T(madvise(p, 4096, MADV_HWPOISON)); T(madvise(p,4096, MADV_REMOVE)); T(madvise(p, 4096, MADV_COLD)); T(madvise(p, 4096, MADV_PAGEOUT)); T(madvise(p, 4096, MADV_POPULATE_READ)); T(madvise(p, 4096, MADV_POPULATE_WRITE)); T(madvise(p, 4096, 99)); T(madvise(p, 4096, MADV_MERGEABLE)); T(madvise(p, 4096, MADV_DONTDUMP));
    l.rlim_cur = l.rlim_max = 64 << 20; setrlimit(RLIMIT_DATA, &l);
    OK(mmap(0, 128 << 20, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0));
    OK(mmap(0, 128 << 20, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0));
    OK(sbrk(100 << 20));
    l.rlim_cur = l.rlim_max = 256 << 20; setrlimit(RLIMIT_AS, &l);
    OK(mmap(0, 512 << 20, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0));
    OK(mremap(p, 8 << 20, 512 << 20, MREMAP_MAYMOVE));
    char *s = mmap(0, 8192, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0); s[0] = 7;
    char *d = mremap(s, 0, 8192, MREMAP_MAYMOVE); printf("dup %d\n", d == MAP_FAILED ? -errno : d[0]);
    OK(SYS(remap_file_pages, s, 4096, 0, 1, 0));
    T(SYS(mincore, s, 8192, v)); printf("%d%d\n", v[0]&1, v[1]&1);
    char *h = mmap(0, 2 << 20, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0); printf("huge %d\n", h == MAP_FAILED ? errno : 0);
    return 0;
}
