//! One partition inside a transaction: the row that says where it begins and ends, and its batches.

use rusqlite::{OptionalExtension, Transaction};
use tidemill_core::{Error, Result};

use crate::batch::{EncodedBatch, RecordBatch};
use crate::database::{batch_id, offset_of};

/// The row of a partition: where it begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    partition: u32,
    pub(crate) earliest: u64,
    pub(crate) next: u64,
    pub(crate) bytes: u64,
}

impl Tail {
    /// `None` when the topic was deleted.
    pub(crate) fn load(transaction: &Transaction<'_>, partition: u32) -> rusqlite::Result<Option<Tail>> {
        transaction
            .prepare_cached("SELECT earliest, next, bytes FROM partition WHERE id = ?1")?
            .query_row([partition], |row| {
                Ok(Tail { partition, earliest: row.get(0)?, next: row.get(1)?, bytes: row.get(2)? })
            })
            .optional()
    }

    pub(crate) fn insert(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &EncodedBatch,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        transaction.prepare_cached("INSERT INTO batch VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute((
            batch_id(self.partition, self.next),
            batch.count,
            batch.min_timestamp_ms,
            batch.max_timestamp_ms,
            now_ms,
            batch.blob.len() as u64,
            &batch.blob,
        ))?;
        self.grow(batch.count, batch.blob.len() as u64);
        Ok(())
    }

    /// Takes note of a batch put behind the end.
    pub(crate) fn grow(&mut self, count: u32, bytes: u64) {
        self.next += u64::from(count);
        self.bytes += bytes;
    }

    pub(crate) fn store(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached("UPDATE partition SET earliest = ?2, next = ?3, bytes = ?4 WHERE id = ?1")?
            .execute((self.partition, self.earliest, self.next, self.bytes))?;
        Ok(())
    }
}

/// The batches from `offset`, which must be in the partition, on.
pub(crate) fn read_batches(
    transaction: &Transaction<'_>,
    partition: u32,
    offset: u64,
    max_bytes: usize,
) -> rusqlite::Result<Result<Vec<RecordBatch>>> {
    let mut statement = transaction.prepare_cached(
        "SELECT id, count, blob FROM batch
         WHERE id >= (SELECT max(id) FROM batch WHERE id <= ?1) AND id < ?2 ORDER BY id",
    )?;
    let mut rows = statement.query((batch_id(partition, offset), batch_id(partition + 1, 0)))?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    let mut expected = offset;
    while let Some(row) = rows.next()? {
        let batch = match decode_row(row)? {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(error)),
        };
        let begins_well = batch.base_offset() == expected || batches.is_empty() && batch.base_offset() < expected;
        if !begins_well || batch.next_offset() <= expected {
            return Ok(Err(Error::corrupt(format!("the batch with offset {expected} is missing"))));
        }
        bytes += batch.bytes();
        let skipped = expected - batch.base_offset();
        expected = batch.next_offset();
        batches.push(if skipped > 0 { batch.skip(skipped as u32) } else { batch });
        if bytes >= max_bytes {
            break;
        }
    }
    if batches.is_empty() {
        return Ok(Err(Error::corrupt(format!("the batch with offset {offset} is missing"))));
    }
    Ok(Ok(batches))
}

/// A batch from a row `(id, count, blob)`.
pub(crate) fn decode_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<RecordBatch>> {
    let (id, count): (i64, u32) = (row.get(0)?, row.get(1)?);
    let blob = row.get_ref(2)?.as_blob()?;
    Ok(RecordBatch::decode(blob, offset_of(id), count))
}
