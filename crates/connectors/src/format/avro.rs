//! Avro, one datum a record without a file's header, by `serde`; the schema is given.

use std::marker::PhantomData;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_core::format::{Decode, Encode};
use tidemill_core::{Error, Result};

/// What a header of Confluent's schema registry begins with; the id of the schema follows.
const REGISTRY_MAGIC: u8 = 0;

/// A record is one Avro datum of a schema, in binary.
///
/// Records written with a registry have five bytes in front that name the schema by its id; say so with
/// [`Avro::registry_id`]. Tidemill asks no registry: the schema is given, and a record of another id is refused.
pub struct Avro<T> {
    schemas: Arc<Schemas>,
    registry_id: Option<u32>,
    value: PhantomData<fn() -> T>,
}

/// The schemas, ready to be used. They are kept as long as the program runs, as the formats of its jobs are.
struct Schemas {
    written: &'static Schema,
    reader: GenericDatumReader<'static>,
    writer: GenericDatumWriter<'static>,
    /// Values are taken through the tree of the schema that is read, which costs more than reading them straight.
    resolves: bool,
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::input(format!("the Avro schema cannot be used: {error}"))
}

fn parse(schema: &str) -> Result<&'static Schema> {
    Ok(Box::leak(Box::new(Schema::parse_str(schema).map_err(wrong)?)))
}

impl Schemas {
    fn new(written: &'static Schema, read: Option<&'static Schema>) -> Result<Arc<Schemas>> {
        let reader = GenericDatumReader::builder(written).maybe_reader_schema(read).build().map_err(wrong)?;
        let writer = GenericDatumWriter::builder(written).build().map_err(wrong)?;
        Ok(Arc::new(Schemas { written, reader, writer, resolves: read.is_some() }))
    }
}

impl<T> Avro<T> {
    /// Records of this schema, given as JSON.
    pub fn new(schema: &str) -> Result<Self> {
        let schemas = Schemas::new(parse(schema)?, None)?;
        Ok(Avro { schemas, registry_id: None, value: PhantomData })
    }

    /// Reads records as if they had been written with this schema: its defaults fill what they do not have.
    pub fn read_as(mut self, schema: &str) -> Result<Self> {
        self.schemas = Schemas::new(self.schemas.written, Some(parse(schema)?))?;
        Ok(self)
    }

    /// Records have a registry's header with this id in front, when they are read and when they are written.
    pub fn registry_id(mut self, id: u32) -> Self {
        self.registry_id = Some(id);
        self
    }

    /// What stands behind the registry's header.
    fn behind_header<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let Some(expected) = self.registry_id else { return Ok(bytes) };
        match bytes.split_first_chunk::<5>() {
            Some(([REGISTRY_MAGIC, id @ ..], rest)) => match u32::from_be_bytes(*id) {
                id if id == expected => Ok(rest),
                id => Err(format!("its schema has the id {id} in the registry, and {expected} is known")),
            },
            _ => Err("no header of a schema registry".to_string()),
        }
    }
}

impl<T> Clone for Avro<T> {
    fn clone(&self) -> Self {
        Avro { schemas: Arc::clone(&self.schemas), registry_id: self.registry_id, value: PhantomData }
    }
}

impl<T: DeserializeOwned + 'static> Decode for Avro<T> {
    type Value = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<T, String> {
        let mut rest = self.behind_header(bytes)?;
        let refused = |error: apache_avro::Error| format!("not Avro of its schema: {error}");
        let value = if self.schemas.resolves {
            let value = self.schemas.reader.read_value(&mut rest).map_err(refused)?;
            apache_avro::from_value(&value).map_err(refused)?
        } else {
            self.schemas.reader.read_deser(&mut rest).map_err(refused)?
        };
        match rest.len() {
            0 => Ok(value),
            more => Err(format!("not Avro of its schema: {more} bytes stand behind the value")),
        }
    }
}

impl<T: Serialize + 'static> Encode<T> for Avro<T> {
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        if let Some(id) = self.registry_id {
            out.push(REGISTRY_MAGIC);
            out.extend_from_slice(&id.to_be_bytes());
        }
        self.schemas.writer.write_ser(out, value).map(drop).map_err(|error| {
            out.truncate(begin);
            format!("does not become Avro: {error}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        user: String,
        amount: i64,
        note: Option<String>,
    }

    const SCHEMA: &str = r#"{"type": "record", "name": "Order", "fields": [
        {"name": "user", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "note", "type": ["null", "string"]}
    ]}"#;

    fn avro() -> Avro<Order> {
        Avro::new(SCHEMA).expect("a schema")
    }

    #[test]
    fn values_come_back() {
        for note in [None, Some("thanks".to_string())] {
            let order = || Order { user: "ann".into(), amount: -3, note: note.clone() };
            let mut bytes = Vec::new();
            avro().encode(&order(), &mut bytes).expect("encodes");
            assert_eq!(avro().decode(&bytes), Ok(order()));
        }
        let mut bytes = Vec::new();
        avro().encode(&Order { user: "ann".into(), amount: -3, note: None }, &mut bytes).expect("encodes");
        // As the specification of Avro says: length and text, zigzag number, branch of the union.
        assert_eq!(bytes, [6, b'a', b'n', b'n', 5, 0]);
    }

    #[test]
    fn the_header_of_a_registry_is_checked() {
        let mut named = avro().registry_id(7);
        let mut bytes = b"x".to_vec();
        named.encode(&Order { user: String::new(), amount: 0, note: None }, &mut bytes).expect("encodes");
        assert_eq!(bytes, [b'x', 0, 0, 0, 0, 7, 0, 0, 0]);
        assert!(named.decode(&bytes[1..]).is_ok());
        let other = avro().registry_id(8).decode(&bytes[1..]).expect_err("another schema");
        assert_eq!(other, "its schema has the id 7 in the registry, and 8 is known");
        assert_eq!(named.decode(&[0, 0, 0]).expect_err("short"), "no header of a schema registry");
    }

    #[test]
    fn records_of_an_older_schema_are_read_as_the_newer() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Old {
            user: String,
        }
        let old = r#"{"type": "record", "name": "Order", "fields": [{"name": "user", "type": "string"}]}"#;
        let new = r#"{"type": "record", "name": "Order", "fields": [
            {"name": "user", "type": "string"},
            {"name": "amount", "type": "long", "default": 1},
            {"name": "note", "type": ["null", "string"], "default": null}
        ]}"#;
        let mut bytes = Vec::new();
        Avro::new(old).expect("a schema").encode(&Old { user: "ann".into() }, &mut bytes).expect("encodes");
        let mut both = Avro::<Order>::new(old).expect("a schema").read_as(new).expect("a schema");
        assert_eq!(both.decode(&bytes), Ok(Order { user: "ann".into(), amount: 1, note: None }));
    }

    #[test]
    fn the_reason_is_told() {
        for (bytes, expected) in [
            (&b""[..], "not Avro of its schema"),
            (&[6, b'a', b'n'], "not Avro of its schema"),
            (&[0, 0, 0, 9], "1 bytes stand behind the value"),
            (&[0, 0, 6], "not Avro of its schema"),
            // A text that says it is longer than anything.
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "not Avro of its schema"),
        ] {
            let reason = avro().decode(bytes).expect_err("refused");
            assert!(reason.contains(expected), "{bytes:?}: {reason}");
        }
        assert!(Avro::<Order>::new("{}").is_err());
        let mut text = Avro::<String>::new(r#""long""#).expect("a schema");
        let mut out = b"kept".to_vec();
        assert!(text.encode(&"no number".to_string(), &mut out).is_err());
        assert_eq!(out, b"kept");
    }
}
