//! Where sources see each other's watermarks. A source subtask without an active split must not hold event time back, and
//! must not run ahead either, since it could not come back: it follows the slowest active one among the sources whose
//! records can meet its own (those connected with it in the job's graph), and when all are silent the furthest of them.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use serde::{Deserialize, Serialize};
use tidemill_core::WATERMARK_MIN;

const ACTIVE: u8 = 0;
const IDLE: u8 = 1;
const FINISHED: u8 = 2;

/// What one slot says, as it travels between the processes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    Active(i64),
    Idle(i64),
    Finished,
}

struct Slot {
    watermark_ms: AtomicI64,
    state: AtomicU8,
    /// Slots of one group follow each other.
    group: usize,
}

/// One slot a source subtask.
pub struct Board {
    slots: Vec<Slot>,
}

impl Board {
    /// A board; `groups[slot]` is the slot's group.
    pub fn new(groups: Vec<usize>) -> Self {
        let slot = |group| Slot { watermark_ms: AtomicI64::new(WATERMARK_MIN), state: AtomicU8::new(ACTIVE), group };
        Board { slots: groups.into_iter().map(slot).collect() }
    }

    /// The subtask reads; its watermark is `watermark_ms`.
    pub fn active(&self, slot: usize, watermark_ms: i64) {
        self.slots[slot].watermark_ms.store(watermark_ms, Ordering::Release);
        self.slots[slot].state.store(ACTIVE, Ordering::Release);
    }

    /// The subtask has nothing to read now; the furthest any of its splits has come is `watermark_ms`.
    pub fn idle(&self, slot: usize, watermark_ms: i64) {
        self.slots[slot].watermark_ms.fetch_max(watermark_ms, Ordering::AcqRel);
        self.slots[slot].state.store(IDLE, Ordering::Release);
    }

    /// The subtask will read nothing more. Returns whether all have finished now; true only once.
    pub fn finished(&self, slot: usize) -> bool {
        let before = self.slots[slot].state.swap(FINISHED, Ordering::AcqRel);
        before != FINISHED && self.slots.iter().all(|slot| slot.state.load(Ordering::Acquire) == FINISHED)
    }

    /// What a slot says.
    pub(crate) fn mark(&self, slot: usize) -> Mark {
        let watermark_ms = self.slots[slot].watermark_ms.load(Ordering::Acquire);
        match self.slots[slot].state.load(Ordering::Acquire) {
            ACTIVE => Mark::Active(watermark_ms),
            IDLE => Mark::Idle(watermark_ms),
            _ => Mark::Finished,
        }
    }

    /// What an idle subtask follows: the lowest watermark among the active subtasks of its group; when all are idle, the
    /// highest any of them had, as Flink does; `None` when there is nothing to follow.
    pub fn followed(&self, slot: usize) -> Option<i64> {
        let group = self.slots[slot].group;
        let of_state = |state: u8| {
            let members = self.slots.iter().filter(move |other| other.group == group);
            members
                .filter(move |other| other.state.load(Ordering::Acquire) == state)
                .map(|other| other.watermark_ms.load(Ordering::Acquire))
        };
        of_state(ACTIVE).min().or_else(|| of_state(IDLE).max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_subtask_follows_the_slowest_active_one_of_its_group() {
        let board = Board::new(vec![0, 0, 0, 1]);
        board.active(0, 50);
        board.active(1, 30);
        board.active(3, 10);
        board.idle(2, WATERMARK_MIN);
        assert_eq!(board.followed(2), Some(30));
        board.idle(1, 30);
        assert_eq!(board.followed(2), Some(50));
        board.idle(0, 50);
        assert_eq!(board.followed(2), Some(50), "all are idle: the furthest");
        board.finished(0);
        assert_eq!(board.followed(2), Some(30), "a finished source does not lift the idle ones to the end of time");
    }
}
