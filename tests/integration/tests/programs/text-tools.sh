# grep, sed and awk over real text and generated text.
license=/usr/share/common-licenses/GPL-3
grep -c . $license; grep -n -i 'warranty' $license | head -3; grep -o '\bfree\w*' $license | sort | uniq -c | sort -k1,1nr -k2 | head -5
grep -rl 'Apache' /usr/share/common-licenses | sort; grep -E '^ {2}[0-9]+\. ' $license | head -3; grep -P '(?<=GNU )\w+' -o $license | sort -u
grep -v -e the -e a $license | md5sum; grep -A1 -B1 -m1 Copyleft -i $license | cat; status grep nothing-like-this $license; status grep x /nonexistent
grep -r --include='*.h' -l pthread_mutex_lock /usr/include | sort; grep -rc include /usr/include/linux | awk -F: '{s += $2} END {print s}'
grep -z -c x $license; grep -a ELF /bin/true | head -c 0; grep -q ELF /bin/true && echo binary; seq 100000 | grep -c 7; fgrep -x 77 <(seq 100)
sed -n '/^ *TERMS/,/^ *0\./p' $license | head; sed 's/GNU/gnu/g; s/\(free\) \(software\)/\2 \1/I' $license | md5sum
cp $license l; sed -i.bak -e '1,10d' -e '$a\the end' l; cmp l l.bak | sed 's/ differ.*/ differ/' || true; tail -1 l; wc -l < l
sed -E ':a;s/^([^ ]+ )(.*)$/\2/;ta' <<< 'one two three'; seq 10 | sed -n '2~3p' | tr '\n' ' '; seq 5 | sed '2!{h;d};G'; sed --debug -n 1p $license > /dev/null
sed 'y/abc/xyz/;w out' $license > /dev/null; md5sum < out; sed '1e echo executed' <<< line; sed -s -n '$=' $license l
awk '{ for (i = 1; i <= NF; i++) n[tolower($i)]++ } END { for (w in n) print n[w], w }' $license | sort -k1,1nr -k2 | head -5
awk 'BEGIN { while (("echo a; echo b" | getline x) > 0) print "got", x; close("x"); print "sorted" | "sort"; print "first" | "sort"; close("sort"); system("exit 3"); printf "%.3f %d %s\n", atan2(0, -1), 42.9, substr("hello", 2, 3) }'
awk -F: '$3 < 10 { print $1, $3 }' /etc/passwd; awk 'NR == FNR { a[$1] = $2; next } $1 in a { print $1, a[$1], $2 }' <(printf '1 x\n2 y\n') <(printf '2 b\n1 a\n')
awk 'BEGIN { srand(1); for (i = 0; i < 300000; i++) s += i % 7; print s }'; awk '{ print > ("file" NR % 3) }' $license; md5sum file0 file1 file2
awk 'BEGIN { RS = "" } END { print NR }' $license; awk 'BEGIN { "date -d @0 +%Y" | getline y; print y; print ENVIRON["TZ"]; exit 4 }' || echo "awk $?"
diff <(head -20 $license) <(sed 's/software/SOFTWARE/' $license | head -20) || echo "diff $?"; diff -u l l.bak | md5sum | wc -c; cmp $license $license && echo same
tr -cs A-Za-z '\n' < $license | sort -f | uniq -ci | sort -k1,1nr -k2 | awk 'NR <= 5'
