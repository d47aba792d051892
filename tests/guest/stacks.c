/* The first stack grows as it is touched, by calls and by signals too, as far as RLIMIT_STACK says at that moment. */
#include "guest.h"
#include <setjmp.h>
static sigjmp_buf back;
static int code;
static char *at, own[65536];
static long depth;
static char here[64];
static void over(int s, siginfo_t *i, void *c) { (void)s; (void)c; code = i->si_code; at = i->si_addr; siglongjmp(back, 1); }
static __attribute__((noinline)) void deeper(long most) { volatile char b[4096]; b[0] = depth; depth += 4144; if (depth < most) deeper(most); b[1] = 1; }
static void area(unsigned long *from, unsigned long *to) {
    char line[400];
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f)) if (strstr(line, "[stack]")) sscanf(line, "%lx-%lx", from, to);
    if (f) fclose(f);
}
static long size(void) { unsigned long a = 0, b = 0; area(&a, &b); return b - a; }
static long vmstk(void) {
    char line[200]; long kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmStk: %ld", &kb);
    if (f) fclose(f);
    return kb * 1024;
}
static int near(long a, long b) { return a > b - 200000 && a < b + 200000; }
static void limit(long now) { struct rlimit l = { now, RLIM_INFINITY }; T(setrlimit(RLIMIT_STACK, &l)); }
/* How deep a recursion comes under a limit, and what its end looks like. */
static void deep(long now, long most) {
    limit(now);
    depth = code = 0; at = 0;
    unsigned long from, to;
    area(&from, &to);
    if (!sigsetjmp(back, 1)) deeper(most);
    long end = now > 0 && now < most ? now : most;
    if (end < (long)(to - from)) end = to - from;
    printf("limit %ld of %ld: code %d, %s, mapped %s, VmStk %s\n", now, most, code, near(depth, end) ? "as deep" : "not so",
        near(size(), end) ? "as much" : "not so", near(vmstk(), end) ? "as much" : "not so");
    if (code) printf("  fault %s\n", at < (char *)to - size() && at > (char *)to - size() - 200000 ? "below it" : "elsewhere");
}
/* A call's buffer far below what was touched: the call itself makes the stack grow. */
static __attribute__((noinline)) long below(long far) {
    char *sp = __builtin_frame_address(0);
    char *to = sp - far;
    int p[2];
    if (pipe(p) || write(p[1], "some words", 10) != 10) return -1;
    long r = SYS(read, p[0], to, 10);
    int e = errno;
    if (r == 10) r = !memcmp(to, "some words", 10) && size() >= far;
    close(p[0]); close(p[1]);
    errno = e;
    return r;
}
static void counted(int s) { (void)s; here[0]++; }
/* A signal whose frame lies below what was touched. */
static __attribute__((noinline)) void frames(int how) {
    struct sigaction a = { .sa_handler = counted, .sa_flags = how };
    sigaction(SIGUSR1, &a, 0);
    here[0] = 0;
    unsigned long from, to;
    area(&from, &to);
    long pid = getpid(), got;
    /* The stack pointer goes to the end of what is mapped for the time of one call. */
    __asm__ volatile("mov %%rsp, %%rbx; mov %4, %%rsp; syscall; mov %%rbx, %%rsp"
        : "=a"(got) : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1), "r"(from + 256) : "rbx", "rcx", "r11", "memory");
    printf("kill = %ld, handled %d, grown %d\n", got, here[0], size() > (long)(to - from));
    signal(SIGUSR1, SIG_DFL);
}
static void child(void (*f)(void)) { fflush(stdout); pid_t p = fork(); if (!p) { f(); fflush(stdout); _exit(0); } int s; waitpid(p, &s, 0); printf("child: %s %d\n", WIFSIGNALED(s) ? "signal" : "status", WIFSIGNALED(s) ? WTERMSIG(s) : WEXITSTATUS(s)); }
static void again(void) { deep(4 << 20, 8 << 20); T(below(6 << 20)); deep(32 << 20, 16 << 20); T(below(20 << 20)); }
static void space(void) { struct rlimit l = { 64 << 20, 64 << 20 }; limit(RLIM_INFINITY); setrlimit(RLIMIT_AS, &l); depth = code = 0; if (!sigsetjmp(back, 1)) deeper(100 << 20); printf("RLIMIT_AS: code %d, %d\n", code, depth < (64 << 20)); }
static void blocked(void) { limit(1 << 20); sigset_t s; sigemptyset(&s); sigaddset(&s, SIGSEGV); sigprocmask(SIG_BLOCK, &s, 0); deeper(2 << 20); }
static void no_room(void) { signal(SIGSEGV, SIG_DFL); deep(1 << 20, 4 << 20); }
/* What is mapped below keeps the stack at a distance, unless nobody may touch it. */
static void apart(int prot) {
    limit(64 << 20);
    unsigned long from, to;
    area(&from, &to);
    char *wall = (char *)to - (24 << 20);
    OK(mmap(wall, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    depth = code = 0;
    if (!sigsetjmp(back, 1)) deeper(40 << 20);
    printf("wall %d: code %d, %s\n", prot, code, near(depth, 24 << 20) ? "to the wall" : near(depth, 23 << 20) ? "at a distance" : "elsewhere");
}
static void wall(void) { apart(PROT_READ); }
static void nothing(void) { apart(PROT_NONE); }
static void hint(void) {
    unsigned long from, to;
    area(&from, &to);
    char *p = mmap((char *)from - 8192, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("hint %s\n", p == (char *)from - 8192 ? "taken" : "passed over");
    p = mmap((char *)from - (2 << 20), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("hint %s\n", p == (char *)from - (2 << 20) ? "taken" : "passed over");
}
static void *thread(void *what) { *(volatile char *)what = 1; return (void *)1; }
/* Another thread's touch makes it grow as well. */
static void others(void) {
    limit(8 << 20);
    pthread_t t; void *r = 0;
    char *p = (char *)__builtin_frame_address(0) - (3 << 20);
    pthread_create(&t, 0, thread, p); pthread_join(t, &r);
    printf("thread %ld, %d, %s\n", (long)r, *p, size() >= (3 << 20) ? "grown" : "not so");
}
static void locked(void) {
    struct rlimit l = { 1 << 20, 1 << 20 };
    limit(64 << 20); T(setresuid(1000, 1000, 1000)); T(setrlimit(RLIMIT_MEMLOCK, &l));
    unsigned long from, to;
    area(&from, &to);
    T(mlock((void *)from, to - from));
    depth = code = 0;
    if (!sigsetjmp(back, 1)) deeper(4 << 20);
    printf("locked: code %d, %s\n", code, near(depth, 1 << 20) ? "as far as may be locked" : "not so");
}
int main(int argc, char **argv) {
    stack_t ss = { .ss_sp = own, .ss_size = sizeof own };
    struct sigaction a = { .sa_sigaction = over, .sa_flags = SA_ONSTACK | SA_SIGINFO };
    sigaltstack(&ss, 0); sigaction(SIGSEGV, &a, 0);
    if (argc > 1) { printf("%s: %s\n", argv[1], near(size(), atol(argv[1]) < 132 << 10 ? atol(argv[1]) : 132 << 10) ? "as much" : "not so"); return 0; }
    V(size() < 400000 && size() == vmstk());
    child(hint); child(others); child(again); child(space); child(blocked); child(no_room); child(locked); child(wall); child(nothing);
    frames(0);
    T(below(300000));
    T(below(9 << 20));
    deep(1 << 20, 4 << 20);
    deep(64 << 20, 20 << 20);
    deep(1 << 20, 40 << 20);
    deep(24 << 20, 40 << 20);
    for (long l = 256 << 10; l <= 64L << 20; l *= 16) {
        struct rlimit r = { l, RLIM_INFINITY };
        setrlimit(RLIMIT_STACK, &r);
        fflush(stdout);
        if (!fork()) { char text[30]; sprintf(text, "%ld", l); execl("/proc/self/exe", "stacks", text, NULL); _exit(1); }
        wait(0);
    }
    return 0;
}
