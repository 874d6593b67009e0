//! Money as whole fen (1/100 yuan). It is here so that no amount ever becomes a floating-point number: text is read digit
//! by digit and sums are integer sums.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount in fen. In JSON it is decimal text with exactly two digits (`"12.30"`); text and number with at most two
/// digits after the point are read. In binary formats it is the integer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fen(pub i64);

impl Fen {
    /// The largest amount that is read: ten billion yuan. Nine million such amounts still fit a sum.
    pub const MAX: Fen = Fen(1_000_000_000_000);

    /// Appends the decimal text with exactly two digits.
    pub fn write_to(self, out: &mut Vec<u8>) {
        if self.0 < 0 {
            out.push(b'-');
        }
        let fen = self.0.unsigned_abs();
        write_integer(out, fen / 100);
        out.extend_from_slice(&[b'.', b'0' + (fen / 10 % 10) as u8, b'0' + (fen % 10) as u8]);
    }
}

/// Appends `number` in decimal digits.
pub(crate) fn write_integer(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

impl fmt::Display for Fen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let fen = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", fen / 100, fen % 100)
    }
}

impl FromStr for Fen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no amount with at most two digits after the point");
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (yuan, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(yuan) || !all_digits(fraction) || yuan.len() > 11 || fraction.len() > 2 {
            return Err(refused());
        }
        let whole: i64 = yuan.parse().map_err(|_| refused())?;
        let part: i64 = fraction.parse().map_err(|_| refused())?;
        let fen = whole * 100 + if fraction.len() == 1 { part * 10 } else { part };
        if fen > Fen::MAX.0 {
            return Err(format!("`{text}` is more than the largest amount, {}", Fen::MAX));
        }
        Ok(Fen(if negative { -fen } else { fen }))
    }
}

impl Serialize for Fen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Fen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Fen);
        }
        // The raw text of the number: going through `f64` would already be too late for exactness.
        let raw = <&RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        digits.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_are_read_exactly() {
        for (text, fen) in [
            ("\"12.30\"", 1230),
            ("12.3", 1230),
            ("12", 1200),
            ("0.07", 7),
            ("\"-0.50\"", -50),
            ("1234567890.29", 123_456_789_029),
        ] {
            assert_eq!(serde_json::from_str::<Fen>(text).unwrap(), Fen(fen), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "12.345",
            "1e3",
            "\"\"",
            "\".5\"",
            "\"5.\"",
            "true",
            "null",
            "\"12,30\"",
            "\"+1\"",
            "99999999999",
            "\"--1\"",
        ] {
            assert!(serde_json::from_str::<Fen>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn three_ways_of_writing_agree() {
        for (fen, text) in [(Fen(7), "0.07"), (Fen(-1230), "-12.30"), (Fen(123_456_789_029), "1234567890.29")] {
            let mut bytes = Vec::new();
            fen.write_to(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            assert_eq!(serde_json::to_string(&fen).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_binary_format_holds_the_integer() {
        let bytes = postcard::to_stdvec(&Fen(-1230)).unwrap();
        assert_eq!(postcard::from_bytes::<Fen>(&bytes).unwrap(), Fen(-1230));
    }
}
