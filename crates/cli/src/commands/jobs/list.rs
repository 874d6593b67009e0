//! `tidemill jobs list`.

use clap::Args;

use crate::Context;
use crate::client::ServerArgs;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::{cell, moment};

/// List the jobs of a server, newest first
#[derive(Debug, Args)]
pub struct List {
    /// Only jobs that have not ended
    #[arg(short, long)]
    running: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Run for List {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let answer = self.server.get("/api/jobs")?;
        let mut jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
        if self.running {
            jobs.retain(|job| job["end_ms"].is_null());
        }
        let heads = ["ID", "NAME", "STATE", "STARTED (UTC)", "RESTARTS", "IN/S", "OUT/S", "FAILURE"];
        context.output.list(&jobs, &heads, |job| {
            let rate = |name: &str| format!("{:.0}", job[name].as_f64().unwrap_or(0.0));
            vec![
                cell(&job["id"]),
                cell(&job["name"]),
                cell(&job["state"]),
                moment(&job["start_ms"]),
                cell(&job["restarts"]),
                rate("records_in_per_s"),
                rate("records_out_per_s"),
                cell(&job["failure"]),
            ]
        })
    }
}
