//! The only code that touches timely: capabilities, frontiers, channels. Operators above it are plain state machines.
//!
//! A *task* is one timely operator: its inputs, a chain of operators joined by forward edges, and one output port an
//! exchanged edge. It holds one capability for each output, never more, and does four things in turn (see [`task`]):
//! take input of its epoch; tell the chain the watermark; when its epoch is over, have the chain's state copied; flush.

pub(crate) mod alignment;
pub(crate) mod build;
pub(crate) mod codec;
pub(crate) mod flow;
pub(crate) mod port;
pub(crate) mod rows;
pub(crate) mod source;
pub(crate) mod source_pool;
pub(crate) mod task;
pub(crate) mod timestamp;

pub use rows::{BATCH_ROWS, Records};
