//! The life of one job: start its process (or take over one that runs), look after it, read its end, start it again
//! or give it up. One task a job; it alone changes the job's state.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tidemill_core::report::Report;
use tidemill_core::{Error, SharedClock};
use tokio::sync::watch;

use super::checkpoints::CheckpointRetention;
use super::control;
use super::ending::{self, Ending, Wish};
use super::job::Job;
use super::log;
use super::model::{JobRecord, JobState};
use super::process::{Exit, Launch, Member, Outcome, ProcessId, Running, ServerAccess, retryable, slot_demand};
use super::program;
use super::restart::Backoff;
use super::spec::JobSpec;
use super::store::{JobStore, blocking};
use super::supervisor::SupervisorConfig;
use crate::agents::host;
use crate::agents::hub::{Agents, Placement};
use crate::agents::place::Wanted;

/// How often a process is asked for its report in its first seconds.
const POLL_FIRST: Duration = Duration::from_millis(250);
/// How many reports come that fast.
const POLLS_FAST: u32 = 40;
/// How often it is asked later.
const POLL: Duration = Duration::from_secs(1);
/// A process that has answered and then is silent for this long is ended and started again, as in Flink.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(50);
/// A process that has never answered by then is given up.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process of an earlier server may take to answer before it is ended.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a request to cancel the process has this long before it gets SIGTERM.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// After SIGTERM it has this long before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// After a savepoint to stop with, the process has this long to end by itself.
const STOP_GRACE: Duration = Duration::from_secs(60);

/// When a process on another host is gone, the first one has this long to end by itself.
const MEMBER_GONE_GRACE: Duration = Duration::from_secs(5);
/// A job that can do with fewer workers waits this long for more.
const SLOTS_SETTLE: Duration = Duration::from_secs(4);
/// How often a job that waits for room looks for it.
const SLOTS_POLL: Duration = Duration::from_millis(250);
/// The exit code of a cancelled process.
const CANCELLED: i32 = 130;

/// What the server asks of all workers when it ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEnd {
    /// The server runs.
    No,
    /// Processes run on and are adopted by the next server.
    LeaveJobs,
    /// Processes are ended; the next server starts the jobs again from their last checkpoints.
    EndJobs,
}

/// What every worker shares.
pub(super) struct Shared {
    pub config: SupervisorConfig,
    pub store: JobStore,
    pub clock: SharedClock,
    pub server_end: watch::Sender<ServerEnd>,
}

/// How an attempt is left.
enum Left {
    /// The process has ended.
    Exit(Exit),
    /// It could not be started, or had to be ended, for this reason.
    Error(Error),
    /// The server ends.
    ServerEnd,
}

/// Leads a job to its end. `resume` says that an earlier server had it.
pub(super) async fn run(shared: Arc<Shared>, job: Arc<Job>, resume: bool) {
    let worker = Worker { shared, job };
    worker.lead(resume).await;
    worker.job.idle.send_replace(true);
}

struct Worker {
    shared: Arc<Shared>,
    job: Arc<Job>,
}

impl Worker {
    async fn lead(&self, resume: bool) {
        let mut backoff = Backoff::new(self.job.record().spec.restart.clone());
        let mut inherited = if resume { self.inherit().await } else { None };
        loop {
            let log_from = log::length(&self.job.dir);
            let left = match inherited.take() {
                Some(left) => left,
                None => self.attempt().await,
            };
            let last_report = self.job.process_gone();
            let Some((ending, retry)) = self.read_end(left, log_from) else { return };
            if self.grown(&ending).await || self.wants_other_slots(&ending).await {
                continue;
            }
            match ending {
                Ending::Ended(state, why) => return self.end(state, why, last_report).await,
                Ending::Failed(why) => {
                    let delay_ms = if retry { self.delay_ms(&mut backoff) } else { None };
                    match delay_ms {
                        None => return self.end(JobState::Failed, Some(why), last_report).await,
                        Some(delay_ms) if self.wait_restart(&why, delay_ms).await => {}
                        Some(_) => return,
                    }
                }
            }
        }
    }

    /// What the end of an attempt means, and whether a failure may be tried again. `None`: the server ends.
    fn read_end(&self, left: Left, log_from: u64) -> Option<(Ending, bool)> {
        let wish = *self.job.wish.borrow();
        let (ending, retry) = match left {
            Left::ServerEnd => return None,
            Left::Exit(exit) => {
                let said = log::last_error(&self.job.dir, log_from);
                (ending::read(exit, wish, Outcome::read(&self.job.dir).as_ref(), said), true)
            }
            Left::Error(_) if wish == Wish::Cancel => (Ending::Ended(JobState::Canceled, None), false),
            Left::Error(e) => (Ending::Failed(e.to_string()), retryable(&e)),
        };
        match ending {
            // The savepoint is there: what fails behind it loses nothing.
            Ending::Failed(why) if matches!(wish, Wish::Stopped { .. }) => {
                Some((Ending::Ended(wish.ended_state(), Some(why)), false))
            }
            ending => Some((ending, retry)),
        }
    }

    /// Whether the job was stopped only to be started again on more hosts.
    async fn grown(&self, ending: &Ending) -> bool {
        let ours = self.job.record().rescaling && *self.job.wish.borrow() == Wish::Run;
        if !ours || !matches!(ending, Ending::Ended(JobState::Suspended, _)) {
            return false;
        }
        let now_ms = self.shared.clock.now_ms();
        let record = self.job.change(|record| {
            record.process = None;
            record.rescaling = false;
            record.enter(JobState::Restarting, now_ms);
        });
        self.keep(&record).await;
        true
    }

    /// Whether the job did not start because it takes more slots than it was given: it has told how many by now.
    async fn wants_other_slots(&self, ending: &Ending) -> bool {
        let (record, demand) = (self.job.record(), slot_demand(&self.job.dir));
        let Some(start) = record.placement.as_ref().map(|placement| &placement.start) else { return false };
        let slots = demand.slots(start.parallelism);
        if !matches!(ending, Ending::Failed(_))
            || *self.job.wish.borrow() != Wish::Run
            || !(1..slots).contains(&start.slots)
        {
            return false;
        }
        tracing::info!(job = self.job.id, slots, given = start.slots, "the job takes more slots than it was given");
        let now_ms = self.shared.clock.now_ms();
        let record = self.job.change(|record| {
            record.process = None;
            record.placement = None;
            record.enter(JobState::Restarting, now_ms);
        });
        self.keep(&record).await;
        true
    }

    fn wanted(&self, spec: &JobSpec, cores: usize) -> Wanted {
        spec.wanted(cores, slot_demand(&self.job.dir))
    }

    /// More workers than the job has would have room now, and it would take them.
    fn may_grow(&self) -> bool {
        let (record, agents) = (self.job.record(), self.shared.config.agents.as_ref());
        let (Some(agents), spec) = (agents, &record.spec) else { return false };
        if !spec.reactive && spec.parallelism_min.is_none() {
            return false;
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        record.placement.is_some_and(|placement| {
            agents.room_for(&self.job.id, &self.wanted(spec, cores)) > placement.start.parallelism
        })
    }

    /// Stops the job with a savepoint, so that it is started again on all the room there is.
    async fn grow(&self) {
        let record = self.job.change(|record| record.rescaling = true);
        self.keep(&record).await;
        let _one = self.job.savepoint.lock().await;
        tracing::info!(job = self.job.id, "there is more room: the job is started again with more workers");
        match control::savepoint(&self.job.dir, true, false).await {
            // The job's own checkpoint folder holds the same.
            Ok(path) => {
                if let Err(e) = std::fs::remove_dir_all(&path) {
                    tracing::warn!(job = self.job.id, path, error = %e, "a savepoint of a rescaling stays behind");
                }
            }
            Err(e) => {
                tracing::warn!(job = self.job.id, error = %e, "the job does not grow now");
                let record = self.job.change(|record| record.rescaling = false);
                self.keep(&record).await;
            }
        }
    }

    /// How long to wait before the next start; `None`: give up.
    fn delay_ms(&self, backoff: &mut Backoff) -> Option<u64> {
        let (record, now_ms) = (self.job.record(), self.shared.clock.now_ms());
        let running_since =
            record.timestamps.get(JobState::Running.name()).filter(|_| record.state == JobState::Running);
        let ran_ms = running_since.and_then(|since| u64::try_from(now_ms - since).ok()).unwrap_or(0);
        backoff.failed(now_ms, ran_ms, crate::random::unit())
    }

    async fn end(&self, state: JobState, why: Option<String>, last_report: Option<Report>) {
        let now_ms = self.shared.clock.now_ms();
        let record = self.job.change(|record| {
            record.process = None;
            record.placement = None;
            record.last_report = last_report;
            if let Some(why) = &why {
                record.failed(why, now_ms);
            }
            record.enter(state, now_ms);
        });
        tracing::info!(job = self.job.id, state = state.name(), failure = why, "job ended");
        let retention = record.spec.checkpoints.retention;
        if state == JobState::Canceled && retention == Some(CheckpointRetention::DeleteOnCancellation) {
            self.delete_checkpoints().await;
        }
        self.keep(&record).await;
    }

    /// What the process could not remove itself, because it did not live any more or had to be killed.
    async fn delete_checkpoints(&self) {
        let folder = self.job.dir.join("checkpoints");
        let removed = blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove `{}`", folder.display()), e))
            }
            _ => Ok(()),
        });
        if let Err(error) = removed.await {
            tracing::warn!(job = self.job.id, %error, "the checkpoints of the cancelled job stay");
        }
    }

    /// Writes the record down. A disk that refuses must not end what runs: the next change tries again, and a server
    /// that starts with an old record finds the process by its socket.
    async fn keep(&self, record: &JobRecord) {
        if let Err(e) = self.shared.store.save(record).await {
            tracing::error!(job = self.job.id, error = %e, "the job's record is not stored");
        }
    }

    /// Waits until the next start is due. False: the job ended, or the server does.
    async fn wait_restart(&self, why: &str, delay_ms: u64) -> bool {
        let now_ms = self.shared.clock.now_ms();
        let record = self.job.change(|record| {
            record.process = None;
            record.failed(why, now_ms);
            record.enter(JobState::Restarting, now_ms);
        });
        tracing::warn!(job = self.job.id, failure = why, delay_ms, "job failed, will be restarted");
        self.keep(&record).await;
        let mut wish = self.job.wish.subscribe();
        let mut server = self.shared.server_end.subscribe();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
            wish = wished_away(&mut wish) => {
                let state = wish.ended_state();
                self.end(state, None, self.job.snapshot().1).await;
                return false;
            }
            _ = server_ends(&mut server) => return false,
        }
        let record = self.job.change(|record| record.restarts += 1);
        self.keep(&record).await;
        true
    }

    /// Finds room, starts the job's processes and looks after them to their end.
    async fn attempt(&self) -> Left {
        let placement = match &self.shared.config.agents {
            None => None,
            Some(agents) => match self.placed(agents).await {
                Ok(placement) => placement,
                Err(left) => return left,
            },
        };
        let left = self.start(placement).await;
        if !matches!(left, Left::ServerEnd) {
            self.release();
        }
        left
    }

    /// Waits until there is room for the job. `None`: no agent has ever come, the job is one process here.
    async fn placed(&self, agents: &Agents) -> std::result::Result<Option<Placement>, Left> {
        let record = self.job.record();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        if agents.list().len() == 1 && !record.spec.reactive {
            return Ok(None);
        }
        let (wanted, generation) = (self.wanted(&record.spec, cores), record.attempts + 1);
        let most_only = Wanted { least: wanted.most, ..wanted.clone() };
        let (mut wish, mut server) = (self.job.wish.subscribe(), self.shared.server_end.subscribe());
        let begun = tokio::time::Instant::now();
        let mut told = false;
        loop {
            // At first only what is wanted at most: an agent may be about to come back.
            let settled = begun.elapsed() >= SLOTS_SETTLE;
            let now = if settled { &wanted } else { &most_only };
            match agents.place(&self.job.id, generation, &record.spec, now) {
                Ok(None) => {}
                Ok(placement) => return Ok(placement),
                Err(e) => return Err(Left::Error(e)),
            }
            if settled && !told {
                told = true;
                let (least, slots) = (wanted.least, wanted.demand.slots(wanted.least));
                tracing::warn!(job = self.job.id, least, slots, "no room for the job's workers: it waits for slots");
            }
            tokio::select! {
                () = tokio::time::sleep(SLOTS_POLL) => {}
                () = cancelled(&mut wish) => return Err(Left::Exit(Exit::Code(CANCELLED))),
                _ = server_ends(&mut server) => return Err(Left::ServerEnd),
            }
        }
    }

    /// Agents end what they run of the job.
    fn release(&self) {
        if let Some(agents) = &self.shared.config.agents {
            agents.release(&self.job.id);
        }
    }

    async fn start(&self, placement: Option<Placement>) -> Left {
        let spec = self.job.record().spec;
        if let Err(e) = self.shared.config.lease.check().and_then(|()| Outcome::remove(&self.job.dir)) {
            return Left::Error(e);
        }
        let program = match program::find(&self.shared.config.programs, &spec.program) {
            Ok(program) => program,
            Err(e) => return Left::Error(e),
        };
        let member = match self.first_member(placement.as_ref()) {
            Ok(member) => member,
            Err(e) => return Left::Error(e),
        };
        let launch = Launch {
            program,
            runner: self.shared.config.runner.clone(),
            job_id: self.job.id.clone(),
            dir: self.job.dir.clone(),
            data: self.shared.config.data.clone(),
            server: Some(ServerAccess {
                url: self.shared.config.server.clone(),
                token: self.shared.config.writer_token.clone(),
                authority: self.shared.config.authority.clone(),
            }),
            spec,
            folder: None,
            in_foreground: false,
            member,
        };
        let mut running = match Running::start(&launch) {
            Ok(running) => running,
            Err(e) => return Left::Error(e),
        };
        let id = running.id();
        let record = self.job.change(|record| {
            record.process = Some(id);
            record.placement = placement;
            record.attempts += 1;
        });
        self.keep(&record).await;
        let left = self.look_after(&mut running).await;
        if !matches!(left, Left::ServerEnd) {
            // Helpers the process may have left behind would hold its files.
            id.signal_group(Signal::KILL);
        }
        left
    }

    /// The first process of several, which runs here.
    fn first_member(&self, placement: Option<&Placement>) -> tidemill_core::Result<Option<Member>> {
        let (Some(placement), Some(agents)) = (placement, &self.shared.config.agents) else { return Ok(None) };
        let start = placement.start.clone();
        let secret = agents.job_secret(&self.job.id, start.generation);
        let secret_file = host::write_secret(&self.job.dir, "start", &secret)?;
        Ok(Some(Member { process: 0, start, secret_file }))
    }

    /// Finds out what became of the process an earlier server started: takes it over, or makes sure it is gone.
    /// `None`: a new one is to be started, and nothing failed.
    async fn inherit(&self) -> Option<Left> {
        let record = self.job.record();
        if let (Some(agents), Some(placement)) = (&self.shared.config.agents, &record.placement) {
            agents.adopt(&self.job.id, &record.spec, placement.clone());
        }
        let left = self.inherit_process(record).await;
        if !matches!(left, Some(Left::ServerEnd)) {
            self.release();
        }
        left
    }

    async fn inherit_process(&self, record: JobRecord) -> Option<Left> {
        let deadline = tokio::time::Instant::now() + ADOPT_TIMEOUT;
        let id = loop {
            let lives = log::in_use(&self.job.dir) || record.process.is_some_and(|id| id.alive());
            if !lives {
                break None;
            }
            match control::report(&self.job.dir).await {
                Ok(report) if report.job_id == self.job.id => {
                    let id = i32::try_from(report.pid).ok().map(ProcessId::of).filter(ProcessId::alive);
                    if id.is_some() {
                        break id;
                    }
                }
                _ => {}
            }
            if tokio::time::Instant::now() >= deadline {
                break None;
            }
            tokio::time::sleep(POLL_FIRST).await;
        };
        let Some(id) = id else {
            let old = record.process?;
            if old.alive() {
                old.signal_group(Signal::KILL);
                Running::adopt(old).wait_for(TERM_GRACE).await;
            }
            return Some(Left::Exit(Exit::Unknown));
        };
        tracing::info!(job = self.job.id, pid = id.pid, "took over a running job");
        let record = self.job.change(|record| record.process = Some(id));
        self.keep(&record).await;
        let left = self.look_after(&mut Running::adopt(id)).await;
        if !matches!(left, Left::ServerEnd) {
            id.signal_group(Signal::KILL);
        }
        Some(left)
    }

    /// Polls the process until it ends, is wished away, or is silent for too long.
    async fn look_after(&self, running: &mut Running) -> Left {
        let mut wish = self.job.wish.subscribe();
        let mut server = self.shared.server_end.subscribe();
        let mut heard = tokio::time::Instant::now();
        let (mut answered, mut polls) = (false, 0u32);
        let mut room_since: Option<tokio::time::Instant> = None;
        loop {
            let poll = async {
                let pause = if polls < POLLS_FAST { POLL_FIRST } else { POLL };
                tokio::time::sleep(pause).await;
                control::report(&self.job.dir).await
            };
            let reported = tokio::select! {
                exit = running.wait() => return Left::Exit(exit),
                () = cancelled(&mut wish) => return Left::Exit(self.cancel(running).await),
                end = server_ends(&mut server) => return self.leave(running, end).await,
                reported = poll => reported,
            };
            if let Some(trouble) = self.shared.config.agents.as_ref().and_then(|agents| agents.trouble(&self.job.id))
                && let Some(left) = self.member_gone(running, trouble).await
            {
                return left;
            }
            polls = polls.saturating_add(1);
            if let Err(e) = log::rotate(&self.job.dir, log::LOG_BYTES_MAX) {
                tracing::warn!(job = self.job.id, error = %e, "the job's log cannot be rotated");
            }
            if !(answered && self.may_grow()) {
                room_since = None;
            } else if room_since.get_or_insert_with(tokio::time::Instant::now).elapsed() >= SLOTS_SETTLE {
                room_since = None;
                self.grow().await;
            }
            let silent = heard.elapsed();
            match reported {
                Ok(report) if report.job_id == self.job.id => {
                    (answered, heard) = (true, tokio::time::Instant::now());
                    self.job.reported(report);
                    self.running().await;
                }
                Ok(_) | Err(_) if answered && silent > HEARTBEAT_TIMEOUT => {
                    running.end(TERM_GRACE).await;
                    let text = format!("the process did not answer for {} s and was ended", silent.as_secs());
                    return Left::Error(Error::external(text));
                }
                Ok(_) | Err(_) if !answered && silent > FIRST_ANSWER_TIMEOUT => {
                    running.end(TERM_GRACE).await;
                    let text = format!("the program opened no control socket within {} s", silent.as_secs());
                    // One that has answered before is known to be a job: it was slow, and may do better.
                    let known = self.job.record().timestamps.contains_key(JobState::Running.name());
                    return Left::Error(match known {
                        true => Error::external(text),
                        false => Error::input(text).hint("is it built on the tidemill library?"),
                    });
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Another process of the job is gone. The first one notices by itself and knows best why; one that does not is ended.
    /// `None`: the job is ending anyway.
    async fn member_gone(&self, running: &mut Running, trouble: String) -> Option<Left> {
        if let Some(exit) = running.wait_for(MEMBER_GONE_GRACE).await {
            return Some(Left::Exit(exit));
        }
        if *self.job.wish.borrow() != Wish::Run {
            return None;
        }
        running.end(TERM_GRACE).await;
        Some(Left::Error(Error::external(trouble)))
    }

    /// The process has answered.
    async fn running(&self) {
        if self.job.state() == JobState::Running {
            return;
        }
        let now_ms = self.shared.clock.now_ms();
        let record = self.job.change(|record| record.enter(JobState::Running, now_ms));
        tracing::info!(job = self.job.id, "job runs");
        self.keep(&record).await;
    }

    /// Ends the process because somebody asked for it: politely, then firmly.
    async fn cancel(&self, running: &mut Running) -> Exit {
        if control::cancel(&self.job.dir).await.is_ok()
            && let Some(exit) = running.wait_for(CANCEL_GRACE).await
        {
            return exit;
        }
        running.end(TERM_GRACE).await
    }

    /// The server ends: the process is left alone, or ended so that the next server starts it again.
    async fn leave(&self, running: &mut Running, end: ServerEnd) -> Left {
        if end == ServerEnd::EndJobs {
            running.end(TERM_GRACE).await;
            // Without a process on record the next server starts the job without counting a failure.
            let record = self.job.change(|record| record.process = None);
            if let Err(e) = Outcome::remove(&self.job.dir) {
                tracing::warn!(job = self.job.id, error = %e, "the next server may take this end for the job's own");
            }
            self.keep(&record).await;
        }
        Left::ServerEnd
    }
}

/// Returns when the job is to end without a savepoint.
async fn cancelled(wish: &mut watch::Receiver<Wish>) {
    // The job owns the sender, and the worker owns the job: the wait cannot break off.
    let _ = wish.wait_for(|wish| *wish == Wish::Cancel).await;
}

/// Returns when the job need not be started again.
async fn wished_away(wish: &mut watch::Receiver<Wish>) -> Wish {
    let gone = |wish: &Wish| matches!(wish, Wish::Cancel | Wish::Stopped { .. });
    wish.wait_for(gone).await.map_or(Wish::Cancel, |wish| *wish)
}

/// Returns when the server ends.
async fn server_ends(end: &mut watch::Receiver<ServerEnd>) -> ServerEnd {
    end.wait_for(|end| *end != ServerEnd::No).await.map_or(ServerEnd::LeaveJobs, |end| *end)
}

/// Waits for a job whose stop savepoint is complete; ends its process when it does not by itself.
pub(super) async fn await_stopped(job: &Job) {
    let mut idle = job.idle.subscribe();
    if tokio::time::timeout(STOP_GRACE, idle.wait_for(|idle| *idle)).await.is_err() {
        tracing::warn!(job = job.id, "the process did not end behind its savepoint and is ended");
        if let Some(id) = job.record().process {
            id.signal_group(Signal::KILL);
        }
        // The group has been killed: the worker sees the end and finishes.
        let _ = idle.wait_for(|idle| *idle).await;
    }
}
