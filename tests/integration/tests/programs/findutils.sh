# find's tests and actions, xargs, over a generated tree and the system's own.
for d in $(seq 1 30); do mkdir -p t/$d/sub; for f in $(seq 1 20); do echo "$d.$f" > t/$d/f$f.txt; done; ln -s ../f1.txt t/$d/sub/l; done
find t -type f | wc -l; find t -type l | wc -l; find t -type d | sort | md5sum
find t -name 'f1*.txt' -path '*/1?/*' | sort | head -5
find -L t -type f | wc -l; find t -follow -name l -type f | wc -l
find t -maxdepth 1 -mindepth 1 | wc -l; find t -empty | wc -l; find t -size -2c | wc -l
chmod 600 t/1/*.txt; find t -perm 600 | wc -l; find t -perm -u+x -type f | wc -l
touch -d yesterday t/2/*.txt; find t -type f -mtime +0 | wc -l; touch mark; find t -newer mark | wc -l
find t/3 -type f -printf '%f %s %m %y\n' | sort | head -3
find t -name 'f2.txt' -exec cat {} + | sort -n | tail -2; find t/4 -type f -exec sh -c 'echo "$0" | wc -c' {} \; | sort | uniq -c
find t -type f -print0 | xargs -0 cat | md5sum | cut -c1-8 > /dev/null; find t -type f -print0 | sort -z | xargs -0 -n 50 cat | md5sum
find t -type f | sort | xargs -P 4 -n 40 wc -l | grep -c total
seq 10 | xargs -n 3 echo; echo a b c | xargs -I{} echo '<{}>'; status xargs -n1 false <<< x; status xargs sh -c 'exit 255' <<< x
printf 'one\ntwo words\n' | xargs -d '\n' -n1 echo; seq 1 5000 | xargs | wc -w; xargs --show-limits < /dev/null 2>&1 | wc -l
find t -inum "$(stat -c %i t/5/f5.txt)"; find t -samefile t/6/f6.txt; ln t/6/f6.txt hard; find . -samefile hard | sort; find . -links 2 -type f | sort
find t -path t/7 -prune -o -name f1.txt -print | wc -l; find t -regex '.*/1[0-5]/f2\.txt' | sort; find t \( -name f3.txt -o -name f4.txt \) ! -path '*/1/*' | wc -l
find t -name '*.txt' -path 't/8/*' -delete; ls t/8; find t/9 -depth -delete; status ls -d t/9
status find nothing; find t -xtype l | wc -l; ln -s nowhere t/dangling; find t -xtype l
find /usr/share -type f | sort | md5sum; find /usr/bin -type f -perm -111 | sort | wc -l; find /etc -user root -type f | sort | md5sum
find /usr/include -name '*.h' -size +20k -printf '%P %s\n' | sort | md5sum
find /usr/lib -type l -printf '%p %l\n' | sort | md5sum
