//! The engine through its API, on real workers.

#![allow(clippy::unwrap_used)]

mod formats;
mod pressure;
mod recovery;
mod windows;
mod words;
