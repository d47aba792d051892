/* ptrace(2): calls, registers, memory, signals, steps, and who may trace whom. Stops of groups, events and ends: traced.c. */
#include "guest.h"
#include <elf.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/user.h>

#define P(request, pid, addr, data) SYS(ptrace, request, pid, addr, data)

static struct user_regs_struct regs_of(pid_t pid) {
    struct user_regs_struct r;
    memset(&r, 0, sizeof r);
    P(PTRACE_GETREGS, pid, 0, &r);
    return r;
}

/* The next stop or end of one tracee, said in a line. */
static int next(pid_t pid) {
    int status = 0;
    pid_t got = waitpid(pid, &status, __WALL);
    if (got != pid)
        printf("waitpid: %s\n", strerrorname_np(errno));
    else if (WIFSTOPPED(status))
        printf("stopped by %d, event %d\n", WSTOPSIG(status), status >> 16);
    else if (WIFSIGNALED(status))
        printf("killed by %d\n", WTERMSIG(status));
    else
        printf("exited with %d\n", WEXITSTATUS(status));
    return status;
}

/* A child that is traced and stopped before it does its work. */
static pid_t traced(void (*work)(void)) {
    pid_t pid = fork();
    if (pid == 0) {
        if (P(PTRACE_TRACEME, 0, 0, 0))
            _exit(99);
        raise(SIGSTOP);
        work();
        _exit(7);
    }
    int status;
    waitpid(pid, &status, 0);
    return pid;
}

static void gone(pid_t pid) {
    kill(pid, SIGKILL);
    int status;
    while (waitpid(pid, &status, __WALL) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
        P(PTRACE_CONT, pid, 0, 0);
}

static void nothing(void) {}
static volatile long shared_word = 0x1122334455667788;
static int *page;

static void errors(void) {
    puts("-- errors");
    T(P(PTRACE_ATTACH, getpid(), 0, 0));
    T(P(PTRACE_ATTACH, 999999, 0, 0));
    T(P(PTRACE_ATTACH, -1, 0, 0));
    T(P(PTRACE_CONT, getppid(), 0, 0));
    T(P(PTRACE_PEEKDATA, 999999, 0, 0));
    pid_t idle = fork();
    if (idle == 0)
        for (;;)
            pause();
    T(P(PTRACE_CONT, idle, 0, 0));
    T(P(PTRACE_INTERRUPT, idle, 0, 0));
    T(P(PTRACE_KILL, idle, 0, 0));
    T(P(PTRACE_SEIZE, idle, 1, 0));
    T(P(PTRACE_SEIZE, idle, 0, 1 << 30));
    T(P(PTRACE_SEIZE, idle, 0, 0));
    T(P(PTRACE_SEIZE, idle, 0, 0));
    T(P(PTRACE_ATTACH, idle, 0, 0));
    T(P(PTRACE_CONT, idle, 0, 0));
    T(P(PTRACE_LISTEN, idle, 0, 0));
    T(P(PTRACE_DETACH, idle, 0, 0));
    gone(idle);
    pid_t pid = traced(nothing);
    T(P(PTRACE_ATTACH, pid, 0, 0));
    T(P(PTRACE_INTERRUPT, pid, 0, 0));
    T(P(PTRACE_LISTEN, pid, 0, 0));
    T(P(PTRACE_SETOPTIONS, pid, 0, 1 << 30));
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    T(P(12345, pid, 0, 0));
    T(P(PTRACE_CONT, pid, 0, 65));
    T(P(PTRACE_GETREGS, pid, 0, BAD));
    T(P(PTRACE_SETREGS, pid, 0, BAD));
    T(P(PTRACE_PEEKDATA, pid, &shared_word, BAD));
    long word = 0;
    T(P(PTRACE_PEEKDATA, pid, BAD, &word));
    T(P(PTRACE_POKEDATA, pid, BAD, 1));
    T(P(PTRACE_PEEKUSR, pid, 4, &word));
    T(P(PTRACE_PEEKUSR, pid, sizeof(struct user), &word));
    T(P(PTRACE_POKEUSR, pid, sizeof(struct user), 0));
    T(P(PTRACE_POKEUSR, pid, 3, 0));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.fs_base), -1));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.cs), 0));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, u_tsize), 0));
    T(P(PTRACE_PEEKUSR, pid, offsetof(struct user, u_debugreg[0]), &word));
    V(word);
    T(P(PTRACE_PEEKUSR, pid, offsetof(struct user, u_debugreg[7]), &word));
    V(word);
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[4]), 1));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[7]), 0));
    struct iovec io = {&word, sizeof word};
    T(P(PTRACE_GETREGSET, pid, 0x999, &io));
    T(P(PTRACE_GETREGSET, pid, NT_PRSTATUS, BAD));
    io.iov_len = 7;
    T(P(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io));
    T(P(PTRACE_GETSIGMASK, pid, 4, &word));
    struct ptrace_peeksiginfo_args peek = {0, 2, 1};
    T(P(PTRACE_PEEKSIGINFO, pid, &peek, &word));
    peek = (struct ptrace_peeksiginfo_args){0, 0, -1};
    T(P(PTRACE_PEEKSIGINFO, pid, &peek, &word));
    gone(pid);
    T(P(PTRACE_CONT, pid, 0, 0));
    pid = fork();
    if (pid == 0) {
        T(P(PTRACE_TRACEME, 0, 0, 0));
        T(P(PTRACE_TRACEME, 0, 0, 0));
        fflush(stdout);
        _exit(3);
    }
    next(pid);
}

static void some_calls(void) {
    SYS(getppid);
    SYS(getuid);
    SYS(close, 77);
    SYS(munmap, 0, 4096);
    long base = 0;
    SYS(arch_prctl, 0x1003, &base);
    SYS(close, base != 0 ? 78 : 79);
    SYS(mprotect, page, 4096, PROT_READ);
    SYS(gettid);
    SYS(close, *page);
}

static void show_info(pid_t pid) {
    struct ptrace_syscall_info info;
    memset(&info, 0, sizeof info);
    long n = P(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
    struct user_regs_struct r = regs_of(pid);
    unsigned long message = 99;
    P(PTRACE_GETEVENTMSG, pid, 0, &message);
    siginfo_t si;
    memset(&si, 0, sizeof si);
    int e = P(PTRACE_GETSIGINFO, pid, 0, &si) ? errno : 0;
    printf("  info %ld: op %d arch %x, here %d; ", n, info.op, info.arch,
           info.instruction_pointer == r.rip && info.stack_pointer == r.rsp);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        printf("call %llu, first %d, rax %lld, rcx is rip %d, r11 is flags %d", info.entry.nr,
               info.entry.nr == 3 || info.entry.nr == 231 ? (int)info.entry.args[0] : -1, r.rax, r.rcx == r.rip,
               (r.r11 & ~0x100) == (r.eflags & ~0x100));
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        printf("result %lld error %d orig %lld", info.exit.is_error ? (long long)info.exit.rval : -1, info.exit.is_error,
               r.orig_rax);
    printf("; message %lu; siginfo %d %d %x own %d\n", message, e, si.si_signo, si.si_code, si.si_pid == pid);
}

static void calls(void) {
    puts("-- calls");
    page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *page = 70;
    pid_t pid = traced(some_calls);
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD));
    int tries = 0;
    do {
        P(PTRACE_SYSCALL, pid, 0, 0);
        int status = next(pid);
        if (!WIFSTOPPED(status))
            break;
        show_info(pid);
    } while (++tries < 60);
    /* Without the option a stop at a call looks like a SIGTRAP. */
    pid = traced(some_calls);
    P(PTRACE_SYSCALL, pid, 0, 0);
    next(pid);
    show_info(pid);
    gone(pid);

    puts("-- changed calls");
    pid = traced(some_calls);
    P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    struct user_regs_struct r = regs_of(pid);
    V(r.orig_rax);
    r.orig_rax = SYS_getpid;
    T(P(PTRACE_SETREGS, pid, 0, &r));
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    r = regs_of(pid);
    V(r.rax == (unsigned)pid);
    V(r.orig_rax);
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    /* Skipped, with a result that the tracer made up. */
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.orig_rax), -1));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.rax), 1234));
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    V(regs_of(pid).rax);
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    V(regs_of(pid).rdi);
    int null = open("/dev/null", O_RDONLY);
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.rdi), 1));
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    V(regs_of(pid).rax);
    V(regs_of(pid).rdi);
    /* A result is changed after the call. */
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.rax), 55));
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    close(null);
    gone(pid);

    puts("-- emulated calls");
    pid = traced(some_calls);
    for (int i = 0; i < 3; i++) {
        T(P(PTRACE_SYSEMU, pid, 0, 0));
        next(pid);
        r = regs_of(pid);
        printf("call %lld rax %lld\n", r.orig_rax, r.rax);
    }
    gone(pid);
}

static void in_registers(void) {
    long a, b;
    double d = 0;
    __asm__ volatile("mov $11, %%rbx\n\tmov $22, %%r12\n\tint3\n\tmov %%rbx, %0\n\tmov %%r12, %1\n\tmovsd %%xmm5, %2"
                     : "=r"(a), "=r"(b), "=m"(d)::"rbx", "r12", "xmm5");
    SYS(close, a * 100 + b + (int)d);
}

static void registers(void) {
    puts("-- registers");
    pid_t pid = traced(in_registers);
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    siginfo_t si;
    T(P(PTRACE_GETSIGINFO, pid, 0, &si));
    V(si.si_code);
    struct user_regs_struct r = regs_of(pid), s;
    V(r.rbx);
    V(r.r12);
    V(r.cs);
    V(r.ss);
    V(r.orig_rax == -1UL);
    V(r.eflags & 0x100);
    V(r.fs_base != 0);
    long text = 0;
    T(P(PTRACE_PEEKTEXT, pid, r.rip - 1, &text));
    V(text & 0xff);
    struct iovec io = {&s, sizeof s};
    T(P(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io));
    V(io.iov_len);
    V(memcmp(&r, &s, sizeof r));
    io = (struct iovec){&s, 16};
    T(P(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io));
    V(io.iov_len);
    struct user_fpregs_struct f, g;
    T(P(PTRACE_GETFPREGS, pid, 0, &f));
    V(sizeof f);
    V(f.cwd);
    V(f.mxcsr);
    io = (struct iovec){&g, sizeof g};
    T(P(PTRACE_GETREGSET, pid, NT_PRFPREG, &io));
    V(io.iov_len);
    V(memcmp(&f, &g, 464));
    static unsigned char x[16384];
    io = (struct iovec){x, sizeof x};
    T(P(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &io));
    V(io.iov_len >= 576);
    V(x[464] & 3);
    double five = 5;
    memcpy(x + 160 + 5 * 16, &five, 8);
    x[512] |= 3;
    T(P(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &io));
    T(P(PTRACE_GETFPREGS, pid, 0, &f));
    memcpy(&five, (char *)f.xmm_space + 80, 8);
    V((int)five);
    five = 6;
    memcpy((char *)f.xmm_space + 80, &five, 8);
    T(P(PTRACE_SETFPREGS, pid, 0, &f));
    r.rbx = 3;
    T(P(PTRACE_SETREGS, pid, 0, &r));
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.r12), 40));
    long word = 0;
    T(P(PTRACE_PEEKUSR, pid, offsetof(struct user, regs.r12), &word));
    V(word);
    T(P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.eflags), r.eflags | 1));
    V(regs_of(pid).eflags & 1);
    P(PTRACE_SYSCALL, pid, 0, 0);
    next(pid);
    V(regs_of(pid).rdi);
    gone(pid);
}

/* Memory. */
static const char constant[] __attribute__((aligned(4096))) = "constant, in a page that nobody may write";
static char *readonly, *unreadable, *common;
__attribute__((noinline)) static long answer(void) {
    __asm__ volatile("");
    return 41;
}
static void look_at_memory(void) {
    raise(SIGUSR1);
    printf("child sees %lx, %c, %c, %c, %ld\n", shared_word, *(volatile char *)constant, *(volatile char *)readonly,
           common[0], answer());
    fflush(stdout);
}

static void memory(void) {
    puts("-- memory");
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    T(write(fd, "file content", 12));
    readonly = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    unreadable = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    common = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    pid_t pid = traced(look_at_memory);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    long word = 0;
    T(P(PTRACE_PEEKDATA, pid, &shared_word, &word));
    V(word == shared_word);
    T(P(PTRACE_POKEDATA, pid, &shared_word, 0xabcdef));
    T(P(PTRACE_PEEKDATA, pid, &shared_word, &word));
    V(word == 0xabcdef);
    V(shared_word == 0x1122334455667788);
    /* Text and constants: private copies are made. */
    T(P(PTRACE_PEEKTEXT, pid, constant, &word));
    V((char)word == 'c');
    T(P(PTRACE_POKETEXT, pid, constant, (word & ~0xff) | 'K'));
    T(P(PTRACE_PEEKTEXT, pid, readonly, &word));
    T(P(PTRACE_POKEDATA, pid, readonly, (word & ~0xff) | 'F'));
    T(P(PTRACE_POKEDATA, pid, readonly + 4090, 0x3131313131313131));
    T(P(PTRACE_POKEDATA, pid, common, word));
    unsigned char *at = (unsigned char *)answer;
    for (int i = 0; i < 32; i++)
        if (at[i] == 0xb8 && at[i + 1] == 41)
        {
            T(P(PTRACE_PEEKTEXT, pid, at + i, &word));
            T(P(PTRACE_POKETEXT, pid, at + i, word + 0x100));
        }
    V(*constant);
    V(answer());
    char path[64];
    sprintf(path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDWR);
    V(mem >= 0);
    T(pread(mem, &word, 8, (off_t)(uintptr_t)&shared_word));
    V(word == 0xabcdef);
    word = 0x777;
    T(pwrite(mem, &word, 8, (off_t)(uintptr_t)&shared_word));
    T(pwrite(mem, "Q", 1, (off_t)(uintptr_t)constant));
    char bytes[40] = "";
    T(pread(mem, bytes, 8, (off_t)(uintptr_t)constant));
    S(bytes);
    T(pread(mem, bytes, 8, 8));
    T(pwrite(mem, bytes, 8, 8));
    T(pwrite(mem, bytes, 1, (off_t)(uintptr_t)common));
    T(lseek(mem, (off_t)(uintptr_t)constant, SEEK_SET) == (off_t)(uintptr_t)constant);
    T(read(mem, bytes, 4));
    T(lseek(mem, 0, SEEK_CUR) == (off_t)(uintptr_t)constant + 4);
    T(lseek(mem, 0, SEEK_END));
    struct iovec here = {&word, 8}, there = {(void *)&shared_word, 8};
    T(SYS(process_vm_readv, pid, &here, 1, &there, 1, 0));
    V(word);
    word = 0x888;
    T(SYS(process_vm_writev, pid, &here, 1, &there, 1, 0));
    there.iov_base = (void *)constant;
    T(SYS(process_vm_writev, pid, &here, 1, &there, 1, 0));
    there.iov_base = BAD;
    T(SYS(process_vm_readv, pid, &here, 1, &there, 1, 0));
    T(SYS(process_vm_readv, pid, &here, 1, &there, 1, 1));
    T(SYS(process_vm_readv, 999999, &here, 1, &there, 1, 0));
    T(SYS(process_vm_readv, pid, &here, 2000, &there, 1, 0));
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    T(pread(mem, bytes, 8, (off_t)(uintptr_t)constant));
    close(mem);
    close(fd);
    V(*constant);
    V(*common);
}

/* Signals. */
static void on_signal(int signo, siginfo_t *si, void *context) {
    (void)context;
    printf("child got %d code %d value %d\n", signo, si->si_code, si->si_value.sival_int);
    fflush(stdout);
}
static void get_signals(void) {
    struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &act, 0);
    sigaction(SIGUSR2, &act, 0);
    sigaction(SIGRTMIN, &act, 0);
    signal(SIGHUP, SIG_IGN);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    raise(SIGHUP);
    union sigval v = {.sival_int = 42};
    sigqueue(getpid(), SIGRTMIN, v);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, 0);
    for (int i = 0; i < 3; i++)
        v.sival_int = i, sigqueue(getpid(), SIGRTMIN, v);
    SYS(tgkill, getpid(), gettid(), SIGUSR2);
    raise(SIGHUP);
    sigprocmask(SIG_UNBLOCK, &set, 0);
}

static void signals(void) {
    puts("-- signals");
    pid_t pid = traced(get_signals);
    unsigned long mask = 1;
    T(P(PTRACE_GETSIGMASK, pid, 8, &mask));
    V(mask);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    siginfo_t si;
    T(P(PTRACE_GETSIGINFO, pid, 0, &si));
    V(si.si_code);
    V(si.si_pid == pid);
    P(PTRACE_CONT, pid, 0, SIGUSR1), next(pid); /* delivered */
    P(PTRACE_CONT, pid, 0, 0), next(pid);       /* suppressed */
    T(P(PTRACE_GETSIGINFO, pid, 0, &si));
    P(PTRACE_CONT, pid, 0, SIGUSR2), next(pid); /* another one */
    P(PTRACE_CONT, pid, 0, SIGHUP), next(pid);  /* ignored, but seen */
    T(P(PTRACE_GETSIGINFO, pid, 0, &si));
    V(si.si_value.sival_int);
    si.si_value.sival_int = 43;
    T(P(PTRACE_SETSIGINFO, pid, 0, &si));
    P(PTRACE_CONT, pid, 0, SIGRTMIN), next(pid); /* with another value */
    static siginfo_t list[8];
    struct ptrace_peeksiginfo_args peek = {0, PTRACE_PEEKSIGINFO_SHARED, 8};
    long n;
    T(n = P(PTRACE_PEEKSIGINFO, pid, &peek, list));
    for (long i = 0; i < n; i++)
        printf("pending: %d %d\n", list[i].si_signo, list[i].si_value.sival_int);
    peek.off = 2;
    T(P(PTRACE_PEEKSIGINFO, pid, &peek, list));
    peek = (struct ptrace_peeksiginfo_args){0, 0, 8};
    T(P(PTRACE_PEEKSIGINFO, pid, &peek, list));
    T(P(PTRACE_GETSIGMASK, pid, 8, &mask));
    V(mask == (1UL << (SIGRTMIN - 1) | 1UL << (SIGUSR2 - 1)));
    mask |= 1UL << (SIGTERM - 1) | 1UL << (SIGKILL - 1);
    T(P(PTRACE_SETSIGMASK, pid, 8, &mask));
    T(P(PTRACE_GETSIGMASK, pid, 8, &mask));
    V(mask == (1UL << (SIGRTMIN - 1) | 1UL << (SIGUSR2 - 1) | 1UL << (SIGTERM - 1)));
    kill(pid, SIGTERM);
    for (int status = 0x7f, i = 0; WIFSTOPPED(status) && i < 20; i++) {
        P(PTRACE_CONT, pid, 0, WSTOPSIG(status) ? WSTOPSIG(status) : 0);
        status = next(pid);
    }
    puts("-- fatal signals");
    pid = traced(get_signals);
    P(PTRACE_CONT, pid, 0, SIGTERM);
    next(pid);
    pid = traced(get_signals);
    T(kill(pid, SIGKILL));
    next(pid);
    pid = traced(get_signals);
    T(P(PTRACE_KILL, pid, 0, 0));
    next(pid);
}

/* Steps. */
static void stepped(void) {
    __asm__ volatile("int3\n\tnop\n\tmov $39, %%eax\n\tsyscall\n\tnop\n\tpush %%rax\n\tpop %%rax\n\tmov $5, %%ecx\n"
                     "1:\tdec %%ecx\n\tjnz 1b\n\tint3" ::: "rax", "rcx", "r11", "memory");
    raise(SIGUSR1);
    __asm__ volatile("int3");
}
static volatile int handled;
static void handler(int signo) { handled += signo; }
static void stepped_handler(void) {
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    SYS(close, handled);
}

static void steps(void) {
    puts("-- steps");
    pid_t pid = traced(stepped);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    unsigned long from = regs_of(pid).rip;
    siginfo_t si;
    for (int i = 0; i < 20; i++) {
        P(PTRACE_SINGLESTEP, pid, 0, 0);
        int status;
        waitpid(pid, &status, 0);
        struct user_regs_struct r = regs_of(pid);
        P(PTRACE_GETSIGINFO, pid, 0, &si);
        printf("step %d: %x at +%ld code %d trap flag %d\n", i, status, (long)(r.rip - from), si.si_code,
               (int)(r.eflags >> 8 & 1));
        if (si.si_code == SI_KERNEL)
            break;
    }
    /* Let go, it runs. */
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    P(PTRACE_CONT, pid, 0, 0), next(pid);

    pid = traced(stepped_handler);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    V(P(PTRACE_SINGLESTEP, pid, 0, SIGUSR1));
    next(pid);
    T(P(PTRACE_GETSIGINFO, pid, 0, &si));
    V(si.si_code);
    V(regs_of(pid).rip == (unsigned long)handler);
    V(regs_of(pid).rdi);
    int count = 0, status;
    while (count < 2000) {
        P(PTRACE_SINGLESTEP, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
            break;
        count++;
        struct user_regs_struct r = regs_of(pid);
        long op = 0;
        P(PTRACE_PEEKTEXT, pid, r.rip - 2, &op);
        if ((op & 0xffff) == 0x050f && r.rdi == SIGUSR1)
            break;
    }
    V(WIFSTOPPED(status) && count > 10);
    V(regs_of(pid).eflags & 0x100);
    /* To the end by steps: through the libraries, faults and all. */
    while (count++ < 20000) {
        P(PTRACE_SINGLESTEP, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status))
            break;
    }
    V(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* A breakpoint in a loop, as debuggers do it. */
__attribute__((noinline)) static int hit(int n) {
    __asm__ volatile("nop\n\tnop");
    return n + 1;
}
static void loops(void) {
    int n = 0;
    while (n < 5)
        n = hit(n);
    SYS(close, n);
}

static void breakpoints(void) {
    puts("-- breakpoints");
    pid_t pid = traced(loops);
    long old = 0, word;
    unsigned long at = (unsigned long)hit;
    T(P(PTRACE_PEEKTEXT, pid, at, &old));
    T(P(PTRACE_POKETEXT, pid, at, (old & ~0xffL) | 0xcc));
    for (int i = 0; i < 5; i++) {
        P(PTRACE_CONT, pid, 0, 0), next(pid);
        struct user_regs_struct r = regs_of(pid);
        printf("at %ld, argument %d\n", (long)(r.rip - at), (int)r.rdi);
        r.rip--;
        P(PTRACE_SETREGS, pid, 0, &r);
        P(PTRACE_POKETEXT, pid, at, old);
        P(PTRACE_SINGLESTEP, pid, 0, 0), next(pid);
        V(regs_of(pid).rip != at);
        P(PTRACE_POKETEXT, pid, at, (old & ~0xffL) | 0xcc);
    }
    T(P(PTRACE_PEEKTEXT, pid, at, &word));
    V(word == ((old & ~0xffL) | 0xcc));
    T(P(PTRACE_POKETEXT, pid, at, old));
    T(P(PTRACE_DETACH, pid, 0, 0));
    next(pid);
}

/* Call sites that are come to often are patched in the sandbox: a debugger must see none of it. */
static void often(void) {
    for (int i = 0; i < 400; i++)
        __asm__ volatile("mov $39, %%eax\n\tsyscall" ::: "rax", "rcx", "r11", "memory");
    raise(SIGSTOP);
    __asm__ volatile("nop");
}
static void patched(void) {
    puts("-- calls made often");
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        often();
        often();
        _exit(5);
    }
    waitpid(pid, &status, WUNTRACED);
    T(P(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    next(pid);
    unsigned char *own = (unsigned char *)often, theirs[256];
    struct iovec here = {theirs, sizeof theirs};
    (void)here;
    char path[64];
    sprintf(path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDWR);
    T(pread(mem, theirs, sizeof theirs, (off_t)(uintptr_t)own));
    V(memcmp(theirs, own, sizeof theirs));
    unsigned site = 0;
    while (site < 200 && !(own[site] == 0xb8 && own[site + 1] == 39 && own[site + 5] == 0x0f))
        site++;
    V(site < 200);
    /* A breakpoint at the call, and one step on from there. */
    T(pwrite(mem, "\xcc", 1, (off_t)(uintptr_t)(own + site)));
    kill(pid, SIGCONT);
    P(PTRACE_CONT, pid, 0, 0);
    for (int i = 0; i < 6; i++) {
        waitpid(pid, &status, 0);
        if (status >> 8 == SIGTRAP)
            break;
        P(PTRACE_CONT, pid, 0, 0);
    }
    struct user_regs_struct r = regs_of(pid);
    V(r.rip == (unsigned long)own + site + 1);
    T(pwrite(mem, "\xb8", 1, (off_t)(uintptr_t)(own + site)));
    r.rip--;
    T(P(PTRACE_SETREGS, pid, 0, &r));
    P(PTRACE_SINGLESTEP, pid, 0, 0), next(pid);
    V(regs_of(pid).rip == (unsigned long)own + site + 5);
    V(regs_of(pid).rax);
    P(PTRACE_SINGLESTEP, pid, 0, 0), next(pid);
    V(regs_of(pid).rip == (unsigned long)own + site + 7);
    V(regs_of(pid).rax == (unsigned)pid);
    T(pread(mem, theirs, sizeof theirs, (off_t)(uintptr_t)own));
    V(memcmp(theirs, own, sizeof theirs));
    T(P(PTRACE_DETACH, pid, 0, 0));
    close(mem);
    waitpid(pid, &status, WUNTRACED);
    V(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    next(pid);
}

/* Debug registers. */
static volatile long watched[4];
static volatile int watched_byte;
__attribute__((noinline)) static void place(void) { __asm__ volatile("nop\n\tnop"); }
static void writes(void) {
    raise(SIGUSR1);
    for (int i = 0; i < 50; i++)
        watched[3] = i;
    watched[1] = 5;
    SYS(getppid);
    place();
    watched_byte = 7;
    watched[1] = 6;
    place();
    SYS(close, 60);
}
static void debug(pid_t pid, int n, unsigned long value) { T(P(PTRACE_POKEUSR, pid, offsetof(struct user, u_debugreg[n]), value)); }
static long debugged(pid_t pid, int n) {
    long word = -1;
    T(P(PTRACE_PEEKUSR, pid, offsetof(struct user, u_debugreg[n]), &word));
    return word;
}
static void debug_registers(void) {
    puts("-- debug registers");
    pid_t pid = traced(writes);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    V(debugged(pid, 6) & 0xf);
    debug(pid, 0, (unsigned long)&watched[1]);
    debug(pid, 1, (unsigned long)place);
    debug(pid, 2, (unsigned long)&watched_byte);
    V(debugged(pid, 0) == (long)&watched[1]);
    debug(pid, 3, 5);
    debug(pid, 7, 0x10000000 | 0xd0000 << 12 | 1 << 6); /* not aligned */
    debug(pid, 7, 0x20000000 | 1 << 6);                 /* I/O */
    debug(pid, 3, 0);
    debug(pid, 7, 0x90000 | 0xd000000 | 1 | 1 << 2 | 1 << 4);
    V(debugged(pid, 7) == (0x90000 | 0xd000000 | 1 | 1 << 2 | 1 << 4));
    for (int i = 0; i < 5; i++) {
        P(PTRACE_CONT, pid, 0, 0), next(pid);
        siginfo_t si;
        P(PTRACE_GETSIGINFO, pid, 0, &si);
        struct user_regs_struct r = regs_of(pid);
        long word = 0;
        P(PTRACE_PEEKDATA, pid, &watched[1], &word);
        printf("code %d status %ld at the place %d address right %d value %ld\n", si.si_code, debugged(pid, 6) & 0xf,
               r.rip == (unsigned long)place, si.si_addr == (void *)r.rip, word);
        debug(pid, 6, 0);
    }
    debug(pid, 7, 0);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
}

/* Calls that a filter wants traced. */
static void filtered(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 0x1234),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 5),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 0xffff),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    raise(SIGUSR1);
    for (int i = 0; i < 4; i++)
        SYS(getppid);
    SYS(close, 77);
}
static void filters(void) {
    puts("-- filters");
    pid_t pid = traced(filtered);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEEXIT));
    for (int i = 0; i < 5; i++) {
        P(PTRACE_CONT, pid, 0, 0), next(pid);
        struct ptrace_syscall_info info;
        memset(&info, 0, sizeof info);
        long n = P(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
        struct user_regs_struct r = regs_of(pid);
        unsigned long message = 0;
        siginfo_t si;
        P(PTRACE_GETEVENTMSG, pid, 0, &message);
        P(PTRACE_GETSIGINFO, pid, 0, &si);
        printf("info %ld op %d call %lld said %x message %lx code %x rax %lld\n", n, info.op, (long long)r.orig_rax,
               info.op == 3 ? info.seccomp.ret_data : 0, message, si.si_code, (long long)r.rax);
        if (i == 1) /* one that the filter refuses */
            P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.orig_rax), SYS_getuid);
        if (i == 2) /* none */
            P(PTRACE_POKEUSR, pid, offsetof(struct user, regs.orig_rax), -1);
        if (i < 3) {
            P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
            V(i ? regs_of(pid).rax : regs_of(pid).rax == (unsigned)getpid());
        }
    }
    gone(pid);
    pid = traced(filtered);
    P(PTRACE_CONT, pid, 0, 0), next(pid);
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    P(PTRACE_SYSCALL, pid, 0, 0), next(pid);
    V(regs_of(pid).rax);
    gone(pid);
}

/* Calls made often, watched: no step leads astray. */
static void often_watched(void) {
    often();
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 30; j++) {
            long r;
            __asm__ volatile("mov $39, %%eax\n\tsyscall" : "=a"(r)::"rcx", "r11", "memory");
            if (j == 29)
                watched[2] = r;
        }
}
static void watched_calls(void) {
    puts("-- calls made often, watched");
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 3; i++)
            often_watched();
        _exit(6);
    }
    waitpid(pid, &status, WUNTRACED);
    T(P(PTRACE_SEIZE, pid, 0, 0));
    next(pid);
    debug(pid, 0, (unsigned long)&watched[2]);
    debug(pid, 7, 0x90001);
    kill(pid, SIGCONT);
    for (int i = 0, traps = 0; i < 40 && traps < 1; i++) {
        P(PTRACE_CONT, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (status >> 8 == SIGTRAP) {
            traps++;
            long word = 0;
            P(PTRACE_PEEKDATA, pid, &watched[2], &word);
            V(word == pid);
        }
    }
    V(status >> 8);
    gone(pid);
}

static void compares(void) {
    puts("-- kcmp");
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    int fd = dup(1);
    T(SYS(kcmp, getpid(), pid, KCMP_FILE, 1, 1));
    T(SYS(kcmp, getpid(), getpid(), KCMP_FILE, 1, fd));
    T(SYS(kcmp, getpid(), pid, KCMP_FILE, 1, 0) != 0);
    T(SYS(kcmp, getpid(), pid, KCMP_FILE, 1, 77));
    T(SYS(kcmp, getpid(), getpid(), KCMP_VM, 0, 0));
    T(SYS(kcmp, getpid(), pid, KCMP_VM, 0, 0) > 0);
    T(SYS(kcmp, getpid(), pid, KCMP_FILES, 0, 0) > 0);
    T(SYS(kcmp, getpid(), pid, KCMP_FS, 0, 0) > 0);
    T(SYS(kcmp, getpid(), pid, KCMP_SIGHAND, 0, 0) > 0);
    T(SYS(kcmp, getpid(), pid, 99, 0, 0));
    T(SYS(kcmp, getpid(), 999999, KCMP_VM, 0, 0));
    close(fd);
    gone(pid);
}

/* Who may. */
static void rights(void) {
    puts("-- rights");
    pid_t root = fork();
    if (root == 0)
        for (;;)
            pause();
    pid_t user = fork();
    if (user == 0) {
        if (setgid(1234) || setuid(1234))
            _exit(1);
        prctl(PR_SET_DUMPABLE, 1);
        raise(SIGSTOP);
        prctl(PR_SET_DUMPABLE, 0);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    waitpid(user, &status, WUNTRACED);
    pid_t other = fork();
    if (other == 0) {
        if (setgid(1234) || setuid(1234))
            _exit(1);
        T(P(PTRACE_ATTACH, root, 0, 0));
        T(P(PTRACE_SEIZE, root, 0, 0));
        long word;
        struct iovec here = {&word, 8}, there = {(void *)&shared_word, 8};
        T(SYS(process_vm_readv, root, &here, 1, &there, 1, 0));
        T(SYS(process_vm_readv, user, &here, 1, &there, 1, 0));
        T(P(PTRACE_SEIZE, user, 0, 0));
        next(user);
        T(P(PTRACE_DETACH, user, 0, 0));
        kill(user, SIGCONT);
        for (char state = 0, line[64]; state != 'T';) {
            char path[64];
            sprintf(path, "/proc/%d/stat", user);
            int fd = open(path, O_RDONLY);
            line[read(fd, line, 63)] = 0;
            close(fd);
            state = strrchr(line, ')')[2];
            usleep(1000);
        }
        usleep(100000);
        T(P(PTRACE_SEIZE, user, 0, 0));
        T(SYS(process_vm_readv, user, &here, 1, &there, 1, 0));
        fflush(stdout);
        _exit(0);
    }
    next(other);
    /* Root may. */
    T(P(PTRACE_SEIZE, user, 0, 0));
    next(user);
    T(P(PTRACE_DETACH, user, 0, SIGKILL));
    kill(user, SIGKILL);
    gone(user);
    gone(root);
}

int main(void) {
    errors();
    calls();
    registers();
    memory();
    signals();
    steps();
    breakpoints();
    patched();
    debug_registers();
    filters();
    watched_calls();
    compares();
    rights();
    return 0;
}
