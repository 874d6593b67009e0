//! A program's value as a row: the fields of a struct, or the entries of a map, one column each.

use std::fmt;

use serde::ser::{self, Impossible, Serialize, SerializeMap, SerializeStruct, Serializer};

use super::value::{Row, Value};

/// The row a value makes; the error says why it makes none.
pub(super) fn row_of<T: Serialize>(record: &T) -> Result<Row, String> {
    record.serialize(AsRow).map_err(|refused| refused.to_string())
}

/// Why a value does not become a row, or a part of it not a value of a column.
#[derive(Debug)]
pub(super) enum Refused {
    /// It has parts of its own.
    Compound,
    Told(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Compound => "it has parts of its own",
            Refused::Told(why) => why,
        })
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Refused::Told(message.to_string())
    }
}

/// What cannot be a row.
fn no_row<R>(what: &str) -> Result<R, Refused> {
    Err(Refused::Told(format!("a row is a struct or a map of named fields, not {what}")))
}

struct AsRow;

/// Takes fields.
#[derive(Default)]
pub(super) struct Fields {
    row: Vec<(String, Value)>,
    key: Option<String>,
}

impl SerializeStruct for Fields {
    type Ok = Row;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
        self.row.push((key.to_string(), value_of(value)?));
        Ok(())
    }

    fn end(self) -> Result<Row, Refused> {
        Ok(Row(self.row))
    }
}

impl SerializeMap for Fields {
    type Ok = Row;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        match value_of(key)? {
            Value::Text(name) => self.key = Some(name),
            other => return Err(Refused::Told(format!("`{other}` is no name of a column"))),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        let key = self.key.take().ok_or_else(|| Refused::Told("a value of a map came before its key".to_string()))?;
        self.row.push((key, value_of(value)?));
        Ok(())
    }

    fn end(self) -> Result<Row, Refused> {
        Ok(Row(self.row))
    }
}

type NoRow = Impossible<Row, Refused>;

macro_rules! refuse {
    ($($serialize:ident $type:ty,)*) => {$(
        fn $serialize(self, _: $type) -> Result<Row, Refused> {
            no_row(concat!("a ", stringify!($type)))
        }
    )*};
}

impl Serializer for AsRow {
    type Ok = Row;
    type Error = Refused;
    type SerializeSeq = NoRow;
    type SerializeTuple = NoRow;
    type SerializeTupleStruct = NoRow;
    type SerializeTupleVariant = NoRow;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = NoRow;

    refuse! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_u8 u8,
        serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_f32 f32, serialize_f64 f64, serialize_char char,
        serialize_str &str, serialize_bytes &[u8],
    }

    fn serialize_none(self) -> Result<Row, Refused> {
        no_row("nothing")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Row, Refused> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Row, Refused> {
        no_row("nothing")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Row, Refused> {
        no_row(name)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Row, Refused> {
        no_row(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Row, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Row, Refused> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<NoRow, Refused> {
        no_row("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<NoRow, Refused> {
        no_row("a tuple")
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<NoRow, Refused> {
        no_row(name)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, name: &'static str, _: usize) -> Result<NoRow, Refused> {
        no_row(name)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields, Refused> {
        Ok(Fields::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Refused> {
        Ok(Fields::default())
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, name: &'static str, _: usize) -> Result<NoRow, Refused> {
        no_row(name)
    }
}

/// The value of a column. What has parts of its own is the text of its JSON.
fn value_of<T: Serialize + ?Sized>(value: &T) -> Result<Value, Refused> {
    match value.serialize(AsValue) {
        Err(Refused::Compound) => {
            serde_json::to_string(value).map(Value::Text).map_err(|error| Refused::Told(error.to_string()))
        }
        done => done,
    }
}

struct AsValue;

macro_rules! values {
    ($($serialize:ident $type:ty => $make:expr,)*) => {$(
        fn $serialize(self, value: $type) -> Result<Value, Refused> {
            Ok($make(value))
        }
    )*};
}

type NoValue = Impossible<Value, Refused>;

impl Serializer for AsValue {
    type Ok = Value;
    type Error = Refused;
    type SerializeSeq = NoValue;
    type SerializeTuple = NoValue;
    type SerializeTupleStruct = NoValue;
    type SerializeTupleVariant = NoValue;
    type SerializeMap = NoValue;
    type SerializeStruct = NoValue;
    type SerializeStructVariant = NoValue;

    values! {
        serialize_bool bool => Value::Bool,
        serialize_i8 i8 => |value| Value::Int(i64::from(value)),
        serialize_i16 i16 => |value| Value::Int(i64::from(value)),
        serialize_i32 i32 => |value| Value::Int(i64::from(value)),
        serialize_i64 i64 => Value::Int,
        serialize_i128 i128 => whole,
        serialize_u8 u8 => |value| Value::Int(i64::from(value)),
        serialize_u16 u16 => |value| Value::Int(i64::from(value)),
        serialize_u32 u32 => |value| Value::Int(i64::from(value)),
        serialize_u64 u64 => whole,
        serialize_u128 u128 => whole,
        // By its own digits: as a double, 0.1 would become 0.10000000149011612.
        serialize_f32 f32 => |value: f32| Value::Float(value.to_string().parse().unwrap_or(f64::from(value))),
        serialize_f64 f64 => Value::Float,
        serialize_char char => |value: char| Value::Text(value.to_string()),
        serialize_str &str => |value: &str| Value::Text(value.to_string()),
        serialize_bytes &[u8] => |value: &[u8]| Value::Bytes(value.to_vec()),
    }

    fn serialize_none(self) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Refused> {
        Ok(Value::Text(variant.to_string()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_tuple(self, _: usize) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<NoValue, Refused> {
        Err(Refused::Compound)
    }
}

/// A whole number; one beyond 64 bits with a sign as text.
fn whole<N: TryInto<i64> + ToString + Copy>(value: N) -> Value {
    value.try_into().map_or_else(|_| Value::Text(value.to_string()), Value::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_named_fields_is_a_row() {
        let refused = |record: Result<Row, String>| record.unwrap_err();
        assert!(refused(row_of(&5i32)).contains("not a i32"));
        assert!(refused(row_of(&vec![1])).contains("not a list"));
        assert!(refused(row_of(&Some("text"))).contains("not a &str"));
        let numbered: std::collections::BTreeMap<i32, i32> = [(1, 2)].into();
        assert!(refused(row_of(&numbered)).contains("`1` is no name of a column"));
    }

    #[test]
    fn numbers_stay_what_they_are() {
        let object = serde_json::json!({"big": u64::MAX, "small": -1, "part": 0.1});
        let row = row_of(&object).unwrap();
        assert_eq!(row.get("big"), Some(&Value::Text("18446744073709551615".into())));
        assert_eq!(row.get("small"), Some(&Value::Int(-1)));
        assert_eq!(row.get("part"), Some(&Value::Float(0.1)));
        assert_eq!(value_of(&0.1f32).unwrap(), Value::Float(0.1));
    }
}
