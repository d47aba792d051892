/* Asynchronous I/O: io_setup(2) and its kin, without libaio. */
#include "guest.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <stdarg.h>
typedef struct iocb CB;
typedef struct io_event EV;
struct ring { unsigned id, nr, head, tail, magic, compat, incompat, header; EV events[]; };
static aio_context_t ctx;
static long setup(unsigned n) { ctx = 0; return SYS(io_setup, n, &ctx); }
static long submit(int n, ...) { CB *l[16]; va_list a; va_start(a, n); for (int i = 0; i < n; i++) l[i] = va_arg(a, CB *); va_end(a); return SYS(io_submit, ctx, (long)n, l); }
static CB make(int op, int fd, void *buf, long n, long off) { CB c = { 0 }; c.aio_data = 0x1122334455667788; c.aio_lio_opcode = op; c.aio_fildes = fd; c.aio_buf = (long)buf; c.aio_nbytes = n; c.aio_offset = off; return c; }
static EV ev[300];
static CB *cbs; static int ncbs;
static void get(int line, long least, long most, long ms) {
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    errno = 0;
    long r = SYS(io_getevents, ctx, least, most, ev, ms < 0 ? 0 : &t);
    printf("%d events: %ld %s", line, r, r < 0 ? strerrorname_np(errno) : "");
    for (int i = 0; i < r && i < 8; i++) printf(" [%ld: %lld %lld data %d]", cbs ? (long)((CB *)ev[i].obj - cbs) : 0L, (long long)ev[i].res, (long long)ev[i].res2, ev[i].data == 0x1122334455667788);
    puts("");
}
#define G(least, most, ms) get(__LINE__, least, most, ms)
static void nr(void) { FILE *f = fopen("/proc/sys/fs/aio-nr", "r"); long n = -1; fscanf(f, "%ld", &n); fclose(f); V(n); }
static volatile int signals;
static void on(int s) { signals++; }

static void contexts(void) {
    FILE *f = fopen("/proc/sys/fs/aio-max-nr", "r"); long most = 0; fscanf(f, "%ld", &most); fclose(f); V(most); nr();
    T(SYS(io_setup, 1, BAD)); T(SYS(io_setup, 1, 0)); T(setup(0)); ctx = 5; T(SYS(io_setup, 1, &ctx)); T(setup(0x10000000)); T(setup(0x7fffffff)); T(setup(-1)); T(setup(most + 1)); T(setup(1));
    V(ctx % 4096); struct ring *r = (void *)ctx; V(r->id == 0); V(r->head); V(r->tail); V(r->magic == 0xa10a10a1); V(r->compat); V(r->incompat); V(r->header); V(r->nr >= 3); nr();
    char line[400]; f = fopen("/proc/self/maps", "r"); while (fgets(line, 400, f)) if (strstr(line, "aio")) { unsigned long a, b; char p[5]; sscanf(line, "%lx-%lx %4s", &a, &b, p); printf("%d %s %s", a == ctx, p, strchr(line, '/') ? strchr(line, '/') : "?\n"); } fclose(f);
    aio_context_t first = ctx; T(setup(100)); V(ctx != first); nr(); T(SYS(io_destroy, ctx)); T(SYS(io_destroy, ctx)); T(SYS(io_destroy, 0L)); T(SYS(io_destroy, -1L)); T(SYS(io_destroy, first + 8)); nr();
    aio_context_t gone = ctx; ctx = first; T(SYS(io_submit, gone, 0L, 0)); T(SYS(io_getevents, gone, 0L, 0L, ev, 0)); T(SYS(io_submit, ctx, -1L, 0)); T(SYS(io_submit, ctx, 0L, 0)); T(SYS(io_submit, ctx, 1L, BAD)); T(submit(1, BAD)); T(submit(1, (CB *)0));
    T(SYS(io_getevents, ctx, -1L, 1L, ev, 0)); T(SYS(io_getevents, ctx, 2L, 1L, ev, 0)); T(SYS(io_getevents, ctx, 0L, 1L, ev, BAD)); T(SYS(io_getevents, ctx, 0L, 1L, BAD, 0)); T(SYS(io_getevents, ctx, 0L, 0L, 0, 0)); G(1, 1, 0); G(1, 1, 20); struct timespec neg = { -1, 1000000001 }; T(SYS(io_getevents, ctx, 1L, 1L, ev, &neg));
    T(madvise((void *)ctx, 4096, MADV_DONTFORK)); fflush(stdout);
    if (!fork()) { T(SYS(io_destroy, ctx)); T(SYS(io_submit, ctx, 0L, 0)); fflush(stdout); _exit(0); } wait(0);
    /* Gone with the program. */
    fflush(stdout); if (!fork()) { setup(1000); _exit(0); } wait(0); for (int i = 0; i < 200; i++) { long n; f = fopen("/proc/sys/fs/aio-nr", "r"); fscanf(f, "%ld", &n); fclose(f); if (n == 1) break; usleep(10000); } nr();
    T(SYS(io_destroy, ctx)); nr();
}

static void files(void) {
    char b[64], d[64], g[8]; struct iovec v[2] = { { b, 3 }, { b + 10, 4 } };
    int f = open("file", O_RDWR | O_CREAT, 0600), r = open("file", O_RDONLY), w = open("file", O_WRONLY), dir = open(".", O_RDONLY), path = open("file", O_PATH);
    T(setup(16)); CB c[16]; cbs = c;
    memcpy(b, "hello world", 11); c[0] = make(IOCB_CMD_PWRITE, f, b, 11, 5); c[0].aio_key = 77; T(submit(1, c)); V(c[0].aio_key); G(1, 1, -1);
    struct ring *ring = (void *)ctx; V(ring->head); V(ring->tail); V(ring->events[0].res);
    memset(d, 'z', 64); c[0] = make(IOCB_CMD_PREAD, f, d, 64, 0); c[1] = make(IOCB_CMD_PREAD, f, d + 30, 4, 7); c[2] = make(IOCB_CMD_PREAD, f, d, 5, 1000); c[3] = make(IOCB_CMD_FSYNC, f, 0, 0, 0); c[4] = make(IOCB_CMD_FDSYNC, f, 0, 0, 0); T(submit(3, c, c + 1, c + 2));
    for (int i = 0; i < 200 && (ring->tail + ring->nr - ring->head) % ring->nr < 3; i++) usleep(1000);
    T(SYS(io_getevents, ctx, 1L, 2L, BAD, 0)); G(3, 10, -1); T(submit(1, c + 3)); G(1, 1, -1); T(submit(1, c + 4)); G(1, 1, -1); d[16] = 0; S(d + 5); printf("%.4s\n", d + 30); T(lseek(f, 0, SEEK_CUR));
    c[0] = make(IOCB_CMD_PWRITEV, f, v, 2, 0); c[1] = make(IOCB_CMD_PREADV, f, v, 2, 0); c[2] = make(IOCB_CMD_PREADV, f, v, 0, 0); T(submit(3, c, c + 1, c + 2)); G(3, 3, -1); T(pread(f, d, 7, 0)); printf("%.7s\n", d);
    /* What is wrong with a request, and what comes of one. */
    CB bad[] = { make(IOCB_CMD_PREAD, 99, d, 1, 0), make(IOCB_CMD_PREAD, path, d, 1, 0), make(IOCB_CMD_PREAD, w, d, 1, 0), make(IOCB_CMD_PWRITE, r, d, 1, 0), make(IOCB_CMD_PREAD, dir, d, 1, 0), make(IOCB_CMD_PREAD, f, d, 1, -1), make(IOCB_CMD_PREAD, f, d, -1, 0),
        make(IOCB_CMD_PREADV, f, v, 1025, 0), make(IOCB_CMD_PREADV, f, BAD, 1, 0), make(4, f, 0, 0, 0), make(IOCB_CMD_NOOP, f, 0, 0, 0), make(9, f, d, 1, 0), make(IOCB_CMD_FSYNC, f, d, 0, 0), make(IOCB_CMD_FSYNC, f, 0, 1, 0), make(IOCB_CMD_FSYNC, f, 0, 0, 1), make(IOCB_CMD_POLL, f, (void *)0x10001, 0, 0), make(IOCB_CMD_POLL, f, (void *)1, 1, 0) };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) { printf("%d ", i); T(submit(1, bad + i)); }
    CB x = make(IOCB_CMD_PREAD, f, d, 1, 0); x.aio_reserved2 = 1; T(submit(1, &x)); x.aio_reserved2 = 0; x.aio_rw_flags = 1 << 20; T(submit(1, &x)); x.aio_rw_flags = 0; x.aio_flags = IOCB_FLAG_RESFD; x.aio_resfd = 99; T(submit(1, &x)); x.aio_resfd = f; T(submit(1, &x)); x.aio_flags = IOCB_FLAG_IOPRIO; x.aio_reqprio = 7 << 13; T(submit(1, &x)); x.aio_flags = 0;
    c[0] = make(IOCB_CMD_PREAD, f, BAD, 1, 0); c[1] = make(IOCB_CMD_PWRITE, f, BAD, 1, 0); c[2] = make(IOCB_CMD_PREAD, f, d, 0, 0); T(submit(3, c, c + 1, c + 2)); G(3, 9, -1);
    c[0] = make(IOCB_CMD_PREAD, f, d, 1, 0); T(submit(3, c, bad, c)); G(1, 9, -1); G(0, 9, 0);
    CB ap = make(IOCB_CMD_PWRITE, f, "end", 3, 0); ap.aio_rw_flags = RWF_APPEND; cbs = &ap; T(submit(1, &ap)); G(1, 1, -1); struct stat st; fstat(f, &st); V(st.st_size);
    struct rlimit old, l = { 20, RLIM_INFINITY }; getrlimit(RLIMIT_FSIZE, &old); l.rlim_max = old.rlim_max; signal(SIGXFSZ, SIG_IGN); ap = make(IOCB_CMD_PWRITE, f, "abcdef", 6, 17); CB beyond = ap; beyond.aio_offset = 30;
    setrlimit(RLIMIT_FSIZE, &l); long taken = submit(2, &ap, &beyond), limited = SYS(io_getevents, ctx, 2L, 2L, ev, 0); setrlimit(RLIMIT_FSIZE, &old); V(taken); V(limited); V(ev[0].res); V(ev[1].res);
    /* Reaped by the program itself. */
    cbs = c; c[0] = make(IOCB_CMD_PREAD, f, d, 2, 0); c[1] = make(IOCB_CMD_PREAD, f, d, 3, 0); c[2] = make(IOCB_CMD_PREAD, f, d, 4, 0); T(submit(3, c, c + 1, c + 2)); unsigned h = ring->head; V((ring->tail + ring->nr - h) % ring->nr); V(ring->events[h % ring->nr].res); ring->head = (h + 2) % ring->nr; G(1, 9, -1); G(0, 9, 0);
    /* Round and round. */
    int bad_ones = 0; for (int i = 0; i < 400; i++) { c[0].aio_nbytes = 1 + i % 7; if (submit(1, c) != 1 || SYS(io_getevents, ctx, 1L, 1L, ev, 0) != 1 || ev[0].res != 1 + i % 7) bad_ones++; } V(bad_ones); V(ring->head == ring->tail);
    /* What is scribbled there harms nobody else. */
    memset(ring->events, 0xff, 32); ring->tail = 12345; ring->nr = 0; ring->magic = 0; T(submit(1, c)); SYS(io_getevents, ctx, 0L, 1L, ev, 0); T(SYS(io_destroy, ctx)); cbs = 0;
    close(f); close(r); close(w); close(dir); close(path);
}

static void polls(void) {
    int p[2], e = eventfd(0, EFD_NONBLOCK), ep = epoll_create1(0), f = open("file", O_RDWR); char b[8]; long n;
    pipe(p); T(setup(16)); CB c[8]; cbs = c;
    c[0] = make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0); T(submit(1, c)); G(0, 9, 0); G(1, 9, 20); write(p[1], "x", 1); G(1, 9, 5000);
    T(submit(1, c)); G(1, 9, 5000); read(p[0], b, 1); c[1] = make(IOCB_CMD_POLL, p[1], (void *)(POLLOUT | POLLIN), 0, 0); T(submit(1, c + 1)); G(1, 9, 5000);
    c[2] = make(IOCB_CMD_POLL, f, (void *)POLLIN, 0, 0); T(submit(1, c + 2)); G(1, 9, 5000); c[2] = make(IOCB_CMD_POLL, f, (void *)0, 0, 0); T(submit(1, c + 2)); G(0, 9, 0);
    /* An eventfd, and whoever polls that. */
    struct epoll_event v = { EPOLLIN }; epoll_ctl(ep, EPOLL_CTL_ADD, e, &v);
    c[0].aio_flags = IOCB_FLAG_RESFD; c[0].aio_resfd = e; T(submit(1, c)); T(epoll_wait(ep, &v, 1, 0)); fflush(stdout); if (!fork()) { usleep(50000); write(p[1], "y", 1); _exit(0); } T(epoll_wait(ep, &v, 1, 5000)); T(read(e, &n, 8)); V(n); G(1, 9, -1); wait(0); read(p[0], b, 1);
    c[3] = make(IOCB_CMD_PREAD, f, b, 1, 0); c[3].aio_flags = IOCB_FLAG_RESFD; c[3].aio_resfd = e; T(submit(2, c + 3, c + 3)); T(read(e, &n, 8)); V(n); G(2, 9, -1);
    /* Cancelled; closed; hung up. */
    c[0].aio_flags = 0; T(SYS(io_cancel, ctx, c, ev)); T(submit(1, c)); T(SYS(io_cancel, ctx, c + 1, ev)); c[0].aio_key = 5; T(SYS(io_cancel, ctx, c, ev)); c[0].aio_key = 0; T(SYS(io_cancel, ctx, BAD, ev)); T(SYS(io_cancel, 0L, c, ev)); T(SYS(io_cancel, ctx, c, ev)); G(1, 9, 5000); T(SYS(io_cancel, ctx, c, ev));
    T(submit(1, c)); T(submit(1, c)); int d = dup(p[0]); close(p[0]); G(0, 9, 0); write(p[1], "z", 1); G(2, 9, 5000); read(d, b, 1); c[0].aio_fildes = d; T(submit(1, c)); close(p[1]); G(1, 9, 5000); close(d);
    /* Who waits for events: woken, interrupted, its context destroyed. */
    pipe(p); c[0] = make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0); T(submit(1, c)); fflush(stdout); if (!fork()) { usleep(50000); write(p[1], "y", 1); _exit(0); } G(1, 1, -1); wait(0);
    struct sigaction a = { .sa_handler = on }; sigaction(SIGALRM, &a, 0); struct itimerval it = { { 0, 0 }, { 0, 30000 } }; setitimer(ITIMER_REAL, &it, 0); G(1, 1, -1); V(signals);
    T(submit(1, c)); setitimer(ITIMER_REAL, &it, 0); G(2, 9, -1); V(signals);
    a.sa_flags = SA_RESTART; sigaction(SIGALRM, &a, 0); setitimer(ITIMER_REAL, &it, 0); G(1, 1, -1); V(signals);
    sigset_t none, block; sigemptyset(&none); sigemptyset(&block); sigaddset(&block, SIGALRM); sigprocmask(SIG_BLOCK, &block, 0); struct { const void *s; size_t n; } sig = { &none, 8 }; struct timespec t = { 5, 0 };
    setitimer(ITIMER_REAL, &it, 0); T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, &sig)); V(signals); sig.n = 4; T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, &sig)); T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, BAD)); sig.n = 8; sig.s = BAD; T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, &sig)); t.tv_sec = 0; t.tv_nsec = 1000; T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, 0)); sig.s = 0; T(SYS(io_pgetevents, ctx, 1L, 1L, ev, &t, &sig)); sigset_t now; sigprocmask(0, 0, &now); V(sigismember(&now, SIGALRM)); sigprocmask(SIG_UNBLOCK, &block, 0);
    signal(SIGALRM, SIG_DFL); alarm(60);
    read(p[0], b, 1); c[0] = make(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0); T(submit(1, c)); T(SYS(io_destroy, ctx)); write(p[1], "q", 1); G(0, 1, 0);
    close_range(3, ~0U, 0);
}
static void *destroyer(void *c) { usleep(50000); return (void *)(long)SYS(io_destroy, (long)c); }
static int pp[2];
static void *reader(void *c) { usleep(50000); write(pp[1], "late", 4); return 0; }
static void threads(void) {
    pthread_t t; void *r; char b[8] = { 0 }; CB c[2]; cbs = c;
    T(setup(4)); pthread_create(&t, 0, destroyer, (void *)ctx); G(1, 1, -1); pthread_join(t, &r); V((long)r);
    /* Streams: done when there is something, as a read would be. */
    pipe(pp); T(setup(4)); pthread_create(&t, 0, reader, 0); c[0] = make(IOCB_CMD_PREAD, pp[0], b, 8, 0); T(submit(1, c)); G(1, 1, -1); S(b); pthread_join(t, 0);
    fcntl(pp[0], F_SETFL, O_NONBLOCK); T(submit(1, c)); G(1, 1, -1); c[0] = make(IOCB_CMD_PWRITE, pp[1], "w", 1, 0); T(submit(1, c)); G(1, 1, -1); T(read(pp[0], b, 8)); c[0] = make(IOCB_CMD_FSYNC, pp[0], 0, 0, 0); T(submit(1, c));
    c[0] = make(IOCB_CMD_PREAD, pp[0], b, 8, -1); T(submit(1, c)); signal(SIGPIPE, SIG_IGN); close(pp[0]); c[0] = make(IOCB_CMD_PWRITE, pp[1], "w", 1, 0); T(submit(1, c)); G(1, 1, -1);
    /* No more than fit, and again when some were reaped. */
    int e = eventfd(0, 0), n = 0; c[0] = make(IOCB_CMD_POLL, e, (void *)POLLIN, 0, 0); while (n < 5000 && submit(1, c) == 1) n++; V(n >= 4 && n < 1000); V(errno == EAGAIN); write(e, &(long){ 1 }, 8); long k = SYS(io_getevents, ctx, 1L, 300L, ev, 0); V(k == n || k == 300); T(submit(1, c)); T(SYS(io_destroy, ctx));
}

int main(void) { contexts(); files(); polls(); threads(); return 0; }
