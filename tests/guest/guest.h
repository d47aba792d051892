/* What the guest programs share: a line for each call with its result or the name of its error. Lines hold nothing
 * that differs from run to run. Linux is the oracle: see tests/integration/tests/guest.rs. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void show(int line, const char *what, long result, int error) {
    const char *name = strerrorname_np(error);
    if (result == -1)
        printf("%d %s: %s\n", line, what, name ? name : "?");
    else
        printf("%d %s = %ld\n", line, what, result);
}
/* The call's value, or its error. */
#define T(call) do { errno = 0; long r_ = (long)(call); int e_ = errno; show(__LINE__, #call, r_, e_); } while (0)
/* Only whether it worked: for calls whose value is a pid, an address or the like. */
#define OK(call) do { errno = 0; long r_ = (long)(call); int e_ = errno; show(__LINE__, #call, r_ == -1 ? -1 : 0, e_); } while (0)
/* A value of our own. */
#define V(value) printf("%d %s is %ld\n", __LINE__, #value, (long)(value))
#define S(text) printf("%d %s is \"%s\"\n", __LINE__, #text, text)
#define SYS(nr, ...) syscall(SYS_##nr, ##__VA_ARGS__)
#define BAD ((void *)8)

/* Nothing inherited but the standard descriptors (unless KEEP_FILES says so): the numbers of others are shown. */
__attribute__((constructor)) static void lines_at_once(void) { if (!getenv("KEEP_FILES")) close_range(3, ~0U, 0); setvbuf(stdout, NULL, _IOLBF, 0); alarm(60); umask(022); }

/* Returns once the thread `tid` is gone (after five seconds in any case): one that was joined is not quite yet. */
__attribute__((unused)) static void thread_gone(pid_t tid) { for (int tries = 0; tries < 5000 && !syscall(SYS_tgkill, getpid(), tid, 0); tries++) usleep(1000); }

/* Returns once all other threads of the process wait for something (after five seconds in any case): for what shall happen while they do. */
__attribute__((unused)) static void others_wait(void) {
    for (int tries = 0, calm = 0; tries < 5000 && calm < 3; tries++) {
        DIR *d = opendir("/proc/self/task");
        int busy = 0;
        for (struct dirent *e; d && (e = readdir(d));) {
            char path[300], text[400] = "";
            if (e->d_name[0] == '.' || atoi(e->d_name) == gettid()) continue;
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
            int f = open(path, O_RDONLY);
            if (f >= 0) { text[read(f, text, sizeof text - 1) > 0 ? sizeof text - 1 : 0] = 0; close(f); }
            char *state = strrchr(text, ')');
            busy |= state && state[2] != 'S';
        }
        if (d) closedir(d);
        calm = busy ? 0 : calm + 1;
        usleep(2000);
    }
}
