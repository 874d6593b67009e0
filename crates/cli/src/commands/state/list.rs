//! `tidemill state list`.

use clap::Args;
use serde_json::{Value, json};

use super::StateArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// List the operators of a checkpoint or savepoint
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    state: StateArgs,
}

impl Run for List {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let reader = self.state.open()?;
        let states = reader.states();
        let operator = |(uid, operator): (&String, &tidemill::engine::checkpoint::OperatorState)| {
            let own = states.iter().filter(|state| state.operator == *uid);
            let names: Vec<&str> = own.clone().map(|state| state.name.as_str()).collect();
            json!({"operator": uid, "parallelism": operator.parallelism, "states": names,
                "entries": own.clone().map(|state| state.entries).sum::<u64>(),
                "bytes": own.map(|state| state.bytes).sum::<u64>(), "tokens": operator.tokens.len()})
        };
        let operators: Vec<Value> = reader.manifest().operators.iter().map(operator).collect();
        context.output.list(&operators, &["OPERATOR", "SUBTASKS", "STATES", "ENTRIES", "BYTES", "TOKENS"], |one| {
            let names: Vec<String> = one["states"].as_array().into_iter().flatten().map(cell).collect();
            let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
            let number = |name: &str| cell(&one[name]);
            vec![number("operator"), number("parallelism"), names, number("entries"), number("bytes"), number("tokens")]
        })
    }
}
