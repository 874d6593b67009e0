//! What an operator is: a plain state machine without any knowledge of workers, frontiers or channels. It runs in a task
//! of the driver, or by hand in a test.
//!
//! The contract the driver keeps:
//! * `on_batch` sees only records of the current epoch, in the order they arrived from each sender.
//! * `on_watermark` is called with growing values; everything emitted in it leaves before the watermark does.
//! * `snapshot` is called between batches, when the state is exactly "all records of epochs up to this one".
//! * Nothing here waits. Work that waits is done by sources, sinks and the checkpoint writer on their own threads.

use std::any::Any;

use tidemill_core::sink::PreCommit;
use tidemill_core::{Error, Result, SharedClock, WATERMARK_MAX};

use crate::driver::{BATCH_ROWS, Records};
use crate::runtime::JobMode;
use crate::state::{Buffers, EntryShapes, Restored, Section};

/// One operator from records of `I` to records of `O`.
pub trait Operator<I: 'static, O: 'static>: 'static {
    /// Takes back what an earlier attempt had saved. Called once, before anything else; empty for a fresh start.
    fn restore(&mut self, state: Restored) -> Result<()> {
        state.nothing_expected()
    }

    /// Processes records in order.
    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()>;

    /// No records earlier than `watermark_ms` will come, except late ones. The default passes it on.
    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        out.watermark(watermark_ms)
    }

    /// The clock has reached `next_processing_time`.
    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        let _ = (now_ms, out);
        Ok(())
    }

    /// When `on_processing_time` wants to be called next.
    fn next_processing_time(&self) -> Option<i64> {
        None
    }

    /// The epoch is over and `snapshot` comes next: the last chance to emit something in it. For operators that hold back
    /// what they would else have to save.
    fn before_barrier(&mut self, out: &mut Out<O>) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// Marks the state as it is at the end of `epoch`: small state is written to `parts` at once, large tables are only
    /// marked and then copied by `copy_some`.
    fn snapshot(&mut self, epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        let _ = (epoch, parts);
        Ok(())
    }

    /// Goes on copying what `snapshot` has marked until that is done or `run` has no room left; true when it is done.
    /// Called between batches; records may change the state meanwhile, and the copy stays that of the moment.
    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        let _ = run;
        Ok(true)
    }

    /// Whether the operator takes a batch now; when it does not, its own waker must wake the task.
    fn ready(&mut self) -> bool {
        true
    }

    /// Called whenever the task runs: hands on what was finished elsewhere since. Who works elsewhere for the operator
    /// wakes the task.
    fn on_wake(&mut self, out: &mut Out<O>) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// Whether something that was begun elsewhere is not handed on yet. Behind the end of event time the task waits for it
    /// before it closes an epoch, so that the last checkpoint holds nothing unfinished.
    fn under_way(&self) -> bool {
        false
    }

    /// The end of the task, after all input.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// Records dropped as late so far.
    fn late_dropped(&self) -> u64 {
        0
    }
}

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotMode {
    /// Nobody keeps it: only output is closed.
    Nothing,
    /// Stands for itself, as a savepoint does.
    #[default]
    Detached,
    /// Large tables write what has changed since the last checkpoint; with `fresh` they write all and begin anew.
    Checkpoint {
        /// What earlier checkpoints hold cannot be built on.
        fresh: bool,
    },
}

/// What one operator saves: sections of bytes, and what must be awaited before they are complete.
#[derive(Default)]
pub struct SnapshotParts {
    /// What it is for.
    pub mode: SnapshotMode,
    /// Named pieces of state.
    pub sections: Vec<Section>,
    /// The tables whose sections in earlier checkpoints are still needed, or are being written now.
    pub roster: Vec<String>,
    /// What the entries of states are, as far as it can be told.
    pub shapes: EntryShapes,
    /// Closes a sink's epoch; run on a background thread.
    pub pre_commit: Option<PreCommit>,
    /// For the sections of large tables.
    pub buffers: Buffers,
}

impl SnapshotParts {
    /// For a snapshot of this kind.
    pub fn new(mode: SnapshotMode) -> Self {
        SnapshotParts { mode, ..SnapshotParts::default() }
    }
}

/// One step of copying large tables.
pub struct CopyRun {
    /// What is ready to be saved.
    pub sections: Vec<Section>,
    /// What is left to be read from files, on the checkpoint writer's thread.
    pub(crate) deferred: Vec<DeferredCopy>,
    left: usize,
    until: Option<Until>,
}

/// A step that also ends at a time.
struct Until {
    clock: SharedClock,
    at_us: i64,
    /// Bytes until the clock is looked at again.
    unlooked: usize,
}

/// The clock is looked at once for so many bytes: a few microseconds.
const LOOK_BYTES: usize = 8 * 1024;

/// Gives sections of a snapshot to the function it is called with, on whichever thread.
pub(crate) type DeferredCopy = Box<dyn FnOnce(&mut dyn FnMut(Section) -> Result<()>) -> Result<()> + Send>;

impl CopyRun {
    /// A step of about so many bytes.
    pub fn new(bytes: usize) -> Self {
        CopyRun { sections: Vec::new(), deferred: Vec::new(), left: bytes, until: None }
    }

    /// A step to the end.
    pub fn whole() -> Self {
        Self::new(usize::MAX)
    }

    /// The same step, which also ends when `clock`'s steady time comes to `at_us` (microseconds).
    pub fn until(self, clock: SharedClock, at_us: i64) -> Self {
        CopyRun { until: Some(Until { clock, at_us, unlooked: LOOK_BYTES }), ..self }
    }

    /// Whether the step goes on.
    #[inline]
    pub fn room(&self) -> bool {
        self.left > 0
    }

    /// So many bytes were written, or as much work was done.
    #[inline]
    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if let Some(until) = &mut self.until {
            if until.unlooked > bytes {
                until.unlooked -= bytes;
            } else {
                until.unlooked = LOOK_BYTES;
                if until.clock.steady_us() >= until.at_us {
                    self.left = 0;
                }
            }
        }
    }
}

/// Takes a snapshot to its end at once, for tests and for state too small to be copied in steps.
pub fn snapshot_whole<I: 'static, O: 'static>(
    operator: &mut impl Operator<I, O>,
    epoch: u64,
    parts: &mut SnapshotParts,
) -> Result<()> {
    operator.snapshot(epoch, parts)?;
    let mut run = CopyRun::whole();
    operator.copy_some(&mut run)?;
    parts.sections.append(&mut run.sections);
    for copy in run.deferred {
        copy(&mut |section| {
            parts.sections.push(section);
            Ok(())
        })?;
    }
    Ok(())
}

/// One operator's part of a task's snapshot.
pub(crate) struct OperatorSnapshot {
    pub uid: String,
    pub parts: SnapshotParts,
}

/// One step of copying, on its way through a chain.
pub(crate) struct ChainCopy {
    pub run: CopyRun,
    /// Sections by operator uid.
    pub pieces: Vec<(String, Vec<Section>)>,
    /// By operator uid.
    pub deferred: Vec<(String, DeferredCopy)>,
    /// No operator so far has more to copy.
    pub done: bool,
}

/// What travels down a chain beside records. Each operator handles it and passes it on.
pub(crate) enum Signal<'a> {
    Watermark(i64),
    ProcessingTime(i64),
    /// Asks for the earliest time any operator wants to be called at.
    NextProcessingTime(&'a mut Option<i64>),
    Barrier {
        epoch: u64,
        mode: SnapshotMode,
        buffers: &'a Buffers,
        snapshots: &'a mut Vec<OperatorSnapshot>,
    },
    /// The task runs, perhaps because somebody has woken it.
    Wake,
    /// Asks whether any operator waits for something elsewhere.
    UnderWay(&'a mut bool),
    /// Goes on copying what the barrier has marked.
    Copy(&'a mut ChainCopy),
    /// Adds up what operators dropped as late.
    LateDropped(&'a mut u64),
    Close,
}

/// A consumer of records within a task: the next operator of the chain, a fan-out, or an output port.
pub(crate) trait Link<T> {
    fn push(&mut self, batch: Records<T>) -> Result<()>;
    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()>;
    fn ready(&mut self) -> bool;
}

/// Where an operator puts its results. Results gather into batches and flow on when a batch is full, or when the
/// operator is done with its input.
pub struct Out<O> {
    buffer: Records<O>,
    next: Box<dyn Link<O>>,
    sides: Sides,
    /// Holds back the end of event time: whether the operator has told it meanwhile.
    held_end: Option<bool>,
}

/// Side outputs by tag: few, so that looking through them is faster than a hash. An empty list costs nothing.
#[derive(Default)]
pub(crate) struct Sides {
    by_tag: Vec<(&'static str, Box<dyn SideLink>)>,
}

impl<O: 'static> Out<O> {
    pub(crate) fn new(next: Box<dyn Link<O>>, sides: Sides) -> Self {
        Out { buffer: Vec::new(), next, sides, held_end: None }
    }

    /// Emits a record with its event time (`NO_TIMESTAMP` when it has none).
    #[inline(always)]
    pub fn emit(&mut self, timestamp_ms: i64, value: O) -> Result<()> {
        if self.buffer.capacity() == 0 {
            self.begin();
        }
        self.buffer.push((timestamp_ms, value));
        if self.buffer.len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    #[cold]
    fn begin(&mut self) {
        self.buffer.reserve_exact(BATCH_ROWS);
    }

    /// Emits a whole batch.
    pub fn emit_batch(&mut self, batch: Records<O>) -> Result<()> {
        self.flush()?;
        if batch.is_empty() { Ok(()) } else { self.next.push(batch) }
    }

    /// Emits to a side output. Without a reader of that tag the value is dropped, as in Flink.
    pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, timestamp_ms: i64, value: S) -> Result<()> {
        match self.sides.by_tag.iter_mut().find(|(name, _)| *name == tag.name) {
            Some((_, side)) => match side.as_any().downcast_mut::<Side<S>>() {
                Some(side) => side.emit(timestamp_ms, value),
                None => Err(Error::input(format!(
                    "side output `{}` is read with another type than it is written with",
                    tag.name
                ))),
            },
            None => Ok(()),
        }
    }

    /// Whether somebody reads this side output.
    pub fn has_side(&self, name: &str) -> bool {
        self.sides.by_tag.iter().any(|(tag, _)| *tag == name)
    }

    /// Tells everything below that event time has reached `watermark_ms`.
    pub fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        if let (Some(told), WATERMARK_MAX) = (&mut self.held_end, watermark_ms) {
            *told = true;
            return Ok(());
        }
        self.signal(&mut Signal::Watermark(watermark_ms))
    }

    #[inline(never)]
    pub(crate) fn flush(&mut self) -> Result<()> {
        for (_, side) in &mut self.sides.by_tag {
            side.flush()?;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.next.push(std::mem::take(&mut self.buffer))
    }

    pub(crate) fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        self.flush()?;
        self.next.signal(signal)?;
        for (_, side) in &mut self.sides.by_tag {
            side.signal(signal)?;
        }
        Ok(())
    }

    /// Whether everything below takes more now. Who emits outside of `on_batch` asks first.
    pub fn ready(&mut self) -> bool {
        self.next.ready() && self.sides.by_tag.iter_mut().all(|(_, side)| side.ready())
    }
}

/// Names a side output and its type. Two tags of one name are the same output.
pub struct OutputTag<S> {
    pub(crate) name: &'static str,
    marker: std::marker::PhantomData<fn() -> S>,
}

impl<S> OutputTag<S> {
    /// A tag; `name` is unique within the operator.
    pub const fn new(name: &'static str) -> Self {
        OutputTag { name, marker: std::marker::PhantomData }
    }
}

impl<S> Clone for OutputTag<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for OutputTag<S> {}

struct Side<S> {
    buffer: Records<S>,
    next: Box<dyn Link<S>>,
}

impl<S: 'static> Side<S> {
    fn emit(&mut self, timestamp_ms: i64, value: S) -> Result<()> {
        self.buffer.push((timestamp_ms, value));
        if self.buffer.len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }
}

/// A side output whose type is known only to its tag.
trait SideLink {
    fn as_any(&mut self) -> &mut dyn Any;
    fn flush(&mut self) -> Result<()>;
    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()>;
    fn ready(&mut self) -> bool;
}

impl<S: 'static> SideLink for Side<S> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.next.push(std::mem::take(&mut self.buffer)) }
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        self.flush()?;
        self.next.signal(signal)
    }

    fn ready(&mut self) -> bool {
        self.next.ready()
    }
}

impl Sides {
    pub(crate) fn add<S: 'static>(&mut self, name: &'static str, next: Box<dyn Link<S>>) {
        self.by_tag.push((name, Box::new(Side { buffer: Vec::new(), next })));
    }
}

/// An operator at its place in a chain.
pub(crate) struct OperatorLink<I, O, P> {
    pub uid: String,
    pub operator: P,
    pub out: Out<O>,
    pub mode: JobMode,
    pub input: std::marker::PhantomData<fn(I)>,
}

impl<I: 'static, O: 'static, P: Operator<I, O>> OperatorLink<I, O, P> {
    /// The end of event time in a batch: what waits for the clock is called too, behind what waits for event time, and
    /// only then hears the next operator of the end.
    fn end_of_batch(&mut self) -> Result<()> {
        self.out.held_end = Some(false);
        self.operator.on_watermark(WATERMARK_MAX, &mut self.out)?;
        if self.operator.next_processing_time().is_some() {
            self.operator.on_processing_time(i64::MAX, &mut self.out)?;
        }
        let told = self.out.held_end.take() == Some(true);
        if told { self.out.watermark(WATERMARK_MAX) } else { self.out.flush() }
    }
}

impl<I: 'static, O: 'static, P: Operator<I, O>> Link<I> for OperatorLink<I, O, P> {
    fn push(&mut self, batch: Records<I>) -> Result<()> {
        self.operator.on_batch(batch, &mut self.out)?;
        self.out.flush()
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        match signal {
            Signal::Watermark(WATERMARK_MAX) if self.mode == JobMode::Batch => return self.end_of_batch(),
            // The input has ended, and what waits for that stays in the state.
            Signal::Watermark(WATERMARK_MAX) if self.mode == JobMode::Bootstrap => {
                self.out.watermark(WATERMARK_MAX)?;
                return self.out.flush();
            }
            Signal::Watermark(watermark_ms) => {
                // The operator itself decides what goes on: see `Operator::on_watermark`.
                self.operator.on_watermark(*watermark_ms, &mut self.out)?;
                return self.out.flush();
            }
            Signal::ProcessingTime(now_ms) => {
                if self.operator.next_processing_time().is_some_and(|at| at <= *now_ms) {
                    self.operator.on_processing_time(*now_ms, &mut self.out)?;
                }
            }
            Signal::NextProcessingTime(earliest) => {
                if let Some(at) = self.operator.next_processing_time() {
                    **earliest = Some(earliest.map_or(at, |known| known.min(at)));
                }
            }
            Signal::Barrier { epoch, mode, buffers, snapshots } => {
                self.operator.before_barrier(&mut self.out)?;
                self.out.flush()?;
                let mut parts = SnapshotParts { buffers: buffers.clone(), ..SnapshotParts::new(*mode) };
                self.operator.snapshot(*epoch, &mut parts)?;
                if !parts.sections.is_empty() || !parts.roster.is_empty() || parts.pre_commit.is_some() {
                    snapshots.push(OperatorSnapshot { uid: self.uid.clone(), parts });
                }
            }
            Signal::Wake => self.operator.on_wake(&mut self.out)?,
            Signal::UnderWay(any) => **any |= self.operator.under_way(),
            Signal::Copy(copy) => {
                copy.done &= self.operator.copy_some(&mut copy.run)?;
                if !copy.run.sections.is_empty() {
                    copy.pieces.push((self.uid.clone(), std::mem::take(&mut copy.run.sections)));
                }
                copy.deferred.extend(copy.run.deferred.drain(..).map(|deferred| (self.uid.clone(), deferred)));
            }
            Signal::LateDropped(total) => **total += self.operator.late_dropped(),
            Signal::Close => self.operator.close()?,
        }
        self.out.signal(signal)
    }

    fn ready(&mut self) -> bool {
        self.operator.ready() && self.out.ready()
    }
}

/// Several consumers of one stream: all get every record.
pub(crate) struct FanOut<T>(pub Vec<Box<dyn Link<T>>>);

impl<T: Clone> Link<T> for FanOut<T> {
    fn push(&mut self, batch: Records<T>) -> Result<()> {
        if let Some((last, others)) = self.0.split_last_mut() {
            for link in others {
                link.push(batch.clone())?;
            }
            last.push(batch)?;
        }
        Ok(())
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|link| link.signal(signal))
    }

    fn ready(&mut self) -> bool {
        self.0.iter_mut().all(|link| link.ready())
    }
}
