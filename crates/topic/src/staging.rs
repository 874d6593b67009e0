//! Two-phase output: records of a job are stored durably but nobody sees them until the checkpoint they belong to is
//! complete. Staged batches are already encoded; committing gives them their offsets.

use rusqlite::Transaction;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use crate::database::batch_id;
use crate::partition::Tail;
use crate::topic::{NewRecord, Topic};

const TOKEN_VERSION: u8 = 1;

/// Names the staged output of one subtask in one epoch of one attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageId {
    /// Job and sink; what [`Topic::recover`] cleans up.
    pub scope: String,
    /// The epoch.
    pub epoch: u64,
    /// The subtask.
    pub subtask: u32,
    /// The attempt of the job, so that leftovers of an earlier one are never committed with a later one's.
    pub attempt: u64,
}

impl StageId {
    /// The bytes that go into a checkpoint: a version byte, then JSON.
    pub fn token(&self) -> Vec<u8> {
        let mut token = vec![TOKEN_VERSION];
        let json = serde_json::json!({
            "scope": self.scope, "epoch": self.epoch, "subtask": self.subtask, "attempt": self.attempt
        });
        token.extend_from_slice(json.to_string().as_bytes());
        token
    }

    fn from_token(token: &[u8]) -> Result<StageId> {
        match token.split_first() {
            Some((&TOKEN_VERSION, json)) => serde_json::from_slice(json)
                .map_err(|error| Error::corrupt(format!("a commit token does not read: {error}"))),
            Some((version, _)) => Err(Error::corrupt(format!("a commit token has unknown version {version}"))),
            None => Err(Error::corrupt("a commit token is empty")),
        }
    }

    fn params(&self) -> (&str, i64, u32, i64) {
        (&self.scope, self.epoch as i64, self.subtask, self.attempt as i64)
    }
}

impl Topic {
    /// Stores records durably without showing them. May be called several times for one id: the records add up. Their age,
    /// for retention, counts from `now_ms`.
    /// Errors as [`Topic::append`].
    pub fn stage(&self, id: &StageId, records: &[NewRecord<'_>], now_ms: i64) -> Result<()> {
        let batches = self.encode(records)?;
        let (scope, epoch, subtask, attempt) = id.params();
        self.write_with("stage into", |transaction, _| {
            if Tail::load(transaction, 0)?.is_none() {
                return Ok(None);
            }
            let mut insert = transaction.prepare_cached(
                "INSERT INTO staged (scope, epoch, subtask, attempt, partition, count, min_timestamp_ms,
                 max_timestamp_ms, staged_ms, bytes, blob) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for (partition, batch) in &batches {
                insert.execute((
                    scope,
                    epoch,
                    subtask,
                    attempt,
                    partition,
                    batch.count,
                    batch.min_timestamp_ms,
                    batch.max_timestamp_ms,
                    now_ms,
                    batch.blob.len() as u64,
                    &batch.blob,
                ))?;
            }
            Ok(Some(()))
        })
    }

    /// Makes the staged records of `tokens` visible, in one transaction, in the order of the tokens. A token committed
    /// before changes nothing. `Kind::Corrupt` for bytes that are no token.
    pub fn commit(&self, tokens: &[Vec<u8>]) -> Result<()> {
        let ids = parse(tokens)?;
        self.write_with("commit to", |transaction, _| commit_all(transaction, &ids))
    }

    /// Commits `tokens` and deletes everything else staged under `scope`, in one transaction.
    pub fn recover(&self, scope: &str, tokens: &[Vec<u8>]) -> Result<()> {
        let ids = parse(tokens)?;
        self.write_with("recover", |transaction, _| {
            let committed = commit_all(transaction, &ids)?;
            transaction.execute("DELETE FROM staged WHERE scope = ?1", [scope])?;
            Ok(committed)
        })
    }
}

fn parse(tokens: &[Vec<u8>]) -> Result<Vec<StageId>> {
    tokens.iter().map(|token| StageId::from_token(token)).collect()
}

/// `None` when the topic was deleted.
fn commit_all(transaction: &Transaction<'_>, ids: &[StageId]) -> rusqlite::Result<Option<()>> {
    for id in ids {
        if commit_one(transaction, id)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

fn commit_one(transaction: &Transaction<'_>, id: &StageId) -> rusqlite::Result<Option<()>> {
    let mut staged = transaction.prepare_cached(
        "SELECT id, partition, count, bytes FROM staged
         WHERE scope = ?1 AND epoch = ?2 AND subtask = ?3 AND attempt = ?4 ORDER BY partition, id",
    )?;
    let rows: Vec<(i64, u32, u32, u64)> = staged
        .query_map(id.params(), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut show = transaction.prepare_cached(
        "INSERT INTO batch SELECT ?2, count, min_timestamp_ms, max_timestamp_ms, staged_ms, bytes, blob
         FROM staged WHERE id = ?1",
    )?;
    for run in rows.chunk_by(|a, b| a.1 == b.1) {
        let partition = run[0].1;
        let Some(mut tail) = Tail::load(transaction, partition)? else {
            return Ok(None);
        };
        for (row, _, count, bytes) in run {
            show.execute((row, batch_id(partition, tail.next)))?;
            tail.grow(*count, *bytes);
        }
        tail.store(transaction)?;
    }
    transaction
        .prepare_cached("DELETE FROM staged WHERE scope = ?1 AND epoch = ?2 AND subtask = ?3 AND attempt = ?4")?
        .execute(id.params())?;
    Ok(Some(()))
}
