//! The `main` of a job program: settings from the process's environment, exit codes, the outcome for the supervisor.

use std::path::Path;
use std::process::ExitCode;

use tidemill_core::{Error, Kind, Result, say};

use super::execute::{JobEnd, JobResult};
use super::settings::JobSettings;
use crate::stream::Environment;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
pub(crate) const EXIT_CANCELLED: i32 = 130;

/// Runs a program that builds one job: `build` describes it on the environment and calls nothing else.
///
/// The process ends with 0 when all input is done or the job was stopped with a savepoint, 1 when it failed (the last
/// line of standard error is `error: …`), 2 when options or input make no job.
pub fn run_job(name: &str, build: impl FnOnce(&Environment) -> Result<()>) -> ExitCode {
    run_job_with(name, build, |_| {})
}

/// Like [`run_job`]; `ended` sees the result of a job that did not fail: its last numbers and accumulators.
pub fn run_job_with(
    name: &str,
    build: impl FnOnce(&Environment) -> Result<()>,
    ended: impl FnOnce(&JobResult),
) -> ExitCode {
    let settings = match end_with_parent().and_then(|()| JobSettings::from_process()) {
        Ok(settings) => settings,
        Err(error) => {
            say(format_args!("error: {error}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // Of several processes the first one tells how the job ended.
    let first = settings.cluster.as_ref().is_none_or(|cluster| cluster.process == 0);
    let job_dir = settings.job_dir.clone().filter(|_| first);
    let environment = Environment::with_settings(settings);
    if let Err(error) = build(&environment) {
        say(format_args!("error: {error}"));
        if let Some(dir) = &job_dir {
            write_outcome(dir, "FAILED", Some(&error.to_string()));
        }
        return ExitCode::from(if error.kind() == Kind::Input { EXIT_USAGE } else { EXIT_FAILED });
    }
    let outcome = environment.execute(name);
    if let Ok(result) = &outcome {
        ended(result);
    }
    let (state, message) = match outcome {
        Ok(result) if result.end == JobEnd::Cancelled => return ExitCode::from(EXIT_CANCELLED as u8),
        Ok(result) if result.end == JobEnd::Suspended => ("SUSPENDED", None),
        Ok(_) => ("FINISHED", None),
        Err(error) => ("FAILED", Some(error.to_string())),
    };
    if let Some(dir) = &job_dir {
        write_outcome(dir, state, message.as_deref());
    }
    match message {
        None => ExitCode::SUCCESS,
        Some(message) => {
            say(format_args!("error: {message}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Where whoever started this process says so, its end is ours: nobody would be left to see to it. A script may stand between
/// the two; then only a process that is gone already is noticed.
fn end_with_parent() -> Result<()> {
    let Ok(parent) = std::env::var("TIDEMILL_PARENT") else { return Ok(()) };
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        if getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent) {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|e| Error::io("ask for the signal of the parent's death", e.into()))?;
        }
        // It may have died before it could be asked for.
        let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return Err(Error::external(format!("process {parent}, which started this one, is gone")));
        }
    }
    #[cfg(not(target_os = "linux"))]
    drop(parent);
    Ok(())
}

/// Writes `outcome.json`; a supervisor that finds none knows that the process was killed.
pub(crate) fn write_outcome(job_dir: &Path, state: &str, message: Option<&str>) {
    let outcome = serde_json::json!({"state": state, "message": message}).to_string();
    if let Err(error) = std::fs::write(job_dir.join("outcome.json"), outcome) {
        tracing::warn!(%error, "the job's outcome could not be written");
    }
}
