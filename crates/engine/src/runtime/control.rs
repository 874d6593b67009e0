//! What the tasks of a process share with the coordinator: which epoch to close, which one is committed, who failed.
//! Tasks look at it when they run; whoever changes it wakes them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::{Error, SharedClock};
use timely::scheduling::SyncActivator;

use super::board::{Board, Mark, StageEnd};
use super::cluster::leader::Members;
use crate::checkpoint::coordinator::Event;
use crate::operator::{DeferredCopy, OperatorSnapshot, SnapshotMode};
use crate::state::{Buffers, Section};

/// A snapshot on its way from a task to the checkpoint writer of its worker: its beginning, copied pieces, its end.
pub(crate) enum TaskSnapshot {
    Begin {
        epoch: u64,
        mode: SnapshotMode,
        operators: Vec<OperatorSnapshot>,
        /// To be set when something could not be saved.
        save_afresh: Arc<AtomicBool>,
        times: BarrierTimes,
    },
    /// By operator uid.
    Pieces(Vec<(String, Vec<Section>)>),
    /// Of one operator: what the writer reads from files itself.
    Deferred(String, DeferredCopy),
    End,
}

/// When and how a task came to the end of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct BarrierTimes {
    /// When all of its inputs had brought everything of the epoch, epoch ms.
    pub at_ms: i64,
    /// How long before that the first of them had.
    pub alignment_ms: u64,
    /// How long marking the state took.
    pub sync_ms: u64,
}

/// To the checkpoint writer: from which task and subtask.
pub(crate) type HandIn = (usize, usize, TaskSnapshot);

/// A writer with more bytes than this before it gets no more copied state.
const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The way to a checkpoint writer.
pub(crate) struct WriterLink {
    pub sender: Mutex<Sender<HandIn>>,
    /// Bytes of pieces that the writer has not taken yet.
    pub queued: Arc<AtomicUsize>,
    /// What the writer has done with.
    pub buffers: Buffers,
}

impl TaskSnapshot {
    /// Bytes of copied pieces.
    pub fn piece_bytes(&self) -> usize {
        match self {
            TaskSnapshot::Pieces(pieces) => {
                pieces.iter().flat_map(|(_, sections)| sections).map(|section| section.bytes.len()).sum()
            }
            _ => 0,
        }
    }
}

/// Shared by all tasks of a process.
pub(crate) struct JobControl {
    clock: SharedClock,
    board: Board,
    triggered: AtomicU64,
    committed: AtomicU64,
    final_epoch: AtomicU64,
    drain_epoch: AtomicU64,
    suspended: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    tasks: Mutex<Vec<SyncActivator>>,
    events: Mutex<Sender<Event>>,
    /// The epoch of a savepoint, which stands for itself; 0 before any.
    savepoint_epoch: AtomicU64,
    /// Whether checkpoints are kept anywhere.
    keeps_state: bool,
    /// One writer a worker.
    writers: Vec<WriterLink>,
    /// The links to the job's other processes; only the first of several has them.
    members: Option<Members>,
    cancelled: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JobControl {
    pub fn new(
        clock: SharedClock,
        board: Board,
        restored_epoch: u64,
        events: Sender<Event>,
        keeps_state: bool,
        writers: Vec<WriterLink>,
    ) -> Self {
        JobControl {
            clock,
            board,
            triggered: AtomicU64::new(restored_epoch),
            committed: AtomicU64::new(restored_epoch),
            final_epoch: AtomicU64::new(u64::MAX),
            drain_epoch: AtomicU64::new(u64::MAX),
            suspended: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            tasks: Mutex::new(Vec::new()),
            events: Mutex::new(events),
            savepoint_epoch: AtomicU64::new(0),
            keeps_state,
            writers,
            members: None,
            cancelled: AtomicBool::new(false),
        }
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub fn board(&self) -> &Board {
        &self.board
    }

    /// What is decided here is said to the job's other processes too.
    pub fn with_members(self, members: Option<Members>) -> Self {
        JobControl { members, ..self }
    }

    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Has this task woken whenever something here changes.
    pub fn register(&self, task: SyncActivator) {
        lock(&self.tasks).push(task);
    }

    fn wake_all(&self) {
        for task in lock(&self.tasks).iter() {
            // An error means that the worker is gone already; there is nobody to wake then.
            let _ = task.activate();
        }
    }

    /// Sources close every epoch up to this one.
    pub fn triggered(&self) -> u64 {
        self.triggered.load(Ordering::Acquire)
    }

    /// The newest epoch whose manifest is written and whose output is committed.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The epoch after which sources read nothing more; `u64::MAX` while the job goes on.
    pub fn final_epoch(&self) -> u64 {
        self.final_epoch.load(Ordering::Acquire)
    }

    /// Whether event time ends with this epoch.
    pub fn drains_at(&self, epoch: u64) -> bool {
        self.drain_epoch.load(Ordering::Acquire) == epoch
    }

    /// What the snapshots of an epoch are for.
    pub fn snapshot_mode(&self, epoch: u64) -> SnapshotMode {
        if self.savepoint_epoch.load(Ordering::Acquire) == epoch {
            SnapshotMode::Detached
        } else if self.keeps_state {
            SnapshotMode::Checkpoint { fresh: false }
        } else {
            SnapshotMode::Nothing
        }
    }

    /// Has sources close `epoch`; with `last` nothing is read behind it, with `drain` event time ends with it.
    pub fn trigger(&self, epoch: u64, savepoint: bool, last: bool, drain: bool) {
        if savepoint {
            self.savepoint_epoch.store(epoch, Ordering::Release);
        }
        if drain {
            self.drain_epoch.store(epoch, Ordering::Release);
        }
        if last {
            self.final_epoch.store(epoch, Ordering::Release);
        }
        if let Some(members) = &self.members {
            members.trigger(epoch, savepoint, last, drain);
        }
        self.triggered.store(epoch, Ordering::Release);
        self.wake_all();
    }

    pub fn set_committed(&self, epoch: u64) {
        if let Some(members) = &self.members {
            members.committed(epoch);
        }
        self.committed.store(epoch, Ordering::Release);
        self.wake_all();
    }

    /// A source subtask has read everything there is.
    pub fn source_finished(&self, slot: usize) {
        if self.board.finished(slot) {
            self.tell(Event::SourcesFinished);
        }
    }

    /// A source subtask, here or in another process, has read a stage of its source to its end.
    pub fn stage_ended(&self, slot: usize, end: StageEnd) {
        self.board.stage_ended(slot, end);
        self.wake_all();
    }

    /// What a source subtask in another process says.
    pub fn remote_mark(&self, slot: usize, mark: Mark) {
        match mark {
            Mark::Active(watermark_ms) => self.board.active(slot, watermark_ms),
            Mark::Idle(watermark_ms) => self.board.idle(slot, watermark_ms),
            Mark::Finished => self.source_finished(slot),
        }
    }

    pub fn tell(&self, event: Event) {
        // The coordinator ends after the workers; if it is gone, the job is failing already.
        let _ = lock(&self.events).send(event);
    }

    fn writer(&self, worker: usize) -> &WriterLink {
        &self.writers[worker % self.writers.len()]
    }

    /// Whether a worker's checkpoint writer takes more copied state now.
    pub fn writer_has_room(&self, worker: usize) -> bool {
        self.writer(worker).queued.load(Ordering::Acquire) < QUEUED_BYTES_MAX
    }

    /// Where a worker's checkpoint writer puts the buffers it has done with.
    pub fn buffers(&self, worker: usize) -> &Buffers {
        &self.writer(worker).buffers
    }

    /// Hands a part of a subtask's snapshot to its worker's checkpoint writer.
    pub fn hand_in(&self, worker: usize, (task, subtask): (usize, usize), snapshot: TaskSnapshot) {
        let writer = self.writer(worker);
        writer.queued.fetch_add(snapshot.piece_bytes(), Ordering::AcqRel);
        if lock(&writer.sender).send((task, subtask, snapshot)).is_err() {
            self.fail(Error::bug("the checkpoint writer has ended before its job"));
        }
    }

    /// The job fails; the first reason counts.
    pub fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.is_some() {
            return;
        }
        if let Some(members) = &self.members {
            members.failed(&error);
        }
        *failure = Some(error);
        drop(failure);
        self.failed.store(true, Ordering::Release);
        self.wake_all();
        self.tell(Event::Failed);
    }

    /// Somebody cancels the job: this process ends, and so do its others.
    pub fn cancelled(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.fail(Error::external("the job was cancelled"));
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// The job ends with a savepoint, not with its input.
    pub fn suspend(&self) {
        if let Some(members) = &self.members {
            members.suspended();
        }
        self.suspended.store(true, Ordering::Release);
    }

    pub fn suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }
}
