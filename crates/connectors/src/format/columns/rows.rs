//! Columns being filled, row by row. A row that is refused in its middle leaves no trace.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
};
use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, SchemaRef, TimeUnit};
use tidemill_core::columns::failed;
use tidemill_core::{Error, Result};

/// Reads records into rows. Cloned once per reader, so it may keep scratch space.
pub trait RowFormat: Clone + Send + Sync + 'static {
    /// The columns it fills.
    fn schema(&self) -> &SchemaRef;

    /// Sets the columns of one row from one record, or says in words why it cannot. What was set before is forgotten then.
    fn read(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), String>;
}

/// Columns of a schema, and the row that is being set.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Whole rows.
    count: usize,
}

struct Column {
    values: Values,
    /// Whether each value is there.
    present: Vec<bool>,
    nulls: usize,
    nullable: bool,
}

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Timestamp(Vec<i64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Text { ends: Vec<i32>, bytes: Vec<u8> },
}

/// What a column of text holds at most in one batch, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 30;

impl Values {
    fn new(name: &str, data_type: &DataType) -> Result<Self> {
        Ok(match data_type {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Values::Timestamp(Vec::new()),
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Utf8 => Values::Text { ends: vec![0], bytes: Vec::new() },
            other => {
                return Err(Error::input(format!("column `{name}` of type {other} cannot be read from text")).hint(
                    "columns are Boolean, Int32, Int64, Float64, Utf8, Decimal128, or Timestamp in milliseconds",
                ));
            }
        })
    }

    fn truncate(&mut self, count: usize) {
        match self {
            Values::Bool(values) => values.truncate(count),
            Values::Int32(values) => values.truncate(count),
            Values::Int64(values) | Values::Timestamp(values) => values.truncate(count),
            Values::Float64(values) => values.truncate(count),
            Values::Decimal { values, .. } => values.truncate(count),
            Values::Text { ends, bytes } => {
                ends.truncate(count + 1);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    fn push_nothing(&mut self) {
        match self {
            Values::Bool(values) => values.push(false),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp(values) => values.push(0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text { ends, bytes } => ends.push(bytes.len() as i32),
        }
    }

    /// What is expected, in words.
    fn wanted(&self) -> String {
        match self {
            Values::Bool(_) => "a boolean".to_string(),
            Values::Int32(_) => "a whole number of 32 bits".to_string(),
            Values::Int64(_) => "a whole number of 64 bits".to_string(),
            Values::Float64(_) => "a number".to_string(),
            Values::Timestamp(_) => "epoch milliseconds".to_string(),
            Values::Decimal { precision, scale, .. } => format!("a decimal({precision}, {scale})"),
            Values::Text { .. } => "text".to_string(),
        }
    }
}

/// A value as a format has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Any other number, as it is written.
    Number(&'a str),
    Float(f64),
    /// A decimal in units of the column's scale; `None` if it is longer than any.
    Units(Option<i128>),
    Text(&'a str),
    /// Text of a format that has nothing else: it may stand for any type.
    Untyped(&'a str),
}

impl Rows {
    /// Columns of this schema, without rows. An error if a column's type cannot be read from text.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let column = |field: &Arc<arrow_schema::Field>| {
            let values = Values::new(field.name(), field.data_type())?;
            Ok(Column { values, present: Vec::new(), nulls: 0, nullable: field.is_nullable() })
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
        Ok(Rows { schema, columns, count: 0 })
    }

    /// Whole rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Sets a column of the row; a second value takes the place of the first.
    #[inline]
    pub(crate) fn set(&mut self, at: usize, scalar: Scalar<'_>) -> Result<(), String> {
        let (count, column) = (self.count, &mut self.columns[at]);
        if column.present.len() > count {
            column.retract(count);
        }
        if column.push(scalar) {
            return Ok(());
        }
        let name = self.schema.field(at).name();
        let told = match scalar {
            Scalar::Null => "null".to_string(),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
            Scalar::Units(Some(units)) => format!("a decimal of {units} units"),
            Scalar::Units(None) => "a decimal of more than 38 digits".to_string(),
            Scalar::Number(text) => text.chars().take(80).collect(),
            Scalar::Text(text) | Scalar::Untyped(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
        };
        Err(format!("field `{name}`: {told} where {} is expected", column.values.wanted()))
    }

    /// The row is whole: columns that were not set become null. An error, and no row, if one must not be.
    pub(crate) fn finish_row(&mut self) -> Result<(), String> {
        let count = self.count;
        for (at, column) in self.columns.iter_mut().enumerate() {
            if column.present.len() == count && !column.push(Scalar::Null) {
                let missing = format!("missing field `{}`", self.schema.field(at).name());
                self.forget_row();
                return Err(missing);
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Nothing of the row stays.
    pub(crate) fn forget_row(&mut self) {
        let count = self.count;
        for column in self.columns.iter_mut().filter(|column| column.present.len() > count) {
            column.retract(count);
        }
    }

    /// The rows as columns; none are left.
    pub fn take(&mut self) -> Result<RecordBatch> {
        self.forget_row();
        let arrays = self.columns.iter_mut().map(Column::take).collect::<Result<Vec<ArrayRef>>>()?;
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.count)));
        let typed = arrays.into_iter().zip(self.schema.fields()).map(|(array, field)| match field.data_type() {
            DataType::Timestamp(TimeUnit::Millisecond, Some(zone)) => {
                use arrow_array::cast::AsArray;
                let times = array.as_primitive::<TimestampMillisecondType>().clone();
                Arc::new(times.with_timezone(zone.clone())) as ArrayRef
            }
            _ => array,
        });
        RecordBatch::try_new_with_options(self.schema.clone(), typed.collect(), &options).map_err(failed)
    }
}

impl Column {
    fn retract(&mut self, count: usize) {
        self.nulls -= self.present[count..].iter().filter(|present| !**present).count();
        self.present.truncate(count);
        self.values.truncate(count);
    }

    /// Appends a value; false if it does not fit.
    #[inline]
    fn push(&mut self, scalar: Scalar<'_>) -> bool {
        let fits = match (&mut self.values, scalar) {
            (_, Scalar::Null) => {
                if !self.nullable {
                    return false;
                }
                self.values.push_nothing();
                self.nulls += 1;
                self.present.push(false);
                return true;
            }
            (Values::Int64(values) | Values::Timestamp(values), Scalar::Int(value)) => append(values, Some(value)),
            (Values::Int64(values) | Values::Timestamp(values), Scalar::Untyped(text)) => {
                append(values, text.parse().ok())
            }
            (Values::Text { ends, bytes }, Scalar::Text(text) | Scalar::Untyped(text)) => {
                let fits = bytes.len() + text.len() <= TEXT_BYTES_MAX;
                if fits {
                    bytes.extend_from_slice(text.as_bytes());
                    ends.push(bytes.len() as i32);
                }
                fits
            }
            (Values::Float64(values), Scalar::Int(value)) => append(values, Some(value as f64)),
            (Values::Float64(values), Scalar::Float(value)) => append(values, Some(value)),
            (Values::Float64(values), Scalar::Number(text)) => {
                append(values, text.parse().ok().filter(|value: &f64| value.is_finite()))
            }
            (Values::Float64(values), Scalar::Untyped(text)) => append(values, text.parse().ok()),
            (Values::Int32(values), Scalar::Int(value)) => append(values, i32::try_from(value).ok()),
            (Values::Int32(values), Scalar::Untyped(text)) => append(values, text.parse().ok()),
            (Values::Bool(values), Scalar::Bool(value)) => append(values, Some(value)),
            (Values::Bool(values), Scalar::Untyped(text)) => append(values, text.to_ascii_lowercase().parse().ok()),
            (Values::Decimal { values, precision, scale }, Scalar::Int(value)) => {
                append(values, decimal(&value.to_string(), *precision, *scale))
            }
            (Values::Decimal { values, precision, .. }, Scalar::Units(units)) => {
                append(values, units.filter(|units| units.unsigned_abs() < 10u128.pow(u32::from(*precision))))
            }
            (Values::Decimal { values, precision, scale }, Scalar::Number(text)) if text.contains(['e', 'E']) => {
                // The shortest text of a float is what was written, up to 15 digits.
                let value = text.parse().ok().filter(|value: &f64| value.is_finite());
                append(values, value.and_then(|value| decimal(&value.to_string(), *precision, *scale)))
            }
            (Values::Decimal { values, precision, scale }, Scalar::Number(text)) => {
                append(values, decimal(text, *precision, *scale))
            }
            (Values::Decimal { values, precision, scale }, Scalar::Text(text) | Scalar::Untyped(text)) => {
                append(values, decimal(text, *precision, *scale))
            }
            _ => false,
        };
        if fits {
            self.present.push(true);
        }
        fits
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let present = std::mem::take(&mut self.present);
        let nulls = (std::mem::take(&mut self.nulls) > 0).then(|| NullBuffer::from(present));
        fn of<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> PrimitiveArray<T> {
            let next = Vec::with_capacity(values.len());
            PrimitiveArray::new(std::mem::replace(values, next).into(), nulls)
        }
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(std::mem::take(values).into(), nulls)),
            Values::Int32(values) => Arc::new(of::<Int32Type>(values, nulls)),
            Values::Int64(values) => Arc::new(of::<Int64Type>(values, nulls)),
            Values::Float64(values) => Arc::new(of::<Float64Type>(values, nulls)),
            Values::Timestamp(values) => Arc::new(of::<TimestampMillisecondType>(values, nulls)),
            Values::Decimal { values, precision, scale } => {
                let array = of::<Decimal128Type>(values, nulls).with_precision_and_scale(*precision, *scale);
                Arc::new(array.map_err(failed)?)
            }
            Values::Text { ends, bytes } => {
                let next = (Vec::with_capacity(ends.len()), Vec::with_capacity(bytes.len()));
                let ends = OffsetBuffer::new(std::mem::replace(ends, next.0).into());
                let bytes = Buffer::from_vec(std::mem::replace(bytes, next.1));
                if let Values::Text { ends, .. } = &mut self.values {
                    ends.push(0);
                }
                Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(failed)?)
            }
        })
    }
}

#[inline]
fn append<V>(values: &mut Vec<V>, value: Option<V>) -> bool {
    let fits = value.is_some();
    values.extend(value);
    fits
}

/// A plain number such as `-12.50` in units of the scale; `None` if it does not fit without rounding.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    let scale = usize::try_from(scale).ok()?;
    if whole.is_empty() || part.len() > scale || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', scale - part.len());
    let units = whole
        .bytes()
        .chain(part.bytes())
        .chain(zeros)
        .try_fold(0i128, |units, digit| units.checked_mul(10)?.checked_add(i128::from(digit - b'0')))?;
    let fits = units < 10i128.pow(u32::from(precision));
    fits.then_some(if negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("12.5", 5, 2), Some(1250));
        assert_eq!(decimal("-0.010", 5, 2), Some(-1));
        assert_eq!(decimal("7", 5, 2), Some(700));
        for bad in ["", "-", ".", "1.234", "1e3", "1000.00", "12a", "+1", " 1"] {
            assert_eq!(decimal(bad, 5, 2), None, "{bad}");
        }
    }
}
