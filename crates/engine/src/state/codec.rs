//! Values as bytes in state: postcard, one entry behind the other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::{Error, Result};

use super::{Section, SectionKind};

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

    /// Makes room for about this many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends an entry. A keyed section's entries are tuples that begin with the key.
    pub fn entry(&mut self, entry: &impl Serialize) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(entry, bytes).map_err(|e| {
            Error::input(format!("state `{}` holds a value that cannot be written as bytes: {e}", self.name))
        })?;
        self.entries += 1;
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished section.
    pub fn finish(self) -> Section {
        Section::new(self.name, self.kind, self.entries, self.bytes)
    }
}

/// Reads the entries of a section.
pub struct Reader<'a> {
    name: &'a str,
    rest: &'a [u8],
    left: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(name: &'a str, bytes: &'a [u8], entries: u64) -> Self {
        Reader { name, rest: bytes, left: entries }
    }

    /// The next entry, `None` behind the last.
    pub fn entry<E: DeserializeOwned>(&mut self) -> Result<Option<E>> {
        if self.left == 0 {
            return match self.rest.len() {
                0 => Ok(None),
                bytes => Err(Error::corrupt(format!("state `{}` has {bytes} bytes behind its last entry", self.name))
                    .hint("if its type was changed: give the new one another name, and `migrated_from` the old one")),
            };
        }
        let (entry, rest) = postcard::take_from_bytes(self.rest).map_err(|e| {
            Error::input(format!(
                "state `{}` does not hold entries of type {}: {e}",
                self.name,
                std::any::type_name::<E>()
            ))
            .hint("a state's type must not change: give the new one another name, and `migrated_from` the old one")
        })?;
        self.rest = rest;
        self.left -= 1;
        Ok(Some(entry))
    }
}
