# A server over a Unix socket: clients at once, blocking pops, transactions, a snapshot by fork, an append-only file, a restart.
here=$PWD; cli() { redis-cli -s "$here/s" "$@"; }
begin() { redis-server --port 0 --unixsocket "$here/s" --dir "$here" --daemonize no --appendonly "$1" --save '' --logfile log & server=$!; until [ "$(cli ping 2> /dev/null)" = PONG ]; do sleep 0.02; done; }
begin no
cli set k v; cli get k; cli incr n; cli lpush l 3 2 1 > /dev/null; cli lrange l 0 -1; cli eval 'return redis.call("get", KEYS[1]) .. ARGV[1]' 1 k w
seq 1 5000 | sed 's/.*/set key:& value:&/' | cli > replies; sort replies | uniq -c
for i in 1 2 3 4; do (for k in $(seq 1 50); do cli incr n > /dev/null; done) & clients+=($!); done; wait "${clients[@]}"; cli get n
(cli blpop q 20 > popped) & popper=$!; until cli client list | grep -q 'cmd=blpop'; do sleep 0.02; done; cli rpush q there; wait $popper; cat popped
printf 'multi\nincr n\nincr n\nexec\n' | cli; cli dbsize
cli bgsave; until [ "$(cli info persistence | tr -d '\r' | sed -n 's/rdb_bgsave_in_progress://p')" = 0 ]; do sleep 0.02; done; cli info persistence | tr -d '\r' | grep rdb_last_bgsave_status; [ -s dump.rdb ] && echo dumped
cli shutdown nosave || true; wait $server || true
begin no; cli dbsize; cli get key:4711; cli config set appendonly yes; cli set last word
until [ "$(cli info persistence | tr -d '\r' | sed -n 's/aof_rewrite_in_progress://p')" = 0 ]; do sleep 0.02; done
kill -9 $server; wait $server 2> /dev/null || true; rm s
begin yes; cli dbsize; cli get last; cli shutdown nosave || true; wait $server || true
