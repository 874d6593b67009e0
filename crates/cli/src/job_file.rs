//! A job file: a job as TOML, for `tidemill run` and for servers.
//!
//! ```toml
//! name = "orders"
//! program = "order-screen"        # a file beside this one; or [source] and [sink]
//! args = ["--topic", "orders"]
//! parallelism = 2
//! checkpoint_interval_ms = 1000
//! state_backend = "disk"          # or "memory"
//! state_memory_max_bytes = 1073741824
//! state_latency_sample_interval = 100
//!
//! [env]
//! REGION = "north"
//!
//! [checkpoints]
//! min_pause_ms = 500
//! tolerable_failures = 3
//! retained = 5
//! retention = "delete-on-cancellation"
//!
//! [restart]
//! strategy = "fixed-delay"
//! attempts = 3
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tidemill_core::{Error, Result};
use tidemill_server::jobs::checkpoints::{CheckpointSpec, ClaimMode};
use tidemill_server::jobs::restart::RestartStrategy;
use tidemill_server::jobs::spec::JobSpec;

use crate::flink_options;

/// The longest job file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A job file, read and checked.
#[derive(Debug)]
pub struct JobFile {
    /// What is to run.
    pub work: Work,
    /// Whether it has a [restart].
    pub restarts: bool,
}

/// What a job file asks for.
#[derive(Debug)]
pub enum Work {
    /// A program of the file's folder.
    Program(Box<JobSpec>),
    /// From a source into a sink.
    Pipeline(Box<Pipeline>),
}

/// A declarative pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Name, parallelism, checkpoint interval, restart strategy; `program` is empty.
    pub spec: JobSpec,
    /// `[source]`.
    pub source: toml::Table,
    /// `[sink]`.
    pub sink: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    program: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    parallelism: Option<usize>,
    checkpoint_interval_ms: Option<u64>,
    #[serde(default)]
    checkpoints: CheckpointSpec,
    state_backend: Option<String>,
    state_memory_max_bytes: Option<u64>,
    state_latency_sample_interval: Option<u32>,
    savepoint: Option<String>,
    claim_mode: Option<ClaimMode>,
    #[serde(default)]
    allow_non_restored_state: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    restart: Option<RestartStrategy>,
    source: Option<toml::Table>,
    sink: Option<toml::Table>,
}

impl JobFile {
    /// Reads and checks a file. `Kind::Input` names the line of what is wrong.
    pub fn read(path: &Path) -> Result<JobFile> {
        let shown = path.display();
        let meta = std::fs::metadata(path).map_err(|e| Error::io(format!("read job file `{shown}`"), e))?;
        if meta.len() > FILE_BYTES_MAX {
            return Err(Error::input(format!(
                "job file `{shown}` has {} bytes; at most {FILE_BYTES_MAX} are read",
                meta.len()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read job file `{shown}`"), e))?;
        parse(&text, path).map_err(|e| e.context(format!("job file `{shown}`")))
    }
}

fn parse(text: &str, path: &Path) -> Result<JobFile> {
    if let Some(refused) = toml::from_str(text).ok().as_ref().and_then(flink_options::refuse) {
        return Err(refused);
    }
    let raw: Raw = toml::from_str(text).map_err(|e| located(text, &e))?;
    let restarts = raw.restart.is_some();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let spec = |program: String| JobSpec {
        name: raw.name.clone().unwrap_or(stem),
        program,
        args: raw.args,
        parallelism: raw.parallelism,
        parallelism_min: None,
        reactive: false,
        checkpoint_interval_ms: raw.checkpoint_interval_ms,
        checkpoints: raw.checkpoints,
        state_backend: raw.state_backend,
        state_memory_max_bytes: raw.state_memory_max_bytes,
        state_latency_sample_interval: raw.state_latency_sample_interval,
        savepoint: raw.savepoint,
        claim_mode: raw.claim_mode,
        allow_non_restored_state: raw.allow_non_restored_state,
        env: raw.env,
        restart: raw.restart.unwrap_or_default(),
    };
    let work = match (raw.program, raw.source, raw.sink) {
        (Some(program), None, None) => Ok(Work::Program(Box::new(spec(program).checked()?))),
        (None, Some(source), Some(sink)) => {
            check_connector("source", &source)?;
            check_connector("sink", &sink)?;
            let spec = spec(String::new()).checked()?;
            Ok(Work::Pipeline(Box::new(Pipeline { spec, source, sink })))
        }
        (Some(_), _, _) => Err(Error::input("`program` stands beside [source] or [sink]").hint("keep one of the two")),
        (None, None, None) => {
            Err(Error::input("there is nothing to run").hint("give `program = \"name\"`, or [source] and [sink]"))
        }
        (None, None, Some(_)) => Err(Error::input("there is a [sink] but no [source]")),
        (None, Some(_), None) => Err(Error::input("there is a [source] but no [sink]")),
    };
    Ok(JobFile { work: work?, restarts })
}

fn check_connector(part: &str, table: &toml::Table) -> Result<()> {
    match table.get("connector") {
        Some(toml::Value::String(_)) => Ok(()),
        Some(_) => Err(Error::input(format!("[{part}]: `connector` must be text"))),
        None => Err(Error::input(format!("[{part}] has no `connector`"))),
    }
}

fn located(text: &str, error: &toml::de::Error) -> Error {
    let mut message = error.message().trim().replace('\n', " ");
    for whole in ["usize", "u64", "u32"] {
        message = message.replace(&format!("expected {whole}"), "expected a whole number");
    }
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1);
            Error::input(format!("line {line}: {message}"))
        }
        None => Error::input(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match parse(text, Path::new("jobs/orders.toml")).map(|file| file.work) {
            Ok(Work::Program(spec)) => format!("{} runs {}", spec.name, spec.program),
            Ok(Work::Pipeline(pipeline)) => {
                format!("{} pipes {} sinks {}", pipeline.spec.name, pipeline.source.len(), pipeline.sink.len())
            }
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_job_file_is_a_program_or_a_pipeline() {
        assert_eq!(
            check("program = \"p\"\nargs = [\"--x\"]\n[env]\nA = \"b\"\n[restart]\nstrategy = \"none\""),
            "orders runs p"
        );
        assert_eq!(
            check("name = \"n\"\n[source]\nconnector = \"topic\"\n[sink]\nconnector = \"live\"\ntable = \"t\""),
            "n pipes 1 sinks 2"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert!(
            check("program = \"p\"\n\nparalelism = 2")
                .starts_with("line 3: unknown field `paralelism`, expected one of `name`")
        );
        assert!(check("program = \n").starts_with("line 1: "));
        let of_flink = check("program = \"p\"\nexecution.checkpointing.unaligned = true");
        assert!(of_flink.starts_with("`execution.checkpointing.unaligned` is an option of Flink"), "{of_flink}");
        assert!(
            check("program = \"p\"\nparallelism = \"two\"")
                .ends_with("line 2: invalid type: string \"two\", expected a whole number")
        );
        assert!(check("program = \"p\"\nparallelism = 0").starts_with("`parallelism` must be"));
        assert!(check("program = \"p\"\n[checkpoints]\npause = 1").starts_with("line 3: unknown field `pause`"));
        assert!(check("program = \"p\"\n[checkpoints]\nretained = 0").starts_with("`retained` of `checkpoints`"));
        assert_eq!(check("name = \"x\""), "there is nothing to run; give `program = \"name\"`, or [source] and [sink]");
        assert_eq!(check("[source]\nconnector = \"topic\""), "there is a [source] but no [sink]");
        assert_eq!(check("[source]\n[sink]"), "[source] has no `connector`");
        assert_eq!(
            check("program = \"p\"\n[source]\nconnector = \"x\""),
            "`program` stands beside [source] or [sink]; keep one of the two"
        );
    }
}
