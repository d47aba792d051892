# nginx, redis and a stream both ways where two of a hundred frames are lost, some come twice, and all late and out of order.
prepare() { mkdir www; (cd www && files 1k 1024 1m 1048576 2m 2097152); }
serve() {
  cat >"$T/nginx.conf" <<C
daemon off; pid $T/pid; error_log stderr warn; user www-data;
events { }
http { access_log off; sendfile on; server { listen 8080; listen [::]:8080; root $W/www; } }
C
  nginx -c "$T/nginx.conf" -e stderr &
  redis-server --bind '*' --protected-mode no --port 6379 --save '' --loglevel warning &
  up 127.0.0.1 8080; up 127.0.0.1 6379
}
ask() {
  for f in 1k 1m 2m; do curl -sS "http://$A:8080/$f" | md5; done
  curl -sS "http://[$A6]:8080/1m" | md5
  curl -sS --parallel -o "$T/#1" "http://$A:8080/1m?[1-6]" 2>/dev/null
  md5sum <"$T/1"; md5sum <"$T/6"
  redis-benchmark -h "$A" -n 500 -c 20 -t set,get --csv | sed 1d | cut -d, -f1
  redis-benchmark -h "$A" -n 3000 -c 10 -P 16 -t set,get --csv | sed 1d | cut -d, -f1
  head -c 2000000 "$W/www/2m" | redis-cli -h "$A" -x set big
  redis-cli -h "$A" --raw get big | head -c 2000000 | md5
}
