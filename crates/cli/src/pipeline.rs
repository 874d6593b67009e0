//! Declarative pipelines: `[source]` → `[sink]` without a program. The one place where their runtime is to be put.

use tidemill_core::{Error, Result};

use crate::job_file::Pipeline;

/// Runs a pipeline to its end.
pub fn run(pipeline: &Pipeline) -> Result<()> {
    let connector =
        |table: &toml::Table| table.get("connector").and_then(toml::Value::as_str).unwrap_or("?").to_owned();
    let (source, sink) = (connector(&pipeline.source), connector(&pipeline.sink));
    Err(Error::input(format!("job `{}` is a pipeline from `{source}` to `{sink}`", pipeline.spec.name))
        .hint("this build runs job files with a `program` only"))
}
