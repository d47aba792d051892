/* Calls about files that came late: cachestat, the *xattrat calls, file_getattr and file_setattr, the flags of preadv2 and pwritev2,
 * openat2's RESOLVE_CACHED, and what ioctl answers for regular files, directories and what is neither. */
#include "guest.h"
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

struct range { uint64_t off, len; };
struct pages { uint64_t cache, dirty, writeback, evicted, recent; };
struct xargs { uint64_t value; uint32_t size, flags; };
struct fattr { uint64_t xflags; uint32_t extsize, nextents, projid, cowextsize; };

static long cachestat(int fd, struct range *r, struct pages *p, unsigned flags) { return syscall(451, fd, r, p, flags); }
static long setat(int d, const char *p, unsigned at, const char *n, struct xargs *a, size_t s) { return syscall(463, d, p, at, n, a, s); }
static long getat(int d, const char *p, unsigned at, const char *n, struct xargs *a, size_t s) { return syscall(464, d, p, at, n, a, s); }
static long listat(int d, const char *p, unsigned at, char *l, size_t s) { return syscall(465, d, p, at, l, s); }
static long removeat(int d, const char *p, unsigned at, const char *n) { return syscall(466, d, p, at, n); }
static long fgetattr(int d, const char *p, void *a, size_t s, unsigned at) { return syscall(468, d, p, a, s, at); }
static long fsetattr(int d, const char *p, void *a, size_t s, unsigned at) { return syscall(469, d, p, a, s, at); }

static void cache(int fd) {
    struct range all = {0, 0}, two = {4096, 8192}, beyond = {1 << 20, 4096}, odd = {100, 1};
    struct pages p;
    int ends[2], null = open("/dev/null", O_RDWR), dir = open(".", O_RDONLY), path = open("f", O_PATH);
    memset(&p, 0x55, sizeof p);
    T(cachestat(fd, &all, &p, 0)); V(p.cache); V(p.writeback); V(p.evicted); V(p.recent);
    T(cachestat(fd, &two, &p, 0)); V(p.cache);
    T(cachestat(fd, &odd, &p, 0)); V(p.cache);
    T(cachestat(fd, &beyond, &p, 0)); V(p.cache); V(p.dirty);
    T(cachestat(fd, &all, &p, 1));
    T(cachestat(-1, &all, &p, 1));
    T(cachestat(-1, &all, &p, 0));
    T(cachestat(fd, BAD, &p, 0));
    T(cachestat(fd, &all, BAD, 0));
    T(cachestat(dir, &all, &p, 0));
    T(cachestat(null, &all, &p, 0)); V(p.cache);
    pipe(ends);
    T(cachestat(ends[0], &all, &p, 0));
    T(cachestat(path, &all, &p, 0));
    int mem = syscall(SYS_memfd_create, "m", 0);
    T(pwrite(mem, "x", 1, 8192));
    T(cachestat(mem, &all, &p, 0)); V(p.cache);
    close(mem), close(ends[0]), close(ends[1]), close(null), close(dir), close(path);
}

static void names(int fd) {
    char value[16] = "value", got[16] = "", list[64];
    struct xargs set = {(uintptr_t)value, 5, 0}, get = {(uintptr_t)got, sizeof got, 0}, ask = {0, 0, 0};
    struct { struct xargs a; uint64_t more; } big = {set, 0};
    symlink("f", "link");
    T(setat(AT_FDCWD, "f", 0, "user.a", &set, sizeof set));
    T(getat(AT_FDCWD, "f", 0, "user.a", &get, sizeof get)); S(got);
    T(getat(AT_FDCWD, "link", 0, "user.a", &get, sizeof get));
    T(getat(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, "user.a", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0, "user.a", &ask, sizeof ask));
    get.size = 2; T(getat(AT_FDCWD, "f", 0, "user.a", &get, sizeof get)); get.size = sizeof got;
    T(getat(fd, "", 0, "user.a", &get, sizeof get));
    T(getat(fd, "", AT_EMPTY_PATH, "user.a", &get, sizeof get));
    T(getat(fd, NULL, AT_EMPTY_PATH, "user.a", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0, "user.none", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0, "bad", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0, "", &get, sizeof get));
    T(getat(AT_FDCWD, "none", 0, "user.a", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0x40, "user.a", &get, sizeof get));
    T(getat(AT_FDCWD, "f", 0, "user.a", &get, 8));
    T(getat(AT_FDCWD, "f", 0, "user.a", &get, 8192));
    T(getat(AT_FDCWD, "f", 0, "user.a", BAD, sizeof get));
    get.flags = 1; T(getat(AT_FDCWD, "f", 0, "user.a", &get, sizeof get)); get.flags = 0;
    T(setat(AT_FDCWD, "f", 0, "user.b", (void *)&big, sizeof big));
    big.more = 1; T(setat(AT_FDCWD, "f", 0, "user.b", (void *)&big, sizeof big));
    set.flags = XATTR_CREATE; T(setat(AT_FDCWD, "f", 0, "user.a", &set, sizeof set));
    set.flags = XATTR_REPLACE; T(setat(AT_FDCWD, "f", 0, "user.c", &set, sizeof set));
    set.flags = 4; T(setat(AT_FDCWD, "f", 0, "user.c", &set, sizeof set));
    set.flags = 0; set.size = 70000; T(setat(AT_FDCWD, "f", 0, "user.c", &set, sizeof set));
    set.size = 5; T(setat(AT_FDCWD, "f", 0x10, "user.c", &set, sizeof set));
    set.value = 8; T(setat(AT_FDCWD, "f", 0, "user.c", &set, sizeof set));
    T(setat(-1, "f", 0, "user.a", &set, sizeof set));
    T(listat(AT_FDCWD, "f", 0, NULL, 0));
    T(listat(AT_FDCWD, "f", 0, list, sizeof list));
    T(listat(AT_FDCWD, "f", 0, list, 3));
    T(listat(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, list, sizeof list));
    T(listat(fd, "", AT_EMPTY_PATH, list, sizeof list));
    T(listat(AT_FDCWD, "f", 4, list, sizeof list));
    T(removeat(AT_FDCWD, "f", 0, "user.b"));
    T(removeat(fd, "", AT_EMPTY_PATH, "user.a"));
    T(removeat(fd, "", AT_EMPTY_PATH, "user.a"));
    T(removeat(fd, "", 4, "user.a"));
    T(removeat(AT_FDCWD, "f", 0, NULL));
    int path = open("f", O_PATH);
    T(listat(path, "", AT_EMPTY_PATH, list, sizeof list));
    close(path);
}

static void flagged(int fd) {
    char text[4096] = "text";
    struct iovec one = {text, 4}, page = {text, 4096}, two[2] = {{text, 4}, {text, 4}};
    int odd = open("f", O_RDWR | O_DIRECT), pipes[2], null = open("/dev/null", O_RDWR);
    pipe(pipes);
    for (int flag = 1; flag <= 0x400; flag <<= 1) {
        V(flag);
        if (flag != RWF_NOWAIT) T(pwritev2(fd, &one, 1, 0, flag));
        if (flag != RWF_NOWAIT) T(preadv2(fd, &one, 1, 0, flag));
        if (flag != 0x80) T(pwritev2(pipes[1], &one, 1, -1, flag));
    }
    V(lseek(fd, 0, SEEK_END));
    T(pwritev2(fd, &one, 1, 0, RWF_APPEND | 0x20));
    T(pwritev2(fd, &one, 1, 0, RWF_DSYNC | RWF_SYNC));
    T(pwritev2(fd, &page, 1, 0, 0x40));
    T(pwritev2(fd, two, 2, 0, 0x40));
    T(pwritev2(null, &one, 1, 0, 0x40));
    T(preadv2(fd, &one, 1, 0, 0x40));
    T(pwritev2(null, &one, 1, 0, 0x80));
    T(preadv2(null, &one, 1, 0, 0x80));
    T(pwritev2(fd, &one, 0, 0, 0x400));
    T(pwritev2(-1, &one, 1, 0, 0x400));
    T(pwritev2(fd, &one, 1, -2, 0));
    close(odd), close(null), close(pipes[0]), close(pipes[1]);
}

static void cached(void) {
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_CACHED};
    struct stat st;
    mkdir("dir", 0755);
    close(open("dir/known", O_CREAT | O_WRONLY, 0644));
    stat("dir/known", &st);
    int fd = syscall(SYS_openat2, AT_FDCWD, "dir/known", &how, sizeof how);
    V(fd >= 0);
    close(fd);
    how.resolve |= RESOLVE_BENEATH;
    OK(fd = syscall(SYS_openat2, AT_FDCWD, "dir/known", &how, sizeof how));
    close(fd);
    how.resolve = RESOLVE_CACHED;
    T(syscall(SYS_openat2, AT_FDCWD, "dir/missing", &how, sizeof how));
    stat("dir/missing", &st);
    T(syscall(SYS_openat2, AT_FDCWD, "dir/missing", &how, sizeof how));
    T(syscall(SYS_openat2, AT_FDCWD, "f/x", &how, sizeof how));
    how.flags = O_RDWR | O_CREAT, how.mode = 0600;
    T(syscall(SYS_openat2, AT_FDCWD, "dir/known", &how, sizeof how));
    T(syscall(SYS_openat2, AT_FDCWD, "dir/new", &how, sizeof how));
    how.flags = O_RDWR | O_TRUNC, how.mode = 0;
    T(syscall(SYS_openat2, AT_FDCWD, "dir/known", &how, sizeof how));
    how.flags = O_RDWR | O_TMPFILE, how.mode = 0600;
    T(syscall(SYS_openat2, AT_FDCWD, "dir", &how, sizeof how));
}

static void requests(const char *what, int fd) {
    long n = -7;
    int i = -7;
    struct fsxattr x;
    struct { struct file_dedupe_range r; struct file_dedupe_range_info i; } dedupe = {{0, 4096, 1}, {fd, 0}};
    struct file_clone_range clone = {fd, 0, 0, 0};
    printf("-- %s\n", what);
    T(ioctl(fd, FIGETBSZ, &i)); V(i);
    T(ioctl(fd, FIGETBSZ, BAD));
    i = 0;
    /* With the right to ask for blocks the answer is the file system's. */
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) T(ioctl(fd, FIBMAP, &i));
    i = -7;
    T(ioctl(fd, FIONREAD, &i)); V(i);
    T(ioctl(fd, FIONREAD, BAD));
    T(ioctl(fd, FIOQSIZE, &n));
    if (n != -7) V(n > 4096 ? -1 : n);
    T(ioctl(fd, FICLONE, fd));
    T(ioctl(fd, FICLONE, -1));
    T(ioctl(fd, FICLONERANGE, &clone));
    T(ioctl(fd, FICLONERANGE, BAD));
    T(ioctl(fd, FIDEDUPERANGE, BAD));
    T(ioctl(fd, FIDEDUPERANGE, &dedupe));
    dedupe.r.reserved2 = 1; T(ioctl(fd, FIDEDUPERANGE, &dedupe));
    dedupe.r.reserved2 = 0, dedupe.r.dest_count = 2000; T(ioctl(fd, FIDEDUPERANGE, &dedupe));
    T(ioctl(fd, _IOC(_IOC_READ, 0x12, 0x77, 0), 0));
    (void)x, (void)dedupe;
}

/* The text of the first bytes of each page. */
static void pages(int fd) {
    char text[64] = "", one[2] = "";
    for (off_t at = 0; pread(fd, one, 1, at) == 1 && strlen(text) < 60; at += 4096) strcat(text, one[0] ? one : "0");
    S(text);
    V(lseek(fd, 0, SEEK_END));
}

static void moved(void) {
    int fd = open("moved", O_CREAT | O_RDWR, 0644), ro = open("moved", O_RDONLY);
    for (int i = 0; i < 8; i++) if (i != 3) pwrite(fd, &"abcdefgh"[i], 1, i * 4096);
    pwrite(fd, "tail", 4, 8 * 4096);
    char *map = mmap(NULL, 4096 * 16, PROT_READ, MAP_SHARED, fd, 0);
    V(map[4096]);
    pages(fd);
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 8192)); pages(fd); V(map[4096]); V(map[8192]);
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 8192, 12288)); pages(fd); V(map[8192]); V(map[4096 * 5]);
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096)); pages(fd);
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096)); pages(fd);
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 100, 4096));
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 100));
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 1 << 20));
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_PUNCH_HOLE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 100, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 1 << 20, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 1L << 60));
    T(fallocate(fd, 0x80, 0, 4096));
    T(fallocate(ro, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    int mem = syscall(SYS_memfd_create, "m", 0);
    ftruncate(mem, 16384);
    T(fallocate(mem, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    T(fallocate(mem, FALLOC_FL_INSERT_RANGE, 0, 4096));
    struct iovec one = {"Z", 1};
    int end = open("moved", O_WRONLY | O_APPEND), sync = open("moved", O_WRONLY | O_SYNC), data = open("moved", O_WRONLY | O_DSYNC);
    T(pwritev2(end, &one, 1, 0, 0x20)); pages(fd);
    T(pwritev2(end, &one, 1, 0, 0)); pages(fd);
    T(pwrite(sync, "Y", 1, 0));
    T(pwrite(data, "Y", 1, 0));
    int ends[2];
    pipe(ends), close(ends[0]);
    T(pwritev2(ends[1], &one, 1, -1, 0x100));
    close(fd), close(ro), close(mem), close(end), close(sync), close(data), close(ends[1]);
}

int main(void) {
    int fd = open("f", O_CREAT | O_RDWR, 0644);
    for (int i = 0; i < 4; i++) pwrite(fd, "page", 4, i * 4096);
    ftruncate(fd, 4 * 4096);
    cache(fd);
    names(fd);
    flagged(fd);
    cached();
    moved();
    int ends[2], dir = open(".", O_RDONLY), null = open("/dev/null", O_RDWR), path = open("f", O_PATH), ro = open("f", O_RDONLY);
    pipe(ends);
    ftruncate(fd, 4096);
    lseek(fd, 100, SEEK_SET);
    requests("file", fd);
    requests("read only", ro);
    requests("directory", dir);
    requests("null", null);
    requests("pipe", ends[0]);
    requests("path", path);
    int flags = 0;
    struct fsxattr x;
    struct fattr a;
    T(ioctl(null, FS_IOC_GETFLAGS, &flags));
    T(ioctl(null, FS_IOC_FSGETXATTR, &x));
    T(ioctl(ends[0], FS_IOC_GETFLAGS, &flags));
    T(ioctl(path, FS_IOC_GETFLAGS, &flags));
    OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    OK(ioctl(fd, FS_IOC_FSGETXATTR, &x));
    OK(ioctl(dir, FS_IOC_GETFLAGS, &flags));
    T(ioctl(fd, FS_IOC_SETFLAGS, BAD));
    OK(fgetattr(AT_FDCWD, "f", &a, sizeof a, 0));
    T(fgetattr(AT_FDCWD, "f", &a, 8, 0));
    T(fgetattr(AT_FDCWD, "f", &a, 8192, 0));
    T(fgetattr(AT_FDCWD, "f", &a, sizeof a, 4));
    T(fgetattr(AT_FDCWD, "none", &a, sizeof a, 0));
    T(fgetattr(AT_FDCWD, "/dev/null", &a, sizeof a, 0));
    OK(fgetattr(fd, "", &a, sizeof a, AT_EMPTY_PATH));
    T(fgetattr(fd, "", &a, sizeof a, 0));
    OK(fgetattr(fd, NULL, &a, sizeof a, AT_EMPTY_PATH));
    memset(&a, 0, sizeof a);
    a.xflags = 4; T(fsetattr(AT_FDCWD, "f", &a, sizeof a, 0));
    a.xflags = 1ULL << 40; T(fsetattr(AT_FDCWD, "none", &a, sizeof a, 0)); a.xflags = 0;
    T(fsetattr(AT_FDCWD, "f", &a, 8, 0));
    T(fsetattr(AT_FDCWD, "f", &a, 8192, 0));
    T(fsetattr(AT_FDCWD, "f", &a, sizeof a, 4));
    T(fsetattr(AT_FDCWD, "f", BAD, sizeof a, 0));
    T(fsetattr(AT_FDCWD, "none", &a, sizeof a, 0));
    T(fsetattr(AT_FDCWD, "/dev/null", &a, sizeof a, 0));
    return 0;
}
