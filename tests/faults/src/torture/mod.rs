//! Dataflow graphs made by chance from all operators whose results do not depend on the order in which records come, so that
//! a job that was killed, cut off and started again with other parallelisms must publish exactly what the naive reference
//! computes in one thread.
//!
//! | module | holds |
//! |---|---|
//! | `graph` | what a seed stands for: sources, steps, sinks |
//! | `reference` | what the graph must come to, computed step by step over whole lists |
//! | `job` | the same graph on the DataStream API |
//! | `functions` | the user functions of that job |
//! | `kafka` | topics as what it reads and publishes into |

pub mod functions;
pub mod graph;
pub mod job;
pub mod kafka;
pub mod reference;

/// Chance that can be repeated (SplitMix64).
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// From 0 up to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % end.max(1)
    }

    /// From `first` to `last`.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }
}

/// A number that looks like chance, made of a number.
pub fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
