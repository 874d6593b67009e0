//! `tidemill state`: what is in a checkpoint or savepoint, without the job that wrote it.

mod export;
mod list;
mod show;

use std::path::Path;

use clap::Args;
use tidemill::engine::checkpoint::{SavepointReader, StateSummary};
use tidemill_core::Error;

use super::Entry;
use crate::failure::Failure;

/// The commands.
pub const ALL: &[Entry] =
    &[Entry::of::<list::List>("list"), Entry::of::<show::Show>("show"), Entry::of::<export::Export>("export")];

/// Where the state is.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// A complete checkpoint or savepoint: its folder, or its URL with AWS_… in the environment
    #[arg(value_name = "PLACE")]
    place: String,
}

impl StateArgs {
    /// Opens it.
    pub fn open(&self) -> Result<SavepointReader, Failure> {
        present(&self.place)?;
        Ok(SavepointReader::open(&self.place)?)
    }
}

/// Refuses a folder in which no checkpoint or savepoint is. Whether there is one at a URL is seen when it is opened.
pub fn present(place: &str) -> Result<(), Failure> {
    if place.contains("://") || (!place.is_empty() && Path::new(place).join("_metadata").exists()) {
        return Ok(());
    }
    let error = Error::input(format!("there is no checkpoint or savepoint in `{place}`"));
    Err(Failure::not_found(error.hint("name the folder of a complete one, which holds a file `_metadata`")))
}

/// The states that are asked for.
pub fn chosen(reader: &SavepointReader, operator: Option<&str>, state: Option<&str>) -> Vec<StateSummary> {
    let wanted = |text: &str, asked: Option<&str>| asked.is_none_or(|asked| asked == text);
    let mut states = reader.states();
    states.retain(|one| wanted(&one.operator, operator) && wanted(&one.name, state));
    states
}
