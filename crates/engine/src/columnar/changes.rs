//! Which groups of a shard have changed since a snapshot. Groups never move and are never removed one by one: those behind
//! the ones that the last snapshot's moment saw are new, and need no bits; each of the others has two.

/// The changes of a shard; by default of one that no snapshot has seen.
#[derive(Default)]
pub(super) struct Changes {
    /// So many groups there were at the last moment.
    seen: usize,
    /// Which of them have changed since.
    now: Vec<u64>,
    /// Which had changed before, and are in no checkpoint yet.
    before: Vec<u64>,
}

#[inline]
fn is_set(words: &[u64], row: usize) -> bool {
    words[row / 64] >> (row % 64) & 1 != 0
}

/// The first bit from `from` on that is set.
fn first_set(words: impl Iterator<Item = u64>, from: usize) -> Option<usize> {
    let mut mask = u64::MAX << (from % 64);
    for (at, word) in words.enumerate().skip(from / 64) {
        let left = word & std::mem::replace(&mut mask, u64::MAX);
        if left != 0 {
            return Some(at * 64 + left.trailing_zeros() as usize);
        }
    }
    None
}

impl Changes {
    /// Whether it has changed since the moment, or is new.
    #[inline]
    pub fn is_now(&self, row: usize) -> bool {
        row >= self.seen || is_set(&self.now, row)
    }

    /// Whether it had changed before the moment.
    pub fn is_before(&self, row: usize) -> bool {
        row < self.seen && is_set(&self.before, row)
    }

    /// One that is not marked so changes.
    pub fn change(&mut self, row: usize) {
        self.now[row / 64] |= 1 << (row % 64);
    }

    /// A snapshot's moment, when there are so many groups: what has changed until now has changed before it. Tells how many
    /// these are.
    pub fn moment(&mut self, rows: usize) -> usize {
        self.before.iter_mut().zip(&mut self.now).for_each(|(before, now)| *before |= std::mem::take(now));
        self.now.resize(rows.div_ceil(64), 0);
        self.before.resize(rows.div_ceil(64), 0);
        while self.seen < rows {
            let (word, bit) = (self.seen / 64, self.seen % 64);
            let new = (64 - bit).min(rows - self.seen);
            self.before[word] |= (u64::MAX >> (64 - new)) << bit;
            self.seen += new;
        }
        self.before.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// A checkpoint holds what had changed before its moment.
    pub fn settle(&mut self) {
        self.before.fill(0);
    }

    /// The first from `from` on that had changed before the moment and has not since.
    pub fn next_only_before(&self, from: usize) -> Option<usize> {
        first_set(self.before.iter().zip(&self.now).map(|(before, now)| before & !now), from)
    }

    /// The first from `from` on that has not changed since the moment.
    pub fn next_unchanged(&self, from: usize) -> Option<usize> {
        first_set(self.now.iter().map(|now| !now), from).filter(|row| *row < self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_their_moment() {
        let mut changes = Changes::default();
        assert!(changes.is_now(0) && !changes.is_before(0) && changes.next_unchanged(0).is_none());
        assert_eq!(changes.moment(130), 130);
        assert!(!changes.is_now(129) && changes.is_now(130) && changes.is_before(129) && !changes.is_before(130));
        (0..64).for_each(|row| changes.change(row));
        changes.change(65);
        assert_eq!((changes.next_unchanged(0), changes.next_unchanged(65)), (Some(64), Some(66)));
        assert_eq!((changes.next_unchanged(129), changes.next_unchanged(130)), (Some(129), None));
        assert_eq!((changes.next_only_before(0), changes.next_only_before(130)), (Some(64), None));
        changes.settle();
        assert_eq!(changes.next_only_before(0), None);
        assert_eq!(changes.moment(200), 64 + 1 + 70);
        assert_eq!((changes.next_only_before(64), changes.next_only_before(66)), (Some(65), Some(130)));
        assert!(changes.is_before(3) && !changes.is_before(64) && changes.is_before(199) && !changes.is_now(199));
    }
}
