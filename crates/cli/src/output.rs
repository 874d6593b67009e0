//! Printing results: tables for people, JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;
use tidemill_core::Error;

use crate::failure::Failure;

/// How to print: columns for people, or one JSON value for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    // No `///` here: clap would spread every option of every help over several lines.
    #[default]
    Table,
    Json,
}

/// Prints one line. A reader that has gone (`| head`) ends the program quietly.
pub fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::io("print", e).into()),
        Ok(()) => Ok(()),
    }
}

impl Output {
    /// Prints a list: `items` as JSON, or a table with a row for each.
    pub fn list(self, items: &[Value], heads: &[&str], row: impl Fn(&Value) -> Vec<String>) -> Result<(), Failure> {
        if self == Output::Json {
            return line(Value::from(items.to_vec()));
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(heads.to_vec());
        for item in items {
            table.add_row(row(item));
        }
        for text in table.lines() {
            line(text.strip_prefix(' ').unwrap_or(&text).trim_end())?;
        }
        Ok(())
    }

    /// Prints one result: the value as JSON, or a sentence.
    pub fn result(self, value: &Value, sentence: impl std::fmt::Display) -> Result<(), Failure> {
        match self {
            Output::Json => line(value),
            Output::Table => line(sentence),
        }
    }
}

/// A value in a cell: text without quotes, `-` for nothing.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A moment as UTC text; `-` for none.
pub fn moment(epoch_ms: &Value) -> String {
    let Some(ms) = epoch_ms.as_i64() else { return "-".to_owned() };
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant's algorithm).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * month_from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(&Value::from(0)), "1970-01-01 00:00:00");
        assert_eq!(moment(&Value::from(951_782_400_000_i64)), "2000-02-29 00:00:00");
        assert_eq!(moment(&Value::from(1_795_211_999_999_i64)), "2026-11-20 21:59:59");
        assert_eq!(moment(&Value::Null), "-");
    }
}
