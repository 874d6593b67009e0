//! What the generator is told: seed, time, pace and how much of each fault.

use crate::random::Fraction;

/// Everything that decides the generator's output; equal configurations give equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratorConfig {
    /// Where chance begins.
    pub seed: u64,
    /// Event time of the first order, epoch ms.
    pub start_ms: i64,
    /// Events per real second at the peak of the day curve; at least 1.
    pub rate: u32,
    /// Seconds of event time per real second; at least 1. With 60 a day passes in 24 minutes, at the same events per
    /// real second, so with a sixtieth of the orders.
    pub speed: u32,
    /// Whether the rate follows the hour of the day; otherwise it is always the peak.
    pub curve: bool,
    /// How many customers there are.
    pub users: u32,
    /// The share of events that come a second time word for word, up to 5 s later.
    pub duplicates: Fraction,
    /// The share of events that arrive up to 3 s after their event time, overtaken by others.
    pub out_of_order: Fraction,
    /// The share of events that arrive 65 s to 10 min after their event time: after their minute was closed.
    pub late: Fraction,
    /// Bad events, as a share of all. They come between the good ones, so no order is lost by them.
    pub bad: Fraction,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        GeneratorConfig {
            seed: 1,
            // 2026-11-20 08:00:00 at UTC+8.
            start_ms: 1_795_132_800_000,
            rate: 50,
            speed: 1,
            curve: true,
            users: 20_000,
            duplicates: Fraction::per_million(2_000),
            out_of_order: Fraction::per_million(50_000),
            late: Fraction::per_million(500),
            bad: Fraction::NONE,
        }
    }
}
