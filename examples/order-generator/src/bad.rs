//! Events no job can use, made from a good one: every kind of dirt the dead-letter path must survive.

use crate::random::Random;

/// What is wrong with a bad event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadKind {
    /// No JSON: a quote is missing.
    Malformed,
    /// A number where text belongs, text where a number belongs.
    WrongType,
    /// A field is missing.
    MissingField,
    /// An amount below zero.
    NegativeAmount,
    /// More digits after the point than money has.
    FractionOfFen,
    /// An event time of 1970, of the far future, in microseconds, or days away from `orderTime`.
    AbsurdTime,
    /// A status or province that does not exist.
    UnknownName,
    /// The writer died in the middle of the line.
    HalfWritten,
}

impl BadKind {
    /// All kinds.
    pub const ALL: [BadKind; 8] = [
        BadKind::Malformed,
        BadKind::WrongType,
        BadKind::MissingField,
        BadKind::NegativeAmount,
        BadKind::FractionOfFen,
        BadKind::AbsurdTime,
        BadKind::UnknownName,
        BadKind::HalfWritten,
    ];
}

/// Appends a spoilt copy of the JSON text `good`, whose event time is `event_ms`.
pub(crate) fn write_bad(kind: BadKind, good: &[u8], event_ms: i64, random: &mut Random, out: &mut Vec<u8>) {
    let mut choose = |choices: &[&'static str]| choices[random.below(choices.len() as u64) as usize];
    match kind {
        BadKind::Malformed => {
            let at = good.iter().position(|byte| *byte == b',').unwrap_or(0);
            out.extend_from_slice(&good[..at.saturating_sub(1)]);
            out.extend_from_slice(&good[at..]);
        }
        BadKind::WrongType => match choose(&["num", "price", "userName", "phone"]) {
            "num" => write_with(good, "num", "\"three\"", out),
            "price" => write_with(good, "price", "true", out),
            "userName" => write_with(good, "userName", "17", out),
            _ => write_with(good, "phone", "null", out),
        },
        BadKind::MissingField => {
            let field = choose(&["orderId", "status", "orderTimeSeries", "totalPrice", "userId"]);
            let Some((start, _, end)) = place_of(good, field) else {
                return;
            };
            out.extend_from_slice(&good[..start]);
            out.extend_from_slice(&good[(end + 1).min(good.len())..]);
        }
        BadKind::NegativeAmount => write_with(good, choose(&["price", "totalPrice"]), "\"-19.90\"", out),
        BadKind::FractionOfFen => write_with(good, choose(&["price", "totalPrice"]), "19.999", out),
        BadKind::AbsurdTime => {
            let times =
                [0, -event_ms, event_ms / 1000, event_ms * 1000, 253_402_300_799_000, event_ms + 3 * 86_400_000];
            let time_ms = times[random.below(times.len() as u64) as usize];
            write_with(good, "orderTimeSeries", &time_ms.to_string(), out);
        }
        BadKind::UnknownName => match choose(&["status", "address"]) {
            "status" => write_with(good, "status", "\"已丢失\"", out),
            _ => write_with(good, "address", "\"亚特兰蒂斯\"", out),
        },
        BadKind::HalfWritten => {
            let kept = random.between(1, good.len() as i64 - 1) as usize;
            out.extend_from_slice(&good[..kept]);
        }
    }
}

/// Appends `good` with the value of `field` replaced by the JSON text `value`.
fn write_with(good: &[u8], field: &str, value: &str, out: &mut Vec<u8>) {
    let Some((_, value_start, end)) = place_of(good, field) else {
        return;
    };
    out.extend_from_slice(&good[..value_start]);
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(&good[end..]);
}

/// Where `"field":value` starts, where its value starts and where it ends (at the comma or brace). The generator's texts
/// hold neither commas nor quotes.
fn place_of(good: &[u8], field: &str) -> Option<(usize, usize, usize)> {
    let name = format!("\"{field}\":");
    let start = good.windows(name.len()).position(|window| window == name.as_bytes())?;
    let value_start = start + name.len();
    let length = good[value_start..].iter().position(|byte| matches!(byte, b',' | b'}'))?;
    Some((start, value_start, value_start + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Draft;
    use crate::order::{Order, Status};

    #[test]
    fn every_bad_event_is_refused_and_every_kind_for_its_own_reason() {
        let mut random = Random::new(5);
        for round in 0..400 {
            let event_ms = 1_795_170_331_042 + round;
            let mut good = Vec::new();
            Draft::new(&mut random, 5, 100, event_ms, round as u64).write(5, Status::Paid, event_ms, &mut good);
            for kind in BadKind::ALL {
                let mut bad = Vec::new();
                write_bad(kind, &good, event_ms, &mut random, &mut bad);
                assert!(!bad.is_empty() && bad != good && !bad.contains(&b'\n'), "{kind:?}");
                let reason = Order::decode(&bad).unwrap_err();
                let expected: &[&str] = match kind {
                    BadKind::Malformed => &["expected", "control character"],
                    BadKind::WrongType => &["three", "true", "17", "null"],
                    BadKind::MissingField => &["missing field"],
                    BadKind::NegativeAmount => &["below zero"],
                    BadKind::FractionOfFen => &["19.999"],
                    BadKind::AbsurdTime => &["outside the years", "differ"],
                    BadKind::UnknownName => &["已丢失", "亚特兰蒂斯"],
                    BadKind::HalfWritten => &["EOF", "unicode", "UTF-8", "utf-8"],
                };
                assert!(expected.iter().any(|part| reason.contains(part)), "{kind:?}: {reason}");
            }
        }
    }
}
