//! How records come in: a [`Source`] describes, its splits divide the work, a [`SourceReader`] on each subtask reads.
//!
//! The contract, which the engine relies on for exactly-once:
//! * Splits are owned by `slot % parallelism`; every subtask lists them alike, so no coordinator hands them out.
//! * `poll` never waits. It emits at most `output.room()` records and returns; when there is nothing it says
//!   [`Poll::Pending`] and calls the waker once there is.
//! * `snapshot` returns, for every split assigned so far (finished ones too), the position *behind the last emitted
//!   record*. A reader that is given that split again emits exactly the records that follow.
//! * All state of a reader stands in its splits.

use std::task::Waker;

use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::error::Result;
use crate::event::DeadLetter;

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
    /// Takes over splits, each at its position. The n-th split ever added has index n in [`SourceOutput::push`].
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()>;

    /// Emits what is there, at most `output.room()` records. Never waits.
    fn poll(&mut self, output: &mut SourceOutput<T>) -> Result<Poll>;

    /// The splits with their positions behind the last emitted record.
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
}

/// Records of one split that follow each other: the split's index, and the end of the run among the poll's records.
pub type Run = (usize, usize);

/// Takes what a reader emits in one poll: records in runs of one split each, and records that could not be read.
pub struct SourceOutput<T> {
    records: Vec<(i64, T)>,
    runs: Vec<Run>,
    rejected: Vec<DeadLetter>,
    capacity: usize,
}

impl<T> SourceOutput<T> {
    /// An empty output with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        SourceOutput { records: Vec::with_capacity(capacity), runs: Vec::new(), rejected: Vec::new(), capacity }
    }

    /// How many more records this poll may emit.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.records.len() + self.rejected.len())
    }

    /// Emits a record of the split with index `split`. `timestamp_ms` is the source's own time for it, or
    /// [`NO_TIMESTAMP`](crate::NO_TIMESTAMP).
    #[inline]
    pub fn push(&mut self, split: usize, timestamp_ms: i64, value: T) {
        self.records.push((timestamp_ms, value));
        match self.runs.last_mut() {
            Some((last, end)) if *last == split => *end += 1,
            _ => self.runs.push((split, self.records.len())),
        }
    }

    /// Hands over a record that could not be read.
    pub fn reject(&mut self, letter: DeadLetter) {
        self.rejected.push(letter);
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

    /// Takes the rejected records.
    pub fn take_rejected(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.rejected)
    }
}
