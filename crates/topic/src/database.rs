//! The SQLite database of one topic: its schema, how a connection is set up, and SQLite's errors in our kinds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use tidemill_core::{Error, Result};

use crate::topics::TopicConfig;

/// The version of the schema below, kept in `user_version`.
const SCHEMA_VERSION: i64 = 1;

/// Large pages: a blob of 100 KB is a chain of a few pages instead of dozens.
const PAGE_BYTES: u32 = 16_384;

/// How long an append waits for other processes' transactions before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// The write-ahead log is folded into the database about every 16 MiB. It begins anew only in a moment when nobody reads,
/// and with several busy readers there may be none: from 64 MiB on a writer makes one ([`LogBound`]).
const WAL_PAGES: u32 = 1024;
const WAL_BYTES_MAX: u64 = 64 << 20;

/// How long a writer holds new readers up to wait for present ones, and how much the log may grow before the next try.
const LOG_BOUND_TIMEOUT: Duration = Duration::from_millis(500);
const LOG_BOUND_STEP_BYTES: u64 = 16 << 20;

/// `batch.id` is partition × 2^48 + offset of the first record: one tree, no second index, and a range scan reads a
/// partition in order. The small columns stand before the blob, so scans over them do not touch it.
const SCHEMA: &str = "
    CREATE TABLE config (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE partition (id INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, next INTEGER NOT NULL,
        bytes INTEGER NOT NULL);
    CREATE TABLE batch (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, min_timestamp_ms INTEGER NOT NULL,
        max_timestamp_ms INTEGER NOT NULL, appended_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, blob BLOB NOT NULL);
    CREATE TABLE staged (id INTEGER PRIMARY KEY, scope TEXT NOT NULL, epoch INTEGER NOT NULL,
        subtask INTEGER NOT NULL, attempt INTEGER NOT NULL, partition INTEGER NOT NULL, count INTEGER NOT NULL,
        min_timestamp_ms INTEGER NOT NULL, max_timestamp_ms INTEGER NOT NULL, staged_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL, blob BLOB NOT NULL);
    CREATE INDEX staged_by_token ON staged (scope, epoch, subtask, attempt);
    CREATE TABLE idempotency (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
        records INTEGER NOT NULL, seen_ms INTEGER NOT NULL);
";

/// `partition` × 2^48 + `offset`. Partitions are bounded far below 2^15, so this stays positive.
pub(crate) fn batch_id(partition: u32, offset: u64) -> i64 {
    i64::from(partition) << 48 | (offset & 0xffff_ffff_ffff) as i64
}

/// The offset in a batch id.
pub(crate) fn offset_of(batch_id: i64) -> u64 {
    batch_id as u64 & 0xffff_ffff_ffff
}

/// Writes a new database file that nobody else knows yet; it is complete, and alone (no log beside it), on return.
pub(crate) fn create(path: &Path, name: &str, config: &TopicConfig) -> Result<()> {
    let tried = |error| sql_error(name, "create", &error);
    let mut connection = Connection::open(path).map_err(tried)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(tried)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(tried)?;
    configure(&connection).map_err(tried)?;
    let transaction = connection.transaction().map_err(tried)?;
    transaction.execute_batch(SCHEMA).map_err(tried)?;
    let retention_bytes = config.retention_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    for (option, value) in [
        ("partitions", Some(i64::from(config.partitions))),
        ("retention_ms", config.retention_ms),
        ("retention_bytes", retention_bytes),
    ] {
        transaction.execute("INSERT INTO config VALUES (?1, ?2)", (option, value)).map_err(tried)?;
    }
    transaction.execute("INSERT INTO config VALUES ('incarnation', random())", []).map_err(tried)?;
    for partition in 0..config.partitions {
        transaction.execute("INSERT INTO partition VALUES (?1, 0, 0, 0)", [partition]).map_err(tried)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(tried)?;
    transaction.commit().map_err(tried)?;
    connection.close().map_err(|(_, error)| tried(error))
}

/// A connection to an existing database.
pub(crate) fn connect(path: &Path, name: &str) -> Result<Connection> {
    let tried = |error| sql_error(name, "open", &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(tried)?;
    configure(&connection).map_err(tried)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(tried)?;
    match version {
        SCHEMA_VERSION => Ok(connection),
        newer if newer > SCHEMA_VERSION => Err(Error::input(format!(
            "topic `{name}` was written by a newer Tidemill (format {newer}, known {SCHEMA_VERSION})"
        ))
        .hint("open it with that version")),
        _ => Err(Error::corrupt(format!("`{}` is not a topic: it has no format version", path.display()))),
    }
}

/// An option of the topic; `None` when it is not set.
pub(crate) fn option(connection: &Connection, option: &str) -> rusqlite::Result<Option<i64>> {
    let value: Option<Option<i64>> =
        connection.query_row("SELECT value FROM config WHERE name = ?1", [option], |row| row.get(0)).optional()?;
    Ok(value.flatten())
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Keeps the write-ahead log of one connection's database within bounds.
pub(crate) struct LogBound {
    log: PathBuf,
    try_at_bytes: u64,
}

impl LogBound {
    pub fn new(database: &Path) -> LogBound {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        LogBound { log: PathBuf::from(log), try_at_bytes: WAL_BYTES_MAX }
    }

    /// To be called after a commit. The commit stands whatever happens here; a log that cannot be emptied now is tried
    /// again when it has grown some more.
    pub fn enforce(&mut self, connection: &Connection) {
        let bytes = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        if bytes < self.try_at_bytes {
            return;
        }
        let emptied = connection
            .busy_timeout(LOG_BOUND_TIMEOUT)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)))
            .is_ok_and(|busy| busy == 0);
        let _ = connection.busy_timeout(BUSY_TIMEOUT);
        self.try_at_bytes = if emptied { WAL_BYTES_MAX } else { bytes + LOG_BOUND_STEP_BYTES };
    }
}

/// An error of SQLite about the topic `name`, in our kinds. `tried` is a verb.
pub(crate) fn sql_error(name: &str, tried: &str, error: &rusqlite::Error) -> Error {
    let message = format!("cannot {tried} topic `{name}`: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            Error::full(message).hint("free space on the disk, or give the topic a smaller retention")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::corrupt(message).hint("keep the file and restore a copy of it")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::external(message)
            .hint(format!("another process kept it locked for {} s; try again", BUSY_TIMEOUT.as_secs())),
        None => Error::corrupt(message).hint("a stored value is not of its type; keep the file"),
        Some(_) => Error::external(message),
    }
}

/// The error of a topic whose rows are gone while a handle was open.
pub(crate) fn deleted(name: &str) -> Error {
    Error::input(format!("topic `{name}` was deleted")).hint("open it again if it was created anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_emptied_as_soon_as_no_reader_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.topic");
        create(&path, "t", &TopicConfig::default()).unwrap();
        let writer = connect(&path, "t").unwrap();
        let reader = connect(&path, "t").unwrap();
        let mut bound = LogBound::new(&path);
        bound.try_at_bytes = 100_000;
        let log_bytes = || std::fs::metadata(folder.path().join("t.topic-wal")).unwrap().len();
        let write = || writer.execute("INSERT INTO config VALUES (random(), zeroblob(200000))", []).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM config").unwrap();
        write();
        bound.enforce(&writer);
        let held = log_bytes();
        assert!(held > 200_000 && bound.try_at_bytes == held + LOG_BOUND_STEP_BYTES, "a reader holds it");
        reader.execute_batch("COMMIT").unwrap();
        bound.enforce(&writer);
        assert_eq!(log_bytes(), held, "not tried again so soon");
        bound.try_at_bytes = 100_000;
        write();
        bound.enforce(&writer);
        assert_eq!((log_bytes(), bound.try_at_bytes), (0, WAL_BYTES_MAX));
        assert_eq!(reader.query_row("SELECT count(*) FROM config", [], |row| row.get::<_, i64>(0)).unwrap(), 6);
    }
}
