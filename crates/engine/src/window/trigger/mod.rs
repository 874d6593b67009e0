//! Triggers: when the contents of a window become a result. They run in the general window operator (`general.rs`).
//!
//! | trigger | fires |
//! |---|---|
//! | [`EventTimeTrigger`] | when event time has passed the window, and at once for each late record that is still allowed |
//! | [`ProcessingTimeTrigger`] | when the clock has passed the window |
//! | [`CountTrigger`] | for every so many records |
//! | [`ContinuousEventTimeTrigger`], [`ContinuousProcessingTimeTrigger`] | at every interval |
//! | [`DeltaTrigger`] | when a record differs enough from the one that fired last |
//! | [`ProcessingTimeoutTrigger`] | as another one, or when that took too long |
//! | [`PurgingTrigger`] | as another one, and the window is empty then |
//! | [`NeverTrigger`] | never |
//!
//! Only `PurgingTrigger` purges: with the others a window keeps its contents until it ends, and fires them again.

mod by_kind;
mod continuous;
mod count;
mod delta;
mod purging;
mod time;
mod timeout;

pub use by_kind::DefaultTrigger;
pub use continuous::{ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger};
pub use count::CountTrigger;
pub use delta::DeltaTrigger;
pub use purging::PurgingTrigger;
pub use time::{EventTimeTrigger, NeverTrigger, ProcessingTimeTrigger};
pub use timeout::{ProcessingTimeoutTrigger, TimeoutState};

use tidemill_core::{Data, Result};

use super::Window;
use crate::stream::TimeDomain;

/// What becomes of a window now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerResult {
    /// Nothing.
    Continue,
    /// Its result is emitted; its contents stay.
    Fire,
    /// Its contents are forgotten, without a result.
    Purge,
    /// Its result is emitted, and its contents are forgotten.
    FireAndPurge,
}

impl TriggerResult {
    /// Whether a result is emitted.
    pub fn fires(self) -> bool {
        matches!(self, TriggerResult::Fire | TriggerResult::FireAndPurge)
    }

    /// Whether the contents are forgotten.
    pub fn purges(self) -> bool {
        matches!(self, TriggerResult::Purge | TriggerResult::FireAndPurge)
    }
}

/// Decides when a window fires (Flink's `Trigger`). One value serves all keys and windows of a subtask: what it must
/// remember for a key and window stands in `context.state`, and its timers are of that key and window too.
///
/// ```
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::window::{GlobalWindows, Trigger, TriggerContext, TriggerResult};
///
/// /// Fires and begins anew when a full stop comes.
/// #[derive(Clone)]
/// struct FullStop;
///
/// impl Trigger<String> for FullStop {
///     type State = ();
///     fn on_element(&mut self, word: &String, _: i64, _: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
///         Ok(if word.ends_with('.') { TriggerResult::FireAndPurge } else { TriggerResult::Continue })
///     }
/// }
///
/// let env = Environment::new();
/// env.set_parallelism(1);
/// let words = ["It", "rains.", "Stay", "in."].map(String::from).to_vec();
/// let sentences = env
///     .from_collection(words)
///     .window_all(GlobalWindows::new())
///     .trigger(FullStop)
///     .apply(|_, _, words: Vec<String>| Some(words.join(" ")))
///     .collect();
/// env.execute("sentences").unwrap();
/// assert_eq!(sentences.take(), ["It rains.", "Stay in."]);
/// ```
pub trait Trigger<T>: Clone + Send + 'static {
    /// What it remembers for a key and window.
    type State: Data;

    /// A record has come into the window; `timestamp_ms` is its event time.
    fn on_element(
        &mut self,
        value: &T,
        timestamp_ms: i64,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> Result<TriggerResult>;

    /// An event-time timer of the window is due, set by the trigger or by the operator for the window's end.
    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, Self::State>) -> Result<TriggerResult> {
        let _ = (time_ms, context);
        Ok(TriggerResult::Continue)
    }

    /// A processing-time timer of the window is due, set by the trigger or by the operator for the window's end.
    fn on_processing_time(
        &mut self,
        time_ms: i64,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> Result<TriggerResult> {
        let _ = (time_ms, context);
        Ok(TriggerResult::Continue)
    }

    /// Whether it can go with windows that merge. The default says no.
    fn can_merge(&self) -> bool {
        false
    }

    /// Windows have become one, `context.window()`, which has no state and no timers yet. `merged` are the states of
    /// those that had one; what is not taken over is gone, since `clear` is called for each of them behind this.
    fn on_merge(&mut self, merged: &[&Self::State], context: &mut TriggerContext<'_, Self::State>) -> Result<()> {
        let _ = (merged, context);
        Ok(())
    }

    /// The window is over: takes its timers back. Its state is dropped by the operator.
    fn clear(&mut self, context: &mut TriggerContext<'_, Self::State>) -> Result<()> {
        let _ = context;
        Ok(())
    }
}

/// Where timers of the current key and window are set.
pub(crate) trait SetTimers {
    fn register(&mut self, domain: TimeDomain, time_ms: i64, window: Window);
    fn delete(&mut self, domain: TimeDomain, time_ms: i64, window: Window);
}

/// What a trigger sees of its key and window: state, time, timers.
pub struct TriggerContext<'a, S> {
    /// What the trigger remembers for this key and window; `None` until set, and to be set `None` when it is not needed.
    pub state: &'a mut Option<S>,
    pub(crate) window: Window,
    pub(crate) watermark_ms: i64,
    pub(crate) processing_time_ms: i64,
    pub(crate) timers: &'a mut dyn SetTimers,
}

impl<S> TriggerContext<'_, S> {
    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How far event time has come.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// The job's clock.
    pub fn processing_time_ms(&self) -> i64 {
        self.processing_time_ms
    }

    /// Has `on_event_time` called when event time has reached `time_ms`; a second timer of one time changes nothing.
    pub fn register_event_timer(&mut self, time_ms: i64) {
        self.timers.register(TimeDomain::Event, time_ms, self.window);
    }

    /// Takes an event-time timer back.
    pub fn delete_event_timer(&mut self, time_ms: i64) {
        self.timers.delete(TimeDomain::Event, time_ms, self.window);
    }

    /// Has `on_processing_time` called when the clock has passed `time_ms`.
    pub fn register_processing_timer(&mut self, time_ms: i64) {
        self.timers.register(TimeDomain::Processing, time_ms, self.window);
    }

    /// Takes a processing-time timer back.
    pub fn delete_processing_timer(&mut self, time_ms: i64) {
        self.timers.delete(TimeDomain::Processing, time_ms, self.window);
    }

    /// The same key and window with another state: for a trigger inside another.
    pub fn nested<'b, N>(&'b mut self, state: &'b mut Option<N>) -> TriggerContext<'b, N> {
        TriggerContext {
            state,
            window: self.window,
            watermark_ms: self.watermark_ms,
            processing_time_ms: self.processing_time_ms,
            timers: &mut *self.timers,
        }
    }
}
