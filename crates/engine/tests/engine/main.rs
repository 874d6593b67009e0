//! The engine through its API, on real workers.

mod recovery;
mod windows;
mod words;
