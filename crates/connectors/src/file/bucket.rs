//! Which folder below a file sink's a record goes to.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tidemill_core::{Error, NO_TIMESTAMP, Result};

/// Names the bucket of each record: a folder below the sink's, with `/` for folders in folders.
pub trait Bucket<T>: Clone + Send + Sync + 'static {
    /// Writes the bucket's name to `name`, which is empty; left empty, it is the sink's own folder. `timestamp_ms` is the
    /// record's event time, `now_ms` the job's clock.
    fn name(&mut self, timestamp_ms: i64, record: &T, now_ms: i64, name: &mut String) -> Result<(), String>;

    /// Whether [`Bucket::begins_ms`] finds times in names.
    fn has_time(&self) -> bool {
        false
    }

    /// The time in the name of a bucket, epoch ms: its records' times begin there. `None` in names of another form.
    fn begins_ms(&self, name: &str) -> Option<i64> {
        let _ = name;
        None
    }
}

/// Everything in the sink's own folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct OneBucket;

impl<T> Bucket<T> for OneBucket {
    fn name(&mut self, _timestamp_ms: i64, _record: &T, _now_ms: i64, _name: &mut String) -> Result<(), String> {
        Ok(())
    }
}

/// A bucket by a function of the record.
#[derive(Clone)]
pub struct ByRecord<F>(pub(super) F);

impl<T, F: FnMut(&T) -> String + Clone + Send + Sync + 'static> Bucket<T> for ByRecord<F> {
    fn name(&mut self, _timestamp_ms: i64, record: &T, _now_ms: i64, name: &mut String) -> Result<(), String> {
        name.push_str(&(self.0)(record));
        Ok(())
    }
}

/// Which time a bucket is named after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BucketTime {
    /// The job's clock when the record is written, as in Flink. After a restart a record may fall into a later bucket.
    #[default]
    Processing,
    /// The record's event time. One without fails the job.
    Event,
}

/// A bucket by time, such as `2026-11-21--04`.
#[derive(Debug, Clone)]
pub struct ByTime {
    time: BucketTime,
    pattern: Vec<Piece>,
    zone: TimeZone,
    /// The second named last, and its name.
    last: Option<(i64, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Text(String),
}

impl ByTime {
    /// Flink's default pattern: a bucket an hour.
    pub const HOURLY: &str = "yyyy-MM-dd--HH";

    /// `pattern` is made of `yyyy`, `MM`, `dd`, `HH`, `mm`, `ss`, text in single quotes, and characters that are no letters;
    /// `zone` is a name such as `Asia/Shanghai` or `UTC`.
    pub fn new(time: BucketTime, pattern: &str, zone: &str) -> Result<Self> {
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::input(format!("`{zone}` is no time zone")).hint("take a name such as `UTC` or `Asia/Shanghai`")
        })?;
        Ok(ByTime { time, pattern: pieces(pattern)?, zone, last: None })
    }
}

fn pieces(pattern: &str) -> Result<Vec<Piece>> {
    let wrong = |what: &str| {
        Error::input(format!("the bucket pattern `{pattern}` {what}"))
            .hint("use yyyy, MM, dd, HH, mm, ss, 'text in quotes', and characters that are no letters")
    };
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c| c != first).unwrap_or(rest.len());
        let piece = match &rest[..run] {
            "yyyy" => Piece::Year,
            "MM" => Piece::Month,
            "dd" => Piece::Day,
            "HH" => Piece::Hour,
            "mm" => Piece::Minute,
            "ss" => Piece::Second,
            "'" => {
                let (text, behind) =
                    rest[1..].split_once('\'').ok_or_else(|| wrong("has a quote that does not end"))?;
                pieces.push(Piece::Text(text.to_string()));
                rest = behind;
                continue;
            }
            text if first.is_alphabetic() || first == '\'' => return Err(wrong(&format!("has `{text}`"))),
            text => Piece::Text(text.to_string()),
        };
        pieces.push(piece);
        rest = &rest[run..];
    }
    Ok(pieces)
}

impl<T> Bucket<T> for ByTime {
    fn name(&mut self, timestamp_ms: i64, _record: &T, now_ms: i64, name: &mut String) -> Result<(), String> {
        let at_ms = match self.time {
            BucketTime::Processing => now_ms,
            BucketTime::Event if timestamp_ms == NO_TIMESTAMP => {
                return Err("has no event time to name a bucket by".into());
            }
            BucketTime::Event => timestamp_ms,
        };
        let second = at_ms.div_euclid(1000);
        if let Some((_, known)) = self.last.as_ref().filter(|(of, _)| *of == second) {
            name.push_str(known);
            return Ok(());
        }
        let at =
            Timestamp::from_second(second).map_err(|_| format!("has the time {at_ms} ms, which no calendar holds"))?;
        let at = at.to_zoned(self.zone.clone());
        for piece in &self.pattern {
            // Writing to text does not fail.
            let _ = match piece {
                Piece::Year => write!(name, "{:04}", at.year()),
                Piece::Month => write!(name, "{:02}", at.month()),
                Piece::Day => write!(name, "{:02}", at.day()),
                Piece::Hour => write!(name, "{:02}", at.hour()),
                Piece::Minute => write!(name, "{:02}", at.minute()),
                Piece::Second => write!(name, "{:02}", at.second()),
                Piece::Text(text) => name.write_str(text),
            };
        }
        self.last = Some((second, name.clone()));
        Ok(())
    }

    fn has_time(&self) -> bool {
        self.pattern.contains(&Piece::Year)
    }

    fn begins_ms(&self, name: &str) -> Option<i64> {
        // What the pattern leaves out begins with its first.
        let (mut date, mut time, mut rest) = ([1i16, 1, 1], [0i8; 3], name);
        for piece in &self.pattern {
            let digits = match piece {
                Piece::Text(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Piece::Year => 4,
                _ => 2,
            };
            let (number, behind) = rest.split_at_checked(digits)?;
            rest = behind;
            match piece {
                Piece::Year => date[0] = number.parse().ok()?,
                Piece::Month => date[1] = number.parse().ok()?,
                Piece::Day => date[2] = number.parse().ok()?,
                Piece::Hour => time[0] = number.parse().ok()?,
                Piece::Minute => time[1] = number.parse().ok()?,
                Piece::Second => time[2] = number.parse().ok()?,
                Piece::Text(_) => {}
            }
        }
        let [year, month, day] = date;
        let [hour, minute, second] = time;
        let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
        let begins = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let begins = begins.to_zoned(self.zone.clone()).ok()?.timestamp().as_millisecond();
        rest.is_empty().then_some(begins)
    }
}

/// Whether a bucket's name stays below the folder and is nobody's hidden file.
pub(super) fn check(name: &str) -> Result<(), String> {
    let fine = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
    match name.is_empty() || name.split('/').all(fine) {
        true => Ok(()),
        false => Err(format!("has the bucket `{name}`, which is no folder below the sink's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pattern: &str, zone: &str, at_ms: i64) -> String {
        let mut name = String::new();
        let mut by_time = ByTime::new(BucketTime::Event, pattern, zone).expect("a pattern");
        by_time.name(at_ms, &(), 0, &mut name).expect("a name");
        name
    }

    #[test]
    fn buckets_are_named_after_the_time_in_the_zone() {
        // 2026-03-29 00:59:59 and 01:00:00 UTC: clocks in Berlin go from 2 to 3.
        let at_ms = 1_774_745_999_000;
        assert_eq!(named(ByTime::HOURLY, "UTC", at_ms), "2026-03-29--00");
        assert_eq!(named(ByTime::HOURLY, "Europe/Berlin", at_ms), "2026-03-29--01");
        assert_eq!(named(ByTime::HOURLY, "Europe/Berlin", at_ms + 1000), "2026-03-29--03");
        assert_eq!(named("'day='yyyyMMdd/'m'mm.ss", "Asia/Shanghai", at_ms), "day=20260329/m59.59");
        assert_eq!(named("yyyy", "UTC", -1), "1969");
    }

    #[test]
    fn the_time_in_a_name_is_found_again() {
        let begins = |pattern: &str, zone: &str, name: &str| {
            let by_time = ByTime::new(BucketTime::Event, pattern, zone).expect("a pattern");
            Bucket::<()>::begins_ms(&by_time, name)
        };
        let hour_ms = 3_600_000;
        // The hour before clocks in Berlin go from 2 to 3, and the hour after.
        let at_ms = 1_774_746_000_000;
        assert_eq!(begins(ByTime::HOURLY, "Europe/Berlin", "2026-03-29--01"), Some(at_ms - hour_ms));
        assert_eq!(begins(ByTime::HOURLY, "Europe/Berlin", "2026-03-29--03"), Some(at_ms));
        assert_eq!(begins("'day='yyyyMMdd/'m'mm", "UTC", "day=19700102/m05"), Some(24 * hour_ms + 300_000));
        assert_eq!(begins("yyyy", "UTC", "1971"), Some(365 * 24 * hour_ms));
        for name in ["", "2026-03-29", "2026-03-29--01x", "2026-13-29--01", "2026-03-29--0é"] {
            assert_eq!(begins(ByTime::HOURLY, "UTC", name), None, "{name}");
        }
    }

    #[test]
    fn wrong_patterns_zones_and_names_are_told() {
        for (pattern, zone) in [("yyyy-MMM", "UTC"), ("'open", "UTC"), ("q", "UTC"), ("yyyy", "Nowhere/City")] {
            assert!(ByTime::new(BucketTime::Event, pattern, zone).is_err(), "{pattern} {zone}");
        }
        let mut by_time = ByTime::new(BucketTime::Event, "yyyy", "UTC").expect("a pattern");
        assert!(by_time.name(NO_TIMESTAMP, &(), 0, &mut String::new()).is_err());
        assert!(by_time.name(i64::MAX, &(), 0, &mut String::new()).is_err());
        for name in ["..", "a/../b", "/a", "a/", ".a", "a//b"] {
            assert!(check(name).is_err(), "{name}");
        }
        assert!(check("").is_ok() && check("day=1/hour=2").is_ok());
    }
}
