//! How the keys of tables stand in a store: behind their key group, so that a part of the table can be read on its own, or
//! behind a time and then their key group, so that what belongs to a time (a slice of windows, timers that are due) stands
//! together and goes together. In a checkpoint they are what tables in memory write: the key, and then its time.

use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, Result};

use super::encode;
use crate::key::{Key, key_group};
use crate::state::{TableHasher, Unreadable, decode_only};

/// Bytes of a key group, the higher byte first, so that the groups stand in order.
const GROUP_BYTES: usize = 2;

/// Bytes of a time, in order too.
const TIME_BYTES: usize = 8;

/// Shards of a table's cache. A step of copying takes one at a time, and the cache grows by one at a time.
pub(super) const SHARDS: usize = 256;

/// Shards that hold the entries of one time.
const SHARDS_OF_A_TIME: usize = 16;

/// In which order keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// By key group.
    Groups,
    /// By time, then by key group.
    Times,
}

/// A key of a table on disk.
pub(crate) trait DiskKey: Data + Eq {
    /// Whether keys of this type have a time, and stand in its order.
    const TIMED: bool;

    /// Where it stands in a hash table.
    fn table_hash(&self) -> u64;

    /// Its key group.
    fn group(&self) -> u64;

    /// Its time, for keys that have one.
    fn time_ms(&self) -> Option<i64>;

    /// The shard of the cache it belongs to.
    fn shard(&self, hash: u64) -> usize;

    /// Appends it as it stands in the store of a state.
    fn put(&self, state: &str, stored: &mut Vec<u8>) -> Result<()>;

    /// Reads it back.
    fn read(stored: &[u8]) -> std::result::Result<Self, Unreadable>;
}

impl<K: Key> DiskKey for K {
    const TIMED: bool = false;

    #[inline]
    fn table_hash(&self) -> u64 {
        TableHasher::default().hash_one(self)
    }

    #[inline]
    fn group(&self) -> u64 {
        key_group(self)
    }

    #[inline]
    fn time_ms(&self) -> Option<i64> {
        None
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (SHARDS - 1)
    }

    fn put(&self, state: &str, stored: &mut Vec<u8>) -> Result<()> {
        put_group(key_group(self), stored);
        encode(self, state, stored)
    }

    fn read(stored: &[u8]) -> std::result::Result<Self, Unreadable> {
        decode_only(stored.get(GROUP_BYTES..).unwrap_or_default())
    }
}

/// A key at a time. Written as a pair of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AtTime<K>(pub K, pub i64);

impl<K: Key> DiskKey for AtTime<K> {
    const TIMED: bool = true;

    #[inline]
    fn table_hash(&self) -> u64 {
        TableHasher::default().hash_one((&self.0, self.1))
    }

    #[inline]
    fn group(&self) -> u64 {
        key_group(&self.0)
    }

    #[inline]
    fn time_ms(&self) -> Option<i64> {
        Some(self.1)
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        shards_of_time(self.1).start + ((hash >> 32) as usize & (SHARDS_OF_A_TIME - 1))
    }

    fn put(&self, state: &str, stored: &mut Vec<u8>) -> Result<()> {
        put_time(self.1, stored);
        put_group(key_group(&self.0), stored);
        encode(&self.0, state, stored)
    }

    fn read(stored: &[u8]) -> std::result::Result<Self, Unreadable> {
        let key = decode_only(stored.get(TIME_BYTES + GROUP_BYTES..).unwrap_or_default())?;
        Ok(AtTime(key, time_of(stored)))
    }
}

/// Spreads times that follow each other.
fn mix(time_ms: i64) -> u64 {
    (time_ms as u64 ^ (time_ms as u64 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The shards in which the entries of a time are, beside those of others.
#[inline]
pub(super) fn shards_of_time(time_ms: i64) -> std::ops::Range<usize> {
    let first = (mix(time_ms) >> 32) as usize % (SHARDS / SHARDS_OF_A_TIME) * SHARDS_OF_A_TIME;
    first..first + SHARDS_OF_A_TIME
}

/// The unit, of so many, of the entries of a time.
pub(super) fn unit_of_time(time_ms: i64, units: usize) -> usize {
    (mix(time_ms) >> 48) as usize % units
}

/// Begins a key that stands by its key group.
#[inline]
pub(super) fn put_group(group: u64, stored: &mut Vec<u8>) {
    stored.extend_from_slice(&(group as u16).to_be_bytes());
}

/// Begins a key that stands by its time.
#[inline]
pub(super) fn put_time(time_ms: i64, stored: &mut Vec<u8>) {
    stored.extend_from_slice(&(time_ms as u64 ^ (1 << 63)).to_be_bytes());
}

/// The time of a stored key that has one.
#[inline]
pub(super) fn time_of(stored: &[u8]) -> i64 {
    stored.first_chunk().map_or(0, |time| (u64::from_be_bytes(*time) ^ (1 << 63)) as i64)
}

impl Layout {
    pub const fn of<K: DiskKey>() -> Self {
        if K::TIMED { Layout::Times } else { Layout::Groups }
    }

    /// The key group of a stored key.
    #[inline]
    pub fn group_of(self, stored: &[u8]) -> u64 {
        let at = if self == Layout::Times { TIME_BYTES } else { 0 };
        let group = stored.get(at..).and_then(|rest| rest.first_chunk::<GROUP_BYTES>());
        group.map_or(0, |group| u64::from(u16::from_be_bytes(*group)))
    }

    /// Appends a stored key as a checkpoint has it.
    #[inline]
    pub fn put_saved(self, stored: &[u8], state: &str, saved: &mut Vec<u8>) -> Result<()> {
        match self {
            Layout::Groups => {
                saved.extend_from_slice(stored.get(GROUP_BYTES..).unwrap_or_default());
                Ok(())
            }
            Layout::Times => {
                saved.extend_from_slice(stored.get(TIME_BYTES + GROUP_BYTES..).unwrap_or_default());
                encode(&time_of(stored), state, saved)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_a_time_stand_in_order_of_time_and_are_saved_as_pairs() {
        let times = [i64::MIN, -1_000, -1, 0, 1, 7_000, i64::MAX];
        let mut before = Vec::new();
        for time_ms in times {
            let key = AtTime("key".to_string(), time_ms);
            let mut stored = Vec::new();
            key.put("state", &mut stored).unwrap();
            assert!(stored > before, "{time_ms}");
            assert_eq!(AtTime::read(&stored).unwrap(), key);
            assert_eq!(Layout::Times.group_of(&stored), key_group(&key.0));
            let mut saved = Vec::new();
            Layout::Times.put_saved(&stored, "state", &mut saved).unwrap();
            assert_eq!(saved, postcard::to_stdvec(&("key", time_ms)).unwrap());
            assert!(shards_of_time(time_ms).contains(&key.shard(key.table_hash())));
            before = stored;
        }
    }
}
