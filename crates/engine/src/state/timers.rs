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
use super::{Equivalent, FETCHED_AHEAD, Restored, RestoredSection, Table, TableHasher};
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
    by_time: BTreeMap<i64, Due<K>>,
    /// The keys whose timers of one time are being fired. Empty between calls of the operator.
    firing: (i64, std::vec::IntoIter<K>),
    /// So many of them have been fetched from memory ahead.
    fetched: usize,
}

/// The keys with a timer at one time, as they were set. A timer that is taken back leaves its key behind: whether there is one
/// is for the set to say.
struct Due<K> {
    keys: Vec<K>,
    /// So many were taken back.
    deleted: usize,
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

    /// To be called before each [`Timers::pop_due`]: once in a while gives the keys that come next, whose timers it has fetched
    /// from memory, so that what else is kept of them can be fetched as well.
    #[inline]
    pub fn fetch_ahead(&mut self) -> &[K] {
        match &mut self.kept {
            Kept::Memory(timers) => timers.fetch_ahead(),
            Kept::Disk(_) => &[],
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
        InMemory {
            set: Table::default(),
            by_time: BTreeMap::new(),
            firing: (i64::MIN, Vec::new().into_iter()),
            fetched: 0,
        }
    }
}

impl<K: Key> InMemory<K> {
    fn register(&mut self, time_ms: i64, key: &K) {
        let mut is_new = false;
        let own = |found: TimerRef<'_, K>| Timer(found.0.clone(), found.1);
        self.set.get_or_insert_found::<TimerRef<'_, K>, _>(TimerRef(key, time_ms), own, || is_new = true);
        if is_new {
            index(&mut self.by_time, time_ms, key);
        }
    }

    fn delete(&mut self, time_ms: i64, key: &K) {
        if self.set.remove(&TimerRef(key, time_ms)).is_none() {
            return;
        }
        // A timer whose time is being fired is not in the index any more.
        let Some(due) = self.by_time.get_mut(&time_ms) else { return };
        due.deleted += 1;
        if due.deleted == due.keys.len() {
            self.by_time.remove(&time_ms);
        } else if due.deleted > due.keys.len() / 2 {
            // One that was set again stands here twice.
            let mut seen: HashSet<K, TableHasher> = HashSet::default();
            due.keys.retain(|key| self.set.contains_key(&TimerRef(key, time_ms)) && seen.insert(key.clone()));
            due.deleted = 0;
        }
    }

    fn next(&self) -> Option<i64> {
        self.by_time.keys().next().copied()
    }

    fn pop_due(&mut self, now_ms: i64) -> Option<(i64, K)> {
        loop {
            for key in self.firing.1.by_ref() {
                if self.set.remove(&TimerRef(&key, self.firing.0)).is_some() {
                    return Some((self.firing.0, key));
                }
            }
            let first = self.by_time.first_entry()?;
            if *first.key() > now_ms {
                return None;
            }
            self.firing = (*first.key(), first.remove().keys.into_iter());
        }
    }

    fn fetch_ahead(&mut self) -> &[K] {
        if self.fetched > 0 {
            self.fetched -= 1;
            return &[];
        }
        let (time_ms, keys) = (self.firing.0, self.firing.1.as_slice());
        let ahead = &keys[..keys.len().min(FETCHED_AHEAD)];
        self.set.fetch::<TimerRef<'_, K>, _>(ahead.iter().map(|key| TimerRef(key, time_ms)));
        self.fetched = ahead.len();
        ahead
    }

    fn load(&mut self, sections: &[RestoredSection], owns: impl Fn(&K) -> bool) -> Result<()> {
        self.set.load(sections, |timer| owns(&timer.0))?;
        let InMemory { set, by_time, .. } = self;
        for (Timer(key, time_ms), ()) in set.iter() {
            index(by_time, *time_ms, key);
        }
        Ok(())
    }
}

fn index<K: Key>(by_time: &mut BTreeMap<i64, Due<K>>, time_ms: i64, key: &K) {
    by_time.entry(time_ms).or_insert_with(|| Due { keys: Vec::new(), deleted: 0 }).keys.push(key.clone());
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
    fn timers_set_again_and_again_at_one_time_fire_once_and_leave_no_heap_behind() {
        let mut timers = InMemory::default();
        (0..100u32).for_each(|key| timers.register(10, &key));
        for round in 0..10_000u32 {
            timers.delete(10, &(round % 90));
            if round % 3 > 0 {
                timers.register(10, &(round % 90));
            }
            let due = &timers.by_time[&10];
            assert_eq!(due.keys.len() - due.deleted, timers.set.len());
            assert!(due.keys.len() <= 2 * timers.set.len() + 1);
        }
        let mut left: Vec<u32> = timers.set.iter().map(|(timer, ())| timer.0).collect();
        let mut fired = Vec::new();
        loop {
            timers.fetch_ahead();
            let Some((_, key)) = timers.pop_due(10) else { break };
            fired.push(key);
        }
        left.sort_unstable();
        fired.sort_unstable();
        assert_eq!(fired, left);
        (0..5u32).for_each(|key| timers.register(10, &key));
        (0..5u32).for_each(|key| timers.delete(10, &key));
        assert_eq!(timers.next(), None);
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
