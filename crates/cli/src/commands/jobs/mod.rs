//! `tidemill jobs`: the jobs of a server.

mod cancel;
mod delete;
mod list;
mod log;
mod rescale;
mod restart;
mod savepoint;
mod show;
mod stop;
mod submit;

use clap::Args;
use serde_json::Value;

use super::Entry;
use crate::client::ServerArgs;
use crate::failure::Failure;

/// The commands.
pub const ALL: &[Entry] = &[
    Entry::of::<list::List>("list"),
    Entry::of::<show::Show>("show"),
    Entry::of::<submit::Submit>("submit"),
    Entry::of::<cancel::Cancel>("cancel"),
    Entry::of::<stop::Stop>("stop"),
    Entry::of::<savepoint::Savepoint>("savepoint"),
    Entry::of::<restart::Restart>("restart"),
    Entry::of::<rescale::Rescale>("rescale"),
    Entry::of::<delete::Delete>("delete"),
    Entry::of::<log::Log>("log"),
];

/// One job of a server.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id, as `tidemill jobs list` shows it
    #[arg(value_name = "JOB")]
    pub id: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

impl JobArgs {
    /// A call about this job that may take long: what is being done stands on the terminal meanwhile.
    pub fn post_long(&self, doing: &str, call: &str, body: &Value) -> Result<Value, Failure> {
        self.server.post_long(format!("job {}: {doing} …", self.id), &self.path(call), body)
    }

    /// The path of a call about this job; the id is escaped as far as an id can need it.
    pub fn path(&self, call: &str) -> String {
        let id: String = self
            .id
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        format!("/api/jobs/{id}{call}")
    }
}
