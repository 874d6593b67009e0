//! Parquet files as columns: only the columns asked for are read, by name.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt8Type,
    UInt16Type, UInt32Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions, new_empty_array, new_null_array};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use tidemill_core::columns::failed;
use tidemill_core::{Error, Result};

use super::container::{BATCH_ROWS, Container, Part, Records};
use crate::format::columns::Rows;

/// Parquet files, read as columns of a schema: a column of the file goes to the one of its name; one that is not in the file is
/// null where the schema allows it; other columns are not read. Pages may be packed by Snappy, gzip, LZ4 or Zstandard.
///
/// Columns are `Boolean`, `Int32` (also days of a date), `Int64`, `Float64`, `Utf8`, `Decimal128` (of the same scale), and timestamps
/// in milliseconds; narrower numbers and timestamps of other units are converted. A row with a null where the schema allows
/// none goes to the dead letters; a damaged page fails the job. Row groups before a position are not read again.
#[derive(Debug, Clone)]
pub struct ParquetFiles {
    schema: SchemaRef,
}

impl ParquetFiles {
    /// The columns of this schema. An error if one has another type than those above.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(ParquetFiles { schema })
    }
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::input(format!("not to be read as Parquet: {error}"))
}

impl Container for ParquetFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn open(&self, path: &Path, records: u64) -> Result<Box<dyn Records>> {
        let file = File::open(path).map_err(|error| Error::io("open it", error))?;
        // Its columns as Parquet says, not as the Arrow program that wrote it saw them.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(refused)?;
        let in_file = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if records > in_file {
            return Err(Error::input(format!("it has only {in_file} records")));
        }
        let mut places = Vec::new();
        for column in self.schema.fields() {
            let Some((place, found)) = builder.schema().column_with_name(column.name()) else { continue };
            if converted(&new_empty_array(found.data_type()), column.data_type()).is_none() {
                let text = format!(
                    "its column `{}` is {}, and {} is wanted",
                    column.name(),
                    found.data_type(),
                    column.data_type()
                );
                return Err(Error::input(text).hint("ask for a type it can be read as"));
            }
            places.push(place);
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), places);
        // A batch begins where it would have begun in a reading from the beginning.
        let records = usize::try_from(records).map_err(refused)?;
        let (offset, passed) = (records - records % BATCH_ROWS, records % BATCH_ROWS);
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_offset(offset).build();
        let batches = reader.map_err(refused)?;
        Ok(Box::new(ParquetRecords { batches, schema: self.schema.clone(), passed, parts: VecDeque::new() }))
    }
}

struct ParquetRecords {
    batches: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Rows of the first batch that stand before the position.
    passed: usize,
    /// Of the batch read last.
    parts: VecDeque<Part>,
}

impl Records for ParquetRecords {
    fn next(&mut self) -> Result<Option<Part>> {
        while self.parts.is_empty() {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(refused)?;
            let passed = std::mem::take(&mut self.passed).min(batch.num_rows());
            self.take(&batch.slice(passed, batch.num_rows() - passed))?;
        }
        Ok(self.parts.pop_front())
    }
}

impl ParquetRecords {
    /// A batch as columns of the schema, divided where a row has to be refused.
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let count = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for column in self.schema.fields() {
            columns.push(match batch.column_by_name(column.name()) {
                None => new_null_array(column.data_type(), count),
                Some(found) => converted(found, column.data_type())
                    .ok_or_else(|| Error::bug(format!("column `{}` was checked at the beginning", column.name())))?,
            });
        }
        let required = self.schema.fields().iter().zip(&columns).filter(|(column, _)| !column.is_nullable());
        let required: Vec<(&str, &ArrayRef)> =
            required.map(|(column, array)| (column.name().as_str(), array)).collect();
        let missing = |row: usize| required.iter().find(|(_, array)| array.is_null(row)).map(|(name, _)| *name);
        let mut begin = 0;
        for row in 0..=count {
            let reason = match row < count {
                true => missing(row),
                false => None,
            };
            if row < count && reason.is_none() {
                continue;
            }
            if row > begin {
                let rows = columns.iter().map(|column| column.slice(begin, row - begin)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(row - begin));
                let rows = RecordBatch::try_new_with_options(self.schema.clone(), rows, &options).map_err(failed)?;
                self.parts.push_back(Part::Rows(rows));
            }
            if let Some(name) = reason {
                self.parts.push_back(Part::Refused(format!("field `{name}` is missing")));
            }
            begin = row + 1;
        }
        Ok(())
    }
}

/// A column of a file as the type that is wanted; `None` where it cannot be.
fn converted(column: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    use DataType as D;
    Some(match (column.data_type(), wanted) {
        (found, wanted) if found == wanted => column.clone(),
        (D::Int8, D::Int32) => widened::<Int8Type, Int32Type>(column, i32::from),
        (D::Int16, D::Int32) => widened::<Int16Type, Int32Type>(column, i32::from),
        (D::UInt8, D::Int32) => widened::<UInt8Type, Int32Type>(column, i32::from),
        (D::UInt16, D::Int32) => widened::<UInt16Type, Int32Type>(column, i32::from),
        (D::Date32, D::Int32) => widened::<Date32Type, Int32Type>(column, |days| days),
        (D::Int8, D::Int64) => widened::<Int8Type, Int64Type>(column, i64::from),
        (D::Int16, D::Int64) => widened::<Int16Type, Int64Type>(column, i64::from),
        (D::Int32, D::Int64) => widened::<Int32Type, Int64Type>(column, i64::from),
        (D::UInt8, D::Int64) => widened::<UInt8Type, Int64Type>(column, i64::from),
        (D::UInt16, D::Int64) => widened::<UInt16Type, Int64Type>(column, i64::from),
        (D::UInt32, D::Int64) => widened::<UInt32Type, Int64Type>(column, i64::from),
        (D::Float32, D::Float64) => widened::<Float32Type, Float64Type>(column, f64::from),
        (D::Timestamp(unit, _), D::Timestamp(TimeUnit::Millisecond, zone)) => {
            let times = match unit {
                TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().clone(),
                TimeUnit::Microsecond => milliseconds::<TimestampMicrosecondType>(column, 1_000),
                TimeUnit::Nanosecond => milliseconds::<TimestampNanosecondType>(column, 1_000_000),
                // Parquet has none.
                TimeUnit::Second => return None,
            };
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        (D::Decimal128(found, scale), D::Decimal128(precision, of_wanted))
            if scale == of_wanted && found <= precision =>
        {
            let decimals = column.as_primitive::<Decimal128Type>().clone();
            Arc::new(decimals.with_precision_and_scale(*precision, *scale).ok()?)
        }
        _ => return None,
    })
}

fn widened<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    column: &ArrayRef,
    widen: impl Fn(A::Native) -> B::Native,
) -> ArrayRef {
    Arc::new(column.as_primitive::<A>().unary::<_, B>(widen))
}

fn milliseconds<T: ArrowTimestampType>(column: &ArrayRef, per_ms: i64) -> PrimitiveArray<TimestampMillisecondType> {
    column.as_primitive::<T>().unary(|time| time.div_euclid(per_ms))
}
