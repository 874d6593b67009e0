//! State as bytes: sections that operators write at a checkpoint and find again at a restore, and the typed tables of
//! keyed state on top of them.

mod backend;
mod buffers;
mod chain;
mod codec;
mod decode;
mod disk;
mod encode;
mod entry_shapes;
mod keyed;
mod keys;
mod latency;
mod marks;
mod migrate;
mod reducing;
pub(crate) mod shape;
mod table;
mod timers;
mod trace;
mod ttl;

pub use backend::{STATE_MEMORY_BYTES, StateBackend};
pub(crate) use backend::{StateHome, StateTable};
pub use buffers::Buffers;
pub(crate) use chain::{Chain, Copying};
pub use codec::{Reader, Writer};
pub(crate) use decode::{Unreadable, decode, decode_only};
pub use disk::STATE_MEMORY_MIN_BYTES;
pub(crate) use disk::{AtTime, DiskTable, DiskTimers, OF_A_PROCESS};
pub(crate) use encode::{Unwritable, encode};
pub use entry_shapes::EntryShapes;
pub use keyed::{KeyedStore, ListState, MapState, StateAccess, ValueState};
pub use keys::KeyedState;
pub use reducing::{AggregatingState, ReducingState};
pub(crate) use table::{Ahead, BUCKET_COST, FETCHED_AHEAD, SHARD_COST, SHARDS, SMALL_ENTRIES_MAX};
pub use table::{Entry, Equivalent, Free, Table, TableHasher};
pub use timers::Timers;
pub use ttl::{ExpiringListState, ExpiringMapState, ExpiringValueState, Ttl};
#[cfg(test)]
pub(crate) use {disk::tests::scratch, table::tests::Random};

use std::sync::Arc;

use tidemill_core::{Error, Result};

use crate::key::{GroupRange, Key, key_group, owner};

/// How a section is divided when the parallelism changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionKind {
    /// Entries that begin with their key; each goes to the subtask that owns the key.
    Keyed,
    /// Belongs to the operator as a whole; every subtask sees all and takes its share.
    Operator,
}

/// A named piece of one subtask's state.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Section {
    /// The state's name, unique within the operator.
    pub name: String,
    /// How it is divided.
    pub kind: SectionKind,
    /// How many entries the bytes hold.
    pub entries: u64,
    /// The entries, one behind the other, each written by [`Writer`].
    pub bytes: Vec<u8>,
    /// The entries are keys that earlier sections of this state hold and that are gone.
    pub removal: bool,
    /// Only entries of these key groups count; `None` when all do.
    pub groups: Option<GroupRange>,
    /// Its place among the sections of earlier checkpoints it adds to; `None` when it stands for itself.
    pub chain: Option<ChainPart>,
}

/// A section's place in the chain of a large table: a base and what was added to it by later checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChainPart {
    /// The table, unique within the operator.
    pub table: String,
    /// The part of the table.
    pub unit: u16,
    /// It begins a new base: what was written of this part before is not needed any more.
    pub begins: bool,
}

/// A section found at a restore.
#[derive(Debug, Clone)]
pub struct RestoredSection {
    /// The subtask that wrote it.
    pub subtask: usize,
    /// The state's name.
    pub name: String,
    /// How it is divided.
    pub kind: SectionKind,
    /// How many entries the bytes hold.
    pub entries: u64,
    pub(crate) bytes: SectionBytes,
    /// The entries are keys that are gone.
    pub removal: bool,
    /// Only entries of these key groups count; `None` when all do.
    pub groups: Option<GroupRange>,
}

/// The bytes of a section.
#[derive(Clone)]
pub(crate) enum SectionBytes {
    Here(Arc<Vec<u8>>),
    /// Not read yet, or read ahead.
    Stored {
        sections: Arc<dyn StoredSections>,
        at: usize,
    },
}

/// Sections of a checkpoint, by number.
pub(crate) trait StoredSections: Send + Sync {
    /// Reads the bytes of a section, or waits for those that are being read. With `keep` they stay in memory, as the files
    /// may go once a checkpoint of this run is complete.
    fn bytes(self: Arc<Self>, at: usize, keep: bool) -> Result<Arc<Vec<u8>>>;
}

impl std::fmt::Debug for SectionBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SectionBytes::Here(bytes) => write!(f, "{} bytes", bytes.len()),
            SectionBytes::Stored { at, .. } => write!(f, "stored section {at}"),
        }
    }
}

/// Everything saved under one operator's id, for one subtask to take its share of.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The operator.
    pub uid: String,
    /// The subtask that restores, from 0.
    pub subtask: usize,
    /// The number of subtasks now.
    pub parallelism: usize,
    /// The sections of all subtasks there were.
    pub sections: Vec<RestoredSection>,
    /// What their entries are, as far as that was saved.
    pub shapes: EntryShapes,
}

impl Restored {
    /// Whether this is a fresh start.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// For operators without state: an error if there is some.
    pub fn nothing_expected(&self) -> Result<()> {
        match self.sections.first() {
            None => Ok(()),
            Some(section) => Err(Error::input(format!(
                "operator `{}` keeps no state, but the restored checkpoint holds `{}` for it",
                self.uid, section.name
            ))
            .hint("give the changed operator another uid")),
        }
    }

    /// Takes out the sections of which `is` says so by their names.
    pub fn take_where(&mut self, is: impl Fn(&str) -> bool) -> Vec<RestoredSection> {
        let (found, rest) = std::mem::take(&mut self.sections).into_iter().partition(|section| is(&section.name));
        self.sections = rest;
        found
    }

    /// Takes out the sections of one name.
    pub fn take(&mut self, name: &str) -> Vec<RestoredSection> {
        self.take_where(|section| section == name)
    }

    /// Whether this subtask owns a key.
    pub fn owns<K: Key>(&self, key: &K) -> bool {
        owner(key_group(key), self.parallelism) == self.subtask
    }

    /// An error if sections are left that the operator has not taken.
    pub fn finish(&self) -> Result<()> {
        match self.sections.first() {
            None => Ok(()),
            Some(section) => Err(Error::input(format!(
                "operator `{}` does not know the state `{}` of the restored checkpoint",
                self.uid, section.name
            ))
            .hint("give the changed operator another uid")),
        }
    }
}

impl Section {
    /// A section that stands for itself.
    pub fn new(name: impl Into<String>, kind: SectionKind, entries: u64, bytes: Vec<u8>) -> Self {
        Section { name: name.into(), kind, entries, bytes, removal: false, groups: None, chain: None }
    }

    /// The section as it is found at a restore.
    pub fn into_restored(self, subtask: usize) -> RestoredSection {
        RestoredSection {
            subtask,
            name: self.name,
            kind: self.kind,
            entries: self.entries,
            bytes: SectionBytes::Here(Arc::new(self.bytes)),
            removal: self.removal,
            groups: self.groups,
        }
    }
}

impl RestoredSection {
    /// The bytes of the entries. They are read from the checkpoint now, unless that was done ahead; what a job starts
    /// from may be gone once it has completed a checkpoint of its own.
    pub fn bytes(&self) -> Result<Arc<Vec<u8>>> {
        match &self.bytes {
            SectionBytes::Here(bytes) => Ok(bytes.clone()),
            SectionBytes::Stored { sections, at } => sections.clone().bytes(*at, false),
        }
    }

    /// The same bytes, which from now on are in memory.
    pub(crate) fn keep_bytes(&self) -> Result<Arc<Vec<u8>>> {
        match &self.bytes {
            SectionBytes::Here(bytes) => Ok(bytes.clone()),
            SectionBytes::Stored { sections, at } => sections.clone().bytes(*at, true),
        }
    }

    /// Reads the entries one by one.
    pub fn reader(&self) -> Result<Reader<'_>> {
        Ok(Reader::new(&self.name, self.bytes()?, self.entries))
    }
}
