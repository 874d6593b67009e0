//! State as bytes: sections that operators write at a checkpoint and find again at a restore, and the typed tables of
//! keyed state on top of them.

mod codec;
mod keyed;
mod keys;
mod timers;

pub use codec::{Reader, Writer};
pub use keyed::{KeyedStore, ListState, MapState, StateAccess, Table, TableHasher, ValueState};
pub use keys::KeyedState;
pub use timers::Timers;

use std::sync::Arc;

use tidemill_core::{Error, Result};

use crate::key::{Key, key_group, owner};

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
#[derive(Debug, Clone)]
pub struct Section {
    /// The state's name, unique within the operator.
    pub name: String,
    /// How it is divided.
    pub kind: SectionKind,
    /// How many entries the bytes hold.
    pub entries: u64,
    /// The entries, one behind the other, each written by [`Writer`].
    pub bytes: Vec<u8>,
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
    /// The entries.
    pub bytes: Arc<[u8]>,
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

    /// Takes out the sections of one name.
    pub fn take(&mut self, name: &str) -> Vec<RestoredSection> {
        let (found, rest) = std::mem::take(&mut self.sections).into_iter().partition(|section| section.name == name);
        self.sections = rest;
        found
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

impl RestoredSection {
    /// Reads the entries one by one.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.name, &self.bytes, self.entries)
    }
}
