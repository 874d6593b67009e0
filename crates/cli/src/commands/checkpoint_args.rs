//! Options about a job's checkpoints, the same for `tidemill run` and `tidemill jobs submit`.

use clap::Args;
use tidemill_core::{Error, Result};
use tidemill_server::jobs::checkpoints::{CheckpointRetention, CheckpointSpec, ClaimMode};

/// How a job checkpoints, beside the interval.
#[derive(Debug, Clone, Args)]
pub struct CheckpointArgs {
    /// Least milliseconds between the end of a checkpoint and the next
    #[arg(long, value_name = "MS")]
    checkpoint_min_pause_ms: Option<u64>,
    /// Give up a checkpoint that takes longer
    #[arg(long, value_name = "MS")]
    checkpoint_timeout_ms: Option<u64>,
    /// Fail the job when more checkpoints in a row have failed [default: never]
    #[arg(long, value_name = "NUMBER")]
    tolerable_failed_checkpoints: Option<u32>,
    /// Complete checkpoints to keep
    #[arg(long, value_name = "NUMBER")]
    checkpoints_retained: Option<u32>,
    /// Where checkpoints go: an absolute path or s3://bucket/prefix [default: the job's folder]
    #[arg(long, value_name = "PLACE")]
    checkpoint_dir: Option<String>,
    /// Where savepoints go [default: the job's folder]
    #[arg(long, value_name = "PLACE")]
    savepoint_dir: Option<String>,
    /// retain-on-cancellation or delete-on-cancellation [default: retain-on-cancellation]
    #[arg(long, value_name = "RETENTION")]
    checkpoint_retention: Option<String>,
}

impl CheckpointArgs {
    /// What was said.
    pub fn spec(&self) -> Result<CheckpointSpec> {
        let spec = CheckpointSpec {
            min_pause_ms: self.checkpoint_min_pause_ms,
            timeout_ms: self.checkpoint_timeout_ms,
            tolerable_failures: self.tolerable_failed_checkpoints,
            retained: self.checkpoints_retained,
            dir: self.checkpoint_dir.clone(),
            savepoint_dir: self.savepoint_dir.clone(),
            retention: self.checkpoint_retention.as_deref().map(retention).transpose()?,
        };
        spec.check().map(|()| spec)
    }
}

/// Whose a savepoint is that a job starts from: `--claim-mode`.
pub fn claim_mode(text: &str) -> Result<ClaimMode> {
    match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "NO_CLAIM" => Ok(ClaimMode::NoClaim),
        "CLAIM" => Ok(ClaimMode::Claim),
        "LEGACY" => Err(Error::input("claim mode `LEGACY` is not built; Flink has given it up too")
            .hint("use `NO_CLAIM`, or `CLAIM` to leave the savepoint to the job")),
        _ => Err(Error::input(format!("claim mode `{text}` is neither `NO_CLAIM` nor `CLAIM`"))),
    }
}

fn retention(text: &str) -> Result<CheckpointRetention> {
    match text {
        "retain-on-cancellation" => Ok(CheckpointRetention::RetainOnCancellation),
        "delete-on-cancellation" => Ok(CheckpointRetention::DeleteOnCancellation),
        _ => Err(Error::input(format!("--checkpoint-retention `{text}` is none"))
            .hint("say retain-on-cancellation or delete-on-cancellation")),
    }
}
