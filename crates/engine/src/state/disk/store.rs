//! A table's entries on disk: a log-structured merge tree without a journal, since nothing in it must survive a crash.
//!
//! What comes in stands in a buffer of this project's own (`buffer.rs`) until that is full and a thread makes a file of it;
//! the tree has the files alone.
//!
//! How keys stand in it is told in `key.rs`. A value is stored behind the time it lapses, so that merging files drops what
//! has expired without decoding it.

use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use lsm_tree::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};
use lsm_tree::config::PinningPolicy;
use lsm_tree::{AbstractTree, Config, Guard, IterGuardImpl, SeqNo, SequenceNumberCounter, Slice};
use tidemill_core::{Error, Result, SharedClock};

use super::buffer::{Buffer, Cursor, KEY_BYTES_MAX, Sealed, VALUE_BYTES_MAX};
use super::home::{BUFFERS, DiskHome, Upkeep, store_error};
use super::key::{put_group, put_time};
use crate::key::GroupRange;

/// Bytes in front of each value: when it lapses, in ms; the last number there is for never.
pub(super) const LAPSE_BYTES: usize = 8;

/// A buffer is copied by the first write while an iterator over it is alive if it is no larger, in bytes.
const COPY_BYTES_MAX: usize = 256 * 1024;

/// Whether a stored value has lapsed.
#[inline]
pub(super) fn lapsed(stored: &[u8], now_ms: i64) -> bool {
    stored.first_chunk().is_some_and(|lapses| i64::from_le_bytes(*lapses) <= now_ms)
}

/// The entries of one table of one subtask.
pub(super) struct Store {
    /// What has come last.
    buffer: Buffer,
    /// Buffers that were full, the latest one last, until they are written out.
    sealed: Vec<Arc<Sealed>>,
    /// What is in files.
    upkeep: Arc<Upkeep>,
    home: Arc<DiskHome>,
}

/// Entries in order of key, as they were when it was made.
pub(super) struct Entries {
    /// What buffers held, the latest one first.
    buffered: Vec<Cursor>,
    stored: Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send + 'static>,
    /// The next one of those in files.
    next_stored: Option<(Slice, Slice)>,
    begun: bool,
    upkeep: Arc<Upkeep>,
}

impl Store {
    /// An empty store. What lapses does so by `clock`.
    pub fn new(home: &Arc<DiskHome>, subtask: usize, clock: Option<SharedClock>) -> Result<Self> {
        let folder = home.add_table(subtask);
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let expiry: Option<Arc<dyn Factory>> =
            clock.map(|clock| Arc::new(Expiry(AssertUnwindSafe(clock))) as Arc<dyn Factory>);
        let tree = Config::new(&folder, seqno.clone(), visible)
            .use_cache(home.blocks())
            .use_descriptor_table(Some(home.descriptors()))
            // What is pinned would not count for the memory limit.
            .index_block_pinning_policy(PinningPolicy::disabled())
            .filter_block_pinning_policy(PinningPolicy::disabled())
            // In blocks, so that a look for one key does not read a whole file's; but the filters of the first level, of
            // which it asks many, are small and whole.
            .index_block_partitioning_policy(PinningPolicy::all(true))
            .filter_block_partitioning_policy(PinningPolicy::new([false, true]))
            .with_compaction_filter_factory(expiry)
            .open()
            .map_err(|e| store_error("make", &folder, e))?;
        let upkeep = Upkeep::new(tree, seqno, folder);
        Ok(Store { buffer: Buffer::default(), sealed: Vec::new(), upkeep, home: home.clone() })
    }

    /// What `read` makes of the value of a key, if there is one.
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        if let Some(held) = self.buffer.get(key).or_else(|| self.unwritten().find_map(|sealed| sealed.get(key))) {
            return held.map(read).transpose();
        }
        let stored = self.upkeep.tree.get(key, SeqNo::MAX).map_err(|e| store_error("read", &self.upkeep.folder, e))?;
        stored.map(|value| read(&value)).transpose()
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.set(key, Some(value))
    }

    pub fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.set(key, None)
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let lengths = [("key", key.len(), KEY_BYTES_MAX), ("value", value.map_or(0, <[u8]>::len), VALUE_BYTES_MAX)];
        if let Some((what, len, max)) = lengths.into_iter().find(|(_, len, max)| len > max) {
            return Err(Error::input(format!("a {what} of state is {len} bytes long, at most {max} go")));
        }
        let room = self.home.buffer_share();
        self.buffer.set(key, value, room);
        if self.buffer.memory() >= room {
            self.home.wait_for_room(&self.upkeep)?;
            self.seal()?;
        }
        self.home.check()
    }

    /// Sealed buffers whose entries may not be in files yet, the latest first.
    fn unwritten(&self) -> impl Iterator<Item = &Arc<Sealed>> {
        self.sealed.iter().rev().filter(|sealed| !sealed.is_written())
    }

    /// The buffer goes to be written out.
    fn seal(&mut self) -> Result<()> {
        let written = self.sealed.extract_if(.., |sealed| sealed.is_written());
        let next = written.filter_map(Arc::into_inner).last().map_or_else(Buffer::default, Buffer::reusing);
        let sealed = Arc::new(Sealed::new(std::mem::replace(&mut self.buffer, next)));
        self.sealed.push(sealed.clone());
        self.home.write_out(&self.upkeep, sealed)
    }

    /// Iterators are going to be made that are alive when writing goes on: a buffer that is too large to be copied then
    /// goes to be written out now, if not too many wait.
    pub fn seal_for_copy(&mut self) -> Result<()> {
        let is_large = self.buffer.memory() > COPY_BYTES_MAX;
        if is_large && self.unwritten().count() < BUFFERS { self.seal() } else { Ok(()) }
    }

    /// The entries of some key groups as they are now, whatever is written meanwhile.
    pub fn entries(&mut self, (first, last): GroupRange) -> Entries {
        let bound = |group| {
            let mut bound = Vec::new();
            put_group(group, &mut bound);
            bound
        };
        self.range(bound(first), Some(bound(last + 1)))
    }

    /// The same of a table whose keys stand by time: of one time.
    pub fn entries_at(&mut self, time_ms: i64, (first, last): GroupRange) -> Entries {
        let bound = |group| {
            let mut bound = Vec::new();
            put_time(time_ms, &mut bound);
            put_group(group, &mut bound);
            bound
        };
        self.range(bound(first), Some(bound(last + 1)))
    }

    /// The same: from a time on.
    pub fn entries_from(&mut self, time_ms: i64) -> Entries {
        let mut bound = Vec::new();
        put_time(time_ms, &mut bound);
        self.range(bound, None)
    }

    /// The entries from a stored key on, up to another.
    pub fn range(&mut self, from: Vec<u8>, to: Option<Vec<u8>>) -> Entries {
        let bounds = (from.as_slice(), to.as_deref());
        // Before the look at the tree: what is written out meanwhile is then seen at least once.
        let held = Arc::new(self.buffer.look());
        let buffered = std::iter::once(&held).chain(self.unwritten());
        let buffered = buffered.map(|sealed| Cursor::new(sealed.clone(), bounds.0, bounds.1)).collect();
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let stored = self.upkeep.iterate(|seqno| self.upkeep.tree.range(range, seqno, None));
        Entries { buffered, stored, next_stored: None, begun: false, upkeep: self.upkeep.clone() }
    }

    /// What stands before a stored key is not needed any more, and nothing will be written there: files of it go when
    /// there is something to merge.
    pub fn forget_before(&self, key: Vec<u8>) {
        self.upkeep.forget_before(key);
    }

    /// About how many bytes are in files.
    pub fn file_bytes(&self) -> u64 {
        self.upkeep.tree.disk_space()
    }

    /// About how many entries there are; those written several times may count several times.
    pub fn approximate_len(&self) -> usize {
        let sealed: usize = self.unwritten().map(|sealed| sealed.len()).sum();
        self.upkeep.tree.approximate_len() + self.buffer.len() + sealed
    }

    /// The scratch folder it stands in.
    pub fn home(&self) -> &Arc<DiskHome> {
        &self.home
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.home.remove_table();
    }
}

impl Entries {
    /// The next entry in files goes to `next_stored`; what stood there is returned.
    fn advance_stored(&mut self) -> Result<Option<(Slice, Slice)>> {
        let next = self.stored.next().map(|entry| entry.into_inner()).transpose();
        let next = next.map_err(|e| store_error("read", &self.upkeep.folder, e))?;
        Ok(std::mem::replace(&mut self.next_stored, next))
    }

    /// The next entry, the latest of those with its key; a key without a value was removed.
    fn step(&mut self) -> Result<Option<(Slice, Option<Slice>)>> {
        if !std::mem::replace(&mut self.begun, true) {
            self.buffered.iter_mut().for_each(Cursor::begin);
            self.advance_stored()?;
        }
        let buffered = self.buffered.iter().enumerate();
        let first = buffered.filter_map(|(at, cursor)| cursor.entry().map(|(key, _)| (key, at))).min();
        let stored = self.next_stored.as_ref().map(|(key, _)| &key[..]);
        let Some((key, at)) = first.filter(|(key, _)| stored.is_none_or(|stored| *key <= stored)) else {
            return Ok(self.advance_stored()?.map(|(key, value)| (key, Some(value))));
        };
        let (key, also_stored) = (Slice::from(key), stored == Some(key));
        let value = self.buffered[at].entry().and_then(|(_, value)| value).map(Slice::from);
        if also_stored {
            self.advance_stored()?;
        }
        for cursor in &mut self.buffered {
            if cursor.entry().is_some_and(|(held, _)| held == &key[..]) {
                cursor.advance();
            }
        }
        Ok(Some((key, value)))
    }
}

impl Iterator for Entries {
    /// Key and value as stored.
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some((key, Some(value)))) => return Some(Ok((key, value))),
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Drops what has expired while files are merged.
struct Expiry(AssertUnwindSafe<SharedClock>);

struct ExpiryAt {
    now_ms: i64,
}

impl Factory for Expiry {
    fn name(&self) -> &str {
        "expiry"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(ExpiryAt { now_ms: self.0.now_ms() })
    }
}

impl CompactionFilter for ExpiryAt {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        Ok(if lapsed(&item.value()?, self.now_ms) { Verdict::Remove } else { Verdict::Keep })
    }
}

#[cfg(test)]
#[path = "../tests/store.rs"]
mod tests;
