// Two processes at the same files of a volume, for pods.rs: `together WHAT A|B VOLUME SHM`. Run natively, both print what they print in two
// containers of a pod. Steps are told by files that are made in the volume, so that nothing but files is shared.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *volume, *shm, *steps;
static int first, news;

static char *path(const char *folder, const char *name) {
	char *all;
	return asprintf(&all, "%s/%s", folder, name) < 0 ? NULL : all;
}

static char *in_volume(const char *name) {
	return path(volume, name);
}

static int must_(int line, int result) {
	if (result == -1) {
		printf("line %d: %s\n", line, strerrorname_np(errno));
		exit(1);
	}
	return result;
}
#define must(x) must_(__LINE__, x)

static void say(const char *what, int result) {
	printf("%s: %s\n", what, result == -1 ? strerrorname_np(errno) : "done");
}

static void tell(const char *step) {
	close(must(open(path(steps, step), O_CREAT | O_WRONLY, 0666)));
}

static int told(const char *step) {
	return access(path(steps, step), F_OK) == 0;
}

static void await(const char *step) {
	for (int n = 0; !told(step); n++) {
		if (n > 20000) {
			printf("%s never came\n", step);
			exit(1);
		}
		usleep(1000);
	}
}

static int range(int fd, int command, int kind, off_t from, off_t len) {
	struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = from, .l_len = len};
	return fcntl(fd, command, &lock);
}

static void in_the_way(const char *what, int fd, int command) {
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	must(fcntl(fd, command, &lock));
	printf("%s: type %d from %ld len %ld%s\n", what, lock.l_type, (long)lock.l_start, (long)lock.l_len,
	       lock.l_pid == -1 ? " of an open file" : "");
}

// B waits for what A holds until A has told that it lets go.
static void wait_for_it(const char *what, int result) {
	printf("%s: %s, %s\n", what, result == -1 ? strerrorname_np(errno) : "got",
	       told(what) ? "after it was let go" : "too early");
}

static void let_go(const char *what, const char *waits) {
	await(waits);
	usleep(100000);
	tell(what);
}

static void locks(void) {
	int fd = must(open(in_volume("locked"), O_RDWR | O_CREAT, 0666));
	if (first) {
		must(flock(fd, LOCK_EX));
		tell("whole");
		let_go("flock", "waits1");
		must(flock(fd, LOCK_UN));

		await("locked1");
		say("flock, shared by both", flock(fd, LOCK_SH | LOCK_NB));
		must(flock(fd, LOCK_UN));

		int other = must(open(in_volume("locked"), O_RDWR));
		must(range(fd, F_SETLK, F_WRLCK, 10, 20));
		must(range(fd, F_SETLK, F_RDLCK, 50, 10));
		tell("ranges");
		let_go("posix", "waits2");
		// Any descriptor of the file that is closed takes them all.
		close(other);
		await("locked2");

		must(range(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
		tell("open");
		let_go("ofd", "waits3");
		must(range(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
		await("locked3");

		// A process that ends holds nothing any more.
		pid_t child = must(fork());
		if (!child) {
			int own = must(open(in_volume("locked"), O_RDWR));
			must(flock(own, LOCK_EX));
			must(range(own, F_SETLK, F_WRLCK, 0, 0));
			tell("held");
			pause();
		}
		await("held");
		let_go("end", "waits4");
		kill(child, 9);
		waitpid(child, 0, 0);
		await("locked4");
	} else {
		await("whole");
		say("flock", flock(fd, LOCK_EX | LOCK_NB));
		say("flock, shared", flock(fd, LOCK_SH | LOCK_NB));
		tell("waits1");
		wait_for_it("flock", flock(fd, LOCK_EX));
		must(flock(fd, LOCK_SH));
		tell("locked1");

		await("ranges");
		in_the_way("range", fd, F_GETLK);
		say("write 0-10", range(fd, F_SETLK, F_WRLCK, 0, 10));
		say("write 0-11", range(fd, F_SETLK, F_WRLCK, 0, 11));
		say("read 50-60", range(fd, F_SETLK, F_RDLCK, 50, 10));
		say("write 50-60", range(fd, F_SETLK, F_WRLCK, 50, 10));
		say("open file's, write 15-16", range(fd, F_OFD_SETLK, F_WRLCK, 15, 1));
		tell("waits2");
		wait_for_it("posix", range(fd, F_SETLKW, F_WRLCK, 0, 0));
		must(range(fd, F_SETLK, F_UNLCK, 0, 0));
		tell("locked2");

		await("open");
		in_the_way("open file's", fd, F_OFD_GETLK);
		say("open file's", range(fd, F_OFD_SETLK, F_RDLCK, 7, 1));
		say("process's", range(fd, F_SETLK, F_RDLCK, 7, 1));
		tell("waits3");
		wait_for_it("ofd", range(fd, F_OFD_SETLKW, F_WRLCK, 0, 0));
		must(range(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
		must(flock(fd, LOCK_UN));
		tell("locked3");

		await("held");
		say("flock of a process", flock(fd, LOCK_EX | LOCK_NB));
		tell("waits4");
		wait_for_it("end", flock(fd, LOCK_EX));
		say("range of a process that ended", range(fd, F_SETLKW, F_WRLCK, 0, 0));
		tell("locked4");
	}
}

static void hear(const char *until) {
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {{IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close_write"}, {IN_OPEN, "open"},
		     {IN_MOVED_FROM, "moved_from"}, {IN_MOVED_TO, "moved_to"}, {IN_CREATE, "create"}, {IN_DELETE, "delete"},
		     {IN_DELETE_SELF, "delete_self"}, {IN_MOVE_SELF, "move_self"}, {IN_IGNORED, "ignored"}, {IN_ISDIR, "dir"},
		     {IN_ACCESS, "access"}, {IN_CLOSE_NOWRITE, "close_nowrite"}};
	char buffer[4096] __attribute__((aligned(8)));
	uint32_t cookie = 0;
	// What was told last comes last.
	for (int over = 0; !over;) {
		ssize_t n = must(read(news, buffer, sizeof buffer));
		for (char *p = buffer; p < buffer + n;) {
			struct inotify_event *e = (void *)p;
			printf("%d:", e->wd);
			for (size_t i = 0; i < sizeof names / sizeof *names; i++)
				if (e->mask & names[i].bit)
					printf(" %s", names[i].name);
			if (e->cookie && e->cookie == cookie)
				printf(" same");
			cookie = e->cookie;
			printf(" %s\n", e->len ? e->name : "");
			over |= e->len && !strcmp(e->name, until);
			p += sizeof *e + e->len;
		}
	}
}

static void put(const char *name, const char *text) {
	int fd = must(open(in_volume(name), O_RDWR | O_CREAT, 0666));
	must(write(fd, text, strlen(text)));
	close(fd);
}

static void news_of_files(void) {
	if (first) {
		must(mkdir(in_volume("d"), 0777));
		put("d/old", "old");
		put("d/open", "open");
		tell("there");
		await("watched");
		put("d/new", "new");
		must(rename(in_volume("d/new"), in_volume("d/other")));
		must(chmod(in_volume("d/other"), 0600));
		must(truncate(in_volume("d/other"), 1));
		must(mkdir(in_volume("d/below"), 0777));
		must(rmdir(in_volume("d/below")));
		must(symlink("other", in_volume("d/link")));
		must(link(in_volume("d/other"), in_volume("d/hard")));
		must(unlink(in_volume("d/hard")));
		must(rename(in_volume("d/other"), in_volume("away")));
		put("d/old", "more");
		must(rename(in_volume("d/old"), in_volume("d/renamed")));
		must(unlink(in_volume("d/renamed")));
		must(unlink(in_volume("d/open")));
		must(mkdir(in_volume("d/end"), 0777));
		await("heard");
		tell("watching end");
	} else {
		await("there");
		news = must(inotify_init1(0));
		uint32_t quiet = IN_ALL_EVENTS & ~(IN_ACCESS | IN_CLOSE_NOWRITE | IN_OPEN);
		int fd = must(open(in_volume("d/open"), O_RDONLY));
		must(inotify_add_watch(news, in_volume("d"), quiet));
		must(inotify_add_watch(news, in_volume("d/old"), quiet));
		must(inotify_add_watch(news, in_volume("d/open"), quiet));
		tell("watched");
		hear("end");
		// Open, it is there until it is closed.
		close(fd);
		must(mkdir(in_volume("d/final"), 0777));
		hear("final");
		tell("heard");
		await("watching end");
	}
}

static sigjmp_buf out;

static void caught(int signal) {
	siglongjmp(out, signal);
}

// The byte there, or the signal that it takes to look.
static int look(volatile char *at) {
	int signal = sigsetjmp(out, 1);
	return signal ? -signal : *at;
}

static void show(const char *what, int fd, volatile char *page) {
	char bytes[5] = "";
	must(pread(fd, bytes, 4, 0));
	printf("%s: read %s, mapped %c%c%c%c\n", what, bytes, page[0], page[1], page[2], page[3]);
}

// Both count under one lock, and wake each other in turns.
struct both {
	pthread_mutex_t mutex;
	sem_t ping, pong;
	int count;
};

static void count(struct both *both) {
	for (int n = 0; n < 1000; n++) {
		pthread_mutex_lock(&both->mutex);
		both->count++;
		pthread_mutex_unlock(&both->mutex);
	}
	for (int n = 0; n < 50; n++) {
		must(sem_post(first ? &both->ping : &both->pong));
		must(sem_wait(first ? &both->pong : &both->ping));
	}
}

// A mapping is one, whoever has it, and what calls read and write is in it.
static void mapping(char *name) {
	int fd = must(open(name, O_RDWR | O_CREAT, 0666));
	struct both *both;
	volatile char *page;
	signal(SIGBUS, caught);
	if (first) {
		must(ftruncate(fd, 3 * 4096));
		page = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		memcpy((char *)page, "aaaa", 4);
		page[2 * 4096] = 'A';
		tell("mapped");
		await("touched");
		show("B's touch", fd, page);
		must(pwrite(fd, "AAAA", 4, 0));
		tell("written");
		await("written back");
		show("B's write", fd, page);
		printf("beyond the end: %d\n", look(page + 3 * 4096));
		tell("grow");
		await("grown");
		printf("grown: %d %c\n", look(page + 3 * 4096), page[4 * 4096]);
		must(ftruncate(fd, 4096));
		tell("cut");
		await("seen cut");
		must(ftruncate(fd, 3 * 4096));
		page[2 * 4096] = 'Z';
		must(msync((void *)page, 3 * 4096, MS_SYNC));
		tell("again");
		await("locks there");
		both = (void *)(page + 4096);
		count(both);
		await("counted");
		printf("counted: %d\n", both->count);
		must(munmap((void *)page, 8 * 4096));
		tell("unmapped");
		await("over");
		char bytes[5] = "";
		must(pread(fd, bytes, 4, 0));
		printf("afterwards: %s\n", bytes);
	} else {
		await("mapped");
		page = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		volatile char *own = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		show("A's", fd, page);
		printf("far: %c %c\n", page[2 * 4096], own[2 * 4096]);
		own[2 * 4096] = 'o';
		memcpy((char *)page + 1, "bb", 2);
		tell("touched");
		await("written");
		show("A's write", fd, page);
		must(pwrite(fd, "BB", 2, 2));
		tell("written back");
		await("grow");
		must(pwrite(fd, "grown", 5, 4 * 4096));
		tell("grown");
		await("cut");
		printf("cut: %c %d %d\n", page[0], look(page + 4096), look(page + 4 * 4096));
		tell("seen cut");
		await("again");
		printf("again: %d %c\n", look(page + 4096), page[2 * 4096]);

		both = (void *)(page + 4096);
		pthread_mutexattr_t shared;
		pthread_mutexattr_init(&shared);
		pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
		pthread_mutex_init(&both->mutex, &shared);
		sem_init(&both->ping, 1, 0);
		sem_init(&both->pong, 1, 0);
		tell("locks there");
		count(both);
		tell("counted");
		await("unmapped");
		show("B's alone", fd, page);
		memcpy((char *)page, "last", 4);
		must(munmap((void *)page, 8 * 4096));
		must(unlink(name));
		tell("over");
	}
}

// Several processes of each count in one file, by calls and by mappings in turns, while it grows and is cut, and is appended to.
static void counting(void) {
	enum { PROCESSES = 3, TURNS = 200 };
	int fd = must(open(in_volume("counter"), O_RDWR | O_CREAT, 0666));
	tell(first ? "A counts" : "B counts");
	await(first ? "B counts" : "A counts");
	for (int p = 0; p < PROCESSES; p++)
		if (!must(fork())) {
			int own = must(open(in_volume("counter"), O_RDWR));
			int log = must(open(in_volume("log"), O_WRONLY | O_CREAT | O_APPEND, 0666));
			volatile uint64_t *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
			for (int n = 0; n < TURNS; n++) {
				uint64_t count = 0;
				must(flock(own, LOCK_EX));
				must(ftruncate(own, 4096 * (1 + n % 3)));
				if (n & 1)
					must(pread(own, &count, 8, 0));
				else
					count = *page;
				count++;
				if (n & 2)
					must(pwrite(own, &count, 8, 0));
				else
					*page = count;
				must(write(log, "line\n", 5));
				if (n % 16 == 0) {
					munmap((void *)page, 4096);
					page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
				}
				must(flock(own, LOCK_UN));
			}
			exit(0);
		}
	while (wait(0) > 0)
		;
	tell(first ? "A counted" : "B counted");
	await(first ? "B counted" : "A counted");
	uint64_t count;
	struct stat log;
	must(pread(fd, &count, 8, 0));
	must(stat(in_volume("log"), &log));
	printf("count %ld, lines %ld\n", (long)count, (long)log.st_size / 5);
}

// A program that one runs is not written by the other, nor run while the other writes it.
static void running(void) {
	char *program = in_volume("program");
	if (first) {
		char bytes[65536];
		ssize_t n;
		int from = must(open("/proc/self/exe", O_RDONLY)), to = must(open(program, O_WRONLY | O_CREAT, 0777));
		while ((n = must(read(from, bytes, sizeof bytes))) > 0)
			must(write(to, bytes, n));
		tell("open");
		await("tried");
		close(to);
		tell("closed");
		await("running");
		say("write", open(program, O_WRONLY));
		say("truncate", truncate(program, 0));
		say("read", open(program, O_RDONLY));
		tell("tried, too");
		await("ended");
		say("write afterwards", open(program, O_WRONLY));
	} else {
		await("open");
		say("run", execl(program, program, NULL));
		tell("tried");
		await("closed");
		int runs[2];
		char byte;
		must(pipe2(runs, O_CLOEXEC));
		pid_t child = must(fork());
		if (!child) {
			must(execl(program, program, "pause", "A", volume, shm, NULL));
			exit(1);
		}
		close(runs[1]);
		must(read(runs[0], &byte, 1));
		tell("running");
		await("tried, too");
		kill(child, 9);
		waitpid(child, 0, 0);
		tell("ended");
	}
}

// The same file, where B may only look.
static void looking(void) {
	steps = shm;
	int fd;
	if (first) {
		fd = must(open(in_volume("looked"), O_RDWR | O_CREAT, 0666));
		must(ftruncate(fd, 4096));
		char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		memcpy(page, "one ", 4);
		must(flock(fd, LOCK_SH));
		tell("one");
		await("saw one");
		memcpy(page, "two ", 4);
		tell("two");
		await("looked");
		printf("still: %.4s\n", page);
		return;
	}
	await("one");
	fd = must(open(in_volume("looked"), O_RDONLY));
	volatile char *page = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	show("looked", fd, page);
	tell("saw one");
	await("two");
	show("looked", fd, page);
	say("open to write", open(in_volume("looked"), O_RDWR));
	say("map to write", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
	say("lock", flock(fd, LOCK_EX | LOCK_NB));
	tell("looked");
}

// Holds a lock until it is killed; or takes it when it can be had. What it had mapped outlives whoever served it.
static void hold(void) {
	int fd = must(open(in_volume("held"), O_RDWR | O_CREAT, 0666));
	must(ftruncate(fd, 8192));
	volatile char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (first) {
		page[0] = 'h';
		must(flock(fd, LOCK_EX));
		must(range(fd, F_SETLK, F_WRLCK, 0, 0));
		tell("holds");
		pause();
	}
	say("flock", flock(fd, LOCK_EX | LOCK_NB));
	page[1] = 'e';
	tell("wants");
	must(flock(fd, LOCK_EX));
	must(range(fd, F_SETLKW, F_WRLCK, 0, 0));
	page[4096] = 'r';
	printf("has it: %c%c%c\n", page[0], page[1], page[4096]);
	page[0] = page[1] = page[4096] = 0;
}

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	setlinebuf(stdout);
	first = argv[2][0] == 'A';
	steps = volume = argv[3];
	shm = argv[4];
	if (!strcmp(argv[1], "locks"))
		locks();
	else if (!strcmp(argv[1], "news"))
		news_of_files();
	else if (!strcmp(argv[1], "maps"))
		mapping(in_volume("file"));
	else if (!strcmp(argv[1], "memory"))
		mapping(path(shm, "memory"));
	else if (!strcmp(argv[1], "count"))
		counting();
	else if (!strcmp(argv[1], "run"))
		running();
	else if (!strcmp(argv[1], "pause"))
		pause();
	else if (!strcmp(argv[1], "look"))
		looking();
	else if (!strcmp(argv[1], "hold"))
		hold();
	else
		return 2;
	puts("over");
	return 0;
}
