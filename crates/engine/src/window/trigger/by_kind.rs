//! The triggers window kinds have by themselves.

use tidemill_core::Result;

use super::{
    CountTrigger, EventTimeTrigger, ProcessingTimeTrigger, PurgingTrigger, Trigger, TriggerContext, TriggerResult,
};

/// The trigger of a window kind for which nothing else was said.
#[derive(Debug, Clone, Copy)]
pub enum DefaultTrigger {
    /// [`EventTimeTrigger`].
    EventTime,
    /// [`ProcessingTimeTrigger`].
    ProcessingTime,
    /// [`NeverTrigger`](super::NeverTrigger).
    Never,
    /// [`CountTrigger`].
    Count(CountTrigger),
    /// [`CountTrigger`] inside a [`PurgingTrigger`].
    PurgingCount(PurgingTrigger<CountTrigger>),
}

impl<T> Trigger<T> for DefaultTrigger {
    /// The count, for those that count.
    type State = u64;

    fn on_element(
        &mut self,
        value: &T,
        timestamp_ms: i64,
        context: &mut TriggerContext<'_, u64>,
    ) -> Result<TriggerResult> {
        match self {
            DefaultTrigger::EventTime => {
                EventTimeTrigger.on_element(value, timestamp_ms, &mut context.nested(&mut None))
            }
            DefaultTrigger::ProcessingTime => {
                ProcessingTimeTrigger.on_element(value, timestamp_ms, &mut context.nested(&mut None))
            }
            DefaultTrigger::Never => Ok(TriggerResult::Continue),
            DefaultTrigger::Count(count) => count.on_element(value, timestamp_ms, context),
            DefaultTrigger::PurgingCount(count) => count.on_element(value, timestamp_ms, context),
        }
    }

    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, u64>) -> Result<TriggerResult> {
        match self {
            DefaultTrigger::EventTime => {
                Trigger::<T>::on_event_time(&mut EventTimeTrigger, time_ms, &mut context.nested(&mut None))
            }
            _ => Ok(TriggerResult::Continue),
        }
    }

    fn on_processing_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, u64>) -> Result<TriggerResult> {
        match self {
            DefaultTrigger::ProcessingTime => {
                Trigger::<T>::on_processing_time(&mut ProcessingTimeTrigger, time_ms, &mut context.nested(&mut None))
            }
            _ => Ok(TriggerResult::Continue),
        }
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: &[&u64], context: &mut TriggerContext<'_, u64>) -> Result<()> {
        match self {
            DefaultTrigger::EventTime => {
                Trigger::<T>::on_merge(&mut EventTimeTrigger, &[], &mut context.nested(&mut None))
            }
            DefaultTrigger::ProcessingTime => {
                Trigger::<T>::on_merge(&mut ProcessingTimeTrigger, &[], &mut context.nested(&mut None))
            }
            DefaultTrigger::Never => Ok(()),
            DefaultTrigger::Count(count) => Trigger::<T>::on_merge(count, merged, context),
            DefaultTrigger::PurgingCount(count) => Trigger::<T>::on_merge(count, merged, context),
        }
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, u64>) -> Result<()> {
        match self {
            DefaultTrigger::EventTime => Trigger::<T>::clear(&mut EventTimeTrigger, &mut context.nested(&mut None)),
            DefaultTrigger::ProcessingTime => {
                Trigger::<T>::clear(&mut ProcessingTimeTrigger, &mut context.nested(&mut None))
            }
            _ => Ok(()),
        }
    }
}
