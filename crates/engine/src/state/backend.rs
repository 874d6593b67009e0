//! Where keyed state stands: in memory, or on disk behind a cache. A job chooses, its functions do not notice.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tidemill_core::{Data, Error, Result, SharedClock};

use super::disk::{AtTime, DiskHome, DiskTable, DiskTimers, Lapses};
use super::{Ahead, Equivalent, RestoredSection, Table};
use crate::key::{GroupRange, KEY_GROUPS, Key, groups_of};
use crate::operator::{CopyRun, SnapshotParts};

/// The memory for state on disk unless told otherwise, in bytes.
pub const STATE_MEMORY_BYTES: usize = 512 * 1024 * 1024;

/// Where a job keeps its keyed state (Flink's `state.backend.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateBackend {
    /// In hash tables, as large as it is. The default.
    #[default]
    Memory,
    /// In files, with a cache in memory whose size is set.
    Disk,
}

impl FromStr for StateBackend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "memory" => Ok(StateBackend::Memory),
            "disk" => Ok(StateBackend::Disk),
            other => {
                let refused = Error::input(format!("state backend `{text}` is neither `memory` nor `disk`"));
                Err(match other {
                    "hashmap" | "filesystem" | "jobmanager" => refused.hint("`memory` comes nearest"),
                    "rocksdb" | "forst" => refused.hint("`disk` comes nearest"),
                    _ => refused,
                })
            }
        }
    }
}

/// Where the keyed operators of a process keep their state.
#[derive(Clone, Default)]
pub(crate) struct StateHome {
    /// None when it is in memory.
    disk: Option<Arc<DiskHome>>,
    /// One access in so many is measured; none when absent.
    pub latency_sample_interval: Option<NonZeroU32>,
}

impl StateHome {
    /// On disk, in `folder`, which is made empty, with so much memory for all of the process's state.
    pub fn on_disk(folder: PathBuf, memory_max: usize) -> Result<Self> {
        Ok(StateHome { disk: Some(DiskHome::open(folder, memory_max)?), ..StateHome::default() })
    }

    /// The same, with one access in so many measured.
    pub fn measured(self, latency_sample_interval: Option<NonZeroU32>) -> Self {
        StateHome { latency_sample_interval, ..self }
    }

    /// On disk, with so little memory that a handful of entries goes to files.
    #[cfg(test)]
    pub fn tiny(folder: PathBuf) -> Result<Self> {
        Ok(StateHome { disk: Some(DiskHome::tiny(folder)?), ..StateHome::default() })
    }

    /// Whether it is on disk.
    pub fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// No timers yet, for a subtask of so many; `None` when they are in memory.
    pub fn timers<K: Key>(&self, name: &'static str, at: (usize, usize)) -> Option<DiskTimers<K>> {
        self.disk.as_ref().map(|home| DiskTimers::new(name, home, owned(at)))
    }

    /// An empty table of keys with times, for a subtask of so many; `None` when state is in memory.
    pub fn timed_table<K: Key, V: Data>(
        &self,
        name: &'static str,
        at: (usize, usize),
    ) -> Result<Option<DiskTable<AtTime<K>, V>>> {
        self.disk.as_ref().map(|home| DiskTable::new(name, home, owned(at), None, None)).transpose()
    }

    /// An empty table whose values never lapse, for a subtask of so many.
    pub fn own_table<K: Key, V: Data>(&self, name: &'static str, at: (usize, usize)) -> Result<StateTable<K, V>> {
        self.table(name, owned(at), None, || None)
    }

    /// An empty table. `lapses` tells when a value is gone, `None` for never.
    pub fn table<K: Key, V: Data>(
        &self,
        name: &'static str,
        at: (usize, GroupRange),
        clock: Option<SharedClock>,
        lapses: impl FnOnce() -> Option<Lapses<V>>,
    ) -> Result<StateTable<K, V>> {
        match &self.disk {
            None => Ok(StateTable::Memory(Table::default())),
            Some(home) => Ok(StateTable::Disk(Box::new(DiskTable::new(name, home, at, clock, lapses())?))),
        }
    }
}

/// A subtask, of so many, and its key groups.
fn owned((subtask, parallelism): (usize, usize)) -> (usize, GroupRange) {
    (subtask, groups_of(subtask, parallelism).unwrap_or((0, KEY_GROUPS - 1)))
}

/// A table of one or the other kind. One branch an access that always goes the same way; only the disk can fail.
pub(crate) enum StateTable<K, V> {
    Memory(Table<K, V>),
    Disk(Box<DiskTable<K, V>>),
}

impl<K, V> Default for StateTable<K, V> {
    fn default() -> Self {
        StateTable::Memory(Table::default())
    }
}

impl<K: Key, V: Data> StateTable<K, V> {
    /// Fetches the entries of keys from memory; see [`Table::fetch`]. Not on disk, where a cache is asked first.
    #[inline]
    pub fn fetch<Q: Hash + Equivalent<K> + ?Sized, B: Borrow<Q>>(&self, keys: impl Iterator<Item = B>) {
        if let StateTable::Memory(table) = self {
            table.fetch(keys);
        }
    }

    /// Begins to fetch those of a batch and keeps what is seen; see [`Table::look_ahead`].
    #[inline]
    pub(crate) fn look_ahead<Q: Hash + ?Sized, B: Borrow<Q>>(&self, ahead: &mut Ahead, keys: impl Iterator<Item = B>) {
        match self {
            StateTable::Memory(table) => table.look_ahead(ahead, keys),
            StateTable::Disk(_) => ahead.clear(),
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&mut self, key: &K) -> Result<Option<&V>> {
        match self {
            StateTable::Memory(table) => Ok(table.get(key)),
            StateTable::Disk(table) => table.get(key),
        }
    }

    /// The value of a key, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Result<Option<&mut V>> {
        match self {
            StateTable::Memory(table) => Ok(table.get_mut(key)),
            StateTable::Disk(table) => table.get_mut(key),
        }
    }

    /// The value of a key, to be changed; made by `make` if there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> Result<&mut V> {
        match self {
            StateTable::Memory(table) => Ok(table.get_or_insert_with(key, make)),
            StateTable::Disk(table) => table.get_or_insert_with(key, make),
        }
    }

    /// The value of a key that is at hand as `found`; `own` makes a key of it if it must be kept. `seen` is what a look ahead
    /// has found out about it.
    #[inline]
    pub(crate) fn get_or_insert_seen<Q, F>(
        &mut self,
        ahead: &mut Ahead,
        found: F,
        own: impl FnOnce(F) -> K,
        make: impl FnOnce() -> V,
    ) -> Result<&mut V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        F: Borrow<Q>,
    {
        match self {
            StateTable::Memory(table) => Ok(table.get_or_insert_seen::<Q, F>(ahead, found, own, make)),
            StateTable::Disk(table) => table.get_or_insert_with(&own(found), make),
        }
    }

    /// Sets a key's value.
    #[inline]
    pub fn set(&mut self, key: &K, value: V) -> Result<()> {
        match self {
            StateTable::Memory(table) => {
                let mut new = Some(value);
                let held = table.get_or_insert_with(key, || new.take().unwrap_or_else(|| unreachable!("taken once")));
                if let Some(value) = new {
                    *held = value;
                }
                Ok(())
            }
            StateTable::Disk(table) => table.set(key, value),
        }
    }

    /// Sets a key's value and returns the one before.
    #[inline]
    pub fn insert(&mut self, key: &K, value: V) -> Result<Option<V>> {
        match self {
            StateTable::Memory(table) => Ok(table.insert(key.clone(), value)),
            StateTable::Disk(table) => table.insert(key.clone(), value),
        }
    }

    /// Removes a key and returns its value.
    #[inline]
    pub fn remove(&mut self, key: &K) -> Result<Option<V>> {
        match self {
            StateTable::Memory(table) => Ok(table.remove(key)),
            StateTable::Disk(table) => table.remove(key),
        }
    }

    /// The keys that have a value, in no particular order.
    pub fn keys(&mut self) -> Result<Vec<K>> {
        match self {
            StateTable::Memory(table) => Ok(table.iter().map(|(key, _)| key.clone()).collect()),
            StateTable::Disk(table) => table.keys(),
        }
    }

    /// Calls `each` with what was loaded, in no particular order. To be called before anything else is done with the table.
    pub fn for_each_loaded(&mut self, mut each: impl FnMut(&K, &V) -> Result<()>) -> Result<()> {
        match self {
            StateTable::Memory(table) => table.iter().try_for_each(|(key, value)| each(key, value)),
            StateTable::Disk(table) => table.for_each_loaded(each),
        }
    }

    /// Removes entries of which `gone` says so, a little with each call. A store on disk drops them when it merges files.
    #[inline]
    pub fn sweep(&mut self, entries: usize, gone: impl Fn(&V) -> bool) {
        if let StateTable::Memory(table) = self {
            table.sweep(entries, gone);
        }
    }

    pub fn begin_snapshot(&mut self, name: &str, parts: &mut SnapshotParts) -> Result<()> {
        match self {
            StateTable::Memory(table) => table.begin_snapshot(name, parts),
            StateTable::Disk(table) => table.begin_snapshot(parts),
        }
    }

    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        match self {
            StateTable::Memory(table) => table.copy_some(run),
            StateTable::Disk(table) => table.copy_some(run),
        }
    }

    /// Takes in a section of this table, as far as `owns` says.
    pub fn load(&mut self, section: &RestoredSection, owns: impl Fn(&K) -> bool) -> Result<()> {
        match self {
            StateTable::Memory(table) => table.load(std::slice::from_ref(section), owns),
            StateTable::Disk(table) => table.load(section, owns),
        }
    }
}
