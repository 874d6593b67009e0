//! The job runtime on timely dataflow, and the typed DataStream API on top of it.
//!
//! | module | holds |
//! |---|---|
//! | [`stream`] | the API: environment, streams, functions |
//! | [`columnar`] | the same with Arrow columns: streams, keys, window aggregation |
//! | [`window`] | windows: assigners and the operators behind them |
//! | [`operator`] | what an operator is: a plain state machine |
//! | [`state`] | keyed state, timers, sections of bytes |
//! | [`checkpoint`] | manifests, folders, coordinator |
//! | `driver` | all code that touches timely |
//! | [`runtime`] | runs a job: threads, control, metrics, control socket |
//! | [`key`] | which worker a key belongs to |
//! | [`testing`] | a harness for user functions: one subtask, stepped by hand |

pub mod checkpoint;
pub mod columnar;
mod driver;
mod graph;
pub mod key;
pub mod operator;
pub mod runtime;
mod slot_sharing;
pub mod state;
pub mod stream;
pub mod testing;
pub mod window;

pub use driver::{BATCH_ROWS, Records};
pub use runtime::{JobResult, JobSettings};
pub use stream::Environment;
