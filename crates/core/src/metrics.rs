//! What a source or sink counts and measures of itself, beside what the engine counts of all of them. A reader or writer asks
//! for a number by name when it is made, keeps it and changes it without any lock; reports read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A total.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// More by `by`.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// So far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// As it was set last; 0 before.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Where a source's reader, or a sink's writer and committer, find their numbers: those of one operator in one subtask.
///
/// A name asked for again is the same number. There always is one; where a process has too many already, nobody reads it.
pub trait Metrics: Send + Sync {
    /// A total.
    fn counter(&self, name: &str) -> Counter;

    /// A value that goes up and down.
    fn gauge(&self, name: &str) -> Gauge;
}

/// Metrics as they are passed on.
pub type SharedMetrics = Arc<dyn Metrics>;

/// Numbers that nobody reads: for readers and writers outside of a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unread;

impl Unread {
    /// As it is passed on.
    pub fn shared() -> SharedMetrics {
        Arc::new(Unread)
    }
}

impl Metrics for Unread {
    fn counter(&self, _name: &str) -> Counter {
        Counter::default()
    }

    fn gauge(&self, _name: &str) -> Gauge {
        Gauge::default()
    }
}
