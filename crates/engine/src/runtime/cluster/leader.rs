//! The first process's end of the control links. What members say becomes events for the coordinator, as if their tasks
//! were here; what the coordinator decides goes out to all of them.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_core::report::SubtaskReport;
use tidemill_core::{Error, Result};

use super::channel::Channel;
use super::message::{Failure, Place, Start, ToLeader, ToMember, receive, send};
use super::settings::Cluster;
use crate::checkpoint::coordinator::Event;
use crate::checkpoint::writer::Target;
use crate::runtime::board::{Board, Mark, StageEnd};
use crate::runtime::control::JobControl;
use crate::runtime::spawn;
use crate::runtime::user_metrics::UserMetrics;
use crate::slot_sharing::Homes;

/// Messages that may wait for one member. The coordinator says a few in a second; a member that lets so many wait is lost.
const WAITING_MESSAGES_MAX: usize = 4096;

/// How long a process that is cancelled waits until the others have been told: so many looks of so long each.
const LAST_WORD_LOOKS: u32 = 200;
const LAST_WORD_LOOK: Duration = Duration::from_millis(5);

/// How often watermarks of sources are passed on.
pub(super) const MARKS_EVERY: Duration = Duration::from_millis(50);

/// The first process's links to all others; said things go to each of them.
pub(crate) struct Members {
    outboxes: Vec<SyncSender<ToMember>>,
    /// Messages that wait, over all links.
    waiting: Arc<AtomicUsize>,
    target: Target,
    checkpoints: Option<std::path::PathBuf>,
}

impl Members {
    /// So many links, and what is to be sent over each of them; `start` is the first.
    pub fn new(
        count: usize,
        start: &Start,
        target: Target,
        checkpoints: Option<std::path::PathBuf>,
    ) -> (Self, Vec<Receiver<ToMember>>) {
        let (outboxes, waiting) = (0..count).map(|_| sync_channel(WAITING_MESSAGES_MAX)).unzip();
        let members = Members { outboxes, waiting: Arc::default(), target, checkpoints };
        members.say(&ToMember::Start(start.clone()));
        (members, waiting)
    }

    fn say(&self, message: &ToMember) {
        for outbox in &self.outboxes {
            // A link whose end is gone has told about that already; one that is full is silent and will be noticed.
            self.waiting.fetch_add(1, Ordering::AcqRel);
            if let Err(refused) = outbox.try_send(message.clone()) {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                if let TrySendError::Full(_) = refused {
                    tracing::warn!("a process of the job takes no messages");
                }
            }
        }
    }

    pub fn trigger(&self, epoch: u64, savepoint: bool, last: bool, drain: bool) {
        let (_, folder) = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let folder = folder.map(|folder| Place::of(&folder, self.checkpoints.as_deref()));
        self.say(&ToMember::Trigger { epoch, savepoint, last, drain, folder });
    }

    pub fn committed(&self, epoch: u64) {
        self.say(&ToMember::Committed(epoch));
    }

    pub fn suspended(&self) {
        self.say(&ToMember::Suspended);
    }

    pub fn failed(&self, error: &Error) {
        self.say(&ToMember::Failed(Failure::from(error)));
    }

    /// Says that the job is cancelled and waits until that is sent: this process ends right behind it.
    pub fn cancel(&self) {
        self.say(&ToMember::Cancel);
        for _ in 0..LAST_WORD_LOOKS {
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::park_timeout(LAST_WORD_LOOK);
        }
    }
}

/// The newest counters of subtasks in other processes, by task and subtask.
pub(crate) type RemoteReports = Arc<Mutex<BTreeMap<(usize, usize), SubtaskReport>>>;

/// Links that are made before the job's control is, which needs them.
pub(crate) struct Links {
    streams: Vec<(usize, Channel)>,
    outboxes: Vec<Receiver<ToMember>>,
    waiting: Arc<AtomicUsize>,
}

/// The links of the first process, and what `JobControl` speaks through. Each member hears `start` first.
pub(crate) fn open(
    control: Vec<Option<Channel>>,
    start: &Start,
    target: Target,
    checkpoints: Option<std::path::PathBuf>,
) -> (Links, Members) {
    let streams = control.into_iter().enumerate();
    let streams: Vec<_> = streams.filter_map(|(process, stream)| Some((process, stream?))).collect();
    let (members, outboxes) = Members::new(streams.len(), start, target, checkpoints);
    (Links { streams, outboxes, waiting: members.waiting.clone() }, members)
}

/// The first process cannot start: the others hear why.
pub(crate) fn refuse(control: &mut [Option<Channel>], why: &Error) {
    for stream in control.iter_mut().flatten() {
        // Who does not hear it sees the link closed.
        let _ = send(stream, &ToMember::Failed(Failure::from(why)));
    }
}

/// What the threads of the links work on.
pub(crate) struct Shared {
    pub control: Arc<JobControl>,
    pub events: Sender<Event>,
    pub reports: RemoteReports,
    pub user: Arc<UserMetrics>,
    pub cluster: Cluster,
    /// Whose subtasks and slots are whose.
    pub homes: Homes,
}

/// The running links.
pub(crate) struct Running {
    listening: Vec<JoinHandle<()>>,
    talking: Vec<JoinHandle<()>>,
    streams: Vec<Channel>,
    control: Arc<JobControl>,
}

/// Starts two threads a link: one hears, one speaks.
pub(crate) fn run(links: Links, shared: Shared) -> Result<Running> {
    let shared = Arc::new(shared);
    let mut running =
        Running { listening: Vec::new(), talking: Vec::new(), streams: Vec::new(), control: shared.control.clone() };
    let silence = Duration::from_millis(shared.cluster.peer_timeout_ms);
    for ((process, stream), outbox) in links.streams.into_iter().zip(links.outboxes) {
        let io = |e| Error::io("set up a control link", e);
        stream.set_read_timeout(Some(silence)).map_err(io)?;
        stream.set_write_timeout(Some(silence)).map_err(io)?;
        let (hearing, speaking) = (stream.try_clone().map_err(io)?, stream.try_clone().map_err(io)?);
        running.streams.push(stream);
        let here = shared.clone();
        running.listening.push(spawn("control-link", move || listen(process, hearing, &here))?);
        let (here, waiting) = (shared.clone(), links.waiting.clone());
        running.talking.push(spawn("control-link", move || talk(process, speaking, (&outbox, &waiting), &here))?);
    }
    Ok(running)
}

impl Running {
    /// The workers have ended: waits until the members' have too, says that the job has ended and closes the links.
    pub fn end(self) {
        if self.control.failed() {
            // What members still say is of no interest; what they are told is that the job failed.
            self.streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Read)));
        }
        for thread in self.listening {
            let _ = thread.join();
        }
        if let Some(members) = self.control.members() {
            members.say(&ToMember::Done);
        }
        for thread in self.talking {
            let _ = thread.join();
        }
    }
}

fn lost(process: usize, why: &Error, shared: &Shared) {
    if !shared.control.failed() {
        shared.control.fail(Error::external(format!("{} is lost: {why}", shared.cluster.name(process))));
    }
}

fn listen(process: usize, mut stream: Channel, shared: &Shared) {
    loop {
        match receive::<ToLeader>(&mut stream).and_then(|message| heard(process, message, shared)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => return lost(process, &why, shared),
        }
    }
}

/// Takes in what a member says; false behind its last word.
pub(crate) fn heard(process: usize, message: ToLeader, shared: &Shared) -> Result<bool> {
    let own = |task: u32, subtask: u32| shared.homes.of_task(task as usize, subtask as usize) == Some(process);
    let foreign = || Error::external("it speaks for a subtask of another process");
    match message {
        ToLeader::Alive => {}
        ToLeader::Acknowledged(acknowledgement) => {
            if !own(acknowledgement.task, acknowledgement.subtask) {
                return Err(foreign());
            }
            // When nobody receives any more, the job has ended.
            let _ = shared.events.send(Event::Acknowledged(acknowledgement.into_acknowledgement()?));
        }
        ToLeader::OutputLost(failure) => {
            let error = Error::from(failure).context(shared.cluster.name(process));
            let _ = shared.events.send(Event::OutputLost(error));
        }
        ToLeader::Marks(marks) => {
            for (slot, mark) in marks {
                if shared.homes.slots.get(slot as usize) != Some(&process) {
                    return Err(foreign());
                }
                shared.control.remote_mark(slot as usize, mark);
            }
        }
        ToLeader::Stages(ends) => {
            for (slot, end) in ends {
                if shared.homes.slots.get(slot as usize) != Some(&process) {
                    return Err(foreign());
                }
                shared.control.stage_ended(slot as usize, end);
            }
        }
        ToLeader::Reports(reports) => {
            let mut kept = shared.reports.lock().unwrap_or_else(PoisonError::into_inner);
            for (task, subtask, report) in reports {
                let report = serde_json::from_slice(&report);
                let report = report.map_err(|e| Error::external(format!("its counters cannot be read: {e}")))?;
                if !own(task, subtask) {
                    return Err(foreign());
                }
                kept.insert((task as usize, subtask as usize), report);
            }
        }
        ToLeader::UserMetrics(told) => {
            let own = |uid: &str, subtask| shared.homes.of_operator(uid, subtask) == Some(process);
            shared.user.told(process, own, told)?;
        }
        ToLeader::Failed(failure) => {
            shared.control.fail(Error::from(failure).context(shared.cluster.name(process)));
        }
        ToLeader::Ended => return Ok(false),
    }
    Ok(true)
}

fn talk(process: usize, mut stream: Channel, (outbox, waiting): (&Receiver<ToMember>, &AtomicUsize), shared: &Shared) {
    let mut told = Told::new(&shared.homes.slots, |owner| owner != process);
    let alive_after = alive_after(&shared.cluster);
    let mut silent = Duration::ZERO;
    loop {
        let message = match outbox.recv_timeout(MARKS_EVERY) {
            Ok(message) => {
                let sent = send(&mut stream, &message);
                waiting.fetch_sub(1, Ordering::AcqRel);
                silent = Duration::ZERO;
                if let Err(why) = sent {
                    return lost(process, &why, shared);
                }
                if matches!(message, ToMember::Done) {
                    let _ = stream.shutdown(Shutdown::Write);
                    return;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                silent += MARKS_EVERY;
                let marks = told.changes(shared.control.board());
                let stages = told.stages(shared.control.board());
                if !stages.is_empty() {
                    if let Err(why) = send(&mut stream, &ToMember::Stages(stages)) {
                        return lost(process, &why, shared);
                    }
                    silent = Duration::ZERO;
                }
                if !marks.is_empty() {
                    ToMember::Marks(marks)
                } else if silent >= alive_after {
                    ToMember::Alive
                } else {
                    continue;
                }
            }
        };
        silent = Duration::ZERO;
        if let Err(why) = send(&mut stream, &message) {
            return lost(process, &why, shared);
        }
    }
}

/// A side that has nothing to say says so this often.
pub(super) fn alive_after(cluster: &Cluster) -> Duration {
    Duration::from_millis(cluster.peer_timeout_ms / 4)
}

/// Which marks the other end of a link knows already.
pub(crate) struct Told {
    slots: Vec<(usize, Option<Mark>)>,
    /// The first stage whose end was not told, for each of the slots.
    stages: Vec<u32>,
}

impl Told {
    /// Of the slots whose process is `wanted`.
    pub fn new(owners: &[usize], wanted: impl Fn(usize) -> bool) -> Self {
        let slots = owners.iter().enumerate().filter(|(_, owner)| wanted(**owner));
        let slots: Vec<_> = slots.map(|(slot, _)| (slot, None)).collect();
        Told { stages: vec![0; slots.len()], slots }
    }

    /// Stages that have ended since the last call.
    pub fn stages(&mut self, board: &Board) -> Vec<(u32, StageEnd)> {
        let mut ends = Vec::new();
        for ((slot, _), told) in self.slots.iter().zip(&mut self.stages) {
            for end in board.stage_ends(*slot, *told) {
                *told = end.stage + 1;
                ends.push((*slot as u32, end));
            }
        }
        ends
    }

    /// What has changed since the last call.
    pub fn changes(&mut self, board: &Board) -> Vec<(u32, Mark)> {
        let mut changes = Vec::new();
        for (slot, told) in &mut self.slots {
            let mark = board.mark(*slot);
            if *told != Some(mark) {
                *told = Some(mark);
                changes.push((*slot as u32, mark));
            }
        }
        changes
    }
}
