// A container's program that takes its own stub over: it knows the stub's text and slots (both lie in its own address
// space), jumps into the text with registers of its own, forges reports and frames, runs orders that nobody gave or that
// were given to somebody else. Each attack is a process of its own. One line an attack: name, what came of it.
//
// SUCCEEDED: the attacker got what only an order of the Sentry may give. refused: an error. killed: the Sentry ended it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <pthread.h>

#define SUCCEEDED 70
#define REFUSED 71
#define NOTHING 72
#define NOT_WATCHED 73

typedef uint64_t u64;
static const u64 STUB = 0x7d0000000000, SLOTS = 0x7d1000000000, SLOT = 0x8000, GROUP = 0x40000;
static const u64 REPORT = 0x70000001, DONE = 1000, START = 1001, WHERE = 0x20000000;
static u64 order_loop, report_call, own_slot;
static volatile int *shared;

static long plain(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  long r;
  register u64 r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
  asm volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return r;
}
static void end(int code) {
  for (;;) plain(SYS_exit_group, code, 0, 0, 0, 0, 0);
}
static void won(void) { end(SUCCEEDED); }
static void (*lands)(void) = won;

// Whether an address can be read, by trying.
static sigjmp_buf back;
static void fault(int s) { siglongjmp(back, s); }
static int readable(u64 at) {
  struct sigaction sa = {.sa_handler = fault}, old[2];
  sigaction(SIGSEGV, &sa, &old[0]);
  sigaction(SIGBUS, &sa, &old[1]);
  volatile int yes = 0;
  if (!sigsetjmp(back, 1)) {
    (void)*(volatile char *)at;
    yes = 1;
  }
  sigaction(SIGSEGV, &old[0], 0);
  sigaction(SIGBUS, &old[1], 0);
  return yes;
}

// A ucontext for rt_sigreturn: goes on at `to` with a stack of its own.
struct frame {
  u64 flags, link, ss_sp, ss_flags, ss_size;
  u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags, segments, err, trap, mask, cr2, fp;
  u64 rest[8];
  u64 sigmask;
} __attribute__((aligned(64)));
static char stacks[4][65536] __attribute__((aligned(64)));
static struct frame frames[4];
static struct frame *frame(int n, void (*to)(void)) {
  struct frame *f = &frames[n];
  memset(f, 0, sizeof *f);
  f->flags = 7;
  f->ss_flags = 2;
  f->rip = (u64)to;
  f->rsp = (u64)stacks[n] + sizeof stacks[n] - 8;
  f->rflags = 0x202;
  f->segments = 0x002b000000000033;
  return f;
}

// The stub's order loop with orders of ours: the call, then a way back that is taken only if the call did not fail. If it
// did, the stub reports to the Sentry with a frame that is none.
static u64 orders[8 * 8];
static void limit(long ms);
static void stub_call(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  limit(100);
  u64 mine[16] = {nr, a, b, c, d, e, f, 0, 15};
  memcpy(orders, mine, sizeof mine);
  struct frame *way_back = frame(0, lands);
  asm volatile("mov %0, %%r12; mov $2, %%r13d; xor %%r15d, %%r15d; mov %0, %%r14; mov %1, %%rsp; jmp *%2"
               : : "r"(orders), "r"(way_back), "r"(order_loop) : "r12", "r13", "r14", "r15", "memory");
  __builtin_unreachable();
}

static void find_stub(void) {
  // The page after the ELF header: the same bytes lie before and behind it, where they cannot be run.
  u64 page = STUB + 4096;
  if (readable(page)) {
    const unsigned char *p = (void *)page;
    for (int i = 0; i < 4090; i++) {
      if (!order_loop && !memcmp(p + i, "\x49\x8b\x04\x24\x49\x8b", 6)) order_loop = page + i;
      if (!report_call && !memcmp(p + i, "\x0f\x05\x48\x85\xc0", 5)) report_call = page + i;
    }
  }
}
static int no_slots;
static int find_slot(void) {
  for (u64 g = 0; g < 2048 && !no_slots; g++)
    if (readable(SLOTS + g * GROUP)) {
      own_slot = SLOTS + g * GROUP;
      return 1;
    }
  return 0;
}

// Under ptrace the stub's text is no other than the container's: a call from there is a call like any, for the Sentry to
// answer. (With the first argument "answered".)
static void slots_of_others(void) {
  int seen = 0;
  for (u64 g = 0; g < 512; g++) seen += readable(SLOTS + g * GROUP);
  end(seen > 1 ? SUCCEEDED : seen || no_slots ? REFUSED : NOTHING);
}

static int count, wins, answered;
static void row(const char *name, int status) {
  char what[64];
  if (WIFEXITED(status) && WEXITSTATUS(status) == SUCCEEDED) strcpy(what, "SUCCEEDED"), wins++;
  else if (WIFEXITED(status) && WEXITSTATUS(status) == 69) strcpy(what, "answered as a call like any");
  else if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED) strcpy(what, "refused");
  else if (WIFEXITED(status) && WEXITSTATUS(status) == NOTHING) strcpy(what, "nothing there");
  else if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_WATCHED) strcpy(what, "not watched");
  else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) strcpy(what, "killed");
  else if (WIFSIGNALED(status)) sprintf(what, "signal %d", WTERMSIG(status));
  else sprintf(what, "exit %d", WEXITSTATUS(status));
  printf("%-44s %s\n", name, what);
  fflush(stdout);
  count++;
}
// A stub that goes astray may loop in its own text for ever, making calls that are refused: SIGALRM ends it.
static void limit(long ms) {
  struct itimerval soon = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
  setitimer(ITIMER_REAL, &soon, 0);
}
// The second argument, to look at some attacks only: part of their names.
static const char *only;
#define IN_CHILD(name, ...)                       \
  do {                                            \
    if (only && !strstr(name, only)) break;       \
    pid_t pid_ = fork();                          \
    if (!pid_) {                                  \
      limit(10000);                               \
      { __VA_ARGS__; }                            \
      end(REFUSED);                               \
    }                                             \
    int st_ = 0;                                  \
    waitpid(pid_, &st_, 0);                       \
    row(name, st_);                               \
  } while (0)
static void won_nothing(void) { end(69); }
#define ORDERED_CALL(name, ...) IN_CHILD("stub text: " name, if (answered) lands = won_nothing; stub_call(__VA_ARGS__))
#define STUB_CALL(name, ...) IN_CHILD("stub text: " name, stub_call(__VA_ARGS__))

// Every number, from plain code and through the stub's text: the same must come of both, but for the calls that only
// orders may make.
static int one_number(int through_stub, u64 nr, const u64 *a) {
  fflush(stdout);
  pid_t pid = fork();
  if (!pid) {
    limit(100);
    if (through_stub) stub_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    long r = plain(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    end(r < 0 && r > -4096 ? REFUSED : SUCCEEDED);
  }
  int st = 0;
  waitpid(pid, &st, 0);
  if (WIFSIGNALED(st) && (WTERMSIG(st) == SIGKILL || (through_stub && WTERMSIG(st) == SIGALRM))) return REFUSED;
  return WIFSIGNALED(st) ? 128 + WTERMSIG(st) : WEXITSTATUS(st);
}
static void every_number(void) {
  static const int trapped[] = {9, 12, 25, 30, 56, 57, 58, 59, 67, 322, 435};
  int tried = 0, differ = 0;
  u64 sets[2][6] = {{3, WHERE, 0, 0, 0, 0}, {~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull}};
  // Where a refused call makes the stub loop until the alarm, one set of arguments must do.
  for (int set = 0; set < (answered ? 1 : 2); set++)
    for (u64 i = 0; i < 480 + 4; i++) {
      static const u64 odd[] = {0x40000000 | 39, 0x40000000 | 520, 0x7fffffff, 1000};
      u64 nr = i < 480 ? i : odd[i - 480];
      // rt_sigreturn is the stub's own; the timer is what ends calls that block; these end or stop their caller.
      if (nr == 15 || nr == SYS_exit || nr == SYS_exit_group) continue;
      int want = one_number(0, nr, sets[set]);
      // A queue that was to be made and not to be there yet (IPC_EXCL) is there now.
      if (nr == SYS_msgget) plain(SYS_msgctl, plain(SYS_msgget, sets[set][0], 0, 0, 0, 0, 0), 0, 0, 0, 0, 0);
      int got = one_number(1, nr, sets[set]), only_ordered = 0;
      for (unsigned t = 0; t < sizeof trapped / sizeof *trapped; t++) only_ordered |= nr == (u64)trapped[t];
      // The child's exit signal is what the arguments say: who is faster is chance.
      if (answered && only_ordered && nr == 56) continue;
      only_ordered &= !answered;
      tried++;
      if (only_ordered ? got != REFUSED : got != want && !(got == REFUSED && want == 128 + SIGALRM)) {
        differ++;
        printf("call %llu: plain %d, through the stub %d\n", (unsigned long long)nr, want, got);
      }
    }
  printf("%-44s %d tried, %d differ\n", "every number through the stub's text", tried, differ);
  count += tried;
  wins += differ;
}

// A report of a trapped call that never was: the frame in our slot has the call's registers. How many orders came.
static u64 forged(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  struct frame *fr = (void *)(own_slot + 0x3000);
  memcpy(fr, frame(1, won), sizeof *fr);
  fr->rax = nr, fr->rdi = a, fr->rsi = b, fr->rdx = c, fr->r10 = d, fr->r8 = e, fr->r9 = f;
  return plain(REPORT, 31, 0, (u64)fr, 0, 0, 0);
}
static void given(int n, u64 *to) { memcpy(to, (void *)(own_slot + 64 * n), 64); }

static void order_changed(u64 word, u64 value) {
  if (!find_slot()) end(NOTHING);
  if ((long)forged(9, WHERE, 4096, 1, 0x32, ~0ull, 0) <= 0) end(NOTHING);
  u64 o[8];
  given(0, o);
  o[word] = value;
  stub_call(o[0], o[1], o[2], o[3], o[4], o[5], o[6]);
}
static void after_done(void) {
  // Says that it has run its order and has not; then runs it.
  if (!find_slot()) end(NOTHING);
  if ((long)forged(9, WHERE, 4096, 3, 0x32, ~0ull, 0) <= 0) end(NOTHING);
  u64 o[8];
  given(0, o);
  plain(REPORT, DONE, 0, own_slot + 0x3000, 0, 0, 0);
  stub_call(o[0], o[1], o[2], o[3], o[4], o[5], o[6]);
}
static u64 passed[8];
static void *other_thread(void *x) {
  (void)x;
  stub_call(passed[0], passed[1], passed[2], passed[3], passed[4], passed[5], passed[6]);
  return 0;
}
static void other_threads_order(void) {
  pthread_t t;
  static pthread_barrier_t never;
  (void)never;
  if (!find_slot()) end(NOTHING);
  // The order is the main thread's; a second one, made before, tries to run it.
  static volatile int go;
  extern void *waiter(void *);
  (void)t, (void)go;
  pthread_create(&t, 0, waiter, 0);
  usleep(20000);
  if ((long)forged(9, WHERE, 4096, 3, 0x32, ~0ull, 0) <= 0) end(NOTHING);
  given(0, passed);
  __atomic_store_n((int *)&shared[1], 1, __ATOMIC_SEQ_CST);
  for (;;) asm volatile("pause");
}
void *waiter(void *x) {
  while (!__atomic_load_n((int *)&shared[1], __ATOMIC_SEQ_CST)) asm volatile("pause");
  return other_thread(x);
}

// Orders raced: a second thread rewrites the slots while the first has the Sentry give orders.
static void *scribbler(void *x) {
  (void)x;
  for (;;)
    for (u64 s = own_slot; s < own_slot + GROUP; s += SLOT) {
      u64 evil[8] = {9, WHERE, 4096, 3, 0x11, 4, 0, 0};
      memcpy((void *)s, evil, 64);
      memcpy((void *)(s + 64), evil, 64);
    }
  return 0;
}
static void race(void) {
  if (!find_slot()) end(NOTHING);
  pthread_t t;
  pthread_create(&t, 0, scribbler, 0);
  for (int i = 0; i < 2000; i++) {
    void *p = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) munmap(p, 8192);
    if (readable(WHERE)) end(SUCCEEDED);
  }
  end(REFUSED);
}

// A ghost: the child of a clone that was ordered, made at a place in the stub where it never reports. It tries to pass for a
// child, or a thread, of somebody else: by the slot of that and its word, if somebody told it. It makes the calls that the
// awaited one would make; one try, since a thread that nobody knows is ended at its first call.
enum { GHOST_TRIED = 2, GHOST_WON, VICTIM_FORKS = 7, VICTIM_SLOT };
static u64 *const told = (u64 *)(WHERE - 8192), *const own = (u64 *)(WHERE - 8192 + 64);  // slot, word: of an accomplice's child, of one's own
static u64 posing_at, posing_word;
static void ghost_reports(void) {
  long r = plain(REPORT, START, posing_word, posing_at + 0x2000, 0, 0, 0);
  if (r >= 0 || plain(SYS_getuid, 0, 0, 0, 0, 0, 0) >= 0) shared[GHOST_WON] = 1;
  for (;;) asm volatile("pause");
}
// The mapping must be made from the stub's text.
static void map_and_land(void) {
  u64 mine[16] = {9, posing_at, GROUP, posing_word, 0x11, 3, posing_at - SLOTS, 0, 15};
  memcpy(orders, mine, sizeof mine);
  struct frame *way_back = frame(0, lands);
  asm volatile("mov %0, %%r12; mov $2, %%r13d; xor %%r15d, %%r15d; mov %0, %%r14; mov %1, %%rsp; jmp *%2"
               : : "r"(orders), "r"(way_back), "r"(order_loop) : "r12", "r13", "r14", "r15", "memory");
  __builtin_unreachable();
}
static void ghost_maps_no_more(void) {
  plain(SYS_setpgid, 0, 0, posing_word, posing_at, 0, 0);
  ghost_reports();
}
static void ghost_poses(int thread) {
  shared[GHOST_TRIED]++;
  if (thread) ghost_reports();
  lands = ghost_maps_no_more;
  map_and_land();
}
// Between one child of the victim and the next, which will have the slot that the last had.
static void ghost_of_a_stranger(void) {
  int before = shared[VICTIM_FORKS];
  while (shared[VICTIM_FORKS] == before) asm volatile("pause");
  unsigned chance = (unsigned)__builtin_ia32_rdtsc() >> 4;
  for (unsigned i = 0; i < chance % 40000; i++) asm volatile("pause");
  posing_at = SLOTS + (u64)shared[VICTIM_SLOT] * SLOT, posing_word = 3;
  ghost_poses(0);
}
static void ghost_of_an_accomplice(void) {
  while (!__atomic_load_n(&told[0], __ATOMIC_SEQ_CST)) asm volatile("pause");
  posing_at = told[0] & ~7ull, posing_word = told[1];
  ghost_poses(!(told[0] & 1));
}
// Whether it won; the ghost is still under way, as the Sentry sees it.
static void ghosts_parent(void) {
  for (int i = 0; i < 200 && !shared[GHOST_TRIED]; i++) usleep(1000);
  for (int i = 0; i < 20 && !shared[GHOST_WON]; i++) usleep(1000);
  end(shared[GHOST_WON] ? SUCCEEDED : shared[GHOST_TRIED] ? REFUSED : NOTHING);
}

// Says that the orders ended so, and carries out what is ordered then; with a result of our own for each.
static void claim(long result) {
  long n = plain(REPORT, DONE, (u64)result, own_slot + 0x3000, 0, 0, 0);
  while (n > 0 && n < 8) {
    u64 o[8];
    for (long i = 0; i < n; i++) given(i, o), plain(o[0], o[1], o[2], o[3], o[4], o[5], o[6]);
    n = plain(REPORT, DONE, 0, own_slot + 0x3000, 0, 0, 0);
  }
}
// Has a clone ordered and makes it where the child does not report: it goes on at `child_at`, its parent at `parent_at`.
static void make_child(u64 flags, void (*child_at)(void), void (*parent_at)(void)) {
  if (!find_slot()) end(NOTHING);
  // The first fork of a process has one order more: its slots are taken out of what is copied.
  pid_t c = fork();
  if (!c) end(0);
  waitpid(c, 0, 0);
  long n = forged(56, flags, 0, 0, 0, 0, 0);
  if (n <= 0) end(NOTHING);
  u64 o[8];
  given(n - 1, o);
  // Orders before it are run as they are, each with its way on: not needed for a slot of the first group.
  if (n != 1 || o[0] != 56) end(NOTHING);
  own[1] = o[3], own[0] = o[7];
  struct frame *child = frame(2, child_at), *parent = frame(3, parent_at);
  memset(orders, 0, sizeof orders);
  orders[0] = 15;
  // The parent goes on with orders of ours (rt_sigreturn, on this stack), the child returns from a signal that never came.
  asm volatile("mov %0, %%rdi; mov %1, %%rsi; mov %2, %%rdx; mov %3, %%r10; mov %4, %%r8; mov %5, %%r14; mov %6, %%r15;"
               "mov %7, %%rax; mov %8, %%rsp; mov $56, %%ebx; xchg %%rax, %%rbx; xor %%r9d, %%r9d; jmp *%%rbx"
               : : "m"(o[1]), "m"(o[2]), "m"(o[3]), "m"(o[4]), "m"(o[5]), "r"(orders), "r"(child), "m"(report_call), "r"(parent)
               : "rax", "rbx", "rdi", "rsi", "rdx", "r8", "r9", "r10", "r14", "r15", "memory");
  __builtin_unreachable();
}
// A thread that is known by its word, and makes calls before it reports.
static void early(void) {
  plain(SYS_setpgid, 0, 0, own[1], own[0] & ~7ull, 0, 0);
  shared[GHOST_TRIED] = 1;
  if (plain(SYS_getuid, 0, 0, 0, 0, 0, 0) >= 0) shared[GHOST_WON] = 1;
  for (;;) asm volatile("pause");
}

// One that is ordered a clone tells slot and word of its child, and makes none.
static void accomplice(u64 flags) {
  shared[GHOST_TRIED] = shared[GHOST_WON] = 0;
  told[0] = 0;
  pid_t friend_of = fork();
  if (!friend_of) {
    limit(5000);
    if (!find_slot()) end(NOTHING);
    long n = forged(56, flags, (u64)stacks[1], 0, 0, 0, 0);
    if (n <= 0) end(NOTHING);
    u64 o[8];
    given(n - 1, o);
    told[1] = o[3];
    __atomic_store_n(&told[0], o[7], __ATOMIC_SEQ_CST);
    for (;;) asm volatile("pause");
  }
  make_child(17, ghost_of_an_accomplice, ghosts_parent);
}
static void early_thread(void) {
  shared[GHOST_TRIED] = shared[GHOST_WON] = 0;
  make_child(0x10f00, early, ghosts_parent);
}

// The same with a child that does all it should, and a parent that goes its own way.
static void make_reporting_child(void (*child_at)(void), void (*parent_at)(void)) {
  if (!find_slot()) end(NOTHING);
  pid_t c = fork();
  if (!c) end(0);
  waitpid(c, 0, 0);
  struct frame *fr = (void *)(own_slot + 0x3000);
  memcpy(fr, frame(2, child_at), sizeof *fr);
  fr->rax = 56, fr->rdi = 17, fr->rsi = fr->rdx = fr->r10 = fr->r8 = fr->r9 = 0;
  if ((long)plain(REPORT, 31, 0, (u64)fr, 0, 0, 0) != 1) end(NOTHING);
  given(0, orders);
  orders[8] = 15;
  struct frame *way_back = frame(3, parent_at);
  asm volatile("mov %0, %%r12; mov $2, %%r13d; xor %%r15d, %%r15d; mov %0, %%r14; mov %1, %%rsp; jmp *%2"
               : : "r"(orders), "r"(way_back), "r"(order_loop) : "r12", "r13", "r14", "r15", "memory");
  __builtin_unreachable();
}

// A silent child: one that was ordered and never reports. It looks at memory that its parent had mapped for as long as it
// lives; what the Sentry believes free must not be given to others meanwhile.
enum { SPY_TURNS = 9, SPY_SEES, SPY_PARENT, SPY_HOW, SPY_PID };
static void spy(void) {
  // One that reported has calls answered; another would be ended for it.
  if (shared[SPY_HOW] == 4) shared[SPY_PID] = getpid();
  for (;;) {
    for (u64 at = WHERE; at < WHERE + (1 << 16); at += 4096) shared[SPY_SEES] |= *(volatile char *)at == 'V';
    shared[SPY_TURNS]++;
  }
}
static void spys_parent(void) {
  while (!shared[SPY_TURNS]) asm volatile("pause");
  switch (shared[SPY_HOW]) {
  case 0:
  case 4: claim(-11); munmap((void *)WHERE, 1 << 16); getppid(); break;
  case 1: claim(-11); end(0);
  case 2: break;
  case 3:
    // Says that all went well, and ends the child that never came as the Sentry sees it.
    claim(0);
    munmap((void *)WHERE, 1 << 16), getppid();
    for (pid_t p = getpid() + 1; p < getpid() + 8; p++) plain(SYS_kill, p, SIGKILL, 0, 0, 0, 0);
    break;
  }
  shared[SPY_PARENT] = 1;
  for (;;) asm volatile("pause");
}
// A child that is ended, as the Sentry sees it, before it reports; then it does, and does not end.
static void late_maps_no_more(void) {
  plain(SYS_setpgid, 0, 0, posing_word, posing_at, 0, 0);
  plain(REPORT, START, posing_word, posing_at + 0x2000, 0, 0, 0);
  for (;;) shared[SPY_TURNS]++;
}
static void late(void) {
  shared[SPY_TURNS] = 1;
  while (shared[SPY_PARENT] != 1) asm volatile("pause");
  posing_at = own[0] & ~7ull, posing_word = own[1];
  lands = late_maps_no_more;
  map_and_land();
}
static void lates_parent(void) {
  while (!shared[SPY_TURNS]) asm volatile("pause");
  claim(0);
  for (pid_t p = getpid() + 1; p < getpid() + 8; p++) plain(SYS_kill, p, SIGKILL, 0, 0, 0, 0);
  shared[SPY_PARENT] = 1;
  for (;;) asm volatile("pause");
}

static void silent_child(int how, u64 flags) {
  for (int i = SPY_TURNS; i <= SPY_PID; i++) shared[i] = 0;
  shared[SPY_HOW] = how;
  pid_t parent = fork();
  if (!parent) {
    char *p = mmap((void *)WHERE, 1 << 16, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED) end(NOTHING);
    memset(p, 'M', 1 << 16);
    if (how == 4) make_reporting_child(spy, spys_parent);
    if (how == 5) make_child(flags, late, lates_parent);
    make_child(flags, spy, spys_parent);
  }
  for (int i = 0; i < 1000 && !shared[SPY_TURNS]; i++) usleep(1000);
  if (!shared[SPY_TURNS]) kill(parent, SIGKILL), end(NOTHING);
  if (how == 0 || how >= 3) {
    for (int i = 0; i < 500 && !shared[SPY_PARENT]; i++) usleep(1000);
  } else {
    if (how == 2) usleep(50000), kill(parent, SIGKILL);
    int st;
    waitpid(parent, &st, 0);
  }
  usleep(20000);
  for (int i = 0; i < 64; i++) {
    char *mine = mmap(0, 1 << 16, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mine != MAP_FAILED) memset(mine, 'V', 1 << 16);
  }
  usleep(50000);
  int seen = shared[SPY_SEES], runs = 1;
  // Known as a process like any, it runs on.
  if (how == 4 && shared[SPY_PID] > 0) kill(shared[SPY_PID], SIGKILL);
  if (how == 0 || how >= 3) kill(parent, SIGKILL), waitpid(parent, 0, 0);
  for (int i = 0; i < 80 && runs; i++) {
    int before = shared[SPY_TURNS];
    usleep(100000);
    runs = shared[SPY_TURNS] != before;
  }
  seen |= shared[SPY_SEES];
  if (seen || runs) printf("(%s%s)\n", seen ? "it saw memory of others; " : "", runs ? "it runs on" : "it ended"), fflush(stdout);
  end(seen || runs ? SUCCEEDED : REFUSED);
}

// rt_sigreturn of the stub's own with every register ours.
static void odd_frame(int what) {
  struct frame *f = frame(1, won);
  f->rip = (u64)end, f->rdi = REFUSED;
  switch (what) {
  case 0: f->segments = 0x002b000000000023; break;
  case 1: f->segments = 0; f->rip = ~0ull; break;
  case 2: f->rflags = ~0ull; break;
  case 3: f->fp = (u64)stacks[3]; memset(stacks[3], 0xff, 4096); break;
  case 4: f->fp = 1; break;
  case 5: f->rip = 0xffffffff81000000; break;
  }
  u64 mine[8] = {15};
  memcpy(orders, mine, sizeof mine);
  asm volatile("mov %0, %%r12; mov $1, %%r13d; mov %1, %%rsp; jmp *%2" : : "r"(orders), "r"(f), "r"(order_loop) : "memory");
}
static void then_map(void) {
  // Signals blocked or their stack ours: the next call that traps must not get anywhere.
  plain(9, WHERE, 4096, 3, 0x32, ~0ull, 0);
  end(REFUSED);
}
static void odd_signal_state(int what) {
  struct frame *f = frame(1, then_map);
  if (what == 0) f->sigmask = ~0ull;
  else f->ss_sp = (u64)stacks[2], f->ss_flags = 0, f->ss_size = 32768;
  orders[0] = 15;
  asm volatile("mov %0, %%r12; mov $1, %%r13d; mov %1, %%rsp; jmp *%2" : : "r"(orders), "r"(f), "r"(order_loop) : "memory");
}

// An order that raises a protection, kept back while another thread maps a file there that may only be read. The order is
// the Sentry's own and is carried out; what it must not do is to make that file's pages writable.
static int file_of_others = -1;
static void write_there(void) {
  *(volatile char *)WHERE = 'X';
  end(SUCCEEDED);
}
static void *swap_mapping(void *x) {
  while (shared[4] != 1) usleep(1000);
  munmap((void *)WHERE, 4096);
  void *p = mmap((void *)WHERE, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, file_of_others, 0);
  if (p == MAP_FAILED || *(volatile char *)p != 'A') end(NOTHING);
  shared[4] = 2;
  for (;;) pause();
  return x;
}
static void raised_late(void) {
  file_of_others = open("/of-others", O_RDWR | O_CREAT | O_TRUNC, 0644);
  char page[4096];
  memset(page, 'A', sizeof page);
  if (write(file_of_others, page, sizeof page) != sizeof page) end(NOTHING);
  close(file_of_others);
  if (setgid(33) || setuid(33) || (file_of_others = open("/of-others", O_RDONLY)) < 0) end(NOTHING);
  if (!find_slot()) end(NOTHING);
  if (mmap((void *)WHERE, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) end(NOTHING);
  *(volatile char *)WHERE = 1;
  shared[4] = 0;
  pthread_t t;
  pthread_create(&t, 0, swap_mapping, 0);
  // A fault that never was: the page is there and may be written, so the Sentry orders the host to let it.
  struct frame *fr = (void *)(own_slot + 0x3000);
  memcpy(fr, frame(1, won), sizeof *fr);
  fr->err = 3, fr->trap = 14;
  u64 *info = (void *)(own_slot + 0x3800), o[8];
  info[1] = 2, info[2] = WHERE;
  if (plain(REPORT, 11, (u64)info, (u64)fr, 0, 0, 0) != 1) end(NOTHING);
  given(0, o);
  if (o[0] != SYS_mprotect) end(NOTHING);
  shared[4] = 1;
  while (shared[4] != 2) asm volatile("pause");
  lands = write_there;
  stub_call(o[0], o[1], o[2], o[3], o[4], o[5], o[6]);
}

// Memory that was replaced by an order that is kept back: it is still there for the host, so nobody else may get it.
static void *replace(void *x) {
  if (!find_slot()) end(NOTHING);
  (void)x;
  // The second thread's slot is the group's second or a later one: whichever this thread's signals use is told by its stack.
  u64 slot = own_slot + SLOT * (u64)shared[5];
  struct frame *fr = (void *)(slot + 0x3000);
  memcpy(fr, frame(1, won), sizeof *fr);
  fr->rax = 9, fr->rdi = WHERE, fr->rsi = 1 << 16, fr->rdx = 3, fr->r10 = 0x32, fr->r8 = ~0ull, fr->r9 = 0;
  if ((long)plain(REPORT, 31, 0, (u64)fr, 0, 0, 0) <= 0) end(NOTHING);
  shared[4] = 1;
  for (;;) asm volatile("pause");
  return 0;
}
static void kept_back(void) {
  volatile char *p = mmap((void *)WHERE, 1 << 16, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (p != (char *)WHERE) end(NOTHING);
  memset((char *)p, 'M', 1 << 16);
  pid_t victim = fork();
  if (!victim) {
    // Of another process, shared with nobody: what is given back is given out again.
    munmap((void *)WHERE, 1 << 16);
    while (shared[4] != 1) usleep(1000);
    for (int i = 0; i < 16; i++) {
      char *mine = mmap(0, 1 << 16, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      if (mine != MAP_FAILED) memset(mine, 'V', 1 << 16);
    }
    shared[4] = 2;
    for (;;) pause();
  }
  usleep(50000);
  shared[4] = 0, shared[5] = 1;
  pthread_t t;
  pthread_create(&t, 0, replace, 0);
  while (shared[4] != 2) usleep(1000);
  int seen = 0;
  for (int i = 0; i < 1 << 16; i += 4096) seen |= p[i] == 'V';
  kill(victim, SIGKILL);
  end(seen ? SUCCEEDED : REFUSED);
}

// The short way of calls: words in the slot that a watching thread of the Sentry reads. The thread is made to be watched
// by a patched call site that is called again and again; then it posts what it likes.
static volatile uint32_t *short_word(u64 at) { return (void *)(own_slot + 0xf00 + at); }
static volatile u64 *short_call(int i) { return (void *)(own_slot + 0xf08 + 8 * i); }
enum { IDLE, POSTED, TAKEN, ANSWERED, LONG, SLEEP };
static long hot(void) {
  long r;
  asm volatile("mov $110, %%eax\n\tsyscall" : "=a"(r) : : "rcx", "r11", "memory");
  return r;
}
static int watched(void) {
  for (int i = 0; i < 200000; i++) {
    hot();
    if (*short_word(4) == 1) return 1;
  }
  return 0;
}
static int short_taken(void) {
  for (int i = 0; i < 100000 && *short_word(0) == POSTED; i++) asm volatile("pause");
  uint32_t posted = POSTED;
  return !__atomic_compare_exchange_n((uint32_t *)short_word(0), &posted, IDLE, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static int post(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  u64 words[] = {nr, a, b, c, d, e, f};
  for (int tries = 0; tries < 200; tries++) {
    if (!watched()) return 0;
    for (int i = 0; i < 7; i++) *short_call(i) = words[i];
    *short_word(0) = POSTED;
    if (short_taken()) {
      shared[6]++;
      return 1;
    }
  }
  return 0;
}
static uint32_t short_end(void) {
  for (int i = 0; i < 30000000; i++) {
    uint32_t s = *short_word(0);
    if (s == SLEEP) plain(REPORT, 1002, 0, 0, 0, 0, 0);
    else if (s != TAKEN) return s;
    asm volatile("pause");
  }
  return TAKEN;
}
static long short_result(void) { return (long)*short_call(7); }
static void short_never(u64 nr, const u64 *a) {
  if (!find_slot()) end(NOTHING);
  // On a host with no core to spare nobody is watched.
  if (!post(nr, a[0], a[1], a[2], a[3], a[4], a[5])) end(NOT_WATCHED);
  uint32_t how = short_end();
  long r = short_result();
  *short_word(0) = IDLE;
  if (how == ANSWERED && r >= 0) end(SUCCEEDED);
  if (readable(WHERE) || !readable(SLOTS + (own_slot - SLOTS)) || hot() != getppid()) end(SUCCEEDED);
  end(REFUSED);
}
static void short_works(void) {
  // No attack: what shows that the others are taken at all.
  if (!find_slot()) end(NOTHING);
  if (!post(SYS_getppid, 0, 0, 0, 0, 0, 0)) end(NOT_WATCHED);
  end(short_end() == ANSWERED && short_result() == hot() ? REFUSED : SUCCEEDED);
}
enum { WITH_ORDERS = 20 };
static int short_with_orders_once(void) {
  if (!find_slot()) return NOTHING;
  if (!watched()) return NOT_WATCHED;
  if ((long)forged(9, WHERE, 4096, 1, 0x32, ~0ull, 0) <= 0) return NOTHING;
  *short_call(0) = SYS_getppid;
  *short_word(0) = POSTED;
  if (!short_taken()) return NOT_WATCHED;
  return short_end() == ANSWERED && short_result() >= 0 ? SUCCEEDED : REFUSED;
}
static void short_with_orders(void) {
  // A try a process: it is left with orders, and no call that is none of them is answered any more.
  for (int tries = 0; tries < 30; tries++) {
    shared[WITH_ORDERS] = 0;
    pid_t c = fork();
    if (!c) {
      shared[WITH_ORDERS] = short_with_orders_once();
      for (;;) asm volatile("pause");
    }
    for (int i = 0; i < 2000 && !shared[WITH_ORDERS]; i++) usleep(1000);
    kill(c, SIGKILL);
    waitpid(c, 0, 0);
    if (shared[WITH_ORDERS] && shared[WITH_ORDERS] != NOT_WATCHED) shared[6]++, end(shared[WITH_ORDERS]);
  }
  end(NOT_WATCHED);
}
static void short_and_another(int what) {
  int ends[2];
  if (!find_slot() || pipe(ends)) end(NOTHING);
  char byte;
  if (!post(SYS_read, ends[0], (u64)&byte, 1, 0, 0, 0)) end(NOT_WATCHED);
  long r = -1;
  switch (what) {
  case 0: r = plain(SYS_getuid, 0, 0, 0, 0, 0, 0); break;
  case 1: r = (long)forged(9, WHERE, 4096, 1, 0x32, ~0ull, 0); break;
  case 2: r = (long)plain(REPORT, DONE, 0, own_slot + 0x3000, 0, 0, 0); break;
  case 3: r = (long)plain(REPORT, START, 0, own_slot + 0x2000, 0, 0, 0); break;
  // Never goes to sleep over it: the alarm must end it all the same.
  case 4: for (limit(200);;) asm volatile("pause");
  }
  limit(100);
  if (r > 0 || (what == 0 && r == 0)) end(SUCCEEDED);
  for (;;) plain(REPORT, 1002, 0, 0, 0, 0, 0);
}
static void short_flipped(void) {
  if (!find_slot()) end(NOTHING);
  static const char text[] = "flip";
  for (int i = 0; i < 300; i++) {
    if (!watched()) end(i ? REFUSED : NOT_WATCHED);
    for (int k = 0; k < 3000; k++) {
      *short_call(0) = k & 1 ? SYS_getppid : SYS_mmap;
      *short_call(1) = k & 2 ? WHERE : (u64)text;
      *short_call(9) = k * 77777ull;
      *short_word(0) = k % 7;
    }
    if (readable(WHERE)) end(SUCCEEDED);
  }
  *short_word(0) = IDLE;
  end(REFUSED);
}
static void asleep_over_nothing(void) {
  if (!find_slot()) end(NOTHING);
  for (int i = 0; i < 1000; i++) {
    *short_word(0) = i % 7;
    if (plain(REPORT, 1002, i, own_slot + 0x3000, 0, 0, 0) > 0) end(SUCCEEDED);
  }
  *short_word(0) = IDLE;
  end(getuid() == 0 ? REFUSED : SUCCEEDED);
}
// Threads that end while they are watched, and others that post in the slots that they leave.
static void *hot_thread(void *x) {
  for (int i = 0; i < 3000; i++) hot();
  return x;
}
static void short_of_the_dead(void) {
  if (!find_slot()) end(NOTHING);
  for (int i = 0; i < 2000; i++) hot();
  for (int i = 0; i < 60; i++) {
    pthread_t t;
    if (pthread_create(&t, 0, hot_thread, 0)) end(NOTHING);
    for (int k = 0; k < 20000; k++)
      for (u64 s = own_slot; s < own_slot + GROUP; s += SLOT) {
        *(volatile u64 *)(s + 0xf08) = SYS_getppid;
        *(volatile uint32_t *)(s + 0xf00) = POSTED;
      }
    memset((void *)(own_slot + 0xf00), 0, 16);
    pthread_join(t, 0);
    memset((void *)(own_slot + 0xf00), 0, 16);
  }
  end(hot() == getppid() ? REFUSED : SUCCEEDED);
}
static void tick(int s) { (void)s; }
static void short_interrupted(void) {
  if (!find_slot()) end(NOTHING);
  signal(SIGVTALRM, tick);
  struct itimerval often = {{0, 300}, {0, 300}};
  setitimer(ITIMER_VIRTUAL, &often, 0);
  long parent = getppid();
  for (int i = 0; i < 60000; i++) {
    if (i % 64 == 0) *short_call(9) = i * 4099ull, *short_word(0) = i / 64 % 7;
    if (i % 64 == 32) *short_word(0) = IDLE;
    long r = hot();
    // EPERM: the call that we forged is still being served (its server may have lost its core), and one at a time is all there is.
    if (i % 64 > 40 && r != parent && r != -1) end(SUCCEEDED);
  }
  end(REFUSED);
}
// Into the middle of the stub's short way, registers ours.
static u64 short_at;
static void land(void) { end(REFUSED); }
static void short_middle(u64 at) {
  limit(50);
  if (!find_slot()) end(NOTHING);
  asm volatile("mov %0, %%rbx; mov %1, %%rcx; mov $9, %%eax; mov %2, %%rdi; mov $4096, %%esi; mov $3, %%edx; mov $0x32, %%r10d;"
               "mov $-1, %%r8; xor %%r9d, %%r9d; jmp *%%rbx"
               : : "r"(short_at + at), "r"((u64)land), "r"(WHERE) : "rax", "rbx", "rcx", "rdi", "rsi", "rdx", "r8", "r9", "r10", "memory");
}
static u64 trampoline(void) {
  for (int i = 0; i < 2000; i++) hot();
  const unsigned char *p = (void *)hot;
  for (int i = 0; i < 64; i++)
    if (p[i] == 0xe9 && p[i + 5] == 0x0f && p[i + 6] == 0x05) {
      int32_t by;
      memcpy(&by, p + i + 1, 4);
      return (u64)(p + i + 5) + (u64)(int64_t)by;
    }
  return 0;
}
static void short_trampoline(int what) {
  u64 at = trampoline();
  if (!at) end(NOTHING);
  u64 page = at & ~4095ull;
  switch (what) {
  case 0: end(mprotect((void *)page, 4096, 7) && mprotect((void *)page, 4096, 2) ? REFUSED : SUCCEEDED);
  case 1: munmap((void *)page, 4096), hot(); end(SUCCEEDED);
  case 2: end(mremap((void *)page, 4096, 4096, 3, WHERE) == MAP_FAILED || mprotect((void *)WHERE, 4096, 7) ? REFUSED : SUCCEEDED);
  case 3: {
    // The base of %gs elsewhere: a page of ours that says that somebody watches.
    uint32_t *fake = mmap((void *)WHERE, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    fake[0xf04 / 4] = 1;
    asm volatile("wrgsbase %0" : : "r"(WHERE));
    end(hot() == getppid() ? REFUSED : SUCCEEDED);
  }
  case 4: asm volatile("wrgsbase %0" : : "r"(WHERE)); hot(); end(SUCCEEDED);
  case 5: {
    // A process of its own with the same memory, and so with the same sites; then one with a copy.
    for (int copy = 0; copy < 2; copy++) {
      pid_t c = copy ? fork() : vfork();
      if (!c) {
        for (int i = 0; i < 500; i++) hot();
        _exit(hot() > 0 ? 7 : 0);
      }
      int st = 0;
      waitpid(c, &st, 0);
      if (WEXITSTATUS(st) != 7) end(SUCCEEDED);
    }
    end(REFUSED);
  }
  }
}

int main(int argc, char **argv) {
  answered = argc > 1 && !strcmp(argv[1], "answered");
  only = argc > 2 ? argv[2] : 0;
  for (int fd = 3; fd < 64; fd++) close(fd);
  shared = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  find_stub();
  if (!order_loop || !report_call) return puts("the stub's text was not found"), 2;
  if (!find_slot()) no_slots = 1, puts("(no slot to be seen)");
  if (!only) every_number();

  for (int fd = 3; fd < 9; fd++) {
    char name[64];
    sprintf(name, "mmap of descriptor %d, shared", fd);
    IN_CHILD(name, stub_call(9, WHERE, 4096, 3, 0x11, fd, 0));
    static const struct { const char *name; int nr; u64 a[5]; } on_fd[] = {
        {"close", 3, {0}}, {"fstat", 5, {WHERE - 4096}}, {"lseek", 8, {0, 2}}, {"dup", 32, {0}}, {"fcntl F_GETFL", 72, {3}},
        {"ftruncate", 77, {1 << 20}}, {"fallocate punch", 285, {3, 0, 4096}}, {"fsync", 74, {0}}, {"write", 1, {(u64)"x", 1}},
        {"pwrite64", 18, {(u64)"x", 1, 0}}, {"pread64", 17, {(u64)stacks[0], 16, 0}}, {"getdents64", 217, {(u64)stacks[0], 64}},
    };
    for (unsigned i = 0; i < sizeof on_fd / sizeof *on_fd; i++) {
      sprintf(name, "%s of descriptor %d, plain", on_fd[i].name, fd);
      IN_CHILD(name, {
        long r = plain(on_fd[i].nr, fd, on_fd[i].a[0], on_fd[i].a[1], on_fd[i].a[2], on_fd[i].a[3], 0);
        end(r < 0 ? REFUSED : SUCCEEDED);
      });
      sprintf(name, "%s of descriptor %d, stub text", on_fd[i].name, fd);
      IN_CHILD(name, stub_call(on_fd[i].nr, fd, on_fd[i].a[0], on_fd[i].a[1], on_fd[i].a[2], on_fd[i].a[3], 0));
    }
  }
  ORDERED_CALL("mmap anonymous", 9, WHERE, 4096, 7, 0x32, ~0ull, 0);
  STUB_CALL("mmap over the stub", 9, STUB, 4096, 7, 0x32, ~0ull, 0);
  STUB_CALL("mmap over the slots", 9, SLOTS, 4096, 7, 0x32, ~0ull, 0);
  STUB_CALL("munmap of the stub", 11, STUB, 0x10000, 0, 0, 0, 0);
  STUB_CALL("munmap of the slots", 11, SLOTS, 1 << 24, 0, 0, 0, 0);
  STUB_CALL("munmap of everything above", 11, 0x7c0000000000, 0x2ffffffff000, 0, 0, 0, 0);
  STUB_CALL("mprotect of the stub", 10, STUB, 4096, 7, 0, 0, 0);
  STUB_CALL("mprotect of the stub's text", 10, order_loop & ~4095ull, 4096, 7, 0, 0, 0);
  STUB_CALL("mprotect of the slots", 10, SLOTS, GROUP, 7, 0, 0, 0);
  STUB_CALL("madvise DOFORK of the slots", 28, SLOTS, GROUP, 11, 0, 0, 0);
  STUB_CALL("madvise DONTNEED of the stub", 28, STUB, 4096, 4, 0, 0, 0);
  STUB_CALL("mremap of the slots", 25, SLOTS, GROUP, GROUP, 3, WHERE, 0);
  ORDERED_CALL("brk", 12, WHERE, 0, 0, 0, 0, 0);
  ORDERED_CALL("fork", 57, 0, 0, 0, 0, 0, 0);
  ORDERED_CALL("vfork", 58, 0, 0, 0, 0, 0, 0);
  ORDERED_CALL("clone", 56, 17, 0, 0, 0, 0, 0);
  ORDERED_CALL("clone with memory", 56, 0x100 | 0x8000 | 17, 0, 0, 0, 0, 0);
  ORDERED_CALL("clone into a user namespace", 56, 0x10000000 | 17, 0, 0, 0, 0, 0);
  STUB_CALL("execve", 59, (u64)"/no/such", 0, 0, 0, 0, 0);
  STUB_CALL("execveat of descriptor 3", 322, 3, (u64) "", 0, 0, 0x1000, 0);
  STUB_CALL("shmat", 30, 0, WHERE, 0, 0, 0, 0);
  STUB_CALL("seccomp", 317, 1, 0, 0, 0, 0, 0);
  STUB_CALL("prctl PR_SET_DUMPABLE to nonsense", 157, 4, 77, 0, 0, 0, 0);
  STUB_CALL("arch_prctl SHSTK", 158, 0x5001, 1, 0, 0, 0, 0);
  STUB_CALL("ptrace of a process that is not", 101, 16, 9999, 0, 0, 0, 0);
  STUB_CALL("kill of a process that is not", 62, 9999, 9, 0, 0, 0, 0);
  STUB_CALL("setns", 308, 3, 0, 0, 0, 0, 0);
  // With a namespace that the Sentry has none of: the host would make both.
  STUB_CALL("unshare", 272, 0x10000080, 0, 0, 0, 0, 0);
  STUB_CALL("bpf", 321, 0, (u64)stacks[0], 64, 0, 0, 0);
  STUB_CALL("userfaultfd", 323, 0, 0, 0, 0, 0, 0);
  STUB_CALL("pidfd_getfd", 438, 3, 3, 0, 0, 0, 0);
  STUB_CALL("open_by_handle_at", 304, 3, (u64)stacks[0], 0, 0, 0, 0);
  IN_CHILD("int 0x80 (another architecture's getpid)", {
    long r;
    asm volatile("int $0x80" : "=a"(r) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    end(r > 0 ? SUCCEEDED : REFUSED);
  });

  IN_CHILD("slots of another process", slots_of_others());
  IN_CHILD("slots of another process, a fork later", {
    pid_t c = fork();
    if (!c) slots_of_others();
    int st = 0;
    waitpid(c, &st, 0);
    end(WEXITSTATUS(st));
  });
  static const u64 kinds[] = {0, 4, 5, 7, 8, 10, 11, 31, 99, DONE, START, ~0ull};
  for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++)
    for (int where = 0; where < 7; where++) {
      char name[64];
      sprintf(name, "forged report %llu, frame %d", (unsigned long long)kinds[k], where);
      IN_CHILD(name, {
        if (!find_slot()) end(NOTHING);
        u64 at[] = {0, own_slot + 0x3000, own_slot + SLOT + 0x3000, own_slot + SLOT - 8, own_slot + 0x3001, ~7ull, SLOTS + 0x3000};
        if (where == 1) memcpy((void *)at[1], frame(1, won), sizeof(struct frame));
        // A report is no call: what it answers is how many orders to run, and there is no order to give for this.
        long r = plain(REPORT, kinds[k], 0, at[where], 0, 0, 0);
        if (r > 0) {
          u64 o[8];
          given(0, o);
          // Only our own exit may have been ordered.
          end(o[0] == SYS_exit || o[0] == 15 ? REFUSED : SUCCEEDED);
        }
        end(REFUSED);
      });
    }
  IN_CHILD("an order with another address", order_changed(1, WHERE + 4096));
  IN_CHILD("an order with another length", order_changed(2, 1 << 20));
  IN_CHILD("an order with another protection", order_changed(3, 7));
  IN_CHILD("an order with another descriptor", order_changed(5, 4));
  IN_CHILD("an order made another call", order_changed(0, 11));
  IN_CHILD("an order after it was said to be done", after_done());
  shared[1] = 0;
  IN_CHILD("an order given to another thread", other_threads_order());
  IN_CHILD("orders rewritten while they are given", race());
  for (int i = 0; i < 6; i++) {
    char name[64];
    sprintf(name, "rt_sigreturn with an odd frame %d", i);
    IN_CHILD(name, odd_frame(i));
  }
  IN_CHILD("every signal blocked, then a trap", odd_signal_state(0));
  IN_CHILD("a signal stack of its own, then a trap", odd_signal_state(1));

  IN_CHILD("a protection raised late, on a file to be read only", raised_late());
  IN_CHILD("memory replaced by an order that is kept back", kept_back());

  // The other platform has no short way: no site is patched, nothing is there to attack.
  if (!answered) {
    for (const unsigned char *p = (void *)(STUB + 4096); p < (unsigned char *)STUB + 8000 && !short_at; p++)
      if (!memcmp(p, "\x65\x48\x89\x0c\x25\x48\x0f\x00\x00", 9)) short_at = (u64)p;
    if (!short_at) return puts("the stub's short way was not found"), 2;
    shared[6] = 0;
    IN_CHILD("short way: getppid, as it is meant", short_works());
    static const u64 never[] = {9, 10, 11, 12, 15, 25, 28, 30, 56, 57, 58, 59, 60, 67, 158, 231, 322, 435, 512, 0x40000009, 0x70000001, ~0ull};
    u64 there[6] = {WHERE, 4096, 3, 0x32, ~0ull, 0}, slots[6] = {SLOTS, 1 << 24, 0, 0, 0, 0};
    for (unsigned i = 0; i < sizeof never / sizeof *never; i++)
      for (int set = 0; set < 2; set++) {
        char name[64];
        sprintf(name, "short way: call %llu%s", (unsigned long long)never[i], set ? ", the slots" : "");
        IN_CHILD(name, short_never(never[i], set ? slots : there));
      }
    IN_CHILD("short way: orders are pending", limit(40000); short_with_orders());
    IN_CHILD("short way: and another call", short_and_another(0));
    IN_CHILD("short way: and a forged call", short_and_another(1));
    IN_CHILD("short way: and a forged end of orders", short_and_another(2));
    IN_CHILD("short way: and a forged start", short_and_another(3));
    IN_CHILD("short way: never asleep", short_and_another(4));
    IN_CHILD("short way: words flipped", short_flipped());
    IN_CHILD("short way: asleep over nothing", asleep_over_nothing());
    IN_CHILD("short way: slots of threads that ended", short_of_the_dead());
    IN_CHILD("short way: interrupted all the time", short_interrupted());
    for (int i = 0; i < 6; i++) {
      char name[64];
      sprintf(name, "short way: trampolines %d", i);
      IN_CHILD(name, short_trampoline(i));
    }
    for (u64 at = 0; at < 0x110; at++) {
      char name[64];
      sprintf(name, "short way: entered at +%llu", (unsigned long long)at);
      IN_CHILD(name, short_middle(at));
    }
    printf("(%d calls were taken on the short way)\n", shared[6]);
  }

  // A victim of another user that forks all the time, and ghosts that want to be its children.
  if (mmap(told, 4096, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != told) return puts("no memory"), 2;
  pid_t victim = fork();
  if (!victim)
    for (;;) {
      pid_t c = fork();
      if (!c) {
        if (!no_slots && find_slot()) shared[VICTIM_SLOT] = (own_slot - SLOTS) / SLOT;
        end(0);
      }
      waitpid(c, 0, 0);
      shared[VICTIM_FORKS]++;
    }
  for (int i = 0; i < 40; i++) {
    shared[GHOST_TRIED] = shared[GHOST_WON] = 0;
    IN_CHILD(i & 1 ? "a ghost (own memory) poses as another's child" : "a ghost (shared memory) poses as another's child", {
      if (setgid(33) || setuid(33)) end(NOTHING);
      make_child(i & 1 ? 17 : 0x100 | 17, ghost_of_a_stranger, ghosts_parent);
    });
  }
  IN_CHILD("ghosts have taken none of another's children", {
    int before = shared[VICTIM_FORKS];
    for (int i = 0; i < 200 && shared[VICTIM_FORKS] - before < 3; i++) usleep(10000);
    end(shared[VICTIM_FORKS] - before < 3 ? SUCCEEDED : REFUSED);
  });
  kill(victim, SIGKILL);
  waitpid(victim, 0, 0);

  IN_CHILD("a ghost that knows the word poses as a child", accomplice(17));
  IN_CHILD("a ghost that knows the word poses as a thread", accomplice(0x10f00));
  IN_CHILD("a thread that is known and has not reported", early_thread());
  static const char *const silent[] = {
      "a silent child, said to be none, of one that lives", "a silent child, said to be none, of one that ends",
      "a silent child of one that is killed before it says", "a silent child, ended as the Sentry sees it",
      "a child that reported, said to be none", "a child that was ended before it reports"};
  for (int how = 0; how < 6; how++)
    for (int vm = 0; vm < 2; vm++) {
      char name[80];
      sprintf(name, "%s%s", silent[how], vm ? " (shares memory)" : "");
      // Who shares memory sees what its parent unmaps.
      if (!vm || how == 1 || how == 2) IN_CHILD(name, limit(20000); silent_child(how, vm ? 0x100 | 17 : 17));
    }

  // What is left is a sandbox that works.
  fflush(stdout);
  int fine = system("exit 5");
  printf("%d attacks, %d succeeded, the shell still gives %d\n", count, wins, WEXITSTATUS(fine));
  return wins ? 1 : 0;
}
