//! What a user may say about a job's checkpoints, and what one of them consisted of.

use serde::{Deserialize, Serialize};
use tidemill_core::report::{CheckpointPartReport, Report};
use tidemill_core::{Error, Result};
use utoipa::ToSchema;

use super::model::Checkpoint;

/// How a job checkpoints, beside the interval. What is left out is as the program says, else as the defaults say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Least milliseconds between the end of a checkpoint and the beginning of the next; default 0.
    pub min_pause_ms: Option<u64>,
    /// A checkpoint that takes longer is given up; default 600000.
    pub timeout_ms: Option<u64>,
    /// Checkpoints that may fail in a row before the job fails; default: any number.
    pub tolerable_failures: Option<u32>,
    /// Complete checkpoints kept; default 3.
    pub retained: Option<u32>,
    /// Where checkpoints go, in a folder of the job's id: an absolute path or `s3://bucket/prefix`; default: the job's folder.
    pub dir: Option<String>,
    /// Where savepoints go; an absolute path or a URL as well; default: the job's folder.
    pub savepoint_dir: Option<String>,
    /// What happens to checkpoints when the job is cancelled; default `retain-on-cancellation`.
    pub retention: Option<CheckpointRetention>,
}

/// Whose the savepoint is that a job starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimMode {
    /// Its owner's: the job only reads it.
    NoClaim,
    /// The job's: it deletes it when it has enough checkpoints of its own.
    Claim,
}

/// Whether a place is a URL: what stands there only a job's process can tell.
pub fn is_url(place: &str) -> bool {
    place.contains("://")
}

/// What happens to a job's checkpoints when somebody cancels it. They stay in every other case; savepoints always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointRetention {
    /// They stay.
    RetainOnCancellation,
    /// They are deleted.
    DeleteOnCancellation,
}

impl CheckpointSpec {
    /// The longest pause and time-out: a day.
    pub const MS_MAX: u64 = 86_400_000;
    /// The most checkpoints kept.
    pub const RETAINED_MAX: u32 = 1000;

    /// Refuses what is out of bounds.
    pub fn check(&self) -> Result<()> {
        if self.min_pause_ms.is_some_and(|pause| pause > Self::MS_MAX) {
            return Err(Error::input("`min_pause_ms` of `checkpoints` must be from 0 to 86400000 (a day)"));
        }
        if self.timeout_ms.is_some_and(|timeout| !(1..=Self::MS_MAX).contains(&timeout)) {
            return Err(Error::input("`timeout_ms` of `checkpoints` must be from 1 to 86400000 (a day)"));
        }
        if self.retained.is_some_and(|retained| !(1..=Self::RETAINED_MAX).contains(&retained)) {
            return Err(Error::input(format!("`retained` of `checkpoints` must be from 1 to {}", Self::RETAINED_MAX)));
        }
        for (name, dir) in [("dir", &self.dir), ("savepoint_dir", &self.savepoint_dir)] {
            if let Some(dir) = dir.as_deref().filter(|dir| !dir.starts_with('/') && !is_url(dir)) {
                return Err(Error::input(format!("`{name}` of `checkpoints` is `{dir}`"))
                    .hint("give an absolute path, `file:///path` or `s3://bucket/prefix`"));
            }
        }
        Ok(())
    }

    /// This, and `other` where this says nothing.
    pub fn or(self, other: CheckpointSpec) -> CheckpointSpec {
        CheckpointSpec {
            min_pause_ms: self.min_pause_ms.or(other.min_pause_ms),
            timeout_ms: self.timeout_ms.or(other.timeout_ms),
            tolerable_failures: self.tolerable_failures.or(other.tolerable_failures),
            retained: self.retained.or(other.retained),
            dir: self.dir.or(other.dir),
            savepoint_dir: self.savepoint_dir.or(other.savepoint_dir),
            retention: self.retention.or(other.retention),
        }
    }

    /// As a job's process is told (docs/reference/job-process.md).
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let retention = self.retention.map(|retention| match retention {
            CheckpointRetention::RetainOnCancellation => "retain-on-cancellation".to_owned(),
            CheckpointRetention::DeleteOnCancellation => "delete-on-cancellation".to_owned(),
        });
        let all = [
            ("TIDEMILL_CHECKPOINT_MIN_PAUSE_MS", self.min_pause_ms.map(|pause| pause.to_string())),
            ("TIDEMILL_CHECKPOINT_TIMEOUT_MS", self.timeout_ms.map(|timeout| timeout.to_string())),
            ("TIDEMILL_TOLERABLE_FAILED_CHECKPOINTS", self.tolerable_failures.map(|failures| failures.to_string())),
            ("TIDEMILL_CHECKPOINTS_RETAINED", self.retained.map(|retained| retained.to_string())),
            ("TIDEMILL_CHECKPOINT_RETENTION", retention),
            ("TIDEMILL_CHECKPOINT_DIR", self.dir.clone()),
            ("TIDEMILL_SAVEPOINT_DIR", self.savepoint_dir.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A checkpoint with its parts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckpointDetail {
    /// What the history shows.
    #[serde(flatten)]
    pub summary: Checkpoint,
    /// Chains of operators whose subtasks have answered; empty for a checkpoint so old that its parts are forgotten.
    pub vertices: Vec<CheckpointVertex>,
}

/// What one chain of operators had to do for a checkpoint. Times are those of its slowest subtask.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckpointVertex {
    /// Stable over restarts.
    pub id: String,
    /// The operators' names, joined by ` -> `.
    pub name: String,
    /// Subtasks that had to answer.
    pub subtasks: usize,
    /// Subtasks that have answered.
    pub acknowledged: usize,
    /// When the last of them answered, epoch ms.
    pub latest_ack_ms: i64,
    /// From the trigger until the last of them answered, ms.
    pub duration_ms: u64,
    /// From the trigger until the first input had brought everything, ms.
    pub start_delay_ms: u64,
    /// From there until all inputs had, ms.
    pub alignment_ms: u64,
    /// Time in which nothing else was done, ms.
    pub sync_ms: u64,
    /// From there until all was saved, ms.
    pub async_ms: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for this checkpoint.
    pub written_bytes: u64,
    /// Its operators, in order.
    pub operators: Vec<CheckpointOperator>,
    /// One entry a subtask that has answered.
    pub parts: Vec<CheckpointPart>,
}

/// One operator's state in a checkpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckpointOperator {
    /// The stable id its state is found by.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Entries of its sections.
    pub entries: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for this checkpoint.
    pub written_bytes: u64,
}

/// One subtask's part in a checkpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckpointPart {
    /// From 0.
    pub subtask: usize,
    /// When it answered, epoch ms.
    pub acknowledged_ms: i64,
    /// From the trigger until the first input had brought everything, ms.
    pub start_delay_ms: u64,
    /// From there until all inputs had, ms.
    pub alignment_ms: u64,
    /// Time in which nothing else was done, ms.
    pub sync_ms: u64,
    /// From there until all was saved, ms.
    pub async_ms: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for this checkpoint.
    pub written_bytes: u64,
}

/// A checkpoint of the history with its parts; `None` when the history does not hold it (any more).
pub fn detail(report: &Report, id: u64) -> Option<CheckpointDetail> {
    let one = report.checkpoints.history.iter().find(|one| one.id == id)?;
    let vertices = report.vertices.iter().enumerate().filter_map(|(task, vertex)| {
        let mut parts: Vec<&CheckpointPartReport> = one.parts.iter().filter(|part| part.task == task).collect();
        parts.sort_by_key(|part| part.subtask);
        let latest_ack_ms = parts.iter().map(|part| part.acknowledged_ms).max()?;
        let most = |pick: fn(&CheckpointPartReport) -> u64| parts.iter().map(|part| pick(part)).max().unwrap_or(0);
        let operators = vertex.operators.iter().map(|operator| {
            let state = one.operators.iter().find(|state| state.uid == operator.uid).cloned().unwrap_or_default();
            CheckpointOperator {
                uid: operator.uid.clone(),
                name: operator.name.clone(),
                entries: state.entries,
                bytes: state.bytes,
                written_bytes: state.written_bytes,
            }
        });
        Some(CheckpointVertex {
            id: vertex.id.clone(),
            name: vertex.name.clone(),
            subtasks: vertex.parallelism,
            acknowledged: parts.len(),
            latest_ack_ms,
            duration_ms: u64::try_from(latest_ack_ms - one.trigger_ms).unwrap_or(0),
            start_delay_ms: most(|part| part.start_delay_ms),
            alignment_ms: most(|part| part.alignment_ms),
            sync_ms: most(|part| part.sync_ms),
            async_ms: most(|part| part.async_ms),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            written_bytes: parts.iter().map(|part| part.written_bytes).sum(),
            operators: operators.collect(),
            parts: parts.into_iter().map(CheckpointPart::from).collect(),
        })
    });
    Some(CheckpointDetail { summary: Checkpoint::from(one), vertices: vertices.collect() })
}

impl From<&CheckpointPartReport> for CheckpointPart {
    fn from(report: &CheckpointPartReport) -> Self {
        CheckpointPart {
            subtask: report.subtask,
            acknowledged_ms: report.acknowledged_ms,
            start_delay_ms: report.start_delay_ms,
            alignment_ms: report.alignment_ms,
            sync_ms: report.sync_ms,
            async_ms: report.async_ms,
            bytes: report.bytes,
            written_bytes: report.written_bytes,
        }
    }
}
