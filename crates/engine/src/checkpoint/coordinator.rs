//! Starts epochs, waits for every subtask, writes manifests, has sinks commit. One thread a job; one checkpoint at a time.
//!
//! A checkpoint that fails does not fail a healthy job: the next one covers it, because sinks' tokens are kept until a
//! manifest that names them is written. Only the last one, without which a job cannot end, is tried a bounded number of
//! times; and a job may say how many failures in a row it tolerates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::report::{CheckpointOperatorReport, CheckpointPartReport, CheckpointReport, CheckpointsReport};
use tidemill_core::sink::{Committer, Token};
use tidemill_core::{Error, Result};

use super::folder::{self, CheckpointFolder, NamedFiles, STATE_MAGIC, place, shared_files};
use super::manifest::{Manifest, OperatorState, TokenEntry, VERSION};
use super::storage::Storages;
use super::writer::{Acknowledgement, Target};
use crate::key::KEY_GROUPS;
use crate::runtime::control::JobControl;

/// How often the last checkpoint of a job is tried before the job fails.
const FINAL_ATTEMPTS_MAX: u32 = 10;

/// How often one commit is tried before the job fails and recovers.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// The pause before a failed checkpoint or commit is tried again.
const RETRY_MS: i64 = 500;

/// So many savepoints of one epoch, of starts that each went back before it, have names in one folder.
const SAME_NAMES_MAX: u32 = 1000;

/// What the coordinator hears.
pub(crate) enum Event {
    Acknowledged(Acknowledgement),
    /// A sink could not make an epoch's output safe.
    OutputLost(Error),
    SourcesFinished,
    /// A checkpoint now, whatever the interval says.
    Checkpoint {
        reply: SyncSender<Result<PathBuf>>,
    },
    Savepoint(SavepointRequest),
    /// The job is cancelled, and its checkpoints are to go with it.
    Discard {
        reply: SyncSender<Result<()>>,
    },
    Failed,
    /// The workers have ended.
    Done,
}

/// A savepoint asked for by a person.
pub(crate) struct SavepointRequest {
    pub folder: Option<PathBuf>,
    /// The job ends with it.
    pub stop: bool,
    /// Event time ends with it: windows and timers fire.
    pub drain: bool,
    pub reply: SyncSender<Result<PathBuf>>,
}

/// How a job checkpoints.
pub(crate) struct CoordinatorConfig {
    pub job_id: String,
    pub job_name: String,
    /// Where checkpoints go; without it epochs still begin and end, and sinks commit, but nothing can be restored.
    pub checkpoints: Option<CheckpointFolder>,
    pub storages: Arc<Storages>,
    /// A snapshot the job was restored from and told to claim: removed when there are `retained` checkpoints of its own.
    pub claimed: Option<PathBuf>,
    /// Counts the starts of the job.
    pub attempt: u64,
    pub savepoints: Option<PathBuf>,
    pub interval_ms: Option<i64>,
    /// Between the end of a checkpoint and the beginning of the next.
    pub min_pause_ms: i64,
    pub timeout_ms: i64,
    /// Checkpoints that may fail in a row; `None` for any number.
    pub tolerable_failures: Option<u32>,
    pub retained: usize,
    pub restored_epoch: u64,
    /// Every subtask that answers: (task, subtask).
    pub subtasks: BTreeSet<(usize, usize)>,
    /// Subtasks of each operator.
    pub parallelism: BTreeMap<String, usize>,
}

impl CoordinatorConfig {
    /// Why this start of the job must publish nothing any more: it was started again meanwhile.
    fn overtaken(&self) -> Result<Option<Error>> {
        let Some(folder) = &self.checkpoints else { return Ok(None) };
        let newest = folder.newest_attempt()?;
        let why = || {
            let (place, own) = (folder.root().display(), self.attempt);
            Error::external(format!(
                "start {newest} of the job has taken over `{place}` from this one, which is start {own}"
            ))
        };
        Ok((newest > self.attempt).then(why))
    }
}

struct Pending {
    epoch: u64,
    trigger_ms: i64,
    /// By the clock that never jumps.
    began_ms: i64,
    folder: Option<PathBuf>,
    missing: BTreeSet<(usize, usize)>,
    acknowledged: Vec<Acknowledgement>,
    operators: BTreeMap<String, CheckpointOperatorReport>,
    parts: Vec<CheckpointPartReport>,
    savepoint: Option<SavepointRequest>,
    reply: Option<SyncSender<Result<PathBuf>>>,
    last: bool,
}

impl Pending {
    /// Keeps for the report what a subtask's answer tells.
    fn note(&mut self, acknowledgement: &Acknowledgement, now_ms: i64) {
        let barrier = acknowledgement.times.barrier;
        let reached_ms = barrier.at_ms.saturating_sub_unsigned(barrier.alignment_ms);
        let mut part = CheckpointPartReport {
            task: acknowledgement.task,
            subtask: acknowledgement.subtask,
            acknowledged_ms: now_ms,
            start_delay_ms: reached_ms.saturating_sub(self.trigger_ms).max(0) as u64,
            alignment_ms: barrier.alignment_ms,
            sync_ms: barrier.sync_ms,
            async_ms: acknowledgement.times.async_ms,
            ..Default::default()
        };
        for operator in &acknowledgement.operators {
            let places = operator.places.iter().map(|place| (place.length, place.entries));
            let inline = operator.inline.iter().map(|section| (section.bytes.len() as u64, section.entries));
            let (bytes, entries) = places.chain(inline).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            part.bytes += bytes;
            part.written_bytes += operator.written_bytes;
            let entry = self.operators.entry(operator.uid.clone()).or_default();
            entry.uid.clone_from(&operator.uid);
            (entry.bytes, entry.entries) = (entry.bytes + bytes, entry.entries + entries);
            entry.written_bytes += operator.written_bytes;
        }
        self.parts.push(part);
    }
}

type Committers = BTreeMap<(String, usize), Box<dyn Committer>>;

pub(crate) struct Coordinator {
    pub config: CoordinatorConfig,
    pub control: Arc<JobControl>,
    pub target: Target,
    pub report: Arc<Mutex<CheckpointsReport>>,
    /// By operator and subtask.
    pub committers: Committers,
    /// Waits before a failed commit is tried again.
    pub pause: fn(Duration),
    epoch: u64,
    pending: Option<Pending>,
    next_ms: Option<i64>,
    uncommitted: BTreeMap<(String, usize), Vec<Token>>,
    /// Which shared files retained checkpoints name.
    named: NamedFiles,
    finishing: bool,
    final_attempts: u32,
    /// Checkpoints that have failed since the last complete one.
    failures: u32,
    /// The job was cancelled and its checkpoints removed: there are to be no more.
    discarded: bool,
    /// The last epoch is complete. Sources close when they hear of it, each at its own time: an epoch begun behind it would
    /// be closed by some and never by the others.
    ended: bool,
    waiting_savepoints: Vec<SavepointRequest>,
    waiting_checkpoints: Vec<SyncSender<Result<PathBuf>>>,
}

impl Coordinator {
    pub fn new(
        config: CoordinatorConfig,
        control: Arc<JobControl>,
        target: Target,
        report: Arc<Mutex<CheckpointsReport>>,
        committers: Committers,
    ) -> Self {
        let epoch = config.restored_epoch;
        let next_ms = config.interval_ms.map(|interval| control.clock().steady_ms() + interval);
        Coordinator {
            config,
            control,
            target,
            report,
            committers,
            pause: std::thread::park_timeout,
            epoch,
            pending: None,
            next_ms,
            uncommitted: BTreeMap::new(),
            named: NamedFiles::new(),
            finishing: false,
            final_attempts: 0,
            failures: 0,
            discarded: false,
            ended: false,
            waiting_savepoints: Vec::new(),
            waiting_checkpoints: Vec::new(),
        }
    }

    /// Runs until the workers have ended.
    pub fn run(mut self, events: Receiver<Event>) {
        loop {
            let event = match events.recv_timeout(self.patience()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Done),
            };
            if !self.step(event) {
                return;
            }
        }
    }

    /// Takes in what was told, if anything was, and does what is due; false when the workers have ended.
    pub fn step(&mut self, event: Option<Event>) -> bool {
        match event {
            Some(Event::Done) => {
                self.refuse_waiting();
                return false;
            }
            Some(Event::Failed) => self.abandon(Error::external("the job failed while the checkpoint was under way")),
            Some(Event::Acknowledged(acknowledgement)) => self.acknowledged(acknowledgement),
            Some(Event::OutputLost(error)) => {
                self.control.fail(error.clone());
                // Answers for a later epoch may be on their way already, and that output is in no later epoch.
                self.abandon(error);
            }
            Some(Event::SourcesFinished) => {
                self.finishing = true;
                self.next_ms = Some(i64::MIN);
            }
            Some(Event::Checkpoint { reply }) => self.waiting_checkpoints.push(reply),
            Some(Event::Savepoint(request)) => self.waiting_savepoints.push(request),
            Some(Event::Discard { reply }) => {
                let _ = reply.send(self.discard());
            }
            None => {}
        }
        self.act();
        true
    }

    /// When something is due even if nobody tells anything, by the clock that never jumps.
    pub fn due_ms(&self) -> Option<i64> {
        match &self.pending {
            Some(pending) => Some(pending.began_ms.saturating_add(self.config.timeout_ms)),
            None => self.next_ms,
        }
    }

    fn patience(&self) -> Duration {
        let now_ms = self.control.clock().steady_ms();
        let wait_ms = self.due_ms().map_or(60_000, |due| due.saturating_sub(now_ms).clamp(0, 60_000));
        Duration::from_millis(wait_ms as u64)
    }

    fn act(&mut self) {
        if self.control.failed() || self.discarded {
            return;
        }
        if self.ended {
            return self.refuse_waiting();
        }
        let now_ms = self.control.clock().steady_ms();
        if let Some(pending) = &self.pending {
            if now_ms.saturating_sub(pending.began_ms) >= self.config.timeout_ms {
                let missing: Vec<String> =
                    pending.missing.iter().map(|(task, subtask)| format!("{task}/{subtask}")).collect();
                let timeout_ms = self.config.timeout_ms;
                self.give_up(Error::external(format!(
                    "no answer within {timeout_ms} ms from task/subtask {}",
                    missing.join(", ")
                )));
            }
            return;
        }
        let due = self.next_ms.is_some_and(|next_ms| now_ms >= next_ms);
        if let Some(request) = self.waiting_savepoints.pop() {
            self.trigger(Some(request), None);
        } else if let Some(reply) = self.waiting_checkpoints.pop() {
            self.trigger(None, Some(reply));
        } else if due {
            self.trigger(None, None);
        }
    }

    fn trigger(&mut self, savepoint: Option<SavepointRequest>, reply: Option<SyncSender<Result<PathBuf>>>) {
        let trigger_ms = self.control.clock().now_ms();
        let folder = match &savepoint {
            Some(request) => match self.savepoint_folder(request) {
                Ok(folder) => Some(folder),
                Err(error) => {
                    let _ = request.reply.send(Err(error));
                    return;
                }
            },
            None => self.config.checkpoints.as_ref().map(|folder| folder.path(self.epoch + 1)),
        };
        self.epoch += 1;
        let last = self.finishing || savepoint.as_ref().is_some_and(|request| request.stop);
        let (is_savepoint, drain) =
            (savepoint.is_some(), savepoint.as_ref().is_some_and(|request| request.stop && request.drain));
        self.pending = Some(Pending {
            epoch: self.epoch,
            trigger_ms,
            began_ms: self.control.clock().steady_ms(),
            folder: folder.clone(),
            missing: self.config.subtasks.clone(),
            acknowledged: Vec::new(),
            operators: BTreeMap::new(),
            parts: Vec::new(),
            savepoint,
            reply,
            last,
        });
        self.lock_report().in_progress = 1;
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = (self.epoch, folder.clone());
        if let Some(folder) = &folder
            && let Err(error) = self.config.storages.at(folder).and_then(|storage| storage.make_folder(folder))
        {
            return self.give_up_before_trigger(error);
        }
        self.control.trigger(self.epoch, is_savepoint, last, drain);
    }

    /// A folder for a savepoint of the next epoch that nothing is in: after a restart an epoch may come again, and who holds a
    /// savepoint keeps it.
    fn savepoint_folder(&self, request: &SavepointRequest) -> Result<PathBuf> {
        let root = request.folder.as_ref().or(self.config.savepoints.as_ref());
        let root = root.ok_or_else(|| Error::input("no folder for savepoints is known").hint("name one"))?;
        let storage = self.config.storages.at(root)?;
        let job = &self.config.job_id[..6.min(self.config.job_id.len())];
        let name = format!("savepoint-{}-{job}", self.epoch + 1);
        for number in 1..=SAME_NAMES_MAX {
            let folder = root.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
            if storage.list(&folder)?.is_empty() {
                return Ok(folder);
            }
        }
        let error = Error::full(format!("`{}` holds {SAME_NAMES_MAX} savepoints `{name}` already", root.display()));
        Err(error.hint("name another folder"))
    }

    /// The folder could not even be made: the epoch was never begun, so its number is free again.
    fn give_up_before_trigger(&mut self, error: Error) {
        self.give_up(error);
        self.epoch -= 1;
    }

    fn acknowledged(&mut self, acknowledgement: Acknowledgement) {
        for operator in &acknowledgement.operators {
            if !operator.tokens.is_empty() {
                let key = (operator.uid.clone(), acknowledgement.subtask);
                self.uncommitted.entry(key).or_default().extend(operator.tokens.iter().cloned());
            }
        }
        let Some(pending) = &mut self.pending else { return };
        if pending.epoch != acknowledgement.epoch {
            return;
        }
        pending.note(&acknowledgement, self.control.clock().now_ms());
        if let Some(error) = acknowledgement.failure {
            return self.give_up(error);
        }
        pending.missing.remove(&(acknowledgement.task, acknowledgement.subtask));
        pending.acknowledged.push(acknowledgement);
        if pending.missing.is_empty()
            && let Err(error) = self.complete()
        {
            self.give_up(error);
        }
    }

    /// Every subtask has answered: the manifest makes the checkpoint exist, then sinks commit.
    fn complete(&mut self) -> Result<()> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let is_savepoint = pending.savepoint.is_some();
        let mut manifest = Manifest {
            version: VERSION,
            job_id: self.config.job_id.clone(),
            job_name: self.config.job_name.clone(),
            epoch: pending.epoch,
            kind: if is_savepoint { "savepoint" } else { "checkpoint" }.to_string(),
            created_ms: self.control.clock().now_ms(),
            key_groups: KEY_GROUPS,
            operators: BTreeMap::new(),
        };
        let small_name = format!("small-{}.state", self.config.attempt);
        let mut small: Vec<u8> = STATE_MAGIC.to_vec();
        for acknowledgement in &mut pending.acknowledged {
            for operator in &mut acknowledgement.operators {
                let state = manifest.operators.entry(operator.uid.clone()).or_default();
                state.parallelism = self.config.parallelism.get(&operator.uid).copied().unwrap_or_default();
                state.sections.append(&mut operator.places);
                state.shapes.extend(std::mem::take(&mut operator.shapes));
                for section in operator.inline.drain(..) {
                    let mut offset = small.len() as u64;
                    state.sections.push(place(&section, acknowledgement.subtask, &small_name, &mut offset));
                    small.extend_from_slice(&section.bytes);
                }
            }
        }
        for state in manifest.operators.values_mut() {
            let OperatorState { sections, shapes, .. } = state;
            shapes.retain(|kind, name| sections.iter().any(|section| section.kind == kind && section.name == name));
        }
        for ((uid, subtask), tokens) in &self.uncommitted {
            let state: &mut OperatorState = manifest.operators.entry(uid.clone()).or_default();
            state.tokens.extend(tokens.iter().map(|token| TokenEntry::new(*subtask, token)));
        }
        if let Some(folder) = &pending.folder {
            let storage = self.config.storages.at(folder)?;
            if small.len() > STATE_MAGIC.len() {
                storage.write(&folder.join(&small_name), &small)?;
            }
            if let Some(error) = self.config.overtaken()? {
                self.control.fail(error.clone());
                return Err(error);
            }
            if let (Some(checkpoints), true) = (&self.config.checkpoints, is_savepoint && pending.last) {
                // Its output is published with it. A job started again goes on from its newest checkpoint: that must be this.
                checkpoints.adopt(&*storage, folder, &manifest)?;
            }
            folder::publish(&*storage, folder, &manifest)?;
        }
        let bytes = manifest.state_bytes();
        if !is_savepoint {
            self.named.insert(manifest.epoch, shared_files(&manifest));
        }
        let Some(pending) = self.pending.take() else { return Ok(()) };
        self.ended = pending.last;
        if is_savepoint && pending.last {
            self.control.suspend();
        }
        // An intermediate savepoint publishes nothing: its tokens go with the next checkpoint.
        if !is_savepoint || pending.last {
            if let Err(error) = self.commit() {
                self.finish(&pending, bytes, None);
                self.control.fail(error);
                return Ok(());
            }
            self.control.set_committed(pending.epoch);
            if let (Some(folder), false) = (&self.config.checkpoints, is_savepoint)
                && let Err(error) = folder.retain(self.config.retained, &mut self.named)
            {
                tracing::warn!(%error, "old checkpoints could not be removed");
            }
            if let Err(error) = self.release_claimed() {
                tracing::warn!(%error, "the snapshot that was claimed could not be removed");
            }
        }
        self.failures = 0;
        self.finish(&pending, bytes, None);
        let path = pending.folder.clone().unwrap_or_default();
        for reply in pending.savepoint.map(|request| request.reply).into_iter().chain(pending.reply) {
            let _ = reply.send(Ok(path.clone()));
        }
        let now_ms = self.control.clock().steady_ms();
        self.next_ms = if pending.last {
            None
        } else if self.finishing {
            Some(i64::MIN)
        } else {
            let paused_ms = now_ms.saturating_add(self.config.min_pause_ms);
            self.config.interval_ms.map(|interval| (pending.began_ms + interval).max(paused_ms))
        };
        Ok(())
    }

    /// Removes what was claimed, as soon as the job has enough checkpoints of its own.
    fn release_claimed(&mut self) -> Result<()> {
        let (Some(claimed), Some(folder)) = (&self.config.claimed, &self.config.checkpoints) else { return Ok(()) };
        if folder.complete()?.len() >= self.config.retained {
            super::release(&self.config.storages, folder, claimed)?;
            self.config.claimed = None;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for ((uid, subtask), tokens) in &self.uncommitted {
            let Some(committer) = self.committers.get_mut(&(uid.clone(), *subtask)) else { continue };
            let mut attempt = 1;
            while let Err(error) = committer.commit(tokens) {
                if attempt >= COMMIT_ATTEMPTS_MAX || self.control.failed() {
                    return Err(error.context(format!("operator `{uid}` could not commit")));
                }
                tracing::warn!(%error, uid, attempt, "commit failed, trying again");
                attempt += 1;
                (self.pause)(Duration::from_millis(RETRY_MS as u64));
            }
        }
        self.uncommitted.clear();
        Ok(())
    }

    /// The checkpoint under way fails; the job goes on, unless it tolerates no more of them.
    fn give_up(&mut self, error: Error) {
        let Some(pending) = &self.pending else { return };
        let (last, periodic) = (pending.last, pending.savepoint.is_none());
        self.abandon(error.clone());
        let now_ms = self.control.clock().steady_ms();
        if self.finishing {
            self.final_attempts += 1;
            if self.final_attempts >= FINAL_ATTEMPTS_MAX {
                self.control.fail(error.clone().context("the last checkpoint of the job could not be completed"));
            }
            self.next_ms = Some(now_ms + RETRY_MS);
        } else if last {
            // Sources have stopped reading for a stop that did not succeed; the job starts again from its last checkpoint.
            self.control.fail(error.clone().context("stopping with a savepoint failed"));
        } else {
            let pause_ms = |interval: i64| interval.min(RETRY_MS.max(interval / 10)).max(self.config.min_pause_ms);
            self.next_ms = self.config.interval_ms.map(|interval| now_ms.saturating_add(pause_ms(interval)));
        }
        // Whoever asked for a savepoint hears of its failure; the job's own checkpoints are what is counted.
        self.failures += u32::from(periodic);
        if let Some(tolerable) =
            self.config.tolerable_failures.filter(|tolerable| periodic && self.failures > *tolerable)
        {
            let failures = self.failures;
            self.control
                .fail(error.context(format!(
                    "{failures} checkpoints in a row have failed, and the job tolerates {tolerable}"
                )));
        }
    }

    /// Nobody waits for the checkpoint under way any more.
    fn abandon(&mut self, error: Error) {
        let Some(pending) = self.pending.take() else { return };
        tracing::warn!(epoch = pending.epoch, %error, "checkpoint failed");
        self.finish(&pending, 0, Some(error.to_string()));
        if let Some(folder) = &pending.folder
            // A manifest may be there, if its publication was done and yet told as an error: it goes first.
            && let Err(error) = self.config.storages.at(folder).and_then(|storage| folder::remove(&*storage, folder))
        {
            tracing::warn!(%error, "what is left of a failed checkpoint stays until the job starts again");
        }
        for reply in pending.savepoint.map(|request| request.reply).into_iter().chain(pending.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// The job is cancelled: removes its checkpoints. None is begun behind it.
    fn discard(&mut self) -> Result<()> {
        self.discarded = true;
        self.abandon(Error::external("the job was cancelled"));
        self.config.checkpoints.as_ref().map_or(Ok(()), CheckpointFolder::remove_all)
    }

    fn refuse_waiting(&mut self) {
        let error = Error::external("the job has ended");
        self.abandon(error.clone());
        for request in self.waiting_savepoints.drain(..) {
            let _ = request.reply.send(Err(error.clone()));
        }
        for reply in self.waiting_checkpoints.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn lock_report(&self) -> std::sync::MutexGuard<'_, CheckpointsReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, pending: &Pending, bytes: u64, failure: Option<String>) {
        let entry = CheckpointReport {
            id: pending.epoch,
            kind: if pending.savepoint.is_some() { "savepoint" } else { "checkpoint" }.to_string(),
            status: if failure.is_some() { "FAILED" } else { "COMPLETED" }.to_string(),
            trigger_ms: pending.trigger_ms,
            duration_ms: self.control.clock().steady_ms().saturating_sub(pending.began_ms).max(0) as u64,
            bytes,
            written_bytes: pending.operators.values().map(|operator| operator.written_bytes).sum(),
            path: pending.folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default(),
            failure,
            alignment_ms: pending.parts.iter().map(|part| part.alignment_ms).max().unwrap_or(0),
            subtasks: self.config.subtasks.len(),
            acknowledged: pending.acknowledged.len(),
            latest_ack_ms: pending.parts.iter().map(|part| part.acknowledged_ms).max(),
            operators: pending.operators.values().cloned().collect(),
            parts: pending.parts.clone(),
        };
        let mut report = self.lock_report();
        report.in_progress = 0;
        if entry.failure.is_some() {
            report.failed += 1;
        } else {
            report.completed += 1;
            let (operators, parts) = (Vec::new(), Vec::new());
            report.latest = Some(CheckpointReport { operators, parts, ..entry.clone() });
        }
        report.remember(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use tidemill_core::ManualClock;

    use super::*;
    use crate::checkpoint::writer::PartTimes;
    use crate::runtime::board::Board;
    use crate::runtime::control::BarrierTimes;

    /// A coordinator of one subtask that is stepped by hand.
    fn coordinator(clock: &Arc<ManualClock>, change: impl FnOnce(&mut CoordinatorConfig)) -> Coordinator {
        let mut config = CoordinatorConfig {
            job_id: "0".repeat(32),
            job_name: "stepped".into(),
            checkpoints: None,
            storages: Arc::default(),
            claimed: None,
            attempt: 1,
            savepoints: None,
            interval_ms: Some(100),
            min_pause_ms: 0,
            timeout_ms: 1000,
            tolerable_failures: None,
            retained: 1,
            restored_epoch: 0,
            subtasks: BTreeSet::from([(0, 0)]),
            parallelism: BTreeMap::new(),
        };
        change(&mut config);
        let control = JobControl::new(
            clock.clone(),
            Board::new(Vec::new()),
            0,
            channel().0,
            config.checkpoints.is_some(),
            Vec::new(),
        );
        Coordinator::new(config, Arc::new(control), Target::default(), Arc::default(), Committers::new())
    }

    fn answer(epoch: u64, failure: Option<Error>) -> Acknowledgement {
        let barrier = BarrierTimes { at_ms: 40, alignment_ms: 30, sync_ms: 2 };
        let times = PartTimes { barrier, async_ms: 5 };
        Acknowledgement { epoch, task: 0, subtask: 0, operators: Vec::new(), times, failure }
    }

    fn under_way(coordinator: &Coordinator) -> Option<u64> {
        coordinator.pending.as_ref().map(|pending| pending.epoch)
    }

    #[test]
    fn a_checkpoint_begins_no_earlier_than_the_pause_allows() {
        let clock = Arc::new(ManualClock::new(0));
        let mut coordinator = coordinator(&clock, |config| config.min_pause_ms = 500);
        clock.set(100);
        coordinator.act();
        clock.set(150);
        coordinator.acknowledged(answer(1, None));
        // By the interval it would begin at 200.
        clock.set(649);
        coordinator.act();
        assert_eq!(under_way(&coordinator), None);
        clock.set(650);
        coordinator.act();
        assert_eq!(under_way(&coordinator), Some(2));
        coordinator.acknowledged(answer(2, Some(Error::full("the disk is full"))));
        clock.set(1149);
        coordinator.act();
        assert_eq!(under_way(&coordinator), None, "a failure is followed by the pause too");
        // Whoever asks does not wait.
        let (reply, _answer) = sync_channel(1);
        coordinator.waiting_checkpoints.push(reply);
        coordinator.act();
        assert_eq!(under_way(&coordinator), Some(3));
    }

    #[test]
    fn so_many_failures_in_a_row_are_tolerated_and_no_more() {
        let clock = Arc::new(ManualClock::new(0));
        let mut coordinator = coordinator(&clock, |config| config.tolerable_failures = Some(1));
        let mut step = |at_ms: i64, failure: Option<Error>| {
            clock.set(at_ms);
            coordinator.act();
            coordinator.acknowledged(answer(under_way(&coordinator).unwrap(), failure));
            coordinator.control.failure()
        };
        let failed = || Some(Error::full("the disk is full"));
        assert!(step(1000, failed()).is_none());
        assert!(step(2000, None).is_none(), "a complete one begins the count anew");
        assert!(step(3000, failed()).is_none());
        let why = step(4000, failed()).unwrap().to_string();
        assert!(why.contains("2 checkpoints in a row have failed") && why.contains("the disk is full"), "{why}");
    }

    #[test]
    fn by_default_any_number_of_failures_is_tolerated_and_a_savepoint_s_never_counts() {
        let clock = Arc::new(ManualClock::new(0));
        let mut unlimited = coordinator(&clock, |_| {});
        let mut strict = coordinator(&clock, |config| {
            config.tolerable_failures = Some(0);
            config.savepoints = Some(PathBuf::from("/proc/no/such/folder"));
        });
        for round in 1..=20 {
            clock.set(round * 10_000);
            unlimited.act();
            // Nobody answers: the time is up.
            clock.set(round * 10_000 + 1000);
            unlimited.act();
        }
        assert!(unlimited.control.failure().is_none());
        assert_eq!(unlimited.lock_report().failed, 20);
        let (reply, savepoint) = sync_channel(1);
        strict.waiting_savepoints.push(SavepointRequest { folder: None, stop: false, drain: false, reply });
        strict.next_ms = None;
        strict.act();
        assert!(savepoint.recv().unwrap().is_err());
        assert!(strict.control.failure().is_none());
    }

    #[test]
    fn the_report_tells_how_each_subtask_s_part_went() {
        let clock = Arc::new(ManualClock::new(0));
        let mut coordinator = coordinator(&clock, |config| config.interval_ms = Some(5));
        clock.set(5);
        coordinator.act();
        clock.set(50);
        coordinator.acknowledged(answer(1, None));
        let entry = coordinator.lock_report().history[0].clone();
        assert_eq!((entry.subtasks, entry.acknowledged, entry.latest_ack_ms), (1, 1, Some(50)));
        let expected = CheckpointPartReport {
            acknowledged_ms: 50,
            start_delay_ms: 5,
            alignment_ms: 30,
            sync_ms: 2,
            async_ms: 5,
            ..Default::default()
        };
        assert_eq!(entry.parts, [expected]);
    }

    #[test]
    fn behind_the_last_epoch_nothing_is_begun_and_who_asks_is_told() {
        let clock = Arc::new(ManualClock::new(0));
        let mut coordinator = coordinator(&clock, |config| config.savepoints = Some(PathBuf::from("/savepoints")));
        coordinator.step(Some(Event::SourcesFinished));
        assert_eq!(under_way(&coordinator), Some(1));
        // Asked for while the last epoch is under way, and behind it.
        let (reply, savepoint) = sync_channel(1);
        coordinator.step(Some(Event::Savepoint(SavepointRequest { folder: None, stop: true, drain: false, reply })));
        coordinator.step(Some(Event::Acknowledged(answer(1, None))));
        assert!(savepoint.recv().unwrap().unwrap_err().to_string().contains("the job has ended"));
        let (reply, checkpoint) = sync_channel(1);
        coordinator.step(Some(Event::Checkpoint { reply }));
        assert!(checkpoint.recv().unwrap().is_err());
        assert_eq!((under_way(&coordinator), coordinator.control.triggered()), (None, 1));
    }

    #[test]
    fn behind_lost_output_no_epoch_completes() {
        let root = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        let folder = CheckpointFolder::open(root.path()).unwrap();
        let mut coordinator = coordinator(&clock, |config| config.checkpoints = Some(folder));
        // The first epoch gets no answer in time, and the second is under way.
        for now_ms in [100, 1_100, 2_000] {
            clock.set(now_ms);
            coordinator.act();
        }
        assert_eq!(under_way(&coordinator), Some(2));
        coordinator.step(Some(Event::OutputLost(Error::external("the broker is away"))));
        coordinator.step(Some(Event::Acknowledged(answer(2, None))));
        assert!(coordinator.control.failed());
        assert_eq!(CheckpointFolder::open(root.path()).unwrap().complete().unwrap(), [] as [u64; 0]);
    }

    #[test]
    fn a_savepoint_stays_as_it_is_when_its_epoch_comes_again() {
        let root = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        let take = |answered: bool| {
            let mut coordinator = coordinator(&clock, |config| config.savepoints = Some(root.path().to_path_buf()));
            let (reply, savepoint) = sync_channel(1);
            let request = SavepointRequest { folder: None, stop: false, drain: false, reply };
            coordinator.step(Some(Event::Savepoint(request)));
            match answered {
                true => coordinator.step(Some(Event::Acknowledged(answer(1, None)))),
                false => coordinator.step(Some(Event::Failed)),
            };
            savepoint.recv().unwrap()
        };
        let first = take(true).unwrap();
        assert!(take(false).is_err());
        let (second, third) = (take(true).unwrap(), take(true).unwrap());
        let names = [&first, &second, &third].map(|path| path.file_name().unwrap().to_str().unwrap());
        assert_eq!(names, ["savepoint-1-000000", "savepoint-1-000000-2", "savepoint-1-000000-3"]);
        assert!([first, second, third].iter().all(|savepoint| savepoint.join("_metadata").exists()));
    }

    #[test]
    fn a_cancelled_job_s_checkpoints_go_and_none_comes_behind() {
        let root = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        let mut coordinator =
            coordinator(&clock, |config| config.checkpoints = Some(CheckpointFolder::open(root.path()).unwrap()));
        clock.set(100);
        coordinator.act();
        coordinator.acknowledged(answer(1, None));
        let folder = CheckpointFolder::open(root.path()).unwrap();
        assert_eq!(folder.complete().unwrap(), [1]);
        clock.set(200);
        coordinator.act();
        coordinator.discard().unwrap();
        coordinator.acknowledged(answer(2, None));
        clock.set(1000);
        coordinator.act();
        assert_eq!(folder.complete().unwrap(), [0; 0]);
        assert!(!folder.path(2).exists() && under_way(&coordinator).is_none());
    }
}
