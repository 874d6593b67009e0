//! `tidemill jobs log`.

use clap::Args;
use serde_json::json;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::{Output, line, write};

/// Print the last lines of a job's output
#[derive(Debug, Args)]
pub struct Log {
    #[command(flatten)]
    job: JobArgs,
    /// How many lines, at most 10000
    #[arg(short = 'n', long, default_value_t = 200, value_name = "LINES")]
    tail: usize,
}

impl Run for Log {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let text = self.job.server.get_text(&self.job.path(&format!("/log?tail={}", self.tail)))?;
        match context.output {
            Output::Table => write(text.as_bytes()),
            Output::Json => line(json!(text.lines().collect::<Vec<_>>())),
        }
    }
}
