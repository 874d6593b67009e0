//! Rolling reductions on keyed streams: one updated value for each record.

use std::ops::AddAssign;

use tidemill_core::{Data, NO_TIMESTAMP, Result, WATERMARK_MAX};

use super::keyed_process::{KeyedContext, KeyedProcessFunction, TimeDomain};
use super::process::RuntimeContext;
use crate::key::Key;
use crate::state::ValueState;

/// Folds each record into its key's value and emits the result; in batch mode only the last, when the input has ended.
pub(crate) struct Rolling<T, F> {
    held: ValueState<T>,
    /// In batch mode, the largest event time of the key's records.
    reached_ms: ValueState<i64>,
    fold: F,
    batch: bool,
}

impl<T, F: Clone> Clone for Rolling<T, F> {
    fn clone(&self) -> Self {
        let (held, reached_ms) = (self.held.clone(), self.reached_ms.clone());
        Rolling { held, reached_ms, fold: self.fold.clone(), batch: self.batch }
    }
}

impl<T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> Rolling<T, F> {
    pub fn new(fold: F) -> Self {
        Rolling { held: ValueState::new("rolling"), reached_ms: ValueState::new("reached"), fold, batch: false }
    }
}

impl<K: Key, T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> KeyedProcessFunction<K, T, T> for Rolling<T, F> {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.batch = context.batch;
        Ok(())
    }

    fn process(&mut self, value: T, context: &mut KeyedContext<'_, K, T>) -> Result<()> {
        let mut incoming = Some(value);
        let held = self.held.get_or(context, || incoming.take().unwrap_or_else(|| unreachable!("taken once")))?;
        if let Some(value) = incoming {
            (self.fold)(held, value);
        }
        if self.batch {
            let timestamp_ms = context.timestamp_ms();
            let reached_ms = self.reached_ms.get_or(context, || timestamp_ms)?;
            *reached_ms = timestamp_ms.max(*reached_ms);
            context.register_event_timer(WATERMARK_MAX);
            return Ok(());
        }
        let updated = held.clone();
        context.emit(updated)
    }

    /// The end of a batch.
    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, K, T>) -> Result<()> {
        let timestamp_ms = self.reached_ms.take(context)?.unwrap_or(NO_TIMESTAMP);
        match self.held.take(context)? {
            Some(last) => context.emit_at(timestamp_ms, last),
            None => Ok(()),
        }
    }
}

/// Adds the field of the new record to the field held; other fields keep what the first record had.
pub(crate) fn sum<T, N: AddAssign + Copy>(
    mut field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
) -> impl FnMut(&mut T, T) + Clone + Send + 'static {
    move |held, mut value| {
        let by = *field(&mut value);
        *field(held) += by;
    }
}

/// Replaces the field alone when the new one is better.
pub(crate) fn extreme_field<T, N: Copy + 'static>(
    mut field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    better: fn(&N, &N) -> bool,
) -> impl FnMut(&mut T, T) + Clone + Send + 'static {
    move |held, mut value| {
        let new = *field(&mut value);
        let held = field(held);
        if better(&new, held) {
            *held = new;
        }
    }
}

/// Replaces the whole record when the new one is better; of equals the first stays.
pub(crate) fn extreme_by<T, N>(
    mut by: impl FnMut(&T) -> N + Clone + Send + 'static,
    better: fn(&N, &N) -> bool,
) -> impl FnMut(&mut T, T) + Clone + Send + 'static
where
    N: 'static,
{
    move |held, value| {
        if better(&by(&value), &by(held)) {
            *held = value;
        }
    }
}
