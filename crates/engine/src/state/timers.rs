//! Timers of one domain (event or processing time): at most one for a key and a time, fired in order of time.
//!
//! In memory the set of timers is a [`Table`], so that it is copied for checkpoints as all keyed state is. Beside it stands an
//! index by time, which is made anew at a restore. On disk they stand in order of time (`disk/timers.rs`).

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::disk::DiskTimers;
use super::{Equivalent, Restored, RestoredSection, Table, TableHasher};
use crate::key::Key;
use crate::operator::{CopyRun, SnapshotParts};
use crate::stream::RuntimeContext;

/// Timers by time.
pub struct Timers<K> {
    name: &'static str,
    kept: Kept<K>,
    /// Of the disk, told by the next call that can.
    failure: Option<Error>,
}

enum Kept<K> {
    Memory(InMemory<K>),
    Disk(Box<DiskTimers<K>>),
}

struct InMemory<K> {
    set: Table<Timer<K>, ()>,
    by_time: BTreeMap<i64, HashSet<K, TableHasher>>,
    /// The keys whose timers of one time are being fired. Empty between calls of the operator.
    firing: (i64, Vec<K>),
}

/// Written as a pair of key and time.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Timer<K>(K, i64);

#[derive(Hash)]
struct TimerRef<'a, K>(&'a K, i64);

impl<K: Eq> Equivalent<Timer<K>> for TimerRef<'_, K> {
    fn equivalent(&self, timer: &Timer<K>) -> bool {
        *self.0 == timer.0 && self.1 == timer.1
    }
}

impl<K: Key> Timers<K> {
    /// No timers, to be kept in memory; `name` is the name of their state.
    pub fn new(name: &'static str) -> Self {
        Self::kept(name, Kept::Memory(InMemory::default()))
    }

    /// The same, to be kept where the job says.
    pub(crate) fn of(name: &'static str, context: &RuntimeContext) -> Self {
        match context.state.timers(name, (context.subtask, context.parallelism)) {
            Some(timers) => Self::kept(name, Kept::Disk(Box::new(timers))),
            None => Self::new(name),
        }
    }

    fn kept(name: &'static str, kept: Kept<K>) -> Self {
        Timers { name, kept, failure: None }
    }

    /// Sets a timer; a second one of the same key and time changes nothing.
    #[inline]
    pub fn register(&mut self, time_ms: i64, key: &K) {
        match &mut self.kept {
            Kept::Memory(timers) => timers.register(time_ms, key),
            Kept::Disk(timers) => {
                let failure = timers.register(time_ms, key).err();
                self.failure = self.failure.take().or(failure);
            }
        }
    }

    /// Takes a timer back, if it is there.
    #[inline]
    pub fn delete(&mut self, time_ms: i64, key: &K) {
        match &mut self.kept {
            Kept::Memory(timers) => timers.delete(time_ms, key),
            Kept::Disk(timers) => {
                let failure = timers.delete(time_ms, key).err();
                self.failure = self.failure.take().or(failure);
            }
        }
    }

    /// The earliest time anything is due.
    #[inline]
    pub fn next(&self) -> Option<i64> {
        match &self.kept {
            Kept::Memory(timers) => timers.next(),
            Kept::Disk(timers) => timers.next(),
        }
    }

    /// Takes one timer that is due at `now_ms`, earliest first. An error of the disk here or before is told.
    #[inline]
    pub fn pop_due(&mut self, now_ms: i64) -> Result<Option<(i64, K)>> {
        match &mut self.kept {
            Kept::Memory(timers) => Ok(timers.pop_due(now_ms)),
            Kept::Disk(timers) => match self.failure.take() {
                Some(failure) => Err(failure),
                None => timers.pop_due(now_ms),
            },
        }
    }

    /// Marks the timers of this moment for a snapshot.
    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        match &mut self.kept {
            Kept::Memory(timers) => timers.set.begin_snapshot(self.name, parts),
            Kept::Disk(timers) => match self.failure.take() {
                Some(failure) => Err(failure),
                None => timers.begin_snapshot(parts),
            },
        }
    }

    /// Goes on with the copy; true when it is done.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        match &mut self.kept {
            Kept::Memory(timers) => timers.set.copy_some(run),
            Kept::Disk(timers) => {
                timers.copy_some(run);
                Ok(true)
            }
        }
    }

    /// Takes back this subtask's share.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let sections = state.take(self.name);
        match &mut self.kept {
            Kept::Memory(timers) => timers.load(&sections, |key| state.owns(key)),
            Kept::Disk(timers) => sections.iter().try_for_each(|section| timers.load(section, |key| state.owns(key))),
        }
    }
}

impl<K> Default for InMemory<K> {
    fn default() -> Self {
        InMemory { set: Table::default(), by_time: BTreeMap::new(), firing: (i64::MIN, Vec::new()) }
    }
}

impl<K: Key> InMemory<K> {
    fn register(&mut self, time_ms: i64, key: &K) {
        if self.set.contains_key(&TimerRef(key, time_ms)) {
            return;
        }
        self.set.insert(Timer(key.clone(), time_ms), ());
        self.by_time.entry(time_ms).or_default().insert(key.clone());
    }

    fn delete(&mut self, time_ms: i64, key: &K) {
        if self.set.remove(&TimerRef(key, time_ms)).is_none() {
            return;
        }
        // A timer whose time is being fired is not in the index any more.
        if let Some(keys) = self.by_time.get_mut(&time_ms) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_time.remove(&time_ms);
            }
        }
    }

    fn next(&self) -> Option<i64> {
        self.by_time.keys().next().copied()
    }

    fn pop_due(&mut self, now_ms: i64) -> Option<(i64, K)> {
        loop {
            while let Some(key) = self.firing.1.pop() {
                if self.set.remove(&TimerRef(&key, self.firing.0)).is_some() {
                    return Some((self.firing.0, key));
                }
            }
            let first = self.by_time.first_entry()?;
            if *first.key() > now_ms {
                return None;
            }
            self.firing.0 = *first.key();
            self.firing.1.extend(first.remove());
        }
    }

    fn load(&mut self, sections: &[RestoredSection], owns: impl Fn(&K) -> bool) -> Result<()> {
        self.set.load(sections, |timer| owns(&timer.0))?;
        for (Timer(key, time_ms), ()) in self.set.iter() {
            self.by_time.entry(*time_ms).or_default().insert(key.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_for_a_key_and_a_time_in_order_of_time() {
        let mut timers = Timers::new("timers");
        timers.register(20, &1u32);
        timers.register(10, &2u32);
        timers.register(10, &2u32);
        timers.register(15, &3u32);
        timers.delete(15, &3u32);
        timers.delete(99, &3u32);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop_due(9).unwrap(), None);
        assert_eq!(timers.pop_due(20).unwrap(), Some((10, 2)));
        assert_eq!(timers.pop_due(20).unwrap(), Some((20, 1)));
        assert_eq!(timers.pop_due(i64::MAX).unwrap(), None);
    }

    #[test]
    fn a_timer_taken_back_while_others_of_its_time_fire_does_not_fire() {
        let mut timers = Timers::new("timers");
        (0..3u32).for_each(|key| timers.register(10, &key));
        let (_, first) = timers.pop_due(10).unwrap().unwrap();
        let second = (first + 1) % 3;
        timers.delete(10, &second);
        timers.register(10, &first);
        let rest: Vec<u32> = std::iter::from_fn(|| timers.pop_due(10).unwrap()).map(|(_, key)| key).collect();
        assert_eq!(rest, [(first + 2) % 3, first]);
    }
}

#[cfg(test)]
#[path = "tests/timers.rs"]
mod model;
