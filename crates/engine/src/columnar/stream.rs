//! A stream of rows as columns, as its user sees it.

use std::sync::Arc;

use arrow_array::types::{
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, cast::AsArray};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use tidemill_core::columns::{failed, no_column};
use tidemill_core::source::Source;
use tidemill_core::{ColumnBatch, DeadLetter, Error, Result};

use super::key_columns::check_key_type;
use super::partition::ByColumns;
use super::window::WindowedColumnStream;
use crate::driver::Records;
use crate::graph::ShipKind;
use crate::operator::Out;
use crate::stream::stateless::BatchOperator;
use crate::stream::{DataStream, Environment, WatermarkStrategy};
use crate::window::TimeWindows;

/// A stream of rows of one schema, as columns. Cloning it lets several operators read the same stream.
///
/// It is a [`DataStream`] of [`ColumnBatch`]es that knows its schema: [`ColumnStream::batches`] and
/// [`DataStream::as_columns`] lead from one to the other, and everything below them is the same.
#[derive(Clone)]
pub struct ColumnStream {
    batches: DataStream<ColumnBatch>,
    schema: SchemaRef,
}

impl DataStream<ColumnBatch> {
    /// The same stream, of batches that all have this schema.
    pub fn as_columns(&self, schema: SchemaRef) -> ColumnStream {
        ColumnStream::new(self.clone(), schema)
    }
}

impl Environment {
    /// A stream of a source's column batches. The strategy sees each batch at the latest event time of its rows.
    pub fn from_columns(
        &self,
        source: impl Source<ColumnBatch>,
        schema: SchemaRef,
        strategy: WatermarkStrategy<ColumnBatch>,
        name: &str,
    ) -> ColumnStream {
        ColumnStream::new(self.from_source(source, strategy, name), schema)
    }
}

/// The place of a column.
pub(super) fn place(schema: &SchemaRef, column: &str) -> Result<usize> {
    schema.fields().iter().position(|field| field.name() == column).ok_or_else(|| no_column(column, schema))
}

impl ColumnStream {
    pub(super) fn new(batches: DataStream<ColumnBatch>, schema: SchemaRef) -> Self {
        ColumnStream { batches, schema }
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The same stream as batches.
    pub fn batches(&self) -> &DataStream<ColumnBatch> {
        &self.batches
    }

    fn with(self, change: impl FnOnce(DataStream<ColumnBatch>) -> DataStream<ColumnBatch>) -> Self {
        ColumnStream { batches: change(self.batches), schema: self.schema }
    }

    /// Names the operator that makes this stream, for graphs and messages.
    pub fn name(self, name: &str) -> Self {
        self.with(|batches| batches.name(name))
    }

    /// The stable id under which the operator's state is found after the job was changed.
    pub fn uid(self, uid: &str) -> Self {
        self.with(|batches| batches.uid(uid))
    }

    /// The parallelism of the operator that makes this stream; goes before the environment's.
    pub fn set_parallelism(self, parallelism: usize) -> Self {
        self.with(|batches| batches.set_parallelism(parallelism))
    }

    /// What this stream's source could not read; see [`DataStream::dead_letters`].
    pub fn dead_letters(&self) -> DataStream<DeadLetter> {
        self.batches.dead_letters()
    }

    /// One batch for one batch, of another schema. Rows keep their number, or the function gives those that are left
    /// their event times and kinds; batches without rows go no further.
    pub fn map_batches(
        &self,
        name: &str,
        schema: SchemaRef,
        function: impl FnMut(ColumnBatch) -> Result<ColumnBatch> + Clone + Send + 'static,
    ) -> ColumnStream {
        let (function, expected) = (std::sync::Mutex::new(function), schema.clone());
        let batches = self.batches.add_operator(name, move |_, _| {
            let mut function = crate::stream::fresh(&function);
            let expected = expected.clone();
            Ok(BatchOperator::new(move |batches: Records<ColumnBatch>, out: &mut Out<ColumnBatch>| {
                for (_, batch) in batches {
                    let made = function(batch)?;
                    if made.columns().schema_ref() != &expected {
                        return Err(Error::bug(format!(
                            "batches of `{}` were announced as {}",
                            made.columns().schema_ref(),
                            expected
                        )));
                    }
                    if made.rows() > 0 {
                        out.emit(made.latest_ms(), made)?;
                    }
                }
                Ok(())
            }))
        });
        ColumnStream::new(batches, schema)
    }

    /// The named columns, in this order.
    pub fn select(&self, columns: &[&str]) -> Result<ColumnStream> {
        let places = columns.iter().map(|column| place(&self.schema, column)).collect::<Result<Vec<usize>>>()?;
        let schema: SchemaRef = Arc::new(self.schema.project(&places).map_err(failed)?);
        Ok(self.map_batches("Select", schema, move |batch| {
            let projected = batch.columns().project(&places).map_err(failed)?;
            batch.with_columns(projected)
        }))
    }

    /// The rows for which `keep` gives true; null counts as false.
    pub fn filter(
        &self,
        mut keep: impl FnMut(&ColumnBatch) -> Result<BooleanArray> + Clone + Send + 'static,
    ) -> ColumnStream {
        self.map_batches("Filter", self.schema.clone(), move |batch| {
            let keep = keep(&batch)?;
            batch.filter(&keep)
        })
    }

    /// Rows of this stream and the others, in no particular order between them.
    pub fn union(&self, others: &[&ColumnStream]) -> Result<ColumnStream> {
        if let Some(other) = others.iter().find(|other| other.schema != self.schema) {
            return Err(Error::input(format!(
                "a union of streams with different columns: {} and {}",
                self.schema, other.schema
            ))
            .hint("bring them into one form with `select` or `map_batches`"));
        }
        let batches: Vec<&DataStream<ColumnBatch>> = others.iter().map(|other| &other.batches).collect();
        Ok(ColumnStream::new(self.batches.union(&batches), self.schema.clone()))
    }

    /// Gives rows the event times in `column` (epoch ms as `Int64`, or a timestamp of any unit) and makes watermarks from
    /// them; those of the source end here. The strategy sees each batch at the latest event time of its rows.
    pub fn assign_timestamps_and_watermarks(
        &self,
        column: &str,
        strategy: WatermarkStrategy<ColumnBatch>,
    ) -> Result<ColumnStream> {
        let place = place(&self.schema, column)?;
        // Refused now if it is no time.
        times_of(&arrow_array::new_empty_array(self.schema.field(place).data_type()), column)?;
        let name = column.to_string();
        let timed = self.map_batches("Event Times", self.schema.clone(), move |batch| {
            let times_ms = times_of(batch.columns().column(place), &name)?;
            batch.with_times(times_ms)
        });
        let strategy = strategy.with_timestamps(|batch: &ColumnBatch, _| batch.latest_ms());
        Ok(timed.with(|batches| batches.assign_timestamps_and_watermarks(strategy)))
    }

    /// Divides the stream by the values of columns: rows with the same values meet on one subtask. Nulls are equal to each
    /// other. Key groups are those of the typed lane's `key_by` with the tuple of the same values.
    pub fn key_by(&self, columns: &[&str]) -> Result<KeyedColumnStream> {
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let place = place(&self.schema, column)?;
            check_key_type(column, self.schema.field(place).data_type())?;
            places.push(place);
        }
        Ok(KeyedColumnStream { stream: self.clone(), places })
    }
}

/// A column as epoch milliseconds.
fn times_of(array: &ArrayRef, column: &str) -> Result<Int64Array> {
    Ok(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().clone(),
        DataType::Timestamp(TimeUnit::Second, _) => {
            array.as_primitive::<TimestampSecondType>().unary(|time| time.saturating_mul(1000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().reinterpret_cast()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().unary(|time| time.div_euclid(1000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().unary(|time| time.div_euclid(1_000_000))
        }
        other => {
            return Err(Error::input(format!("column `{column}` of type {other} is no event time"))
                .hint("event times are timestamps, or epoch milliseconds as Int64"));
        }
    })
}

/// A stream of columns divided by the values of some.
pub struct KeyedColumnStream {
    pub(super) stream: ColumnStream,
    pub(super) places: Vec<usize>,
}

impl KeyedColumnStream {
    /// The rows, each on the subtask of its key.
    pub fn rows_by_key(&self) -> ColumnStream {
        let partition = Arc::new(ByColumns(self.places.clone()));
        let batches = self.stream.batches.ship(ShipKind::Hash, partition);
        ColumnStream::new(batches, self.stream.schema.clone())
    }

    /// Windows of event time over the rows of each key.
    pub fn window(&self, windows: TimeWindows) -> WindowedColumnStream<'_> {
        WindowedColumnStream::new(self, windows)
    }
}
