//! The binary as its users run it: output, one-line errors, exit codes.
//!
//! | module | holds |
//! |---|---|
//! | [`help`] | the text of every `--help`, compared with a file (`UPDATE_SNAPSHOTS=1` writes them anew) |
//! | [`topics`] | `topic …` |
//! | [`jobs`] | `serve` and `jobs …` |
//! | [`running`] | `run …` |
//! | [`demo`] | `demo` |

// A helper that breaks fails its test, as it should.
#![allow(clippy::unwrap_used)]

mod demo;
mod help;
mod jobs;
mod running;
mod state;
mod support;
mod topics;
