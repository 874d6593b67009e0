//! CSV, one line a record, by `serde`.

use std::marker::PhantomData;

use ::csv::{StringRecord, WriterBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::format::{Decode, Encode};

use super::text::text_of;

/// A record is one line of values. Without column names they go to `T`'s fields (or a tuple) by position; with
/// [`Csv::columns`] by name. Quoted values may hold separators and doubled quotes, but no line ends: connectors cut at
/// those first. A file's own heading line is skipped by the source (`FileSource::skip_lines(1)`).
pub struct Csv<T> {
    delimiter: u8,
    columns: Option<StringRecord>,
    /// The values of the line at hand, and the one being taken apart: kept so that no line allocates anew.
    line: StringRecord,
    quoted: String,
    value: PhantomData<fn() -> T>,
}

impl<T> Csv<T> {
    /// Values separated by `,`, by position.
    pub fn new() -> Self {
        Csv { delimiter: b',', columns: None, line: StringRecord::new(), quoted: String::new(), value: PhantomData }
    }

    /// The separator, an ASCII character; default `,`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The names of the columns in order: `T`'s fields are found by them, and columns `T` does not have are left out.
    pub fn columns<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(names.into_iter().collect::<Vec<S>>().iter().map(AsRef::as_ref).collect());
        self
    }
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Csv { delimiter: self.delimiter, columns: self.columns.clone(), ..Self::new() }
    }
}

impl<T: DeserializeOwned + 'static> Decode for Csv<T> {
    type Value = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<T, String> {
        let text = text_of(bytes)?;
        if text.is_empty() {
            return Err("an empty line".to_string());
        }
        self.split(text)?;
        let line = &self.line;
        if let Some(columns) = &self.columns
            && columns.len() != line.len()
        {
            return Err(format!("{} columns where {} are expected", line.len(), columns.len()));
        }
        line.deserialize(self.columns.as_ref()).map_err(|error| self.reason(&error))
    }
}

impl<T> Csv<T> {
    fn split(&mut self, text: &str) -> Result<(), String> {
        let (line, quoted) = (&mut self.line, &mut self.quoted);
        line.clear();
        split_line(text, self.delimiter, quoted, |value, _| {
            line.push_field(value);
            Ok(())
        })
    }

    fn reason(&self, error: &::csv::Error) -> String {
        let ::csv::ErrorKind::Deserialize { err, .. } = error.kind() else { return error.to_string() };
        let Some(field) = err.field() else { return err.kind().to_string() };
        let name = self.columns.as_ref().and_then(|columns| columns.get(field as usize));
        match name {
            Some(name) => format!("column `{name}`: {}", err.kind()),
            None => format!("column {}: {}", field + 1, err.kind()),
        }
    }
}

/// Takes a line apart: `each` is given every value, and whether it was quoted. The `csv` crate's reader builds its tables anew
/// for each input, so for single lines this is fifty times as fast; what it gives is the same. `scratch` holds quoted values.
pub(super) fn split_line(
    mut text: &str,
    delimiter: u8,
    scratch: &mut String,
    mut each: impl FnMut(&str, bool) -> Result<(), String>,
) -> Result<(), String> {
    let delimiter = char::from(delimiter);
    loop {
        let rest = match text.strip_prefix('"') {
            None => {
                let (value, rest) =
                    text.split_once(delimiter).map_or((text, None), |(value, rest)| (value, Some(rest)));
                each(value, false)?;
                rest
            }
            Some(inside) => {
                let rest = unquote(inside, delimiter, scratch)?;
                each(scratch, true)?;
                rest
            }
        };
        match rest {
            Some(rest) => text = rest,
            None => return Ok(()),
        }
    }
}

/// Reads a value behind its first quote into `quoted`; what stands behind its separator, if there is one.
fn unquote<'a>(mut text: &'a str, delimiter: char, quoted: &mut String) -> Result<Option<&'a str>, String> {
    quoted.clear();
    loop {
        let (inside, behind) = text.split_once('"').ok_or("a quoted value has no end")?;
        quoted.push_str(inside);
        match behind.strip_prefix('"') {
            Some(behind) => {
                quoted.push('"');
                text = behind;
            }
            None => {
                // Anything between the closing quote and the separator belongs to the value.
                let (more, rest) =
                    behind.split_once(delimiter).map_or((behind, None), |(more, rest)| (more, Some(rest)));
                quoted.push_str(more);
                return Ok(rest);
            }
        }
    }
}

impl<T: Serialize + 'static> Encode<T> for Csv<T> {
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        let mut writer = WriterBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .buffer_capacity(256)
            .from_writer(&mut *out);
        writer
            .serialize(value)
            .and_then(|()| writer.flush().map_err(Into::into))
            .map_err(|error| format!("does not become CSV: {error}"))?;
        drop(writer);
        if out.last() == Some(&b'\n') {
            out.pop();
        }
        if out[begin..].contains(&b'\n') {
            out.truncate(begin);
            return Err("does not become one line of CSV: a value holds a line end".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        user: String,
        amount: u32,
    }

    #[test]
    fn values_are_found_by_position_or_name() {
        let order = || Order { user: "a, \"b\"".into(), amount: 3 };
        let mut bytes = Vec::new();
        Csv::new().encode(&order(), &mut bytes).expect("encodes");
        assert_eq!(bytes, br#""a, ""b""",3"#);
        assert_eq!(Csv::new().decode(&bytes), Ok(order()));
        let mut named = Csv::new().delimiter(b';').columns(["amount", "note", "user"]);
        assert_eq!(named.decode(b"3;whatever;\"a, \"\"b\"\"\""), Ok(order()));
        assert_eq!(Csv::<(String, Option<u8>)>::new().decode(b"x,"), Ok(("x".to_string(), None)));
    }

    /// What the `csv` crate makes of a line, this does too.
    #[test]
    fn lines_are_taken_apart_as_the_csv_crate_does() {
        for text in [
            "a,b",
            "a,",
            ",",
            ",,x",
            "\"a\"",
            "\"\",\"\"",
            "\"a,b\",c",
            "\"a\"\"b\",\"\"\"\"",
            "a\"b,c\"",
            "\"a\"b,c",
            " a , b ",
            "ä,\"ö\"",
            "\"a,\"\",b\",c",
        ] {
            let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
            let expected = reader.records().next().expect("a line").expect("reads");
            let mut csv = Csv::<()>::new();
            csv.split(text).expect(text);
            assert_eq!(csv.line, expected, "{text}");
        }
        assert_eq!(Csv::<()>::new().split("a,\"b"), Err("a quoted value has no end".to_string()));
    }

    #[test]
    fn the_reason_names_the_column() {
        for (text, expected) in [
            ("a,three", "column 2: invalid digit found in string"),
            ("a", "invalid length 1, expected struct Order with 2 elements"),
            ("", "an empty line"),
        ] {
            let reason = Csv::<Order>::new().decode(text.as_bytes()).expect_err(text);
            assert_eq!(reason, expected, "{text}");
        }
        let mut named = Csv::<Order>::new().columns(["user", "amount"]);
        assert_eq!(named.decode(b"a,three"), Err("column `amount`: invalid digit found in string".to_string()));
        assert_eq!(named.decode(b"a"), Err("1 columns where 2 are expected".to_string()));
        assert_eq!(named.decode(b"a,\xff"), Err("not UTF-8 from byte 2".to_string()));
        let broken = Order { user: "two\nlines".into(), amount: 1 };
        let mut out = b"kept".to_vec();
        assert!(Csv::new().encode(&broken, &mut out).is_err());
        assert_eq!(out, b"kept");
    }
}
