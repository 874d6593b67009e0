//! A task that has inputs. Proven by the kill tests; every line of [`Task::run`] is there for one of them.
//!
//! 1. Take what has arrived. Batches of the current epoch are processed while the outputs have credit; batches of later
//!    epochs wait (this waiting is the alignment of checkpoints). So many rows, and the worker's other tasks have a turn.
//! 2. Before each batch the watermark is taken from the inputs (see `InputPort::watermark`): batches that wait hold it
//!    back. The chain fires windows and timers at it, and its results leave under the old watermark.
//! 3. When no input can bring anything of the current epoch any more, and all of it is processed, the chain's state is
//!    exactly "all records of epochs up to this one". That moment is marked; large tables are copied in steps while the
//!    next epoch is processed, and go to the checkpoint writer as they come. Epochs go one by one.
//!    Behind the end of event time this waits until nothing that an operator began elsewhere is under way.
//! 4. When nothing can arrive at all, the task closes.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use tidemill_core::{Result, WATERMARK_MAX};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

use super::port::{AnyHead, AnyInput, AnyOutput};
use super::rows::BATCH_ROWS;
use super::source::POLLS_MAX;
use super::timestamp::{Ts, meet};
use crate::operator::{ChainCopy, CopyRun, OperatorSnapshot, Signal, SnapshotMode};
use crate::runtime::control::{BarrierTimes, JobControl, TaskSnapshot};
use crate::runtime::metrics::SubtaskMetrics;

/// Nobody sleeps longer than this, whatever the clock says.
const WAKE_MS_MAX: i64 = 60_000;

/// A step of copying state is at most so many bytes, if time does not end it before.
const COPY_STEP_BYTES: usize = 1024 * 1024;

/// A step takes at most this part of the time since the last one, in hundredths ...
const COPY_PERCENT: i64 = 15;

/// ... but so many microseconds at least, since a task without work has all the time, and at most, for its records' sake.
const COPY_STEP_US: std::ops::RangeInclusive<i64> = 100..=2_000;

/// A busy task waits until so many microseconds are due: each step has its price.
const COPY_TURN_US: i64 = 500;

/// A task that has more to do at once keeps what it has not sent yet for so long, if its turns are shorter: fuller batches, and
/// fewer wakes of the threads that carry them. With nothing more to do it sends everything at once.
const GATHER_MS: i64 = 5;

/// How long a task waits with a copy when the checkpoint writer does not keep up.
const COPY_PAUSE_MS: i64 = 5;

/// What every task has: its place, its chain and its outputs.
pub(crate) struct TaskCore {
    pub task: usize,
    pub subtask: usize,
    pub worker: usize,
    pub epoch: u64,
    pub head: Rc<dyn AnyHead>,
    pub outputs: Vec<Rc<dyn AnyOutput>>,
    pub control: Arc<JobControl>,
    pub metrics: Arc<SubtaskMetrics>,
    pub activator: Activator,
    /// The same from any thread, for a clock that wakes its sleepers itself.
    pub waker: Waker,
    /// When the task is woken already. timely keeps every activation asked for, so asking at each run for one more
    /// would let them pile up.
    pub wakes_at_ms: Option<i64>,
    pub watermark_ms: i64,
    /// Whether nothing is called by the clock.
    pub time_stands_still: bool,
    pub closed: bool,
    /// State of an earlier epoch is being copied.
    pub copying: bool,
    /// When the last step of copying was over, by the steady clock.
    pub copied_us: i64,
    /// When the outputs last sent all they had, by the steady clock.
    pub flushed_ms: i64,
    /// Set by the checkpoint writer when it could not save what it was given.
    pub save_afresh: Arc<AtomicBool>,
    /// Since when some of the inputs, but not all, have brought everything of the current epoch.
    pub aligning_since_ms: Option<i64>,
}

impl TaskCore {
    pub fn absorb_credit(&self) {
        self.outputs.iter().for_each(|output| output.absorb_credit());
    }

    /// Whether the chain takes another batch: its sinks are ready and its outputs have credit.
    pub fn ready(&self) -> bool {
        let ready = self.head.ready();
        self.metrics.blocked(!ready);
        ready
    }

    pub fn advance_watermark(&mut self, watermark_ms: i64) -> Result<()> {
        if watermark_ms > self.watermark_ms {
            self.watermark_ms = watermark_ms;
            self.metrics.watermark(watermark_ms);
            self.head.signal(&mut Signal::Watermark(watermark_ms))?;
        }
        Ok(())
    }

    /// Marks the chain's state at the end of the current epoch and begins the next one.
    pub fn barrier(&mut self, mut operators: Vec<OperatorSnapshot>) -> Result<()> {
        let at_ms = self.control.clock().now_ms();
        let aligning_since_ms = self.aligning_since_ms.take().unwrap_or(at_ms);
        // The copy for the epoch before is long done, unless its checkpoint was given up.
        self.copy(CopyRun::whole())?;
        let mode = match self.control.snapshot_mode(self.epoch) {
            SnapshotMode::Checkpoint { .. } => {
                SnapshotMode::Checkpoint { fresh: self.save_afresh.swap(false, Ordering::AcqRel) }
            }
            other => other,
        };
        let buffers = self.control.buffers(self.worker);
        self.head.signal(&mut Signal::Barrier { epoch: self.epoch, mode, buffers, snapshots: &mut operators })?;
        let milliseconds = |from: i64, to: i64| to.saturating_sub(from).max(0) as u64;
        let times = BarrierTimes {
            at_ms,
            alignment_ms: milliseconds(aligning_since_ms, at_ms),
            sync_ms: milliseconds(at_ms, self.control.clock().now_ms()),
        };
        let save_afresh = self.save_afresh.clone();
        self.hand_in(TaskSnapshot::Begin { epoch: self.epoch, mode, operators, save_afresh, times });
        self.copying = true;
        self.epoch += 1;
        self.copy_step(0)
    }

    /// Notes when the first of the inputs has brought everything of an epoch that is being closed, `ahead` says whether one
    /// has. Only for the report.
    fn note_alignment(&mut self, ahead: impl FnOnce() -> bool) {
        if self.aligning_since_ms.is_none() && self.control.triggered() >= self.epoch && ahead() {
            self.aligning_since_ms = Some(self.control.clock().now_ms());
        }
    }

    /// Goes on with the copy under way, if its share of the time since the last step has come to `least_us`.
    fn copy_step(&mut self, least_us: i64) -> Result<()> {
        if !self.copying {
            return Ok(());
        }
        if !self.control.writer_has_room(self.worker) {
            let now_ms = self.control.clock().now_ms();
            self.wake_at(now_ms + COPY_PAUSE_MS, now_ms);
            return Ok(());
        }
        let clock = self.control.clock().clone();
        let now_us = clock.steady_us();
        let share_us = now_us.saturating_sub(self.copied_us) * COPY_PERCENT / (100 - COPY_PERCENT);
        if share_us < least_us {
            return Ok(());
        }
        let step_us = share_us.clamp(*COPY_STEP_US.start(), *COPY_STEP_US.end());
        self.copy(CopyRun::new(COPY_STEP_BYTES).until(clock, now_us.saturating_add(step_us)))?;
        self.copied_us = self.control.clock().steady_us();
        if self.copying {
            self.activator.activate();
        }
        Ok(())
    }

    fn copy(&mut self, run: CopyRun) -> Result<()> {
        if !self.copying {
            return Ok(());
        }
        let mut copy = ChainCopy { run, pieces: Vec::new(), deferred: Vec::new(), done: true };
        self.head.signal(&mut Signal::Copy(&mut copy))?;
        if !copy.pieces.is_empty() {
            self.hand_in(TaskSnapshot::Pieces(copy.pieces));
        }
        for (uid, deferred) in copy.deferred {
            self.hand_in(TaskSnapshot::Deferred(uid, deferred));
        }
        if copy.done {
            self.copying = false;
            self.hand_in(TaskSnapshot::End);
        }
        Ok(())
    }

    fn hand_in(&self, snapshot: TaskSnapshot) {
        self.control.hand_in(self.worker, (self.task, self.subtask), snapshot);
    }

    /// Hands on what was finished elsewhere since the last run.
    pub fn wake(&self) -> Result<()> {
        self.head.signal(&mut Signal::Wake)
    }

    /// Whether the end of event time has come and an operator still waits for something elsewhere, which wakes the task.
    pub fn unfinished(&self) -> Result<bool> {
        let mut under_way = false;
        if self.watermark_ms == WATERMARK_MAX {
            self.head.signal(&mut Signal::UnderWay(&mut under_way))?;
        }
        Ok(under_way)
    }

    /// Calls what is due by the clock, and comes back in time for what is due next. Behind the end of event time nothing is
    /// called any more.
    pub fn processing_time(&mut self) -> Result<()> {
        let now_ms = self.control.clock().now_ms();
        let calls = self.watermark_ms < WATERMARK_MAX && !self.time_stands_still;
        if calls && self.next_processing_time()?.is_some_and(|at| at <= now_ms) {
            self.head.signal(&mut Signal::ProcessingTime(now_ms))?;
        }
        match self.next_processing_time()? {
            Some(at) if calls || at > now_ms => self.wake_at(at, now_ms),
            _ => {}
        }
        Ok(())
    }

    /// Waits for credit, a sink or something else elsewhere, and for the clock: a deadline may be what ends the waiting.
    pub fn wait(&mut self) -> Result<()> {
        let now_ms = self.control.clock().now_ms();
        if let Some(at) = self.next_processing_time()?.filter(|at| *at > now_ms) {
            self.wake_at(at, now_ms);
        }
        self.finish_round()
    }

    fn next_processing_time(&self) -> Result<Option<i64>> {
        let mut due = None;
        self.head.signal(&mut Signal::NextProcessingTime(&mut due))?;
        Ok(due)
    }

    /// Has the task run again at `at_ms` at the latest.
    pub fn wake_at(&mut self, at_ms: i64, now_ms: i64) {
        let at_ms = at_ms.clamp(now_ms.saturating_add(1), now_ms.saturating_add(WAKE_MS_MAX));
        if self.wakes_at_ms.is_none_or(|due| due <= now_ms || due > at_ms) {
            self.wakes_at_ms = Some(at_ms);
            if self.control.clock().wake_at(at_ms, &self.waker) {
                return;
            }
            self.activator.activate_after(Duration::from_millis((at_ms - now_ms) as u64));
        }
    }

    pub fn finish_round(&mut self) -> Result<()> {
        self.flushed_ms = self.control.clock().steady_ms();
        self.round_over(true, 0)
    }

    /// The end of a round behind which there is more to do at once.
    pub fn finish_turn(&mut self) -> Result<()> {
        self.activator.activate();
        let now_ms = self.control.clock().steady_ms();
        let is_due = now_ms.saturating_sub(self.flushed_ms) >= GATHER_MS;
        if is_due {
            self.flushed_ms = now_ms;
        }
        self.round_over(is_due, COPY_TURN_US)
    }

    fn round_over(&mut self, flushes: bool, copy_least_us: i64) -> Result<()> {
        if flushes {
            self.outputs.iter().for_each(|output| output.flush());
        }
        self.copy_step(copy_least_us)?;
        let mut late = 0;
        self.head.signal(&mut Signal::LateDropped(&mut late))?;
        self.metrics.late_dropped.set(late);
        Ok(())
    }

    pub fn close(&mut self) -> Result<()> {
        self.copy(CopyRun::whole())?;
        self.closed = true;
        self.head.signal(&mut Signal::Close)
    }

    /// Gives up everything after a failure, here or elsewhere.
    pub fn abandon(&mut self) {
        self.closed = true;
        self.outputs.iter().for_each(|output| output.abandon());
    }
}

/// After so many rows of an input, as many as a source reads, the other tasks of the worker have their turn. Else a worker that
/// is behind would be busy with what others send it, its own sources would fall back further, and everything that waits for
/// their event time would pile up. In the simulation so few that turns end all the time.
pub(super) const TURN_ROWS: usize = if cfg!(test) { 2 } else { POLLS_MAX * BATCH_ROWS };

/// A task with inputs, on one worker.
pub(crate) struct Task {
    pub core: TaskCore,
    pub inputs: Vec<Box<dyn AnyInput>>,
}

impl Task {
    /// Does what can be done now. `frontiers` are those of the inputs, in order.
    pub fn run(&mut self, frontiers: &[MutableAntichain<Ts>]) -> Result<()> {
        let core = &mut self.core;
        core.absorb_credit();
        core.wake()?;
        for input in &mut self.inputs {
            input.pull(core.epoch)?;
        }
        let ahead: Vec<Option<i64>> =
            frontiers.iter().map(|frontier| meet(frontier).map(|time| time.watermark())).collect();
        loop {
            let mut turn_over = false;
            for port in 0..self.inputs.len() {
                let mut rows = 0;
                while rows < TURN_ROWS {
                    if !core.ready() {
                        return core.wait();
                    }
                    let inputs = self.inputs.iter_mut().zip(&ahead);
                    if let Some(watermark_ms) = inputs.filter_map(|(input, ahead)| input.watermark(*ahead)).min() {
                        core.advance_watermark(watermark_ms)?;
                    }
                    let Some(processed) = self.inputs[port].process_one()? else { break };
                    rows += processed;
                }
                turn_over |= rows >= TURN_ROWS;
            }
            if turn_over {
                core.processing_time()?;
                return core.finish_turn();
            }
            // Everything of this epoch is processed here, since the loop above came to the end of every input.
            match frontiers.iter().filter_map(meet).map(|time| time.epoch).min() {
                Some(epoch) if epoch <= core.epoch => {
                    let (epoch, inputs) = (core.epoch, &self.inputs);
                    core.note_alignment(|| {
                        inputs.iter().any(|input| input.has_later())
                            || frontiers.iter().any(|frontier| meet(frontier).is_none_or(|time| time.epoch > epoch))
                    });
                    break;
                }
                _ if core.unfinished()? => return core.wait(),
                None if !self.inputs.iter().any(|input| input.has_later()) => {
                    core.finish_round()?;
                    return core.close();
                }
                // Its sources, in another process, have been told to end the epoch, and this one not yet: where its state goes, and
                // what for, comes with the word that wakes it.
                _ if core.control.triggered() < core.epoch => return core.wait(),
                _ => {
                    core.barrier(Vec::new())?;
                    self.inputs.iter_mut().for_each(|input| input.next_epoch(core.epoch));
                }
            }
        }
        core.processing_time()?;
        self.inputs.iter_mut().for_each(|input| input.settle());
        core.finish_round()
    }
}
