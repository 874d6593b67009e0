//! `tidemill jobs cancel`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// End a job without a savepoint; its checkpoints stay, unless it was told otherwise
#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    job: JobArgs,
}

impl Run for Cancel {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.job.post_long("cancelling it", "/cancel", &json!({}))?;
        context.output.result(&answer, format_args!("job {} is {}", self.job.id, cell(&answer["state"])))
    }
}
