//! A task without inputs: polls a source's reader, gives records their event times, makes watermarks for each split, and
//! begins a new epoch when the coordinator says so.

use std::sync::Arc;

use tidemill_core::source::{Poll, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, NO_TIMESTAMP, Result, WATERMARK_MAX};

use super::port::{AnyHead, Head};
use super::rows::BATCH_ROWS;
use super::task::TaskCore;
use crate::operator::{OperatorSnapshot, Signal, SnapshotParts};
use crate::state::{Restored, Section, SectionKind};
use crate::stream::watermark::{SplitWatermarks, WatermarkStrategy};

/// Polls in one activation, so that the other operators of the worker get their turn.
const POLLS_MAX: usize = 4;

/// The name of a source's state.
const SPLITS: &str = "splits";

/// A source on one worker.
pub(crate) struct SourceTask<T> {
    pub core: TaskCore,
    pub uid: String,
    pub source: Arc<dyn Source<T>>,
    pub reader: Box<dyn SourceReader<T>>,
    pub output: SourceOutput<T>,
    pub head: Head<T>,
    /// Reads the records that were refused; without it a refused record fails the job.
    pub dead_letters: Option<Head<DeadLetter>>,
    pub watermarks: SplitWatermarks<T>,
    /// This source's slot on the job's board of watermarks.
    pub slot: usize,
    /// Ids of the splits taken over so far.
    pub known: std::collections::BTreeSet<String>,
    pub next_discovery_ms: Option<i64>,
    pub finished: bool,
    pub committed: u64,
}

/// The splits a subtask begins with: those found now, at the positions restored, and those restored but not found any more.
pub(crate) fn starting_splits<T: 'static>(source: &dyn Source<T>, mut state: Restored) -> Result<Vec<Split>> {
    let mut restored: Vec<Split> = Vec::new();
    for section in state.take(SPLITS) {
        let splits: Vec<Split> = serde_json::from_slice(&section.bytes)
            .map_err(|e| Error::corrupt(format!("state `{SPLITS}` of `{}` is not a list of splits: {e}", state.uid)))?;
        restored.extend(splits);
    }
    state.finish()?;
    for split in source.splits().map_err(|e| e.context(source.name()))? {
        if !restored.iter().any(|known| known.id == split.id) {
            restored.push(split);
        }
    }
    restored.retain(|split| split.slot as usize % state.parallelism == state.subtask);
    Ok(restored)
}

impl<T: tidemill_core::Data> SourceTask<T> {
    /// Takes over splits, with a watermark for each.
    pub fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        if splits.is_empty() {
            return Ok(());
        }
        self.known.extend(splits.iter().map(|split| split.id.clone()));
        self.watermarks.add_splits(splits.len(), self.core.control.clock().now_ms());
        self.reader.add_splits(splits)
    }

    /// Does what can be done now.
    pub fn run(&mut self) -> Result<()> {
        self.core.absorb_credit();
        self.core.wake()?;
        // Read first: whatever is triggered then, the epoch committed before it is told before its snapshot is taken.
        let triggered = self.core.control.triggered();
        let committed = self.core.control.committed();
        if committed > self.committed {
            self.committed = committed;
            self.reader.checkpoint_complete(committed)?;
        }
        while triggered >= self.core.epoch {
            if self.core.control.drains_at(self.core.epoch) {
                self.core.advance_watermark(WATERMARK_MAX)?;
            }
            if self.core.unfinished()? {
                return self.core.wait();
            }
            self.barrier()?;
        }
        let last = self.core.control.final_epoch();
        if self.core.epoch > last {
            // Nothing more is read. The task stays until the last epoch is committed, so that everything below does.
            if committed >= last {
                self.core.finish_round()?;
                return self.core.close();
            }
            return self.core.finish_round();
        }
        if !self.finished {
            self.poll()?;
        }
        self.core.processing_time()?;
        self.core.finish_round()
    }

    fn barrier(&mut self) -> Result<()> {
        let splits = self.reader.snapshot()?;
        let bytes = serde_json::to_vec(&splits)
            .map_err(|e| Error::bug(format!("splits of `{}` cannot be written as JSON: {e}", self.uid)))?;
        let section = Section::new(SPLITS, SectionKind::Operator, splits.len() as u64, bytes);
        let parts = SnapshotParts { sections: vec![section], ..SnapshotParts::default() };
        self.core.barrier(vec![OperatorSnapshot { uid: self.uid.clone(), parts }])
    }

    fn poll(&mut self) -> Result<()> {
        self.discover()?;
        let mut again = Poll::More;
        for _ in 0..POLLS_MAX {
            if !self.core.ready() {
                // Credit or the sink's waker brings us back.
                again = Poll::Pending { wake_at_ms: None };
                break;
            }
            again = self.reader.poll(&mut self.output)?;
            self.emit()?;
            // Also when nothing came: a split may have become idle.
            self.periodic_watermark()?;
            if again != Poll::More {
                break;
            }
        }
        self.core.metrics.pending(self.reader.pending_records());
        if again == Poll::End && self.next_discovery_ms.is_some() {
            again = Poll::Pending { wake_at_ms: None };
        }
        match again {
            Poll::More => self.core.activator.activate(),
            Poll::Pending { wake_at_ms } => {
                let now_ms = self.core.control.clock().now_ms();
                let watermark_at = self.watermarks.next_periodic_ms();
                let at = [wake_at_ms, watermark_at, self.next_discovery_ms].into_iter().flatten().min();
                if let Some(at) = at {
                    self.core.wake_at(at, now_ms);
                }
            }
            Poll::End => {
                self.finished = true;
                self.core.advance_watermark(WATERMARK_MAX)?;
                self.core.control.source_finished(self.slot);
            }
        }
        Ok(())
    }

    fn discover(&mut self) -> Result<()> {
        let Some(interval_ms) = self.source.discovery_interval_ms() else { return Ok(()) };
        let now_ms = self.core.control.clock().now_ms();
        if self.next_discovery_ms.is_some_and(|at| now_ms >= at) {
            let (subtask, parallelism) = (self.core.subtask, self.watermarks.parallelism());
            let mut new = self.source.splits()?;
            new.retain(|split| split.slot as usize % parallelism == subtask && !self.known.contains(&split.id));
            self.add_splits(new)?;
        }
        if self.next_discovery_ms.is_none_or(|at| now_ms >= at) {
            self.next_discovery_ms = Some(now_ms + interval_ms as i64);
        }
        Ok(())
    }

    /// Hands on what one poll brought: records with their event times, and what was refused.
    fn emit(&mut self) -> Result<()> {
        for letter in self.output.take_rejected() {
            self.core.metrics.dead_letters.add(1);
            match &mut self.dead_letters {
                Some(link) => link.borrow_mut().push(vec![(NO_TIMESTAMP, letter)])?,
                None => {
                    return Err(Error::input(format!(
                        "{} holds a record that cannot be read at {}: {}",
                        letter.source, letter.position, letter.reason
                    ))
                    .hint("read the source's dead letters with `dead_letters()` to go on after bad records"));
                }
            }
        }
        if self.output.is_empty() {
            return Ok(());
        }
        let (mut records, runs) = self.output.take();
        self.core.metrics.records_in.add(records.len() as u64);
        let immediate = self.watermarks.observe(&mut records, &runs, self.core.control.clock().as_ref());
        if immediate.is_empty() {
            self.head.borrow_mut().push(records)?;
        } else {
            // A generator asked for a watermark in the middle of the batch.
            let mut pushed = 0;
            for (end, watermark_ms) in immediate {
                let tail = records.split_off(end - pushed);
                pushed = end;
                self.head.borrow_mut().push(std::mem::replace(&mut records, tail))?;
                self.core.advance_watermark(watermark_ms)?;
            }
            if !records.is_empty() {
                self.head.borrow_mut().push(records)?;
            }
        }
        Ok(())
    }

    fn periodic_watermark(&mut self) -> Result<()> {
        let now_ms = self.core.control.clock().now_ms();
        let board = self.core.control.board();
        if let Some(watermark_ms) = self.watermarks.periodic(now_ms, board, self.slot) {
            self.core.advance_watermark(watermark_ms)?;
        }
        Ok(())
    }
}

/// The chains below a source: of its records, and of those it refused.
pub(crate) struct SourceHead<T> {
    pub records: Head<T>,
    pub dead_letters: Option<Head<DeadLetter>>,
}

impl<T> AnyHead for SourceHead<T> {
    fn signal(&self, signal: &mut Signal<'_>) -> Result<()> {
        self.records.borrow_mut().signal(signal)?;
        self.dead_letters.as_ref().map_or(Ok(()), |chain| chain.borrow_mut().signal(signal))
    }

    fn ready(&self) -> bool {
        self.records.borrow_mut().ready() && self.dead_letters.as_ref().is_none_or(|chain| chain.borrow_mut().ready())
    }
}

/// A fresh output buffer for polls.
pub(crate) fn poll_output<T>() -> SourceOutput<T> {
    SourceOutput::with_capacity(BATCH_ROWS)
}

/// What a source node keeps until it is built on a worker.
pub(crate) struct SourceParts<T> {
    pub source: Arc<dyn Source<T>>,
    pub strategy: WatermarkStrategy<T>,
}
