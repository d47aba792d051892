#include "guest.h"
/* A mapped file that shrinks under another process: SIGBUS there, whether it runs or waits at that moment. */
int main(void) { long P = 4096; int f = open("bf", O_CREAT | O_RDWR | O_TRUNC, 0600), st; ftruncate(f, 4 * P); volatile char *m = mmap(0, 4 * P, 3, MAP_SHARED, f, 0); m[0] = m[P] = 1; int pp[2]; pipe(pp);
 pid_t c = fork(); if (!c) { m[P] = 2; write(pp[1], "x", 1); for (;;) m[P] = 3; }
 char b; read(pp[0], &b, 1); usleep(50000); T(ftruncate(f, P)); waitpid(c, &st, 0); V(WTERMSIG(st));
 ftruncate(f, 4 * P); m[P] = 1; c = fork(); if (!c) { m[P] = 2; write(pp[1], "x", 1); usleep(400000); m[0] = 1; m[P] = 3; _exit(0); } read(pp[0], &b, 1); usleep(30000); T(truncate("bf", 10)); waitpid(c, &st, 0); V(WTERMSIG(st)); V(m[0]); ftruncate(f, 4 * P); V(m[P]); 
 c = fork(); if (!c) { m[P] = 2; write(pp[1], "x", 1); usleep(400000); m[P] = 3; _exit(0); } read(pp[0], &b, 1); usleep(30000); close(open("bf", O_RDWR | O_TRUNC)); waitpid(c, &st, 0); V(WTERMSIG(st)); return 0; }
