# A big tree through tar, gzip, xz and zstd and back, by checksums.
trees="usr/include usr/share/perl usr/lib/python3.11"
tar -C / --sort=name --mtime=@0 --owner=0 --group=0 --exclude=__pycache__ -cf tree.tar $trees
tar -tf tree.tar | sed 's/ .*//' | sort | md5sum; md5sum < tree.tar
mkdir out; tar -C out -xf tree.tar; for t in $trees; do diff -r --no-dereference -x __pycache__ out/$t /$t && echo "$t equal"; done
find out -type f | wc -l; find out -printf '%m %y %P %l\n' | sort | md5sum
tar -C out --sort=name --mtime=@0 --owner=0 --group=0 -cf again.tar $trees; cmp tree.tar again.tar && echo same archive
head -c 24000000 tree.tar > part
gzip -n -3 -k part; md5sum part.gz; gzip -l part.gz | awk 'NR == 2 {print $2}'; gzip -dc part.gz | cmp - part && echo gzip; zcat part.gz | tail -c 100 | md5sum
head -c 5000000 tree.tar | xz -0 -T2 > part.xz; xz -t part.xz && xz -dc part.xz | md5sum
zstd -q -3 -T2 part -o part.zst; zstd -q -t part.zst && zstd -dcq part.zst | cmp - part && echo zstd; status gzip -t part.xz
tar -C /usr/share -c --zstd --sort=name common-licenses 2> /dev/null | tar -t --zstd | sort | md5sum
tar -C /usr/share -cz common-licenses | tar -xz; diff -r common-licenses /usr/share/common-licenses && echo piped
tar --xattrs --acls -cf x.tar out/usr/share/perl; tar -df x.tar && echo no difference; echo x >> "$(find out/usr/share/perl -type f | sort | head -1)"; status tar -df x.tar | tail -1
mkfifo f; tar -cf f out/usr/share/perl & tar -tf f | wc -l; wait
tar -rf x.tar part.xz; tar --delete -f x.tar out/usr/share/perl; tar -tf x.tar; tar --sparse -cf s.tar part.xz; rm -rf out; ls -d out 2>/dev/null || echo removed
split -b 5M part.gz g.; cat g.* | gunzip | md5sum
