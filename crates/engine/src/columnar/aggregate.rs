//! What count, sum, min and max keep of a group of rows: machine words side by side, each with a way to merge it. The same
//! words stand in the columns that go over the exchange, in the state, and behind the results.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int8Type, Int16Type, Int32Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, Float64Array, Int64Array, PrimitiveArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, SchemaRef};
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, Result};

use super::groups::Group;
use super::parts::{Kept, Merge, Number, PartColumn};
use super::stream::place;
use crate::driver::BATCH_ROWS;

/// One aggregation of the rows of a group, and the name of its column in the result.
///
/// Nulls are left out, as in SQL: a sum, minimum or maximum of nothing is null. Whole numbers give `Int64` (sums wrap
/// around, as Flink's `BIGINT` does), floats `Float64`, decimals a decimal of the same scale (a sum of more than 38 digits
/// is null). Rows that take others back are subtracted from counts and sums; minima and maxima cannot take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateCall {
    function: Function,
    /// `None` for the rows themselves.
    column: Option<String>,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    Sum,
    Min,
    Max,
}

impl AggregateCall {
    fn new(function: Function, column: Option<&str>, name: &str) -> Self {
        AggregateCall { function, column: column.map(String::from), name: name.to_string() }
    }

    /// How many rows there are.
    pub fn count(name: &str) -> Self {
        Self::new(Function::Count, None, name)
    }

    /// In how many rows `column` is not null.
    pub fn count_of(column: &str, name: &str) -> Self {
        Self::new(Function::Count, Some(column), name)
    }

    /// The sum of `column`.
    pub fn sum(column: &str, name: &str) -> Self {
        Self::new(Function::Sum, Some(column), name)
    }

    /// The smallest value of `column`.
    pub fn min(column: &str, name: &str) -> Self {
        Self::new(Function::Min, Some(column), name)
    }

    /// The largest value of `column`.
    pub fn max(column: &str, name: &str) -> Self {
        Self::new(Function::Max, Some(column), name)
    }
}

/// Where the numbers of a part come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// One for each row.
    Rows,
    /// One for each row where the column is not null.
    Present(usize),
    /// The column; where it is null, what changes nothing.
    Value(usize),
}

/// A number that is kept for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    origin: Origin,
    merge: Merge,
    number: Number,
}

/// The part every group has: how many rows it holds, those taken back subtracted.
const ROWS: Part = Part { origin: Origin::Rows, merge: Merge::Sum, number: Number::Whole };

/// A column of results: which part it shows, and which says how many values there were (`None`: it is never null).
#[derive(Debug, Clone)]
struct Shown {
    part: usize,
    present: Option<usize>,
}

/// The parts of a list of aggregations, and what is made of them.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    parts: Vec<Part>,
    /// The first word of each part.
    words: Vec<usize>,
    /// The words of a group without rows.
    nothing: Vec<u64>,
    shown: Vec<Shown>,
    /// What the rows of a batch count, ready made.
    ones: Int64Array,
}

fn plain<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, absent: T::Native) -> PrimitiveArray<T> {
    match array.null_count() {
        0 => array.clone(),
        _ => PrimitiveArray::from_iter_values(array.iter().map(|value| value.unwrap_or(absent))),
    }
}

impl Layout {
    /// For these calls on columns of this schema; also the fields of the results.
    pub fn new(schema: &SchemaRef, calls: &[AggregateCall]) -> Result<(Self, Vec<Field>)> {
        let mut layout = Layout {
            parts: vec![ROWS],
            words: Vec::new(),
            nothing: Vec::new(),
            shown: Vec::new(),
            ones: Int64Array::from_value(1, BATCH_ROWS),
        };
        let mut fields = Vec::new();
        for call in calls {
            let (shown, data_type) = layout.call(schema, call)?;
            fields.push(Field::new(&call.name, data_type, shown.present.is_some()));
            layout.shown.push(shown);
        }
        for part in &layout.parts {
            let begin = layout.nothing.len();
            layout.words.push(begin);
            layout.nothing.resize(begin + part.number.words(), 0);
            part.number.put_nothing(part.merge, &mut layout.nothing[begin..]);
        }
        Ok((layout, fields))
    }

    fn call(&mut self, schema: &SchemaRef, call: &AggregateCall) -> Result<(Shown, DataType)> {
        let Some(column) = &call.column else { return Ok((Shown { part: 0, present: None }, DataType::Int64)) };
        let at = place(schema, column)?;
        let field = schema.field(at);
        let present = match field.is_nullable() {
            true => Some(self.part(Part { origin: Origin::Present(at), ..ROWS })),
            false => None,
        };
        let merge = match call.function {
            Function::Count => return Ok((Shown { part: present.unwrap_or(0), present: None }, DataType::Int64)),
            Function::Sum => Merge::Sum,
            Function::Min => Merge::Min,
            Function::Max => Merge::Max,
        };
        let (number, data_type) = match field.data_type() {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => (Number::Whole, DataType::Int64),
            DataType::Float32 | DataType::Float64 => (Number::Float, DataType::Float64),
            DataType::Decimal128(precision, scale) => {
                let precision = if merge == Merge::Sum { 38 } else { *precision };
                (Number::Decimal { precision, scale: *scale }, DataType::Decimal128(precision, *scale))
            }
            other => {
                return Err(Error::input(format!(
                    "column `{column}` of type {other} cannot be summed or compared here"
                ))
                .hint("sums, minima and maxima are of Int8 to Int64, Float32, Float64 and Decimal128"));
            }
        };
        let part = self.part(Part { origin: Origin::Value(at), merge, number });
        // A decimal sum may be too long to be shown.
        let too_long = merge == Merge::Sum && matches!(number, Number::Decimal { .. });
        Ok((Shown { part, present: present.or(too_long.then_some(0)) }, data_type))
    }

    /// The place of a part, which several calls may share.
    fn part(&mut self, part: Part) -> usize {
        self.parts.iter().position(|known| *known == part).unwrap_or_else(|| {
            self.parts.push(part);
            self.parts.len() - 1
        })
    }

    /// Whether rows can be taken back.
    pub fn retracts(&self) -> bool {
        self.parts.iter().all(|part| part.merge == Merge::Sum)
    }

    /// The columns of the parts, one behind the other.
    pub fn part_fields(&self) -> Vec<Field> {
        let field = |(at, part): (usize, &Part)| Field::new(format!("part {at}"), part.number.data_type(), false);
        self.parts.iter().enumerate().map(field).collect()
    }

    /// Says in words what the state holds, so that other state is noticed.
    pub fn describe(&self) -> String {
        format!("{:?}", self.parts)
    }

    /// The parts of each row of a batch.
    pub fn columns(&self, batch: &ColumnBatch) -> Result<Vec<PartColumn>> {
        self.parts.iter().map(|part| part.column(batch, &self.ones)).collect()
    }

    /// The parts of each row, from columns that `PartColumn::array` made.
    pub fn read(&self, arrays: &[ArrayRef]) -> Result<Vec<PartColumn>> {
        let unlike = || Error::bug("columns of parts that were not made by this aggregation");
        if arrays.len() != self.parts.len() {
            return Err(unlike());
        }
        self.parts.iter().zip(arrays).map(|(part, array)| part.number.read(array).ok_or_else(unlike)).collect()
    }

    /// The words of a group without rows.
    pub fn nothing(&self) -> &[u64] {
        &self.nothing
    }

    /// Of each part how two become one, and its first word.
    pub fn merges(&self) -> impl Iterator<Item = (Merge, usize)> {
        self.parts.iter().map(|part| part.merge).zip(self.words.iter().copied())
    }

    /// Merges the words of another group of the same key into those held.
    pub fn merge(&self, held: &mut [u64], other: &[u64]) {
        for (part, at) in self.parts.iter().zip(&self.words) {
            part.number.merge(part.merge, &mut held[*at..], &other[*at..]);
        }
    }

    /// The parts of groups, as columns of the exchange.
    pub fn part_columns(&self, groups: &[Group<'_>]) -> impl Iterator<Item = ArrayRef> {
        let parts = self.parts.iter().zip(&self.words);
        parts.map(|(part, at)| part.number.column(groups.iter().map(|group| &group.parts[*at..])).array())
    }

    /// The columns of results of these groups.
    pub fn results(&self, groups: &[Group<'_>]) -> Result<Vec<ArrayRef>> {
        self.shown.iter().map(|shown| self.result(shown, groups)).collect()
    }

    fn result(&self, shown: &Shown, groups: &[Group<'_>]) -> Result<ArrayRef> {
        let at = self.words[shown.part];
        let Part { merge, number, .. } = self.parts[shown.part];
        let column = number.column(groups.iter().map(|group| &group.parts[at..]));
        let nulls = shown.present.map(|part| {
            let present = self.words[part];
            groups.iter().map(|group| group.parts[present] != 0).collect::<NullBuffer>()
        });
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        Ok(match (column, number) {
            (PartColumn::Decimal(values), Number::Decimal { precision, scale }) => {
                let most = 10u128.pow(u32::from(precision));
                let fits = |value: &i128| merge != Merge::Sum || value.unsigned_abs() < most;
                let fits = values.values().iter().map(fits).collect::<NullBuffer>();
                let fits = Some(fits).filter(|fits| fits.null_count() > 0);
                let values =
                    Decimal128Array::new(values.values().clone(), NullBuffer::union(nulls.as_ref(), fits.as_ref()));
                Arc::new(values.with_precision_and_scale(precision, scale).map_err(failed)?)
            }
            (PartColumn::Decimal(values), _) => Arc::new(values),
            (PartColumn::Whole(values), _) => Arc::new(Int64Array::new(values.values().clone(), nulls)),
            (PartColumn::Float(values), _) => Arc::new(Float64Array::new(values.values().clone(), nulls)),
        })
    }
}

impl Part {
    fn column(&self, batch: &ColumnBatch, ones: &Int64Array) -> Result<PartColumn> {
        let unlike = || Error::bug("a batch that does not have the columns of its stream");
        let at = match self.origin {
            Origin::Rows if batch.rows() <= ones.len() => return Ok(PartColumn::Whole(ones.slice(0, batch.rows()))),
            Origin::Rows => return Ok(PartColumn::Whole(Int64Array::from_value(1, batch.rows()))),
            Origin::Present(at) | Origin::Value(at) => at,
        };
        let array = batch.columns().columns().get(at).ok_or_else(unlike)?;
        if matches!(self.origin, Origin::Present(_)) {
            let present = (0..array.len()).map(|row| i64::from(array.is_valid(row)));
            return Ok(PartColumn::Whole(Int64Array::from_iter_values(present)));
        }
        fn wider<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &ArrayRef) -> Int64Array {
            array.as_primitive::<T>().unary(Into::into)
        }
        Ok(match array.data_type() {
            DataType::Int8 => PartColumn::Whole(plain(&wider::<Int8Type>(array), Kept::nothing(self.merge))),
            DataType::Int16 => PartColumn::Whole(plain(&wider::<Int16Type>(array), Kept::nothing(self.merge))),
            DataType::Int32 => PartColumn::Whole(plain(&wider::<Int32Type>(array), Kept::nothing(self.merge))),
            DataType::Int64 => PartColumn::Whole(plain(array.as_primitive(), Kept::nothing(self.merge))),
            DataType::Float32 => {
                let wide: Float64Array = array.as_primitive::<Float32Type>().unary(f64::from);
                PartColumn::Float(plain(&wide, Kept::nothing(self.merge)))
            }
            DataType::Float64 => PartColumn::Float(plain(array.as_primitive(), Kept::nothing(self.merge))),
            DataType::Decimal128(..) => PartColumn::Decimal(plain(array.as_primitive(), Kept::nothing(self.merge))),
            _ => return Err(unlike()),
        })
    }
}
