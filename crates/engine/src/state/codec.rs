//! Values as bytes in state, in postcard's format, one entry behind the other.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::{Error, Result};

use super::decode::decode;
use super::encode::{Unwritable, encode};
use super::{Section, SectionKind};

/// A value of a state cannot be written.
pub(super) fn unwritable(state: &str, why: &Unwritable) -> Error {
    Error::input(format!("state `{state}` holds a value that cannot be written as bytes: {why}"))
}

/// Writes the entries of a section.
pub struct Writer {
    name: String,
    kind: SectionKind,
    entries: u64,
    bytes: Vec<u8>,
}

impl Writer {
    /// A section without entries.
    pub fn new(name: impl Into<String>, kind: SectionKind) -> Self {
        Writer { name: name.into(), kind, entries: 0, bytes: Vec::new() }
    }

    /// Whether it has no entry yet.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for about this many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends an entry. A keyed section's entries are tuples that begin with the key.
    pub fn entry(&mut self, entry: &impl Serialize) -> Result<()> {
        encode(entry, &mut self.bytes).map_err(|e| unwritable(&self.name, &e))?;
        self.entries += 1;
        Ok(())
    }

    /// The finished section.
    pub fn finish(self) -> Section {
        Section::new(self.name, self.kind, self.entries, self.bytes)
    }
}

/// Reads the entries of a section.
pub struct Reader<'a> {
    name: &'a str,
    bytes: Arc<Vec<u8>>,
    /// So many bytes are read.
    at: usize,
    left: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(name: &'a str, bytes: Arc<Vec<u8>>, entries: u64) -> Self {
        Reader { name, bytes, at: 0, left: entries }
    }

    /// The next entry, `None` behind the last.
    pub fn entry<E: DeserializeOwned>(&mut self) -> Result<Option<E>> {
        if self.left == 0 {
            return match self.bytes.len() - self.at {
                0 => Ok(None),
                bytes => Err(Error::corrupt(format!("state `{}` has {bytes} bytes behind its last entry", self.name))
                    .hint("if its type was changed: give the new one another name, and `migrated_from` the old one")),
            };
        }
        let (entry, rest) = decode(&self.bytes[self.at..]).map_err(|e| {
            Error::input(format!(
                "state `{}` does not hold entries of type {}: {e}",
                self.name,
                std::any::type_name::<E>()
            ))
            .hint("a state's type must not change: give the new one another name, and `migrated_from` the old one")
        })?;
        self.at = self.bytes.len() - rest.len();
        self.left -= 1;
        Ok(Some(entry))
    }
}
