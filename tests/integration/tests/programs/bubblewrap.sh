# bubblewrap, as root and as an ordinary user.
user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
chmod 711 .; mkdir open; chmod 777 open; echo content > file; cd /
bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all --share-net sh -c 'id -u; echo $$; ls -d /proc/[12]; touch /x; ls /dev; cat /proc/self/uid_map /proc/self/setgroups'
bwrap --unshare-user --uid 1000 --gid 1000 --ro-bind / / --proc /proc --dev /dev sh -c 'id -u; id -g; cat /proc/self/uid_map'
bwrap --unshare-user --uid 1000 --ro-bind / / --proc /proc --dev /dev grep -E '^(Cap[^B]|NoNew|Uid)' /proc/self/status
user bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all --share-net sh -c 'id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; ps -e -o pid,comm; grep -E "^(Cap[^B]|NoNew)" /proc/self/status'
user bwrap --unshare-user --uid 0 --gid 0 --bind / / --tmpfs /tmp --dir /tmp/a --ro-bind "$work/file" /tmp/a/b --symlink /etc /tmp/etc --setenv A B --unshare-pid --as-pid-1 --die-with-parent sh -c 'id -u; ls -l /tmp | cut -d" " -f1-4; cat /tmp/a/b; echo $A $$; mount -t tmpfs x /mnt || echo no mount; touch /tmp/z; echo x > /tmp/a/b || echo read-only'
bwrap --unshare-all --share-net --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin --proc /proc --dev /dev --hostname box --chdir / sh -c 'ls /; hostname; pwd; grep -c . /proc/self/mountinfo > /dev/null && cut -d" " -f5 /proc/self/mountinfo | grep -v "^/proc/"'
bwrap --unshare-user --cap-add CAP_SYS_ADMIN --ro-bind / / --tmpfs /mnt --unshare-uts sh -c 'hostname mine && hostname; mount -t tmpfs t /mnt && touch /mnt/f && ls /mnt'
bwrap --unshare-all --share-net --bind / / --dev /dev --proc /proc --bind "$work/open" /mnt --chdir /mnt sh -c 'echo made > f; stat -c "%u %g" f'; stat -c '%u %g' "$work/open/f"
status bwrap --unshare-user --ro-bind / / sh -c 'exit 7'; status bwrap --unshare-user --ro-bind /nosuch / true; status bwrap --unshare-user --ro-bind / / --nosuch; status bwrap --unshare-user --unshare-pid --ro-bind / / --proc /proc sh -c 'kill -9 $$'
bwrap --unshare-user --unshare-pid --die-with-parent --ro-bind / / --proc /proc --dev /dev --new-session sh -c 'ps -o pid,ppid,sid,comm; (sleep 100 &) ; sleep 0.1; ps -e -o comm='
bwrap --unshare-user --ro-bind / / --dev /dev --proc /proc bwrap --unshare-user --unshare-pid --ro-bind / / sh -c 'echo nested $$; id -u'
bwrap --unshare-all --share-net --ro-bind / / --info-fd 9 --json-status-fd 8 sh -c 'exit 3' 9> "$work/info" 8> "$work/state" || echo $?; grep -c child-pid "$work/info"; grep -o '"exit-code.*' "$work/state"
bwrap --unshare-user --ro-bind / / --tmpfs /tmp --perms 0700 --dir /tmp/p --chmod 0511 /tmp/p --remount-ro /tmp sh -c 'stat -c %a /tmp/p; touch /tmp/x' || echo refused
bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev sh -c 'echo no network; grep -c lo: /proc/net/dev'; user bwrap --unshare-net --ro-bind / / --proc /proc --dev /dev sh -c 'id -u; grep -c lo: /proc/net/dev'
