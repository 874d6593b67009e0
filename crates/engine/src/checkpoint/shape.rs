//! Types as a person tells them: `u64`, `(u32, string)`, `list<option<f64>>`. State is written by postcard, which does not
//! say what it holds; with its shape it can be read without the program that wrote it.

use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tidemill_core::{Error, Result};

use crate::key::key_group;

/// Shapes in shapes, at most.
const DEPTH_MAX: usize = 32;

/// How the bytes of a value are to be read.
///
/// `bool`, `u8` to `u128`, `i8` to `i128`, `f32`, `f64`, `char`, `string`, `bytes`, `unit`; `option<A>`, `list<A>` (also sets
/// and slices), `map<A, B>`; `(A, B, …)` for tuples, arrays and structs, field by field; `enum<A | B | …>` with the content of
/// each variant in order, `unit` where there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A type without parts.
    Plain(Plain),
    /// There or not.
    Option(Box<Shape>),
    /// As many as there are.
    List(Box<Shape>),
    /// Keys with values.
    Map(Box<Shape>, Box<Shape>),
    /// One behind the other.
    Tuple(Vec<Shape>),
    /// One of several.
    Enum(Vec<Shape>),
}

macro_rules! plain {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// Types without parts.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[allow(missing_docs, reason = "they are named as in Rust")]
        pub enum Plain { $($name),+ }

        const PLAIN: &[(&str, Plain)] = &[$(($text, Plain::$name)),+];
    };
}

plain! {
    Bool "bool", U8 "u8", U16 "u16", U32 "u32", U64 "u64", U128 "u128", I8 "i8", I16 "i16", I32 "i32", I64 "i64", I128 "i128",
    F32 "f32", F64 "f64", Char "char", String "string", Bytes "bytes", Unit "unit",
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, rest: text };
        let shape = parser.shape(0)?;
        match parser.rest.trim() {
            "" => Ok(shape),
            rest => Err(parser.wrong(&format!("nothing more, but there is `{rest}`"))),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn wrong(&self, wanted: &str) -> Error {
        Error::input(format!("shape `{}`: wanted {wanted}", self.text))
            .hint("for example `u64`, `(string, i64)`, `list<option<f64>>`, `map<string, u32>`, `enum<unit | u64>`")
    }

    fn takes(&mut self, sign: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(&format!("`{sign}` before `{}`", self.rest.trim()))) }
    }

    fn separated(&mut self, by: char, end: char, depth: usize) -> Result<Vec<Shape>> {
        let mut shapes = Vec::new();
        while !self.takes(end) {
            shapes.push(self.shape(depth)?);
            if !self.takes(by) {
                self.expect(end)?;
                break;
            }
        }
        Ok(shapes)
    }

    fn shape(&mut self, depth: usize) -> Result<Shape> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(&format!("at most {DEPTH_MAX} shapes in each other")));
        }
        if self.takes('(') {
            return Ok(Shape::Tuple(self.separated(',', ')', depth + 1)?));
        }
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let known = PLAIN.iter().find(|(known, _)| *known == name);
        if known.is_none() && !matches!(name, "option" | "list" | "map" | "enum") {
            return Err(self.wrong(&format!("a type, but there is `{}`", self.rest)));
        }
        self.rest = rest;
        if let Some((_, plain)) = known {
            return Ok(Shape::Plain(*plain));
        }
        self.expect('<')?;
        let mut parts = self.separated(if name == "enum" { '|' } else { ',' }, '>', depth + 1)?;
        match (name, parts.len()) {
            ("enum", 1..) => Ok(Shape::Enum(parts)),
            ("option", 1) => Ok(Shape::Option(Box::new(parts.remove(0)))),
            ("list", 1) => Ok(Shape::List(Box::new(parts.remove(0)))),
            ("map", 2) => Ok(Shape::Map(Box::new(parts.remove(0)), Box::new(parts.remove(0)))),
            (_, found) => Err(self.wrong(&format!("another number of parts of `{name}` than {found}"))),
        }
    }
}

/// A value that was read by its shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoded {
    /// A number or character of up to 64 bits: as JSON, and as it is hashed.
    Word(Value, u64),
    String(String),
    Tuple(Vec<Decoded>),
    Option(Option<Box<Decoded>>),
    /// What a key is hardly made of.
    Other(Value),
}

impl Shape {
    /// Reads a value from the beginning of `bytes` and leaves the rest.
    pub(crate) fn take(&self, bytes: &mut &[u8]) -> Result<Decoded> {
        Ok(match self {
            Shape::Plain(plain) => plain.take(bytes)?,
            Shape::Option(inner) => match one::<u8>(bytes)? {
                0 => Decoded::Option(None),
                1 => Decoded::Option(Some(Box::new(inner.take(bytes)?))),
                other => return Err(not_so(&format!("an option begins with {other}"))),
            },
            Shape::Tuple(parts) => {
                Decoded::Tuple(parts.iter().map(|part| part.take(bytes)).collect::<Result<Vec<_>>>()?)
            }
            Shape::List(inner) => {
                let mut list = Vec::new();
                for _ in 0..length(bytes)? {
                    list.push(inner.take(bytes)?.into_json());
                }
                Decoded::Other(list.into())
            }
            Shape::Map(key, value) => {
                let mut pairs = Vec::new();
                for _ in 0..length(bytes)? {
                    pairs.push((key.take(bytes)?.into_json(), value.take(bytes)?.into_json()));
                }
                // JSON has text for names only.
                let named = pairs.iter().all(|(key, _)| key.is_string());
                let text = |key: Value| key.as_str().unwrap_or_default().to_string();
                Decoded::Other(match named {
                    true => pairs.into_iter().map(|(key, value)| (text(key), value)).collect::<Map<_, _>>().into(),
                    false => pairs.into_iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>().into(),
                })
            }
            Shape::Enum(variants) => {
                let index = one::<u32>(bytes)?;
                let variant = variants.get(index as usize);
                let variant = variant.ok_or_else(|| not_so(&format!("an enum is of variant {index}")))?;
                Decoded::Other(json!({index.to_string(): variant.take(bytes)?.into_json()}))
            }
        })
    }
}

impl Plain {
    fn take(self, bytes: &mut &[u8]) -> Result<Decoded> {
        macro_rules! word {
            ($type:ty, $unsigned:ty) => {{
                let value = one::<$type>(bytes)?;
                Decoded::Word(value.into(), u64::from(value as $unsigned))
            }};
        }
        let float =
            |value: f64| serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::from);
        Ok(match self {
            Plain::Bool => word!(bool, u8),
            Plain::U8 => word!(u8, u8),
            Plain::U16 => word!(u16, u16),
            Plain::U32 => word!(u32, u32),
            Plain::U64 => word!(u64, u64),
            Plain::I8 => word!(i8, u8),
            Plain::I16 => word!(i16, u16),
            Plain::I32 => word!(i32, u32),
            Plain::I64 => word!(i64, u64),
            Plain::Char => {
                let value = one::<char>(bytes)?;
                Decoded::Word(value.to_string().into(), u64::from(value))
            }
            // More than JSON's readers take for a number.
            Plain::U128 => Decoded::Other(one::<u128>(bytes)?.to_string().into()),
            Plain::I128 => Decoded::Other(one::<i128>(bytes)?.to_string().into()),
            Plain::F32 => Decoded::Other(float(f64::from(one::<f32>(bytes)?))),
            Plain::F64 => Decoded::Other(float(one::<f64>(bytes)?)),
            Plain::String => Decoded::String(one(bytes)?),
            Plain::Bytes => Decoded::Other(hex(&one::<Vec<u8>>(bytes)?).into()),
            Plain::Unit => Decoded::Other(Value::Null),
        })
    }
}

impl Decoded {
    pub fn into_json(self) -> Value {
        match self {
            Decoded::Word(value, _) | Decoded::Other(value) => value,
            Decoded::String(text) => text.into(),
            Decoded::Tuple(parts) => parts.into_iter().map(Decoded::into_json).collect::<Vec<_>>().into(),
            Decoded::Option(inner) => inner.map_or(Value::Null, |inner| inner.into_json()),
        }
    }

    /// The key group the value is in as a key: it is hashed as its type would be.
    pub fn key_group(&self) -> Result<u64> {
        if self.is_hashed_alike() {
            return Ok(key_group(self));
        }
        Err(Error::input("the key groups of such a key cannot be told by its shape")
            .hint("read the state with its types: `tidemill_engine::checkpoint::SavepointReader`"))
    }

    fn is_hashed_alike(&self) -> bool {
        match self {
            Decoded::Word(..) | Decoded::String(_) | Decoded::Option(None) => true,
            Decoded::Tuple(parts) => parts.iter().all(Decoded::is_hashed_alike),
            Decoded::Option(Some(inner)) => inner.is_hashed_alike(),
            Decoded::Other(_) => false,
        }
    }
}

impl Hash for Decoded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Decoded::Word(_, word) => state.write_u64(*word),
            Decoded::String(text) => text.hash(state),
            Decoded::Tuple(parts) => parts.iter().for_each(|part| part.hash(state)),
            Decoded::Option(inner) => inner.hash(state),
            Decoded::Other(_) => {}
        }
    }
}

fn one<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| not_so(&e.to_string()))?;
    *bytes = rest;
    Ok(value)
}

/// How many elements follow. Each has at least a byte but for empty ones, of which nobody keeps many.
fn length(bytes: &mut &[u8]) -> Result<u64> {
    let length = one::<u64>(bytes)?;
    if length > bytes.len() as u64 {
        return Err(not_so(&format!("{length} elements are announced, and {} bytes are left", bytes.len())));
    }
    Ok(length)
}

fn not_so(why: &str) -> Error {
    Error::input(format!("the bytes are not of this shape: {why}"))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::key::Key;

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    enum Colour {
        Plain,
        Mixed(u8, String),
    }

    fn shown<V: serde::Serialize>(shape: &str, value: &V) -> String {
        let bytes = postcard::to_stdvec(value).unwrap();
        let mut rest = &bytes[..];
        let json = shape.parse::<Shape>().unwrap().take(&mut rest).unwrap().into_json();
        assert!(rest.is_empty(), "{shape} leaves {rest:?}");
        json.to_string()
    }

    #[test]
    fn values_are_read_by_their_shape() {
        assert_eq!(shown("u64", &u64::MAX), u64::MAX.to_string());
        assert_eq!(shown("i16", &-300i16), "-300");
        assert_eq!(shown("(string, option<f64>, bool)", &("a", Some(0.5), true)), r#"["a",0.5,true]"#);
        assert_eq!(shown("f64", &f64::NAN), r#""NaN""#);
        assert_eq!(shown("i128", &i128::MIN), format!("\"{}\"", i128::MIN));
        assert_eq!(shown("list<(u8, char)>", &vec![(1u8, 'x'), (2, 'y')]), r#"[[1,"x"],[2,"y"]]"#);
        assert_eq!(shown("map<string, u32>", &BTreeMap::from([("a", 1u32)])), r#"{"a":1}"#);
        assert_eq!(shown("map<u8,unit>", &BTreeMap::from([(7u8, ())])), "[[7,null]]");
        assert_eq!(shown("bytes", &vec![0u8, 255]), r#""00ff""#);
        assert_eq!(shown("enum<unit | (u8, string)>", &Colour::Plain), r#"{"0":null}"#);
        assert_eq!(shown("enum<unit|(u8,string)>", &Colour::Mixed(3, "x".into())), r#"{"1":[3,"x"]}"#);
    }

    #[test]
    fn keys_are_in_the_group_of_their_type() {
        fn check<K: Key>(shape: &str, key: K) {
            let bytes = postcard::to_stdvec(&key).unwrap();
            let decoded = shape.parse::<Shape>().unwrap().take(&mut &bytes[..]).unwrap();
            assert_eq!(decoded.key_group().unwrap(), key_group(&key), "{shape}");
        }
        check("u64", 1u64 << 60);
        check("i64", -5i64);
        check("i8", -5i8);
        check("bool", true);
        check("char", 'é');
        check("string", "hello".to_string());
        check("(u32, string, i16)", (7u32, "x".to_string(), -9i16));
        check("option<u16>", Some(9u16));
        check("option<u16>", None::<u16>);
        let list = "list<u8>".parse::<Shape>().unwrap().take(&mut &[1, 1][..]).unwrap();
        assert!(list.key_group().unwrap_err().to_string().contains("SavepointReader"));
    }

    #[test]
    fn wrong_shapes_and_wrong_bytes_are_told() {
        let wrong = |text: &str| text.parse::<Shape>().unwrap_err().to_string();
        assert!(wrong("u65").contains("a type, but there is `u65`"));
        assert!(wrong("(u8").contains("wanted `)`") || wrong("(u8").contains("`)`"), "{}", wrong("(u8"));
        assert!(wrong("list<u8, u8>").contains("number of parts of `list`"));
        assert!(wrong("u8 u8").contains("nothing more"));
        assert!(wrong(&"list<".repeat(100)).contains("at most 32"));
        let bad = |shape: &str, bytes: &[u8]| shape.parse::<Shape>().unwrap().take(&mut &bytes[..]).unwrap_err();
        assert!(bad("option<u8>", &[9]).to_string().contains("begins with 9"));
        assert!(bad("list<unit>", &[200, 1]).to_string().contains("200 elements are announced"));
        assert!(bad("string", &[5, b'a']).to_string().contains("not of this shape"));
        assert!(bad("enum<unit>", &[4]).to_string().contains("variant 4"));
    }
}
