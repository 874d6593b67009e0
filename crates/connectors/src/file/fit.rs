//! Columns of a file as columns of the schema that is wanted: found by name, widened where that loses nothing, and divided
//! where a row has to be refused.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt8Type,
    UInt16Type, UInt32Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions, new_empty_array, new_null_array};
use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use tidemill_core::columns::failed;
use tidemill_core::{Error, Result};

use super::container::{Part, Records};

/// An error if a file's column of a type cannot become the column that is wanted.
pub(super) fn check_fits(wanted: &Field, found: &DataType) -> Result<()> {
    if converted(&new_empty_array(found), wanted.data_type()).is_some() {
        return Ok(());
    }
    let text = format!("its column `{}` is {found}, and {} is wanted", wanted.name(), wanted.data_type());
    Err(Error::input(text).hint("ask for a type it can be read as"))
}

/// A file being read in batches, whose columns have been checked.
pub(super) struct Fitted<B> {
    batches: B,
    schema: SchemaRef,
    /// Rows that stand before the position and are still to come.
    passed: usize,
    /// Of the batch read last.
    parts: VecDeque<Part>,
}

impl<B> Fitted<B> {
    /// Reads on behind so many rows of these batches.
    pub fn behind(passed: u64, batches: B, schema: SchemaRef) -> Self {
        Fitted { batches, schema, passed: usize::try_from(passed).unwrap_or(usize::MAX), parts: VecDeque::new() }
    }
}

impl<B: Iterator<Item = Result<RecordBatch>> + Send> Records for Fitted<B> {
    fn next(&mut self) -> Result<Option<Part>> {
        while self.parts.is_empty() {
            let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
            let passed = self.passed.min(batch.num_rows());
            self.passed -= passed;
            self.parts = fit(&batch.slice(passed, batch.num_rows() - passed), &self.schema)?;
        }
        Ok(self.parts.pop_front())
    }
}

/// A batch of a file, whose columns have been checked, as columns of the schema; a row with a null where the schema allows
/// none is refused.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<VecDeque<Part>> {
    let count = batch.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for column in schema.fields() {
        columns.push(match batch.column_by_name(column.name()) {
            None => new_null_array(column.data_type(), count),
            Some(found) => converted(found, column.data_type())
                .ok_or_else(|| Error::bug(format!("column `{}` was checked at the beginning", column.name())))?,
        });
    }
    let required = schema.fields().iter().zip(&columns).filter(|(column, _)| !column.is_nullable());
    let required: Vec<(&str, &ArrayRef)> = required.map(|(column, array)| (column.name().as_str(), array)).collect();
    let missing = |row: usize| required.iter().find(|(_, array)| array.is_null(row)).map(|(name, _)| *name);
    let (mut parts, mut begin) = (VecDeque::new(), 0);
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
            let rows = RecordBatch::try_new_with_options(schema.clone(), rows, &options).map_err(failed)?;
            parts.push_back(Part::Rows(rows));
        }
        if let Some(name) = reason {
            parts.push_back(Part::Refused(format!("field `{name}` is missing")));
        }
        begin = row + 1;
    }
    Ok(parts)
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
                // Neither Parquet nor ORC has them.
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
