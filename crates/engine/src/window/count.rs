//! Windows over a number of records of one key.
//!
//! A tumbling one keeps a running value and a count; when the count is reached it fires and is forgotten. A sliding one
//! fires for every `slide` records over the last `size`, and must keep those, since they leave one by one. What is left
//! at the end of the input never fires, as in Flink.

use std::collections::VecDeque;

use tidemill_core::{Data, Error, Result};

use super::{
    Aggregate, AnyEvictor, CountEvictor, CountTrigger, DefaultTrigger, PurgingTrigger, Window, WindowKind, WindowParts,
};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, SnapshotParts};
use crate::state::{Restored, StateTable};
use crate::stream::{KeySelector, RuntimeContext};

/// Windows over a number of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWindows {
    size: u64,
    slide: u64,
}

impl CountWindows {
    /// A window for every `size` records.
    pub fn tumbling(size: u64) -> Self {
        CountWindows { size, slide: size }
    }

    /// For every `slide` records a window over the last `size`.
    pub fn sliding(size: u64, slide: u64) -> Self {
        CountWindows { size, slide }
    }
}

impl<T: Data> WindowKind<T> for CountWindows {
    type Trigger = DefaultTrigger;

    fn name(&self) -> &'static str {
        "Count Window"
    }

    fn check(&self) -> Result<()> {
        if self.size == 0 || self.slide == 0 {
            return Err(Error::input("a count window's size and slide must be at least 1"));
        }
        Ok(())
    }

    fn is_event_time(&self) -> bool {
        false
    }

    fn assign(&mut self, _: &T, _: i64, windows: &mut Vec<Window>) -> Result<()> {
        windows.push(Window::GLOBAL);
        Ok(())
    }

    fn trigger(&self) -> DefaultTrigger {
        let count = CountTrigger::of(self.slide);
        if self.size == self.slide {
            DefaultTrigger::PurgingCount(PurgingTrigger::of(count))
        } else {
            DefaultTrigger::Count(count)
        }
    }

    fn evictor(&self) -> Option<Box<dyn AnyEvictor<T>>> {
        (self.size != self.slide).then(|| Box::new(CountEvictor::of(self.size)) as Box<dyn AnyEvictor<T>>)
    }

    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: KeySelector<T, K>,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
        I: IntoIterator<Item = O>,
    {
        let (selector, mut aggregate, mut emit) = (parts.selector, parts.aggregate, parts.emit);
        if self.size == self.slide {
            let (size, empty) = (self.size, aggregate.clone());
            Box::new(CountOperator {
                selector,
                groups: StateTable::default(),
                context: parts.context,
                new: move || (0, empty.create()),
                add: move |(count, accumulator): &mut (u64, A::Accumulator), value: T, key: &K| {
                    aggregate.add(accumulator, value);
                    *count += 1;
                    if *count < size {
                        return Step::Keep(None);
                    }
                    let full = std::mem::replace(accumulator, aggregate.create());
                    let result = aggregate.result(full);
                    Step::Forget(emit(key, Window::GLOBAL, result))
                },
            })
        } else {
            let (size, slide) = (self.size as usize, self.slide);
            Box::new(CountOperator {
                selector,
                groups: StateTable::default(),
                context: parts.context,
                new: || (0, VecDeque::new()),
                add: move |(since, last): &mut (u64, VecDeque<T>), value: T, key: &K| {
                    last.push_back(value);
                    if last.len() > size {
                        last.pop_front();
                    }
                    *since += 1;
                    if *since < slide {
                        return Step::Keep(None);
                    }
                    *since = 0;
                    let mut accumulator = aggregate.create();
                    last.iter().for_each(|value| aggregate.add(&mut accumulator, value.clone()));
                    let result = aggregate.result(accumulator);
                    Step::Keep(Some(emit(key, Window::GLOBAL, result)))
                },
            })
        }
    }
}

/// What is emitted after a record, and whether the group stays.
enum Step<I> {
    Keep(Option<I>),
    Forget(I),
}

/// Groups of one key each; `new` makes one and `add` takes a record in.
struct CountOperator<K, G, S, N, F> {
    selector: S,
    /// Made anew by `restore`, which comes before all else.
    groups: StateTable<K, G>,
    context: RuntimeContext,
    new: N,
    add: F,
}

const GROUPS: &str = "count-window";

impl<K, T, O, G, S, N, F, I> Operator<T, O> for CountOperator<K, G, S, N, F>
where
    K: Key,
    T: Data,
    O: Data,
    G: Data,
    S: KeySelector<T, K>,
    N: Fn() -> G + Send + 'static,
    F: FnMut(&mut G, T, &K) -> Step<I> + Send + 'static,
    I: IntoIterator<Item = O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let sections = state.take(GROUPS);
        self.groups = self.context.state.own_table(GROUPS, (self.context.subtask, self.context.parallelism))?;
        sections.iter().try_for_each(|section| self.groups.load(section, |key| state.owns(key)))?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        batch.into_iter().try_for_each(|(timestamp_ms, value)| {
            let key = self.selector.key(&value);
            let group = self.groups.get_or_insert_with(&key, &self.new)?;
            let results = match (self.add)(group, value, &key) {
                Step::Keep(results) => results,
                Step::Forget(results) => {
                    self.groups.remove(&key)?;
                    Some(results)
                }
            };
            // The window itself has no end in time: a result carries the time of the record that completed it.
            results.into_iter().flatten().try_for_each(|result| out.emit(timestamp_ms, result))
        })
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.groups.begin_snapshot(GROUPS, parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.groups.copy_some(run)
    }
}
