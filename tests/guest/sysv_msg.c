/* System V message queues: types, limits, waiting, copies, removal under waiters. */
#include "guest.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
struct m { long type; char text[9000]; };
static struct m m;
static int snd(int id, long type, const char *text, int flags) { m.type = type; strcpy(m.text, text); return msgsnd(id, &m, strlen(text), flags); }
static void rcv(int line, int id, size_t size, long type, int flags) {
    memset(&m, 0, sizeof m); long r = msgrcv(id, &m, size, type, flags);
    if (r < 0) printf("%d rcv %zu %ld %o: %s\n", line, size, type, flags, strerrorname_np(errno)); else printf("%d rcv %zu %ld %o: %ld of %ld \"%s\"\n", line, size, type, flags, r, m.type, m.text);
}
#define R(size, type, flags) rcv(__LINE__, id, size, type, flags)
static void tell(int id, const char *what) {
    struct msqid_ds d;
    if (msgctl(id, IPC_STAT, &d)) { printf("%s: %s\n", what, strerrorname_np(errno)); return; }
    printf("%s: mode %o messages %d bytes %d of %d sender %d receiver %d times %d%d%d\n", what, d.msg_perm.mode, (int)d.msg_qnum, (int)d.__msg_cbytes, (int)d.msg_qbytes, d.msg_lspid == getpid(), d.msg_lrpid == getpid(), d.msg_stime != 0, d.msg_rtime != 0, d.msg_ctime != 0);
}
static void nothing(int s) {}

int main(void) {
    int key = 0x5a5c1234, st; pid_t c, kids[20]; msgctl(msgget(key, 0), IPC_RMID, 0);
    T(msgget(key, 0)); int id = msgget(key, IPC_CREAT | IPC_EXCL | 0640); V(id >= 0); T(msgget(key, IPC_CREAT | IPC_EXCL)); V(msgget(key, 0600) == id); tell(id, "new");
    T(snd(id, 1, "one", 0)); T(snd(id, 3, "three", 0)); T(snd(id, 2, "two", 0)); T(snd(id, 1, "one more", 0)); T(snd(id, 5, "", 0)); tell(id, "filled");
    R(100, 4, IPC_NOWAIT); R(100, 0, MSG_COPY | IPC_NOWAIT); R(100, 3, MSG_COPY | IPC_NOWAIT); R(100, 9, MSG_COPY | IPC_NOWAIT); R(100, 0, MSG_COPY); R(100, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT);
    R(100, 2, 0); R(100, -2, 0); R(2, 0, 0); R(2, 0, MSG_NOERROR); R(100, 1, MSG_EXCEPT); R(100, -9, 0); tell(id, "none left"); T(snd(id, 5, "", 0)); R(0, 0, 0); R(100, 0, IPC_NOWAIT); R(100, LONG_MIN, IPC_NOWAIT); tell(id, "empty");
    T(snd(id, 0, "x", 0)); T(snd(id, -1, "x", 0)); T(msgsnd(id, &m, 8193, 0)); T(msgsnd(id, &m, -1, 0)); T(msgsnd(id, BAD, 1, 0)); T(msgsnd(-1, &m, 1, 0)); m.type = 1; T(msgsnd(0x7fffffff, &m, 1, 0)); T(msgrcv(0x7fffffff, &m, 1, 0, 0)); T(msgrcv(id, &m, -1, 0, 0)); T(msgrcv(-1, &m, 1, 0, 0));
    T(snd(id, 7, "lost", 0)); T(msgrcv(id, BAD, 10, 0, 0)); R(100, 0, IPC_NOWAIT);
    /* Full. */
    m.type = 1; memset(m.text, 'a', 8192); T(msgsnd(id, &m, 8192, IPC_NOWAIT)); T(msgsnd(id, &m, 8192, IPC_NOWAIT)); T(msgsnd(id, &m, 1, IPC_NOWAIT)); T(msgsnd(id, &m, 0, IPC_NOWAIT)); tell(id, "full");
    if (!(c = fork())) _exit(snd(id, 9, "late", 0) ? errno : 0); usleep(150000); tell(id, "waiting"); V(msgrcv(id, &m, 9000, 0, 0)); waitpid(c, &st, 0); V(st); V(msgrcv(id, &m, 9000, 0, 0)); R(10, 0, 0); R(10, 0, 0); R(10, 0, IPC_NOWAIT);
    int n = 0; while (!msgsnd(id, &m, 0, IPC_NOWAIT)) n++; V(n); while (msgrcv(id, &m, 10, 0, IPC_NOWAIT) >= 0) n--; V(n);
    /* Waiting for a type; woken in turn. */
    for (int i = 0; i < 3; i++) if (!(kids[i] = fork())) { long r = msgrcv(id, &m, 100, i + 1, 0); _exit(r < 0 ? errno : 100 + m.text[0] - '0'); }
    usleep(150000); T(snd(id, 3, "3", 0)); T(snd(id, 1, "1", 0)); T(snd(id, 2, "2", 0)); for (int i = 0; i < 3; i++) { waitpid(kids[i], &st, 0); V(WEXITSTATUS(st)); }
    for (int i = 0; i < 10; i++) if (!(kids[i] = fork())) { for (int k = 0; k < 100; k++) { if (snd(id, 1, "0123456789012345678901234567890123456789", 0)) _exit(1); } _exit(0); }
    for (int i = 10; i < 20; i++) if (!(kids[i] = fork())) { for (int k = 0; k < 100; k++) if (msgrcv(id, &m, 100, 0, 0) != 40) _exit(1); _exit(0); }
    for (int i = 0; i < 20; i++) { waitpid(kids[i], &st, 0); if (st) V(st); } R(100, 0, IPC_NOWAIT);
    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART}; sigaction(SIGALRM, &sa, 0); struct itimerval it = {{0, 0}, {0, 30000}}; setitimer(ITIMER_REAL, &it, 0); R(100, 0, 0); alarm(60);
    /* Changing it. */
    struct msqid_ds d; msgctl(id, IPC_STAT, &d); d.msg_qbytes = 5; d.msg_perm.mode = 0604; T(msgctl(id, IPC_SET, &d)); tell(id, "small"); T(snd(id, 1, "123456", IPC_NOWAIT)); T(snd(id, 1, "12345", IPC_NOWAIT)); T(snd(id, 1, "", IPC_NOWAIT));
    if (!(c = fork())) _exit(snd(id, 1, "678", 0) ? errno : 0); usleep(150000); d.msg_qbytes = 100; T(msgctl(id, IPC_SET, &d)); waitpid(c, &st, 0); V(st); tell(id, "bigger");
    T(msgctl(id, 99, &d)); T(msgctl(-1, IPC_STAT, &d)); T(msgctl(id, IPC_STAT, BAD)); T(msgctl(id, IPC_SET, BAD)); fflush(stdout);
    if (!fork()) { setgid(2000); setuid(2000); T(snd(id, 1, "x", 0)); R(100, 0, 0); T(msgctl(id, IPC_RMID, 0)); T(msgget(key, 0600)); V(msgget(key, 0400) == id); tell(id, "seen"); d.msg_qbytes = 16385; T(msgctl(id, IPC_SET, &d)); fflush(stdout); _exit(0); } wait(0);
    struct msginfo info; V(msgctl(0, IPC_INFO, (void *)&info) >= 0); V(info.msgmax); V(info.msgmnb); V(info.msgssz); int most = msgctl(0, MSG_INFO, (void *)&info); V(info.msgpool >= 1); V(info.msgmap >= 1); int found = 0; for (int i = 0; i <= most; i++) found += msgctl(i, MSG_STAT, &d) == id; V(found);
    /* Removed under those who wait. */
    while (msgrcv(id, &m, 100, 0, IPC_NOWAIT | MSG_NOERROR) >= 0) {} d.msg_qbytes = 3; msgctl(id, IPC_STAT, &d); d.msg_qbytes = 3; msgctl(id, IPC_SET, &d); snd(id, 1, "abc", 0);
    if (!(kids[0] = fork())) _exit(msgrcv(id, &m, 100, 8, 0) < 0 ? errno : 0); if (!(kids[1] = fork())) _exit(snd(id, 1, "x", 0) ? errno : 0);
    usleep(150000); T(msgctl(id, IPC_RMID, 0)); for (int i = 0; i < 2; i++) { waitpid(kids[i], &st, 0); printf("%s\n", strerrorname_np(WEXITSTATUS(st))); } tell(id, "removed"); T(snd(id, 1, "x", 0)); R(10, 0, 0); T(msgget(key, 0));
    FILE *f = fopen("/proc/sysvipc/msg", "r"); char l[400]; fgets(l, sizeof l, f); printf("%s", l); fclose(f);
    return 0;
}
