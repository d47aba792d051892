# A program of many files, a static and a shared library, by make -j2; then it runs. Then the same again: nothing to do.
for i in $(seq 1 12); do cat > m$i.c <<C
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "all.h"
static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
long part$i(int n) { int *v = malloc(n * sizeof *v); long s = 0; for (int k = 0; k < n; k++) v[k] = (k * 7919 + $i) % n; qsort(v, n, sizeof *v, cmp); for (int k = 0; k < n; k++) s += (long)v[k] * k % 1000; free(v); return s; }
C
done
{ for i in $(seq 1 12); do echo "long part$i(int);"; done; echo 'long shared(long);'; } > all.h
{ echo '#include <stdio.h>'; echo '#include "all.h"'; echo 'int main(int c, char **v) { long s = 0;'; for i in $(seq 1 12); do echo "s += part$i(20000 + $i);"; done; echo 'printf("%s %ld %ld\n", c > 1 ? v[1] : "-", s, shared(s)); return c; }'; } > main.c
echo '#include <math.h>
long shared(long x) { return (long)sqrt((double)x * x + 1); }' > shared.c
cat > Makefile <<'M'
CFLAGS = -O2 -Wall -fPIC -MMD
PARTS = $(patsubst %,m%.o,1 2 3 4 5 6 7 8 9 10 11 12)
all: prog
libparts.a: $(PARTS)
	@rm -f $@; ar rc $@ $^
libshared.so: shared.o
	@gcc -shared -o $@ $< -lm
prog: main.o libparts.a libshared.so
	@gcc -o $@ main.o libparts.a -L. -lshared -Wl,-rpath,'$$ORIGIN'
%.o: %.c
	@gcc $(CFLAGS) -c -o $@ $<
-include *.d
M
make -j2 | sort; status ./prog x; make -j2; touch m3.c; make -j2 -n | grep -c gcc; make -j2; ls *.o | wc -l; ./prog || echo "again $?"
ar t libparts.a | tr '\n' ' '; nm -g --defined-only libparts.a | grep -c ' T '; readelf -d prog | grep -c -e NEEDED -e RUNPATH; objdump -d prog | grep -c '<main>:'; strip prog; status ./prog y; ldd prog | sed 's/ (0x.*//; s,=> /tmp/case.[^/]*,=> W,' | sort
gcc -O2 -static -o still main.c m[0-9]*.c shared.c -lm && status ./still z; size still | wc -l
echo 'int main(void) { return undefined(); }' > bad.c; status gcc -Werror -o bad bad.c | sed 's/^\/usr\/bin\/ld: .*: in/ld: in/'; printf '%%.x:\n\t@false\nall: a.x b.x c.x\n' > Bad.mk; { status make -k -j2 -f Bad.mk all; } 2>&1 | sort
echo 'int main(void) { volatile int *p = 0; return *p; }' | gcc -x c -o crash -; status ./crash; echo 'int main(void) { __builtin_trap(); }' | gcc -x c -o trap -; status ./trap; echo 'int main(int c, char **v) { volatile int z = 0; return c / z; }' | gcc -x c -o div -; status ./div
gcc -O1 -g -fsanitize=undefined -o ub -x c - <<< 'int main(int c, char **v) { int x = 0x7fffffff; x += c; return x == 5; }' && ./ub | sed 's/^[^ ]*: //'
