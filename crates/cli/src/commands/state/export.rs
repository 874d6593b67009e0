//! `tidemill state export`.

use clap::Args;
use serde_json::{Value, json};
use tidemill::engine::checkpoint::{SavepointReader, Shape, hex};
use tidemill_core::Error;

use super::{StateArgs, chosen};
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::cell;

/// Print the entries of a state
///
/// The states of functions say themselves what they are (`tidemill state show`). Of others, such as those of windows, tell the
/// shapes: --key u64 --value '(string, i64)'. There are bool, u8 to u128, i8 to i128, f32, f64, char, string, bytes, unit,
/// option<A>, list<A>, map<A, B>, enum<A | B>, and (A, B) for tuples and structs; fields and variants may be named,
/// (user: string, count: u64). A list state's value is list<A>, a map state's list<(A, B)>; of state that expires each value
/// is (i64, A). A state that is not known, and any with --raw, is printed in the pieces it was written in: as bytes in
/// hexadecimal digits, and what is JSON anyway (splits of sources) as JSON.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    state: StateArgs,
    /// The operator
    #[arg(long, value_name = "UID")]
    operator: String,
    /// The state's name
    #[arg(long = "state", value_name = "NAME")]
    name: String,
    /// The shape of the key, for keyed state
    #[arg(long, value_name = "SHAPE", requires = "value")]
    key: Option<Shape>,
    /// The shape of the value
    #[arg(long, value_name = "SHAPE")]
    value: Option<Shape>,
    /// Print the pieces of bytes the state consists of
    #[arg(long, conflicts_with = "value")]
    raw: bool,
}

impl Run for Export {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let reader = self.state.open()?;
        let entries = match &self.value {
            Some(value) => reader.shaped(&self.operator, &self.name, self.key.as_ref(), value)?,
            None if self.raw || !self.is_known(&reader) => return self.raw(&reader, context),
            None => reader.entries(&self.operator, &self.name)?,
        };
        let keyed = entries.iter().any(|entry| entry.key.is_some());
        let entries = entries.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>();
        let entries = entries.map_err(|e| Error::bug(format!("an entry cannot be told as JSON: {e}")))?;
        let heads: &[&str] = if keyed { &["KEY", "VALUE"] } else { &["SUBTASK", "VALUE"] };
        context
            .output
            .list(&entries, heads, |one| vec![cell(&one[if keyed { "key" } else { "subtask" }]), cell(&one["value"])])
    }
}

impl Export {
    fn is_known(&self, reader: &SavepointReader) -> bool {
        chosen(reader, Some(&self.operator), Some(&self.name)).iter().any(|state| state.entry.is_some())
    }

    fn raw(&self, reader: &SavepointReader, context: &Context) -> Result<(), Failure> {
        let sections = reader.raw(&self.operator, &self.name)?.into_iter().map(|section| {
            let known = serde_json::from_slice::<Value>(&section.bytes).ok().filter(Value::is_array);
            let mut shown = json!({"subtask": section.subtask, "entries": section.entries, "removal": section.removal,
                "bytes": section.bytes.len()});
            match known {
                Some(known) => shown["json"] = known,
                None => shown["hex"] = hex(&section.bytes).into(),
            }
            shown
        });
        let sections: Vec<Value> = sections.collect();
        context.output.list(&sections, &["SUBTASK", "ENTRIES", "REMOVED", "BYTES", "CONTENT"], |one| {
            let content = if one["json"].is_null() { &one["hex"] } else { &one["json"] };
            vec![
                cell(&one["subtask"]),
                cell(&one["entries"]),
                cell(&one["removal"]),
                cell(&one["bytes"]),
                cell(content),
            ]
        })
    }
}
