//! A key of several columns as it stands in state. It hashes like the tuple of its values on the typed lane, so that both
//! lanes have the same key groups. The bytes and the hash are part of the state format: they must never change.

use std::hash::{Hash, Hasher};

use smallvec::SmallVec;

/// The values of a row's key columns, one behind the other. Short keys need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RowKey(SmallVec<[u8; 24]>);

/// One value of a key. Whether a number is signed does not matter, only its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Null,
    Bits8(u8),
    Bits16(u16),
    Bits32(u32),
    Bits64(u64),
    Text(&'a str),
}

impl Hash for Cell<'_> {
    /// As the value itself, without a mark of its kind.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Cell::Null => state.write_u8(0xfe),
            Cell::Bits8(value) => state.write_u8(*value),
            Cell::Bits16(value) => state.write_u16(*value),
            Cell::Bits32(value) => state.write_u32(*value),
            Cell::Bits64(value) => state.write_u64(*value),
            Cell::Text(text) => text.hash(state),
        }
    }
}

impl RowKey {
    /// Appends the value of the next column.
    #[inline]
    pub fn push(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Null => self.0.push(0),
            Cell::Bits8(value) => self.0.extend_from_slice(&[1, value]),
            Cell::Bits16(value) => self.fixed(2, value.to_le_bytes()),
            Cell::Bits32(value) => self.fixed(3, value.to_le_bytes()),
            Cell::Bits64(value) => self.fixed(4, value.to_le_bytes()),
            Cell::Text(text) => {
                self.fixed(5, (text.len() as u32).to_le_bytes());
                self.0.extend_from_slice(text.as_bytes());
            }
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.0.push(tag);
        self.0.extend_from_slice(&bytes);
    }

    /// The values, in the order of the columns.
    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }
}

/// The values of a key. Ends early at bytes that are none, which a damaged checkpoint may hold.
pub(crate) struct Cells<'a>(&'a [u8]);

impl<'a> Cells<'a> {
    #[inline]
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    #[inline]
    fn next(&mut self) -> Option<Cell<'a>> {
        let [tag] = self.bytes()?;
        Some(match tag {
            0 => Cell::Null,
            1 => Cell::Bits8(u8::from_le_bytes(self.bytes()?)),
            2 => Cell::Bits16(u16::from_le_bytes(self.bytes()?)),
            3 => Cell::Bits32(u32::from_le_bytes(self.bytes()?)),
            4 => Cell::Bits64(u64::from_le_bytes(self.bytes()?)),
            5 => {
                let length = u32::from_le_bytes(self.bytes()?) as usize;
                let (text, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Cell::Text(std::str::from_utf8(text).ok()?)
            }
            _ => return None,
        })
    }
}

impl Hash for RowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cells().for_each(|cell| cell.hash(state));
    }
}

impl serde::Serialize for RowKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for RowKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = RowKey;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("the bytes of a key")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RowKey, E> {
                Ok(RowKey(SmallVec::from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KEY_GROUPS, key_group};

    fn key(cells: &[Cell<'_>]) -> RowKey {
        let mut key = RowKey::default();
        cells.iter().for_each(|cell| key.push(*cell));
        key
    }

    #[test]
    fn the_bytes_of_the_state_format_do_not_change() {
        let (one, other) = (key(&[Cell::Bits64(258), Cell::Text("ab")]), key(&[Cell::Null, Cell::Text("c")]));
        assert_eq!(one.0.as_slice(), [4, 2, 1, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, b'a', b'b']);
        assert_eq!(other.0.as_slice(), [0, 5, 1, 0, 0, 0, b'c']);
        assert_eq!([key_group(&one), key_group(&other)], [key_group(&(258i64, "ab")), 9878]);
        assert_eq!(9878 * 128 / KEY_GROUPS, 38, "as when there were 128");
    }

    #[test]
    fn a_key_reads_back_and_damage_ends_it_early() {
        let cells = [Cell::Bits8(1), Cell::Bits16(2), Cell::Bits32(3), Cell::Null, Cell::Text("五"), Cell::Text("")];
        let written = key(&cells);
        assert_eq!(written.cells().collect::<Vec<_>>(), cells);
        let cut = RowKey(SmallVec::from_slice(&written.0[..written.0.len() - 7]));
        assert_eq!(cut.cells().collect::<Vec<_>>(), cells[..4]);
    }
}
