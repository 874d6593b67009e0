//! `tidemill savepoint`: savepoints without a server. Taking one is `tidemill jobs savepoint`.

mod copy;
mod dispose;

use super::Entry;

/// The commands.
pub const ALL: &[Entry] = &[Entry::of::<copy::Copy>("copy"), Entry::of::<dispose::Dispose>("dispose")];
