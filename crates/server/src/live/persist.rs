//! Write-behind of the live tables: a task brings what changed to the metadata database twice a second (at once when
//! somebody waits for it), and a starting server reads it back.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};
use tidemill_core::Result;

use super::hub::{Live, Persisted};
use super::table::Change;
use crate::database::sql_error;
use crate::jobs::store::blocking;
use crate::lease::Lease;

/// How long a change may wait in memory only.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// How long after a failed flush the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Reads all tables into `live`, oldest change first.
pub fn load(live: &Live, connection: &Connection) -> Result<()> {
    let failed = |e| sql_error("read the live tables", e);
    let sql = "SELECT name, key, value, updated_ms FROM live_rows ORDER BY updated_ms";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut state = live.state.write().unwrap_or_else(PoisonError::into_inner);
    while let Some(row) = rows.next().map_err(failed)? {
        let (name, key, value): (String, String, String) =
            (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?, row.get(2).map_err(failed)?);
        let updated_ms = row.get(3).map_err(failed)?;
        let mut version = state.version;
        let table = state.tables.entry(name).or_default();
        table.upsert(&key, Some(&value), updated_ms, &mut version, &live.limits.table);
        state.version = version;
    }
    // A table evicted from while loading (its bound is smaller now) is written again by the next flush.
    live.version.send_replace(state.version);
    live.persisted.send_replace(Persisted { version: state.version, failed: None });
    Ok(())
}

/// Flushes until the server ends; `stop` then makes a last flush.
pub async fn run(
    live: Arc<Live>,
    connection: Connection,
    lease: Arc<Lease>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut connection = Some(connection);
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(FLUSH_EVERY) => false,
            () = live.hurry.notified() => false,
            () = stopped(&mut stop) => true,
        };
        let Some(mut taken) = connection.take() else {
            return;
        };
        let (hub, lease) = (live.clone(), lease.clone());
        let flushed = blocking(move || {
            let done = lease.check().and_then(|()| flush(&hub, &mut taken));
            Ok((taken, done))
        });
        match flushed.await {
            Ok((back, done)) => {
                connection = Some(back);
                if let Err(e) = done {
                    tracing::error!(error = %e, "live tables cannot be stored");
                    live.persisted.send_modify(|so_far| so_far.failed = Some(e));
                    if !stopping {
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "live tables are not stored any more");
                return;
            }
        }
        if stopping {
            return;
        }
    }
}

/// Returns when the server ends.
pub(crate) async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What one flush writes of one table.
struct Written {
    table: String,
    /// The table is written anew: deletions were forgotten before they came here.
    whole: bool,
    rows: Vec<(Change, i64)>,
}

fn flush(live: &Live, connection: &mut Connection) -> Result<()> {
    let from = live.persisted.borrow().version;
    let (version, dropped, written) = collect(live, from);
    if version == from {
        return Ok(());
    }
    if let Err(e) = store(connection, &dropped, &written) {
        let mut state = live.state.write().unwrap_or_else(PoisonError::into_inner);
        state.dropped.extend(dropped);
        return Err(e);
    }
    live.persisted.send_replace(Persisted { version, failed: None });
    Ok(())
}

fn collect(live: &Live, from: u64) -> (u64, Vec<String>, Vec<Written>) {
    let mut state = live.state.write().unwrap_or_else(PoisonError::into_inner);
    let dropped = std::mem::take(&mut state.dropped);
    let mut written = Vec::new();
    for (name, table) in &state.tables {
        let updated = |key: &str| table.get(key).map_or(0, |row| row.updated_ms);
        let whole = table.floor() > from;
        let since = if whole { 0 } else { from };
        let rows: Vec<(Change, i64)> = table
            .changes_since(since, "")
            .map(|change| {
                let at = updated(&change.0);
                (change, at)
            })
            .collect();
        if !rows.is_empty() {
            written.push(Written { table: name.clone(), whole, rows });
        }
    }
    (state.version, dropped, written)
}

fn store(connection: &mut Connection, dropped: &[String], written: &[Written]) -> Result<()> {
    let failed = |e| sql_error("store the live tables", e);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    {
        let mut drop_all = transaction.prepare_cached("DELETE FROM live_rows WHERE name = ?1").map_err(failed)?;
        let mut delete =
            transaction.prepare_cached("DELETE FROM live_rows WHERE name = ?1 AND key = ?2").map_err(failed)?;
        let mut put = transaction
            .prepare_cached(
                "INSERT INTO live_rows (name, key, value, updated_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name, key) DO UPDATE
                 SET value = excluded.value, updated_ms = excluded.updated_ms",
            )
            .map_err(failed)?;
        for name in dropped.iter().chain(written.iter().filter(|written| written.whole).map(|written| &written.table)) {
            drop_all.execute([name]).map_err(failed)?;
        }
        for Written { table, rows, .. } in written {
            for ((key, value), updated_ms) in rows {
                match value {
                    Some(value) => put.execute(params![table, &**key, &**value, updated_ms]).map_err(failed)?,
                    None => delete.execute(params![table, &**key]).map_err(failed)?,
                };
            }
        }
    }
    transaction.commit().map_err(failed)
}
