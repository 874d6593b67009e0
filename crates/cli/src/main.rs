//! The command line of Tidemill: arguments and printing. What the commands do stands in the server and the topics.

mod client;
mod commands;
mod failure;
mod flink_options;
mod job_file;
mod output;
mod pipeline;
mod supervise;

use std::process::ExitCode;

use clap::{Arg, Command};
use failure::Failure;
use output::Output;

/// What every command is told.
pub struct Context {
    /// How to print.
    pub output: Output,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tidemill_core::say(format_args!("error: {}", failure.one_line()));
            ExitCode::from(failure.code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let matches = match command_line().try_get_matches() {
        Ok(matches) => matches,
        // Help and version are answers, not errors.
        Err(e) if !e.use_stderr() => return e.print().map_err(|e| Failure::from(tidemill_core::Error::io("print", e))),
        Err(e) if e.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{e}");
            return Err(Failure::new(Failure::USAGE, "no command was given"));
        }
        Err(e) => return Err(Failure::usage(&e)),
    };
    let output = matches.get_one::<Output>("output").copied().unwrap_or_default();
    commands::run(commands::ALL, &matches, &Context { output })
}

fn command_line() -> Command {
    let root = Command::new("tidemill")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Real-time event processing: jobs, topics, live tables, in one program.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(failure::EXIT_CODES)
        .arg(
            Arg::new("output")
                .long("output")
                .global(true)
                .value_name("FORMAT")
                .value_parser(clap::builder::EnumValueParser::<Output>::new())
                .default_value("table")
                .help("How to print: columns for people, or JSON for programs"),
        );
    commands::build(commands::ALL, root)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command_line().debug_assert();
    }
}
