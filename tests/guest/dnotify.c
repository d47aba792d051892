#include "guest.h"
/* F_NOTIFY: a directory tells by a signal that something happened in it. */
static sigset_t all; static int fd;
static void came(int line) {
    siginfo_t i; int n = 0;
    while (sigtimedwait(&all, &i, &(struct timespec){0, n ? 0 : 50000000}) > 0) {
        if (i.si_signo == SIGIO && i.si_code == SI_KERNEL) printf("%d SIGIO of the kernel\n", line);
        else printf("%d signal %d code %d band %lx of it %d\n", line, i.si_signo - SIGRTMIN, i.si_code, i.si_band, i.si_fd == fd);
        n++;
    }
    if (!n) printf("%d nothing\n", line);
}
#define CAME came(__LINE__)
static void touch(const char *name) { close(open(name, O_CREAT | O_RDWR, 0600)); }
int main(void) {
    char b[9]; sigemptyset(&all); sigaddset(&all, SIGIO); for (int k = SIGRTMIN; k <= SIGRTMIN + 3; k++) sigaddset(&all, k); sigprocmask(SIG_BLOCK, &all, 0); mkdir("d", 0700); mkdir("e", 0700); touch("e/in"); T(fd = open("d", O_RDONLY));
    T(fcntl(fd, F_NOTIFY, DN_CREATE)); V(fcntl(fd, F_GETOWN) == getpid()); touch("d/a"); CAME; touch("d/b"); CAME;
    T(fcntl(fd, F_SETSIG, SIGRTMIN)); T(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT)); touch("d/c"); CAME; mkdir("d/m", 0700); CAME; rename("e/in", "d/in"); CAME; unlink("d/in"); CAME; touch("e/in"); symlink("x", "d/s"); CAME; link("d/a", "d/l"); CAME;
    T(fcntl(fd, F_NOTIFY, DN_DELETE | DN_MULTISHOT)); unlink("d/l"); CAME; rmdir("d/m"); CAME; touch("d/n"); CAME; rename("d/n", "e/n"); CAME;
    T(fcntl(fd, F_NOTIFY, 0)); touch("d/o"); CAME; T(fcntl(fd, F_NOTIFY, DN_RENAME | DN_MULTISHOT)); rename("d/o", "d/p"); CAME; touch("d/q"); CAME; unlink("d/q"); CAME; T(fcntl(fd, F_NOTIFY, DN_MULTISHOT)); rename("d/p", "d/o"); CAME;
    T(fcntl(fd, F_NOTIFY, DN_MODIFY | DN_MULTISHOT)); int f = open("d/a", O_RDWR); CAME; write(f, "x", 1); CAME; ftruncate(f, 0); CAME; pread(f, b, 1, 0); CAME; T(fcntl(fd, F_NOTIFY, 0)); T(fcntl(fd, F_NOTIFY, DN_ACCESS | DN_MULTISHOT)); write(f, "x", 1); CAME; T(pread(f, b, 1, 0)); CAME; T(fcntl(fd, F_NOTIFY, 0)); T(fcntl(fd, F_NOTIFY, DN_ATTRIB | DN_MULTISHOT)); chmod("d/a", 0640); CAME; chmod("d", 0750); CAME; T(fcntl(fd, F_NOTIFY, 0)); T(fcntl(fd, F_NOTIFY, DN_ATTRIB)); chmod("d/a", 0600); chmod("d/a", 0640); CAME;
    T(fcntl(f, F_NOTIFY, DN_CREATE)); T(fcntl(f, F_NOTIFY, 0)); T(fcntl(99, F_NOTIFY, DN_CREATE)); int p = open("d", O_PATH); T(fcntl(p, F_NOTIFY, DN_CREATE)); T(fcntl(fd, F_NOTIFY, 0x40)); touch("d/r"); CAME; T(fcntl(fd, F_NOTIFY, 0)); T(fcntl(fd, F_SETOWN, 0)); T(fcntl(fd, F_NOTIFY, DN_CREATE)); V(fcntl(fd, F_GETOWN) == getpid()); close(fd); touch("d/t"); CAME;
    return 0;
}
