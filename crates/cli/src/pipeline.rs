//! Declarative pipelines: `[source]` → `[sink]` without a program. Runs one in this process, as the server would start it.

use std::path::Path;
use std::process::ExitCode;

use tidemill::engine::Environment;
use tidemill::pipeline::{Options, build};
use tidemill_core::{Error, Result};

use crate::failure::Failure;
use crate::job_file::Pipeline;

/// Builds a pipeline aside, so that a wrong file is told as every other wrong use. Its relative paths are below `folder`,
/// its topics in `data`.
pub fn check(pipeline: &Pipeline, folder: &Path, data: &Path) -> Result<()> {
    let (from, to) = (options("source", &pipeline.source)?, options("sink", &pipeline.sink)?);
    build(&Environment::new(), folder, data, &from, &to).map_err(|e| e.context(format!("job `{}`", pipeline.spec.name)))
}

/// Runs a pipeline to its end, in the folder of a job that this process was given; its exit code. What whoever started it
/// says comes before what the file says.
pub fn run(pipeline: &Pipeline, folder: &Path, data: &Path) -> Result<u8> {
    let (from, to) = (options("source", &pipeline.source)?, options("sink", &pipeline.sink)?);
    let spec = &pipeline.spec;
    let code = tidemill::run_job(&spec.name, |env| {
        let mut settings = env.settings();
        settings.parallelism = settings.parallelism.or(spec.parallelism);
        let said = spec.environment();
        let option = |name: &str| {
            let of_file = said.iter().find(|(option, _)| *option == name).map(|(_, value)| value.clone());
            std::env::var(name).ok().filter(|value| !value.is_empty()).or(of_file)
        };
        settings.read_checkpoint_options(option)?;
        settings.read_state_options(option)?;
        drop(settings);
        build(env, folder, data, &from, &to)
    });
    // Nothing tells the number in an `ExitCode`.
    Ok((0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(Failure::FAILED))
}

/// Options as text, whatever they are in the file. A name may have dots: to TOML those are tables in tables.
fn options(part: &str, table: &toml::Table) -> Result<Options> {
    let mut all = Options::new();
    for (name, value) in table {
        match value {
            toml::Value::String(text) => drop(all.insert(name.clone(), text.clone())),
            toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
                all.insert(name.clone(), value.to_string());
            }
            toml::Value::Table(inner) => {
                all.extend(options(part, inner)?.into_iter().map(|(rest, value)| (format!("{name}.{rest}"), value)));
            }
            _ => return Err(Error::input(format!("[{part}]: `{name}` must be text, a number, or true or false"))),
        }
    }
    Ok(all)
}
