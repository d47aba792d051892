/* Restartable sequences: what rseq(2) says, per-processor counters that come out exact though threads are interrupted and moved,
 * what fork, exec and new threads have of it, and how one that unmaps its area ends. */
#include "guest.h"
#include <elf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#define AT_RSEQ_ALIGN 28
#endif
#define SIG 0x53053053u
struct area { uint32_t cpu_id_start, cpu_id; uint64_t cs; uint32_t flags, node_id, mm_cid, pad; } __attribute__((aligned(32)));
struct sequence { uint32_t version, flags; uint64_t start, len, abort; } __attribute__((aligned(32)));
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));
/* The area that libc registered for this thread. */
static struct area *libcs(void) { return (struct area *)((char *)__builtin_thread_pointer() + __rseq_offset); }
static long reg(void *a, unsigned len, int flags, unsigned sig) { return SYS(rseq, a, len, flags, sig); }
static struct { long count, pad[7]; } counters[1024];
static long aborts;
/* Adds one to a counter of this processor; 0 if it was interrupted. */
static int add(struct area *a, int spin) {
    unsigned cpu = *(volatile uint32_t *)&a->cpu_id_start;
    long *c = &counters[cpu % 1024].count;
    long value;
    __asm__ goto volatile(
        ".pushsection __rseq_cs, \"aw\"\n.balign 32\n3: .long 0, 0\n.quad 1f, 2f - 1f, 4f\n.popsection\n"
        "lea 3b(%%rip), %%rax\nmov %%rax, 8(%0)\n"
        "1: cmp %1, 4(%0)\njnz 4f\n"
        "mov (%2), %%rax\n"
        "mov %3, %%ecx\n5: dec %%ecx\njg 5b\n"
        "inc %%rax\nmov %%rax, (%2)\n2:\n"
        ".pushsection __rseq_failure, \"ax\"\n.byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n4: jmp %l[aborted]\n.popsection\n"
        :: "r"(a), "r"(cpu), "r"(c), "r"(spin) : "rax", "rcx", "memory", "cc" : aborted);
    return 1;
aborted:
    return 0;
}
static volatile int stop;
static long each;
static void *worker(void *p) {
    struct area *a = libcs();
    long failed = 0;
    for (long i = 0; i < each; i++) while (!add(a, i % 64 ? 20 : 4000)) failed++;
    __atomic_fetch_add(&aborts, failed, __ATOMIC_RELAXED);
    return p;
}
static long total(void) { long n = 0; for (int i = 0; i < 1024; i++) n += counters[i].count; return n; }
static long moved;
static void *mover(void *p) {
    pthread_t *t = p;
    for (int i = 0; !stop; i++) {
        cpu_set_t s; CPU_ZERO(&s); CPU_SET(i & 1, &s);
        pthread_setaffinity_np(t[i % 4], sizeof s, &s);
        moved++;
        usleep(200);
    }
    return p;
}
static void handler(int s) { (void)s; while (!add(libcs(), 50)) ; }
static long signalled;
static void *sender(void *p) {
    pthread_t *t = p;
    for (int i = 0; !stop; i++) { pthread_kill(t[i % 4], SIGUSR1); signalled++; usleep(150); }
    return p;
}
static void counting(const char *how, void *(*other)(void *)) {
    pthread_t t[4], o;
    memset(counters, 0, sizeof counters);
    stop = 0; aborts = moved = signalled = 0;
    struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &sa, 0);
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, worker, 0);
    if (other) pthread_create(&o, 0, other, t);
    /* Threads are not joined while another may still name them. */
    for (;;) { usleep(20000); if (total() >= 4 * each) break; }
    stop = 1;
    if (other) pthread_join(o, 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    long handled = other == sender ? 1 : 0;
    printf("%s: %s, aborts %s\n", how, handled ? (total() >= 4 * each && total() <= 4 * each + signalled ? "as it should be" : "wrong") : total() == 4 * each ? "exact" : "wrong",
        !other ? "any" : aborts > 0 ? "some" : "none");
}
/* A signal that finds a thread in a sequence: the handler returns to the abort. */
static struct area *mine;
static void look(int s) { (void)s; printf("handler: sequence %s\n", mine->cs ? "there" : "forgotten"); }
static int forked(void (*f)(void)) { fflush(stdout); pid_t p = fork(); if (!p) { f(); fflush(stdout); _exit(0); } int s = 0; waitpid(p, &s, 0); if (WIFSIGNALED(s)) printf("ended by %d\n", WTERMSIG(s)); else printf("status %d\n", WEXITSTATUS(s)); return s; }
/* Until the host has taken the processor away. */
static void busy(void) { for (volatile long i = 0; i < 400000000; i++) ; }
static struct area *page;
static void fresh(void) { page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); T(reg(libcs(), 32, 1, SIG)); T(reg(page, 32, 0, SIG)); V(page->cpu_id < 1024); }
static void unmaps(void) { fresh(); munmap(page, 4096); busy(); }
static void protects(void) { fresh(); mprotect(page, 4096, PROT_READ); busy(); }
static void replaces(void) { fresh(); OK(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)); page->cpu_id = -5; usleep(1000); V(page->cpu_id < 1024); }
static void moves(void) { fresh(); char *p = mmap(0, 8192, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, p); busy(); }
static void gives_back(void) { fresh(); T(madvise(page, 4096, MADV_DONTNEED)); usleep(1000); V(page->cpu_id < 1024); }
static void no_fork(void) {
    fresh(); T(madvise(page, 4096, MADV_DONTFORK));
    fflush(stdout);
    pid_t p = fork(); int s = 0;
    if (!p) _exit(0);
    if (p > 0) waitpid(p, &s, 0);
    printf("a copy without the area %s\n", p < 0 ? strerrorname_np(errno) : WIFSIGNALED(s) ? "ends" : "lives");
    V(page->cpu_id < 1024);
}
static void unregisters(void) { fresh(); T(reg(page, 32, 1, SIG)); V((int)page->cpu_id); T(munmap(page, 4096)); busy(); printf("lives\n"); }
static void nonsense(void) { fresh(); page->cs = 8; busy(); usleep(1000); printf("lives\n"); }
static char nowhere[64] __attribute__((aligned(32)));
static void badly_signed(void) {
    static struct sequence s;
    fresh();
    s.start = 0x10000; s.len = 1UL << 46; s.abort = (unsigned long)nowhere + 32;
    s.start = 4096; s.len = (unsigned long)busy - 4096 + (1 << 20);
    page->cs = (unsigned long)&s; busy(); usleep(1000); printf("lives\n");
}
static void child(void) {
    struct area *a = libcs();
    T(reg(a, 32, 0, SIG));
    V(a->cpu_id < 1024);
    while (!add(a, 10)) ;
    V(total());
}
static void *bare(void *p) {
    /* What libc registered is of this thread. */
    V((int)libcs()->cpu_id >= 0);
    T(reg(libcs(), 32, 0, SIG));
    T(reg(p, 32, 0, SIG));
    T(reg(libcs(), 32, 1, SIG));
    T(reg(libcs(), 32, 1, SIG));
    V((int)libcs()->cpu_id);
    T(reg(p, 32, 0, 7));
    V(((struct area *)p)->cpu_id == sched_getcpu() || ((struct area *)p)->cpu_id < 1024);
    T(reg(p, 32, 1, SIG)); T(reg(p, 32, 1, 7)); T(reg(libcs(), 32, 0, SIG));
    return 0;
}
static int raw(void *p) {
    /* A process with the same memory begins without. */
    long r = reg(p, 32, 0, SIG);
    int ok = r == 0 && ((volatile struct area *)p)->cpu_id < 1024;
    return ok ? 7 : 9;
}
/* Ends while others unmap where its area was. */
static void leaving(void) {
    for (int i = 0; i < 300; i++) {
        char *stack = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        static int gone; gone = 1;
        int tid = clone(raw, stack + 65536, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID, stack, 0, 0, &gone);
        if (tid < 0) { printf("clone: %d\n", errno); return; }
        while (__atomic_load_n(&gone, __ATOMIC_SEQ_CST)) SYS(futex, &gone, 0, 1, 0, 0, 0);
        munmap(stack, 65536);
    }
    printf("left\n");
}
static void filtered(void) {
    struct sock_filter f[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
    struct sock_fprog prog = { 1, f };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
    leaving();
}
int main(int argc, char **argv) {
    if (argc > 1) { V((int)libcs()->cpu_id >= 0); T(reg(libcs(), 32, 0, SIG)); return 0; }
    static char space[8192] __attribute__((aligned(4096)));
    struct area *a = libcs(), *other = aligned_alloc(4096, 8192);
    memset(other, 0, 8192);
    V(&__rseq_size != 0 && __rseq_size >= 20);
    V(getauxval(AT_RSEQ_FEATURE_SIZE)); V(getauxval(AT_RSEQ_ALIGN));
    V(a->cpu_id < 1024 && a->cpu_id_start == a->cpu_id);
    /* What is wrong with a registration. */
    T(reg(a, 32, 0, SIG)); T(reg(a, 32, 0, 7)); T(reg(a, 64, 0, SIG)); T(reg(other, 32, 0, SIG)); T(reg(a, 32, 2, SIG)); T(reg(a, 32, 3, SIG)); T(reg(a, 32, -1, SIG));
    T(reg(other, 32, 1, SIG)); T(reg(a, 64, 1, SIG)); T(reg(a, 32, 1, 7)); T(reg(0, 32, 1, SIG));
    T(reg(a, 32, 1, SIG)); V((int)a->cpu_id); T(reg(a, 32, 1, SIG));
    T(reg(0, 32, 0, SIG)); T(reg(BAD, 32, 0, SIG)); T(reg((char *)other + 8, 32, 0, SIG)); T(reg(other, 31, 0, SIG)); T(reg(other, 0, 0, SIG)); T(reg((void *)-4096L, 32, 0, SIG)); T(reg((void *)(1L << 40), 32, 0, SIG)); T(reg(other, 33, 0, SIG)); T(reg(other, 33, 1, SIG));
    T(reg(other, 4096, 0, SIG)); T(reg(other, 4096, 1, SIG));
    other->cs = 12345; T(reg(other, 32, 0, SIG)); V(other->cs); T(reg(other, 32, 1, SIG));
    T(reg(space, 32, 0, SIG)); V(((struct area *)space)->cpu_id < 1024); T(reg(space, 32, 1, SIG));
    T(reg(a, 32, 0, SIG)); V(a->cpu_id < 1024);
    for (int c = 0; c < 2; c++) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(c, &s); T(sched_setaffinity(0, sizeof s, &s)); V(*(volatile uint32_t *)&a->cpu_id); V(sched_getcpu()); unsigned n; SYS(getcpu, &n, 0, 0); V(n); }
    cpu_set_t all; CPU_ZERO(&all); CPU_SET(0, &all); CPU_SET(1, &all); sched_setaffinity(0, sizeof all, &all);
    pthread_t t; pthread_create(&t, 0, bare, other); pthread_join(t, 0);
    char *stack = malloc(65536);
    memset(other, 0, sizeof *other);
    pid_t p = clone(raw, stack + 65536, CLONE_VM | SIGCHLD, other); int st = 0; waitpid(p, &st, 0); V(WEXITSTATUS(st));
    each = 200000; counting("alone", 0);
    each = 1000000; counting("moved", mover); V(moved > 0);
    counting("signalled", sender); V(signalled > 0);
    mine = libcs(); signal(SIGUSR2, look); mine->cs = 0; raise(SIGUSR2);
    memset(counters, 0, sizeof counters);
    forked(child);
    fflush(stdout); if (!fork()) { execl("/proc/self/exe", "rseq", "again", NULL); _exit(1); } wait(0);
    forked(unmaps); forked(protects); forked(replaces); forked(moves); forked(gives_back); forked(no_fork); forked(unregisters); forked(nonsense); forked(badly_signed);
    leaving();
    each = 1000; forked(filtered);
    V((int)libcs()->cpu_id >= 0);
    return 0;
}
