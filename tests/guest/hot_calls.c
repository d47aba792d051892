/* Calls made thousands of times in a row from one site: a sandbox may patch such sites and answer them by another way. Whatever
 * it does, registers, signals, forks, threads and blocking must be as ever. */
#include "guest.h"
#include <setjmp.h>

/* getppid() from a site of its own, with all registers loaded from `in` before and stored to `out` behind it:
 * rdi rsi rdx r10 r8 r9 rbx rbp r12 r13 r14 r15. `middle` is the address of its syscall instruction alone. */
long site(const unsigned long *in, unsigned long *out);
__asm__(".text\nsite: push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rsi\n"
        "mov %rdi, %rax\n mov 0(%rax), %rdi\n mov 8(%rax), %rsi\n mov 16(%rax), %rdx\n mov 24(%rax), %r10\n"
        "mov 32(%rax), %r8\n mov 40(%rax), %r9\n mov 48(%rax), %rbx\n mov 56(%rax), %rbp\n mov 64(%rax), %r12\n"
        "mov 72(%rax), %r13\n mov 80(%rax), %r14\n mov 88(%rax), %r15\n"
        "mov $110, %eax\n middle: syscall\n"
        "pop %rcx\n mov %rdi, 0(%rcx)\n mov %rsi, 8(%rcx)\n mov %rdx, 16(%rcx)\n mov %r10, 24(%rcx)\n"
        "mov %r8, 32(%rcx)\n mov %r9, 40(%rcx)\n mov %rbx, 48(%rcx)\n mov %rbp, 56(%rcx)\n mov %r12, 64(%rcx)\n"
        "mov %r13, 72(%rcx)\n mov %r14, 80(%rcx)\n mov %r15, 88(%rcx)\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

/* Sites of getppid() and of getpid(), 16 bytes each. */
#define SITES 200
long parents_sites(void), own_sites(void);
__asm__(".balign 16\nparents_sites: .rept 200\n.balign 16\n mov $110, %eax\n syscall\n ret\n.endr\n"
        ".balign 16\nown_sites: .rept 200\n.balign 16\n mov $39, %eax\n syscall\n ret\n.endr\n.balign 16\n");
static long at_site(long (*sites)(void), int i) { return ((long (*)(void))((char *)sites + 16 * i))(); }
static long wrong_at(long (*sites)(void), int from, int to, int times, long want) {
    long wrong = 0;
    for (int i = from; i < to; i++)
        for (int k = 0; k < times; k++) wrong += at_site(sites, i) != want;
    return wrong;
}

static volatile sig_atomic_t ticks, wrong_inside;
static pid_t parent;
static int null_fd;
static sigjmp_buf out_of_it;

static void tick(int s) {
    ticks++;
    if (getppid() != parent || write(null_fd, "x", 1) != 1) wrong_inside++;
}

static void jump(int s) { ticks++; siglongjmp(out_of_it, 1); }

static void every(long us) {
    struct itimerval t = {{0, us}, {0, us}};
    setitimer(ITIMER_REAL, &t, 0);
}

static long registers_changed(long rounds) {
    long bad = 0;
    for (long i = 0; i < rounds; i++) {
        unsigned long in[12], out[12];
        for (int k = 0; k < 12; k++) in[k] = i * 0x9e3779b97f4a7c15UL + k;
        if (site(in, out) != parent || memcmp(in, out, sizeof in)) bad++;
    }
    return bad;
}

static void *echo(void *p) {
    int *fd = p;
    char c;
    while (read(fd[0], &c, 1) == 1 && write(fd[1], &c, 1) == 1) {}
    return 0;
}

static void *count(void *p) {
    long wrong = 0;
    for (int i = 0; i < 3000; i++) wrong += getppid() != parent;
    return (void *)wrong;
}

/* Calls that were not made exactly once each, by what they leave behind. */
static long not_once(long rounds) {
    int fd = open("once", O_CREAT | O_RDWR, 0600);
    long bad = 0;
    off_t at = 0;
    time_t end = time(0) + 2;
    while (at < rounds && time(0) < end) {
        off_t next = lseek(fd, 1, SEEK_CUR);
        bad += next != at + 1;
        at = next;
    }
    bad += lseek(fd, 0, SEEK_CUR) != at;
    close(fd);
    unlink("once");
    return bad;
}

/* A process of its own with the same memory, that comes through the same sites all the time. */
static int sibling(void *pid) {
    for (;;) if (wrong_at(parents_sites, 100, SITES, 10, (long)pid)) return 1;
}

/* A copy of the process and the process itself, each with sites that became hot after the copy was made. */
static long wrong_in_copies(void) {
    int there[2], back[2], st;
    char c;
    if (pipe(there) || pipe(back)) return -1;
    long wrong = wrong_at(parents_sites, 0, 1, 500, getppid());
    pid_t child = fork();
    if (!child) {
        wrong = wrong_at(own_sites, 0, 60, 200, getpid());
        if (write(back[1], "x", 1) != 1 || read(there[0], &c, 1) != 1) _exit(9);
        wrong += wrong_at(own_sites, 0, 60, 200, getpid());
        _exit(wrong ? 1 : 0);
    }
    if (read(back[0], &c, 1) != 1) return -2;
    wrong += wrong_at(parents_sites, 0, 60, 200, getppid());
    if (write(there[1], "x", 1) != 1) return -3;
    waitpid(child, &st, 0);
    wrong += wrong_at(parents_sites, 0, 60, 200, getppid());
    for (int i = 0; i < 2; i++) close(there[i]), close(back[i]);
    return wrong + 1000000L * st;
}

int main(void) {
    parent = getppid();
    V(wrong_in_copies());
    static char before[16 * SITES], stack[65536] __attribute__((aligned(16)));
    memcpy(before, (char *)parents_sites, sizeof before);
    pid_t other = clone(sibling, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)(long)getpid());
    V(wrong_at(parents_sites, 100, SITES, 500, getppid()));
    /* Nobody changes text that another runs. */
    V(memcmp(before + 1600, (char *)parents_sites + 1600, sizeof before - 1600));
    OK(kill(other, SIGKILL));
    OK(waitpid(other, 0, 0));
    V(wrong_at(parents_sites, 100, SITES, 2000, getppid()));
    null_fd = open("/dev/null", O_WRONLY);
    /* Plain. */
    V(registers_changed(3000));
    long wrong = 0;
    for (int i = 0; i < 3000; i++) wrong += getppid() != parent;
    V(wrong);

    /* Each once, also while others want the processors. */
    V(not_once(30000));
    pid_t busy[3];
    for (int i = 0; i < 3; i++) if (!(busy[i] = fork())) for (alarm(60);;);
    V(not_once(60000));
    for (int i = 0; i < 3; i++) kill(busy[i], SIGKILL), waitpid(busy[i], 0, 0);

    /* With signals whose handlers make the same calls. */
    signal(SIGALRM, tick);
    every(1500);
    long bad = registers_changed(30000);
    for (int i = 0; i < 30000; i++) wrong += getppid() != parent;
    every(0);
    V(bad);
    V(wrong);
    V(wrong_inside);
    V(ticks > 3);

    /* Handlers that never return. */
    signal(SIGALRM, jump);
    ticks = 0;
    volatile int jumps = 0;
    volatile long calls = 0;
    if (sigsetjmp(out_of_it, 1)) jumps++;
    if (jumps < 20) {
        /* Once each: one more between the last jump and the timer's end would be counted too. */
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 500}}, NULL);
        for (;;) { calls++; if (getppid() != parent) wrong++; }
    }
    every(0);
    V(jumps);
    V(wrong);
    V(calls > 20);

    /* Errors, and calls that block, of one site. */
    signal(SIGALRM, tick);
    int p[2], q[2], again = 0, interrupted = 0;
    char c;
    OK(pipe(p));
    OK(pipe2(q, O_NONBLOCK));
    for (int i = 0; i < 1000; i++) again += read(q[0], &c, 1) == -1 && errno == EAGAIN;
    V(again);
    struct sigaction plain = {.sa_handler = tick}, restart = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &plain, 0);
    for (int i = 0; i < 20; i++) {
        struct itimerval once = {{0, 0}, {0, 2000}};
        setitimer(ITIMER_REAL, &once, 0);
        interrupted += read(p[0], &c, 1) == -1 && errno == EINTR;
    }
    V(interrupted);
    sigaction(SIGALRM, &restart, 0);
    every(700);
    long got = 0;
    if (!fork()) {
        every(0);
        for (int i = 0; i < 200; i++) { usleep(300); if (write(p[1], "y", 1) != 1) _exit(1); }
        _exit(0);
    }
    for (int i = 0; i < 200; i++) got += read(p[0], &c, 1);
    every(0);
    V(got);
    int st;
    wait(&st);
    V(st);

    /* Copies of the process, and what they run. */
    long statuses = 0;
    for (int i = 0; i < 20; i++) {
        pid_t me = getpid(), child = fork();
        if (!child) {
            long w = 0;
            for (int k = 0; k < 500; k++) w += getppid() != me;
            _exit(w ? 1 : 7);
        }
        waitpid(child, &st, 0);
        statuses += WEXITSTATUS(st);
    }
    V(statuses);
    V(system("i=0; while [ $i -lt 300 ]; do i=$((i+1)); : < /dev/null; done"));

    /* Threads in a process whose sites are patched by now. */
    int there[2], back[2], fds[2];
    OK(pipe(there));
    OK(pipe(back));
    fds[0] = there[0], fds[1] = back[1];
    pthread_t t, more[4];
    pthread_create(&t, 0, echo, fds);
    long echoed = 0;
    for (int i = 0; i < 3000; i++) {
        char w = i, r = 0;
        echoed += write(there[1], &w, 1) == 1 && read(back[0], &r, 1) == 1 && r == w;
    }
    V(echoed);
    close(there[1]);
    pthread_join(t, 0);
    every(1000);
    for (int i = 0; i < 4; i++) pthread_create(&more[i], 0, count, 0);
    for (int i = 0; i < 4; i++) { void *w; pthread_join(more[i], &w); wrong += (long)w; }
    every(0);
    V(wrong);
    V(wrong_inside);

    /* Text that changes again: what was patched goes with its page. */
    extern char middle[];
    char *page = (char *)((unsigned long)middle & ~4095UL);
    OK(mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC));
    V(registers_changed(300));
    OK(mprotect(page, 8192, PROT_READ | PROT_EXEC));
    V(registers_changed(300));
    OK(madvise(page, 4096, MADV_DONTNEED));
    V(registers_changed(3000));
    return 0;
}
