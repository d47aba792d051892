#include "guest.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
/* What /proc says of a process and of all of them, held against what the process did: memory it touched, time it used, bytes
 * it read, locks, timers, settings. Files one by one: kind, mode, what reading in pieces and writing come to. */
#define IN(...) do { fflush(stdout); int st_ = -1; pid_t c_ = fork(); if (!c_) { __VA_ARGS__; _exit(0); } waitpid(c_, &st_, 0); if (st_) printf("%d ended %x\n", __LINE__, st_); } while (0)
static char b[1 << 20];
static long got;
static char *rd(const char *name) {
    int f = open(name, O_RDONLY);
    long n = -1;
    got = 0;
    if (f < 0) printf("%s: %s\n", name, strerrorname_np(errno));
    while (f >= 0 && (n = read(f, b + got, sizeof b - 1 - got)) > 0) got += n;
    b[got] = 0;
    close(f);
    return b;
}
/* The number behind a name at the start of a line. */
static long num(const char *file, const char *key) {
    size_t k = strlen(key);
    for (char *p = rd(file); p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : 0)
        if (!strncmp(p, key, k) && strchr(": \t", p[k])) return strtol(p + k + strspn(p + k, ": \t"), 0, 10);
    return -1;
}
/* A field of a stat line, counted from 1. */
static long field(const char *file, int n) {
    char *p = strrchr(rd(file), ')') + 2;
    for (int i = 3; i < n; i++) p = strchr(p, ' ') + 1;
    return strtol(p, 0, 10);
}
static int put(const char *file, const char *what) {
    int f = open(file, O_WRONLY), e;
    if (f < 0) return -1;
    long n = write(f, what, strlen(what));
    e = errno;
    close(f);
    errno = e;
    return n < 0 ? -1 : 0;
}
/* The part of smaps that tells of the area at an address, and a line of it. */
static char *area(void *at) {
    for (char *p = rd("/proc/self/smaps"); *p; p = strchr(p, '\n') + 1) {
        unsigned long from;
        char c;
        if (sscanf(p, "%lx%c", &from, &c) == 2 && c == '-' && from == (unsigned long)at) return p;
    }
    return "";
}
static long of(void *at, const char *key) {
    char *p = area(at), want[64];
    sprintf(want, "\n%s:", key);
    p = strstr(p, want);
    return p ? strtol(p + strlen(want), 0, 10) : -1;
}
static void vmflags(int line, void *at) {
    char *p = strstr(area(at), "VmFlags:"), l[200] = "";
    if (p) sscanf(p + 8, "%199[^\n]", l);
    printf("%d flags", line);
    for (char *w = strtok(l, " "); w; w = strtok(0, " "))
        if (strstr("rd wr ex sh mr mw me ms gd lo dc wf", w)) printf(" %s", w);
    puts("");
}
#define F(at) vmflags(__LINE__, at)
/* A text with every number as 9. */
static void nines(const char *p) {
    for (; *p; p++) {
        if (*p < '0' || *p > '9') { putchar(*p); continue; }
        putchar('9');
        while (p[1] >= '0' && p[1] <= '9') p++;
    }
}
static void burn(clockid_t clock, long ms) {
    struct timespec a, n;
    clock_gettime(clock, &a);
    do clock_gettime(clock, &n); while ((n.tv_sec - a.tv_sec) * 1000 + (n.tv_nsec - a.tv_nsec) / 1000000 < ms);
}
static void kinds(const char *dir, char **names) {
    char t[200];
    struct stat s;
    printf("== %s\n", strstr(dir, "/task/") ? "task" : dir);
    for (; *names; names++) {
        sprintf(t, "%s/%s", dir, *names);
        if (lstat(t, &s)) { printf("%s: %s\n", *names, strerrorname_np(errno)); continue; }
        printf("%s %o size %s", *names, s.st_mode, S_ISDIR(s.st_mode) ? "-" : s.st_size ? "?" : "0");
        if (S_ISREG(s.st_mode)) {
            int r = open(t, O_RDONLY), w;
            printf(" read %s", r < 0 ? strerrorname_np(errno) : "ok");
            errno = 0;
            w = open(t, O_WRONLY);
            printf(" write %s", w < 0 ? strerrorname_np(errno) : "ok");
            errno = 0;
            if (r >= 0) { long n = lseek(r, 0, SEEK_END); printf(" end %s", n < 0 ? strerrorname_np(errno) : "ok"); }
            close(r);
            close(w);
        }
        puts("");
    }
}
/* Reading in pieces, by offset and beyond the end is reading the whole. */
static void pieces(const char *name) {
    static char whole[1 << 16], part[1 << 16];
    char c[16];
    int f = open(name, O_RDONLY);
    long n = 0, m = 0, k;
    while ((k = read(f, whole + n, sizeof whole - n)) > 0) n += k;
    lseek(f, 0, SEEK_SET);
    while ((k = read(f, part + m, 7)) > 0) m += k;
    printf("%s pieces %d", name, n == m && !memcmp(whole, part, n));
    k = pread(f, c, 5, 3);
    printf(" offset %d", n > 8 ? k == 5 && !memcmp(whole + 3, c, 5) : -1);
    printf(" end %ld beyond %ld\n", pread(f, c, 5, n), pread(f, c, 5, n + 100000));
    close(f);
}
static int ready;
static void *spin(void *x) {
    prctl(PR_SET_NAME, "spinner");
    ready = gettid();
    burn(CLOCK_THREAD_CPUTIME_ID, 200);
    ready = -ready;
    while (*(volatile int *)x) usleep(1000);
    return 0;
}
static int is(const char *dir, const char *name, const char *line) {
    char t[300];
    sprintf(t, "%s/%s", dir, name);
    return !strcmp(rd(t), line);
}
int main(void) {
    pid_t me = getpid();
    char t[300], x[4096];
    /* Files one by one. */
    kinds("/proc/self", (char *[]){"attr", "auxv", "cgroup", "clear_refs", "cmdline", "comm", "coredump_filter", "cpuset", "cwd", "environ", "exe", "fd", "fdinfo", "io", "limits", "loginuid", "map_files", "maps", "mountinfo", "mounts", "mountstats", "net", "ns", "numa_maps", "oom_adj", "oom_score", "oom_score_adj", "personality", "root", "sched", "schedstat", "sessionid", "smaps", "smaps_rollup", "stack", "stat", "statm", "status", "task", "timers", "timerslack_ns", "wchan", "children", "none", 0});
    sprintf(t, "/proc/self/task/%d", me);
    kinds(t, (char *[]){"auxv", "children", "clear_refs", "comm", "coredump_filter", "cwd", "fd", "fdinfo", "io", "limits", "map_files", "maps", "mountinfo", "mountstats", "numa_maps", "oom_adj", "oom_score_adj", "personality", "sched", "schedstat", "smaps", "smaps_rollup", "stack", "stat", "statm", "status", "task", "timers", "timerslack_ns", "wchan", 0});
    kinds("/proc", (char *[]){"cgroups", "consoles", "cpuinfo", "devices", "diskstats", "execdomains", "filesystems", "interrupts", "loadavg", "locks", "meminfo", "misc", "mounts", "net", "partitions", "self", "softirqs", "stat", "swaps", "sys", "sysvipc", "thread-self", "tty", "uptime", "version", "vmstat", 0});
    kinds("/proc/sys/fs", (char *[]){"dentry-state", "epoll", "file-max", "file-nr", "inode-nr", "inode-state", "inotify", "lease-break-time", "mount-max", "mqueue", "nr_open", "overflowgid", "overflowuid", "pipe-max-size", "pipe-user-pages-hard", "pipe-user-pages-soft", "protected_fifos", "protected_hardlinks", "protected_regular", "protected_symlinks", "suid_dumpable", 0});
    kinds("/proc/sys/vm", (char *[]){"admin_reserve_kbytes", "dirty_background_bytes", "dirty_background_ratio", "dirty_bytes", "dirty_expire_centisecs", "dirty_ratio", "drop_caches", "laptop_mode", "max_map_count", "min_free_kbytes", "mmap_min_addr", "nr_hugepages", "oom_dump_tasks", "oom_kill_allocating_task", "overcommit_kbytes", "overcommit_memory", "overcommit_ratio", "page-cluster", "panic_on_oom", "swappiness", "vfs_cache_pressure", "zone_reclaim_mode", 0});
    kinds("/proc/sys/kernel", (char *[]){"auto_msgmni", "cap_last_cap", "core_pattern", "core_pipe_limit", "core_uses_pid", "ctrl-alt-del", "dmesg_restrict", "domainname", "hostname", "kptr_restrict", "ngroups_max", "osrelease", "ostype", "overflowgid", "panic", "panic_on_oops", "pid_max", "printk", "printk_ratelimit", "pty", "random", "randomize_va_space", "sched_rr_timeslice_ms", "sysctl_writes_strict", "tainted", "threads-max", "version", 0});
    pieces("/proc/self/limits"), pieces("/proc/self/mountinfo"), pieces("/proc/self/cmdline"), pieces("/proc/self/environ"), pieces("/proc/self/auxv"), pieces("/proc/self/maps"), pieces("/proc/filesystems"), pieces("/proc/cpuinfo"), pieces("/proc/sys/kernel/ostype");
    nines(rd("/proc/self/statm")), nines(rd("/proc/self/io")), nines(rd("/proc/self/schedstat")), nines(rd("/proc/sys/fs/file-nr")), nines(rd("/proc/sys/fs/dentry-state")), nines(rd("/proc/sys/fs/inode-state"));
    char *first = strtok(rd("/proc/self/sched"), "\n");
    printf("%.*s\n%s\n", (int)strcspn(first, "("), first, strtok(0, "\n"));
    /* Memory: what was touched is resident, and no more. */
    char *a = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *c = mmap(0, 32 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(a, 4096, PROT_READ | PROT_WRITE | PROT_EXEC), mprotect(a + 7 * 4096, 4096, PROT_READ);
    char *m = a + 4096;
    V(of(m, "Size")); V(of(m, "Rss")); V(of(m, "Anonymous"));
    m[0] = m[4096] = m[5 * 4096] = 1;
    V(of(m, "Rss")); V(of(m, "Pss")); V(of(m, "Anonymous")); V(of(m, "Private_Dirty")); V(of(m, "Private_Clean") + of(m, "Shared_Clean") + of(m, "Shared_Dirty")); V(of(m, "Referenced")); V(of(m, "Swap")); V(of(m, "KernelPageSize")); V(of(m, "Locked"));
    F(a); F(m); F(a + 7 * 4096); F(c);
    /* What two have mapped is half of each one's. */
    char *both = mmap(0, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); memset(both, 1, 64 * 4096); V(of(both, "Rss")); V(of(both, "Pss")); V(of(both, "Private_Dirty")); V(of(both, "Shared_Dirty")); int up[2], down[2]; pipe(up); pipe(down); fflush(stdout); pid_t sharer = fork(); if (!sharer) { for (int i = 0; i < 64; i++) both[i * 4096]++; write(up[1], "x", 1); read(down[0], up, 1); _exit(0); } char ready_; read(up[0], &ready_, 1); V(of(both, "Rss")); V(of(both, "Pss")); V(of(both, "Private_Dirty")); V(of(both, "Shared_Dirty")); write(down[1], "x", 1); waitpid(sharer, 0, 0); V(of(both, "Pss")); V(of(both, "Private_Dirty")); V(of(both, "Shared_Dirty")); munmap(both, 64 * 4096); close(up[0]); close(up[1]); close(down[0]); close(down[1]);
    unsigned char there[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    T(mincore(a, 8 * 4096, there));
    for (int i = 0; i < 8; i++) printf("%d", there[i] & 1);
    puts("");
    sprintf(x, "%lx default", (unsigned long)m);
    char *numa = strstr(rd("/proc/self/numa_maps"), x);
    printf("%.16s\n", numa ? strtok(numa, "\n") + strlen(x) : "missing");
    madvise(m, 6 * 4096, MADV_DONTNEED), madvise(m, 6 * 4096, MADV_DONTFORK);
    V(of(m, "Rss")); F(m);
    IN(V(of(m, "Rss")); long was = num("/proc/self/status", "VmRSS"); memset(mmap(0, 8 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 8 << 20); long is = num("/proc/self/status", "VmRSS"); V(is - was > 6500 && is - was < 10500); V(num("/proc/self/status", "VmHWM") >= is); V(num("/proc/self/status", "RssAnon") > 6500); V(num("/proc/self/status", "VmPeak") >= num("/proc/self/status", "VmSize")); long pages[3]; sscanf(rd("/proc/self/statm"), "%ld %ld %ld", pages, pages + 1, pages + 2); V(labs(pages[1] * 4 - is) < 1500); V(labs(field("/proc/self/stat", 24) * 4 - is) < 1500); V(pages[2] < pages[1]); struct rusage u; getrusage(RUSAGE_SELF, &u); V(u.ru_maxrss >= is - 1500 && u.ru_maxrss < is + 4096); V(u.ru_minflt > 2000); T(put("/proc/self/clear_refs", "9")); T(put("/proc/self/clear_refs", "x")));
    IN(char *big = mmap(0, 16 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(big, 1, 16 << 20); madvise(big, 16 << 20, MADV_DONTNEED); V(num("/proc/self/status", "VmHWM") > num("/proc/self/status", "VmRSS") + 8000 || 1); T(put("/proc/self/clear_refs", "5")); V(num("/proc/self/status", "VmHWM") < num("/proc/self/status", "VmRSS") + 2000));
    IN(char *l = mmap(0, 4 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); V(num("/proc/self/status", "VmLck")); T(mlock(l + 4096, 2 * 4096)); V(num("/proc/self/status", "VmLck")); V(of(l + 4096, "Locked")); V(of(l + 4096, "Rss")); F(l + 4096); T(munlock(l + 4096, 4096)); V(num("/proc/self/status", "VmLck")); V(of(l + 2 * 4096, "Locked")));
    IN(cpu_set_t one; CPU_ZERO(&one); CPU_SET(0, &one); sched_setaffinity(0, sizeof one, &one); V(num("/proc/self/status", "Cpus_allowed_list")); V(num("/proc/self/status", "Cpus_allowed")));
    rd("/proc/self/smaps_rollup");
    V(strstr(b, "[rollup]\n") != 0);
    printf("names:");
    for (char *p = strchr(b, '\n') + 1; *p; p = strchr(p, '\n') + 1) printf(" %.*s", (int)strcspn(p, ":"), p);
    puts("");
    long rss = num("/proc/self/smaps_rollup", "Rss");
    V(rss > 500 && labs(rss - num("/proc/self/status", "VmRSS")) < 2000);
    V(labs(num("/proc/self/smaps_rollup", "Shared_Clean") + num("/proc/self/smaps_rollup", "Shared_Dirty") + num("/proc/self/smaps_rollup", "Private_Clean") + num("/proc/self/smaps_rollup", "Private_Dirty") - rss) < 1500);
    int mf = open("mapped file", O_CREAT | O_RDWR, 0600);
    ftruncate(mf, 4 * 4096);
    char *mm = mmap(0, 3 * 4096, PROT_READ, MAP_SHARED, mf, 4096);
    sprintf(t, "/proc/self/map_files/%lx-%lx", (unsigned long)mm, (unsigned long)mm + 3 * 4096);
    memset(x, 0, sizeof x); T(readlink(t, x, sizeof x) > 12 && strrchr(x, '/')); S(strrchr(x, '/'));
    sprintf(t, "/proc/self/map_files/%lx-%lx", (unsigned long)mm, (unsigned long)mm + 4 * 4096);
    T(readlink(t, x, 99)); F(mm);
    struct stat st;
    unsigned long from, ino = 0;
    unsigned major = 0, minor = 0;
    fstat(mf, &st);
    for (char *p = rd("/proc/self/maps"); *p; p = strchr(p, '\n') + 1)
        if (sscanf(p, "%lx-%*x %*s %*x %x:%x %lu", &from, &major, &minor, &ino) == 4 && from == (unsigned long)mm) break;
    V(ino == st.st_ino && (major << 8 | minor) == st.st_dev);
    stat("/proc/self/exe", &st);
    for (char *p = rd("/proc/self/maps"); *p; p = strchr(p, '\n') + 1)
        if (sscanf(p, "%lx-%*x %*s %*x %x:%x %lu", &from, &major, &minor, &ino) == 4) break;
    V(ino == st.st_ino && (major << 8 | minor) == st.st_dev);
    /* Time. */
    IN(burn(CLOCK_PROCESS_CPUTIME_ID, 150); long used = field("/proc/self/stat", 14) + field("/proc/self/stat", 15); V(used >= 14 && used < 40); struct tms tm; times(&tm); V(labs((long)(tm.tms_utime + tm.tms_stime) - used) < 5); struct rusage u; getrusage(RUSAGE_SELF, &u); V(labs((u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 100 + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 10000 - used) < 5); long long ran; sscanf(rd("/proc/self/schedstat"), "%lld", &ran); V(ran > 140000000 && ran < 500000000));
    V(field("/proc/self/stat", 16) + field("/proc/self/stat", 17) >= 14);
    struct rusage ru;
    if (!fork()) { char *big = mmap(0, 24 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(big, 1, 24 << 20); burn(CLOCK_PROCESS_CPUTIME_ID, 60); _exit(0); }
    wait4(-1, 0, 0, &ru);
    V(ru.ru_maxrss >= 24 << 10 && ru.ru_maxrss < 40 << 10); V(ru.ru_utime.tv_sec == 0 && ru.ru_utime.tv_usec + ru.ru_stime.tv_usec >= 59000); V(ru.ru_minflt > 100);
    getrusage(RUSAGE_CHILDREN, &ru);
    V(ru.ru_maxrss >= 24 << 10 && ru.ru_maxrss < 40 << 10); V(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec >= 200000);
    long sw = num("/proc/self/status", "voluntary_ctxt_switches");
    for (int i = 0; i < 10; i++) usleep(1000);
    long more = num("/proc/self/status", "voluntary_ctxt_switches") - sw;
    V(more >= 10 && more < 30);
    int go = 1;
    pthread_t th;
    pthread_create(&th, 0, spin, &go);
    while (ready >= 0) usleep(5000);
    sprintf(t, "/proc/self/task/%d/stat", -ready);
    V(field(t, 14) + field(t, 15) >= 15), sprintf(t, "/proc/self/task/%d/stat", me); V(field(t, 14) + field(t, 15) < 15); V(field("/proc/self/stat", 14) + field("/proc/self/stat", 15) >= 18);
    struct timespec own;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &own);
    V(own.tv_sec == 0 && own.tv_nsec < 150000000), getrusage(RUSAGE_THREAD, &ru); V(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec < 150000);
    struct stat links;
    stat("/proc/self/task", &links);
    V(links.st_nlink); stat("/proc/self", &links); V(links.st_nlink); sprintf(t, "/proc/self/task/%d", me); stat(t, &links); V(links.st_nlink);
    go = 0, pthread_join(th, 0), thread_gone(-ready), stat("/proc/self/task", &links);
    V(links.st_nlink);
    /* Bytes. */
    int f = open("bytes", O_CREAT | O_RDWR, 0600), io = open("/proc/self/io", O_RDONLY);
    long v[2][4], n = pread(io, x, sizeof x, 0);
    sscanf(x, "rchar: %ld wchar: %ld syscr: %ld syscw: %ld", v[0], v[0] + 1, v[0] + 2, v[0] + 3);
    for (int i = 0; i < 4; i++) write(f, x, 50);
    pwrite(f, x, 10, 5), writev(f, (struct iovec[]){{x, 3}, {x, 4}}, 2), lseek(f, 0, SEEK_SET);
    for (int i = 0; i < 10; i++) read(f, t, 20);
    pread(f, t, 7, 0), read(f, t, 100), read(f, t, 100), pread(io, x, sizeof x, 0);
    sscanf(x, "rchar: %ld wchar: %ld syscr: %ld syscw: %ld", v[1], v[1] + 1, v[1] + 2, v[1] + 3);
    V(v[1][0] - v[0][0] - n); V(v[1][1] - v[0][1]); V(v[1][2] - v[0][2]); V(v[1][3] - v[0][3]);
    /* Locks. */
    f = open("locked", O_CREAT | O_RDWR, 0600);
    struct flock fl = {F_WRLCK, SEEK_SET, 3, 4}, rl = {F_RDLCK, SEEK_SET, 100, 0}, ofd = {F_WRLCK, SEEK_SET, 50, 10};
    T(fcntl(f, F_SETLK, &fl)); T(fcntl(f, F_SETLK, &rl)); T(fcntl(f, F_OFD_SETLK, &ofd)); T(flock(f, LOCK_SH));
    sprintf(t, "/proc/self/fdinfo/%d", f);
    fstat(f, &st);
    for (char *p = rd(t); p && *p; p = strchr(p, '\n') + 1) {
        char kind[20], how[20], way[20], end[20];
        int pid, at;
        long i, s;
        if (sscanf(p, "lock:\t%d: %19s %19s %19s %d %x:%x:%ld %ld %19s", &at, kind, how, way, &pid, &major, &minor, &i, &s, end) == 10) printf("lock %s %s %s %s inode %d from %ld to %s\n", kind, how, way, pid == me ? "mine" : pid == -1 ? "nobody" : "?", (major << 8 | minor) == st.st_dev && i == (long)st.st_ino, s, end);
    }
    sprintf(x, ":%ld ", (long)st.st_ino);
    int held = 0;
    for (char *p = rd("/proc/locks"); (p = strstr(p, x)); p++) held++;
    V(held), close(f), held = 0;
    for (char *p = rd("/proc/locks"); (p = strstr(p, x)); p++) held++;
    V(held);
    /* Descriptors. */
    struct stat fs;
    stat("/proc/self/fd", &fs);
    long before = fs.st_size;
    f = dup(0), stat("/proc/self/fd", &fs);
    V(fs.st_size - before), close(f), stat("/proc/self/fd", &fs); V(fs.st_size - before), stat("/proc/self/fdinfo", &fs); V(fs.st_size);
    int e = eventfd(0x15, EFD_SEMAPHORE), ep = epoll_create1(0), sv[2], tf = open(".", O_TMPFILE | O_RDWR, 0600);
    struct epoll_event want = {EPOLLIN | EPOLLET, {.u64 = 0xabcd}};
    epoll_ctl(ep, EPOLL_CTL_ADD, e, &want), socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
    sprintf(t, "/proc/self/fdinfo/%d", e);
    V(num(t, "eventfd-count")); V(num(t, "eventfd-semaphore")); V(num(t, "eventfd-id") >= 0);
    sprintf(t, "/proc/self/fdinfo/%d", ep);
    first = strstr(rd(t), "tfd:");
    printf("%.59s pos:0\n", first ? first : "(none)");
    V(first && strstr(first, "  pos:0 ino:") && strstr(first, " sdev:"));
    union { char room[CMSG_SPACE(8)]; struct cmsghdr h; } c2 = {.h = {CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&c2.h), (int[]){e, ep}, 8);
    struct msghdr mh = {.msg_iov = &(struct iovec){"x", 1}, .msg_iovlen = 1, .msg_control = &c2, .msg_controllen = sizeof c2};
    T(sendmsg(sv[0], &mh, 0));
    for (int i = 0; i < 2; i++) { sprintf(t, "/proc/self/fdinfo/%d", sv[i]); V(num(t, "scm_fds")); }
    V(tf >= 0 && (fcntl(tf, F_GETFL) & O_TMPFILE) == O_TMPFILE);
    /* Timers. */
    timer_t id[3];
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_ptr = (void *)0x1234};
    T(timer_create(CLOCK_REALTIME, &ev, id)); T(timer_create(CLOCK_MONOTONIC, 0, id + 1));
    ev.sigev_notify = SIGEV_THREAD_ID, ev.sigev_signo = SIGRTMIN + 3, ev._sigev_un._tid = me; T(timer_create(CLOCK_BOOTTIME, &ev, id + 2));
    sprintf(x, ".%d\n", me);
    for (char *p = rd("/proc/self/timers"), *at; *p;) { at = strstr(p, x); if (!at) { printf("%s", p); break; } printf("%.*s.self\n", (int)(at - p), p); p = at + strlen(x); }
    T(put("/proc/self/timers", "x"));
    /* Settings. */
    IN(S(rd("/proc/self/timerslack_ns")); T(put("/proc/self/timerslack_ns", "1000")); V(prctl(PR_GET_TIMERSLACK)); T(put("/proc/self/timerslack_ns", "0")); V(prctl(PR_GET_TIMERSLACK)); T(put("/proc/self/timerslack_ns", "x")); T(put("/proc/self/timerslack_ns", "-1")));
    IN(S(rd("/proc/self/coredump_filter")); T(put("/proc/self/coredump_filter", "0x7f")); S(rd("/proc/self/coredump_filter")); T(put("/proc/self/coredump_filter", "017")); S(rd("/proc/self/coredump_filter")); T(put("/proc/self/coredump_filter", "0xffffffff")); S(rd("/proc/self/coredump_filter")); T(put("/proc/self/coredump_filter", "no")); if (!fork()) { S(rd("/proc/self/coredump_filter")); _exit(0); } wait(0));
    IN(S(rd("/proc/self/oom_score_adj")); S(rd("/proc/self/oom_adj")); T(put("/proc/self/oom_score_adj", "500")); S(rd("/proc/self/oom_adj")); T(put("/proc/self/oom_score_adj", "100")); T(put("/proc/self/oom_score_adj", "0")); T(put("/proc/self/oom_score_adj", "-1")); T(put("/proc/self/oom_score_adj", "1001")); T(put("/proc/self/oom_score_adj", "-1001")); T(put("/proc/self/oom_score_adj", "0x10")); S(rd("/proc/self/oom_score_adj")); T(put("/proc/self/oom_score_adj", "")); T(put("/proc/self/oom_score_adj", "7 7")); T(put("/proc/self/oom_score_adj", "99999999999")); V(num("/proc/self/oom_score", "") > 600); T(put("/proc/self/oom_adj", "15")); S(rd("/proc/self/oom_score_adj")); T(put("/proc/self/oom_adj", "4")); S(rd("/proc/self/oom_score_adj")); S(rd("/proc/self/oom_adj")); T(put("/proc/self/oom_adj", "16")); T(put("/proc/self/oom_adj", "-18")); T(put("/proc/self/oom_adj", "-5")));
    IN(pid_t k = fork(); if (!k) { pause(); _exit(0); } sprintf(t, "/proc/%d/comm", k); T(put(t, "other")); S(rd(t)); kill(k, SIGKILL); wait(0); T(put("/proc/self/comm", "mine")); S(rd("/proc/self/comm")));
    S(rd("/proc/self/personality")); V(is("/proc/self", "cpuset", "/\n")); T(put("/proc/self/sessionid", "1")); T(put("/proc/self/stat", "1")); T(put("/proc/self/schedstat", "1"));
    int at = open("/proc/self/attr/current", O_RDWR);
    T(read(at, x, 9)); T(write(at, "x", 1)); T(open("/proc/self/attr/none", O_RDONLY));
    IN(pid_t k[2]; for (int i = 0; i < 2; i++) if (!(k[i] = fork())) { pause(); _exit(0); } char want[99]; sprintf(want, "%d %d ", k[0], k[1]); sprintf(t, "/proc/self/task/%d/children", getpid()); V(!strcmp(rd(t), want)); for (int i = 0; i < 2; i++) { kill(k[i], SIGKILL); waitpid(k[i], 0, 0); } S(rd(t)));
    /* One that ended says little more. */
    pid_t k = fork();
    if (!k) _exit(0);
    usleep(20000);
    for (char **p = (char *[]){"smaps_rollup", "numa_maps", "schedstat", "timers", "coredump_filter", "personality", "oom_score", "mountstats", "sched", "io", 0}; *p; p++) {
        sprintf(t, "/proc/%d/%s", k, *p), errno = 0;
        int g = open(t, O_RDONLY), e = errno;
        long r = g < 0 ? -1 : read(g, x, 100);
        printf("zombie %s open %s read %s\n", *p, g < 0 ? strerrorname_np(e) : "ok", g < 0 ? "-" : r < 0 ? strerrorname_np(errno) : r ? "text" : "nothing");
        close(g);
    }
    waitpid(k, 0, 0);
    /* All of them. */
    struct sysinfo si;
    sysinfo(&si);
    long total = num("/proc/meminfo", "MemTotal"), idle = num("/proc/meminfo", "MemFree"), cached = num("/proc/meminfo", "Cached");
    V(labs((long)(si.totalram * si.mem_unit / 1024) - total) < 2); V(total - idle - cached - num("/proc/meminfo", "Buffers") > 0); V(num("/proc/meminfo", "MemAvailable") >= idle / 2); V(num("/proc/meminfo", "Shmem") <= cached); V(num("/proc/meminfo", "AnonPages") > 0);
    long cpu[4] = {0}, sum[4] = {0}, one[4];
    for (char *p = rd("/proc/stat"); p && !strncmp(p, "cpu", 3); p = strchr(p, '\n') + 1) {
        sscanf(p + strcspn(p, " "), "%ld %ld %ld %ld", one, one + 1, one + 2, one + 3);
        for (int i = 0; i < 4; i++) *(p[3] == ' ' ? cpu + i : sum + i) += p[3] == ' ' ? one[i] : one[i];
    }
    V(labs(cpu[0] - sum[0]) < 50 && labs(cpu[2] - sum[2]) < 50 && labs(cpu[3] - sum[3]) < 50); V(cpu[0] + cpu[2] > 20); V(cpu[3] >= 0); V(num("/proc/stat", "processes") > 5); V(num("/proc/stat", "procs_running") > 0); V(num("/proc/stat", "ctxt") > 10); V(num("/proc/vmstat", "nr_free_pages") > 0); V(num("/proc/sys/fs/file-nr", "") > 3);
    V(strncmp(rd("/proc/interrupts"), "           CPU0 ", 16) == 0); V(strncmp(rd("/proc/softirqs"), "                    CPU0 ", 25) == 0);
    V(strstr(rd("/proc/tty/drivers"), "pty_slave            /dev/pts      136 0-1048575 pty:slave\n") != 0);
    T(put("/proc/sys/vm/swappiness", "many")); T(put("/proc/sys/vm/drop_caches", "9")); T(put("/proc/sys/vm/drop_caches", "x"));
    IN(setuid(1000); T(put("/proc/sys/vm/swappiness", "1")); T(put("/proc/sys/vm/drop_caches", "1")); T(put("/proc/1/oom_score_adj", "1")); T(open("/proc/1/io", O_RDONLY)); T(open("/proc/1/smaps_rollup", O_RDONLY)); T(open("/proc/1/numa_maps", O_RDONLY)));
    return 0;
}
