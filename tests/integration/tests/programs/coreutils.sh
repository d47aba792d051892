# The file, text and shell utilities, on files made here.
seq 1 5000 > numbers
mkdir -p tree/a/b tree/c; cp numbers tree/a/b/; ln -s ../numbers tree/link; ln tree/a/b/numbers tree/c/hard
touch -d '2001-02-03 04:05:06.123456789' tree/c/old; chmod 640 tree/c/old; mkfifo tree/fifo; touch tree/$'new\nline' tree/-dash
cp -a tree copy; diff -r --no-dereference tree/a copy/a && echo same
(cd copy; find . | sort | while IFS= read -r f; do stat -c '%A %h %s %F' "./$f" 2>/dev/null || true; done) | sed 's/ 4096 / dir /; s/ [0-9]* directory/ directory/'
stat -c '%N %a %Y %y' copy/c/old; readlink copy/link; readlink -f copy/c/../a/b/numbers | sed "s,$work,W,"; realpath --relative-to=copy copy/a/b
[ copy/a/b/numbers -ef copy/c/hard ] && echo linked
mv copy/c/old copy/moved; ls -1 copy | tr '\n' ' '; echo; ls -b copy | head -3
status mv nothing there; status rmdir copy; status cat copy; status ls nothing; status rm copy
status cp numbers copy/a/b/numbers/x; status ln -s x copy/link; status mkdir tree; status touch no/such
install -D -m 751 numbers in/st/alled; stat -c %a in/st/alled
truncate -s 1M sparse; printf end >> sparse; stat -c '%s %b' sparse | awk '{print $1, ($2 < 100)}'; cp --sparse=always sparse s2; cmp sparse s2 && echo equal
dd if=/dev/zero of=z bs=4k count=100 conv=fsync status=none; dd if=numbers of=z bs=1 seek=10 count=20 conv=notrunc status=none; md5sum z
dd if=numbers bs=100 skip=3 count=2 status=none | head -c 50; echo
sort -rn numbers | head -3; sort -R --random-source=numbers numbers | md5sum; shuf --random-source=numbers -n 3 numbers; sort -k1.2 -u numbers | wc -l
sort --parallel=2 -S 1M --buffer-size=100k -T . <(seq 100000 -1 1) | md5sum
split -n l/4 --additional-suffix=.part numbers p.; ls p.*; cat p.*.part | cmp - numbers && echo whole
split -b 5000 --filter='md5sum' numbers | md5sum; csplit -s numbers 1000 3000; wc -l xx0*
uniq -c <(printf 'a\na\nb\n'); cut -c2- numbers | md5sum; paste -d, <(seq 3) <(seq 4 6); join <(printf '1 a\n2 b\n') <(printf '1 x\n2 y\n'); comm -12 <(seq 5) <(seq 3 9) | tr '\n' ' '
tr -d '\n' < numbers | fold -w 60 | nl | tail -2; od -A x -t x1z numbers | head -3; head -c -18000 numbers | tail -n 2; tac numbers | head -1
expand <<< $'a\tb'; fmt -w 20 <<< "the quick brown fox jumps over"; pr -t -3 <(seq 9); numfmt --to=iec 1234567; factor 1234567890; tsort <<< 'a b b c'
expr 6 \* 7; seq -s+ 1 10 | tee sum.in | bc 2>/dev/null || cat sum.in; date -d '@86399' +%T; base64 -w0 <(head -c 40 numbers); echo; base32 <<< x | tr -d =
for s in cksum sum md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum; do $s < numbers; done
md5sum numbers z > sums; md5sum -c sums; echo x >> z; status md5sum -c --quiet sums
(for i in 1 2 3; do echo "grow $i" >> log; sleep 0.1; done) & tail -n +1 -f --pid=$! -s 0.05 log 2>/dev/null & wait
tail -c 5 numbers; od -An -tu1 <<< A; wc < numbers; du -sb in/st/alled | cut -f1; test -s numbers -a -r numbers && echo test
env -i A=1 env; printenv NOTHING || echo "none $?"; nice -n 5 nice; id -u; whoami; uname -s; pathchk -p "a b" || echo "pathchk $?"
stdbuf -oL echo buffered; nproc > /dev/null && echo nproc; sync; sleep 0.01; mknod n p; stat -c %F n; status timeout 0.05 sleep 5
chmod -R u=rwX,go= tree; stat -c '%a' tree tree/a/b/numbers; chmod +t,g+s in; stat -c '%A' in; chown 12:34 numbers; stat -c '%u:%g' numbers; chgrp -h 7 tree/link; stat -c %g tree/link
rm -rf tree copy; ls | wc -l; df . | wc -l; mktemp -u x.XXX | wc -c; yes | rm -ri in > /dev/null; ls -d in 2>/dev/null || echo removed
