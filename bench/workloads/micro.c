/* What the benchmark runs inside each runtime: prints "name nanoseconds" a line, medians of several rounds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
	return 0;
}
