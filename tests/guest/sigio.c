#include "guest.h"
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>
/* Signal-driven I/O: O_ASYNC of pipes, FIFOs, sockets, terminals and inotify; who gets which signal, and what it says. */
static sigset_t all;
/* What came, with descriptors as their place in `names`. */
static int names[8];
static void came(int line) {
    siginfo_t i; int n = 0;
    while (sigtimedwait(&all, &i, &(struct timespec){0, n ? 0 : 100000000}) > 0) {
        int fd = -1; for (int k = 0; k < 8; k++) if (i.si_code > 0 && i.si_code < 7 && names[k] == i.si_fd) fd = k;
        if (i.si_signo == SIGIO && i.si_code == SI_KERNEL) printf("%d SIGIO of the kernel\n", line);
        else printf("%d signal %d code %d band %lx of %d\n", line, i.si_signo == SIGIO ? -1 : i.si_signo - SIGRTMIN, i.si_code, i.si_band, fd);
        n++;
    }
    if (!n) printf("%d nothing\n", line);
}
#define CAME came(__LINE__)
static void async(int place, int fd, int signo) { names[place] = fd; T(fcntl(fd, F_SETOWN, getpid())); if (signo) T(fcntl(fd, F_SETSIG, signo)); int f = fcntl(fd, F_GETFL); T(fcntl(fd, F_SETFL, f | O_ASYNC)); V((fcntl(fd, F_GETFL) & O_ASYNC) != 0); }
int main(void) {
    int p[2], s[2], on = 1, off = 0; char b[70000] = {0}; sigemptyset(&all); sigaddset(&all, SIGIO); for (int k = SIGRTMIN; k <= SIGRTMIN + 8; k++) sigaddset(&all, k); sigprocmask(SIG_BLOCK, &all, 0); memset(names, -1, sizeof names);
    pipe(p); async(0, p[0], 0); T(write(p[1], "x", 1)); CAME; T(write(p[1], "x", 1)); CAME; T(read(p[0], b, 1)); CAME; T(fcntl(p[0], F_SETSIG, SIGRTMIN + 1)); T(write(p[1], "y", 1)); CAME; write(p[1], "y", 1); write(p[1], "z", 1); CAME;
    async(1, p[1], SIGRTMIN + 2); T(read(p[0], b, 1)); CAME; T(write(p[1], "z", 1)); CAME; int f = fcntl(p[0], F_GETFL); T(fcntl(p[0], F_SETFL, f & ~O_ASYNC)); T(write(p[1], "z", 1)); CAME; T(ioctl(p[0], FIOASYNC, &on)); V((fcntl(p[0], F_GETFL) & O_ASYNC) != 0); T(write(p[1], "z", 1)); CAME; T(ioctl(p[0], FIOASYNC, &on)); T(ioctl(p[0], FIOASYNC, &off)); T(write(p[1], "z", 1)); CAME; T(ioctl(p[0], FIOASYNC, &on)); close(p[1]); CAME; close(p[0]); CAME;
    pipe(p); async(1, p[1], SIGRTMIN + 2); close(p[0]); CAME; close(p[1]); CAME;
    /* Who: a group, another process, nobody. */
    pipe(p); async(0, p[0], SIGRTMIN); T(fcntl(p[0], F_SETOWN, 0)); write(p[1], "x", 1); CAME; setpgid(0, 0); T(fcntl(p[0], F_SETOWN, -getpid())); write(p[1], "x", 1); CAME; fflush(stdout); pid_t c = fork(); if (!c) { siginfo_t i; V(sigtimedwait(&all, &i, &(struct timespec){5}) == SIGRTMIN); V(i.si_code); fflush(stdout); _exit(0); } T(fcntl(p[0], F_SETOWN, c) == 0); write(p[1], "x", 1); waitpid(c, 0, 0); CAME; write(p[1], "x", 1); CAME;
    /* Through a copy of the descriptor, the one that it was asked for with. */
    T(fcntl(p[0], F_SETOWN, getpid())); int d = dup(p[0]); close(p[0]); names[2] = d; write(p[1], "x", 1); CAME; close(d); close(p[1]);
    /* A FIFO. */
    mkfifo("ff", 0600); int r = open("ff", O_RDONLY | O_NONBLOCK); async(0, r, SIGRTMIN); int w = open("ff", O_WRONLY); CAME; T(write(w, "x", 1)); CAME; close(w); CAME; close(r);
    /* Sockets. */
    socketpair(AF_UNIX, SOCK_STREAM, 0, s); async(0, s[0], SIGRTMIN); T(write(s[1], "x", 1)); CAME; T(write(s[1], "x", 1)); CAME; T(read(s[0], b, 9)); CAME; T(shutdown(s[1], SHUT_WR)); CAME; close(s[1]); CAME; close(s[0]);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s); async(0, s[0], SIGRTMIN); T(write(s[1], "x", 1)); CAME; close(s[1]); CAME; close(s[0]); struct sockaddr_un a = {AF_UNIX, "sock"}; int l = socket(AF_UNIX, SOCK_STREAM, 0); bind(l, (void *)&a, sizeof a); listen(l, 5); async(0, l, SIGRTMIN); int k = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(k, (void *)&a, sizeof a)); CAME; close(k); close(l); CAME;
    /* A terminal. */
    int m = posix_openpt(O_RDWR | O_NOCTTY); grantpt(m); unlockpt(m); int t = open(ptsname(m), O_RDWR | O_NOCTTY); async(0, t, SIGRTMIN); T(write(m, "a", 1)); CAME; T(write(m, "\n", 1)); CAME; close(t); close(m);
    /* inotify. */
    int n = inotify_init(); async(0, n, SIGRTMIN); T(inotify_add_watch(n, ".", IN_CREATE)); close(open("made", O_CREAT, 0600)); CAME; close(n);
    /* Kinds that never tell. */
    int e = eventfd(0, 0); T(fcntl(e, F_SETFL, O_ASYNC)); V((fcntl(e, F_GETFL) & O_ASYNC) != 0); T(fcntl(e, F_SETFL, 0)); T(ioctl(e, FIOASYNC, &on)); T(ioctl(e, FIOASYNC, &off)); int file = open("made", O_RDWR); T(fcntl(file, F_SETFL, O_ASYNC)); T(fcntl(file, F_SETFL, 0)); T(ioctl(file, FIOASYNC, &on)); T(ioctl(file, FIOASYNC, BAD));
    /* By default it ends the process. */
    fflush(stdout); c = fork(); if (!c) { sigprocmask(SIG_UNBLOCK, &all, 0); pipe(p); fcntl(p[0], F_SETOWN, getpid()); fcntl(p[0], F_SETFL, O_ASYNC); write(p[1], "x", 1); usleep(500000); _exit(0); } int st; waitpid(c, &st, 0); V(WIFSIGNALED(st)); V(WTERMSIG(st) == SIGIO);
    return 0;
}
