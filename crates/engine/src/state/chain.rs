//! What checkpoints hold of a large table already, and what the next one must add.
//!
//! The shards of a table are divided into *units*. The files of a unit are a base, with all its entries, and deltas with
//! what changed since: removed keys, then entries. A checkpoint names the base and all deltas. A unit gets a new base when
//! its deltas have grown to a part of it; normally one unit a checkpoint, so that no checkpoint is much larger than
//! another.

use tidemill_core::{Data, Error, Result};

use super::buffers::{Buffers, SECTION_BYTES};
use super::codec::unwritable;
use super::encode::encode;
use super::table::SHARDS;
use super::{ChainPart, Section, SectionKind};
use crate::key::Key;
use crate::operator::{SnapshotMode, SnapshotParts};

/// Units of a table with more entries than [`ONE_UNIT_MAX`].
const UNITS: usize = 8;

/// Up to this many entries a table is one unit.
const ONE_UNIT_MAX: usize = 64 * 1024;

/// A unit is due for a new base after this many deltas.
const DELTAS_MAX: u32 = 32;

/// The chain of a table: what its last checkpoint left behind.
#[derive(Default)]
pub(crate) struct Chain {
    /// Empty until the first checkpoint.
    units: Vec<Unit>,
}

/// What the files of a unit hold.
#[derive(Default)]
pub(crate) struct Weight {
    pub base_bytes: usize,
    delta_bytes: usize,
    deltas: u32,
}

impl Weight {
    /// How urgently it wants a new base; 1 is "soon", 4 is "now".
    fn urgency(&self) -> usize {
        let by_bytes = 2 * self.delta_bytes / self.base_bytes.max(SECTION_BYTES / 16);
        let by_count = 2 * (self.deltas / DELTAS_MAX) as usize;
        by_bytes.max(by_count)
    }

    /// Whether the files hold nothing.
    pub fn is_empty(&self) -> bool {
        self.base_bytes == 0 && self.deltas == 0
    }

    /// A copy of so many bytes is complete.
    pub fn copied(&mut self, base: bool, bytes: usize) {
        if base {
            *self = Weight { base_bytes: bytes, ..Weight::default() };
        } else if bytes > 0 {
            self.delta_bytes += bytes;
            self.deltas += 1;
        }
    }
}

/// Units of a table with about so many entries.
pub(super) fn units_wanted(entries: usize) -> usize {
    if entries > ONE_UNIT_MAX { UNITS } else { 1 }
}

/// Which units get a new base with the next checkpoint: those that must, and the most urgent one.
pub(super) fn due<'a>(weights: impl IntoIterator<Item = &'a Weight>) -> Vec<bool> {
    let urgencies: Vec<usize> = weights.into_iter().map(Weight::urgency).collect();
    let most_urgent = (0..urgencies.len()).max_by_key(|unit| urgencies[*unit]);
    let due = |(unit, urgency)| urgency >= 4 || (urgency >= 1 && most_urgent == Some(unit));
    urgencies.iter().copied().enumerate().map(due).collect()
}

#[derive(Default)]
struct Unit {
    weight: Weight,
    /// Keys removed since the last delta began, as they are written.
    removed: Vec<u8>,
    removed_keys: usize,
    /// More keys were removed than are worth noting: the next checkpoint writes a base.
    overflown: bool,
}

impl Unit {
    /// The removed keys noted so far, which are forgotten.
    fn take_removed(&mut self) -> (u64, Vec<u8>) {
        (std::mem::take(&mut self.removed_keys) as u64, std::mem::take(&mut self.removed))
    }
}

impl Chain {
    /// A key was removed from a shard; `left` entries are left in the table.
    #[inline]
    pub fn removed(&mut self, shard: usize, shards: usize, key: &impl Key, left: usize) {
        if self.units.is_empty() || shards != SHARDS {
            return;
        }
        let limit = left / self.units.len() + ONE_UNIT_MAX / UNITS;
        let at = unit_of(shard, self.units.len());
        let unit = &mut self.units[at];
        if unit.overflown {
            return;
        }
        // A key that cannot be written will be told of by the base.
        if unit.removed_keys >= limit || encode(key, &mut unit.removed).is_err() {
            unit.take_removed();
            unit.overflown = true;
        } else {
            unit.removed_keys += 1;
        }
    }

    /// Decides what a snapshot of this moment writes. Of each shard: how many entries have changed, and how many it has.
    pub fn plan(&mut self, name: &str, shards: &[(usize, usize)], parts: &SnapshotParts) -> Copying {
        let entries = shards.iter().map(|shard| shard.1).sum();
        let (wanted, mode) = (units_wanted(entries), parts.mode);
        let chained = matches!(mode, SnapshotMode::Checkpoint { .. });
        if chained && (mode == (SnapshotMode::Checkpoint { fresh: true }) || self.units.len() < wanted) {
            self.units.clear();
        }
        let fresh = self.units.is_empty();
        let count = if fresh { wanted } else { self.units.len() };
        let mut copying = Copying {
            name: name.to_string(),
            chained,
            next: 0,
            units: (0..count).map(|_| UnitCopy { base: true, ..UnitCopy::default() }).collect(),
            ready: Vec::new(),
            buffers: parts.buffers.clone(),
            failure: None,
        };
        if !chained {
            return copying;
        }
        let due = due(self.units.iter().map(|unit| &unit.weight));
        for (at, (unit, due)) in self.units.iter_mut().zip(due).enumerate() {
            // All of them were removed up to this moment. A base does without them.
            let (entries, bytes) = unit.take_removed();
            copying.units[at].base = std::mem::take(&mut unit.overflown) || due || mostly_changed(shards, at, count);
            if entries > 0 && !copying.units[at].base {
                copying.close(at, entries, bytes, true);
            }
        }
        // From now on removals are noted: the base under way holds the keys.
        self.units.resize_with(count, Unit::default);
        copying
    }

    /// A copy is complete.
    pub fn copied(&mut self, copying: Copying) {
        if !copying.chained {
            return;
        }
        for (unit, copy) in self.units.iter_mut().zip(&copying.units) {
            unit.weight.copied(copy.base, copy.closed_bytes);
        }
    }
}

fn unit_of(shard: usize, units: usize) -> usize {
    shard * units / SHARDS
}

/// Whether a base of a unit is less than twice its delta. It is written then, since it spares a restore all that was before.
fn mostly_changed(shards: &[(usize, usize)], unit: usize, units: usize) -> bool {
    let own = shards.iter().enumerate().filter(|(shard, _)| unit_of(*shard, units) == unit);
    let (changed, entries) = own.fold((0, 0), |sum, (_, shard)| (sum.0 + shard.0, sum.1 + shard.1));
    entries < 2 * changed
}

/// A copy under way.
pub(crate) struct Copying {
    name: String,
    chained: bool,
    /// The shard to be walked now.
    next: usize,
    units: Vec<UnitCopy>,
    /// Sections that are complete and wait for the next step. Of each unit, those of removed keys come first.
    ready: Vec<Section>,
    buffers: Buffers,
    /// A value could not be written when it was about to change.
    failure: Option<Error>,
}

#[derive(Default)]
struct UnitCopy {
    base: bool,
    /// The section being filled.
    bytes: Vec<u8>,
    entries: u64,
    /// Sections closed before.
    closed: usize,
    closed_bytes: usize,
}

impl Copying {
    /// The shard to be walked now; `None` behind the last.
    pub fn next_shard(&mut self) -> Result<Option<usize>> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok((self.next < SHARDS).then_some(self.next)),
        }
    }

    /// Whether all entries of a shard are written, not only those that have changed.
    pub fn is_base(&self, shard: usize) -> bool {
        self.units[unit_of(shard, self.units.len())].base
    }

    /// Whether the checkpoint holds from now on what had changed.
    pub fn is_chained(&self) -> bool {
        self.chained
    }

    /// Writes an entry; tells how many bytes it has.
    #[inline]
    pub fn write(&mut self, shard: usize, key: &impl Key, value: &impl Data) -> Result<usize> {
        let at = unit_of(shard, self.units.len());
        let unit = &mut self.units[at];
        if unit.bytes.capacity() == 0 {
            unit.bytes = self.buffers.take();
        }
        let before = unit.bytes.len();
        encode(&(key, value), &mut unit.bytes).map_err(|e| unwritable(&self.name, &e))?;
        unit.entries += 1;
        let length = unit.bytes.len();
        if length >= SECTION_BYTES {
            self.close_open(at);
        }
        Ok(length - before)
    }

    /// An entry is about to change or to be removed, for the first time since the moment.
    pub fn capture(&mut self, shard: usize, changed_before: bool, key: &impl Key, value: &impl Data) {
        if shard < self.next || !(changed_before || self.is_base(shard)) {
            return;
        }
        if let Err(error) = self.write(shard, key, value) {
            self.failure.get_or_insert(error);
        }
    }

    /// Closes the section a unit fills.
    fn close_open(&mut self, at: usize) {
        let unit = &mut self.units[at];
        let (entries, bytes) = (std::mem::take(&mut unit.entries), std::mem::take(&mut unit.bytes));
        self.close(at, entries, bytes, false);
    }

    fn close(&mut self, at: usize, entries: u64, bytes: Vec<u8>, removal: bool) {
        let unit = &mut self.units[at];
        let begins = unit.base && unit.closed == 0;
        unit.closed += 1;
        unit.closed_bytes += bytes.len();
        let chain = self.chained.then(|| ChainPart { table: self.name.clone(), unit: at as u16, begins });
        let section = Section::new(self.name.clone(), SectionKind::Keyed, entries, bytes);
        self.ready.push(Section { chain, removal, ..section });
    }

    /// A shard was walked.
    pub fn shard_done(&mut self, shard: usize) {
        self.next = shard + 1;
        let at = unit_of(shard, self.units.len());
        let last = self.next == SHARDS || unit_of(self.next, self.units.len()) != at;
        let unit = &self.units[at];
        // A base begins with a section even if it is empty: the writer then forgets what it had of the unit.
        if last && (unit.entries > 0 || (self.chained && unit.base && unit.closed == 0)) {
            self.close_open(at);
        }
    }

    /// What is complete, to be saved while the walk goes on.
    pub fn take_ready(&mut self) -> Vec<Section> {
        std::mem::take(&mut self.ready)
    }
}
