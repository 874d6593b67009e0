//! Where sources see each other's watermarks. A source subtask without an active split must not hold event time back, and
//! must not run ahead either, since it could not come back: it follows the slowest active one among the sources whose
//! records can meet its own (those connected with it in the job's graph), and when all are silent the furthest of them.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Slots of one alignment group wait for each other.
    alignment: Option<usize>,
    /// The stages that were read to their ends, for sources with stages. The last two: who is a stage behind still asks for the
    /// one before, and nobody is further behind.
    ended: Mutex<Vec<StageEnd>>,
}

/// A subtask has read a stage of its source to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageEnd {
    pub stage: u32,
    /// The epoch in which that was.
    pub epoch: u64,
    /// Its splits at their ends, as JSON.
    pub splits: Vec<u8>,
}

/// One slot a source subtask.
pub struct Board {
    slots: Vec<Slot>,
}

impl Board {
    /// A board; `groups[slot]` is the slot's group.
    pub fn new(groups: Vec<usize>) -> Self {
        let slot = |group| Slot {
            watermark_ms: AtomicI64::new(WATERMARK_MIN),
            state: AtomicU8::new(ACTIVE),
            group,
            alignment: None,
            ended: Mutex::default(),
        };
        Board { slots: groups.into_iter().map(slot).collect() }
    }

    /// The same board where sources wait for each other; `alignments[slot]` is the slot's alignment group, if it is in one.
    pub fn with_alignments(mut self, alignments: Vec<Option<usize>>) -> Self {
        self.slots.iter_mut().zip(alignments).for_each(|(slot, alignment)| slot.alignment = alignment);
        self
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

    /// A subtask has read a stage to its end.
    pub(crate) fn stage_ended(&self, slot: usize, end: StageEnd) {
        let mut ended = self.ended(slot);
        ended.retain(|known| known.stage + 1 == end.stage);
        ended.push(end);
    }

    /// The stages from `first` on that a subtask has read to their ends.
    pub(crate) fn stage_ends(&self, slot: usize, first: u32) -> Vec<StageEnd> {
        self.ended(slot).iter().filter(|end| end.stage >= first).cloned().collect()
    }

    fn ended(&self, slot: usize) -> MutexGuard<'_, Vec<StageEnd>> {
        self.slots[slot].ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The splits that all subtasks of a source have read in `stage`, when all have come to its end in epochs up to `epoch`:
    /// whoever begins the next stage in that epoch has a checkpoint in which the former one is over everywhere.
    pub(crate) fn stage_over(&self, slots: Range<usize>, stage: u32, epoch: u64) -> Option<Vec<Vec<u8>>> {
        let of = |slot| {
            let ended = self.ended(slot);
            let end = ended.iter().find(|end| end.stage == stage && end.epoch <= epoch);
            end.map(|end| end.splits.clone())
        };
        slots.map(of).collect()
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

    /// The lowest watermark in the slot's alignment group. Idle and finished subtasks do not count, nor do those that have no
    /// watermark yet, as in Flink; `None` when nobody does.
    pub fn aligned(&self, slot: usize) -> Option<i64> {
        let group = self.slots[slot].alignment?;
        let active = self
            .slots
            .iter()
            .filter(|other| other.alignment == Some(group) && other.state.load(Ordering::Acquire) == ACTIVE);
        active.map(|other| other.watermark_ms.load(Ordering::Acquire)).filter(|at| *at != WATERMARK_MIN).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_over_also_for_who_hears_of_it_when_others_have_ended_the_next() {
        let board = Board::new(vec![0, 0]);
        let end = |stage, epoch| StageEnd { stage, epoch, splits: vec![stage as u8] };
        board.stage_ended(0, end(0, 3));
        assert_eq!(board.stage_over(0..2, 0, 9), None);
        board.stage_ended(1, end(0, 4));
        board.stage_ended(0, end(1, 4));
        assert_eq!(board.stage_over(0..2, 0, 3), None, "the other one came to the end in epoch 4");
        assert_eq!(board.stage_over(0..2, 0, 4), Some(vec![vec![0], vec![0]]));
        assert_eq!(board.stage_over(0..2, 1, 9), None);
        assert_eq!(board.stage_ends(0, 1), [end(1, 4)]);
    }

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
