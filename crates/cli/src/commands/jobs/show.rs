//! `tidemill jobs show`.

use clap::Args;

use super::JobArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::{Output, cell, line, moment};

/// A longer name of a vertex is cut, so that the columns behind it stay in sight; `--output json` has it whole.
const NAME_CHARS_MAX: usize = 60;

/// Show a job with its vertices (also late records and dead letters), newest checkpoint and failures
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    job: JobArgs,
}

impl Run for Show {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let job = self.job.server.get(&self.job.path(""))?;
        if context.output == Output::Json {
            return line(&job);
        }
        let latest = &job["checkpoints"]["latest"];
        for (head, text) in [
            ("id", cell(&job["id"])),
            ("name", cell(&job["name"])),
            ("state", cell(&job["state"])),
            ("program", cell(&job["spec"]["program"])),
            ("started", moment(&job["start_ms"])),
            ("ended", moment(&job["end_ms"])),
            ("parallelism", cell(&job["parallelism"])),
            ("slots", cell(&job["slots"])),
            ("restarts", cell(&job["restarts"])),
            ("waiting", cell(&job["lag_records"])),
            ("watermark", moment(&job["watermark_ms"])),
            (
                "checkpoints",
                format!("{} completed, {} failed", job["checkpoints"]["completed"], job["checkpoints"]["failed"]),
            ),
            ("newest checkpoint", cell(&latest["path"])),
        ] {
            line(format_args!("{head:<18} {text}"))?;
        }
        let none = Vec::new();
        let vertices = job["vertices"].as_array().unwrap_or(&none);
        if !vertices.is_empty() {
            line("")?;
            let heads = ["VERTEX", "SUBTASKS", "IN", "OUT", "IN/S", "OUT/S", "LATE", "DEAD", "BUSY", "WATERMARK (UTC)"];
            context.output.list(vertices, &heads, |vertex| {
                let number = |name: &str| vertex[name].as_f64().unwrap_or(0.0);
                vec![
                    short(&cell(&vertex["name"])),
                    cell(&vertex["parallelism"]),
                    cell(&vertex["records_in"]),
                    cell(&vertex["records_out"]),
                    format!("{:.0}", number("records_in_per_s")),
                    format!("{:.0}", number("records_out_per_s")),
                    cell(&vertex["late_dropped"]),
                    cell(&vertex["dead_letters"]),
                    format!("{:.0} %", number("busy_ratio") * 100.0),
                    moment(&vertex["watermark_ms"]),
                ]
            })?;
        }
        let failures = job["exceptions"].as_array().unwrap_or(&none);
        for same in failures.chunk_by(|newer, older| newer["message"] == older["message"]) {
            let (newest, times) = (&same[0], same.len());
            let times = if times > 1 { format!(" for the {times}. time in a row") } else { String::new() };
            line(format_args!("\nfailed {}{times}: {}", moment(&newest["time_ms"]), cell(&newest["message"])))?;
        }
        Ok(())
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS_MAX - 1).chain(['…']).collect()
}
