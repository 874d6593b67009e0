//! The columnar lane: streams of Arrow batches through the same tasks, ports, credits, timestamps and snapshots as the typed
//! lane. SQL and rules stand on it.
//!
//! | file | holds |
//! |---|---|
//! | `stream` | [`ColumnStream`]: the API |
//! | `convert` | values to rows and back |
//! | `row_key` | a key of several columns in state: its hash, its bytes |
//! | `key_columns` | key columns of a batch: their hash, their machine words |
//! | `partition` | rows to the subtask of their key |
//! | `parts`, `aggregate` | what count, sum, min and max keep, as machine words |
//! | `groups` | tables of keys and parts, filled batch by batch |
//! | `changes` | which of them have changed since a snapshot |
//! | `runs` | the rows of a batch by slice of time |
//! | `window` | aggregations over windows: the API |
//! | `combine` | their part before the exchange |
//! | `slices` | their part behind it |
//!
//! An operator of this lane is an [`Operator`](crate::operator::Operator) on [`ColumnBatch`](tidemill_core::ColumnBatch)es.
//! Its state is written by the chains of the typed lane's tables, each key as a `RowKey`.

mod aggregate;
mod changes;
mod combine;
mod convert;
mod groups;
mod key_columns;
mod partition;
mod parts;
mod row_key;
mod runs;
mod slices;
mod stream;
mod window;

pub use aggregate::AggregateCall;
pub use stream::{ColumnStream, KeyedColumnStream};
pub use window::WindowedColumnStream;
