//! Bounded sources without anything outside: elements of a collection, and a range of numbers.

use std::sync::Arc;

use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Data, Error, NO_TIMESTAMP, Result};

/// The elements of a collection, in order, from one subtask.
pub struct CollectionSource<T> {
    elements: Arc<[T]>,
}

impl<T> CollectionSource<T> {
    /// A source of these elements.
    pub fn new(elements: Vec<T>) -> Self {
        CollectionSource { elements: elements.into() }
    }
}

/// The numbers `first..=last`.
pub struct SequenceSource {
    first: i64,
    last: i64,
}

impl SequenceSource {
    /// The range is divided into this many splits, whatever the parallelism.
    const SPLITS: u32 = 128;

    /// A source of the numbers `first..=last`.
    pub fn new(first: i64, last: i64) -> Self {
        SequenceSource { first, last }
    }
}

impl<T: Data + Sync> Source<T> for CollectionSource<T> {
    fn name(&self) -> String {
        "collection".to_string()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(vec![range_split(0, 0, self.elements.len() as i128)])
    }

    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        let elements = self.elements.clone();
        Ok(Box::new(RangeReader {
            ranges: Vec::new(),
            paused: Vec::new(),
            value: move |at: i64| elements[at as usize].clone(),
        }))
    }
}

impl Source<i64> for SequenceSource {
    fn name(&self) -> String {
        format!("sequence {}..={}", self.first, self.last)
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        // Behind the last number there may be none of its type.
        let (first, behind) = (i128::from(self.first), i128::from(self.last) + 1);
        let edge = |i: i128| first + (behind - first).max(0) * i / i128::from(Self::SPLITS);
        Ok((0..Self::SPLITS).map(|i| range_split(i, edge(i.into()), edge(i128::from(i) + 1))).collect())
    }

    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        Ok(Box::new(RangeReader { ranges: Vec::new(), paused: Vec::new(), value: |at| at }))
    }
}

fn range_split(slot: u32, next: i128, end: i128) -> Split {
    Split { id: format!("range-{slot}"), slot, position: position(next, end) }
}

/// `[next, end]`; both may be 2^63, behind the last number of all.
fn position(next: i128, end: i128) -> serde_json::Value {
    let number = |n: i128| i64::try_from(n).map_or_else(|_| serde_json::json!(n as u64), |n| serde_json::json!(n));
    serde_json::Value::Array(vec![number(next), number(end)])
}

fn range_of(split: &Split) -> Result<Range> {
    let number = |value: &serde_json::Value| value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
    let numbers: Option<Vec<i128>> = split.position.as_array().and_then(|pair| pair.iter().map(number).collect());
    match numbers.as_deref() {
        Some([next, end]) => {
            let left = u64::try_from(end - next).unwrap_or(0);
            Ok(Range { split: split.clone(), end: *end, left, finished: false })
        }
        _ => Err(Error::corrupt(format!("position of split `{}` is not a range: {}", split.id, split.position))),
    }
}

struct Range {
    split: Split,
    end: i128,
    /// Numbers up to the end.
    left: u64,
    /// Its end was told.
    finished: bool,
}

impl Range {
    fn next(&self) -> i128 {
        self.end - i128::from(self.left)
    }
}

/// Reads ranges of numbers, each turned into a value.
struct RangeReader<F> {
    ranges: Vec<Range>,
    paused: Vec<bool>,
    value: F,
}

impl<T: 'static, F: FnMut(i64) -> T> SourceReader<T> for RangeReader<F> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in &splits {
            self.ranges.push(range_of(split)?);
        }
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll> {
        let mut waits = false;
        for (index, range) in self.ranges.iter_mut().enumerate().filter(|(_, range)| !range.finished) {
            if self.paused.get(index).copied().unwrap_or(false) {
                waits = true;
                continue;
            }
            let count = range.left.min(output.room() as u64);
            // It fits while numbers are left.
            let next = range.next() as i64;
            for at in 0..count {
                output.push(index, NO_TIMESTAMP, (self.value)(next.wrapping_add(at as i64)));
            }
            range.left -= count;
            if range.left > 0 {
                return Ok(Poll::More);
            }
            range.finished = true;
            output.finish_split(index);
        }
        // Whoever has paused a split polls again.
        Ok(if waits { Poll::Pending { wake_at_ms: None } } else { Poll::End })
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        self.paused = paused.to_vec();
        true
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let with_position =
            |range: &Range| Split { position: position(range.next(), range.end), ..range.split.clone() };
        Ok(self.ranges.iter().map(with_position).collect())
    }
}
