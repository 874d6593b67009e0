//! Chance that can be repeated.

use std::time::{Duration, Instant};

/// A small generator of even numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// From 0 up to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A moment to kill at: every third time while the process is starting, else while it works.
    pub fn moment(&mut self) -> Duration {
        let within = if self.below(3) == 0 { 40 } else { 400 };
        Duration::from_millis(self.below(within))
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

/// The seeds of a kill test: `usual` of them from the first on, or what the environment asks for.
pub fn seeds(test: &'static str, usual: u64) -> impl Iterator<Item = u64> {
    let minutes = number("TIDEMILL_SOAK_MINUTES");
    let count = number("TIDEMILL_SOAK_SEEDS").unwrap_or(if minutes.is_some() { u64::MAX } else { usual });
    let first = number("TIDEMILL_SOAK_FIRST").unwrap_or(1);
    let (first, count) = number("TIDEMILL_SEED").map_or((first, count), |seed| (seed, 1));
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    (first..first.saturating_add(count))
        .take_while(move |_| end.is_none_or(|end| Instant::now() < end))
        .inspect(move |seed| eprintln!("{test}: seed {seed}"))
}
