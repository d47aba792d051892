/* System V semaphores: sets, operations all or none, waiting, undoing, counts, removal under waiters. */
#include "guest.h"
#include <sys/ipc.h>
#include <sys/sem.h>
union semun { int val; struct semid_ds *buf; unsigned short *array; struct seminfo *info; };
#define OPS(...) ((struct sembuf[]){__VA_ARGS__}), sizeof((struct sembuf[]){__VA_ARGS__}) / sizeof(struct sembuf)

static void tell(int id, const char *what) {
    unsigned short v[8] = {0}; struct semid_ds d; union semun u = {.buf = &d};
    if (semctl(id, 0, IPC_STAT, u)) { printf("%s: %s\n", what, strerrorname_np(errno)); return; }
    u.array = v; semctl(id, 0, GETALL, u);
    printf("%s: mode %o nsems %d times %d%d values", what, d.sem_perm.mode, (int)d.sem_nsems, d.sem_otime != 0, d.sem_ctime != 0);
    for (int i = 0; i < (int)d.sem_nsems && i < 8; i++) printf(" %d(%d,%d%s)", v[i], semctl(id, i, GETNCNT), semctl(id, i, GETZCNT), semctl(id, i, GETPID) == getpid() ? ",me" : semctl(id, i, GETPID) ? ",other" : "");
    printf("\n");
}
static int until(int id, int n, int what, int count) { for (int i = 0; i < 2000; i++) { if (semctl(id, n, what) == count) return 1; usleep(1000); } return 0; }
static void nothing(int s) {}

int main(void) {
    int key = 0x5a5b1234, st; union semun u; struct semid_ds d; pid_t c;
    semctl(semget(key, 0, 0), 0, IPC_RMID);
    T(semget(key, 3, 0)); T(semget(key, 0, IPC_CREAT | 0600)); T(semget(key, -1, IPC_CREAT | 0600)); T(semget(key, 32001, IPC_CREAT | 0600));
    int id = semget(key, 4, IPC_CREAT | IPC_EXCL | 0640); V(id >= 0); T(semget(key, 4, IPC_CREAT | IPC_EXCL | 0640)); V(semget(key, 0, 0) == id); V(semget(key, 2, 0600) == id); T(semget(key, 5, 0)); tell(id, "new");
    /* Values. */
    u.val = 5; T(semctl(id, 0, SETVAL, u)); u.val = 32767; T(semctl(id, 1, SETVAL, u)); u.val = 32768; T(semctl(id, 1, SETVAL, u)); u.val = -1; T(semctl(id, 1, SETVAL, u)); u.val = 1; T(semctl(id, 4, SETVAL, u)); T(semctl(id, -1, SETVAL, u));
    T(semctl(id, 4, GETVAL)); T(semctl(id, -1, GETNCNT)); T(semctl(id, 0, 99)); T(semctl(-1, 0, GETVAL)); T(semctl(0x7fffffff, 0, GETVAL)); tell(id, "set");
    unsigned short all[4] = {1, 2, 3, 0}; u.array = all; T(semctl(id, 0, SETALL, u)); tell(id, "all"); all[2] = 40000; T(semctl(id, 0, SETALL, u)); u.array = BAD; T(semctl(id, 0, SETALL, u)); T(semctl(id, 0, GETALL, u)); T(semctl(id, 0, IPC_STAT, u)); T(semctl(id, 0, IPC_SET, u));
    /* Operations. */
    T(semop(id, OPS({0, -1, 0}))); T(semop(id, OPS({0, -1, IPC_NOWAIT}))); T(semop(id, OPS({1, -2, 0}, {2, -4, IPC_NOWAIT}))); tell(id, "none"); T(semop(id, OPS({1, -2, 0}, {2, -3, IPC_NOWAIT}, {0, 7, 0}))); tell(id, "done");
    T(semop(id, OPS({0, 0, IPC_NOWAIT}))); T(semop(id, OPS({1, 0, IPC_NOWAIT}, {1, 1, 0}, {1, -1, 0}, {1, 0, 0}))); T(semop(id, OPS({0, 32767, 0}))); T(semop(id, OPS({4, 1, 0}))); T(semop(id, OPS({0, -9, IPC_NOWAIT}, {9, 1, 0})));
    T(semop(id, 0, 0)); T(semop(id, BAD, 1)); struct sembuf many[501] = {{0}}; T(semop(id, many, 501)); for (int i = 0; i < 500; i++) many[i] = (struct sembuf){3, i % 2 ? -1 : 1, 0}; T(semop(id, many, 500)); T(semop(-1, many, 1)); T(semop(0x7fffffff, many, 1)); tell(id, "still");
    /* Waiting: to rise, for zero, both, with a limit, interrupted. */
    if (!(c = fork())) _exit(semop(id, OPS({3, -2, 0})) ? errno : 0);
    V(until(id, 3, GETNCNT, 1)); T(semop(id, OPS({3, 1, 0}))); usleep(20000); V(semctl(id, 3, GETNCNT)); T(semop(id, OPS({3, 1, 0}))); waitpid(c, &st, 0); V(WEXITSTATUS(st)); tell(id, "risen");
    if (!(c = fork())) _exit(semop(id, OPS({0, 0, 0}, {0, 5, 0})) ? errno : 0);
    V(until(id, 0, GETZCNT, 1)); T(semop(id, OPS({0, -7, 0}))); waitpid(c, &st, 0); V(WEXITSTATUS(st)); tell(id, "zero");
    struct timespec t = {0, 30000000}; struct timespec a, b; clock_gettime(CLOCK_MONOTONIC, &a); T(semtimedop(id, OPS({3, -1, 0}), &t)); clock_gettime(CLOCK_MONOTONIC, &b); V((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 30); tell(id, "late");
    t.tv_nsec = 0; T(semtimedop(id, OPS({3, -1, 0}), &t)); t.tv_nsec = -1; T(semtimedop(id, OPS({3, -1, 0}), &t)); t.tv_nsec = 1000000000; T(semtimedop(id, OPS({0, -1, 0}), &t)); T(semtimedop(id, OPS({0, -1, 0}), BAD)); T(semtimedop(id, OPS({0, -1, 0}), 0));
    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART}; sigaction(SIGALRM, &sa, 0); struct itimerval it = {{0, 0}, {0, 30000}}; setitimer(ITIMER_REAL, &it, 0); T(semop(id, OPS({3, -1, 0}))); tell(id, "interrupted"); alarm(60);
    pid_t kids[10]; for (int i = 0; i < 10; i++) if (!(kids[i] = fork())) { for (int k = 0; k < 50; k++) { if (semop(id, OPS({3, -1, 0}))) _exit(errno); if (semop(id, OPS({3, 1, 0}))) _exit(errno); } _exit(0); }
    T(semop(id, OPS({3, 1, 0}))); for (int i = 0; i < 10; i++) { waitpid(kids[i], &st, 0); if (st) V(st); } V(semctl(id, 3, GETVAL)); V(semctl(id, 3, GETNCNT));
    /* Undone at the end of the process, however it ends; not by its threads; not inherited; forgotten when set. */
    u.array = (unsigned short[]){4, 4, 4, 4}; semctl(id, 0, SETALL, u);
    if (!(c = fork())) { semop(id, OPS({0, -2, SEM_UNDO}, {1, 3, SEM_UNDO}, {2, -1, 0})); if (!fork()) _exit(0); wait(0); tell(id, "inside"); kill(getpid(), 9); } waitpid(c, &st, 0); tell(id, "undone");
    if (!(c = fork())) { semop(id, OPS({0, -2, SEM_UNDO})); semop(id, OPS({0, 2, SEM_UNDO})); semop(id, OPS({1, 4, SEM_UNDO})); semop(id, OPS({1, -8, 0})); _exit(0); } waitpid(c, &st, 0); tell(id, "clamped");
    if (!(c = fork())) { semop(id, OPS({0, -4, SEM_UNDO}, {2, -1, SEM_UNDO})); u.val = 2; semctl(id, 0, SETVAL, u); _exit(0); } waitpid(c, &st, 0); tell(id, "forgotten");
    if (!(c = fork())) { u.val = 0; semctl(id, 1, SETVAL, u); T(semop(id, OPS({1, 32767, SEM_UNDO}))); T(semop(id, OPS({1, -32767, 0}))); T(semop(id, OPS({1, 2, SEM_UNDO}))); fflush(stdout); _exit(0); } waitpid(c, &st, 0); tell(id, "range");
    if (!(c = fork())) { semop(id, OPS({3, -4, SEM_UNDO})); pause(); } V(until(id, 3, GETVAL, 0)); pid_t w; if (!(w = fork())) _exit(semop(id, OPS({3, -1, 0})) ? errno : 0); V(until(id, 3, GETNCNT, 1)); kill(c, 9); waitpid(w, &st, 0); V(WEXITSTATUS(st)); waitpid(c, 0, 0); tell(id, "woken by an end");
    if (!(c = fork())) { semop(id, OPS({3, 1, SEM_UNDO})); execl("/bin/sh", "sh", "-c", "exit 3", (char *)0); } waitpid(c, &st, 0); V(WEXITSTATUS(st)); tell(id, "exec");
    /* Permissions. */
    u.buf = &d; semctl(id, 0, IPC_STAT, u); d.sem_perm.mode = 0644; d.sem_perm.uid = 1000; T(semctl(id, 0, IPC_SET, u)); V(d.sem_perm.uid); fflush(stdout);
    if (!fork()) { setgid(2000); setuid(2000); T(semop(id, OPS({0, 0, IPC_NOWAIT}))); T(semop(id, OPS({0, 1, IPC_NOWAIT}))); T(semctl(id, 0, GETVAL)); u.val = 1; T(semctl(id, 0, SETVAL, u)); T(semctl(id, 0, IPC_RMID)); T(semget(key, 1, 0600)); V(semget(key, 1, 0444) == id); T(semop(id, OPS({7, 1, 0}))); fflush(stdout); _exit(0); } wait(0);
    struct seminfo info; u.info = &info; V(semctl(0, 0, IPC_INFO, u) >= 0); V(info.semmni); V(info.semmsl); V(info.semopm); V(info.semvmx); int most = semctl(0, 0, SEM_INFO, u); V(info.semusz >= 1); V(info.semaem >= 4);
    u.buf = &d; int found = 0; for (int i = 0; i <= most; i++) found += semctl(i, 0, SEM_STAT, u) == id; V(found);
    /* Removed under those who wait. */
    for (int i = 0; i < 3; i++) if (!(kids[i] = fork())) _exit(semop(id, OPS({3, (short)(i == 2 ? 0 : -100), 0})) ? errno : 0);
    V(until(id, 3, GETNCNT, 2)); V(until(id, 3, GETZCNT, 1)); T(semctl(id, 0, IPC_RMID)); for (int i = 0; i < 3; i++) { waitpid(kids[i], &st, 0); printf("%s\n", strerrorname_np(WEXITSTATUS(st))); }
    tell(id, "removed"); T(semop(id, OPS({0, 1, 0}))); T(semctl(id, 0, IPC_RMID)); T(semget(key, 1, 0));
    int p1 = semget(IPC_PRIVATE, 1, 0600), p2 = semget(IPC_PRIVATE, 1, 0600); V(p1 != p2); semctl(p1, 0, IPC_RMID); semctl(p2, 0, IPC_RMID);
    FILE *f = fopen("/proc/sysvipc/sem", "r"); char l[400]; fgets(l, sizeof l, f); printf("%s", l); fclose(f);
    return 0;
}
