#include "guest.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
/* /sys: what tells of processors, caches and memory nodes, as programs read it to count them. It may be mounted read-only, so how a write is refused is not shown. */
static char b[1 << 16];
static long got;
static char *rd(const char *name) {
    int f = open(name, O_RDONLY);
    got = 0;
    if (f < 0) printf("%s: %s\n", name, strerrorname_np(errno));
    else got = read(f, b, sizeof b - 1);
    if (got < 0) printf("%s: read %s\n", name, strerrorname_np(errno)), got = 0;
    b[got] = 0;
    close(f);
    return b;
}
static void kind(const char *dir, const char *name) {
    char t[300];
    struct stat s;
    sprintf(t, "%s/%s", dir, name);
    if (stat(t, &s)) { printf("%s: %s\n", name, strerrorname_np(errno)); return; }
    int w = open(t, O_WRONLY), f = open(t, O_RDONLY);
    printf("%s %o size %ld write %s", name, s.st_mode, S_ISDIR(s.st_mode) ? -1 : (long)s.st_size, w >= 0 ? "ok" : "refused");
    if (f >= 0 && S_ISREG(s.st_mode)) printf(" end %ld newline %d", (long)lseek(f, 0, SEEK_END), rd(t)[0] && b[got - 1] == '\n');
    puts("");
    close(w);
    close(f);
}
#define K(dir, ...) do { printf("== %s\n", dir); for (char **p_ = (char *[]){__VA_ARGS__, 0}; *p_; p_++) kind(dir, *p_); } while (0)
static void say(const char *dir, const char *name) {
    char t[300];
    sprintf(t, "%s/%s", dir, name);
    printf("%s: %s", t, rd(t));
}
static int count(const char *dir, const char *start, int digits) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += !strncmp(e->d_name, start, strlen(start)) && (!digits || (e->d_name[strlen(start)] >= '0' && e->d_name[strlen(start)] <= '9'));
    if (d) closedir(d);
    return n;
}
int main(void) {
    const char *cpu = "/sys/devices/system/cpu", *one = "/sys/devices/system/cpu/cpu0/topology", *node = "/sys/devices/system/node";
    struct statfs fs;
    char t[300], x[300] = "";
    K(cpu, "online", "possible", "present", "offline", "isolated", "kernel_max", "cpu0", "none");
    K(one, "core_id", "core_cpus", "core_cpus_list", "core_siblings", "core_siblings_list", "die_id", "die_cpus_list", "package_cpus", "package_cpus_list", "physical_package_id", "thread_siblings", "thread_siblings_list");
    K("/sys/devices/system/cpu/cpu0/cache/index0", "coherency_line_size", "level", "number_of_sets", "shared_cpu_list", "shared_cpu_map", "size", "type", "ways_of_associativity");
    K(node, "online", "possible", "has_cpu", "has_memory", "node0");
    K("/sys/devices/system/node/node0", "cpulist", "cpumap", "distance", "meminfo");
    for (char **p = (char *[]){"online", "possible", "present", "offline", 0}; *p; p++) say(cpu, *p);
    V(count(cpu, "cpu", 1) == get_nprocs_conf()); V(get_nprocs() == get_nprocs_conf()); V(sysconf(_SC_NPROCESSORS_ONLN) == get_nprocs());
    V(atoi(rd("/sys/devices/system/cpu/kernel_max")) >= get_nprocs() - 1);
    for (int i = 0; i < get_nprocs(); i++) {
        sprintf(t, "%s/cpu%d/topology", cpu, i);
        say(t, "physical_package_id"), say(t, "core_siblings_list"), say(t, "package_cpus");
        sprintf(t, "%s/cpu%d/node0", cpu, i);
        memset(x, 0, sizeof x); T(readlink(t, x, sizeof x));
        S(x);
    }
    V(count("/sys/devices/system/cpu/cpu0/cache", "index", 1));
    for (int i = 0; i < count("/sys/devices/system/cpu/cpu0/cache", "index", 1); i++) {
        sprintf(t, "%s/cpu0/cache/index%d", cpu, i);
        for (char **p = (char *[]){"level", "type", "size", "coherency_line_size", "number_of_sets", "ways_of_associativity", "physical_line_partition", 0}; *p; p++) say(t, *p);
    }
    say(node, "online"), say(node, "node0/cpulist"), say(node, "node0/distance"), say(node, "has_memory");
    V(strncmp(rd("/sys/devices/system/node/node0/meminfo"), "Node 0 MemTotal:       ", 23) == 0);
    V(sysconf(_SC_LEVEL1_DCACHE_SIZE) > 0); V(sysconf(_SC_LEVEL1_DCACHE_LINESIZE));
    /* The processor, as it says itself. */
    for (char *p = strtok(rd("/proc/cpuinfo"), "\n"); p; p = strtok(0, "\n")) {
        /* Off where the microcode of a Zen 5 has a fault, which only the host's kernel sees. */
        char *seed = strstr(p, " rdseed");
        if (seed) memmove(seed, seed + 7, strlen(seed + 7) + 1);
        if (strstr("vendor_id cpu family model stepping cache size cpuid level flags TLB size clflush size address sizes", strndup(p, strcspn(p, "\t")))) puts(p);
        if (!strncmp(p, "power", 5)) break;
    }
    T(statfs("/sys", &fs)); V(fs.f_type); V(fs.f_bsize);
    V(open("/sys/devices/system/cpu/online", O_WRONLY) < 0 && mkdir("/sys/x", 0700) && unlink("/sys/devices/system/cpu/online"));
    return 0;
}
