/* Reads of more than a few hundred KiB at once, which a sandbox may carry out another way than small ones: into all kinds of
 * memory, across ends of files and of buffers, by several threads, while signals come. */
#include "guest.h"

static char *content;
static long size;
static int fd;

static long wrong(const char *got, long at, long n) { return n < 0 ? -1 : memcmp(got, content + at, n) != 0; }

static void *reader(void *p) {
    long bad = 0;
    char *b = malloc(1 << 20);
    for (int i = 0; i < 20; i++) {
        long at = (i * 4099) % 65536, n = pread(fd, b, size - at - i, at);
        bad += n != size - at - i || wrong(b, at, n);
    }
    free(b);
    return (void *)bad;
}

static void nothing(int s) {}

int main(void) {
    fd = open("/bin/bash", O_RDONLY);
    size = lseek(fd, 0, SEEK_END) & ~4095L;
    if (size > 1000 << 10) size = 1000 << 10;
    content = mmap(0, size, PROT_READ, MAP_PRIVATE, fd, 0);
    V(size);
    lseek(fd, 0, SEEK_SET);
    char *b = malloc(size + 4096);
    for (int round = 0; round < 3; round++) {
        T(pread(fd, b, size, 0));
        V(wrong(b, 0, size));
        T(pread(fd, b + 1, size - 12345, 12345));
        V(wrong(b + 1, 12345, size - 12345));
    }
    T(read(fd, b, size - 1));
    T(lseek(fd, 0, SEEK_CUR));
    struct iovec v[3] = {{b, 300000}, {b + 300000, 0}, {b + 300000, size - 300000}};
    memset(b, 0, size);
    T(preadv(fd, v, 3, 0));
    V(wrong(b, 0, size));

    /* Memory that is not simply the process's own. */
    char *shared = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    T(pread(fd, shared, size, 0));
    V(wrong(shared, 0, size));
    char *reserved = mmap(0, size + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    OK(mprotect(reserved + size / 2 / 4096 * 4096, 4096, PROT_READ));
    T(pread(fd, reserved, size, 0));
    V(wrong(reserved, 0, size / 2 / 4096 * 4096));
    OK(munmap(reserved, 4096));
    T(pread(fd, reserved, size, 0));
    T(pread(fd, reserved + 4096, 400000, 0));
    V(wrong(reserved + 4096, 0, 400000));
    T(pread(fd, (void *)8, size, 0));
    T(pread(fd, (void *)-1, size, 0));
    T(pread(fd, (void *)0x7ffffffff000, 1 << 20, 0));
    char *over = mmap(0, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct stat st;
    fstat(fd, &st);
    V(pread(fd, over, 2 << 20, st.st_size - 400000) == 400000);
    T(pread(fd, over, 2 << 20, st.st_size));
    T(pread(fd, over, 1 << 20, -1));

    /* A copy of the process, threads, signals. */
    int status;
    if (!fork()) _exit(pread(fd, b, size, 0) != size || wrong(b, 0, size));
    wait(&status);
    V(status);
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    signal(SIGALRM, nothing);
    setitimer(ITIMER_REAL, &often, 0);
    pthread_t t[3];
    long bad = 0;
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, reader, 0);
    for (int i = 0; i < 3; i++) { void *r; pthread_join(t[i], &r); bad += (long)r; }
    setitimer(ITIMER_REAL, &never, 0);
    V(bad);
    return 0;
}
