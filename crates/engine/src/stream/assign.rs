//! Timestamps and watermarks in the middle of a job: what comes from above is replaced by what the strategy says.

use tidemill_core::{Data, Error, Result, SharedClock, WATERMARK_MAX};

use super::watermark::{SplitWatermarks, WatermarkStrategy};
use crate::driver::Records;
use crate::driver::build::TaskBuilder;
use crate::operator::{Operator, Out};
use crate::runtime::board::Board;

pub(crate) struct AssignOperator<T> {
    watermarks: SplitWatermarks<T>,
    clock: SharedClock,
    /// Its own, with one slot: an assigner follows nobody.
    board: Board,
    next_ms: i64,
}

impl<T: Data> AssignOperator<T> {
    pub fn new(strategy: &WatermarkStrategy<T>, builder: &TaskBuilder<'_, '_>) -> Result<Self> {
        if strategy.has_idleness() {
            return Err(Error::input("idleness can only be told by a source, which knows its splits")
                .hint("give the strategy with the idle time-out to `from_source`"));
        }
        if strategy.alignment().is_some() {
            return Err(Error::input("only a source can wait for others, which it does by reading less")
                .hint("give the strategy with the alignment to `from_source`"));
        }
        let clock = builder.shared.control.clock().clone();
        let mut watermarks = SplitWatermarks::new(strategy, 1, builder.shared.mode.time_stands_still());
        watermarks.add_splits(1, clock.steady_ms());
        let next_ms = clock.steady_ms();
        Ok(AssignOperator { watermarks, clock, board: Board::new(vec![0]), next_ms })
    }

    fn periodic(&mut self, out: &mut Out<T>) -> Result<()> {
        match self.watermarks.periodic(self.clock.steady_ms(), &self.board, 0) {
            Some(watermark_ms) => out.watermark(watermark_ms),
            None => Ok(()),
        }
    }
}

impl<T: Data> Operator<T, T> for AssignOperator<T> {
    fn on_batch(&mut self, mut batch: Records<T>, out: &mut Out<T>) -> Result<()> {
        let runs = [(0, batch.len())];
        let immediate = self.watermarks.observe(&mut batch, &runs, self.clock.as_ref());
        let mut emitted = 0;
        for (end, watermark_ms) in immediate {
            let tail = batch.split_off(end - emitted);
            emitted = end;
            out.emit_batch(std::mem::replace(&mut batch, tail))?;
            out.watermark(watermark_ms)?;
        }
        out.emit_batch(batch)?;
        self.periodic(out)
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<T>) -> Result<()> {
        if watermark_ms == WATERMARK_MAX { out.watermark(WATERMARK_MAX) } else { Ok(()) }
    }

    fn on_processing_time(&mut self, _: i64, out: &mut Out<T>) -> Result<()> {
        self.next_ms = self.clock.steady_ms();
        self.periodic(out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        let at = self.watermarks.next_periodic_ms()?.max(self.next_ms.saturating_add(1));
        Some(self.clock.now_ms().saturating_add(at.saturating_sub(self.clock.steady_ms())))
    }
}
