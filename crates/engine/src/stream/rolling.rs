//! Rolling reductions on keyed streams: one updated value for each record.

use std::ops::AddAssign;

use tidemill_core::{Data, Result};

use super::keyed_process::{KeyedContext, KeyedProcessFunction};
use crate::key::Key;
use crate::state::ValueState;

/// Folds each record into its key's value and emits the result.
pub(crate) struct Rolling<T, F> {
    held: ValueState<T>,
    fold: F,
}

impl<T, F: Clone> Clone for Rolling<T, F> {
    fn clone(&self) -> Self {
        Rolling { held: self.held.clone(), fold: self.fold.clone() }
    }
}

impl<T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> Rolling<T, F> {
    pub fn new(fold: F) -> Self {
        Rolling { held: ValueState::new("rolling"), fold }
    }
}

impl<K: Key, T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> KeyedProcessFunction<K, T, T> for Rolling<T, F> {
    fn process(&mut self, value: T, context: &mut KeyedContext<'_, K, T>) -> Result<()> {
        let mut incoming = Some(value);
        let held = self.held.get_or(context, || incoming.take().unwrap_or_else(|| unreachable!("taken once")))?;
        if let Some(value) = incoming {
            (self.fold)(held, value);
        }
        let updated = held.clone();
        context.emit(updated)
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
