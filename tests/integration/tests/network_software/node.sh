# node's http and https, with connections that stay and that do not.
prepare() { certificate; cp "$F/node.js" .; }
serve() {
  node "$W/node.js" serve "$W" &
  up 127.0.0.1 8001; up 127.0.0.1 8002
}
ask() {
  curl -sS "http://$A:8001/bytes/3000000" | md5
  head -c 5000000 /dev/zero | curl -sS --cacert "$W/cert.pem" -T - "https://$A:8002/sum"
  node "$W/node.js" ask "$W" "$A"
}
