# A server with a thousand goroutines at once, and a client with as many.
prepare() {
  cp "$F/go.go" main.go
  GOCACHE=$PWD/cache GOPATH=$PWD/path GO111MODULE=off CGO_ENABLED=0 go build -o program main.go
  rm -rf cache path
}
serve() { ulimit -n 4096; "$W/program" serve & up 127.0.0.1 7000; up 127.0.0.1 7001; }
ask() {
  ulimit -n 4096
  "$W/program" ask "$A"
  curl -sS "http://$A:7001/stream" | md5
}
