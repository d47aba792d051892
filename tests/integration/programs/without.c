// Runs a program on a host that lacks something: "without notify" has no seccomp user notification, "without listener"
// has one listener already and so no other, "without both" has neither notification nor ptrace. A filter answers for the host; it is inherited by all that the program starts.
//
// without notify|listener|both PROGRAM ARGUMENTS...
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define EQUAL(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int both = !strcmp(argv[1], "both"), listener = !strcmp(argv[1], "listener");
  struct sock_filter code[] = {
      LOAD(nr),
      EQUAL(SYS_ptrace, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, both ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_ALLOW),
      EQUAL(SYS_seccomp, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      LOAD(args[0]),
      // An action that the host does not know, and a listener that it does not give.
      EQUAL(SECCOMP_GET_ACTION_AVAIL, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, listener ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EOPNOTSUPP),
      LOAD(args[1]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SECCOMP_FILTER_FLAG_NEW_LISTENER, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (listener ? EBUSY : EINVAL)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return perror("filter"), 2;
  execv(argv[2], argv + 2);
  return perror(argv[2]), 2;
}
