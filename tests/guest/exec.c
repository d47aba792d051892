#include "guest.h"
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <elf.h>
/* execve and execveat: forms, errors, scripts, what a new program keeps and what it loses. */
#define N(array) (sizeof(array) / sizeof(array[0]))
/* A child that makes the call and, if that returns, shows it; and how the child ended. */
#define X(call) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { T(call); _exit(99); } waitpid(c_, &st_, 0); printf("%d ended %x\n", __LINE__, st_); } while (0)
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; _exit(99); } waitpid(c_, &st_, 0); printf("%d ended %x\n", __LINE__, st_); } while (0)
static char *args[] = {"zero", "args", "a b", "", 0}, *quiet[] = {"q", "quiet", 0}, *none[] = {0}, *env[] = {"A=b", "empty=", "noequal", 0};
static void put(const char *name, const void *text, int n, int mode) { unlink(name); int f = open(name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600); write(f, text, n); fchmod(f, mode); close(f); }
static void text(const char *name, const char *what) { put(name, what, strlen(what), 0755); }
static char self[1 << 20]; static long self_size;
/* This program with some bytes changed. */
static void patched(const char *name, long at, const void *bytes, int n) { char *copy = malloc(self_size); memcpy(copy, self, self_size); memcpy(copy + at, bytes, n); put(name, copy, self_size, 0755); free(copy); }
static long header(unsigned type) { Elf64_Ehdr *e = (void *)self; for (int i = 0; i < e->e_phnum; i++) { long at = e->e_phoff + i * sizeof(Elf64_Phdr); if (((Elf64_Phdr *)(self + at))->p_type == type) return at; } return -1; }
static void handler(int s) {}
static void *waits(void *x) { pause(); return 0; }
static void *execs(void *x) { usleep(10000); execve(x, (char *[]){"t", "thread", 0}, env); T(-1); return 0; }
static void *fails(void *x) { T(execve("nothere", args, env)); return 0; }

/* What the started program sees. */
static int started(int argc, char **argv, char **envp) {
    if (!strcmp(argv[1], "quiet")) return 3;
    if (!strcmp(argv[1], "where")) { long at[4] = {(long)&argc, (long)&started, (long)malloc(1), (long)mmap(0, 4096, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)}; int f = open("where", O_CREAT | O_WRONLY | O_APPEND, 0600); return write(f, at, 32); }
    if (!strcmp(argv[1], "busy")) { int f; T(open("prog", O_WRONLY)); T(open("/proc/self/exe", O_RDWR)); T(open("prog", O_RDONLY | O_TRUNC)); T(truncate("prog", 0)); OK(f = open("prog", O_RDONLY)); T(ftruncate(f, 0)); T(chmod("prog", 0711)); if (!fork()) { T(open("prog", O_WRONLY)); execve("/bin/true", (char *[]){"true", 0}, envp); } wait(0); T(rename("prog", "other")); T(open("other", O_WRONLY)); T(rename("other", "prog")); T(chmod("prog", 0755)); return 3; }
    if (!strcmp(argv[1], "count")) { int n = 0; while (envp[n]) n++; printf("argc %d envc %d\n", argc, n); return 4; }
    if (!strcmp(argv[1], "thread")) { char b[32] = {0}; readlink("/proc/self/task", b, 31); V(gettid() == getpid()); T(access("/proc/self/task/2000000", F_OK)); return 5; }
    if (!strcmp(argv[1], "keeps")) {
        struct sigaction a; stack_t st; sigset_t m; struct itimerval it; char b[32]; int sub = 9, sig = 9;
        for (int s = 1; s < 65; s++) if (!sigaction(s, 0, &a) && a.sa_handler != SIG_DFL) printf("signal %d ignored %d flags %x mask %d\n", s, a.sa_handler == SIG_IGN, a.sa_flags, sigismember(&a.sa_mask, SIGINT));
        sigprocmask(SIG_BLOCK, 0, &m); V(sigismember(&m, SIGUSR2)); sigpending(&m); V(sigismember(&m, SIGUSR2)); V(sigismember(&m, SIGRTMIN));
        sigaltstack(0, &st); V(st.ss_flags); getitimer(ITIMER_REAL, &it); V(it.it_value.tv_sec > 50); getitimer(ITIMER_VIRTUAL, &it); V(it.it_value.tv_sec > 50); T(SYS(timer_delete, 0));
        T(umask(0)); T(SYS(getpriority, PRIO_PROCESS, 0)); T(prctl(PR_GET_DUMPABLE)); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); T(prctl(PR_GET_KEEPCAPS)); T(prctl(PR_GET_CHILD_SUBREAPER, &sub)); V(sub); T(prctl(PR_GET_PDEATHSIG, &sig)); V(sig); T(prctl(PR_GET_TIMERSLACK)); T(prctl(PR_GET_NAME, b)); S(b); T(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
        struct rlimit l; getrlimit(RLIMIT_NOFILE, &l); V(l.rlim_cur); void *head; size_t len; T(SYS(get_robust_list, 0, &head, &len)); V(head != (void *)0x1000);
        for (int f = 3; f < 20; f++) if (fcntl(f, F_GETFD) >= 0) printf("open %d at %ld\n", f, lseek(f, 0, SEEK_CUR));
        struct flock lk = {F_WRLCK, SEEK_SET, 0, 1}; T(fcntl(10, F_GETLK, &lk)); V(lk.l_type == F_UNLCK); char c[9]; V(getcwd(c, 9) == 0); T(SYS(personality, -1)); return 6;
    }
    printf("argc %d", argc); for (int i = 0; i < argc; i++) printf(" <%s>", argv[i]); printf(" env"); for (int i = 0; envp[i]; i++) printf(" <%s>", envp[i]);
    char b[32] = {0}, link[32] = {0}; prctl(PR_GET_NAME, b); const char *fn = (char *)getauxval(AT_EXECFN); int f = open("/proc/self/comm", O_RDONLY); read(f, link, 31);
    printf(" comm %s=%s execfn %s secure %ld flags %ld terminated %d\n", b, strtok(link, "\n"), strncmp(fn, "/tmp", 4) ? fn : "path", getauxval(AT_SECURE), getauxval(AT_FLAGS), argv[argc] == 0);
    V(argc == 0 || argv[argc - 1] + strlen(argv[argc - 1]) + 1 == envp[0] || !envp[0]);
    return 2;
}
int main(int argc, char **argv, char **envp) {
    /* NULL as the arguments gives one empty argument. */
    if (argc > 1) return started(argc, argv, envp);
    if (argc == 1 && !argv[0][0]) { printf("no name: envp %d\n", envp[0] != 0); return 1; }
    char *me = "/proc/self/exe", exe[200] = {0}; readlink(me, exe, 199); int f = open(me, O_RDONLY | O_CLOEXEC); self_size = read(f, self, sizeof self); close(f);
    put("prog", self, self_size, 0755); setenv("LC_ALL", "C", 1);

    /* Forms. */
    X(execve("prog", args, env)); X(execve("./prog", args, none)); X(execve(exe, args, env)); X(execve(me, args, env)); X(execve("prog", 0, 0)); X(execve("prog", none, env)); X(execve("prog", args, 0)); mkdir("dir", 0755); symlink("../prog", "dir/link"); X(execve("dir/link", args, env)); X(execve("dir/../prog", args, env));
    text("a_name_longer_than_fifteen", ""); put("a_name_longer_than_fifteen", self, self_size, 0755); X(execve("a_name_longer_than_fifteen", args, env));
    int d = open("dir", O_RDONLY | O_DIRECTORY), p = open("prog", O_PATH), r = open("prog", O_RDONLY), cl = open("prog", O_RDONLY | O_CLOEXEC);
    X(SYS(execveat, d, "link", args, env, 0)); X(SYS(execveat, d, "link", args, env, AT_SYMLINK_NOFOLLOW)); X(SYS(execveat, d, "../prog", args, env, AT_SYMLINK_NOFOLLOW)); X(SYS(execveat, p, "", args, env, AT_EMPTY_PATH)); X(SYS(execveat, r, "", args, env, AT_EMPTY_PATH)); X(SYS(execveat, cl, "", args, env, AT_EMPTY_PATH)); X(SYS(execveat, 99, exe, args, env, 0)); X(SYS(execveat, AT_FDCWD, "prog", args, env, AT_EMPTY_PATH));
    T(SYS(execveat, p, "", args, env, 0)); T(SYS(execveat, p, "x", args, env, 0)); T(SYS(execveat, 99, "", args, env, AT_EMPTY_PATH)); T(SYS(execveat, 99, "x", args, env, 0)); T(SYS(execveat, d, "", args, env, AT_EMPTY_PATH)); T(SYS(execveat, AT_FDCWD, "", args, env, AT_EMPTY_PATH)); T(SYS(execveat, d, "none", args, env, 0)); T(SYS(execveat, d, "link", args, env, 1)); T(SYS(execveat, d, "link", args, env, AT_REMOVEDIR)); T(SYS(execveat, d, 0, args, env, 0)); T(SYS(execveat, d, 0, args, env, AT_EMPTY_PATH)); T(SYS(execveat, d, BAD, args, env, 0));
    /* Only asked whether it would work (Linux 6.14). */
    T(SYS(execveat, AT_FDCWD, "prog", args, env, 0x10000)); T(SYS(execveat, AT_FDCWD, "none", args, env, 0x10000)); T(SYS(execveat, AT_FDCWD, "dir", args, env, 0x10000)); T(SYS(execveat, r, "", 0, 0, 0x10000 | AT_EMPTY_PATH));
    int m = memfd_create("program", 0); write(m, self, self_size); X(SYS(execveat, m, "", args, env, AT_EMPTY_PATH)); fcntl(m, F_SETFD, 0); char path[40]; sprintf(path, "/proc/self/fd/%d", m); X(execve(path, args, env)); int m2 = open(path, O_RDONLY | O_CLOEXEC); close(m); sprintf(path, "/proc/self/fd/%d", m2); X(execve(path, args, env)); X(SYS(execveat, m2, "", args, env, AT_EMPTY_PATH)); m = memfd_create("noexec", 8); T(m); T(SYS(execveat, m, "", args, env, AT_EMPTY_PATH)); close(m); close(m2);
    unlink("gone"); put("gone", self, self_size, 0755); int g = open("gone", O_PATH | O_CLOEXEC); unlink("gone"); X(SYS(execveat, g, "", args, env, AT_EMPTY_PATH)); close(g);

    /* Errors of paths and permissions. */
    char name[300], *lng = malloc(5000); memset(name, 'n', 299); name[299] = 0; memset(lng, '/', 4999); lng[4999] = 0; T(execve(name, args, env)); T(execve(lng, args, env)); T(execve("", args, env)); T(execve(0, args, env)); T(execve(BAD, args, env)); T(execve("none", args, env)); T(execve("none/x", args, env)); T(execve("prog/", args, env)); T(execve("prog/x", args, env)); T(execve("dir", args, env)); T(execve("dir/", args, env)); T(execve(".", args, env)); T(execve("/dev/null", args, env)); T(mkfifo("fifo", 0777)); T(execve("fifo", args, env)); T(symlink("loop", "loop")); T(execve("loop", args, env)); T(symlink("nowhere", "dangling")); T(execve("dangling", args, env)); T(execve("/proc/self/status", args, env)); T(execve("/proc/self", args, env));
    chmod("prog", 0644); T(execve("prog", args, env)); chmod("prog", 0); T(execve("prog", args, env)); chmod("prog", 0001); X(execve("prog", quiet, env)); chmod("prog", 0100); X(execve("prog", quiet, env)); IN(setuid(1000); T(execve("prog", args, env))); chmod("prog", 0711); chmod(".", 0755); IN(setuid(1000); X(execve("prog", args, env)); T(open("prog", O_RDONLY))); chmod("prog", 0755); chmod("dir", 0700); IN(setuid(1000); T(execve("dir/link", args, env))); chmod("dir", 0755);
    /* Arguments that cannot be read. */
    char *bad[] = {"a", BAD, 0}; T(execve("prog", BAD, env)); T(execve("prog", args, BAD)); T(execve("prog", bad, env)); T(execve("prog", args, bad)); T(execve("none", BAD, env)); T(execve("dir", bad, env));
    /* Files open for writing. */
    int w = open("prog", O_RDWR | O_CLOEXEC); V(w >= 0); T(execve("prog", args, env)); T(SYS(execveat, r, "", args, env, AT_EMPTY_PATH)); close(w); X(execve("prog", quiet, env)); X(execve("prog", (char *[]){"b", "busy", 0}, env)); text("script", "#!prog q quiet\n"); w = open("script", O_WRONLY | O_CLOEXEC); T(execve("script", args, env)); close(w);

    /* Scripts. */
    text("s1", "#!./prog args with  spaces \t\nrest"); X(execve("s1", args, env)); text("s1", "#! \t ./prog\targ\n"); X(execve("s1", args, env)); text("s1", "#!prog\n"); X(execve("./s1", args, env)); X(execve("s1", 0, env)); X(execve("s1", none, env)); text("s1", "#!prog"); X(execve("s1", args, env)); text("s1", "#!prog -x"); X(execve("s1", args, env)); text("s1", "#!prog "); X(execve("s1", args, env)); text("s1", "#!prog a "); X(execve("s1", args, env)); put("s1", "#!prog \0b\n", 10, 0755); X(execve("s1", args, env)); put("s1", "#!prog a\0b", 10, 0755); X(execve("s1", args, env));
    char *lines[] = {"#!", "#!\n", "#! \n", "#!\t", "#!none\n", "#!prog\r\n", "#!dir\n", "#!/dev/null\n", "#!./prog/\n", "", "#", "# !prog\n", "#!fifo\n", "\n#!prog\n", "#!loop\n", "#!\nprog\n"};
    for (unsigned i = 0; i < N(lines); i++) { text("s2", lines[i]); printf("line %d: ", i); T(execve("s2", args, env)); }
    put("s2", "#!prog a\0b\n", 11, 0755); X(execve("s2", args, env)); put("s2", "#!prog\0\n", 8, 0755); X(execve("s2", args, env)); put("s2", "#!\0prog\n", 8, 0755); T(execve("s2", args, env)); put("s2", "#!prog", 6, 0644); T(execve("s2", args, env));
    /* Only the first 256 bytes count: an argument is cut, a cut name is none. */
    memset(lng, 'x', 400); memcpy(lng, "#!./prog ", 9); lng[400] = 0; text("s2", lng); X(execve("s2", args, env)); memset(lng, '/', 400); memcpy(lng, "#!.", 3); strcpy(lng + 396, "prog\n"); text("s2", lng); T(execve("s2", args, env));
    for (int n = 253; n < 258; n++) { memset(lng, '/', n); memcpy(lng, "#!.", 3); memcpy(lng + n - 4, "prog", 4); lng[n] = '\n'; lng[n + 1] = 0; text("s2", lng); IN(T(execve("s2", quiet, env))); lng[n] = ' '; lng[n + 1] = 'y'; lng[n + 2] = '\n'; lng[n + 3] = 0; text("s2", lng); IN(T(execve("s2", quiet, env))); }
    /* Scripts that name scripts: how deep. */
    text("n0", "#!prog zero\n"); for (int i = 1; i < 7; i++) { char from[9], line[40]; sprintf(from, "n%d", i); sprintf(line, "#!n%d level%d\n", i - 1, i); text(from, line); } X(execve("n1", args, env)); X(execve("n3", args, env)); X(execve("n4", args, env)); T(execve("n5", args, env)); T(execve("n6", args, env)); text("own", "#!own\n"); T(execve("own", args, env));
    int s = open("n0", O_RDONLY), sc = open("n0", O_RDONLY | O_CLOEXEC); X(SYS(execveat, s, "", args, env, AT_EMPTY_PATH)); T(SYS(execveat, sc, "", args, env, AT_EMPTY_PATH)); X(SYS(execveat, d, "../n0", args, env, 0)); int dc = open("dir", O_RDONLY | O_CLOEXEC); T(SYS(execveat, dc, "../n0", args, env, 0)); T(SYS(execveat, p, "", none, none, AT_SYMLINK_FOLLOW)); close(s); close(sc); close(dc); chmod("prog", 0644); T(execve("n0", args, env)); chmod("prog", 0755);

    /* Programs that are none. */
    Elf64_Ehdr *e = (void *)self; struct { long at; char bytes[8]; int n; } broken[] = {{4, {1}, 1}, {4, {9}, 1}, {5, {2}, 1}, {6, {0}, 1}, {7, {9}, 1}, {16, {1}, 2}, {16, {4}, 2}, {16, {0}, 2}, {18, {3}, 2}, {18, {183}, 2}, {20, {0}, 4}, {32, {0, 0, 0, 0, 0, 1}, 8}, {32, {-1, -1, -1, -1, -1, -1, -1, -1}, 8}, {54, {0}, 2}, {54, {57}, 2}, {56, {0}, 2}, {56, {-1, -1}, 2}, {0, {'X'}, 1}, {3, {'f'}, 1}};
    for (unsigned i = 0; i < N(broken); i++) { patched("elf", broken[i].at, broken[i].bytes, broken[i].n); printf("at %ld: ", broken[i].at); IN(T(execve("elf", quiet, env))); }
    int cuts[] = {1, 2, 3, 4, 16, 63, 64, 65, 100, 64 + e->e_phnum * 56 - 1, 64 + e->e_phnum * 56}; for (unsigned i = 0; i < N(cuts); i++) { put("elf", self, cuts[i], 0755); printf("cut %d: ", i); IN(int st; T(execve("elf", quiet, env))); }
    long ip = header(PT_INTERP); Elf64_Phdr h = *(Elf64_Phdr *)(self + ip); char *interp[] = {"none", "dir", "/dev/null", "", "n0", "short", "empty", "prog64", "plain", "lib"}; text("short", "abc"); text("empty", ""); put("prog64", "\177ELF\1", 5, 0755); put("plain", self, self_size, 0644); patched("lib", 18, "\267", 2);
    for (unsigned i = 0; i < N(interp); i++) { patched("elf", h.p_offset, interp[i], strlen(interp[i]) + 1); Elf64_Phdr k = h; k.p_filesz = strlen(interp[i]) + 1; int o = open("elf", O_WRONLY | O_CLOEXEC); pwrite(o, &k, sizeof k, ip); close(o); printf("interpreter %s: ", interp[i]); IN(T(execve("elf", quiet, env))); }
    Elf64_Phdr k = h; k.p_filesz = 1; patched("elf", ip, &k, sizeof k); IN(T(execve("elf", quiet, env))); k.p_filesz = 5000; patched("elf", ip, &k, sizeof k); IN(T(execve("elf", quiet, env))); k.p_filesz = h.p_filesz - 1; patched("elf", ip, &k, sizeof k); IN(T(execve("elf", quiet, env))); k = h; k.p_offset = 1L << 40; patched("elf", ip, &k, sizeof k); IN(T(execve("elf", quiet, env))); k.p_offset = -8; patched("elf", ip, &k, sizeof k); IN(T(execve("elf", quiet, env))); k = h; k.p_type = PT_NULL; patched("elf", header(PT_LOAD), &k, sizeof k); IN(execve("elf", quiet, env); T(-1)); k.p_type = PT_GNU_STACK; k.p_flags = 7; patched("elf", header(PT_GNU_STACK), &k, sizeof k); IN(T(execve("elf", quiet, env)));

    /* How much fits: one string, all strings, and all for a small stack; the exact size by search. */
    for (int n = 131070; n < 131074; n++) { char *big = malloc(n + 1); memset(big, 'b', n); big[n] = 0; char *v[] = {"q", "quiet", big, 0}, *ev[] = {big, 0}; X(execve("prog", v, none)); X(execve("prog", quiet, ev)); free(big); }
    long stacks[] = {8 << 20, 256 << 10}; static char *many[70000], word[100]; memset(word, 'w', 99); many[0] = "q"; many[1] = "quiet";
    for (unsigned i = 0; i < N(stacks); i++) {
        long low = 0, high = 66000; while (high - low > 1) { long middle = (low + high) / 2; for (int j = 0; j < middle; j++) many[2 + j] = word; many[2 + middle] = 0; int st; pid_t c = fork(); if (!c) { struct rlimit l = {stacks[i], stacks[i]}; setrlimit(RLIMIT_STACK, &l); execve("prog", many, none); _exit(errno == E2BIG ? 9 : 8); } waitpid(c, &st, 0); if (WEXITSTATUS(st) == 8 || WIFSIGNALED(st)) { printf("odd end %x\n", st); break; } if (WEXITSTATUS(st) == 3) low = middle; else high = middle; } printf("stack %ld: %ld words\n", stacks[i], low);
    }
    for (int i = 2; i < 30002; i++) many[i] = ""; many[1] = "count"; many[30002] = 0; X(execve("prog", many, none)); X(execve("prog", (char *[]){"q", "count", 0}, many));

    /* What is kept. */
    IN(struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK | SA_NODEFER}; sigaddset(&a.sa_mask, SIGINT); sigaction(SIGUSR1, &a, 0); sigaction(SIGRTMIN + 3, &a, 0); a.sa_handler = SIG_IGN; sigaction(SIGHUP, &a, 0); sigaction(SIGCHLD, &a, 0); a.sa_handler = SIG_DFL; sigaction(SIGWINCH, &a, 0);
        sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); sigaddset(&m, SIGRTMIN); sigprocmask(SIG_BLOCK, &m, 0); raise(SIGUSR2); sigqueue(getpid(), SIGRTMIN, (union sigval){5}); stack_t st = {malloc(32768), 0, 32768}; sigaltstack(&st, 0); struct itimerval it = {{0, 0}, {60, 0}}; setitimer(ITIMER_REAL, &it, 0); setitimer(ITIMER_VIRTUAL, &it, 0); timer_t t; struct sigevent ev = {.sigev_notify = SIGEV_NONE}; T(timer_create(CLOCK_MONOTONIC, &ev, &t));
        umask(027); setpriority(PRIO_PROCESS, 0, 4); prctl(PR_SET_DUMPABLE, 0); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_KEEPCAPS, 1); prctl(PR_SET_CHILD_SUBREAPER, 1); prctl(PR_SET_PDEATHSIG, SIGUSR1); prctl(PR_SET_TIMERSLACK, 70000); prctl(PR_SET_NAME, "renamed"); prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); struct rlimit l = {77, 99}; setrlimit(RLIMIT_NOFILE, &l); SYS(set_robust_list, 0x1000, 24); SYS(personality, 0x0040000);
        close_range(3, ~0U, 0); int q = open("prog", O_RDONLY); lseek(q, 44, SEEK_SET); dup2(q, 9); open("prog", O_RDONLY | O_CLOEXEC); int lk = open("lock", O_CREAT | O_RDWR, 0600); dup2(lk, 10); struct flock fl = {F_WRLCK, SEEK_SET, 0, 1}; fcntl(10, F_SETLK, &fl); fcntl(lk, F_SETFD, FD_CLOEXEC); T(execve("prog", (char *[]){"k", "keeps", 0}, (char *[]){"KEEP_FILES=1", 0})));
    /* Where things lie, with and without randomness. */
    for (int i = 0; i < 4; i++) IN(SYS(personality, i < 2 ? 0 : 0x0040000); T(execve("prog", (char *[]){"w", "where", 0}, env))); int wf = open("where", O_RDONLY); long at[16]; V(read(wf, at, 128)); V(!memcmp(at, at + 4, 32)); V(!memcmp(at + 8, at + 12, 32)); close(wf);
    /* A dead directory. */
    IN(mkdir("dead", 0700); chdir("dead"); rmdir("../dead"); T(execve("prog", args, env)); T(execve("../prog", args, env)); T(execve(exe, args, env)));
    /* Threads: whoever calls, it is the process that goes on, alone; a call that fails changes nothing. */
    IN(pthread_t t; pthread_create(&t, 0, waits, 0); pthread_create(&t, 0, fails, 0); pthread_join(t, 0); T(execve("prog", (char *[]){"t", "thread", 0}, env))); IN(pthread_t t; pthread_create(&t, 0, waits, 0); pthread_create(&t, 0, execs, "prog"); pause()); IN(pthread_t t; pthread_create(&t, 0, execs, "prog"); pthread_exit(0)); IN(pthread_t t; pthread_create(&t, 0, execs, "nothere"); pthread_join(t, 0); _exit(8));
    IN(pthread_t t; for (int i = 0; i < 8; i++) pthread_create(&t, 0, execs, "prog"); pause());
    /* A table of descriptors that is shared is not, afterwards; a lent address space comes back. */
    int fd = open("prog", O_RDONLY | O_CLOEXEC); pid_t c = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0); if (!c) { execve("prog", quiet, env); _exit(9); } int st; waitpid(c, &st, 0); V(WEXITSTATUS(st)); V(fcntl(fd, F_GETFD)); if (!(c = vfork())) { execve("none", args, env); execve("prog", quiet, env); _exit(9); } waitpid(c, &st, 0); V(WEXITSTATUS(st)); if (!(c = syscall(SYS_clone, CLONE_VFORK | CLONE_FS | SIGCHLD, 0, 0, 0, 0))) { chdir("dir"); execve("../prog", quiet, env); _exit(9); } waitpid(c, &st, 0); V(WEXITSTATUS(st)); T(access("link", F_OK)); T(chdir(".."));
    /* Its group may change until it has a program of its own. */
    int pp[2], qq[2]; pipe2(pp, O_CLOEXEC); pipe(qq); if (!(c = fork())) { close(qq[1]); dup2(qq[0], 0); fcntl(qq[0], F_SETFD, 1); execve("/bin/cat", (char *[]){"cat", 0}, env); _exit(9); } close(pp[1]); char x; read(pp[0], &x, 1); T(setpgid(c, c)); close(qq[1]); waitpid(c, &st, 0); V(st);
    return 0;
}
