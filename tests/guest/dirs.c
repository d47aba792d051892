#include "guest.h"
#include <dirent.h>
static int cmp(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void ls(const char *p) {
    DIR *d = opendir(p); if (!d) { printf("ls %s: %s\n", p, strerrorname_np(errno)); return; }
    char *n[4000]; int c = 0; struct dirent *e;
    while ((e = readdir(d)) && c < 4000) { asprintf(&n[c++], "%s:%d", e->d_name, e->d_type); }
    closedir(d); qsort(n, c, sizeof *n, cmp); printf("ls %s (%d):", p, c);
    for (int i = 0; i < c && i < 20; i++) printf(" %s", n[i]);
    printf("\n");
}
int main(void) {
    struct stat s; char b[PATH_MAX];
    T(mkdir("d", 0777)); stat("d", &s); printf("%o %d\n", s.st_mode, (int)s.st_nlink); T(mkdir("d", 0777)); T(mkdir("d/", 0777)); T(mkdir("none/d", 0777)); T(mkdir("", 0777)); T(mkdir(".", 0)); T(mkdir("..", 0)); T(mkdir("d/.", 0)); T(mkdir("/", 0)); T(mkdir("new/", 0700)); T(mkdirat(99, "x", 0)); T(mkdir(BAD, 0));
    close(open("f", O_CREAT | O_WRONLY, 0644)); T(mkdir("f", 0)); T(mkdir("f/x", 0)); T(rmdir("f")); T(rmdir("none")); T(rmdir(".")); T(rmdir("..")); T(rmdir("d/.")); T(rmdir("d/..")); T(rmdir("/")); T(rmdir("")); T(mkdir("d/e", 0700)); T(rmdir("d")); T(unlink("d")); T(unlink("none")); T(unlink("f/")); T(unlink("")); T(unlinkat(AT_FDCWD, "d/e", AT_REMOVEDIR)); T(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR)); T(unlinkat(AT_FDCWD, "f", 0x1000)); T(unlink("/proc/self/stat")); T(rmdir("new/")); T(rmdir("/proc"));
    T(link("f", "g")); T(link("f", "g")); T(link("none", "h")); T(link("d", "h")); T(link("f", "none/h")); T(link("f", "")); T(link("f", "d")); stat("f", &s); V(s.st_nlink); T(link("f", "h/")); T(symlink("f", "l")); T(link("l", "l2")); lstat("l2", &s); V(S_ISLNK(s.st_mode)); T(linkat(AT_FDCWD, "l", AT_FDCWD, "l3", AT_SYMLINK_FOLLOW)); lstat("l3", &s); V(S_ISREG(s.st_mode)); T(linkat(AT_FDCWD, "f", AT_FDCWD, "x", 0x2000)); T(link("f", "/proc/x")); T(link("/proc/self/stat", "px"));
    T(symlink("", "e")); T(symlink("a", "l")); T(symlink("a", "none/l")); T(symlink("a", "")); T(symlink("a", "d/")); T(symlink("x", "y/")); T(symlink(BAD, "q"));
    T(rename("none", "x")); T(rename("f", "none/x")); T(rename("f", "d")); T(rename("d", "f")); T(rename("f", "f")); T(rename("f", "g")); T(access("f", F_OK)); T(rename("f", "")); T(rename("", "f")); T(rename(".", "x")); T(rename("d", "d/x")); T(rename("d", ".")); T(rename("d/..", "x")); T(mkdir("d2", 0700)); T(mkdir("d2/sub", 0700)); T(rename("d", "d2")); T(rename("d2/sub", "d2")); T(rename("d2", "d2/sub")); T(rename("d2/sub", "d")); T(rename("f", "z/")); T(rename("d", "dd/")); T(rename("f", "dd/in")); T(rename("dd/in", "/proc/in")); T(rename("l", "ll")); lstat("ll", &s); V(S_ISLNK(s.st_mode)); T(unlink("l"));
    T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "ll", RENAME_NOREPLACE)); T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "dd", RENAME_EXCHANGE)); lstat("g", &s); V(S_ISDIR(s.st_mode)); T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "nn", RENAME_EXCHANGE)); T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "ll", 64)); T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "ll", RENAME_NOREPLACE | RENAME_EXCHANGE)); T(SYS(renameat2, AT_FDCWD, "g", AT_FDCWD, "n", RENAME_NOREPLACE)); T(SYS(renameat2, AT_FDCWD, "n", AT_FDCWD, "n/in", RENAME_EXCHANGE)); T(rename("f", "ll")); ls("."); ls("n"); ls("f"); ls("none");
    mkdir("big", 0755); for (int i = 0; i < 1000; i++) { snprintf(b, 99, "big/%04d", i); close(open(b, O_CREAT | O_WRONLY, 0600)); } ls("big");
    DIR *d = opendir("big"); int c = 0; struct dirent *e; while ((e = readdir(d))) { c++; if (e->d_name[0] != '.') { snprintf(b, 300, "big/%s", e->d_name); unlink(b); } } V(c); closedir(d); ls("big");
    for (int i = 0; i < 100; i++) { snprintf(b, 99, "big/%04d", i); close(open(b, O_CREAT | O_WRONLY, 0600)); } d = opendir("big"); for (int i = 0; i < 50; i++) readdir(d); long at = telldir(d); e = readdir(d); char n[256]; strcpy(n, e->d_name); c = 0; while (readdir(d)) c++; V(c); seekdir(d, at); e = readdir(d); V(strcmp(e->d_name, n)); rewinddir(d); c = 0; while (readdir(d)) c++; V(c);
    int f = open("big", O_RDONLY | O_DIRECTORY); T(SYS(getdents64, f, b, 10)); T(SYS(getdents64, f, b, 0)); T(SYS(getdents64, 99, b, 100)); T(SYS(getdents64, f, BAD, 1000)); T(SYS(getdents64, open("ll", O_RDONLY | O_CREAT, 0600), b, 100));
    T(mkdir("gone", 0700)); int g = open("gone", O_RDONLY); T(chdir("gone")); T(rmdir("../gone")); T(SYS(getdents64, g, b, 1000)); T(open("x", O_CREAT, 0600)); T(mkdir("x", 0700)); OK(getcwd(b, sizeof b) ? 0 : -1); T(chdir("..")); T(fstat(g, &s)); V(s.st_nlink); T(openat(g, ".", O_RDONLY)); T(openat(g, "x", O_CREAT, 0600));
    T(chdir("none")); T(chdir("ll")); T(chdir("")); T(fchdir(99)); T(fchdir(open("ll", O_RDONLY))); T(SYS(getcwd, b, 1)); T(SYS(getcwd, BAD, 4096)); T(chdir("big")); OK(getcwd(b, sizeof b) ? 0 : -1); S(strrchr(b, '/')); T(chroot("none")); T(chroot("0000"));
    T(mknod("n", S_IFREG | 0600, 0)); T(mknod("n", S_IFREG, 0)); T(mknod("m", S_IFDIR, 0)); T(mknod("q", S_IFSOCK | 0600, 0)); T(mknod("k", 0600, 0)); T(mknod("r", 0170000, 0)); ls("."); T(open("q", O_RDONLY));
    return 0;
}
