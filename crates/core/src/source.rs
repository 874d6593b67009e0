//! How records come in: a [`Source`] describes, its splits divide the work, a [`SourceReader`] on each subtask reads.
//!
//! The contract, which the engine relies on for exactly-once:
//! * Splits are owned by `slot % parallelism`; every subtask lists them alike, so no coordinator hands them out.
//! * `poll` never waits. It emits at most `output.room()` records and returns; when there is nothing it says
//!   [`Poll::Pending`] and calls the waker once there is.
//! * `snapshot` returns, for every split assigned so far (finished ones too), the position *behind the last emitted
//!   record*. A reader that is given that split again emits exactly the records that follow.
//! * All state of a reader stands in its splits.
//!
//! There is no enumerator beside it. What one is for stands here: discovery is `splits`, asked again at each interval;
//! splits that subtasks take one by one ([`Assignment::OnDemand`]) and the stages of a chain of sources ([`Source::stages`])
//! are kept by the engine, with their state in the checkpoint.

use std::task::Waker;

use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::error::Result;
use crate::event::DeadLetter;
use crate::metrics::{SharedMetrics, Unread};

/// A part of a source that one reader reads in order: a partition, a file, a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Names the split for ever; state is found by it.
    pub id: String,
    /// Subtask `slot % parallelism` owns the split.
    pub slot: u32,
    /// Where to go on, in the source's own words (JSON, so that `tidemill state` can show it); `null` at the beginning.
    pub position: serde_json::Value,
}

/// Whether a source ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundedness {
    /// It ends, and the job may end with it.
    Bounded,
    /// It goes on until the job is stopped.
    Unbounded,
}

/// How splits get to subtasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Assignment {
    /// Subtask `slot % parallelism` reads a split, from the start.
    #[default]
    ByNumber,
    /// A subtask takes a split when it has nothing left to read: first of its own by number, then of those of other
    /// subtasks of its process. For bounded sources of many splits that are read to their ends. Splits are in the checkpoint also
    /// while nobody reads them. Not together with discovery or stages, where splits go by number.
    OnDemand,
}

/// What a reader is told about its place in the job.
#[derive(Clone)]
pub struct ReaderContext {
    /// This subtask, from 0.
    pub subtask: usize,
    /// The number of subtasks.
    pub parallelism: usize,
    /// To be woken when records have come after [`Poll::Pending`].
    pub waker: Waker,
    /// The job's clock.
    pub clock: SharedClock,
    /// The source goes on from a checkpoint, whether or not splits of it fall to this subtask: a split without a position
    /// was found later.
    pub restored: bool,
    /// What the reader counts of itself goes here.
    pub metrics: SharedMetrics,
}

impl ReaderContext {
    /// The context of a source that begins anew; nobody reads its metrics.
    pub fn new(subtask: usize, parallelism: usize, waker: Waker, clock: SharedClock) -> Self {
        ReaderContext { subtask, parallelism, waker, clock, restored: false, metrics: Unread::shared() }
    }
}

/// Describes where records come from. One value serves all subtasks.
pub trait Source<T>: Send + Sync + 'static {
    /// A short name for graphs and messages, such as ``topic `orders` ``.
    fn name(&self) -> String;

    /// Whether it ends by itself.
    fn boundedness(&self) -> Boundedness;

    /// All splits known now, at their beginnings. Must not depend on the subtask that asks.
    fn splits(&self) -> Result<Vec<Split>>;

    /// How often to look for new splits; `None` (the default) never.
    fn discovery_interval_ms(&self) -> Option<u64> {
        None
    }

    /// How splits get to subtasks; default by number.
    fn assignment(&self) -> Assignment {
        Assignment::ByNumber
    }

    /// How many stages there are; default 1. A stage begins, on all subtasks, when the one before is read to its end on all.
    fn stages(&self) -> u32 {
        1
    }

    /// The splits of stage `stage`, the first being 0; `ended` are those of the stage before at their ends, of all subtasks and
    /// ordered by id. Called at each beginning of a stage and at each restore into it, before a reader gets splits of it. It
    /// must give the same splits on every subtask, and their ids must differ from those of other stages.
    fn stage_splits(&self, stage: u32, ended: &[Split]) -> Result<Vec<Split>> {
        let _ = (stage, ended);
        self.splits()
    }

    /// A reader for one subtask, without splits.
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<T>>>;
}

/// What a reader had to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// There may be more at once.
    More,
    /// Nothing now; the waker will be called, or poll again at `wake_at_ms` (by the job's clock) if given.
    Pending {
        /// When to poll again even without a wake-up.
        wake_at_ms: Option<i64>,
    },
    /// All splits assigned so far are read to their end, and no more will come to them.
    End,
}

/// Reads the splits of one subtask.
pub trait SourceReader<T> {
    /// Takes over splits, each at its position; called once at the start, also without any. The n-th split ever added has
    /// index n in [`SourceOutput::push`]. With stages, all splits of a call are of one, and it is called at the beginning of each.
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()>;

    /// Emits what is there, at most `output.room()` records. Never waits.
    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll>;

    /// Holds back the splits with `paused[index]`, and no others: nothing of them is emitted before they are let go again.
    /// `false`, the default, says that this reader cannot hold back single splits; everything stays as it was then.
    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        let _ = paused;
        false
    }

    /// The splits with their positions behind the last emitted record. Those of former stages may be left out.
    fn snapshot(&mut self) -> Result<Vec<Split>>;

    /// Epoch `epoch` is in a manifest: positions up to it may be committed outside. They are those of the newest snapshot,
    /// since none is taken for a later epoch before this is called.
    fn checkpoint_complete(&mut self, epoch: u64) -> Result<()> {
        let _ = epoch;
        Ok(())
    }

    /// Records known to wait in the source behind the position, if the source can tell.
    fn pending_records(&self) -> Option<u64> {
        None
    }

    /// When the newest record emitted was fetched, epoch ms, for sources that fetch ahead; `None`, the default, says that
    /// records are emitted when they are fetched.
    fn fetched_ms(&self) -> Option<i64> {
        None
    }
}

/// Records of one split that follow each other: the split's index, and the end of the run among the poll's records.
pub type Run = (usize, usize);

/// Takes what a reader emits in one poll: records in runs of one split each, and records that could not be read.
pub struct SourceOutput<T> {
    records: Vec<(i64, T)>,
    runs: Vec<Run>,
    rejected: Vec<DeadLetter>,
    finished: Vec<usize>,
    /// Added to the indices of splits.
    first_split: usize,
    capacity: usize,
}

impl<T> SourceOutput<T> {
    /// An empty output with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        let records = Vec::with_capacity(capacity);
        SourceOutput { records, runs: Vec::new(), rejected: Vec::new(), finished: Vec::new(), first_split: 0, capacity }
    }

    /// Sets how many records a poll may emit, from the next one on.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// How many more records this poll may emit.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.records.len() + self.rejected.len())
    }

    /// Does `work` with room for at most `room` records more.
    pub fn within<R>(&mut self, room: usize, work: impl FnOnce(&mut Self) -> R) -> R {
        let whole = self.capacity;
        self.capacity = whole.min((self.records.len() + self.rejected.len()).saturating_add(room));
        let result = work(self);
        self.capacity = whole;
        result
    }

    /// Does `work`, in which the split with index 0 is the one that has index `first_split` here.
    pub fn behind<R>(&mut self, first_split: usize, work: impl FnOnce(&mut Self) -> R) -> R {
        self.first_split += first_split;
        let result = work(self);
        self.first_split -= first_split;
        result
    }

    /// Emits a record of the split with index `split`. `timestamp_ms` is the source's own time for it, or
    /// [`NO_TIMESTAMP`](crate::NO_TIMESTAMP).
    #[inline]
    pub fn push(&mut self, split: usize, timestamp_ms: i64, value: T) {
        let split = self.first_split + split;
        self.records.push((timestamp_ms, value));
        match self.runs.last_mut() {
            Some((last, end)) if *last == split => *end += 1,
            _ => self.runs.push((split, self.records.len())),
        }
    }

    /// Emits a batch of records of the split with index `split`, each with the source's own time for it. `records` is left
    /// empty, with memory to be filled again. The batch must fit into [`SourceOutput::room`].
    pub fn push_batch(&mut self, split: usize, records: &mut Vec<(i64, T)>) {
        if records.is_empty() {
            return;
        }
        let split = self.first_split + split;
        if self.records.is_empty() {
            std::mem::swap(&mut self.records, records);
        } else {
            self.records.append(records);
        }
        match self.runs.last_mut() {
            Some((last, end)) if *last == split => *end = self.records.len(),
            _ => self.runs.push((split, self.records.len())),
        }
    }

    /// Hands over a record that could not be read.
    pub fn reject(&mut self, letter: DeadLetter) {
        self.rejected.push(letter);
    }

    /// Says that a split is read to its end: it does not hold event time back any more.
    pub fn finish_split(&mut self, split: usize) {
        self.finished.push(self.first_split + split);
    }

    /// Whether nothing was emitted or rejected.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rejected.is_empty()
    }

    /// Takes the records with their runs, leaving the output empty with fresh room.
    pub fn take(&mut self) -> (Vec<(i64, T)>, Vec<Run>) {
        let records = std::mem::replace(&mut self.records, Vec::with_capacity(self.capacity));
        (records, std::mem::take(&mut self.runs))
    }

    /// Takes the indices of the splits that are read to their end.
    pub fn take_finished(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.finished)
    }

    /// Takes the rejected records.
    pub fn take_rejected(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.rejected)
    }
}
