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

use super::Entry;
use crate::client::ServerArgs;

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
    /// The job's id
    #[arg(value_name = "JOB")]
    pub id: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

impl JobArgs {
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
