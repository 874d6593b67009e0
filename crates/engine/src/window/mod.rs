//! Windows: which records belong together. A window kind says how records are grouped and when a group is done; an
//! [`Aggregate`] says what a group becomes. The two never know each other.
//!
//! | kind | file | how |
//! |---|---|---|
//! | tumbling, sliding | `time.rs` | slices shared by all windows that cover them; one running value a key and slice |
//! | session | `session.rs`, `session_operator.rs` | one running value a session; an index of the keys by when they are due |
//! | count | `count.rs` | a counter a key; a ring of the last records only where windows overlap |
//! | global | `global.rs` | fires by a trigger only |
//!
//! Beside their own way all kinds can say which windows a record belongs to, and the general operator (`general.rs`) does the
//! rest, with [triggers](Trigger), [evictors](Evictor) and [process functions](ProcessWindowFunction). What chooses it is
//! [`WindowKind::operator`], which has it as its default and is left so by kinds with a trigger or evictor (`custom.rs`); and
//! process functions with a context always run in it.

mod aggregate;
mod contents;
pub mod count;
mod custom;
mod evictor;
mod function;
pub(crate) mod general;
mod global;
pub(crate) mod progress;
mod session;
mod session_operator;
#[cfg(test)]
mod tests;
mod time;
mod trigger;
mod window_key;

pub use aggregate::{Aggregate, Arrival, Count, Elements, Kept, Reduce, Unnumbered};
pub(crate) use aggregate::{Arrivals, sort_kept};
pub use custom::{Evicted, Triggered};
pub use evictor::{AnyEvictor, CountEvictor, DeltaEvictor, Evictor, EvictorContext, TimeEvictor, Timed};
pub use function::{ProcessWindowFunction, WindowContext, WindowState};
pub use global::GlobalWindows;
pub use session::{DynamicGap, FixedGap, Gap, Session, SessionWindows};
pub use time::{Sliding, TimeWindows, Tumbling};
pub use trigger::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountTrigger, DefaultTrigger, DeltaTrigger,
    EventTimeTrigger, NeverTrigger, ProcessingTimeTrigger, ProcessingTimeoutTrigger, PurgingTrigger, TimeoutState,
    Trigger, TriggerContext, TriggerResult,
};
pub use window_key::WindowKey;

use std::marker::PhantomData;
use std::time::Duration;

use tidemill_core::{Data, Error, Result};

use crate::key::Key;
use crate::operator::Operator;
use crate::stream::{KeySelector, RuntimeContext};

/// A window: `[start_ms, end_ms)` in time; for count and global windows the range of the records' timestamps is not known
/// and both are `i64::MAX`, as in Flink's global window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// The first millisecond that belongs to it.
    pub start_ms: i64,
    /// The first millisecond behind it.
    pub end_ms: i64,
}

impl Window {
    /// The window of all time.
    pub const GLOBAL: Window = Window { start_ms: i64::MAX, end_ms: i64::MAX };

    /// The event time of the window's results: its last millisecond.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.end_ms.saturating_sub(1)
    }

    /// The window from the earlier start to the later end.
    pub fn cover(self, other: Window) -> Window {
        Window { start_ms: self.start_ms.min(other.start_ms), end_ms: self.end_ms.max(other.end_ms) }
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The largest `offset + n·step` not above `time_ms`, also below zero.
#[inline]
pub(crate) fn floor(time_ms: i64, step_ms: i64, offset_ms: i64) -> i64 {
    time_ms - (time_ms.wrapping_sub(offset_ms)).rem_euclid(step_ms)
}

/// What every window operator is given: how to find the key, what to make of a group, what to make of its result.
pub struct WindowParts<S, A, W> {
    /// Takes the key from a record.
    pub selector: S,
    /// What a group of records becomes.
    pub aggregate: A,
    /// What is emitted for a window's result: a closure, or for the general operator a process function.
    pub emit: W,
    /// Records that come this long after their window's end still change its result.
    pub allowed_lateness_ms: i64,
    /// The side output for records that come too late even for that.
    pub late_tag: Option<&'static str>,
    /// Where the operator runs, with the job's clock.
    pub context: RuntimeContext,
}

/// A kind of window, for records of `T` (Flink's `WindowAssigner`).
///
/// ```
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::stream::WatermarkStrategy;
/// use tidemill_engine::window::{Count, DefaultTrigger, Window, WindowKind};
///
/// /// Short windows for small numbers, long ones for large.
/// #[derive(Clone)]
/// struct BySize;
///
/// impl WindowKind<i64> for BySize {
///     type Trigger = DefaultTrigger;
///     fn name(&self) -> &'static str {
///         "By Size"
///     }
///     fn is_event_time(&self) -> bool {
///         true
///     }
///     fn assign(&mut self, value: &i64, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
///         let size = if *value < 100 { 10 } else { 1_000 };
///         let start_ms = time_ms - time_ms.rem_euclid(size);
///         windows.push(Window { start_ms, end_ms: start_ms + size });
///         Ok(())
///     }
///     fn trigger(&self) -> DefaultTrigger {
///         DefaultTrigger::EventTime
///     }
/// }
///
/// let env = Environment::new();
/// env.set_parallelism(1);
/// let counts = env
///     .from_collection(vec![1, 2, 15, 100, 700])
///     .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|n: &i64, _| *n))
///     .window_all(BySize)
///     .aggregate_with(Count, |_, window, count| Some((window.end_ms, count)))
///     .collect();
/// env.execute("own windows").unwrap();
/// assert_eq!(counts.take(), [(10, 2), (20, 1), (1_000, 2)]);
/// ```
pub trait WindowKind<T: Data>: Clone + Send + 'static {
    /// When its windows fire if nothing else is said.
    type Trigger: Trigger<T>;

    /// A short name for graphs.
    fn name(&self) -> &'static str;

    /// An error when sizes make no sense.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether windows are of event time. Only those can be late; the end of others is told by the clock.
    fn is_event_time(&self) -> bool;

    /// Whether windows of one key that touch become one.
    fn merges(&self) -> bool {
        false
    }

    /// Whether what a window has may be put together from parts that were gathered apart from each other. `false` spares
    /// windows that keep all their records a note of the order in which they came.
    fn comes_in_parts(&self) -> bool {
        true
    }

    /// Appends the windows of a record, in event time or by the clock.
    fn assign(&mut self, value: &T, time_ms: i64, windows: &mut Vec<Window>) -> Result<()>;

    /// When windows fire if nothing else is said.
    fn trigger(&self) -> Self::Trigger;

    /// What is evicted if nothing else is said; by default nothing.
    fn evictor(&self) -> Option<Box<dyn AnyEvictor<T>>> {
        None
    }

    /// The operator of one subtask. The default is the general one; a kind may bring one that does the same faster, since it
    /// knows its trigger and that nothing is evicted.
    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: KeySelector<T, K>,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Clone + Send + 'static,
        I: IntoIterator<Item = O> + 'static,
    {
        let emit = function::Apply { function: parts.emit, results: PhantomData };
        general::operator(
            self.clone(),
            WindowParts {
                selector: parts.selector,
                aggregate: parts.aggregate,
                emit,
                allowed_lateness_ms: parts.allowed_lateness_ms,
                late_tag: parts.late_tag,
                context: parts.context,
            },
        )
    }
}

impl<I, O> Operator<I, O> for Box<dyn Operator<I, O>>
where
    I: 'static,
    O: 'static,
{
    fn restore(&mut self, state: crate::state::Restored) -> Result<()> {
        (**self).restore(state)
    }
    fn on_batch(&mut self, batch: crate::Records<I>, out: &mut crate::operator::Out<O>) -> Result<()> {
        (**self).on_batch(batch, out)
    }
    fn on_watermark(&mut self, watermark_ms: i64, out: &mut crate::operator::Out<O>) -> Result<()> {
        (**self).on_watermark(watermark_ms, out)
    }
    fn on_processing_time(&mut self, now_ms: i64, out: &mut crate::operator::Out<O>) -> Result<()> {
        (**self).on_processing_time(now_ms, out)
    }
    fn next_processing_time(&self) -> Option<i64> {
        (**self).next_processing_time()
    }
    fn before_barrier(&mut self, out: &mut crate::operator::Out<O>) -> Result<()> {
        (**self).before_barrier(out)
    }
    fn snapshot(&mut self, epoch: u64, parts: &mut crate::operator::SnapshotParts) -> Result<()> {
        (**self).snapshot(epoch, parts)
    }
    fn copy_some(&mut self, run: &mut crate::operator::CopyRun) -> Result<bool> {
        (**self).copy_some(run)
    }
    fn ready(&mut self) -> bool {
        (**self).ready()
    }
    fn close(&mut self) -> Result<()> {
        (**self).close()
    }
    fn late_dropped(&self) -> u64 {
        (**self).late_dropped()
    }
}

/// A record has no event time, and a window goes by it.
fn without_event_time() -> Error {
    Error::input("a record without event time came to an event-time window")
        .hint("assign timestamps and watermarks before the window, or use a processing-time window")
}
