//! A hash table whose state can be copied while it goes on changing.
//!
//! A snapshot must hold the table as it was at one moment, but copying a large one at that moment would stop the worker
//! for as long as the copy takes. So the moment is only marked, and the copying is done in small steps between batches:
//!
//! ```text
//! shards   [copied][copied][now: copying][later][later] …
//!                                  an entry about to change for the first time here ▲ is written out first
//! ```
//!
//! Each entry has a stamp that says whether it has changed since the moment. Copying walks the shards in order; an entry in
//! a shard that is not behind it yet is written out just before its first change. What the walk finds changed is either
//! written already or did not exist at the moment.
//!
//! The marks of a shard (`marks.rs`) tell what had changed between the last checkpoint and the moment, so that a large
//! table writes only that (see `chain.rs`). Small tables are written whole: it costs less than to think about it.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use hashbrown::hash_table::HashTable;
use smallvec::SmallVec;
use tidemill_core::{Data, Result};

use super::chain::{Chain, Copying};
use super::marks::Marks;
use super::{RestoredSection, SectionKind, Writer};
use crate::key::Key;
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};

pub use hashbrown::Equivalent;

/// The hash of state tables. Fixed, so that a run can be repeated; it differs from the hash that spreads keys over workers.
pub type TableHasher = foldhash::fast::FixedState;

/// A table with more entries than this is divided into shards and copied step by step.
pub(crate) const SMALL_ENTRIES_MAX: usize = 1024;

/// Shards of a large table. Its growth takes one shard at a time; a step of copying ends anywhere in one.
pub(crate) const SHARDS: usize = 128;

/// So many keys are looked at ahead where a batch of them is at hand, to fetch what they will need; see [`Table::fetch`].
pub(crate) const FETCHED_AHEAD: usize = 32;

/// What a look ahead has found out about a key, so that the access need not: its hash, and where its entry may stand. Any table
/// may be asked with it, also one that has changed since: whether the entry is there is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    hash: u64,
    bucket: usize,
}

/// What is known ahead of the keys of a batch, in their order: the hashes of all, and where the entries of the next few may
/// stand. Hashes need the keys at hand, places only the hashes, so a batch may be used up while they are found.
#[derive(Default)]
pub(crate) struct Ahead {
    hashes: Vec<u64>,
    buckets: [usize; FETCHED_AHEAD],
    next: usize,
}

impl Ahead {
    /// Nothing is known.
    pub fn clear(&mut self) {
        self.hashes.clear();
    }
}

/// Nothing is known of where an entry stands.
const NOWHERE: usize = usize::MAX;

/// A table from key to value.
pub struct Table<K, V> {
    /// One shard while the table is small, else `SHARDS`.
    shards: Vec<Shard<K, V>>,
    len: usize,
    chain: Chain,
    copying: Option<Box<Copying>>,
    /// How far the shard that is copied now has been walked: the next bucket, and how often entries had moved by then.
    walk: (usize, u32),
    /// The shard to be swept next, and for how many entries that has been paid.
    sweep: (usize, usize),
}

struct Shard<K, V> {
    entries: HashTable<Held<K, V>>,
    marks: Marks,
}

/// An entry with its stamp beside it, so that knowing whether it has changed costs no fetch from memory of its own.
struct Held<K, V> {
    key: K,
    value: V,
    stamp: u32,
}

impl<K, V> Held<K, V> {
    fn into_entry(self) -> (K, V) {
        (self.key, self.value)
    }
}

impl<K, V> Shard<K, V> {
    fn with_capacity(capacity: usize) -> Self {
        Shard { marks: Marks::default(), entries: HashTable::with_capacity(capacity) }
    }
}

/// What a table has for a key.
pub enum Entry<'a, K, V> {
    /// Its value, to be changed.
    Held(&'a mut V),
    /// A place for one.
    Free(Free<'a, K, V>),
}

/// The place for a value that is not there yet.
pub struct Free<'a, K, V> {
    entries: &'a mut HashTable<Held<K, V>>,
    marks: &'a mut Marks,
    /// Of the table.
    len: &'a mut usize,
    hash: u64,
    key: K,
}

impl<'a, K: Key, V> Free<'a, K, V> {
    /// Puts a value there.
    #[inline]
    pub fn insert(self, value: V) -> &'a mut V {
        *self.len += 1;
        insert_new(self.entries, self.marks, self.hash, (self.key, value))
    }
}

/// Puts an entry in that is not there yet.
fn insert_new<'a, K: Key, V>(
    entries: &'a mut HashTable<Held<K, V>>,
    marks: &mut Marks,
    hash: u64,
    (key, value): (K, V),
) -> &'a mut V {
    if entries.len() == entries.capacity() {
        grow(entries, marks);
    }
    let held = Held { stamp: marks.stamp(), key, value };
    let place = entries.insert_unique(hash, held, |held| self::hash(&held.key));
    marks.replace(place.bucket_index(), true);
    &mut place.into_mut().value
}

/// Makes room. Entries move to other buckets, and their marks go with them.
#[cold]
fn grow<K: Key, V>(entries: &mut HashTable<Held<K, V>>, marks: &mut Marks) {
    let mut old = std::mem::replace(entries, HashTable::with_capacity((2 * entries.len()).max(4)));
    let new_marks = Marks::behind(entries, marks);
    let old_marks = std::mem::replace(marks, new_marks);
    for bucket in old.iter_buckets().collect::<Vec<usize>>() {
        let Ok(held) = old.get_bucket_entry(bucket) else { continue };
        let (held, _) = held.remove();
        let place = entries.insert_unique(hash(&held.key), held, |held| self::hash(&held.key));
        marks.moved(place.bucket_index(), bucket, &old_marks);
    }
}

#[inline]
fn hash<Q: Hash + ?Sized>(key: &Q) -> u64 {
    TableHasher::default().hash_one(key)
}

/// The bits that choose a shard are neither those that choose a place in it nor those hashbrown keeps beside it.
#[inline]
fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 32) as usize & (shards - 1)
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table {
            shards: vec![Shard::with_capacity(0)],
            len: 0,
            chain: Chain::default(),
            copying: None,
            walk: (0, 0),
            sweep: (0, 0),
        }
    }
}

impl<K: Key, V: Data> Table<K, V> {
    /// A table that will hold about this many entries. It begins smaller: most accesses come before the last entries do,
    /// and cost less in a dense table.
    pub fn with_capacity(entries: usize) -> Self {
        let mut table = Table::default();
        if entries > SMALL_ENTRIES_MAX {
            let each = entries / SHARDS * 3 / 4;
            table.shards = (0..SHARDS).map(|_| Shard::with_capacity(each)).collect();
        }
        table
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is copied step by step; a small one is written whole with each snapshot.
    pub fn is_large(&self) -> bool {
        self.shards.len() > 1
    }

    /// Fetches the entries of keys from memory side by side, so that the accesses that follow need not wait for one after
    /// the other. For `FETCHED_AHEAD` keys at most. A small table is near the processor anyway.
    #[inline]
    pub fn fetch<Q: Hash + Equivalent<K> + ?Sized, B: Borrow<Q>>(&self, keys: impl Iterator<Item = B>) {
        if !self.is_large() {
            return;
        }
        let keys: SmallVec<[B; FETCHED_AHEAD]> = keys.collect();
        let hashes: SmallVec<[u64; FETCHED_AHEAD]> = keys.iter().map(|key| hash::<Q>(key.borrow())).collect();
        let mut buckets = [NOWHERE; FETCHED_AHEAD];
        self.find_places(&hashes, &mut buckets);
        // The key stands at one end of a large entry and the stamp at the other.
        let ends = hashes.iter().zip(buckets).zip(&keys).map(|((hash, bucket), key)| {
            let held = self.at_place(*hash, bucket);
            held.map_or(0, |held| held.stamp.wrapping_add(u32::from(key.borrow().equivalent(&held.key))))
        });
        std::hint::black_box(ends.fold(0, u32::wrapping_add));
    }

    /// Begins to do the same for the keys of a batch, and keeps what is seen for the accesses, which come in the same order:
    /// less work where entries are near and keys are long. Where entries are far, noting the places costs more than it saves.
    #[inline]
    pub(crate) fn look_ahead<Q: Hash + ?Sized, B: Borrow<Q>>(&self, ahead: &mut Ahead, keys: impl Iterator<Item = B>) {
        ahead.hashes.clear();
        ahead.next = 0;
        if self.is_large() {
            ahead.hashes.extend(keys.map(|key| hash::<Q>(key.borrow())));
        }
    }

    /// What is known of the next key.
    #[inline]
    fn next_seen(&self, ahead: &mut Ahead) -> Option<Seen> {
        let hash = *ahead.hashes.get(ahead.next)?;
        let place = ahead.next % FETCHED_AHEAD;
        if place == 0 {
            let hashes = &ahead.hashes[ahead.next..];
            let hashes = &hashes[..hashes.len().min(FETCHED_AHEAD)];
            self.find_places(hashes, &mut ahead.buckets);
            let held = hashes.iter().zip(ahead.buckets).map(|(hash, bucket)| self.at_place(*hash, bucket));
            std::hint::black_box(held.map(|held| held.map_or(0, |held| held.stamp)).fold(0, u32::wrapping_add));
        }
        ahead.next += 1;
        Some(Seen { hash, bucket: ahead.buckets[place] })
    }

    /// Finds where entries may stand by their hashes and does not look at them, so that with next to nothing between them most
    /// of the fetches that follow are under way at once.
    #[inline]
    fn find_places(&self, hashes: &[u64], buckets: &mut [usize]) {
        for (hash, bucket) in hashes.iter().zip(buckets) {
            let entries = &self.shards[shard_of(*hash, self.shards.len())].entries;
            // The first that may be it. Whether it is would have to wait for what is fetched.
            *bucket = entries.find_bucket_index(*hash, |_| true).unwrap_or(NOWHERE);
        }
    }

    /// The entry at a place that was found.
    #[inline]
    fn at_place(&self, hash: u64, bucket: usize) -> Option<&Held<K, V>> {
        self.shards[shard_of(hash, self.shards.len())].entries.get_bucket(bucket)
    }

    /// The value of a key.
    #[inline]
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        let hash = hash(key);
        let shard = &self.shards[shard_of(hash, self.shards.len())];
        shard.entries.find(hash, |held| key.equivalent(&held.key)).map(|held| &held.value)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed.
    #[inline]
    pub fn get_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let hash = hash(key);
        let at = shard_of(hash, self.shards.len());
        let Shard { entries, marks } = &mut self.shards[at];
        let found = entries.find_entry(hash, |held| key.equivalent(&held.key)).ok()?;
        let bucket = found.bucket_index();
        Some(change(&mut self.copying, at, marks, bucket, found.into_mut()))
    }

    /// The value of a key, to be changed; made by `make` if there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        self.get_or_insert_found::<K, _>(key, K::clone, make)
    }

    /// The value of a key that is at hand anyway, to be changed; made by `make` if there is none.
    #[inline]
    pub fn get_or_insert_owned(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.get_or_insert_found::<K, _>(key, |key| key, make)
    }

    /// The value of a key that is at hand as `found`, perhaps inside a record, to be changed; `own` makes a key of it and
    /// `make` a value if there is none.
    #[inline]
    pub fn get_or_insert_found<Q, F>(&mut self, found: F, own: impl FnOnce(F) -> K, make: impl FnOnce() -> V) -> &mut V
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        let hash = hash::<Q>(found.borrow());
        self.get_or_insert_hashed::<Q, F>(hash, found, own, make)
    }

    /// The same for the next of the keys that were looked at ahead.
    #[inline]
    pub(crate) fn get_or_insert_seen<Q, F>(
        &mut self,
        ahead: &mut Ahead,
        found: F,
        own: impl FnOnce(F) -> K,
        make: impl FnOnce() -> V,
    ) -> &mut V
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        let Some(Seen { hash, bucket }) = self.next_seen(ahead) else {
            return self.get_or_insert_found::<Q, F>(found, own, make);
        };
        let at = shard_of(hash, self.shards.len());
        let is_there = |held: &Held<K, V>| Borrow::<Q>::borrow(&found).equivalent(&held.key);
        if self.shards[at].entries.get_bucket(bucket).is_some_and(is_there) {
            let Shard { entries, marks } = &mut self.shards[at];
            let Some(held) = entries.get_bucket_mut(bucket) else { unreachable!("it was there") };
            return change(&mut self.copying, at, marks, bucket, held);
        }
        self.get_or_insert_hashed::<Q, F>(hash, found, own, make)
    }

    #[inline]
    fn get_or_insert_hashed<Q, F>(
        &mut self,
        hash: u64,
        found: F,
        own: impl FnOnce(F) -> K,
        make: impl FnOnce() -> V,
    ) -> &mut V
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        match self.entry_hashed::<Q, F>(hash, found, own) {
            Entry::Held(value) => value,
            Entry::Free(free) => free.insert(make()),
        }
    }

    /// The value of a key that is at hand as `found`, perhaps inside a record, to be changed, or the place for one; `own` makes a
    /// key of it if there is none. Who has the first value whole before it is put there spares waiting for far memory.
    #[inline]
    pub fn entry<Q, F>(&mut self, found: F, own: impl FnOnce(F) -> K) -> Entry<'_, K, V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        let hash = hash::<Q>(found.borrow());
        self.entry_hashed::<Q, F>(hash, found, own)
    }

    #[inline]
    fn entry_hashed<Q, F>(&mut self, hash: u64, found: F, own: impl FnOnce(F) -> K) -> Entry<'_, K, V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        if self.len >= SMALL_ENTRIES_MAX && self.shards.len() == 1 {
            self.divide();
        }
        let at = shard_of(hash, self.shards.len());
        let Shard { entries, marks } = &mut self.shards[at];
        match entries.find_entry(hash, |held| Borrow::<Q>::borrow(&found).equivalent(&held.key)) {
            Ok(held) => {
                let bucket = held.bucket_index();
                Entry::Held(change(&mut self.copying, at, marks, bucket, held.into_mut()))
            }
            Err(absent) => {
                let key = own(found);
                Entry::Free(Free { entries: absent.into_table(), marks, len: &mut self.len, hash, key })
            }
        }
    }

    /// Sets a key's value and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let mut new = Some(value);
        let held = self.get_or_insert_owned(key, || new.take().unwrap_or_else(|| unreachable!("taken once")));
        new.map(|value| std::mem::replace(held, value))
    }

    /// Removes a key and returns its value.
    pub fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let hash = hash(key);
        let at = shard_of(hash, self.shards.len());
        let shards = self.shards.len();
        let Shard { entries, marks } = &mut self.shards[at];
        let mut found = entries.find_entry(hash, |held| key.equivalent(&held.key)).ok()?;
        let bucket = found.bucket_index();
        change(&mut self.copying, at, marks, bucket, found.get_mut());
        marks.replace(bucket, false);
        self.len -= 1;
        let (Held { key, value, .. }, _) = found.remove();
        self.chain.removed(at, shards, &key, self.len);
        Some(value)
    }

    /// Removes entries of which `gone` says so, a little with each call: one that looks at `entries` entries on average.
    pub fn sweep(&mut self, entries: usize, gone: impl Fn(&V) -> bool) {
        let (at, paid) = (self.sweep.0 % self.shards.len(), self.sweep.1 + entries);
        let shard = &self.shards[at];
        if paid < shard.entries.len() {
            self.sweep = (at, paid);
            return;
        }
        let expired = shard.entries.iter().filter(|held| gone(&held.value)).map(|held| held.key.clone());
        let expired: Vec<K> = expired.collect();
        expired.iter().for_each(|key| drop(self.remove(key)));
        self.sweep = (at + 1, 0);
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.entries.iter()).map(|held| (&held.key, &held.value))
    }

    /// Changes every entry, in no particular order.
    pub fn for_each_mut<E>(&mut self, mut each: impl FnMut(&K, &mut V) -> Result<(), E>) -> Result<(), E> {
        for (at, Shard { entries, marks }) in self.shards.iter_mut().enumerate() {
            for bucket in entries.iter_buckets().collect::<Vec<usize>>() {
                let Some(held) = entries.get_bucket_mut(bucket) else { continue };
                change(&mut self.copying, at, marks, bucket, held);
                each(&held.key, &mut held.value)?;
            }
        }
        Ok(())
    }

    /// The entries themselves. The table must not be in the middle of a copy.
    pub fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        debug_assert!(self.copying.is_none(), "the copy of this table would be lost");
        self.shards.into_iter().flat_map(|shard| shard.entries).map(Held::into_entry)
    }

    /// Takes all entries out and keeps the memory for others. The table must not be in the middle of a copy.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.begin_anew().flat_map(HashTable::drain).map(Held::into_entry)
    }

    /// Drops all entries and keeps the memory for others. The table must not be in the middle of a copy.
    pub fn clear(&mut self) {
        self.begin_anew().for_each(HashTable::clear);
    }

    /// All is as in a new table, but for the entries.
    fn begin_anew(&mut self) -> impl Iterator<Item = &mut HashTable<Held<K, V>>> {
        debug_assert!(self.copying.is_none(), "the copy of this table would be lost");
        (self.len, self.chain, self.walk, self.sweep) = (0, Chain::default(), (0, 0), (0, 0));
        self.shards.iter_mut().map(|shard| {
            shard.marks = Marks::default();
            &mut shard.entries
        })
    }

    /// Whether most of its memory stood empty when it held so many entries.
    pub fn is_wide_for(&self, entries: usize) -> bool {
        entries < self.shards.iter().map(|shard| shard.entries.capacity()).sum::<usize>() / 4
    }

    /// A small table becomes a large one. Small tables are never in the middle of a copy.
    #[cold]
    fn divide(&mut self) {
        let each = 2 * SMALL_ENTRIES_MAX / SHARDS;
        let mut shards: Vec<Shard<K, V>> = (0..SHARDS).map(|_| Shard::with_capacity(each)).collect();
        for held in self.shards.drain(..).flat_map(|shard| shard.entries) {
            let hash = hash(&held.key);
            let Shard { entries, marks } = &mut shards[shard_of(hash, SHARDS)];
            insert_new(entries, marks, hash, held.into_entry());
        }
        self.shards = shards;
    }

    /// Marks the state of this moment under `name`. A small table is written at once; a large one by [`Table::copy_some`].
    pub fn begin_snapshot(&mut self, name: &str, parts: &mut SnapshotParts) -> Result<()> {
        if parts.mode == SnapshotMode::Nothing {
            return Ok(());
        }
        if !self.is_large() {
            self.chain = Chain::default();
            if self.len > 0 {
                let mut writer = Writer::new(name, SectionKind::Keyed);
                self.write_all(&mut writer)?;
                parts.sections.push(writer.finish());
            }
            return Ok(());
        }
        debug_assert!(self.copying.is_none(), "a copy is taken to its end before the next begins");
        let changed = self.shards.iter_mut().map(|shard| (shard.marks.moment(&shard.entries), shard.entries.len()));
        let changed: Vec<(usize, usize)> = changed.collect();
        if parts.mode != SnapshotMode::Detached {
            parts.roster.push(name.to_string());
        }
        self.copying = Some(Box::new(self.chain.plan(name, &changed, parts)));
        Ok(())
    }

    /// Goes on with the copy until it is done or `run` has no room left. True when it is done.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        let Some(copying) = &mut self.copying else { return Ok(true) };
        let done = walk(copying, &mut self.shards, &mut self.walk, run);
        run.sections.append(&mut copying.take_ready());
        if done? && let Some(copying) = self.copying.take() {
            self.chain.copied(*copying);
        }
        Ok(self.copying.is_none())
    }

    /// Whether a copy is under way.
    pub fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Writes every entry.
    pub fn write_all(&self, writer: &mut Writer) -> Result<()> {
        writer.reserve(self.len * (size_of::<K>() + size_of::<V>()));
        self.iter().try_for_each(|entry| writer.entry(&entry))
    }

    /// Takes in sections of this table, in the order they were written, as far as `owns` says.
    pub fn load(&mut self, sections: &[RestoredSection], owns: impl Fn(&K) -> bool) -> Result<()> {
        for section in sections {
            let mut reader = section.reader()?;
            if section.removal {
                while let Some(key) = reader.entry::<K>()? {
                    if owns(&key) {
                        self.remove(&key);
                    }
                }
                continue;
            }
            while let Some((key, value)) = reader.entry::<(K, V)>()? {
                if owns(&key) {
                    self.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

/// What walking counts for besides what is written, in bytes: a shard, and a bucket that is looked at.
pub(crate) const SHARD_COST: usize = 512;
pub(crate) const BUCKET_COST: usize = 8;

/// Writes entries that have not changed since the moment, from where the walk had come to; whether it came to the end.
fn walk<K: Key, V: Data>(
    copying: &mut Copying,
    shards: &mut [Shard<K, V>],
    reached: &mut (usize, u32),
    run: &mut CopyRun,
) -> Result<bool> {
    while let Some(at) = copying.next_shard()? {
        let Shard { entries, marks } = &mut shards[at];
        let base = copying.is_base(at);
        // Entries that have moved may stand before the bucket that was reached. Those written twice do no harm.
        let (mut bucket, moves) = *reached;
        if moves != marks.moves() {
            bucket = 0;
        }
        loop {
            if !run.room() {
                *reached = (bucket, marks.moves());
                return Ok(false);
            }
            let next = if base { Some(bucket) } else { marks.next_only_before(bucket) };
            let Some(next) = next.filter(|next| *next < entries.num_buckets()) else { break };
            bucket = next + 1;
            run.spend(BUCKET_COST);
            if let Some(held) = entries.get_bucket(next).filter(|held| held.stamp != marks.stamp()) {
                run.spend(copying.write(at, &held.key, &held.value)?);
            }
        }
        if copying.is_chained() {
            marks.settle();
        }
        *reached = (0, 0);
        run.spend(SHARD_COST);
        copying.shard_done(at);
    }
    Ok(true)
}

/// The value of an entry, which is about to change or to go.
#[inline]
fn change<'a, K: Key, V: Data>(
    copying: &mut Option<Box<Copying>>,
    at: usize,
    marks: &mut Marks,
    bucket: usize,
    held: &'a mut Held<K, V>,
) -> &'a mut V {
    if held.stamp != marks.stamp() {
        change_first(copying, at, marks, bucket, held);
    }
    &mut held.value
}

/// Its first change since the last moment.
#[cold]
#[inline(never)]
fn change_first<K: Key, V: Data>(
    copying: &mut Option<Box<Copying>>,
    at: usize,
    marks: &mut Marks,
    bucket: usize,
    held: &mut Held<K, V>,
) {
    if let Some(copying) = copying {
        copying.capture(at, marks.is_before(bucket), &held.key, &held.value);
    }
    marks.change(bucket);
    held.stamp = marks.stamp();
}

impl<K: Key, V: Data> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut table = Table::default();
        for (key, value) in entries {
            table.insert(key, value);
        }
        table
    }
}

#[cfg(test)]
#[path = "tests/table.rs"]
pub(crate) mod tests;
