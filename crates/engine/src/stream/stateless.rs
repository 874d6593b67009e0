//! Operators that look at one record at a time and keep nothing: map, flat map, filter. Each works on whole batches.

use tidemill_core::Result;

use crate::driver::Records;
use crate::operator::{Operator, Out};

/// An operator made of a function on batches.
pub(crate) struct BatchOperator<F>(F);

impl<F> BatchOperator<F> {
    pub fn new(function: F) -> Self {
        BatchOperator(function)
    }
}

impl<I: 'static, O: 'static, F: FnMut(Records<I>, &mut Out<O>) -> Result<()> + 'static> Operator<I, O>
    for BatchOperator<F>
{
    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()> {
        self.0(batch, out)
    }
}

/// Where sizes allow, `collect` reuses the batch's own allocation.
pub(crate) fn map<I, O: 'static>(
    mut function: impl FnMut(I) -> O,
) -> impl FnMut(Records<I>, &mut Out<O>) -> Result<()> {
    move |batch, out| {
        out.emit_batch(batch.into_iter().map(|(timestamp_ms, value)| (timestamp_ms, function(value))).collect())
    }
}

pub(crate) fn flat_map<I, O: 'static, J: IntoIterator<Item = O>>(
    mut function: impl FnMut(I) -> J,
) -> impl FnMut(Records<I>, &mut Out<O>) -> Result<()> {
    move |batch, out| {
        batch.into_iter().try_for_each(|(timestamp_ms, value)| {
            function(value).into_iter().try_for_each(|result| out.emit(timestamp_ms, result))
        })
    }
}

pub(crate) fn filter<T: 'static>(
    mut keep: impl FnMut(&T) -> bool,
) -> impl FnMut(Records<T>, &mut Out<T>) -> Result<()> {
    move |mut batch, out| {
        batch.retain(|(_, value)| keep(value));
        out.emit_batch(batch)
    }
}
