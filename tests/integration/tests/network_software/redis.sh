# Requests by fifty at once, with and without pipelining, large values, publishing, transactions, a blocking pop.
serve() {
  redis-server --bind '*' '-::*' --protected-mode no --port 6379 --save '' --dir "$T" --loglevel warning &
  up 127.0.0.1 6379
}
bench() { redis-benchmark -h "$A" "$@" --csv 2>&1 | sed 1d | cut -d, -f1; }
cli() { redis-cli -h "$A" "$@"; }
ask() {
  cli flushall
  bench -n 3000 -c 50 -t set,get,incr,lpush,lrange_100
  bench -n 20000 -c 50 -P 16 -t set,get
  bench -n 300 -c 10 -d 100000 -t set,get
  bench -n 200 -c 20 -k 0 -t set,get
  bench -h "$A6" -n 1000 -t ping
  cli config resetstat
  bench -n 1000 -c 20 -r 1000000 -t sadd
  cli info commandstats | grep -o 'cmdstat_sadd:calls=[0-9]*,'
  head -c 8000000 /dev/zero | tr '\0' v | cli -x set big
  cli --raw get big | head -c 8000000 | md5
  cli strlen big
  (exec redis-cli -h "$A" --raw subscribe news) >"$T/news" & heard=$!
  until cli publish news hello | grep -q 1; do sleep 0.05; done
  until [ "$(wc -l <"$T/news")" = 6 ]; do sleep 0.05; done
  kill $heard; cat "$T/news"
  (exec redis-cli -h "$A" blpop queue 20 >"$T/popped") & popped=$!
  until cli client list | grep -q cmd=blpop; do sleep 0.05; done
  cli rpush queue there
  wait $popped; cat "$T/popped"
  printf 'multi\nincr n\nincr n\nexec\n' | cli
  seq 1 5000 | sed 's/.*/set key:& value:&/' | cli --pipe | grep -o 'errors: .*'
  cli get key:4711
  cli info clients | grep -c connected_clients
}
