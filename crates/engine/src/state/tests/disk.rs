//! The table on disk against a plain map: state ten times its cache, random changes between the steps of copies, chains of
//! checkpoints as the checkpoint writer keeps them, restored to either backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::ManualClock;

use super::*;
use crate::key::KEY_GROUPS;
use crate::operator::{CopyRun, SnapshotMode, SnapshotParts};
use crate::state::backend::{StateHome, StateTable};
use crate::state::table::tests::Random;
use crate::state::{RestoredSection, Section};

type Value = Vec<u8>;
type Reference = BTreeMap<u32, Value>;

/// Of a value; so that the state is ten times the cache.
const VALUE_BYTES: usize = 250;
const KEYS: u64 = 25_000;
const MEMORY: usize = STATE_MEMORY_MIN_BYTES;
const ALL: (usize, GroupRange) = (0, (0, KEY_GROUPS - 1));

fn value(random: &mut Random) -> Value {
    let mut value = vec![0; VALUE_BYTES / 2 + random.below(VALUE_BYTES as u64) as usize];
    value[..4].copy_from_slice(&(random.below(1 << 31) as u32).to_le_bytes());
    value
}

/// In memory where the system has such a folder: a small cache writes many small files, each of them synced.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn home(folder: &tempfile::TempDir) -> StateHome {
    StateHome::on_disk(folder.path().join("scratch"), MEMORY).unwrap()
}

fn table(home: &StateHome) -> StateTable<u32, Value> {
    home.table("t", ALL, None, || None).unwrap()
}

/// One random change to the table and to the reference.
fn change(random: &mut Random, keys: u64, table: &mut StateTable<u32, Value>, reference: &mut Reference) {
    let key = random.below(keys) as u32;
    match random.below(8) {
        0 => {
            let value = value(random);
            table.set(&key, value.clone()).unwrap();
            reference.insert(key, value);
        }
        1 => {
            let value = value(random);
            assert_eq!(table.insert(&key, value.clone()).unwrap(), reference.insert(key, value));
        }
        2 => assert_eq!(table.remove(&key).unwrap(), reference.remove(&key)),
        3 => {
            // There for a moment only.
            let key = KEYS as u32 + key;
            table.set(&key, vec![1]).unwrap();
            assert_eq!(table.remove(&key).unwrap(), Some(vec![1]));
        }
        4 => {
            let (held, expected) = (table.get_mut(&key).unwrap(), reference.get_mut(&key));
            assert_eq!(held, expected);
            if let (Some(held), Some(expected)) = (held, expected) {
                held[0] = held[0].wrapping_add(1);
                expected[0] = expected[0].wrapping_add(1);
            }
        }
        5 => {
            let made = value(random);
            table.get_or_insert_with(&key, || made.clone()).unwrap()[1] ^= 5;
            reference.entry(key).or_insert(made)[1] ^= 5;
        }
        _ => assert_eq!(table.get(&key).unwrap(), reference.get(&key)),
    }
}

/// What the checkpoint writer does with sections: chains by unit, and what stands for itself.
#[derive(Default)]
pub struct Kept(BTreeMap<u16, Vec<Section>>);

impl Kept {
    pub fn keep(&mut self, sections: Vec<Section>, roster: &[String]) -> Vec<Section> {
        let mut own = Vec::new();
        for section in sections {
            match &section.chain {
                Some(part) => {
                    let chain = self.0.entry(part.unit).or_default();
                    if part.begins {
                        chain.clear();
                    }
                    chain.push(section);
                }
                None => own.push(section),
            }
        }
        if roster.is_empty() {
            self.0.clear();
        }
        own.extend(self.0.values().flatten().cloned());
        own
    }
}

fn begin(table: &mut StateTable<u32, Value>, mode: SnapshotMode) -> SnapshotParts {
    let mut parts = SnapshotParts::new(mode);
    table.begin_snapshot("t", &mut parts).unwrap();
    parts
}

/// Goes on with the copy; what the writer's thread would do is done behind some more changes.
fn step_then(
    table: &mut StateTable<u32, Value>,
    bytes: usize,
    parts: &mut SnapshotParts,
    mut meanwhile: impl FnMut(&mut StateTable<u32, Value>),
) -> bool {
    let mut run = CopyRun::new(bytes);
    let done = table.copy_some(&mut run).unwrap();
    parts.sections.append(&mut run.sections);
    for deferred in run.deferred {
        meanwhile(table);
        deferred(&mut |section| {
            parts.sections.push(section);
            Ok(())
        })
        .unwrap();
    }
    done
}

/// The same, at once.
fn step(table: &mut StateTable<u32, Value>, bytes: usize, parts: &mut SnapshotParts) -> bool {
    step_then(table, bytes, parts, |_| {})
}

fn load(table: &mut StateTable<u32, Value>, sections: Vec<Section>) {
    let sections: Vec<RestoredSection> = sections.into_iter().map(|section| section.into_restored(0)).collect();
    sections.iter().for_each(|section| table.load(section, |_| true).unwrap());
}

fn content(table: &mut StateTable<u32, Value>) -> Reference {
    let keys = table.keys().unwrap();
    let count = keys.len();
    let content: Reference = keys.into_iter().map(|key| (key, table.get(&key).unwrap().unwrap().clone())).collect();
    assert_eq!(content.len(), count, "each key once");
    content
}

#[test]
fn state_ten_times_the_cache_is_what_a_map_holds_through_checkpoints_and_changes_of_the_backend() {
    for seed in 1..=2 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let folders = [scratch(), scratch()];
        let mut home = self::home(&folders[0]);
        let (mut table, mut reference, mut kept) = (table(&home), Reference::new(), Kept::default());
        let (mut bases, mut deltas, mut starts) = (0, 0, 0);
        for key in 0..KEYS as u32 {
            let value = value(&mut random);
            table.set(&key, value.clone()).unwrap();
            reference.insert(key, value);
        }
        for round in 0..16 {
            let keys = if random.below(2) == 0 { KEYS } else { 100 };
            (0..random.below(4_000)).for_each(|_| change(&mut random, keys, &mut table, &mut reference));
            if let StateTable::Disk(table) = &table {
                let (held, share) = (table.bytes, table.store.home().cache_share());
                assert!(held <= share + 8 * VALUE_BYTES, "{held} bytes in a cache of {share}");
                let state: usize = reference.values().map(Vec::len).sum();
                assert!(state > 9 * share, "{state} bytes of state, {share} of cache");
            }
            let mode = match random.below(6) {
                0 => SnapshotMode::Detached,
                1 => SnapshotMode::Checkpoint { fresh: true },
                _ => SnapshotMode::Checkpoint { fresh: false },
            };
            let moment = reference.clone();
            let mut parts = begin(&mut table, mode);
            let bytes = 1 + random.below(60_000) as usize;
            // Sometimes more changes while the files are copied than a checkpoint keeps beside a small base.
            let meanwhile = [0, 0, 0, 20_000][random.below(4) as usize];
            loop {
                let done = step_then(&mut table, bytes, &mut parts, |table| {
                    (0..meanwhile).for_each(|_| change(&mut random, keys, table, &mut reference));
                });
                if done {
                    break;
                }
                (0..random.below(50)).for_each(|_| change(&mut random, keys, &mut table, &mut reference));
            }
            let begun = parts.sections.iter().filter_map(|section| section.chain.as_ref()).any(|part| part.begins);
            (bases, deltas) = if begun { (bases + 1, deltas) } else { (bases, deltas + 1) };
            let sections = match mode {
                SnapshotMode::Detached => parts.sections,
                _ => kept.keep(parts.sections, &parts.roster),
            };
            if random.below(4) > 0 {
                continue;
            }
            // A crash: what was changed since the moment is gone, and the other backend may go on.
            drop((table, home));
            starts += 1;
            home = match random.below(2) {
                0 => StateHome::default(),
                _ => self::home(&folders[starts % 2]),
            };
            (table, reference, kept) = (self::table(&home), moment, Kept::default());
            load(&mut table, sections);
            assert!(content(&mut table) == reference, "seed {seed}, round {round}");
        }
        assert!(content(&mut table) == reference, "seed {seed}");
        assert!(bases > 0 && deltas > 0, "{bases} bases, {deltas} deltas");
    }
}

#[test]
fn a_checkpoint_of_few_changes_is_small() {
    let folder = scratch();
    let home = home(&folder);
    let (mut table, mut random) = (table(&home), Random(1));
    for key in 0..KEYS as u32 {
        table.set(&key, value(&mut random)).unwrap();
    }
    let written = |table: &mut StateTable<u32, Value>| {
        let mut parts = begin(table, SnapshotMode::Checkpoint { fresh: false });
        while !step(table, 1 << 16, &mut parts) {}
        parts.sections.iter().map(|section| section.bytes.len()).sum::<usize>()
    };
    let whole = written(&mut table);
    assert!(whole > 20 * STATE_MEMORY_MIN_BYTES / 5, "{whole}");
    assert_eq!(written(&mut table), 0, "nothing has changed");
    (0..100).for_each(|key| table.get_mut(&key).unwrap().unwrap()[0] = 9);
    let changed = written(&mut table);
    assert!((100..100 * 2 * VALUE_BYTES).contains(&changed), "{changed} bytes for 100 entries");
}

#[test]
fn what_has_expired_is_neither_saved_nor_kept() {
    let folder = scratch();
    let clock = Arc::new(ManualClock::new(1_000));
    let home = home(&folder);
    let lapses = || Some(Box::new(|value: &(i64, Value)| value.0) as Lapses<(i64, Value)>);
    let mut table: StateTable<u32, (i64, Value)> = home.table("t", ALL, Some(clock.clone()), lapses).unwrap();
    for key in 0..KEYS as u32 {
        let lapses_ms = if key % 10 == 0 { i64::MAX } else { 2_000 };
        table.set(&key, (lapses_ms, vec![7; VALUE_BYTES])).unwrap();
    }
    clock.set(2_000);
    let mut parts = SnapshotParts::new(SnapshotMode::Detached);
    table.begin_snapshot("t", &mut parts).unwrap();
    let mut run = CopyRun::whole();
    assert!(table.copy_some(&mut run).unwrap());
    let (mut held, mut removed) = (0, 0);
    for deferred in run.deferred {
        deferred(&mut |section| {
            *(if section.removal { &mut removed } else { &mut held }) += section.entries;
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(held, KEYS / 10);
    // Writing goes on, so files are merged, and what has expired goes with that.
    let StateTable::Disk(disk) = &mut table else { panic!("not on disk") };
    let mut random = Random(3);
    let few = |disk: &DiskTable<u32, (i64, Value)>| disk.store.approximate_len() < KEYS as usize / 2;
    for round in 0.. {
        if few(disk) {
            break;
        }
        assert!(round < 200, "{} entries are left", disk.store.approximate_len());
        for _ in 0..2_000 {
            let mut stored = i64::MAX.to_le_bytes().to_vec();
            stored.resize(VALUE_BYTES, 1);
            let key = random.below(KEYS / 10) as u32 * 10;
            let mut bytes = Vec::new();
            key.put("t", &mut bytes).unwrap();
            disk.store.put(&bytes, &stored).unwrap();
        }
    }
}

#[test]
fn the_scratch_folder_goes_with_the_job_and_too_little_memory_is_refused() {
    let folder = scratch();
    std::fs::create_dir_all(folder.path().join("scratch/of-a-crash")).unwrap();
    let home = home(&folder);
    let mut table = table(&home);
    table.set(&1, vec![2]).unwrap();
    assert!(!folder.path().join("scratch/of-a-crash").exists());
    drop((table, home));
    assert!(!folder.path().join("scratch").exists());
    let error = DiskHome::open(folder.path().join("scratch"), 1000).err().unwrap();
    assert!(error.to_string().contains("at least"), "{error}");
}
