//! Any source, not faster than so many records a second.

use tidemill_core::source::{Assignment, Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{Error, Result, SharedClock};

/// How many records a second a source may emit, refused ones included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RateLimit {
    /// In all. Each subtask has an even share, used or not, as in Flink.
    PerJob(f64),
    /// Each subtask.
    PerSubtask(f64),
}

/// A source that is read at a limited rate; everything else is as the source does it.
///
/// ```
/// use tidemill_connectors::generator::GeneratorSource;
/// use tidemill_connectors::rate_limit::{RateLimit, RateLimitedSource};
/// let source = GeneratorSource::new("numbers", |n: u64| n);
/// let slow = RateLimitedSource::new(source, RateLimit::PerJob(100.0));
/// # let _ = slow;
/// ```
pub struct RateLimitedSource<S> {
    source: S,
    limit: RateLimit,
}

impl<S> RateLimitedSource<S> {
    /// `source` with a limit above 0. A subtask that was held up catches up for at most a second of its rate.
    pub fn new(source: S, limit: RateLimit) -> Self {
        RateLimitedSource { source, limit }
    }
}

impl<T: 'static, S: Source<T>> Source<T> for RateLimitedSource<S> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn boundedness(&self) -> Boundedness {
        self.source.boundedness()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        self.source.splits()
    }

    fn assignment(&self) -> Assignment {
        self.source.assignment()
    }

    fn stages(&self) -> u32 {
        self.source.stages()
    }

    fn stage_splits(&self, stage: u32, ended: &[Split]) -> Result<Vec<Split>> {
        self.source.stage_splits(stage, ended)
    }

    fn discovery_interval_ms(&self) -> Option<u64> {
        self.source.discovery_interval_ms()
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<T>>> {
        let per_second = match self.limit {
            RateLimit::PerJob(rate) => rate / context.parallelism as f64,
            RateLimit::PerSubtask(rate) => rate,
        };
        if !(per_second > 0.0 && per_second.is_finite()) {
            return Err(Error::input(format!("{}: the records per second must be above 0", self.name())));
        }
        let clock = context.clock.clone();
        let reader = self.source.reader(context)?;
        Ok(Box::new(RateLimitedReader { reader, per_second, tokens: Tokens::default(), clock }))
    }
}

struct RateLimitedReader<T> {
    reader: Box<dyn SourceReader<T>>,
    per_second: f64,
    tokens: Tokens,
    clock: SharedClock,
}

impl<T> SourceReader<T> for RateLimitedReader<T> {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.reader.add_splits(splits)
    }

    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll> {
        let allowed = match self.tokens.refill(self.clock.steady_ms(), self.per_second) {
            Allowance::Now(records) => usize::try_from(records).unwrap_or(usize::MAX),
            Allowance::In(wait_ms) => {
                return Ok(Poll::Pending { wake_at_ms: Some(self.clock.now_ms().saturating_add(wait_ms)) });
            }
        };
        let before = output.room();
        let polled = output.within(allowed, |output| self.reader.poll(output));
        self.tokens.take((before - output.room()) as u64);
        polled
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        self.reader.pause_splits(paused)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        self.reader.snapshot()
    }

    fn checkpoint_complete(&mut self, epoch: u64) -> Result<()> {
        self.reader.checkpoint_complete(epoch)
    }

    fn pending_records(&self) -> Option<u64> {
        self.reader.pending_records()
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.reader.fetched_ms()
    }
}

/// What [`Tokens::refill`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// So many records may be emitted now; at least one.
    Now(u64),
    /// None for so many ms.
    In(i64),
}

/// Records that may be emitted: they gather at a rate, for at most a second.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    tokens: f64,
    filled_ms: Option<i64>,
}

/// How long tokens gather for, in ms.
const BURST_MS: f64 = 1000.0;

impl Tokens {
    /// What has gathered by now, by a clock that never jumps.
    pub fn refill(&mut self, now_ms: i64, per_second: f64) -> Allowance {
        let per_ms = per_second / 1000.0;
        let elapsed_ms = now_ms.saturating_sub(*self.filled_ms.get_or_insert(now_ms)).max(0);
        self.filled_ms = Some(now_ms);
        let most = (per_ms * BURST_MS).max(1.0);
        self.tokens = (self.tokens + elapsed_ms as f64 * per_ms).min(most);
        if self.tokens >= 1.0 {
            return Allowance::Now(self.tokens as u64);
        }
        let wait_ms = ((1.0 - self.tokens) / per_ms).ceil() as i64;
        Allowance::In(wait_ms.max(1))
    }

    /// So many were emitted.
    pub fn take(&mut self, records: u64) {
        self.tokens -= records as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_gather_for_a_second_and_a_slow_rate_is_kept_exactly() {
        let mut tokens = Tokens::default();
        assert_eq!(tokens.refill(0, 100.0), Allowance::In(10));
        assert_eq!(tokens.refill(10, 100.0), Allowance::Now(1));
        tokens.take(1);
        assert_eq!(tokens.refill(60_000, 100.0), Allowance::Now(100));
        tokens.take(100);
        let (mut now_ms, mut emitted) = (60_000, 0);
        while now_ms < 60_000 + 3_600_000 {
            match tokens.refill(now_ms, 0.25) {
                Allowance::Now(records) => {
                    tokens.take(records);
                    emitted += records;
                }
                Allowance::In(wait_ms) => now_ms += wait_ms,
            }
        }
        assert!((899..=900).contains(&emitted), "a quarter of a record a second, for an hour: {emitted}");
    }
}
