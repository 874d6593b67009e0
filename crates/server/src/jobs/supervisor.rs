//! All jobs of the server: what a user can ask for, each with its clear refusal. HTTP is far away from here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tidemill_core::{Error, Result, SharedClock};
use tokio::sync::watch;

use super::control;
use super::ending::Wish;
use super::job::Job;
use super::model::{JobRecord, JobState};
use super::process::slot_demand;
use super::program;
use super::spec::JobSpec;
use super::store::{JobStore, blocking};
use super::worker::{self, ServerEnd, Shared};
use crate::agents::hub::Agents;
use crate::lease::Lease;

/// What the supervisor needs to know to start processes.
#[derive(Clone)]
pub struct SupervisorConfig {
    /// The data folder; jobs stand in `<data>/jobs/<id>`.
    pub data: PathBuf,
    /// The folder programs are taken from.
    pub programs: PathBuf,
    /// The executable that runs `.toml` job files.
    pub runner: PathBuf,
    /// The server's address, for live sinks.
    pub server: String,
    /// The authorities by which they check its certificate, PEM; `None`: the system's.
    pub authority: Option<PathBuf>,
    /// The token the server asks of writers.
    pub writer_token: String,
    /// Further hosts, where the server takes some.
    pub agents: Option<Arc<Agents>>,
    /// Says whether this server still acts.
    pub lease: Arc<Lease>,
}

/// Why a call was refused.
#[derive(Debug, Clone)]
pub enum JobError {
    /// There is no such job.
    NotFound(String),
    /// The job is not in a state for this.
    Conflict(String),
    /// Anything else.
    Other(Error),
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        JobError::Other(error)
    }
}

impl std::fmt::Display for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JobError::NotFound(text) | JobError::Conflict(text) => f.write_str(text),
            JobError::Other(error) => error.fmt(f),
        }
    }
}

/// All jobs.
pub struct Supervisor {
    shared: Arc<Shared>,
    jobs: RwLock<BTreeMap<String, Arc<Job>>>,
    changes: watch::Sender<u64>,
}

impl Supervisor {
    /// The most jobs kept, ended ones included.
    pub const JOBS_MAX: usize = 1000;

    /// Reads the jobs of an earlier server and looks after those that have not ended.
    pub async fn start(config: SupervisorConfig, store: JobStore, clock: SharedClock) -> Result<Arc<Supervisor>> {
        let records = {
            let store = store.clone();
            blocking(move || store.load()).await?
        };
        let server_end = watch::Sender::new(ServerEnd::No);
        let changes = watch::Sender::new(0);
        let shared = Arc::new(Shared { config, store, clock, server_end });
        let mut jobs = BTreeMap::new();
        for record in records {
            let dir = job_dir(&shared.config, &record.id);
            // Between the two halves of a rescaling the job has ended in name only.
            let interrupted = record.rescaling && record.state == JobState::Suspended;
            let job = Job::new(record, dir, changes.clone());
            if !job.state().ended() {
                tokio::spawn(worker::run(shared.clone(), job.clone(), true));
            } else if interrupted {
                job.idle.send_replace(false);
                let now_ms = shared.clock.now_ms();
                job.change(|record| {
                    record.rescaling = false;
                    record.enter(JobState::Created, now_ms);
                });
                tokio::spawn(worker::run(shared.clone(), job.clone(), false));
            }
            jobs.insert(job.id.clone(), job);
        }
        Ok(Arc::new(Supervisor { shared, jobs: RwLock::new(jobs), changes }))
    }

    /// Waits for changes of any job's state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All jobs, newest first.
    pub fn list(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<Arc<Job>> =
            self.jobs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        jobs.sort_by_cached_key(|job| std::cmp::Reverse((job.record().created_ms, job.id.clone())));
        jobs
    }

    /// One job.
    pub fn job(&self, id: &str) -> Result<Arc<Job>, JobError> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).cloned().ok_or_else(|| JobError::NotFound(format!("there is no job `{}`", id.escape_debug())))
    }

    /// The program `tidemill`.
    pub fn runner(&self) -> &std::path::Path {
        &self.shared.config.runner
    }

    /// The folder programs are taken from.
    pub fn programs(&self) -> &std::path::Path {
        &self.shared.config.programs
    }

    /// Starts a new job; its id.
    pub async fn submit(&self, spec: JobSpec) -> Result<String, JobError> {
        let spec = spec.checked()?;
        program::find(&self.shared.config.programs, &spec.program)?;
        if self.jobs.read().unwrap_or_else(PoisonError::into_inner).len() >= Self::JOBS_MAX {
            let text = format!("there are {} jobs already", Self::JOBS_MAX);
            return Err(Error::full(text).hint("delete ended ones").into());
        }
        let id = crate::random::hex32()?;
        let dir = job_dir(&self.shared.config, &id);
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(format!("create `{}`", dir.display()), e))?;
        let record = JobRecord::new(id.clone(), spec, self.shared.clock.now_ms());
        self.shared.store.save(&record).await?;
        let job = Job::new(record, dir, self.changes.clone());
        self.jobs.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), job.clone());
        self.changes.send_modify(|count| *count += 1);
        tokio::spawn(worker::run(self.shared.clone(), job, false));
        Ok(id)
    }

    /// Ends a job without a savepoint and waits until it has ended; its state then.
    pub async fn cancel(&self, id: &str) -> Result<JobState, JobError> {
        let job = self.job(id)?;
        if job.state().ended() {
            return Err(JobError::Conflict(format!("job {id} has ended already: {}", job.state().name())));
        }
        job.wish.send_replace(Wish::Cancel);
        await_idle(&job).await;
        Ok(job.state())
    }

    /// Takes a savepoint while the job runs; its path.
    pub async fn savepoint(&self, id: &str) -> Result<String, JobError> {
        let job = self.running(id, "take a savepoint of")?;
        let _one = job.savepoint.lock().await;
        Ok(control::savepoint(&job.dir, false, false).await?)
    }

    /// Takes a savepoint and ends the job behind it; the savepoint's path.
    pub async fn stop(&self, id: &str, drain: bool) -> Result<String, JobError> {
        let job = self.running(id, "stop")?;
        let _one = job.savepoint.lock().await;
        let stop = Wish::Stop { drain };
        job.wish.send_if_modified(|wish| {
            *wish == Wish::Run && {
                *wish = stop;
                true
            }
        });
        let taken = control::savepoint(&job.dir, true, drain).await;
        match taken {
            Ok(path) => {
                job.wish.send_if_modified(|wish| {
                    *wish == stop && {
                        *wish = Wish::Stopped { drain };
                        true
                    }
                });
                worker::await_stopped(&job).await;
                Ok(path)
            }
            Err(e) => {
                job.wish.send_if_modified(|wish| {
                    *wish == stop && {
                        *wish = Wish::Run;
                        true
                    }
                });
                Err(e.into())
            }
        }
    }

    /// Stops a job with a savepoint and starts it again from it with so many workers; none of its records is lost or
    /// processed twice.
    pub async fn rescale(&self, id: &str, parallelism: usize) -> Result<(), JobError> {
        let job = self.running(id, "rescale")?;
        let mut spec = job.record().spec;
        if spec.reactive {
            return Err(JobError::Conflict(format!("job {id} is reactive: it has as many workers as there are slots")));
        }
        spec.parallelism = Some(parallelism);
        let spec = spec.checked()?;
        if let Some(agents) = &self.shared.config.agents
            && agents.list().len() > 1
            && agents.room_for(id, &spec.wanted(parallelism, slot_demand(&job.dir))) == 0
        {
            let text = format!("there is no room for a parallelism of {parallelism} in equal processes");
            return Err(Error::full(text).hint("`tidemill agents` shows the slots of all hosts").into());
        }
        let before = job.record();
        self.keep_spec(&job, spec, true).await?;
        let stopped = self.stop(id, false).await;
        let again = match &stopped {
            Ok(_) => self.restart(id).await,
            Err(_) => self.keep_spec(&job, before.spec, false).await.map_err(Into::into),
        };
        let savepoint = stopped?;
        again?;
        // The job's own checkpoint folder holds the same: what was taken for the rescaling only is not the user's.
        if let Err(e) = blocking(move || {
            std::fs::remove_dir_all(&savepoint).map_err(|e| Error::io(format!("remove `{savepoint}`"), e))
        })
        .await
        {
            tracing::warn!(job = id, error = %e, "a savepoint of a rescaling stays behind");
        }
        Ok(())
    }

    async fn keep_spec(&self, job: &Job, spec: JobSpec, rescaling: bool) -> Result<()> {
        let record = job.change(|record| (record.spec, record.rescaling) = (spec, rescaling));
        self.shared.store.save(&record).await
    }

    /// The agents, where the server takes some.
    pub fn agents(&self) -> Option<&Arc<Agents>> {
        self.shared.config.agents.as_ref()
    }

    /// Starts an ended job again, from its newest checkpoint.
    pub async fn restart(&self, id: &str) -> Result<(), JobError> {
        let job = self.take_ended(id).await?;
        if let Err(e) = self.start_again(&job).await {
            job.idle.send_replace(true);
            return Err(e.into());
        }
        tokio::spawn(worker::run(self.shared.clone(), job, false));
        Ok(())
    }

    async fn start_again(&self, job: &Job) -> Result<()> {
        program::find(&self.shared.config.programs, &job.record().spec.program)?;
        job.wish.send_replace(Wish::Run);
        let now_ms = self.shared.clock.now_ms();
        let mut record = job.record();
        record.failure = None;
        record.rescaling = false;
        record.enter(JobState::Created, now_ms);
        self.shared.store.save(&record).await?;
        job.change(|kept| *kept = record);
        Ok(())
    }

    /// Forgets an ended job and deletes its folder, but never a savepoint.
    pub async fn delete(&self, id: &str) -> Result<(), JobError> {
        let job = self.take_ended(id).await?;
        let dir = job.dir.clone();
        let removed = blocking(move || {
            delete_but_savepoints(&dir).map_err(|e| Error::io(format!("delete `{}`", dir.display()), e))
        });
        let deleted = match removed.await {
            Ok(()) => self.shared.store.delete(id).await,
            Err(e) => Err(e),
        };
        if deleted.is_ok() {
            self.jobs.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            self.changes.send_modify(|count| *count += 1);
        }
        job.idle.send_replace(true);
        Ok(deleted?)
    }

    /// An ended job that nobody else restarts or deletes until it is made idle again.
    async fn take_ended(&self, id: &str) -> Result<Arc<Job>, JobError> {
        let job = self.job(id)?;
        loop {
            if !job.state().ended() {
                return Err(JobError::Conflict(format!("job {id} has not ended: it is {}", job.state().name())));
            }
            if job.idle.send_if_modified(|idle| std::mem::replace(idle, false)) {
                break;
            }
            // Its end is being written down, or somebody else has taken it.
            await_idle(&job).await;
        }
        if let Err(deleted) = self.job(id) {
            job.idle.send_replace(true);
            return Err(deleted);
        }
        Ok(job)
    }

    /// Ends all workers before the server ends.
    pub async fn shutdown(&self, end: ServerEnd) {
        self.shared.server_end.send_replace(end);
        for job in self.list() {
            await_idle(&job).await;
        }
    }

    fn running(&self, id: &str, doing: &str) -> Result<Arc<Job>, JobError> {
        let job = self.job(id)?;
        match job.state() {
            JobState::Running => Ok(job),
            state => Err(JobError::Conflict(format!("cannot {doing} job {id}: it is {}", state.name()))),
        }
    }
}

async fn await_idle(job: &Job) {
    // The sender lives in `job`, so the wait ends only when the worker does.
    let _ = job.idle.subscribe().wait_for(|idle| *idle).await;
}

fn job_dir(config: &SupervisorConfig, id: &str) -> PathBuf {
    config.data.join("jobs").join(id)
}

/// Deletes a job's folder, except savepoints: those are their owner's.
fn delete_but_savepoints(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut kept = false;
    for entry in entries {
        let path = entry?.path();
        if path.ends_with("savepoints") && std::fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_some()) {
            kept = true;
        } else if path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    if kept { Ok(()) } else { std::fs::remove_dir(dir) }
}
