/* POSIX message queues: mq_overview(7). */
#include "guest.h"
#include <mqueue.h>

static void attr(mqd_t q) {
    struct mq_attr a;
    if (mq_getattr(q, &a)) { T(-1); return; }
    printf("  flags %lo max %ld size %ld now %ld\n", a.mq_flags, a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs);
}
static void look(mqd_t q) {
    char b[200] = "";
    lseek(q, 0, SEEK_SET);
    long n = read(q, b, sizeof b - 1);
    char *pid = strstr(b, "NOTIFY_PID:");
    if (pid) { long p = atol(pid + 11); sprintf(pid + 11, "%s\n", p == getpid() ? "mine" : p ? "other" : "none"); }
    printf("  %ld %s", n, b);
}
static volatile int got;
static void on(int s, siginfo_t *i, void *u) { (void)u; got++; printf("signal %d code %d value %d from %s uid %d\n", s, i->si_code, i->si_int, i->si_pid == getpid() ? "me" : "child", (int)i->si_uid); }
static void nothing(int s) { (void)s; }
static struct timespec in(long ms) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); t.tv_nsec += ms * 1000000; t.tv_sec += t.tv_nsec / 1000000000; t.tv_nsec %= 1000000000; return t; }

/* A thread of libc's is started for a message, by way of a netlink socket. */
static volatile int started;
static void starts(union sigval v) { started = v.sival_int; }
static void threads(void) {
    struct mq_attr a = { .mq_maxmsg = 4, .mq_msgsize = 100 };
    mqd_t q = mq_open("/threads", O_CREAT | O_RDWR, 0600, &a);
    OK(q);
    struct sigevent e = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = starts, .sigev_value.sival_int = 42 };
    T(mq_notify(q, &e)); look(q);
    T(mq_notify(q, &e));
    T(mq_send(q, "one", 3, 0));
    for (int i = 0; i < 2000 && !started; i++) usleep(1000);
    V(started); look(q);
    started = 0; e.sigev_value.sival_int = 43;
    char b[100]; T(mq_receive(q, b, 100, 0));
    T(mq_notify(q, &e)); T(mq_notify(q, NULL)); T(mq_send(q, "two", 3, 0)); usleep(20000); V(started); T(mq_receive(q, b, 100, 0));
    T(mq_notify(q, &e)); look(q); T(mq_close(q));
    q = mq_open("/threads", O_RDWR); look(q); mq_close(q); mq_unlink("/threads");
    /* What the kernel sends. */
    char cookie[32] = "a cookie"; int s = socket(AF_NETLINK, SOCK_RAW, 0), u = socket(AF_UNIX, SOCK_DGRAM, 0);
    q = mq_open("/threads", O_CREAT | O_RDWR, 0600, &a);
    e.sigev_value.sival_ptr = cookie; e.sigev_signo = s;
    T(SYS(mq_notify, q, &e)); T(mq_send(q, "three", 5, 0)); memset(cookie, 9, 32); T(recv(s, cookie, 32, 0)); V(cookie[31]); S(cookie);
    T(mq_receive(q, b, 100, 0)); T(SYS(mq_notify, q, &e)); T(SYS(mq_notify, q, 0)); T(recv(s, cookie, 32, MSG_DONTWAIT)); V(cookie[31]);
    e.sigev_signo = u; T(SYS(mq_notify, q, &e)); e.sigev_signo = 1; T(SYS(mq_notify, q, &e)); e.sigev_signo = 99; T(SYS(mq_notify, q, &e)); e.sigev_value.sival_ptr = BAD; T(SYS(mq_notify, q, &e));
    mq_close(q); mq_unlink("/threads");
}
int main(void) {
    char b[9000];
    threads();
    unsigned pr;
    struct mq_attr a = { .mq_maxmsg = 4, .mq_msgsize = 100 };
    struct timespec t;
    struct stat st;
    char *n = "/guest-q", *m = "/guest-r";
    mq_unlink(n); mq_unlink(m);
    T(SYS(mq_open, "", O_RDWR, 0, 0));
    T(SYS(mq_open, "a/b", O_RDWR | O_CREAT, 0600, 0));
    T(SYS(mq_open, "..", O_RDWR, 0, 0));
    T(SYS(mq_open, BAD, O_RDWR, 0, 0));
    T(SYS(mq_open, "guest-q", O_RDWR | O_CREAT, 0600, BAD));
    memset(b, 'x', 300); b[256] = 0;
    T(SYS(mq_open, b, O_RDWR | O_CREAT, 0600, 0));
    T(mq_open(n, O_RDWR));
    T(mq_open(n, O_ACCMODE));
    T(mq_unlink(n));
    a.mq_maxmsg = 0; T(mq_open(n, O_RDWR | O_CREAT, 0600, &a));
    a.mq_maxmsg = -1; T(mq_open(n, O_RDWR | O_CREAT, 0600, &a));
    a.mq_maxmsg = 4; a.mq_msgsize = 0; T(mq_open(n, O_RDWR | O_CREAT, 0600, &a));
    a.mq_msgsize = 1 << 25; T(mq_open(n, O_RDWR | O_CREAT, 0600, &a));
    a.mq_msgsize = 100;
    mqd_t q = mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0640, &a);
    V(q >= 0);
    T(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0640, &a));
    T(mq_open(n, O_ACCMODE));
    T(fcntl(q, F_GETFD));
    printf("%o\n", fcntl(q, F_GETFL) & ~O_LARGEFILE);
    attr(q); look(q);
    T(fstat(q, &st)); printf("mode %o size %ld nlink %d\n", st.st_mode, (long)st.st_size, (int)st.st_nlink);
    T(mq_send(q, "low", 3, 1)); T(mq_send(q, "high", 4, 9)); T(mq_send(q, "low2", 4, 1)); T(mq_send(q, "", 0, 5));
    attr(q); look(q);
    T(mq_send(q, b, 101, 1));
    T(mq_send(q, "x", 1, 32768));
    T(mq_send(q, BAD, 3, 1));
    t = in(30); T(mq_timedsend(q, "more", 4, 1, &t));
    t = (struct timespec){ 1, 0 }; T(mq_timedsend(q, "more", 4, 1, &t));
    t = (struct timespec){ 1, 1000000000 }; T(mq_timedsend(q, "more", 4, 1, &t));
    t = (struct timespec){ -1, 0 }; T(mq_timedsend(q, "more", 4, 1, &t));
    T(SYS(mq_timedsend, q, "x", 1, 1, BAD));
    struct pollfd p = { q, POLLIN | POLLOUT, 0 };
    T(poll(&p, 1, 0)); V(p.revents);
    T(mq_receive(q, b, 99, &pr));
    for (int i = 0; i < 4; i++) { memset(b, 0, 10); pr = 77; T(mq_receive(q, b, sizeof b, i == 2 ? NULL : &pr)); printf("  %u \"%s\"\n", pr, b); }
    t = in(30); T(mq_timedreceive(q, b, sizeof b, &pr, &t));
    T(poll(&p, 1, 0)); V(p.revents);
    struct mq_attr s = { .mq_flags = O_NONBLOCK, .mq_maxmsg = 99 }, old;
    T(mq_setattr(q, &s, &old)); printf("%ld\n", old.mq_flags); attr(q);
    T(mq_receive(q, b, sizeof b, &pr));
    for (int i = 0; i < 5; i++) T(mq_send(q, "n", 1, 0));
    s.mq_flags = O_APPEND; T(mq_setattr(q, &s, 0));
    T(SYS(mq_getsetattr, q, BAD, 0)); T(SYS(mq_getsetattr, q, 0, BAD));
    s.mq_flags = 0; T(mq_setattr(q, &s, 0));
    while (fcntl(q, F_SETFL, O_NONBLOCK), mq_receive(q, b, sizeof b, 0) >= 0) {}
    fcntl(q, F_SETFL, 0);
    /* rights of the descriptor, and other files */
    mqd_t r = mq_open(n, O_RDONLY), w = mq_open(n, O_WRONLY | O_NONBLOCK);
    T(mq_send(r, "x", 1, 0)); T(mq_receive(w, b, sizeof b, 0));
    int null = open("/dev/null", O_RDWR);
    T(mq_send(null, "x", 1, 0)); T(mq_receive(null, b, sizeof b, 0)); T(mq_send(-1, "x", 1, 0)); T(SYS(mq_getsetattr, null, 0, 0)); T(mq_notify(null, 0));
    T(write(w, "x", 1)); T(ftruncate(q, 0)); OK(mmap(0, 4096, PROT_READ, MAP_SHARED, q, 0));
    /* notification */
    struct sigaction sa = { .sa_sigaction = on, .sa_flags = SA_SIGINFO };
    sigaction(SIGUSR1, &sa, 0);
    struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42 };
    T(mq_notify(q, &e)); T(mq_notify(q, &e)); look(q);
    T(mq_send(q, "a", 1, 0)); V(got); look(q);
    T(mq_send(q, "b", 1, 0)); V(got);
    T(mq_notify(q, &e)); T(mq_send(q, "c", 1, 0)); V(got);
    T(mq_receive(q, b, sizeof b, 0)); T(mq_receive(q, b, sizeof b, 0)); T(mq_receive(q, b, sizeof b, 0));
    fflush(stdout);
    if (!fork()) { mq_send(q, "from child", 10, 3); _exit(0); }
    while (wait(0) < 0) {}
    V(got); T(mq_receive(q, b, sizeof b, 0));
    T(mq_notify(q, &e)); T(mq_notify(q, 0)); T(mq_notify(q, 0)); T(mq_send(q, "d", 1, 0)); V(got); T(mq_receive(q, b, sizeof b, 0));
    e.sigev_signo = 99; T(mq_notify(q, &e));
    e.sigev_notify = 77; T(mq_notify(q, &e));
    e.sigev_notify = SIGEV_NONE; T(mq_notify(q, &e)); look(q);
    fflush(stdout);
    if (!fork()) { look(q); T(mq_notify(q, &e)); T(mq_notify(q, 0)); T(mq_notify(q, &e)); fflush(stdout); _exit(0); }
    wait(0);
    T(close(r)); look(q);   /* any descriptor of the process that is closed takes it away */
    e.sigev_notify = SIGEV_SIGNAL; e.sigev_signo = SIGUSR1;
    T(mq_notify(q, &e));
    fflush(stdout);
    /* whoever waits for a message gets it, and nobody is told */
    if (!fork()) { long l = mq_receive(q, b, sizeof b, &pr); _exit(l == 4 && !memcmp(b, "wake", 4) ? 3 : 4); }
    usleep(100000);
    got = 0; T(mq_send(q, "wake", 4, 2)); int ws; while (wait(&ws) < 0) {} V(ws >> 8); V(got); look(q);
    T(mq_notify(q, 0));
    /* a full queue: the sender waits */
    for (int i = 0; i < 4; i++) T(mq_send(q, "f", 1, 0));
    fflush(stdout);
    if (!fork()) _exit(mq_send(q, "last", 4, 0) ? 4 : 3);
    usleep(100000);
    T(mq_receive(q, b, sizeof b, 0)); wait(&ws); V(ws >> 8);
    attr(q);
    /* interrupted */
    struct itimerval it = { .it_value.tv_usec = 30000 };
    struct sigaction al = { .sa_handler = nothing };
    while (fcntl(q, F_SETFL, O_NONBLOCK), mq_receive(q, b, sizeof b, 0) >= 0) {}
    fcntl(q, F_SETFL, 0);
    sigaction(SIGALRM, &al, 0);
    setitimer(ITIMER_REAL, &it, 0); T(mq_receive(q, b, sizeof b, 0));
    t = in(5000); setitimer(ITIMER_REAL, &it, 0); T(mq_timedreceive(q, b, sizeof b, 0, &t));
    al.sa_flags = SA_RESTART; sigaction(SIGALRM, &al, 0);
    t = in(200); setitimer(ITIMER_REAL, &it, 0); T(mq_timedreceive(q, b, sizeof b, 0, &t));
    /* other users, unlink, limits */
    fflush(stdout);
    if (!fork()) {
        T(setresgid(1000, 1000, 1000)); T(setresuid(1000, 1000, 1000));
        T(mq_open(n, O_RDONLY)); T(mq_unlink(n)); OK(mq_open(m, O_RDWR | O_CREAT, 0666, 0));
        struct mq_attr big = { .mq_maxmsg = 11, .mq_msgsize = 100 };
        T(mq_open("/guest-big", O_RDWR | O_CREAT, 0600, &big));
        big.mq_maxmsg = 10; big.mq_msgsize = 8193;
        T(mq_open("/guest-big", O_RDWR | O_CREAT, 0600, &big));
        int made = 0; char name[30];
        for (; made < 50; made++) { sprintf(name, "/guest-%d", made); if (mq_open(name, O_RDWR | O_CREAT, 0600, 0) < 0) break; }
        printf("%d more, then %s\n", made, strerrorname_np(errno));
        for (int i = 0; i < made; i++) { sprintf(name, "/guest-%d", i); mq_unlink(name); }
        T(mq_unlink(m));
        fflush(stdout); _exit(0);
    }
    wait(0);
    T(mq_unlink(m));
    T(mq_unlink(n)); T(mq_unlink(n)); T(mq_open(n, O_RDWR));
    T(fstat(q, &st)); V(st.st_nlink);
    T(mq_send(q, "still", 5, 0)); T(mq_receive(q, b, sizeof b, 0));
    T(close(q)); T(mq_receive(q, b, sizeof b, 0));
    for (char **f = (char *[]){ "msg_max", "msg_default", "msgsize_max", "msgsize_default", "queues_max", 0 }; *f; f++) {
        char path[80]; long v = -1;
        sprintf(path, "/proc/sys/fs/mqueue/%s", *f);
        FILE *fp = fopen(path, "r");
        if (fp) { if (fscanf(fp, "%ld", &v) != 1) v = -2; fclose(fp); }
        printf("%s %ld\n", *f, v);
    }
    return 0;
}
