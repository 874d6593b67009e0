//! A source that makes its records up: for demos, tests and benches.

use std::any::{Any, TypeId};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{ColumnBatch, Error, NO_TIMESTAMP, Result, SharedClock};

use crate::rate_limit::{Allowance, Tokens};

/// Makes record `index` by a function of the index, so that after a restart the same records come again.
///
/// The indices 0, 1, 2, … are dealt to the splits in turn: of `k` splits the i-th has i, i + k, i + 2k, …, so all splits
/// move through event time together.
pub struct GeneratorSource<T> {
    name: String,
    make: Arc<dyn Fn(u64) -> T + Send + Sync>,
    count: Option<u64>,
    rate_per_second: Option<f64>,
    splits: u32,
}

impl<T: 'static> GeneratorSource<T> {
    /// Unbounded and as fast as it goes, in one split.
    pub fn new(name: impl Into<String>, make: impl Fn(u64) -> T + Send + Sync + 'static) -> Self {
        GeneratorSource { name: name.into(), make: Arc::new(make), count: None, rate_per_second: None, splits: 1 }
    }

    /// Ends after `count` records in all; default: never.
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// At most so many records a second over all splits; default: no limit. One that was held up catches up for at most a
    /// second of its rate.
    pub fn rate_per_second(mut self, rate: f64) -> Self {
        self.rate_per_second = Some(rate);
        self
    }

    /// Into how many splits the indices are dealt; default 1. To keep several subtasks busy give at least as many.
    pub fn split_count(mut self, splits: u32) -> Self {
        self.splits = splits.max(1);
        self
    }
}

impl<T: 'static> Source<T> for GeneratorSource<T> {
    fn name(&self) -> String {
        format!("generator `{}`", self.name)
    }

    fn boundedness(&self) -> Boundedness {
        match self.count {
            Some(_) => Boundedness::Bounded,
            None => Boundedness::Unbounded,
        }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        if self.rate_per_second.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(Error::input(format!("{}: the rate per second must be above 0", self.name())));
        }
        let split =
            |slot: u32| Split { id: format!("{slot}/{}", self.splits), slot, position: serde_json::Value::Null };
        Ok((0..self.splits).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        Ok(Box::new(GeneratorReader {
            name: self.name(),
            make: Arc::clone(&self.make),
            end: self.count.unwrap_or(u64::MAX),
            rate_per_split: self.rate_per_second.map(|rate| rate / f64::from(self.splits)),
            clock: context.clock,
            splits: Vec::new(),
            turn: 0,
            record_rows: if TypeId::of::<T>() == TypeId::of::<ColumnBatch>() { BATCH_ROWS } else { 1 },
            tokens: Tokens::default(),
        }))
    }
}

/// Where a split goes on.
#[derive(Serialize, Deserialize)]
struct Position {
    next: u64,
}

struct Range {
    split: Split,
    next: u64,
    step: u64,
    paused: bool,
    /// Its end was told.
    finished: bool,
}

struct GeneratorReader<T> {
    name: String,
    make: Arc<dyn Fn(u64) -> T + Send + Sync>,
    end: u64,
    rate_per_split: Option<f64>,
    clock: SharedClock,
    splits: Vec<Range>,
    /// The split that begins the next poll.
    turn: usize,
    /// Rows of the last record: batches are made one by one, as the rows in them are what is processed.
    record_rows: usize,
    tokens: Tokens,
}

/// Rows that a batch is thought to have until there was one.
const BATCH_ROWS: usize = 1024;

/// The rows of a record.
fn rows<T: 'static>(record: &T) -> usize {
    (record as &dyn Any).downcast_ref::<ColumnBatch>().map_or(1, ColumnBatch::rows)
}

impl<T: 'static> SourceReader<T> for GeneratorReader<T> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let wrong = || Error::input(format!("{}: split `{}` is not one of its own", self.name, split.id));
            let (first, step) = split.id.split_once('/').ok_or_else(wrong)?;
            let (first, step): (u64, u64) = (first.parse().map_err(|_| wrong())?, step.parse().map_err(|_| wrong())?);
            let next = match &split.position {
                serde_json::Value::Null => first,
                position => serde_json::from_value::<Position>(position.clone()).map_err(|_| wrong())?.next,
            };
            self.splits.push(Range { split, next, step, paused: false, finished: false });
        }
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll> {
        for (index, range) in self.splits.iter_mut().enumerate() {
            if range.next >= self.end && !std::mem::replace(&mut range.finished, true) {
                output.finish_split(index);
            }
        }
        if self.splits.iter().all(|range| range.finished) {
            return Ok(Poll::End);
        }
        let read = self.splits.iter().filter(|range| !range.finished && !range.paused).count();
        if read == 0 {
            // Whoever has paused them polls again.
            return Ok(Poll::Pending { wake_at_ms: None });
        }
        let (now_ms, steady_ms) = (self.clock.now_ms(), self.clock.steady_ms());
        let allowed = match self.rate_per_split {
            None => u64::MAX,
            Some(rate) => match self.tokens.refill(steady_ms, rate * self.splits.len() as f64) {
                Allowance::Now(records) => records,
                Allowance::In(wait_ms) => {
                    return Ok(Poll::Pending { wake_at_ms: Some(now_ms.saturating_add(wait_ms)) });
                }
            },
        };
        // All splits move on together, each by a run, so that the cost per record is the function's alone.
        let room = (output.room() / self.record_rows.max(1)).max(1);
        let budget = allowed.min(room as u64);
        let run = budget.div_ceil(read as u64);
        let mut left = budget;
        let splits = self.splits.len();
        for turn in 0..splits {
            let index = (self.turn + turn) % splits;
            let range = &mut self.splits[index];
            if range.paused {
                continue;
            }
            let indices_left = self.end.saturating_sub(range.next).div_ceil(range.step);
            let emitted = run.min(left).min(indices_left);
            for _ in 0..emitted {
                let record = (self.make)(range.next);
                self.record_rows = rows(&record);
                output.push(index, NO_TIMESTAMP, record);
                range.next += range.step;
            }
            left -= emitted;
        }
        self.turn = (self.turn + 1) % splits;
        self.tokens.take(budget - left);
        Ok(Poll::More)
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        for (index, range) in self.splits.iter_mut().enumerate() {
            range.paused = paused.get(index).copied().unwrap_or(false);
        }
        true
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let with_position = |range: &Range| {
            let position = serde_json::json!({ "next": range.next });
            Split { position, ..range.split.clone() }
        };
        Ok(self.splits.iter().map(with_position).collect())
    }

    fn pending_records(&self) -> Option<u64> {
        let left = |range: &Range| self.end.saturating_sub(range.next).div_ceil(range.step);
        (self.end != u64::MAX).then(|| self.splits.iter().map(left).sum())
    }
}
