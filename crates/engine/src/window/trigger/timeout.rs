//! A trigger that does not wait for another one too long.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::Result;

use super::{Trigger, TriggerContext, TriggerResult};
use crate::window::millis;

/// Fires when `inner` does, or when the clock says that the first record since then has waited too long. It cannot go with
/// windows that merge.
#[derive(Debug, Clone, Copy)]
pub struct ProcessingTimeoutTrigger<G> {
    inner: G,
    timeout_ms: i64,
    reset_on_record: bool,
    clear_on_timeout: bool,
}

impl<G> ProcessingTimeoutTrigger<G> {
    /// Waits for `timeout` from the first record on; then `inner` begins anew.
    pub fn of(inner: G, timeout: Duration) -> Self {
        ProcessingTimeoutTrigger { inner, timeout_ms: millis(timeout), reset_on_record: false, clear_on_timeout: true }
    }

    /// Whether every record begins the waiting anew; default no.
    pub fn reset_timer_on_new_record(self, reset: bool) -> Self {
        ProcessingTimeoutTrigger { reset_on_record: reset, ..self }
    }

    /// Whether `inner` begins anew when the time is out; default yes.
    pub fn clear_on_timeout(self, clear: bool) -> Self {
        ProcessingTimeoutTrigger { clear_on_timeout: clear, ..self }
    }
}

/// What a timeout trigger remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimeoutState<S> {
    inner: Option<S>,
    timeout_ms: Option<i64>,
}

impl<G> ProcessingTimeoutTrigger<G> {
    /// Lets `inner` see its own state; afterwards state that says nothing is dropped.
    fn with_inner<S, R>(
        &mut self,
        context: &mut TriggerContext<'_, TimeoutState<S>>,
        call: impl FnOnce(&mut G, &mut Option<i64>, &mut TriggerContext<'_, S>) -> Result<R>,
    ) -> Result<R> {
        let mut state = context.state.take().unwrap_or(TimeoutState { inner: None, timeout_ms: None });
        let result = call(&mut self.inner, &mut state.timeout_ms, &mut context.nested(&mut state.inner));
        if state.inner.is_some() || state.timeout_ms.is_some() {
            *context.state = Some(state);
        }
        result
    }
}

/// Forgets the timer and has `inner` begin anew.
fn begin_anew<T, G: Trigger<T>>(
    inner: &mut G,
    timeout_ms: &mut Option<i64>,
    context: &mut TriggerContext<'_, G::State>,
) -> Result<()> {
    if let Some(at_ms) = timeout_ms.take() {
        context.delete_processing_timer(at_ms);
    }
    inner.clear(context)?;
    *context.state = None;
    Ok(())
}

fn fired(result: TriggerResult) -> TriggerResult {
    if result.purges() { TriggerResult::FireAndPurge } else { TriggerResult::Fire }
}

impl<T, G: Trigger<T>> Trigger<T> for ProcessingTimeoutTrigger<G> {
    type State = TimeoutState<G::State>;

    fn on_element(
        &mut self,
        value: &T,
        timestamp_ms: i64,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> Result<TriggerResult> {
        let (wait_ms, reset) = (self.timeout_ms, self.reset_on_record);
        self.with_inner(context, |inner, timeout_ms, context| {
            let result = inner.on_element(value, timestamp_ms, context)?;
            if result.fires() {
                begin_anew(inner, timeout_ms, context)?;
                return Ok(result);
            }
            if let Some(at_ms) = timeout_ms.take_if(|_| reset) {
                context.delete_processing_timer(at_ms);
            }
            if timeout_ms.is_none() {
                let at_ms = context.processing_time_ms().saturating_add(wait_ms);
                *timeout_ms = Some(at_ms);
                context.register_processing_timer(at_ms);
            }
            Ok(result)
        })
    }

    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, Self::State>) -> Result<TriggerResult> {
        let clear = self.clear_on_timeout;
        self.with_inner(context, |inner, timeout_ms, context| {
            let result = inner.on_event_time(time_ms, context)?;
            if clear {
                begin_anew(inner, timeout_ms, context)?;
            }
            Ok(fired(result))
        })
    }

    fn on_processing_time(
        &mut self,
        time_ms: i64,
        context: &mut TriggerContext<'_, Self::State>,
    ) -> Result<TriggerResult> {
        let clear = self.clear_on_timeout;
        self.with_inner(context, |inner, timeout_ms, context| {
            let result = inner.on_processing_time(time_ms, context)?;
            if clear {
                begin_anew(inner, timeout_ms, context)?;
            }
            Ok(fired(result))
        })
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, Self::State>) -> Result<()> {
        self.with_inner(context, |inner, timeout_ms, context| begin_anew(inner, timeout_ms, context))
    }
}
