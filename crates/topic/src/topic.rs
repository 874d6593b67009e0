//! One topic: appending, reading, offsets.
//!
//! Every call is one transaction. A handle holds two connections, so that in one process readers and writers do not
//! wait for each other either (SQLite sees to it between processes).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tidemill_core::{Error, Result};

use crate::append::Append;
use crate::batch::{BatchBuilder, EncodedBatch, RecordBatch};
use crate::database::{self, LogBound, batch_id, sql_error};
use crate::group::Group;
use crate::partition::{Tail, decode_row, read_batches};
use crate::retention::{Retention, RetentionPace};
use crate::topics::TopicInfo;
use crate::watch::Bell;

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
pub struct Topic {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    path: PathBuf,
    partitions: u32,
    /// Differs between topics of one name created one after the other.
    incarnation: Option<i64>,
    retention: Retention,
    reading: Mutex<Connection>,
    writing: Mutex<Writing>,
    appends: Group<Append, Appended>,
}

/// The connection for appends, opened with the first of them: most handles only read.
pub(crate) struct Writing {
    connection: Option<(Connection, Bell)>,
    log: LogBound,
    pub(crate) pace: RetentionPace,
}

impl Topic {
    /// The longest record (key and value together), in bytes.
    pub const RECORD_BYTES_MAX: usize = 16 << 20;
    /// The most idempotency keys remembered; the oldest are forgotten first.
    pub const IDEMPOTENCY_KEYS_MAX: u64 = 100_000;
    /// How long an idempotency key is remembered.
    pub const IDEMPOTENCY_KEPT_MS: i64 = 24 * 3_600_000;
    /// Records of one append become batches of about this many bytes.
    pub const BATCH_BYTES: usize = 1 << 20;

    /// Opens the database at `path`; `None` when the topic in it was deleted.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Option<Topic>> {
        let tried = |error| sql_error(name, "open", &error);
        let mut connection = database::connect(path, name)?;
        let transaction = connection.transaction().map_err(tried)?;
        let option = |name: &str| database::option(&transaction, name).map_err(tried);
        let partitions = option("partitions")?.and_then(|partitions| u32::try_from(partitions).ok());
        let retention = Retention {
            age_ms: option("retention_ms")?,
            bytes: option("retention_bytes")?.and_then(|bytes| u64::try_from(bytes).ok()),
        };
        let incarnation = option("incarnation")?;
        let alive: u32 =
            transaction.query_row("SELECT count(*) FROM partition", [], |row| row.get(0)).map_err(tried)?;
        transaction.finish().map_err(tried)?;
        if alive == 0 {
            return Ok(None);
        }
        if partitions != Some(alive) {
            return Err(Error::corrupt(format!("topic `{name}`: {alive} partitions stand in it, not {partitions:?}")));
        }
        Ok(Some(Topic {
            inner: Arc::new(Inner {
                name: name.to_string(),
                path: path.to_path_buf(),
                partitions: alive,
                incarnation,
                retention,
                reading: Mutex::new(connection),
                writing: Mutex::new(Writing {
                    connection: None,
                    log: LogBound::new(path),
                    pace: RetentionPace::default(),
                }),
                appends: Group::new(),
            }),
        }))
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// How many partitions.
    pub fn partitions(&self) -> u32 {
        self.inner.partitions
    }

    /// The partition for a key: the same for ever, and the same Kafka's default partitioner chooses.
    pub fn partition_for(&self, key: &[u8]) -> u32 {
        crate::key::partition_for(key, self.partitions())
    }

    /// What the list of topics shows of it, now.
    pub fn info(&self) -> Result<TopicInfo> {
        self.try_info()?.ok_or_else(|| database::deleted(self.name()))
    }

    /// As [`Topic::info`]; `None` when the topic was deleted.
    pub(crate) fn try_info(&self) -> Result<Option<TopicInfo>> {
        let (alive, records, bytes): (u32, u64, u64) = self.read_with("list", |transaction| {
            transaction
                .prepare_cached(
                    "SELECT count(*), ifnull(sum(next - earliest), 0), ifnull(sum(bytes), 0) FROM partition",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })?;
        Ok((alive > 0).then(|| TopicInfo {
            name: self.inner.name.clone(),
            partitions: self.inner.partitions,
            records,
            bytes,
            retention_ms: self.inner.retention.age_ms,
            retention_bytes: self.inner.retention.bytes,
        }))
    }

    /// Appends records in one transaction over all their partitions; when this returns they are on disk. Appends of
    /// several threads through one handle (or its clones) at once share the wait for the disk.
    ///
    /// With an `idempotency_key` that was used before (within the bounds above) nothing changes and
    /// [`Appended::duplicate`] is set. `now_ms` is the time of the append, for retention. Also enforces retention now
    /// and then. Errors: `Kind::Input` for a partition that is not there or a record that is too long, or when the
    /// topic was deleted; `Kind::Full` for a full disk (nothing was stored); `Kind::External` when another process
    /// kept the topic locked for too long.
    pub fn append(&self, records: &[NewRecord<'_>], idempotency_key: Option<&str>, now_ms: i64) -> Result<Appended> {
        let append = Append {
            batches: self.encode(records)?,
            records: records.len() as u64,
            idempotency_key: idempotency_key.map(str::to_string),
            now_ms,
        };
        self.inner.appends.run(append, |appends| {
            self.write_with("append to", |transaction, pace| {
                let mut done = Vec::with_capacity(appends.len());
                for (_, append) in appends {
                    match append.run(transaction, self.inner.retention, pace)? {
                        Some(appended) => done.push(appended),
                        None => return Ok(None),
                    }
                }
                Ok(Some(done))
            })
        })
    }

    /// The batches from `offset` on, at most about `max_bytes`, but at least one when there is any. The first begins
    /// exactly at `offset`. `Kind::Corrupt` when a stored batch is damaged.
    pub fn read(&self, partition: u32, offset: u64, max_bytes: usize) -> Result<ReadOutcome> {
        self.check_partition(partition)?;
        let found = self.read_with("read", |transaction| {
            let Some(tail) = Tail::load(transaction, partition)? else {
                return Ok(Err(database::deleted(self.name())));
            };
            if offset < tail.earliest {
                return Ok(Ok(ReadOutcome::BelowEarliest { earliest: tail.earliest }));
            }
            if offset > tail.next {
                return Ok(Ok(ReadOutcome::AboveLatest { latest: tail.next }));
            }
            if offset == tail.next {
                return Ok(Ok(ReadOutcome::Batches(Vec::new())));
            }
            let batches = read_batches(transaction, partition, offset, max_bytes)?;
            Ok(batches.map(ReadOutcome::Batches))
        })?;
        found.map_err(|error| error.context(format!("topic `{}` partition {partition}", self.name())))
    }

    /// The oldest offset that can be read.
    pub fn earliest(&self, partition: u32) -> Result<u64> {
        Ok(self.tail(partition)?.earliest)
    }

    /// The offset the next record will get.
    pub fn latest(&self, partition: u32) -> Result<u64> {
        Ok(self.tail(partition)?.next)
    }

    /// The offset of the first record whose timestamp is `timestamp_ms` or later; the latest offset when there is none.
    pub fn offset_for_timestamp(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        let latest = self.latest(partition)?;
        let found = self.read_with("read", |transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, count, blob FROM batch WHERE id >= ?1 AND id < ?2 AND max_timestamp_ms >= ?3
                 ORDER BY id LIMIT 1",
            )?;
            let range = (batch_id(partition, 0), batch_id(partition + 1, 0), timestamp_ms);
            statement.query_row(range, decode_row).optional()
        })?;
        let Some(batch) = found.transpose()? else {
            return Ok(latest);
        };
        let first = batch.iter().find(|record| record.timestamp_ms >= timestamp_ms).map(|record| record.offset);
        Ok(first.unwrap_or(latest))
    }

    /// A number that differs from the last one this handle gave when any process committed something in between.
    /// Cheap enough to ask some hundred times a second; only comparable with earlier answers of the same handle.
    pub fn change_version(&self) -> Result<i64> {
        let connection = lock(&self.inner.reading);
        connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|error| sql_error(self.name(), "watch", &error))
    }

    /// Tells every open handle that the topic is gone, in the database file itself and not only in its log.
    pub(crate) fn mark_deleted(&self) -> Result<()> {
        self.write_with("delete", |transaction, _| transaction.execute("DELETE FROM partition", []).map(Some))?;
        let writing = lock(&self.inner.writing);
        if let Some((connection, _)) = &writing.connection {
            connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(|error| sql_error(self.name(), "delete", &error))?;
        }
        Ok(())
    }

    pub(crate) fn retention(&self) -> Retention {
        self.inner.retention
    }

    /// Records as batches, ordered by partition. Of one partition they keep their order.
    pub(crate) fn encode(&self, records: &[NewRecord<'_>]) -> Result<Vec<(u32, EncodedBatch)>> {
        let mut open: Vec<Option<BatchBuilder>> = Vec::new();
        open.resize_with(self.partitions() as usize, || None);
        let mut batches = Vec::new();
        for record in records {
            self.check_partition(record.partition)?;
            let record_bytes = record.key.map_or(0, <[u8]>::len) + record.value.len();
            if record_bytes > Self::RECORD_BYTES_MAX {
                return Err(Error::input(format!(
                    "topic `{}`: a record of {record_bytes} bytes; the longest allowed has {}",
                    self.name(),
                    Self::RECORD_BYTES_MAX
                )));
            }
            let slot = &mut open[record.partition as usize];
            if let Some(full) = slot.take_if(|b| b.bytes() + record_bytes > Self::BATCH_BYTES && !b.is_empty()) {
                batches.push((record.partition, full.finish()));
            }
            let builder = slot.get_or_insert_with(BatchBuilder::new);
            builder.push(record.timestamp_ms, record.key, record.value);
        }
        for (partition, builder) in open.into_iter().enumerate() {
            batches.extend(builder.map(|builder| (partition as u32, builder.finish())));
        }
        // Stable: batches of one partition stay in order.
        batches.sort_by_key(|(partition, _)| *partition);
        Ok(batches)
    }

    fn check_partition(&self, partition: u32) -> Result<()> {
        if partition < self.partitions() {
            return Ok(());
        }
        Err(Error::input(format!(
            "topic `{}` has no partition {partition}, only 0 to {}",
            self.name(),
            self.partitions() - 1
        )))
    }

    fn tail(&self, partition: u32) -> Result<Tail> {
        self.check_partition(partition)?;
        self.read_with("read", |transaction| Tail::load(transaction, partition))?
            .ok_or_else(|| database::deleted(self.name()))
    }

    pub(crate) fn read_with<R>(
        &self,
        tried: &str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<R> {
        let mut connection = lock(&self.inner.reading);
        connection
            .transaction()
            .and_then(|transaction| {
                let result = work(&transaction)?;
                transaction.finish()?;
                Ok(result)
            })
            .map_err(|error| sql_error(self.name(), tried, &error))
    }

    /// By now the path may lead to another topic of the same name.
    fn connect_for_writing(&self, tried: &str) -> Result<(Connection, Bell)> {
        let inner = &self.inner;
        if !inner.path.exists() {
            return Err(database::deleted(&inner.name));
        }
        let connection = database::connect(&inner.path, &inner.name)?;
        let incarnation =
            database::option(&connection, "incarnation").map_err(|error| sql_error(&inner.name, tried, &error))?;
        if incarnation == inner.incarnation {
            Ok((connection, Bell::open(&inner.path)))
        } else {
            Err(database::deleted(&inner.name))
        }
    }

    /// Runs `work` in a writing transaction, committed when it gives a value; `None` says the topic was deleted.
    pub(crate) fn write_with<R>(
        &self,
        tried: &str,
        work: impl FnOnce(&Transaction<'_>, &mut RetentionPace) -> rusqlite::Result<Option<R>>,
    ) -> Result<R> {
        let mut guard = lock(&self.inner.writing);
        let writing = &mut *guard;
        let (connection, bell) = match &mut writing.connection {
            Some(open) => open,
            none => none.insert(self.connect_for_writing(tried)?),
        };
        let pace = &mut writing.pace;
        let done = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let result = work(&transaction, pace)?;
            match &result {
                Some(_) => {
                    transaction.commit()?;
                    bell.ring();
                }
                None => transaction.rollback()?,
            }
            Ok(result)
        });
        if matches!(done, Ok(Some(_))) {
            writing.log.enforce(connection);
        }
        done.map_err(|error| sql_error(self.name(), tried, &error))?.ok_or_else(|| database::deleted(self.name()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in between left a transaction that was rolled back; the connection itself is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tidemill_core::Kind;

    use super::*;
    use crate::topics::{TopicConfig, Topics};

    fn new_topic() -> (tempfile::TempDir, Topic) {
        let folder = tempfile::tempdir().expect("a folder");
        let topics = Topics::open(folder.path()).expect("opens");
        let topic = topics.create("t", &TopicConfig { partitions: 2, ..TopicConfig::default() }).expect("creates");
        (folder, topic)
    }

    fn record(partition: u32, value: &[u8]) -> NewRecord<'_> {
        NewRecord { partition, timestamp_ms: 0, key: None, value }
    }

    /// Lets the connection for appends have at most `pages`: what SQLite then does is what it does on a full disk.
    fn limit_pages(topic: &Topic, pages: u32) {
        let writing = lock(&topic.inner.writing);
        let (connection, _) = writing.connection.as_ref().expect("appended before");
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("limits");
    }

    #[test]
    fn a_full_disk_is_told_apart_and_harms_nothing() {
        let (folder, topic) = new_topic();
        topic.append(&[record(0, b"before")], None, 0).expect("appends");
        limit_pages(&topic, 40);
        let big = vec![7; 100_000];
        let mut stored = 0;
        let error = loop {
            match topic.append(&[record(0, &big), record(1, &big)], Some(&stored.to_string()), 0) {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Full, "{error}");
        let staged = crate::StageId { scope: "s".into(), epoch: 1, subtask: 0, attempt: 0 };
        let error = topic.stage(&staged, &[record(0, &big), record(1, &big)], 0).expect_err("full");
        assert_eq!(error.kind(), Kind::Full, "{error}");
        assert_eq!((topic.latest(0).unwrap(), topic.latest(1).unwrap()), (stored + 1, stored));
        // With room again the same request goes through, once.
        limit_pages(&topic, 10_000);
        let key = stored.to_string();
        let again = topic.append(&[record(0, &big), record(1, &big)], Some(&key), 0).expect("appends");
        assert!(!again.duplicate);
        drop(topic);
        let topic = Topics::open(folder.path()).and_then(|topics| topics.open_topic("t")).expect("opens");
        assert_eq!((topic.latest(0).unwrap(), topic.latest(1).unwrap()), (stored + 2, stored + 1));
        topic.read(0, 0, usize::MAX).expect("every batch is whole");
    }

    #[test]
    fn a_damaged_or_missing_batch_is_told_apart() {
        let (folder, topic) = new_topic();
        for value in [b"first", b"other", b"third"] {
            topic.append(&[record(0, value)], None, 0).expect("appends");
        }
        let connection = Connection::open(folder.path().join("t.topic")).expect("opens");
        let mut blob: Vec<u8> =
            connection.query_row("SELECT blob FROM batch WHERE id = 1", [], |row| row.get(0)).expect("stands");
        *blob.last_mut().expect("not empty") ^= 1;
        connection.execute("UPDATE batch SET blob = ?1 WHERE id = 1", [blob]).expect("damages");
        let error = topic.read(0, 1, 1).expect_err("damaged");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("topic `t` partition 0: batch at offset 1"), "{error}");
        connection.execute("DELETE FROM batch WHERE id = 1", []).expect("damages");
        let error = topic.read(0, 0, usize::MAX).expect_err("missing");
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("offset 1 is missing"), "{error}");
        assert!(topic.read(0, 1, 1).is_err());
        topic.read(0, 2, 1).expect("the rest is whole");
    }
}
