//! Timers of one domain (event or processing time): at most one for a key and a time, fired in order of time.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use tidemill_core::Result;

use super::keyed::TableHasher;
use super::{Restored, SectionKind, Writer};
use crate::key::Key;

/// Timers by time.
pub struct Timers<K> {
    name: &'static str,
    by_time: BTreeMap<i64, HashSet<K, TableHasher>>,
    /// The keys whose timers of one time are being fired. Empty between calls of the operator.
    firing: Firing<K>,
}

struct Firing<K> {
    time_ms: i64,
    keys: Vec<K>,
    /// Taken back while they waited for their turn.
    deleted: HashSet<K, TableHasher>,
}

impl<K: Key> Timers<K> {
    /// No timers; `name` is the name of their state.
    pub fn new(name: &'static str) -> Self {
        let firing = Firing { time_ms: i64::MIN, keys: Vec::new(), deleted: HashSet::default() };
        Timers { name, by_time: BTreeMap::new(), firing }
    }

    /// Sets a timer; a second one of the same key and time changes nothing.
    pub fn register(&mut self, time_ms: i64, key: &K) {
        self.by_time.entry(time_ms).or_default().get_or_insert_with(key, K::clone);
    }

    /// Takes a timer back, if it is there.
    pub fn delete(&mut self, time_ms: i64, key: &K) {
        if time_ms == self.firing.time_ms && !self.firing.keys.is_empty() {
            self.firing.deleted.get_or_insert_with(key, K::clone);
        }
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
            while let Some(key) = self.firing.keys.pop() {
                if !self.firing.deleted.remove(&key) {
                    return Some((self.firing.time_ms, key));
                }
            }
            let first = self.by_time.first_entry()?;
            if *first.key() > now_ms {
                return None;
            }
            self.firing.time_ms = *first.key();
            self.firing.keys.extend(first.remove());
            self.firing.deleted.clear();
        }
    }

    /// Writes all timers.
    pub fn snapshot(&self, parts: &mut crate::operator::SnapshotParts) -> Result<()> {
        if self.by_time.is_empty() {
            return Ok(());
        }
        let mut writer = Writer::new(self.name, SectionKind::Keyed);
        for (time_ms, keys) in &self.by_time {
            for key in keys {
                writer.entry(&(key, time_ms))?;
            }
        }
        parts.sections.push(writer.finish());
        Ok(())
    }

    /// Takes back this subtask's share.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        for section in state.take(self.name) {
            let mut reader = section.reader();
            while let Some((key, time_ms)) = reader.entry::<(K, i64)>()? {
                if state.owns(&key) {
                    self.by_time.entry(time_ms).or_default().insert(key);
                }
            }
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
