/* Makes system calls at random inside a sandbox: fuzz_calls SECONDS SEED [SEEDS]
 *
 * Process 1 here is the judge: it starts rounds of workers, each a process of some threads and children that make calls whose
 * arguments are mostly of the kind the call wants (CALLS below), sometimes taken from a file of calls that the guest programs made
 * (SEEDS: number and six arguments in hexadecimal a line), sometimes nonsense. After each round it ends what is left and looks
 * whether the kernel is still itself: no process is left, everyday things work. It ends with 0, or says what was wrong and
 * ends with 1. The seed and the round make the worker's choices; threads race, so a round is not repeated exactly. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Number, a letter an argument, and how often; 0 for what soon ends the worker or leaves it waiting. Letters:
 * f descriptor  p path  b buffer  l length  s signal  i process  t short time  v vector of buffers  n small number
 * x anything    g flags a address in scratch memory  S size of it  u user  z zero  w futex word  A socket address  M message
 * e epoll event  o open flags  m mode  c signal set  C name of an attribute  r resource  k IPC key or id  K clock  P protection  F fcntl command  I ioctl request */
static const struct { short nr; const char *args; short weight; } CALLS[] = {
    { 0, "fbl", 4 }, { 1, "fbl", 4 }, { 2, "pom", 4 }, { 3, "f", 2 }, { 4, "pb", 1 }, { 5, "fb", 1 }, { 6, "pb", 1 }, { 7, "bnt", 2 }, { 8, "fxn", 2 },
    { 9, "aSPgfl", 3 }, { 10, "aSP", 3 }, { 11, "aS", 2 }, { 12, "a", 0 }, { 13, "sbzn", 0 }, { 14, "nccn", 0 }, { 16, "fIb", 4 }, { 17, "fbll", 2 }, { 18, "fbll", 2 },
    { 19, "fvn", 2 }, { 20, "fvn", 2 }, { 21, "pm", 1 }, { 22, "b", 2 }, { 23, "nbbbt", 1 }, { 24, "", 0 }, { 25, "aSSna", 3 }, { 26, "aSn", 2 }, { 27, "aSb", 1 },
    { 28, "aSn", 4 }, { 29, "kSg", 2 }, { 30, "kag", 2 }, { 31, "knb", 2 }, { 32, "f", 2 }, { 33, "ff", 1 }, { 35, "tb", 1 }, { 36, "nb", 1 }, { 37, "n", 0 }, { 38, "nbb", 0 },
    { 39, "", 1 }, { 40, "ffbl", 2 }, { 41, "nng", 3 }, { 42, "fAl", 2 }, { 43, "fAb", 2 }, { 44, "fblgAl", 2 }, { 45, "fblgAb", 2 }, { 46, "fMg", 4 }, { 47, "fMg", 4 },
    { 48, "fn", 1 }, { 49, "fAl", 2 }, { 50, "fn", 2 }, { 51, "fAb", 1 }, { 52, "fAb", 1 }, { 53, "nngb", 3 }, { 54, "fnnbl", 2 }, { 55, "fnnbb", 2 }, { 58, "", 1 }, { 59, "pbb", 1 },
    { 61, "ibgb", 2 }, { 62, "is", 1 }, { 63, "b", 1 }, { 64, "kng", 2 }, { 65, "kbn", 2 }, { 66, "knnb", 2 }, { 67, "a", 1 }, { 68, "kg", 2 }, { 69, "kblg", 2 },
    { 70, "kblng", 2 }, { 71, "knb", 2 }, { 72, "fFn", 4 }, { 73, "fn", 2 }, { 74, "f", 1 }, { 75, "f", 1 }, { 76, "pl", 1 }, { 77, "fl", 2 }, { 78, "fbl", 1 }, { 79, "bl", 1 },
    { 80, "p", 1 }, { 81, "f", 1 }, { 82, "pp", 2 }, { 83, "pm", 2 }, { 84, "p", 1 }, { 85, "pm", 1 }, { 86, "pp", 2 }, { 87, "p", 2 }, { 88, "pp", 2 }, { 89, "pbl", 1 },
    { 90, "pm", 1 }, { 91, "fm", 1 }, { 92, "puu", 1 }, { 93, "fuu", 1 }, { 94, "puu", 1 }, { 95, "m", 1 }, { 96, "bb", 1 }, { 97, "rb", 1 }, { 98, "nb", 1 }, { 99, "b", 1 },
    { 100, "b", 1 }, { 101, "niab", 3 }, { 102, "", 1 }, { 103, "nbl", 1 }, { 105, "u", 1 }, { 106, "u", 1 }, { 109, "ii", 1 }, { 112, "", 1 }, { 113, "uu", 1 }, { 115, "nb", 1 }, { 116, "nb", 1 }, { 117, "uuu", 1 },
    { 121, "i", 1 }, { 122, "u", 1 }, { 124, "i", 1 }, { 125, "bb", 1 }, { 126, "bb", 1 }, { 127, "cn", 1 }, { 128, "cbtn", 0 }, { 129, "isb", 1 }, { 130, "cn", 1 }, { 131, "bb", 0 },
    { 132, "pb", 1 }, { 133, "pmx", 1 }, { 135, "x", 1 }, { 137, "pb", 1 }, { 138, "fb", 1 }, { 140, "ni", 1 }, { 141, "nin", 1 }, { 142, "ib", 1 }, { 143, "ib", 1 }, { 144, "inb", 1 }, { 145, "i", 1 },
    { 148, "ib", 1 }, { 149, "aS", 1 }, { 150, "aS", 1 }, { 151, "n", 1 }, { 155, "pp", 1 }, { 157, "nxxxx", 3 }, { 158, "xb", 1 }, { 160, "rb", 1 }, { 161, "p", 1 }, { 165, "pppgb", 2 }, { 166, "pg", 1 },
    { 170, "bl", 1 }, { 186, "", 1 }, { 187, "fll", 1 }, { 188, "pCbln", 1 }, { 190, "fCbln", 2 }, { 191, "pCbl", 1 }, { 193, "fCbl", 1 }, { 194, "pbl", 1 }, { 197, "pC", 1 }, { 200, "is", 1 }, { 201, "b", 1 },
    { 202, "wnntwn", 6 }, { 203, "ilb", 1 }, { 204, "ilb", 1 }, { 206, "nb", 1 }, { 207, "x", 1 }, { 208, "xnnbt", 1 }, { 209, "xnb", 1 }, { 210, "xbb", 1 }, { 213, "n", 1 }, { 217, "fbl", 2 }, { 218, "b", 1 }, { 219, "", 1 }, { 220, "kbnt", 2 }, { 221, "flln", 1 }, { 222, "Kbb", 2 }, { 223, "ngbb", 2 }, { 224, "nb", 1 }, { 226, "n", 1 },
    { 228, "Kb", 1 }, { 229, "Kb", 1 }, { 230, "Kntb", 2 }, { 232, "fbnn", 2 }, { 233, "fnfe", 4 }, { 234, "iis", 1 }, { 235, "pb", 1 }, { 240, "pomb", 2 }, { 241, "p", 1 }, { 242, "fblnt", 2 }, { 243, "fblbt", 2 }, { 244, "fb", 1 }, { 245, "fbb", 1 },
    { 247, "nibgb", 2 }, { 251, "nin", 1 }, { 253, "", 1 }, { 254, "fpg", 2 }, { 255, "fn", 1 }, { 257, "fpom", 4 }, { 258, "fpm", 1 }, { 259, "fpmx", 1 }, { 260, "fpuug", 1 }, { 262, "fpbg", 1 }, { 263, "fpg", 2 }, { 264, "fpfp", 2 }, { 265, "fpfpg", 2 },
    { 266, "pfp", 2 }, { 267, "fpbl", 1 }, { 268, "fpm", 1 }, { 269, "fpm", 1 }, { 270, "nbbbtb", 1 }, { 271, "bntcn", 2 }, { 272, "g", 2 }, { 273, "bn", 1 }, { 274, "ibb", 1 }, { 275, "fbfblg", 3 }, { 276, "fflg", 2 }, { 277, "fllg", 1 }, { 278, "fvng", 2 },
    { 280, "fpbg", 1 }, { 281, "fbnncn", 1 }, { 282, "fcn", 1 }, { 283, "Kg", 2 }, { 284, "n", 1 }, { 285, "fgll", 3 }, { 286, "fgbb", 2 }, { 287, "fb", 1 }, { 288, "fAbg", 1 }, { 289, "fcng", 2 }, { 290, "ng", 2 }, { 291, "g", 2 }, { 292, "ffg", 1 }, { 293, "bg", 2 },
    { 294, "g", 1 }, { 295, "fvnl", 1 }, { 296, "fvnl", 1 }, { 297, "iisb", 1 }, { 299, "fbngt", 1 }, { 302, "irbb", 1 }, { 306, "f", 1 }, { 307, "fbng", 1 }, { 308, "fg", 1 }, { 309, "bb", 1 }, { 310, "ivnvnz", 2 }, { 311, "ivnvnz", 2 }, { 312, "iinff", 1 }, { 314, "ibz", 1 }, { 315, "ibng", 1 },
    { 316, "fpfpg", 2 }, { 317, "ngb", 2 }, { 318, "blg", 1 }, { 319, "pg", 2 }, { 322, "fpbbg", 1 }, { 324, "gn", 1 }, { 325, "aSg", 1 }, { 326, "fbfblg", 3 }, { 327, "fvnlxg", 1 }, { 328, "fvnlxg", 1 }, { 329, "aSPn", 1 }, { 332, "fpgnb", 2 }, { 424, "fsbg", 1 }, { 434, "ig", 2 },
    { 435, "bl", 2 }, { 436, "ffg", 1 }, { 437, "fpbl", 2 }, { 438, "ffn", 1 }, { 439, "fpmg", 1 }, { 440, "fvnng", 1 }, { 441, "fbntcn", 1 }, { 449, "bngtn", 1 }, { 452, "fpmg", 1 }, { 454, "wxng", 1 }, { 455, "wxxgtn", 1 }, { 456, "bgnn", 1 },
};
#define COUNT (sizeof CALLS / sizeof *CALLS)
/* Never: what ends the judge's means of judging, or only the worker itself (exit, exit_group, rt_sigreturn, vfork). */

static __thread uint64_t state;
static uint64_t rnd(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state * 0x2545f4914f6cdd1dULL; }
static uint64_t under(uint64_t n) { return (rnd() >> 11) % n; }

#define SCRATCH (32UL << 20)
static char *scratch, *buffers;
#define BUFFERS (64UL << 10)
static uint32_t *words;
static uint64_t (*seeds)[7];
static size_t seed_count;
static int judge_pid;
/* Calls made, by all. */
static uint64_t *made;

static uint64_t odd(void) {
    static const uint64_t values[] = { 0, 1, -1, 2, 4095, 4096, 4097, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 8, 0x7ffffffff000, 0xffffffff81000000, 1023, 1024, 65536 };
    switch (under(3)) {
    case 0: return values[under(sizeof values / sizeof *values)];
    case 1: return 1ULL << under(64);
    default: return rnd();
    }
}
static const char *path(void) {
    static __thread char made[8][300];
    static __thread int next;
    static const char *known[] = { ".", "..", "/", "/proc/self/maps", "/proc/self/fd/0", "/proc/self/status", "/proc/self/mem", "/proc/self/task", "/dev/null", "/dev/zero", "/dev/full", "/dev/ptmx",
        "/dev/tty", "/dev/urandom", "/proc/self/exe", "/proc/self/ns/user", "/proc/sys/kernel/hostname", "/tmp", "/etc/passwd", "/bin/true", "/proc/1/status", "/sys/fs/cgroup/cgroup.procs", "/proc/mounts", "", "/dev/shm", "/dev/mqueue/a", "q", "proc", "tmpfs", "/proc/self/pagemap" };
    char *m = made[next++ % 8];
    switch (under(8)) {
    case 0: return known[under(sizeof known / sizeof *known)];
    case 1: sprintf(m, "d%d/f%d", (int)under(3), (int)under(4)); return m;
    case 2: sprintf(m, "d%d/../d%d/s%d", (int)under(3), (int)under(3), (int)under(2)); return m;
    case 3: memset(m, 'n', 256); m[under(256)] = 0; m[255] = 0; return m;
    case 4: sprintf(m, "/proc/self/fd/%d", (int)under(20)); return m;
    case 5: sprintf(m, "\xff\xfe%c", (int)under(256)); return m;
    default: sprintf(m, "%c%d", "fsdl"[under(4)], (int)under(4)); return m;
    }
}
static void *buffer(void) { return buffers + (under(BUFFERS - 4096) & ~(under(8) ? 7UL : 0)); }
static void *vector(void) {
    struct iovec *v = (void *)(buffers + (under(BUFFERS - 8192) & ~15UL));
    int n = under(6);
    for (int i = 0; i < n; i++) v[i] = (struct iovec){ under(9) ? buffer() : (void *)odd(), under(9) ? under(3000) : odd() };
    return v;
}
static void *address_of(void) {
    if (under(2)) {
        /* One of few ports, so that they meet. */
        int port = htons(under(8) ? 40000 + under(8) : odd());
        struct sockaddr_in *four = buffer();
        struct sockaddr_in6 *six = (void *)four;
        if (under(2)) *four = (struct sockaddr_in){ AF_INET, port, { htonl(under(4) ? INADDR_LOOPBACK : odd()) }, { 0 } };
        else *six = (struct sockaddr_in6){ AF_INET6, port, 0, under(4) ? in6addr_loopback : in6addr_any, under(3) };
        return four;
    }
    struct sockaddr_un *a = buffer();
    a->sun_family = under(9) ? AF_UNIX : odd();
    snprintf(a->sun_path, sizeof a->sun_path, "%c%c%d", under(2) ? 's' : 0, 'k', (int)under(4));
    return a;
}
static void *message(void) {
    struct msghdr *m = (void *)(buffers + (under(BUFFERS - 8192) & ~15UL));
    char *control = (void *)((uintptr_t)buffer() & ~15UL);
    struct cmsghdr *c = (void *)control;
    *m = (struct msghdr){ .msg_iov = vector(), .msg_iovlen = under(5), .msg_control = under(3) ? control : NULL, .msg_controllen = under(3) ? CMSG_SPACE(8) : under(300) };
    if (!under(3)) { m->msg_name = address_of(); m->msg_namelen = under(110); }
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = under(9) ? SCM_RIGHTS : (int)odd(); c->cmsg_len = under(9) ? CMSG_LEN(8) : odd();
    ((int *)CMSG_DATA(c))[0] = under(24); ((int *)CMSG_DATA(c))[1] = under(24);
    return m;
}
static uint64_t argument(char kind) {
    if (!under(24)) return odd();
    switch (kind) {
    case 'f': return under(12) ? under(28) : under(2) ? -100ULL : odd();
    case 'p': return (uint64_t)path();
    case 'b': { uint64_t *b = buffer(); if (!under(4)) for (int i = 0; i < 8; i++) b[i] = under(2) ? under(64) : odd(); return under(12) ? (uint64_t)b : 0; }
    case 'l': return under(8) ? under(5000) : under(2) ? under(1 << 20) : odd();
    case 'S': return under(6) ? (under(64) + 1) << 12 : under(SCRATCH);
    case 'a': return (uint64_t)scratch + (under(SCRATCH) & ~(under(8) ? 4095UL : 0));
    case 'P': return under(8);
    case 's': return under(10) ? under(65) : odd();
    case 'i': return under(3) ? 0 : under(3) ? (uint64_t)getpid() + under(6) - 3 : under(2) ? under(200) : odd();
    case 't': { struct timespec *t = (void *)((uintptr_t)buffer() & ~7UL); t->tv_sec = under(40) ? 0 : (long)odd(); t->tv_nsec = under(20) ? under(2000000) : odd(); return under(12) ? (uint64_t)t : 0; }
    case 'v': return (uint64_t)vector();
    case 'n': return under(8) ? under(20) : under(300);
    case 'g': return under(3) ? 0 : under(2) ? 1ULL << under(32) : (1ULL << under(20)) | (1ULL << under(20));
    case 'u': return under(4) ? 60000 + under(8) : odd();
    case 'w': return (uint64_t)(words + under(4));
    case 'A': return (uint64_t)address_of();
    case 'M': return (uint64_t)message();
    case 'e': { struct epoll_event *e = buffer(); e->events = under(2) ? (uint32_t)rnd() : EPOLLIN | EPOLLOUT | (under(2) ? EPOLLET : 0) | (under(4) ? 0 : EPOLLONESHOT); return (uint64_t)e; }
    case 'o': return under(4) | (under(2) ? O_CREAT : 0) | (under(6) ? 0 : O_TRUNC) | (under(6) ? 0 : 1 << under(24)) | (under(3) ? O_NONBLOCK : 0);
    case 'm': return under(2) ? 0644 : under(0200000);
    case 'c': return (uint64_t)buffer();
    case 'C': { static const char *names[] = { "user.a", "user.b", "trusted.c", "security.capability", "system.posix_acl_access", "user." }; return (uint64_t)names[under(6)]; }
    case 'r': return under(17);
    case 'k': return under(2) ? under(8) : under(3) ? 0 : odd();
    case 'K': return under(12) - (under(6) ? 0 : 6);
    case 'F': return under(3) ? under(17) : 1024 + under(14);
    case 'I': return under(2) ? 0x5400 + under(0x60) : under(2) ? 0x8900 + under(0x60) : odd();
    case 'x': return odd();
    default: return 0;
    }
}
/* Calls that a seed must not name either. */
static int never(long nr) {
    return nr == SYS_exit || nr == SYS_exit_group || nr == SYS_rt_sigreturn || nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3 || nr == SYS_fork || nr == SYS_pause || nr == SYS_rt_sigsuspend || nr == SYS_execve || nr == SYS_rt_sigprocmask || nr == SYS_rt_sigaction || nr == SYS_alarm || nr == SYS_setitimer;
}
static volatile int forks;
static void one(void) {
    long nr;
    uint64_t a[6] = { 0 };
    if (seed_count && !under(5)) {
        uint64_t *s = seeds[under(seed_count)];
        nr = s[0];
        if (never(nr)) return;
        for (int i = 0; i < 6; i++) {
            /* What pointed somewhere points into the buffers. */
            a[i] = s[i + 1] > 0x100000000ULL && s[i + 1] < 0x800000000000ULL ? (uint64_t)buffer() : s[i + 1];
            if (!under(8)) a[i] = argument("fblsinxgaS"[under(10)]);
        }
    } else if (!under(60)) {
        nr = under(470);
        if (never(nr)) return;
        for (int i = 0; i < 6; i++) a[i] = argument("fpblsitvnxgaSuwAMeom"[under(20)]);
    } else {
        size_t c;
        do c = under(COUNT); while (CALLS[c].weight ? (int)under(6) >= CALLS[c].weight : under(200) != 0);
        nr = CALLS[c].nr;
        for (int i = 0; i < 6 && CALLS[c].args[i]; i++) a[i] = argument(CALLS[c].args[i]);
        if (nr == SYS_execve && under(8)) return;
    }
    if (nr == SYS_kill && (int)a[0] <= 1) a[0] = getpid();    /* not everybody, not the judge */
    __atomic_add_fetch(made, 1, __ATOMIC_RELAXED);
    long r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    (void)r;
    if (!under(400) && forks++ < 6) {
        pid_t kid = fork();
        if (!kid) { struct itimerval often = { { 0, 2000 }, { 0, 2000 } }; setitimer(ITIMER_REAL, &often, NULL); state ^= (uint64_t)getpid() << 20 | 1; for (int i = 0; i < 60; i++) one(); _exit(0); }
        if (kid > 0 && under(2)) waitpid(kid, NULL, WNOHANG);
    }
}
static void nothing(int s) { (void)s; }
static volatile int tids[4], running;
/* Whatever blocks is interrupted. */
static void *waker(void *a) {
    while (!a) {
        struct timespec t = { 0, 1000000 };
        syscall(SYS_nanosleep, &t, NULL);
        for (int i = 0; i < 4; i++) if (tids[i]) syscall(SYS_tgkill, getpid(), tids[i], SIGALRM);
    }
    return a;
}
static void *thread(void *seed) {
    state = (uint64_t)seed | 1;
    tids[__atomic_fetch_add(&running, 1, __ATOMIC_RELAXED) & 3] = syscall(SYS_gettid);
    for (int i = 0; i < 3000; i++) one();
    return NULL;
}
static void worker(uint64_t seed, int kind) {
    char dir[64];
    state = seed | 1;
    sprintf(dir, "/tmp/fuzz.%d", getpid());
    mkdir(dir, 0777); chmod(dir, 0777);
    if (chdir(dir)) _exit(1);
    mkdir("d0", 0777); mkdir("d1", 0777);
    struct rlimit l;
    l.rlim_cur = l.rlim_max = 200; setrlimit(RLIMIT_NPROC, &l); setrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = l.rlim_max = 512 << 20; setrlimit(RLIMIT_AS, &l);
    l.rlim_cur = l.rlim_max = 32 << 20; setrlimit(RLIMIT_FSIZE, &l);
    l.rlim_cur = l.rlim_max = 0; setrlimit(RLIMIT_CORE, &l);
    /* A third may do what root may, in a user namespace of its own where there are any. */
    setgroups(0, NULL);
    if (setresgid(60001, 60001, 60001) || setresuid(60001, 60001, 60001)) _exit(1);
    if (kind == 2 && unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (under(2) ? CLONE_NEWNET : 0))) {}
    prctl(PR_SET_DUMPABLE, 1);
    /* The judge's words are its own. */
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(null, i);
    scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    buffers = mmap(NULL, BUFFERS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < BUFFERS; i++) buffers[i] = rnd();
    int p[2];
    if (pipe2(p, O_NONBLOCK) || socketpair(AF_UNIX, SOCK_STREAM, 0, p) || socketpair(AF_UNIX, SOCK_DGRAM, 0, p) || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p)) {}
    for (int i = 0; i < 6; i++) {
        int f = socket(i & 1 ? AF_INET6 : AF_INET, i < 4 ? SOCK_STREAM : SOCK_DGRAM, 0);
        struct sockaddr_in6 any = { i & 1 ? AF_INET6 : AF_INET, htons(40000 + i), 0, in6addr_any, 0 };
        if (bind(f, (void *)&any, sizeof any) || (i < 2 && listen(f, 2))) {}
    }
    open("f0", O_RDWR | O_CREAT, 0666); open("d0", O_RDONLY); epoll_create1(0); eventfd(3, 0); syscall(SYS_memfd_create, "m", 2); open("/dev/ptmx", O_RDWR | O_NOCTTY);
    for (int s = 1; s < 32; s++) if (s != SIGKILL && s != SIGSTOP && s != SIGSEGV && s != SIGBUS) signal(s, nothing);
    struct sigaction again = { .sa_handler = nothing };
    sigaction(SIGALRM, &again, NULL);
    pthread_t t[3], w;
    pthread_create(&w, NULL, waker, NULL);
    int threads = under(4);
    for (int i = 0; i < threads; i++) pthread_create(&t[i], NULL, thread, (void *)(rnd() ^ i));
    thread((void *)rnd());
    _exit(0);
}

static void wrong(const char *what, long round) { printf("round %ld: %s: %s\n", round, what, strerror(errno)); exit(1); }

/* Ends all but the judge and waits for them. */
static void sweep(long round) {
    struct timespec ms = { 0, 1000000 };
    for (int tries = 0; tries < 20000; tries++) {
        kill(-1, SIGKILL);
        while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {}
        int left = 0;
        DIR *d = opendir("/proc");
        if (!d) wrong("/proc cannot be opened", round);
        for (struct dirent *e; (e = readdir(d));) if (atoi(e->d_name) > 1) left++;
        closedir(d);
        if (!left) return;
        nanosleep(&ms, NULL);
    }
    errno = ETIMEDOUT;
    if (system("cat /proc/[0-9]*/status 2>/dev/null | grep -E '^(Name|State|Pid|PPid|SigPnd|ShdPnd)'")) {}
    wrong("processes do not end", round);
}
static void consistent(long round) {
    char b[64] = "";
    int p[2], st;
    if (getpid() != judge_pid) wrong("getpid has changed", round);
    if (pipe(p)) wrong("pipe", round);
    pid_t kid = fork();
    if (kid < 0) wrong("fork", round);
    if (!kid) { dup2(p[1], 1); execl("/bin/echo", "echo", "still here", NULL); _exit(9); }
    close(p[1]);
    if (waitpid(kid, &st, 0) != kid || st) wrong("a child does not run", round);
    if (read(p[0], b, sizeof b) != 11 || memcmp(b, "still here\n", 11)) wrong("a pipe does not bring what was written", round);
    close(p[0]);
    int f = open("/tmp/judge", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (f < 0 || pwrite(f, "abc", 3, 5000) != 3 || pread(f, b, 10, 4999) != 4 || memcmp(b, "\0abc", 4)) wrong("a file does not keep what was written", round);
    if (close(f) || unlink("/tmp/judge")) wrong("unlink", round);
    if (system("rm -rf /tmp/fuzz.*")) {}
    if (system("rm -rf /dev/mqueue/* /dev/shm/*")) {}
    for (int id, i = 0; i < 64; i++) { id = i; syscall(SYS_shmctl, id, 0, 0); syscall(SYS_msgctl, id, 0, 0); syscall(SYS_semctl, id, 0, 0, 0); }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long seconds = atol(argv[1]), round = 0;
    uint64_t seed = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ULL | 1;
    time_t end = time(NULL) + seconds;
    setvbuf(stdout, NULL, _IOLBF, 0);
    judge_pid = getpid();
    if (judge_pid != 1) { printf("must be process 1\n"); return 2; }
    if (argc > 3) {
        FILE *f = fopen(argv[3], "r");
        char line[200];
        seeds = calloc(200000, sizeof *seeds);
        while (f && seed_count < 200000 && fgets(line, sizeof line, f)) {
            uint64_t *s = seeds[seed_count];
            if (sscanf(line, "%lx %lx %lx %lx %lx %lx %lx", &s[0], &s[1], &s[2], &s[3], &s[4], &s[5], &s[6]) == 7) seed_count++;
        }
        if (f) fclose(f);
    }
    made = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    prctl(PR_SET_DUMPABLE, 0);
    for (int s = 1; s < 32; s++) if (s != SIGKILL && s != SIGSTOP && s != SIGSEGV && s != SIGCHLD) signal(s, SIG_IGN);
    while (time(NULL) < end) {
        for (int i = 0; i < 3; i++) {
            fflush(stdout);
            pid_t kid = fork();
            if (kid < 0) wrong("fork of a worker", round);
            if (!kid) { setsid(); worker(seed + round * 1000003 + i * 7919, i); }
        }
        /* A round takes two seconds at most. */
        for (int ms = 0, left = 3; ms < 2000 && left > 0; ms += 5) {
            struct timespec t = { 0, 5000000 };
            while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) left--;
            nanosleep(&t, NULL);
        }
        sweep(round);
        consistent(round);
        round++;
    }
    printf("%ld rounds, %zu seeds, %lu calls\n", round, seed_count, *made);
    return 0;
}
