# Servers and clients over TCP of the loopback device, IPv4 and IPv6: redis, nginx with files and in front of another server, PostgreSQL,
# Python's; names of hosts, UDP, many connections at once.
here=$PWD; cli() { redis-cli -p 21771 "$@"; }; until_there() { until "$@" > /dev/null 2>&1; do sleep 0.02; done; }
redis-server --port 21771 --bind 127.0.0.1 ::1 --dir "$here" --daemonize no --save '' --logfile log & server=$!; until_there cli ping
cli set k v; redis-cli -h ::1 -p 21771 get k; cli config get bind | tail -1
redis-benchmark -p 21771 -n 3000 -c 30 -P 4 -q -t set,incr 2>&1 | grep -c 'requests per second'; cli dbsize; cli info clients | grep connected_clients
for i in 1 2 3 4; do (for k in $(seq 1 25); do cli incr n > /dev/null; done) & clients+=($!); done; wait "${clients[@]}"; cli get n
cli shutdown nosave || true; wait $server || true; status cli ping 2>&1 | sed 's/ at .*//'
mkdir www tmp; echo hello > www/index.html; head -c 3000000 /dev/zero | tr '\0' 'z' > www/big
cat > n.conf <<X
user root; worker_processes 2; daemon off; pid $here/nginx.pid; error_log $here/err.log; events { worker_connections 300; }
http { access_log off; client_body_temp_path tmp/b; proxy_temp_path tmp/p; fastcgi_temp_path tmp/f; uwsgi_temp_path tmp/u; scgi_temp_path tmp/s;
 sendfile on; tcp_nopush on; server { listen 127.0.0.1:21772; listen [::1]:21772; root $here/www; location /py/ { proxy_pass http://127.0.0.1:21773/; } } }
X
nginx -p "$here" -c n.conf & server=$!; get() { curl -sS --max-time 20 "$@"; }; until_there get http://127.0.0.1:21772/
python3 -m http.server 21773 --bind 127.0.0.1 --directory www > /dev/null 2>&1 & python=$!; until_there get http://127.0.0.1:21773/
get http://127.0.0.1:21772/; get 'http://[::1]:21772/big' | md5sum; get http://localhost:21772/py/big | md5sum; get -o /dev/null -w '%{http_code} %{size_download}\n' http://127.0.0.1:21772/none; get -r 5-9 http://127.0.0.1:21772/big; echo
seq 1 60 | xargs -P 12 -I N curl -sS --max-time 20 http://127.0.0.1:21772/py/ | sort | uniq -c
kill $python; wait $python 2> /dev/null || true; get -o /dev/null -w '%{http_code}\n' http://127.0.0.1:21772/py/; kill -QUIT $server; wait $server || true; status get http://127.0.0.1:21772/ 2>&1 | sed 's/ after .*//'
bin=$(ls -d /usr/lib/postgresql/*/bin); mkdir pg; chown postgres pg; chmod 755 .
as() { setpriv --reuid postgres --regid postgres --init-groups env HOME="$here" LC_ALL=C "$@"; }; sql() { as psql -h 127.0.0.1 -p 21774 -U postgres -qAt "$@"; }
as "$bin/initdb" -D pg/data -A trust --no-sync > initdb.log; as "$bin/pg_ctl" -D pg/data -w -t 100 -l pg/log -o "-c listen_addresses=127.0.0.1,::1 -p 21774 -c unix_socket_directories=''" start > /dev/null
sql -c 'create table t(i int primary key, s text)' -c "insert into t select i, md5(i::text) from generate_series(1, 5000) i"; as psql -h ::1 -p 21774 -U postgres -qAt -c 'select inet_client_addr(), inet_server_addr(), count(*) from t'
for i in 0 1 2 3; do sql -c "update t set s = s || '$i' where i % 4 = $i" & sqls+=($!); done; wait "${sqls[@]}"; sql -c 'select md5(string_agg(s, chr(44) order by i)) from t'; as "$bin/pg_ctl" -D pg/data -m fast stop > /dev/null
status python3 - <<'P'
import socket, threading, selectors
print(sorted({a[4][0] for a in socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)} & {'127.0.0.1'}), socket.getservbyname('http'))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 0)); v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.connect(u.getsockname())
for i in range(200): v.send(b'%d' % i)
print(sum(int(u.recv(9)) for _ in range(200)), u.getsockname()[0])
l = socket.create_server(('127.0.0.1', 0), backlog=500); got = 0
def serve():
    sel = selectors.DefaultSelector(); sel.register(l, selectors.EVENT_READ); left = 400
    while left:
        for key, _ in sel.select():
            if key.fileobj is l: c, _ = l.accept(); sel.register(c, selectors.EVENT_READ)
            else:
                d = key.fileobj.recv(4096)
                if d: key.fileobj.sendall(d[::-1])
                else: sel.unregister(key.fileobj); key.fileobj.close(); left -= 1
t = threading.Thread(target=serve); t.start(); all = [socket.create_connection(l.getsockname()) for _ in range(400)]
for i, c in enumerate(all): c.sendall(b'%06d' % i)
for i, c in enumerate(all): got += int(c.recv(6, socket.MSG_WAITALL)[::-1]); c.close()
t.join(); print(got)
P
