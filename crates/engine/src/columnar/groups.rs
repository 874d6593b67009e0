//! A table of groups: for each key the words of its aggregations. Batches are added to it column by column.
//!
//! ```text
//! tag ── shard ── slots: … | tag · row + 1 | …     rows: | key words | part words | key words | …     texts: bytes
//! ```
//!
//! Keys and parts of a group stand side by side, one group behind the other, in the order in which they came: nothing has
//! memory of its own, and a group once made stays where it is until the whole table is cleared. A batch goes over the
//! table in turns, the groups of all its rows first, then each part of all of them; so most of the waiting for memory is
//! done for many rows at once.
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

/// What stands in a table: keys, then parts.
pub(super) struct Shape {
    pub keys: KeyShape,
    pub layout: Layout,
    /// Words of a group.
    stride: usize,
}

impl Shape {
    pub fn new(keys: KeyShape, layout: Layout) -> Self {
        let stride = keys.words() + layout.nothing().len();
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

/// Where the parts of a group begin.
#[derive(Clone, Copy)]
struct Place {
    shard: u32,
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
    /// How far the shard that is copied now has been walked.
    walked: usize,
    /// Of each row of the batch under way: the slot where its key is likely to stand, the first word of the key that names, and at last the
    /// place of its group.
    first_slots: Vec<u64>,
    first_words: Vec<u64>,
    places: Vec<Place>,
}

/// The shard of a tag; the places in it are chosen by other bits.
#[inline]
fn shard_of(tag: u32, shards: usize) -> usize {
    ((u64::from(tag) * shards as u64) >> 32) as usize
}

#[inline]
fn slot_of(tag: u32, slots: usize) -> usize {
    tag as usize & (slots - 1)
}

struct Shard {
    /// A power of two of them, at most three of four in use: a tag with the number of a row plus one, or 0.
    slots: Vec<u64>,
    rows: Vec<u64>,
    texts: Vec<u8>,
    len: usize,
    changes: Changes,
}

impl Default for Shard {
    fn default() -> Self {
        Shard { slots: vec![0; SLOTS_MIN], rows: Vec::new(), texts: Vec::new(), len: 0, changes: Changes::default() }
    }
}

/// Whether a slot is that of a key with this tag, or of another one with the same.
#[inline]
fn names(slot: u64, tag: u32) -> bool {
    slot != 0 && (slot >> 32) as u32 == tag
}

/// The row of a slot in use.
#[inline]
fn row_of(slot: u64) -> usize {
    (slot as u32).wrapping_sub(1) as usize
}

impl Shard {
    /// The slot where a key is most likely to stand: its first one, or the next.
    #[inline]
    fn likely(&self, tag: u32) -> u64 {
        let at = slot_of(tag, self.slots.len());
        match self.slots[at] {
            slot if slot == 0 || names(slot, tag) => slot,
            _ => self.slots[slot_of(at as u32 + 1, self.slots.len())],
        }
    }

    /// The row that a slot names, if it holds this key.
    // Most of what is done for a row; a call would be a part of it.
    #[inline(always)]
    fn held(&self, shape: &Shape, slot: u64, tag: u32, key: KeyRef<'_>) -> Option<usize> {
        if !names(slot, tag) {
            return None;
        }
        let row = row_of(slot);
        let begin = row * shape.stride;
        let held = &self.rows[begin..begin + key.words.len()];
        shape.keys.same(key, held, &self.texts).then_some(row)
    }

    /// The row of a key, made if there is none.
    #[inline(never)]
    fn find_or_insert(&mut self, shape: &Shape, tag: u32, key: KeyRef<'_>) -> Result<usize> {
        let mut at = slot_of(tag, self.slots.len());
        while self.slots[at] != 0 {
            if let Some(row) = self.held(shape, self.slots[at], tag, key) {
                return Ok(row);
            }
            at = slot_of(at as u32 + 1, self.slots.len());
        }
        self.insert(shape, tag, key, shape.layout.nothing())
    }

    /// Appends a group that is not there yet.
    fn insert(&mut self, shape: &Shape, tag: u32, key: KeyRef<'_>, parts: &[u64]) -> Result<usize> {
        let (row, begin) = (self.len, self.rows.len());
        let text: usize = shape.keys.texts().iter().map(|word| key.words[*word] as u32 as usize).sum();
        if (begin + shape.stride).max(self.texts.len() + text) >= u32::MAX as usize {
            return Err(Error::input("the keys of one window are too many or too long to be held here")
                .hint("raise the parallelism, or make the window shorter"));
        }
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.rows.extend_from_slice(key.words);
        for (word, texts) in shape.keys.texts().iter().zip(key.texts) {
            let bytes = text_bytes(key.words[*word], texts);
            self.rows[begin + word] = text_word(self.texts.len() as u32, bytes.len() as u32);
            self.texts.extend_from_slice(bytes);
        }
        self.rows.extend_from_slice(parts);
        self.take_slot((u64::from(tag) << 32) | (row as u64 + 1));
        self.len += 1;
        Ok(row)
    }

    fn take_slot(&mut self, slot: u64) {
        let mut at = slot_of((slot >> 32) as u32, self.slots.len());
        while self.slots[at] != 0 {
            at = slot_of(at as u32 + 1, self.slots.len());
        }
        self.slots[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2];
        old.into_iter().filter(|slot| *slot != 0).for_each(|slot| self.take_slot(slot));
    }

    fn group(&self, shape: &Shape, row: usize) -> Group<'_> {
        let (key, parts) = self.rows[nth(row, shape.stride)].split_at(shape.keys.words());
        Group { key, parts, texts: &self.texts }
    }

    fn clear(&mut self) {
        self.slots.fill(0);
        self.rows.clear();
        self.texts.clear();
        (self.len, self.changes) = (0, Changes::default());
    }
}

impl Groups {
    /// A table that is copied in steps when it is large.
    pub fn new(shape: Arc<Shape>) -> Self {
        Groups {
            shape,
            shards: vec![Shard::default()],
            len: 0,
            divides: true,
            chain: Chain::default(),
            copying: None,
            walked: 0,
            first_slots: Vec::new(),
            first_words: Vec::new(),
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
        self.len < self.shards.iter().map(|shard| shard.slots.len()).sum::<usize>() / 8
    }

    /// No groups are left; the memory stays for others.
    pub fn clear(&mut self) {
        self.shards.iter_mut().for_each(Shard::clear);
        (self.len, self.chain, self.copying, self.walked) = (0, Chain::default(), None, 0);
    }

    /// All groups, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Group<'_>> {
        let shape = &*self.shape;
        self.shards.iter().flat_map(move |shard| (0..shard.len).map(move |row| shard.group(shape, row)))
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
        for (part, (merge, at)) in parts.iter().zip(shape.layout.merges()) {
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
        let (width, stride, shards) = (self.shape.keys.words(), self.shape.stride, self.shards.len());
        let Groups { shape, shards: all, first_slots, first_words, places, copying, .. } = self;
        let is_large = shards > 1;
        if is_large {
            // Loops that do little but read: the processor waits for many rows at once.
            let of = |row: usize| &all[shard_of(keys.tags[row], shards)];
            first_slots.clear();
            first_slots.extend(rows.clone().map(|row| of(row).likely(keys.tags[row])));
            first_words.clear();
            first_words.extend(rows.clone().zip(first_slots.iter()).map(|(row, slot)| {
                let begin = row_of(*slot) * stride;
                of(row).rows.get(begin).copied().unwrap_or_default()
            }));
        }
        places.clear();
        let read_ahead = is_large && shape.keys.is_one_word();
        let (mut number, mut made) = (0, 0);
        let found: Result<()> = rows.clone().try_for_each(|row| {
            let tag = keys.tags[row];
            let at = shard_of(tag, shards);
            let shard = &mut all[at];
            let words = &keys.words[nth(row, width)];
            let slot = if is_large { first_slots[number] } else { shard.likely(tag) };
            let found = if read_ahead && names(slot, tag) && first_words[number] == words[0] {
                row_of(slot)
            } else {
                let key = KeyRef { words, texts: &texts };
                match shard.held(shape, slot, tag, key) {
                    Some(found) => found,
                    None => {
                        let before = shard.len;
                        let found = shard.find_or_insert(shape, tag, key)?;
                        made += shard.len - before;
                        found
                    }
                }
            };
            number += 1;
            if !shard.changes.is_now(found) {
                before_change(shape, shard, copying, at, found);
            }
            places.push(Place { shard: at as u32, at: (found * stride + width) as u32 });
            Ok(())
        });
        self.len += made;
        found
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
                put(&mut shard.rows[begin..begin + V::WORDS], values[row]);
            }
            return;
        }
        for (place, row) in places.zip(rows) {
            let begin = place.at as usize + at;
            put(&mut all[place.shard as usize].rows[begin..begin + V::WORDS], values[row]);
        }
    }

    /// Merges all groups of another table of the same shape.
    pub fn absorb(&mut self, other: &Groups) -> Result<()> {
        let shape = self.shape.clone();
        for shard in &other.shards {
            for slot in shard.slots.iter().filter(|slot| **slot != 0) {
                let group = shard.group(&shape, row_of(*slot));
                self.merge_group((slot >> 32) as u32, group)?;
            }
        }
        Ok(())
    }

    fn merge_group(&mut self, tag: u32, group: Group<'_>) -> Result<()> {
        let texts = vec![group.texts; self.shape.keys.texts().len()];
        let shape = self.shape.clone();
        let (at, row) = self.entry(tag, KeyRef { words: group.key, texts: &texts })?;
        let begin = row * shape.stride + shape.keys.words();
        let held = &mut self.shards[at].rows[begin..begin + group.parts.len()];
        shape.layout.merge(held, group.parts);
        Ok(())
    }

    /// The shard and row of a key, made if there is none, about to change.
    fn entry(&mut self, tag: u32, key: KeyRef<'_>) -> Result<(usize, usize)> {
        self.divide_if_full()?;
        let at = shard_of(tag, self.shards.len());
        let shard = &mut self.shards[at];
        let before = shard.len;
        let row = shard.find_or_insert(&self.shape, tag, key)?;
        self.len += shard.len - before;
        if !shard.changes.is_now(row) {
            before_change(&self.shape, shard, &mut self.copying, at, row);
        }
        Ok((at, row))
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
        let (at, row) = self.entry(tag, KeyRef { words: &key_words, texts: &texts })?;
        let begin = row * shape.stride + shape.keys.words();
        self.shards[at].rows[begin..begin + words.0.len()].copy_from_slice(&words.0);
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
        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
        for small in std::mem::take(&mut self.shards) {
            let texts = vec![small.texts.as_slice(); shape.keys.texts().len()];
            for slot in small.slots.iter().filter(|slot| **slot != 0) {
                let (tag, group) = ((slot >> 32) as u32, small.group(&shape, row_of(*slot)));
                let key = KeyRef { words: group.key, texts: &texts };
                shards[shard_of(tag, SHARDS)].insert(&shape, tag, key, group.parts)?;
            }
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
        let changed = self.shards.iter_mut().map(|shard| (shard.changes.moment(shard.len), shard.len));
        let changed: Vec<(usize, usize)> = changed.collect();
        if parts.mode != SnapshotMode::Detached {
            parts.roster.push(name.to_string());
        }
        self.walked = 0;
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
        while let Some(at) = copying.next_shard()? {
            let (shard, base) = (&mut self.shards[at], copying.is_base(at));
            loop {
                if !run.room() {
                    return Ok(false);
                }
                let next = match base {
                    true => shard.changes.next_unchanged(self.walked),
                    false => shard.changes.next_only_before(self.walked),
                };
                let Some(row) = next else { break };
                self.walked = row + 1;
                let (key, words) = saved(&self.shape, &shard.group(&self.shape, row));
                run.spend(BUCKET_COST + copying.write(at, &key, &words)?);
            }
            if copying.is_chained() {
                shard.changes.settle();
            }
            self.walked = 0;
            run.spend(SHARD_COST);
            copying.shard_done(at);
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
fn before_change(shape: &Shape, shard: &mut Shard, copying: &mut Option<Box<Copying>>, at: usize, row: usize) {
    if let Some(copying) = copying {
        let (key, words) = saved(shape, &shard.group(shape, row));
        copying.capture(at, shard.changes.is_before(row), &key, &words);
    }
    shard.changes.change(row);
}

/// A group as it stands in state.
fn saved(shape: &Shape, group: &Group<'_>) -> (RowKey, Words) {
    (shape.keys.row_key(group.key, group.texts), Words(SmallVec::from_slice(group.parts)))
}

#[cfg(test)]
#[path = "tests/groups.rs"]
mod tests;
