//! Rolling reductions on keyed streams: one updated value for each record.

use std::ops::AddAssign;

use tidemill_core::{Data, NO_TIMESTAMP, Result, WATERMARK_MAX};

use super::keyed_process::{KeyedContext, KeyedCore, KeyedProcessFunction, KeyedProcessOperator, TimeDomain};
use super::process::RuntimeContext;
use super::selector::KeySelector;
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, SnapshotParts};
use crate::state::{Ahead, Restored, ValueState};

/// The names of the state: a key's value, and in batch mode the largest event time of its records.
const HELD: &str = "rolling";
const REACHED: &str = "reached";

/// Folds each record into its key's value and emits the result; in batch mode only the last, when the input has ended.
pub(super) fn operator<K: Key, T: Data>(
    selector: impl KeySelector<T, K>,
    fold: impl Fold<T>,
    context: RuntimeContext,
) -> Box<dyn Operator<T, T>> {
    let held = ValueState::new(HELD);
    if context.batch {
        let function = AtTheEnd { held, reached_ms: ValueState::new(REACHED), fold };
        return Box::new(KeyedProcessOperator::new(selector, function, context));
    }
    Box::new(Rolling { held, core: KeyedCore::new(&context), selector, ahead: Ahead::default(), fold })
}

/// How records are folded into their key's value.
pub(super) trait Fold<T>: Clone + Send + 'static {
    /// Uses a record up.
    fn fold(&mut self, held: &mut T, record: T);

    /// A copy of the result takes the record's place.
    fn fold_in_place(&mut self, held: &mut T, record: &mut T);
}

/// Folds by looking at the record, of which what is left has no meaning.
#[derive(Clone)]
pub(super) struct Looking<F>(pub F);

impl<T: Data, F: FnMut(&mut T, &mut T) + Clone + Send + 'static> Fold<T> for Looking<F> {
    #[inline]
    fn fold(&mut self, held: &mut T, mut record: T) {
        (self.0)(held, &mut record);
    }

    #[inline]
    fn fold_in_place(&mut self, held: &mut T, record: &mut T) {
        (self.0)(held, record);
        record.clone_from(held);
    }
}

/// Folds by taking the record.
#[derive(Clone)]
pub(super) struct Taking<T, F> {
    function: F,
    /// Stands in a record's place until the result does. Of no meaning.
    spare: Option<T>,
}

impl<T, F> Taking<T, F> {
    pub fn new(function: F) -> Self {
        Taking { function, spare: None }
    }
}

impl<T: Data, F: FnMut(&mut T, T) + Clone + Send + 'static> Fold<T> for Taking<T, F> {
    #[inline]
    fn fold(&mut self, held: &mut T, record: T) {
        (self.function)(held, record);
    }

    #[inline]
    fn fold_in_place(&mut self, held: &mut T, record: &mut T) {
        let spare = self.spare.take().unwrap_or_else(|| record.clone());
        (self.function)(held, std::mem::replace(record, spare));
        self.spare = Some(std::mem::replace(record, held.clone()));
    }
}

/// Emits at each record. It finds its keys itself, so that only new ones are copied.
struct Rolling<K, T, S, F> {
    held: ValueState<T>,
    core: KeyedCore<K>,
    selector: S,
    ahead: Ahead,
    fold: F,
}

impl<K: Key, T: Data, S: KeySelector<T, K>, F: Fold<T>> Operator<T, T> for Rolling<K, T, S, F> {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.core.restore(&mut state)?;
        state.finish()
    }

    fn on_batch(&mut self, mut batch: Records<T>, out: &mut Out<T>) -> Result<()> {
        let values = self.held.table(&mut self.core.store)?;
        self.ahead.clear();
        // Making keys twice costs more than it gains.
        if !std::mem::needs_drop::<S::Found<'_>>() {
            let keys = batch.iter().map(|(_, value)| self.selector.find(value));
            values.look_ahead::<S::Lookup, _>(&mut self.ahead, keys);
        }
        // Each result stands where its record did, and keys are compared there: comparing what was just moved in other pieces
        // waits until all of them are written.
        for (_, value) in &mut batch {
            let mut is_first = false;
            let first = || {
                is_first = true;
                value.clone()
            };
            let found = self.selector.find(value);
            let held = values.get_or_insert_seen::<S::Lookup, _>(&mut self.ahead, found, S::own, first)?;
            if !is_first {
                self.fold.fold_in_place(held, value);
            }
        }
        out.emit_batch(batch)
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.core.begin_snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.core.copy_some(run)
    }
}

/// Emits the last value of each key when the input has ended.
struct AtTheEnd<T, F> {
    held: ValueState<T>,
    reached_ms: ValueState<i64>,
    fold: F,
}

impl<T, F: Clone> Clone for AtTheEnd<T, F> {
    fn clone(&self) -> Self {
        AtTheEnd { held: self.held.clone(), reached_ms: self.reached_ms.clone(), fold: self.fold.clone() }
    }
}

impl<K: Key, T: Data, F: Fold<T>> KeyedProcessFunction<K, T, T> for AtTheEnd<T, F> {
    fn process(&mut self, value: T, context: &mut KeyedContext<'_, K, T>) -> Result<()> {
        let mut incoming = Some(value);
        let held = self.held.get_or(context, || incoming.take().unwrap_or_else(|| unreachable!("taken once")))?;
        if let Some(value) = incoming {
            self.fold.fold(held, value);
        }
        let timestamp_ms = context.timestamp_ms();
        let reached_ms = self.reached_ms.get_or(context, || timestamp_ms)?;
        *reached_ms = timestamp_ms.max(*reached_ms);
        context.register_event_timer(WATERMARK_MAX);
        Ok(())
    }

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
) -> impl FnMut(&mut T, &mut T) + Clone + Send + 'static {
    move |held, value| {
        let by = *field(value);
        *field(held) += by;
    }
}

/// Replaces the field alone when the new one is better.
pub(crate) fn extreme_field<T, N: Copy + 'static>(
    mut field: impl FnMut(&mut T) -> &mut N + Clone + Send + 'static,
    better: fn(&N, &N) -> bool,
) -> impl FnMut(&mut T, &mut T) + Clone + Send + 'static {
    move |held, value| {
        let new = *field(value);
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
) -> impl FnMut(&mut T, &mut T) + Clone + Send + 'static
where
    N: 'static,
{
    move |held, value| {
        if better(&by(value), &by(held)) {
            std::mem::swap(held, value);
        }
    }
}
