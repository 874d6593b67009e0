//! The metadata database `<data>/tidemill.db`: opening, its version, and the step from one version to the next. What
//! the tables hold is known by `jobs::store` and `live::persist`.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tidemill_core::{Error, Result};

/// The version this build writes.
const VERSION: i64 = 1;
/// How long a connection waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The steps: the n-th brings a database of version n to version n+1.
const STEPS: [&str; VERSION as usize] = ["
    CREATE TABLE jobs (id TEXT PRIMARY KEY, created_ms INTEGER NOT NULL, state TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE live_rows (name TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, updated_ms INTEGER NOT NULL,
        PRIMARY KEY (name, key)) STRICT, WITHOUT ROWID;
"];

/// Opens the database, creating or upgrading it. `Kind::Input` when a newer build wrote it.
pub fn open(path: &Path) -> Result<Connection> {
    let doing = |e: rusqlite::Error| sql_error(&format!("open `{}`", path.display()), e);
    let mut connection = Connection::open(path).map_err(doing)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(doing)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(doing)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(doing)?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(doing)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(doing)?;
    let Some(steps) = usize::try_from(version).ok().and_then(|from| STEPS.get(from..)) else {
        return Err(Error::input(format!("`{}` has version {version}; this build knows {VERSION}", path.display()))
            .hint("use the newer tidemill that wrote it"));
    };
    for step in steps {
        transaction.execute_batch(step).map_err(doing)?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(doing)?;
    transaction.commit().map_err(doing)?;
    Ok(connection)
}

/// Our error for one of SQLite's.
pub fn sql_error(tried: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    let text = format!("cannot {tried}: {error}");
    match error.sqlite_error_code() {
        Some(DiskFull) => Error::full(text),
        Some(DatabaseCorrupt | NotADatabase) => Error::corrupt(text),
        _ => Error::external(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("has version 99"));
        std::fs::write(folder.path().join("no.db"), "not a database, but longer than its header would be".repeat(20))
            .unwrap();
        assert_eq!(open(&folder.path().join("no.db")).unwrap_err().kind(), tidemill_core::Kind::Corrupt);
    }
}
