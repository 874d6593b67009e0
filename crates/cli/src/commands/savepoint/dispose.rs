//! `tidemill savepoint dispose`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;
use tidemill::engine::checkpoint::dispose_savepoint;

use crate::Context;
use crate::commands::Run;
use crate::commands::state::present;
use crate::failure::Failure;

/// Delete a savepoint with all its files
#[derive(Debug, Args)]
pub struct Dispose {
    /// The savepoint: its folder, or its URL with AWS_… in the environment
    #[arg(value_name = "PLACE")]
    place: String,
}

impl Run for Dispose {
    fn run(self, context: &Context) -> Result<(), Failure> {
        present(&self.place)?;
        dispose_savepoint(&self.place, BTreeMap::new())?;
        context.output.result(&json!({"disposed": self.place}), format_args!("disposed {}", self.place))
    }
}
