//! Finds the shape of a type: the type is asked to read itself, and what it asks for is noted and answered with samples
//! (the way of the crate `serde-reflection`, which finds enums inside of other types only when each is named to it).
//!
//! One reading sees one variant of an enum, so a type is read until all have been seen. A type that refuses a sample, as a
//! date does most text, is given another. What stays in the dark, and types that contain themselves, have no shape: their state
//! is read as if nothing were known of it.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::shape::{DEPTH_MAX, Part, Plain, Shape};

/// A type is read so often at most.
const READINGS_MAX: usize = 2_000;

const TEXTS: [&str; 7] = [
    "a",
    "0",
    "1970-01-01",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "127.0.0.1",
    "00000000-0000-0000-0000-000000000001",
];
const BYTES: [&[u8]; 3] = [&[], &[0; 16], &[0; 32]];

/// The shape of a type; `None` where it cannot be found.
pub(super) fn shape_of<T: DeserializeOwned>() -> Option<Shape> {
    let (mut found, mut readings) = (Found::Unknown, Readings::default());
    for _ in 0..READINGS_MAX {
        let begun = readings.answers;
        let reading = Reading { found: &mut found, readings: &mut readings, depth: 0 };
        // A type that panics at a sample would do so at damaged bytes.
        let read = catch_unwind(AssertUnwindSafe(|| T::deserialize(reading).map(drop)));
        if readings.hopeless {
            return None;
        }
        match read.unwrap_or_else(|_| Err(refused("it panics"))) {
            Ok(()) if found.is_known() => return found.into_shape(),
            Ok(()) => {}
            // Most likely the sample that was given last.
            Err(_) => {
                let (answered, tried) = found.last_answer()?;
                if *answered <= begun {
                    return None;
                }
                *tried += 1;
            }
        }
    }
    None
}

/// The shape of a type as text, which is looked for once.
pub(super) fn shape_text<T: DeserializeOwned + 'static>() -> Option<Arc<str>> {
    static FOUND: Mutex<BTreeMap<TypeId, Option<Arc<str>>>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.entry(TypeId::of::<T>()).or_insert_with(|| shape_of::<T>().map(|shape| shape.to_string().into())).clone()
}

/// What was found of a type.
#[derive(Debug)]
enum Found {
    Unknown,
    /// With the number of the last answer and how many samples were refused.
    Plain(Plain, u64, usize),
    Option(Box<Found>),
    List(Box<Found>),
    Map(Box<(Found, Found)>),
    Tuple(Vec<(Option<&'static str>, Found)>),
    Enum(Vec<(&'static str, Found)>),
}

impl Found {
    fn is_known(&self) -> bool {
        match self {
            Found::Unknown => false,
            Found::Plain(..) => true,
            Found::Option(inner) | Found::List(inner) => inner.is_known(),
            Found::Map(pair) => pair.0.is_known() && pair.1.is_known(),
            Found::Tuple(parts) => parts.iter().all(|(_, part)| part.is_known()),
            Found::Enum(parts) => parts.iter().all(|(_, part)| part.is_known()),
        }
    }

    fn into_shape(self) -> Option<Shape> {
        let named = |name: Option<&str>, found: Found| {
            Some(Part { name: name.map(str::to_string), shape: found.into_shape()? })
        };
        Some(match self {
            Found::Unknown => return None,
            Found::Plain(plain, ..) => Shape::Plain(plain),
            Found::Option(inner) => Shape::Option(Box::new(inner.into_shape()?)),
            Found::List(inner) => Shape::List(Box::new(inner.into_shape()?)),
            Found::Map(pair) => Shape::Map(Box::new(pair.0.into_shape()?), Box::new(pair.1.into_shape()?)),
            Found::Tuple(parts) => {
                Shape::Tuple(parts.into_iter().map(|(name, found)| named(name, found)).collect::<Option<_>>()?)
            }
            Found::Enum(parts) => {
                Shape::Enum(parts.into_iter().map(|(name, found)| named(Some(name), found)).collect::<Option<_>>()?)
            }
        })
    }

    /// Where the last answer was given: its number, and how many were refused there.
    fn last_answer(&mut self) -> Option<(&mut u64, &mut usize)> {
        fn last<'f>(parts: impl Iterator<Item = &'f mut Found>) -> Option<(&'f mut u64, &'f mut usize)> {
            parts.filter_map(Found::last_answer).max_by_key(|(answer, _)| **answer)
        }
        match self {
            Found::Unknown => None,
            Found::Plain(_, answer, refused) => Some((answer, refused)),
            Found::Option(inner) | Found::List(inner) => inner.last_answer(),
            Found::Map(pair) => last([&mut pair.0, &mut pair.1].into_iter()),
            Found::Tuple(parts) => last(parts.iter_mut().map(|(_, part)| part)),
            Found::Enum(parts) => last(parts.iter_mut().map(|(_, part)| part)),
        }
    }
}

#[derive(Debug, Default)]
struct Readings {
    answers: u64,
    /// Another reading would find no more.
    hopeless: bool,
}

fn refused(why: impl Display) -> Error {
    serde::de::Error::custom(why)
}

/// What reads a type, or a part of one, from samples.
struct Reading<'r> {
    found: &'r mut Found,
    readings: &'r mut Readings,
    depth: usize,
}

impl<'r> Reading<'r> {
    fn hopeless<T>(self, why: &str) -> Result<T, Error> {
        self.readings.hopeless = true;
        Err(refused(why))
    }

    /// The sample to answer with, of so many.
    fn sample(self, plain: Plain, samples: usize) -> Result<usize, Error> {
        if let Found::Unknown = self.found {
            *self.found = Found::Plain(plain, 0, 0);
        }
        match self.found {
            Found::Plain(known, answer, refused) if *known == plain && *refused < samples => {
                self.readings.answers += 1;
                *answer = self.readings.answers;
                Ok(*refused)
            }
            _ => self.hopeless("no sample is taken"),
        }
    }

    fn inside<'i>(found: &'i mut Found, readings: &'i mut Readings, depth: usize) -> Result<Reading<'i>, Error> {
        let inner = Reading { found, readings, depth: depth + 1 };
        if depth < DEPTH_MAX { Ok(inner) } else { inner.hopeless("it contains itself") }
    }

    /// Fields with or without names, read in their order.
    fn fields<'de, V: Visitor<'de>>(self, names: Vec<Option<&'static str>>, visitor: V) -> Result<V::Value, Error> {
        if let Found::Unknown = self.found {
            *self.found = Found::Tuple(names.iter().map(|name| (*name, Found::Unknown)).collect());
        }
        match self.found {
            Found::Tuple(parts) if parts.len() == names.len() => {
                let parts = parts.iter_mut().map(|(_, part)| part).collect::<Vec<_>>().into_iter();
                visitor.visit_seq(Elements { parts, readings: self.readings, depth: self.depth })
            }
            _ => self.hopeless("it is read in two ways"),
        }
    }
}

macro_rules! plain {
    ($($deserialize:ident $plain:ident $visit:ident $samples:expr),+ $(,)?) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let samples = $samples;
            visitor.$visit(samples[self.sample(Plain::$plain, samples.len())?])
        })+
    };
}

macro_rules! nested {
    ($($deserialize:ident $kind:ident $new:expr, $accepts:expr);+ $(;)?) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if let Found::Unknown = self.found {
                *self.found = Found::$kind($new);
            }
            match self.found {
                Found::$kind(inner) => $accepts(inner, self.readings, self.depth, visitor),
                _ => self.hopeless("it is read in two ways"),
            }
        })+
    };
}

impl<'de> Deserializer<'de> for Reading<'_> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    plain! {
        deserialize_bool Bool visit_bool [false, true],
        deserialize_u8 U8 visit_u8 [1, 0], deserialize_u16 U16 visit_u16 [1, 0], deserialize_u32 U32 visit_u32 [1, 0],
        deserialize_u64 U64 visit_u64 [1, 0], deserialize_u128 U128 visit_u128 [1, 0],
        deserialize_i8 I8 visit_i8 [1, 0], deserialize_i16 I16 visit_i16 [1, 0], deserialize_i32 I32 visit_i32 [1, 0],
        deserialize_i64 I64 visit_i64 [1, 0], deserialize_i128 I128 visit_i128 [1, 0],
        deserialize_f32 F32 visit_f32 [1.0, 0.0], deserialize_f64 F64 visit_f64 [1.0, 0.0],
        deserialize_char Char visit_char ['a', '0'],
        deserialize_str String visit_str TEXTS, deserialize_string String visit_str TEXTS,
        deserialize_bytes Bytes visit_bytes BYTES, deserialize_byte_buf Bytes visit_bytes BYTES,
    }

    nested! {
        deserialize_option Option Box::new(Found::Unknown), |inner: &mut Found, readings, depth, visitor: V| {
            visitor.visit_some(Reading::inside(inner, readings, depth)?)
        };
        deserialize_seq List Box::new(Found::Unknown), |inner: &mut Found, readings, depth, visitor: V| {
            visitor.visit_seq(Elements { parts: vec![inner].into_iter(), readings, depth })
        };
        deserialize_map Map Box::new((Found::Unknown, Found::Unknown)), |pair: &mut (Found, Found), readings, depth, visitor: V| {
            visitor.visit_map(Elements { parts: vec![&mut pair.0, &mut pair.1].into_iter(), readings, depth })
        };
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.sample(Plain::Unit, 1)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(Reading::inside(self.found, self.readings, self.depth)?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.fields(vec![None; len], visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(vec![None; len], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(fields.iter().copied().map(Some).collect(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Found::Unknown = self.found {
            *self.found = Found::Enum(variants.iter().map(|name| (*name, Found::Unknown)).collect());
        }
        let Found::Enum(parts) = self.found else { return self.hopeless("it is read in two ways") };
        let at = parts.iter().position(|(_, part)| !part.is_known()).unwrap_or(0);
        match parts.get_mut(at) {
            Some((_, part)) => visitor
                .visit_enum(Variant { index: at as u32, content: Reading::inside(part, self.readings, self.depth)? }),
            None => self.hopeless("it has no variants"),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.hopeless("bytes do not say what they are")
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }
}

/// One sample for each part.
struct Elements<'r> {
    parts: std::vec::IntoIter<&'r mut Found>,
    readings: &'r mut Readings,
    depth: usize,
}

impl Elements<'_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(part) = self.parts.next() else { return Ok(None) };
        seed.deserialize(Reading::inside(part, self.readings, self.depth)?).map(Some)
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.len())
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.next(seed)?.ok_or_else(|| refused("a value without a key"))
    }
}

/// A variant, by its number.
struct Variant<'r> {
    index: u32,
    content: Reading<'r>,
}

impl<'de, 'r> EnumAccess<'de> for Variant<'r> {
    type Error = Error;
    type Variant = Reading<'r>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Reading<'r>), Error> {
        let index: U32Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Reading<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.sample(Plain::Unit, 1).map(drop)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::*;

    fn shape<T: DeserializeOwned>() -> String {
        shape_of::<T>().map_or("none".to_string(), |shape| shape.to_string())
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Event {
        Left,
        Paid { fen: i64, by: Option<Way> },
        Moved(Arc<str>, [u8; 2]),
        Went(Way),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Way {
        Card,
        Cash(u8),
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Seen {
        #[serde(rename = "the user")]
        user: String,
        #[serde(skip)]
        _unsaved: u8,
        events: Vec<Event>,
        one: One,
        both: (Result<u8, String>, Result<bool, ()>),
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct One(BTreeMap<char, f32>);

    /// Like a date: text, of which not all will do.
    #[derive(Debug)]
    struct Day;
    impl<'de> Deserialize<'de> for Day {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match String::deserialize(deserializer)?.as_str() {
                "1970-01-01" => Ok(Day),
                other => Err(serde::de::Error::custom(format!("`{other}` is no day"))),
            }
        }
    }

    #[test]
    fn types_say_what_they_are() {
        assert_eq!(shape::<(u64, Option<String>)>(), "(u64, option<string>)");
        assert_eq!(shape::<HashMap<i8, BTreeSet<usize>>>(), "map<i8, list<u64>>");
        assert_eq!(shape::<Way>(), "enum<Card: unit | Cash: u8>");
        let event = "enum<Left: unit | Paid: (fen: i64, by: option<enum<Card: unit | Cash: u8>>) | Moved: (string, (u8, u8)) \
            | Went: enum<Card: unit | Cash: u8>>";
        assert_eq!(shape::<Event>(), event);
        let seen = format!(
            "(\"the user\": string, events: list<{event}>, one: map<char, f32>, \
            both: (enum<Ok: u8 | Err: string>, enum<Ok: bool | Err: unit>))"
        );
        assert_eq!(shape::<Seen>(), seen);
        assert_eq!(shape::<(NonZeroU32, Duration)>(), "(u32, (secs: u64, nanos: u32))");
        assert_eq!(shape::<IpAddr>(), "enum<V4: (u8, u8, u8, u8) | V6: (".to_string() + &["u8"; 16].join(", ") + ")>");
    }

    #[test]
    fn samples_that_are_refused_are_followed_by_others() {
        assert_eq!(shape::<(String, Day, u8, Vec<Day>)>(), "(string, string, u8, list<string>)");
    }

    #[test]
    fn what_cannot_be_found_has_no_shape() {
        #[derive(Deserialize)]
        struct Tree {
            _children: Vec<Tree>,
        }
        struct Never;
        impl<'de> Deserialize<'de> for Never {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer)?;
                Err(serde::de::Error::custom("never"))
            }
        }
        assert_eq!([shape::<Tree>(), shape::<Never>(), shape::<serde_json::Value>()], ["none"; 3]);
    }

    #[test]
    fn values_are_read_by_the_shape_that_was_found() {
        let events = vec![
            Event::Left,
            Event::Paid { fen: -5, by: Some(Way::Cash(7)) },
            Event::Moved("x".into(), [1, 2]),
            Event::Went(Way::Card),
        ];
        let bytes = postcard::to_stdvec(&events).unwrap();
        let shape = shape_of::<Vec<Event>>().unwrap();
        let mut rest = &bytes[..];
        assert_eq!(shape.take(&mut rest).unwrap().into_json(), serde_json::to_value(&events).unwrap());
        assert!(rest.is_empty());
    }
}
