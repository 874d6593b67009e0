//! Counters of one subtask, updated once a batch and read by whoever asks for a report.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use tidemill_core::report::SubtaskReport;
use tidemill_core::{Clock, NO_TIMESTAMP, WATERMARK_MAX, WATERMARK_MIN};

/// A number written by one thread and read by others.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only the subtask's own worker does.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// Sets.
    #[inline]
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Measures how long one thing takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Since it began.
    pub fn elapsed_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What one subtask counts.
pub struct SubtaskMetrics {
    /// Records taken in.
    pub records_in: Count,
    /// Records given out.
    pub records_out: Count,
    /// Records dropped as late.
    pub late_dropped: Count,
    /// Records refused by the source.
    pub dead_letters: Count,
    watermark_ms: AtomicI64,
    pending: AtomicU64,
    busy_ns: Count,
    blocked_ns: Count,
    /// Nanoseconds after `origin` at which the outputs ran out of credit; 0 when they have some.
    blocked_since: AtomicU64,
    origin: Instant,
    source: SourceMetrics,
}

/// What only a source has.
struct SourceMetrics {
    /// By the steady clock, when it emitted something, or began; [`NOT_KNOWN`] where there is no source.
    emitted_ms: AtomicI64,
    fetch_lag_ms: AtomicI64,
    emit_lag_ms: AtomicI64,
}

/// In place of times and lags.
const NOT_KNOWN: i64 = i64::MIN;

/// `pending` when the source cannot tell.
const UNKNOWN: u64 = u64::MAX;

impl Default for SubtaskMetrics {
    fn default() -> Self {
        SubtaskMetrics {
            records_in: Count::default(),
            records_out: Count::default(),
            late_dropped: Count::default(),
            dead_letters: Count::default(),
            watermark_ms: AtomicI64::new(WATERMARK_MIN),
            pending: AtomicU64::new(UNKNOWN),
            busy_ns: Count::default(),
            blocked_ns: Count::default(),
            blocked_since: AtomicU64::new(0),
            origin: Instant::now(),
            source: SourceMetrics {
                emitted_ms: AtomicI64::new(NOT_KNOWN),
                fetch_lag_ms: AtomicI64::new(NOT_KNOWN),
                emit_lag_ms: AtomicI64::new(NOT_KNOWN),
            },
        }
    }
}

impl SubtaskMetrics {
    /// The subtask's event time has reached `watermark_ms`.
    pub fn watermark(&self, watermark_ms: i64) {
        self.watermark_ms.store(watermark_ms, Ordering::Relaxed);
    }

    /// Records known to wait in the source.
    pub fn pending(&self, records: Option<u64>) {
        self.pending.store(records.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// A source begins, with nothing emitted yet.
    pub fn source_begins(&self, clock: &dyn Clock) {
        self.source.emitted_ms.store(clock.steady_ms(), Ordering::Relaxed);
    }

    /// A source has emitted records, the last with this event time; fetched at `fetched_ms`, if not just now.
    pub fn emitted(&self, timestamp_ms: i64, fetched_ms: Option<i64>, clock: &dyn Clock) {
        self.source.emitted_ms.store(clock.steady_ms(), Ordering::Relaxed);
        if timestamp_ms == NO_TIMESTAMP {
            return;
        }
        let now_ms = clock.now_ms();
        let lag_ms = |at_ms: i64| at_ms.saturating_sub(timestamp_ms).max(NOT_KNOWN + 1);
        self.source.emit_lag_ms.store(lag_ms(now_ms), Ordering::Relaxed);
        self.source.fetch_lag_ms.store(lag_ms(fetched_ms.unwrap_or(now_ms)), Ordering::Relaxed);
    }

    /// Whether the outputs take no more now.
    pub fn blocked(&self, blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        if blocked == (since != 0) {
            return;
        }
        let now = self.origin.elapsed().as_nanos() as u64;
        if blocked {
            self.blocked_since.store(now.max(1), Ordering::Relaxed);
        } else {
            self.blocked_ns.add(now.saturating_sub(since));
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    /// Runs work and counts the time it takes.
    pub fn busy<R>(&self, work: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = work();
        self.busy_ns.add(begin.elapsed().as_nanos() as u64);
        result
    }

    /// The counters as they stand.
    pub fn report(&self, clock: &dyn Clock) -> SubtaskReport {
        let watermark_ms = self.watermark_ms.load(Ordering::Relaxed);
        let pending = self.pending.load(Ordering::Relaxed);
        let since = self.blocked_since.load(Ordering::Relaxed);
        let open = if since == 0 { 0 } else { (self.origin.elapsed().as_nanos() as u64).saturating_sub(since) };
        let known = |value: &AtomicI64| Some(value.load(Ordering::Relaxed)).filter(|value| *value != NOT_KNOWN);
        let emitted_ms = known(&self.source.emitted_ms);
        let reached_ms = (watermark_ms != WATERMARK_MIN && watermark_ms != WATERMARK_MAX).then_some(watermark_ms);
        SubtaskReport {
            records_in: self.records_in.get(),
            records_out: self.records_out.get(),
            late_dropped: self.late_dropped.get(),
            dead_letters: self.dead_letters.get(),
            watermark_ms: reached_ms,
            busy_ms: self.busy_ns.get() / 1_000_000,
            backpressured_ms: (self.blocked_ns.get() + open) / 1_000_000,
            pending_records: (pending != UNKNOWN).then_some(pending),
            fetch_lag_ms: known(&self.source.fetch_lag_ms),
            emit_lag_ms: known(&self.source.emit_lag_ms),
            watermark_lag_ms: emitted_ms.and(reached_ms).map(|reached_ms| clock.now_ms().saturating_sub(reached_ms)),
            source_idle_ms: emitted_ms.map(|at_ms| clock.steady_ms().saturating_sub(at_ms).max(0) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::ManualClock;

    use super::*;

    #[test]
    fn a_source_tells_how_old_its_records_are_and_how_long_it_is_silent() {
        let clock = ManualClock::new(100_000);
        let metrics = SubtaskMetrics::default();
        assert_eq!(metrics.report(&clock).source_idle_ms, None, "not a source");
        metrics.source_begins(&clock);
        clock.advance(500);
        let report = metrics.report(&clock);
        assert_eq!((report.source_idle_ms, report.emit_lag_ms, report.fetch_lag_ms), (Some(500), None, None));
        metrics.emitted(90_000, Some(100_400), &clock);
        metrics.watermark(80_000);
        clock.advance(2_000);
        let report = metrics.report(&clock);
        // As old as it was then; how far the watermark is behind grows.
        assert_eq!((report.emit_lag_ms, report.fetch_lag_ms), (Some(10_500), Some(10_400)));
        assert_eq!((report.watermark_lag_ms, report.source_idle_ms), (Some(22_500), Some(2_000)));
        metrics.emitted(NO_TIMESTAMP, None, &clock);
        metrics.watermark(WATERMARK_MAX);
        let report = metrics.report(&clock);
        assert_eq!((report.emit_lag_ms, report.watermark_lag_ms), (Some(10_500), None));
        assert_eq!(report.source_idle_ms, Some(0));
    }
}
