#include "guest.h"
#include <sys/mount.h>
#include <sys/prctl.h>
/* Mount namespaces: copies, propagation between peers, masters and slaves, what is locked where rights are fewer. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static char base[4096];
static int put(const char *file, const char *text) { int f = open(file, O_WRONLY); if (f < 0) return -1; int r = write(f, text, strlen(text)), e = errno; close(f); errno = e; return r; }
static int file(const char *name) { int f = open(name, O_CREAT | O_WRONLY, 0644); if (f < 0) return -1; close(f); return 0; }
static int there(const char *name) { return access(name, F_OK); }
/* The mounts below our directory: where, options, peers; groups are numbered as they come. */
static int by_where(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void table(int line) {
    FILE *f = fopen("/proc/self/mountinfo", "r"); static int group[64], groups; char *l = malloc(8192), *out[64]; int n = 0; printf("%d mounts:\n", line);
    while (fgets(l, 8192, f) && n < 64) { char where[4096], opts[512], text[2048]; char *dash = strstr(l, " - "), *field; int at; sscanf(l, "%*d %*d %*s %*s %4095s %511s%n", where, opts, &at); if (strncmp(where, base, strlen(base))) continue; *dash = 0; sprintf(text, "  .%s %s", where + strlen(base), opts);
        for (field = strtok(l + at, " "); field; field = strtok(0, " ")) { char *colon = strchr(field, ':'); if (!colon) { sprintf(text + strlen(text), " %s", field); continue; } int id = atoi(colon + 1), k = 0; while (k < groups && group[k] != id) k++; if (k == groups) group[groups++] = id; sprintf(text + strlen(text), " %.*s:%c", (int)(colon - field), field, 'A' + k); } out[n++] = strdup(text); }
    fclose(f); free(l); qsort(out, n, sizeof *out, by_where); for (int i = 0; i < n; i++) { puts(out[i]); free(out[i]); } groups = 0;
}
#define TABLE table(__LINE__)
static int up[2], down[2];
static pid_t child;
/* A child in a mount namespace of its own, in turn with us. */
static void told(void) { char b = 'x'; fflush(stdout); write(up[1], &b, 1); if (read(down[0], &b, 1) != 1) _exit(0); }
static void tell(void) { char b = 'x'; fflush(stdout); write(down[1], &b, 1); read(up[0], &b, 1); }
#define WITH(flags, ...) pipe(up); pipe(down); fflush(stdout); child = SYS(clone, (flags) | SIGCHLD, 0, 0, 0, 0); if (!child) { close(down[1]); __VA_ARGS__; told(); _exit(0); } { char b_; read(up[0], &b_, 1); }
#define DONE close(down[1]); waitpid(child, 0, 0); close(up[0]); close(up[1]); close(down[0])

static void copies(void) {
    mkdir("a", 0755); mkdir("b", 0755); T(mount("x", "a", "tmpfs", 0, 0)); file("a/f"); WITH(CLONE_NEWNS, T(there("a/f")); TABLE; T(mount("y", "b", "tmpfs", 0, 0)); file("b/g"); T(umount("a")); told(); T(there("b/g")); T(there("a/f")); T(there("b/late")));
    T(there("a/f")); T(there("b/g")); TABLE; T(mount("z", "b", "tmpfs", 0, 0)); file("b/late"); tell(); T(umount("b")); DONE; T(umount("a"));
    /* Directories that we have open or work in are where they were. */
    T(mount("x", "a", "tmpfs", 0, 0)); mkdir("a/in", 0755); IN(chdir("a/in"); int d = open(".", O_RDONLY); T(unshare(CLONE_NEWNS)); file("made"); T(umount("../../a")); T(umount2("../../a", MNT_DETACH)); chdir("/"); T(faccessat(d, "made", F_OK, 0)); T(fchdir(d)); char cwd[4096]; T(getcwd(cwd, 4096) > 0)); T(there("a/in/made")); T(umount("a"));
    /* What is mounted on in another namespace can be removed here, and is mounted no more. */
    mkdir("gone", 0755); WITH(CLONE_NEWNS, T(mount("x", "gone", "tmpfs", 0, 0)); file("gone/f"); T(rmdir("gone")); told(); T(there("gone")); TABLE); T(rmdir("gone")); tell(); DONE; file("gonefile"); file("other"); WITH(CLONE_NEWNS, T(mount("other", "gonefile", 0, MS_BIND, 0)); T(unlink("gonefile")); told(); TABLE; T(there("gonefile"))); T(rename("other", "gonefile")); tell(); DONE; unlink("gonefile");
    T(setns(open("/proc/self/ns/mnt", O_RDONLY), 0)); char cwd[4096]; S(getcwd(cwd, 4096)); chdir(base);
    WITH(CLONE_NEWNS, T(mount("x", "a", "tmpfs", 0, 0)); file("a/inner"); told()); char path[64]; sprintf(path, "/proc/%d/ns/mnt", child); IN(int f = open(path, O_RDONLY); T(setns(f, CLONE_NEWNS)); chdir(base); T(there("a/inner"))); T(there("a/inner")); sprintf(path, "/proc/%d/root%s/a/inner", child, base); T(there(path)); IN(T(unshare(CLONE_FS)); int f = SYS(pidfd_open, child, 0); T(setns(f, CLONE_NEWNS)); chdir(base); T(there("a/inner")); T(mount("y", "b", "tmpfs", 0, 0))); IN(int p = open("/proc/self/root", O_PATH); chdir("/"); T(setns(open(path, O_RDONLY), 0))); DONE;
}
static void peers(void) {
    mkdir("m", 0755); mkdir("n", 0755); mkdir("o", 0755); T(mount("m", "m", "tmpfs", 0, 0)); mkdir("m/d", 0755); mkdir("m/e", 0755); TABLE; T(mount(0, "m", 0, MS_SHARED, 0)); T(mount("m", "n", 0, MS_BIND, 0)); TABLE; T(mount("x", "m/d", "tmpfs", 0, 0)); file("m/d/f"); T(there("n/d/f")); TABLE;
    /* A part of it sees what is mounted in that part. */
    T(mount("m/e", "o", 0, MS_BIND, 0)); mkdir("m/e/sub", 0755); T(mount("y", "n/e/sub", "tmpfs", 0, 0)); T(mount("z", "m/d", "tmpfs", 0, 0)); TABLE; T(umount("n/d")); T(umount("o/sub")); TABLE; T(umount("n/d")); TABLE;
    /* Slaves get, and do not give. */
    T(mount(0, "n", 0, MS_SLAVE, 0)); TABLE; T(mount("x", "m/d", "tmpfs", 0, 0)); T(mount("y", "n/e", "tmpfs", 0, 0)); TABLE; T(mount(0, "n", 0, MS_SHARED, 0)); TABLE; T(mount(0, "o", 0, MS_PRIVATE, 0)); T(umount("n/d")); T(umount("m/d")); TABLE; T(umount("n/e")); T(mount("x", "m/d", "tmpfs", 0, 0)); TABLE; T(umount("m/d")); TABLE;
    /* When the last of the masters goes. */
    mkdir("p", 0755); T(mount("n", "p", 0, MS_BIND, 0)); T(mount(0, "p", 0, MS_SLAVE, 0)); TABLE; T(mount("x", "m/d", "tmpfs", 0, 0)); TABLE; T(umount("m/d")); T(umount("n")); TABLE; T(umount("m")); TABLE; T(mount(0, "p", 0, MS_SLAVE, 0)); T(umount("p")); T(umount("o"));
    /* Things that are said wrongly. */
    T(mount(0, "m", 0, MS_SHARED, 0)); T(mount("m", "m", "tmpfs", 0, 0)); T(mount(0, "m", 0, MS_SHARED | MS_SLAVE, 0)); T(mount(0, "m", 0, MS_SHARED | MS_NOSUID, 0)); T(mount(0, "m", 0, MS_SHARED | MS_SILENT, 0)); T(mount(0, "m", 0, MS_UNBINDABLE, 0)); TABLE; T(mount("m", "n", 0, MS_BIND, 0)); T(mount(0, "m", 0, MS_SHARED, 0)); TABLE; T(umount("m"));
}
static void trees(void) {
    /* Trees with all that is on them; those that cannot be bound are left out. */
    T(mount("m", "m", "tmpfs", 0, 0)); mkdir("m/d", 0755); mkdir("m/e", 0755); T(mount("d", "m/d", "tmpfs", 0, 0)); mkdir("m/d/in", 0755); T(mount("in", "m/d/in", "tmpfs", 0, 0)); T(mount("e", "m/e", "tmpfs", 0, 0)); T(mount(0, "m/e", 0, MS_UNBINDABLE, 0)); T(mount("m", "n", 0, MS_BIND | MS_REC, 0)); TABLE; T(umount2("n", MNT_DETACH)); T(mount(0, "m", 0, MS_SHARED | MS_REC, 0)); TABLE; T(mount("m", "n", 0, MS_BIND | MS_REC, 0)); TABLE; T(mount(0, "n", 0, MS_SLAVE | MS_REC, 0)); TABLE; T(umount("m/d/in")); TABLE; T(umount2("m/d", MNT_DETACH)); TABLE; T(mount("n", "o", 0, MS_MOVE, 0)); TABLE; T(mount("m/e", "o/d", 0, MS_MOVE, 0)); T(umount2("o", MNT_DETACH)); T(umount2("m", MNT_DETACH)); TABLE;
    /* Moved into what is shared, and out of it. */
    T(mount("m", "m", "tmpfs", 0, 0)); mkdir("m/d", 0755); T(mount(0, "m", 0, MS_SHARED, 0)); T(mount("m", "n", 0, MS_BIND, 0)); T(mount("x", "o", "tmpfs", 0, 0)); mkdir("o/in", 0755); T(mount("y", "o/in", "tmpfs", 0, 0)); T(mount("o", "m/d", 0, MS_MOVE, 0)); TABLE; T(mount("m/d", "o", 0, MS_MOVE, 0)); T(mount("u", "o", "tmpfs", 0, 0)); T(mount(0, "o", 0, MS_UNBINDABLE, 0)); T(mount("o", "m/d", 0, MS_MOVE, 0)); T(umount("o")); T(umount("m/d/in")); T(umount("n/d")); TABLE;
    /* Under what lies there already. */
    T(mount(0, "n", 0, MS_SLAVE, 0)); T(mount("top", "n/d", "tmpfs", 0, 0)); file("n/d/top"); T(mount("below", "m/d", "tmpfs", 0, 0)); file("m/d/below"); T(there("n/d/top")); TABLE; T(umount("n/d")); T(there("n/d/below")); T(umount("m/d")); T(umount("n")); T(umount("m")); TABLE;
    /* A root that is shared cannot be put elsewhere. */
    IN(T(unshare(CLONE_NEWNS)); T(mount("m", "m", "tmpfs", 0, 0)); mkdir("m/old", 0755); T(mount(0, "m", 0, MS_SHARED, 0)); T(SYS(pivot_root, "m", "m/old")); T(mount(0, "m", 0, MS_PRIVATE, 0)); T(mount(0, "/", 0, MS_SHARED, 0) ? 0 : SYS(pivot_root, "m", "m/old")));
}
static void across(void) {
    /* Between namespaces. */
    T(mount("m", "m", "tmpfs", 0, 0)); mkdir("m/d", 0755); mkdir("m/e", 0755); T(mount(0, "m", 0, MS_SHARED, 0)); WITH(CLONE_NEWNS, TABLE; T(mount("x", "m/d", "tmpfs", 0, 0)); file("m/d/f"); told(); T(there("m/e/g")); T(umount("m/e")); told(); T(mount(0, "m", 0, MS_SLAVE, 0)); TABLE; told(); T(there("m/d")); T(mount("w", "m/d", "tmpfs", 0, 0)));
    T(there("m/d/f")); TABLE; T(mount("y", "m/e", "tmpfs", 0, 0)); file("m/e/g"); tell(); T(there("m/e/g")); tell(); T(umount("m/d")); tell(); DONE; TABLE; T(umount("m"));
    /* Into a user namespace: what is shared has a slave there, and all is locked. */
    T(mount("m", "m", "tmpfs", MS_NODEV | MS_NOEXEC, 0)); mkdir("m/d", 0755); mkdir("m/e", 0755); file("m/hidden"); T(mount("d", "m/d", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NOATIME, 0)); T(mount(0, "m", 0, MS_SHARED, 0)); mkdir("q", 0777);
    WITH(CLONE_NEWUSER | CLONE_NEWNS, put("/proc/self/uid_map", "0 0 1"); put("/proc/self/setgroups", "deny"); put("/proc/self/gid_map", "0 0 1"); TABLE; T(umount("m/d")); T(umount("m")); T(umount2("m", MNT_DETACH)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND, 0)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, 0)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_RELATIME, 0)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOATIME | MS_NOEXEC, 0)); T(mount(0, "m/d", 0, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOATIME, 0)); T(mount("m", "n", 0, MS_BIND, 0)); T(mount("m", "n", 0, MS_BIND | MS_REC, 0)); TABLE; T(umount("n/d")); T(umount2("n", MNT_DETACH)); T(mount("m/d", "m/e", 0, MS_MOVE, 0)); T(mount("m/d", "n", 0, MS_BIND, 0)); T(umount("n"));
        T(mount("t", "q", "tmpfs", 0, "uid=0")); T(mount("t", "q", "tmpfs", 0, "uid=5")); T(mknod("q/null", S_IFCHR | 0666, 0x103)); T(mkdir("q/d", 0700)); T(umount("q")); T(mount(0, "q", 0, MS_REMOUNT, 0)); T(mount("t", "m/e", "tmpfs", 0, 0)); T(umount("m/e")); T(mount("dev", "q", "devtmpfs", 0, 0)); T(mount("s", "q", "sysfs", 0, 0)); T(mount("p", "q", "proc", 0, 0)); T(mount("p", "q", "nosuchfs", 0, 0)); T(mount("r", "q", "ramfs", 0, 0)); T(umount("q")); T(umount2("q", MNT_FORCE));
        T(mount(0, "m", 0, MS_SHARED, 0)); T(mount(0, "m", 0, MS_PRIVATE, 0)); told(); T(there("m/e/late")); TABLE; T(umount("m/e")); told(); TABLE);
    T(umount("m/d")); T(mount("late", "m/e", "tmpfs", 0, 0)); file("m/e/late"); TABLE; tell(); T(umount("m/e")); tell(); DONE;
    WITH(CLONE_NEWUSER | CLONE_NEWNS, put("/proc/self/uid_map", "0 0 1"); told(); T(there("m/e/late")); TABLE; T(umount("m/e")); told(); TABLE; T(there("m/e/late"))); T(mount("late", "m/e", "tmpfs", 0, 0)); file("m/e/late"); mkdir("m/e/sub", 0755); T(mount("sub", "m/e/sub", "tmpfs", 0, 0)); tell(); T(umount("m/e/sub")); T(umount("m/e")); tell(); DONE; T(umount("m")); TABLE;
    /* A proc of one's own, and what it must not show. */
    IN(if (!SYS(clone, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)) { put("/proc/self/uid_map", "0 0 1"); T(mount("p", "q", "proc", 0, 0)); T(there("q/1/status")); T(mount("t", "q/sys", "tmpfs", 0, 0)); T(umount("q/sys")); T(umount("q")); } else wait(0));
    mkdir("cover", 0755); file("cover/f"); T(mount("cover", "/proc/tty", 0, MS_BIND, 0) ? errno == ENOENT ? mount("cover", "/proc/sys/kernel", 0, MS_BIND, 0) : -1 : 0); IN(if (!SYS(clone, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0)) { put("/proc/self/uid_map", "0 0 1"); T(mount("p", "q", "proc", 0, 0)); } else wait(0)); umount("/proc/tty"); umount("/proc/sys/kernel");
}
/* A program of root's, and a device: through a mount of a namespace of fewer rights they are nothing special. */
static void rights(void) {
    IN(T(unshare(CLONE_NEWUSER | CLONE_NEWNS)); put("/proc/self/uid_map", "0 0 1"); put("/proc/self/setgroups", "deny"); put("/proc/self/gid_map", "0 0 1"); T(mount("t", "q", "tmpfs", 0, 0)); T(mkdir("q/x", 0755)); int f = open("q/f", O_CREAT | O_WRONLY, 0600); T(fchown(f, 1, 1)); T(fchown(f, 0, -1)); struct stat s; fstat(f, &s); printf("%d %d\n", s.st_uid, s.st_gid); TABLE);
    IN(prctl(PR_SET_DUMPABLE, 1); setresgid(1000, 1000, 1000); setresuid(1000, 1000, 1000); prctl(PR_SET_DUMPABLE, 1); T(unshare(CLONE_NEWNS)); T(unshare(CLONE_NEWUSER | CLONE_NEWNS)); T(mount("t", "q", "tmpfs", 0, 0)); struct stat s; T(stat("q", &s)); printf("%d %d\n", s.st_uid, s.st_gid); T(file("q/f")); T(put("/proc/self/uid_map", "0 1000 1")); T(file("q/g")); T(put("/proc/self/setgroups", "deny")); T(put("/proc/self/gid_map", "0 1000 1")); T(file("q/g")); T(umount("q")); T(mount("t", "q", "tmpfs", 0, 0)); T(file("q/f")); stat("q/f", &s); printf("%d %d\n", s.st_uid, s.st_gid); T(mount("q", "n", 0, MS_BIND, 0)); T(chmod("n", 0700)); T(mount(0, "/", 0, MS_PRIVATE | MS_REC, 0)); T(chroot("q")); T(chdir("/")); T(there("f")); T(unshare(CLONE_NEWUSER)));
}
static void body(void) { mkdir("w", 0777); T(mount("ground", "w", "tmpfs", 0, "mode=777")); chdir("w"); getcwd(base, 4096); copies(); peers(); trees(); across(); rights(); chdir("/"); }
int main(void) { IN(body()); return 0; }
