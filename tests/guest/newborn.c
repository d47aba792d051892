/* The memory of a process that was forked just now, or runs another program just now, is there for who looks: all of it, or what was before. */
#include "guest.h"
static char mark[64] = "of the parent";
static int line(pid_t p, const char *name, char *to, int room) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", p, name);
    int f = open(path, O_RDONLY), n = f < 0 ? -1 : read(f, to, room);
    if (f >= 0) close(f);
    return n;
}
int main(int argc, char **argv) {
    if (argc > 1) { pause(); return 0; }
    char own[4096], other[4096], environ_[4096];
    int len = line(getpid(), "cmdline", own, sizeof own), env = line(getpid(), "environ", environ_, sizeof environ_);
    long bad[6] = { 0 };
    for (int i = 0; i < 300; i++) {
        snprintf(mark, sizeof mark, "the %dth", i);
        pid_t p = fork();
        if (!p) { pause(); _exit(0); }
        char got[64] = "";
        struct iovec here = { got, sizeof got }, there = { mark, sizeof mark };
        if (i % 2 && (process_vm_readv(p, &here, 1, &there, 1, 0) != sizeof got || strcmp(got, mark))) bad[0]++;
        if (line(p, "cmdline", other, sizeof other) != len || memcmp(own, other, len)) bad[1]++;
        if (line(p, "environ", other, sizeof other) != env || memcmp(environ_, other, env)) bad[2]++;
        char path[64]; snprintf(path, sizeof path, "/proc/%d/mem", p);
        int f = open(path, O_RDWR);
        if (pread(f, got, sizeof got, (long)mark) != sizeof got || strcmp(got, mark)) bad[3]++;
        if (pwrite(f, "written", 8, (long)mark) != 8 || pread(f, got, 8, (long)mark) != 8 || strcmp(got, "written")) bad[4]++;
        close(f);
        kill(p, SIGKILL); waitpid(p, 0, 0);
    }
    for (int i = 0; i < 40; i++) {
        pid_t p = fork();
        if (!p) { execl("/proc/self/exe", "another", "name", NULL); _exit(1); }
        /* Either the whole old line or the whole new one. */
        for (int after = 0, n = 0; n < 100000; n++) {
            int l = line(p, "cmdline", other, sizeof other);
            int old = l == len && !memcmp(other, own, len), new = l == 13 && !memcmp(other, "another\0name", 13);
            /* There may be a moment without any. */
            if (l && (!old && !new || after && !new)) { bad[5]++; break; }
            after |= new;
            if (new && n % 7 == 0) break;
        }
        kill(p, SIGKILL); waitpid(p, 0, 0);
    }
    for (int i = 0; i < 6; i++) V(bad[i]);
    return 0;
}
