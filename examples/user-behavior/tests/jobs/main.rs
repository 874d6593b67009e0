//! The streaming jobs against the reference, at one to three workers: over the sample that is built in, over the whole
//! data, over lines that are bad or late; and the program as a person runs it.
#![allow(clippy::unwrap_used)]

mod faults;
mod program;
mod run;
mod same;
