//! `tidemill jobs savepoint`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// Take a savepoint while the job runs on
#[derive(Debug, Args)]
pub struct Savepoint {
    #[command(flatten)]
    job: JobArgs,
}

impl Run for Savepoint {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.job.post_long("taking a savepoint", "/savepoints", &json!({}))?;
        context.output.result(&answer, cell(&answer["savepoint"]))
    }
}
