//! A table whose keys have times, as the contents of windows do: what belongs to a time is read as a whole and goes as a
//! whole, as files, without a look at each entry.

use tidemill_core::{Data, Result};

use super::key::{AtTime, DiskKey, put_time, shards_of_time};
use super::store::LAPSE_BYTES;
use super::{DiskTable, SHARDS};
use crate::key::{GroupRange, Key};

/// Parts in which a table is read at most.
const PARTS_MAX: u64 = 1024;

impl<K: Key, V: Data> DiskTable<AtTime<K>, V> {
    /// The times that have entries, in order. From what comes before `live_from_ms` nothing is needed any more, and
    /// nothing will be put there: it is not saved from now on, and its files go.
    pub fn keep_times(&mut self, times: Vec<i64>, live_from_ms: i64) {
        self.times = times;
        if live_from_ms <= self.live_from_ms {
            return;
        }
        self.live_from_ms = live_from_ms;
        let live = self.stored_times.split_off(&live_from_ms);
        if !std::mem::replace(&mut self.stored_times, live).is_empty() {
            let mut bound = Vec::new();
            put_time(live_from_ms, &mut bound);
            self.store.forget_before(bound);
        }
    }

    /// Key groups to be read one behind the other by a caller that gathers what it reads: of a table of any size so much
    /// at a time as takes a quarter of its share of the memory, about.
    pub fn parts(&self) -> Vec<GroupRange> {
        let room = (self.store.home().cache_share() / 4).max(1) as u64;
        let (first, groups) = (self.own.0, self.own.1 - self.own.0 + 1);
        let count = (self.store.file_bytes() / room + 1).min(PARTS_MAX).min(groups);
        let begin = |part: u64| first + part * groups / count;
        (0..count).map(|part| (begin(part), begin(part + 1) - 1)).collect()
    }

    /// All key groups.
    pub fn own(&self) -> GroupRange {
        self.own
    }

    /// Calls `each` with the entries of a time, in no particular order.
    pub fn for_each_at(
        &mut self,
        time_ms: i64,
        groups: GroupRange,
        mut each: impl FnMut(K, V) -> Result<()>,
    ) -> Result<()> {
        self.for_each_stored(time_ms, groups, &mut each)?;
        let all = groups == self.own;
        for entry in shards_of_time(time_ms).flat_map(|at| self.shards[at].iter()) {
            let AtTime(key, entry_ms) = &entry.key;
            if *entry_ms == time_ms
                && (all || (groups.0..=groups.1).contains(&entry.key.group()))
                && let Some(value) = &entry.value
            {
                each(key.clone(), value.clone())?;
            }
        }
        Ok(())
    }

    /// The same with all entries of a time, for the last time: they leave the cache.
    pub fn take_at(&mut self, time_ms: i64, mut each: impl FnMut(K, V) -> Result<()>) -> Result<()> {
        self.for_each_stored(time_ms, self.own, &mut each)?;
        for at in shards_of_time(time_ms) {
            debug_assert!(at < SHARDS);
            for bucket in self.shards[at].iter_buckets().collect::<Vec<usize>>() {
                if self.shards[at].get_bucket(bucket).is_none_or(|entry| entry.key.1 != time_ms) {
                    continue;
                }
                self.capture(at, bucket)?;
                let entry = self.entry(at, bucket)?;
                if let Some(value) = entry.value.take() {
                    each(entry.key.0.clone(), value)?;
                }
                self.forget(at, bucket);
            }
        }
        Ok(())
    }

    /// The entries of a time that are not in the cache.
    fn for_each_stored(
        &mut self,
        time_ms: i64,
        groups: GroupRange,
        each: &mut impl FnMut(K, V) -> Result<()>,
    ) -> Result<()> {
        if !self.stored_times.contains(&time_ms) {
            return Ok(());
        }
        for stored in self.store.entries_at(time_ms, groups) {
            let (key, value) = stored?;
            let key: AtTime<K> = self.read_key(&key)?;
            if !self.is_cached(&key) {
                each(key.0, self.decode(value.get(LAPSE_BYTES..).unwrap_or_default())?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../tests/times.rs"]
mod tests;
