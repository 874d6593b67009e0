//! A task without inputs: polls a source's reader, gives records their event times, makes watermarks for each split, and
//! begins a new epoch when the coordinator says so.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::source::{Assignment, Poll, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, NO_TIMESTAMP, Result, WATERMARK_MAX};

use super::alignment::Aligner;
use super::codec::codec;
use super::port::{AnyHead, Head};
use super::rows::{BATCH_ROWS, RowBytes};
use super::source_pool::{SplitPool, Taken};
use super::task::{TURN_ROWS, TaskCore};
use crate::operator::{OperatorSnapshot, Signal, SnapshotParts};
use crate::runtime::board::StageEnd;
use crate::state::{Restored, Section, SectionKind};
use crate::stream::watermark::{Ahead, SplitWatermarks, WatermarkStrategy};

/// Polls in one activation, so that the other operators of the worker get their turn.
pub(super) const POLLS_MAX: usize = 4;

/// How many records the first poll may emit, when nothing is known of their size.
const FIRST_POLL_ROWS: usize = 64;

/// The names of a source's state: its splits, and for one with stages the stage they are of, from the second on.
const SPLITS: &str = "splits";
const STAGE: &str = "stage";

/// How soon to look again for splits that other subtasks of the process are still bringing, in ms.
const BRING_MS: i64 = 5;

/// The stage a source is in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stage {
    number: u32,
    /// The splits of the stage before at their ends, of all subtasks.
    before: Vec<Split>,
}

/// Where a subtask begins.
pub(crate) struct Beginning {
    pub stage: Stage,
    /// Splits of its own, by number.
    pub splits: Vec<Split>,
}

/// A source on one worker.
pub(crate) struct SourceTask<T> {
    pub core: TaskCore,
    pub uid: String,
    pub source: Arc<dyn Source<T>>,
    pub reader: Box<dyn SourceReader<T>>,
    pub output: SourceOutput<T>,
    pub row_bytes: RowBytes,
    pub head: Head<T>,
    /// Reads the records that were refused; without it a refused record fails the job.
    pub dead_letters: Option<Head<DeadLetter>>,
    pub watermarks: SplitWatermarks<T>,
    /// When it is in an alignment group.
    pub aligner: Option<Aligner>,
    /// This source's slot on the job's board of watermarks.
    pub slot: usize,
    /// Ids of the splits taken over so far.
    pub known: std::collections::BTreeSet<String>,
    pub next_discovery_ms: Option<i64>,
    pub finished: bool,
    /// When it looked for records last, by the steady clock, if there may have been more than it took.
    pub left_ms: Option<i64>,
    pub committed: u64,
    pub stage: Stage,
    /// The slots of all subtasks of this source.
    pub slots: Range<usize>,
    /// It has told that its stage is over, and waits for the others.
    pub stage_over: bool,
    /// Splits to be taken one by one, and by how many subtasks of this process.
    pub pool: Option<(Arc<SplitPool>, usize)>,
}

/// The stage and the splits a subtask begins with: those found now, at the positions restored, and those restored but not
/// found any more.
pub(crate) fn beginning<T: 'static>(source: &dyn Source<T>, mut state: Restored) -> Result<Beginning> {
    let unreadable =
        |uid: &str, name: &str, e| Error::corrupt(format!("state `{name}` of `{uid}` cannot be read: {e}"));
    let mut stage = Stage::default();
    // Who had written no stage was in the first.
    let mut stage_of = BTreeMap::new();
    for section in state.take(STAGE) {
        let saved: Stage = serde_json::from_slice(&section.bytes()?).map_err(|e| unreadable(&state.uid, STAGE, e))?;
        stage_of.insert(section.subtask, saved.number);
        if saved.number > stage.number {
            stage = saved;
        }
    }
    if stage.number >= source.stages() {
        return Err(Error::input(format!("{} has fewer stages than when its state was saved", source.name()))
            .hint("give the changed source another uid"));
    }
    let mut splits: Vec<Split> = Vec::new();
    for section in state.take(SPLITS) {
        let saved: Vec<Split> =
            serde_json::from_slice(&section.bytes()?).map_err(|e| unreadable(&state.uid, SPLITS, e))?;
        // A subtask that was still in the stage before had nothing left to read of it.
        if stage_of.get(&section.subtask).copied().unwrap_or(0) < stage.number {
            continue;
        }
        for split in saved {
            match splits.iter_mut().find(|known| known.id == split.id) {
                // Saved both by who had it to give away and by who has taken it.
                Some(known) if known.position.is_null() => *known = split,
                Some(_) => {}
                None => splits.push(split),
            }
        }
    }
    state.finish()?;
    for split in source.stage_splits(stage.number, &stage.before).map_err(|e| e.context(source.name()))? {
        if !splits.iter().any(|known| known.id == split.id) {
            splits.push(split);
        }
    }
    splits.retain(|split| split.slot as usize % state.parallelism == state.subtask);
    Ok(Beginning { stage, splits })
}

impl<T: tidemill_core::Data> SourceTask<T> {
    /// Takes over splits, with a watermark for each.
    pub fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.known.extend(splits.iter().map(|split| split.id.clone()));
        self.watermarks.add_splits(splits.len(), self.core.control.clock().steady_ms());
        self.reader.add_splits(splits)
    }

    /// Begins with the splits that are its own by number: reads them, or brings them to the pool when they have not been begun.
    pub fn begin(&mut self, splits: Vec<Split>) -> Result<()> {
        let Some((pool, _)) = &self.pool else { return self.add_splits(splits) };
        let (unread, begun) = splits.into_iter().partition(|split| split.position.is_null());
        pool.bring(self.core.subtask, unread);
        self.add_splits(begun)
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
        let more = !self.finished && self.poll()?;
        self.core.processing_time()?;
        if more { self.core.finish_turn() } else { self.core.finish_round() }
    }

    fn barrier(&mut self) -> Result<()> {
        let mut splits = self.reader.snapshot()?;
        if let Some((pool, _)) = &self.pool {
            splits.extend(pool.untaken(self.core.subtask, self.core.epoch));
        }
        let mut sections = vec![Section::new(SPLITS, SectionKind::Operator, splits.len() as u64, self.json(&splits)?)];
        if self.stage.number > 0 {
            sections.push(Section::new(STAGE, SectionKind::Operator, 1, self.json(&self.stage)?));
        }
        let parts = SnapshotParts { sections, ..SnapshotParts::default() };
        self.core.barrier(vec![OperatorSnapshot { uid: self.uid.clone(), parts }])
    }

    fn json(&self, state: &impl Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(state)
            .map_err(|e| Error::bug(format!("splits of `{}` cannot be written as JSON: {e}", self.uid)))
    }

    /// Reads for one turn; whether there is more to read at once.
    fn poll(&mut self) -> Result<bool> {
        self.discover()?;
        if let Some(left_ms) = self.left_ms.take() {
            let now_ms = self.core.control.clock().steady_ms();
            self.watermarks.unread(now_ms.saturating_sub(left_ms), now_ms);
        }
        let (mut again, mut held) = (Poll::More, false);
        let sent = self.core.metrics.records_out.get();
        for _ in 0..POLLS_MAX {
            if !self.core.ready() {
                // Credit or the sink's waker brings us back.
                held = true;
                again = Poll::Pending { wake_at_ms: None };
                break;
            }
            if !self.align()? {
                again = Poll::Pending { wake_at_ms: None };
                self.periodic_watermark()?;
                break;
            }
            again = self.reader.poll(&mut self.output)?;
            self.emit()?;
            if again == Poll::End {
                again = self.go_on()?;
            }
            // Also when nothing came: a split may have become idle.
            self.periodic_watermark()?;
            // Of lines that become ten words each, one poll fills a cache.
            let turn_over = self.core.metrics.records_out.get() - sent >= TURN_ROWS as u64;
            if again != Poll::More || turn_over {
                break;
            }
        }
        let waiting = self.reader.pending_records();
        self.core.metrics.pending(waiting);
        if held || again == Poll::More || waiting.is_some_and(|records| records > 0) {
            self.left_ms = Some(self.core.control.clock().steady_ms());
        }
        if again == Poll::End && self.next_discovery_ms.is_some() {
            again = Poll::Pending { wake_at_ms: None };
        }
        match again {
            Poll::More => {}
            Poll::Pending { wake_at_ms } => {
                let clock = self.core.control.clock();
                let (now_ms, steady_ms) = (clock.now_ms(), clock.steady_ms());
                let aligned_at = self.aligner.as_ref().and_then(Aligner::wakes_at_ms);
                let own = [self.watermarks.next_periodic_ms(), aligned_at, self.next_discovery_ms];
                let own = own.into_iter().flatten().min();
                let own = own.map(|at| now_ms.saturating_add(at.saturating_sub(steady_ms)));
                let at = wake_at_ms.into_iter().chain(own).min();
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
        Ok(again == Poll::More)
    }

    /// All splits are at their end: takes another one, or begins the next stage when all subtasks have come so far.
    fn go_on(&mut self) -> Result<Poll> {
        let now_ms = self.core.control.clock().now_ms();
        if let Some((pool, subtasks)) = &self.pool {
            match pool.take(self.core.subtask, self.core.epoch, *subtasks) {
                Taken::Split(split) => {
                    self.add_splits(vec![split])?;
                    return Ok(Poll::More);
                }
                Taken::Later => return Ok(Poll::Pending { wake_at_ms: Some(now_ms + BRING_MS) }),
                Taken::Nothing => return Ok(Poll::End),
            }
        }
        if !self.has_next_stage() {
            return Ok(Poll::End);
        }
        let number = self.stage.number;
        if !std::mem::replace(&mut self.stage_over, true) {
            let ended = self.reader.snapshot()?;
            let splits = self.json(&ended)?;
            self.core.control.stage_ended(self.slot, StageEnd { stage: number, epoch: self.core.epoch, splits });
        }
        // Whoever comes to the end of the stage last wakes the others, and so does the next checkpoint.
        let Some(ends) = self.core.control.board().stage_over(self.slots.clone(), number, self.core.epoch) else {
            return Ok(Poll::Pending { wake_at_ms: None });
        };
        let mut before: Vec<Split> = Vec::new();
        for end in ends {
            let splits: Vec<Split> = serde_json::from_slice(&end)
                .map_err(|e| Error::bug(format!("the ends of a stage of `{}` cannot be read: {e}", self.uid)))?;
            before.extend(splits);
        }
        before.sort_by(|a, b| a.id.cmp(&b.id));
        let mut splits = self.source.stage_splits(number + 1, &before).map_err(|e| e.context(self.source.name()))?;
        splits.retain(|split| split.slot as usize % self.watermarks.parallelism() == self.core.subtask);
        (self.stage, self.stage_over) = (Stage { number: number + 1, before }, false);
        self.add_splits(splits)?;
        Ok(Poll::More)
    }

    fn has_next_stage(&self) -> bool {
        self.stage.number + 1 < self.source.stages()
    }

    /// Holds back what is too far ahead of others; whether anything may be read.
    fn align(&mut self) -> Result<bool> {
        let Some(aligner) = &mut self.aligner else { return Ok(true) };
        let now_ms = self.core.control.clock().steady_ms();
        let allowed_ms = aligner.allowed_ms(now_ms, self.core.control.board(), self.slot);
        let ahead = self.watermarks.pause_ahead(allowed_ms, aligner.unaligned_splits);
        let held = std::mem::replace(&mut aligner.holds, ahead != Ahead::None);
        if ahead == Ahead::All {
            return Ok(false);
        }
        if (held || ahead == Ahead::Some) && !aligner.unaligned_splits {
            let can_pause = self.reader.pause_splits(&self.watermarks.paused());
            if !can_pause && ahead == Ahead::Some {
                return Err(Error::input(format!(
                    "{} cannot pause single splits, and some are ahead",
                    self.source.name()
                ))
                .hint("give each subtask one split, or accept it with `allow_unaligned_splits()`"));
            }
        }
        Ok(true)
    }

    fn discover(&mut self) -> Result<()> {
        let interval_ms = self.source.discovery_interval_ms().filter(|_| !self.has_next_stage());
        let Some(interval_ms) = interval_ms else { return Ok(()) };
        let now_ms = self.core.control.clock().steady_ms();
        if self.next_discovery_ms.is_some_and(|at| now_ms >= at) {
            let (subtask, parallelism) = (self.core.subtask, self.watermarks.parallelism());
            let mut new = self.source.stage_splits(self.stage.number, &self.stage.before)?;
            new.retain(|split| split.slot as usize % parallelism == subtask && !self.known.contains(&split.id));
            if !new.is_empty() {
                self.add_splits(new)?;
            }
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
                    .hint("to go on after bad records read the source's dead letters: `dead_letters()`, in a job file `dead_letters = \"topic\"`"));
                }
            }
        }
        let finished = self.output.take_finished();
        if self.output.is_empty() {
            finished.into_iter().for_each(|split| self.watermarks.finish(split));
            return Ok(());
        }
        let (mut records, runs) = self.output.take();
        self.core.metrics.records_in.add(codec::<T>().rows(&records) as u64);
        self.row_bytes.note(codec::<T>().row_bytes(&records));
        self.output.set_capacity(self.row_bytes.rows_together(BATCH_ROWS));
        self.hold_for_untaken();
        let immediate = self.watermarks.observe(&mut records, &runs, self.core.control.clock().as_ref());
        if let Some((newest_ms, _)) = records.last() {
            let clock = self.core.control.clock().as_ref();
            self.core.metrics.emitted(*newest_ms, self.reader.fetched_ms(), clock);
        }
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
        finished.into_iter().for_each(|split| self.watermarks.finish(split));
        Ok(())
    }

    /// Splits that nobody has begun may hold the oldest records of all: event time waits for them.
    fn hold_for_untaken(&mut self) {
        self.watermarks.hold(self.pool.as_ref().is_some_and(|(pool, subtasks)| pool.has_untaken(*subtasks)));
    }

    fn periodic_watermark(&mut self) -> Result<()> {
        self.hold_for_untaken();
        let now_ms = self.core.control.clock().steady_ms();
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
    SourceOutput::with_capacity(FIRST_POLL_ROWS)
}

/// What a source node keeps until it is built on a worker.
pub(crate) struct SourceParts<T> {
    pub source: Arc<dyn Source<T>>,
    pub strategy: WatermarkStrategy<T>,
    /// Splits that subtasks take one by one.
    pub pool: Option<Arc<SplitPool>>,
}

impl<T: 'static> SourceParts<T> {
    pub fn new(source: Arc<dyn Source<T>>, strategy: WatermarkStrategy<T>) -> Self {
        let alone = source.stages() <= 1 && source.discovery_interval_ms().is_none();
        let pool = (alone && source.assignment() == Assignment::OnDemand).then(Arc::default);
        SourceParts { source, strategy, pool }
    }
}
