//! Raw: the bytes as they are.

use tidemill_core::format::{Decode, Encode};

/// A record is its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raw;

impl Decode for Raw {
    type Value = Vec<u8>;

    fn decode(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(bytes.to_vec())
    }
}

impl<B: AsRef<[u8]>> Encode<B> for Raw {
    fn encode(&mut self, value: &B, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(value.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through() {
        let mut out = b"x".to_vec();
        Raw.encode(&[0xff, 0], &mut out).expect("encodes");
        assert_eq!(Raw.decode(&out), Ok(vec![b'x', 0xff, 0]));
    }
}
