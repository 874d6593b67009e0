//! Avro container files as columns: the schema stands in the file, the columns asked for are taken by name.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use apache_avro::Reader;
use apache_avro::types::Value;
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use tidemill_core::{Error, Result};

use super::container::{BATCH_ROWS, Container, Part, Records};
use crate::format::columns::{Rows, Scalar};

/// Avro container files, read as columns of a schema, which is the schema of the reader: a field of a record goes to the
/// column of its name; a column without a field is null where the schema allows it; other fields are passed over. Blocks may
/// be packed by deflate, not by Snappy or another codec.
///
/// Columns are `Boolean`, `Int32`, `Int64`, `Float64`, `Utf8` (strings, enums), `Decimal128` (decimals of the same scale), and
/// timestamps in milliseconds. A record that does not fit goes to the dead letters; a damaged block fails the job.
/// To go on at a position the records before it are read and thrown away.
#[derive(Debug, Clone)]
pub struct AvroFiles {
    schema: SchemaRef,
}

impl AvroFiles {
    /// The columns of this schema. An error if one has another type than those above.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(AvroFiles { schema })
    }
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::input(format!("not to be read as Avro: {error}"))
}

impl Container for AvroFiles {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn open(&self, path: &Path, records: u64) -> Result<Box<dyn Records>> {
        let file = File::open(path).map_err(|error| Error::io("open it", error))?;
        let mut values = Reader::new(BufReader::new(file)).map_err(refused)?;
        check_decimals(values.writer_schema(), &self.schema)?;
        for before in 0..records {
            let value = values.next().ok_or_else(|| Error::input(format!("it has only {before} records")))?;
            value.map_err(refused)?;
        }
        Ok(Box::new(AvroRecords {
            rows: Rows::new(self.schema.clone())?,
            schema: self.schema.clone(),
            values,
            refused: None,
        }))
    }
}

/// A decimal of Avro has its scale in the schema of the file only: it must be that of the column.
fn check_decimals(written: &apache_avro::Schema, wanted: &SchemaRef) -> Result<()> {
    use apache_avro::Schema;
    let Schema::Record(record) = written else { return Err(Error::input("its records are not Avro records")) };
    for field in &record.fields {
        let variants = match &field.schema {
            Schema::Union(union) => union.variants(),
            other => std::slice::from_ref(other),
        };
        let column = wanted.fields().iter().find(|column| *column.name() == field.name);
        for variant in variants {
            let scale = match variant {
                Schema::Decimal(decimal) => decimal.scale,
                _ => continue,
            };
            match column.map(|column| column.data_type()) {
                Some(DataType::Decimal128(_, of_column)) if i64::from(*of_column) != scale as i64 => {
                    return Err(Error::input(format!(
                        "field `{}` is a decimal of scale {scale}, and its column of scale {of_column}",
                        field.name
                    ))
                    .hint("give the column the scale of the file"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

struct AvroRecords {
    values: Reader<'static, BufReader<File>>,
    schema: SchemaRef,
    rows: Rows,
    /// What comes behind the rows.
    refused: Option<Result<String>>,
}

impl AvroRecords {
    fn read(&mut self, record: Value) -> Result<(), String> {
        let Value::Record(fields) = record else { return Err("not a record".to_string()) };
        for (name, value) in &fields {
            if let Some(at) = self.schema.fields().iter().position(|field| field.name() == name) {
                set(&mut self.rows, at, self.schema.field(at).data_type(), value)?;
            }
        }
        self.rows.finish_row()
    }
}

impl Records for AvroRecords {
    fn next(&mut self) -> Result<Option<Part>> {
        while self.refused.is_none() && self.rows.count() < BATCH_ROWS {
            match self.values.next() {
                None => break,
                // What was read before it is good.
                Some(Err(error)) => self.refused = Some(Err(refused(error))),
                Some(Ok(record)) => {
                    if let Err(reason) = self.read(record) {
                        self.rows.forget_row();
                        self.refused = Some(Ok(reason));
                    }
                }
            }
        }
        if self.rows.count() > 0 {
            return self.rows.take().map(|rows| Some(Part::Rows(rows)));
        }
        self.refused.take().transpose().map(|reason| reason.map(Part::Refused))
    }
}

/// Sets a column to a value of Avro.
fn set(rows: &mut Rows, at: usize, wanted: &DataType, value: &Value) -> Result<(), String> {
    let whole = |number: i64| Scalar::Int(number);
    match value {
        Value::Null => rows.set(at, Scalar::Null),
        Value::Union(_, value) => set(rows, at, wanted, value),
        Value::Boolean(value) => rows.set(at, Scalar::Bool(*value)),
        Value::Int(value) | Value::Date(value) | Value::TimeMillis(value) => rows.set(at, whole(i64::from(*value))),
        Value::Long(value) | Value::TimestampMillis(value) | Value::LocalTimestampMillis(value) => {
            rows.set(at, whole(*value))
        }
        Value::TimestampMicros(value) | Value::LocalTimestampMicros(value) => {
            rows.set(at, whole(milliseconds(*value, 1_000, wanted)))
        }
        Value::TimestampNanos(value) | Value::LocalTimestampNanos(value) => {
            rows.set(at, whole(milliseconds(*value, 1_000_000, wanted)))
        }
        Value::Float(value) => rows.set(at, Scalar::Float(f64::from(*value))),
        Value::Double(value) => rows.set(at, Scalar::Float(*value)),
        Value::String(text) | Value::Enum(_, text) => rows.set(at, Scalar::Text(text)),
        Value::Uuid(id) => rows.set(at, Scalar::Text(&id.to_string())),
        Value::Decimal(decimal) => {
            let bytes = Vec::<u8>::try_from(decimal).map_err(|error| format!("a decimal: {error}"))?;
            rows.set(at, Scalar::Units(units(&bytes)))
        }
        _ => Err(format!(
            "field number {}: a {:?} where a plain value is expected",
            at + 1,
            apache_avro::schema::SchemaKind::from(value)
        )),
    }
}

/// A time in milliseconds where the column is a timestamp; as it is where it is a number.
fn milliseconds(value: i64, per_ms: i64, wanted: &DataType) -> i64 {
    match wanted {
        DataType::Timestamp(TimeUnit::Millisecond, _) => value.div_euclid(per_ms),
        _ => value,
    }
}

/// A whole number with a sign, its highest byte first; `None` if it is too large.
fn units(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let filler = if negative { 0xff } else { 0 };
    let (over, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    if over.iter().any(|byte| *byte != filler) {
        return None;
    }
    let mut whole = [filler; 16];
    whole.get_mut(16 - kept.len()..)?.copy_from_slice(kept);
    let number = i128::from_be_bytes(whole);
    ((number < 0) == negative).then_some(number)
}
