//! Lines of CSV into columns: values of columns that are not asked for are passed over.

use arrow_schema::SchemaRef;
use tidemill_core::{Error, Result};

use super::rows::{RowFormat, Rows, Scalar};
use crate::format::csv::split_line;
use crate::format::text::text_of;

/// A record is one line of values; a schema says which of them become columns, and their types. Quoting is that of
/// [`Csv`](crate::format::Csv). A value without any character and without quotes is null where the schema allows it. Booleans
/// are `true` and `false` in any case, timestamps epoch milliseconds.
#[derive(Debug, Clone)]
pub struct CsvColumns {
    schema: SchemaRef,
    delimiter: u8,
    /// For each value of a line, the column it goes to.
    places: Vec<Option<usize>>,
    quoted: String,
}

impl CsvColumns {
    /// The columns of this schema from lines whose values have these names, in order. An error if a column has no value, or
    /// a type that cannot be read from text.
    pub fn new<N: AsRef<str>>(schema: SchemaRef, names: impl IntoIterator<Item = N>) -> Result<Self> {
        Rows::new(schema.clone())?;
        let place = |name: N| schema.fields().iter().position(|field| field.name() == name.as_ref());
        let places: Vec<Option<usize>> = names.into_iter().map(place).collect();
        for (at, field) in schema.fields().iter().enumerate() {
            if !places.contains(&Some(at)) {
                return Err(Error::input(format!("no value of a line is named `{}`", field.name()))
                    .hint("name all values of a line in order; those that no column wants are passed over"));
            }
        }
        Ok(CsvColumns { schema, delimiter: b',', places, quoted: String::new() })
    }

    /// The separator, an ASCII character; default `,`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }
}

impl RowFormat for CsvColumns {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), String> {
        let text = text_of(bytes)?;
        if text.is_empty() {
            return Err("an empty line".to_string());
        }
        let (places, schema, mut count) = (&self.places, &self.schema, 0);
        split_line(text, self.delimiter, &mut self.quoted, |value, quoted| {
            let place = places.get(count).copied().flatten();
            count += 1;
            let Some(at) = place else { return Ok(()) };
            let absent = value.is_empty() && !quoted && schema.field(at).is_nullable();
            rows.set(at, if absent { Scalar::Null } else { Scalar::Untyped(value) })
        })?;
        match count == places.len() {
            true => Ok(()),
            false => Err(format!("{count} columns where {} are expected", places.len())),
        }
    }
}
