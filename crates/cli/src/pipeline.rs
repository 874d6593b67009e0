//! Declarative pipelines: `[source]` → `[sink]` without a program. Runs one in this process, as the server would start it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidemill::engine::Environment;
use tidemill::pipeline::{Options, build};
use tidemill_core::{Error, Result};

use crate::job_file::Pipeline;

/// Runs a pipeline to its end. Its relative paths are below `folder`, its topics in `data`.
pub fn run(pipeline: &Pipeline, folder: &Path, data: PathBuf) -> Result<ExitCode> {
    let (from, to) = (options("source", &pipeline.source)?, options("sink", &pipeline.sink)?);
    let spec = &pipeline.spec;
    // Once aside, so that a wrong file is told as every other wrong use.
    build(&Environment::new(), folder, &data, &from, &to).map_err(|e| e.context(format!("job `{}`", spec.name)))?;
    Ok(tidemill::run_job(&spec.name, |env| {
        let mut settings = env.settings();
        settings.parallelism = spec.parallelism.or(settings.parallelism);
        let said = spec.environment();
        let option = |name: &str| said.iter().find(|(option, _)| *option == name).map(|(_, value)| value.clone());
        settings.read_checkpoint_options(option)?;
        settings.read_state_options(option)?;
        drop(settings);
        build(env, folder, &data, &from, &to)
    }))
}

/// Options as text, whatever they are in the file.
fn options(part: &str, table: &toml::Table) -> Result<Options> {
    table
        .iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name.clone(), text.clone())),
            toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
                Ok((name.clone(), value.to_string()))
            }
            _ => Err(Error::input(format!("[{part}]: `{name}` must be text, a number, or true or false"))),
        })
        .collect()
}
