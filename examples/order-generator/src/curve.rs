//! How the number of orders goes up and down over the day: quiet at night, rising in the morning, level by day, a peak
//! in the evening.

use crate::time::{DAY_MS, LOCAL_OFFSET_MS};

/// Orders per unit of time at the full hours 0 to 23 (local time), in thousandths of the peak.
const PER_MILLE_AT_HOUR: [i64; 24] = [
    220, 130, 80, 55, 45, 60, 120, 240, 420, 580, 680, 700, 640, 600, 620, 640, 660, 710, 840, 950, 1000, 970, 720, 430,
];

/// The rate at `time_ms` in thousandths of the peak, a straight line between the full hours.
pub fn per_mille_at(time_ms: i64) -> i64 {
    let ms_of_day = (time_ms + LOCAL_OFFSET_MS).rem_euclid(DAY_MS);
    let hour = (ms_of_day / 3_600_000) as usize;
    let from = PER_MILLE_AT_HOUR[hour];
    let to = PER_MILLE_AT_HOUR[(hour + 1) % 24];
    from + (to - from) * (ms_of_day % 3_600_000) / 3_600_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_local;

    #[test]
    fn evening_is_the_peak_and_midnight_has_no_step() {
        let at = |text: &str| per_mille_at(parse_local(text).unwrap());
        assert_eq!(at("2026-11-20 20:00:00"), 1000);
        assert_eq!(at("2026-11-20 04:00:00"), 45);
        assert_eq!(at("2026-11-20 23:30:00"), 325);
        assert!(at("2026-11-20 23:59:59").abs_diff(at("2026-11-21 00:00:00")) <= 1);
    }
}
