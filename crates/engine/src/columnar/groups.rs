//! A table of groups: for each key the words of its aggregations. Batches are added to it column by column.
//!
//! ```text
//! tag ── shard ── slots: | empty | tag · mark | key words | part words | tag · mark | key words | … | empty |
//!                                  ▲ where the tag points to: the group, or one of those behind it
//! ```
//!
//! All that is needed to find a group, to know whether a snapshot must be told of its change, and to add to it stands in
//! one slot: adding to a group of a large table costs what it costs to fetch it from memory. And a batch goes over the
//! table in turns, the slots of all its rows first, then each part of all of them; so most of the waiting for memory is
//! done for many rows at once. Only the bytes of texts in keys stand elsewhere.
//!
//! A large table is divided into shards: it grows one at a time, and a snapshot copies one after the other while records
//! go on changing them, as the tables of the typed lane do (`state/table.rs`), and by the same chains (`state/chain.rs`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tidemill_core::{Error, Result};

use super::aggregate::Layout;
use super::changes::Changes;
use super::key_columns::{KeyBatch, KeyRef, KeyShape, KeyWords, nth, text_bytes, text_word};
use super::parts::{Kept, Merge, PartColumn};
use super::row_key::RowKey;
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};
use crate::state::{BUCKET_COST, Chain, Copying, SHARD_COST, SHARDS, SMALL_ENTRIES_MAX, Writer};

/// Slots of a shard without groups.
const SLOTS_MIN: usize = 16;

/// What walking counts for a slot that is looked at, in bytes.
const SLOT_COST: usize = 1;

/// What stands in a table: keys, then parts.
pub(super) struct Shape {
    pub keys: KeyShape,
    pub layout: Layout,
    /// Words of a slot: a header, then those of the group.
    stride: usize,
}

impl Shape {
    pub fn new(keys: KeyShape, layout: Layout) -> Self {
        let stride = 1 + keys.words() + layout.nothing().len();
        Shape { keys, layout, stride }
    }
}

/// The parts of a group in state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words(SmallVec<[u64; 3]>);

/// The rows of a batch that are added.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// All; so many.
    All(usize),
    /// Those of these numbers.
    Some(&'a [u32]),
}

/// A group of a table.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    pub key: &'a [u64],
    pub parts: &'a [u64],
    /// The bytes of the texts in the key.
    pub texts: &'a [u8],
}

impl Group<'_> {
    /// How many rows the group holds, those taken back subtracted.
    pub fn rows(&self) -> i64 {
        self.parts.first().map_or(0, |rows| *rows as i64)
    }
}

/// Where a group stands.
#[derive(Clone, Copy)]
struct Place {
    shard: u32,
    /// The first word of its slot.
    at: u32,
}

pub(super) struct Groups {
    shape: Arc<Shape>,
    /// One while the table is small, else `SHARDS`.
    shards: Vec<Shard>,
    len: usize,
    /// It becomes large when it has more groups than a small table.
    divides: bool,
    chain: Chain,
    copying: Option<Box<Copying>>,
    /// How far the shard that is copied now has been walked: the next slot, and how many there were by then.
    walked: (usize, usize),
    /// Of each row of the batch under way: where its group stands.
    places: Vec<Place>,
}

/// The shard of a tag; the places in it are chosen by other bits.
#[inline]
fn shard_of(tag: u32, shards: usize) -> usize {
    ((u64::from(tag) * shards as u64) >> 32) as usize
}

/// What stands in front of a group: its tag, and when it changed last. An empty slot has 0.
#[inline]
fn header(tag: u32, mark: u32) -> u64 {
    (u64::from(tag) << 32) | u64::from(mark)
}

#[inline]
fn tag_of(header: u64) -> u32 {
    (header >> 32) as u32
}

/// The number of the moment behind which a group changed last.
#[inline]
fn mark_of(header: u64) -> u32 {
    header as u32
}

struct Shard {
    /// Slots, a power of two of them, at most three of four in use.
    words: Vec<u64>,
    /// One less than there are slots.
    mask: usize,
    texts: Vec<u8>,
    len: usize,
    changes: Changes,
}

impl Shard {
    fn new(shape: &Shape) -> Self {
        Shard {
            words: vec![0; SLOTS_MIN * shape.stride],
            mask: SLOTS_MIN - 1,
            texts: Vec::new(),
            len: 0,
            changes: Changes::default(),
        }
    }

    /// The first word of the slot where a key with this tag is looked for first. It is the first of a pair: most keys that
    /// do not stand there stand in the second, which is mostly fetched with it.
    #[inline]
    fn first(&self, shape: &Shape, tag: u32) -> usize {
        (tag as usize & self.mask & !1) * shape.stride
    }

    /// The slot of that pair in which a key with this tag stands if it stands in one of them.
    #[inline]
    fn likely(&self, shape: &Shape, tag: u32) -> usize {
        let first = self.first(shape, tag);
        // Not a branch: nobody could foretell it.
        first + shape.stride * usize::from(tag_of(self.words[first]) != tag)
    }

    /// The first word of the slot behind another one.
    #[inline]
    fn behind(&self, shape: &Shape, at: usize) -> usize {
        let next = at + shape.stride;
        if next < self.words.len() { next } else { 0 }
    }

    /// Whether a slot holds this key.
    // Most of what is done for a row; a call would be a part of it.
    #[inline(always)]
    fn holds(&self, shape: &Shape, at: usize, tag: u32, key: KeyRef<'_>) -> bool {
        let slot = &self.words[at..at + 1 + key.words.len()];
        // An empty slot seems to have the tag 0.
        tag_of(slot[0]) == tag && slot[0] != 0 && shape.keys.same(key, &slot[1..], &self.texts)
    }

    /// The slot of a key, made if there is none.
    #[inline(never)]
    fn find_or_insert(&mut self, shape: &Shape, tag: u32, key: KeyRef<'_>) -> Result<usize> {
        let mut at = self.first(shape, tag);
        while self.words[at] != 0 {
            if self.holds(shape, at, tag, key) {
                return Ok(at);
            }
            at = self.behind(shape, at);
        }
        self.insert(shape, tag, key, shape.layout.nothing())
    }

    /// Puts a group in that is not there yet.
    fn insert(&mut self, shape: &Shape, tag: u32, key: KeyRef<'_>, parts: &[u64]) -> Result<usize> {
        let text: usize = shape.keys.texts().iter().map(|word| key.words[*word] as u32 as usize).sum();
        let is_full = (self.len + 1) * 4 > (self.mask + 1) * 3;
        let words = if is_full { 2 * self.words.len() } else { self.words.len() };
        if words.max(self.texts.len() + text) > u32::MAX as usize {
            return Err(Error::input("the keys of one window are too many or too long to be held here")
                .hint("raise the parallelism, or make the window shorter"));
        }
        if is_full {
            self.grow(shape);
        }
        let at = self.free(shape, tag);
        let (own, rest) = self.words[at..at + shape.stride].split_at_mut(1 + key.words.len());
        own[0] = header(tag, self.changes.added());
        own[1..].copy_from_slice(key.words);
        rest.copy_from_slice(parts);
        for (word, texts) in shape.keys.texts().iter().zip(key.texts) {
            let bytes = text_bytes(key.words[*word], texts);
            own[1 + word] = text_word(self.texts.len() as u32, bytes.len() as u32);
            self.texts.extend_from_slice(bytes);
        }
        self.len += 1;
        Ok(at)
    }

    /// The slot for a key that is not there.
    fn free(&self, shape: &Shape, tag: u32) -> usize {
        let mut at = self.first(shape, tag);
        while self.words[at] != 0 {
            at = self.behind(shape, at);
        }
        at
    }

    #[cold]
    fn grow(&mut self, shape: &Shape) {
        let wider = vec![0; self.words.len() * 2];
        let old = std::mem::replace(&mut self.words, wider);
        self.mask = 2 * self.mask + 1;
        for slot in old.chunks_exact(shape.stride).filter(|slot| slot[0] != 0) {
            let at = self.free(shape, tag_of(slot[0]));
            self.words[at..at + shape.stride].copy_from_slice(slot);
        }
    }

    /// The headers in use, and their groups.
    fn groups(&self, shape: &Shape) -> impl Iterator<Item = (u64, Group<'_>)> {
        let width = shape.keys.words();
        let held = self.words.chunks_exact(shape.stride).filter(|slot| slot[0] != 0);
        held.map(move |slot| {
            let (key, parts) = slot[1..].split_at(width);
            (slot[0], Group { key, parts, texts: &self.texts })
        })
    }

    /// The group in a slot.
    fn group(&self, shape: &Shape, at: usize) -> Group<'_> {
        let (key, parts) = self.words[at + 1..at + shape.stride].split_at(shape.keys.words());
        Group { key, parts, texts: &self.texts }
    }

    fn clear(&mut self) {
        self.words.fill(0);
        self.texts.clear();
        (self.len, self.changes) = (0, Changes::default());
    }
}

impl Groups {
    /// A table that is copied in steps when it is large.
    pub fn new(shape: Arc<Shape>) -> Self {
        Groups {
            shards: vec![Shard::new(&shape)],
            shape,
            len: 0,
            divides: true,
            chain: Chain::default(),
            copying: None,
            walked: (0, 0),
            places: Vec::new(),
        }
    }

    /// A table that is emptied before it is large, and never copied.
    pub fn bounded(shape: Arc<Shape>) -> Self {
        Groups { divides: false, ..Groups::new(shape) }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of texts in keys.
    pub fn text_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.texts.len()).sum()
    }

    /// Whether it is copied step by step; a small one is written whole with each snapshot.
    pub fn is_large(&self) -> bool {
        self.shards.len() > 1
    }

    /// Whether a copy is under way.
    pub fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Whether most of its memory stands empty.
    pub fn is_wide(&self) -> bool {
        self.len < self.shards.iter().map(|shard| shard.mask + 1).sum::<usize>() / 8
    }

    /// No groups are left; the memory stays for others.
    pub fn clear(&mut self) {
        self.shards.iter_mut().for_each(Shard::clear);
        (self.len, self.chain, self.copying, self.walked) = (0, Chain::default(), None, (0, 0));
    }

    /// All groups, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Group<'_>> {
        let shape = &*self.shape;
        self.shards.iter().flat_map(move |shard| shard.groups(shape).map(|(_, group)| group))
    }

    /// Adds rows of a batch: their keys, and the parts of each, which `Layout::columns` or `Layout::read` made.
    pub fn add(&mut self, keys: &KeyBatch, parts: &[PartColumn], rows: Rows<'_>) -> Result<()> {
        match rows {
            Rows::All(count) => self.add_rows(keys, parts, 0..count),
            Rows::Some(rows) => self.add_rows(keys, parts, rows.iter().map(|row| *row as usize)),
        }
    }

    fn add_rows(
        &mut self,
        keys: &KeyBatch,
        parts: &[PartColumn],
        rows: impl Iterator<Item = usize> + Clone,
    ) -> Result<()> {
        self.find(keys, rows.clone())?;
        let shape = self.shape.clone();
        let first = 1 + shape.keys.words();
        for (part, (merge, at)) in parts.iter().zip(shape.layout.merges()) {
            let at = first + at;
            match part {
                PartColumn::Whole(values) => self.merge_part::<i64>(at, values.values(), merge, rows.clone()),
                PartColumn::Float(values) => self.merge_part::<f64>(at, values.values(), merge, rows.clone()),
                PartColumn::Decimal(values) => self.merge_part::<i128>(at, values.values(), merge, rows.clone()),
            }
        }
        Ok(())
    }

    /// The places of the groups of these rows.
    fn find(&mut self, keys: &KeyBatch, rows: impl Iterator<Item = usize> + Clone) -> Result<()> {
        self.divide_if_full()?;
        let texts = keys.texts();
        let (width, shards) = (self.shape.keys.words(), self.shards.len());
        let Groups { shape, shards: all, places, copying, .. } = self;
        if shards > 1 {
            // A loop that does little but read: the processor waits for many rows at once.
            let read = rows.clone().fold(0, |read, row| {
                let shard = &all[shard_of(keys.tags[row], shards)];
                read ^ shard.words[shard.first(shape, keys.tags[row])]
            });
            std::hint::black_box(read);
        }
        places.clear();
        let (mut made, mut moved) = (0, false);
        for row in rows.clone() {
            let (tag, key) = (keys.tags[row], KeyRef { words: &keys.words[nth(row, width)], texts: &texts });
            let number = shard_of(tag, shards);
            let shard = &mut all[number];
            let mut at = shard.likely(shape, tag);
            if !shard.holds(shape, at, tag, key) {
                let (before, mask) = (shard.len, shard.mask);
                at = shard.find_or_insert(shape, tag, key)?;
                made += shard.len - before;
                moved |= shard.mask != mask;
            }
            let place = Place { shard: number as u32, at: at as u32 };
            if !shard.changes.is_now(mark_of(shard.words[at])) {
                before_change(shape, shard, copying, place);
            }
            places.push(place);
        }
        self.len += made;
        // Groups of rows before may stand elsewhere now. None is made this time.
        if moved { self.find(keys, rows) } else { Ok(()) }
    }

    /// Merges the numbers of a part into the groups that `find` has found.
    fn merge_part<V: Kept>(
        &mut self,
        at: usize,
        values: &[V],
        merge: Merge,
        rows: impl Iterator<Item = usize> + Clone,
    ) {
        // A loop for each, in which the merge is known.
        match merge {
            Merge::Sum => self.merge_values(at, values, rows, |held, value| held.merge(value, Merge::Sum)),
            Merge::Min => self.merge_values(at, values, rows, |held, value| held.merge(value, Merge::Min)),
            Merge::Max => self.merge_values(at, values, rows, |held, value| held.merge(value, Merge::Max)),
        }
    }

    #[inline]
    fn merge_values<V: Kept>(
        &mut self,
        at: usize,
        values: &[V],
        rows: impl Iterator<Item = usize>,
        merge: impl Fn(V, V) -> V,
    ) {
        let put = |words: &mut [u64], value: V| merge(V::of(words), value).put(words);
        let (places, all) = (self.places.iter(), &mut self.shards);
        if let [shard] = all.as_mut_slice() {
            for (place, row) in places.zip(rows) {
                let begin = place.at as usize + at;
                put(&mut shard.words[begin..begin + V::WORDS], values[row]);
            }
            return;
        }
        for (place, row) in places.zip(rows) {
            let begin = place.at as usize + at;
            put(&mut all[place.shard as usize].words[begin..begin + V::WORDS], values[row]);
        }
    }

    /// Merges all groups of another table of the same shape.
    pub fn absorb(&mut self, other: &Groups) -> Result<()> {
        let shape = self.shape.clone();
        for (header, group) in other.shards.iter().flat_map(|shard| shard.groups(&shape)) {
            let texts = vec![group.texts; shape.keys.texts().len()];
            let held = self.entry(tag_of(header), KeyRef { words: group.key, texts: &texts })?;
            shape.layout.merge(held, group.parts);
        }
        Ok(())
    }

    /// The parts of a key, made if there are none, to be changed.
    fn entry(&mut self, tag: u32, key: KeyRef<'_>) -> Result<&mut [u64]> {
        self.divide_if_full()?;
        let number = shard_of(tag, self.shards.len());
        let shard = &mut self.shards[number];
        let before = shard.len;
        let at = shard.find_or_insert(&self.shape, tag, key)?;
        self.len += shard.len - before;
        if !shard.changes.is_now(mark_of(shard.words[at])) {
            before_change(&self.shape, shard, &mut self.copying, Place { shard: number as u32, at: at as u32 });
        }
        Ok(&mut shard.words[at + 1 + key.words.len()..at + self.shape.stride])
    }

    /// Sets the parts of a key, as the state has both.
    pub fn set(&mut self, key: &RowKey, words: &Words) -> Result<()> {
        let shape = self.shape.clone();
        if words.0.len() != shape.layout.nothing().len() {
            return Err(Error::corrupt("a group in the state has not the parts it was saved with"));
        }
        let (mut key_words, mut bytes) = (KeyWords::new(), Vec::new());
        let tag = shape.keys.parse(key, &mut key_words, &mut bytes)?;
        let texts = vec![bytes.as_slice(); shape.keys.texts().len()];
        self.entry(tag, KeyRef { words: &key_words, texts: &texts })?.copy_from_slice(&words.0);
        Ok(())
    }

    /// A small table that is full becomes a large one. Small tables are never in the middle of a copy.
    #[inline]
    fn divide_if_full(&mut self) -> Result<()> {
        if self.divides && self.len >= SMALL_ENTRIES_MAX && self.shards.len() == 1 { self.divide() } else { Ok(()) }
    }

    #[cold]
    fn divide(&mut self) -> Result<()> {
        let shape = self.shape.clone();
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::new(&shape)).collect();
        for (header, group) in self.shards.iter().flat_map(|small| small.groups(&shape)) {
            let texts = vec![group.texts; shape.keys.texts().len()];
            let (tag, key) = (tag_of(header), KeyRef { words: group.key, texts: &texts });
            shards[shard_of(tag, SHARDS)].insert(&shape, tag, key, group.parts)?;
        }
        self.shards = shards;
        Ok(())
    }

    /// Marks the state of this moment of a large table under `name`; it is written by [`Groups::copy_some`].
    pub fn begin_snapshot(&mut self, name: &str, parts: &mut SnapshotParts) {
        debug_assert!(self.copying.is_none(), "a copy is taken to its end before the next begins");
        if parts.mode == SnapshotMode::Nothing {
            return;
        }
        let changed = self.shards.iter_mut().map(|shard| (shard.changes.moment(), shard.len));
        let changed: Vec<(usize, usize)> = changed.collect();
        if parts.mode != SnapshotMode::Detached {
            parts.roster.push(name.to_string());
        }
        self.walked = (0, 0);
        self.copying = Some(Box::new(self.chain.plan(name, &changed, parts)));
    }

    /// Goes on with the copy until it is done or `run` has no room left. True when it is done.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        let Some(mut copying) = self.copying.take() else { return Ok(true) };
        let done = self.walk(&mut copying, run);
        run.sections.append(&mut copying.take_ready());
        match done? {
            true => self.chain.copied(*copying),
            false => self.copying = Some(copying),
        }
        Ok(self.copying.is_none())
    }

    /// Writes groups that have not changed since the moment, from where the walk had come to; whether it came to the end.
    fn walk(&mut self, copying: &mut Copying, run: &mut CopyRun) -> Result<bool> {
        let shape = &*self.shape;
        while let Some(number) = copying.next_shard()? {
            let (shard, base) = (&mut self.shards[number], copying.is_base(number));
            let slots = shard.mask + 1;
            // In a shard that has grown, groups may stand before the slot that was reached. Those written twice do no harm.
            let (reached, of) = self.walked;
            for slot in if of == slots { reached } else { 0 }..slots {
                if !run.room() {
                    self.walked = (slot, slots);
                    return Ok(false);
                }
                run.spend(SLOT_COST);
                let at = slot * shape.stride;
                let mark = mark_of(shard.words[at]);
                let is_wanted = shard.changes.is_before(mark) || base && !shard.changes.is_now(mark);
                if is_wanted && shard.words[at] != 0 {
                    let (key, words) = saved(shape, &shard.group(shape, at));
                    run.spend(BUCKET_COST + copying.write(number, &key, &words)?);
                }
            }
            if copying.is_chained() {
                shard.changes.settle();
            }
            self.walked = (0, 0);
            run.spend(SHARD_COST);
            copying.shard_done(number);
        }
        Ok(true)
    }

    /// Writes every group of a small table, with the start of its slice.
    pub fn write_all(&self, start_ms: i64, writer: &mut Writer) -> Result<()> {
        self.iter().try_for_each(|group| {
            let (key, words) = saved(&self.shape, &group);
            writer.entry(&(key, start_ms, words))
        })
    }

    /// The key of a group as it stands in state.
    pub fn row_key(&self, group: &Group<'_>) -> RowKey {
        self.shape.keys.row_key(group.key, group.texts)
    }
}

/// A group is about to change, for the first time since the last snapshot's moment.
#[cold]
#[inline(never)]
fn before_change(shape: &Shape, shard: &mut Shard, copying: &mut Option<Box<Copying>>, place: Place) {
    let (number, at) = (place.shard as usize, place.at as usize);
    let held = shard.words[at];
    if let Some(copying) = copying {
        let (key, words) = saved(shape, &shard.group(shape, at));
        copying.capture(number, shard.changes.is_before(mark_of(held)), &key, &words);
    }
    shard.words[at] = header(tag_of(held), shard.changes.changed(mark_of(held)));
}

/// A group as it stands in state.
fn saved(shape: &Shape, group: &Group<'_>) -> (RowKey, Words) {
    (shape.keys.row_key(group.key, group.texts), Words(SmallVec::from_slice(group.parts)))
}

#[cfg(test)]
#[path = "tests/groups.rs"]
mod tests;
