//! Counters of one subtask, updated once a batch and read by whoever asks for a report.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use tidemill_core::report::SubtaskReport;
use tidemill_core::{WATERMARK_MAX, WATERMARK_MIN};

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
}

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
    pub fn report(&self) -> SubtaskReport {
        let watermark_ms = self.watermark_ms.load(Ordering::Relaxed);
        let pending = self.pending.load(Ordering::Relaxed);
        let since = self.blocked_since.load(Ordering::Relaxed);
        let open = if since == 0 { 0 } else { (self.origin.elapsed().as_nanos() as u64).saturating_sub(since) };
        SubtaskReport {
            records_in: self.records_in.get(),
            records_out: self.records_out.get(),
            late_dropped: self.late_dropped.get(),
            dead_letters: self.dead_letters.get(),
            watermark_ms: (watermark_ms != WATERMARK_MIN && watermark_ms != WATERMARK_MAX).then_some(watermark_ms),
            busy_ms: self.busy_ns.get() / 1_000_000,
            backpressured_ms: (self.blocked_ns.get() + open) / 1_000_000,
            pending_records: (pending != UNKNOWN).then_some(pending),
        }
    }
}
