//! What count, sum, min and max keep of a group of rows: machine words side by side, each with a way to merge it. The same
//! words stand in the columns that go over the exchange, in the state, and behind the results.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, Float64Array, Int64Array, PrimitiveArray};
use arrow_schema::{DataType, Field, SchemaRef};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tidemill_core::{ColumnBatch, Error, Result};

use super::row_key::RowKey;
use super::stream::place;
use crate::window::Aggregate;

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

/// How two of a kind become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Sum,
    Min,
    Max,
}

/// What a number is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Whole,
    Float,
    /// Two words: low, high.
    Decimal {
        precision: u8,
        scale: i8,
    },
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
    shown: Vec<Shown>,
}

/// One part of many rows.
pub(super) enum PartColumn {
    Whole(Int64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
}

/// The parts of one group, as words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words(SmallVec<[u64; 3]>);

/// What a row contributes to its group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Contribution {
    pub key: RowKey,
    pub words: Words,
    /// It takes back.
    pub retracts: bool,
}

fn plain<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, absent: T::Native) -> PrimitiveArray<T> {
    match array.null_count() {
        0 => array.clone(),
        _ => PrimitiveArray::from_iter_values(array.iter().map(|value| value.unwrap_or(absent))),
    }
}

impl Merge {
    #[inline]
    fn whole(self, held: i64, other: i64) -> i64 {
        match self {
            Merge::Sum => held.wrapping_add(other),
            Merge::Min => held.min(other),
            Merge::Max => held.max(other),
        }
    }

    #[inline]
    fn float(self, held: f64, other: f64) -> f64 {
        match self {
            Merge::Sum => held + other,
            Merge::Min if other.total_cmp(&held).is_lt() => other,
            Merge::Max if other.total_cmp(&held).is_gt() => other,
            Merge::Min | Merge::Max => held,
        }
    }

    #[inline]
    fn decimal(self, held: i128, other: i128) -> i128 {
        match self {
            Merge::Sum => held.wrapping_add(other),
            Merge::Min => held.min(other),
            Merge::Max => held.max(other),
        }
    }

    /// What changes nothing: `whole`, `float`, `decimal`.
    fn nothing(self) -> (i64, f64, i128) {
        match self {
            Merge::Sum => (0, 0.0, 0),
            // The ends of the total order of floats.
            Merge::Min => (i64::MAX, f64::from_bits(i64::MAX as u64), i128::MAX),
            Merge::Max => (i64::MIN, f64::from_bits(u64::MAX), i128::MIN),
        }
    }
}

impl Layout {
    /// For these calls on columns of this schema; also the fields of the results.
    pub fn new(schema: &SchemaRef, calls: &[AggregateCall]) -> Result<(Self, Vec<Field>)> {
        let mut layout = Layout { parts: vec![ROWS], words: Vec::new(), shown: Vec::new() };
        let mut fields = Vec::new();
        for call in calls {
            let (shown, data_type) = layout.call(schema, call)?;
            fields.push(Field::new(&call.name, data_type, shown.present.is_some()));
            layout.shown.push(shown);
        }
        let mut next = 0;
        for part in &layout.parts {
            layout.words.push(next);
            next += if matches!(part.number, Number::Decimal { .. }) { 2 } else { 1 };
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
        let field = |(at, part): (usize, &Part)| {
            let data_type = match part.number {
                Number::Whole => DataType::Int64,
                Number::Float => DataType::Float64,
                Number::Decimal { .. } => DataType::Decimal128(38, 0),
            };
            Field::new(format!("part {at}"), data_type, false)
        };
        self.parts.iter().enumerate().map(field).collect()
    }

    /// Says in words what the state holds, so that other state is noticed.
    pub fn describe(&self) -> String {
        format!("{:?}", self.parts)
    }

    /// The parts of each row of a batch.
    pub fn columns(&self, batch: &ColumnBatch) -> Result<Vec<PartColumn>> {
        self.parts.iter().map(|part| part.column(batch)).collect()
    }

    /// The parts of each row, from columns that `PartColumn::array` made.
    pub fn read(&self, arrays: &[ArrayRef]) -> Result<Vec<PartColumn>> {
        let unlike = || Error::bug("columns of parts that were not made by this aggregation");
        let read = |(part, array): (&Part, &ArrayRef)| {
            Some(match part.number {
                Number::Whole => PartColumn::Whole(array.as_primitive_opt::<Int64Type>()?.clone()),
                Number::Float => PartColumn::Float(array.as_primitive_opt::<Float64Type>()?.clone()),
                Number::Decimal { .. } => PartColumn::Decimal(array.as_primitive_opt::<Decimal128Type>()?.clone()),
            })
        };
        if arrays.len() != self.parts.len() {
            return Err(unlike());
        }
        self.parts.iter().zip(arrays).map(|pair| read(pair).ok_or_else(unlike)).collect()
    }

    /// Merges rows into groups: `groups[row]` names the group.
    pub fn merge_rows(&self, columns: &[PartColumn], groups: &[u32], count: usize) -> Vec<PartColumn> {
        let merge = |(part, column): (&Part, &PartColumn)| column.merged(part.merge, groups, count);
        self.parts.iter().zip(columns).map(merge).collect()
    }

    /// The words of one row.
    #[inline]
    pub fn words(&self, columns: &[PartColumn], row: usize) -> Words {
        let mut words = SmallVec::new();
        for column in columns {
            match column {
                PartColumn::Whole(values) => words.push(values.value(row) as u64),
                PartColumn::Float(values) => words.push(values.value(row).to_bits()),
                PartColumn::Decimal(values) => words.extend_from_slice(&halves(values.value(row))),
            }
        }
        Words(words)
    }

    #[inline]
    fn merge_words(&self, held: &mut Words, other: &Words, retracts: bool) {
        for (part, at) in self.parts.iter().zip(&self.words) {
            match part.number {
                Number::Whole => {
                    let value = other.0[*at] as i64;
                    let value = if retracts { value.wrapping_neg() } else { value };
                    held.0[*at] = part.merge.whole(held.0[*at] as i64, value) as u64;
                }
                Number::Float => {
                    let value = f64::from_bits(other.0[*at]);
                    let value = if retracts { -value } else { value };
                    held.0[*at] = part.merge.float(f64::from_bits(held.0[*at]), value).to_bits();
                }
                Number::Decimal { .. } => {
                    let value = whole(&other.0, *at);
                    let value = if retracts { value.wrapping_neg() } else { value };
                    let merged = halves(part.merge.decimal(whole(&held.0, *at), value));
                    held.0[*at..*at + 2].copy_from_slice(&merged);
                }
            }
        }
    }

    /// The columns of results of these groups.
    pub fn results(&self, groups: &[Words]) -> Result<Vec<ArrayRef>> {
        let result = |shown: &Shown| -> Result<ArrayRef> {
            let at = self.words[shown.part];
            let present = shown.present.map(|part| self.words[part]);
            let shows = |words: &Words| present.is_none_or(|present| words.0[present] != 0);
            let Part { merge, number, .. } = self.parts[shown.part];
            Ok(match number {
                Number::Whole => Arc::new(Int64Array::from_iter(
                    groups.iter().map(|words| shows(words).then_some(words.0[at] as i64)),
                )),
                Number::Float => Arc::new(Float64Array::from_iter(
                    groups.iter().map(|words| shows(words).then_some(f64::from_bits(words.0[at]))),
                )),
                Number::Decimal { precision, scale } => {
                    let too_long =
                        |value: i128| merge == Merge::Sum && value.unsigned_abs() >= 10u128.pow(u32::from(precision));
                    let values = groups.iter().map(|words| {
                        let value = whole(&words.0, at);
                        (shows(words) && !too_long(value)).then_some(value)
                    });
                    let values = Decimal128Array::from_iter(values);
                    Arc::new(values.with_precision_and_scale(precision, scale).map_err(tidemill_core::columns::failed)?)
                }
            })
        };
        self.shown.iter().map(result).collect()
    }
}

impl Words {
    /// How many rows the group holds.
    pub fn rows(&self) -> i64 {
        self.0.first().map_or(0, |rows| *rows as i64)
    }
}

fn halves(value: i128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

fn whole(words: &[u64], at: usize) -> i128 {
    (i128::from(words[at + 1] as i64) << 64) | i128::from(words[at])
}

impl Part {
    fn column(&self, batch: &ColumnBatch) -> Result<PartColumn> {
        let unlike = || Error::bug("a batch that does not have the columns of its stream");
        let (whole, float, decimal) = self.merge.nothing();
        let at = match self.origin {
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
            DataType::Int8 => PartColumn::Whole(plain(&wider::<Int8Type>(array), whole)),
            DataType::Int16 => PartColumn::Whole(plain(&wider::<Int16Type>(array), whole)),
            DataType::Int32 => PartColumn::Whole(plain(&wider::<Int32Type>(array), whole)),
            DataType::Int64 => PartColumn::Whole(plain(array.as_primitive(), whole)),
            DataType::Float32 => {
                let wide: Float64Array = array.as_primitive::<Float32Type>().unary(f64::from);
                PartColumn::Float(plain(&wide, float))
            }
            DataType::Float64 => PartColumn::Float(plain(array.as_primitive(), float)),
            DataType::Decimal128(..) => PartColumn::Decimal(plain(array.as_primitive(), decimal)),
            _ => return Err(unlike()),
        })
    }
}

impl PartColumn {
    fn merged(&self, merge: Merge, groups: &[u32], count: usize) -> PartColumn {
        fn all<V: Copy>(values: &[V], groups: &[u32], mut held: Vec<V>, merge: impl Fn(V, V) -> V) -> Vec<V> {
            for (value, group) in values.iter().zip(groups) {
                let held = &mut held[*group as usize];
                *held = merge(*held, *value);
            }
            held
        }
        let (whole, float, decimal) = merge.nothing();
        match self {
            PartColumn::Whole(values) => PartColumn::Whole(
                all(values.values(), groups, vec![whole; count], |held, other| merge.whole(held, other)).into(),
            ),
            PartColumn::Float(values) => PartColumn::Float(
                all(values.values(), groups, vec![float; count], |held, other| merge.float(held, other)).into(),
            ),
            PartColumn::Decimal(values) => PartColumn::Decimal(
                all(values.values(), groups, vec![decimal; count], |held, other| merge.decimal(held, other)).into(),
            ),
        }
    }

    /// As a column of the exchange.
    pub fn array(self) -> ArrayRef {
        match self {
            PartColumn::Whole(values) => Arc::new(values),
            PartColumn::Float(values) => Arc::new(values),
            PartColumn::Decimal(values) => Arc::new(values.with_data_type(DataType::Decimal128(38, 0))),
        }
    }
}

/// The layout as what a window gathers.
#[derive(Clone)]
pub(super) struct Gathering(pub Arc<Layout>);

impl Aggregate<Contribution> for Gathering {
    type Accumulator = Words;
    type Output = Words;

    fn create(&self) -> Words {
        let mut words = SmallVec::new();
        for part in &self.0.parts {
            let (whole, float, decimal) = part.merge.nothing();
            match part.number {
                Number::Whole => words.push(whole as u64),
                Number::Float => words.push(float.to_bits()),
                Number::Decimal { .. } => words.extend_from_slice(&halves(decimal)),
            }
        }
        Words(words)
    }

    #[inline]
    fn add(&mut self, held: &mut Words, value: Contribution) {
        self.0.merge_words(held, &value.words, value.retracts);
    }

    fn merge(&mut self, held: &mut Words, other: Words) {
        self.0.merge_words(held, &other, false);
    }

    fn result(&mut self, held: Words) -> Words {
        held
    }
}
