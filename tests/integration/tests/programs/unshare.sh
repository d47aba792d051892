# Namespaces by util-linux's tools, as root of a namespace of one's own and as an ordinary user.
user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
chmod 711 .; mkdir m open; chmod 777 open
unshare -U id -u; unshare -Ur id -u; unshare -Ur cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
unshare -Ur grep -E '^(Cap[^B]|Uid|Gid|Groups|NoNew)' /proc/self/status; unshare -U stat -c '%u %g' / /proc/self/status "$work"; unshare --map-user 7 --map-group 8 id -u
status unshare -Ur chown 5 m; status unshare -U --map-root-user hostname inner; status unshare -Ur setpriv --reuid 5 true
unshare -Uru sh -c 'hostname inner; hostname; unshare -u hostname deeper; hostname; cat /proc/sys/kernel/hostname'
unshare -Urmpf --mount-proc sh -c 'echo $$; ps -o pid,ppid,pgid,sid,comm; echo /proc/[0-9]*; readlink /proc/self; sleep 100 & kill -9 $$; kill -TERM 1; echo still $!'
unshare -Urpf --mount-proc sh -c 'echo $$; (sleep 0.1; ps -o ppid= -p $(sh -c "echo \$PPID")) & wait'
status unshare -Urpf sh -c 'kill -STOP 1; (trap "" TERM; sleep 60) & exit 3'; status unshare -Urpf --kill-child sh -c 'sleep 60 & exec sh -c "exit 4"'
unshare -Urm sh -c 'mount -t tmpfs t m; touch m/f; ls m; mount --bind m open; ls open; mount -o remount,bind,ro open; touch open/x 2>&1 || umount open; umount m; ls m; ls open'
unshare -Urm --propagation shared sh -c 'mount -t tmpfs t m; mount --make-shared m; mount --bind m open; mkdir m/d; mount -t tmpfs u m/d; touch open/d/f; ls m/d; findmnt -n -o TARGET,PROPAGATION | grep "$PWD" | grep -c shared; umount open/d; ls m/d; umount -R m open'
unshare -Urm sh -c 'mount -t tmpfs t m; mkdir m/old m/usr m/lib m/lib64 m/bin; for d in usr lib lib64 bin; do mount --rbind /$d m/$d; done; cd m; pivot_root . old; cd /; umount -l /old 2> /dev/null || /bin/umount -l /old; ls /; ls -d /usr/bin; id -u'
status unshare -Urm pivot_root . .; status unshare -Urm sh -c 'mount --bind / open 2> /dev/null'
status unshare -Urm umount /proc; unshare -Urmpf sh -c 'mount -t proc p m; ls -d m/1; readlink m/self; ls -l m/self/ns | grep -c pid'
unshare -Uri sh -c 'ipcs -q | grep -c 0x || ipcmk -Q > /dev/null; ipcs -q | grep -c 0x; unshare -i sh -c "ipcs -q | grep -c 0x" || echo empty'
unshare -UrmpfiunC --mount-proc sh -c 'lsns -n -o TYPE,NPROCS,PID,COMMAND > list; grep -v "^time" list; unshare -u lsns -n -o TYPE,NPROCS -t uts; ls -l /proc/self/ns | grep -c -- "->"' | sed 's/^[0-9]*$/n/'
unshare -Urmpfu --mount-proc sh -c 'hostname entered; echo ready > m.ready; exec sleep 60' & while [ ! -s m.ready ]; do sleep 0.05; done; first=$(pgrep -P $!)
nsenter -t $first -U -u -m -p sh -c 'hostname; echo $$; ps -o pid,comm; id -u'; nsenter -t $first -U --preserve-credentials cat /proc/self/uid_map; nsenter -U/proc/$first/ns/user -u/proc/$first/ns/uts hostname
[ /proc/$first/ns/uts -ef /proc/self/ns/uts ] || echo other; [ /proc/$first/ns/net -ef /proc/self/ns/net ] && echo same; kill -9 $first; wait $! || echo killed
user unshare -Ur sh -c 'id -u; stat -c "%u %g" / .; touch open/mine; hostname x' 2>&1 || echo refused; stat -c '%u %g' open/mine; user unshare -Urm mount -t tmpfs t m && echo mounted; status user unshare -u true; status user unshare -m true
user unshare -Urpf --mount-proc sh -c 'ps -o pid,user,comm; unshare -Ur id -u; unshare -Urpf sh -c "echo \$\$"'; user unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_uts_namespaces; unshare -u true' 2>&1 | sed 's/.*: //' || true
