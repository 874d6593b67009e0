//! Formats: one record's bytes to a value and back. They know no connector.

mod csv;
mod json;
mod text;

pub use self::csv::Csv;
pub use json::Json;
pub use text::Text;
