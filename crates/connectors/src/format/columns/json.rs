//! JSON objects into columns. Fields that are not asked for are passed over and not looked into, which is why this is fast;
//! what is asked for is read in full.
//!
//! The text is read once, from left to right, and nothing is built. Records of one writer have their fields in one order, so
//! the names of the last record are tried first: a name that stands where it stood before costs one comparison, together
//! with all that is written around it.

use std::borrow::Cow;
use std::fmt::Formatter;
use std::ops::Range;

use arrow_schema::SchemaRef;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tidemill_core::Result;

use super::rows::{RowFormat, Rows, Scalar};
use crate::format::text::text_of;

/// So many names of the last record are kept to be tried first; those behind are looked up.
const NAMES_MAX: usize = 64;

/// The longest name kept, in bytes, with what is written around it.
const NAME_BYTES_MAX: usize = 128;

/// The deepest nesting of objects and lists that is passed over; a record with more is refused.
const DEPTH_MAX: usize = 128;

/// A record is one JSON object; a schema says which of its fields become columns, and their types. Other fields are passed
/// over. A field that is missing is null, and so is one that is `null`; where the schema allows no null the record is refused.
/// Of a field that stands twice the last counts. Decimals may be written as numbers or as text; both are exact.
///
/// A record is refused when it is not UTF-8, is no object, is cut off or goes on behind its end, has a bracket or quote
/// without its other, a name without a value, a bare word that is no value, or a field of the wrong type. Inside objects and
/// lists that no column asks for only quotes, brackets and bare words are checked, and in their texts no escapes.
#[derive(Debug, Clone)]
pub struct JsonColumns {
    schema: SchemaRef,
    /// The names of the last record, in order.
    names: Vec<Name>,
}

/// A name as it was written.
#[derive(Debug, Clone)]
struct Name {
    /// With its quotes, the bracket or comma in front and the colon behind.
    written: Vec<u8>,
    column: Option<usize>,
}

impl JsonColumns {
    /// The fields of this schema. An error if a type cannot be read from JSON.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        Rows::new(schema.clone())?;
        Ok(JsonColumns { schema, names: Vec::new() })
    }

    fn object(&mut self, scan: &mut Scan<'_>, rows: &mut Rows) -> Result<(), Refused> {
        let mut turn = 0;
        while let Some(column) = self.name(scan, turn)? {
            match column {
                Some(at) => scan.value(at, rows)?,
                None => scan.pass_over()?,
            }
            turn += 1;
        }
        match scan.peek() {
            None => Ok(()),
            Some(_) => Err(Refused::NotJson),
        }
    }

    /// The column of the name that comes now, if it has one; `None` where the object ends.
    #[inline]
    fn name(&mut self, scan: &mut Scan<'_>, turn: usize) -> Result<Option<Option<usize>>, Refused> {
        let begin = scan.at;
        if let Some(known) = self.names.get(turn)
            && begins_with(scan.rest(), &known.written)
        {
            scan.at += known.written.len();
            return Ok(Some(known.column));
        }
        match (turn, scan.token()) {
            (0, Some(b'{')) if scan.next_is(b'}') => return Ok(None),
            (0, Some(b'{')) | (1.., Some(b',')) => scan.white(),
            (1.., Some(b'}')) => return Ok(None),
            _ => return Err(Refused::NotJson),
        }
        let text = scan.string()?;
        scan.expect(b':')?;
        let name = scan.read(&text)?;
        let column = self.schema.fields().iter().position(|field| *field.name() == name);
        let written = scan.since(begin);
        if turn < NAMES_MAX && written.len() <= NAME_BYTES_MAX {
            let (name, kept) = (Name { written: written.to_vec(), column }, self.names.len());
            match self.names.get_mut(turn) {
                Some(known) => *known = name,
                // Behind one that was too long to keep nothing is kept.
                None if kept == turn => self.names.push(name),
                None => {}
            }
        }
        Ok(Some(column))
    }
}

impl RowFormat for JsonColumns {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), String> {
        let text = text_of(bytes)?;
        self.object(&mut Scan { text, at: 0 }, rows).map_err(|refused| match refused {
            Refused::Value(reason) => reason,
            Refused::NotJson => why_not(bytes),
        })
    }
}

/// Why a record gives no row.
enum Refused {
    /// What is wrong with it is then found out by a full parser.
    NotJson,
    Value(String),
}

/// What a full parser says of text that is no JSON object.
fn why_not(text: &[u8]) -> String {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = ();
        fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    match json.deserialize_map(Object).and_then(|()| json.end()) {
        Ok(()) => format!("objects and lists in each other, deeper than {DEPTH_MAX}"),
        Err(error) => {
            let told = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let told = told.strip_suffix(&place).unwrap_or(&told);
            match error.is_data() {
                true => told.to_string(),
                false => format!("not JSON: {told} at column {}", error.column()),
            }
        }
    }
}

/// Where a text of JSON stands, with its quotes.
struct Text {
    written: Range<usize>,
    escaped: bool,
}

/// Goes over the text of a record. Every place it stops at is ASCII, so all its parts are text again.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn since(&self, begin: usize) -> &'a [u8] {
        self.text.as_bytes().get(begin..self.at).unwrap_or_default()
    }

    #[inline]
    fn white(&mut self) {
        while matches!(self.byte(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space; it stays.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        self.white();
        self.byte(self.at)
    }

    /// The next byte that is no white space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    #[inline]
    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Refused> {
        if self.next_is(byte) { Ok(()) } else { Err(Refused::NotJson) }
    }

    /// A text, from the quote at which it begins to behind the one at which it ends.
    #[inline]
    fn string(&mut self) -> Result<Text, Refused> {
        let begin = self.at;
        if self.byte(begin) != Some(b'"') {
            return Err(Refused::NotJson);
        }
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(self.rest());
            match self.byte(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text { written: begin..self.at, escaped });
                }
                Some(b'\\') => {
                    // Whatever is escaped is no end.
                    self.at += 2;
                    escaped = true;
                }
                // A control character, or the end.
                _ => return Err(Refused::NotJson),
            }
        }
    }

    /// What a text says.
    #[inline]
    fn read(&self, text: &Text) -> Result<Cow<'a, str>, Refused> {
        let Range { start, end } = text.written;
        let read = match text.escaped {
            false => self.text.get(start + 1..end - 1).map(Cow::Borrowed),
            true => self.text.get(start..end).and_then(|written| serde_json::from_str(written).ok()).map(Cow::Owned),
        };
        read.ok_or(Refused::NotJson)
    }

    /// A whole number, if that is what stands here and it has no more than 18 digits.
    #[inline]
    fn whole(&mut self) -> Option<i64> {
        let rest = self.rest();
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let (mut value, mut count) = (0i64, 0);
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            // Nineteen digits may be too many; more wrap around and are not taken.
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            count += 1;
        }
        let goes_on = matches!(digits.get(count), Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'));
        if count == 0 || count > 18 || goes_on || (count > 1 && digits.first() == Some(&b'0')) {
            return None;
        }
        let negative = digits.len() < rest.len();
        self.at += count + usize::from(negative);
        Some(if negative { -value } else { value })
    }

    /// A number, `true`, `false` or `null`, as it is written.
    fn word(&mut self) -> Result<&'a str, Refused> {
        let rest = self.rest();
        let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let length = rest.iter().position(|byte| !in_word(byte)).unwrap_or(rest.len());
        let word = self.text.get(self.at..self.at + length).ok_or(Refused::NotJson)?;
        self.at += length;
        match word {
            "true" | "false" | "null" => Ok(word),
            _ if is_number(word.as_bytes()) => Ok(word),
            _ => Err(Refused::NotJson),
        }
    }

    /// Goes behind a value.
    #[inline]
    fn pass_over(&mut self) -> Result<(), Refused> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.pass_over_nested(),
            _ if self.whole().is_some() => Ok(()),
            _ => self.word().map(drop),
        }
    }

    fn pass_over_nested(&mut self) -> Result<(), Refused> {
        let (mut ends, mut depth) = ([0; DEPTH_MAX], 0);
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    *ends.get_mut(depth).ok_or(Refused::NotJson)? = open + 2;
                    depth += 1;
                }
                Some(end @ (b'}' | b']')) => {
                    self.at += 1;
                    depth -= 1;
                    if ends.get(depth) != Some(&end) {
                        return Err(Refused::NotJson);
                    }
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b',' | b':') => self.at += 1,
                Some(_) => drop(self.word()?),
                None => return Err(Refused::NotJson),
            }
        }
    }

    /// Sets a column to the value that comes.
    #[inline]
    fn value(&mut self, at: usize, rows: &mut Rows) -> Result<(), Refused> {
        let mut set = |scalar: Scalar<'_>| rows.set(at, scalar).map_err(Refused::Value);
        let nested =
            |what| Err(Refused::Value(format!("field number {}: {what} where a plain value is expected", at + 1)));
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                set(Scalar::Text(&self.read(&text)?))
            }
            Some(b'{') => nested("an object"),
            Some(b'[') => nested("a list"),
            _ => match self.whole() {
                Some(value) => set(Scalar::Int(value)),
                None => match self.word()? {
                    "null" => set(Scalar::Null),
                    "true" => set(Scalar::Bool(true)),
                    "false" => set(Scalar::Bool(false)),
                    number => set(number.parse().map_or(Scalar::Number(number), Scalar::Int)),
                },
            },
        }
    }
}

/// Whether bytes begin with others, which are few: a call to compare memory would cost more than to compare it.
#[inline]
fn begins_with(bytes: &[u8], others: &[u8]) -> bool {
    let Some(begin) = bytes.get(..others.len()) else { return false };
    if let (Some(end), Some(other_end)) = (begin.last_chunk::<8>(), others.last_chunk::<8>()) {
        let words = begin.as_chunks::<8>().0.iter().zip(others.as_chunks::<8>().0);
        return end == other_end && words.into_iter().all(|(word, other)| word == other);
    }
    if let (Some(end), Some(other_end)) = (begin.last_chunk::<4>(), others.last_chunk::<4>()) {
        return end == other_end && begin.first_chunk::<4>() == others.first_chunk::<4>();
    }
    begin == others
}

/// How many bytes there are in front of the first quote, backslash or control character; eight are looked at together.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        // A borrow marks none before the first that is right, and that one is all that counts.
        let found = (control | quote | backslash) & HIGHS;
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let in_rest = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
    bytes.len() - rest.len() + in_rest.unwrap_or(rest.len())
}

/// Whether this is a number as JSON has them.
#[inline]
fn is_number(word: &[u8]) -> bool {
    fn digits(bytes: &[u8]) -> (usize, &[u8]) {
        let count = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
        (count, bytes.get(count..).unwrap_or_default())
    }
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let (count, mut rest) = digits(unsigned);
    if count == 0 || (count > 1 && unsigned.starts_with(b"0")) {
        return false;
    }
    if let Some(behind) = rest.strip_prefix(b".") {
        let (count, behind) = digits(behind);
        if count == 0 {
            return false;
        }
        rest = behind;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let (count, behind) = digits(exponent);
        return count > 0 && behind.is_empty();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::RecordBatch;
    use arrow_schema::{DataType, Field, Schema};
    use serde_json::Value;

    use super::*;

    fn format() -> JsonColumns {
        let fields = [
            ("whole", DataType::Int64),
            ("text", DataType::Utf8),
            ("real", DataType::Float64),
            ("price", DataType::Decimal128(38, 10)),
        ];
        let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true));
        JsonColumns::new(Arc::new(Schema::new(fields.to_vec()))).unwrap()
    }

    /// The rows of these records, or what was said of the first that was refused.
    fn read<'a>(format: &mut JsonColumns, records: impl IntoIterator<Item = &'a str>) -> Result<RecordBatch, String> {
        let mut rows = Rows::new(format.schema().clone()).unwrap();
        for record in records {
            format.read(record.as_bytes(), &mut rows)?;
            rows.finish_row()?;
        }
        Ok(rows.take().unwrap())
    }

    fn shown(records: &[&str]) -> Vec<String> {
        let batch = read(&mut format(), records.iter().copied()).unwrap();
        let all = (0..batch.num_columns()).map(|column| format!("{:?}", batch.column(column)));
        let all: Vec<Vec<String>> = all
            .map(|text| text.lines().skip(2).map(|line| line.trim().trim_end_matches(',').to_string()).collect())
            .collect();
        (0..records.len())
            .map(|row| all.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join("|"))
            .collect()
    }

    #[test]
    fn fields_are_found_in_any_order_and_way_of_writing() {
        let records = [
            r#"{"whole":1,"text":"a","real":1.5,"price":2.5}"#,
            r#"{"whole":2,"text":"b","real":-0.5e1,"price":"7"}"#,
            r#"{"text":"c","whole":3,"price":1e3}"#,
            r#" { "whole" : 4 , "other":{"whole":9,"x":[1,{"}":"]"}]}, "text" : "\u4e94\n\"" } "#,
            r#"{"wh\u006fle":5,"text":"no\\","text":"五"}"#,
            r#"{"other":"\"whole\":8","whole":-9223372036854775808}"#,
            r#"{}"#,
            r#"{"real":123456789012345678901,"whole":9223372036854775807,"price":12345678901234567890.0123456789}"#,
        ];
        let expected = [
            "1|\"a\"|1.5|25000000000",
            "2|\"b\"|-5.0|70000000000",
            "3|\"c\"|null|10000000000000",
            "4|\"五\\n\\\"\"|null|null",
            "5|\"五\"|null|null",
            "-9223372036854775808|null|null|null",
            "null|null|null|null",
            "9223372036854775807|null|1.2345678901234568e20|123456789012345678900123456789",
        ];
        assert_eq!(shown(&records), expected);
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_reason() {
        let good = r#"{"whole":1,"text":"a","more":{"x":[1,2,{"y":null}]},"note":"b\\"}"#;
        assert!(read(&mut format(), [good]).is_ok());
        for cut in 0..good.len() {
            let refused = read(&mut format(), [good, &good[..cut]]);
            assert!(refused.is_err(), "cut at {cut}");
        }
        let bad = [
            (r#"{"whole":01}"#, "not JSON: invalid number"),
            (r#"{"whole":1.}"#, "not JSON: invalid number"),
            (r#"{"other":nope}"#, "not JSON: expected ident"),
            (r#"{"other":[1,2}"#, "not JSON: expected `,` or `]`"),
            (r#"{"other":{"a":[}]}"#, "not JSON: expected value"),
            (r#"{"whole":1,}"#, "not JSON: trailing comma"),
            (r#"{"whole" 1}"#, "not JSON: expected `:`"),
            (r#"{whole:1}"#, "not JSON: key must be a string"),
            ("{\"other\":\"a\tb\"}", "not JSON: control character"),
            (r#"{"text":"\x"}"#, "not JSON: invalid escape"),
            (r#"{"whole":1}{"whole":2}"#, "not JSON: trailing characters"),
            (r#""whole""#, "invalid type: string \"whole\", expected a JSON object"),
            ("", "not JSON: EOF while parsing a value"),
            (r#"{"whole":1.5}"#, "field `whole`: 1.5 where a whole number of 64 bits is expected"),
            (r#"{"whole":9223372036854775808}"#, "field `whole`: 9223372036854775808 where"),
            (r#"{"real":1e999}"#, "field `real`: 1e999 where a number is expected"),
            (r#"{"text":[]}"#, "field number 2: a list where a plain value is expected"),
        ];
        for (record, reason) in bad {
            let told = read(&mut format(), [record]).unwrap_err();
            assert!(told.starts_with(reason), "{record}: {told}");
        }
        let deep = format!("{{\"other\":{}{}}}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(read(&mut format(), [deep.as_str()]).is_err());
    }

    /// Records at random, whole and damaged, against the parser that builds values.
    #[test]
    fn the_same_is_read_as_by_a_parser_that_builds_values() {
        let mut state = 0x5eed_u64;
        println!("seed {state:#x}");
        let mut next = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let names = ["whole", "text", "other", "more", "wh\\u006fle", "te xt", "五"];
        let values =
            ["1", "-77", "0", "\"a\"", "\"\\\"{\"", "\"五\\n\"", "null", "{\"whole\":[1,\"]\"]}", "[]", "1.5", "true"];
        let blanks = ["", " ", "\t"];
        let (mut format, mut compared) = (format(), [0, 0]);
        for _ in 0..5_000 {
            let mut record = String::from("{");
            for field in 0..next(6) {
                let blank = blanks[next(3) as usize];
                record.push_str(if field > 0 { "," } else { "" });
                record.push_str(&format!(
                    "{blank}\"{}\"{blank}:{}",
                    names[next(7) as usize],
                    values[next(11) as usize]
                ));
                record.push_str(blank);
            }
            record.push('}');
            if next(3) == 0 {
                let at = next(record.len() as u64) as usize;
                let damage = ["", "\"", "}", "]", ",", "x", "\\"][next(7) as usize];
                if record.is_char_boundary(at) && record.is_char_boundary(at + 1) {
                    record.replace_range(at..at + 1, damage);
                }
            }
            let got = read(&mut format, [record.as_str()]);
            match serde_json::from_str::<Value>(&record) {
                Ok(Value::Object(object)) => {
                    let of = |name: &str| object.get(name).cloned().unwrap_or(Value::Null);
                    let fits = (of("whole").is_i64() || of("whole").is_null())
                        && (of("text").is_string() || of("text").is_null());
                    // A field may have been refused where its second value would have been right.
                    let Ok(batch) = got else {
                        assert!(
                            !fits || record.matches("text").count() + record.matches("le\"").count() > 1,
                            "{record}"
                        );
                        continue;
                    };
                    assert!(fits, "{record}");
                    use arrow_array::Array as _;
                    use arrow_array::cast::AsArray;
                    let whole = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
                    let whole = whole.is_valid(0).then(|| whole.value(0));
                    let text = batch.column(1).as_string::<i32>();
                    let text = text.is_valid(0).then(|| text.value(0).to_string());
                    assert_eq!(
                        (whole, text),
                        (of("whole").as_i64(), of("text").as_str().map(String::from)),
                        "{record}"
                    );
                    compared[0] += 1;
                }
                _ => {
                    // Only inside what is passed over more is let through.
                    let inside = record.contains('[') || record.contains("{\"whole") || record.contains('\\');
                    assert!(got.is_err() || inside, "{record}");
                    compared[1] += usize::from(got.is_err());
                }
            }
        }
        assert!(compared.iter().all(|count| *count > 250), "{compared:?}");
    }

    #[test]
    fn the_end_of_a_text_is_found_at_every_place() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0x1f, 0x00] {
                let mut bytes = vec![0xe4; length];
                bytes.extend([special, b'x', b'"', 0x80, 0xff, 0x21, 0x5d, 0x23, 0x20]);
                assert_eq!(plain_bytes(&bytes), length, "{special}");
            }
        }
        assert_eq!(plain_bytes(&[0x80; 21]), 21);
    }
}
