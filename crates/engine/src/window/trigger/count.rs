//! A trigger that counts.

use tidemill_core::Result;

use super::{Trigger, TriggerContext, TriggerResult};

/// Fires for every so many records of a window. The contents stay, so that each result holds all before it too; inside a
/// [`PurgingTrigger`](super::PurgingTrigger) each begins anew.
#[derive(Debug, Clone, Copy)]
pub struct CountTrigger {
    records: u64,
}

impl CountTrigger {
    /// Fires for every `records` records; 0 counts as 1.
    pub fn of(records: u64) -> Self {
        CountTrigger { records }
    }
}

impl<T> Trigger<T> for CountTrigger {
    type State = u64;

    fn on_element(&mut self, _: &T, _: i64, context: &mut TriggerContext<'_, u64>) -> Result<TriggerResult> {
        let count = context.state.unwrap_or(0) + 1;
        if count >= self.records {
            *context.state = None;
            return Ok(TriggerResult::Fire);
        }
        *context.state = Some(count);
        Ok(TriggerResult::Continue)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, merged: &[&u64], context: &mut TriggerContext<'_, u64>) -> Result<()> {
        if !merged.is_empty() {
            *context.state = Some(merged.iter().copied().sum());
        }
        Ok(())
    }
}
