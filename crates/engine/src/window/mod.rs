//! Windows: which records belong together. A window kind says how records are grouped and when a group is done; an
//! [`Aggregate`] says what a group becomes. The two never know each other.
//!
//! | kind | file | how |
//! |---|---|---|
//! | tumbling, sliding | `time.rs` | slices shared by all windows that cover them; one running value a key and slice |
//! | count | `count.rs` | a counter a key; a ring of the last records only where windows overlap |

mod aggregate;
pub mod count;
mod time;

pub use aggregate::{Aggregate, Count, Elements, Reduce};
pub use time::{Sliding, TimeWindows, Tumbling};

use tidemill_core::{Data, Result, SharedClock};

use crate::key::Key;
use crate::operator::Operator;

/// A window: `[start_ms, end_ms)` in time; for count windows the range of the records' timestamps is not known and both
/// are `i64::MAX`, as in Flink's global window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// The first millisecond that belongs to it.
    pub start_ms: i64,
    /// The first millisecond behind it.
    pub end_ms: i64,
}

impl Window {
    /// The event time of the window's results: its last millisecond.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.end_ms.saturating_sub(1)
    }
}

/// What every window operator is given: how to find the key, what to make of a group, what to make of its result.
pub struct WindowParts<S, A, W> {
    /// Takes the key from a record.
    pub selector: S,
    /// What a group of records becomes.
    pub aggregate: A,
    /// What is emitted for a window's result.
    pub emit: W,
    /// Records that come this long after their window's end still change its result.
    pub allowed_lateness_ms: i64,
    /// The side output for records that come too late even for that.
    pub late_tag: Option<&'static str>,
    /// The job's clock.
    pub clock: SharedClock,
}

/// A kind of window, for records of `T`.
pub trait WindowKind<T: Data>: Clone + Send + 'static {
    /// A short name for graphs.
    fn name(&self) -> &'static str;

    /// An error when sizes make no sense.
    fn check(&self) -> Result<()>;

    /// The operator of one subtask.
    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: FnMut(&T) -> K + Send + 'static,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
        I: IntoIterator<Item = O>;
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
