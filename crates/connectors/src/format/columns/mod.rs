//! Records decoded straight into columns: only the fields of a schema, no value in between.
//!
//! ```
//! use std::sync::Arc;
//! use arrow_schema::{DataType, Field, Schema};
//! use tidemill_connectors::file::FileSource;
//! use tidemill_connectors::format::columns::{ColumnSource, JsonColumns};
//!
//! // Of whatever stands in the lines, these two fields.
//! let schema = Arc::new(Schema::new(vec![
//!     Field::new("time", DataType::Int64, false),
//!     Field::new("user", DataType::Utf8, true),
//! ]));
//! let format = JsonColumns::new(schema.clone())?;
//! let source = ColumnSource::new(format, |format| FileSource::new("visits.ndjson", format))?.event_time("time")?;
//! # let _ = source;
//! # Ok::<(), tidemill_core::Error>(())
//! ```
//!
//! [`ColumnSource`] makes a source of column batches of any source that takes a format: files, topics, Kafka. That source
//! reads, decodes on its own thread, keeps positions and rejects what cannot be read, as it always does; the format writes
//! rows into columns on the way instead of handing values over. Records that are refused go to the dead letters with reason
//! and position; the others of their batch stay.
//!
//! | file | holds |
//! |---|---|
//! | `rows` | columns being filled, row by row, and what becomes of a row that is refused |
//! | `json`, `csv` | [`JsonColumns`], [`CsvColumns`] |
//! | `source` | [`ColumnSource`] |

mod csv;
mod json;
mod rows;
mod source;

pub use csv::CsvColumns;
pub use json::JsonColumns;
pub(crate) use rows::Scalar;
pub use rows::{RowFormat, Rows};
pub use source::{ColumnRows, ColumnSource};
pub(crate) use source::{time_column, times};
