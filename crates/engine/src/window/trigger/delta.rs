//! A trigger that fires when records have moved far enough.

use tidemill_core::{Data, Result};

use super::{Trigger, TriggerContext, TriggerResult};

/// Fires when a record differs by more than a threshold from the one that fired last; the first record of a window does not
/// fire. It cannot go with windows that merge.
#[derive(Debug, Clone, Copy)]
pub struct DeltaTrigger<F> {
    threshold: f64,
    delta: F,
}

impl<F> DeltaTrigger<F> {
    /// `delta(fired_last, new)` is compared with `threshold`.
    pub fn of<T>(threshold: f64, delta: F) -> Self
    where
        F: FnMut(&T, &T) -> f64,
    {
        DeltaTrigger { threshold, delta }
    }
}

impl<T: Data, F: FnMut(&T, &T) -> f64 + Clone + Send + 'static> Trigger<T> for DeltaTrigger<F> {
    /// The record that fired last, or else the window's first.
    type State = T;

    fn on_element(&mut self, value: &T, _: i64, context: &mut TriggerContext<'_, T>) -> Result<TriggerResult> {
        let fires = match context.state.as_ref() {
            Some(last) if (self.delta)(last, value) > self.threshold => true,
            Some(_) => return Ok(TriggerResult::Continue),
            None => false,
        };
        *context.state = Some(value.clone());
        Ok(if fires { TriggerResult::Fire } else { TriggerResult::Continue })
    }
}
