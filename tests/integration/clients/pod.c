// What containers of one pod share, for cri.sh, as busybox has no programs for it: locks and news of a directory's files, mappings, sockets
// by path and by abstract name (@NAME), System V shared memory. The first word says what to do; what it found is printed, errors have their
// names.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int must(int result) {
	if (result == -1) {
		puts(strerrorname_np(errno));
		exit(1);
	}
	return result;
}

// A socket and its address.
static int named(const char *name, struct sockaddr_un *at, socklen_t *size) {
	*at = (struct sockaddr_un){.sun_family = AF_UNIX};
	strncpy(at->sun_path, name, sizeof at->sun_path - 1);
	*size = sizeof at->sun_family + strlen(at->sun_path);
	if (name[0] == '@')
		at->sun_path[0] = 0;
	return must(socket(AF_UNIX, SOCK_STREAM, 0));
}

int main(int argc, char **argv) {
	const char *what = argv[1], *name = argv[2];
	setlinebuf(stdout);
	if (argc < 3)
		return 2;
	if (!strcmp(what, "hold") || !strcmp(what, "try")) {
		must(flock(must(open(name, O_RDWR | O_CREAT, 0666)), LOCK_EX | LOCK_NB));
		puts("locked");
		if (!strcmp(what, "hold"))
			pause();
	} else if (!strcmp(what, "watch")) {
		char buffer[4096] __attribute__((aligned(8)));
		int fd = must(inotify_init());
		must(inotify_add_watch(fd, name, IN_CREATE));
		puts("watching");
		must(read(fd, buffer, sizeof buffer));
		puts(((struct inotify_event *)buffer)->name);
	} else if (!strcmp(what, "see") || !strcmp(what, "show")) {
		int fd = must(open(name, O_RDWR | O_CREAT, 0666));
		must(ftruncate(fd, 4096));
		volatile char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		must(page == MAP_FAILED ? -1 : 0);
		if (!strcmp(what, "show"))
			page[0] = 1;
		puts(page[0] ? "shown" : "waiting");
		while (!page[0])
			usleep(1000);
		puts("seen");
	} else if (!strcmp(what, "serve") || !strcmp(what, "ask")) {
		struct sockaddr_un at;
		socklen_t size;
		int fd = named(name, &at, &size);
		char answer[32] = "";
		if (!strcmp(what, "serve")) {
			must(bind(fd, (void *)&at, size));
			must(listen(fd, 1));
			puts("serving");
			must(write(must(accept(fd, 0, 0)), "answer", 6));
		} else {
			must(connect(fd, (void *)&at, size));
			must(read(fd, answer, sizeof answer - 1));
			puts(answer);
		}
	} else if (!strcmp(what, "put") || !strcmp(what, "get")) {
		char *memory = shmat(must(shmget(atoi(name), 4096, !strcmp(what, "put") ? IPC_CREAT | 0666 : 0)), 0, 0);
		must(memory == (char *)-1 ? -1 : 0);
		if (!strcmp(what, "put"))
			strcpy(memory, "kept");
		puts(memory);
	}
	return 0;
}
