//! What a job process tells about itself over its control socket: plain numbers, turned into rates by whoever asks twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job process at one moment. Counters are totals since the process started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// 32 hex digits.
    pub job_id: String,
    /// The job's name.
    pub name: String,
    /// `RUNNING`, or the last state before the end.
    pub state: String,
    /// When the process started, epoch ms.
    pub start_ms: i64,
    /// When this report was made, epoch ms.
    pub now_ms: i64,
    /// The process.
    pub pid: u32,
    /// The largest parallelism of any operator.
    pub parallelism: usize,
    /// Workers: the slots the job takes.
    #[serde(default)]
    pub slots: usize,
    /// Chains of operators.
    pub vertices: Vec<VertexReport>,
    /// How they are connected.
    pub edges: Vec<EdgeReport>,
    /// Checkpoints so far.
    pub checkpoints: CheckpointsReport,
    /// What user functions have added up, over all subtasks, by name.
    #[serde(default)]
    pub accumulators: BTreeMap<String, serde_json::Value>,
}

/// One chain of operators.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VertexReport {
    /// Stable over restarts.
    pub id: String,
    /// The operators' names, joined by ` -> `.
    pub name: String,
    /// The operators in order.
    pub operators: Vec<OperatorReport>,
    /// Subtasks that work.
    pub parallelism: usize,
    /// The group its operators were put into.
    #[serde(default)]
    pub slot_sharing_group: String,
    /// One entry a subtask.
    pub subtasks: Vec<SubtaskReport>,
}

/// One operator in a chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorReport {
    /// The stable id its state is found by.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// What it does, in more words.
    #[serde(default)]
    pub description: Option<String>,
    /// What its function, source or sink counts and measures, one entry a name and subtask.
    #[serde(default)]
    pub metrics: Vec<MetricReport>,
}

/// A number that a user's function, a source or a sink keeps in one subtask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Its name, unique within the operator.
    pub name: String,
    /// The subtask.
    pub subtask: usize,
    /// Its kind and value now.
    #[serde(flatten)]
    pub value: MetricValue,
}

/// The value of a metric. JSON says the kind in `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MetricValue {
    /// A total.
    Counter {
        /// So far.
        count: u64,
    },
    /// A value that goes up and down.
    Gauge {
        /// As it was set last.
        value: f64,
    },
    /// Events and how fast they come.
    Meter {
        /// So far.
        count: u64,
        /// Events a second, over the last minute.
        rate_per_s: f64,
    },
    /// How values are distributed; quantiles are at most 7 % too high.
    Histogram {
        /// How many.
        count: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// Their mean.
        mean: f64,
        /// The median.
        p50: u64,
        /// 95 % are not larger.
        p95: u64,
        /// 99 % are not larger.
        p99: u64,
    },
}

/// One subtask's counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SubtaskReport {
    /// Records taken in (a source: read).
    pub records_in: u64,
    /// Records given out (a sink: written).
    pub records_out: u64,
    /// Records dropped as late.
    pub late_dropped: u64,
    /// Records refused by the source.
    pub dead_letters: u64,
    /// Event-time progress, epoch ms; `None` before any and after the end.
    pub watermark_ms: Option<i64>,
    /// Time spent working.
    pub busy_ms: u64,
    /// Time spent waiting for the outputs to take more.
    pub backpressured_ms: u64,
    /// Records known to wait in the source.
    pub pending_records: Option<u64>,
    /// A source: how old its newest record was, by event time, when it was fetched, in ms (Flink's `currentFetchEventTimeLag`);
    /// `None` before the first record with a time.
    #[serde(default)]
    pub fetch_lag_ms: Option<i64>,
    /// The same when it was emitted (`currentEmitEventTimeLag`).
    #[serde(default)]
    pub emit_lag_ms: Option<i64>,
    /// A source: how far its watermark is behind now, in ms (`watermarkLag`); `None` before any and after the end.
    #[serde(default)]
    pub watermark_lag_ms: Option<i64>,
    /// A source: for how long it has emitted nothing, in ms (`sourceIdleTime`).
    #[serde(default)]
    pub source_idle_ms: Option<u64>,
}

/// An edge of the job's graph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeReport {
    /// Vertex id.
    pub from: String,
    /// Vertex id.
    pub to: String,
    /// `FORWARD`, `HASH`, `REBALANCE`, `RESCALE`, `SHUFFLE`, `BROADCAST`, `GLOBAL` or `CUSTOM`.
    pub ship: String,
}

/// Counts and the newest checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsReport {
    /// Completed since the process started.
    pub completed: u64,
    /// Failed since the process started.
    pub failed: u64,
    /// 0 or 1.
    pub in_progress: u64,
    /// The epoch this process restored from.
    pub restored_epoch: Option<u64>,
    /// The newest completed one.
    pub latest: Option<CheckpointReport>,
    /// The newest ones, newest first; at most [`CheckpointsReport::HISTORY_MAX`].
    pub history: Vec<CheckpointReport>,
}

impl CheckpointsReport {
    /// How many checkpoints the history keeps.
    pub const HISTORY_MAX: usize = 32;

    /// How many entries of [`CheckpointReport::parts`] and [`CheckpointReport::operators`] the history keeps in all; older
    /// checkpoints lose theirs first. A report is asked for every second, and a job may have a thousand subtasks.
    pub const PARTS_MAX: usize = 2048;

    /// Puts a checkpoint at the head of the history, within its bounds.
    pub fn remember(&mut self, entry: CheckpointReport) {
        self.history.insert(0, entry);
        self.history.truncate(Self::HISTORY_MAX);
        let mut kept = 0;
        for entry in &mut self.history {
            kept += entry.parts.len() + entry.operators.len();
            if kept > Self::PARTS_MAX {
                (entry.parts, entry.operators) = (Vec::new(), Vec::new());
            }
        }
    }
}

/// One checkpoint or savepoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// The epoch it closes.
    pub id: u64,
    /// `checkpoint` or `savepoint`.
    pub kind: String,
    /// `IN_PROGRESS`, `COMPLETED` or `FAILED`.
    pub status: String,
    /// When it was triggered, epoch ms.
    pub trigger_ms: i64,
    /// From trigger to manifest.
    pub duration_ms: u64,
    /// Bytes of state it names.
    pub bytes: u64,
    /// Bytes written for it; the rest stood in files of earlier checkpoints already.
    #[serde(default)]
    pub written_bytes: u64,
    /// Its folder.
    pub path: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// The longest alignment of a subtask, see [`CheckpointPartReport::alignment_ms`].
    #[serde(default)]
    pub alignment_ms: u64,
    /// Subtasks that had to answer.
    #[serde(default)]
    pub subtasks: usize,
    /// Subtasks that have answered.
    #[serde(default)]
    pub acknowledged: usize,
    /// When the last of them answered, epoch ms; `None` when none did.
    #[serde(default)]
    pub latest_ack_ms: Option<i64>,
    /// State of its operators over all subtasks; empty for old ones, see [`CheckpointsReport::PARTS_MAX`].
    #[serde(default)]
    pub operators: Vec<CheckpointOperatorReport>,
    /// What each subtask that has answered had to do; empty for old ones.
    #[serde(default)]
    pub parts: Vec<CheckpointPartReport>,
}

/// One operator's state in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointOperatorReport {
    /// The operator.
    pub uid: String,
    /// Entries of its sections; those of large tables count again in each section that adds to them.
    pub entries: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for this checkpoint.
    pub written_bytes: u64,
}

/// One subtask's part in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPartReport {
    /// The chain of operators: its place in [`Report::vertices`].
    pub task: usize,
    /// The subtask.
    pub subtask: usize,
    /// When its answer came, epoch ms.
    pub acknowledged_ms: i64,
    /// From the trigger until the first of its inputs had brought everything of the epoch.
    pub start_delay_ms: u64,
    /// From there until all of its inputs had.
    pub alignment_ms: u64,
    /// For how long the subtask did nothing else but mark and copy its state.
    pub sync_ms: u64,
    /// From there until its state was saved.
    pub async_ms: u64,
    /// Bytes of state.
    pub bytes: u64,
    /// Bytes written for this checkpoint.
    pub written_bytes: u64,
}
