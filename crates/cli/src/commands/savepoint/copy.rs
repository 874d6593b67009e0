//! `tidemill savepoint copy`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;
use tidemill::engine::checkpoint::SavepointWriter;
use tidemill_core::Error;

use crate::Context;
use crate::commands::Run;
use crate::commands::state::StateArgs;
use crate::failure::Failure;

/// Make a savepoint of a checkpoint or savepoint, perhaps with other operators
#[derive(Debug, Args)]
pub struct Copy {
    #[command(flatten)]
    from: StateArgs,
    /// Where the copy goes: a folder that is not there yet, or its URL with AWS_… in the environment
    #[arg(value_name = "TO")]
    to: String,
    /// Leave the state of this operator out
    #[arg(long, value_name = "UID")]
    without: Vec<String>,
    /// Give the state of operator OLD to operator NEW
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed)]
    rename: Vec<(String, String)>,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("write the uid it has, `=`, and the uid it is to have")?;
    Ok((old.to_string(), new.to_string()))
}

impl Run for Copy {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let from = self.from.open()?;
        let mut uids: BTreeMap<&str, &str> = from.operators().map(|uid| (uid, uid)).collect();
        let unknown = |uid: &str| {
            let known: Vec<&str> = from.operators().collect();
            Error::input(format!("there is no operator `{uid}`")).hint(format!("there are `{}`", known.join("`, `")))
        };
        for (old, new) in &self.rename {
            *uids.get_mut(old.as_str()).ok_or_else(|| unknown(old))? = new;
        }
        for uid in &self.without {
            uids.remove(uid.as_str()).ok_or_else(|| unknown(uid))?;
        }
        let mut writer = SavepointWriter::create(&self.to)?;
        for (uid, new_uid) in &uids {
            writer.copy(&from, uid, new_uid)?;
        }
        writer.finish()?;
        let operators: Vec<&str> = uids.into_values().collect();
        let text = format!("{} operators are in `{}`", operators.len(), self.to);
        context.output.result(&json!({"savepoint": self.to, "operators": operators}), format_args!("{text}"))
    }
}
