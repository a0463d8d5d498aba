"""The journal's tables and every statement over them.

Triggers count what would be slow to count: the jobs of each tenant by state, and those that wait in
each lane.
"""

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, lane TEXT NOT NULL,
  tenant TEXT NOT NULL, created_at REAL NOT NULL, due_at REAL NOT NULL, batch TEXT NOT NULL,
  line INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
  worker TEXT NOT NULL DEFAULT '', ready_at REAL NOT NULL DEFAULT 0,
  ended_at REAL NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0, spec BLOB NOT NULL,
  result BLOB);
CREATE INDEX IF NOT EXISTS waiting ON jobs (lane, seq) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS running ON jobs (worker) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS ended ON jobs (ended_at) WHERE ended_at > 0;
CREATE INDEX IF NOT EXISTS lines ON jobs (batch, line) WHERE batch <> '';
CREATE INDEX IF NOT EXISTS of_tenant ON jobs (tenant, seq);
CREATE TABLE IF NOT EXISTS lanes (name TEXT PRIMARY KEY, waiting INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
  tenant TEXT, state TEXT, jobs INTEGER NOT NULL, PRIMARY KEY (tenant, state)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
  tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  kind TEXT, id TEXT, tenant TEXT NOT NULL, version INTEGER NOT NULL, content BLOB NOT NULL,
  PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS job_comes AFTER INSERT ON jobs BEGIN
  INSERT INTO counts VALUES (new.tenant, new.state, 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
  INSERT INTO lanes SELECT new.lane, 1 WHERE new.state = 'queued'
    ON CONFLICT DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER IF NOT EXISTS job_moves AFTER UPDATE OF state ON jobs WHEN new.state <> old.state
BEGIN
  UPDATE counts SET jobs = jobs - 1 WHERE tenant = old.tenant AND state = old.state;
  INSERT INTO counts VALUES (new.tenant, new.state, 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
  UPDATE lanes SET waiting = waiting - 1 WHERE name = old.lane AND old.state = 'queued';
  INSERT INTO lanes SELECT new.lane, 1 WHERE new.state = 'queued'
    ON CONFLICT DO UPDATE SET waiting = waiting + 1;
  DELETE FROM lanes WHERE name = new.lane AND waiting = 0;
END;
CREATE TRIGGER IF NOT EXISTS job_goes AFTER DELETE ON jobs BEGIN
  UPDATE counts SET jobs = jobs - 1 WHERE tenant = old.tenant AND state = old.state;
END;
"""

_COLUMNS = (
    "id, lane, tenant, created_at, due_at, batch, line, state, attempt, worker, ended_at,"
    " cost_usd, spec, result"
)
_SELECT = f"SELECT {_COLUMNS} FROM jobs"
GET = f"{_SELECT} WHERE id = ?"
LISTED = f"{_SELECT} WHERE {{where}} ORDER BY {{order}} LIMIT ?"
AFTER = "{order} > (SELECT {order} FROM jobs WHERE id = ?)"
ADD = (
    "INSERT INTO jobs (id, lane, tenant, created_at, due_at, batch, line, state, ended_at, spec,"
    " result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
OPEN_OF_TENANT = (
    "SELECT coalesce(sum(jobs), 0) FROM counts WHERE tenant = ? AND state IN ('queued', 'running')"
)
HELD = "SELECT bytes FROM held WHERE tenant = ?"
HOLD = "INSERT INTO held VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"
LANES = (
    "SELECT name, waiting, (SELECT due_at FROM jobs WHERE lane = name AND state = 'queued'"
    " ORDER BY seq LIMIT 1) FROM lanes WHERE waiting > 0"
)
CLAIM = (
    "UPDATE jobs SET state = 'running', worker = :worker, attempt = attempt + 1 WHERE seq IN ("
    "SELECT seq FROM jobs WHERE lane = :lane AND state = 'queued' AND ready_at <= :now"
    f" ORDER BY seq LIMIT :most) RETURNING seq, {_COLUMNS}"
)
END = (
    "UPDATE jobs SET state = ?, ended_at = ?, cost_usd = cost_usd + ?, result = ?"
    " WHERE id = ? AND state = 'running' AND worker = ? AND attempt = ? RETURNING tenant"
)
PUT_BACK = (
    "UPDATE jobs SET state = 'queued', worker = '', attempt = ?, ready_at = ?"
    " WHERE id = ? AND state = 'running' AND worker = ? AND attempt = ?"
)
BEAT = "INSERT INTO workers VALUES (?, ?) ON CONFLICT DO UPDATE SET until = excluded.until"
_OF_THE_DEAD = "state = 'running' AND worker NOT IN (SELECT name FROM workers WHERE until >= :now)"
BURY = (
    "UPDATE jobs SET state = 'dead', ended_at = :now, result = :cause"
    f" WHERE {_OF_THE_DEAD} AND attempt >= :most"
)
RECOVER = f"UPDATE jobs SET state = 'queued', worker = '' WHERE {_OF_THE_DEAD} AND :most > 0"
FORGET_WORKERS = "DELETE FROM workers WHERE until < :now"
FORGET_WORKER = "DELETE FROM workers WHERE name = ?"
RETIRE = (
    "UPDATE jobs SET state = 'queued', worker = '', attempt = attempt - 1"
    " WHERE state = 'running' AND worker = ?"
)
_DROP = "UPDATE jobs SET state = ?, ended_at = ?, worker = '' WHERE state IN ('queued', 'running')"
DROP_ONE = f"{_DROP} AND id = ?"
DROP_BATCH = f"{_DROP} AND batch = ? AND batch <> ''"
RETRY = (
    "UPDATE jobs SET state = 'queued', attempt = 0, worker = '', ready_at = 0, ended_at = 0,"
    " result = NULL, due_at = ? WHERE id = ? AND state = 'dead'"
)
COUNTS = "SELECT state, sum(jobs) FROM counts {where} GROUP BY state HAVING sum(jobs) > 0"
BATCH_COUNTS = "SELECT state, count(*) FROM jobs WHERE batch = ? AND batch <> '' GROUP BY state"
SWEEP = (
    "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE ended_at > 0 AND ended_at < ?"
    f" LIMIT ?) RETURNING {_COLUMNS}"
)
NEW_DOCUMENT = "INSERT INTO documents VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
CHANGE_DOCUMENT = (
    "UPDATE documents SET version = ?, content = ? WHERE kind = ? AND id = ? AND version = ?"
)
_DOCUMENTS = "SELECT id, tenant, version, content FROM documents WHERE kind = "
DOCUMENT = f"{_DOCUMENTS}? AND id = ?"
DOCUMENTS = (
    f"{_DOCUMENTS}:kind AND (:tenant IS NULL OR tenant = :tenant)"
    " AND (:after = '' OR id < :after) ORDER BY id DESC LIMIT :limit"
)
REMOVE_DOCUMENT = "DELETE FROM documents WHERE kind = ? AND id = ?"
