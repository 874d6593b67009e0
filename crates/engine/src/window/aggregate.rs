//! What a group of records becomes: a running value wherever one will do, all elements only where they are asked for.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use tidemill_core::Data;

/// A running aggregation (Flink's `AggregateFunction`). `merge` joins what two slices of a window have gathered.
pub trait Aggregate<T>: Clone + Send + 'static {
    /// The running value; it is state.
    type Accumulator: Data;
    /// The result.
    type Output: Data;

    /// The value of no records.
    fn create(&self) -> Self::Accumulator;

    /// Takes a record in.
    fn add(&mut self, accumulator: &mut Self::Accumulator, value: T);

    /// Takes in what another slice has gathered.
    fn merge(&mut self, accumulator: &mut Self::Accumulator, other: Self::Accumulator);

    /// Sees each running value that comes back at a restore, before the first record. The default does nothing.
    fn restored(&mut self, accumulator: &Self::Accumulator) {
        let _ = accumulator;
    }

    /// The result of what was gathered.
    fn result(&mut self, accumulator: Self::Accumulator) -> Self::Output;
}

/// Counts records.
#[derive(Clone, Copy, Default)]
pub struct Count;

impl<T: Data> Aggregate<T> for Count {
    type Accumulator = u64;
    type Output = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&mut self, count: &mut u64, _value: T) {
        *count += 1;
    }

    fn merge(&mut self, count: &mut u64, other: u64) {
        *count += other;
    }

    fn result(&mut self, count: u64) -> u64 {
        count
    }
}

/// Folds each record into the first one: `|held, next| *held += next`.
#[derive(Clone)]
pub struct Reduce<F>(pub F);

impl<T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> Aggregate<T> for Reduce<F> {
    type Accumulator = Option<T>;
    type Output = T;

    fn create(&self) -> Option<T> {
        None
    }

    fn add(&mut self, accumulator: &mut Option<T>, value: T) {
        match accumulator {
            Some(held) => (self.0)(held, value),
            None => *accumulator = Some(value),
        }
    }

    fn merge(&mut self, accumulator: &mut Option<T>, other: Option<T>) {
        if let Some(value) = other {
            self.add(accumulator, value);
        }
    }

    fn result(&mut self, accumulator: Option<T>) -> T {
        accumulator.expect("a window exists only once it has a record")
    }
}

/// When a record came among those of its subtask: a number (`u64`) where what a window has may be put together from parts, as
/// with slices and sessions; nothing ([`Unnumbered`]) where all of its records are gathered in one place, one behind the other.
pub trait Arrival: Data + Copy + Ord + Default {
    /// That of the next record.
    fn next(self) -> Self;
}

impl Arrival for u64 {
    fn next(self) -> u64 {
        self + 1
    }
}

/// No note of when a record came. Saved state has a number all the same, so that either can be read as the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unnumbered;

impl Arrival for Unnumbered {
    fn next(self) -> Unnumbered {
        Unnumbered
    }
}

impl Serialize for Unnumbered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(0)
    }
}

impl<'de> Deserialize<'de> for Unnumbered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|_| Unnumbered)
    }
}

/// Records that are kept, with their order of arrival on this subtask. Most keys have few in a window: the first needs no
/// memory of its own.
pub type Kept<T, R> = SmallVec<[(R, T); 1]>;

/// Puts records into the order they came in; they are not when they come of several slices.
pub(crate) fn sort_kept<T, R: Arrival>(kept: &mut [(R, T)]) {
    if !kept.is_sorted_by_key(|(arrival, _)| *arrival) {
        kept.sort_by_key(|(arrival, _)| *arrival);
    }
}

/// Numbers the records of a subtask as they come.
#[derive(Clone, Default)]
pub(crate) struct Arrivals<R> {
    next: R,
}

impl<R: Arrival> Arrivals<R> {
    /// The number of a record that comes now, behind those kept in its place.
    pub fn number<T>(&mut self, kept: &[(R, T)]) -> R {
        if let Some((last, _)) = kept.last() {
            self.next = self.next.max(last.next());
        }
        let number = self.next;
        self.next = number.next();
        number
    }

    /// What comes from now on comes behind all that is kept there, also in windows that are joined with its own later.
    pub fn restored<T>(&mut self, kept: &[(R, T)]) {
        if let Some(last) = kept.iter().map(|(arrival, _)| *arrival).max() {
            self.next = self.next.max(last.next());
        }
    }
}

/// Keeps all records, in the order they came, also across slices where `R` tells it.
#[derive(Clone, Default)]
pub struct Elements<R> {
    arrivals: Arrivals<R>,
}

impl<T: Data, R: Arrival> Aggregate<T> for Elements<R> {
    type Accumulator = Kept<T, R>;
    type Output = Vec<T>;

    fn create(&self) -> Self::Accumulator {
        Kept::new()
    }

    fn add(&mut self, accumulator: &mut Self::Accumulator, value: T) {
        let arrival = self.arrivals.number(accumulator);
        accumulator.push((arrival, value));
    }

    fn merge(&mut self, accumulator: &mut Self::Accumulator, other: Self::Accumulator) {
        accumulator.extend(other);
    }

    fn restored(&mut self, accumulator: &Self::Accumulator) {
        self.arrivals.restored(accumulator);
    }

    fn result(&mut self, mut accumulator: Self::Accumulator) -> Vec<T> {
        sort_kept(&mut accumulator);
        accumulator.into_iter().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_records_are_read_with_and_without_numbers() {
        let mut numbered: Kept<i64, u64> = Kept::new();
        let (mut elements, mut plain_elements) =
            (Elements { arrivals: Arrivals { next: 300u64 } }, Elements::<Unnumbered>::default());
        let mut plain: Kept<i64, Unnumbered> = Kept::new();
        for value in [5, -7, 5] {
            elements.add(&mut numbered, value);
            plain_elements.add(&mut plain, value);
        }
        let read: Kept<i64, Unnumbered> = postcard::from_bytes(&postcard::to_stdvec(&numbered).unwrap()).unwrap();
        assert_eq!(plain_elements.result(read), [5, -7, 5]);
        let read: Kept<i64, u64> = postcard::from_bytes(&postcard::to_stdvec(&plain).unwrap()).unwrap();
        assert_eq!(elements.result(read), [5, -7, 5]);
    }
}
