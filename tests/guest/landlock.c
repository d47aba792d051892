/* Landlock: what a ruleset may say, and what a program that has forbidden itself something may still do. (The version is not shown: it differs
 * from kernel to kernel. Bits and flags that are tried are those of version 5, or of none.) */
#include "guest.h"
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <netinet/in.h>

enum { X = 1, W = 2, R = 4, LS = 8, RMDIR = 16, RM = 32, CHR = 64, DIR_ = 128, REG = 256, SOCK = 512, FIFO = 1024, BLK = 2048, SYM = 4096,
       REFER = 8192, TRUNC = 16384, IOCTL = 32768, ALL = 65535 };

struct attr { uint64_t fs, net; };
struct beneath { uint64_t allowed; int parent; } __attribute__((packed));
struct port { uint64_t allowed, port; };

static int make(uint64_t fs) {
    struct attr a = {fs, 0};
    return syscall(444, &a, sizeof a, 0);
}

static int grant(int set, const char *path, uint64_t rights) {
    struct beneath b = {rights, open(path, O_PATH | O_CLOEXEC)};
    int r = syscall(445, set, 1, &b, 0), e = errno;
    close(b.parent);
    errno = e;
    return r;
}

static int restrict_self(int set) { return syscall(446, set, 0); }

/* What follows is done by a child, restricted by a ruleset that handles the first and grants the third beneath the second. */
#define CHILD(...) do { fflush(stdout); pid_t p_ = fork(); if (!p_) { __VA_ARGS__; fflush(stdout); _exit(0); } int s_; waitpid(p_, &s_, 0); V(s_); } while (0)
static void begin(uint64_t handled, const char *path, uint64_t rights) {
    int set = make(handled);
    if (path) T(grant(set, path, rights));
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    T(restrict_self(set));
    close(set);
}

static int touch(const char *path, int flags) {
    int fd = open(path, flags, 0644), e = errno;
    if (fd >= 0) close(fd);
    errno = e;
    return fd < 0 ? -1 : 0;
}

static void rules(void) {
    struct attr a = {R, 0};
    struct { struct attr a; uint64_t more[4]; } big = {{R}};
    struct port p = {1, 80};
    struct beneath b = {R, -1};
    V(syscall(444, NULL, 0, 1) >= 1);
    T(syscall(444, &a, 0, 1)); T(syscall(444, NULL, 8, 1)); T(syscall(444, NULL, 0, 0)); T(syscall(444, NULL, 0, 0x80));
    T(syscall(444, &a, 4, 0)); T(syscall(444, &a, 5000, 0)); T(syscall(444, BAD, 16, 0));
    OK(syscall(444, &a, 8, 0)); OK(syscall(444, &big, sizeof big, 0));
    big.more[3] = 1; T(syscall(444, &big, sizeof big, 0));
    a.fs = 0; T(syscall(444, &a, sizeof a, 0));
    a.fs = 1 << 20; T(syscall(444, &a, sizeof a, 0));
    a.fs = 0, a.net = 4; T(syscall(444, &a, sizeof a, 0));
    a.fs = R, a.net = 1;
    close_range(3, 30, 0);
    int set = syscall(444, &a, sizeof a, 0), fds[2], dir = open(".", O_PATH), file = open("d/f", O_RDONLY);
    V(fcntl(set, F_GETFD)); V(fcntl(set, F_GETFL) & 3);
    char c;
    T(read(set, &c, 1)); T(write(set, &c, 1));
    pipe(fds);
    b.parent = dir;
    T(syscall(445, set, 1, &b, 0)); T(syscall(445, set, 1, &b, 1)); T(syscall(445, set, 3, &b, 0)); T(syscall(445, set, 1, BAD, 0));
    T(syscall(445, -1, 1, &b, 0)); T(syscall(445, dir, 1, &b, 0)); T(syscall(445, file, 1, &b, 0));
    b.allowed = 0; T(syscall(445, set, 1, &b, 0));
    b.allowed = W; T(syscall(445, set, 1, &b, 0));
    b.allowed = R, b.parent = -1; T(syscall(445, set, 1, &b, 0));
    b.parent = fds[0]; T(syscall(445, set, 1, &b, 0));
    b.parent = set; T(syscall(445, set, 1, &b, 0));
    b.parent = file; T(syscall(445, set, 1, &b, 0));
    int lists = make(R | LS);
    b.allowed = LS; T(syscall(445, lists, 1, &b, 0));
    T(syscall(445, set, 2, &p, 0));
    p.port = 65536; T(syscall(445, set, 2, &p, 0));
    p.port = 1, p.allowed = 2; T(syscall(445, set, 2, &p, 0));
    p.allowed = 0; T(syscall(445, set, 2, &p, 0));
    p.allowed = 1; T(syscall(445, lists, 2, &p, 0));
    CHILD(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); T(syscall(446, -1, 0)); T(syscall(446, file, 0)); T(syscall(446, set, 64)));
    CHILD(setuid(1000); T(syscall(446, set, 0)); T(syscall(446, set, 64)); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); T(syscall(446, set, 0)));
    CHILD(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); for (int i = 0; i < 17; i++) T(syscall(446, set, 0)));
    close_range(3, 30, 0);
}

static void reading(void) {
    CHILD(begin(R | LS, "d", R | LS);
          T(touch("d/f", O_RDONLY)); T(touch("d/sub/g", O_RDONLY)); T(touch("d", O_RDONLY)); T(touch("d/sub", O_RDONLY | O_DIRECTORY));
          T(touch("e/f", O_RDONLY)); T(touch("e", O_RDONLY)); T(touch("e/f", O_WRONLY)); T(touch("e/f", O_RDWR)); T(touch("e/f", O_PATH));
          T(touch("e/none", O_RDONLY)); T(touch("tolink", O_RDONLY)); T(touch("d/../e/f", O_RDONLY)); T(touch("e/../d/f", O_RDONLY));
          struct stat st; T(stat("e/f", &st)); T(access("e/f", R_OK)); T(chmod("e/f", 0644)); T(chdir("e")); T(touch("f", O_RDONLY)); T(touch("../d/f", O_RDONLY));
          T(touch("/dev/null", O_RDONLY)); T(touch("/dev/null", O_WRONLY)); T(touch("../e/new", O_CREAT | O_WRONLY)); T(unlink("new")));
    CHILD(begin(R, "d/f", R); T(touch("d/f", O_RDONLY)); T(touch("d/sub/g", O_RDONLY)); T(touch("d", O_RDONLY));
          T(link("d/f", "d/again")); T(unlink("d/again")));
    /* What was open stays so; pipes and memory have no place that could be forbidden. */
    int kept = open("e/f", O_RDONLY);
    CHILD(begin(ALL, NULL, 0); char c; T(read(kept, &c, 1)); int fds[2]; T(pipe(fds)); char path[32];
          sprintf(path, "/proc/self/fd/%d", fds[0]); T(touch(path, O_RDONLY | O_NONBLOCK));
          int m = syscall(SYS_memfd_create, "m", 0); sprintf(path, "/proc/self/fd/%d", m); T(touch(path, O_RDWR)); T(ftruncate(m, 10));
          sprintf(path, "/proc/self/fd/%d", kept); T(touch(path, O_RDONLY)); T(touch("/proc/self/stat", O_RDONLY)));
    close(kept);
}

static void writing(void) {
    CHILD(begin(W | TRUNC, "d", W);
          T(touch("d/f", O_WRONLY)); T(touch("d/f", O_WRONLY | O_TRUNC)); T(truncate("d/f", 1)); T(truncate("e/f", 1));
          int fd = open("d/f", O_RDWR); T(ftruncate(fd, 1)); T(write(fd, "x", 1)); T(fallocate(fd, 0, 0, 10)); close(fd);
          T(touch("d/fresh", O_WRONLY | O_CREAT | O_TRUNC)); T(touch("e/fresh", O_WRONLY | O_CREAT)); T(access("e/fresh", F_OK));
          T(unlink("d/fresh")); T(unlink("e/fresh"));
          int t = open("d", O_TMPFILE | O_RDWR, 0600); V(t >= 0); T(ftruncate(t, 5)); close(t); T(touch("e", O_TMPFILE | O_RDWR)));
    CHILD(begin(W | TRUNC, "d", W | TRUNC); T(touch("d/f", O_WRONLY | O_TRUNC)); T(truncate("d/f", 3)); int fd = open("d/f", O_RDWR); T(ftruncate(fd, 3)));
    CHILD(begin(TRUNC, NULL, 0); int fd = open("e/f", O_RDWR); T(ftruncate(fd, 2)); T(write(fd, "ab", 2)); T(touch("e/f", O_RDONLY | O_TRUNC)));
    int before = open("e/f", O_RDWR);
    CHILD(begin(TRUNC, NULL, 0); T(ftruncate(before, 4)));
    close(before);
}

static void making(void) {
    struct sockaddr_un a = {AF_UNIX, "e/socket"};
    CHILD(begin(DIR_ | REG | SOCK | FIFO | SYM | CHR | BLK | RM | RMDIR, "d", DIR_ | REG | SOCK | FIFO | SYM | RM | RMDIR);
          T(mkdir("d/dir", 0755)); T(touch("d/reg", O_CREAT | O_WRONLY)); T(mkfifo("d/fifo", 0600)); T(symlink("x", "d/sym")); T(mknod("d/node", S_IFREG, 0));
          T(rmdir("d/dir")); T(unlink("d/reg")); T(unlink("d/fifo")); T(unlink("d/sym")); T(unlink("d/node"));
          T(mkdir("e/dir", 0755)); T(touch("e/reg", O_CREAT | O_WRONLY)); T(mkfifo("e/fifo", 0600)); T(symlink("x", "e/sym")); T(mknod("e/node", S_IFREG, 0));
          T(touch("e/f", O_CREAT | O_WRONLY)); T(touch("e/f", O_CREAT | O_EXCL | O_WRONLY)); T(mkdir("e/sub", 0755)); T(mkdir("e/none/x", 0755));
          T(unlink("e/f")); T(rmdir("e/sub")); T(unlink("e/none")); T(unlink("e/sub")); T(rmdir("e/f"));
          T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a)); strcpy(a.sun_path, "d/socket");
          T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a)); T(unlink("d/socket")));
}

static void fresh(void);
static void moving(void) {
    /* Within a directory no right to move between directories is needed. */
    CHILD(begin(REG | RM, "d", REG | RM); T(rename("d/f", "d/f2")); T(rename("d/f2", "d/f")); T(link("d/f", "d/l")); T(unlink("d/l"));
          T(rename("d/f", "d/sub/f")); T(link("d/f", "d/sub/l")); T(rename("d/f", "e/x")); T(rename("e/f", "d/x")); T(rename("e/f", "e/f2")));
    CHILD(begin(REG | RM | REFER, "d", REG | RM | REFER); T(rename("d/f", "d/sub/f")); T(rename("d/sub/f", "d/f")); T(link("d/f", "d/sub/l")); T(unlink("d/sub/l"));
          T(rename("d/f", "e/x")); T(link("d/f", "e/x")); T(rename("e/f", "d/x")));
    /* Nothing may become more by being moved. */
    fresh();
    CHILD(int set = make(REG | RM | REFER | X | R); T(grant(set, "d", REG | RM | REFER)); T(grant(set, "e", REG | RM | REFER | X)); T(grant(set, "d/sub", R));
          prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); T(restrict_self(set));
          T(syscall(SYS_renameat2, AT_FDCWD, "d/f", AT_FDCWD, "e/f", 2));
          T(rename("d/f", "e/x")); T(link("d/f", "e/x")); T(rename("e/f", "d/x")); T(rename("d/x", "e/f")); T(rename("d/f", "d/sub/f"));
          T(rename("d/sub/g", "d/g")); T(rename("d/g", "d/sub/g")));
    fresh();
    CHILD(begin(REG | RM | REFER | DIR_ | RMDIR, "d", REG | RM | REFER); T(rename("d/sub", "d/sub2")); T(rename("d/f", "d/sub/g2")); T(rename("d/sub/g2", "d/f"));
          T(syscall(SYS_renameat2, AT_FDCWD, "d/f", AT_FDCWD, "d/sub", 2)); T(syscall(SYS_renameat2, AT_FDCWD, "d/f", AT_FDCWD, "d/sub/g", 2));
          T(syscall(SYS_renameat2, AT_FDCWD, "d/f", AT_FDCWD, "d/sub/g", 2)); T(syscall(SYS_renameat2, AT_FDCWD, "d/f", AT_FDCWD, "d/sub/g", 1)));
    /* A ruleset that says nothing of moving forbids it. */
    fresh();
    CHILD(begin(X, "d", X); T(rename("d/f", "d/f2")); T(rename("d/f2", "d/sub/f2")); T(rename("d/f2", "d/f")); T(rename("e/f", "d/x")); T(link("e/f", "d/x")));
}

static void running(void) {
    int status;
    CHILD(begin(X, "d", X); execl("/bin/true", "true", NULL); T(-1));
    CHILD(begin(X, "/", X); execl("/bin/true", "true", NULL); T(-1));
    CHILD(int set = make(X | R); grant(set, "/", X); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); restrict_self(set); execl("/bin/true", "true", NULL); T(-1));
    /* Inherited by what is started. */
    CHILD(begin(LS, "d", LS); T(system("ls d >/dev/null 2>&1; echo $?; ls e >/dev/null 2>&1; echo $?; cat e/f >/dev/null 2>&1; echo $?") != 0));
    /* Layer upon layer: all must allow it. */
    CHILD(begin(R, "/", R); T(touch("e/f", O_RDONLY)); begin(R, "d", R); T(touch("e/f", O_RDONLY)); T(touch("d/f", O_RDONLY)); begin(LS, NULL, 0); T(touch("d/f", O_RDONLY));
          T(touch("d", O_RDONLY)); begin(R, "e", R); T(touch("d/f", O_RDONLY)); T(touch("e/f", O_RDONLY)));
    (void)status;
}

static void tracing(void) {
    /* Who has forbidden itself something looks only into those who have, too. */
    pid_t free_one = fork();
    if (!free_one) pause(), _exit(0);
    CHILD(T(ptrace(PTRACE_SEIZE, free_one, 0, 0)));
    CHILD(begin(X, "/", X); T(ptrace(PTRACE_SEIZE, free_one, 0, 0)); char c; struct iovec l = {&c, 1}, r = {&c, 1};
          T(process_vm_readv(free_one, &l, 1, &r, 1, 0)); char path[64];
          sprintf(path, "/proc/%d/exe", free_one); T(readlink(path, path, 60));
          sprintf(path, "/proc/%d/stat", free_one); T(touch(path, O_RDONLY)); T(kill(free_one, 0));
          int up[2]; pipe(up);
          pid_t own = fork(); if (!own) write(up[1], "x", 1), pause(), _exit(0); read(up[0], &c, 1); T(ptrace(PTRACE_SEIZE, own, 0, 0)); T(process_vm_readv(own, &l, 1, &r, 1, 0)); kill(own, SIGKILL); waitpid(own, NULL, 0);
          own = fork(); if (!own) { begin(X, "/", X); fflush(stdout); write(up[1], "x", 1); pause(); _exit(0); } read(up[0], &c, 1); T(process_vm_readv(own, &l, 1, &r, 1, 0)); kill(own, SIGKILL); waitpid(own, NULL, 0));
    kill(free_one, SIGKILL);
    waitpid(free_one, NULL, 0);
}

static void devices(void) {
    int n, before = open("/dev/null", O_RDWR);
    CHILD(begin(IOCTL, NULL, 0); int fd = open("/dev/null", O_RDWR); T(ioctl(fd, FIONREAD, &n)); T(ioctl(fd, TCGETS, &n)); n = 0; T(ioctl(fd, FIONBIO, &n));
          T(ioctl(fd, FIOCLEX)); T(ioctl(fd, 0x1234, 0)); T(ioctl(before, TCGETS, &n)); int f = open("e/f", O_RDONLY); T(ioctl(f, FIONREAD, &n));
          int fds[2]; pipe(fds); T(ioctl(fds[0], FIONREAD, &n)));
    CHILD(begin(IOCTL, "/dev/null", IOCTL); int fd = open("/dev/null", O_RDWR); T(ioctl(fd, TCGETS, &n)); fd = open("/dev/zero", O_RDWR); T(ioctl(fd, TCGETS, &n)));
    close(before);
}

static int tcp(int call, int family, int type, int port) {
    struct sockaddr_in6 a = {family, htons(port), 0, in6addr_loopback, 0};
    if (family == AF_INET) ((struct sockaddr_in *)&a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int f = socket(family, type, 0), r = call ? connect(f, (void *)&a, sizeof a) : bind(f, (void *)&a, sizeof a), e = errno;
    close(f);
    errno = e;
    return r;
}

/* TCP ports: one may be bound to, one connected to. */
static void ports(void) {
    int taken[3], number[3];
    for (int i = 0; i < 3; i++) {
        struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
        socklen_t len = sizeof a;
        taken[i] = socket(AF_INET, SOCK_STREAM, 0);
        bind(taken[i], (void *)&a, sizeof a), getsockname(taken[i], (void *)&a, &len);
        number[i] = ntohs(a.sin_port);
    }
    listen(taken[0], 9);
    CHILD(struct attr a = {0, 3}; int set = syscall(444, &a, sizeof a, 0);
          struct port to = {2, number[0]}; struct port at = {1, number[1]}; T(syscall(445, set, 2, &to, 0)); T(syscall(445, set, 2, &at, 0));
          close(taken[1]), close(taken[2]); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); T(restrict_self(set));
          T(tcp(0, AF_INET, SOCK_STREAM, number[1])); T(tcp(0, AF_INET, SOCK_STREAM, number[2])); T(tcp(0, AF_INET, SOCK_STREAM, 0)); T(tcp(0, AF_INET6, SOCK_STREAM, number[2]));
          T(tcp(1, AF_INET, SOCK_STREAM, number[0])); T(tcp(1, AF_INET, SOCK_STREAM, number[1])); T(tcp(1, AF_INET6, SOCK_STREAM, number[2]));
          T(tcp(0, AF_INET, SOCK_DGRAM, number[2])); T(tcp(1, AF_INET, SOCK_DGRAM, number[2]));
          int f = socket(AF_INET, SOCK_STREAM, 0); T(listen(f, 1)); struct sockaddr none = {AF_UNSPEC, {0}}; T(connect(f, &none, sizeof none)));
    /* Files alone are nothing about ports. */
    CHILD(begin(R, NULL, 0); T(tcp(0, AF_INET, SOCK_STREAM, 0)); T(tcp(1, AF_INET, SOCK_STREAM, number[0])));
    for (int i = 0; i < 3; i++) close(taken[i]);
}

static void fresh(void) {
    if (system("rm -rf d e tolink")) abort();
    mkdir("d", 0755), mkdir("e", 0755), mkdir("d/sub", 0755), mkdir("e/sub", 0755);
    for (const char **p = (const char *[]){"d/f", "e/f", "d/sub/g", NULL}; *p; p++) {
        int fd = open(*p, O_CREAT | O_WRONLY, 0666);
        write(fd, "text", 4), close(fd);
    }
    symlink("e/f", "tolink");
}

int main(void) {
    void (*all[])(void) = {rules, reading, writing, making, moving, running, tracing, devices, ports};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) fresh(), all[i]();
    return 0;
}
