#include "guest.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
/* Who may do what with a terminal, and what becomes of it: exclusive use, input by request, sessions, background groups,
 * hang-up. */
static int m, s;
static volatile int got;
static void on(int n) { got |= 1 << n; }
static const char *name(void) { static char b[40]; ptsname_r(m, b, sizeof b); return b; }
static void quiet(int signal_number) { signal(signal_number, SIG_IGN); }

/* Runs it in a child that leads a session of its own; how that ended, if not well. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { alarm(20); setsid(); __VA_ARGS__; fflush(stdout); _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
/* Runs it in a child in a group of its own, in the background; what it was stopped by or ended with. */
#define BACK(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { setpgid(0, 0); __VA_ARGS__; fflush(stdout); _exit(0); } setpgid(c_, c_); waitpid(c_, &st_, WUNTRACED); printf("%d background %x\n", __LINE__, st_); if (WIFSTOPPED(st_)) { kill(c_, SIGKILL); waitpid(c_, 0, 0); } } while (0)

int main(void) {
    int n, f;
    char b[100];
    struct termios t;
    struct winsize w;
    struct pollfd p;
    pid_t c;
    /* The rights that a container's root has, everywhere. */
    struct { unsigned v; int p; } ch = {0x20080522, 0};
    unsigned cd[6] = {0xa80c25fb, 0xa80c25fb, 0, 0, 0, 0};
    T(SYS(capset, &ch, cd));

    /* Locked, and by its number. */
    m = open("/dev/ptmx", O_RDWR | O_NOCTTY); OK(m); T(open(name(), O_RDWR | O_NOCTTY)); T(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY)); n = 0; T(ioctl(m, TIOCSPTLCK, BAD)); T(ioctl(m, TIOCSPTLCK, &n)); T(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)); V(fcntl(4, F_GETFD)); V(fcntl(4, F_GETFL) & O_ACCMODE); T(ioctl(4, TIOCGPTPEER, 0)); T(ioctl(4, TIOCSPTLCK, &n)); T(ioctl(4, TIOCGPTLCK, &n)); close(4); p = (struct pollfd){m, POLLIN | POLLOUT, 0}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); T(read(m, b, 1)); close(m);
    m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK); p.fd = m; T(poll(&p, 1, 0)); printf("%x\n", p.revents); T(read(m, b, 1)); T(write(m, "early\n", 6)); unlockpt(m); s = open(name(), O_RDWR | O_NOCTTY); usleep(30000); T(read(s, b, 99)); close(s); close(m);

    /* Exclusive use. */
    T(openpty(&m, &s, 0, 0, 0)); n = 7; T(ioctl(s, TIOCGEXCL, &n)); V(n); T(ioctl(s, TIOCEXCL)); T(ioctl(s, TIOCGEXCL, &n)); V(n); T(open(name(), O_RDWR | O_NOCTTY)); T(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY)); T(write(s, "mine", 4)); f = dup(s); OK(f); close(f); T(ioctl(s, TIOCNXCL)); f = open(name(), O_RDWR | O_NOCTTY); OK(f); close(f);

    /* Input by request: of the own terminal only. */
    T(ioctl(s, TIOCSTI, "x")); T(ioctl(s, TIOCSTI, BAD));
    IN(ioctl(s, TIOCSCTTY, 0); T(ioctl(s, TIOCSTI, BAD)); T(ioctl(s, TIOCSTI, "a")); T(ioctl(s, TIOCSTI, "\n")); usleep(20000); T(read(s, b, 99)); printf("%.2s", b); T(ioctl(m, TIOCSTI, "x")));
    tcflush(m, TCIFLUSH); quiet(SIGHUP);

    /* Controlling terminals. */
    IN(if (!fork()) { T(ioctl(s, TIOCSCTTY, 0)); T(ioctl(s, TIOCGSID, &n)); T(ioctl(m, TIOCGSID, &n)); T(ioctl(s, TIOCNOTTY)); T(tcgetpgrp(s)); T(tcgetpgrp(m)); T(tcsetpgrp(s, getpgrp())); T(tcsetpgrp(m, getpgrp())); T(open("/dev/tty", O_RDWR)); fflush(stdout); _exit(0); } wait(0));
    IN(T(ioctl(s, TIOCSCTTY, 0)); T(ioctl(s, TIOCSCTTY, 0)); T(ioctl(s, TIOCGSID, &n)); V(n == getpid()); T(ioctl(m, TIOCGSID, &n)); V(n == getpid()); V(tcgetpgrp(m) == getpid());
        if (!fork()) { T(ioctl(s, TIOCSCTTY, 0)); V(tcgetpgrp(s) == getppid()); setsid(); T(ioctl(s, TIOCSCTTY, 0)); T(ioctl(s, TIOCSCTTY, 1)); T(ioctl(s, TIOCGSID, &n)); T(tcgetpgrp(s)); T(ioctl(s, TIOCNOTTY)); T(open("/dev/tty", O_RDWR)); f = open(name(), O_RDWR); OK(f); T(open("/dev/tty", O_RDWR)); T(ioctl(m, TIOCGSID, &n)); V(n == getppid()); fflush(stdout); _exit(0); } wait(0);
        int m2, s2; openpty(&m2, &s2, 0, 0, 0); T(ioctl(s2, TIOCSCTTY, 0)); T(ioctl(s2, TIOCGSID, &n)); f = open("/dev/tty", O_RDWR); OK(f); write(f, "by tty", 6); usleep(20000); T(read(m, b, 99)); if (!fork()) { T(ioctl(f, TIOCNOTTY)); T(open("/dev/tty", O_RDWR)); T(ioctl(s, TIOCGSID, &n)); fflush(stdout); _exit(0); } wait(0); T(ioctl(s, TIOCGSID, &n)));
    usleep(50000); T(ioctl(m, TIOCGSID, &n));
    IN(close(s); f = open(name(), O_WRONLY); OK(f); T(ioctl(f, TIOCSCTTY, 0)); T(open("/dev/tty", O_RDWR)); close(f); f = open(name(), O_RDONLY); T(ioctl(f, TIOCGSID, &n)); V(n == getpid()));
    usleep(50000); close(s); close(m); openpty(&m, &s, 0, 0, 0);
    IN(close(s); s = open(name(), O_RDWR | O_NOCTTY); T(ioctl(s, TIOCGSID, &n)); close(s); s = open(name(), O_RDWR); T(ioctl(s, TIOCGSID, &n)); V(tcgetsid(s) == getpid()));

    /* Background groups. */
    usleep(50000); close(s); close(m); openpty(&m, &s, 0, 0, 0);
    IN(ioctl(s, TIOCSCTTY, 0); write(m, "typed\n", 6); usleep(20000);
        BACK(T(read(s, b, 9)));
        BACK(quiet(SIGTTIN); T(read(s, b, 9)); T(write(s, "w", 1)));
        BACK(sigset_t set; sigemptyset(&set); sigaddset(&set, SIGTTIN); sigprocmask(SIG_BLOCK, &set, 0); T(read(s, b, 9)));
        BACK(T(tcgetattr(s, &t)); T(ioctl(s, TIOCGWINSZ, &w)); T(ioctl(s, TIOCSWINSZ, &w)); T(ioctl(s, FIONREAD, &n)); V(n); T(write(s, "w", 1)); T(ioctl(s, TIOCSTI, "y")); T(ioctl(s, TIOCEXCL)); T(ioctl(s, TIOCNXCL)));
        BACK(tcflush(s, TCIFLUSH)); BACK(tcflow(s, TCOON)); BACK(tcsendbreak(s, 0)); BACK(tcdrain(s)); BACK(tcsetpgrp(s, getpid())); BACK(tcgetattr(s, &t); tcsetattr(s, TCSADRAIN, &t));
        BACK(quiet(SIGTTOU); T(tcflush(s, TCIFLUSH)); T(tcgetattr(s, &t)); T(tcsetattr(s, TCSANOW, &t)); T(tcsetpgrp(s, getppid())); V(tcgetpgrp(s) == getppid()));
        tcgetattr(s, &t); t.c_lflag |= TOSTOP; tcsetattr(s, TCSANOW, &t);
        BACK(write(s, "w", 1)); BACK(quiet(SIGTTOU); T(write(s, "w", 1))); BACK(sigset_t set; sigemptyset(&set); sigaddset(&set, SIGTTOU); sigprocmask(SIG_BLOCK, &set, 0); T(write(s, "w", 1)));
        /* One whose parent has gone has nobody who would let it go on. */
        int pp[2]; pipe(pp); fflush(stdout); if (!(c = fork())) { if (!fork()) { setpgid(0, 0); while (getppid() == c) ; usleep(50000); T(read(s, b, 9)); T(write(s, "w", 1)); T(tcgetattr(s, &t)); T(tcsetattr(s, TCSANOW, &t)); T(tcsetpgrp(s, getpid())); fflush(stdout); _exit(0); } _exit(0); } waitpid(c, 0, 0); close(pp[1]); T(read(pp[0], b, 1)));

    /* A leader that ends: the group in front is told; the terminal is nobody's, but can still be used. */
    usleep(50000); close(s); close(m); openpty(&m, &s, 0, 0, 0); int pp[2]; pipe(pp); fflush(stdout);
    if (!(c = fork())) { alarm(9); setsid(); ioctl(s, TIOCSCTTY, 0); if (!fork()) { alarm(9); close(pp[0]); signal(SIGHUP, on); signal(SIGCONT, on); f = open("/dev/tty", O_RDWR); write(pp[1], "x", 1); for (int i = 0; i < 200 && !got; i++) usleep(10000); usleep(30000); V(got == 1 << SIGHUP); fcntl(f, F_SETFL, O_NONBLOCK); fcntl(s, F_SETFL, O_NONBLOCK); T(open("/dev/tty", O_RDWR)); T(read(f, b, 9)); T(write(f, "x", 1)); T(read(s, b, 9)); T(write(s, "x", 1)); T(tcgetattr(s, &t)); T(tcgetpgrp(s)); T(ioctl(s, FIONREAD, &n)); p = (struct pollfd){s, POLLIN | POLLOUT, 0}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); fflush(stdout); _exit(0); } read(pp[0], b, 1); _exit(0); }
    close(pp[1]); waitpid(c, 0, 0); while (read(pp[0], b, 1) > 0) ; close(pp[0]);
    T(write(s, "x", 1)); T(read(s, b, 1)); T(tcgetattr(s, &t)); p = (struct pollfd){m, POLLIN | POLLOUT, 0}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); f = open(name(), O_RDWR | O_NOCTTY); OK(f); T(write(f, "again", 5)); usleep(20000); T(read(m, b, 9)); T(write(s, "x", 1)); close(f); close(s); close(m);

    /* The master that goes: everybody in the session's front is told; nothing can be done with what is left. */
    openpty(&m, &s, 0, 0, 0); pipe(pp); fflush(stdout);
    if (!(c = fork())) { setsid(); ioctl(s, TIOCSCTTY, 0); close(m); signal(SIGHUP, on); signal(SIGCONT, on); write(pp[1], "x", 1); for (int i = 0; i < 200 && !(got & 1 << SIGCONT); i++) usleep(10000); V(got == (1 << SIGHUP | 1 << SIGCONT)); T(open("/dev/tty", O_RDWR)); T(read(s, b, 9)); T(write(s, "x", 1)); T(tcgetattr(s, &t)); T(tcgetpgrp(s)); T(tcsetpgrp(s, getpid())); T(ioctl(s, TIOCGSID, &n)); T(ioctl(s, TIOCGWINSZ, &w)); T(ioctl(s, FIONREAD, &n)); T(ioctl(s, TIOCSCTTY, 0)); T(ioctl(s, TIOCNOTTY)); p = (struct pollfd){s, POLLIN | POLLOUT, 0}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); fflush(stdout); _exit(0); }
    read(pp[0], b, 1); close(m); waitpid(c, &n, 0); V(n);
    /* A read that waits ends with it. */
    openpty(&m, &s, 0, 0, 0); fflush(stdout); if (!(c = fork())) { close(m); T(read(s, b, 9)); fflush(stdout); _exit(0); } usleep(100000); close(m); waitpid(c, &n, 0); V(n);
    openpty(&m, &s, 0, 0, 0); fflush(stdout); if (!(c = fork())) { close(s); T(read(m, b, 9)); fflush(stdout); _exit(0); } usleep(100000); close(s); waitpid(c, &n, 0); V(n); f = open(name(), O_RDWR | O_NOCTTY); OK(f); p = (struct pollfd){m, POLLIN | POLLOUT, 0}; T(poll(&p, 1, 0)); printf("%x\n", p.revents);
    T(SYS(vhangup));
    return 0;
}
