//! The one error type. Its kind tells the caller what to do; its message tells a person what happened to which thing.

use std::fmt;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's text, options or data are wrong: correct them; retrying changes nothing.
    Input,
    /// Something outside (a server, a disk, a network) failed: trying again later may help.
    External,
    /// A bound was reached: slow down or make room.
    Full,
    /// Stored bytes are not what was written: stop and keep the files.
    Corrupt,
    /// Our own mistake.
    Bug,
}

/// An error with its kind, a message in lower case that names the thing, and optionally the next step.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

/// `Result` with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None }
    }

    /// The user's text, options or data are wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Something outside failed; retrying may help.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(Kind::External, message)
    }

    /// A bound was reached.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(Kind::Full, message)
    }

    /// Stored bytes are damaged.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// A mistake of Tidemill itself.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// An I/O error with what was tried: `Error::io("write checkpoint 7 to `dir`", e)`. A full disk is [`Kind::Full`].
    pub fn io(tried: impl fmt::Display, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => Kind::Corrupt,
            _ => Kind::External,
        };
        Self::new(kind, format!("cannot {tried}: {error}"))
    }

    /// Adds the next step a person can take.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front of the message.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.kind == Kind::Bug {
            f.write_str(" (a bug of Tidemill: please report it)")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Writes a line on standard error. Where that is closed or on a full disk nobody reads it, and the program goes on:
/// `eprintln!` would panic there, and an exit code be lost.
pub fn say(line: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_thing_and_the_next_step() {
        let error = Error::input("unknown option `rte`").hint("did you mean `rate`?").context("source `orders`");
        assert_eq!(error.to_string(), "source `orders`: unknown option `rte`; did you mean `rate`?");
        assert_eq!(error.kind(), Kind::Input);
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = Error::io("write `x`", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), Kind::Full);
    }
}
