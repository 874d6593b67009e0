//! Which appends were made before: the keys of requests, kept within bounds of number and time.

use rusqlite::{OptionalExtension, Transaction};

use crate::topic::Topic;

/// How many records the append with this key stored, if there was one.
pub(crate) fn seen_before(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Option<u64>> {
    transaction
        .prepare_cached("SELECT records FROM idempotency WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Keeps the key of an append, and forgets some that are out of bounds.
pub(crate) fn remember(transaction: &Transaction<'_>, key: &str, records: u64, now_ms: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO idempotency (key, records, seen_ms) VALUES (?1, ?2, ?3)")?
        .execute((key, records, now_ms))?;
    let newest = transaction.last_insert_rowid();
    // A few rows a time: more than come in, so the bounds hold, and no append pays for many.
    transaction
        .prepare_cached(
            "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency ORDER BY id LIMIT 8)
             AND (id <= ?1 OR seen_ms < ?2)",
        )?
        .execute((newest - Topic::IDEMPOTENCY_KEYS_MAX as i64, now_ms.saturating_sub(Topic::IDEMPOTENCY_KEPT_MS)))?;
    Ok(())
}
