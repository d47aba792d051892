/* What the benchmark runs inside each runtime: prints "name nanoseconds" a line, medians of several rounds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int cmp(const void *a, const void *b) {
	double x = *(double *)a, y = *(double *)b;
	return x < y ? -1 : x > y;
}

#define ROUNDS 7
#define MEASURE(name, count, body)                                                                                     \
	do {                                                                                                           \
		double rounds[ROUNDS];                                                                                 \
		for (int r = 0; r < ROUNDS; r++) {                                                                     \
			double t0 = now();                                                                             \
			for (long i = 0; i < (count); i++) {                                                           \
				body;                                                                                  \
			}                                                                                              \
			rounds[r] = (now() - t0) / (count);                                                            \
		}                                                                                                      \
		qsort(rounds, ROUNDS, sizeof *rounds, cmp);                                                            \
		printf("%s %.0f\n", name, rounds[ROUNDS / 2]);                                                         \
		fflush(stdout);                                                                                        \
	} while (0)

static void *nothing(void *p) { return p; }

int main(void) {
	char b[4096];
	MEASURE("getpid", 20000, syscall(SYS_getpid));
	int z = open("/dev/zero", O_RDONLY);
	MEASURE("read 1 B of /dev/zero", 10000, if (read(z, b, 1) != 1) abort());
	struct stat st;
	MEASURE("stat, warm", 5000, if (stat("/etc/passwd", &st)) abort());
	MEASURE("open+read+close, warm", 3000, {
		int f = open("/etc/passwd", O_RDONLY);
		if (f < 0 || read(f, b, sizeof b) <= 0) abort();
		close(f);
	});
	int to[2], from[2];
	if (pipe(to) || pipe(from)) abort();
	pid_t echo = fork();
	if (!echo) {
		close(to[1]);
		while (read(to[0], b, 1) == 1)
			if (write(from[1], b, 1) != 1) break;
		_exit(0);
	}
	MEASURE("pipe ping-pong, round trip", 2000, if (write(to[1], b, 1) != 1 || read(from[0], b, 1) != 1) abort());
	close(to[1]);
	waitpid(echo, 0, 0);
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
	echo = fork();
	if (!echo) {
		close(pair[0]);
		while (read(pair[1], b, 1) == 1)
			if (write(pair[1], b, 1) != 1) break;
		_exit(0);
	}
	close(pair[1]);
	MEASURE("Unix socket ping-pong, round trip", 2000, if (write(pair[0], b, 1) != 1 || read(pair[0], b, 1) != 1) abort());
	close(pair[0]);
	waitpid(echo, 0, 0);
	/* TCP over the loopback device, as far as the namespace has one. */
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t any_len = sizeof any;
	int listener = socket(AF_INET, SOCK_STREAM, 0), tcp[2], on = 1;
	if (bind(listener, (void *)&any, sizeof any) || listen(listener, 100) || getsockname(listener, (void *)&any, &any_len)) abort();
	tcp[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(tcp[0], (void *)&any, sizeof any) || (tcp[1] = accept(listener, 0, 0)) < 0) abort();
	setsockopt(tcp[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(tcp[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	echo = fork();
	if (!echo) {
		close(tcp[0]);
		while (read(tcp[1], b, 1) == 1)
			if (write(tcp[1], b, 1) != 1) break;
		_exit(0);
	}
	close(tcp[1]);
	MEASURE("TCP ping-pong over loopback, round trip", 2000, if (write(tcp[0], b, 1) != 1 || read(tcp[0], b, 1) != 1) abort());
	close(tcp[0]);
	waitpid(echo, 0, 0);
	echo = fork();
	if (!echo) {
		static char sink[1 << 20];
		int a = accept(listener, 0, 0);
		while (read(a, sink, sizeof sink) > 0) ;
		_exit(0);
	}
	tcp[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(tcp[0], (void *)&any, sizeof any)) abort();
	static char piece[1 << 16];
	MEASURE("TCP over loopback, 64 KiB", 1000, if (write(tcp[0], piece, sizeof piece) != sizeof piece) abort());
	close(tcp[0]);
	waitpid(echo, 0, 0);
	MEASURE("TCP connect+accept+close over loopback", 500, {
		int c = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(c, (void *)&any, sizeof any) || (tcp[1] = accept(listener, 0, 0)) < 0) abort();
		close(c);
		close(tcp[1]);
	});
	close(listener);
	struct rlimit files = {4096, 4096};
	setrlimit(RLIMIT_NOFILE, &files);
	static int events[1000];
	int poll = epoll_create1(0);
	for (int i = 0; i < 1000; i++) {
		struct epoll_event e = {EPOLLIN, {.u32 = i}};
		events[i] = eventfd(0, EFD_NONBLOCK);
		if (events[i] < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, events[i], &e)) abort();
	}
	MEASURE("epoll with 1,000 descriptors: write, wait, read", 2000, {
		struct epoll_event e;
		uint64_t one = 1;
		if (write(events[i * 7 % 1000], &one, 8) != 8 || epoll_wait(poll, &e, 1, -1) != 1) abort();
		if (read(events[e.data.u32], &one, 8) != 8) abort();
	});
	for (int i = 0; i < 1000; i++) close(events[i]);
	MEASURE("thread create+join", 200, {
		pthread_t t;
		pthread_create(&t, 0, nothing, 0);
		pthread_join(t, 0);
	});
	MEASURE("fork+exit+wait", 50, {
		pid_t p = fork();
		if (!p) _exit(0);
		waitpid(p, 0, 0);
	});
	MEASURE("fork+exec+wait of true", 30, {
		pid_t p = fork();
		if (!p) {
			execl("/bin/true", "true", (char *)0);
			_exit(1);
		}
		waitpid(p, 0, 0);
	});
	MEASURE("mmap+touch+munmap 64 KiB", 300, {
		char *m = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int k = 0; k < 65536; k += 4096) m[k] = 1;
		munmap(m, 65536);
	});
	size_t big = 64 << 20;
	MEASURE("page fault, private memory", 1, {
		char *m = mmap(0, big, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (size_t k = 0; k < big; k += 4096) m[k] = 1;
		munmap(m, big);
	});
	MEASURE("sh loop of 100 true", 1, if (system("i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done")) abort());
	/* The headers are read, cc1, as and ld run. */
	MEASURE("gcc of a small program", 1, {
		const char *build = "printf '#include <stdio.h>\\nint main(void) { return !stdout; }\\n' | gcc -O1 -x c - -o /dev/null";
		if (system(build)) abort();
	});
	return 0;
}
