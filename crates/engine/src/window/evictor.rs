//! Evictors: which records of a window its result is made without. They run in the general window operator, before the
//! window's function or after it. With an evictor a window keeps all its records, so a running value is not to be had.
//!
//! A window from which all records were evicted emits nothing.

use std::time::Duration;

use tidemill_core::{Data, NO_TIMESTAMP, Result};

use super::{Window, millis};

/// What an evictor sees beside the records.
#[derive(Debug, Clone, Copy)]
pub struct EvictorContext {
    /// The window.
    pub window: Window,
    /// How far event time has come.
    pub watermark_ms: i64,
    /// The job's clock.
    pub processing_time_ms: i64,
}

/// Removes records from a window that fires (Flink's `Evictor`). What is removed does not come back when the window fires
/// again.
///
/// ```
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::window::{Evictor, EvictorContext};
///
/// /// Leaves the odd ones out.
/// #[derive(Clone)]
/// struct Even;
///
/// impl Evictor<i64> for Even {
///     fn evict_before(&mut self, records: &mut Vec<(i64, i64)>, _: &EvictorContext) -> Result<()> {
///         records.retain(|(_, n)| n % 2 == 0);
///         Ok(())
///     }
/// }
///
/// let env = Environment::new();
/// let numbers = env.from_collection(vec![1, 2, 3, 4]);
/// let even = numbers.count_window_all(4).evictor(Even).reduce(|a, b| *a += b).collect();
/// env.execute("even").unwrap();
/// assert_eq!(even.take(), [6]);
/// ```
pub trait Evictor<T>: Clone + Send + 'static {
    /// Before the window's function. `records` are event times (`NO_TIMESTAMP` for none) and values in the order they came;
    /// where sessions became one, those of the earlier session come first.
    fn evict_before(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()> {
        let _ = (records, context);
        Ok(())
    }

    /// After the window's function.
    fn evict_after(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()> {
        let _ = (records, context);
        Ok(())
    }
}

/// An evictor whose type only its window knows: it is called when windows fire, not for records.
pub trait AnyEvictor<T>: Send {
    /// See [`Evictor::evict_before`].
    fn before(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()>;
    /// See [`Evictor::evict_after`].
    fn after(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()>;
}

impl<T, E: Evictor<T>> AnyEvictor<T> for E {
    fn before(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()> {
        self.evict_before(records, context)
    }

    fn after(&mut self, records: &mut Vec<(i64, T)>, context: &EvictorContext) -> Result<()> {
        self.evict_after(records, context)
    }
}

/// An evictor of the library, and when it runs.
#[derive(Debug, Clone, Copy)]
pub struct Timed<E> {
    evict: E,
    after: bool,
}

impl<E> Timed<E> {
    fn before(evict: E) -> Self {
        Timed { evict, after: false }
    }

    /// Evicts after the window's function instead of before it.
    pub fn after_function(self) -> Self {
        Timed { after: true, ..self }
    }
}

/// How an evictor of the library removes, whenever it runs.
trait Evict<T> {
    fn evict(&mut self, records: &mut Vec<(i64, T)>);
}

impl<T, E: Evict<T> + Clone + Send + 'static> Evictor<T> for Timed<E> {
    fn evict_before(&mut self, records: &mut Vec<(i64, T)>, _: &EvictorContext) -> Result<()> {
        if !self.after {
            self.evict.evict(records);
        }
        Ok(())
    }

    fn evict_after(&mut self, records: &mut Vec<(i64, T)>, _: &EvictorContext) -> Result<()> {
        if self.after {
            self.evict.evict(records);
        }
        Ok(())
    }
}

/// Keeps the last so many records.
#[derive(Debug, Clone, Copy)]
pub struct CountEvictor {
    keep: usize,
}

impl CountEvictor {
    /// Keeps the last `keep` records.
    pub fn of(keep: u64) -> Timed<CountEvictor> {
        Timed::before(CountEvictor { keep: usize::try_from(keep).unwrap_or(usize::MAX) })
    }
}

impl<T> Evict<T> for CountEvictor {
    fn evict(&mut self, records: &mut Vec<(i64, T)>) {
        records.drain(..records.len().saturating_sub(self.keep));
    }
}

/// Keeps the records of the last while, counted back from the newest event time in the window. Records without event time
/// all stay.
#[derive(Debug, Clone, Copy)]
pub struct TimeEvictor {
    keep_ms: i64,
}

impl TimeEvictor {
    /// Keeps what is less than `keep` older than the newest.
    pub fn of(keep: Duration) -> Timed<TimeEvictor> {
        Timed::before(TimeEvictor { keep_ms: millis(keep) })
    }
}

impl<T> Evict<T> for TimeEvictor {
    fn evict(&mut self, records: &mut Vec<(i64, T)>) {
        if records.first().is_none_or(|(time_ms, _)| *time_ms == NO_TIMESTAMP) {
            return;
        }
        let newest_ms = records.iter().map(|(time_ms, _)| *time_ms).max().unwrap_or(NO_TIMESTAMP);
        let cut_ms = newest_ms.saturating_sub(self.keep_ms);
        records.retain(|(time_ms, _)| *time_ms > cut_ms);
    }
}

/// Removes the records that differ from the last one by a threshold or more.
#[derive(Debug, Clone, Copy)]
pub struct DeltaEvictor<F> {
    threshold: f64,
    delta: F,
}

impl<F> DeltaEvictor<F> {
    /// `delta(record, last)` is compared with `threshold`.
    pub fn of<T>(threshold: f64, delta: F) -> Timed<DeltaEvictor<F>>
    where
        F: FnMut(&T, &T) -> f64,
    {
        Timed::before(DeltaEvictor { threshold, delta })
    }
}

impl<T: Data, F: FnMut(&T, &T) -> f64 + Clone + Send + 'static> Evict<T> for DeltaEvictor<F> {
    fn evict(&mut self, records: &mut Vec<(i64, T)>) {
        let Some(last) = records.pop() else { return };
        records.retain(|(_, value)| (self.delta)(value, &last.1) < self.threshold);
        if (self.delta)(&last.1, &last.1) < self.threshold {
            records.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: EvictorContext =
        EvictorContext { window: Window { start_ms: 0, end_ms: 10 }, watermark_ms: 0, processing_time_ms: 0 };

    fn left(mut evictor: impl Evictor<i64>) -> [Vec<i64>; 2] {
        let mut records = vec![(3, 30), (1, 10), (9, 90), (5, 50)];
        evictor.evict_before(&mut records, &CONTEXT).unwrap();
        let before = records.iter().map(|record| record.1).collect();
        evictor.evict_after(&mut records, &CONTEXT).unwrap();
        [before, records.iter().map(|record| record.1).collect()]
    }

    #[test]
    fn built_in_evictors_keep_what_flinks_keep() {
        let all = vec![30, 10, 90, 50];
        assert_eq!(left(CountEvictor::of(2)), [vec![90, 50], vec![90, 50]]);
        assert_eq!(left(CountEvictor::of(9)), [all.clone(), all.clone()]);
        assert_eq!(left(CountEvictor::of(3).after_function()), [all.clone(), vec![10, 90, 50]]);
        // Of 9 the last 6: what is later than 3.
        assert_eq!(left(TimeEvictor::of(Duration::from_millis(6))), [vec![90, 50], vec![90, 50]]);
        assert_eq!(left(TimeEvictor::of(Duration::from_millis(7)).after_function()), [all.clone(), vec![30, 90, 50]]);
        let delta = |a: &i64, b: &i64| (a - b).abs() as f64;
        assert_eq!(left(DeltaEvictor::of(40.0, delta)), [vec![30, 50], vec![30, 50]]);
        assert_eq!(left(DeltaEvictor::of(40.5, delta).after_function()), [all.clone(), all]);
    }

    #[test]
    fn records_without_time_are_not_evicted_by_time() {
        let mut records = vec![(NO_TIMESTAMP, 1), (NO_TIMESTAMP, 2)];
        TimeEvictor::of(Duration::ZERO).evict_before(&mut records, &CONTEXT).unwrap();
        assert_eq!(records.len(), 2);
    }
}
