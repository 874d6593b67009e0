//! Keys of several columns. A key hashes like the tuple of its values on the typed lane, so that both lanes have the same
//! key groups; nulls are equal to each other. The bytes and the hash are part of the state format: they must never change.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray};
use arrow_schema::{DataType, TimeUnit};
use smallvec::SmallVec;
use tidemill_core::{ColumnBatch, Error, Result};

use crate::key::{KeyHasher, group_of_hash, new_hasher};

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
    #[inline]
    fn push(&mut self, cell: Cell<'_>) {
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

/// A key column of one batch.
enum KeyColumn {
    Bool(BooleanArray),
    I8(PrimitiveArray<Int8Type>),
    I16(PrimitiveArray<Int16Type>),
    I32(PrimitiveArray<Int32Type>),
    I64(PrimitiveArray<Int64Type>),
    Text(StringArray),
}

/// How a key column of this type is read; `None` when it cannot be a key.
fn key_column(array: &ArrayRef) -> Option<KeyColumn> {
    fn like<F: ArrowPrimitiveType, T: ArrowPrimitiveType<Native = F::Native>>(array: &ArrayRef) -> PrimitiveArray<T> {
        array.as_primitive::<F>().reinterpret_cast()
    }
    Some(match array.data_type() {
        DataType::Boolean => KeyColumn::Bool(array.as_boolean().clone()),
        DataType::Int8 => KeyColumn::I8(array.as_primitive().clone()),
        DataType::UInt8 => KeyColumn::I8(array.as_primitive::<UInt8Type>().unary(|value| value as i8)),
        DataType::Int16 => KeyColumn::I16(array.as_primitive().clone()),
        DataType::UInt16 => KeyColumn::I16(array.as_primitive::<UInt16Type>().unary(|value| value as i16)),
        DataType::Int32 => KeyColumn::I32(array.as_primitive().clone()),
        DataType::UInt32 => KeyColumn::I32(array.as_primitive::<UInt32Type>().unary(|value| value as i32)),
        DataType::Date32 => KeyColumn::I32(like::<Date32Type, _>(array)),
        DataType::Int64 => KeyColumn::I64(array.as_primitive().clone()),
        DataType::UInt64 => KeyColumn::I64(array.as_primitive::<UInt64Type>().unary(|value| value as i64)),
        DataType::Timestamp(TimeUnit::Second, _) => KeyColumn::I64(like::<TimestampSecondType, _>(array)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => KeyColumn::I64(like::<TimestampMillisecondType, _>(array)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => KeyColumn::I64(like::<TimestampMicrosecondType, _>(array)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => KeyColumn::I64(like::<TimestampNanosecondType, _>(array)),
        DataType::Utf8 => KeyColumn::Text(array.as_string().clone()),
        _ => return None,
    })
}

/// Whether columns of this type can be keys: an error that says which can.
pub(crate) fn check_key_type(name: &str, data_type: &DataType) -> Result<()> {
    match key_column(&arrow_array::new_empty_array(data_type)) {
        Some(_) => Ok(()),
        None => Err(Error::input(format!("column `{name}` of type {data_type} cannot be a key"))
            .hint("keys are booleans, integers, dates, timestamps and strings")),
    }
}

impl KeyColumn {
    #[inline]
    fn cell(&self, row: usize) -> Cell<'_> {
        match self {
            KeyColumn::Bool(values) if values.is_valid(row) => Cell::Bits8(u8::from(values.value(row))),
            KeyColumn::I8(values) if values.is_valid(row) => Cell::Bits8(values.value(row) as u8),
            KeyColumn::I16(values) if values.is_valid(row) => Cell::Bits16(values.value(row) as u16),
            KeyColumn::I32(values) if values.is_valid(row) => Cell::Bits32(values.value(row) as u32),
            KeyColumn::I64(values) if values.is_valid(row) => Cell::Bits64(values.value(row) as u64),
            KeyColumn::Text(values) if values.is_valid(row) => Cell::Text(values.value(row)),
            _ => Cell::Null,
        }
    }

    /// Hashes every row's value into the row's hasher.
    fn hash_into(&self, hashers: &mut [KeyHasher]) {
        fn all<'a>(hashers: &mut [KeyHasher], cells: impl Iterator<Item = Cell<'a>>) {
            hashers.iter_mut().zip(cells).for_each(|(hasher, cell)| cell.hash(hasher));
        }
        match self {
            KeyColumn::I64(values) if values.null_count() == 0 => {
                all(hashers, values.values().iter().map(|value| Cell::Bits64(*value as u64)));
            }
            KeyColumn::I32(values) if values.null_count() == 0 => {
                all(hashers, values.values().iter().map(|value| Cell::Bits32(*value as u32)));
            }
            KeyColumn::Text(values) if values.null_count() == 0 => {
                all(hashers, (0..values.len()).map(|row| Cell::Text(values.value(row))));
            }
            other => all(hashers, (0..hashers.len()).map(|row| other.cell(row))),
        }
    }
}

/// The key columns of one batch.
pub(crate) struct KeyColumns {
    columns: Vec<KeyColumn>,
    rows: usize,
}

impl KeyColumns {
    /// The columns at these places.
    pub fn of(batch: &ColumnBatch, places: &[usize]) -> Result<Self> {
        let column = |place: &usize| {
            let array = batch.columns().columns().get(*place);
            array.and_then(key_column).ok_or_else(|| Error::bug(format!("column {place} cannot be a key")))
        };
        Ok(KeyColumns { columns: places.iter().map(column).collect::<Result<_>>()?, rows: batch.rows() })
    }

    fn hashers(&self) -> Vec<KeyHasher> {
        let mut hashers = vec![new_hasher(); self.rows];
        self.columns.iter().for_each(|column| column.hash_into(&mut hashers));
        hashers
    }

    /// A hash of each row's key.
    pub fn hashes(&self) -> Vec<u64> {
        self.hashers().into_iter().map(|hasher| hasher.finish()).collect()
    }

    /// The key group of each row.
    pub fn groups(&self) -> Vec<u64> {
        self.hashers().into_iter().map(|hasher| group_of_hash(hasher.finish())).collect()
    }

    /// Whether two rows have the same key.
    #[inline]
    pub fn same(&self, one: usize, other: usize) -> bool {
        self.columns.iter().all(|column| column.cell(one) == column.cell(other))
    }

    /// The key of a row.
    #[inline]
    pub fn key(&self, row: usize) -> RowKey {
        let mut key = RowKey::default();
        self.columns.iter().for_each(|column| key.push(column.cell(row)));
        key
    }
}

/// The column of the values at `place` in keys, as the type it was read from.
pub(crate) fn column_of(keys: &[RowKey], place: usize, data_type: &DataType) -> Result<ArrayRef> {
    let cells = || keys.iter().map(|key| key.cells().nth(place));
    let unlike = || Error::corrupt(format!("a key in the state has no {data_type} at place {place}"));
    macro_rules! numbers {
        ($bits:ident, $native:ty, $plain:ty, $cast:ty) => {{
            let mut values = Vec::with_capacity(keys.len());
            for cell in cells() {
                values.push(match cell {
                    Some(Cell::Null) => None,
                    Some(Cell::$bits(value)) => Some(value as $native),
                    _ => return Err(unlike()),
                });
            }
            let array = PrimitiveArray::<$plain>::from(values).reinterpret_cast::<$cast>();
            Arc::new(array.with_data_type(data_type.clone())) as ArrayRef
        }};
    }
    Ok(match data_type {
        DataType::Boolean => {
            let mut values = Vec::with_capacity(keys.len());
            for cell in cells() {
                values.push(match cell {
                    Some(Cell::Null) => None,
                    Some(Cell::Bits8(value)) => Some(value != 0),
                    _ => return Err(unlike()),
                });
            }
            Arc::new(BooleanArray::from(values))
        }
        DataType::Int8 => numbers!(Bits8, i8, Int8Type, Int8Type),
        DataType::UInt8 => numbers!(Bits8, u8, UInt8Type, UInt8Type),
        DataType::Int16 => numbers!(Bits16, i16, Int16Type, Int16Type),
        DataType::UInt16 => numbers!(Bits16, u16, UInt16Type, UInt16Type),
        DataType::Int32 => numbers!(Bits32, i32, Int32Type, Int32Type),
        DataType::UInt32 => numbers!(Bits32, u32, UInt32Type, UInt32Type),
        DataType::Date32 => numbers!(Bits32, i32, Int32Type, Date32Type),
        DataType::Int64 => numbers!(Bits64, i64, Int64Type, Int64Type),
        DataType::UInt64 => numbers!(Bits64, u64, UInt64Type, UInt64Type),
        DataType::Timestamp(TimeUnit::Second, _) => numbers!(Bits64, i64, Int64Type, TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => numbers!(Bits64, i64, Int64Type, TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(Bits64, i64, Int64Type, TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers!(Bits64, i64, Int64Type, TimestampNanosecondType),
        DataType::Utf8 => {
            let mut values = arrow_array::builder::StringBuilder::with_capacity(keys.len(), keys.len() * 8);
            for cell in cells() {
                match cell {
                    Some(Cell::Null) => values.append_null(),
                    Some(Cell::Text(text)) => values.append_value(text),
                    _ => return Err(unlike()),
                }
            }
            Arc::new(values.finish())
        }
        other => return Err(Error::bug(format!("a key of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_group;
    use arrow_array::{Date32Array, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray, UInt8Array};

    fn batch(columns: Vec<ArrayRef>) -> ColumnBatch {
        let named = columns.into_iter().enumerate().map(|(at, array)| (format!("c{at}"), array));
        ColumnBatch::new(RecordBatch::try_from_iter(named).unwrap())
    }

    #[test]
    fn key_groups_are_those_of_the_typed_lane() {
        let numbers = [0i64, -5, i64::MAX, 42];
        let words = ["a", "北京", "", "a longer word than fits into a key without memory"];
        let small = [7i32, -1, 0, i32::MIN];
        let batch = batch(vec![
            Arc::new(Int64Array::from(numbers.to_vec())),
            Arc::new(StringArray::from(words.to_vec())),
            Arc::new(Int32Array::from(small.to_vec())),
        ]);
        let of = |places: &[usize]| KeyColumns::of(&batch, places).unwrap();
        for row in 0..4 {
            let (number, word, short) = (numbers[row], words[row].to_string(), small[row]);
            assert_eq!(of(&[0]).groups()[row], key_group(&number));
            assert_eq!(of(&[1]).groups()[row], key_group(&word));
            assert_eq!(of(&[0, 1, 2]).groups()[row], key_group(&(number, word, short)));
            assert_eq!(of(&[0, 1, 2]).groups()[row], key_group(&of(&[0, 1, 2]).key(row)), "as the state has it");
        }
    }

    #[test]
    fn keys_come_back_as_the_columns_they_were() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)])),
            Arc::new(StringArray::from(vec![None, Some(""), Some("long long long long long")])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            Arc::new(UInt8Array::from(vec![Some(255), None, Some(0)])),
            Arc::new(Date32Array::from(vec![Some(-1), Some(20_000), None])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(5), None, Some(7)]).with_timezone("Asia/Shanghai")),
        ];
        let places: Vec<usize> = (0..columns.len()).collect();
        let batch = batch(columns.clone());
        let keys = KeyColumns::of(&batch, &places).unwrap();
        let written: Vec<RowKey> = (0..3).map(|row| keys.key(row)).collect();
        for (place, column) in columns.iter().enumerate() {
            assert_eq!(&column_of(&written, place, column.data_type()).unwrap(), column);
        }
        assert!(column_of(&written, 0, &DataType::Utf8).is_err());
        assert!(keys.same(1, 1) && !keys.same(0, 1));
        assert!(check_key_type("x", &DataType::Float64).unwrap_err().to_string().contains("cannot be a key"));
    }

    #[test]
    fn the_bytes_of_the_state_format_do_not_change() {
        let batch = batch(vec![
            Arc::new(Int64Array::from(vec![Some(258), None])),
            Arc::new(StringArray::from(vec!["ab", "c"])),
        ]);
        let keys = KeyColumns::of(&batch, &[0, 1]).unwrap();
        assert_eq!(keys.key(0).0.as_slice(), [4, 2, 1, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, b'a', b'b']);
        assert_eq!(keys.key(1).0.as_slice(), [0, 5, 1, 0, 0, 0, b'c']);
        assert_eq!(keys.groups(), [key_group(&(258i64, "ab")), 9878]);
        assert_eq!(9878 * 128 / crate::key::KEY_GROUPS, 38, "as when there were 128");
    }
}
