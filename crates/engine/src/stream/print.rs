//! A value as Flink prints it: `(hello,1)` for a tuple, bare text, `[a, b]` for a list, `{k=v}` for a map,
//! `Name{field=value, …}` for a struct, `null` for nothing.

use std::fmt::Write;

use serde::Serialize;
use serde::ser::{self, Impossible};
use tidemill_core::{Error, Result};

/// The value in Flink's form.
pub fn flink_text(value: &impl Serialize) -> Result<String> {
    let mut printer = Printer { text: String::new() };
    value.serialize(&mut printer).map_err(|e| Error::input(format!("a value cannot be printed: {e}")))?;
    Ok(printer.text)
}

struct Printer {
    text: String,
}

#[derive(Debug)]
struct PrintError(String);

impl std::fmt::Display for PrintError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for PrintError {}
impl ser::Error for PrintError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        PrintError(message.to_string())
    }
}

type Printed<T = ()> = Result<T, PrintError>;

impl Printer {
    fn put(&mut self, value: impl std::fmt::Display) -> Printed {
        write!(self.text, "{value}").map_err(|e| PrintError(e.to_string()))
    }

    /// Java writes `1.0` where Rust writes `1`.
    fn float(&mut self, value: f64, plain: impl std::fmt::Display) -> Printed {
        if value.is_finite() && value.fract() == 0.0 && value.abs() < 1e7 {
            self.put(format_args!("{value:.1}"))
        } else {
            self.put(plain)
        }
    }

    fn open<'a>(&'a mut self, open: &str, between: &'static str, close: &'static str) -> Printed<Sequence<'a>> {
        self.put(open)?;
        Ok(Sequence { printer: self, between, close, first: true })
    }
}

/// The inside of a tuple, list, map or struct.
struct Sequence<'a> {
    printer: &'a mut Printer,
    between: &'static str,
    close: &'static str,
    first: bool,
}

impl Sequence<'_> {
    fn next(&mut self) -> Printed {
        let between = if std::mem::replace(&mut self.first, false) { "" } else { self.between };
        self.printer.put(between)
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Printed {
        self.next()?;
        value.serialize(&mut *self.printer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Printed {
        self.next()?;
        self.printer.put(name)?;
        self.printer.put("=")?;
        value.serialize(&mut *self.printer)
    }

    fn finish(self) -> Printed {
        self.printer.put(self.close)
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty),* $(,)?) => { $(fn $method(self, value: $type) -> Printed { self.put(value) })* };
}

impl<'a> ser::Serializer for &'a mut Printer {
    type Ok = ();
    type Error = PrintError;
    type SerializeSeq = Sequence<'a>;
    type SerializeTuple = Sequence<'a>;
    type SerializeTupleStruct = Sequence<'a>;
    type SerializeTupleVariant = Impossible<(), PrintError>;
    type SerializeMap = Sequence<'a>;
    type SerializeStruct = Sequence<'a>;
    type SerializeStructVariant = Sequence<'a>;

    plain!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_char: char, serialize_str: &str,
    );

    fn serialize_f32(self, value: f32) -> Printed {
        self.float(f64::from(value), value)
    }
    fn serialize_f64(self, value: f64) -> Printed {
        self.float(value, value)
    }
    fn serialize_bytes(self, value: &[u8]) -> Printed {
        let mut sequence = self.open("[", ", ", "]")?;
        value.iter().try_for_each(|byte| sequence.element(byte))?;
        sequence.finish()
    }
    fn serialize_none(self) -> Printed {
        self.put("null")
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Printed {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Printed {
        self.put("()")
    }
    fn serialize_unit_struct(self, name: &'static str) -> Printed {
        self.put(name)
    }
    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Printed {
        self.put(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Printed {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Printed {
        self.put(variant)?;
        self.put("(")?;
        value.serialize(&mut *self)?;
        self.put(")")
    }
    fn serialize_seq(self, _length: Option<usize>) -> Printed<Sequence<'a>> {
        self.open("[", ", ", "]")
    }
    fn serialize_tuple(self, _length: usize) -> Printed<Sequence<'a>> {
        self.open("(", ",", ")")
    }
    fn serialize_tuple_struct(self, _name: &'static str, _length: usize) -> Printed<Sequence<'a>> {
        self.open("(", ",", ")")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Printed<Self::SerializeTupleVariant> {
        Err(PrintError(format!("variant `{variant}` has several unnamed fields; give them names")))
    }
    fn serialize_map(self, _length: Option<usize>) -> Printed<Sequence<'a>> {
        self.open("{", ", ", "}")
    }
    fn serialize_struct(self, name: &'static str, _length: usize) -> Printed<Sequence<'a>> {
        self.put(name)?;
        self.open("{", ", ", "}")
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Printed<Sequence<'a>> {
        self.put(variant)?;
        self.open("{", ", ", "}")
    }
}

macro_rules! sequence {
    ($($name:ident: $method:ident),* $(,)?) => { $(
        impl ser::$name for Sequence<'_> {
            type Ok = ();
            type Error = PrintError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Printed { self.element(value) }
            fn end(self) -> Printed { self.finish() }
        }
    )* };
}
sequence!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field);

impl ser::SerializeMap for Sequence<'_> {
    type Ok = ();
    type Error = PrintError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Printed {
        self.element(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Printed {
        self.printer.put("=")?;
        value.serialize(&mut *self.printer)
    }
    fn end(self) -> Printed {
        self.finish()
    }
}

impl ser::SerializeStruct for Sequence<'_> {
    type Ok = ();
    type Error = PrintError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Printed {
        self.field(name, value)
    }
    fn end(self) -> Printed {
        self.finish()
    }
}

impl ser::SerializeStructVariant for Sequence<'_> {
    type Ok = ();
    type Error = PrintError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Printed {
        self.field(name, value)
    }
    fn end(self) -> Printed {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_flink_prints_them() {
        #[derive(Serialize)]
        struct Reading {
            id: &'static str,
            value: f64,
            note: Option<&'static str>,
        }
        assert_eq!(flink_text(&("hello", 1645844000i64, 4)).unwrap(), "(hello,1645844000,4)");
        assert_eq!(flink_text(&"你好").unwrap(), "你好");
        assert_eq!(flink_text(&vec![1, 2]).unwrap(), "[1, 2]");
        assert_eq!(
            flink_text(&Reading { id: "s1", value: 36.0, note: None }).unwrap(),
            "Reading{id=s1, value=36.0, note=null}"
        );
        assert_eq!(flink_text(&std::collections::BTreeMap::from([("a", 1)])).unwrap(), "{a=1}");
    }
}
