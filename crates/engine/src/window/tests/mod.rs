//! Window operators by hand: no workers, every step chosen. The model test compares all kinds, triggers and evictors with a
//! naive reference; the others show one thing each.

mod erased;
mod model;
mod reference;
mod subtasks;

use serde::{Deserialize, Serialize};

use super::*;

/// A record of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Event {
    /// Its place in the order of arrival.
    id: u32,
    key: u32,
    time_ms: i64,
    value: i64,
}

/// A result: key, window, ids of the records in it, its event time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Fired {
    key: u32,
    window: (i64, i64),
    ids: Vec<u32>,
}

/// xorshift64*: enough chance for a test, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}
