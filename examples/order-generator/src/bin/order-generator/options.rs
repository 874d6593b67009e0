//! The command line of `order-generator`, and what follows from it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use order_generator::time::{EARLIEST_MS, LATEST_MS, parse_local};
use order_generator::{Fraction, GeneratorConfig};
use tidemill_core::{Error, Result};

/// Sends the events of a shop's orders, paced as a shop would, into a topic or to standard output.
///
/// The same seed, start and options give the same bytes.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// The data folder; the topic stands in `<data>/topics`.
    #[arg(long, env = "TIDEMILL_DATA", required_unless_present = "stdout", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The topic; it is created when it is not there.
    #[arg(long, default_value = "orders")]
    pub topic: String,
    /// The partitions of a topic created now. Events of one order go to one partition.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,
    /// Write to standard output instead, one event a line.
    #[arg(long)]
    pub stdout: bool,
    /// Events per second at the peak of the day.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: u32,
    /// Seconds of event time per real second: 60 lets a day pass in 24 minutes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub speed: u32,
    /// Whether the rate follows the hour of the day, or is always the peak.
    #[arg(long, value_enum, default_value_t = Curve::On)]
    pub curve: Curve,
    /// First write the orders of the hours before at once, so that there is a history.
    #[arg(long, default_value_t = 0, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(0..=8_784))]
    pub backfill: u32,
    /// Stop after so many events.
    #[arg(long)]
    pub count: Option<u64>,
    /// Do not pace: write as fast as possible. Needs --count, for nothing else would end it.
    #[arg(long, requires = "count")]
    pub unpaced: bool,
    /// Event time at which the live events begin: `yyyy-MM-dd HH:mm:ss` at UTC+8, or epoch ms; default: now.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The number of customers.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub users: u32,
    /// The share of events that come again word for word, for example 0.002.
    #[arg(long, default_value = "0.002", value_name = "FRACTION")]
    pub duplicates: Fraction,
    /// The share of events that arrive up to 3 s after their time.
    #[arg(long, default_value = "0.05", value_name = "FRACTION")]
    pub out_of_order: Fraction,
    /// The share of events that arrive minutes after their time.
    #[arg(long, default_value = "0.0005", value_name = "FRACTION")]
    pub late: Fraction,
    /// The share of events that cannot be read: broken JSON, wrong types, missing fields, absurd times, half lines.
    #[arg(long, default_value = "0", value_name = "FRACTION")]
    pub bad: Fraction,
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Curve {
    /// Night, morning, day, evening.
    On,
    /// Always the peak.
    Off,
}

impl Options {
    /// Whether events wait for their time.
    pub fn paced(&self) -> bool {
        !self.unpaced
    }

    /// The event time at which live events begin.
    pub fn live_start_ms(&self, now_ms: i64) -> Result<i64> {
        let start_ms = match &self.start {
            None => now_ms,
            Some(text) => parse_local(text).or_else(|| text.parse().ok()).ok_or_else(|| {
                Error::input(format!("--start `{text}` is no time"))
                    .hint("write `yyyy-MM-dd HH:mm:ss` (UTC+8) or milliseconds since 1970")
            })?,
        };
        if !(EARLIEST_MS..LATEST_MS).contains(&(start_ms - self.backfill_ms())) || start_ms >= LATEST_MS {
            return Err(Error::input(format!("a start at {start_ms} ms leaves the years 2000 to 2099")));
        }
        Ok(start_ms)
    }

    fn backfill_ms(&self) -> i64 {
        i64::from(self.backfill) * 3_600_000
    }

    /// What the generator is told when live events begin at `live_start_ms`.
    pub fn generator_config(&self, live_start_ms: i64) -> GeneratorConfig {
        GeneratorConfig {
            seed: self.seed,
            start_ms: live_start_ms - self.backfill_ms(),
            rate: self.rate,
            speed: self.speed,
            curve: self.curve == Curve::On,
            users: self.users,
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
            late: self.late,
            bad: self.bad,
        }
    }
}
