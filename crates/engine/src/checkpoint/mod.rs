//! Checkpoints: a consistent copy of a job's state and positions, from which it goes on as if nothing had happened.
//!
//! A checkpoint is a folder `chk-<epoch>` with state files and, written last and atomically, the manifest `_metadata`.
//! *A checkpoint exists if and only if its manifest does.* Tasks hand their copies to the `writer` threads; the
//! `coordinator` starts epochs, waits for every subtask, writes the manifest and then has sinks commit. A savepoint is
//! the same, in a folder of its own, asked for by a person and never deleted by us.

mod attempts;
pub(crate) mod coordinator;
mod folder;
pub mod manifest;
mod read_ahead;
pub(crate) mod restore;
mod savepoint;
mod savepoint_writer;
pub(crate) mod storage;
pub(crate) mod writer;

pub use crate::state::shape::{Part, Plain, Shape, hex};
pub use folder::CheckpointFolder;
pub use manifest::{Manifest, OperatorState};
pub use savepoint::{RawSection, SavepointReader, ShapedEntry, StateSummary, dispose_savepoint};
pub(crate) use savepoint::{claim, claimed, release};
pub use savepoint_writer::SavepointWriter;
