//! `tidemill jobs restart`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// Start an ended job again from its newest checkpoint, or from the savepoint it was stopped with
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    job: JobArgs,
}

impl Run for Restart {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.job.server.post(&self.job.path("/restart"), &json!({}))?;
        context.output.result(&answer, format_args!("job {} is {}", self.job.id, cell(&answer["state"])))
    }
}
