#include "guest.h"
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <termios.h>
/* devpts: each mount has terminals of its own, with the owners, permissions and numbers that its options say. Runs in a mount namespace
 * of its own: see tests/integration/tests/guest.rs. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static void look(int line, const char *path) {
    struct stat s;
    errno = 0;
    if (stat(path, &s)) { printf("%d %s: %s\n", line, path, strerrorname_np(errno)); return; }
    printf("%d %s: mode %o uid %d gid %d dev %d:%d links %d ino %d\n", line, path, s.st_mode, s.st_uid, s.st_gid, major(s.st_rdev), minor(s.st_rdev), (int)s.st_nlink, (int)s.st_ino);
}
#define L(path) look(__LINE__, path)
static void names(int line, const char *path) {
    char all[40][20], *swap; int n = 0; DIR *d = opendir(path); struct dirent *e; (void)swap;
    while (d && (e = readdir(d)) && n < 40) snprintf(all[n++], 20, "%.10s=%d/%d", e->d_name, e->d_name[0] == '.' ? 0 : (int)e->d_ino, e->d_type);
    if (d) closedir(d);
    qsort(all, n, 20, (int (*)(const void *, const void *))strcmp);
    printf("%d in %s:", line, path); for (int i = 0; i < n; i++) printf(" %s", all[i]); puts("");
}
#define N(path) names(__LINE__, path)
static void options(int line, const char *where) {
    char l[4096], at[1000], kind[100], opts[1000]; FILE *f = fopen("/proc/mounts", "r");
    while (fgets(l, sizeof l, f)) if (sscanf(l, "%*s %999s %99s %999s", at, kind, opts) == 3 && !strcmp(kind, "devpts") && strlen(at) >= strlen(where) && !strcmp(at + strlen(at) - strlen(where), where)) printf("%d %s: %s\n", line, where, opts);
    fclose(f);
}
#define O(where) options(__LINE__, where)
static int number(int f) { int n = -1; errno = 0; return ioctl(f, TIOCGPTN, &n) ? -1 : n; }
static void unlock(int f) { int zero = 0; ioctl(f, TIOCSPTLCK, &zero); }
static void try(int line, const char *o) { errno = 0; int r = mount("x", "t", "devpts", 0, o); printf("%d options %s: %s\n", line, o, r ? strerrorname_np(errno) : "fine"); if (!r) { options(line, "/w/t"); umount("t"); } }
#define TRY(o) try(__LINE__, o)

int main(void) {
    mkdir("w", 0755); T(mount("ground", "w", "tmpfs", 0, 0)); chdir("w"); mkdir("a", 0755); mkdir("b", 0755); mkdir("t", 0755);
    /* As it is by default, and by options. */
    T(mount("x", "a", "devpts", 0, 0)); L("a"); L("a/ptmx"); N("a"); O("/w/a");
    T(mount("y", "b", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")); L("b"); L("b/ptmx"); N("b"); O("/w/b");
    int a, a2, b, s, t; T((a = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(a)); L("a/0"); N("a"); N("b"); L("b/0");
    T((b = open("b/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(b)); L("b/0"); T((a2 = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(a2)); N("a"); N("b");
    /* Not the same terminal. */
    T(open("a/0", O_RDWR | O_NOCTTY)); unlock(a); unlock(b); T((s = open("a/0", O_RDWR | O_NOCTTY)) >= 0); T((t = open("b/0", O_RDWR | O_NOCTTY)) >= 0);
    char x[20] = ""; write(a, "to a\n", 5); write(b, "to b\n", 5); V(read(s, x, 19)); printf("%.5s", x); V(read(t, x, 19)); printf("%.5s", x);
    /* Nodes elsewhere open none; one bound elsewhere is the same. */
    T(mknod("slave", S_IFCHR | 0666, makedev(136, 0))); T(open("slave", O_RDWR | O_NOCTTY)); T(mknod("bound", S_IFREG | 0600, 0)); T(mount("a/0", "bound", 0, MS_BIND, 0)); L("bound"); int u; T((u = open("bound", O_RDWR | O_NOCTTY)) >= 0); write(u, "said", 4); usleep(1000); memset(x, 0, 20); V(read(a, x, 6)); V(read(a, x, 19)); printf("%.4s\n", x); close(u); T(umount("bound"));
    /* The entry goes with the master, the number with the last one who has it open. */
    T(chown("a/0", 7, 8)); T(chmod("a/0", 0604)); L("a/0"); close(a); N("a"); L("a/0"); T(open("a/0", O_RDWR | O_NOCTTY)); T((a = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(a)); close(a); close(s); usleep(100000); T((a = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(a)); L("a/0"); N("a");
    /* What cannot be done there. */
    T(mkdir("a/d", 0700)); T(mknod("a/9", S_IFCHR | 0600, makedev(136, 9))); T(open("a/f", O_CREAT | O_RDWR, 0600)); T(unlink("a/7")); T(link("a/0", "a/8")); T(symlink("x", "a/l"));
    /* Changed. */
    T(mount(0, "a", 0, MS_REMOUNT, "mode=640,ptmxmode=644,uid=3,gid=4,max=4")); O("/w/a"); L("a/ptmx"); L("a/0"); int c, d, e; T((c = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); L("a/2"); T((d = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(d)); T((e = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); close(c); usleep(100000); T((e = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(e));
    T(mount(0, "a", 0, MS_REMOUNT, "")); O("/w/a"); L("a/ptmx"); T((c = open("a/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(c)); L("a/4"); T(mount(0, "a", 0, MS_REMOUNT | MS_BIND | MS_NOSUID, 0)); O("/w/a");
    TRY("mode=9"); TRY("mode=17777"); TRY("mode=1640"); TRY("uid=-1"); TRY("gid=x"); TRY("max=0"); TRY("max=-1"); TRY("max=1048576"); TRY("max=1048577"); TRY("nonsense"); TRY("mode"); TRY("newinstance=1"); TRY("ptmxmode=0"); TRY("uid=0,gid=0"); TRY(",,mode=600,"); T(mount("x", "t", "devpts", 0, "max=0")); T(open("t/ptmx", O_RDWR)); T(umount("t"));
    /* Mounted nowhere any more, while it is in use. */
    T(umount("b")); T(umount2("b", MNT_DETACH)); L("b/0"); write(b, "still\n", 6); memset(x, 0, 20); V(read(t, x, 19)); printf("%.6s", x); T((u = ioctl(b, TIOCGPTPEER, O_RDWR | O_NOCTTY)) >= 0); V(isatty(u));
    /* A ptmx beside it, and one with nothing beside it. */
    T(mkdir("dev", 0755)); T(mkdir("dev/pts", 0755)); T(mknod("dev/ptmx", S_IFCHR | 0666, makedev(5, 2))); IN(T(chroot(".")); chdir("/"); T(open("/dev/ptmx", O_RDWR | O_NOCTTY))); T(mount("x", "dev/pts", "devpts", 0, "mode=600,ptmxmode=600"));
    IN(T(chroot(".")); chdir("/"); int m, p; T((m = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0); T(number(m)); L("/dev/pts/0"); char name[100] = ""; T(ptsname_r(m, name, 100)); S(name); unlock(m); T((p = open(name, O_RDWR | O_NOCTTY)) >= 0); T(ttyname_r(p, name, 100)); S(name));
    T(umount2("dev/pts", MNT_DETACH));
    return 0;
}
