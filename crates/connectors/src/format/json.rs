//! JSON, one value a record, by `serde`.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::format::{Decode, Encode};

/// A record is one JSON value of type `T`. Unknown fields are `T`'s business (`serde(deny_unknown_fields)`).
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// The format.
    pub fn new() -> Self {
        Json(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> Decode for Json<T> {
    type Value = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<T, String> {
        // serde_json names the field when it is missing or unknown, and the place (column) when its type is wrong.
        serde_json::from_slice(bytes).map_err(|error| reason(bytes, &error))
    }
}

/// Why the bytes are no `T`, with the field the place of the error belongs to.
fn reason(bytes: &[u8], error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.strip_suffix(&format!(" at line {} column {}", error.line(), error.column()));
    let message = message.map_or_else(|| error.to_string(), str::to_string);
    if !error.is_data() {
        return format!("not JSON: {message} at column {}", error.column());
    }
    match field_before(bytes, error.line(), error.column()) {
        // Missing and unknown fields are named by serde itself.
        Some(field) if !message.contains(" field `") => format!("field `{field}`: {message}"),
        _ => message,
    }
}

/// The name of the last field that begins before a place: `"name" :` in front of the value that was refused.
fn field_before(bytes: &[u8], line: usize, column: usize) -> Option<String> {
    let begin = bytes.split_inclusive(|byte| *byte == b'\n').take(line - 1).map(<[u8]>::len).sum::<usize>();
    let text = std::str::from_utf8(bytes.get(..(begin + column).min(bytes.len()))?).ok()?;
    let mut field = None;
    let mut rest = text.char_indices();
    while let Some((begin, c)) = rest.next() {
        if c != '"' {
            continue;
        }
        let mut escaped = false;
        let end = rest.find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        })?;
        if text[end.0 + 1..].trim_start().starts_with(':') {
            field = Some(text[begin + 1..end.0].to_string());
        }
    }
    field
}

impl<T: Serialize + 'static> Encode<T> for Json<T> {
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(out, value).map_err(|error| format!("does not become JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        user: String,
        #[serde(default)]
        amount: u32,
    }

    #[test]
    fn values_come_back() {
        let order = Order { user: "ann \"q\"".into(), amount: 3 };
        let mut bytes = Vec::new();
        Json::new().encode(&order, &mut bytes).expect("encodes");
        assert_eq!(Json::new().decode(&bytes), Ok(order));
    }

    #[test]
    fn the_reason_names_the_field() {
        for (text, expected) in [
            (r#"{"amount":3}"#, "missing field `user`"),
            (r#"{"user":"a\"x\":","amount":"three"}"#, "field `amount`: invalid type: string \"three\", expected u32"),
            (r#"{"user" : 7, "amount":3}"#, "field `user`: invalid type: integer `7`, expected a string"),
            (r#"{"user":"a","amount":-1}"#, "field `amount`: invalid value: integer `-1`, expected u32"),
            (r#"{"user":"a","#, "not JSON: EOF while parsing a value at column 12"),
            ("nonsense", "not JSON: expected ident at column 2"),
            ("", "not JSON: EOF while parsing a value at column 0"),
        ] {
            assert_eq!(Json::<Order>::new().decode(text.as_bytes()), Err(expected.to_string()), "{text}");
        }
    }
}
