//! The timely timestamp of a job: an epoch (which checkpoint a batch belongs to) and a watermark, ordered component by
//! component, so that one progress protocol carries both.

use serde::{Deserialize, Serialize};
use timely::order::PartialOrder;
use timely::progress::frontier::MutableAntichain;
use timely::progress::timestamp::{PathSummary, Refines, Timestamp};

/// `(epoch, watermark)`. The watermark is stored shifted so that 0 stands for `i64::MIN`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ts {
    /// Counts checkpoints over the whole life of a job.
    pub epoch: u64,
    shifted_watermark: u64,
}

impl Ts {
    /// A timestamp from an epoch and a watermark in epoch milliseconds.
    pub fn new(epoch: u64, watermark: i64) -> Self {
        Ts { epoch, shifted_watermark: (watermark as u64) ^ (1 << 63) }
    }

    /// The watermark in epoch milliseconds.
    pub fn watermark(&self) -> i64 {
        (self.shifted_watermark ^ (1 << 63)) as i64
    }
}

/// The component-wise minimum of a frontier; `None` when nothing can arrive any more.
pub fn meet(frontier: &MutableAntichain<Ts>) -> Option<Ts> {
    frontier.frontier().iter().copied().reduce(|a, b| Ts {
        epoch: a.epoch.min(b.epoch),
        shifted_watermark: a.shifted_watermark.min(b.shifted_watermark),
    })
}

impl PartialOrder for Ts {
    fn less_equal(&self, other: &Self) -> bool {
        self.epoch <= other.epoch && self.shifted_watermark <= other.shifted_watermark
    }
}

/// The only way through an operator: time does not change. Jobs have no loops in time.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unchanged;

impl PartialOrder for Unchanged {
    fn less_equal(&self, _other: &Self) -> bool {
        true
    }
}

impl PathSummary<Ts> for Unchanged {
    fn results_in(&self, time: &Ts) -> Option<Ts> {
        Some(*time)
    }

    fn followed_by(&self, _other: &Self) -> Option<Self> {
        Some(Unchanged)
    }
}

impl Timestamp for Ts {
    type Summary = Unchanged;

    fn minimum() -> Self {
        Ts::default()
    }
}

impl Refines<()> for Ts {
    fn to_inner(_other: ()) -> Self {
        Ts::default()
    }

    fn to_outer(self) {}

    fn summarize(_path: Unchanged) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_keep_their_order() {
        let times = [i64::MIN, -5, 0, 7, i64::MAX];
        for pair in times.windows(2) {
            assert!(Ts::new(3, pair[0]).less_equal(&Ts::new(3, pair[1])));
            assert!(!Ts::new(3, pair[1]).less_equal(&Ts::new(4, pair[0])));
            assert_eq!(Ts::new(1, pair[0]).watermark(), pair[0]);
        }
        assert_eq!(Ts::minimum(), Ts::new(0, i64::MIN));
    }
}
