//! How many slots a job takes: known to the job alone, which knows its operators, and asked by whoever finds room for it.

use serde::{Deserialize, Serialize};

/// What a job's slot sharing groups want. Subtasks of operators of one group share slots, those of different groups never
/// do, so a job takes as many slots as the largest parallelisms of its groups add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotDemand {
    /// One entry a group.
    pub groups: Vec<GroupDemand>,
}

/// What one slot sharing group wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDemand {
    /// The largest parallelism that operators of the group say; 0 when none does.
    pub fixed: usize,
    /// The others have the parallelism of the job, up to this; 0 when there are no others.
    pub follows_to: usize,
}

impl GroupDemand {
    fn slots(&self, parallelism: usize) -> usize {
        self.fixed.max(parallelism.min(self.follows_to))
    }
}

impl Default for SlotDemand {
    /// One group that follows the job's parallelism: what a job wants of which nothing is known.
    fn default() -> Self {
        SlotDemand { groups: vec![GroupDemand { fixed: 0, follows_to: usize::MAX }] }
    }
}

impl SlotDemand {
    /// The file in a job's folder where its first process writes this when it starts.
    pub const FILE: &'static str = "slots.json";

    /// The slots a job takes whose operators have `parallelism` where they say nothing.
    pub fn slots(&self, parallelism: usize) -> usize {
        self.groups.iter().fold(0, |all, group| all.saturating_add(group.slots(parallelism)))
    }

    /// The largest parallelism up to `most` with which the job takes no more than `slots`; `None` when it takes more even
    /// with 1.
    pub fn parallelism_within(&self, slots: usize, most: usize) -> Option<usize> {
        // The slots grow with the parallelism: the first too many is found by halving.
        let (mut fits, mut too_many) = (0, most.saturating_add(1));
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            match self.slots(middle) <= slots {
                true => fits = middle,
                false => too_many = middle,
            }
        }
        (fits > 0).then_some(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_add_up_and_what_fits_is_found() {
        let group = |fixed, follows_to| GroupDemand { fixed, follows_to };
        let check = |groups: &[GroupDemand], parallelism, slots| {
            assert_eq!(SlotDemand { groups: groups.to_vec() }.slots(parallelism), slots, "{groups:?}");
        };
        check(&[group(0, usize::MAX)], 4, 4);
        check(&[group(0, usize::MAX), group(0, usize::MAX)], 4, 8);
        check(&[group(6, usize::MAX), group(0, 1)], 4, 7);
        check(&[group(3, 0), group(0, usize::MAX)], 4, 7);
        for groups in [vec![group(0, usize::MAX)], vec![group(3, 2), group(0, 5)], vec![group(0, 9), group(0, 4)]] {
            let demand = SlotDemand { groups };
            for (slots, most) in (0..30).flat_map(|slots| (1..12).map(move |most| (slots, most))) {
                let tried = (1..=most).rev().find(|parallelism| demand.slots(*parallelism) <= slots);
                assert_eq!(demand.parallelism_within(slots, most), tried, "{demand:?} {slots} {most}");
            }
        }
        assert_eq!(SlotDemand::default().parallelism_within(7, usize::MAX), Some(7));
    }
}
