//! Jobs as the API shows them, and the record of a job that is kept on disk.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tidemill_core::report::{CheckpointReport, CheckpointsReport, EdgeReport, MetricReport, OperatorReport, Report};
use utoipa::ToSchema;

use super::process::ProcessId;
use super::spec::JobSpec;
use crate::agents::hub::Placement;

/// Where a job is in its life, with Flink's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// Submitted; no process has answered yet.
    Created,
    /// Its process answers.
    Running,
    /// Its process has failed; the next one is being waited for or started.
    Restarting,
    /// All input is done.
    Finished,
    /// Ended by somebody, without a savepoint.
    Canceled,
    /// Stopped with a savepoint.
    Suspended,
    /// Given up.
    Failed,
}

impl JobState {
    /// Nothing runs any more and nothing will by itself.
    pub fn ended(self) -> bool {
        matches!(self, JobState::Finished | JobState::Canceled | JobState::Suspended | JobState::Failed)
    }

    /// All states, in the order of a life.
    pub const ALL: [JobState; 7] = [
        JobState::Created,
        JobState::Running,
        JobState::Restarting,
        JobState::Finished,
        JobState::Canceled,
        JobState::Suspended,
        JobState::Failed,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Created => "CREATED",
            JobState::Running => "RUNNING",
            JobState::Restarting => "RESTARTING",
            JobState::Finished => "FINISHED",
            JobState::Canceled => "CANCELED",
            JobState::Suspended => "SUSPENDED",
            JobState::Failed => "FAILED",
        }
    }
}

/// A failure in a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobException {
    /// When, epoch ms.
    pub time_ms: i64,
    /// What happened.
    pub message: String,
}

/// What is kept on disk about a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRecord {
    /// 32 hex digits.
    pub id: String,
    /// As submitted.
    pub spec: JobSpec,
    /// The last state.
    pub state: JobState,
    /// When it was submitted, epoch ms.
    pub created_ms: i64,
    /// When it ended, epoch ms.
    pub end_ms: Option<i64>,
    /// When each state was entered last, epoch ms.
    pub timestamps: BTreeMap<String, i64>,
    /// Processes started so far.
    pub attempts: u64,
    /// Restarts after failures.
    pub restarts: u64,
    /// Why it failed last.
    pub failure: Option<String>,
    /// The newest failures, newest first.
    pub exceptions: VecDeque<JobException>,
    /// The process that runs, if one should.
    pub process: Option<ProcessId>,
    /// The last report of an ended process.
    pub last_report: Option<Report>,
    /// Where its processes are, when it runs as several.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// It was stopped to be started again with another parallelism.
    #[serde(default)]
    pub rescaling: bool,
}

impl JobRecord {
    /// How many failures the history keeps.
    pub const EXCEPTIONS_MAX: usize = 16;
    /// The longest failure message kept, in characters.
    pub const MESSAGE_CHARS_MAX: usize = 4096;

    /// A job just submitted.
    pub fn new(id: String, spec: JobSpec, now_ms: i64) -> Self {
        let mut record = JobRecord {
            id,
            spec,
            state: JobState::Created,
            created_ms: now_ms,
            end_ms: None,
            timestamps: BTreeMap::new(),
            attempts: 0,
            restarts: 0,
            failure: None,
            exceptions: VecDeque::new(),
            process: None,
            last_report: None,
            placement: None,
            rescaling: false,
        };
        record.enter(JobState::Created, now_ms);
        record
    }

    /// Its name for people: the one it was given, else what program or job file call themselves, once that is known.
    pub fn shown_name<'a>(&'a self, report: Option<&'a Report>) -> &'a str {
        match report {
            Some(report) if self.spec.name == self.spec.program && !report.name.is_empty() => &report.name,
            _ => &self.spec.name,
        }
    }

    /// Goes into a state.
    pub fn enter(&mut self, state: JobState, now_ms: i64) {
        self.state = state;
        self.end_ms = state.ended().then_some(now_ms);
        self.timestamps.insert(state.name().to_owned(), now_ms);
    }

    /// Remembers a failure.
    pub fn failed(&mut self, message: &str, now_ms: i64) {
        let message: String = message.chars().take(Self::MESSAGE_CHARS_MAX).collect();
        self.failure = Some(message.clone());
        self.exceptions.push_front(JobException { time_ms: now_ms, message });
        self.exceptions.truncate(Self::EXCEPTIONS_MAX);
    }
}

/// A job in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobSummary {
    /// 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: JobState,
    /// When it was submitted, epoch ms.
    pub start_ms: i64,
    /// When it ended, epoch ms.
    #[schema(required)]
    pub end_ms: Option<i64>,
    /// The largest parallelism of any operator; 0 while unknown.
    pub parallelism: usize,
    /// Workers: the slots it takes; 0 while unknown.
    pub slots: usize,
    /// Restarts after failures.
    pub restarts: u64,
    /// Records its sources read, a second.
    pub records_in_per_s: f64,
    /// Records its sinks wrote, a second.
    pub records_out_per_s: f64,
    /// Records known to wait in its sources.
    #[schema(required)]
    pub lag_records: Option<u64>,
    /// The least watermark of its vertices, epoch ms.
    #[schema(required)]
    pub watermark_ms: Option<i64>,
    /// When the newest checkpoint was complete, epoch ms.
    #[schema(required)]
    pub last_checkpoint_ms: Option<i64>,
    /// Why it failed last.
    #[schema(required)]
    pub failure: Option<String>,
}

/// A job with everything about it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// As submitted.
    pub spec: JobSpec,
    /// Chains of operators.
    pub vertices: Vec<Vertex>,
    /// How they are connected.
    pub edges: Vec<Edge>,
    /// Checkpoints of the process.
    pub checkpoints: Checkpoints,
    /// The newest failures, newest first, at most 16.
    pub exceptions: Vec<JobException>,
    /// When each state was entered last, epoch ms.
    pub timestamps: BTreeMap<String, i64>,
}

/// A chain of operators.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Vertex {
    /// Stable over restarts.
    pub id: String,
    /// The operators' names, joined by ` -> `.
    pub name: String,
    /// In order.
    pub operators: Vec<Operator>,
    /// Subtasks.
    pub parallelism: usize,
    /// Records in since the process started.
    pub records_in: u64,
    /// Records out since the process started.
    pub records_out: u64,
    /// Records in, a second.
    pub records_in_per_s: f64,
    /// Records out, a second.
    pub records_out_per_s: f64,
    /// Records dropped as late.
    pub late_dropped: u64,
    /// Records refused by the source.
    pub dead_letters: u64,
    /// The least watermark of its subtasks, epoch ms.
    #[schema(required)]
    pub watermark_ms: Option<i64>,
    /// Share of the last interval spent working, 0 to 1.
    pub busy_ratio: f64,
    /// Share of the last interval spent waiting for the outputs, 0 to 1.
    pub backpressured_ratio: f64,
    /// Records known to wait in the source.
    #[schema(required)]
    pub pending_records: Option<u64>,
    /// A source: how old its newest record was, by event time, when it was fetched, in ms; the largest of its subtasks.
    #[schema(required)]
    pub fetch_lag_ms: Option<i64>,
    /// The same when it was emitted.
    #[schema(required)]
    pub emit_lag_ms: Option<i64>,
    /// A source: how far its watermark is behind now, in ms.
    #[schema(required)]
    pub watermark_lag_ms: Option<i64>,
    /// A source: for how long none of its subtasks has emitted anything, in ms.
    #[schema(required)]
    pub source_idle_ms: Option<u64>,
}

/// An operator in a chain.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Operator {
    /// The stable id its state is found by.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What its function, source or sink counts and measures of itself, one entry a name and subtask.
    #[schema(value_type = Vec<Metric>)]
    pub metrics: Vec<MetricReport>,
}

impl From<&OperatorReport> for Operator {
    fn from(report: &OperatorReport) -> Self {
        Operator { uid: report.uid.clone(), name: report.name.clone(), metrics: report.metrics.clone() }
    }
}

/// A number of one operator in one subtask, as the job's report has it. What it has besides depends on its kind.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes `MetricReport`, which the core defines without a description of HTTP")]
pub struct Metric {
    /// Its name, unique within the operator.
    name: String,
    /// The subtask.
    subtask: usize,
    /// `counter`, `gauge`, `meter` or `histogram`.
    kind: String,
    /// A counter's, meter's or histogram's events so far.
    #[schema(nullable = false)]
    count: Option<u64>,
    /// A gauge's value.
    #[schema(nullable = false)]
    value: Option<f64>,
    /// A meter's events a second, over the last minute.
    #[schema(nullable = false)]
    rate_per_s: Option<f64>,
    /// A histogram's smallest value.
    #[schema(nullable = false)]
    min: Option<u64>,
    /// Its largest.
    #[schema(nullable = false)]
    max: Option<u64>,
    /// Their mean.
    #[schema(nullable = false)]
    mean: Option<f64>,
    /// The median.
    #[schema(nullable = false)]
    p50: Option<u64>,
    /// 95 % are not larger.
    #[schema(nullable = false)]
    p95: Option<u64>,
    /// 99 % are not larger.
    #[schema(nullable = false)]
    p99: Option<u64>,
}

/// An edge of the graph.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Edge {
    /// Vertex id.
    pub from: String,
    /// Vertex id.
    pub to: String,
    /// `FORWARD`, `HASH`, `REBALANCE`, `BROADCAST` or `GLOBAL`.
    pub ship: String,
}

impl From<&EdgeReport> for Edge {
    fn from(report: &EdgeReport) -> Self {
        Edge { from: report.from.clone(), to: report.to.clone(), ship: report.ship.clone() }
    }
}

/// Counts since the process started, and the newest checkpoints.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Checkpoints {
    /// Completed.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// 0 or 1.
    pub in_progress: u64,
    /// The epoch the process restored from.
    #[schema(required)]
    pub restored_epoch: Option<u64>,
    /// The newest completed one.
    #[schema(required)]
    pub latest: Option<Checkpoint>,
    /// Newest first, at most 32.
    pub history: Vec<Checkpoint>,
}

impl From<&CheckpointsReport> for Checkpoints {
    fn from(report: &CheckpointsReport) -> Self {
        Checkpoints {
            completed: report.completed,
            failed: report.failed,
            in_progress: report.in_progress,
            restored_epoch: report.restored_epoch,
            latest: report.latest.as_ref().map(Checkpoint::from),
            history: report.history.iter().take(CheckpointsReport::HISTORY_MAX).map(Checkpoint::from).collect(),
        }
    }
}

/// A checkpoint or savepoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Checkpoint {
    /// The epoch it closes.
    pub id: u64,
    /// `checkpoint` or `savepoint`.
    pub kind: String,
    /// `IN_PROGRESS`, `COMPLETED` or `FAILED`.
    pub status: String,
    /// When it was triggered, epoch ms.
    pub trigger_ms: i64,
    /// From trigger to manifest, ms.
    pub duration_ms: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for it; the rest stood in files of earlier checkpoints already.
    pub written_bytes: u64,
    /// The longest time a subtask waited from its first input that had brought everything to its last, ms.
    pub alignment_ms: u64,
    /// Subtasks that had to answer.
    pub subtasks: usize,
    /// Subtasks that have answered.
    pub acknowledged: usize,
    /// Its folder.
    pub path: String,
    /// Why it failed.
    #[schema(required)]
    pub failure: Option<String>,
}

impl From<&CheckpointReport> for Checkpoint {
    fn from(report: &CheckpointReport) -> Self {
        Checkpoint {
            id: report.id,
            kind: report.kind.clone(),
            status: report.status.clone(),
            trigger_ms: report.trigger_ms,
            duration_ms: report.duration_ms,
            bytes: report.bytes,
            written_bytes: report.written_bytes,
            alignment_ms: report.alignment_ms,
            subtasks: report.subtasks,
            acknowledged: report.acknowledged,
            path: report.path.clone(),
            failure: report.failure.clone(),
        }
    }
}
