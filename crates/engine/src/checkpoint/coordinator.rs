//! Starts epochs, waits for every subtask, writes manifests, has sinks commit. One thread a job; one checkpoint at a time.
//!
//! A checkpoint that fails does not fail a healthy job: the next one covers it, because sinks' tokens are kept until a
//! manifest that names them is written. Only the last one, without which a job cannot end, is tried a bounded number of
//! times.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::report::{CheckpointReport, CheckpointsReport};
use tidemill_core::sink::{Committer, Token};
use tidemill_core::{Error, Result};

use super::folder::{self, CheckpointFolder, NamedFiles, STATE_MAGIC, place, shared_files, write_file};
use super::manifest::{Manifest, OperatorState, TokenEntry, VERSION};
use super::writer::{Acknowledgement, Target};
use crate::key::KEY_GROUPS;
use crate::runtime::control::JobControl;

/// How often the last checkpoint of a job is tried before the job fails.
const FINAL_ATTEMPTS_MAX: u32 = 10;

/// How often one commit is tried before the job fails and recovers.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// The pause before a failed checkpoint or commit is tried again.
const RETRY_MS: i64 = 500;

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
    pub savepoints: Option<PathBuf>,
    pub interval_ms: Option<i64>,
    pub timeout_ms: i64,
    pub retained: usize,
    pub restored_epoch: u64,
    /// Every subtask that answers: (task, subtask).
    pub subtasks: BTreeSet<(usize, usize)>,
    /// Subtasks of each operator.
    pub parallelism: BTreeMap<String, usize>,
}

struct Pending {
    epoch: u64,
    trigger_ms: i64,
    folder: Option<PathBuf>,
    missing: BTreeSet<(usize, usize)>,
    acknowledged: Vec<Acknowledgement>,
    savepoint: Option<SavepointRequest>,
    reply: Option<SyncSender<Result<PathBuf>>>,
    last: bool,
}

type Committers = BTreeMap<(String, usize), Box<dyn Committer>>;

pub(crate) struct Coordinator {
    pub config: CoordinatorConfig,
    pub control: Arc<JobControl>,
    pub target: Target,
    pub report: Arc<Mutex<CheckpointsReport>>,
    /// By operator and subtask.
    pub committers: Committers,
    epoch: u64,
    pending: Option<Pending>,
    next_ms: Option<i64>,
    uncommitted: BTreeMap<(String, usize), Vec<Token>>,
    /// Which shared files retained checkpoints name.
    named: NamedFiles,
    finishing: bool,
    final_attempts: u32,
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
        let next_ms = config.interval_ms.map(|interval| control.clock().now_ms() + interval);
        Coordinator {
            config,
            control,
            target,
            report,
            committers,
            epoch,
            pending: None,
            next_ms,
            uncommitted: BTreeMap::new(),
            named: NamedFiles::new(),
            finishing: false,
            final_attempts: 0,
            waiting_savepoints: Vec::new(),
            waiting_checkpoints: Vec::new(),
        }
    }

    /// Runs until the workers have ended.
    pub fn run(mut self, events: Receiver<Event>) {
        loop {
            match events.recv_timeout(self.patience()) {
                Ok(Event::Done) | Err(RecvTimeoutError::Disconnected) => return self.refuse_waiting(),
                Ok(Event::Failed) => self.give_up(Error::external("the job failed while the checkpoint was under way")),
                Ok(Event::Acknowledged(acknowledgement)) => self.acknowledged(acknowledgement),
                Ok(Event::OutputLost(error)) => self.control.fail(error),
                Ok(Event::SourcesFinished) => {
                    self.finishing = true;
                    self.next_ms = Some(i64::MIN);
                }
                Ok(Event::Checkpoint { reply }) => self.waiting_checkpoints.push(reply),
                Ok(Event::Savepoint(request)) => self.waiting_savepoints.push(request),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.act();
        }
    }

    fn patience(&self) -> Duration {
        let now_ms = self.control.clock().now_ms();
        let due = match &self.pending {
            Some(pending) => Some(pending.trigger_ms.saturating_add(self.config.timeout_ms)),
            None => self.next_ms,
        };
        let wait_ms = due.map_or(60_000, |due| due.saturating_sub(now_ms).clamp(0, 60_000));
        Duration::from_millis(wait_ms as u64)
    }

    fn act(&mut self) {
        if self.control.failed() {
            return;
        }
        let now_ms = self.control.clock().now_ms();
        if let Some(pending) = &self.pending {
            if now_ms.saturating_sub(pending.trigger_ms) >= self.config.timeout_ms {
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
        self.epoch += 1;
        let folder = match &savepoint {
            Some(request) => match request.folder.clone().or_else(|| self.config.savepoints.clone()) {
                Some(root) => Some(root.join(format!(
                    "savepoint-{}-{}",
                    self.epoch,
                    &self.config.job_id[..6.min(self.config.job_id.len())]
                ))),
                None => {
                    self.epoch -= 1;
                    let _ = request.reply.send(Err(Error::input("no folder for savepoints is known").hint("name one")));
                    return;
                }
            },
            None => self.config.checkpoints.as_ref().map(|folder| folder.path(self.epoch)),
        };
        let last = self.finishing || savepoint.as_ref().is_some_and(|request| request.stop);
        let (is_savepoint, drain) =
            (savepoint.is_some(), savepoint.as_ref().is_some_and(|request| request.stop && request.drain));
        self.pending = Some(Pending {
            epoch: self.epoch,
            trigger_ms,
            folder: folder.clone(),
            missing: self.config.subtasks.clone(),
            acknowledged: Vec::new(),
            savepoint,
            reply,
            last,
        });
        self.lock_report().in_progress = 1;
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = (self.epoch, folder.clone());
        if let Some(folder) = &folder
            && let Err(e) = std::fs::create_dir_all(folder)
        {
            let error = Error::io(format!("make the checkpoint folder `{}`", folder.display()), e);
            return self.give_up_before_trigger(error);
        }
        self.control.trigger(self.epoch, is_savepoint, last, drain);
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
        let mut small: Vec<u8> = STATE_MAGIC.to_vec();
        for acknowledgement in &mut pending.acknowledged {
            for operator in &mut acknowledgement.operators {
                let state = manifest.operators.entry(operator.uid.clone()).or_default();
                state.parallelism = self.config.parallelism.get(&operator.uid).copied().unwrap_or_default();
                state.sections.append(&mut operator.places);
                for section in operator.inline.drain(..) {
                    let mut offset = small.len() as u64;
                    state.sections.push(place(&section, acknowledgement.subtask, "small.state", &mut offset));
                    small.extend_from_slice(&section.bytes);
                }
            }
        }
        for ((uid, subtask), tokens) in &self.uncommitted {
            let state: &mut OperatorState = manifest.operators.entry(uid.clone()).or_default();
            state.tokens.extend(tokens.iter().map(|token| TokenEntry::new(*subtask, token)));
        }
        if let Some(folder) = &pending.folder {
            if small.len() > STATE_MAGIC.len() {
                write_file(&folder.join("small.state"), &[&small])?;
            }
            if let (Some(checkpoints), true) = (&self.config.checkpoints, is_savepoint && pending.last) {
                // Its output is published with it. A job started again goes on from its newest checkpoint: that must be this.
                checkpoints.adopt(folder, &manifest)?;
            }
            folder::publish(folder, &manifest)?;
        }
        let bytes = manifest.state_bytes();
        if !is_savepoint {
            self.named.insert(manifest.epoch, shared_files(&manifest));
        }
        let Some(pending) = self.pending.take() else { return Ok(()) };
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
        }
        self.finish(&pending, bytes, None);
        let path = pending.folder.clone().unwrap_or_default();
        for reply in pending.savepoint.map(|request| request.reply).into_iter().chain(pending.reply) {
            let _ = reply.send(Ok(path.clone()));
        }
        let now_ms = self.control.clock().now_ms();
        self.next_ms = if pending.last {
            None
        } else if self.finishing {
            Some(i64::MIN)
        } else {
            self.config.interval_ms.map(|interval| (pending.trigger_ms + interval).max(now_ms))
        };
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
                std::thread::park_timeout(Duration::from_millis(RETRY_MS as u64));
            }
        }
        self.uncommitted.clear();
        Ok(())
    }

    /// The checkpoint under way fails; the job goes on.
    fn give_up(&mut self, error: Error) {
        let Some(pending) = self.pending.take() else { return };
        tracing::warn!(epoch = pending.epoch, %error, "checkpoint failed");
        self.finish(&pending, 0, Some(error.to_string()));
        if let Some(folder) = &pending.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
        let now_ms = self.control.clock().now_ms();
        if self.finishing {
            self.final_attempts += 1;
            if self.final_attempts >= FINAL_ATTEMPTS_MAX {
                self.control.fail(error.clone().context("the last checkpoint of the job could not be completed"));
            }
            self.next_ms = Some(now_ms + RETRY_MS);
        } else if pending.last {
            // Sources have stopped reading for a stop that did not succeed; the job starts again from its last checkpoint.
            self.control.fail(error.clone().context("stopping with a savepoint failed"));
        } else {
            self.next_ms = self.config.interval_ms.map(|interval| now_ms + interval.min(RETRY_MS.max(interval / 10)));
        }
        for reply in pending.savepoint.map(|request| request.reply).into_iter().chain(pending.reply) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn refuse_waiting(&mut self) {
        let error = Error::external("the job has ended");
        self.give_up(error.clone());
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
            duration_ms: self.control.clock().now_ms().saturating_sub(pending.trigger_ms).max(0) as u64,
            bytes,
            written_bytes: pending.acknowledged.iter().map(|acknowledgement| acknowledgement.written_bytes).sum(),
            path: pending.folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default(),
            failure,
        };
        let mut report = self.lock_report();
        report.in_progress = 0;
        if entry.failure.is_some() {
            report.failed += 1;
        } else {
            report.completed += 1;
            report.latest = Some(entry.clone());
        }
        report.history.insert(0, entry);
        report.history.truncate(CheckpointsReport::HISTORY_MAX);
    }
}
