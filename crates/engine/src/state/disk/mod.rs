//! A table on disk: a bounded cache of decoded entries over a store of encoded ones.
//!
//! ```text
//! user function ── &mut V ──► cache ── an entry leaves it ──► store (files)
//!                               │                      └────► changes of this interval (a spool)
//!                               └── a checkpoint's moment: what has changed and is still here ──► a second spool
//! ```
//!
//! Hot keys stay decoded, so a function changes them in place; a miss reads the store. A checkpoint is the two spools, read
//! one behind the other by the checkpoint writer's thread; a part of the table that gets a new base is read from the store,
//! as it was at the moment. The worker's share of a checkpoint is one walk over the cache in steps: an entry about to
//! change or to leave before the walk has come to it is written out first, as in `table.rs`.

mod buffer;
mod copy;
mod home;
mod key;
mod scratch;
mod spool;
mod store;
mod timers;
mod times;

pub(crate) use home::DiskHome;
pub use home::STATE_MEMORY_MIN_BYTES;
pub(crate) use key::{AtTime, DiskKey};
pub(crate) use scratch::OF_A_PROCESS;
pub(crate) use timers::DiskTimers;

use std::collections::BTreeSet;
use std::sync::PoisonError;

use hashbrown::HashTable;
use tidemill_core::{Data, Error, Result, SharedClock};

use self::copy::{FileCopy, Units, Weights, expect_bases};
use self::key::{Layout, SHARDS, unit_of_time};
use self::spool::Spool;
use self::store::{Entries, LAPSE_BYTES, Store, lapsed};
use super::RestoredSection;
use super::buffers::SECTION_BYTES;
use super::chain::{due, units_wanted};
use super::codec::unwritable;
use super::decode::{Unreadable, decode_only};
use crate::key::GroupRange;
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};

/// Entries that leave the cache at a time, when it is over its share.
const EVICTED_AT_ONCE: usize = 16;

/// Entries that leave the cache at a checkpoint's moment, when it is over its share: tables that nobody uses shrink too.
const EVICTED_AT_MOMENT: usize = 4096;

/// A value that is changed in place is measured again after so many changes, and one more for each so many bytes of it.
const MEASURED_AFTER: u32 = 64;

/// What walking a shard counts for besides what is written, in bytes.
const SHARD_COST: usize = 512;

/// When a value lapses, epoch ms; `i64::MAX` for never.
pub(crate) type Lapses<V> = Box<dyn Fn(&V) -> i64>;

/// A table from key to value.
pub(crate) struct DiskTable<K, V> {
    name: &'static str,
    shards: Vec<HashTable<Entry<K, V>>>,
    /// Estimated memory of the cached entries.
    bytes: usize,
    /// Where the search for an entry to leave the cache goes on: shard and bucket.
    hand: (usize, usize),
    store: Store,
    clock: Option<SharedClock>,
    lapses: Option<Lapses<V>>,
    own: GroupRange,
    /// Of a table whose keys have times: those that have entries, and the one before which none is needed any more.
    times: Vec<i64>,
    live_from_ms: i64,
    /// Of its times those of which the store has something.
    stored_times: BTreeSet<i64>,
    /// Counts the moments of snapshots.
    moment: u32,
    /// The last moment of a checkpoint.
    checkpoint: u32,
    /// What the next checkpoint builds on; `None` before the first.
    log: Option<Log>,
    copying: Option<Copying>,
    key: Vec<u8>,
    value: Vec<u8>,
}

struct Entry<K, V> {
    key: K,
    /// `None`: removed.
    value: Option<V>,
    /// Length of the value as bytes, when it was measured last.
    bytes: u32,
    changes_since_measured: u32,
    /// The moment before its last change; 0 when the last checkpoint holds it or a spool does.
    changed: u32,
    /// Used since the hand came by.
    used: bool,
    /// The store does not have it.
    dirty: bool,
    /// Neither the store nor a checkpoint nor a spool has ever heard of it.
    fresh: bool,
}

/// What has left the cache since the last checkpoint.
struct Log {
    units: Units,
    spool: Spool,
    /// By unit: how much, and whether more has left than was worth keeping. It gets a new base then.
    spooled: Vec<(usize, bool)>,
    weights: Weights,
}

impl Log {
    /// Keeps a change of a unit, unless there are so many that a new base is less.
    fn note(&mut self, unit: usize, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let (bytes, overflown) = &mut self.spooled[unit];
        if !*overflown && *bytes > SECTION_BYTES {
            let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
            *overflown = *bytes > weights.get(unit).map_or(0, |weight| weight.base_bytes);
        }
        if !*overflown {
            *bytes += self.spool.append(key, value)?;
        }
        Ok(())
    }
}

/// The worker's part of a snapshot under way.
struct Copying {
    /// The shard to be walked now.
    next: usize,
    held: Spool,
    rest: Rest,
}

/// What is handed on behind it.
struct Rest {
    units: Units,
    based: Vec<bool>,
    bases: Vec<Entries>,
    before: Option<Spool>,
    now_ms: i64,
    weights: Option<Weights>,
}

/// Appends something as bytes.
fn encode(what: &impl serde::Serialize, name: &str, into: &mut Vec<u8>) -> Result<()> {
    super::encode::encode(what, into).map_err(|e| unwritable(name, &e))
}

impl<K, V> Entry<K, V> {
    /// Estimated memory: the bucket at the table's usual load, and what the encoded bytes tell of the heap.
    fn memory(&self) -> usize {
        size_of::<Self>() * 3 / 2 + 16 + self.bytes as usize
    }
}

impl<K: DiskKey, V: Data> DiskTable<K, V> {
    pub fn new(
        name: &'static str,
        home: &std::sync::Arc<DiskHome>,
        (subtask, own): (usize, GroupRange),
        clock: Option<SharedClock>,
        lapses: Option<Lapses<V>>,
    ) -> Result<Self> {
        Ok(DiskTable {
            name,
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            bytes: 0,
            hand: (0, 0),
            store: Store::new(home, subtask, clock.clone().filter(|_| lapses.is_some()))?,
            clock,
            lapses,
            own,
            times: Vec::new(),
            live_from_ms: i64::MIN,
            stored_times: BTreeSet::new(),
            moment: 1,
            checkpoint: 1,
            log: None,
            copying: None,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// The value of a key.
    pub fn get(&mut self, key: &K) -> Result<Option<&V>> {
        let Some((at, bucket)) = self.locate(key)? else { return Ok(None) };
        Ok(self.shards[at].get_bucket(bucket).and_then(|entry| entry.value.as_ref()))
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Result<Option<&mut V>> {
        self.make_room(EVICTED_AT_ONCE)?;
        match self.locate(key)? {
            Some((at, bucket)) if self.holds(at, bucket) => self.change(at, bucket).map(Option::as_mut),
            _ => Ok(None),
        }
    }

    /// The value of a key, to be changed; made by `make` if there is none.
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> Result<&mut V> {
        self.make_room(EVICTED_AT_ONCE)?;
        let (at, bucket) = match self.locate(key)? {
            Some(place) => place,
            None => self.insert_entry(key.clone(), None, true)?,
        };
        if !self.holds(at, bucket) {
            self.replace(at, bucket, make())?;
        }
        match self.change(at, bucket)? {
            Some(value) => Ok(value),
            None => Err(Error::bug("a value of state is gone as soon as it was set")),
        }
    }

    /// Sets a key's value and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>> {
        self.make_room(EVICTED_AT_ONCE)?;
        let (at, bucket) = match self.locate(&key)? {
            Some(place) => place,
            None => self.insert_entry(key, None, true)?,
        };
        self.replace(at, bucket, value)
    }

    /// Sets a key's value. What was there is not read.
    pub fn set(&mut self, key: &K, value: V) -> Result<()> {
        self.make_room(EVICTED_AT_ONCE)?;
        let hash = key.table_hash();
        let at = key.shard(hash);
        let bucket = match self.shards[at].find_bucket_index(hash, |entry| entry.key == *key) {
            Some(bucket) => bucket,
            // The store may have an older one.
            None => self.insert_entry(key.clone(), None, false)?.1,
        };
        self.replace(at, bucket, value).map(drop)
    }

    /// Sets the value of a cached entry.
    fn replace(&mut self, at: usize, bucket: usize, value: V) -> Result<Option<V>> {
        let before = self.change(at, bucket)?.replace(value);
        self.measure(at, bucket)?;
        Ok(before)
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Result<Option<V>> {
        match self.locate(key)? {
            Some((at, bucket)) if self.holds(at, bucket) => {
                let value = self.change(at, bucket)?.take();
                if self.shards[at].get_bucket(bucket).is_some_and(|entry| entry.fresh) {
                    self.forget(at, bucket);
                }
                Ok(value)
            }
            _ => Ok(None),
        }
    }

    /// The keys that have a value.
    pub fn keys(&mut self) -> Result<Vec<K>> {
        let cached = || self.shards.iter().flat_map(|shard| shard.iter());
        let now_ms = self.now_ms();
        let mut keys: Vec<K> = cached().filter(|entry| entry.value.is_some()).map(|entry| entry.key.clone()).collect();
        for stored in self.store.entries(self.own) {
            let (key, value) = stored?;
            let key = self.read_key(&key)?;
            if !lapsed(&value, now_ms) && !self.is_cached(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn now_ms(&self) -> i64 {
        // Without a clock nothing lapses.
        self.clock.as_ref().map_or(i64::MIN, |clock| clock.now_ms())
    }

    fn is_cached(&self, key: &K) -> bool {
        let hash = key.table_hash();
        self.shards[key.shard(hash)].find_bucket_index(hash, |entry| entry.key == *key).is_some()
    }

    fn read_key(&self, stored: &[u8]) -> Result<K> {
        K::read(stored).map_err(|e| self.unreadable(&e))
    }

    fn unreadable(&self, why: &Unreadable) -> Error {
        Error::corrupt(format!("state `{}` cannot be read back from its store: {why}", self.name))
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        decode_only(bytes).map_err(|e| self.unreadable(&e))
    }

    fn holds(&self, at: usize, bucket: usize) -> bool {
        self.shards[at].get_bucket(bucket).is_some_and(|entry| entry.value.is_some())
    }

    /// The place of a key's entry in the cache, where it is read into if the store has it.
    #[inline]
    fn locate(&mut self, key: &K) -> Result<Option<(usize, usize)>> {
        let hash = key.table_hash();
        let at = key.shard(hash);
        if let Some(bucket) = self.shards[at].find_bucket_index(hash, |entry| entry.key == *key) {
            if let Some(entry) = self.shards[at].get_bucket_mut(bucket) {
                entry.used = true;
            }
            return Ok(Some((at, bucket)));
        }
        self.read(key)
    }

    #[cold]
    fn read(&mut self, key: &K) -> Result<Option<(usize, usize)>> {
        self.encode_key(key)?;
        let read = self.store.get(&self.key, |stored| {
            let stored = stored.get(LAPSE_BYTES..).unwrap_or_default();
            Ok((self.decode(stored)?, stored.len()))
        });
        let Some((value, bytes)) = read? else { return Ok(None) };
        let (at, bucket) = self.insert_entry(key.clone(), Some(value), false)?;
        if let Some(entry) = self.shards[at].get_bucket_mut(bucket) {
            entry.bytes = bytes as u32;
            self.bytes += bytes;
        }
        Ok(Some((at, bucket)))
    }

    /// The key as the store has it.
    fn encode_key(&mut self, key: &K) -> Result<()> {
        self.key.clear();
        key.put(self.name, &mut self.key)
    }

    /// Puts an entry into the cache that is not there.
    fn insert_entry(&mut self, key: K, value: Option<V>, fresh: bool) -> Result<(usize, usize)> {
        self.make_room(EVICTED_AT_ONCE)?;
        let hash = key.table_hash();
        let at = key.shard(hash);
        let entry =
            Entry { key, value, bytes: 0, changes_since_measured: 0, changed: 0, used: true, dirty: false, fresh };
        self.bytes += entry.memory();
        let place = self.shards[at].insert_unique(hash, entry, |entry| entry.key.table_hash());
        Ok((at, place.bucket_index()))
    }

    /// A cached entry is about to change.
    #[inline]
    fn change(&mut self, at: usize, bucket: usize) -> Result<&mut Option<V>> {
        let entry = self.entry(at, bucket)?;
        if entry.changed != self.moment && self.copying.is_some() {
            self.capture(at, bucket)?;
        }
        let moment = self.moment;
        let entry = self.entry(at, bucket)?;
        (entry.changed, entry.dirty) = (moment, true);
        entry.changes_since_measured += 1;
        if entry.changes_since_measured > MEASURED_AFTER + entry.bytes / MEASURED_AFTER {
            self.measure(at, bucket)?;
        }
        Ok(&mut self.entry(at, bucket)?.value)
    }

    fn entry(&mut self, at: usize, bucket: usize) -> Result<&mut Entry<K, V>> {
        self.shards[at].get_bucket_mut(bucket).ok_or_else(|| Error::bug("a cached entry of state is not in its place"))
    }

    #[cold]
    fn measure(&mut self, at: usize, bucket: usize) -> Result<()> {
        self.value.clear();
        let Some(entry) = self.shards[at].get_bucket_mut(bucket) else { return Ok(()) };
        if let Some(value) = &entry.value {
            encode(value, self.name, &mut self.value)?;
        }
        self.bytes = (self.bytes + self.value.len()).saturating_sub(entry.bytes as usize);
        entry.bytes = self.value.len() as u32;
        entry.changes_since_measured = 0;
        Ok(())
    }

    /// Whether the snapshot under way still wants the entry as it is.
    fn wanted(&self, at: usize, entry: &Entry<K, V>) -> bool {
        let Some(copying) = &self.copying else { return false };
        if at < copying.next || entry.changed == self.moment {
            return false;
        }
        let rest = &copying.rest;
        if entry.key.time_ms().is_some_and(|time_ms| time_ms < rest.units.live_from_ms) {
            return false;
        }
        let unit = rest.units.of(entry.key.group(), entry.key.time_ms());
        if rest.based[unit] { entry.dirty } else { entry.changed != 0 }
    }

    /// Writes an entry into the snapshot under way, if that wants it.
    #[cold]
    fn capture(&mut self, at: usize, bucket: usize) -> Result<usize> {
        match self.shards[at].get_bucket(bucket) {
            Some(entry) if self.wanted(at, entry) => {}
            _ => return Ok(0),
        }
        self.encode_entry(at, bucket)?;
        let DiskTable { shards, copying: Some(copying), key, value, .. } = self else { return Ok(0) };
        let Some(entry) = shards[at].get_bucket_mut(bucket) else { return Ok(0) };
        entry.fresh = false;
        copying.held.append(key, entry.value.is_some().then_some(value.as_slice()))
    }

    /// The entry as the store has it, in `key` and `value`.
    fn encode_entry(&mut self, at: usize, bucket: usize) -> Result<()> {
        let DiskTable { shards, key, value, lapses, name, .. } = self;
        let Some(entry) = shards[at].get_bucket(bucket) else { return Ok(()) };
        key.clear();
        entry.key.put(name, key)?;
        value.clear();
        if let Some(held) = &entry.value {
            let lapses_ms = lapses.as_ref().map_or(i64::MAX, |lapses| lapses(held));
            value.extend_from_slice(&lapses_ms.to_le_bytes());
            encode(held, name, value)?;
        }
        Ok(())
    }

    /// Lets up to `entries` of them leave the cache while it is over its share.
    #[inline]
    fn make_room(&mut self, entries: usize) -> Result<()> {
        if self.bytes > self.store.home().cache_share() { self.evict(entries) } else { Ok(()) }
    }

    /// Those that were not used since the hand came by last go first.
    #[cold]
    fn evict(&mut self, entries: usize) -> Result<()> {
        let share = self.store.home().cache_share();
        let (mut left, mut rounds) = (entries, 0);
        while left > 0 && self.bytes > share && rounds <= 2 * SHARDS {
            let (at, bucket) = self.hand;
            if bucket >= self.shards[at].num_buckets() {
                self.hand = ((at + 1) % SHARDS, 0);
                rounds += 1;
                continue;
            }
            self.hand.1 += 1;
            match self.shards[at].get_bucket_mut(bucket) {
                Some(entry) if entry.used => entry.used = false,
                Some(_) => {
                    self.evict_one(at, bucket)?;
                    left -= 1;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn evict_one(&mut self, at: usize, bucket: usize) -> Result<()> {
        self.capture(at, bucket)?;
        let Some(entry) = self.shards[at].get_bucket(bucket) else { return Ok(()) };
        let time_ms = entry.key.time_ms();
        let over = time_ms.is_some_and(|time_ms| time_ms < self.live_from_ms);
        let (dirty, held) = (entry.dirty && !over, entry.value.is_some());
        let changed = entry.changed != 0 && entry.changed >= self.checkpoint && !over;
        let unit = self.log.as_ref().map(|log| log.units.of(entry.key.group(), time_ms));
        if dirty || changed {
            self.encode_entry(at, bucket)?;
        }
        let value = held.then_some(self.value.as_slice());
        if let (Some(log), Some(unit), true) = (&mut self.log, unit, changed) {
            log.note(unit, &self.key, value)?;
        }
        if let (Some(time_ms), true) = (time_ms, dirty) {
            self.stored_times.insert(time_ms);
        }
        match value {
            Some(value) if dirty => self.store.put(&self.key, value)?,
            None if dirty => self.store.remove(&self.key)?,
            _ => {}
        }
        self.forget(at, bucket);
        Ok(())
    }

    /// Takes an entry out of the cache.
    fn forget(&mut self, at: usize, bucket: usize) {
        if let Ok(entry) = self.shards[at].get_bucket_entry(bucket) {
            self.bytes = self.bytes.saturating_sub(entry.get().memory());
            entry.remove();
        }
    }

    /// Marks the state of this moment; [`DiskTable::copy_some`] goes on.
    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        if parts.mode == SnapshotMode::Nothing {
            return Ok(());
        }
        debug_assert!(self.copying.is_none(), "a copy is taken to its end before the next begins");
        self.make_room(EVICTED_AT_MOMENT)?;
        self.moment += 1;
        let folder = self.store.home().folder().to_path_buf();
        let held = Spool::new(&folder)?;
        let now_ms = self.now_ms();
        let rest = match parts.mode {
            SnapshotMode::Checkpoint { fresh } => {
                parts.roster.push(self.name.to_string());
                self.checkpoint = self.moment;
                let cached: usize = self.shards.iter().map(HashTable::len).sum();
                let wanted = units_wanted(self.store.approximate_len().max(cached));
                let log = self.log.take().filter(|log| !fresh && log.units.count >= wanted);
                let count = log.as_ref().map_or(wanted, |log| log.units.count);
                let units = self.units(count);
                let weights = log.as_ref().map_or_else(Weights::default, |log| log.weights.clone());
                let based = match &log {
                    None => vec![true; count],
                    Some(log) => self.due(log),
                };
                let base_bytes = self.store.file_bytes() as usize / count;
                expect_bases(&weights, &based, base_bytes);
                let spooled = vec![(0, false); count];
                let next = Log { units, spool: Spool::new(&folder)?, spooled, weights: weights.clone() };
                self.log = Some(next);
                let bases = self.bases(units, &based)?;
                Rest { units, based, bases, before: log.map(|log| log.spool), now_ms, weights: Some(weights) }
            }
            _ => {
                let (units, based) = (self.units(1), vec![true]);
                Rest { units, bases: self.bases(units, &based)?, based, before: None, now_ms, weights: None }
            }
        };
        self.copying = Some(Copying { next: 0, held, rest });
        Ok(())
    }

    fn units(&self, count: usize) -> Units {
        Units { layout: Layout::of::<K>(), own: self.own, count, live_from_ms: self.live_from_ms }
    }

    /// Which units get a new base.
    fn due(&self, log: &Log) -> Vec<bool> {
        let weights = log.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = due(weights.iter());
        for (unit, due) in due.iter_mut().enumerate() {
            *due |= log.spooled[unit].1;
            // Of a unit of which nothing is needed any more, what was written is not either.
            let live = !K::TIMED || self.times.iter().any(|time_ms| unit_of_time(*time_ms, log.units.count) == unit);
            *due |= !live && !weights[unit].is_empty();
        }
        due
    }

    /// The store's entries of units, as they are at this moment.
    fn bases(&mut self, units: Units, based: &[bool]) -> Result<Vec<Entries>> {
        if based.contains(&true) {
            self.store.seal_for_copy()?;
        }
        if !K::TIMED {
            let based = (0..units.count).filter(|unit| based[*unit]);
            return Ok(based.filter_map(|unit| units.groups(unit)).map(|groups| self.store.entries(groups)).collect());
        }
        if based.iter().all(|base| *base) {
            return Ok(vec![self.store.entries_from(self.live_from_ms)]);
        }
        let based = self
            .times
            .iter()
            .filter(|time_ms| based[unit_of_time(**time_ms, units.count)] && self.stored_times.contains(time_ms));
        Ok(based.map(|time_ms| self.store.entries_at(*time_ms, self.own)).collect())
    }

    /// Goes on with the walk over the cache until it is done or `run` has no room left; true when it is done. The rest is
    /// handed on to the checkpoint writer's thread.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        while let Some(Copying { next: at, rest, .. }) = &self.copying {
            let (at, chained) = (*at, rest.weights.is_some());
            if at == SHARDS {
                break;
            }
            if !run.room() {
                return Ok(false);
            }
            for bucket in self.shards[at].iter_buckets().collect::<Vec<usize>>() {
                run.spend(self.capture(at, bucket)?);
                let checkpoint = self.checkpoint;
                let entry = self.entry(at, bucket)?;
                if chained && entry.changed < checkpoint {
                    entry.changed = 0;
                }
            }
            run.spend(SHARD_COST);
            if let Some(copying) = &mut self.copying {
                copying.next += 1;
            }
        }
        if let Some(Copying { held, rest, .. }) = self.copying.take() {
            let Rest { units, based, bases, before, now_ms, weights } = rest;
            let (held, before) = (Some(held.finish()?), before.map(Spool::finish).transpose()?);
            let copy = FileCopy { name: self.name, units, based, bases, before, held, now_ms, weights };
            run.deferred.push(Box::new(|give| copy.run(give)));
        }
        Ok(true)
    }

    /// Takes in sections of this table, in the order they were written, as far as `owns` says.
    pub fn load(&mut self, section: &RestoredSection, owns: impl Fn(&K) -> bool) -> Result<()> {
        let mut reader = section.reader()?;
        if section.removal {
            while let Some(key) = reader.entry::<K>()? {
                if owns(&key) {
                    self.load_removal(&key)?;
                }
            }
            return Ok(());
        }
        while let Some((key, value)) = reader.entry::<(K, V)>()? {
            if owns(&key) {
                self.load_entry(&key, &value)?;
            }
        }
        Ok(())
    }

    /// Takes in an entry, before anything else is done with the table.
    pub fn load_entry(&mut self, key: &K, value: &V) -> Result<()> {
        self.encode_key(key)?;
        self.value.clear();
        let lapses_ms = self.lapses.as_ref().map_or(i64::MAX, |lapses| lapses(value));
        self.value.extend_from_slice(&lapses_ms.to_le_bytes());
        encode(value, self.name, &mut self.value)?;
        self.stored_times.extend(key.time_ms());
        self.store.put(&self.key, &self.value)
    }

    /// Takes in that a key is gone, before anything else is done with the table.
    pub fn load_removal(&mut self, key: &K) -> Result<()> {
        self.encode_key(key)?;
        self.store.remove(&self.key)
    }

    /// Calls `each` with what was taken in, before anything else is done with the table.
    pub fn for_each_loaded(&mut self, mut each: impl FnMut(&K, &V) -> Result<()>) -> Result<()> {
        for stored in self.store.range(Vec::new(), None) {
            let (key, value) = stored?;
            each(&self.read_key(&key)?, &self.decode(value.get(LAPSE_BYTES..).unwrap_or_default())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../tests/disk.rs"]
pub(crate) mod tests;
