#include "guest.h"
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/utsname.h>
/* UTS, IPC, cgroup and network namespaces; setns by files and by process descriptors; the files of namespaces and their ioctls. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static int put(const char *file, const char *text) { int f = open(file, O_WRONLY); if (f < 0) return -1; int r = write(f, text, strlen(text)), e = errno; close(f); errno = e; return r; }
static const char *kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts"};
static ino_t number(const char *kind) { char p[64]; struct stat s; sprintf(p, "/proc/self/ns/%s", kind); return stat(p, &s) ? 0 : s.st_ino; }
static ino_t before[8];
static void note(void) { for (int i = 0; i < 8; i++) before[i] = number(kinds[i]); }
/* Which namespaces are others than noted. */
static void changed(int line) { printf("%d other:", line); for (int i = 0; i < 8; i++) if (number(kinds[i]) != before[i]) printf(" %s", kinds[i]); puts(""); }
#define CHANGED changed(__LINE__)
static const char *host(void) { static struct utsname u; uname(&u); return u.nodename; }
static const char *domain(void) { static struct utsname u; uname(&u); return u.domainname; }
static int ns(const char *kind) { char p[64]; sprintf(p, "/proc/self/ns/%s", kind); return open(p, O_RDONLY | O_CLOEXEC); }

static void files(void) {
    for (int i = 0; i < 8; i++) {
        char p[64], l[100] = "", want[100]; struct stat s, t, u; sprintf(p, "/proc/self/ns/%s", kinds[i]); int n = readlink(p, l, 99), f = ns(kinds[i]); fstat(f, &s); stat(p, &t); lstat(p, &u); sprintf(want, "%s:[%lu]", strcmp(kinds[i], "pid_for_children") ? kinds[i] : "pid", s.st_ino);
        printf("%s link %d same %d mode %o %o size %ld nlink %d\n", kinds[i], n > 0 && !strcmp(l, want), s.st_ino == t.st_ino && s.st_dev == t.st_dev, s.st_mode, u.st_mode, (long)s.st_size, (int)s.st_nlink);
        char b; T(read(f, &b, 1)); T(write(f, "x", 1)); T(lseek(f, 0, SEEK_CUR)); T(ioctl(f, NS_GET_NSTYPE)); T(ioctl(f, 0x1234)); T(ioctl(f, NS_GET_OWNER_UID, &n)); T(ioctl(f, NS_GET_OWNER_UID, BAD)); T(ioctl(f, NS_GET_PARENT)); int o = ioctl(f, NS_GET_USERNS); if (o >= 0) { fstat(o, &u); V(u.st_ino == number("user")); V(fcntl(o, F_GETFD)); close(o); } else V(errno); close(f);
    }
    T(open("/proc/self/ns/uts", O_RDWR)); T(open("/proc/self/ns/uts", O_RDONLY | O_NOFOLLOW)); T(open("/proc/self/ns/nosuch", O_RDONLY)); T(unlink("/proc/self/ns/uts")); T(chmod("/proc/self/ns/uts", 0644)); T(access("/proc/self/ns/uts", R_OK)); T(setns(-1, 0)); T(setns(0, 0)); T(setns(99, CLONE_NEWUTS)); int u = ns("uts"); T(setns(u, CLONE_NEWIPC)); T(setns(u, 1)); T(setns(u, 0)); T(setns(u, CLONE_NEWUTS)); close(u); u = ns("user"); T(setns(u, 0)); T(setns(u, CLONE_NEWUSER)); close(u); int p = SYS(pidfd_open, getpid(), 0); T(setns(p, 0)); T(setns(p, 1)); T(setns(p, CLONE_NEWUTS | CLONE_NEWIPC)); T(setns(p, CLONE_NEWUSER)); T(setns(p, CLONE_NEWUTS | 0x100)); close(p);
}
static void uts(void) {
    IN(T(unshare(CLONE_NEWUTS)); CHANGED; T(sethostname("inner", 5)); S(host()); T(setdomainname("dom", 3)); S(domain()); IN(S(host()); T(unshare(CLONE_NEWUTS)); S(host()); sethostname("deep", 4); S(host())); S(host()); T(put("/proc/sys/kernel/hostname", "written\n")); S(host()); char l[70]; memset(l, 'x', 70); T(sethostname(l, 65)); T(sethostname(l, 64)); V(strlen(host())); T(sethostname("", 0)); S(host()); T(sethostname(BAD, 1)); T(sethostname("x", -1)));
    V(!strcmp(host(), "inner")); CHANGED;
    /* Another's: by its file, and by who is in it. */
    int down[2], up[2]; pipe(down); pipe(up); fflush(stdout); pid_t c = fork(); char b; if (!c) { close(down[1]); unshare(CLONE_NEWUTS | CLONE_NEWIPC); sethostname("hers", 4); write(up[1], "x", 1); read(down[0], &b, 1); _exit(0); } read(up[0], &b, 1);
    char path[64]; sprintf(path, "/proc/%d/ns/uts", c); IN(int f = open(path, O_RDONLY); T(setns(f, CLONE_NEWUTS)); S(host()); CHANGED); int pf = SYS(pidfd_open, c, 0); IN(T(setns(pf, CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)); S(host()); CHANGED); IN(T(unshare(CLONE_NEWUSER)); put("/proc/self/uid_map", "0 0 1"); T(setns(pf, CLONE_NEWUTS)); T(setns(open(path, O_RDONLY), 0)));
    /* A file keeps a namespace when all who were in it have gone. */
    int kept = open(path, O_RDONLY); close(down[1]); waitpid(c, 0, 0); IN(T(setns(kept, 0)); S(host())); T(setns(pf, CLONE_NEWUTS)); T(access(path, F_OK)); close(kept); close(pf); close(up[0]); close(up[1]); close(down[0]);
    /* Mounted elsewhere. */
    IN(T(unshare(CLONE_NEWUTS)); sethostname("bound", 5); close(open("here", O_CREAT | O_WRONLY, 0600)); T(mount("/proc/self/ns/uts", "here", 0, MS_BIND, 0))); IN(int f = open("here", O_RDONLY); T(ioctl(f, NS_GET_NSTYPE)); T(setns(f, 0)); S(host())); FILE *m = fopen("/proc/self/mountinfo", "r"); char line[4096], root[4096], kind[64]; while (fgets(line, 4096, m)) if (strstr(line, "/here ")) { sscanf(line, "%*d %*d %*s %4000s", root); sscanf(strstr(line, " - "), " - %63s", kind); root[5] = 0; printf("%s %s\n", root, kind); } fclose(m); T(umount("here")); IN(T(mount("/proc/self/ns/mnt", "here", 0, MS_BIND, 0))); unlink("here");
}
static void ipc(void) {
    int q = msgget(4711, IPC_CREAT | 0600), s = semget(4711, 2, IPC_CREAT | 0600), m = shmget(4711, 8192, IPC_CREAT | 0600); struct { long t; char x[8]; } msg = {1, "hello"}; msgsnd(q, &msg, 6, 0); char *a = shmat(m, 0, 0); strcpy(a, "shared"); struct sembuf plus = {0, 3, SEM_UNDO}; semop(s, &plus, 1);
    IN(T(unshare(CLONE_NEWIPC)); CHANGED; T(msgget(4711, 0)); T(semget(4711, 0, 0)); T(shmget(4711, 0, 0)); T(msgrcv(q, &msg, 8, 0, IPC_NOWAIT)); T(semctl(s, 0, GETVAL)); T(shmat(m, 0, 0)); S(a); T(shmdt(a)); OK(msgget(4711, IPC_CREAT | IPC_EXCL | 0600)); T(msgrcv(msgget(4711, 0), &msg, 8, 0, IPC_NOWAIT)); T(shmget(4711, 4096, IPC_CREAT | 0600) >= 0); char *b = shmat(shmget(4711, 0, 0), 0, 0); S(b); struct shmid_ds d; T(shmctl(shmget(4711, 0, 0), IPC_STAT, &d)); V(d.shm_nattch));
    T(msgrcv(q, &msg, 8, 0, IPC_NOWAIT)); S(msg.x); T(semctl(s, 0, GETVAL)); S(a); struct shmid_ds d; shmctl(m, IPC_STAT, &d); V(d.shm_nattch);
    /* Adjustments are made when the namespace is left. */
    IN(struct sembuf more = {1, 5, SEM_UNDO}; T(semop(s, &more, 1)); T(semctl(s, 1, GETVAL)); int back = ns("ipc"); T(unshare(CLONE_NEWIPC)); T(setns(back, 0)); T(semctl(s, 1, GETVAL))); T(unshare(CLONE_SYSVSEM)); T(semctl(s, 0, GETVAL)); T(SYS(clone, CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0));
    /* Whose they are: his who has the namespace. */
    semctl(s, 0, IPC_RMID); chmod(".", 0777); struct msqid_ds p; msgctl(q, IPC_STAT, &p); p.msg_perm.uid = 77; msgctl(q, IPC_SET, &p);
    IN(T(unshare(CLONE_NEWUSER)); put("/proc/self/uid_map", "5 0 1"); T(msgctl(q, IPC_STAT, &p)); V(p.msg_perm.uid); V(p.msg_perm.cuid); p.msg_perm.uid = 6; T(msgctl(q, IPC_SET, &p)); p.msg_perm.uid = 5; p.msg_perm.gid = 0; T(msgctl(q, IPC_SET, &p)); T(unshare(CLONE_NEWIPC)); OK(q = msgget(1, IPC_CREAT | 0)); T(msgctl(q, IPC_STAT, &p)); V(p.msg_perm.cuid));
    T(msgctl(q, IPC_RMID, 0)); T(shmctl(m, IPC_RMID, 0)); shmdt(a);
}
static void others(void) {
    IN(T(unshare(CLONE_NEWCGROUP)); CHANGED; T(setns(ns("cgroup"), CLONE_NEWCGROUP))); IN(T(unshare(CLONE_NEWNET)); CHANGED; T(setns(ns("net"), 0))); IN(T(unshare(CLONE_NEWNS)); CHANGED); IN(T(unshare(CLONE_NEWPID)); CHANGED; char l[64]; T(readlink("/proc/self/ns/pid_for_children", l, 64)); T(open("/proc/self/ns/pid_for_children", O_RDONLY)); IN(V(getpid()); CHANGED); CHANGED); IN(T(unshare(CLONE_NEWUSER)); CHANGED; int f = ns("user"), o, p; uid_t u = 1; T(ioctl(f, NS_GET_OWNER_UID, &u)); V(u); T(ioctl(f, NS_GET_PARENT)); T(ioctl(ns("uts"), NS_GET_USERNS)); T(ioctl(ns("pid"), NS_GET_PARENT)));
    IN(T(unshare(CLONE_NEWUSER)); int f = ns("user"); IN(T(unshare(CLONE_NEWUSER)); int g = ns("user"), p; OK(p = ioctl(g, NS_GET_PARENT)); T(setns(f, 0)); T(ioctl(f, NS_GET_NSTYPE) == CLONE_NEWUSER)); T(setns(f, 0)); T(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWNS | CLONE_NEWPID)); CHANGED; struct stat a, b; int o = ioctl(ns("net"), NS_GET_USERNS); fstat(o, &a); fstat(f, &b); V(a.st_ino == b.st_ino));
    int up[2], down[2]; pipe(up); pipe(down); fflush(stdout); pid_t c = SYS(clone, CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0); char x; if (!c) { CHANGED; T(sethostname("cloned", 6)); fflush(stdout); write(up[1], "x", 1); close(down[1]); read(down[0], &x, 1); _exit(0); } read(up[0], &x, 1); int f = SYS(pidfd_open, c, 0); IN(T(setns(f, CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS)); CHANGED; S(host()); T(getuid()); T(sethostname("x", 1))); IN(T(setns(f, CLONE_NEWUTS)); S(host())); close(down[1]); waitpid(c, 0, 0); T(setns(f, CLONE_NEWUTS));
    T(unshare(-1)); T(unshare(0)); T(unshare(1)); T(unshare(CLONE_PARENT)); T(unshare(CLONE_FILES | CLONE_FS)); IN(setresuid(1000, 1000, 1000); for (int i = 0; i < 8; i++) { int k[] = {CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWPID, CLONE_NEWUTS | CLONE_NEWIPC, CLONE_NEWUTS}; T(unshare(k[i])); } T(SYS(clone, CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0)); T(setns(ns("uts"), 0)));
}
static void *wait_here(void *f) { char b; read(*(int *)f, &b, 1); return 0; }
static void threads(void) { int p[2]; pipe(p); pthread_t t; pthread_create(&t, 0, wait_here, p); T(unshare(CLONE_NEWUSER)); T(unshare(CLONE_THREAD)); T(unshare(CLONE_VM)); T(unshare(CLONE_NEWUTS)); T(sethostname("thread", 6)); S(host()); T(setns(ns("user"), 0)); T(unshare(CLONE_NEWPID)); pthread_t u; V(pthread_create(&u, 0, wait_here, p)); close(p[1]); pthread_join(t, 0); }
static void limits(void) { IN(T(unshare(CLONE_NEWUSER)); put("/proc/self/uid_map", "0 0 1"); for (int i = 0; i < 8; i++) { char p[64]; sprintf(p, "/proc/sys/user/max_%s_namespaces", i == 5 ? "nosuch" : kinds[i]); T(access(p, F_OK)); } char b[32] = ""; int f = open("/proc/sys/user/max_uts_namespaces", O_RDONLY); V(read(f, b, 31) > 0); S(b)); }
static void body(void) { mkdir("work", 0777); chdir("work"); note(); files(); uts(); ipc(); others(); IN(threads()); limits(); }
int main(void) { IN(body()); return 0; }
