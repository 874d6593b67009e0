//! Triggers that fire at every interval: results while a window is still open.

use std::time::Duration;

use tidemill_core::{Error, NO_TIMESTAMP, Result};

use super::{Trigger, TriggerContext, TriggerResult};
use crate::window::{floor, millis};

/// Fires whenever event time passes a multiple of the interval, from the first record of a window on; and at the window's
/// end, and at once for each late record that is still allowed.
#[derive(Debug, Clone, Copy)]
pub struct ContinuousEventTimeTrigger {
    interval_ms: i64,
}

impl ContinuousEventTimeTrigger {
    /// Fires every `interval`; less than 1 ms counts as 1 ms.
    pub fn of(interval: Duration) -> Self {
        ContinuousEventTimeTrigger { interval_ms: millis(interval).max(1) }
    }

    /// Sets the timer for the first firing behind `time_ms`, the window's end at the latest.
    fn fire_after(&self, time_ms: i64, context: &mut TriggerContext<'_, i64>) {
        let next_ms = time_ms.saturating_add(self.interval_ms).min(context.window().max_timestamp_ms());
        *context.state = Some(next_ms);
        context.register_event_timer(next_ms);
    }
}

impl<T> Trigger<T> for ContinuousEventTimeTrigger {
    /// When it fires next.
    type State = i64;

    fn on_element(&mut self, _: &T, timestamp_ms: i64, context: &mut TriggerContext<'_, i64>) -> Result<TriggerResult> {
        if timestamp_ms == NO_TIMESTAMP {
            return Err(Error::input("a record without event time came to an event-time trigger")
                .hint("assign timestamps and watermarks before the window, or use a processing-time trigger"));
        }
        let last_ms = context.window().max_timestamp_ms();
        if last_ms <= context.watermark_ms() {
            return Ok(TriggerResult::Fire);
        }
        context.register_event_timer(last_ms);
        if context.state.is_none() {
            self.fire_after(floor(timestamp_ms, self.interval_ms, 0), context);
        }
        Ok(TriggerResult::Continue)
    }

    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, i64>) -> Result<TriggerResult> {
        if time_ms == context.window().max_timestamp_ms() {
            return Ok(TriggerResult::Fire);
        }
        if *context.state != Some(time_ms) {
            return Ok(TriggerResult::Continue);
        }
        self.fire_after(time_ms, context);
        Ok(TriggerResult::Fire)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: &[&i64], context: &mut TriggerContext<'_, i64>) -> Result<()> {
        if let Some(next_ms) = merged.iter().copied().min() {
            *context.state = Some(*next_ms);
            context.register_event_timer(*next_ms);
        }
        Ok(())
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, i64>) -> Result<()> {
        if let Some(next_ms) = context.state.take() {
            context.delete_event_timer(next_ms);
        }
        Ok(())
    }
}

/// Fires whenever the clock passes a multiple of the interval, from the first record of a window on. An event-time window
/// fires by it alone, not at its end.
#[derive(Debug, Clone, Copy)]
pub struct ContinuousProcessingTimeTrigger {
    interval_ms: i64,
}

impl ContinuousProcessingTimeTrigger {
    /// Fires every `interval`; less than 1 ms counts as 1 ms.
    pub fn of(interval: Duration) -> Self {
        ContinuousProcessingTimeTrigger { interval_ms: millis(interval).max(1) }
    }

    /// Sets the timer for the first firing behind `time_ms`; the last of a processing-time window is at its end.
    fn fire_after(&self, time_ms: i64, context: &mut TriggerContext<'_, i64>) {
        let (next_ms, last_ms) = (time_ms.saturating_add(self.interval_ms), context.window().max_timestamp_ms());
        let next_ms = if time_ms < last_ms { next_ms.min(last_ms) } else { next_ms };
        *context.state = Some(next_ms);
        context.register_processing_timer(next_ms);
    }
}

impl<T> Trigger<T> for ContinuousProcessingTimeTrigger {
    /// When it fires next.
    type State = i64;

    fn on_element(&mut self, _: &T, _: i64, context: &mut TriggerContext<'_, i64>) -> Result<TriggerResult> {
        if context.state.is_none() {
            self.fire_after(floor(context.processing_time_ms(), self.interval_ms, 0), context);
        }
        Ok(TriggerResult::Continue)
    }

    fn on_processing_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, i64>) -> Result<TriggerResult> {
        if *context.state != Some(time_ms) {
            return Ok(TriggerResult::Continue);
        }
        self.fire_after(time_ms, context);
        Ok(TriggerResult::Fire)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: &[&i64], context: &mut TriggerContext<'_, i64>) -> Result<()> {
        if let Some(next_ms) = merged.iter().copied().min() {
            *context.state = Some(*next_ms);
            context.register_processing_timer(*next_ms);
        }
        Ok(())
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, i64>) -> Result<()> {
        if let Some(next_ms) = context.state.take() {
            context.delete_processing_timer(next_ms);
        }
        Ok(())
    }
}
