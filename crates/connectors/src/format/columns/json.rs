//! JSON objects into columns: fields that are not asked for are checked and passed over.

use std::fmt::Formatter;

use arrow_schema::SchemaRef;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use tidemill_core::Result;

use super::rows::{RowFormat, Rows, Scalar};

/// A record is one JSON object; a schema says which of its fields become columns, and their types. Other fields are passed
/// over. A field that is missing is null, and so is one that is `null`; where the schema allows no null the record is refused.
/// Of a field that stands twice the last counts. Decimals may be written as numbers or as text.
#[derive(Debug, Clone)]
pub struct JsonColumns {
    schema: SchemaRef,
}

impl JsonColumns {
    /// The fields of this schema. An error if a type cannot be read from JSON.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(JsonColumns { schema })
    }
}

impl RowFormat for JsonColumns {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), String> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 from byte {}", error.valid_up_to()))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(Object { schema: &self.schema, rows, next: 0 }).and_then(|()| json.end());
        read.map_err(|error| {
            let text = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let text = text.strip_suffix(&place).unwrap_or(&text);
            match error.is_data() {
                true => text.to_string(),
                false => format!("not JSON: {text} at column {}", error.column()),
            }
        })
    }
}

struct Object<'a> {
    schema: &'a SchemaRef,
    rows: &'a mut Rows,
    /// The column whose turn it would be: records of one writer have their fields in one order.
    next: usize,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(column) = map.next_key_seed(Name { schema: self.schema, next: self.next })? {
            match column {
                Some(at) => {
                    map.next_value_seed(Value { rows: self.rows, at })?;
                    self.next = at + 1;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// The column of a name.
struct Name<'a> {
    schema: &'a SchemaRef,
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the name of a field")
    }

    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        let fields = self.schema.fields();
        if fields.get(self.next).is_some_and(|field| field.name() == name) {
            return Ok(Some(self.next));
        }
        Ok(fields.iter().position(|field| field.name() == name))
    }
}

/// The value of a column.
struct Value<'a> {
    rows: &'a mut Rows,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    #[inline]
    fn set<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        self.rows.set(self.at, scalar).map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a plain value")
    }

    #[inline]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.set(Scalar::Int(value))
    }

    #[inline]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.set(i64::try_from(value).map_or(Scalar::Large(value), Scalar::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.set(Scalar::Float(value))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.set(Scalar::Bool(value))
    }

    #[inline]
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.set(Scalar::Text(text))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.set(Scalar::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(format!("field number {}: an object where a plain value is expected", self.at + 1)))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(format!("field number {}: a list where a plain value is expected", self.at + 1)))
    }
}
