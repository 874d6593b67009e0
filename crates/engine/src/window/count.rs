//! Windows over a number of records of one key.
//!
//! A tumbling one keeps a running value and a count; when the count is reached it fires and is forgotten. A sliding one
//! fires for every `slide` records over the last `size`, and must keep those, since they leave one by one. What is left
//! at the end of the input never fires, as in Flink.

use std::collections::VecDeque;

use tidemill_core::{Data, Error, Result};

use super::{Aggregate, Window, WindowKind, WindowParts};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{Operator, Out, SnapshotParts};
use crate::state::{Restored, SectionKind, Table, Writer};

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

/// The window every count window stands in: all of time.
const GLOBAL: Window = Window { start_ms: i64::MAX, end_ms: i64::MAX };

impl<T: Data> WindowKind<T> for CountWindows {
    fn name(&self) -> &'static str {
        "Count Window"
    }

    fn check(&self) -> Result<()> {
        if self.size == 0 || self.slide == 0 {
            return Err(Error::input("a count window's size and slide must be at least 1"));
        }
        Ok(())
    }

    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: FnMut(&T) -> K + Send + 'static,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
        I: IntoIterator<Item = O>,
    {
        let (selector, mut aggregate, mut emit) = (parts.selector, parts.aggregate, parts.emit);
        if self.size == self.slide {
            let size = self.size;
            Box::new(CountOperator {
                selector,
                groups: Table::default(),
                add: move |group: &mut Option<(u64, A::Accumulator)>, value: T, key: &K| {
                    let (count, accumulator) = group.get_or_insert_with(|| (0, aggregate.create()));
                    aggregate.add(accumulator, value);
                    *count += 1;
                    if *count < size {
                        return None;
                    }
                    let (_, accumulator) = group.take()?;
                    let result = aggregate.result(accumulator);
                    Some(emit(key, GLOBAL, result))
                },
            })
        } else {
            let (size, slide) = (self.size as usize, self.slide);
            Box::new(CountOperator {
                selector,
                groups: Table::default(),
                add: move |group: &mut Option<(u64, VecDeque<T>)>, value: T, key: &K| {
                    let (since, last) = group.get_or_insert_with(|| (0, VecDeque::new()));
                    last.push_back(value);
                    if last.len() > size {
                        last.pop_front();
                    }
                    *since += 1;
                    if *since < slide {
                        return None;
                    }
                    *since = 0;
                    let mut accumulator = aggregate.create();
                    last.iter().for_each(|value| aggregate.add(&mut accumulator, value.clone()));
                    let result = aggregate.result(accumulator);
                    Some(emit(key, GLOBAL, result))
                },
            })
        }
    }
}

/// Groups of one key each; `add` takes a record in and says what is emitted. A group left `None` is forgotten.
struct CountOperator<K, G, S, F> {
    selector: S,
    groups: Table<K, Option<G>>,
    add: F,
}

const GROUPS: &str = "count-window";

impl<K, T, O, G, S, F, I> Operator<T, O> for CountOperator<K, G, S, F>
where
    K: Key,
    T: Data,
    O: Data,
    G: Data,
    S: FnMut(&T) -> K + Send + 'static,
    F: FnMut(&mut Option<G>, T, &K) -> Option<I> + Send + 'static,
    I: IntoIterator<Item = O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        for section in state.take(GROUPS) {
            let mut reader = section.reader();
            while let Some((key, group)) = reader.entry::<(K, G)>()? {
                if state.owns(&key) {
                    self.groups.insert(key, Some(group));
                }
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        for (timestamp_ms, value) in batch {
            let key = (self.selector)(&value);
            let group = self.groups.entry_ref(&key).or_default();
            let results = (self.add)(group, value, &key);
            if group.is_none() {
                self.groups.remove(&key);
            }
            for result in results.into_iter().flatten() {
                // The window itself has no end in time: a result carries the time of the record that completed it.
                out.emit(timestamp_ms, result)?;
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        let mut writer = Writer::new(GROUPS, SectionKind::Keyed);
        for (key, group) in &self.groups {
            if let Some(group) = group {
                writer.entry(&(key, group))?;
            }
        }
        parts.sections.push(writer.finish());
        Ok(())
    }
}
