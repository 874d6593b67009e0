//! All commands: one file each, and one line in a list.

mod agent;
mod agents;
mod checkpoint_args;
mod demo;
mod jobs;
mod openapi;
mod run;
mod savepoint;
mod serve;
mod state;
mod topic;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgMatches, Args};

use crate::Context;
use crate::failure::Failure;
pub use checkpoint_args::{CheckpointArgs, claim_mode};

/// The commands.
pub const ALL: &[Entry] = &[
    Entry::of::<serve::Serve>("serve"),
    Entry::of::<run::Run>("run"),
    Entry::of::<agent::Agent>("agent"),
    Entry::of::<agents::Agents>("agents"),
    Entry::group("jobs", "Look at and control the jobs of a server", jobs::ALL),
    Entry::group("savepoint", "Savepoints without a server", savepoint::ALL),
    Entry::group("state", "Look into checkpoints and savepoints without the job that wrote them", state::ALL),
    Entry::group("topic", "Create, fill and read the topics of a data folder", topic::ALL),
    Entry::of::<demo::Demo>("demo"),
    Entry::of::<openapi::OpenApi>("openapi"),
];

/// A command: its arguments know how to run.
pub trait Run: Args {
    /// Does it.
    fn run(self, context: &Context) -> Result<(), Failure>;
}

/// A line of a list of commands.
pub struct Entry {
    name: &'static str,
    work: Work,
}

enum Work {
    Command { build: fn(clap::Command) -> clap::Command, run: fn(&ArgMatches, &Context) -> Result<(), Failure> },
    Group { about: &'static str, entries: &'static [Entry] },
}

impl Entry {
    const fn of<C: Run>(name: &'static str) -> Entry {
        Entry { name, work: Work::Command { build: C::augment_args, run: run_one::<C> } }
    }

    const fn group(name: &'static str, about: &'static str, entries: &'static [Entry]) -> Entry {
        Entry { name, work: Work::Group { about, entries } }
    }
}

fn run_one<C: Run>(matches: &ArgMatches, context: &Context) -> Result<(), Failure> {
    C::from_arg_matches(matches).map_err(|e| Failure::usage(&e))?.run(context)
}

/// Adds the commands of a list.
pub fn build(entries: &[Entry], parent: clap::Command) -> clap::Command {
    parent.subcommands(entries.iter().map(|entry| {
        let command = clap::Command::new(entry.name);
        match &entry.work {
            Work::Command { build, .. } => build(command),
            Work::Group { about, entries } => {
                self::build(entries, command.about(*about).subcommand_required(true).arg_required_else_help(true))
            }
        }
    }))
}

/// Runs the command that was named.
pub fn run(entries: &[Entry], matches: &ArgMatches, context: &Context) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Failure::new(Failure::USAGE, "no command was given; see `--help`"));
    };
    match entries.iter().find(|entry| entry.name == name).map(|entry| &entry.work) {
        Some(Work::Command { run, .. }) => run(matches, context),
        Some(Work::Group { entries, .. }) => self::run(entries, matches, context),
        None => Err(Failure::new(Failure::USAGE, format!("there is no command `{name}`; see `--help`"))),
    }
}

/// The data folder.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// The data folder
    #[arg(
        long,
        env = "TIDEMILL_DATA",
        hide_env_values = true,
        default_value = "./tidemill-data",
        value_name = "FOLDER"
    )]
    pub data: PathBuf,
}

/// Where to listen.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bad = || "write an IP address and a port, as 127.0.0.1:8081".to_owned();
    text.replacen("localhost:", "127.0.0.1:", 1).parse().map_err(|_| bad())
}

/// A runtime for commands that wait for several things at once.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|e| tidemill_core::Error::io("start the runtime's threads", e).into())
}
