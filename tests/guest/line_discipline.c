#include "guest.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
/* The line discipline in its details: special characters, echo, what input and output become, packet mode, VMIN and VTIME. */
static int m, s;
static struct termios first;

/* What there is to read, control characters as their numbers. */
static void show_in(int line, int fd) {
    char b[300];
    struct pollfd p = {fd, POLLIN};
    /* A host with much to do takes its time to begin with it, and some more for all of it. */
    int begun = poll(&p, 1, 400) == 1;
    usleep(40000);
    if (!begun && poll(&p, 1, 0) != 1) { printf("%d nothing\n", line); return; }
    errno = 0;
    int n = read(fd, b, sizeof b);
    printf("%d read %d %s:", line, n, n < 0 ? strerrorname_np(errno) : "");
    for (int i = 0; i < n; i++) printf(b[i] > 32 && b[i] < 127 ? "%c" : "<%02x>", (unsigned char)b[i]);
    printf("\n");
}
#define IN(fd) show_in(__LINE__, fd)

static void put(const char *t) { write(m, t, strlen(t)); }
/* The settings a terminal begins with, changed so; input and output that is left is forgotten. */
static void with(unsigned i, unsigned o, unsigned l, unsigned io, unsigned oo, unsigned lo) {
    struct termios t = first;
    char b[300];
    t.c_iflag = (t.c_iflag | i) & ~io;
    t.c_oflag = (t.c_oflag | o) & ~oo;
    t.c_lflag = (t.c_lflag | l) & ~lo;
    tcsetattr(s, TCSAFLUSH, &t);
    usleep(20000);
    struct pollfd p = {m, POLLIN};
    while (poll(&p, 1, 0) == 1 && read(m, b, sizeof b) > 0);
}
static void character(int which, int c) { struct termios t; tcgetattr(s, &t); t.c_cc[which] = c; tcsetattr(s, TCSANOW, &t); }
static void quiet(int sig) {}

int main(void) {
    char b[300], big[6000];
    int n;
    T(openpty(&m, &s, 0, 0, 0));
    tcgetattr(s, &first);

    /* Erasing. */
    with(0, 0, 0, 0, 0, 0); put("a\tb\t\x7f"); IN(m); put("\x7f\x7f"); IN(m); put("\x7f\x7f\x7f" "c\n"); IN(m); IN(s);
    write(s, "$ ", 2); put("ab\tc\x7f\x7f"); IN(m); put("\n"); IN(m); IN(s);
    put("a\x16\x01" "b\x7f\x7f"); IN(m); put("\n"); IN(m); IN(s);
    put("one,two.three  \x17"); IN(m); put("\x17"); IN(m); put("\x17\x17z\n"); IN(m); IN(s);
    put("a_b-c!\x17"); IN(m); put("\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHOE); put("abc\x7f" "d e\x17"); IN(m); put("\x15"); IN(m); put("\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHOKE); put("abc\x15" "d\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHOK); put("abc\x15" "d\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHOK | ECHOKE); put("abc\x15" "d\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHO); put("abc\x15" "de\x7f" "f\n"); IN(m); IN(s);
    with(0, 0, ECHOPRT, 0, 0, 0); put("abc\x7f\x7f"); IN(m); put("x"); IN(m); put("\x7f\x7f\x7f"); IN(m); put("new two\x17q\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ECHOCTL); put("a\x16\x01" "b\x7f\x7f" "c\x01\n"); IN(m); IN(s);
    with(IUTF8, 0, 0, 0, 0, 0); put("\xc3\xa4\xe2\x82\xac\x7f"); IN(m); put("\x7fz\n"); IN(m); IN(s); put("\xa4\x7fy\n"); IN(m); IN(s);
    with(0, 0, 0, IUTF8, 0, 0); put("\xc3\xa4\x7f\n"); IN(m); IN(s);
    put("\x7f\x17\x15"); IN(m);

    /* Other special characters. */
    put("re print\x12"); IN(m); put("ed\n"); IN(m); IN(s);
    put("l\x16\nm\x16\x16n\x12\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, IEXTEN); put("a\x16\x12\x17\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, 0); character(VEOL, '!'); character(VEOL2, '?'); put("one!two?three\n"); IN(m); IN(s); IN(s); IN(s);
    with(0, 0, 0, 0, 0, IEXTEN); character(VEOL2, '?'); put("two?three\n"); IN(s);
    with(0, 0, 0, 0, 0, 0); character(VERASE, '#'); character(VKILL, '@'); character(VEOF, '.'); put("ab#c.xx@y\n"); IN(m); IN(s); IN(s);
    with(0, 0, 0, 0, 0, 0); character(VERASE, 0); put("\x7f\n"); IN(m); IN(s);
    put("abc\x04"); T(read(s, b, 3)); IN(s); put("abc\x04"); T(read(s, b, 2)); IN(s); IN(s); put("abc\n\x04"); T(read(s, b, 3)); IN(s); IN(s); put("\x04\x04x\n"); IN(s); IN(s); IN(s);
    put("one\ntwo\nthr"); usleep(20000); T(ioctl(s, FIONREAD, &n)); V(n); put("ee\x04"); usleep(20000); T(ioctl(s, FIONREAD, &n)); V(n); T(read(s, b, 1)); T(ioctl(s, FIONREAD, &n)); V(n); IN(s); IN(s); IN(s); T(ioctl(m, FIONREAD, &n)); V(n > 0);

    /* Echo without the rest. */
    with(0, 0, ECHONL, 0, 0, ECHO); put("hidden\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, ICANON); put("a\x01\n\t\x7f\r"); IN(m); IN(s);
    with(0, 0, ECHONL, 0, 0, ICANON | ECHO); put("a\nb"); IN(m); IN(s);
    with(0, 0, 0, 0, OPOST, 0); put("a\x01\tb\n"); IN(m); IN(s);

    /* Input. */
    with(INLCR, 0, 0, ICRNL, 0, 0); put("c\nd\re\x04"); IN(m); IN(s);
    with(IGNCR | ICRNL, 0, 0, 0, 0, 0); put("c\rd\n"); IN(m); IN(s);
    with(ISTRIP, 0, 0, 0, 0, 0); put("\xe1\xff\x8a"); IN(m); IN(s);
    with(PARMRK, 0, 0, 0, 0, 0); put("a\xff" "b\n"); IN(m); IN(s);
    with(PARMRK | ISTRIP, 0, 0, 0, 0, ICANON); put("a\xff"); IN(s);
    with(PARMRK, 0, 0, 0, 0, ICANON); put("a\xff"); IN(s);

    /* Output. */
    with(0, OCRNL, 0, 0, ONLCR, 0); write(s, "a\rb\nc", 5); IN(m);
    with(0, OCRNL, 0, 0, 0, 0); write(s, "a\rb\nc", 5); IN(m);
    with(0, ONOCR, 0, 0, 0, 0); write(s, "\n\ra\r\rb\r\n\r", 10); IN(m);
    with(0, ONLRET, 0, 0, ONLCR, 0); write(s, "abc\n\tz", 6); IN(m);
    with(0, ONLRET | ONOCR, 0, 0, ONLCR, 0); write(s, "abc\n\rz\r", 7); IN(m);
    with(0, XTABS, 0, 0, 0, 0); write(s, "\ra\tbcdefgh\t\b\b\tz\t", 16); IN(m);
    with(0, XTABS, 0, 0, 0, 0); put("a\tb\x7f\x7f"); IN(m); put("\x15"); IN(m);
    with(0, OLCUC, 0, 0, 0, 0); write(s, "low Up\n", 7); IN(m); put("typed\n"); IN(m); IN(s);
    with(IUCLC, OLCUC, XCASE, 0, 0, 0); put("TYPED\n"); IN(m); IN(s);

    /* Stopping and going on. */
    with(0, 0, 0, 0, 0, 0); fcntl(s, F_SETFL, O_NONBLOCK); put("\x13"); usleep(20000); T(write(s, "held", 4)); put("xy"); IN(m); put("\x11"); IN(m); T(write(s, "held", 4)); IN(m); put("\n"); IN(m); IN(s);
    with(IXANY, 0, 0, 0, 0, 0); put("\x13"); usleep(20000); T(write(s, "held", 4)); put("k"); IN(m); T(write(s, "gone", 4)); IN(m); put("\n"); IN(s);
    with(0, 0, 0, IXON, 0, 0); put("\x13\x11\n"); IN(m); IN(s);
    with(0, 0, 0, 0, 0, 0); T(tcflow(s, TCOOFF)); T(write(s, "held", 4)); put("\x11"); usleep(20000); T(write(s, "held", 4)); T(tcflow(s, TCOON)); T(write(s, "gone", 4)); IN(m); T(tcflow(s, TCIOFF)); IN(m); T(tcflow(s, TCION)); IN(m); T(tcflow(s, 9)); T(tcflow(s, -1));
    put("\x13"); usleep(20000); T(write(s, "held", 4)); put("\x03"); usleep(20000); T(write(s, "free", 4)); IN(m);
    T(write(s, "sent", 4)); usleep(20000); T(tcflush(s, TCOFLUSH)); IN(m); put("in\n"); usleep(20000); T(tcflush(m, TCOFLUSH)); IN(s); T(tcflush(m, TCIFLUSH)); IN(m); T(tcflush(m, 7));

    /* Packet mode. */
    with(0, 0, 0, 0, 0, 0); n = 1; T(ioctl(s, TIOCPKT, &n)); T(ioctl(m, TIOCPKT, BAD)); T(ioctl(m, TIOCPKT, &n)); n = 9; T(ioctl(m, TIOCGPKT, &n)); V(n); T(ioctl(s, TIOCGPKT, &n)); IN(m); write(s, "data", 4); IN(m);
    T(tcflush(s, TCIFLUSH)); IN(m); T(tcflush(s, TCOFLUSH)); IN(m); T(tcflush(s, TCIOFLUSH)); IN(m); T(tcflow(s, TCOOFF)); IN(m); T(tcflow(s, TCOON)); IN(m); put("\x13"); IN(m); put("\x13"); IN(m); put("\x11"); IN(m); put("\x11"); IN(m); put("\x13"); usleep(20000); put("\x11"); IN(m); IN(m);
    struct termios t; tcgetattr(s, &t); t.c_iflag &= ~IXON; tcsetattr(s, TCSANOW, &t); IN(m); t.c_lflag &= ~ECHO; tcsetattr(s, TCSANOW, &t); IN(m); t.c_iflag |= IXON; tcsetattr(s, TCSANOW, &t); IN(m); t.c_cc[VSTOP] = 5; tcsetattr(s, TCSANOW, &t); IN(m); t.c_lflag |= EXTPROC; tcsetattr(s, TCSANOW, &t); IN(m); t.c_lflag &= ~EXTPROC; tcsetattr(s, TCSANOW, &t); IN(m); tcsetattr(s, TCSAFLUSH, &t); IN(m);
    put("\x03"); IN(m); IN(m); write(s, "mixed", 5); tcflush(s, TCIFLUSH); usleep(20000); struct pollfd p = {m, POLLIN | POLLPRI}; T(poll(&p, 1, 0)); printf("%x\n", p.revents); IN(m); T(poll(&p, 1, 0)); printf("%x\n", p.revents); T(read(m, b, 1)); T(read(m, b, 3)); printf("%d %c%c\n", b[0], b[1], b[2]); IN(m);
    n = 0; T(ioctl(m, TIOCPKT, &n)); tcflush(s, TCIFLUSH); IN(m); n = 1; ioctl(m, TIOCPKT, &n); IN(m); n = 0; ioctl(m, TIOCPKT, &n);

    /* How much and how long a raw read waits. */
    with(0, 0, 0, 0, 0, ICANON | ECHO); fcntl(s, F_SETFL, 0); character(VMIN, 3); character(VTIME, 0); put("ab"); usleep(20000); fcntl(s, F_SETFL, O_NONBLOCK); T(read(s, b, 9)); T(read(s, b, 9)); fcntl(s, F_SETFL, 0); put("abcd"); T(read(s, b, 2)); p.fd = s; p.events = POLLIN; T(poll(&p, 1, 50)); put("e"); T(read(s, b, 9));
    character(VTIME, 2); put("a"); T(poll(&p, 1, 500)); T(read(s, b, 9)); fflush(stdout); pid_t c = fork(); if (!c) { usleep(150000); put("x"); usleep(100000); put("y"); _exit(0); } T(read(s, b, 9)); waitpid(c, 0, 0); put("abcdef"); T(read(s, b, 9));
    character(VMIN, 0); T(read(s, b, 9)); put("late"); T(read(s, b, 2)); T(read(s, b, 9)); character(VTIME, 0); T(read(s, b, 9)); fcntl(s, F_SETFL, O_NONBLOCK); T(read(s, b, 9)); character(VTIME, 1); T(read(s, b, 9)); character(VMIN, 1); T(read(s, b, 9)); T(read(s, b, 0)); fcntl(s, F_SETFL, 0);

    /* A line has its bounds; what is beyond is lost but for its end. */
    with(0, 0, 0, 0, 0, ECHO); memset(big, 'l', sizeof big); for (int i = 0; i < 60; i++) { write(m, big, 100); usleep(300); } put("\n"); usleep(50000); T(read(s, big, sizeof big)); V(big[4095] == '\n'); put("next\n"); IN(s);
    /* From one mode to the other. */
    with(0, 0, 0, 0, 0, ECHO); put("line\npart"); usleep(20000); tcgetattr(s, &t); t.c_lflag &= ~ICANON; tcsetattr(s, TCSANOW, &t); IN(s); put("raw"); usleep(20000); t.c_lflag |= ICANON; tcsetattr(s, TCSANOW, &t); IN(s); put(" more\n"); IN(s); IN(s);
    tcgetattr(s, &t); t.c_cflag = CS5 | PARENB | B9600; t.c_iflag = ~0u; tcsetattr(s, TCSANOW, &t); tcgetattr(s, &t); printf("%x %x\n", t.c_iflag, t.c_cflag); tcgetattr(m, &t); printf("%x %x\n", t.c_iflag, t.c_cflag);
    signal(SIGINT, quiet);
    return 0;
}
