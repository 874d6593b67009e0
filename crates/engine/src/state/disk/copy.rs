//! The part of a table's snapshot that reads files: done by the checkpoint writer's thread, not by the worker.
//!
//! For a unit with a new base these are the entries in the store as they were at the moment, then the changes the store did
//! not have yet; for a unit with a delta, what had left the cache since the checkpoint before, then what was still in it.

use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::Result;

use super::key::{Layout, time_of, unit_of_time};
use super::spool::SpoolReader;
use super::store::{Entries, LAPSE_BYTES, lapsed};
use crate::key::GroupRange;
use crate::state::buffers::SECTION_BYTES;
use crate::state::chain::Weight;
use crate::state::{ChainPart, Section, SectionKind};

/// Weights of a table's units, as the last copies left them.
pub(super) type Weights = Arc<Mutex<Vec<Weight>>>;

/// A snapshot writes bases of about so many bytes; until they are written, nobody knows better.
pub(super) fn expect_bases(weights: &Weights, based: &[bool], base_bytes: usize) {
    let mut weights = weights.lock().unwrap_or_else(PoisonError::into_inner);
    weights.resize_with(based.len(), Default::default);
    for (weight, _) in weights.iter_mut().zip(based).filter(|(_, base)| **base) {
        weight.base_bytes = weight.base_bytes.max(base_bytes);
    }
}

/// Which unit an entry belongs to.
#[derive(Clone, Copy)]
pub(super) struct Units {
    pub layout: Layout,
    pub own: GroupRange,
    pub count: usize,
    /// What has an earlier time is not needed any more.
    pub live_from_ms: i64,
}

impl Units {
    /// The unit of an entry of a key group, and of a time if its key has one.
    #[inline]
    pub fn of(&self, group: u64, time_ms: Option<i64>) -> usize {
        if let Some(time_ms) = time_ms {
            return unit_of_time(time_ms, self.count);
        }
        let own = (self.own.1 - self.own.0 + 1) as usize;
        ((group.saturating_sub(self.own.0)) as usize * self.count / own).min(self.count - 1)
    }

    fn of_stored(&self, key: &[u8]) -> usize {
        self.of(self.layout.group_of(key), (self.layout == Layout::Times).then(|| time_of(key)))
    }

    fn is_over(&self, key: &[u8]) -> bool {
        self.layout == Layout::Times && time_of(key) < self.live_from_ms
    }

    /// The key groups of a unit of a table without times; `None` when it has none.
    pub fn groups(&self, unit: usize) -> Option<GroupRange> {
        let own = (self.own.1 - self.own.0 + 1) as usize;
        let first_of = |unit: usize| self.own.0 + (unit * own).div_ceil(self.count) as u64;
        let (first, next) = (first_of(unit), first_of(unit + 1));
        (first < next).then(|| (first, next - 1))
    }
}

/// What is left to be copied when the worker has done its part.
pub(super) struct FileCopy {
    pub name: &'static str,
    pub units: Units,
    /// By unit: whether it gets a new base.
    pub based: Vec<bool>,
    /// The store's entries for those that do, of a unit one behind the other or of all.
    pub bases: Vec<Entries>,
    /// What has left the cache before the moment.
    pub before: Option<SpoolReader>,
    /// What the cache held at the moment.
    pub held: Option<SpoolReader>,
    pub now_ms: i64,
    /// `None` for a snapshot that stands for itself.
    pub weights: Option<Weights>,
}

struct UnitOut {
    begins: bool,
    bytes: usize,
}

/// Sections on their way out.
struct Output<'a> {
    name: &'static str,
    chained: bool,
    units: Vec<UnitOut>,
    give: &'a mut dyn FnMut(Section) -> Result<()>,
}

impl Output<'_> {
    fn section(&mut self, unit: usize, removal: bool, entries: u64, bytes: Vec<u8>) -> Result<()> {
        let out = &mut self.units[unit];
        let begins = std::mem::take(&mut out.begins);
        out.bytes += bytes.len();
        if !self.chained && entries == 0 {
            return Ok(());
        }
        let chain = self.chained.then(|| ChainPart { table: self.name.to_string(), unit: unit as u16, begins });
        let section = Section::new(self.name, SectionKind::Keyed, entries, bytes);
        (self.give)(Section { removal, chain, ..section })
    }
}

impl FileCopy {
    /// Reads everything and gives the sections of the snapshot to `give`.
    pub fn run(self, give: &mut dyn FnMut(Section) -> Result<()>) -> Result<()> {
        let units = self.based.iter().map(|base| UnitOut { begins: *base, bytes: 0 }).collect();
        let mut out = Output { name: self.name, chained: self.weights.is_some(), units, give };
        copy_bases(self.bases, &self.units, self.now_ms, &mut out)?;
        for unit in (0..self.based.len()).filter(|unit| self.based[*unit]) {
            // A base begins with a section even if it is empty: the writer then forgets what it had of the unit.
            if out.units[unit].begins {
                out.section(unit, false, 0, Vec::new())?;
            }
        }
        let (based, now_ms) = (&self.based, self.now_ms);
        if let Some(before) = self.before {
            copy_changes(before, &self.units, |unit| !based[unit], now_ms, &mut out)?;
        }
        if let Some(held) = self.held {
            copy_changes(held, &self.units, |_| true, now_ms, &mut out)?;
        }
        if let Some(weights) = &self.weights {
            let mut weights = weights.lock().unwrap_or_else(PoisonError::into_inner);
            for ((weight, based), out) in weights.iter_mut().zip(&self.based).zip(&out.units) {
                weight.copied(*based, out.bytes);
            }
        }
        Ok(())
    }
}

fn copy_bases(bases: Vec<Entries>, units: &Units, now_ms: i64, out: &mut Output) -> Result<()> {
    let mut parts = vec![(0, Vec::new()); units.count];
    for entry in bases.into_iter().flatten() {
        let (key, value) = entry?;
        if lapsed(&value, now_ms) {
            continue;
        }
        let unit = units.of_stored(&key);
        let (count, bytes) = &mut parts[unit];
        units.layout.put_saved(&key, out.name, bytes)?;
        bytes.extend_from_slice(&value[LAPSE_BYTES..]);
        *count += 1;
        if bytes.len() >= SECTION_BYTES {
            out.section(unit, false, std::mem::take(count), std::mem::take(bytes))?;
        }
    }
    for (unit, (count, bytes)) in parts.into_iter().enumerate() {
        if count > 0 {
            out.section(unit, false, count, bytes)?;
        }
    }
    Ok(())
}

fn copy_changes(
    mut changes: SpoolReader,
    units: &Units,
    wanted: impl Fn(usize) -> bool,
    now_ms: i64,
    out: &mut Output,
) -> Result<()> {
    loop {
        let chunk = changes.next_chunk()?;
        if chunk.is_empty() {
            return Ok(());
        }
        // By unit: removed keys, then entries. Each key stands in one of the two.
        let mut parts = vec![[(0, Vec::new()), (0, Vec::new())]; units.count];
        for (key, value) in &chunk {
            let unit = units.of_stored(key);
            if !wanted(unit) || units.is_over(key) {
                continue;
            }
            let [removed, held] = &mut parts[unit];
            match value {
                Some(value) if !lapsed(value, now_ms) => {
                    held.0 += 1;
                    units.layout.put_saved(key, out.name, &mut held.1)?;
                    held.1.extend_from_slice(&value[LAPSE_BYTES..]);
                }
                _ => {
                    removed.0 += 1;
                    units.layout.put_saved(key, out.name, &mut removed.1)?;
                }
            }
        }
        for (unit, [removed, held]) in parts.into_iter().enumerate() {
            for (removal, (count, bytes)) in [(true, removed), (false, held)] {
                if count > 0 {
                    out.section(unit, removal, count, bytes)?;
                }
            }
        }
    }
}
