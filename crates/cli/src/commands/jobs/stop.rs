//! `tidemill jobs stop`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// Take a savepoint and end the job behind it
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    job: JobArgs,
    /// Bring event time to its end first: windows fire, and the job counts as finished
    #[arg(short, long)]
    drain: bool,
}

impl Run for Stop {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.job.post_long("stopping it with a savepoint", "/stop", &json!({"drain": self.drain}))?;
        context.output.result(&answer, cell(&answer["savepoint"]))
    }
}
