//! A trigger that empties the window whenever another fires.

use tidemill_core::Result;

use super::{Trigger, TriggerContext, TriggerResult};

/// Fires as `inner` does, and forgets what was fired: each record is in one result only.
#[derive(Debug, Clone, Copy)]
pub struct PurgingTrigger<G> {
    inner: G,
}

impl<G> PurgingTrigger<G> {
    /// Purges whenever `inner` fires.
    pub fn of(inner: G) -> Self {
        PurgingTrigger { inner }
    }
}

fn purging(result: TriggerResult) -> TriggerResult {
    if result.fires() { TriggerResult::FireAndPurge } else { result }
}

impl<T, G: Trigger<T>> Trigger<T> for PurgingTrigger<G> {
    type State = G::State;

    fn on_element(
        &mut self,
        value: &T,
        timestamp_ms: i64,
        context: &mut TriggerContext<'_, G::State>,
    ) -> Result<TriggerResult> {
        self.inner.on_element(value, timestamp_ms, context).map(purging)
    }

    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, G::State>) -> Result<TriggerResult> {
        self.inner.on_event_time(time_ms, context).map(purging)
    }

    fn on_processing_time(
        &mut self,
        time_ms: i64,
        context: &mut TriggerContext<'_, G::State>,
    ) -> Result<TriggerResult> {
        self.inner.on_processing_time(time_ms, context).map(purging)
    }

    fn can_merge(&self) -> bool {
        self.inner.can_merge()
    }

    fn on_merge(&mut self, merged: &[&G::State], context: &mut TriggerContext<'_, G::State>) -> Result<()> {
        self.inner.on_merge(merged, context)
    }

    fn clear(&mut self, context: &mut TriggerContext<'_, G::State>) -> Result<()> {
        self.inner.clear(context)
    }
}
