#include "guest.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
/* epoll: levels and edges, one shot, nesting, exclusive waiters, what becomes of closed and duplicated descriptors. */
static int ep; static struct epoll_event ev[16];
static int by(const void *a, const void *b) { return (int)((struct epoll_event *)a)->data.u32 - (int)((struct epoll_event *)b)->data.u32; }
static void look(int line, int fd, int ms) { int n = epoll_wait(fd, ev, 16, ms); printf("%d wait: %d", line, n); qsort(ev, n > 0 ? n : 0, sizeof *ev, by); for (int i = 0; i < n; i++) printf(" %u:%x", ev[i].data.u32, ev[i].events); printf("\n"); }
#define W(ms) look(__LINE__, ep, ms)
static int ctl(int op, int fd, unsigned events, unsigned data) { struct epoll_event e = {events, {.u32 = data}}; return epoll_ctl(ep, op, fd, &e); }
static void up(int fd) { uint64_t v = 1; write(fd, &v, 8); }
static void down(int fd) { uint64_t v; read(fd, &v, 8); }
static volatile int got; static void on(int s) { got = s; }
static void *waiter(void *arg) { struct epoll_event e; long n = epoll_wait(*(int *)arg, &e, 1, 600); return (void *)n; }
int main(void) {
    T(ep = epoll_create(1)); close(ep); T(epoll_create(0)); T(epoll_create1(99)); T(ep = epoll_create1(EPOLL_CLOEXEC)); V(fcntl(ep, F_GETFD)); int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK), r = open("f", O_CREAT | O_RDWR, 0600);
    T(ctl(EPOLL_CTL_ADD, a, EPOLLIN, 1)); T(ctl(EPOLL_CTL_ADD, a, EPOLLIN, 1)); T(ctl(EPOLL_CTL_MOD, b, EPOLLIN, 2)); T(ctl(EPOLL_CTL_DEL, b, 0, 0)); T(ctl(EPOLL_CTL_ADD, r, EPOLLIN, 3)); T(ctl(EPOLL_CTL_ADD, 99, EPOLLIN, 3)); T(ctl(EPOLL_CTL_ADD, ep, EPOLLIN, 3)); T(ctl(77, a, EPOLLIN, 3)); T(epoll_ctl(a, EPOLL_CTL_ADD, b, ev)); T(epoll_ctl(99, EPOLL_CTL_ADD, b, ev)); T(epoll_ctl(ep, EPOLL_CTL_ADD, b, BAD)); T(epoll_ctl(ep, EPOLL_CTL_ADD, b, 0)); T(epoll_wait(ep, ev, 0, 0)); T(epoll_wait(ep, ev, -1, 0)); T(epoll_wait(a, ev, 1, 0)); T(epoll_wait(99, ev, 1, 0));
    W(0); up(a); W(0); W(0); T(epoll_wait(ep, BAD, 1, 0)); W(0); down(a); W(0);
    T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLET, 1)); up(a); W(0); W(0); up(a); W(0); W(0); T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLET, 1)); W(0); down(a); W(0); T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLOUT | EPOLLET, 1)); W(0); W(0); up(a); W(0); down(a); W(0);
    T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLONESHOT, 1)); up(a); W(0); up(a); W(0); T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLONESHOT, 4)); W(0); W(0); down(a); T(ctl(EPOLL_CTL_DEL, a, 0, 0)); T(epoll_ctl(ep, EPOLL_CTL_ADD, a, &(struct epoll_event){EPOLLIN, {.u32 = 5}})); T(epoll_ctl(ep, EPOLL_CTL_DEL, a, 0));
    int p[2]; pipe(p); ctl(EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLRDHUP, 10); ctl(EPOLL_CTL_ADD, p[1], EPOLLOUT, 11); W(0); write(p[1], "x", 1); W(0); int d = dup(p[0]); T(ctl(EPOLL_CTL_ADD, d, EPOLLIN, 12)); W(0); close(d); W(0); int d2 = dup(p[0]); close(p[0]); W(0); T(ctl(EPOLL_CTL_DEL, p[0], 0, 0)); close(d2); W(0); close(p[1]); W(0);
    int in = epoll_create1(0), up_ = epoll_create1(0); struct epoll_event e = {EPOLLIN, {.u32 = 20}}; T(epoll_ctl(in, EPOLL_CTL_ADD, a, &e)); T(ctl(EPOLL_CTL_ADD, in, EPOLLIN, 21)); W(0); up(a); W(0); struct pollfd pf = {ep, POLLIN}; T(poll(&pf, 1, 0)); down(a); W(0); T(poll(&pf, 1, 0)); T(epoll_ctl(in, EPOLL_CTL_ADD, ep, &e)); T(epoll_ctl(up_, EPOLL_CTL_ADD, ep, &e)); T(epoll_ctl(in, EPOLL_CTL_ADD, up_, &e)); up(a); look(__LINE__, up_, 0); down(a); close(in); W(0); e.events = EPOLLIN | EPOLLEXCLUSIVE; T(epoll_ctl(up_, EPOLL_CTL_ADD, in = epoll_create1(0), &e));
    int chain[8]; chain[0] = eventfd(0, 0); for (int i = 1; i < 8; i++) { chain[i] = epoll_create1(0); e.events = EPOLLIN; T(epoll_ctl(chain[i], EPOLL_CTL_ADD, chain[i - 1], &e)); }
    T(ctl(EPOLL_CTL_ADD, a, EPOLLIN | EPOLLEXCLUSIVE, 30)); T(ctl(EPOLL_CTL_MOD, a, EPOLLIN, 30)); T(ctl(EPOLL_CTL_DEL, a, 0, 0)); T(ctl(EPOLL_CTL_ADD, a, EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE, 30)); T(ctl(EPOLL_CTL_ADD, a, EPOLLIN, 30)); T(ctl(EPOLL_CTL_MOD, a, EPOLLIN | EPOLLEXCLUSIVE, 30)); T(ctl(EPOLL_CTL_DEL, a, 0, 0));
    int two[2]; pthread_t th[2]; e.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLET; for (int i = 0; i < 2; i++) { two[i] = epoll_create1(0); epoll_ctl(two[i], EPOLL_CTL_ADD, b, &e); pthread_create(&th[i], 0, waiter, &two[i]); } usleep(250000); up(b); long sum = 0; for (int i = 0; i < 2; i++) { void *n; pthread_join(th[i], &n); sum += (long)n; } V(sum); down(b);
    for (int i = 0; i < 2; i++) pthread_create(&th[i], 0, waiter, &ep); ctl(EPOLL_CTL_ADD, b, EPOLLIN | EPOLLET, 40); usleep(250000); up(b); sum = 0; for (int i = 0; i < 2; i++) { void *n; pthread_join(th[i], &n); sum += (long)n; } V(sum); down(b); ctl(EPOLL_CTL_DEL, b, 0, 0);
    if (!fork()) { usleep(40000); up(a); _exit(0); } ctl(EPOLL_CTL_ADD, a, EPOLLIN, 50); W(5000); down(a); wait(0); W(20);
    signal(SIGUSR1, on); siginterrupt(SIGUSR1, 0); pid_t me = getpid(); if (!fork()) { usleep(40000); kill(me, SIGUSR1); _exit(0); } T(epoll_wait(ep, ev, 1, 3000)); V(got); wait(0); sigset_t m, none; sigemptyset(&none); sigemptyset(&m); sigaddset(&m, SIGUSR1); sigprocmask(SIG_BLOCK, &m, 0); kill(me, SIGUSR1); got = 0; T(epoll_wait(ep, ev, 1, 10)); V(got); T(epoll_pwait(ep, ev, 1, 3000, &none)); V(got); T(SYS(epoll_pwait, ep, ev, 1, 0, &none, 4)); struct timespec ts = {0, 10000000}; T(SYS(epoll_pwait2, ep, ev, 1, &ts, 0, 8)); ts.tv_nsec = 1000000000; T(SYS(epoll_pwait2, ep, ev, 1, &ts, 0, 8)); T(SYS(epoll_pwait2, ep, ev, 1, BAD, 0, 8));
    for (int i = 0; i < 5; i++) { int x = eventfd(1, 0); ctl(EPOLL_CTL_ADD, x, EPOLLIN, 60 + i); } T(epoll_wait(ep, ev, 2, 0)); unsigned seen = 0; for (int i = 0; i < 2; i++) seen |= 1 << (ev[i].data.u32 - 60); T(epoll_wait(ep, ev, 3, 0)); for (int i = 0; i < 3; i++) seen |= 1 << (ev[i].data.u32 - 60); printf("fair: %x\n", seen);
    T(read(ep, ev, 1)); T(write(ep, ev, 1)); T(lseek(ep, 0, SEEK_CUR)); struct stat st; T(fstat(ep, &st)); printf("%o\n", st.st_mode); if (!fork()) { struct epoll_event x; _exit(epoll_wait(ep, &x, 1, 0)); } int s; wait(&s); V(WEXITSTATUS(s));
    return 0;
}
