//! One topic: appending, reading, offsets.

use tidemill_core::{Error, Result};

use crate::batch::RecordBatch;

/// A record to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// The partition, below [`Topic::partitions`].
    pub partition: u32,
    /// Its timestamp, epoch ms.
    pub timestamp_ms: i64,
    /// Its key, kept with it; it does not choose the partition (see [`Topic::partition_for`]).
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

/// What an append did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The idempotency key was seen before, and nothing was changed by this call.
    pub duplicate: bool,
    /// How many records the append (for a duplicate: the first one) stored.
    pub records: u64,
    /// For each partition written the offset of its first new record, by partition; empty for a duplicate.
    pub base_offsets: Vec<(u32, u64)>,
}

/// What [`Topic::read`] found at an offset.
#[derive(Debug, Clone)]
pub enum ReadOutcome {
    /// The records from the offset on; empty at the end of the partition.
    Batches(Vec<RecordBatch>),
    /// Retention has deleted the record at this offset; the oldest one kept has offset `earliest`.
    BelowEarliest {
        /// The oldest offset that can be read.
        earliest: u64,
    },
    /// The partition ends before this offset: the position is of another topic, or of one created anew.
    AboveLatest {
        /// The offset the next record will get.
        latest: u64,
    },
}

/// A topic, open. Clones share the same connections; may be used from several threads at once, where reads wait for
/// reads and appends for appends, never one for the other.
#[derive(Clone)]
pub struct Topic {}

impl Topic {
    /// The longest record (key and value together), in bytes.
    pub const RECORD_BYTES_MAX: usize = 16 << 20;
    /// The most idempotency keys remembered; the oldest are forgotten first.
    pub const IDEMPOTENCY_KEYS_MAX: u64 = 100_000;
    /// How long an idempotency key is remembered.
    pub const IDEMPOTENCY_KEPT_MS: i64 = 24 * 3_600_000;

    /// The topic's name.
    pub fn name(&self) -> &str {
        ""
    }

    /// How many partitions.
    pub fn partitions(&self) -> u32 {
        1
    }

    /// The partition for a key: the same for ever, and the same Kafka's default partitioner chooses.
    pub fn partition_for(&self, key: &[u8]) -> u32 {
        crate::key::partition_for(key, self.partitions())
    }

    /// Appends records in one transaction over all their partitions; when this returns they are on disk.
    ///
    /// With an `idempotency_key` that was used before (within the bounds above) nothing changes and
    /// [`Appended::duplicate`] is set. `now_ms` is the time of the append, for retention. Also enforces retention now
    /// and then. Errors: `Kind::Input` for a partition that is not there or a record that is too long, or when the
    /// topic was deleted; `Kind::Full` for a full disk (nothing was stored); `Kind::External` when another process
    /// kept the topic locked for too long.
    pub fn append(
        &self,
        _records: &[NewRecord<'_>],
        _idempotency_key: Option<&str>,
        _now_ms: i64,
    ) -> Result<Appended> {
        Err(Error::bug("not written yet"))
    }

    /// The batches from `offset` on, at most about `max_bytes`, but at least one when there is any. The first begins
    /// exactly at `offset`. `Kind::Corrupt` when a stored batch is damaged.
    pub fn read(&self, _partition: u32, _offset: u64, _max_bytes: usize) -> Result<ReadOutcome> {
        Err(Error::bug("not written yet"))
    }

    /// The oldest offset that can be read.
    pub fn earliest(&self, _partition: u32) -> Result<u64> {
        Err(Error::bug("not written yet"))
    }

    /// The offset the next record will get.
    pub fn latest(&self, _partition: u32) -> Result<u64> {
        Err(Error::bug("not written yet"))
    }

    /// The offset of the first record whose timestamp is `timestamp_ms` or later; the latest offset when there is none.
    pub fn offset_for_timestamp(&self, _partition: u32, _timestamp_ms: i64) -> Result<u64> {
        Err(Error::bug("not written yet"))
    }

    /// A number that differs from the last one this handle gave when any process committed something in between.
    /// Cheap enough to ask some hundred times a second; only comparable with earlier answers of the same handle.
    pub fn change_version(&self) -> Result<i64> {
        Err(Error::bug("not written yet"))
    }
}
