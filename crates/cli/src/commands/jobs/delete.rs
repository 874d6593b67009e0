//! `tidemill jobs delete`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;

/// Forget an ended job and delete its folder with its checkpoints; savepoints stay
#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    job: JobArgs,
}

impl Run for Delete {
    fn run(self, context: &Context) -> Result<(), Failure> {
        self.job.server.delete(&self.job.path(""))?;
        context.output.result(&json!({"deleted": self.job.id}), format_args!("job {} is deleted", self.job.id))
    }
}
