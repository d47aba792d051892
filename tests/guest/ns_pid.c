#include "guest.h"
#include <dirent.h>
#include <linux/futex.h>
#include <linux/reboot.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
/* PID namespaces: numbers at each level, signals to and from an init, orphans, the end of a namespace, ids in all that shows them. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
/* The first process of a new namespace. */
#define INIT(...) do { fflush(stdout); int st_ = -1; pid_t c_ = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static void nap(int ms) { usleep(ms * 1000); }
static void fields(int line, const char *file, const char *only) { char l[512]; FILE *f = fopen(file, "r"); if (!f) { printf("%d %s: %s\n", line, file, strerrorname_np(errno)); return; } while (fgets(l, 512, f)) { char *end = strchr(l, ':'); if (end && memmem(only, strlen(only), l, end - l + 1)) printf("%d %s", line, l); } fclose(f); }
static volatile sig_atomic_t hits; static volatile int from, code_;
static void hit(int s, siginfo_t *i, void *c) { hits++; from = i->si_pid; code_ = i->si_code; }
static void handle(int s) { struct sigaction a = {.sa_sigaction = hit, .sa_flags = SA_SIGINFO | SA_RESTART}; sigaction(s, &a, 0); }
static void list(int line) { DIR *d = opendir("/proc"); struct dirent *e; int n[64], k = 0; while ((e = readdir(d))) if (atoi(e->d_name) && k < 64) n[k++] = atoi(e->d_name); closedir(d); printf("%d processes:", line); for (int i = 0; i < k; i++) printf(" %d", n[i]); puts(""); }

static void numbers(void) {
    pid_t outer = getpid(); INIT(V(getpid()); V(gettid()); V(getppid()); V(getpgrp()); V(getsid(0)); V(getpgid(0)); T(getpgid(1)); T(getpgid(2)); T(getsid(outer + 1000)); T(setsid()); V(getpgrp()); V(getsid(0)); T(setpgid(0, 0));
        pid_t c = fork(); if (!c) { V(getpid()); V(getppid()); V(getpgrp()); T(setpgid(0, 0)); V(getpgrp()); V(getsid(0)); T(kill(1, 0)); T(kill(99, 0)); T(kill(-1, 0)); T(kill(-2, 0)); T(kill(-1, SIGCONT)); fflush(stdout); _exit(7); } int st; V(wait(&st)); V(WEXITSTATUS(st)); V(c);
        IN(V(getpid()); IN(V(getpid()); V(getppid()))); siginfo_t i = {0}; c = fork(); if (!c) _exit(1); T(waitid(P_PID, c, &i, WEXITED | WNOWAIT)); V(i.si_pid); V(i.si_uid); T(waitid(P_ALL, 0, &i, WEXITED)); V(i.si_pid); T(waitid(P_PID, 77, &i, WEXITED)); T(waitpid(-77, 0, 0)); T(waitpid(77, 0, WNOHANG));
        int p = -1, t = -1, k = -1; c = SYS(clone, CLONE_PIDFD | SIGCHLD, 0, &p, 0, 0); if (!c) _exit(0); V(c); V(p >= 0); c = wait(0); c = SYS(clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, &t, &k, 0); if (!c) { V(k); V(getpid() == k); fflush(stdout); _exit(0); } wait(0); V(c == t); c = vfork(); if (!c) _exit(0); V(c); wait(0);
        T(SYS(pidfd_open, 1, 0) >= 0); T(SYS(pidfd_open, 50, 0)); T(SYS(sched_getscheduler, 1)); T(SYS(sched_getscheduler, 50)); T(getpriority(PRIO_PROCESS, 1)); T(getpriority(PRIO_PROCESS, 50)); struct rlimit r; T(prlimit(1, RLIMIT_NOFILE, 0, &r)); T(prlimit(50, RLIMIT_NOFILE, 0, &r)); V(SYS(set_tid_address, &t)));
    /* Two levels: what the middle one sees of the inner one. */
    INIT(int w[2]; pipe(w); pid_t c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) { V(getpid()); V(getppid()); IN(V(getpid()); V(getppid()); T(kill(1, 0)); T(kill(2, 0)); T(kill(3, 0))); fflush(stdout); write(w[1], "x", 1); pause(); } char b; read(w[0], &b, 1); V(c); T(kill(c, 0)); T(kill(c + 1, 0)); T(kill(c, SIGKILL)); int st; V(waitpid(c, &st, 0) == c); V(st); IN(V(getpid())));
}
static void shown(void) {
    INIT(T(unshare(CLONE_NEWNS)); T(mount("proc", "/proc", "proc", 0, 0)); list(__LINE__); IN(list(__LINE__); char l[64] = ""; readlink("/proc/self", l, 63); S(l); fields(__LINE__, "/proc/self/status", "Tgid:Pid:PPid:NStgid:NSpid:NSpgid:NSsid:"); T(access("/proc/1/status", F_OK)); T(access("/proc/99", F_OK)); int a, b, c, d; FILE *f = fopen("/proc/self/stat", "r"); fscanf(f, "%d (%*[^)]) %*c %d %d %d", &a, &b, &c, &d); printf("%d %d %d %d\n", a, b, c, d); fclose(f); char path[64]; int fd = SYS(pidfd_open, 1, 0); sprintf(path, "/proc/self/fdinfo/%d", fd); fields(__LINE__, path, "Pid:NSpid:"));
        IN(T(SYS(unshare, CLONE_NEWPID)); int w[2]; pipe(w); pid_t c = fork(); char b; if (!c) { V(getpid()); char l[64]; T(readlink("/proc/self", l, 63)); T(access("/proc/self", F_OK)); fflush(stdout); write(w[1], "x", 1); pause(); } read(w[0], &b, 1); char path[64]; sprintf(path, "/proc/%d/status", c); fields(__LINE__, path, "Tgid:Pid:PPid:NStgid:NSpid:"); kill(c, SIGKILL); wait(0); T(fork()); T(SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)); T(unshare(CLONE_NEWPID))));
    /* A descriptor of a process, and of what is not seen. */
    int up[2], down[2]; pipe(up); pipe(down); int s[2], one = 1; socketpair(AF_UNIX, SOCK_DGRAM, 0, s); setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
    INIT(struct ucred peer; socklen_t len = sizeof peer; T(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &peer, &len)); V(peer.pid); int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair); getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &len); V(peer.pid); T(send(s[0], "x", 1, 0)); struct { struct cmsghdr h; struct ucred u; } ctl = {{sizeof ctl, SOL_SOCKET, SCM_CREDENTIALS}, {50, 0, 0}}; struct iovec v = {"x", 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl}; T(sendmsg(s[0], &m, 0)); ctl.u.pid = 1; T(sendmsg(s[0], &m, 0));
        int f = open("locked", O_CREAT | O_RDWR, 0600); struct flock l = {F_WRLCK}; T(fcntl(f, F_SETLK, &l)); IN(struct flock q = {F_WRLCK}; T(fcntl(f, F_GETLK, &q)); V(q.l_pid)); T(fcntl(f, F_SETOWN, 1)); T(fcntl(f, F_GETOWN)); T(fcntl(f, F_SETOWN, -1)); T(fcntl(f, F_GETOWN)); struct f_owner_ex o = {F_OWNER_PID, 1}; T(fcntl(f, F_SETOWN_EX, &o)); T(fcntl(f, F_GETOWN_EX, &o)); V(o.pid);
        int q = msgget(IPC_PRIVATE, 0600), e = semget(IPC_PRIVATE, 1, 0600); struct { long t; char x; } msg = {1}; struct sembuf plus = {0, 1, 0}; semop(e, &plus, 1); msgsnd(q, &msg, 1, 0); struct msqid_ds d; msgctl(q, IPC_STAT, &d); V(d.msg_lspid); T(semctl(e, 0, GETPID)); msgctl(q, IPC_RMID, 0); semctl(e, 0, IPC_RMID));
    for (int i = 0; i < 2; i++) { char b[8], c2[64]; struct iovec v = {b, 8}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c2, .msg_controllen = sizeof c2}; if (recvmsg(s[1], &m, MSG_DONTWAIT) < 0) { puts("nothing"); continue; } struct ucred *u = (void *)CMSG_DATA(CMSG_FIRSTHDR(&m)); V(u->pid > 1); V(u->pid == getpid()); }
}
static void signals(void) {
    /* From within an init gets what it handles, and nothing else. */
    INIT(IN(T(kill(1, SIGKILL)); T(kill(1, SIGSTOP)); T(kill(1, SIGTERM)); T(kill(1, SIGTSTP)); T(kill(1, SIGHUP)); T(tgkill(1, 1, SIGKILL))); nap(20); T(kill(1, SIGKILL)); T(raise(SIGTERM)); T(raise(SIGSTOP)); handle(SIGUSR1); IN(T(kill(1, SIGUSR1))); nap(20); V(hits); V(from); V(code_); hits = 0; signal(SIGUSR1, SIG_DFL); IN(T(kill(1, SIGUSR1))); nap(20); V(hits); T(kill(-1, SIGKILL)); puts("on"));
    /* From outside: what it handles, SIGKILL and SIGSTOP. */
    int up[2]; pipe(up); fflush(stdout); pid_t c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); char b; if (!c) { handle(SIGUSR1); sigset_t u; sigemptyset(&u); sigaddset(&u, SIGUSR1); sigprocmask(SIG_BLOCK, &u, 0); write(up[1], "x", 1); for (;;) { siginfo_t i; if (sigwaitinfo(&u, &i) < 0) continue; V(i.si_pid); V(i.si_code); fflush(stdout); write(up[1], "x", 1); } } read(up[0], &b, 1); T(kill(c, SIGTERM)); nap(20); kill(c, SIGUSR1); read(up[0], &b, 1); union sigval sv = {5}; sigqueue(c, SIGUSR1, sv); read(up[0], &b, 1); int st; T(kill(c, SIGSTOP)); V(waitpid(c, &st, WUNTRACED) == c); V(WIFSTOPPED(st)); T(kill(c, SIGCONT)); V(waitpid(c, &st, WCONTINUED) == c); V(WIFCONTINUED(st)); nap(20); kill(c, SIGUSR1); read(up[0], &b, 1); T(kill(c, SIGKILL)); waitpid(c, &st, 0); V(WTERMSIG(st));
    /* What a child in a namespace tells its parent outside. */
    handle(SIGCHLD); hits = 0; fflush(stdout); c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) _exit(0); while (!hits) nap(1); V(from == c); waitpid(c, 0, 0); signal(SIGCHLD, SIG_DFL);
    INIT(sigset_t u; sigemptyset(&u); sigaddset(&u, SIGUSR1); sigprocmask(SIG_BLOCK, &u, 0); int f = signalfd(-1, &u, 0); IN(kill(getppid(), SIGUSR1)); struct signalfd_siginfo i; T(read(f, &i, sizeof i)); V(i.ssi_pid); siginfo_t w; IN(union sigval v = {9}; T(sigqueue(1, SIGUSR1, v))); T(sigwaitinfo(&u, &w)); V(w.si_pid); V(w.si_value.sival_int); T(prctl(PR_SET_PDEATHSIG, SIGKILL)); T(SYS(clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)));
}
static void ends(void) {
    /* Orphans are the init's, or a subreaper's that is in their namespace. */
    INIT(int w[2]; pipe(w); IN(pid_t p = getpid(); if (!fork()) { while (getppid() == p) nap(1); V(getppid()); fflush(stdout); write(w[1], "x", 1); _exit(4); }); char b; read(w[0], &b, 1); int st; V(wait(&st)); V(WEXITSTATUS(st)); T(wait(0)));
    prctl(PR_SET_CHILD_SUBREAPER, 1); INIT(IN(pid_t p = getpid(); if (!fork()) { while (getppid() == p) nap(1); V(getppid()); fflush(stdout); _exit(4); } nap(1)); wait(0); prctl(PR_SET_CHILD_SUBREAPER, 1); pid_t sub = fork(); if (!sub) { prctl(PR_SET_CHILD_SUBREAPER, 1); IN(pid_t p = getpid(); if (!fork()) { while (getppid() == p) nap(1); V(getppid()); fflush(stdout); _exit(0); }); wait(0); _exit(0); } V(sub); waitpid(sub, 0, 0)); prctl(PR_SET_CHILD_SUBREAPER, 0);
    /* All go with the init: when its parent knows of its end, nobody is left, in namespaces within it, either. */
    int w[2], r[2]; pipe(w); pipe(r); fflush(stdout); pid_t c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) { close(w[0]); for (int i = 0; i < 3; i++) if (!fork()) { signal(SIGTERM, SIG_IGN); setsid(); if (i) SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); write(w[1], "x", 1); write(r[1], "x", 1); pause(); } char b; for (int i = 0; i < 5; i++) read(r[0], &b, 1); _exit(9); } close(w[1]); int st, n = 0; char b; waitpid(c, &st, 0); V(WEXITSTATUS(st)); while (read(w[0], &b, 1) == 1) n++; V(n); close(w[0]);
    /* After that nobody comes in. */
    IN(T(unshare(CLONE_NEWPID)); IN(V(getpid())); T(fork()); T(vfork()); T(SYS(clone, SIGCHLD, 0, 0, 0, 0)); T(SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)); pthread_t t; T(pthread_create(&t, 0, (void *(*)(void *))puts, "x")));
    /* Into another's. */
    int up[2]; pipe(up); fflush(stdout); c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) { write(up[1], "x", 1); for (;;) wait(0), nap(5); } read(up[0], &b, 1); char path[64]; sprintf(path, "/proc/%d/ns/pid", c); int f = open(path, O_RDONLY); IN(T(setns(f, CLONE_NEWPID)); V(getpid() > 1); pid_t k = fork(); if (!k) { V(getpid()); V(getppid()); T(kill(1, 0)); T(setns(open("/proc/self/ns/pid", O_RDONLY), 0)); fflush(stdout); _exit(5); } int st; V(waitpid(k, &st, 0) == k); V(k > 2); V(WEXITSTATUS(st)); T(unshare(CLONE_NEWPID))); INIT(T(setns(f, 0))); kill(c, SIGKILL); waitpid(c, 0, 0); IN(T(setns(f, 0)); T(fork())); close(f);
    /* Started again and shut down. */
    int cmds[] = {LINUX_REBOOT_CMD_RESTART, LINUX_REBOOT_CMD_HALT, LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART2}; for (int i = 0; i < 4; i++) INIT(T(unshare(CLONE_NEWUSER))); fflush(stdout);
    for (int i = 0; i < 4; i++) { fflush(stdout); c = SYS(clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) { pid_t k = fork(); if (!k) { SYS(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, cmds[i], "x"); _exit(1); } wait(0); _exit(2); } waitpid(c, &st, 0); V(WIFSIGNALED(st)); V(WTERMSIG(st)); }
    c = SYS(clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0); if (!c) { T(SYS(reboot, 1, 2, 3, 4)); T(SYS(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, 1, 0)); T(SYS(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0)); fflush(stdout); _exit(0); } waitpid(c, 0, 0);
}
static void *self(void *x) { V(gettid()); T(tgkill(1, gettid(), 0)); T(SYS(tkill, gettid(), 0)); T(SYS(tkill, 1, 0)); return 0; }
static void threads(void) { INIT(pthread_t t; pthread_create(&t, 0, self, 0); pthread_join(t, 0); IN(pthread_mutex_t m; pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK); pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST); pthread_mutex_init(&m, &a); pthread_mutex_lock(&m); V(m.__data.__owner); V(m.__data.__lock & FUTEX_TID_MASK);); IN(execl("/proc/self/exe", "prog", "again", (char *)0))); }
static void nesting(void) { IN(int n = 0; pid_t c; while ((c = SYS(clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)) == 0) n++; if (c < 0) { V(n); S(strerrorname_np(errno)); } fflush(stdout); wait(0)); }
static void body(void) { mkdir("work", 0777); chdir("work"); numbers(); shown(); signals(); ends(); threads(); nesting(); }
int main(int n, char **v) { if (n > 1) { V(getpid()); return 0; } IN(body()); return 0; }
