//! A table's entries on disk: a log-structured merge tree without a journal, since nothing in it must survive a crash.
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

use super::home::{DiskHome, Upkeep, store_error};
use super::key::{put_group, put_time};
use crate::key::GroupRange;

/// Bytes in front of each value: when it lapses, in ms; the last number there is for never.
pub(super) const LAPSE_BYTES: usize = 8;

/// Keys may be so long, in bytes.
const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Whether a stored value has lapsed.
#[inline]
pub(super) fn lapsed(stored: &[u8], now_ms: i64) -> bool {
    stored.first_chunk().is_some_and(|lapses| i64::from_le_bytes(*lapses) <= now_ms)
}

/// The entries of one table of one subtask.
pub(super) struct Store {
    upkeep: Arc<Upkeep>,
    visible: SequenceNumberCounter,
    home: Arc<DiskHome>,
}

/// Entries in order of key, as they were when it was made.
pub(super) struct Entries {
    inner: Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send + 'static>,
    upkeep: Arc<Upkeep>,
}

impl Store {
    /// An empty store. What lapses does so by `clock`.
    pub fn new(home: &Arc<DiskHome>, subtask: usize, clock: Option<SharedClock>) -> Result<Self> {
        let folder = home.add_table(subtask);
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let expiry: Option<Arc<dyn Factory>> =
            clock.map(|clock| Arc::new(Expiry(AssertUnwindSafe(clock))) as Arc<dyn Factory>);
        let tree = Config::new(&folder, seqno.clone(), visible.clone())
            .use_cache(home.blocks())
            .use_descriptor_table(Some(home.descriptors()))
            // What is pinned would not count for the memory limit.
            .index_block_pinning_policy(PinningPolicy::disabled())
            .filter_block_pinning_policy(PinningPolicy::disabled())
            // In blocks, so that a look for one key does not read a whole file's.
            .index_block_partitioning_policy(PinningPolicy::all(true))
            .filter_block_partitioning_policy(PinningPolicy::all(true))
            .with_compaction_filter_factory(expiry)
            .open()
            .map_err(|e| store_error("make", &folder, e))?;
        Ok(Store { upkeep: Upkeep::new(tree, seqno, folder), visible, home: home.clone() })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.upkeep.tree.get(key, SeqNo::MAX).map_err(|e| store_error("read", &self.upkeep.folder, e))
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::input(format!(
                "a key of state is {} bytes long, at most {KEY_BYTES_MAX} go",
                key.len()
            )));
        }
        let seqno = self.upkeep.seqno.next();
        let (_, size) = self.upkeep.tree.insert(key, value, seqno);
        self.written(seqno, size)
    }

    pub fn remove(&self, key: &[u8]) -> Result<()> {
        let seqno = self.upkeep.seqno.next();
        let (_, size) = self.upkeep.tree.remove(key, seqno);
        self.written(seqno, size)
    }

    fn written(&self, seqno: SeqNo, buffered: u64) -> Result<()> {
        self.visible.fetch_max(seqno + 1);
        if buffered as usize >= self.home.buffer_share() {
            self.home.buffer_full(&self.upkeep)?;
        }
        self.home.check()
    }

    /// The entries of some key groups as they are now, whatever is written meanwhile.
    pub fn entries(&self, (first, last): GroupRange) -> Entries {
        let bound = |group| {
            let mut bound = Vec::new();
            put_group(group, &mut bound);
            bound
        };
        self.range(bound(first), Some(bound(last + 1)))
    }

    /// The same of a table whose keys stand by time: of one time.
    pub fn entries_at(&self, time_ms: i64, (first, last): GroupRange) -> Entries {
        let bound = |group| {
            let mut bound = Vec::new();
            put_time(time_ms, &mut bound);
            put_group(group, &mut bound);
            bound
        };
        self.range(bound(first), Some(bound(last + 1)))
    }

    /// The same: from a time on.
    pub fn entries_from(&self, time_ms: i64) -> Entries {
        let mut bound = Vec::new();
        put_time(time_ms, &mut bound);
        self.range(bound, None)
    }

    /// The entries from a stored key on, up to another.
    pub fn range(&self, from: Vec<u8>, to: Option<Vec<u8>>) -> Entries {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Included(from), to);
        let inner = self.upkeep.iterate(|seqno| self.upkeep.tree.range(range, seqno, None));
        Entries { inner, upkeep: self.upkeep.clone() }
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
        self.upkeep.tree.approximate_len()
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

impl Iterator for Entries {
    /// Key and value as stored.
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.inner.next()?.into_inner();
        Some(entry.map_err(|e| store_error("read", &self.upkeep.folder, e)))
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
