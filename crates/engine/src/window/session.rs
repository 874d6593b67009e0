//! Session windows: records of a key that follow each other within a gap. Each record opens `[t, t + gap)`, and windows
//! that touch become one, so that records exactly a gap apart are together, as in Flink; and as there only if the first window
//! has not ended when the second record comes, which it has once the watermark is at its last millisecond, `t + gap - 1`.

use std::time::Duration;

use tidemill_core::{Data, Error, Result};

use super::session_operator::SessionOperator;
use super::{Aggregate, DefaultTrigger, Window, WindowKind, WindowParts, millis};
use crate::key::Key;
use crate::operator::Operator;
use crate::stream::KeySelector;

/// Session windows.
///
/// ```
/// use std::time::Duration;
/// use tidemill_engine::Environment;
/// use tidemill_engine::stream::WatermarkStrategy;
/// use tidemill_engine::window::{Count, Session};
///
/// let env = Environment::new();
/// let visits = env
///     .from_collection(vec![("ann", 0), ("ann", 25), ("bob", 30), ("ann", 100)].into_iter().map(|(user, t)| (user.to_string(), t)).collect())
///     .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|click: &(String, i64), _| click.1))
///     .key_by(|click| click.0.clone())
///     .window(Session::event_time(Duration::from_millis(30)))
///     .aggregate_with(Count, |user, window, clicks| Some(format!("{user} {}-{}: {clicks}", window.start_ms, window.end_ms)))
///     .collect();
/// env.execute("visits").unwrap();
/// let mut visits = visits.take();
/// visits.sort();
/// assert_eq!(visits, ["ann 0-55: 2", "ann 100-130: 1", "bob 30-60: 1"]);
/// ```
pub struct Session;

impl Session {
    /// By the records' event time; a session ends when there was no record for `gap`.
    pub fn event_time(gap: Duration) -> SessionWindows<FixedGap> {
        SessionWindows { gap: FixedGap(millis(gap)), event_time: true }
    }

    /// By the job's clock when the records arrive.
    pub fn processing_time(gap: Duration) -> SessionWindows<FixedGap> {
        SessionWindows { gap: FixedGap(millis(gap)), event_time: false }
    }

    /// By the records' event time, with a gap that each record says itself. A gap below 1 ms fails the job.
    pub fn event_time_with_dynamic_gap<T, F: FnMut(&T) -> Duration>(gap: F) -> SessionWindows<DynamicGap<F>> {
        SessionWindows { gap: DynamicGap(gap), event_time: true }
    }

    /// By the job's clock, with a gap that each record says itself.
    pub fn processing_time_with_dynamic_gap<T, F: FnMut(&T) -> Duration>(gap: F) -> SessionWindows<DynamicGap<F>> {
        SessionWindows { gap: DynamicGap(gap), event_time: false }
    }
}

/// Session windows with a kind of gap; made by [`Session`].
#[derive(Debug, Clone, Copy)]
pub struct SessionWindows<G> {
    pub(super) gap: G,
    pub(super) event_time: bool,
}

/// How long a session waits behind a record.
pub trait Gap<T>: Clone + Send + 'static {
    /// An error when it makes no sense.
    fn check(&self) -> Result<()>;

    /// The gap behind this record, at least 1 ms.
    fn gap_ms(&mut self, value: &T) -> Result<i64>;
}

/// The same gap behind every record.
#[derive(Debug, Clone, Copy)]
pub struct FixedGap(i64);

/// A gap that a function takes from the record.
#[derive(Debug, Clone, Copy)]
pub struct DynamicGap<F>(F);

impl<T> Gap<T> for FixedGap {
    fn check(&self) -> Result<()> {
        if self.0 > 0 { Ok(()) } else { Err(Error::input("a session window's gap must be at least 1 ms")) }
    }

    #[inline]
    fn gap_ms(&mut self, _: &T) -> Result<i64> {
        Ok(self.0)
    }
}

impl<T, F: FnMut(&T) -> Duration + Clone + Send + 'static> Gap<T> for DynamicGap<F> {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn gap_ms(&mut self, value: &T) -> Result<i64> {
        match millis((self.0)(value)) {
            0 => Err(Error::input("a record gave its session window a gap of less than 1 ms")
                .hint("the function of a dynamic gap must give at least 1 ms for every record")),
            gap_ms => Ok(gap_ms),
        }
    }
}

impl<T: Data, G: Gap<T>> WindowKind<T> for SessionWindows<G> {
    type Trigger = DefaultTrigger;

    fn name(&self) -> &'static str {
        "Session Window"
    }

    fn check(&self) -> Result<()> {
        self.gap.check()
    }

    fn is_event_time(&self) -> bool {
        self.event_time
    }

    fn merges(&self) -> bool {
        true
    }

    fn assign(&mut self, value: &T, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        windows.push(Window { start_ms: time_ms, end_ms: time_ms.saturating_add(self.gap.gap_ms(value)?) });
        Ok(())
    }

    fn trigger(&self) -> DefaultTrigger {
        if self.event_time { DefaultTrigger::EventTime } else { DefaultTrigger::ProcessingTime }
    }

    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: KeySelector<T, K>,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Clone + Send + 'static,
        I: IntoIterator<Item = O> + 'static,
    {
        Box::new(SessionOperator::<K, T, G, S, A, W>::new(self.clone(), parts))
    }
}
