//! How results leave: a [`Sink`] describes, a [`SinkWriter`] on each subtask writes, and for exactly-once a
//! [`Committer`] makes an epoch's output visible after its checkpoint is complete.
//!
//! The contract:
//! * `pre_commit(epoch)` closes what was written for the epoch. The closure it returns runs on a background thread, may
//!   wait, and returns only when all of it is durable (at-least-once: has arrived; two-phase: can be committed after any
//!   crash). Its tokens go into the checkpoint.
//! * After the manifest of an epoch is written the committer gets every token not committed yet, oldest first.
//!   Committing a token a second time changes nothing.
//! * At a restart `recover` is called once per job, before any writer exists, with all tokens of the restored
//!   checkpoint: it commits them and removes whatever else an earlier attempt left behind unpublished.

use std::task::Waker;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::metrics::{SharedMetrics, Unread};

/// What the committer needs to publish one subtask's output of one epoch.
pub type Token = Vec<u8>;

/// Waits until an epoch's output is safe and returns its tokens. Runs on a background thread.
pub type PreCommit = Box<dyn FnOnce() -> Result<Vec<Token>> + Send>;

/// Which job and operator a sink works for.
#[derive(Clone)]
pub struct SinkScope {
    /// The job's id, 32 hex digits.
    pub job_id: String,
    /// The sink operator's stable id.
    pub uid: String,
    /// What writers and committers count of themselves goes here.
    pub metrics: SharedMetrics,
}

impl SinkScope {
    /// The scope of a sink whose metrics nobody reads.
    pub fn new(job_id: impl Into<String>, uid: impl Into<String>) -> Self {
        SinkScope { job_id: job_id.into(), uid: uid.into(), metrics: Unread::shared() }
    }
}

/// What a writer is told about its place in the job.
#[derive(Clone)]
pub struct WriterContext {
    /// Job and operator.
    pub scope: SinkScope,
    /// This subtask, from 0.
    pub subtask: usize,
    /// The number of subtasks.
    pub parallelism: usize,
    /// The first epoch this writer writes; larger than any epoch of an earlier attempt that is in a manifest.
    pub epoch: u64,
    /// Counts the starts of the job, so that names of unpublished things never meet those of an earlier attempt.
    pub attempt: u64,
    /// How often checkpoints are made, in ms; `None`: never by themselves.
    pub checkpoint_interval_ms: Option<i64>,
    /// To be woken when the writer is ready again.
    pub waker: Waker,
    /// The job's clock.
    pub clock: SharedClock,
}

/// Describes where results go. One value serves all subtasks.
pub trait Sink<T>: Send + Sync + 'static {
    /// A short name for graphs and messages.
    fn name(&self) -> String;

    /// A writer for one subtask.
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>>;

    /// The committer of one subtask, for sinks that publish in two phases.
    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        let _ = scope;
        Ok(None)
    }

    /// Commits the tokens of the restored checkpoint and removes what else was left unpublished. Called once at each
    /// start of a job, with no tokens when nothing is restored.
    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        let _ = (scope, tokens);
        Ok(())
    }
}

/// Writes one subtask's results.
pub trait SinkWriter<T> {
    /// Whether the writer takes a batch now. When not, it calls the waker once it does; meanwhile backpressure holds
    /// the job up to its sources.
    fn ready(&mut self) -> bool {
        true
    }

    /// The batch that is written next has about so many bytes; for writers whose queue has a bound in bytes.
    fn weigh(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Writes records with their timestamps. Never waits: work on the network is handed to the sink's own thread.
    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()>;

    /// Event time has reached this: no earlier records come, except late ones. `i64::MAX` is the end of the input.
    fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        let _ = watermark_ms;
        Ok(())
    }

    /// Closes the epoch; see the head of this module.
    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit>;
}

/// Makes pre-committed output visible. Runs on a background thread.
pub trait Committer: Send {
    /// Publishes the tokens in order. A token published before changes nothing.
    fn commit(&mut self, tokens: &[Token]) -> Result<()>;
}
