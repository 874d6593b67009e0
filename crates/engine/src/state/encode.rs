//! Values as the bytes postcard makes of them, by code of our own (docs/adr/0010): serde gives a sequence of bytes one by
//! one, and here they go into the buffer as one block. Read by `decode`; a test compares the bytes of many shapes.

use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{
    self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Appends a value to `bytes`, which stay as they were when it cannot be written.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), Unwritable> {
    let before = bytes.len();
    value.serialize(&mut Encoder { bytes: &mut *bytes }).inspect_err(|_| bytes.truncate(before))
}

/// Why a value cannot be written.
#[derive(Debug)]
pub(crate) struct Unwritable(String);

impl Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: Display>(message: T) -> Self {
        Unwritable(message.to_string())
    }
}

fn unknown_length() -> Unwritable {
    Unwritable("a sequence or map does not tell its length beforehand".to_string())
}

/// Whether something serialises as one byte, since it is one. The name of a type is good for that: no other type has
/// these names, and were they to change, bytes would go one by one again.
#[inline]
fn is_byte<T>() -> bool {
    matches!(std::any::type_name::<T>(), "u8" | "&u8")
}

struct Encoder<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    /// Seven bits in each byte, the lowest first.
    #[inline(always)]
    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            return self.bytes.push(value as u8);
        }
        if value >> 56 != 0 {
            return self.varint_128(value.into());
        }
        // The bits moved apart by twos: eight bytes of seven bits each.
        let bits = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
        let bits = (bits & 0x0000_3fff_0000_3fff) | (bits & 0x0fff_c000_0fff_c000) << 2;
        let bits = (bits & 0x007f_007f_007f_007f) | (bits & 0x3f80_3f80_3f80_3f80) << 1;
        let length = (70 - value.leading_zeros() as usize) / 7;
        // All but the last say that the number goes on.
        let goes_on = 0x8080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
        // A whole word, of which some is taken back, costs less than as many bytes as there are.
        let end = self.bytes.len() + length;
        self.bytes.extend_from_slice(&(bits | goes_on).to_le_bytes());
        self.bytes.truncate(end);
    }

    #[inline(never)]
    fn varint_128(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

impl Serializer for &mut Encoder<'_> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    /// What vectors, slices and sets call.
    #[inline]
    fn collect_seq<I>(self, items: I) -> Result<(), Unwritable>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut items = items.into_iter();
        let length = match items.size_hint() {
            (least, Some(most)) if least == most => least,
            _ => return Err(unknown_length()),
        };
        self.varint(length as u64);
        if !is_byte::<I::Item>() {
            return items.try_for_each(|item| item.serialize(&mut *self));
        }
        // Of a slice or vector the compiler makes a copy of whole words. A byte can always be written.
        self.bytes.extend(items.map(|item| item.serialize(OneByte).unwrap_or_default()));
        Ok(())
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Unwritable> {
        self.serialize_u8(u8::from(value))
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), Unwritable> {
        self.serialize_u8(value as u8)
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), Unwritable> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result<(), Unwritable> {
        self.serialize_i64(value.into())
    }

    /// Zigzag: small numbers of either sign are short.
    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), Unwritable> {
        self.serialize_u64(((value << 1) ^ (value >> 63)) as u64)
    }

    fn serialize_i128(self, value: i128) -> Result<(), Unwritable> {
        self.serialize_u128(((value << 1) ^ (value >> 127)) as u128)
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Unwritable> {
        self.bytes.push(value);
        Ok(())
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result<(), Unwritable> {
        self.serialize_u64(value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result<(), Unwritable> {
        self.serialize_u64(value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), Unwritable> {
        self.varint(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unwritable> {
        self.varint_128(value);
        Ok(())
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Unwritable> {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Unwritable> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Unwritable> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unwritable> {
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Unwritable> {
        self.serialize_u8(0)
    }

    #[inline]
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<(), Unwritable> {
        self.bytes.push(1);
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Unwritable> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritable> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, variant: u32, _: &'static str) -> Result<(), Unwritable> {
        self.serialize_u32(variant)
    }

    #[inline]
    fn serialize_newtype_struct<V: Serialize + ?Sized>(self, _: &'static str, value: &V) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &V,
    ) -> Result<(), Unwritable> {
        self.varint(variant.into());
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Unwritable> {
        self.varint(length.ok_or_else(unknown_length)? as u64);
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unwritable> {
        self.varint(variant.into());
        Ok(self)
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Self, Unwritable> {
        self.serialize_seq(length)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unwritable> {
        self.varint(variant.into());
        Ok(self)
    }
}

/// The parts of what has parts go one behind the other.
macro_rules! parts {
    ($part:ident, $call:ident $(, $name:ty)?) => {
        impl $part for &mut Encoder<'_> {
            type Ok = ();
            type Error = Unwritable;

            #[inline]
            fn $call<V: Serialize + ?Sized>(&mut self $(, _: $name)?, value: &V) -> Result<(), Unwritable> {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> Result<(), Unwritable> {
                Ok(())
            }
        }
    };
}

parts!(SerializeSeq, serialize_element);
parts!(SerializeTuple, serialize_element);
parts!(SerializeTupleStruct, serialize_field);
parts!(SerializeTupleVariant, serialize_field);
parts!(SerializeStruct, serialize_field, &'static str);
parts!(SerializeStructVariant, serialize_field, &'static str);

impl SerializeMap for &mut Encoder<'_> {
    type Ok = ();
    type Error = Unwritable;

    #[inline]
    fn serialize_key<V: Serialize + ?Sized>(&mut self, key: &V) -> Result<(), Unwritable> {
        key.serialize(&mut **self)
    }

    #[inline]
    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Unwritable> {
        value.serialize(&mut **self)
    }

    #[inline]
    fn end(self) -> Result<(), Unwritable> {
        Ok(())
    }
}

/// Takes the one byte of an element of a sequence of bytes; it is never asked for anything else.
struct OneByte;

fn no_byte() -> Unwritable {
    Unwritable("a byte is not written as one".to_string())
}

macro_rules! no_byte {
    ($($call:ident($($argument:ty),*) -> $made:ty;)*) => {
        $(fn $call(self $(, _: $argument)*) -> Result<$made, Unwritable> {
            Err(no_byte())
        })*
    };
}

type Never = Impossible<u8, Unwritable>;

impl Serializer for OneByte {
    type Ok = u8;
    type Error = Unwritable;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<u8, Unwritable> {
        Ok(value)
    }

    no_byte! {
        serialize_bool(bool) -> u8;
        serialize_i8(i8) -> u8;
        serialize_i16(i16) -> u8;
        serialize_i32(i32) -> u8;
        serialize_i64(i64) -> u8;
        serialize_u16(u16) -> u8;
        serialize_u32(u32) -> u8;
        serialize_u64(u64) -> u8;
        serialize_f32(f32) -> u8;
        serialize_f64(f64) -> u8;
        serialize_char(char) -> u8;
        serialize_str(&str) -> u8;
        serialize_bytes(&[u8]) -> u8;
        serialize_none() -> u8;
        serialize_unit() -> u8;
        serialize_unit_struct(&'static str) -> u8;
        serialize_unit_variant(&'static str, u32, &'static str) -> u8;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn serialize_some<V: Serialize + ?Sized>(self, _: &V) -> Result<u8, Unwritable> {
        Err(no_byte())
    }

    fn serialize_newtype_struct<V: Serialize + ?Sized>(self, _: &'static str, _: &V) -> Result<u8, Unwritable> {
        Err(no_byte())
    }

    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &V,
    ) -> Result<u8, Unwritable> {
        Err(no_byte())
    }
}

#[cfg(test)]
#[path = "tests/encode.rs"]
mod tests;
