//! Deleting what is too old or too much: whole batches, from the beginning of a partition.
//!
//! Age counts from the append, not from the record's timestamp: a replay of last year's events is not deleted at once.
//! The file does not shrink; its free pages are used again by later appends.

use rusqlite::{OptionalExtension, Transaction};
use tidemill_core::Result;

use crate::database::batch_id;
use crate::partition::Tail;
use crate::topic::Topic;

/// How many batches one transaction deletes, so that it stays short.
const BATCHES_PER_TRANSACTION: usize = 64;

/// An append looks for batches to delete when so much time has passed, or so many bytes were appended, since the last.
const PACE_MS: i64 = 1_000;
const PACE_BYTES: u64 = 4 << 20;

/// The limits of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub age_ms: Option<i64>,
    pub bytes: Option<u64>,
}

/// When an append looks for batches to delete.
#[derive(Debug, Default)]
pub(crate) struct RetentionPace {
    due_ms: i64,
    bytes: u64,
}

impl RetentionPace {
    pub fn due(&mut self, retention: &Retention, bytes_appended: u64, now_ms: i64) -> bool {
        self.bytes += bytes_appended;
        let limited = retention.age_ms.is_some() || retention.bytes.is_some();
        limited && (now_ms >= self.due_ms || self.bytes >= PACE_BYTES)
    }

    pub fn enforced(&mut self, deleted: Deleted, now_ms: i64) {
        self.bytes = 0;
        self.due_ms = if deleted.more { now_ms } else { now_ms.saturating_add(PACE_MS) };
    }
}

/// What one transaction deleted, and whether it left some for the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deleted {
    pub records: u64,
    pub more: bool,
}

/// The oldest batch of a partition.
struct Head {
    tail: Tail,
    id: i64,
    count: u32,
    bytes: u64,
    appended_ms: i64,
}

impl Retention {
    pub fn enforce(&self, transaction: &Transaction<'_>, now_ms: i64) -> rusqlite::Result<Deleted> {
        let partitions: u32 =
            transaction.prepare_cached("SELECT count(*) FROM partition")?.query_row([], |row| row.get(0))?;
        let mut heads = Vec::new();
        for partition in 0..partitions {
            heads.push(load_head(transaction, partition)?);
        }
        let mut bytes: u64 = heads.iter().flatten().map(|head| head.tail.bytes).sum();
        let mut deleted = Deleted::default();
        for _ in 0..BATCHES_PER_TRANSACTION {
            let oldest = heads.iter().enumerate().filter_map(|(partition, head)| Some((partition, head.as_ref()?)));
            let Some((partition, head)) = oldest.min_by_key(|(_, head)| head.appended_ms) else {
                return Ok(deleted);
            };
            let too_old = self.age_ms.is_some_and(|age_ms| head.appended_ms < now_ms.saturating_sub(age_ms));
            let too_much = self.bytes.is_some_and(|limit| bytes > limit);
            if !too_old && !too_much {
                return Ok(deleted);
            }
            transaction.prepare_cached("DELETE FROM batch WHERE id = ?1")?.execute([head.id])?;
            let mut tail = head.tail;
            tail.earliest += u64::from(head.count);
            tail.bytes = tail.bytes.saturating_sub(head.bytes);
            tail.store(transaction)?;
            bytes = bytes.saturating_sub(head.bytes);
            deleted.records += u64::from(head.count);
            heads[partition] = load_head(transaction, partition as u32)?;
        }
        deleted.more = true;
        Ok(deleted)
    }
}

fn load_head(transaction: &Transaction<'_>, partition: u32) -> rusqlite::Result<Option<Head>> {
    let Some(tail) = Tail::load(transaction, partition)? else {
        return Ok(None);
    };
    transaction
        .prepare_cached(
            "SELECT id, count, bytes, appended_ms FROM batch WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
        )?
        .query_row((batch_id(partition, 0), batch_id(partition + 1, 0)), |row| {
            Ok(Head { tail, id: row.get(0)?, count: row.get(1)?, bytes: row.get(2)?, appended_ms: row.get(3)? })
        })
        .optional()
}

impl Topic {
    /// Deletes the batches retention no longer covers; how many records went. Appending does this too, every so often:
    /// call it for topics nobody appends to.
    pub fn enforce_retention(&self, now_ms: i64) -> Result<u64> {
        let retention = self.retention();
        let mut records = 0;
        loop {
            let deleted = self.write_with("delete old records of", |transaction, _| {
                retention.enforce(transaction, now_ms).map(Some)
            })?;
            records += deleted.records;
            if !deleted.more {
                return Ok(records);
            }
        }
    }
}
