//! The table against a plain map: random changes between the steps of copies, chains of checkpoints replayed as the
//! checkpoint writer keeps them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::state::Section;
use crate::state::buffers::SECTION_BYTES;

/// A small generator of numbers, so that a failure can be repeated from its seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the checkpoint writer does with sections: chains by unit, and what stands for itself.
#[derive(Default)]
struct Kept {
    chains: BTreeMap<u16, Vec<Section>>,
}

impl Kept {
    fn keep(&mut self, sections: Vec<Section>, roster: &[String]) -> Vec<Section> {
        let mut own = Vec::new();
        for section in sections {
            match &section.chain {
                Some(part) => {
                    let chain = self.chains.entry(part.unit).or_default();
                    if part.begins {
                        chain.clear();
                    }
                    chain.push(section);
                }
                None => own.push(section),
            }
        }
        if roster.is_empty() {
            self.chains.clear();
        }
        own.extend(self.chains.values().flatten().cloned());
        own
    }
}

fn restored(sections: Vec<Section>) -> Table<u32, u64> {
    let sections: Vec<_> = sections.into_iter().map(|section| section.into_restored(0)).collect();
    let mut table = Table::default();
    table.load(&sections, |_| true).unwrap();
    table
}

fn content(table: &Table<u32, u64>) -> BTreeMap<u32, u64> {
    let content: BTreeMap<u32, u64> = table.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(content.len(), table.len());
    content
}

/// One random change to the table and to the reference.
fn change(random: &mut Random, keys: u64, table: &mut Table<u32, u64>, reference: &mut BTreeMap<u32, u64>) {
    let (key, value) = (random.below(keys) as u32, random.below(1 << 30));
    match random.below(6) {
        0 => assert_eq!(table.insert(key, value), reference.insert(key, value)),
        1 => assert_eq!(table.remove(&key), reference.remove(&key)),
        2 => {
            *table.get_or_insert_with(&key, || 7) += value;
            *reference.entry(key).or_insert(7) += value;
        }
        3 => {
            *table.get_or_insert_owned(key, || 9) += value;
            *reference.entry(key).or_insert(9) += value;
        }
        4 => {
            let (held, expected) = (table.get_mut(&key), reference.get_mut(&key));
            assert_eq!(held, expected);
            if let (Some(held), Some(expected)) = (held, expected) {
                (*held, *expected) = (value, value);
            }
        }
        _ => assert_eq!(table.get(&key), reference.get(&key)),
    }
}

fn one_run(seed: u64) {
    let mut random = Random(seed);
    let keys = [600, 3_000, 20_000, 150_000][random.below(4) as usize];
    let (mut table, mut reference) = (Table::default(), BTreeMap::new());
    let mut kept = Kept::default();
    let (mut deltas, mut fresh) = (0, true);
    for _ in 0..keys / 2 {
        change(&mut random, keys, &mut table, &mut reference);
    }
    for round in 0..12 {
        let mode = match random.below(5) {
            0 => SnapshotMode::Detached,
            _ => SnapshotMode::Checkpoint { fresh: fresh || random.below(8) == 0 },
        };
        let moment = reference.clone();
        let mut parts = SnapshotParts::new(mode);
        table.begin_snapshot("state", &mut parts).unwrap();
        let mut sections = parts.sections;
        loop {
            let mut run = CopyRun::new(1 + random.below(40_000) as usize);
            let done = table.copy_some(&mut run).unwrap();
            sections.append(&mut run.sections);
            if done {
                break;
            }
            (0..random.below(300)).for_each(|_| change(&mut random, keys, &mut table, &mut reference));
        }
        let saved = match mode {
            SnapshotMode::Checkpoint { .. } => {
                fresh = false;
                let begun: BTreeSet<u16> = sections
                    .iter()
                    .filter_map(|s| s.chain.as_ref())
                    .filter(|part| part.begins)
                    .map(|p| p.unit)
                    .collect();
                deltas += usize::from(begun.is_empty());
                kept.keep(sections, &parts.roster)
            }
            _ => {
                assert!(sections.iter().all(|section| section.chain.is_none() && !section.removal));
                sections
            }
        };
        assert_eq!(content(&restored(saved)), moment, "seed {seed} round {round} mode {mode:?}");
        assert_eq!(content(&table), reference, "seed {seed} round {round}");
        (0..random.below(keys / 4)).for_each(|_| change(&mut random, keys, &mut table, &mut reference));
    }
    assert!(keys < 20_000 || deltas > 0, "seed {seed}: no checkpoint wrote only what had changed");
}

#[test]
fn copies_are_of_their_moment_and_chains_replay_to_it() {
    for seed in 0..15 {
        one_run(seed);
    }
}

#[test]
fn what_was_seen_of_keys_finds_them_also_when_the_table_has_changed_since() {
    for keys in [600, 3_000, 20_000] {
        let mut random = Random(keys);
        let (mut table, mut reference, mut ahead) = (Table::default(), BTreeMap::new(), Ahead::default());
        for _ in 0..keys / 5 {
            let several: Vec<u32> = (0..40).map(|_| random.below(keys) as u32).collect();
            table.look_ahead::<u32, _>(&mut ahead, several.iter());
            for key in several {
                if random.below(3) == 0 {
                    assert_eq!(table.remove(&key), reference.remove(&key));
                }
                change(&mut random, keys, &mut table, &mut reference);
                let value = random.below(100);
                *table.get_or_insert_seen::<u32, _>(&mut ahead, key, |key| key, || 3) += value;
                *reference.entry(key).or_insert(3) += value;
            }
        }
        assert_eq!(content(&table), reference);
    }
}

#[test]
fn a_drained_or_cleared_table_is_a_new_one_with_its_memory() {
    for keys in [10, 3_000, 50_000] {
        let mut random = Random(keys);
        let (mut table, mut reference) = (Table::default(), BTreeMap::new());
        for _ in 0..6 {
            (0..keys).for_each(|_| change(&mut random, keys, &mut table, &mut reference));
            let mut parts = SnapshotParts::new(SnapshotMode::Checkpoint { fresh: false });
            table.begin_snapshot("one", &mut parts).unwrap();
            let mut run = CopyRun::whole();
            assert!(table.copy_some(&mut run).unwrap());
            parts.sections.append(&mut run.sections);
            assert_eq!(content(&restored(parts.sections)), reference, "all of it, since it begins anew");
            let (was_large, entries) = (table.is_large(), table.len());
            let held = std::mem::take(&mut reference);
            if random.below(2) == 0 {
                assert_eq!(table.drain().collect::<BTreeMap<_, _>>(), held);
            } else {
                table.clear();
            }
            assert!(table.is_empty() && table.is_large() == was_large);
            assert!(keys < 3_000 || !table.is_wide_for(entries));
        }
        assert!(keys < 3_000 || table.is_wide_for(1));
    }
}

#[test]
fn a_delta_holds_what_changed_and_nothing_else() {
    let mut table: Table<u32, u64> = (0..100_000).map(|key| (key, 0)).collect();
    let checkpoint = |table: &mut Table<u32, u64>| {
        let mut parts = SnapshotParts::new(SnapshotMode::Checkpoint { fresh: false });
        table.begin_snapshot("state", &mut parts).unwrap();
        let mut run = CopyRun::whole();
        assert!(table.copy_some(&mut run).unwrap());
        let entries = |removal| -> u64 {
            run.sections.iter().filter(|section| section.removal == removal).map(|section| section.entries).sum()
        };
        (entries(false), entries(true))
    };
    assert_eq!(checkpoint(&mut table), (100_000, 0));
    assert_eq!(checkpoint(&mut table), (0, 0));
    (0..10).for_each(|key| *table.get_mut(&key).unwrap() += 1);
    (10..15).for_each(|key| assert!(table.remove(&key).is_some()));
    assert_eq!(checkpoint(&mut table), (10, 5));
    assert_eq!(checkpoint(&mut table), (0, 0));
}

#[test]
fn bases_are_written_anew_one_unit_at_a_time() {
    let mut table: Table<u32, u64> = (0..200_000).map(|key| (key, 0)).collect();
    let mut bytes_max = 0;
    let mut random = Random(1);
    for round in 0..60 {
        let mut parts = SnapshotParts::new(SnapshotMode::Checkpoint { fresh: false });
        table.begin_snapshot("state", &mut parts).unwrap();
        let mut run = CopyRun::whole();
        assert!(table.copy_some(&mut run).unwrap());
        let begun =
            run.sections.iter().filter(|section| section.chain.as_ref().is_some_and(|part| part.begins)).count();
        assert!(round == 0 || begun <= 1, "round {round}: {begun} units");
        if round > 0 {
            bytes_max = bytes_max.max(run.sections.iter().map(|section| section.bytes.len()).sum());
        }
        for _ in 0..4_000 {
            *table.get_mut(&(random.below(200_000) as u32)).unwrap() += 1;
        }
    }
    // All of it takes about 900 kB; a unit an eighth of that.
    assert!(bytes_max < 250_000, "{bytes_max}");
}

/// Each look at it takes 100 µs.
struct Ticking(std::sync::atomic::AtomicI64);

impl tidemill_core::Clock for Ticking {
    fn now_ms(&self) -> i64 {
        0
    }

    fn steady_us(&self) -> i64 {
        self.0.fetch_add(100, std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_step_ends_with_its_time_and_the_next_goes_on() {
    let reference: BTreeMap<u32, u64> = (0..100_000).map(|key| (key, u64::from(key) * 3)).collect();
    let mut table: Table<u32, u64> = reference.clone().into_iter().collect();
    let mut parts = SnapshotParts::new(SnapshotMode::Detached);
    table.begin_snapshot("state", &mut parts).unwrap();
    let clock: tidemill_core::SharedClock = std::sync::Arc::new(Ticking(0.into()));
    let (mut sections, mut steps) = (Vec::new(), 0);
    loop {
        let until_us = clock.steady_us() + 1_000;
        let mut run = CopyRun::new(usize::MAX).until(clock.clone(), until_us);
        let done = table.copy_some(&mut run).unwrap();
        sections.append(&mut run.sections);
        steps += 1;
        if done {
            break;
        }
        assert!((until_us..until_us + 300).contains(&clock.steady_us()));
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(content(&restored(sections)), reference);
}

#[test]
fn what_is_captured_leaves_with_the_next_step_in_sections_of_one_size() {
    const VALUE_BYTES: usize = 10_000;
    let mut table: Table<u32, Vec<u8>> = (0..4_000).map(|key| (key, vec![1; VALUE_BYTES])).collect();
    let mut parts = SnapshotParts::new(SnapshotMode::Checkpoint { fresh: false });
    table.begin_snapshot("state", &mut parts).unwrap();
    (0..4_000).for_each(|key| table.get_mut(&key).unwrap()[0] = 2);
    let mut run = CopyRun::new(1);
    assert!(!table.copy_some(&mut run).unwrap(), "a step of a byte");
    let left: usize = run.sections.iter().map(|section| section.bytes.len()).sum();
    assert!(left > 4_000 * VALUE_BYTES * 3 / 4, "{left} bytes");
    let fits = |section: &Section| (SECTION_BYTES..SECTION_BYTES + 2 * VALUE_BYTES).contains(&section.bytes.len());
    assert!(run.sections.iter().all(fits));
    let begun: BTreeSet<u16> = run.sections.iter().map(|section| section.chain.as_ref().unwrap().unit).collect();
    let begins = run.sections.iter().filter(|section| section.chain.as_ref().unwrap().begins).count();
    assert_eq!(begins, begun.len(), "a base begins once");
}

#[test]
fn when_most_has_changed_a_base_takes_the_place_of_all_before() {
    let mut table: Table<u32, u64> = (0..100_000).map(|key| (key, 0)).collect();
    let mut checkpoint = |changed: u32| {
        (0..changed).for_each(|key| *table.get_mut(&key).unwrap() += 1);
        let mut parts = SnapshotParts::new(SnapshotMode::Checkpoint { fresh: false });
        table.begin_snapshot("state", &mut parts).unwrap();
        let mut run = CopyRun::whole();
        assert!(table.copy_some(&mut run).unwrap());
        let begun = run.sections.iter().filter(|section| section.chain.as_ref().is_some_and(|part| part.begins));
        (begun.count(), run.sections.iter().map(|section| section.entries).sum::<u64>())
    };
    assert_eq!(checkpoint(0), (8, 100_000));
    assert_eq!(checkpoint(20_000), (0, 20_000));
    assert_eq!(checkpoint(80_000), (8, 100_000));
}
