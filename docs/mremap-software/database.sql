-- A database that grows while it is mapped: sqlite3 FILE < database.sql
PRAGMA mmap_size = 268435456;
CREATE TABLE word (nr INTEGER PRIMARY KEY, text TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO word SELECT i, printf('%0200d', i) FROM n;
SELECT count(*), sum(length(text)) FROM word;
WITH RECURSIVE n(i) AS (SELECT 3001 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
  INSERT INTO word SELECT i, printf('%0200d', i) FROM n;
SELECT count(*), sum(length(text)), sum(text) FROM word;
DELETE FROM word WHERE nr % 3 > 0;
VACUUM;
SELECT count(*), sum(text) FROM word;
PRAGMA integrity_check;
