/* ptrace(2): stops of groups, events, threads, waiting, and the ends of tracers and tracees. Calls and registers: tracing.c. */
#include "guest.h"
#include <linux/ptrace.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/user.h>

#define P(request, pid, addr, data) SYS(ptrace, request, pid, addr, data)

static int said(pid_t got, pid_t pid, int status) {
    if (got != pid)
        printf("waitpid: %s\n", got < 0 ? strerrorname_np(errno) : got ? "another" : "nothing");
    else if (WIFSTOPPED(status))
        printf("stopped by %d, event %d\n", WSTOPSIG(status), status >> 16);
    else if (WIFSIGNALED(status))
        printf("killed by %d\n", WTERMSIG(status));
    else if (WIFCONTINUED(status))
        printf("continued\n");
    else
        printf("exited with %d\n", WEXITSTATUS(status));
    return status;
}
static int next(pid_t pid) {
    int status = 0;
    pid_t got = waitpid(pid, &status, __WALL);
    return said(got, pid, status);
}
static pid_t traced(void (*work)(void)) {
    pid_t pid = fork();
    if (pid == 0) {
        if (P(PTRACE_TRACEME, 0, 0, 0))
            _exit(99);
        raise(SIGSTOP);
        work();
        _exit(7);
    }
    int status;
    waitpid(pid, &status, 0);
    return pid;
}
static unsigned long message(pid_t pid) {
    unsigned long m = -1UL;
    return P(PTRACE_GETEVENTMSG, pid, 0, &m) ? -1UL : m;
}
static void gone(pid_t pid) {
    kill(pid, SIGKILL);
    int status;
    while (waitpid(pid, &status, __WALL) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
        P(PTRACE_CONT, pid, 0, 0);
}
static char state_of(pid_t pid, int *tracer) {
    char path[64], text[4096], *at;
    sprintf(path, "/proc/%d/status", pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    if (tracer)
        *tracer = (at = strstr(text, "TracerPid:\t")) ? atoi(at + 11) : -1;
    return (at = strstr(text, "State:\t")) ? at[7] : '?';
}
static void until(pid_t pid, char state) {
    for (int i = 0; i < 5000 && state_of(pid, 0) != state; i++)
        usleep(1000);
}
static int code_of(pid_t pid) {
    siginfo_t si;
    memset(&si, 0, sizeof si);
    if (P(PTRACE_GETSIGINFO, pid, 0, &si))
        return -errno;
    return si.si_code;
}

static void idle(void) {
    for (;;)
        pause();
}

static void groups(void) {
    puts("-- a traced group stops");
    int status, tracer;
    pid_t pid = traced(idle);
    V(state_of(pid, &tracer) == 't');
    V(tracer == getpid());
    P(PTRACE_CONT, pid, 0, 0);
    until(pid, 'S');
    kill(pid, SIGSTOP);
    next(pid);
    V(code_of(pid));
    P(PTRACE_CONT, pid, 0, SIGSTOP);
    next(pid);
    V(code_of(pid) == -EINVAL);
    V(state_of(pid, 0) == 't');
    /* It runs on though its group is stopped. */
    P(PTRACE_CONT, pid, 0, 0);
    until(pid, 'S');
    V(state_of(pid, 0) == 'S');
    kill(pid, SIGCONT);
    next(pid);
    P(PTRACE_CONT, pid, 0, SIGCONT);
    V(waitpid(pid, &status, WNOHANG));
    kill(pid, SIGTSTP);
    next(pid);
    P(PTRACE_DETACH, pid, 0, SIGSTOP);
    T(waitpid(pid, &status, WUNTRACED) == pid);
    said(pid, pid, status);
    V(state_of(pid, &tracer) == 'T');
    V(tracer);
    kill(pid, SIGCONT);
    T(waitpid(pid, &status, WCONTINUED) == pid);
    said(pid, pid, status);

    puts("-- seized");
    T(P(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD));
    V(waitpid(pid, &status, WNOHANG));
    T(P(PTRACE_INTERRUPT, pid, 0, 0));
    next(pid);
    V(code_of(pid));
    T(P(PTRACE_LISTEN, pid, 0, 0));
    T(P(PTRACE_CONT, pid, 0, 0));
    T(P(PTRACE_INTERRUPT, pid, 0, 0));
    next(pid);
    P(PTRACE_CONT, pid, 0, 0);
    kill(pid, SIGSTOP);
    next(pid);
    T(P(PTRACE_LISTEN, pid, 0, 0));
    V(code_of(pid));
    P(PTRACE_CONT, pid, 0, SIGSTOP);
    next(pid);
    V(code_of(pid));
    V(P(PTRACE_LISTEN, pid, 0, 0));
    V(waitpid(pid, &status, WNOHANG));
    V(state_of(pid, 0) == 't');
    kill(pid, SIGCONT);
    next(pid);
    V(code_of(pid));
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    P(PTRACE_CONT, pid, 0, SIGCONT);
    T(P(PTRACE_INTERRUPT, pid, 0, 0));
    next(pid);
    T(P(PTRACE_DETACH, pid, 0, 0));
    gone(pid);

    puts("-- attached while stopped");
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(4);
    }
    waitpid(pid, &status, WUNTRACED);
    T(P(PTRACE_SEIZE, pid, 0, 0));
    next(pid);
    T(P(PTRACE_DETACH, pid, 0, 0));
    until(pid, 'T');
    T(P(PTRACE_ATTACH, pid, 0, 0));
    next(pid);
    V(code_of(pid) == -EINVAL);
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    kill(pid, SIGCONT);
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
}

/* Events. */
static void makes_children(void) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(21);
    waitpid(pid, 0, 0);
    pid = vfork();
    if (pid == 0)
        _exit(22);
    waitpid(pid, 0, 0);
    pid = SYS(clone, 0, 0, 0, 0, 0);
    if (pid == 0)
        SYS(exit_group, 23);
    waitpid(pid, 0, __WALL);
    execl("/proc/self/exe", "traced", "exit", (char *)0);
}

/* Follows one tracee; what its children do is said when asked for. */
static void follow(pid_t first, unsigned options) {
    pid_t child = 0;
    int status, sig;
    P(PTRACE_SETOPTIONS, first, 0, options);
    P(PTRACE_CONT, first, 0, 0);
    for (;;) {
        status = 0;
        pid_t got = waitpid(first, &status, __WALL);
        printf("first: ");
        said(got, first, status);
        if (got != first || !WIFSTOPPED(status))
            return;
        sig = WSTOPSIG(status);
        int event = status >> 16;
        if (event) {
            unsigned long m = message(first);
            if (event == PTRACE_EVENT_EXEC)
                printf("  was %s\n", (pid_t)m == first ? "the same" : "another");
            else if (event == PTRACE_EVENT_EXIT)
                printf("  exits with %lx\n", m);
            else if (event == PTRACE_EVENT_VFORK_DONE)
                printf("  child is the last %d\n", (pid_t)m == child);
            else {
                child = (pid_t)m;
                printf("  child: ");
                next(child);
                V(code_of(child));
                struct user_regs_struct r;
                V(P(PTRACE_GETREGS, child, 0, &r));
                V(r.rax);
                P(PTRACE_CONT, child, 0, 0);
                printf("  child: ");
                if (WIFSTOPPED(next(child))) {
                    printf("    exits with %lx\n", message(child));
                    P(PTRACE_CONT, child, 0, 0);
                    printf("  child: ");
                    next(child);
                }
            }
            sig = 0;
        } else if (sig == SIGTRAP)
            sig = 0;
        P(PTRACE_CONT, first, 0, sig);
    }
}

static void events(void) {
    const unsigned all = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                         PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT;
    puts("-- all events");
    follow(traced(makes_children), all);
    puts("-- no events");
    follow(traced(makes_children), 0);
    puts("-- exec and forks");
    follow(traced(makes_children), PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK);
    puts("-- seized");
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        makes_children();
    }
    int status;
    waitpid(pid, &status, WUNTRACED);
    T(P(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK));
    kill(pid, SIGCONT);
    for (int i = 0; i < 40; i++) {
        if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
            break;
        int event = status >> 16;
        if (event == PTRACE_EVENT_FORK) {
            pid_t child = (pid_t)message(pid);
            printf("child: ");
            next(child);
            V(code_of(child));
            P(PTRACE_CONT, child, 0, 0);
            printf("child: ");
            next(child);
        }
        P(PTRACE_CONT, pid, 0, event || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status));
    }
    said(pid, pid, status);
    puts("-- an end by a signal");
    pid = traced(idle);
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT));
    P(PTRACE_CONT, pid, 0, SIGTERM);
    next(pid);
    printf("%lx\n", message(pid));
    P(PTRACE_CONT, pid, 0, 0);
    next(pid);
    puts("-- calls around exec and fork");
    pid = traced(makes_children);
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK));
    for (int said_exec = 0, i = 0; i < 400; i++) {
        P(PTRACE_SYSCALL, pid, 0, 0);
        waitpid(pid, &status, __WALL);
        if (!WIFSTOPPED(status))
            break;
        struct user_regs_struct r;
        P(PTRACE_GETREGS, pid, 0, &r);
        if (status >> 16) {
            printf("event %d in call %lld\n", status >> 16, r.orig_rax);
            if (status >> 16 == PTRACE_EVENT_FORK) {
                pid_t child = (pid_t)message(pid);
                waitpid(child, &status, __WALL);
                P(PTRACE_DETACH, child, 0, 0);
            }
        } else if (r.orig_rax == SYS_execve || r.orig_rax == SYS_exit_group) {
            printf("call %lld, %lld\n", r.orig_rax, r.rax);
            said_exec++;
        }
    }
    said(pid, pid, status);
}

/* Threads. */
static volatile int go_on, ready;
static void *waits(void *unused) {
    (void)unused;
    __sync_fetch_and_add(&ready, 1);
    while (!go_on)
        usleep(1000);
    return 0;
}
static void *ends(void *unused) {
    (void)unused;
    SYS(exit, 9);
    return 0;
}
static void *executes(void *unused) {
    (void)unused;
    execl("/proc/self/exe", "traced", "exit", (char *)0);
    return 0;
}
static void threaded(void) {
    pthread_t a, b;
    pthread_create(&a, 0, ends, 0);
    pthread_join(a, 0);
    pthread_create(&a, 0, waits, 0);
    while (!ready)
        usleep(1000);
    pthread_create(&b, 0, executes, 0);
    pthread_join(b, 0);
}
static void *attaches(void *arg) {
    pid_t pid = *(pid_t *)arg;
    int status = 0;
    T(P(PTRACE_CONT, pid, 0, 0));
    T(P(PTRACE_DETACH, pid, 0, 0));
    T(waitpid(pid, &status, __WNOTHREAD | WNOHANG));
    kill(pid, SIGUSR1);
    T(waitpid(pid, &status, __WNOTHREAD | __WALL | WNOHANG));
    return 0;
}

static void threads(void) {
    puts("-- threads");
    pid_t pid = traced(threaded), seen[8] = {pid};
    int count = 1, executed = 0;
    P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
    P(PTRACE_CONT, pid, 0, 0);
    int clones = 0, stops = 0, ended = 0, nine = 0;
    for (;;) {
        int status;
        pid_t got = waitpid(-1, &status, __WALL);
        if (got < 0)
            break;
        if (!WIFSTOPPED(status)) {
            if (got == pid) {
                said(got, pid, status);
            } else {
                ended++;
                nine += WIFEXITED(status) && WEXITSTATUS(status) == 9;
            }
            continue;
        }
        int known = 0;
        for (int i = 0; i < count; i++)
            known |= seen[i] == got;
        if (!known && count < 8)
            seen[count++] = got;
        switch (status >> 16) {
        case PTRACE_EVENT_CLONE: clones++; break;
        case PTRACE_EVENT_EXEC:
            executed++;
            V(got == pid);
            V((pid_t)message(pid) == seen[3]);
            break;
        default: stops += WSTOPSIG(status) == SIGSTOP;
        }
        P(PTRACE_CONT, got, 0, 0);
    }
    V(count);
    V(clones);
    V(stops);
    V(executed);
    V(nine);
    V(ended);

    puts("-- another thread of the tracer");
    pid = traced(idle);
    pthread_t t;
    pthread_create(&t, 0, attaches, &pid);
    pthread_join(t, 0);
    gone(pid);

    puts("-- threads stop together");
    pid = fork();
    if (pid == 0) {
        pthread_create(&t, 0, waits, 0);
        for (;;)
            pause();
    }
    usleep(50000);
    char path[64];
    until(pid, 'S');
    pid_t other = 0;
    for (int tid = pid + 1; tid < pid + 50 && !other; tid++) {
        sprintf(path, "/proc/%d/task/%d", pid, tid);
        if (access(path, F_OK) == 0)
            other = tid;
    }
    V(other != 0);
    T(P(PTRACE_SEIZE, pid, 0, 0));
    T(P(PTRACE_SEIZE, other, 0, 0));
    T(kill(pid, SIGSTOP));
    int status, which = 0;
    for (int i = 0; i < 3; i++) {
        pid_t got = waitpid(-1, &status, __WALL);
        which += got == pid ? 1 : got == other ? 10 : 100;
        if (status >> 16 == PTRACE_EVENT_STOP) {
            V(WSTOPSIG(status));
            V(code_of(got) >> 8);
            V(P(PTRACE_LISTEN, got, 0, 0));
        } else
            V(P(PTRACE_CONT, got, 0, SIGSTOP));
    }
    V(which == 12 || which == 21);
    T(kill(pid, SIGKILL));
    int deaths = 0;
    while (waitpid(-1, &status, __WALL) > 0)
        deaths += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    V(deaths);
}

/* Waiting. */
static void waiting(void) {
    puts("-- waiting");
    int status;
    siginfo_t si;
    pid_t pid = traced(idle);
    P(PTRACE_CONT, pid, 0, 0);
    T(waitpid(pid, &status, WNOHANG));
    kill(pid, SIGUSR1);
    memset(&si, 0, sizeof si);
    T(waitid(P_PID, pid, &si, WSTOPPED | WNOWAIT));
    printf("%d %d %d %d\n", si.si_signo, si.si_code, si.si_status, si.si_pid == pid);
    T(waitid(P_PID, pid, &si, WEXITED | WNOHANG | WNOWAIT));
    printf("%d %d %d %d\n", si.si_signo, si.si_code, si.si_status, si.si_pid == pid);
    T(waitid(P_ALL, 0, &si, WSTOPPED));
    memset(&si, 1, sizeof si);
    T(waitid(P_PID, pid, &si, WSTOPPED | WNOHANG));
    V(si.si_pid);
    T(P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT));
    P(PTRACE_CONT, pid, 0, SIGUSR1);
    T(waitid(P_PGID, getpgrp(), &si, WSTOPPED));
    printf("%d %d %x\n", si.si_signo, si.si_code, si.si_status);
    P(PTRACE_CONT, pid, 0, 0);
    T(waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
    printf("%d %d %d\n", si.si_signo, si.si_code, si.si_status);
    next(pid);
    T(waitpid(pid, &status, 0));
    T(waitpid(-1, &status, __WALL | WNOHANG));
}

/* A tracer that is not the parent. */
static void strangers(void) {
    puts("-- a tracer that is not the parent");
    int tell[2], hear[2], status;
    char c = 0;
    pipe(tell);
    pipe(hear);
    pid_t tracee = fork();
    if (tracee == 0) {
        close(tell[1]);
        while (read(tell[0], &c, 1) == 1)
            ;
        _exit(5);
    }
    pid_t tracer = fork();
    if (tracer == 0) {
        close(tell[1]);
        until(tracee, 'S');
        T(P(PTRACE_ATTACH, tracee, 0, 0));
        next(tracee);
        V(code_of(tracee));
        struct user_regs_struct r;
        P(PTRACE_GETREGS, tracee, 0, &r);
        V(r.orig_rax);
        V(r.rax);
        P(PTRACE_CONT, tracee, 0, 0);
        fflush(stdout);
        write(hear[1], "1", 1);
        _exit(waitpid(tracee, &status, 0) == tracee && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    read(hear[0], &c, 1);
    int who;
    until(tracee, 'S');
    state_of(tracee, &who);
    V(who == tracer);
    T(waitpid(tracee, &status, WNOHANG | WUNTRACED));
    /* Its call was made again, and sees nothing of all that. */
    write(tell[1], "x", 1);
    close(tell[1]);
    T(waitpid(tracee, &status, 0) == tracee);
    said(tracee, tracee, status);
    next(tracer);

    puts("-- a tracer that ends");
    for (int kills = 0; kills < 2; kills++) {
        tracee = fork();
        if (tracee == 0)
            idle();
        tracer = fork();
        if (tracer == 0) {
            P(PTRACE_SEIZE, tracee, 0, kills ? PTRACE_O_EXITKILL : 0);
            P(PTRACE_INTERRUPT, tracee, 0, 0);
            waitpid(tracee, &status, __WALL);
            _exit(0);
        }
        T(waitpid(tracer, &status, 0) == tracer);
        if (kills) {
            next(tracee);
        } else {
            until(tracee, 'S');
            V(state_of(tracee, &who) == 'S');
            V(who);
            gone(tracee);
        }
    }
    /* One that had seen a signal takes it with it; one that had not leaves it. */
    for (int sees = 0; sees < 2; sees++) {
        tracee = fork();
        if (tracee == 0)
            idle();
        tracer = fork();
        if (tracer == 0) {
            P(PTRACE_SEIZE, tracee, 0, 0);
            kill(tracee, SIGUSR1);
            until(tracee, 't');
            if (sees)
                waitpid(tracee, &status, __WALL);
            _exit(0);
        }
        T(waitpid(tracer, &status, 0) == tracer);
        if (sees)
            kill(tracee, SIGTERM);
        next(tracee);
    }
    puts("-- a zombie is its tracer's first");
    tracee = fork();
    if (tracee == 0)
        idle();
    tracer = fork();
    if (tracer == 0) {
        P(PTRACE_SEIZE, tracee, 0, 0);
        kill(tracee, SIGKILL);
        until(tracee, 'Z');
        write(hear[1], "1", 1);
        usleep(100000);
        _exit(0);
    }
    read(hear[0], &c, 1);
    T(waitpid(tracee, &status, WNOHANG));
    next(tracee);
    next(tracer);
}

/* Tracees are waited for, also by who ignores SIGCHLD. */
static void ignoring(void) {
    puts("-- SIGCHLD ignored");
    fflush(stdout);
    pid_t parent = fork();
    if (parent == 0) {
        int status;
        pid_t pid = traced(idle);
        signal(SIGCHLD, SIG_IGN);
        P(PTRACE_CONT, pid, 0, SIGTERM);
        T(waitpid(pid, &status, 0) == pid);
        T(kill(pid, 0));
        pid = traced(threaded);
        P(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE);
        for (int i = 0; i < 5; i++) {
            P(PTRACE_CONT, pid, 0, 0);
            if (waitpid(pid, &status, __WALL) != pid || status >> 16)
                break;
        }
        V(status >> 16);
        pid_t child = (pid_t)message(pid);
        V(waitpid(child, &status, __WALL) == child && WIFSTOPPED(status));
        P(PTRACE_CONT, child, 0, 0);
        T(waitpid(child, &status, __WALL) == child);
        kill(pid, SIGKILL);
        T(waitpid(pid, &status, __WALL) == pid);
        fflush(stdout);
        _exit(0);
    }
    next(parent);
}

/* Many at once. */
static void *churns(void *unused) {
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(i);
        waitpid(pid, 0, 0);
    }
    return unused;
}
static void many(void) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], 0, churns, 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], 0);
}
static void races(void) {
    puts("-- many");
    pid_t pid = traced(many);
    P(PTRACE_SETOPTIONS, pid, 0,
      PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE);
    P(PTRACE_SYSCALL, pid, 0, 0);
    int ends = 0, made = 0, status;
    for (;;) {
        pid_t got = waitpid(-1, &status, __WALL);
        if (got < 0)
            break;
        if (!WIFSTOPPED(status)) {
            ends++;
            continue;
        }
        int sig = WSTOPSIG(status);
        if (status >> 16)
            made++;
        P(PTRACE_SYSCALL, got, 0, status >> 16 || sig == (SIGTRAP | 0x80) || sig == SIGSTOP ? 0 : sig);
    }
    V(made);
    V(ends);
    puts("-- attached and left again and again");
    pid = fork();
    if (pid == 0)
        for (volatile int i = 0;; i++)
            if (i % 100000 == 0)
                SYS(getppid);
    int good = 0;
    for (int i = 0; i < 200; i++) {
        if (i % 2) {
            good += P(PTRACE_SEIZE, pid, 0, 0) == 0 && P(PTRACE_INTERRUPT, pid, 0, 0) == 0;
        } else {
            good += P(PTRACE_ATTACH, pid, 0, 0) == 0;
        }
        good += waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
        for (int s = 0; s < 3; s++) {
            P(PTRACE_SINGLESTEP, pid, 0, 0);
            good += waitpid(pid, &status, __WALL) == pid && status >> 8 == SIGTRAP;
        }
        good += P(PTRACE_DETACH, pid, 0, 0) == 0;
    }
    V(good);
    V(state_of(pid, 0) == 'R');
    gone(pid);
    puts("-- killed while it is let go");
    int killed = 0;
    for (int i = 0; i < 50; i++) {
        pid = traced(many);
        P(PTRACE_SYSCALL, pid, 0, 0);
        kill(pid, SIGKILL);
        while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status))
            P(PTRACE_SYSCALL, pid, 0, 0);
        killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    V(killed);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 11;
    groups();
    events();
    threads();
    waiting();
    strangers();
    ignoring();
    races();
    return 0;
}
