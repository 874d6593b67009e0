//! Alignment of sources by event time: who is too far ahead of the slowest of its group reads no more until that has come
//! closer. What the others have said stands on the job's board (`runtime::board`), also what those of other processes have;
//! how far this subtask may go is looked up there from time to time and only grows in between.

use tidemill_core::WATERMARK_MAX;

use crate::runtime::board::Board;
use crate::stream::watermark::Alignment;

/// One source subtask's part in its alignment group.
pub(crate) struct Aligner {
    max_drift_ms: i64,
    interval_ms: i64,
    pub unaligned_splits: bool,
    next_ms: i64,
    allowed_ms: i64,
    /// Something is held back.
    pub holds: bool,
}

impl Aligner {
    pub fn new(alignment: &Alignment) -> Self {
        Aligner {
            max_drift_ms: alignment.max_drift_ms,
            interval_ms: alignment.interval_ms,
            unaligned_splits: alignment.unaligned_splits,
            next_ms: i64::MIN,
            allowed_ms: WATERMARK_MAX,
            holds: false,
        }
    }

    /// How far splits may go now.
    pub fn allowed_ms(&mut self, now_ms: i64, board: &Board, slot: usize) -> i64 {
        if now_ms >= self.next_ms {
            self.next_ms = now_ms.saturating_add(self.interval_ms);
            self.allowed_ms =
                board.aligned(slot).map_or(WATERMARK_MAX, |lowest_ms| lowest_ms.saturating_add(self.max_drift_ms));
        }
        self.allowed_ms
    }

    /// When to look again although nothing happens here.
    pub fn wakes_at_ms(&self) -> Option<i64> {
        self.holds.then_some(self.next_ms)
    }
}
