//! Calendar arithmetic at UTC+8, the shop's local time. China has had no daylight saving time since 1991, so a day is
//! always 86,400,000 ms and no time zone data is needed.

/// Local time minus UTC.
pub const LOCAL_OFFSET_MS: i64 = 8 * 3_600_000;
/// A minute.
pub const MINUTE_MS: i64 = 60_000;
/// A day.
pub const DAY_MS: i64 = 86_400_000;
/// 2000-01-01 00:00:00 local time: an earlier event time is refused as absurd.
pub const EARLIEST_MS: i64 = 946_684_800_000 - LOCAL_OFFSET_MS;
/// 2100-01-01 00:00:00 local time: this and every later event time is refused as absurd.
pub const LATEST_MS: i64 = 4_102_444_800_000 - LOCAL_OFFSET_MS;

/// A moment's local calendar fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    ms_of_day: u32,
}

impl Civil {
    /// Days to a date as in H. Hinnant's `civil_from_days`.
    fn at(time_ms: i64) -> Civil {
        let local_ms = time_ms + LOCAL_OFFSET_MS;
        let shifted = local_ms.div_euclid(DAY_MS) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Civil {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32,
            ms_of_day: local_ms.rem_euclid(DAY_MS) as u32,
        }
    }

    fn write_date(&self, out: &mut Vec<u8>, separator: Option<u8>) {
        write_padded(out, self.year.unsigned_abs(), 4);
        out.extend(separator);
        write_padded(out, u64::from(self.month), 2);
        out.extend(separator);
        write_padded(out, u64::from(self.day), 2);
    }

    fn write_clock(&self, out: &mut Vec<u8>, separator: Option<u8>) {
        write_padded(out, u64::from(self.ms_of_day / 3_600_000), 2);
        out.extend(separator);
        write_padded(out, u64::from(self.ms_of_day / 60_000 % 60), 2);
        out.extend(separator);
        write_padded(out, u64::from(self.ms_of_day / 1000 % 60), 2);
    }
}

/// Appends `number` with leading zeros to `width` digits.
pub(crate) fn write_padded(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for slot in out[start..].iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Appends local time as `yyyy-MM-dd HH:mm:ss`.
pub fn write_local(out: &mut Vec<u8>, time_ms: i64) {
    let civil = Civil::at(time_ms);
    civil.write_date(out, Some(b'-'));
    out.push(b' ');
    civil.write_clock(out, Some(b':'));
}

/// Appends local time as `yyyyMMddHHmmssSSS`, the front of an order id.
pub fn write_compact(out: &mut Vec<u8>, time_ms: i64) {
    let civil = Civil::at(time_ms);
    civil.write_date(out, None);
    civil.write_clock(out, None);
    write_padded(out, u64::from(civil.ms_of_day % 1000), 3);
}

/// The local day, `yyyy-MM-dd`.
pub fn day_text(time_ms: i64) -> String {
    let mut out = Vec::with_capacity(10);
    Civil::at(time_ms).write_date(&mut out, Some(b'-'));
    String::from_utf8_lossy(&out).into_owned()
}

/// The first moment of the local day of `time_ms`.
pub fn day_start(time_ms: i64) -> i64 {
    (time_ms + LOCAL_OFFSET_MS).div_euclid(DAY_MS) * DAY_MS - LOCAL_OFFSET_MS
}

/// The start of the window of `size_ms` (aligned to the epoch) that `time_ms` lies in.
pub fn window_start(time_ms: i64, size_ms: i64) -> i64 {
    time_ms.div_euclid(size_ms) * size_ms
}

/// Local time `yyyy-MM-dd HH:mm:ss` as epoch milliseconds; `None` when it is not exactly of this form or no real date.
pub fn parse_local(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    if bytes.len() != 19 || separators.iter().any(|&(at, wanted)| bytes[at] != wanted) {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        bytes[from..to].iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let time_ms = days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 - LOCAL_OFFSET_MS;
    // The 30th of February would come back as a day of March.
    let civil = Civil::at(time_ms);
    (i64::from(civil.month) == month && i64::from(civil.day) == day).then_some(time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_eight_hours_ahead() {
        // 2026-11-20T10:25:31.042Z
        let time_ms = 1_795_170_331_042;
        let mut out = Vec::new();
        write_local(&mut out, time_ms);
        out.push(b'|');
        write_compact(&mut out, time_ms);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-20 18:25:31|20261120182531042");
        assert_eq!(parse_local("2026-11-20 18:25:31"), Some(time_ms - 42));
        assert_eq!(day_text(time_ms), "2026-11-20");
        assert_eq!(parse_local("2026-11-20 00:00:00"), Some(day_start(time_ms)));
    }

    #[test]
    fn a_day_begins_at_sixteen_hours_utc() {
        let midnight = parse_local("2024-02-29 00:00:00").unwrap();
        assert_eq!(midnight, 1_709_136_000_000);
        assert_eq!(day_text(midnight), "2024-02-29");
        assert_eq!(day_text(midnight - 1), "2024-02-28");
        assert_eq!(day_text(EARLIEST_MS), "2000-01-01");
        assert_eq!(day_text(LATEST_MS), "2100-01-01");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2026-02-30 00:00:00",
            "2026-13-01 00:00:00",
            "2026-1-01 00:00:00",
            "2026-01-01T00:00:00",
            "2026-01-01 24:00:00",
        ] {
            assert_eq!(parse_local(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_a_century_comes_back() {
        for day in 0..36_525 {
            let time_ms = EARLIEST_MS + day * DAY_MS + day * 1000;
            let mut text = Vec::new();
            write_local(&mut text, time_ms);
            assert_eq!(parse_local(std::str::from_utf8(&text).unwrap()), Some(time_ms));
        }
    }
}
