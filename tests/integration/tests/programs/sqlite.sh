# Transactions with a rollback journal and a write-ahead log, several writers, a vacuum, a killed writer.
sqlite3 a.db <<'SQL'
PRAGMA journal_mode=delete;
CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v REAL);
CREATE INDEX tk ON t(k);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) INSERT INTO t SELECT i, 'key' || (i * 7919 % 60000), i / 3.0 FROM n;
SELECT count(*), sum(id), round(sum(v), 2), min(k), max(k) FROM t;
BEGIN; DELETE FROM t WHERE id % 3 = 0; SELECT count(*) FROM t; ROLLBACK; SELECT count(*) FROM t;
BEGIN; UPDATE t SET v = v + 1 WHERE id < 20000; COMMIT; SELECT round(sum(v), 2) FROM t;
DELETE FROM t WHERE id > 30000; VACUUM; PRAGMA integrity_check;
SQL
sqlite3 a.db .dump | md5sum; ls
sqlite3 w.db 'PRAGMA journal_mode=wal; CREATE TABLE c(who, n); '
for w in 1 2 3 4; do (for n in $(seq 1 15); do echo "INSERT INTO c VALUES($w, $n);"; done | sqlite3 -cmd '.timeout 20000' w.db) & done; wait
sqlite3 w.db 'SELECT who, count(*), sum(n) FROM c GROUP BY who; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check;'
sqlite3 w.db < <(echo 'BEGIN IMMEDIATE; INSERT INTO c VALUES(9, 9); SELECT 1;'; exec sleep 20 2> /dev/null) > held & holder=$!
until [ -s held ]; do sleep 0.01; done
status sqlite3 w.db 'INSERT INTO c VALUES(8, 8)'; sqlite3 w.db 'SELECT count(*) FROM c'
{ kill -9 $holder; pkill -P $$ sleep || true; wait $holder || true; wait; } 2> /dev/null
sqlite3 w.db 'SELECT count(*) FROM c; INSERT INTO c VALUES(8, 8); SELECT count(*) FROM c'
sqlite3 :memory: 'PRAGMA mmap_size=100000000; SELECT sqlite_version() > "3"'; sqlite3 -cmd 'PRAGMA mmap_size=100000000' a.db 'SELECT count(*), sum(length(k)) FROM t' | tail -1
sqlite3 b.db 'PRAGMA page_size=65536; CREATE TABLE b(x BLOB); INSERT INTO b VALUES(zeroblob(20000000)); UPDATE b SET x = randomblob(1000000); SELECT length(x) FROM b; VACUUM;'; stat -c %s b.db
seq 1 20000 | awk '{print $1 "," $1 * $1}' > c.csv; sqlite3 c.db -cmd '.mode csv' '.import c.csv c' 'SELECT count(*) FROM c' 2>/dev/null || true; sqlite3 a.db '.backup copy.db'; sqlite3 copy.db .dump | md5sum
truncate -s 5000 copy.db; status sqlite3 copy.db 'SELECT count(*) FROM t WHERE v > 0' 2>&1 | tail -2
