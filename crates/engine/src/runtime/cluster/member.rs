//! The control link of every process but the first. Here it stands where the coordinator stands there: it passes on what
//! this process's tasks say, and does with the tasks what the coordinator says.

use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_core::{Error, Result};

use super::channel::Channel;
use super::leader::{MARKS_EVERY, Told, alive_after};
use super::message::{Failure, Start, ToLeader, ToMember, WireAcknowledgement, receive, report_bytes, send};
use super::settings::Cluster;
use crate::checkpoint::coordinator::Event;
use crate::checkpoint::writer::Target;
use crate::runtime::control::JobControl;
use crate::runtime::metrics::SubtaskMetrics;
use crate::runtime::spawn;
use crate::runtime::user_metrics::UserMetrics;
use crate::slot_sharing::Homes;

/// How often counters are sent to the first process.
const REPORTS_EVERY: Duration = Duration::from_secs(1);

/// What the threads of the link work on.
pub(crate) struct Shared {
    pub control: Arc<JobControl>,
    pub target: Target,
    pub cluster: Cluster,
    pub checkpoints: Option<PathBuf>,
    /// Whose subtasks and slots are whose.
    pub homes: Homes,
    /// This process's subtasks: task, subtask, counters.
    pub metrics: Vec<(usize, usize, Arc<SubtaskMetrics>)>,
    /// What the functions of the job's user count here.
    pub user: Arc<UserMetrics>,
}

/// Waits for the first message of the first process: what to start from.
pub(crate) fn start(stream: &mut Channel, cluster: &Cluster) -> Result<Start> {
    // Until then the first process may have much to publish and to clean up.
    let patience = Duration::from_millis(cluster.peer_timeout_ms.max(cluster.start_timeout_ms.unsigned_abs()));
    stream.set_read_timeout(Some(patience)).map_err(set_up)?;
    loop {
        let heard = receive::<ToMember>(stream)
            .map_err(|why| Error::external(format!("{} is lost: {why}", cluster.name(0))))?;
        match heard {
            ToMember::Start(start) => return Ok(start),
            ToMember::Alive => {}
            ToMember::Failed(failure) => return Err(Error::from(failure)),
            _ => return Err(Error::external(format!("{} does not say what to start from", cluster.name(0)))),
        }
    }
}

fn set_up(error: std::io::Error) -> Error {
    Error::io("set up a control link", error)
}

/// The running link.
pub(crate) struct Running {
    hearing: JoinHandle<()>,
    speaking: JoinHandle<()>,
    stream: Channel,
    control: Arc<JobControl>,
}

/// Starts the link's two threads. `events` is what the tasks of this process say.
pub(crate) fn run(stream: Channel, events: Receiver<Event>, shared: Shared) -> Result<Running> {
    let silence = Duration::from_millis(shared.cluster.peer_timeout_ms);
    stream.set_read_timeout(Some(silence)).map_err(set_up)?;
    stream.set_write_timeout(Some(silence)).map_err(set_up)?;
    let (hearing, speaking) = (stream.try_clone().map_err(set_up)?, stream.try_clone().map_err(set_up)?);
    let (control, shared) = (shared.control.clone(), Arc::new(shared));
    let here = shared.clone();
    let hearing = spawn("control-link", move || listen(hearing, &here))?;
    let speaking = spawn("control-link", move || talk(speaking, &events, &shared))?;
    Ok(Running { hearing, speaking, stream, control })
}

impl Running {
    /// The workers have ended, and the last event is `Event::Done`: waits until the first process knows.
    pub fn end(self) {
        let _ = self.speaking.join();
        if self.control.failed() {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        let _ = self.hearing.join();
    }
}

fn lost(why: &Error, shared: &Shared) {
    if !shared.control.failed() {
        shared.control.fail(Error::external(format!("{} is lost: {why}", shared.cluster.name(0))));
    }
}

fn listen(mut stream: Channel, shared: &Shared) {
    loop {
        let message = match receive::<ToMember>(&mut stream) {
            Ok(message) => message,
            Err(why) => return lost(&why, shared),
        };
        if !heard(message, shared) {
            return;
        }
    }
}

/// Does what the first process says; false behind its last word.
pub(crate) fn heard(message: ToMember, shared: &Shared) -> bool {
    let control = &shared.control;
    let elsewhere =
        |slot: u32| shared.homes.slots.get(slot as usize).is_some_and(|owner| *owner != shared.cluster.process);
    match message {
        ToMember::Alive | ToMember::Start(_) => {}
        ToMember::Trigger { epoch, savepoint, last, drain, folder } => {
            match folder.map(|folder| folder.here(shared.checkpoints.as_deref())).transpose() {
                Ok(folder) => {
                    *shared.target.lock().unwrap_or_else(PoisonError::into_inner) = (epoch, folder);
                    control.trigger(epoch, savepoint, last, drain);
                }
                Err(error) => {
                    control.fail(error);
                    return false;
                }
            }
        }
        ToMember::Committed(epoch) => control.set_committed(epoch),
        ToMember::Suspended => control.suspend(),
        ToMember::Marks(marks) => marks
            .into_iter()
            .filter(|(slot, _)| elsewhere(*slot))
            .for_each(|(slot, mark)| control.remote_mark(slot as usize, mark)),
        ToMember::Stages(ends) => ends
            .into_iter()
            .filter(|(slot, _)| elsewhere(*slot))
            .for_each(|(slot, end)| control.stage_ended(slot as usize, end)),
        ToMember::Failed(failure) => control.fail(Error::from(failure)),
        ToMember::Cancel => control.cancelled(),
        ToMember::Done => return false,
    }
    true
}

fn talk(mut stream: Channel, events: &Receiver<Event>, shared: &Shared) {
    let mut told = Told::new(&shared.homes.slots, |owner| owner == shared.cluster.process);
    let alive_after = alive_after(&shared.cluster);
    let (mut silent, mut unreported) = (Duration::ZERO, Duration::ZERO);
    loop {
        let event = match events.recv_timeout(MARKS_EVERY) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => Some(Event::Done),
            Err(RecvTimeoutError::Timeout) => {
                (silent, unreported) = (silent + MARKS_EVERY, unreported + MARKS_EVERY);
                None
            }
        };
        let last = matches!(event, Some(Event::Done));
        let mut messages = said(event, &mut told, shared);
        if unreported >= REPORTS_EVERY {
            unreported = Duration::ZERO;
            messages.extend(reports(shared));
        } else if messages.is_empty() && silent >= alive_after {
            messages.push(ToLeader::Alive);
        }
        for message in messages {
            silent = Duration::ZERO;
            if let Err(why) = send(&mut stream, &message) {
                lost(&why, shared);
                return;
            }
        }
        if last {
            return;
        }
    }
}

/// What the first process is to hear: what has changed on the board, and what was told here, if anything.
pub(crate) fn said(event: Option<Event>, told: &mut Told, shared: &Shared) -> Vec<ToLeader> {
    let mut messages = Vec::new();
    let marks = told.changes(shared.control.board());
    messages.extend((!marks.is_empty()).then_some(ToLeader::Marks(marks)));
    let stages = told.stages(shared.control.board());
    messages.extend((!stages.is_empty()).then_some(ToLeader::Stages(stages)));
    match event {
        Some(Event::Acknowledged(acknowledgement)) => {
            let keeps = shared.target.lock().unwrap_or_else(PoisonError::into_inner).1.is_some();
            match WireAcknowledgement::new(acknowledgement, keeps) {
                Ok(acknowledgement) => messages.push(ToLeader::Acknowledged(acknowledgement)),
                Err(error) => shared.control.fail(error),
            }
        }
        Some(Event::OutputLost(error)) => messages.push(ToLeader::OutputLost(Failure::from(&error))),
        Some(Event::Failed) => {
            let why = shared.control.failure().unwrap_or_else(|| Error::bug("a failure without a reason"));
            messages.push(ToLeader::Failed(Failure::from(&why)));
        }
        Some(Event::Done) => {
            messages.extend(reports(shared));
            messages.push(ToLeader::Ended);
        }
        // Whether all sources have finished is seen by the first process, from their marks.
        Some(Event::SourcesFinished) => {}
        // Nobody asks this process: it has no control socket.
        Some(Event::Checkpoint { .. } | Event::Savepoint(_) | Event::Discard { .. }) => {}
        None => {}
    }
    messages
}

fn reports(shared: &Shared) -> Vec<ToLeader> {
    let report = |(task, subtask, metrics): &(usize, usize, Arc<SubtaskMetrics>)| {
        (*task as u32, *subtask as u32, report_bytes(&metrics.report(shared.control.clock().as_ref())))
    };
    let mut reports = vec![ToLeader::Reports(shared.metrics.iter().map(report).collect())];
    match shared.user.tell() {
        Ok(told) => reports.push(ToLeader::UserMetrics(told)),
        Err(error) => tracing::warn!(%error, "the metrics of the job's functions are not told"),
    }
    reports
}
