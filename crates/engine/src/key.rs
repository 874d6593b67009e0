//! Which worker a key belongs to. Keys fall into key groups, key groups onto subtasks; state is re-assigned by key
//! group when a job is restored with another parallelism. The hash is part of the state format: it must never change.

use std::hash::{Hash, Hasher};

/// Key groups of every job, and so the largest parallelism there is. A key's group is the first bits of its hash: a group of
/// a smaller power of two is a range of these, which is how older state is read. They cost nothing, since state is
/// divided by ranges of groups and not by single ones (docs/adr/0018-key-groups.md).
pub const KEY_GROUPS: u64 = 1 << 15;

/// A key of a keyed stream: hashed to find its worker, compared to find its state.
pub trait Key: tidemill_core::Data + Hash + Eq {}
impl<K: tidemill_core::Data + Hash + Eq> Key for K {}

/// Multiply-and-fold over 64-bit words, as in wyhash and rapidhash: good spread at a few instructions a word.
/// It differs from the hash of the state tables on purpose, else one worker's tables would hold clustered keys.
#[derive(Clone)]
pub(crate) struct KeyHasher(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl KeyHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(u128::from(MULTIPLIER));
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ MULTIPLIER.rotate_left(17);
    }
}

/// Fewer than eight bytes as a word, zeros behind them. By whole reads that may overlap: most keys that are texts are short,
/// and copying so few bytes costs more than the rest of their hash.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4));
        return u64::from(u32::from_le_bytes(*first)) | last;
    }
    // Of three bytes or fewer the first, the middle and the last are all there are, some of them twice.
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return 0 };
    let at = |place: usize, byte: u8| u64::from(byte) << (8 * place);
    at(0, *first) | at(bytes.len() / 2, bytes[bytes.len() / 2]) | at(bytes.len() - 1, *last)
}

impl Hasher for KeyHasher {
    #[inline]
    fn finish(&self) -> u64 {
        let mut last = KeyHasher(self.0);
        last.mix(0x2545_f491_4f6c_dd1d);
        last.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        self.mix(short_word(rest) ^ ((bytes.len() as u64) << 56));
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

/// The key group of a key, in `0..KEY_GROUPS`.
#[inline]
pub fn key_group<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = new_hasher();
    key.hash(&mut hasher);
    group_of_hash(hasher.finish())
}

/// A hasher that has seen nothing yet.
#[inline]
pub(crate) fn new_hasher() -> KeyHasher {
    KeyHasher(0x1234_5678_9abc_def1)
}

/// The key group of what a hasher has come to.
#[inline]
pub(crate) fn group_of_hash(hash: u64) -> u64 {
    ((hash >> 32) * KEY_GROUPS) >> 32
}

/// Key groups that follow each other: the first and the last.
pub type GroupRange = (u64, u64);

/// The key groups a subtask owns; `None` when there are more subtasks than key groups and it owns none.
pub fn groups_of(subtask: usize, parallelism: usize) -> Option<GroupRange> {
    groups_among(KEY_GROUPS, subtask, parallelism)
}

/// The same for another number of key groups.
fn groups_among(key_groups: u64, subtask: usize, parallelism: usize) -> Option<GroupRange> {
    let first_of = |subtask: usize| (subtask as u64 * key_groups).div_ceil(parallelism as u64);
    let (first, next) = (first_of(subtask), first_of(subtask + 1));
    (first < next).then(|| (first, next - 1))
}

/// The key groups that were one of a smaller number of them, of which `KEY_GROUPS` is a multiple.
pub(crate) struct Coarse {
    key_groups: u64,
}

impl Coarse {
    /// `None` when the groups of so many cannot be told from ours.
    pub fn new(key_groups: u64) -> Option<Self> {
        (key_groups.is_power_of_two() && key_groups <= KEY_GROUPS).then_some(Coarse { key_groups })
    }

    /// A range of them, in ours.
    pub fn range(&self, (first, last): GroupRange) -> GroupRange {
        let each = KEY_GROUPS / self.key_groups;
        (first * each, (last + 1) * each - 1)
    }

    /// What a subtask owned of them, in ours.
    pub fn groups_of(&self, subtask: usize, parallelism: usize) -> Option<GroupRange> {
        groups_among(self.key_groups, subtask, parallelism).map(|groups| self.range(groups))
    }
}

/// The subtask that owns a key group.
#[inline]
pub fn owner(key_group: u64, parallelism: usize) -> usize {
    (key_group as usize * parallelism) / KEY_GROUPS as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_state_format_does_not_change() {
        // Written down on the day the format was made; a change here makes every savepoint unreadable.
        let groups = [
            key_group(&0u64),
            key_group(&1u64),
            key_group("a"),
            key_group(&"北京".to_string()),
            key_group(&(7u32, true)),
        ];
        assert_eq!(groups.map(|group| group * 128 / KEY_GROUPS), [112, 66, 27, 94, 85]);
        assert_eq!(groups, [28826, 17001, 6987, 24188, 21780]);
    }

    #[test]
    fn bytes_are_hashed_as_words_with_zeros_behind_the_last() {
        let naive = |bytes: &[u8]| {
            let mut hasher = new_hasher();
            for chunk in bytes.chunks_exact(8) {
                hasher.mix(u64::from_le_bytes(chunk.try_into().unwrap()));
            }
            let rest = bytes.chunks_exact(8).remainder();
            let mut word = [0u8; 8];
            word[..rest.len()].copy_from_slice(rest);
            hasher.mix(u64::from_le_bytes(word) ^ ((bytes.len() as u64) << 56));
            hasher.finish()
        };
        let bytes: Vec<u8> = (0..40u8).map(|n| n.wrapping_mul(151) ^ 0xa5).collect();
        for length in 0..=bytes.len() {
            let mut hasher = new_hasher();
            hasher.write(&bytes[..length]);
            assert_eq!(hasher.finish(), naive(&bytes[..length]), "{length} bytes");
        }
    }

    #[test]
    fn each_key_group_has_one_owner_and_each_subtask_knows_its_own() {
        for parallelism in [1, 2, 3, 7, 100, 128, 129, 1000, KEY_GROUPS as usize, KEY_GROUPS as usize + 1] {
            let mut next = 0;
            for subtask in 0..parallelism {
                let Some((first, last)) = groups_of(subtask, parallelism) else { continue };
                assert_eq!(first, next, "{subtask} of {parallelism}");
                for group in [first, (first + last) / 2, last] {
                    assert_eq!(owner(group, parallelism), subtask, "group {group} of {parallelism}");
                }
                next = last + 1;
            }
            assert_eq!(next, KEY_GROUPS, "{parallelism}");
        }
    }

    #[test]
    fn coarser_key_groups_hold_the_same_keys() {
        let coarse = Coarse::new(128).unwrap();
        for parallelism in [1, 2, 3, 5, 7, 128] {
            for key in 0..1000u64 {
                // What version 2 of the manifest did, when there were 128.
                let subtask = (key_group(&key) * 128 / KEY_GROUPS) as usize * parallelism / 128;
                let (first, last) = coarse.groups_of(subtask, parallelism).unwrap();
                assert!((first..=last).contains(&key_group(&key)), "{key} of {subtask} of {parallelism}");
            }
        }
        assert_eq!(coarse.range((0, 127)), (0, KEY_GROUPS - 1));
        assert!(Coarse::new(100).is_none() && Coarse::new(0).is_none() && Coarse::new(2 * KEY_GROUPS).is_none());
    }

    #[test]
    fn keys_spread_over_groups_and_workers() {
        for parallelism in [1, 2, 3, 5, 100, 128] {
            let mut counts = vec![0u32; parallelism];
            for key in 0..128_000u64 {
                counts[owner(key_group(&key), parallelism)] += 1;
            }
            let fair = 128_000 / parallelism as u32;
            assert!(counts.iter().all(|&n| n > fair * 3 / 4 && n < fair * 5 / 4), "{parallelism}: {counts:?}");
        }
    }
}
