//! The numbers that are kept for each group of rows: how two become one, how they stand in machine words, and columns of
//! them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow_array::{ArrayRef, Decimal128Array, Float64Array, Int64Array};
use arrow_schema::DataType;

/// How two of a kind become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Sum,
    Min,
    Max,
}

/// What a number is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Whole,
    Float,
    /// Two words: low, high.
    Decimal {
        precision: u8,
        scale: i8,
    },
}

/// A number as it is kept.
pub(super) trait Kept: Copy {
    /// How many words it has.
    const WORDS: usize;

    /// From its words, which begin the slice.
    fn of(words: &[u64]) -> Self;

    /// Into its words, which begin the slice.
    fn put(self, words: &mut [u64]);

    /// One of two.
    fn merge(self, other: Self, merge: Merge) -> Self;

    /// What a sum takes in when this is taken back.
    fn negated(self) -> Self;

    /// What changes nothing.
    fn nothing(merge: Merge) -> Self;
}

impl Kept for i64 {
    const WORDS: usize = 1;

    #[inline]
    fn of(words: &[u64]) -> i64 {
        words[0] as i64
    }

    #[inline]
    fn put(self, words: &mut [u64]) {
        words[0] = self as u64;
    }

    #[inline]
    fn merge(self, other: i64, merge: Merge) -> i64 {
        match merge {
            Merge::Sum => self.wrapping_add(other),
            Merge::Min => self.min(other),
            Merge::Max => self.max(other),
        }
    }

    fn negated(self) -> i64 {
        self.wrapping_neg()
    }

    fn nothing(merge: Merge) -> i64 {
        match merge {
            Merge::Sum => 0,
            Merge::Min => i64::MAX,
            Merge::Max => i64::MIN,
        }
    }
}

impl Kept for f64 {
    const WORDS: usize = 1;

    #[inline]
    fn of(words: &[u64]) -> f64 {
        f64::from_bits(words[0])
    }

    #[inline]
    fn put(self, words: &mut [u64]) {
        words[0] = self.to_bits();
    }

    #[inline]
    fn merge(self, other: f64, merge: Merge) -> f64 {
        match merge {
            Merge::Sum => self + other,
            Merge::Min if other.total_cmp(&self).is_lt() => other,
            Merge::Max if other.total_cmp(&self).is_gt() => other,
            Merge::Min | Merge::Max => self,
        }
    }

    fn negated(self) -> f64 {
        -self
    }

    fn nothing(merge: Merge) -> f64 {
        match merge {
            Merge::Sum => 0.0,
            // The ends of the total order of floats.
            Merge::Min => f64::from_bits(i64::MAX as u64),
            Merge::Max => f64::from_bits(u64::MAX),
        }
    }
}

impl Kept for i128 {
    const WORDS: usize = 2;

    #[inline]
    fn of(words: &[u64]) -> i128 {
        (i128::from(words[1] as i64) << 64) | i128::from(words[0])
    }

    #[inline]
    fn put(self, words: &mut [u64]) {
        (words[0], words[1]) = (self as u64, (self >> 64) as u64);
    }

    #[inline]
    fn merge(self, other: i128, merge: Merge) -> i128 {
        match merge {
            Merge::Sum => self.wrapping_add(other),
            Merge::Min => self.min(other),
            Merge::Max => self.max(other),
        }
    }

    fn negated(self) -> i128 {
        self.wrapping_neg()
    }

    fn nothing(merge: Merge) -> i128 {
        match merge {
            Merge::Sum => 0,
            Merge::Min => i128::MAX,
            Merge::Max => i128::MIN,
        }
    }
}

/// Calls `$call` with the type a number is kept as.
macro_rules! with_kept {
    ($number:expr, $kept:ident => $call:expr) => {
        match $number {
            Number::Whole => {
                type $kept = i64;
                $call
            }
            Number::Float => {
                type $kept = f64;
                $call
            }
            Number::Decimal { .. } => {
                type $kept = i128;
                $call
            }
        }
    };
}

impl Number {
    /// How many words it has.
    pub fn words(self) -> usize {
        with_kept!(self, V => V::WORDS)
    }

    /// The type of its columns on the exchange.
    pub fn data_type(self) -> DataType {
        match self {
            Number::Whole => DataType::Int64,
            Number::Float => DataType::Float64,
            Number::Decimal { .. } => DataType::Decimal128(38, 0),
        }
    }

    /// Writes what changes nothing.
    pub fn put_nothing(self, merge: Merge, words: &mut [u64]) {
        with_kept!(self, V => V::nothing(merge).put(words))
    }

    /// Merges words of another group into those held.
    pub fn merge(self, merge: Merge, held: &mut [u64], other: &[u64]) {
        with_kept!(self, V => V::of(held).merge(V::of(other), merge).put(held))
    }

    /// A column of the exchange as numbers; `None` if it is of another type.
    pub fn read(self, array: &ArrayRef) -> Option<PartColumn> {
        Some(match self {
            Number::Whole => PartColumn::Whole(array.as_primitive_opt::<Int64Type>()?.clone()),
            Number::Float => PartColumn::Float(array.as_primitive_opt::<Float64Type>()?.clone()),
            Number::Decimal { .. } => PartColumn::Decimal(array.as_primitive_opt::<Decimal128Type>()?.clone()),
        })
    }

    /// A column of numbers from the words of groups.
    pub fn column<'a>(self, groups: impl Iterator<Item = &'a [u64]>) -> PartColumn {
        match self {
            Number::Whole => PartColumn::Whole(groups.map(i64::of).collect::<Vec<i64>>().into()),
            Number::Float => PartColumn::Float(groups.map(f64::of).collect::<Vec<f64>>().into()),
            Number::Decimal { .. } => PartColumn::Decimal(groups.map(i128::of).collect::<Vec<i128>>().into()),
        }
    }
}

/// One part of many rows, never null.
pub(super) enum PartColumn {
    Whole(Int64Array),
    Float(Float64Array),
    Decimal(Decimal128Array),
}

impl PartColumn {
    /// What sums take in when the rows are taken back.
    pub fn negated(&self) -> PartColumn {
        match self {
            PartColumn::Whole(values) => PartColumn::Whole(values.unary(Kept::negated)),
            PartColumn::Float(values) => PartColumn::Float(values.unary(Kept::negated)),
            PartColumn::Decimal(values) => PartColumn::Decimal(values.unary(Kept::negated)),
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
