//! `tidemill jobs submit`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidemill_core::Error;
use tidemill_server::jobs::checkpoints::ClaimMode;

use crate::Context;
use crate::client::ServerArgs;
use crate::commands::{CheckpointArgs, Run, claim_mode};
use crate::failure::Failure;
use crate::output::cell;

/// Submit a program of the server's jobs folder as a job
#[derive(Debug, Args)]
pub struct Submit {
    /// The program's file name in the server's jobs folder (an executable or a `.toml` job file)
    #[arg(value_name = "PROGRAM")]
    program: String,
    /// Arguments for the program, behind `--`
    #[arg(last = true)]
    args: Vec<String>,
    /// The job's name [default: the one that program or job file give themselves]
    #[arg(short, long)]
    name: Option<String>,
    /// Parallelism of operators that say nothing [default: the cores]
    #[arg(short, long)]
    parallelism: Option<usize>,
    /// Adaptive: the least parallelism, where there is no room for all of `--parallelism`
    #[arg(long, value_name = "NUMBER")]
    parallelism_min: Option<usize>,
    /// Reactive: the greatest parallelism all hosts have slots for
    #[arg(long)]
    reactive: bool,
    /// Milliseconds between checkpoints
    #[arg(long, value_name = "MS")]
    checkpoint_interval_ms: Option<u64>,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    /// Where keyed state stands: `memory` or `disk`
    #[arg(long, value_name = "BACKEND")]
    state_backend: Option<String>,
    /// Memory for state on disk in each process, in bytes
    #[arg(long, value_name = "BYTES")]
    state_memory_max_bytes: Option<u64>,
    /// Measure one access in so many to the keyed state of functions
    #[arg(long, value_name = "N")]
    state_latency_sample_interval: Option<u32>,
    /// A savepoint to start from: its folder or URL
    #[arg(short = 's', long, value_name = "PLACE")]
    savepoint: Option<PathBuf>,
    /// Whose that savepoint is then: NO_CLAIM, its owner's, or CLAIM, the job's to delete [default: NO_CLAIM]
    #[arg(long, value_name = "MODE", value_parser = claim_mode)]
    claim_mode: Option<ClaimMode>,
    /// Leave state behind that no operator of the job takes
    #[arg(long)]
    allow_non_restored_state: bool,
    /// A variable for the process; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The restart strategy as JSON, for example '{"strategy":"fixed-delay","attempts":3}'
    #[arg(long, value_name = "JSON")]
    restart: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

impl Run for Submit {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let mut env = serde_json::Map::new();
        for variable in &self.env {
            let (name, value) = variable
                .split_once('=')
                .ok_or_else(|| Error::input(format!("--env `{variable}` is not NAME=VALUE")))?;
            env.insert(name.to_owned(), value.into());
        }
        let mut spec = json!({"name": self.name.unwrap_or_default(), "program": self.program, "args": self.args,
            "parallelism": self.parallelism, "parallelism_min": self.parallelism_min,
            "reactive": self.reactive, "checkpoint_interval_ms": self.checkpoint_interval_ms,
            "checkpoints": self.checkpoints.spec()?, "state_backend": self.state_backend,
            "state_memory_max_bytes": self.state_memory_max_bytes,
            "state_latency_sample_interval": self.state_latency_sample_interval, "savepoint": self.savepoint,
            "claim_mode": self.claim_mode, "allow_non_restored_state": self.allow_non_restored_state, "env": env});
        if let Some(restart) = self.restart {
            let parsed: Value =
                serde_json::from_str(&restart).map_err(|e| Error::input(format!("--restart is no JSON: {e}")))?;
            spec["restart"] = parsed;
        }
        let answer = self.server.post("/api/jobs", &spec)?;
        context.output.result(&answer, cell(&answer["id"]))
    }
}
