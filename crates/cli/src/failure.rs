//! How a command fails: one line for people and an exit code for scripts.

use tidemill_core::{Error, Kind};

/// What scripts may rely on, told at the end of the help.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong use or input · 3 not there · 4 the server does not answer · 130 cancelled.
Of a command that failed the last line on standard error is `error: …`.";

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// 1 failure, 2 usage, 3 not found, 4 server not reachable.
    pub code: u8,
    message: String,
}

impl Failure {
    /// Something went wrong.
    pub const FAILED: u8 = 1;
    /// The command or its input is wrong.
    pub const USAGE: u8 = 2;
    /// The thing named is not there.
    pub const NOT_FOUND: u8 = 3;
    /// The server does not answer.
    pub const UNREACHABLE: u8 = 4;

    /// A failure with its code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }

    /// The thing named is not there.
    pub fn not_found(error: Error) -> Self {
        Failure { code: Self::NOT_FOUND, message: error.to_string() }
    }

    /// What clap has to say, on one line.
    pub fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let said = text.trim_start_matches("error: ");
        let lines: Vec<&str> = said.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).collect();
        let kept: Vec<&str> =
            lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
        let message = kept.join(" ").replace(" tip: ", "; ");
        Failure { code: Self::USAGE, message: format!("{message}; see `--help`") }
    }

    /// The message without line breaks.
    pub fn one_line(&self) -> String {
        self.message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.kind() == Kind::Input { Self::USAGE } else { Self::FAILED };
        Failure { code, message: error.to_string() }
    }
}
