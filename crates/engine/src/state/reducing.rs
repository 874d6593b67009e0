//! State that folds what is added to it: one running value for each key.

use tidemill_core::{Data, Result};

use super::keyed::{StateAccess, ValueState};
use crate::window::Aggregate;

/// Folds values of one type into one (Flink's `ReducingState`). `F` is `FnMut(&mut V, V)`.
pub struct ReducingState<V, F> {
    pub(super) held: ValueState<V>,
    fold: F,
}

impl<V, F: Clone> Clone for ReducingState<V, F> {
    fn clone(&self) -> Self {
        ReducingState { held: self.held.clone(), fold: self.fold.clone() }
    }
}

impl<V: Data, F: FnMut(&mut V, V)> ReducingState<V, F> {
    /// A handle on the state of this name.
    pub const fn new(name: &'static str, fold: F) -> Self {
        ReducingState { held: ValueState::new(name), fold }
    }

    /// Folds a value into the current key's; the first one stands for itself.
    pub fn add<C: StateAccess>(&mut self, context: &mut C, value: V) -> Result<()> {
        let (key, table, _measured) = self.held.begin(context, "reducingStateAddLatency")?;
        match table.get_mut(key)? {
            Some(held) => (self.fold)(held, value),
            None => table.set(key, value)?,
        }
        Ok(())
    }

    /// The current key's value.
    pub fn get<'c, C: StateAccess>(&self, context: &'c mut C) -> Result<Option<&'c V>> {
        let (key, table, _measured) = self.held.begin(context, "reducingStateGetLatency")?;
        table.get(key)
    }

    /// Removes the current key's value.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let (key, table, _measured) = self.held.begin(context, "reducingStateClearLatency")?;
        table.remove(key).map(drop)
    }
}

/// Gathers values by an [`Aggregate`] (Flink's `AggregatingState`).
pub struct AggregatingState<T, A: Aggregate<T>> {
    pub(super) held: ValueState<A::Accumulator>,
    aggregate: A,
}

impl<T, A: Aggregate<T>> Clone for AggregatingState<T, A> {
    fn clone(&self) -> Self {
        AggregatingState { held: self.held.clone(), aggregate: self.aggregate.clone() }
    }
}

impl<T, A: Aggregate<T>> AggregatingState<T, A> {
    /// A handle on the state of this name.
    pub const fn new(name: &'static str, aggregate: A) -> Self {
        AggregatingState { held: ValueState::new(name), aggregate }
    }

    /// Takes a value in.
    pub fn add<C: StateAccess>(&mut self, context: &mut C, value: T) -> Result<()> {
        let AggregatingState { held, aggregate } = self;
        let (key, table, _measured) = held.begin(context, "aggregatingStateAddLatency")?;
        let accumulator = table.get_or_insert_with(key, || aggregate.create())?;
        self.aggregate.add(accumulator, value);
        Ok(())
    }

    /// The result of what the current key has gathered; `None` when nothing was added.
    pub fn get<C: StateAccess>(&mut self, context: &mut C) -> Result<Option<A::Output>> {
        let (key, table, _measured) = self.held.begin(context, "aggregatingStateGetLatency")?;
        let gathered = table.get(key)?.cloned();
        Ok(gathered.map(|accumulator| self.aggregate.result(accumulator)))
    }

    /// Forgets what the current key has gathered.
    pub fn clear<C: StateAccess>(&self, context: &mut C) -> Result<()> {
        let (key, table, _measured) = self.held.begin(context, "aggregatingStateClearLatency")?;
        table.remove(key).map(drop)
    }
}
