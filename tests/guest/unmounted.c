/* inotify and umount: whoever watches a file of a file system that is mounted nowhere any more is told, and the watch is over. */
#include "guest.h"
#include <sys/inotify.h>
#include <sys/mount.h>

static void events(int fd) {
    char buffer[4096];
    long n = read(fd, buffer, sizeof buffer);
    if (n < 0) {
        printf("no events: %s\n", strerrorname_np(errno));
        return;
    }
    for (long at = 0; at < n;) {
        struct inotify_event *e = (void *)(buffer + at);
        printf("wd %d mask %x cookie %u name %s\n", e->wd, e->mask, e->cookie, e->len ? e->name : "-");
        at += sizeof *e + e->len;
    }
}

int main(void) {
    int fd = inotify_init1(IN_NONBLOCK), other = inotify_init1(IN_NONBLOCK);
    mkdir("a", 0755), mkdir("b", 0755);
    T(mount("none", "a", "tmpfs", 0, NULL));
    close(open("a/file", O_CREAT | O_WRONLY, 0644));
    T(mount("a", "b", NULL, MS_BIND, NULL));
    T(inotify_add_watch(fd, "a/file", IN_MODIFY));
    T(inotify_add_watch(other, "b/file", IN_OPEN));
    T(umount("a"));
    events(fd), events(other);
    T(umount("b"));
    events(fd), events(other);
    T(inotify_rm_watch(fd, 1));
    T(inotify_rm_watch(other, 1));
    T(mount("none", "a", "tmpfs", 0, NULL));
    T(inotify_add_watch(fd, "a", IN_CREATE | IN_ONESHOT));
    T(umount2("a", MNT_DETACH));
    events(fd);
    return 0;
}
