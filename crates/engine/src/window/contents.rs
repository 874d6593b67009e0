//! What the general window operator holds for a key and window: a running value, or with an evictor all records.

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, Result};

use super::Aggregate;
use super::evictor::{AnyEvictor, EvictorContext};

/// The contents of one window of one key. Never empty.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Held<T, A> {
    Running(A),
    /// Event times and records, in the order they came.
    Records(Vec<(i64, T)>),
}

/// How contents grow and what they become.
pub(super) struct Contents<T, A> {
    pub aggregate: A,
    pub evictor: Option<Box<dyn AnyEvictor<T>>>,
}

impl<T: Data, A: Aggregate<T>> Contents<T, A> {
    /// Takes a record in.
    pub fn add(&mut self, held: &mut Option<Held<T, A::Accumulator>>, timestamp_ms: i64, value: T) {
        let evicts = self.evictor.is_some();
        let held = held.get_or_insert_with(|| match evicts {
            true => Held::Records(Vec::new()),
            false => Held::Running(self.aggregate.create()),
        });
        match held {
            Held::Running(accumulator) => self.aggregate.add(accumulator, value),
            Held::Records(records) => records.push((timestamp_ms, value)),
        }
    }

    /// Sees contents that come back at a restore.
    pub fn restored(&mut self, held: &Held<T, A::Accumulator>) {
        if let Held::Running(accumulator) = held {
            self.aggregate.restored(accumulator);
        }
    }

    /// Takes in what a window held that becomes part of this one.
    pub fn merge(&mut self, held: &mut Option<Held<T, A::Accumulator>>, other: Option<Held<T, A::Accumulator>>) {
        match (held, other) {
            (_, None) => {}
            (Some(Held::Running(held)), Some(Held::Running(other))) => self.aggregate.merge(held, other),
            (Some(Held::Records(held)), Some(Held::Records(other))) => held.extend(other),
            (held, other) => *held = other,
        }
    }

    /// The result of the contents. They stay unless this is their `last` use; an evictor may have taken some or all away.
    pub fn result(
        &mut self,
        held: &mut Option<Held<T, A::Accumulator>>,
        last: bool,
        context: &EvictorContext,
    ) -> Result<Option<A::Output>> {
        let Some(evictor) = self.evictor.as_mut() else {
            let accumulator = match if last { held.take() } else { held.clone() } {
                Some(Held::Running(accumulator)) => accumulator,
                _ => return Ok(None),
            };
            return Ok(Some(self.aggregate.result(accumulator)));
        };
        let Some(Held::Records(records)) = held else { return Ok(None) };
        evictor.before(records, context)?;
        let mut result = None;
        if !records.is_empty() {
            let mut accumulator = self.aggregate.create();
            records.iter().for_each(|(_, value)| self.aggregate.add(&mut accumulator, value.clone()));
            result = Some(self.aggregate.result(accumulator));
        }
        Ok(result)
    }

    /// After the window's function.
    pub fn evict_after(&mut self, held: &mut Option<Held<T, A::Accumulator>>, context: &EvictorContext) -> Result<()> {
        if let (Some(evictor), Some(Held::Records(records))) = (&mut self.evictor, held.as_mut()) {
            evictor.after(records, context)?;
            if records.is_empty() {
                *held = None;
            }
        }
        Ok(())
    }
}
