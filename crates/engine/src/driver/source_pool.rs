//! The splits of a source that subtasks take when they have nothing left to read, instead of owning a share from the start:
//! whoever gets a large file does not keep the others waiting behind it.
//!
//! Each subtask brings the splits that are its own by number, and answers for them at checkpoints: it saves those that nobody had
//! taken up to that epoch, while those taken are saved by who took them. A split taken in a later epoch than the
//! one being saved is still saved as untaken, so each unread split stands in a checkpoint exactly once. The pool is that of one
//! process: subtasks take from each other within it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill_core::source::Split;

/// The common splits of one source in one process.
#[derive(Default)]
pub(crate) struct SplitPool(Mutex<Splits>);

#[derive(Default)]
struct Splits {
    entries: Vec<Entry>,
    /// Subtasks that have brought theirs.
    brought: usize,
}

struct Entry {
    split: Split,
    /// Who brought it.
    home: usize,
    /// The epoch in which it was taken.
    taken: Option<u64>,
}

/// What [`SplitPool::take`] found.
pub(crate) enum Taken {
    Split(Split),
    /// Nothing yet: not all subtasks have brought theirs.
    Later,
    /// Nothing any more.
    Nothing,
}

impl SplitPool {
    fn lock(&self) -> MutexGuard<'_, Splits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subtask brings its splits; each does so once.
    pub fn bring(&self, home: usize, splits: Vec<Split>) {
        let mut pool = self.lock();
        pool.entries.extend(splits.into_iter().map(|split| Entry { split, home, taken: None }));
        pool.brought += 1;
    }

    /// A split for a subtask whose current epoch is `epoch`: one of its own, else of the subtask that has the most left.
    /// `subtasks` is how many there are in this process.
    pub fn take(&self, subtask: usize, epoch: u64, subtasks: usize) -> Taken {
        let mut pool = self.lock();
        let left =
            |home: usize| pool.entries.iter().filter(|entry| entry.home == home && entry.taken.is_none()).count();
        let homes = pool.entries.iter().filter(|entry| entry.taken.is_none()).map(|entry| entry.home);
        let Some(home) = homes.max_by_key(|home| (*home == subtask, left(*home))) else {
            return if pool.brought < subtasks { Taken::Later } else { Taken::Nothing };
        };
        match pool.entries.iter_mut().find(|entry| entry.home == home && entry.taken.is_none()) {
            Some(entry) => {
                entry.taken = Some(epoch);
                Taken::Split(entry.split.clone())
            }
            None => Taken::Nothing,
        }
    }

    /// Whether there are splits that nobody has taken, or may be.
    pub fn has_untaken(&self, subtasks: usize) -> bool {
        let pool = self.lock();
        pool.brought < subtasks || pool.entries.iter().any(|entry| entry.taken.is_none())
    }

    /// What `home` saves for `epoch`. Splits that everybody has saved as theirs by then are forgotten.
    pub fn untaken(&self, home: usize, epoch: u64) -> Vec<Split> {
        let mut pool = self.lock();
        pool.entries.retain(|entry| entry.home != home || entry.taken.is_none_or(|taken| taken > epoch));
        pool.entries.iter().filter(|entry| entry.home == home).map(|entry| entry.split.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(slot: u32) -> Split {
        Split { id: slot.to_string(), slot, position: serde_json::Value::Null }
    }

    #[test]
    fn each_untaken_split_is_saved_once_whoever_takes_it_when() {
        let pool = SplitPool::default();
        pool.bring(0, vec![split(0)]);
        let Taken::Split(first) = pool.take(0, 5, 2) else { panic!("none") };
        assert_eq!(first, split(0));
        assert!(matches!(pool.take(0, 5, 2), Taken::Later), "the other subtask has brought nothing yet");
        pool.bring(1, vec![split(1), split(3)]);
        // Subtask 0 has closed epoch 5 and takes one in epoch 6, before subtask 1 closes epoch 5.
        assert!(pool.untaken(0, 5).is_empty());
        let Taken::Split(stolen) = pool.take(0, 6, 2) else { panic!("none") };
        assert_eq!(stolen, split(1));
        let Taken::Split(own) = pool.take(1, 5, 2) else { panic!("none") };
        assert_eq!(own, split(3));
        assert_eq!(pool.untaken(1, 5), [split(1)], "taken in epoch 6, so that of epoch 5 still has it");
        assert!(pool.untaken(1, 6).is_empty());
        assert!(matches!(pool.take(0, 7, 2), Taken::Nothing));
    }
}
