//! Records as columns: what flows on the columnar lane (SQL, rules, formats that know their schema) where the typed lane has
//! one value after the other.
//!
//! A [`ColumnBatch`] is an Arrow `RecordBatch` with an event time for each row and, where rows can be taken back, the kind
//! of each row. Copies share their memory.

use std::sync::Arc;

/// Arrow's arrays, in the version that batches are made of.
pub use arrow_array;
/// Arrow's schemas, in the version that batches are made of.
pub use arrow_schema;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt8Array, UInt32Array};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::event::NO_TIMESTAMP;

/// What a row does to the result it belongs to. The numbers are Flink's, and stand in state and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RowKind {
    /// `+I`: the row is new.
    Insert = 0,
    /// `-U`: the row as it was before an update; the new one follows.
    UpdateBefore = 1,
    /// `+U`: the row as it is after an update.
    UpdateAfter = 2,
    /// `-D`: the row is gone.
    Delete = 3,
}

impl RowKind {
    /// The kind of this number.
    pub fn of(number: u8) -> Option<RowKind> {
        [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete].get(number as usize).copied()
    }

    /// Whether the row takes an earlier one back (`-U`, `-D`).
    pub fn retracts(self) -> bool {
        matches!(self, RowKind::UpdateBefore | RowKind::Delete)
    }
}

/// Rows of one schema as columns, with an event time and a kind for each.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnBatch {
    columns: RecordBatch,
    /// In epoch ms, `NO_TIMESTAMP` where there is none; never null.
    times_ms: Int64Array,
    /// `None`: every row is an insert.
    kinds: Option<UInt8Array>,
}

/// The columns of event times and kinds behind those of the rows, where a batch stands as one `RecordBatch`.
const TIME_COLUMN: &str = "__event_time_ms";
const KIND_COLUMN: &str = "__row_kind";

impl ColumnBatch {
    /// Inserted rows without event times.
    pub fn new(columns: RecordBatch) -> Self {
        let times_ms = Int64Array::from_value(NO_TIMESTAMP, columns.num_rows());
        ColumnBatch { columns, times_ms, kinds: None }
    }

    /// The same rows with these event times in epoch ms, one a row; a null is [`NO_TIMESTAMP`].
    pub fn with_times(self, times_ms: Int64Array) -> Result<Self> {
        self.fits(times_ms.len(), "event times")?;
        let times_ms = match times_ms.null_count() {
            0 => times_ms,
            _ => times_ms.iter().map(|time_ms| time_ms.unwrap_or(NO_TIMESTAMP)).collect(),
        };
        Ok(ColumnBatch { times_ms, ..self })
    }

    /// The same rows of these kinds, one a row, by [`RowKind`]'s numbers.
    pub fn with_kinds(self, kinds: UInt8Array) -> Result<Self> {
        self.fits(kinds.len(), "row kinds")?;
        if kinds.null_count() > 0 || kinds.values().iter().any(|kind| RowKind::of(*kind).is_none()) {
            return Err(Error::corrupt("a row's kind is none of +I, -U, +U, -D (0 to 3)"));
        }
        let kinds = kinds.values().iter().any(|kind| *kind != RowKind::Insert as u8).then_some(kinds);
        Ok(ColumnBatch { kinds, ..self })
    }

    /// Other columns for the same rows.
    pub fn with_columns(self, columns: RecordBatch) -> Result<Self> {
        self.fits(columns.num_rows(), "rows")?;
        Ok(ColumnBatch { columns, ..self })
    }

    fn fits(&self, count: usize, what: &str) -> Result<()> {
        match self.rows() == count {
            true => Ok(()),
            false => Err(Error::bug(format!("{count} {what} for a batch of {} rows", self.rows()))),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.columns.num_rows()
    }

    /// About how many bytes its rows take.
    pub fn bytes(&self) -> usize {
        let column = |column: &ArrayRef| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
        };
        size_of_val(self.times_ms()) + self.columns.columns().iter().map(column).sum::<usize>()
    }

    /// The rows' columns.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    /// A column by its name.
    pub fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.columns.column_by_name(name).ok_or_else(|| no_column(name, self.columns.schema_ref()))
    }

    /// The rows' event times in epoch ms.
    pub fn times_ms(&self) -> &[i64] {
        self.times_ms.values()
    }

    /// The largest event time, [`NO_TIMESTAMP`] when there is none. A batch travels as a record of this time.
    pub fn latest_ms(&self) -> i64 {
        self.times_ms().iter().copied().max().unwrap_or(NO_TIMESTAMP)
    }

    /// The rows' kinds by [`RowKind`]'s numbers; `None` when every row is an insert.
    pub fn kinds(&self) -> Option<&[u8]> {
        self.kinds.as_ref().map(|kinds| kinds.values().as_ref())
    }

    /// The kind of a row.
    pub fn kind(&self, row: usize) -> RowKind {
        self.kinds().and_then(|kinds| RowKind::of(*kinds.get(row)?)).unwrap_or(RowKind::Insert)
    }

    /// The rows `from..from + rows`, without copying them.
    pub fn slice(&self, from: usize, rows: usize) -> Self {
        ColumnBatch {
            columns: self.columns.slice(from, rows),
            times_ms: self.times_ms.slice(from, rows),
            kinds: self.kinds.as_ref().map(|kinds| kinds.slice(from, rows)),
        }
    }

    /// The rows of these numbers, in this order.
    pub fn take(&self, rows: &UInt32Array) -> Result<Self> {
        use arrow_select::take::{take, take_record_batch};
        let kinds = self.kinds.as_ref().map(|kinds| take(kinds, rows, None)).transpose().map_err(failed)?;
        Ok(ColumnBatch {
            columns: take_record_batch(&self.columns, rows).map_err(failed)?,
            times_ms: take(&self.times_ms, rows, None).map_err(failed)?.as_primitive().clone(),
            kinds: kinds.map(|kinds| kinds.as_primitive().clone()),
        })
    }

    /// The rows where `keep` is true.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        Self::unpacked(arrow_select::filter::filter_record_batch(&self.packed()?, keep).map_err(failed)?)
    }

    /// All rows of batches of one schema, in order. `None` without any batch.
    pub fn concat(batches: &[ColumnBatch]) -> Result<Option<Self>> {
        let Some(first) = batches.first() else { return Ok(None) };
        let columns: Vec<&RecordBatch> = batches.iter().map(|batch| &batch.columns).collect();
        let columns = arrow_select::concat::concat_batches(&first.schema(), columns).map_err(failed)?;
        let times_ms = batches.iter().flat_map(|batch| batch.times_ms().iter().copied()).collect::<Vec<i64>>();
        let joined = ColumnBatch::new(columns).with_times(times_ms.into())?;
        if batches.iter().all(|batch| batch.kinds.is_none()) {
            return Ok(Some(joined));
        }
        let kinds = batches.iter().flat_map(|batch| (0..batch.rows()).map(|row| batch.kind(row) as u8));
        joined.with_kinds(kinds.collect::<Vec<u8>>().into()).map(Some)
    }

    /// Everything as one `RecordBatch`: behind the columns the event times, and the kinds if they are not all inserts.
    pub fn packed(&self) -> Result<RecordBatch> {
        let mut fields = self.columns.schema_ref().fields().to_vec();
        let mut arrays = self.columns.columns().to_vec();
        fields.push(Arc::new(Field::new(TIME_COLUMN, DataType::Int64, false)));
        arrays.push(Arc::new(self.times_ms.clone()));
        if let Some(kinds) = &self.kinds {
            fields.push(Arc::new(Field::new(KIND_COLUMN, DataType::UInt8, false)));
            arrays.push(Arc::new(kinds.clone()));
        }
        let schema = Schema::new_with_metadata(fields, self.columns.schema_ref().metadata().clone());
        RecordBatch::try_new(Arc::new(schema), arrays).map_err(failed)
    }

    /// Back from [`ColumnBatch::packed`].
    pub fn unpacked(packed: RecordBatch) -> Result<Self> {
        let unlike = || Error::corrupt("columns that were not packed by a column batch");
        let width = packed.num_columns();
        let has_kinds = width > 0 && packed.schema_ref().field(width - 1).name() == KIND_COLUMN;
        let own = width.checked_sub(1 + usize::from(has_kinds)).ok_or_else(unlike)?;
        let times = packed.column(own);
        if packed.schema_ref().field(own).name() != TIME_COLUMN {
            return Err(unlike());
        }
        let times = times.as_primitive_opt::<Int64Type>().ok_or_else(unlike)?.clone();
        let kinds = match has_kinds {
            true => Some(packed.column(width - 1).as_primitive_opt::<UInt8Type>().ok_or_else(unlike)?.clone()),
            false => None,
        };
        let rows = packed.num_rows();
        let fields = packed.schema_ref().fields()[..own].to_vec();
        let schema = Schema::new_with_metadata(fields, packed.schema_ref().metadata().clone());
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = packed.columns()[..own].to_vec();
        let columns = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options).map_err(failed)?;
        let batch = ColumnBatch::new(columns).with_times(times)?;
        kinds.map_or(Ok(batch.clone()), |kinds| batch.with_kinds(kinds))
    }
}

/// A column that is asked for and not there.
pub fn no_column(name: &str, schema: &Schema) -> Error {
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Error::input(format!("there is no column `{name}`")).hint(format!("the columns are: {}", known.join(", ")))
}

/// What Arrow refused.
pub fn failed(error: ArrowError) -> Error {
    Error::input(format!("columns: {error}"))
}

/// A batch that stands for itself, in state for example: an Arrow stream of one batch, schema included.
impl Serialize for ColumnBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let write = || -> Result<Vec<u8>> {
            let packed = self.packed()?;
            let mut writer = StreamWriter::try_new(Vec::new(), packed.schema_ref()).map_err(failed)?;
            writer.write(&packed).map_err(failed)?;
            writer.into_inner().map_err(failed)
        };
        serializer.serialize_bytes(&write().map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for ColumnBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = ColumnBatch;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("the bytes of an Arrow stream")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ColumnBatch, E> {
                let read = || -> Result<ColumnBatch> {
                    let decoded = StreamDecoder::new().decode(&mut Buffer::from(bytes)).map_err(failed)?;
                    ColumnBatch::unpacked(decoded.ok_or_else(|| Error::corrupt("an Arrow stream without a batch"))?)
                };
                read().map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::StringArray;

    fn batch() -> ColumnBatch {
        let schema =
            Schema::new(vec![Field::new("name", DataType::Utf8, true), Field::new("amount", DataType::Int64, false)]);
        let names = StringArray::from(vec![Some("a"), None, Some("五")]);
        let columns =
            RecordBatch::try_new(Arc::new(schema), vec![Arc::new(names), Arc::new(Int64Array::from(vec![1, 2, 3]))]);
        ColumnBatch::new(columns.unwrap()).with_times(vec![10, 30, 20].into()).unwrap()
    }

    #[test]
    fn times_and_kinds_go_with_their_rows() {
        let batch = batch().with_kinds(vec![0, 3, 2].into()).unwrap();
        assert_eq!((batch.latest_ms(), batch.kind(1), batch.kind(2)), (30, RowKind::Delete, RowKind::UpdateAfter));
        let taken = batch.take(&vec![2, 0].into()).unwrap();
        assert_eq!((taken.times_ms(), taken.kinds()), ([20, 10].as_slice(), Some([2, 0].as_slice())));
        assert_eq!(taken.column("amount").unwrap().as_primitive::<Int64Type>().values(), &[3, 1]);
        let kept = batch.filter(&vec![true, false, false].into()).unwrap();
        assert_eq!((kept.rows(), kept.kinds()), (1, None), "only inserts are left");
        let joined = ColumnBatch::concat(&[kept, batch.slice(1, 2)]).unwrap().unwrap();
        assert_eq!(joined, batch);
    }

    #[test]
    fn a_batch_stands_for_itself_as_bytes() {
        for batch in
            [batch(), batch().with_kinds(vec![1, 2, 0].into()).unwrap(), batch().slice(1, 1), batch().slice(0, 0)]
        {
            let text = serde_json::to_vec(&Packed(batch.clone())).unwrap();
            let back: Packed = serde_json::from_slice(&text).unwrap();
            assert_eq!(back.0, batch);
        }
        /// JSON has no bytes: as a list of numbers, and back as bytes.
        #[derive(Serialize)]
        struct Packed(ColumnBatch);
        impl<'de> Deserialize<'de> for Packed {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = Vec::<u8>::deserialize(deserializer)?;
                let bytes = serde::de::value::BytesDeserializer::<D::Error>::new(&bytes);
                ColumnBatch::deserialize(bytes).map(Packed)
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(batch().with_times(vec![1].into()).is_err());
        assert!(batch().with_kinds(vec![0, 4, 0].into()).is_err());
        assert!(batch().column("price").unwrap_err().to_string().contains("price"));
        assert!(ColumnBatch::unpacked(batch().columns().clone()).is_err());
        let bytes = serde::de::value::BytesDeserializer::<serde::de::value::Error>::new(b"no stream");
        assert!(ColumnBatch::deserialize(bytes).is_err());
    }
}
