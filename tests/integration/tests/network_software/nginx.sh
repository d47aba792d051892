# Files of 1 KiB to 100 MiB, plain and over TLS, in connections that stay and that do not, by curl, ab and wrk.
prepare() {
  mkdir -p www/small
  (cd www && files 1k 1024 16k 16384 64k 65536 1m 1048576 10m 10485760 100m 104857600)
  for n in $(seq 100); do echo "file $n" >"www/small/$n"; done
  certificate
}
serve() {
  cat >"$T/nginx.conf" <<C
daemon off; pid $T/pid; error_log stderr warn; worker_processes 2; user www-data;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path $T/body; proxy_temp_path $T/proxy; fastcgi_temp_path $T/fastcgi; uwsgi_temp_path $T/uwsgi; scgi_temp_path $T/scgi;
  ssl_certificate $W/cert.pem; ssl_certificate_key $W/key.pem;
  server { listen 8080 backlog=511; listen [::]:8080; listen 8443 ssl http2; root $W/www;
    location /proxy/ { proxy_pass http://127.0.0.1:8081/; }
  }
  server { listen 127.0.0.1:8081; sendfile off; root $W/www; }
}
C
  nginx -c "$T/nginx.conf" -e stderr &
  up 127.0.0.1 8443
}
get() { curl -sS --cacert "$W/cert.pem" "$@"; }
# Every request must be answered, and well.
loaded() { # NAME WRK'S ARGUMENTS
  local name=$1 said; shift
  said=$(wrk -t 2 -d 1 "$@")
  if [[ $said == *errors* || $said == *Non-2xx* || $said != *"requests in"* || $said == *" 0 requests in"* ]]; then echo "$said"; fi
  echo "wrk $name"
}
counted() { ab -q "$@" 2>&1 | grep -E '^(Complete|Failed|Keep-Alive|Non-2xx|Document Length|HTML)'; }
ask() {
  for f in 1k 16k 64k 1m 10m 100m; do
    echo "$f $(get "http://$A:8080/$f" | md5) $(get "https://$A:8443/$f" | md5)"
  done
  cmp <(get "http://$A:8080/10m") "$W/www/10m" && echo the same
  get "http://[$A6]:8080/1m" | md5
  get --http1.1 "https://$A:8443/1m" | md5
  get "http://$A:8080/proxy/1m" | md5
  get -o /dev/null -w '%{http_version} %{http_code} %{size_download}\n' "https://$A:8443/64k"
  get -r 1000-1999,5000- "http://$A:8080/16k" | wc -c
  get -I "http://$A:8080/1m" | grep -i '^HTTP\|^Content-Length' | tr -d '\r'
  # A hundred files in one connection.
  get -w '%{stderr}%{num_connects}\n' "http://$A:8080/small/[1-100]" 2>&1 >"$T/small" | sort | uniq -c | tr -s ' '
  md5 <"$T/small"
  get --parallel --parallel-max 20 -o "$T/#1" "http://$A:8080/{1k,16k,64k,1m,10m}" 2>/dev/null
  (cd "$T" && md5sum 1k 16k 64k 1m 10m)
  get -o /dev/null -w '%{http_code}\n' "http://$A:8080/nosuch"
  get --limit-rate 2M "http://$A:8080/1m" | md5
  # Somebody who goes away in the middle.
  (get "http://$A:8080/100m" 2>/dev/null || true) | head -c 100000 | md5
  counted -n 1000 -c 50 "http://$A:8080/1k"
  counted -n 1000 -c 50 -k "http://$A:8080/1k"
  counted -n 100 -c 10 "https://$A:8443/16k"
  counted -n 20 -c 4 -k "http://$A:8080/10m"
  loaded keepalive -c 20 "http://$A:8080/1k"
  loaded closing -c 20 -H 'Connection: close' "http://$A:8080/1k"
  loaded tls -c 20 "https://$A:8443/1k"
  loaded large -c 4 "http://$A:8080/1m"
}
