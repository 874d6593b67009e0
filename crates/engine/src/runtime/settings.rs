//! How a job runs: given by the program, else by the process's environment (see docs/reference/job-process.md), else defaults.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tidemill_core::{Error, Result, SharedClock, SystemClock};

use super::cluster::Cluster;
use crate::checkpoint::CheckpointFolder;
use crate::checkpoint::storage::location;
use crate::state::{OF_A_PROCESS, STATE_MEMORY_BYTES, StateBackend, StateHome};

/// Checkpoints every ten seconds unless told otherwise.
pub const CHECKPOINT_INTERVAL_MS: i64 = 10_000;

/// Whether a job runs as a stream or as a batch (Flink's `execution.runtime-mode`).
///
/// A batch gives final results only: rolling reductions and aggregates emit one value a key when the input has ended, no
/// record is late since event time stands still until then, and all timers fire at the end, those of processing time too
/// (timers set by timers do not, as in Flink). It takes no checkpoints but the last, which publishes the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuntimeMode {
    /// Every result as soon as it is known. The default.
    #[default]
    Streaming,
    /// Final results only. A job with a source that does not end is refused.
    Batch,
    /// A batch if all sources end, else a stream.
    Automatic,
}

/// What a job is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobMode {
    /// Every result as soon as it is known.
    Stream,
    /// Final results only.
    Batch,
    /// State that another job is to begin with: no timer and no window fires, not even at the end of the input.
    Bootstrap,
}

impl JobMode {
    /// Whether no time passes before the input has ended.
    pub fn time_stands_still(self) -> bool {
        self != JobMode::Stream
    }
}

impl std::str::FromStr for RuntimeMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "streaming" => Ok(RuntimeMode::Streaming),
            "batch" => Ok(RuntimeMode::Batch),
            "automatic" => Ok(RuntimeMode::Automatic),
            _ => Err(Error::input(format!("runtime mode `{text}` is none of `streaming`, `batch`, `automatic`"))),
        }
    }
}

/// What happens to a job's checkpoints when somebody cancels it (Flink's
/// `execution.checkpointing.externalized-checkpoint-retention`). They stay in every other case: after a failure, a stop
/// with a savepoint, and the end of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointRetention {
    /// They stay, and the job can be started again from them. The default; Flink's is to delete them.
    #[default]
    RetainOnCancellation,
    /// They are deleted with the job; savepoints never are.
    DeleteOnCancellation,
}

impl std::str::FromStr for CheckpointRetention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "retain-on-cancellation" => Ok(CheckpointRetention::RetainOnCancellation),
            "delete-on-cancellation" => Ok(CheckpointRetention::DeleteOnCancellation),
            "no-externalized-checkpoints" => Err(Error::input(
                "checkpoints are always kept outside of the job's process: `no-externalized-checkpoints` is not built",
            )
            .hint("`delete-on-cancellation` comes nearest")),
            _ => Err(Error::input(format!(
                "retention `{text}` is neither `retain-on-cancellation` nor `delete-on-cancellation`"
            ))),
        }
    }
}

/// Whose the snapshot is that a job was told to start from (Flink's `execution.state-recovery.claim-mode`). In either mode the
/// job's first checkpoint is whole and names none of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClaimMode {
    /// Its owner's: the job only reads it. The default.
    #[default]
    NoClaim,
    /// The job's: it deletes it when it has as many checkpoints of its own as it retains.
    Claim,
}

impl std::str::FromStr for ClaimMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().replace('-', "_").as_str() {
            "no_claim" => Ok(ClaimMode::NoClaim),
            "claim" => Ok(ClaimMode::Claim),
            "legacy" => Err(Error::input("claim mode `LEGACY` is not built; Flink has given it up too")
                .hint("use `NO_CLAIM`, or `CLAIM` to leave the snapshot to the job")),
            _ => Err(Error::input(format!("claim mode `{text}` is neither `NO_CLAIM` nor `CLAIM`"))),
        }
    }
}

/// How a job runs.
#[derive(Clone)]
pub struct JobSettings {
    /// 32 hex digits. Empty, the default: made up when the job starts first, and kept with its checkpoints; not for several
    /// processes, which must all be given the same.
    pub job_id: String,
    /// Where the control socket and the job's other files stand; without it there is no control socket.
    pub job_dir: Option<PathBuf>,
    /// Where checkpoints go: a path, `file:///path` or `s3://bucket/prefix`; without it nothing can be restored. Each job needs
    /// one of its own.
    pub checkpoint_dir: Option<PathBuf>,
    /// Options of object stores, which go before the environment's: `endpoint`, `region`, `access_key_id`,
    /// `secret_access_key`, `allow_http` and what else the crate `object_store` knows; `AWS_ENDPOINT_URL`,
    /// `AWS_ACCESS_KEY_ID` and their like in the environment.
    pub storage_options: BTreeMap<String, String>,
    /// Where savepoints go unless the request names a folder; a path or URL as well.
    pub savepoint_dir: Option<PathBuf>,
    /// Between the starts of two checkpoints; `None` for none but the last.
    pub checkpoint_interval_ms: Option<i64>,
    /// At least so long between the end of a checkpoint, whether complete or failed, and the beginning of the next; default 0.
    /// The last checkpoint of a job, those asked for and savepoints do not wait.
    pub checkpoint_min_pause_ms: i64,
    /// A checkpoint that takes longer is given up; default 10 minutes.
    pub checkpoint_timeout_ms: i64,
    /// Checkpoints that may fail in a row before the job fails and is restarted; `None`, the default, for any number: the next
    /// one covers what a failed one did not save. Flink's default is 0. Savepoints do not count.
    pub tolerable_failed_checkpoints: Option<u32>,
    /// What happens to the checkpoints when the job is cancelled; by default they stay.
    pub checkpoint_retention: CheckpointRetention,
    /// Complete checkpoints kept; default 3.
    pub checkpoints_retained: usize,
    /// A savepoint or checkpoint folder to start from when `checkpoint_dir` holds no checkpoint.
    pub restore_from: Option<PathBuf>,
    /// Whose `restore_from` is once the job is restored from it.
    pub claim_mode: ClaimMode,
    /// Whether state that no operator claims is left behind silently.
    pub allow_non_restored_state: bool,
    /// Parallelism of operators that say nothing; default: the number of cores, or of workers of all processes.
    pub parallelism: Option<usize>,
    /// The most subtasks of an operator that says nothing; default 32768.
    pub max_parallelism: Option<usize>,
    /// As a stream (the default) or as a batch.
    pub runtime_mode: RuntimeMode,
    /// Where keyed state stands while the job runs. Checkpoints are alike: a job may go on with the other.
    pub state_backend: StateBackend,
    /// Memory for keyed state on disk, in bytes: decoded entries, blocks of files and write buffers of all tables of a
    /// process together. Default 512 MiB, at least 1 MiB.
    pub state_memory_max_bytes: usize,
    /// Scratch folder for keyed state on disk, emptied at each start; default `state` in the job's folder, else a folder
    /// of its own among the system's temporary files.
    pub state_dir: Option<PathBuf>,
    /// One access in so many to the keyed state of functions is measured, for each state and kind of access; the histograms
    /// are called `<state>.valueStateGetLatency` and so on, in ns. `None`, the default, for none. Flink's
    /// `state.latency-track.keyed-state-enabled` with its `sample-interval`.
    pub state_latency_sample_interval: Option<NonZeroU32>,
    /// The job's processes, when it has several.
    pub cluster: Option<Cluster>,
    /// The job's clock.
    pub clock: SharedClock,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            job_id: String::new(),
            job_dir: None,
            checkpoint_dir: None,
            storage_options: BTreeMap::new(),
            savepoint_dir: None,
            checkpoint_interval_ms: Some(CHECKPOINT_INTERVAL_MS),
            checkpoint_min_pause_ms: 0,
            checkpoint_timeout_ms: 600_000,
            tolerable_failed_checkpoints: None,
            checkpoint_retention: CheckpointRetention::default(),
            checkpoints_retained: 3,
            restore_from: None,
            claim_mode: ClaimMode::default(),
            allow_non_restored_state: false,
            parallelism: None,
            max_parallelism: None,
            runtime_mode: RuntimeMode::default(),
            state_backend: StateBackend::default(),
            state_memory_max_bytes: STATE_MEMORY_BYTES,
            state_dir: None,
            state_latency_sample_interval: None,
            cluster: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Tells apart the jobs of one process.
static SCRATCH: AtomicU64 = AtomicU64::new(0);
static MADE_UP: AtomicU32 = AtomicU32::new(0);

impl JobSettings {
    /// Where this process keeps the state of the job's keyed operators.
    pub(crate) fn state_home(&self) -> Result<StateHome> {
        if self.state_backend == StateBackend::Memory {
            return Ok(StateHome::default().measured(self.state_latency_sample_interval));
        }
        let own = || match (&self.job_dir, &self.cluster) {
            (Some(dir), None) => dir.join("state"),
            (Some(dir), Some(cluster)) => dir.join(format!("state-{}", cluster.process)),
            (None, _) => {
                let (process, job) = (std::process::id(), SCRATCH.fetch_add(1, Ordering::Relaxed));
                std::env::temp_dir().join(format!("{OF_A_PROCESS}{process}-{job}"))
            }
        };
        let folder = match &self.state_dir {
            // Somebody else's files may stand there.
            Some(dir) => dir.join(format!("{}-{}", self.job_id, self.cluster.as_ref().map_or(0, |own| own.process))),
            None => own(),
        };
        let home = StateHome::on_disk(folder, self.state_memory_max_bytes)?;
        Ok(home.measured(self.state_latency_sample_interval))
    }

    /// Settings from the `TIDEMILL_*` environment of a job process.
    pub fn from_process() -> Result<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| match text(name) {
            None => Ok(None),
            Some(value) => value
                .parse::<i64>()
                .map(Some)
                .map_err(|_| Error::input(format!("`{name}` is `{value}`, which is not a whole number"))),
        };
        let mut settings = JobSettings::default();
        settings.read_state_options(text)?;
        let parallelism = number("TIDEMILL_PARALLELISM")?;
        if parallelism.is_some_and(|n| !(1..=crate::key::KEY_GROUPS as i64).contains(&n)) {
            return Err(Error::input(format!("`TIDEMILL_PARALLELISM` must be 1 to {}", crate::key::KEY_GROUPS)));
        }
        settings.parallelism = parallelism.map(|n| n as usize);
        settings.max_parallelism = number("TIDEMILL_MAX_PARALLELISM")?.map(|n| usize::try_from(n).unwrap_or(0));
        settings.job_id = match text("TIDEMILL_JOB_ID") {
            Some(id) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => id,
            Some(id) => return Err(Error::input(format!("`TIDEMILL_JOB_ID` is `{id}`, but must have 32 hex digits"))),
            None => String::new(),
        };
        if let Some(dir) = text("TIDEMILL_JOB_DIR").map(PathBuf::from) {
            settings.checkpoint_dir = Some(dir.join("checkpoints"));
            settings.savepoint_dir = Some(dir.join("savepoints"));
            settings.job_dir = Some(dir);
        }
        settings.read_checkpoint_options(text)?;
        settings.cluster = Cluster::from_environment(text)?;
        if settings.cluster.is_some() && text("TIDEMILL_JOB_ID").is_none() {
            return Err(Error::input("`TIDEMILL_PROCESSES` is set, but `TIDEMILL_JOB_ID` is not")
                .hint("give all processes of a job the same 32 hex digits"));
        }
        if let Some(mode) = text("TIDEMILL_RUNTIME_MODE") {
            settings.runtime_mode = mode.parse().map_err(|e: Error| e.context("`TIDEMILL_RUNTIME_MODE`"))?;
        }
        settings.restore_from = text("TIDEMILL_SAVEPOINT").map(PathBuf::from);
        if let Some(mode) = text("TIDEMILL_CLAIM_MODE") {
            settings.claim_mode = mode.parse().map_err(|e: Error| e.context("`TIDEMILL_CLAIM_MODE`"))?;
        }
        if let Some(allow) = text("TIDEMILL_ALLOW_NON_RESTORED_STATE") {
            settings.allow_non_restored_state = allow.parse().map_err(|_| {
                Error::input(format!("`TIDEMILL_ALLOW_NON_RESTORED_STATE` is `{allow}`, neither `true` nor `false`"))
            })?;
        }
        Ok(settings)
    }

    /// With all locations as they are carried on: `file:///path` is a path.
    pub(crate) fn with_locations(mut self) -> Result<Self> {
        for place in [&mut self.checkpoint_dir, &mut self.savepoint_dir, &mut self.restore_from].into_iter().flatten() {
            *place = location(place)?;
        }
        Ok(self)
    }

    /// With the id of the job, of which there may be none: what sinks note and clean up by it is this job's alone.
    pub(crate) fn with_job_id(mut self, folder: Option<&CheckpointFolder>) -> Result<Self> {
        if self.job_id.is_empty() && self.cluster.is_some() {
            return Err(Error::input("a job of several processes was given no id")
                .hint("give all its processes the same `job_id`, 32 hex digits that no other job has"));
        }
        if self.job_id.is_empty() {
            let made_up = self.make_up_job_id();
            self.job_id = folder.map_or(Ok(made_up.clone()), |folder| folder.job_id(&made_up))?;
        }
        Ok(self)
    }

    fn make_up_job_id(&self) -> String {
        let number = MADE_UP.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{:08x}{number:08x}", self.clock.now_ms() as u64, std::process::id())
    }

    /// Takes over what `text` says about checkpoints, by the names of docs/reference/job-process.md
    /// (`TIDEMILL_CHECKPOINT_INTERVAL_MS` and its like); the rest stays. An error names the option that cannot be.
    pub fn read_checkpoint_options(&mut self, text: impl Fn(&str) -> Option<String>) -> Result<()> {
        let number = |name: &str, least: i64| match text(name) {
            None => Ok(None),
            Some(value) => value.parse::<i64>().ok().filter(|value| *value >= least).map(Some).ok_or_else(|| {
                Error::input(format!("`{name}` is `{value}`, which is not a whole number from {least} on"))
            }),
        };
        if let Some(interval_ms) = number("TIDEMILL_CHECKPOINT_INTERVAL_MS", 0)? {
            self.checkpoint_interval_ms = (interval_ms > 0).then_some(interval_ms);
        }
        if let Some(pause_ms) = number("TIDEMILL_CHECKPOINT_MIN_PAUSE_MS", 0)? {
            self.checkpoint_min_pause_ms = pause_ms;
        }
        if let Some(timeout_ms) = number("TIDEMILL_CHECKPOINT_TIMEOUT_MS", 1)? {
            self.checkpoint_timeout_ms = timeout_ms;
        }
        if let Some(failures) = number("TIDEMILL_TOLERABLE_FAILED_CHECKPOINTS", 0)? {
            self.tolerable_failed_checkpoints = Some(u32::try_from(failures).unwrap_or(u32::MAX));
        }
        if let Some(retained) = number("TIDEMILL_CHECKPOINTS_RETAINED", 1)? {
            self.checkpoints_retained = retained as usize;
        }
        if let Some(dir) = text("TIDEMILL_CHECKPOINT_DIR") {
            // The folder has its name of the job.
            if self.job_id.is_empty() {
                self.job_id = self.make_up_job_id();
            }
            self.checkpoint_dir = Some(Path::new(&dir).join(&self.job_id));
        }
        if let Some(dir) = text("TIDEMILL_SAVEPOINT_DIR") {
            self.savepoint_dir = Some(PathBuf::from(dir));
        }
        if let Some(retention) = text("TIDEMILL_CHECKPOINT_RETENTION") {
            self.checkpoint_retention =
                retention.parse().map_err(|e: Error| e.context("`TIDEMILL_CHECKPOINT_RETENTION`"))?;
        }
        Ok(())
    }

    /// Takes over what `text` says about where keyed state stands (`TIDEMILL_STATE_BACKEND` and its like); the rest stays.
    pub fn read_state_options(&mut self, text: impl Fn(&str) -> Option<String>) -> Result<()> {
        if let Some(backend) = text("TIDEMILL_STATE_BACKEND") {
            self.state_backend = backend.parse().map_err(|e: Error| e.context("`TIDEMILL_STATE_BACKEND`"))?;
        }
        if let Some(bytes) = text("TIDEMILL_STATE_MEMORY_MAX_BYTES") {
            self.state_memory_max_bytes = bytes.parse().map_err(|_| {
                Error::input(format!("`TIDEMILL_STATE_MEMORY_MAX_BYTES` is `{bytes}`, which is not a whole number"))
            })?;
        }
        if let Some(folder) = text("TIDEMILL_STATE_DIR") {
            self.state_dir = Some(PathBuf::from(folder));
        }
        if let Some(interval) = text("TIDEMILL_STATE_LATENCY_SAMPLE_INTERVAL") {
            let sampled = interval.parse::<u32>().map_err(|_| {
                Error::input(format!(
                    "`TIDEMILL_STATE_LATENCY_SAMPLE_INTERVAL` is `{interval}`, which is not a whole number"
                ))
            })?;
            self.state_latency_sample_interval = NonZeroU32::new(sampled);
        }
        Ok(())
    }
}
