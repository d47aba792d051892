# http.server and asyncio (python.py), and clients of both.
prepare() {
  mkdir www; (cd www && files 1k 1024 1m 1048576 20m 20971520)
  certificate; cp "$F/python.py" .
}
serve() {
  python3 -m http.server 8000 --bind :: --directory "$W/www" 2>"$T/log" &
  python3 "$W/python.py" serve "$W" &
  up 127.0.0.1 8000; up 127.0.0.1 9001; up 127.0.0.1 9002
}
ask() {
  for f in 1k 1m 20m; do curl -sS "http://$A:8000/$f" | md5; done
  curl -sS "http://$A:8000/" | grep -c '<li>'
  curl -sS -o /dev/null -w '%{http_code}\n' "http://[$A6]:8000/nosuch"
  python3 "$W/python.py" ask "$W" "$A"
}
