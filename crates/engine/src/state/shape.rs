//! Types as a person tells them: `u64`, `(u32, string)`, `list<option<f64>>`. State is written by postcard, which does not
//! say what it holds; with its shape it can be read without the program that wrote it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tidemill_core::{Error, Result};

use crate::key::key_group;

/// Shapes in shapes, at most.
pub(super) const DEPTH_MAX: usize = 32;

/// How the bytes of a value are to be read.
///
/// `bool`, `u8` to `u128`, `i8` to `i128`, `f32`, `f64`, `char`, `string`, `bytes`, `unit`; `option<A>`, `list<A>` (also sets
/// and slices), `map<A, B>`; `(A, B, …)` for tuples, arrays and structs, field by field; `enum<A | B | …>` with the content of
/// each variant in order, `unit` where there is none. Fields and variants may be named: `(user: string, count: u64)`,
/// `enum<Left: unit | Bought: u64>`; a name with other signs than letters, digits and `_` stands in quotes.
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
    Tuple(Vec<Part>),
    /// One of several.
    Enum(Vec<Part>),
}

/// A field, or a variant with its content.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is called, if that was told.
    pub name: Option<String>,
    /// What it is.
    pub shape: Shape,
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

impl fmt::Display for Shape {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Part], by: &str| {
            for (at, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if at > 0 { by } else { "" })?;
            }
            Ok(())
        };
        match self {
            Shape::Plain(plain) => {
                let named = PLAIN.iter().find(|(_, one)| one == plain);
                f.write_str(named.map_or("unit", |(name, _)| name))
            }
            Shape::Option(inner) => write!(f, "option<{inner}>"),
            Shape::List(inner) => write!(f, "list<{inner}>"),
            Shape::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Shape::Tuple(parts) => {
                f.write_str("(")?;
                joined(f, parts, ", ")?;
                f.write_str(")")
            }
            Shape::Enum(parts) => {
                f.write_str("enum<")?;
                joined(f, parts, " | ")?;
                f.write_str(">")
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => write!(f, "{}", self.shape),
            Some(name) if is_plain(name) => write!(f, "{name}: {}", self.shape),
            Some(name) => write!(f, "{}: {}", json!(name), self.shape),
        }
    }
}

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(in_name)
}

fn in_name(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
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

    fn separated(&mut self, by: char, end: char, depth: usize) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        while !self.takes(end) {
            parts.push(Part { name: self.name()?, shape: self.shape(depth)? });
            if !self.takes(by) {
                self.expect(end)?;
                break;
            }
        }
        Ok(parts)
    }

    /// The name before a shape, if there is one.
    fn name(&mut self) -> Result<Option<String>> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('"') {
            let mut quoted = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let Some(Ok(name)) = quoted.next() else { return Err(self.wrong("a name in quotes")) };
            self.rest = &self.rest[quoted.byte_offset()..];
            self.expect(':')?;
            return Ok(Some(name));
        }
        let end = self.rest.find(|sign| !in_name(sign)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let Some(rest) = rest.trim_start().strip_prefix(':').filter(|_| !name.is_empty()) else { return Ok(None) };
        self.rest = rest;
        Ok(Some(name.to_string()))
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
        let count = parts.len();
        let mut next = || Box::new(parts.remove(0).shape);
        match (name, count) {
            ("option", 1) => Ok(Shape::Option(next())),
            ("list", 1) => Ok(Shape::List(next())),
            ("map", 2) => Ok(Shape::Map(next(), next())),
            ("enum", 1..) => Ok(Shape::Enum(parts)),
            (_, found) => Err(self.wrong(&format!("another number of parts of `{name}` than {found}"))),
        }
    }
}

/// A value that was read by its shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoded<'s> {
    /// A number or character of up to 64 bits: as JSON, and as it is hashed.
    Word(Value, u64),
    String(String),
    Tuple(&'s [Part], Vec<Decoded<'s>>),
    Option(Option<Box<Decoded<'s>>>),
    /// What a key is hardly made of.
    Other(Value),
}

impl Shape {
    /// Whether values written as of the shape `saved` are read by this one as they were: names that are told agree, and
    /// variants have only been added behind those there were.
    pub(crate) fn reads(&self, saved: &Shape) -> bool {
        let agree = |now: &Part, saved: &Part| {
            let named = now.name.is_none() || saved.name.is_none() || now.name == saved.name;
            named && now.shape.reads(&saved.shape)
        };
        let all = |now: &[Part], saved: &[Part]| now.iter().zip(saved).all(|(now, saved)| agree(now, saved));
        match (self, saved) {
            (Shape::Plain(now), Shape::Plain(saved)) => now == saved,
            (Shape::Option(now), Shape::Option(saved)) | (Shape::List(now), Shape::List(saved)) => now.reads(saved),
            (Shape::Map(key, value), Shape::Map(saved_key, saved_value)) => {
                key.reads(saved_key) && value.reads(saved_value)
            }
            (Shape::Tuple(now), Shape::Tuple(saved)) => now.len() == saved.len() && all(now, saved),
            (Shape::Enum(now), Shape::Enum(saved)) => now.len() >= saved.len() && all(now, saved),
            _ => false,
        }
    }

    /// Reads a value from the beginning of `bytes` and leaves the rest.
    pub(crate) fn take(&self, bytes: &mut &[u8]) -> Result<Decoded<'_>> {
        Ok(match self {
            Shape::Plain(plain) => plain.take(bytes)?,
            Shape::Option(inner) => match one::<u8>(bytes)? {
                0 => Decoded::Option(None),
                1 => Decoded::Option(Some(Box::new(inner.take(bytes)?))),
                other => return Err(not_so(&format!("an option begins with {other}"))),
            },
            Shape::Tuple(parts) => {
                let taken = parts.iter().map(|part| part.shape.take(bytes)).collect::<Result<Vec<_>>>()?;
                Decoded::Tuple(parts, taken)
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
                let content = variant.shape.take(bytes)?.into_json();
                Decoded::Other(match &variant.name {
                    Some(name) if variant.shape == Shape::Plain(Plain::Unit) => name.as_str().into(),
                    Some(name) => json!({name.as_str(): content}),
                    None => json!({index.to_string(): content}),
                })
            }
        })
    }
}

impl Plain {
    fn take(self, bytes: &mut &[u8]) -> Result<Decoded<'static>> {
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

impl Decoded<'_> {
    /// Structs are objects, tuples arrays, variants as serde has them.
    pub fn into_json(self) -> Value {
        match self {
            Decoded::Word(value, _) | Decoded::Other(value) => value,
            Decoded::String(text) => text.into(),
            Decoded::Tuple(parts, taken) => {
                let names: Option<Vec<&String>> = parts.iter().map(|part| part.name.as_ref()).collect();
                let values = taken.into_iter().map(Decoded::into_json);
                match names.filter(|names| !names.is_empty()) {
                    Some(names) => names.into_iter().cloned().zip(values).collect::<Map<_, _>>().into(),
                    None => values.collect::<Vec<_>>().into(),
                }
            }
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
            Decoded::Tuple(_, parts) => parts.iter().all(Decoded::is_hashed_alike),
            Decoded::Option(Some(inner)) => inner.is_hashed_alike(),
            Decoded::Other(_) => false,
        }
    }
}

impl Hash for Decoded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Decoded::Word(_, word) => state.write_u64(*word),
            Decoded::String(text) => text.hash(state),
            Decoded::Tuple(_, parts) => parts.iter().for_each(|part| part.hash(state)),
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
    fn names_of_fields_and_variants_are_shown() {
        assert_eq!(shown("(n: u8, user: string)", &(1u8, "a")), r#"{"n":1,"user":"a"}"#);
        assert_eq!(shown("(\"the user's\": string)", &("a",)), r#"{"the user's":"a"}"#);
        let colour = "enum<Plain: unit | Mixed: (u8, string)>";
        assert_eq!(shown(colour, &Colour::Plain), r#""Plain""#);
        assert_eq!(shown(colour, &Colour::Mixed(3, "x".into())), r#"{"Mixed":[3,"x"]}"#);
        for text in [colour, "(\"a b\": u8, c_1: list<option<f64>>, map<(u8, i8), unit>)", "()", "enum<unit | bytes>"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn shapes_that_read_the_same_bytes_otherwise_are_others() {
        let reads = |now: &str, saved: &str| now.parse::<Shape>().unwrap().reads(&saved.parse().unwrap());
        for (now, saved) in [
            ("(u8, string)", "(u8, string)"),
            ("(user: u8, string)", "(u8, what: string)"),
            ("enum<A: unit | B: u8 | C: unit>", "enum<A: unit | B: u8>"),
            ("map<u8, list<option<enum<unit | u8>>>>", "map<u8, list<option<enum<unit>>>>"),
        ] {
            assert!(reads(now, saved), "{now} reads {saved}");
        }
        for (now, saved) in [
            ("u64", "i64"),
            ("(a: u64, b: u64)", "(b: u64, a: u64)"),
            ("(u8, u8)", "(u8, u8, u8)"),
            ("enum<A: unit>", "enum<A: unit | B: u8>"),
            ("enum<B: unit | A: unit>", "enum<A: unit | B: unit>"),
            ("list<u8>", "bytes"),
            ("option<u8>", "list<u8>"),
            ("map<u8, u8>", "map<u8, u16>"),
        ] {
            assert!(!reads(now, saved), "{now} does not read {saved}");
        }
    }

    #[test]
    fn keys_are_in_the_group_of_their_type() {
        fn check<K: Key>(shape: &str, key: K) {
            let bytes = postcard::to_stdvec(&key).unwrap();
            let shape = shape.parse::<Shape>().unwrap();
            let decoded = shape.take(&mut &bytes[..]).unwrap();
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
        let shape = "list<u8>".parse::<Shape>().unwrap();
        let list = shape.take(&mut &[1, 1][..]).unwrap();
        assert!(list.key_group().unwrap_err().to_string().contains("SavepointReader"));
    }

    #[test]
    fn wrong_shapes_and_wrong_bytes_are_told() {
        let wrong = |text: &str| text.parse::<Shape>().unwrap_err().to_string();
        assert!(wrong("u65").contains("a type, but there is `u65`"));
        assert!(wrong("(u8").contains("wanted `)`") || wrong("(u8").contains("`)`"), "{}", wrong("(u8"));
        assert!(wrong("list<u8, u8>").contains("number of parts of `list`"));
        assert!(wrong("u8 u8").contains("nothing more"));
        assert!(wrong("(\"a: u8)").contains("a name in quotes"));
        assert!(wrong(&"list<".repeat(100)).contains("at most 32"));
        let bad =
            |shape: &str, bytes: &[u8]| shape.parse::<Shape>().unwrap().take(&mut &bytes[..]).map(drop).unwrap_err();
        assert!(bad("option<u8>", &[9]).to_string().contains("begins with 9"));
        assert!(bad("list<unit>", &[200, 1]).to_string().contains("200 elements are announced"));
        assert!(bad("string", &[5, b'a']).to_string().contains("not of this shape"));
        assert!(bad("enum<unit>", &[4]).to_string().contains("variant 4"));
    }
}
