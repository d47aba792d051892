#include "guest.h"
#include <sys/statfs.h>
#include <sys/statvfs.h>
static void st(const char *p) {
    struct stat s; int r = lstat(p, &s);
    if (r) printf("%s: %s\n", p, strerrorname_np(errno));
    else printf("%s: mode %o nlink %d uid %d gid %d size %d rdev %d:%d blksize %d\n", p, s.st_mode, S_ISDIR(s.st_mode) ? 0 : (int)s.st_nlink, /* the host may give its devices away */ S_ISCHR(s.st_mode) ? 0 : s.st_uid, S_ISCHR(s.st_mode) ? 0 : s.st_gid, S_ISDIR(s.st_mode) ? 0 : (int)s.st_size, (int)(s.st_rdev >> 8), (int)(s.st_rdev & 255), S_ISREG(s.st_mode) ? (int)s.st_blksize : 0);
}
int main(void) {
    struct stat s, s2; struct statx x;
    int f = open("f", O_CREAT | O_RDWR, 0644); write(f, "12345", 5); mkdir("d", 0751); symlink("f", "l"); symlink("d", "ld"); symlink("gone", "lg"); mknod("p", S_IFIFO | 0600, 0); link("f", "h");
    st("f"); st("d"); st("l"); st("ld/"); st("l/"); st("lg"); st("lg/"); st("p"); st("h"); st("none"); st(""); st("f/x"); st("/dev/null"); st("/dev/zero"); st("/dev/tty"); st("/dev/urandom"); st("/dev/ptmx"); st("/proc/self/exe/x"); st("d/../f"); st("./d/./../f"); st("/../../etc/passwd");
    T(stat("lg", &s)); T(stat("l", &s)); V(s.st_size); T(stat(BAD, &s)); T(stat("f", BAD)); T(fstat(99, &s)); T(fstat(f, &s)); T(fstat(f, BAD));
    T(fstatat(99, "f", &s, 0)); T(fstatat(AT_FDCWD, "", &s, 0)); T(fstatat(f, "", &s, AT_EMPTY_PATH)); T(fstatat(f, "x", &s, 0)); T(fstatat(AT_FDCWD, "l", &s, AT_SYMLINK_NOFOLLOW)); V(S_ISLNK(s.st_mode)); T(fstatat(AT_FDCWD, "f", &s, 0x40000)); T(fstatat(AT_FDCWD, "", &s, AT_EMPTY_PATH)); V(S_ISDIR(s.st_mode));
    T(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x)); V(x.stx_mode); V(x.stx_size); V(x.stx_nlink); V((x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS); T(statx(AT_FDCWD, "f", 0x40000, STATX_ALL, &x)); T(statx(AT_FDCWD, "f", 0, 0x80000000u, &x)); T(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_ALL, &x)); T(statx(f, "", AT_EMPTY_PATH, STATX_ALL, &x)); T(statx(99, "", AT_EMPTY_PATH, STATX_ALL, &x)); T(statx(AT_FDCWD, "f", 0, STATX_ALL, BAD));
    stat("f", &s); stat("h", &s2); V(s.st_ino == s2.st_ino && s.st_dev == s2.st_dev); stat("l", &s2); V(s.st_ino == s2.st_ino); lstat("l", &s2); V(s.st_ino == s2.st_ino);
    T(access("f", R_OK)); T(access("f", X_OK)); T(access("d", X_OK)); T(access("none", F_OK)); T(access("f", 8)); T(access("lg", F_OK)); T(faccessat(AT_FDCWD, "lg", F_OK, AT_SYMLINK_NOFOLLOW)); T(access("f/x", F_OK)); T(access("", F_OK)); T(SYS(faccessat2, AT_FDCWD, "f", R_OK, 0x40000)); T(SYS(faccessat2, f, "", R_OK, AT_EMPTY_PATH)); T(faccessat(99, "f", 0, 0));
    char b[64] = {0}; T(readlink("l", b, 64)); S(b); T(readlink("ld", b, 0)); T(readlink("f", b, 64)); T(readlink("none", b, 64)); memset(b, 0, 64); T(readlink("lg", b, 2)); S(b); T(readlink("l", BAD, 5)); T(readlinkat(99, "l", b, 4)); T(readlink("", b, 5)); T(readlink("l/", b, 5)); int lp = open("l", O_PATH | O_NOFOLLOW); memset(b, 0, 64); T(readlinkat(lp, "", b, 60)); S(b);
    struct statfs fs; T(statfs("none", &fs)); T(statfs(".", &fs)); V(fs.f_namelen); T(fstatfs(99, &fs)); T(statfs("/proc", &fs)); printf("%lx\n", (long)fs.f_type); T(statfs("/dev/pts", &fs)); printf("%lx\n", (long)fs.f_type); T(statfs(".", BAD));
    struct stat a, c; struct timespec n = {0, 20000000}; stat("f", &a); nanosleep(&n, 0); write(f, "x", 1); stat("f", &c); V(c.st_mtim.tv_nsec != a.st_mtim.tv_nsec); V(c.st_ctim.tv_nsec != a.st_ctim.tv_nsec); V(c.st_atim.tv_nsec == a.st_atim.tv_nsec); stat("d", &a); nanosleep(&n, 0); mkdir("d/x", 0700); stat("d", &c); V(c.st_mtim.tv_nsec != a.st_mtim.tv_nsec); stat("f", &a); nanosleep(&n, 0); chmod("f", 0600); stat("f", &c); V(c.st_mtim.tv_nsec == a.st_mtim.tv_nsec); V(c.st_ctim.tv_nsec != a.st_ctim.tv_nsec); unlink("h"); fstat(f, &c); V(c.st_nlink); unlink("f"); fstat(f, &c); V(c.st_nlink); T(fchmod(f, 0400)); char path[64]; snprintf(path, 64, "/proc/self/fd/%d", f); memset(b, 0, 64); T(stat(path, &c)); V(c.st_size); V(c.st_nlink); T(truncate(path, 2)); fstat(f, &c); V(c.st_size); T(linkat(AT_FDCWD, path, AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
    return 0;
}
