//! One append inside a transaction, which it may share with others.

use rusqlite::Transaction;

use crate::batch::EncodedBatch;
use crate::idempotency;
use crate::partition::Tail;
use crate::retention::{Retention, RetentionPace};
use crate::topic::Appended;

/// An append, ready to be written.
pub(crate) struct Append {
    /// Ordered by partition.
    pub batches: Vec<(u32, EncodedBatch)>,
    pub records: u64,
    pub idempotency_key: Option<String>,
    pub now_ms: i64,
}

impl Append {
    /// `None` when the topic was deleted.
    pub fn run(
        &self,
        transaction: &Transaction<'_>,
        retention: Retention,
        pace: &mut RetentionPace,
    ) -> rusqlite::Result<Option<Appended>> {
        if let Some(key) = &self.idempotency_key
            && let Some(records) = idempotency::seen_before(transaction, key)?
        {
            return Ok(Some(Appended { duplicate: true, records, base_offsets: Vec::new() }));
        }
        let mut base_offsets: Vec<(u32, u64)> = Vec::new();
        let mut bytes_appended = 0;
        for run in self.batches.chunk_by(|a, b| a.0 == b.0) {
            let partition = run[0].0;
            let Some(mut tail) = Tail::load(transaction, partition)? else {
                return Ok(None);
            };
            base_offsets.push((partition, tail.next));
            for (_, batch) in run {
                tail.insert(transaction, batch, self.now_ms)?;
                bytes_appended += batch.blob.len() as u64;
            }
            tail.store(transaction)?;
        }
        if let Some(key) = &self.idempotency_key {
            idempotency::remember(transaction, key, self.records, self.now_ms)?;
        }
        if pace.due(&retention, bytes_appended, self.now_ms) {
            let deleted = retention.enforce(transaction, self.now_ms)?;
            pace.enforced(deleted, self.now_ms);
        }
        Ok(Some(Appended { duplicate: false, records: self.records, base_offsets }))
    }
}
