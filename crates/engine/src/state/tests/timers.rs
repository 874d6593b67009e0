//! Timers on disk, with memory for a handful, against an ordered set: random ones set, taken back and fired between the
//! steps of checkpoints, restored to either kind.

use std::collections::BTreeSet;

use super::*;
use crate::key::KEY_GROUPS;
use crate::operator::SnapshotMode;
use crate::state::disk::tests::{Kept as Chains, scratch};
use crate::state::table::tests::Random;
use crate::state::{Section, StateHome};

type Reference = BTreeSet<(i64, u32)>;

fn timers(home: &StateHome) -> Timers<u32> {
    match home.timers("timers", (0, 1)) {
        Some(timers) => Timers::kept("timers", Kept::Disk(Box::new(timers))),
        None => Timers::new("timers"),
    }
}

fn change(random: &mut Random, spread: u64, timers: &mut Timers<u32>, reference: &mut Reference) {
    let (time_ms, key) = (random.below(spread) as i64 - 20, random.below(6) as u32);
    match random.below(6) {
        0..=2 => {
            timers.register(time_ms, &key);
            reference.insert((time_ms, key));
        }
        3 => {
            timers.delete(time_ms, &key);
            reference.remove(&(time_ms, key));
        }
        _ => {
            let due_ms = timers.next().map_or(0, |next_ms| next_ms + random.below(4) as i64 - 1);
            let mut last_ms = i64::MIN;
            // All that are due, as operators do.
            while let Some((time_ms, key)) = timers.pop_due(due_ms).unwrap() {
                assert!(last_ms <= time_ms && reference.remove(&(time_ms, key)), "{time_ms} {key}");
                last_ms = time_ms;
            }
            assert!(reference.first().is_none_or(|first| first.0 > due_ms));
        }
    }
    assert_eq!(timers.next(), reference.first().map(|first| first.0));
}

fn fired(mut timers: Timers<u32>) -> Vec<(i64, u32)> {
    std::iter::from_fn(|| timers.pop_due(i64::MAX).unwrap()).collect()
}

fn load(timers: &mut Timers<u32>, sections: Vec<Section>) {
    let sections = sections.into_iter().map(|section| section.into_restored(0)).collect();
    let mut restored = Restored { uid: "test".into(), subtask: 0, parallelism: 1, sections, ..Restored::default() };
    timers.restore(&mut restored).unwrap();
    restored.finish().unwrap();
}

#[test]
fn timers_on_disk_fire_as_a_set_in_order_through_checkpoints_and_changes_of_the_backend() {
    assert_eq!(KEY_GROUPS, 1 << 15);
    let folder = scratch();
    let disk = StateHome::tiny(folder.path().join("scratch")).unwrap();
    let (mut deltas, mut bases) = (0, 0);
    for seed in 1..=60 {
        let mut random = Random(seed);
        let spread = [30, 200, 5_000][random.below(3) as usize];
        let (mut timers, mut reference, mut chains) = (timers(&disk), Reference::new(), Chains::default());
        for round in 0..25 {
            (0..random.below(80)).for_each(|_| change(&mut random, spread, &mut timers, &mut reference));
            let mode = match random.below(6) {
                0 => SnapshotMode::Detached,
                1 => SnapshotMode::Checkpoint { fresh: true },
                _ => SnapshotMode::Checkpoint { fresh: false },
            };
            let moment = reference.clone();
            let (mut parts, mut run) = (SnapshotParts::new(mode), CopyRun::whole());
            timers.begin_snapshot(&mut parts).unwrap();
            (0..random.below(20)).for_each(|_| change(&mut random, spread, &mut timers, &mut reference));
            assert!(timers.copy_some(&mut run).unwrap());
            (0..random.below(20)).for_each(|_| change(&mut random, spread, &mut timers, &mut reference));
            parts.sections.append(&mut run.sections);
            for deferred in run.deferred {
                deferred(&mut |section| {
                    parts.sections.push(section);
                    Ok(())
                })
                .unwrap();
            }
            for part in parts.sections.iter().filter_map(|section| section.chain.as_ref()) {
                *(if part.begins { &mut bases } else { &mut deltas }) += 1;
            }
            let sections = match mode {
                SnapshotMode::Detached => parts.sections,
                _ => chains.keep(parts.sections, &parts.roster),
            };
            if random.below(4) == 0 {
                // A crash: what was changed since the moment is gone, and the other backend may go on.
                (reference, chains) = (moment, Chains::default());
                timers = self::timers(&if random.below(2) == 0 { StateHome::default() } else { disk.clone() });
                load(&mut timers, sections);
                assert_eq!(timers.next(), reference.first().map(|first| first.0), "seed {seed}, round {round}");
            }
        }
        let fired = fired(timers);
        assert!(fired.is_sorted_by_key(|timer| timer.0), "seed {seed}");
        assert_eq!(fired.into_iter().collect::<Reference>(), reference, "seed {seed}");
    }
    assert!(deltas > 100 && bases > 100, "{deltas} deltas, {bases} bases");
}
