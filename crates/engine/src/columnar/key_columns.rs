//! Key columns of a batch, and the same keys as machine words.
//!
//! A word a column, and in front of them the bits of what is null: that is how tables of groups keep keys, side by side,
//! without memory of each one's own. The word of a text says where its bytes stand, which is beside the words.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_schema::{DataType, Field, TimeUnit};
use smallvec::SmallVec;
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, Result};

use super::groups::Group;
use super::row_key::{Cell, RowKey};
use crate::key::{KeyHasher, group_of_hash, new_hasher};

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
pub(super) fn check_key_type(name: &str, data_type: &DataType) -> Result<()> {
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

    fn nulls(&self) -> Option<&NullBuffer> {
        let nulls = match self {
            KeyColumn::Bool(values) => values.nulls(),
            KeyColumn::I8(values) => values.nulls(),
            KeyColumn::I16(values) => values.nulls(),
            KeyColumn::I32(values) => values.nulls(),
            KeyColumn::I64(values) => values.nulls(),
            KeyColumn::Text(values) => values.nulls(),
        };
        nulls.filter(|nulls| nulls.null_count() > 0)
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

    /// Writes every row's word, as if none were null, at a place of each `stride` words.
    fn write_words(&self, words: &mut [u64], stride: usize, at: usize) {
        fn all(words: &mut [u64], stride: usize, at: usize, values: impl Iterator<Item = u64>) {
            words.chunks_exact_mut(stride).zip(values).for_each(|(words, value)| words[at] = value);
        }
        match self {
            KeyColumn::Bool(values) => all(words, stride, at, values.values().iter().map(u64::from)),
            KeyColumn::I8(values) => all(words, stride, at, values.values().iter().map(|value| *value as u8 as u64)),
            KeyColumn::I16(values) => all(words, stride, at, values.values().iter().map(|value| *value as u16 as u64)),
            KeyColumn::I32(values) => all(words, stride, at, values.values().iter().map(|value| *value as u32 as u64)),
            KeyColumn::I64(values) => all(words, stride, at, values.values().iter().map(|value| *value as u64)),
            KeyColumn::Text(values) => {
                let ends = values.value_offsets().windows(2);
                all(words, stride, at, ends.map(|ends| text_word(ends[0] as u32, (ends[1] - ends[0]) as u32)));
            }
        }
    }
}

/// The word of a text: where its bytes begin, and how many there are.
pub(super) fn text_word(begin: u32, length: u32) -> u64 {
    (u64::from(begin) << 32) | u64::from(length)
}

/// The bytes a text's word stands for.
#[inline]
pub(super) fn text_bytes(word: u64, bytes: &[u8]) -> &[u8] {
    let begin = (word >> 32) as usize;
    bytes.get(begin..begin + word as u32 as usize).unwrap_or_default()
}

/// The key columns of one batch.
pub(super) struct KeyColumns {
    columns: Vec<KeyColumn>,
    rows: usize,
}

impl KeyColumns {
    /// The columns at these places.
    pub fn of(batch: &ColumnBatch, places: impl IntoIterator<Item = usize>) -> Result<Self> {
        let column = |place: usize| {
            let array = batch.columns().columns().get(place);
            array.and_then(key_column).ok_or_else(|| Error::bug(format!("column {place} cannot be a key")))
        };
        Ok(KeyColumns { columns: places.into_iter().map(column).collect::<Result<_>>()?, rows: batch.rows() })
    }

    /// A hash of each row's key.
    fn hashes(&self) -> impl Iterator<Item = u64> {
        let mut hashers = vec![new_hasher(); self.rows];
        self.columns.iter().for_each(|column| column.hash_into(&mut hashers));
        hashers.into_iter().map(|hasher| hasher.finish())
    }

    /// The key group of each row.
    pub fn groups(&self) -> impl Iterator<Item = u64> {
        self.hashes().map(group_of_hash)
    }
}

/// The keys of a batch in words.
pub(super) struct KeyBatch {
    /// So many words a row as the shape says.
    pub words: Vec<u64>,
    /// Of each row the bits of its hash by which a table finds it.
    pub tags: Vec<u32>,
    /// For each column of text the bytes its words stand for.
    texts: Vec<Buffer>,
}

impl KeyBatch {
    /// For each column of text the bytes its words stand for.
    pub fn texts(&self) -> Vec<&[u8]> {
        self.texts.iter().map(Buffer::as_slice).collect()
    }
}

/// The words of a key that stands alone.
pub(super) type KeyWords = SmallVec<[u64; 8]>;

/// The bits of a key's hash by which a table finds it. Those of its key group, which are alike on a worker, are others.
#[inline]
fn tag(hash: u64) -> u32 {
    hash as u32
}

/// A key in words.
#[derive(Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub words: &'a [u64],
    /// For each column of text the bytes its word stands for.
    pub texts: &'a [&'a [u8]],
}

/// How the keys of some columns stand in words.
pub(super) struct KeyShape {
    columns: Vec<ShapeColumn>,
    /// Words in front, with a bit for each column that is null; none if no column may be.
    null_words: usize,
    /// The words that stand for texts.
    texts: Vec<usize>,
}

struct ShapeColumn {
    data_type: DataType,
    width: Width,
}

/// What a column's word holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits8,
    Bits16,
    Bits32,
    Bits64,
    Text,
}

impl KeyShape {
    /// For columns of these types, all of which can be keys.
    pub fn new<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Result<Self> {
        let (mut columns, mut nullable) = (Vec::new(), false);
        for field in fields {
            let column = key_column(&arrow_array::new_empty_array(field.data_type()));
            let width = match column.ok_or_else(|| Error::bug(format!("`{}` cannot be a key", field.name())))? {
                KeyColumn::Bool(_) | KeyColumn::I8(_) => Width::Bits8,
                KeyColumn::I16(_) => Width::Bits16,
                KeyColumn::I32(_) => Width::Bits32,
                KeyColumn::I64(_) => Width::Bits64,
                KeyColumn::Text(_) => Width::Text,
            };
            nullable |= field.is_nullable();
            columns.push(ShapeColumn { data_type: field.data_type().clone(), width });
        }
        let null_words = if nullable { columns.len().div_ceil(64) } else { 0 };
        let texts = columns.iter().enumerate().filter(|(_, column)| column.width == Width::Text);
        let texts = texts.map(|(at, _)| null_words + at).collect();
        Ok(KeyShape { columns, null_words, texts })
    }

    /// Columns of a key.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Words of a key.
    pub fn words(&self) -> usize {
        self.null_words + self.columns.len()
    }

    /// The words that stand for texts.
    pub fn texts(&self) -> &[usize] {
        &self.texts
    }

    /// The types of the columns, as the state has named them ever since.
    pub fn describe(&self) -> String {
        let types: Vec<String> = self.columns.iter().map(|column| column.data_type.to_string()).collect();
        format!("{types:?}")
    }

    /// The keys of a batch.
    pub fn read(&self, keys: &KeyColumns) -> Result<KeyBatch> {
        let stride = self.words();
        let mut words = vec![0; keys.rows * stride];
        let mut texts = Vec::with_capacity(self.texts.len());
        for (at, column) in keys.columns.iter().enumerate() {
            column.write_words(&mut words, stride, self.null_words + at);
            if let KeyColumn::Text(values) = column {
                texts.push(values.values().clone());
            }
            let Some(nulls) = column.nulls() else { continue };
            if self.null_words == 0 {
                return Err(Error::bug("a null in a key column that has none by its schema"));
            }
            for row in (0..keys.rows).filter(|row| nulls.is_null(*row)) {
                words[row * stride + at / 64] |= 1 << (at % 64);
                words[row * stride + self.null_words + at] = 0;
            }
        }
        Ok(KeyBatch { words, tags: keys.hashes().map(tag).collect(), texts })
    }

    #[inline]
    fn is_null(&self, at: usize, words: &[u64]) -> bool {
        self.null_words > 0 && words[at / 64] >> (at % 64) & 1 != 0
    }

    /// Whether two keys are the same.
    #[inline]
    pub fn same(&self, key: KeyRef<'_>, held: &[u64], held_texts: &[u8]) -> bool {
        if self.texts.is_empty() {
            return match (key.words, held) {
                ([word], [held]) => word == held,
                (words, held) => words.iter().zip(held).all(|(word, held)| word == held),
            };
        }
        self.same_with_texts(key, held, held_texts)
    }

    fn same_with_texts(&self, key: KeyRef<'_>, held: &[u64], held_texts: &[u8]) -> bool {
        let mut text = 0;
        key.words.iter().zip(held).enumerate().all(|(at, (word, held))| {
            if self.texts.get(text) != Some(&at) {
                return word == held;
            }
            text += 1;
            // Lengths first.
            *word as u32 == *held as u32 && text_bytes(*word, key.texts[text - 1]) == text_bytes(*held, held_texts)
        })
    }

    /// A key as it stands in state.
    pub fn row_key(&self, words: &[u64], texts: &[u8]) -> RowKey {
        let mut key = RowKey::default();
        for (at, column) in self.columns.iter().enumerate() {
            let word = words[self.null_words + at];
            key.push(match column.width {
                _ if self.is_null(at, words) => Cell::Null,
                Width::Bits8 => Cell::Bits8(word as u8),
                Width::Bits16 => Cell::Bits16(word as u16),
                Width::Bits32 => Cell::Bits32(word as u32),
                Width::Bits64 => Cell::Bits64(word),
                Width::Text => Cell::Text(std::str::from_utf8(text_bytes(word, texts)).unwrap_or_default()),
            });
        }
        key
    }

    /// A key from state, its words and the bytes of its texts appended to these; and the bits by which a table finds it.
    pub fn parse(&self, key: &RowKey, words: &mut KeyWords, texts: &mut Vec<u8>) -> Result<u32> {
        let unlike = || Error::corrupt("a key in the state is none of the columns it was saved for");
        let begin = words.len();
        words.resize(begin + self.null_words, 0);
        let mut cells = key.cells();
        for (at, column) in self.columns.iter().enumerate() {
            let word = match (column.width, cells.next().ok_or_else(unlike)?) {
                (Width::Bits8, Cell::Bits8(value)) => value.into(),
                (Width::Bits16, Cell::Bits16(value)) => value.into(),
                (Width::Bits32, Cell::Bits32(value)) => value.into(),
                (Width::Bits64, Cell::Bits64(value)) => value,
                (Width::Text, Cell::Text(text)) => {
                    let at = texts.len() as u32;
                    texts.extend_from_slice(text.as_bytes());
                    text_word(at, text.len() as u32)
                }
                (_, Cell::Null) if self.null_words > 0 => {
                    words[begin + at / 64] |= 1 << (at % 64);
                    0
                }
                _ => return Err(unlike()),
            };
            words.push(word);
        }
        if cells.next().is_some() {
            return Err(unlike());
        }
        let mut hasher = new_hasher();
        key.hash(&mut hasher);
        Ok(tag(hasher.finish()))
    }

    /// A key column of these groups.
    pub fn column(&self, at: usize, groups: &[Group<'_>]) -> Result<ArrayRef> {
        let ShapeColumn { data_type, .. } = &self.columns[at];
        let place = self.null_words + at;
        let valid = |group: &Group<'_>| !self.is_null(at, group.key);
        let any_null = !groups.iter().all(valid);
        let nulls = any_null.then(|| groups.iter().map(valid).collect::<NullBuffer>());
        let words = groups.iter().map(|group| group.key[place]);
        macro_rules! numbers {
            ($native:ty, $plain:ty, $cast:ty) => {{
                let values: Vec<$native> = words.map(|word| word as $native).collect();
                let array = PrimitiveArray::<$plain>::new(values.into(), nulls).reinterpret_cast::<$cast>();
                Arc::new(array.with_data_type(data_type.clone())) as ArrayRef
            }};
        }
        Ok(match data_type {
            DataType::Boolean => Arc::new(BooleanArray::new(words.map(|word| word != 0).collect(), nulls)),
            DataType::Int8 => numbers!(i8, Int8Type, Int8Type),
            DataType::UInt8 => numbers!(u8, UInt8Type, UInt8Type),
            DataType::Int16 => numbers!(i16, Int16Type, Int16Type),
            DataType::UInt16 => numbers!(u16, UInt16Type, UInt16Type),
            DataType::Int32 => numbers!(i32, Int32Type, Int32Type),
            DataType::UInt32 => numbers!(u32, UInt32Type, UInt32Type),
            DataType::Date32 => numbers!(i32, Int32Type, Date32Type),
            DataType::Int64 => numbers!(i64, Int64Type, Int64Type),
            DataType::UInt64 => numbers!(u64, UInt64Type, UInt64Type),
            DataType::Timestamp(TimeUnit::Second, _) => numbers!(i64, Int64Type, TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => numbers!(i64, Int64Type, TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(i64, Int64Type, TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers!(i64, Int64Type, TimestampNanosecondType),
            DataType::Utf8 => {
                let texts = || groups.iter().map(|group| text_bytes(group.key[place], group.texts));
                let mut bytes = Vec::with_capacity(texts().map(<[u8]>::len).sum());
                let mut ends = Vec::with_capacity(groups.len() + 1);
                ends.push(0i32);
                for text in texts() {
                    bytes.extend_from_slice(text);
                    let end = i32::try_from(bytes.len());
                    ends.push(end.map_err(|_| Error::input("the keys of one batch have more than 2 GiB of text"))?);
                }
                let ends = arrow_buffer::OffsetBuffer::new(ends.into());
                Arc::new(StringArray::try_new(ends, Buffer::from_vec(bytes), nulls).map_err(failed)?)
            }
            other => return Err(Error::bug(format!("a key of type {other}"))),
        })
    }
}

/// The range of a place among `stride` words each.
#[inline]
pub(super) fn nth(at: usize, stride: usize) -> Range<usize> {
    at * stride..(at + 1) * stride
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
        let groups = |places: &[usize]| -> Vec<u64> {
            KeyColumns::of(&batch, places.iter().copied()).unwrap().groups().collect()
        };
        let schema = batch.schema();
        let shape = KeyShape::new(schema.fields().iter().map(|field| &**field)).unwrap();
        let keys = shape.read(&KeyColumns::of(&batch, 0..3).unwrap()).unwrap();
        for row in 0..4 {
            let (number, word, short) = (numbers[row], words[row].to_string(), small[row]);
            assert_eq!(groups(&[0])[row], key_group(&number));
            assert_eq!(groups(&[1])[row], key_group(&word));
            assert_eq!(groups(&[0, 1, 2])[row], key_group(&(number, word, short)));
            let saved = shape.row_key(&keys.words[nth(row, shape.words())], keys.texts()[0]);
            assert_eq!(groups(&[0, 1, 2])[row], key_group(&saved), "as the state has it");
            let (mut words, mut texts) = (KeyWords::new(), Vec::new());
            assert_eq!(shape.parse(&saved, &mut words, &mut texts).unwrap(), keys.tags[row], "tables find it again");
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
            Arc::new(PrimitiveArray::<Int16Type>::from(vec![-1, 2, 3])),
        ];
        let batch = batch(columns.clone());
        let schema = batch.schema();
        let shape = KeyShape::new(schema.fields().iter().map(|field| &**field)).unwrap();
        // A part of a batch begins somewhere in its texts.
        let slice = batch.slice(1, 2);
        let keys = shape.read(&KeyColumns::of(&slice, 0..columns.len()).unwrap()).unwrap();
        let (stride, texts) = (shape.words(), keys.texts());
        let group = |row: usize| Group { key: &keys.words[nth(row, stride)], parts: &[], texts: texts[0] };
        let groups = [group(0), group(1)];
        for (at, column) in columns.iter().enumerate() {
            assert_eq!(shape.column(at, &groups).unwrap().as_ref(), column.slice(1, 2).as_ref());
        }
        let key = |row: usize| KeyRef { words: groups[row].key, texts: &texts };
        assert!(shape.same(key(0), groups[0].key, texts[0]) && !shape.same(key(0), groups[1].key, texts[0]));
        assert!(check_key_type("x", &DataType::Float64).unwrap_err().to_string().contains("cannot be a key"));
    }

    #[test]
    fn a_null_where_the_schema_has_none_is_refused() {
        let field = Field::new("a", DataType::Int64, false);
        let shape = KeyShape::new([&field]).unwrap();
        let batch = batch(vec![Arc::new(Int64Array::from(vec![Some(1), None]))]);
        assert!(shape.read(&KeyColumns::of(&batch, [0]).unwrap()).is_err());
    }
}
