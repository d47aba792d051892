/* A large file that is read in order, which a sandbox may do ahead of the reader and without keeping it: several readers at
 * once, in steps of all sizes, with seeks in between, to the end and beyond, through one open file and through many. The
 * file is the compiler's own, which these tests need anyway. */
#include "guest.h"
#include <glob.h>
#include <sys/sendfile.h>

static const char *path;
static long size;
static char *buffer;

static uint64_t sum(uint64_t h, const char *b, long n) {
    for (long i = 0; i < n; i++) h = (h ^ (unsigned char)b[i]) * 0x100000001b3;
    return h;
}

/* Reads up to `most` bytes in steps; their sum, and how many it was. */
static uint64_t reads(int fd, long step, long most, char *b, long *got) {
    uint64_t h = 1;
    long n;
    *got = 0;
    while (*got < most && (n = read(fd, b, most - *got < step ? most - *got : step)) > 0) {
        if (n != step && *got + n != most && *got + n != size) printf("a short read of %ld\n", n);
        h = sum(h, b, n);
        *got += n;
    }
    return h;
}

static void *whole(void *step) {
    char *b = malloc((long)step);
    int fd = open(path, O_RDONLY);
    long got;
    uint64_t h = reads(fd, (long)step, LONG_MAX, b, &got);
    close(fd);
    free(b);
    return (void *)(h + got);
}

int main(void) {
    glob_t g;
    if (glob("/usr/lib/gcc/*/*/cc1", 0, 0, &g)) return printf("no compiler\n"), 1;
    path = g.gl_pathv[0];
    buffer = malloc(8 << 20);
    int fd = open(path, O_RDONLY);
    size = lseek(fd, 0, SEEK_END);
    V(size > 16 << 20);
    lseek(fd, 0, SEEK_SET);
    long got;

    long steps[] = {4096, 65536 + 7, 128 << 10, 256 << 10, 1 << 20, (1 << 20) + 4095, 5 << 20};
    for (int i = 0; i < 7; i++) {
        lseek(fd, 0, SEEK_SET);
        printf("step %ld: sum %lx\n", steps[i], reads(fd, steps[i], LONG_MAX, buffer, &got));
        V(got == size);
        T(read(fd, buffer, 100));
    }

    /* Seeks in the middle: a little back, a little on, far back, far on, beyond the end. */
    lseek(fd, 0, SEEK_SET);
    long seeks[] = {-100, 5000, -3 << 20, 3 << 20, -(long)(9 << 20), 12 << 20};
    for (int i = 0; i < 6; i++) {
        printf("%lx ", reads(fd, 128 << 10, 4 << 20, buffer, &got));
        V(got);
        V(lseek(fd, seeks[i], SEEK_CUR));
    }
    lseek(fd, size + 5, SEEK_SET);
    T(read(fd, buffer, 1 << 20));
    lseek(fd, -300000, SEEK_END);
    T(read(fd, buffer, 1 << 20));
    printf("%lx\n", sum(1, buffer, 300000));

    /* Two readers that take turns through one open file, and each through its own; a read elsewhere in between. */
    int other = open(path, O_RDONLY), same = dup(fd);
    lseek(fd, 0, SEEK_SET);
    uint64_t h = 1, o = 1;
    for (int i = 0; i < 60; i++) {
        h = sum(h, buffer, read(i & 1 ? same : fd, buffer, 200000));
        o = sum(o, buffer, read(other, buffer, 130000));
        if (i % 20 == 19) h = sum(h, buffer, pread(fd, buffer, 300000, i * 77777));
    }
    printf("%lx %lx\n", h, o);

    /* Threads, each with its own; a process and its child through one, where only the place is shared. */
    pthread_t t[3];
    long of[3] = {1 << 20, 128 << 10, 300000};
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, whole, (void *)of[i]);
    for (int i = 0; i < 3; i++) {
        void *r;
        pthread_join(t[i], &r);
        printf("thread %lx\n", (long)r);
    }
    lseek(fd, 0, SEEK_SET);
    int pipes[2], status;
    pipe(pipes);
    if (!fork()) {
        reads(fd, 1 << 20, LONG_MAX, buffer, &got);
        write(pipes[1], &got, sizeof got);
        _exit(0);
    }
    long mine, theirs;
    reads(fd, 1 << 20, LONG_MAX, buffer, &mine);
    read(pipes[0], &theirs, sizeof theirs);
    wait(&status);
    V(mine + theirs == size);

    /* A mapping while it is read, memory that cannot be written, another way to read. */
    lseek(fd, 0, SEEK_SET);
    reads(fd, 1 << 20, 3 << 20, buffer, &got);
    char *map = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memset(map + (3 << 20), 0, 2 << 20);
    printf("%lx\n", reads(fd, 1 << 20, 4 << 20, buffer, &got));
    T(read(fd, BAD, 1 << 20));
    T(read(fd, mmap(0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1 << 20));
    char *half = mmap(0, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(half + (1 << 20), 1 << 20, PROT_NONE);
    long at = lseek(fd, 0, SEEK_CUR);
    got = read(fd, half, 2 << 20);
    V(got > 0 && got <= 1 << 20 && lseek(fd, 0, SEEK_CUR) == at + got);
    int out = open("copy", O_CREAT | O_RDWR | O_TRUNC, 0600);
    lseek(fd, 0, SEEK_SET);
    for (long n; (n = sendfile(out, fd, 0, 3 << 20)) > 0;) {}
    lseek(out, 0, SEEK_SET);
    printf("%lx\n", reads(out, 1 << 20, LONG_MAX, buffer, &got));
    V(got == size);
    return 0;
}
