//! Triggers for the end of a window, and for none.

use tidemill_core::Result;

use super::{Trigger, TriggerContext, TriggerResult};

/// Fires when event time has passed the window's last millisecond, and at once for each later record that is still
/// allowed. The default of event-time windows.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventTimeTrigger;

impl<T> Trigger<T> for EventTimeTrigger {
    type State = ();

    fn on_element(&mut self, _: &T, _: i64, context: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
        let last_ms = context.window().max_timestamp_ms();
        if last_ms <= context.watermark_ms() {
            return Ok(TriggerResult::Fire);
        }
        context.register_event_timer(last_ms);
        Ok(TriggerResult::Continue)
    }

    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
        let over = time_ms == context.window().max_timestamp_ms();
        Ok(if over { TriggerResult::Fire } else { TriggerResult::Continue })
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, _: &[&()], context: &mut TriggerContext<'_, ()>) -> Result<()> {
        // A merged window that is over already fires at the record that follows.
        let last_ms = context.window().max_timestamp_ms();
        if last_ms > context.watermark_ms() {
            context.register_event_timer(last_ms);
        }
        Ok(())
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, ()>) -> Result<()> {
        context.delete_event_timer(context.window().max_timestamp_ms());
        Ok(())
    }
}

/// Fires when the clock has passed the window. The default of processing-time windows.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessingTimeTrigger;

impl<T> Trigger<T> for ProcessingTimeTrigger {
    type State = ();

    fn on_element(&mut self, _: &T, _: i64, context: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
        context.register_processing_timer(context.window().max_timestamp_ms());
        Ok(TriggerResult::Continue)
    }

    fn on_processing_time(&mut self, _: i64, _: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
        Ok(TriggerResult::Fire)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, _: &[&()], context: &mut TriggerContext<'_, ()>) -> Result<()> {
        let last_ms = context.window().max_timestamp_ms();
        if last_ms > context.processing_time_ms() {
            context.register_processing_timer(last_ms);
        }
        Ok(())
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, ()>) -> Result<()> {
        context.delete_processing_timer(context.window().max_timestamp_ms());
        Ok(())
    }
}

/// Never fires. The default of global windows.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeverTrigger;

impl<T> Trigger<T> for NeverTrigger {
    type State = ();

    fn on_element(&mut self, _: &T, _: i64, _: &mut TriggerContext<'_, ()>) -> Result<TriggerResult> {
        Ok(TriggerResult::Continue)
    }

    fn can_merge(&self) -> bool {
        true
    }
}
