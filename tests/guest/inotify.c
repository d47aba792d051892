/* File change events: which operation tells whom what, in which order; names, moves, watches that end, queues. */
#include "guest.h"
#include <dirent.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <sys/sendfile.h>

static int fd, wds[8];
static const char *bits[] = {"ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO", "CREATE", "DELETE", "DELETE_SELF", "MOVE_SELF", "x", "UNMOUNT", "OVERFLOW", "IGNORED"};
/* What came, with cookies as numbers of their own. */
static void all(int line, const char *what) {
    static char b[65536] __attribute__((aligned(8))); long n; unsigned cookies[16]; int used = 0;
    printf("%d %s:\n", line, what);
    while ((n = read(fd, b, sizeof b)) > 0)
        for (char *p = b; p < b + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len) {
            struct inotify_event *e = (void *)p; int c = 0;
            printf("  %d", e->wd); for (int i = 0; i < 16; i++) if (e->mask & 1u << i) printf(" %s", bits[i]); if (e->mask & IN_ISDIR) printf(" ISDIR");
            if (e->cookie) { while (c < used && cookies[c] != e->cookie) c++; if (c == used) cookies[used++] = e->cookie; printf(" cookie %d", c); }
            if (e->len) printf(" \"%s\" %u", e->name, e->len); printf("\n");
        }
    if (errno != EAGAIN) printf("  %s\n", strerrorname_np(errno));
}
#define E(call) do { errno = 0; if ((long)(call) == -1) printf("%d %s: %s\n", __LINE__, #call, strerrorname_np(errno)); all(__LINE__, #call); } while (0)
static int put(const char *name, const char *text) { int f = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644); if (f < 0) return -1; write(f, text, strlen(text)); return close(f); }
static int get(const char *name) { char b[100]; int f = open(name, O_RDONLY); if (f < 0) return -1; read(f, b, 100); return close(f); }
static int list(const char *name) { DIR *d = opendir(name); if (!d) return -1; while (readdir(d)) {} return closedir(d); }

int main(void) {
    char b[4096]; int st;
    T(SYS(inotify_init1, 1)); fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC); V(fcntl(fd, F_GETFD)); V(fcntl(fd, F_GETFL) & ~O_LARGEFILE);
    T(read(fd, b, 4096)); T(read(fd, b, 1)); T(write(fd, b, 1)); T(lseek(fd, 0, SEEK_CUR));
    mkdir("d", 0755); mkdir("d/sub", 0755); mkdir("e", 0755); put("f", "1");
    T(inotify_add_watch(fd, "none", IN_ALL_EVENTS)); T(inotify_add_watch(fd, "d", 0)); T(inotify_add_watch(99, "d", IN_OPEN)); T(inotify_add_watch(0, "d", IN_OPEN)); T(inotify_add_watch(fd, BAD, IN_OPEN)); T(inotify_add_watch(fd, "f", IN_OPEN | IN_ONLYDIR)); T(inotify_add_watch(fd, "d", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE)); T(inotify_rm_watch(fd, 1)); T(inotify_rm_watch(99, 1)); T(inotify_rm_watch(0, 1));
    T(inotify_add_watch(fd, "d", IN_ALL_EVENTS)); T(inotify_add_watch(fd, "d/../d", IN_ALL_EVENTS)); T(inotify_add_watch(fd, "d", IN_ALL_EVENTS | IN_MASK_CREATE)); T(inotify_add_watch(fd, "f", IN_ALL_EVENTS));
    /* Files in the directory. */
    E(put("d/a", "text")); E(put("d/a", "more")); E(put("d/a", "")); E(get("d/a")); E(list("d")); E(list("d/sub")); E(chmod("d/a", 0600)); E(chown("d/a", 0, 0)); E(truncate("d/a", 5)); E(utimes("d/a", 0)); struct timespec ts[2] = {{1, 0}, {0, UTIME_OMIT}}; E(utimensat(AT_FDCWD, "d/a", ts, 0)); ts[0].tv_nsec = UTIME_OMIT, ts[1].tv_nsec = 0; E(utimensat(AT_FDCWD, "d/a", ts, 0));
    E(setxattr("d/a", "user.x", "y", 1, 0)); E(removexattr("d/a", "user.x")); E(access("d/a", R_OK)); struct stat s; E(stat("d/a", &s)); E(symlink("a", "d/l")); E(get("d/l")); E(lchown("d/l", 0, 0)); E(link("d/a", "d/b")); E(unlink("d/b")); E(mkfifo("d/p", 0600)); E(mkdir("d/n", 0700)); E(chmod("d/n", 0755)); E(rmdir("d/n")); E(unlink("d/l")); E(unlink("d/none")); E(mkdir("d/sub", 0)); E(open("d/none", O_RDONLY));
    int f = open("d/a", O_RDWR); all(__LINE__, "open"); E(pwrite(f, "abc", 3, 0)); E(pread(f, b, 2, 0)); E(write(f, b, 0)); E(ftruncate(f, 2)); E(fallocate(f, 0, 0, 100)); E(fchmod(f, 0644)); E(lseek(f, 0, SEEK_SET)); E(fsync(f)); int g = open("f", O_RDONLY); all(__LINE__, "open f"); E(sendfile(f, g, 0, 1)); E(copy_file_range(g, 0, f, 0, 1, 0)); struct iovec v[2] = {{b, 1}, {b + 1, 1}}; lseek(f, 0, SEEK_SET); E(readv(f, v, 2)); E(writev(f, v, 2)); E(dup(f)); E(close(g));
    char *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0); all(__LINE__, "mmap"); m[0] = 'z'; E(msync(m, 4096, MS_SYNC)); munmap(m, 4096);
    /* The last descriptor, also of another process. */
    if (!fork()) _exit(0); wait(&st); all(__LINE__, "fork"); E(close(f)); E(close_range(fd + 1, ~0U, 0));
    int o = open("d/a", O_PATH); all(__LINE__, "O_PATH"); close(o); all(__LINE__, "close O_PATH");
    /* Moves. */
    E(rename("d/a", "d/c")); E(rename("d/c", "e/c")); E(rename("e/c", "d/a")); put("d/x", ""); all(__LINE__, "x"); E(rename("d/a", "d/x")); E(rename("d/sub", "d/sub2")); E(syscall(SYS_renameat2, AT_FDCWD, "d/x", AT_FDCWD, "d/sub2", RENAME_EXCHANGE)); E(syscall(SYS_renameat2, AT_FDCWD, "d/x", AT_FDCWD, "d/sub2", RENAME_EXCHANGE));
    /* A watch on the file as well as on its directory. */
    int x = inotify_add_watch(fd, "d/x", IN_ALL_EVENTS); V(x); E(put("d/x", "both")); E(rename("d/x", "e/x")); E(put("e/x", "only")); E(rename("e/x", "d/x")); E(link("d/x", "e/y")); E(unlink("e/y"));
    /* The end of what is watched. */
    f = open("d/x", O_RDONLY); all(__LINE__, "open x"); E(unlink("d/x")); E(read(f, b, 1)); E(close(f)); T(inotify_rm_watch(fd, x));
    x = inotify_add_watch(fd, "d/sub2", IN_ALL_EVENTS); E(rmdir("d/sub2")); x = inotify_add_watch(fd, "e", IN_ALL_EVENTS); V(x); E(rename("e", "e2")); E(put("e2/q", "")); E(inotify_rm_watch(fd, x)); E(unlink("e2/q"));
    put("d/r", ""); x = inotify_add_watch(fd, "d/r", IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB); put("d/s", ""); all(__LINE__, "r and s"); E(rename("d/s", "d/r"));
    /* Masks. */
    x = inotify_add_watch(fd, "f", IN_OPEN); E(get("f")); x = inotify_add_watch(fd, "f", IN_CLOSE | IN_MASK_ADD); E(get("f")); x = inotify_add_watch(fd, "f", IN_ATTRIB | IN_ONESHOT); E(get("f")); E(chmod("f", 0600)); E(chmod("f", 0644));
    int ex = inotify_add_watch(fd, "e2", IN_ALL_EVENTS | IN_EXCL_UNLINK); put("e2/u", "1"); f = open("e2/u", O_RDWR); all(__LINE__, "u"); E(unlink("e2/u")); E(write(f, "x", 1)); E(close(f)); inotify_rm_watch(fd, ex); all(__LINE__, "rm");
    symlink("f", "link"); x = inotify_add_watch(fd, "link", IN_ALL_EVENTS | IN_DONT_FOLLOW); E(get("link")); E(unlink("link"));
    /* Reading: a buffer too small, how much there is, the same twice, waiting. */
    put("d/long-name-of-a-file", ""); int n; T(ioctl(fd, FIONREAD, &n)); V(n); T(read(fd, b, 16)); T(read(fd, b, 48)); T(read(fd, b, 100)); all(__LINE__, "rest"); f = open("d/r", O_WRONLY); write(f, "1", 1); write(f, "2", 1); write(f, "3", 1); close(f); all(__LINE__, "merged");
    struct pollfd p = {fd, POLLIN | POLLOUT, 0}; V(poll(&p, 1, 0)); put("d/r", ""); V(poll(&p, 1, 0)); V(p.revents); all(__LINE__, "polled");
    fcntl(fd, F_SETFL, 0); if (!fork()) { usleep(30000); mkdir("d/late", 0700); _exit(0); } n = read(fd, b, 4096); V(n); V(((struct inotify_event *)b)->mask == (IN_CREATE | IN_ISDIR)); wait(&st); fcntl(fd, F_SETFL, O_NONBLOCK); all(__LINE__, "late");
    if (!fork()) { execl("/bin/true", "true", (char *)0); _exit(1); } wait(&st); int t = inotify_add_watch(fd, "/bin/true", IN_OPEN | IN_CLOSE); V(t > 0); if (!fork()) { execl("/bin/true", "true", (char *)0); _exit(1); } wait(&st); all(__LINE__, "exec"); inotify_rm_watch(fd, t); all(__LINE__, "rm");
    for (int i = 0; i < 9000; i++) { chmod("d", 0700); mkdir("d/many", 0700); rmdir("d/many"); } int events = 0, over = 0; while ((n = read(fd, b, 4096)) > 0) for (char *q = b; q < b + n; q += 16 + ((struct inotify_event *)q)->len) { events++; over += ((struct inotify_event *)q)->mask == IN_Q_OVERFLOW; } V(events); V(over);
    /* Permissions and limits. */
    chmod("d", 0711); chmod("f", 0600); fflush(stdout); if (!fork()) { setgid(2000); setuid(2000); T(inotify_add_watch(fd, "d", IN_OPEN)); T(inotify_add_watch(fd, "f", IN_OPEN)); T(inotify_add_watch(fd, "d/r", IN_OPEN) > 0); _exit(0); } wait(&st);
    int many[200], made = 0; for (int i = 0; i < 200; i++) if ((many[i] = inotify_init()) >= 0) made++; V(made > 50 && made < 200); V(errno == EMFILE); for (int i = 0; i < 200; i++) if (many[i] >= 0) close(many[i]);
    return 0;
}
