/* System V shared memory: keys, permissions, attaching at all kinds of addresses, what forks, ends and removal do. */
#include "guest.h"
#include <sys/ipc.h>
#include <sys/shm.h>

static void tell(int id, const char *what) {
    struct shmid_ds d;
    if (shmctl(id, IPC_STAT, &d)) { printf("%s: %s\n", what, strerrorname_np(errno)); return; }
    printf("%s: key %d uid %d gid %d cuid %d cgid %d mode %o size %zu mine %d last %d attached %d times %d%d%d nattch %d\n", what,
           (int)d.shm_perm.__key, d.shm_perm.uid, d.shm_perm.gid, d.shm_perm.cuid, d.shm_perm.cgid, d.shm_perm.mode, d.shm_segsz,
           d.shm_cpid == getpid(), d.shm_lpid == getpid(), d.shm_lpid != 0, d.shm_atime != 0, d.shm_dtime != 0, d.shm_ctime != 0,
           (int)d.shm_nattch);
}

static void maps(const char *what) {
    FILE *f = fopen("/proc/self/maps", "r"); char l[400]; int n = 0;
    while (fgets(l, sizeof l, f)) if (strstr(l, "SYSV")) { n++; char *p = strstr(l, "/SYSV"); char perms[5] = {0}; memcpy(perms, strchr(l, ' ') + 1, 4); printf("%s: %s %s", what, perms, p); }
    fclose(f); printf("%s: %d mappings\n", what, n);
}

static void force(char c) {
    int fd = open("/proc/sys/kernel/shm_rmid_forced", O_RDWR); T(write(fd, &c, 1)); char r[8] = {0}; T(pread(fd, r, 8, 0)); V(r[0]); close(fd);
}

/* In a namespace of its own, as it is set there: segments go with their last mapping, or with who made them. */
static void forced(void) {
    T(unshare(CLONE_NEWIPC)); force('0'); force('2');
    int early = shmget(1, 4096, IPC_CREAT | 0600), mapped = shmget(2, 4096, IPC_CREAT | 0600), st; char *a = shmat(mapped, 0, 0);
    fflush(stdout);
    if (!fork()) { shmget(3, 4096, IPC_CREAT | 0600); shmget(4, 4096, IPC_CREAT | 0600); _exit(0); }
    wait(&st); int orphan = shmget(3, 0, 0); V(orphan >= 0); char *b = shmat(orphan, 0, 0); V(shmget(4, 0, 0) >= 0);
    force('1');
    tell(early, "mine"); V(shmget(2, 0, 0) == mapped); V(shmget(3, 0, 0) == orphan); T(shmget(4, 0, 0));
    shmdt(a); tell(mapped, "no mapping"); T(shmget(2, 0, 0)); shmdt(b); tell(orphan, "no mapping of another's");
    a = shmat(early, 0, 0); a[0] = 'e'; tell(early, "first mapping"); b = shmat(early, 0, 0); shmdt(a); V(b[0]); shmdt(b); tell(early, "last mapping");
    int p[2]; pipe(p); fflush(stdout);
    if (!fork()) { int id = shmget(5, 4096, IPC_CREAT | 0600); write(p[1], &id, sizeof id); tell(id, "child's"); fflush(stdout); _exit(0); }
    int id; read(p[0], &id, sizeof id); wait(&st); tell(id, "its maker ended"); T(shmget(5, 0, 0));
    id = shmget(6, 4096, IPC_CREAT | 0600); a = shmat(id, 0, 0); force('0'); shmdt(a); tell(id, "forced no more"); T(shmctl(id, IPC_RMID, 0));
    fflush(stdout); _exit(0);
}

int main(void) {
    int key = 0x5a5a1234, st;
    shmctl(shmget(key, 0, 0), IPC_RMID, 0);
    T(shmget(key, 100, 0)); T(shmget(key, 0, IPC_CREAT | 0600)); T(shmget(key, -1, IPC_CREAT | 0600));
    int id = shmget(key, 10000, IPC_CREAT | IPC_EXCL | 0640); V(id >= 0);
    T(shmget(key, 10000, IPC_CREAT | IPC_EXCL | 0640)); V(shmget(key, 10000, 0) == id); V(shmget(key, 1, 0600) == id); V(shmget(key, 0, 0) == id); T(shmget(key, 10001, 0)); T(shmget(key, 12288, 0));
    tell(id, "new");
    int other = shmget(IPC_PRIVATE, 4096, 0600); V(other != id); tell(other, "private");
    /* Addresses. */
    char *a = shmat(id, 0, 0); V(a != (char *)-1); V((unsigned long)a % 4096); strcpy(a, "hello"); strcpy(a + 9999, "x"); V(a[12287]);
    char *b = shmat(id, 0, SHM_RDONLY); V(a != b); S(b); tell(id, "twice");
    T((long)shmat(id, a, 0)); T((long)shmat(id, a + 1, 0)); T((long)shmat(id, a + 1, SHM_REMAP) == -1 ? -1 : 0); T((long)shmat(id, 0, SHM_REMAP));
    V(shmat(other, a + 5, SHM_RND | SHM_REMAP) == a); V(a[0]); S(b); tell(id, "over"); tell(other, "other");
    T((long)shmat(-1, 0, 0)); T((long)shmat(0x7fffffff, 0, 0)); T((long)shmat(id, (void *)0x7fffffffffff000, 0) == -1 ? -1 : 0);
    T(shmdt(a + 4096)); T(shmdt(a + 1)); T(shmdt(&st)); T(shmdt(0));
    T(shmdt(b)); T(shmdt(b)); T(shmdt(a)); tell(id, "after"); maps("after");
    /* A hole in the middle: both ends go. */
    a = shmat(id, 0, 0); munmap(a + 4096, 4096); tell(id, "holed"); a[0] = 'h'; a[8192] = 'i'; T(shmdt(a)); tell(id, "whole"); maps("holed");
    /* Protection. */
    b = shmat(id, 0, SHM_RDONLY); T(mprotect(b, 4096, PROT_READ | PROT_WRITE)); T(mprotect(b, 4096, PROT_NONE)); T(mprotect(b, 4096, PROT_READ)); V(b[0]);
    if (!fork()) { b[0] = 1; _exit(0); } wait(&st); V(WTERMSIG(st)); shmdt(b);
    int text = shmget(IPC_PRIVATE, 4096, 0777); a = shmat(text, 0, SHM_EXEC); shmctl(text, IPC_RMID, 0); maps("exec"); memcpy(a, "\xb8\x2a\0\0\0\xc3", 6); V(((int (*)(void))a)()); shmdt(a);
    /* Shared by copies of the process, not by a new program. */
    a = shmat(id, 0, 0); memset(a, 0, 10000);
    int p[2], q[2]; pipe(p); pipe(q); char c;
    if (!fork()) { a[1] = 'c'; write(p[1], "x", 1); read(q[0], &c, 1); V(a[2]); fflush(stdout); shmdt(a); tell(id, "child"); _exit(0); }
    read(p[0], &c, 1); V(a[1]); tell(id, "forked"); a[2] = 'p'; write(q[1], "x", 1); wait(&st); tell(id, "joined");
    if (!fork()) { execl("/bin/sh", "sh", "-c", "grep -c SYSV /proc/self/maps", (char *)0); _exit(1); } fflush(stdout); wait(&st);
    /* A futex in it, from another address. */
    int *word = shmat(id, 0, 0); V((char *)word != a); *word = 1;
    if (!fork()) { usleep(30000); word[0] = 2; _exit(SYS(futex, (int *)a, 1, 1, 0, 0, 0)); }
    T(SYS(futex, word, 0, 1, 0, 0, 0)); V(*word); wait(&st); V(WEXITSTATUS(st)); shmdt(word);
    /* Removal with mappings: no key, still there by its number until the last is gone. */
    T(shmctl(id, IPC_RMID, 0)); tell(id, "removed"); T(shmget(key, 100, 0)); a[3] = 'r'; b = shmat(id, 0, 0); V(b != (char *)-1); V(b[3]); shmdt(b);
    V(shmget(key, 100, IPC_CREAT | 0600) != id);
    if (!fork()) _exit(0); wait(&st); tell(id, "still"); T(shmdt(a)); tell(id, "gone"); OK((long)shmat(id, 0, 0)); T(shmctl(id, IPC_RMID, 0));
    T(shmctl(shmget(key, 100, 0), IPC_RMID, 0)); T(shmget(key, 100, 0));
    T(shmctl(other, IPC_RMID, 0)); tell(other, "other gone");
    id = shmget(IPC_PRIVATE, 4096, 0600); a = shmat(id, 0, 0); shmctl(id, IPC_RMID, 0);
    if (!(st = fork())) { shmdt(a); tell(id, "parent's"); _exit(0); } waitpid(st, &st, 0); munmap(a, 4096); tell(id, "unmapped");
    /* Changing it. */
    id = shmget(IPC_PRIVATE, 5000, 0600); struct shmid_ds d; shmctl(id, IPC_STAT, &d); d.shm_perm.mode = 0100755; d.shm_perm.uid = 1000; d.shm_perm.gid = 1001; T(shmctl(id, IPC_SET, &d)); tell(id, "set");
    T(shmctl(id, SHM_LOCK, 0)); tell(id, "locked"); T(shmctl(id, SHM_UNLOCK, 0)); tell(id, "unlocked");
    T(shmctl(id, 99, 0)); T(shmctl(-1, IPC_STAT, &d)); T(shmctl(id, IPC_STAT, BAD)); T(shmctl(id, IPC_SET, BAD)); T(shmctl(id, -1, 0));
    struct shminfo info; V(shmctl(0, IPC_INFO, (void *)&info) >= 0); V(info.shmmin); V(info.shmmni); V(info.shmmax > 1UL << 60);
    struct shm_info used; int most = shmctl(0, SHM_INFO, (void *)&used); V(most >= 0); V(used.used_ids > 0); V(used.shm_tot >= 2);
    int found = 0; for (int i = 0; i <= most; i++) { int n = shmctl(i, SHM_STAT, &d); found += n == id; } V(found);
    /* Another user. */
    fflush(stdout);
    if (!fork()) {
        setgid(2000); setuid(2000); T((long)shmat(id, 0, 0)); a = shmat(id, 0, SHM_RDONLY); V(a != (char *)-1); T(shmctl(id, IPC_RMID, 0)); T(shmctl(id, IPC_SET, &d)); T(shmctl(id, SHM_LOCK, 0)); tell(id, "seen");
        fflush(stdout); _exit(0);
    }
    wait(&st); d.shm_perm.mode = 0600; shmctl(id, IPC_STAT, &d); d.shm_perm.mode = 0600; shmctl(id, IPC_SET, &d);
    if (!fork()) { setgid(2000); setuid(2000); T((long)shmat(id, 0, SHM_RDONLY)); T(shmctl(id, IPC_STAT, &d)); for (int i = 0, n = 0; i <= most; i++) if (shmctl(i, 15, &d) == id) V(++n); fflush(stdout); _exit(0); }
    wait(&st);
    if (!fork()) { setgid(1001); setuid(1000); T(shmctl(id, IPC_STAT, &d)); V((d.shm_perm.mode & 0777)); T(shmctl(id, IPC_RMID, 0)); fflush(stdout); _exit(0); }
    wait(&st); tell(id, "at last");
    fflush(stdout); if (!fork()) forced(); wait(&st); V(st);
    FILE *f = fopen("/proc/sysvipc/shm", "r"); char l[400]; fgets(l, sizeof l, f); printf("%s", l); fclose(f);
    return 0;
}
