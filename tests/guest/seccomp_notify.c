/* seccomp_unotify(2): calls that another process answers. What the watched one says comes through a pipe, after all else. */
#include "guest.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV 32
#endif
#ifndef SECCOMP_ADDFD_FLAG_SEND
#define SECCOMP_ADDFD_FLAG_SEND 2
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#define NR offsetof(struct seccomp_data, nr)
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ON(call, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), RET(what)
static long set(unsigned flags, struct sock_fprog *p) { return SYS(seccomp, SECCOMP_SET_MODE_FILTER, flags, p); }
static struct sock_filter code[] = { LOAD(NR), ON(getppid, SECCOMP_RET_USER_NOTIF), ON(getsid, SECCOMP_RET_USER_NOTIF), ON(nanosleep, SECCOMP_RET_USER_NOTIF),
    ON(clone, SECCOMP_RET_USER_NOTIF), ON(execve, SECCOMP_RET_USER_NOTIF), ON(mmap, SECCOMP_RET_ALLOW), ON(getpgid, SECCOMP_RET_USER_NOTIF), ON(sched_yield, SECCOMP_RET_USER_NOTIF), RET(SECCOMP_RET_ALLOW) };
static struct sock_fprog prog = { sizeof code / sizeof code[0], code };
static void nnp(void) { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
#define NEW SECCOMP_FILTER_FLAG_NEW_LISTENER

static int link_[2], text[2];
static pid_t child;
static void give(int fd) {
    char b[CMSG_SPACE(4)] = { 0 }, x = 'x'; struct iovec v = { &x, 1 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m); c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(4); *(int *)CMSG_DATA(c) = fd;
    sendmsg(link_[1], &m, 0);
}
static int got(void) {
    char b[CMSG_SPACE(4)], x; struct iovec v = { &x, 1 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b };
    if (recvmsg(link_[0], &m, 0) < 1 || !m.msg_controllen) return -1;
    return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
}
/* A child that is watched; the listener. */
static int start(unsigned flags, void (*what)(void)) {
    socketpair(AF_UNIX, SOCK_STREAM, 0, link_); pipe(text);
    fflush(stdout);
    child = fork();
    if (!child) {
        dup2(text[1], 1); close(text[0]); close(text[1]); close(link_[0]); nnp();
        int fd = set(NEW | flags, &prog);
        if (fd < 0) { perror("set"); _exit(9); }
        give(fd); close(fd);
        what();
        fflush(stdout); _exit(5);
    }
    close(text[1]); close(link_[1]);
    return got();
}
static void finish(int fd) {
    char b[8192]; int n, st;
    while ((n = read(text[0], b, sizeof b)) > 0) fwrite(b, 1, n, stdout);
    waitpid(child, &st, 0); printf("ended %x\n", st);
    if (fd >= 0) close(fd);
    close(text[0]); close(link_[0]);
}
static struct seccomp_notif n;
static long receive(int fd) { memset(&n, 0, sizeof n); return ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &n); }
static long reply(int fd, long long id, long long val, int error, unsigned flags) { struct seccomp_notif_resp r = { id, val, error, flags }; return ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &r); }
static long valid(int fd) { return ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &n.id); }
static long addfd(int fd, int src, int to, unsigned flags, unsigned nflags) { struct seccomp_notif_addfd a = { n.id, flags, src, to, nflags }; return ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &a); }
static int events(int fd, int ms) { struct pollfd p = { fd, POLLIN | POLLOUT }; int r = poll(&p, 1, ms); return r ? p.revents : 0; }
static void let_go(int fd) { while (!receive(fd)) reply(fd, n.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE); }

static void asks(void) { for (int i = 0; i < 6; i++) if (i == 3) V(SYS(getppid) > 0); else T(SYS(getppid, 1, 2, 3, 4, 5, 6)); T(SYS(getsid, 0x123456789abcL)); }
static void basics(void) {
    int fd = start(0, asks); struct seccomp_notif keep;
    T(fcntl(fd, F_GETFD)); T(fcntl(fd, F_GETFL)); char path[99] = { 0 }, in[99]; sprintf(in, "/proc/self/fd/%d", fd); readlink(in, path, 90); S(path);
    struct stat st; fstat(fd, &st); V(st.st_mode); T(read(fd, path, 9)); T(write(fd, path, 9)); OK(lseek(fd, 0, 0)); T(ioctl(fd, 0x5401, path));
    memset(&n, 1, sizeof n); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &n)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, BAD)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, 0));
    T(events(fd, 5000)); T(receive(fd)); T(events(fd, 0)); V(n.pid == child); V(n.flags); V(n.data.nr == SYS_getppid); V(n.data.arch == AUDIT_ARCH_X86_64); V(n.data.instruction_pointer != 0);
    for (int i = 0; i < 6; i++) V(n.data.args[i]);
    T(valid(fd)); T(ioctl(fd, SECCOMP_IOR(2, __u64), &n.id)); long long other = n.id + 77; T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &other)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, BAD));
    T(reply(fd, other, 0, 0, 0)); T(reply(fd, n.id, 0, 0, 2)); T(reply(fd, n.id, 1, 0, 1)); T(reply(fd, n.id, 0, 1, 1)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, BAD));
    T(reply(fd, n.id, 4711, 0, 0)); keep = n;
    T(receive(fd)); n.id = keep.id; T(valid(fd)); T(reply(fd, n.id, 0, 0, 0)); T(addfd(fd, 1, 0, 0, 0)); n.id++; T(reply(fd, n.id, 5, -ENOTTY, 0));
    T(receive(fd)); T(reply(fd, n.id, -7, 0, 0)); T(receive(fd)); T(reply(fd, n.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE));
    T(receive(fd)); T(reply(fd, n.id, 1LL << 40, 0, 0)); T(receive(fd)); T(reply(fd, n.id, 0, 3, 0));
    T(receive(fd)); V(n.data.args[0] == 0x123456789abcL); V(n.data.nr == SYS_getsid); T(reply(fd, n.id, 0, -EDOM, 0));
    V(events(fd, 5000)); T(receive(fd)); T(valid(fd));
    T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 0)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1)); T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 2));
    finish(fd);
}

static int pp[2];
static void goes_on(void) {
    struct timespec t = { 0, 30000000 }, bad = { 0, -1 };
    T(SYS(nanosleep, &t, 0)); T(SYS(nanosleep, &bad, 0)); T(SYS(nanosleep, BAD, 0));
    T(SYS(getpgid, 999999)); V(SYS(getppid) > 0);
    for (int i = 0; i < 300; i++) SYS(sched_yield);
    T(SYS(sched_yield));
    fflush(stdout);
    int st; pid_t p = SYS(clone, SIGCHLD, 0, 0, 0, 0); if (!p) { SYS(getppid); _exit(3); } waitpid(p, &st, 0); V(st);
    T(execve("/nowhere", (char *[]){ "x", 0 }, 0)); fflush(stdout);
    T(execve("/bin/sh", (char *[]){ "sh", "-c", "echo shell", 0 }, (char *[]){ 0 }));
}
static void continued(void) { int fd = start(0, goes_on); let_go(fd); V(errno); T(events(fd, 0)); finish(fd); }

static void descriptors(void) {
    for (int i = 0; i < 8; i++) { errno = 0; int r = SYS(getppid); if (i > 4) { V(r > 0); continue; } printf("%d: %d %s", i, r, r < 0 ? strerrorname_np(errno) : ""); if (r > 2) printf(" flags %x", fcntl(r, F_GETFD)); puts(""); }
    for (int i = 3; i < 64; i++) if (fcntl(i, F_GETFD) >= 0) { char b[64] = { 0 }, p[32]; sprintf(p, "/proc/self/fd/%d", i); readlink(p, b, 60); printf("%d cloexec %d %.8s\n", i, fcntl(i, F_GETFD), b); }
}
static void added(void) {
    int fd = start(0, descriptors), o = open("/dev/null", O_RDWR), path = open(".", O_PATH);
    T(receive(fd));
    T(addfd(fd, 999, 0, 0, 0)); T(addfd(fd, path, 0, 0, 0)); T(addfd(fd, o, 0, 4, 0)); T(addfd(fd, o, 0, 0, 1)); T(addfd(fd, o, 30, 0, 0)); T(addfd(fd, o, 1 << 30, SECCOMP_ADDFD_FLAG_SETFD, 0));
    T(addfd(fd, o, 0, 0, 0)); T(addfd(fd, o, 0, 0, O_CLOEXEC)); T(addfd(fd, o, 30, SECCOMP_ADDFD_FLAG_SETFD, 0)); T(addfd(fd, o, 30, SECCOMP_ADDFD_FLAG_SETFD, O_CLOEXEC)); T(valid(fd)); T(reply(fd, n.id, 1, 0, 0));
    V(addfd(fd, o, 0, 0, 0)); V(errno == ENOENT || errno == EINPROGRESS);
    T(receive(fd)); T(addfd(fd, o, 0, SECCOMP_ADDFD_FLAG_SEND, 0)); errno = 0; V(reply(fd, n.id, 0, 0, 0)); V(errno == ENOENT || errno == EINPROGRESS);
    T(receive(fd)); T(addfd(fd, o, 40, SECCOMP_ADDFD_FLAG_SEND | SECCOMP_ADDFD_FLAG_SETFD, O_CLOEXEC));
    T(receive(fd)); T(addfd(fd, 999, 0, SECCOMP_ADDFD_FLAG_SEND, 0)); T(addfd(fd, o, 1 << 30, SECCOMP_ADDFD_FLAG_SEND | SECCOMP_ADDFD_FLAG_SETFD, 0)); T(valid(fd)); T(reply(fd, n.id, 0, -EXDEV, 0));
    T(receive(fd));
    struct { struct seccomp_notif_addfd a; int more[4]; } big = { { n.id, 0, o, 0, 0 } };
#define SIZED(size) (_IOC(_IOC_WRITE, '!', 3, size))
    T(ioctl(fd, SIZED(20), &big)); T(ioctl(fd, SIZED(0), &big)); T(ioctl(fd, SIZED(40), &big)); big.more[2] = 1; T(ioctl(fd, SIZED(40), &big)); T(ioctl(fd, SIZED(4096), &big)); T(ioctl(fd, SIZED(24), BAD));
    struct rlimit l = { 12, 12 }; T(prlimit(child, RLIMIT_NOFILE, &l, 0)); for (int i = 0; i < 9; i++) { errno = 0; long r = addfd(fd, o, 0, 0, 0); if (r < 0) { V(errno == EMFILE); break; } }
    T(addfd(fd, o, 0, SECCOMP_ADDFD_FLAG_SEND, 0)); T(addfd(fd, o, 12, SECCOMP_ADDFD_FLAG_SETFD, 0)); T(reply(fd, n.id, 0, 0, 0));
    let_go(fd); V(errno); finish(fd); close(o); close(path);
}

static void twice(void) { T(SYS(getppid)); T(SYS(getppid)); T(set(NEW, &prog)); T(SYS(seccomp, 99, 0, 0)); fflush(stdout); }
static void closed(void) {
    int fd = start(0, twice);
    T(receive(fd)); T(close(fd)); finish(-1);
    fd = start(0, twice); usleep(20000); T(close(fd)); finish(-1);
}

static volatile int signals;
static void on(int s) { signals++; }
static void handle(int flags) { struct sigaction a = { .sa_handler = on, .sa_flags = flags }; sigaction(SIGUSR1, &a, 0); }
static void interrupted(void) { handle(0); T(SYS(getppid)); V(signals); handle(SA_RESTART); T(SYS(getppid)); V(signals); }
static void broken(unsigned flags) {
    printf("flags %x\n", flags);
    int fd = start(flags, interrupted);
    T(receive(fd)); kill(child, SIGUSR1); usleep(50000); T(valid(fd)); T(reply(fd, n.id, 11, 0, 0));
    T(receive(fd)); long long id = n.id; kill(child, SIGUSR1); usleep(50000); T(valid(fd));
    if (flags) { T(reply(fd, n.id, 12, 0, 0)); } else { T(reply(fd, n.id, 12, 0, 0)); T(receive(fd)); V(n.id != id); T(reply(fd, n.id, 13, 0, 0)); }
    T(receive(fd)); finish(fd);
    /* Not received yet: broken in either case. */
    fd = start(flags, interrupted);
    V(events(fd, 5000)); kill(child, SIGUSR1); usleep(50000); T(receive(fd)); kill(child, SIGKILL); usleep(50000); T(valid(fd)); T(reply(fd, n.id, 0, 0, 0)); V(events(fd, 5000)); T(receive(fd)); finish(fd);
    fd = start(flags, interrupted); T(receive(fd)); kill(child, SIGTERM); usleep(50000); T(valid(fd)); finish(fd);
    fd = start(flags, interrupted); T(receive(fd)); kill(child, SIGSTOP); usleep(50000); kill(child, SIGCONT); usleep(50000); int again = valid(fd); V(again); if (again) T(receive(fd)); T(reply(fd, n.id, 3, 0, 0)); T(receive(fd)); T(reply(fd, n.id, 4, 0, 0)); T(receive(fd)); finish(fd);
}

static void *one(void *a) { long r = SYS(getppid); return (void *)r; }
static void several(void) {
    pthread_t t[3]; void *r; long sum = 0;
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, one, 0);
    for (int i = 0; i < 3; i++) { pthread_join(t[i], &r); sum += (long)r; }
    V(sum); fflush(stdout);
    pid_t p = fork(); if (!p) { V(SYS(getppid)); fflush(stdout); _exit(0); } waitpid(p, 0, 0);
}
static void many(void) {
    int fd = start(0, several); unsigned ids[3];
    for (int i = 0; i < 3; i++) { struct seccomp_notif k; T(receive(fd)); k = n; ids[i] = n.pid; V(n.pid != child); static long long all[3]; all[i] = n.id; if (i == 2) { V(all[0] != all[1] && all[1] != all[2]); T(events(fd, 0)); T(reply(fd, all[2], 100, 0, 0)); T(reply(fd, all[0], 20, 0, 0)); T(reply(fd, all[1], 3, 0, 0)); } }
    V(ids[0] != ids[1] && ids[1] != ids[2]);
    T(receive(fd)); V(n.pid != child); T(reply(fd, n.id, 55, 0, 0)); T(receive(fd)); finish(fd);
}

static void slow(void) { usleep(50000); T(SYS(getppid)); }
static void waits(void) {
    struct sigaction a = { .sa_handler = on }; sigaction(SIGALRM, &a, 0);
    int fd = start(0, slow); T(receive(fd)); T(reply(fd, n.id, 9, 0, 0)); T(receive(fd)); finish(fd);
    /* The listener's reader is interrupted; nothing is lost. */
    fd = start(0, slow); struct itimerval it = { { 0, 0 }, { 0, 10000 } }; setitimer(ITIMER_REAL, &it, 0); T(receive(fd)); T(receive(fd)); T(reply(fd, n.id, 9, 0, 0)); T(receive(fd)); finish(fd);
    fcntl(fd, F_SETFL, 0); signal(SIGALRM, SIG_DFL); alarm(60);
}

static void nested(void) {
    struct sock_filter strong[] = { LOAD(NR), ON(getppid, SECCOMP_RET_ERRNO | EDOM), ON(getsid, SECCOMP_RET_ALLOW), RET(SECCOMP_RET_ALLOW) };
    struct sock_fprog p = { sizeof strong / sizeof strong[0], strong };
    T(set(NEW, &prog)); T(set(0, &p)); T(SYS(getppid)); T(SYS(getsid, 0)); T(set(0, &prog)); T(SYS(getsid, 0));
}
static void combined(void) { int fd = start(0, nested); T(receive(fd)); T(reply(fd, n.id, 6, 0, 0)); T(receive(fd)); finish(fd); }

static void refusals(void) {
    fflush(stdout);
    if (!fork()) {
        nnp();
        T(set(NEW | SECCOMP_FILTER_FLAG_TSYNC, &prog)); T(set(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog)); T(set(64, &prog)); T(set(NEW, BAD));
        struct rlimit l = { 3, 100 }, old; getrlimit(RLIMIT_NOFILE, &old); setrlimit(RLIMIT_NOFILE, &l); T(set(NEW, &prog)); T(prctl(PR_GET_SECCOMP)); l.rlim_cur = 100; setrlimit(RLIMIT_NOFILE, &l);
        int fd; T(fd = set(NEW | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, &prog)); T(set(NEW, &prog)); T(set(0, &prog)); T(close(fd)); T(SYS(getppid)); T(fd = set(NEW, &prog)); T(close(fd)); T(SYS(getppid));
        unsigned v = SECCOMP_RET_USER_NOTIF; T(SYS(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &v));
        fflush(stdout); _exit(0);
    }
    wait(0);
    fflush(stdout);
    if (!fork()) { nnp(); T(set(0, &prog)); T(SYS(getppid)); fflush(stdout); _exit(0); }
    wait(0);
}

int main(void) {
    refusals(); basics(); continued(); added(); closed(); broken(0); broken(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV); many(); waits(); combined();
    return 0;
}
