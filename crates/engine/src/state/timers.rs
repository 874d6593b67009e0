//! Timers of one domain (event or processing time): at most one for a key and a time, fired in order of time.
//!
//! The set of timers is a [`Table`], so that it is copied for checkpoints as all keyed state is. Beside it stands an index
//! by time, which is made anew at a restore.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use tidemill_core::Result;

use super::{Equivalent, Restored, Table, TableHasher};
use crate::key::Key;
use crate::operator::{CopyRun, SnapshotParts};

/// Timers by time.
pub struct Timers<K> {
    name: &'static str,
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
    /// No timers; `name` is the name of their state.
    pub fn new(name: &'static str) -> Self {
        Timers { name, set: Table::default(), by_time: BTreeMap::new(), firing: (i64::MIN, Vec::new()) }
    }

    /// Sets a timer; a second one of the same key and time changes nothing.
    pub fn register(&mut self, time_ms: i64, key: &K) {
        if self.set.contains_key(&TimerRef(key, time_ms)) {
            return;
        }
        self.set.insert(Timer(key.clone(), time_ms), ());
        self.by_time.entry(time_ms).or_default().insert(key.clone());
    }

    /// Takes a timer back, if it is there.
    pub fn delete(&mut self, time_ms: i64, key: &K) {
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

    /// The earliest time anything is due.
    pub fn next(&self) -> Option<i64> {
        self.by_time.keys().next().copied()
    }

    /// Takes one timer that is due at `now_ms`, earliest first.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<(i64, K)> {
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

    /// Marks the timers of this moment for a snapshot.
    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        self.set.begin_snapshot(self.name, parts)
    }

    /// Goes on with the copy; true when it is done.
    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.set.copy_some(run)
    }

    /// Takes back this subtask's share.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let sections = state.take(self.name);
        self.set.load(&sections, |timer| state.owns(&timer.0))?;
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
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(20), Some((10, 2)));
        assert_eq!(timers.pop_due(20), Some((20, 1)));
        assert_eq!(timers.pop_due(i64::MAX), None);
    }

    #[test]
    fn a_timer_taken_back_while_others_of_its_time_fire_does_not_fire() {
        let mut timers = Timers::new("timers");
        (0..3u32).for_each(|key| timers.register(10, &key));
        let (_, first) = timers.pop_due(10).unwrap();
        let second = (first + 1) % 3;
        timers.delete(10, &second);
        timers.register(10, &first);
        let rest: Vec<u32> = std::iter::from_fn(|| timers.pop_due(10)).map(|(_, key)| key).collect();
        assert_eq!(rest, [(first + 2) % 3, first]);
    }
}
