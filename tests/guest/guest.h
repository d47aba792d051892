/* What the guest programs share: a line for each call with its result or the name of its error. Lines hold nothing
 * that differs from run to run. Linux is the oracle: see tests/integration/tests/guest.rs. */
#define _GNU_SOURCE
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
