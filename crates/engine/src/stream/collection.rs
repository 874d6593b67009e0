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
    const SPLITS: i64 = 128;

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
        Ok(vec![range_split(0, 0, self.elements.len() as i64)])
    }

    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        let elements = self.elements.clone();
        Ok(Box::new(RangeReader {
            ranges: Vec::new(),
            current: 0,
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
        let count = self.last.saturating_sub(self.first).saturating_add(1).max(0);
        let edge = |i: i64| self.first + (i128::from(count) * i128::from(i) / i128::from(Self::SPLITS)) as i64;
        Ok((0..Self::SPLITS).map(|i| range_split(i as u32, edge(i), edge(i + 1))).collect())
    }

    fn reader(&self, _context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        Ok(Box::new(RangeReader { ranges: Vec::new(), current: 0, value: |at| at }))
    }
}

fn range_split(slot: u32, next: i64, end: i64) -> Split {
    Split { id: format!("range-{slot}"), slot, position: serde_json::json!([next, end]) }
}

/// Reads ranges of numbers, each turned into a value.
struct RangeReader<F> {
    ranges: Vec<(Split, i64, i64)>,
    current: usize,
    value: F,
}

impl<T: 'static, F: FnMut(i64) -> T> SourceReader<T> for RangeReader<F> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let [next, end] = serde_json::from_value(split.position.clone())
                .map_err(|e| Error::corrupt(format!("position of split `{}` is not a range: {e}", split.id)))?;
            self.ranges.push((split, next, end));
        }
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll> {
        while let Some((_, next, end)) = self.ranges.get_mut(self.current) {
            while *next < *end {
                if output.room() == 0 {
                    return Ok(Poll::More);
                }
                output.push(self.current, NO_TIMESTAMP, (self.value)(*next));
                *next += 1;
            }
            self.current += 1;
        }
        Ok(Poll::End)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        Ok(self
            .ranges
            .iter()
            .map(|(split, next, end)| Split { position: serde_json::json!([next, end]), ..split.clone() })
            .collect())
    }
}
