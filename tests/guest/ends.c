/* Processes that end, in each way there is, while their own threads make threads and processes. */
#include "guest.h"
#include <sys/prctl.h>
static void *forks(void *x) {
    for (;;) { pid_t p = fork(); if (!p) _exit(0); waitpid(p, 0, 0); }
    return x;
}
static void *makes(void *x) {
    for (;;) { pthread_t t; if (!pthread_create(&t, 0, (void *(*)(void *))strlen, "")) pthread_join(t, 0); }
    return x;
}
/* Processes that end, by exit, by a signal or by a new program, while their threads make threads and processes: how many did not end
 * as they should. What they leave is ours. */
static int ends_meanwhile(int rounds) {
    int bad = 0;
    for (int i = 0; i < rounds; i++) {
        pid_t p = fork();
        if (!p) {
            pthread_t t[4];
            for (int k = 0; k < 4; k++) pthread_create(&t[k], 0, k < 2 ? forks : makes, 0);
            usleep(500 + i * 37 % 2000);
            if (i % 3 == 0) _exit(7);
            if (i % 3 == 1) kill(getpid(), SIGKILL);
            execl("/bin/sh", "sh", "-c", "exit 7", (char *)0);
            _exit(1);
        }
        int st = 0;
        if (waitpid(p, &st, 0) != p || st != (i % 3 == 1 ? SIGKILL : 7 << 8)) bad++;
    }
    return bad;
}
int main(void) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    V(ends_meanwhile(60));
    while (wait(0) > 0) {}
    T(wait(0));
    return 0;
}
