# A cluster made, written to by clients at once over a Unix socket (shared memory and semaphores between its processes), killed and
# recovered, dumped.
bin=$(ls -d /usr/lib/postgresql/*/bin); here=$PWD; chown postgres .; chmod 755 .
as() { setpriv --reuid postgres --regid postgres --init-groups env HOME="$here" LC_ALL=C "$@"; }
sql() { as psql -h "$here" -U postgres -qAt "$@"; }
begin() { as "$bin/pg_ctl" -D data -w -t 100 -l log -o "-c listen_addresses='' -k $here -c shared_memory_type=$1 -c max_connections=20" start > /dev/null; }
as "$bin/initdb" -D data -A trust --no-sync > initdb.log; cat data/PG_VERSION | wc -l
begin mmap
sql -c 'create table t(i int primary key, s text)' -c "insert into t select i, md5(i::text) from generate_series(1, 20000) i"
sql -c 'select count(*), min(s), max(s) from t'
for i in 0 1 2 3; do (for k in 1 2 3; do sql -c "begin; update t set s = s || '$k' where i % 4 = $i; commit"; done) & done; wait
sql -c 'select sum(length(s)), md5(string_agg(s, chr(44) order by i)) from t' -c 'vacuum analyze t' -c 'explain (costs off) select * from t where i = 7'
sql -c 'create index on t(s)' -c "select count(*) from t where s like 'a%'" -c 'select pg_backend_pid() = pg_backend_pid()'
sql -c "select pg_sleep(0.05); insert into t values (1, 'again')" 2>&1 || true
sql -c "listen word" -c "notify word, 'heard'" -c 'select 1' | sed 's/PID [0-9]*/PID N/'
as "$bin/pg_ctl" -D data -m immediate stop > /dev/null
begin sysv
grep -c 'automatic recovery in progress\|was not properly shut down' log
sql -c 'select sum(length(s)), count(*) from t'; ipcs -m | grep -c '^0x' || true
as pg_dump -h "$here" -U postgres postgres | grep -v '^--\|^SET\|^SELECT\|^\\' | sort | md5sum
as "$bin/pg_ctl" -D data -m fast stop > /dev/null; ipcs -m | grep -c postgres || true
