//! Values and rows as databases know them, and how a program's types become rows and rows its types, by the names of the
//! fields.

use std::fmt::{self, Write as _};

use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer};
use serde::{Deserialize, Deserializer, Serialize, forward_to_deserialize_any};

use super::write::row_of;

/// One value of a row. Decimals, dates, times, UUIDs and JSON are texts, as the database writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// Only Postgres has these; the others have 0 and 1.
    Bool(bool),
    /// A whole number. Those beyond 64 bits with a sign are texts.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// Text, and whatever else a database writes as text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// What messages show of it; `None` is `NULL`.
    pub(super) fn text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(value) => value.clone(),
            Value::Bytes(value) => value.iter().fold("\\x".to_string(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_deref().unwrap_or("NULL"))
    }
}

/// A row: names of columns with their values, in the order of the columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row(pub Vec<(String, Value)>);

impl Row {
    /// The value of a column; `None` when the row has no such column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    /// About how many bytes the values have.
    pub(super) fn bytes(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => size_of::<Value>(),
        };
        self.0.iter().map(|(_, of)| value(of)).sum()
    }

    /// The names of the columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// What the row is for a program: a struct or map, its fields found by their names. Numbers, truths and names of enums
    /// are read from texts too, and lists, maps and structs inside it from texts of JSON. The error says what does not fit.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        let fields = self.0.into_iter();
        T::deserialize(MapDeserializer::<_, Refused>::new(fields)).map_err(|refused| refused.to_string())
    }

    /// The row that an object of JSON is; lists and objects in it stay texts of JSON. The error says why it is none.
    pub fn from_json(text: &[u8]) -> Result<Row, String> {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|error| format!("it is no object of JSON: {error}"))?;
        row_of(&object)
    }

    /// The row as an object of JSON. Bytes are written as Postgres writes them, `\x` and hexadecimal digits.
    pub fn to_json(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> = self
            .0
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::Null => serde_json::Value::Null,
                    Value::Bool(value) => (*value).into(),
                    Value::Int(value) => (*value).into(),
                    // JSON has no infinities.
                    Value::Float(value) if value.is_finite() => (*value).into(),
                    other => other.to_string().into(),
                };
                (name.clone(), value)
            })
            .collect();
        serde_json::Value::Object(object).to_string()
    }
}

/// Why a row does not become a value of the program's type.
type Refused = de::value::Error;

impl<'de> IntoDeserializer<'de, Refused> for Value {
    type Deserializer = Value;

    fn into_deserializer(self) -> Value {
        self
    }
}

/// Numbers, from texts too.
macro_rules! numbers {
    ($($deserialize:ident $visit:ident $type:ty,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            match &self {
                Value::Text(text) => match text.trim().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(de::Error::custom(format!(concat!("`{}` is no ", stringify!($type)), text))),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Int(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(value) => visitor.visit_string(value),
            Value::Bytes(value) => visitor.visit_byte_buf(value),
        }
    }

    numbers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_i128 visit_i128 i128, deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self {
            Value::Int(0) => visitor.visit_bool(false),
            Value::Int(1) => visitor.visit_bool(true),
            _ => self.deserialize_any(visitor),
        }
    }

    /// Texts of what is not text: a program may want to see a number as the database writes it.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self {
            Value::Null | Value::Bytes(_) => self.deserialize_any(visitor),
            other => visitor.visit_string(other.to_string()),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_string(visitor)
    }

    /// Bytes too, where they are asked for one by one, as `Vec<u8>` does.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self {
            Value::Text(text) => json(&text, |json| json.deserialize_seq(visitor)),
            Value::Bytes(bytes) => visitor.visit_seq(de::value::SeqDeserializer::new(bytes.into_iter())),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self {
            Value::Text(text) => json(&text, |json| json.deserialize_map(visitor)),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_map(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self {
            // A variant with values was written as an object.
            Value::Text(text) if text.starts_with('{') => {
                json(&text, |json| json.deserialize_enum(name, variants, visitor))
            }
            Value::Text(text) => visitor.visit_enum(text.into_deserializer()),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct identifier }
}

/// What a text of JSON holds.
fn json<R>(text: &str, read: impl FnOnce(serde_json::Value) -> Result<R, serde_json::Error>) -> Result<R, Refused> {
    serde_json::from_str(text).and_then(read).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Small,
        Sized { width: u8 },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Id(u64);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: Id,
        paid: bool,
        price: f64,
        note: Option<String>,
        kind: Kind,
        other: Kind,
        tags: Vec<String>,
        places: BTreeMap<String, i32>,
        letter: char,
        place: (i8, i8),
    }

    fn order() -> Order {
        Order {
            id: Id(7),
            paid: true,
            price: 1.5,
            note: None,
            kind: Kind::Small,
            other: Kind::Sized { width: 3 },
            tags: vec!["a".into(), "\"b\"".into()],
            places: BTreeMap::from([("x".into(), -1)]),
            letter: '\u{e9}',
            place: (1, -2),
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let row = row_of(&order()).unwrap();
        assert_eq!(row.get("tags"), Some(&Value::Text(r#"["a","\"b\""]"#.into())));
        assert_eq!(row.get("kind"), Some(&Value::Text("Small".into())));
        assert_eq!(row.get("note"), Some(&Value::Null));
        assert_eq!(row.read::<Order>().unwrap(), order());
    }

    #[test]
    fn databases_without_truths_and_numbers_in_texts_are_read_alike() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Read {
            paid: bool,
            amount: f64,
            count: u16,
            number: String,
            bytes: Vec<u8>,
        }
        let row = |count: &str| {
            Row(vec![
                ("paid".into(), Value::Int(1)),
                ("amount".into(), Value::Text("12.50".into())),
                ("count".into(), Value::Text(count.into())),
                ("number".into(), Value::Int(5)),
                ("bytes".into(), Value::Bytes(vec![0, 255])),
                ("not asked for".into(), Value::Null),
            ])
        };
        let read = Read { paid: true, amount: 12.5, count: 3, number: "5".into(), bytes: vec![0, 255] };
        assert_eq!(row("3").read(), Ok(read));
        assert_eq!(row("70000").read::<Read>(), Err("`70000` is no u16".to_string()));
        let error = Row::default().read::<Read>().unwrap_err();
        assert!(error.contains("missing field `paid`"), "{error}");
        let json = r#"{"paid":1,"amount":"12.50","count":"3","number":5,"bytes":"\\x00ff","not asked for":null}"#;
        let as_value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(as_value(&row("3").to_json()), as_value(json));
    }
}
