//! What checkpoints hold of a large table already, and what the next one must add.
//!
//! The shards of a table are divided into *units*. The files of a unit are a base, with all its entries, and deltas with
//! what changed since: removed keys, then entries. A checkpoint names the base and all deltas. A unit gets a new base when
//! its deltas have grown to a part of it; normally one unit a checkpoint, so that no checkpoint is much larger than
//! another.

use tidemill_core::{Data, Error, Result};

use super::table::SHARDS;
use super::{ChainPart, Section, SectionKind, Writer};
use crate::key::Key;
use crate::operator::{CopyRun, SnapshotMode};

/// Units of a table with more entries than [`ONE_UNIT_MAX`].
const UNITS: usize = 8;

/// Up to this many entries a table is one unit.
const ONE_UNIT_MAX: usize = 64 * 1024;

/// A unit is due for a new base after this many deltas.
const DELTAS_MAX: u32 = 32;

/// A section is closed when it has this many bytes.
pub(super) const SECTION_BYTES: usize = 1024 * 1024;

/// The chain of a table: what its last checkpoint left behind.
pub(crate) struct Chain<K> {
    /// Empty until the first checkpoint.
    units: Vec<Unit<K>>,
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

struct Unit<K> {
    weight: Weight,
    /// Keys removed since the last delta began.
    removed: Vec<K>,
    /// More keys were removed than are worth noting: the next checkpoint writes a base.
    overflown: bool,
}

impl<K> Default for Chain<K> {
    fn default() -> Self {
        Chain { units: Vec::new() }
    }
}

impl<K> Default for Unit<K> {
    fn default() -> Self {
        Unit { weight: Weight::default(), removed: Vec::new(), overflown: false }
    }
}

impl<K: Key> Chain<K> {
    /// A key was removed from a shard; `left` entries are left in the table.
    #[inline]
    pub fn removed(&mut self, shard: usize, shards: usize, key: K, left: usize) {
        if self.units.is_empty() || shards != SHARDS {
            return;
        }
        let limit = left / self.units.len() + ONE_UNIT_MAX / UNITS;
        let at = unit_of(shard, self.units.len());
        let unit = &mut self.units[at];
        if unit.overflown {
            return;
        }
        if unit.removed.len() >= limit {
            unit.removed = Vec::new();
            unit.overflown = true;
        } else {
            unit.removed.push(key);
        }
    }

    /// Decides what a snapshot of this moment writes.
    pub fn plan(&mut self, name: &str, entries: usize, mode: SnapshotMode) -> Copying<K> {
        let wanted = units_wanted(entries);
        let chained = matches!(mode, SnapshotMode::Checkpoint { .. });
        if chained && (mode == (SnapshotMode::Checkpoint { fresh: true }) || self.units.len() < wanted) {
            *self = Chain { units: Vec::new() };
        }
        let fresh = self.units.is_empty();
        let count = if fresh { wanted } else { self.units.len() };
        let due = due(self.units.iter().map(|unit| &unit.weight));
        let units = (0..count).map(|at| {
            let mut copy =
                UnitCopy { base: true, removed: Vec::new(), writer: writer(name), sections: Vec::new(), bytes: 0 };
            if chained && !fresh {
                let unit = &mut self.units[at];
                copy.base = unit.overflown || due[at];
                // All of them were removed up to this moment. A base does without them.
                let removed = std::mem::take(&mut unit.removed);
                unit.overflown = false;
                if !copy.base {
                    copy.removed = removed;
                }
            }
            copy
        });
        let units = units.collect();
        if chained && fresh {
            // From now on removals are noted: the base under way holds the keys.
            self.units = (0..count).map(|_| Unit::default()).collect();
        }
        Copying { name: name.to_string(), chained, next: 0, units, failure: None }
    }

    /// A copy is complete.
    pub fn copied(&mut self, copying: Copying<K>) {
        if !copying.chained {
            return;
        }
        for (unit, copy) in self.units.iter_mut().zip(&copying.units) {
            unit.weight.copied(copy.base, copy.bytes);
        }
    }
}

fn unit_of(shard: usize, units: usize) -> usize {
    shard * units / SHARDS
}

fn writer(name: &str) -> Writer {
    Writer::new(name, SectionKind::Keyed)
}

/// A copy under way.
pub(crate) struct Copying<K> {
    name: String,
    chained: bool,
    next: usize,
    units: Vec<UnitCopy<K>>,
    /// A value could not be written when it was about to change.
    failure: Option<Error>,
}

struct UnitCopy<K> {
    base: bool,
    removed: Vec<K>,
    writer: Writer,
    /// Closed before the walk came here.
    sections: Vec<Section>,
    bytes: usize,
}

impl<K: Key> Copying<K> {
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

    /// Bytes written for the unit of a shard that wait for their section to be closed.
    pub fn bytes(&self, shard: usize) -> usize {
        self.units[unit_of(shard, self.units.len())].writer.len()
    }

    /// Writes an entry.
    #[inline]
    pub fn write<V: Data>(&mut self, shard: usize, key: &K, value: &V) -> Result<()> {
        let at = unit_of(shard, self.units.len());
        self.units[at].writer.entry(&(key, value))
    }

    /// An entry is about to change or to be removed, for the first time since the moment.
    pub fn capture<V: Data>(&mut self, shard: usize, changed_before: bool, key: &K, value: &V) {
        if shard < self.next || !(changed_before || self.is_base(shard)) {
            return;
        }
        if let Err(error) = self.write(shard, key, value) {
            self.failure.get_or_insert(error);
        }
        let at = unit_of(shard, self.units.len());
        if self.units[at].writer.len() >= SECTION_BYTES {
            self.close_section(at);
        }
    }

    fn close_section(&mut self, at: usize) {
        let fresh = writer(&self.name);
        let unit = &mut self.units[at];
        let section = std::mem::replace(&mut unit.writer, fresh).finish();
        unit.sections.push(section);
    }

    /// A shard was walked; what is complete goes to `run`.
    pub fn shard_done(&mut self, shard: usize, run: &mut CopyRun) {
        self.next = shard + 1;
        let (at, units) = (unit_of(shard, self.units.len()), self.units.len());
        let first = shard == 0 || unit_of(shard - 1, units) != at;
        let last = self.next == SHARDS || unit_of(self.next, units) != at;
        if first && !self.units[at].removed.is_empty() {
            let removed = std::mem::take(&mut self.units[at].removed);
            let mut writer = writer(&self.name);
            for key in &removed {
                if let Err(error) = writer.entry(key) {
                    self.failure.get_or_insert(error);
                }
            }
            let section = Section { removal: true, ..writer.finish() };
            self.units[at].sections.insert(0, section);
        }
        // A base begins with a section even if it is empty: the writer then forgets what it had of the unit.
        let nothing_yet = self.units[at].bytes == 0 && self.units[at].sections.is_empty();
        let unit = &self.units[at];
        if unit.writer.len() >= SECTION_BYTES || (last && (unit.writer.len() > 0 || (unit.base && nothing_yet))) {
            self.close_section(at);
        }
        let unit = &mut self.units[at];
        for section in std::mem::take(&mut unit.sections) {
            let begins = unit.base && unit.bytes == 0;
            // At least 1, so that only one section begins the base.
            unit.bytes += section.bytes.len().max(1);
            let chain = self.chained.then(|| ChainPart { table: self.name.clone(), unit: at as u16, begins });
            if self.chained || section.entries > 0 {
                run.sections.push(Section { chain, ..section });
            }
        }
    }
}
