//! Formats: one record's bytes to a value and back. They know no connector.

mod avro;
pub mod columns;
mod csv;
mod json;
mod raw;
mod text;

pub use self::csv::Csv;
pub use avro::Avro;
pub use json::Json;
pub use raw::Raw;
pub use text::Text;
