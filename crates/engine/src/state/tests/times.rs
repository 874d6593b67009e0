//! A table whose keys have times, as windows have it, against a plain map: random changes while times come and go, between the
//! steps of checkpoints.

use std::collections::BTreeMap;

use super::*;
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};
use crate::state::disk::tests::{Kept, scratch};
use crate::state::table::tests::Random;
use crate::state::{Section, StateHome};

type Values = DiskTable<AtTime<u32>, Vec<u8>>;
type Reference = BTreeMap<(i64, u32), Vec<u8>>;

fn table(home: &StateHome) -> Values {
    home.timed_table("values", (0, 1)).unwrap().unwrap()
}

fn change(random: &mut Random, from_ms: i64, table: &mut Values, reference: &mut Reference) {
    let (time_ms, key) = (from_ms + 10 * random.below(5) as i64, random.below(200) as u32);
    let made = vec![random.below(256) as u8; random.below(60) as usize];
    let held = table.get_or_insert_with(&AtTime(key, time_ms), || made.clone()).unwrap();
    held.push(1);
    let expected = reference.entry((time_ms, key)).or_insert(made);
    expected.push(1);
    assert_eq!(held, expected);
}

/// The entries of a time, read in parts or at once.
fn at(table: &mut Values, time_ms: i64) -> Reference {
    let mut content = Reference::new();
    for groups in table.parts() {
        let each = |key, value| {
            assert!(content.insert((time_ms, key), value).is_none(), "each key once");
            Ok(())
        };
        table.for_each_at(time_ms, groups, each).unwrap();
    }
    let mut whole = 0;
    let count = |_, _| {
        whole += 1;
        Ok(())
    };
    table.for_each_at(time_ms, table.own(), count).unwrap();
    assert_eq!(whole, content.len());
    content
}

fn of(reference: &Reference, time_ms: i64) -> Reference {
    reference.range((time_ms, 0)..=(time_ms, u32::MAX)).map(|(key, value)| (*key, value.clone())).collect()
}

fn load(home: &StateHome, sections: Vec<Section>, from_ms: i64) -> (Values, Reference) {
    let (mut table, mut reference) = (table(home), Reference::new());
    for section in sections.into_iter().map(|section| section.into_restored(0)) {
        table.load(&section, |key| key.1 >= from_ms).unwrap();
    }
    let each = |key: &AtTime<u32>, value: &Vec<u8>| {
        reference.insert((key.1, key.0), value.clone());
        Ok(())
    };
    table.for_each_loaded(each).unwrap();
    (table, reference)
}

#[test]
fn what_belongs_to_a_time_is_read_and_goes_as_a_whole_through_checkpoints() {
    let folder = scratch();
    let home = StateHome::tiny(folder.path().join("scratch")).unwrap();
    let (mut deltas, mut bases) = (0, 0);
    for seed in 1..=4 {
        let mut random = Random(seed);
        let (mut table, mut reference, mut chains, mut from_ms) =
            (table(&home), Reference::new(), Kept::default(), -20);
        for round in 0..40 {
            let what = format!("seed {seed}, round {round}");
            (0..random.below(300)).for_each(|_| change(&mut random, from_ms, &mut table, &mut reference));
            let times = |reference: &Reference| {
                let mut times: Vec<i64> = reference.keys().map(|key| key.0).collect();
                times.dedup();
                times
            };
            table.keep_times(times(&reference), from_ms);
            let mode = match random.below(8) {
                0 => SnapshotMode::Detached,
                1 => SnapshotMode::Checkpoint { fresh: true },
                _ => SnapshotMode::Checkpoint { fresh: false },
            };
            let (moment, moment_ms) = (reference.clone(), from_ms);
            let mut parts = SnapshotParts::new(mode);
            table.begin_snapshot(&mut parts).unwrap();
            let mut deferred = Vec::new();
            loop {
                let mut run = CopyRun::new(1 + random.below(20_000) as usize);
                let done = table.copy_some(&mut run).unwrap();
                deferred.append(&mut run.deferred);
                (0..random.below(20)).for_each(|_| change(&mut random, from_ms, &mut table, &mut reference));
                if random.below(20) == 0 {
                    // A window ends: its time is read, perhaps for the last time, and is over.
                    assert_eq!(at(&mut table, from_ms), of(&reference, from_ms), "{what}");
                    let expected = of(&reference, from_ms);
                    if random.below(2) == 0 {
                        let mut taken = Reference::new();
                        let take = |key, value| {
                            taken.insert((from_ms, key), value);
                            Ok(())
                        };
                        table.take_at(from_ms, take).unwrap();
                        assert_eq!(taken, expected, "{what}");
                    }
                    from_ms += 10;
                    reference.retain(|key, _| key.0 >= from_ms);
                    table.keep_times(times(&reference), from_ms);
                }
                if done {
                    break;
                }
            }
            for copy in deferred {
                let mut give = |section| {
                    parts.sections.push(section);
                    Ok(())
                };
                copy(&mut give).unwrap();
            }
            for part in parts.sections.iter().filter_map(|section| section.chain.as_ref()) {
                *(if part.begins { &mut bases } else { &mut deltas }) += 1;
            }
            let sections = match mode {
                SnapshotMode::Detached => parts.sections,
                _ => chains.keep(parts.sections, &parts.roster),
            };
            if random.below(3) == 0 {
                let (loaded, content) = load(&home, sections, moment_ms);
                assert_eq!(content, moment, "{what}");
                if random.below(2) == 0 {
                    (table, reference, from_ms, chains) = (loaded, moment, moment_ms, Kept::default());
                }
            }
            for time_ms in times(&reference) {
                assert_eq!(at(&mut table, time_ms), of(&reference, time_ms), "{what}, time {time_ms}");
            }
        }
    }
    assert!(deltas > 20 && bases > 20, "{deltas} deltas, {bases} bases");
}
