#include "guest.h"
int main(void) {
    char b[64] = {0};
    T(open("none", O_RDONLY)); T(open("", O_RDONLY)); T(open(BAD, O_RDONLY)); T(open("none/x", O_CREAT | O_RDWR, 0644));
    T(open("/etc/passwd/x", O_RDONLY)); T(open("/", O_RDWR)); T(open("/", O_CREAT, 0644)); T(open("f/", O_CREAT | O_RDWR, 0644));
    char longname[300]; memset(longname, 'a', 299); longname[299] = 0;
    T(open(longname, O_RDONLY)); T(open(longname, O_CREAT | O_RDWR, 0600));
    char *longpath = malloc(5000); memset(longpath, '/', 4999); longpath[4999] = 0; T(open(longpath, O_RDONLY)); longpath[4095] = 0; OK(open(longpath, O_RDONLY)); close(3);
    int f; T(f = open("f", O_CREAT | O_EXCL | O_RDWR, 0640)); T(open("f", O_CREAT | O_EXCL, 0640));
    T(open("f", O_DIRECTORY)); T(open("f/", O_RDONLY)); T(open("f/x", O_RDONLY)); T(open("f/.", O_RDONLY));
    T(write(f, "hello world", 11)); T(lseek(f, 0, SEEK_CUR)); T(read(f, b, 10)); T(lseek(f, 2, SEEK_SET)); T(read(f, b, 3)); S(b);
    T(lseek(f, -1, SEEK_SET)); T(lseek(f, -20, SEEK_END)); T(lseek(f, 100, SEEK_END)); T(write(f, "x", 1)); T(lseek(f, 0, SEEK_END));
    T(lseek(f, 0, 99)); T(lseek(f, 0, SEEK_DATA)); T(lseek(f, 500, SEEK_DATA)); T(lseek(f, 500, SEEK_HOLE)); T(lseek(f, 1, SEEK_SET)); T(lseek(f, LONG_MAX, SEEK_CUR)); T(lseek(f, 0, SEEK_SET));
    T(pread(f, b, 5, 6)); S(b); T(pread(f, b, 5, -1)); T(pread(f, b, 5, 1000)); T(pwrite(f, "W", 1, 6)); T(pwrite(f, "W", 1, -1));
    T(pread(f, BAD, 5, 0)); T(pwrite(f, BAD, 5, 0)); T(read(f, BAD, 0)); T(write(f, BAD, 0)); T(read(99, b, 1)); T(write(99, b, 1)); T(lseek(99, 0, 0));
    T(read(-1, b, 1)); T(write(-1, b, 0)); T(read(f, b, -1)); T(write(f, b, -1));
    struct iovec v[3] = {{b, 3}, {b + 10, 0}, {b + 20, 4}};
    T(lseek(f, 0, SEEK_SET)); T(readv(f, v, 3)); printf("%.3s|%.4s\n", b, b + 20); T(readv(f, v, 0)); T(readv(f, v, -1)); T(readv(f, v, 1025)); T(readv(f, BAD, 1));
    T(preadv(f, v, 3, 1)); T(preadv(f, v, 3, -1)); T(writev(f, v, 3)); T(pwritev(f, v, 3, 40)); v[1].iov_len = -1; T(readv(f, v, 3)); T(writev(f, v, 3));
    v[1].iov_base = BAD; v[1].iov_len = 5; T(preadv(f, v, 3, 0)); T(pwritev(f, v, 3, 0)); v[0].iov_base = BAD; T(preadv(f, v, 3, 0));
    v[0].iov_base = b; v[0].iov_len = LONG_MAX; v[1].iov_len = LONG_MAX; T(preadv(f, v, 2, 0)); v[0].iov_len = 3; v[1].iov_base = b + 9; v[1].iov_len = 2;
    T(preadv2(f, v, 2, -1, 0)); T(preadv2(f, v, 2, 0, 0x8000)); T(pwritev2(f, v, 2, 0, RWF_APPEND)); T(lseek(f, 0, SEEK_END)); T(preadv2(f, v, 2, 0, RWF_NOWAIT) >= -1);
    int r; T(r = open("f", O_RDONLY)); T(write(r, "x", 1)); T(ftruncate(r, 1)); int w; T(w = open("f", O_WRONLY)); T(read(w, b, 1)); T(pread(w, b, 1, 0));
    int a; T(a = open("f", O_WRONLY | O_APPEND)); T(pwrite(a, "app", 3, 0)); T(lseek(a, 0, SEEK_CUR)); T(write(a, "app", 3)); T(lseek(a, 0, SEEK_CUR));
    int p; T(p = open("f", O_PATH)); T(read(p, b, 1)); T(fchmod(p, 0600)); T(lseek(p, 0, 0)); T(fcntl(p, F_GETFL)); T(ftruncate(p, 0)); T(fsync(p)); struct stat st; T(fstat(p, &st)); T(close(p));
    T(open("f", O_RDONLY | O_TRUNC)); T(lseek(f, 0, SEEK_END)); close(8);
    int d; T(d = open(".", O_RDONLY)); T(read(d, b, 1)); T(write(d, b, 1)); T(lseek(d, 0, SEEK_SET)); T(pread(d, b, 1, 0)); T(open(".", O_WRONLY)); T(ftruncate(d, 0)); T(fsync(d)); T(openat(d, "f", O_RDONLY | O_CLOEXEC)); T(openat(99, "f", 0)); T(openat(f, "f", 0)); T(openat(99, "/etc/passwd", 0));
    T(symlink("loop", "loop")); T(open("loop", O_RDONLY)); T(open("loop", O_NOFOLLOW)); T(open("loop", O_PATH | O_NOFOLLOW)); T(symlink("f", "l")); T(open("l", O_NOFOLLOW)); T(open("l", O_CREAT | O_EXCL, 0600)); T(symlink("new", "dangling")); T(open("dangling", O_RDONLY)); T(open("dangling", O_CREAT | O_WRONLY, 0600)); T(access("new", F_OK));
    T(open(".", O_TMPFILE | O_RDWR, 0600)); T(open(".", O_TMPFILE | O_RDONLY, 0600)); T(open("f", O_TMPFILE | O_RDWR, 0600)); T(open("f", O_ACCMODE)); T(close(99)); T(close(f)); T(close(f)); T(creat("g", 0)); T(stat("g", &st)); printf("%o\n", st.st_mode);
    int t; T(t = open("t", O_CREAT | O_RDWR, 0600)); T(ftruncate(t, -1)); T(ftruncate(t, 10000)); T(pread(t, b, 4, 9998)); V(b[0]); T(truncate("t", 5)); T(truncate("none", 5)); T(truncate(".", 5)); T(truncate("t", -1)); T(fallocate(t, 0, 0, 100)); T(fstat(t, &st)); V(st.st_size); T(fallocate(t, FALLOC_FL_KEEP_SIZE, 0, 8192)); fstat(t, &st); V(st.st_size); T(fallocate(t, 0, -1, 5)); T(fallocate(t, 0, 0, 0)); T(fallocate(r, 0, 0, 5)); T(fallocate(t, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 50)); T(posix_fadvise(t, 0, 0, 99)); T(posix_fadvise(t, 0, 0, POSIX_FADV_DONTNEED)); T(readahead(t, 0, 10)); T(fdatasync(t)); T(syncfs(t)); T(sync_file_range(t, 0, 0, 0));
    T(ftruncate(t, 0)); T(write(t, "0123456789", 10)); int u; T(u = open("u", O_CREAT | O_RDWR, 0600)); off_t o = 2; T(sendfile(u, t, &o, 5)); V(o); T(lseek(t, 0, SEEK_CUR)); T(sendfile(u, t, 0, 5)); T(lseek(t, 0, 0)); T(sendfile(u, t, 0, 50)); T(lseek(u, 0, SEEK_CUR)); loff_t i = 1, q = 0; T(copy_file_range(t, &i, u, &q, 4, 0)); V(i); V(q); T(copy_file_range(t, &i, u, &q, 4, 1)); T(pread(u, b, 10, 0)); printf("%.10s\n", b);
    struct rlimit l = {20, 40}; signal(SIGXFSZ, SIG_IGN); T(setrlimit(RLIMIT_FSIZE, &l)); T(pwrite(u, "0123456789", 10, 15)); T(pwrite(u, "x", 1, 20)); T(ftruncate(u, 21));
    return 0;
}
