//! Keeps the record of every job in the metadata database, so that jobs outlive the server. Nothing is written by a server
//! whose place another one may have taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use tidemill_core::{Error, Result};

use super::model::JobRecord;
use crate::database::sql_error;
use crate::lease::Lease;

/// The jobs' table. Clones share one connection.
#[derive(Clone)]
pub struct JobStore {
    connection: Arc<Mutex<Connection>>,
    lease: Arc<Lease>,
}

impl JobStore {
    /// Over an opened database.
    pub fn new(connection: Connection, lease: Arc<Lease>) -> Self {
        JobStore { connection: Arc::new(Mutex::new(connection)), lease }
    }

    /// All jobs, oldest first.
    pub fn load(&self) -> Result<Vec<JobRecord>> {
        let failed = |e| sql_error("read the jobs", e);
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT id, record FROM jobs ORDER BY created_ms, id").map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        rows.map(|row| {
            let (id, record): (String, String) = row.map_err(failed)?;
            serde_json::from_str(&record)
                .map_err(|e| Error::corrupt(format!("the record of job {id} cannot be read: {e}")))
        })
        .collect()
    }

    /// Writes a job's record. Returns when it is in the database.
    pub async fn save(&self, record: &JobRecord) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|e| Error::bug(format!("a job's record is no JSON: {e}")))?;
        let (store, id, created_ms, state) = (self.clone(), record.id.clone(), record.created_ms, record.state.name());
        blocking(move || {
            store.lease.check()?;
            let sql = "INSERT INTO jobs (id, created_ms, state, record) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record";
            let saved = store.connection().execute(sql, params![id, created_ms, state, text]);
            saved.map(|_| ()).map_err(|e| sql_error(&format!("save job {id}"), e))
        })
        .await
    }

    /// Forgets a job.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (store, id) = (self.clone(), id.to_owned());
        blocking(move || {
            store.lease.check()?;
            let deleted = store.connection().execute("DELETE FROM jobs WHERE id = ?1", [&id]);
            deleted.map(|_| ()).map_err(|e| sql_error(&format!("delete job {id}"), e))
        })
        .await
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while holding the lock leaves SQLite itself consistent.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what waits for a disk away from the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::bug(format!("a background task broke: {e}"))),
    }
}
