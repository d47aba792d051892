# pgbench with connections that stay and that do not, over TLS with a password; large results, COPY, notifications, a cancelled query.
prepare() { certificate; }
serve() {
  local bin; bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
  mkdir -p "$T/pg"; cp "$W"/*.pem "$T/pg"; chmod 600 "$T/pg/key.pem"; echo secret >"$T/pg/word"; chown -R postgres "$T/pg"
  as() { setpriv --reuid postgres --regid postgres --init-groups env HOME="$T/pg" LC_ALL=C "$@"; }
  as "$bin/initdb" -D "$T/pg/data" -A scram-sha-256 --pwfile "$T/pg/word" --no-sync >/dev/null
  echo 'hostssl all all all scram-sha-256' >>"$T/pg/data/pg_hba.conf"
  # By exec: who ends it must have its number.
  (exec setpriv --reuid postgres --regid postgres --init-groups env HOME="$T/pg" LC_ALL=C \
    "$bin/postgres" -D "$T/pg/data" -c listen_addresses='*' -c unix_socket_directories='' -c fsync=off \
    -c ssl=on -c ssl_cert_file="$T/pg/cert.pem" -c ssl_key_file="$T/pg/key.pem" 2>"$T/log") &
  up 127.0.0.1 5432
}
ask() {
  export PGHOST=$A PGUSER=postgres PGPASSWORD=secret PGSSLMODE=require PGDATABASE=postgres
  sql() { psql -XqAt "$@"; }
  # It listens before it lets anybody in.
  until sql -c 'select 1' >/dev/null 2>&1; do sleep 0.1; done
  sql -c 'select ssl, version from pg_stat_ssl where pid = pg_backend_pid()'
  bench() { pgbench "$@" 2>&1 | grep -E '^number of (clients|transactions actually|failed)|aborted'; }
  pgbench -i -q -s 1 2>&1 | grep -c done
  bench -c 8 -j 2 -t 40
  bench -c 8 -j 2 -t 100 -S -M prepared
  bench -c 4 -t 5 -C
  sql -c 'select count(*), (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches) from pgbench_history'
  sql -c "select string_agg(md5(i::text), '') from generate_series(1, 200000) i" | md5
  sql -c 'create table t(i int, s text)'
  seq 1 50000 | sed 's/.*/&\tline &/' | sql -c 'copy t from stdin'
  sql -c 'copy (select * from t order by i) to stdout' | md5
  sql -c 'listen word' -c "notify word, 'heard'" -c 'select 1' | sed 's/PID [0-9]*/PID N/'
  (timeout -s INT 1 psql -XqAt -c 'select pg_sleep(60)' 2>&1) | grep -v '^Cancel' || true
  PGSSLMODE=disable sql -c 'select 1' 2>&1 | grep -o 'no encryption' | head -1 || true
  PGPASSWORD=wrong sql -c 'select 1' 2>&1 | grep -o 'password authentication failed' | head -1 || true
}
