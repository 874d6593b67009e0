//! Which groups of a shard have changed since a snapshot. Each group has a mark, the number of the moment behind which it
//! changed last; here stands what the marks mean.

/// The changes of a shard; by default of one that no snapshot has seen.
pub(super) struct Changes {
    /// The mark of what has changed since the last moment. Never 0: a checkpoint a second makes it wrap after 136 years.
    moment: u32,
    /// What has an older mark is in a checkpoint.
    settled: u32,
    /// How many groups have changed since the moment, and how many others are in no checkpoint yet.
    now: usize,
    before: usize,
}

impl Default for Changes {
    fn default() -> Self {
        Changes { moment: 1, settled: 1, now: 0, before: 0 }
    }
}

impl Changes {
    /// Whether it has changed since the moment, or is new.
    #[inline]
    pub fn is_now(&self, mark: u32) -> bool {
        mark == self.moment
    }

    /// Whether it changed last before the moment, and is in no checkpoint yet.
    pub fn is_before(&self, mark: u32) -> bool {
        (self.settled..self.moment).contains(&mark)
    }

    /// A group is new; its mark.
    pub fn added(&mut self) -> u32 {
        self.now += 1;
        self.moment
    }

    /// A group changes for the first time since the moment; its mark from now on.
    pub fn changed(&mut self, mark: u32) -> u32 {
        self.before -= usize::from(self.is_before(mark));
        self.added()
    }

    /// A snapshot's moment: what has changed until now has changed before it. Tells how many groups these are.
    pub fn moment(&mut self) -> usize {
        self.moment += 1;
        self.before += std::mem::take(&mut self.now);
        self.before
    }

    /// A checkpoint holds what had changed before its moment.
    pub fn settle(&mut self) {
        (self.settled, self.before) = (self.moment, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_their_moment() {
        let mut changes = Changes::default();
        let [one, two, three] = [(); 3].map(|()| changes.added());
        assert!(changes.is_now(one) && !changes.is_before(one));
        assert_eq!(changes.moment(), 3);
        assert!(!changes.is_now(two) && changes.is_before(two));
        let one = changes.changed(one);
        let four = changes.added();
        assert!(changes.is_now(one) && !changes.is_before(one) && changes.is_now(four));
        // Another moment before the first is in a checkpoint.
        assert_eq!(changes.moment(), 4);
        assert!([one, two, three, four].iter().all(|mark| changes.is_before(*mark)));
        let two = changes.changed(two);
        changes.settle();
        assert!(changes.is_now(two) && [one, three, four].iter().all(|mark| !changes.is_before(*mark)));
        assert_eq!(changes.moment(), 1);
        assert!(changes.is_before(two) && !changes.is_before(one) && !changes.is_before(three));
    }
}
