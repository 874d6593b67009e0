//! Between the lanes: values become rows and rows values, by the names of their fields.

use arrow_array::{RecordBatch, UInt8Array};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use serde_arrow::schema::{SchemaLike, TracingOptions};
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Data, Error, Result, RowKind};

use super::ColumnStream;
use crate::driver::Records;
use crate::operator::Out;
use crate::stream::DataStream;
use crate::stream::stateless::BatchOperator;

/// The columns that a type's fields make: text as `Utf8`, whole numbers and floats of their own width.
fn schema_of<T: Data>() -> Result<SchemaRef> {
    let options = TracingOptions::default().strings_as_large_utf8(false).bytes_as_large_binary(false);
    let fields = Vec::<FieldRef>::from_type::<T>(options).map_err(|e| {
        Error::input(format!("the columns of {} cannot be told: {e}", std::any::type_name::<T>()))
            .hint("a row is a struct or tuple of plain fields; or give the schema with `to_columns_of`")
    })?;
    Ok(Schema::new(fields).into())
}

fn to_record_batch<T: Data>(schema: &SchemaRef, values: &[T]) -> Result<RecordBatch> {
    let refused =
        |e: serde_arrow::Error| Error::input(format!("a {} does not fit the columns: {e}", std::any::type_name::<T>()));
    let columns = serde_arrow::to_record_batch(schema.fields(), &values).map_err(refused)?;
    // The same fields, and what else the schema says.
    columns.with_schema(schema.clone()).map_err(failed)
}

fn from_record_batch<T: Data>(columns: &RecordBatch) -> Result<Vec<T>> {
    serde_arrow::from_record_batch(columns)
        .map_err(|e| Error::input(format!("columns do not make a {}: {e}", std::any::type_name::<T>())))
}

impl<T: Data> DataStream<T> {
    /// The values as rows of columns: one column a field, of the type the field has. Every row is an insert.
    ///
    /// ```
    /// # use tidemill_engine::Environment;
    /// #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    /// struct Order { shop: String, amount: i64 }
    /// let env = Environment::new();
    /// env.set_parallelism(1); // so that the order stays
    /// let orders = vec![Order { shop: "a".into(), amount: 3 }, Order { shop: "b".into(), amount: 4 }];
    /// let back = env.from_collection(orders.clone()).to_columns()?.rows::<Order>().collect();
    /// env.execute("there and back")?;
    /// assert_eq!(back.take(), orders);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn to_columns(&self) -> Result<ColumnStream> {
        Ok(self.to_columns_of(schema_of::<T>()?))
    }

    /// Like `to_columns`, with columns of this schema; a value that does not fit it fails the job.
    pub fn to_columns_of(&self, schema: SchemaRef) -> ColumnStream {
        let of = schema.clone();
        let batches = self.add_operator("To Columns", move |_, _| {
            let schema = of.clone();
            Ok(BatchOperator::new(move |batch: Records<T>, out: &mut Out<ColumnBatch>| {
                let (times_ms, values): (Vec<i64>, Vec<T>) = batch.into_iter().unzip();
                let columns = to_record_batch(&schema, &values)?;
                let batch = ColumnBatch::new(columns).with_times(times_ms.into())?;
                out.emit_batch(vec![(batch.latest_ms(), batch)])
            }))
        });
        ColumnStream::new(batches, schema)
    }
}

impl<T: Data> DataStream<(RowKind, T)> {
    /// Like [`DataStream::to_columns`], for rows that can be taken back.
    pub fn changelog_to_columns(&self) -> Result<ColumnStream> {
        let schema = schema_of::<T>()?;
        let of = schema.clone();
        let batches = self.add_operator("To Columns", move |_, _| {
            let schema = of.clone();
            Ok(BatchOperator::new(move |batch: Records<(RowKind, T)>, out: &mut Out<ColumnBatch>| {
                let kinds: UInt8Array = batch.iter().map(|(_, (kind, _))| *kind as u8).collect::<Vec<u8>>().into();
                let (times_ms, values): (Vec<i64>, Vec<T>) =
                    batch.into_iter().map(|(time_ms, (_, value))| (time_ms, value)).unzip();
                let columns = to_record_batch(&schema, &values)?;
                let batch = ColumnBatch::new(columns).with_times(times_ms.into())?.with_kinds(kinds)?;
                out.emit_batch(vec![(batch.latest_ms(), batch)])
            }))
        });
        Ok(ColumnStream::new(batches, schema))
    }
}

impl ColumnStream {
    /// The rows as values, by the names of their fields. A row that takes another back fails the job: read streams with
    /// such rows by [`ColumnStream::changelog`].
    pub fn rows<T: Data>(&self) -> DataStream<T> {
        self.batches().add_operator("Rows", |_, _| {
            Ok(BatchOperator::new(|batches: Records<ColumnBatch>, out: &mut Out<T>| {
                for (_, batch) in batches {
                    if batch.kinds().is_some() {
                        return Err(Error::input("rows that are updated or deleted came to a reader of inserted rows")
                            .hint("read them with `changelog`, which tells the kind of each"));
                    }
                    let values = from_record_batch::<T>(batch.columns())?;
                    out.emit_batch(batch.times_ms().iter().copied().zip(values).collect())?;
                }
                Ok(())
            }))
        })
    }

    /// The rows as values with the kind of each.
    pub fn changelog<T: Data>(&self) -> DataStream<(RowKind, T)> {
        self.batches().add_operator("Changelog", |_, _| {
            Ok(BatchOperator::new(|batches: Records<ColumnBatch>, out: &mut Out<(RowKind, T)>| {
                for (_, batch) in batches {
                    let values = from_record_batch::<T>(batch.columns())?.into_iter().enumerate();
                    let values = values.map(|(row, value)| (batch.kind(row), value));
                    out.emit_batch(batch.times_ms().iter().copied().zip(values).collect())?;
                }
                Ok(())
            }))
        })
    }
}
