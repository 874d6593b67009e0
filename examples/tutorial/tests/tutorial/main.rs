//! Every program with its documented input and its exact output: over collections, by a clock that stands in our hand,
//! and as processes that read a file or a socket.

#![allow(clippy::unwrap_used)]

mod by_the_clock;
mod collections;
mod processes;
