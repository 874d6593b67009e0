//! `tidemill state show`.

use clap::Args;
use serde_json::Value;
use tidemill_core::Error;

use super::{StateArgs, chosen};
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::{Output, cell, line, moment};

/// Show the states of a checkpoint or savepoint: kinds, key groups, entries, bytes, types
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    state: StateArgs,
    /// Only of this operator
    #[arg(long, value_name = "UID")]
    operator: Option<String>,
    /// Only of this name
    #[arg(long = "state", value_name = "NAME")]
    name: Option<String>,
}

impl Run for Show {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let reader = self.state.open()?;
        let states = chosen(&reader, self.operator.as_deref(), self.name.as_deref());
        let states = states.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>();
        let states = states.map_err(|e| Error::bug(format!("a state cannot be told as JSON: {e}")))?;
        if context.output == Output::Table {
            let manifest = reader.manifest();
            line(format_args!(
                "{} {} of job `{}` ({}), taken {} UTC\n",
                manifest.kind,
                manifest.epoch,
                manifest.job_name,
                manifest.job_id,
                moment(&manifest.created_ms.into())
            ))?;
        }
        let heads = ["OPERATOR", "STATE", "KIND", "SUBTASKS", "KEY GROUPS", "ENTRIES", "REMOVED", "BYTES", "ENTRY"];
        context.output.list(&states, &heads, |one| {
            let range = |range: &Value| format!("{}-{}", range[0], range[1]);
            let groups: Vec<String> = one["key_groups"].as_array().into_iter().flatten().map(range).collect();
            let groups = if groups.is_empty() { "-".to_owned() } else { groups.join(" ") };
            let text = |name: &str| cell(&one[name]);
            let (entries, removed) = (text("entries"), text("removed"));
            vec![
                text("operator"),
                text("name"),
                text("kind"),
                text("subtasks"),
                groups,
                entries,
                removed,
                text("bytes"),
                text("entry"),
            ]
        })
    }
}
