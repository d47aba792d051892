#include "guest.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
/* User namespaces: maps and who may write them, ids as each side sees them, capabilities in and out of the namespace, limits. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static int put(const char *file, const char *text) { int f = open(file, O_WRONLY); if (f < 0) return -1; int r = write(f, text, strlen(text)), e = errno; close(f); errno = e; return r; }
static void cat(int line, const char *file) { char b[4096]; int f = open(file, O_RDONLY), n = f < 0 ? -1 : (int)read(f, b, sizeof b - 1); printf("%d %s:\n", line, file); if (n < 0) puts(strerrorname_np(errno)); else { b[n] = 0; fputs(b, stdout); } if (f >= 0) close(f); }
#define CAT(file) cat(__LINE__, file)
static void who(int line) {
    uid_t r, e, s; gid_t g, h, i; getresuid(&r, &e, &s); getresgid(&g, &h, &i);
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0}; struct __user_cap_data_struct data[2] = {0}; SYS(capget, &head, data);
    gid_t all[64]; int n = getgroups(64, all); printf("%d uid %d %d %d gid %d %d %d caps %x%08x %x%08x %x groups", line, r, e, s, g, h, i, data[1].permitted, data[0].permitted, data[1].effective, data[0].effective, data[0].inheritable);
    for (int k = 0; k < n; k++) printf(" %d", all[k]); puts("");
}
#define WHO who(__LINE__)
static void owner(int line, const char *path) { struct stat s; if (lstat(path, &s)) printf("%d %s: %s\n", line, path, strerrorname_np(errno)); else printf("%d %s of %d %d mode %o\n", line, path, s.st_uid, s.st_gid, s.st_mode); }
#define OWNER(path) owner(__LINE__, path)
/* A child in a user namespace of its own, that waits for us; what it is told then, and that it goes on. */
static int go[2], up[2];
static pid_t apart(void (*run)(void)) {
    pipe(go); pipe(up); fflush(stdout); pid_t c = fork(); char b;
    if (!c) { close(go[1]); close(up[0]); if (unshare(CLONE_NEWUSER)) { perror("unshare"); _exit(9); } write(up[1], "x", 1); read(go[0], &b, 1); run(); fflush(stdout); _exit(0); }
    close(go[0]); close(up[1]); read(up[0], &b, 1); return c;
}
static void end(int line, pid_t c) { int st = -1; write(go[1], "x", 1); waitpid(c, &st, 0); close(go[1]); close(up[0]); if (st) printf("%d ended %x\n", line, st); }
static int map_of(pid_t c, const char *which, const char *text) { char path[64]; sprintf(path, "/proc/%d/%s", c, which); return put(path, text); }

static void inside(void) {
    WHO; CAT("/proc/self/uid_map"); CAT("/proc/self/gid_map"); CAT("/proc/self/projid_map"); CAT("/proc/self/setgroups"); OWNER("mine"); OWNER("hers"); OWNER("nobodys");
    T(setuid(5)); T(setuid(2000)); T(setgid(2000)); T(setreuid(-1, 3)); WHO; T(setresuid(0, 0, 0)); T(setfsuid(7)); T(setfsuid(-1)); T(setfsuid(3000)); T(setfsuid(0)); gid_t two[] = {4, 9}; T(setgroups(2, two)); WHO; gid_t out[] = {4, 5000}; T(setgroups(2, out));
    T(chown("mine", 4, 5)); OWNER("mine"); T(chown("mine", 5000, -1)); T(chown("mine", -1, 5000)); T(chown("hers", 0, 0)); T(chown("nobodys", 0, 0)); T(chmod("nobodys", 0600)); T(chmod("mine", 04711)); OWNER("mine"); T(open("nobodys", O_RDWR)); T(access("nobodys", R_OK)); T(unlink("nobodys"));
    T(close(open("made", O_CREAT | O_WRONLY | O_EXCL, 0640))); OWNER("made"); T(mkdir("dir", 0755)); OWNER("dir"); T(mknod("null", S_IFCHR | 0666, 0x103)); T(mknod("fifo", S_IFIFO | 0666, 0)); OWNER("fifo");
    T(sethostname("x", 1)); T(mount("x", "dir", "tmpfs", 0, 0)); T(mount("mine", "made", 0, MS_BIND, 0)); T(umount("dir")); T(chroot("dir")); struct timespec now; clock_gettime(CLOCK_REALTIME, &now); T(clock_settime(CLOCK_REALTIME, &now)); T(SYS(reboot, 0, 0, 0, 0));
    T(kill(getppid(), 0)); T(SYS(setns, 0, 0)); T(unshare(CLONE_NEWUTS)); T(sethostname("inner", 5)); struct utsname u; uname(&u); S(u.nodename); WHO;
}
static void seen(void) { WHO; CAT("/proc/self/uid_map"); }

static void credentials(void) {
    int s[2], one = 1; socketpair(AF_UNIX, SOCK_DGRAM, 0, s); setsockopt(s[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
    pid_t c = apart(seen); V(map_of(c, "uid_map", "0 500 10") > 0); V(map_of(c, "setgroups", "deny") > 0); V(map_of(c, "gid_map", "0 600 10") > 0); end(__LINE__, c);
    struct ucred peer; socklen_t len = sizeof peer; T(getsockopt(s[1], SOL_SOCKET, SO_PEERCRED, &peer, &len)); V(peer.uid); V(peer.gid);
    IN(T(unshare(CLONE_NEWUSER)); len = sizeof peer; T(getsockopt(s[1], SOL_SOCKET, SO_PEERCRED, &peer, &len)); V(peer.uid); V(peer.gid); V(put("/proc/self/uid_map", "77 0 1")); len = sizeof peer; getsockopt(s[1], SOL_SOCKET, SO_PEERCRED, &peer, &len); V(peer.uid); V(getuid());
       struct { struct cmsghdr h; struct ucred u; } ctl = {{sizeof ctl, SOL_SOCKET, SCM_CREDENTIALS}, {getpid(), 77, 0}}; struct iovec v = {"x", 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl}; T(sendmsg(s[1], &m, 0)); ctl.u.uid = 0; T(sendmsg(s[1], &m, 0)); ctl.u.uid = 77; V(put("/proc/self/setgroups", "deny")); V(put("/proc/self/gid_map", "0 0 1")); T(sendmsg(s[1], &m, 0)); T(send(s[1], "y", 1, 0)));
    for (int i = 0; i < 2; i++) { char b[8], c2[64]; struct iovec v = {b, 8}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c2, .msg_controllen = sizeof c2}; if (recvmsg(s[0], &m, MSG_DONTWAIT) < 0) { puts("nothing"); continue; } struct ucred *u = (void *)CMSG_DATA(CMSG_FIRSTHDR(&m)); printf("%c from %d %d\n", b[0], u->uid, u->gid); }
    close(s[0]); close(s[1]);
}

static void body(void) {
    mkdir("work", 0777); chmod("work", 0777); chdir("work"); close(open("mine", O_CREAT | O_WRONLY, 0600)); chown("mine", 1000, 1000); close(open("hers", O_CREAT | O_WRONLY, 0600)); chown("hers", 1004, 1005); close(open("nobodys", O_CREAT | O_WRONLY, 0600)); chown("nobodys", 77, 77);
    /* What is refused, and without a map. */
    T(unshare(CLONE_NEWUSER | 1)); IN(T(unshare(CLONE_NEWUSER)); WHO; CAT("/proc/self/uid_map"); OWNER("mine"); OWNER("/proc/self"); T(chown("mine", 0, 0)); T(setuid(0)); T(setgid(65534)); T(setgroups(0, 0)); T(close(open("nomap", O_CREAT | O_WRONLY, 0600))); OWNER("nomap"); T(unshare(CLONE_NEWUSER)); T(unshare(CLONE_NEWUTS)); T(prctl(PR_GET_DUMPABLE)); T(prctl(PR_GET_SECUREBITS)); T(prctl(PR_CAPBSET_READ, 39)));
    IN(mkdir("jail", 0755); T(chroot("jail")); T(unshare(CLONE_NEWUSER))); T(SYS(clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0)); T(SYS(clone, CLONE_NEWUSER | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0, 0));
    /* Maps that are none. */
    pid_t c = apart(seen); const char *bad[] = {"", "\n", "x", "0", "0 0", "0 0 0", "0 0 x", "0 0 1 1", "-1 0 1", "4294967295 0 1", "0 4294967295 1", "0 0 4294967296", "1 0 4294967295", "0 0 10\n5 100 10", "0 0 10\n100 5 10", "0 0 1\nx", " ", "0 0 1\n\n"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) { printf("%u ", i); T(map_of(c, "uid_map", bad[i])); }
    char *many = malloc(8000); *many = 0; for (int i = 0; i < 341; i++) sprintf(many + strlen(many), "%d %d 1\n", i, i); T(map_of(c, "gid_map", many)); memset(many, ' ', 5000); many[5000] = 0; T(map_of(c, "gid_map", many));
    T(map_of(c, "setgroups", "no")); T(map_of(c, "setgroups", "denyx")); T(map_of(c, "setgroups", "deny    \n")); T(map_of(c, "setgroups", "allow")); T(map_of(c, "uid_map", "0 1000 1\n 5   2000\t10 \n")); T(map_of(c, "uid_map", "0 1000 1")); T(map_of(c, "gid_map", "0 1000 10")); T(map_of(c, "setgroups", "deny")); T(map_of(c, "projid_map", "3 4 5")); T(map_of(c, "projid_map", "3 4 5")); end(__LINE__, c);
    /* A map that a parent gives. */
    c = apart(inside); T(map_of(c, "uid_map", "0 1000 10")); T(map_of(c, "gid_map", "0 1000 10")); T(map_of(c, "setgroups", "deny")); T(map_of(c, "setgroups", "allow")); char path[64]; sprintf(path, "/proc/%d/uid_map", c); FILE *f = fopen(path, "r"); char l[100] = ""; fgets(l, 100, f); fclose(f); S(l); end(__LINE__, c); OWNER("made"); OWNER("mine"); OWNER("fifo");
    /* A map that an ordinary user gives himself. */
    IN(gid_t g[] = {1000, 2000}; setgroups(2, g); setresgid(1000, 1000, 1000); setresuid(1000, 1000, 1000); prctl(PR_SET_DUMPABLE, 1); WHO; T(unshare(CLONE_NEWUTS)); T(unshare(CLONE_NEWNS)); T(unshare(CLONE_NEWUSER)); WHO; T(put("/proc/self/uid_map", "0 0 1")); T(put("/proc/self/uid_map", "0 1000 2")); T(put("/proc/self/uid_map", "0 1001 1")); T(put("/proc/self/gid_map", "0 1000 1")); T(put("/proc/self/uid_map", "5 1000 1")); WHO; T(put("/proc/self/setgroups", "deny")); T(put("/proc/self/gid_map", "6 1000 1")); WHO; T(setgroups(0, 0)); T(setuid(0)); T(setuid(5)); OWNER("mine"); OWNER("hers"); OWNER("/"); T(open("/proc/1/environ", O_RDONLY)); T(kill(1, 0)); CAT("/proc/self/uid_map"); CAT("/proc/self/gid_map"); T(execl("/nosuch", "x", (char *)0));
       /* Within one another: only what is there above can be mapped. */
       T(unshare(CLONE_NEWUSER)); T(put("/proc/self/uid_map", "0 6 1")); T(put("/proc/self/uid_map", "0 1000 1")); T(put("/proc/self/uid_map", "9 5 1")); WHO; OWNER("mine"); CAT("/proc/self/uid_map"); T(put("/proc/self/gid_map", "0 6 1")); WHO);
    /* Root that has given up everything is a user. */
    IN(T(unshare(CLONE_NEWUSER)); T(put("/proc/self/uid_map", "0 0 1")); WHO; T(setuid(0)); T(prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN)); WHO; T(unshare(CLONE_NEWUTS)); struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0}; struct __user_cap_data_struct none[2] = {0}; T(SYS(capset, &h, none)); T(unshare(CLONE_NEWUTS)); T(chown("mine", 0, 0)); T(unshare(CLONE_NEWUSER)); WHO; T(sethostname("y", 1)));
    credentials();
    /* How many within one another. */
    IN(int n = 0; while (!unshare(CLONE_NEWUSER)) { n++; char m[32]; sprintf(m, "0 0 1"); if (put("/proc/self/uid_map", m) < 0 || put("/proc/self/setgroups", "deny") < 0 || put("/proc/self/gid_map", m) < 0) { printf("no map at %d: %s\n", n, strerrorname_np(errno)); break; } } int e = errno; V(n); S(strerrorname_np(e)));
    /* Waiting for a child of another user. */
    IN(T(unshare(CLONE_NEWUSER)); put("/proc/self/uid_map", "0 0 1"); pid_t k = fork(); if (!k) _exit(3); siginfo_t i; T(waitid(P_PID, k, &i, WEXITED)); V(i.si_uid); V(i.si_status));
}
int main(void) { IN(body()); return 0; }
