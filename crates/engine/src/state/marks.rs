//! Which entries of a shard have changed, two bits a bucket of its hash table, for those who walk over them.
//!
//! A bit is a cache miss away from its entry. So each entry also has a stamp beside it, the number of the moment after which
//! it changed last, and only its first change after a moment comes here. Until a shard's first moment all entries are new
//! and no bits are kept: many tables, such as those of short windows, never see a snapshot.

use hashbrown::hash_table::HashTable;

/// The marks of a shard. By default those of a table that no snapshot has seen.
#[derive(Default)]
pub(crate) struct Marks {
    /// Changed since the last snapshot's moment.
    now: Vec<u64>,
    /// Changed before that, and in no checkpoint yet.
    before: Vec<u64>,
    /// There was a moment: before it all entries count as changed now, and both lists are empty.
    kept: bool,
    /// The stamp of entries that have changed since the last moment.
    stamp: u32,
    moves: u32,
}

#[inline]
fn bit(bucket: usize) -> (usize, u64) {
    (bucket >> 6, 1 << (bucket & 63))
}

/// The first bit from `from` on that is set.
#[inline]
fn first_set(words: impl Iterator<Item = u64>, from: usize) -> Option<usize> {
    let (first, bit) = bit(from);
    let mut mask = !(bit - 1);
    for (at, word) in words.enumerate().skip(first) {
        let left = word & std::mem::replace(&mut mask, u64::MAX);
        if left != 0 {
            return Some(at * 64 + left.trailing_zeros() as usize);
        }
    }
    None
}

impl Marks {
    /// Bits for the buckets of a table, none of them set.
    fn clear<T>(entries: &HashTable<T>) -> Self {
        let words = entries.num_buckets().div_ceil(64);
        Marks { now: vec![0; words], before: vec![0; words], kept: true, ..Marks::default() }
    }

    /// The stamp of entries that have changed since the last moment.
    #[inline]
    pub fn stamp(&self) -> u32 {
        self.stamp
    }

    /// Whether an entry had changed before the last moment and is in no checkpoint yet.
    pub fn is_before(&self, bucket: usize) -> bool {
        let (word, bit) = bit(bucket);
        self.before[word] & bit != 0
    }

    /// The entry in the bucket changes for the first time since the last moment.
    pub fn change(&mut self, bucket: usize) {
        let (word, bit) = bit(bucket);
        self.now[word] |= bit;
    }

    /// A new entry, or none any more (`held` is false), stands in the bucket.
    #[inline]
    pub fn replace(&mut self, bucket: usize, held: bool) {
        if !self.kept {
            return;
        }
        let (word, bit) = bit(bucket);
        self.before[word] &= !bit;
        self.now[word] = if held { self.now[word] | bit } else { self.now[word] & !bit };
    }

    /// No marks for the buckets of a table that the entries of another are about to move to.
    pub fn behind<T>(entries: &HashTable<T>, others: &Marks) -> Self {
        let marks = if others.kept { Marks::clear(entries) } else { Marks::default() };
        Marks { stamp: others.stamp, moves: others.moves + 1, ..marks }
    }

    /// Takes over the marks of an entry that stood in `from` of other marks.
    pub fn moved(&mut self, bucket: usize, from: usize, others: &Marks) {
        if !self.kept {
            return;
        }
        let ((word, to), (other_word, other)) = (bit(bucket), bit(from));
        self.now[word] |= if others.now[other_word] & other != 0 { to } else { 0 };
        self.before[word] |= if others.before[other_word] & other != 0 { to } else { 0 };
    }

    /// A snapshot's moment: what has changed until now has changed before it. Tells how many entries these are.
    pub fn moment<T>(&mut self, entries: &HashTable<T>) -> usize {
        // An entry left alone for four billion moments would seem to have changed: with one each second after 136 years.
        self.stamp = self.stamp.wrapping_add(1);
        if !self.kept {
            *self = Marks { stamp: self.stamp, moves: self.moves, ..Marks::clear(entries) };
            for bucket in entries.iter_buckets() {
                let (word, bit) = bit(bucket);
                self.before[word] |= bit;
            }
            return entries.len();
        }
        let mut changed = 0;
        for (before, now) in self.before.iter_mut().zip(&mut self.now) {
            *before |= std::mem::take(now);
            changed += before.count_ones() as usize;
        }
        changed
    }

    /// A checkpoint holds what had changed before its moment.
    pub fn settle(&mut self) {
        self.before.fill(0);
    }

    /// The first bucket from `from` on that has changed before the last moment and not since.
    pub fn next_only_before(&self, from: usize) -> Option<usize> {
        first_set(self.before.iter().zip(&self.now).map(|(before, now)| before & !now), from)
    }

    /// Counts how often the entries have moved to other buckets.
    pub fn moves(&self) -> u32 {
        self.moves
    }
}
