//! `tidemill jobs rescale`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// Stop a job with a savepoint and start it again from it with another parallelism
#[derive(Debug, Args)]
pub struct Rescale {
    #[command(flatten)]
    job: JobArgs,
    /// The new parallelism
    #[arg(short, long, value_name = "NUMBER")]
    parallelism: usize,
}

impl Run for Rescale {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer =
            self.job.post_long("stopping it to start again", "/rescale", &json!({"parallelism": self.parallelism}))?;
        let now = format_args!(
            "job {} is {} with a parallelism of {}",
            self.job.id,
            cell(&answer["state"]),
            self.parallelism
        );
        context.output.result(&answer, now)
    }
}
