/* seccomp(2): what is accepted, and what filters do to calls. */
#include "guest.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#define NR offsetof(struct seccomp_data, nr)
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ON(call, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), RET(what)
#define PROG(name, ...) struct sock_filter name##_code[] = { __VA_ARGS__ }; \
    struct sock_fprog name = { sizeof name##_code / sizeof name##_code[0], name##_code }

static long set(unsigned flags, struct sock_fprog *p) { return SYS(seccomp, SECCOMP_SET_MODE_FILTER, flags, p); }
static void nnp(void) { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

static void status(void) {
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "Seccomp", 7) || !strncmp(line, "NoNewPrivs", 10)) printf("  %s", line);
    if (f) fclose(f);
}

/* Runs it in a child; how that ended. */
static void child(const char *name, void (*what)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) { what(); fflush(stdout); _exit(7); }
    int st = 0;
    waitpid(pid, &st, 0);
    if (WIFSIGNALED(st)) printf("%s: signal %d core %d\n", name, WTERMSIG(st), !!WCOREDUMP(st));
    else printf("%s: exit %d\n", name, WEXITSTATUS(st));
}

static void refusals(void) {
    PROG(allow, RET(SECCOMP_RET_ALLOW));
    T(SYS(seccomp, 99, 0, 0));
    T(SYS(seccomp, SECCOMP_SET_MODE_STRICT, 1, 0));
    T(SYS(seccomp, SECCOMP_SET_MODE_STRICT, 0, &allow));
    T(set(1 << 20, &allow));
    T(SYS(seccomp, SECCOMP_SET_MODE_FILTER, 0, BAD));
    T(SYS(seccomp, SECCOMP_SET_MODE_FILTER, 0, 0));
    T(prctl(PR_SET_SECCOMP, 3, &allow));
    T(prctl(PR_SET_SECCOMP, 2, BAD));
    struct sock_fprog none = { 0, allow_code }, much = { 4097, allow_code }, away = { 1, BAD };
    T(set(0, &none));
    T(set(0, &much));
    nnp();
    T(set(0, &away));
    PROG(no_ret, LOAD(0)); T(set(0, &no_ret));
    PROG(odd, LOAD(3), RET(0)); T(set(0, &odd));
    PROG(far, LOAD(64), RET(0)); T(set(0, &far));
    PROG(half, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), RET(0)); T(set(0, &half));
    PROG(ind, BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), RET(0)); T(set(0, &ind));
    PROG(mod, BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), RET(0)); T(set(0, &mod));
    PROG(zero, BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RET(0)); T(set(0, &zero));
    PROG(shift, BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), RET(0)); T(set(0, &shift));
    PROG(jump, BPF_STMT(BPF_JMP | BPF_JA, 1), RET(0)); T(set(0, &jump));
    PROG(back, BPF_STMT(BPF_JMP | BPF_JA, -1), RET(0)); T(set(0, &back));
    PROG(cond, BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 2, 0), RET(0), RET(0)); T(set(0, &cond));
    PROG(mem, BPF_STMT(BPF_LD | BPF_MEM, 0), RET(0)); T(set(0, &mem));
    PROG(slot, BPF_STMT(BPF_ST, 16), RET(0)); T(set(0, &slot));
    PROG(msh, BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), RET(0)); T(set(0, &msh));
    PROG(code, BPF_STMT(0xff, 0), RET(0)); T(set(0, &code));
    unsigned known[] = { SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
        SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, 0x12340000 };
    for (int i = 0; i < 8; i++) T(SYS(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &known[i]));
    T(SYS(seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &known[0]));
    T(SYS(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, BAD));
    unsigned short sizes[3] = { 0 };
    T(SYS(seccomp, SECCOMP_GET_NOTIF_SIZES, 0, sizes));
    printf("%d %d %d\n", sizes[0], sizes[1], sizes[2]);
    T(prctl(PR_GET_SECCOMP));
    status();
}

static void unbound(void) {
    PROG(allow, RET(SECCOMP_RET_ALLOW));
    T(setresuid(1000, 1000, 1000));
    T(set(0, &allow));
    T(prctl(PR_SET_SECCOMP, 2, &allow));
    nnp();
    T(set(0, &allow));
    T(prctl(PR_SET_SECCOMP, 2, &allow));
    T(prctl(PR_GET_SECCOMP));
    T(SYS(seccomp, SECCOMP_SET_MODE_STRICT, 0, 0));
    T(prctl(PR_SET_SECCOMP, 1));
    status();
}

static void errnos(void) {
    nnp();
    PROG(some, LOAD(NR), ON(getppid, SECCOMP_RET_ERRNO | EDOM), ON(getuid, SECCOMP_RET_ERRNO), ON(getgid, SECCOMP_RET_ERRNO | 0xffff),
         ON(getpgrp, SECCOMP_RET_TRACE | 5), ON(getegid, SECCOMP_RET_LOG), ON(sysfs, SECCOMP_RET_ALLOW), RET(SECCOMP_RET_ALLOW));
    T(set(SECCOMP_FILTER_FLAG_LOG, &some));
    for (int i = 0; i < 3; i++) {   /* again and again: a site that is called often is answered by another way */
        for (int n = 0; n < 200; n++) SYS(getppid);
        T(SYS(getppid));
        T(SYS(getuid));
        T(SYS(getgid));
        T(SYS(getpgrp));
        T(SYS(getegid));
    }
    T(getppid());
    /* By an argument, its high word, and where it is called from. */
    PROG(args, LOAD(NR), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_lseek, 0, 5), LOAD(offsetof(struct seccomp_data, args[1])),
         BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 100, 0, 1), RET(SECCOMP_RET_ERRNO | EXDEV), LOAD(offsetof(struct seccomp_data, args[1]) + 4),
         BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 3, 1, 0), RET(SECCOMP_RET_ALLOW), RET(SECCOMP_RET_ERRNO | ENOTBLK));
    T(set(0, &args));
    T(SYS(lseek, -1, 5, 0));
    T(SYS(lseek, -1, 500, 0));
    T(SYS(lseek, -1, 1L << 33, 0));
    PROG(arch, LOAD(offsetof(struct seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), RET(SECCOMP_RET_KILL_PROCESS), RET(SECCOMP_RET_ALLOW));
    T(set(0, &arch));
    /* The stronger wins, then the newer. */
    PROG(strong, LOAD(NR), ON(getegid, SECCOMP_RET_ERRNO | 1), ON(getppid, SECCOMP_RET_ERRNO | ENOTTY), RET(SECCOMP_RET_ALLOW));
    T(set(0, &strong));
    T(SYS(getegid));
    T(SYS(getppid));
    /* All kinds of instructions: (A = nr; A = ((A*3+5-2)|8)&0xfff ^ 1; shifted; neg; ...) */
    PROG(sums, LOAD(NR), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3), BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
         BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 2), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, 8), BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 1),
         BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 4), BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2), BPF_STMT(BPF_ALU | BPF_NEG, 0), BPF_STMT(BPF_ALU | BPF_NEG, 0),
         BPF_STMT(BPF_ST, 5), BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_STX, 6), BPF_STMT(BPF_LDX | BPF_MEM, 5), BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 3),
         BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfff), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_MEM, 6),
         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 2), BPF_STMT(BPF_MISC | BPF_TXA, 0), BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), RET(SECCOMP_RET_ALLOW),
         BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0));
    T(set(0, &sums));
    errno = 0; V(SYS(getsid, 0) == -1 ? errno : 0);
    T(prctl(PR_GET_SECCOMP));
    status();
    fflush(stdout);
    if (!fork()) { T(SYS(getppid)); status(); fflush(stdout); execl("/proc/self/exe", "seccomp", "after-exec", NULL); _exit(1); }
    int st; wait(&st); V(st);
}

static volatile int traps;
static void on_sys(int s, siginfo_t *i, void *u) {
    ucontext_t *c = u;
    (void)s;
    traps++;
    printf("trap: code %d errno %d call %d arch %x here %d rax %lld\n", i->si_code, i->si_errno, i->si_syscall, i->si_arch,
        (long)i->si_call_addr == c->uc_mcontext.gregs[REG_RIP], c->uc_mcontext.gregs[REG_RAX]);
    c->uc_mcontext.gregs[REG_RAX] = -traps;
}
static void trapped(void) {
    struct sigaction a = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO };
    nnp();
    sigaction(SIGSYS, &a, 0);
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_TRAP | 77), ON(nanosleep, SECCOMP_RET_TRAP), RET(SECCOMP_RET_ALLOW));
    T(set(0, &p));
    for (int i = 0; i < 3; i++) { T(SYS(getppid)); struct timespec t = { 0, 1 }; T(SYS(nanosleep, &t, 0)); }
    for (int i = 0; i < 100; i++) SYS(getpid);
    a.sa_handler = SIG_IGN; a.sa_flags = 0;
    sigaction(SIGSYS, &a, 0);
    SYS(getppid);
}
static void blocked(void) {
    struct sigaction a = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO };
    sigset_t s;
    nnp();
    sigaction(SIGSYS, &a, 0);
    sigemptyset(&s); sigaddset(&s, SIGSYS); sigprocmask(SIG_BLOCK, &s, 0);
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_TRAP), RET(SECCOMP_RET_ALLOW));
    T(set(0, &p));
    SYS(getppid);
}

static void kill_process(void) { nnp(); PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_PROCESS), RET(SECCOMP_RET_ALLOW)); T(set(0, &p)); SYS(getppid); }
static void kill_alone(void) { nnp(); PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW)); T(set(0, &p)); SYS(getppid); }
static void kill_wins(void) {
    nnp();
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_PROCESS), RET(SECCOMP_RET_ALLOW)); T(set(0, &p));
    PROG(q, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW)); T(set(0, &q));
    SYS(getppid);
}
static void by_zero(void) {
    nnp();
    PROG(p, LOAD(NR), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 2), BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), RET(SECCOMP_RET_ALLOW));
    T(set(0, &p));
    SYS(getppid);
}
static void *caller(void *a) { (void)a; SYS(getppid); return (void *)5; }
static int go[2];
static void *waiter(void *a) { char c; (void)a; if (read(go[0], &c, 1) != 1) return (void *)-1L; errno = 0; long r = SYS(getppid); return (void *)(long)(r == -1 ? errno : 0); }
static volatile int apart;
static void *own(void *a) { (void)a; PROG(p, RET(SECCOMP_RET_ALLOW)); set(0, &p); apart = 1; char c; if (read(go[0], &c, 1) != 1) return 0; return 0; }
static void kill_one(void) {
    pthread_t t;
    void *r = 0;
    nnp();
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_THREAD), RET(SECCOMP_RET_ALLOW));
    T(set(0, &p));
    pthread_create(&t, 0, caller, 0);
    usleep(100000);
    (void)r;
    printf("the other lives\n");
}
static void kill_all(void) {
    pthread_t t;
    nnp();
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_KILL_PROCESS), RET(SECCOMP_RET_ALLOW));
    T(set(0, &p));
    pthread_create(&t, 0, caller, 0);
    pthread_join(t, 0);
    sleep(5);
}
static void together(void) {
    pthread_t t[3];
    void *r;
    T(pipe(go));
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, waiter, 0);
    usleep(50000);
    nnp();
    PROG(p, LOAD(NR), ON(getppid, SECCOMP_RET_ERRNO | ECHRNG), RET(SECCOMP_RET_ALLOW));
    T(set(SECCOMP_FILTER_FLAG_TSYNC, &p));
    T(write(go[1], "abc", 3));
    for (int i = 0; i < 3; i++) { pthread_join(t[i], &r); V(r == (void *)(long)ECHRNG); }
    pthread_create(&t[0], 0, own, 0);
    while (!apart) usleep(1000);
    V(set(SECCOMP_FILTER_FLAG_TSYNC, &p) > 0);
    T(set(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, &p));
    T(write(go[1], "d", 1));
    pthread_join(t[0], 0);
    T(set(SECCOMP_FILTER_FLAG_TSYNC, &p));
    status();
}
static void strict(void) { T(prctl(PR_SET_SECCOMP, 1)); SYS(write, 1, "writes\n", 7); SYS(exit, 3); }
static void strict_killed(void) { T(SYS(seccomp, SECCOMP_SET_MODE_STRICT, 0, 0)); fflush(stdout); SYS(getppid); }
static void many(void) {
    nnp();
    static struct sock_filter code[4096];
    for (int i = 0; i < 4096; i++) code[i] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
    struct sock_fprog p = { 4096, code };
    int n = 0;
    while (!set(0, &p) && n < 5) n++;
    printf("%d of the longest, then %s\n", n, strerrorname_np(errno));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "after-exec")) { T(SYS(getppid)); status(); return 0; }
    child("refusals", refusals);
    child("unbound", unbound);
    child("errnos", errnos);
    child("trapped", trapped);
    child("blocked", blocked);
    child("kill_process", kill_process);
    child("kill_alone", kill_alone);
    child("kill_wins", kill_wins);
    child("by_zero", by_zero);
    child("kill_one", kill_one);
    child("kill_all", kill_all);
    child("together", together);
    child("strict", strict);
    child("strict_killed", strict_killed);
    child("many", many);
    return 0;
}
