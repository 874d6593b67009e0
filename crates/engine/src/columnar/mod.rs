//! The columnar lane: streams of Arrow batches through the same tasks, ports, credits, timestamps and snapshots as the typed
//! lane. SQL and rules stand on it.
//!
//! | file | holds |
//! |---|---|
//! | `stream` | [`ColumnStream`]: the API |
//! | `convert` | values to rows and back |
//! | `row_key` | keys of several columns: their hash, their bytes in state |
//! | `partition` | rows to the subtask of their key |
//! | `aggregate` | what count, sum, min and max keep, as machine words |
//! | `combine` | the part of an aggregation before the exchange |
//! | `window` | the part behind it: windows of each key |
//!
//! An operator of this lane is an [`Operator`](crate::operator::Operator) on [`ColumnBatch`](tidemill_core::ColumnBatch)es.
//! What it keeps for a key stands under a `RowKey`, in the same tables as on the typed lane.

mod aggregate;
mod combine;
mod convert;
mod partition;
mod row_key;
mod stream;
mod window;

pub use aggregate::AggregateCall;
pub use stream::{ColumnStream, KeyedColumnStream};
pub use window::WindowedColumnStream;
