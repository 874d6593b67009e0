//! What every part of Tidemill promises to every other. This crate is the ground: plain types and traits, no async
//! runtime, no dataflow engine, no client library, so that a connector's author compiles this and little else.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | the one error type and its kinds |
//! | [`clock`] | time as an argument |
//! | [`event`] | event time, watermarks as numbers, dead letters |
//! | [`columns`] | records as Arrow columns, with event times and row kinds |
//! | [`source`] | splits, readers: how records come in |
//! | [`sink`] | writers, tokens, committers: how results leave, exactly once if wanted |
//! | [`mod@format`] | bytes to values and back |
//! | [`metrics`] | what a source or sink counts of itself |
//! | [`report`] | what a job process tells about itself |
//! | [`slots`] | how many slots a job takes |

pub mod clock;
pub mod columns;
pub mod error;
pub mod event;
pub mod format;
pub mod metrics;
pub mod report;
pub mod sink;
pub mod slots;
pub mod source;

pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use columns::{ColumnBatch, RowKind};
pub use error::{Error, Kind, Result, say};
pub use event::{Data, DeadLetter, NO_TIMESTAMP, WATERMARK_MAX, WATERMARK_MIN};
