//! Text: the bytes are the value.

use tidemill_core::format::{Decode, Encode};

/// The text that the bytes of a record are, or from where on they are none.
#[inline]
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, String> {
    simdutf8::compat::from_utf8(bytes).map_err(|error| format!("not UTF-8 from byte {}", error.valid_up_to()))
}

/// A record is UTF-8 text; anything else is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Text;

impl Decode for Text {
    type Value = String;

    fn decode(&mut self, bytes: &[u8]) -> Result<String, String> {
        text_of(bytes).map(str::to_owned)
    }
}

impl<S: AsRef<str>> Encode<S> for Text {
    fn encode(&mut self, value: &S, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(value.as_ref().as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_through_and_other_bytes_do_not() {
        assert_eq!(Text.decode("häß".as_bytes()), Ok("häß".to_string()));
        assert_eq!(Text.decode(b"ab\xff"), Err("not UTF-8 from byte 2".to_string()));
        let mut out = b"x".to_vec();
        Text.encode(&"y", &mut out).expect("encodes");
        assert_eq!(out, b"xy");
    }
}
