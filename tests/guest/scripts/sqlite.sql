CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
INSERT INTO t SELECT i, 'name-' || (i * 7919 % 10007), i / 7.0 FROM n;
COMMIT;
CREATE INDEX by_name ON t(name);
SELECT count(*), sum(id), round(avg(value), 6), max(name) FROM t;
SELECT * FROM t WHERE name LIKE 'name-99%' ORDER BY value DESC LIMIT 5;
UPDATE t SET value = value * 2 WHERE id % 3 = 0;
DELETE FROM t WHERE id % 1000 = 1;
SELECT count(*), round(total(value), 3) FROM t;
SELECT name, count(*) FROM t GROUP BY substr(name, 1, 7) ORDER BY 2 DESC, 1 LIMIT 3;
PRAGMA integrity_check;
VACUUM;
SELECT count(*) FROM t a JOIN t b ON a.id = b.id + 1;
SELECT * FROM missing;
