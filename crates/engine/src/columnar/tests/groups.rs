//! Tables of groups against a plain map: batches of random keys, copies taken while they change, chains of checkpoints
//! replayed as the checkpoint writer keeps them, and the bytes that the typed lane's tables wrote before.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, SchemaRef};
use tidemill_core::ColumnBatch;

use super::*;
use crate::columnar::AggregateCall;
use crate::columnar::key_columns::KeyColumns;
use crate::operator::SnapshotParts;
use crate::state::{Section, Table};

/// A small generator of numbers, so that a failure can be repeated from its seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A key as the reference has it, and what it holds: rows, sum, least, sum of floats.
type Key = (Option<String>, Option<i32>, i64);
type Held = (i64, i64, i64, f64);

/// Which columns are keys: all three, the two of fixed width, or the one that is never null.
const KEYS: [&[usize]; 3] = [&[0, 1, 2], &[1, 2], &[2]];

fn row(random: &mut Random, keys: u64) -> (Key, i64) {
    let number = random.below(keys);
    let text = (!number.is_multiple_of(7)).then(|| match number % 3 {
        0 => format!("shop {}", number / 3),
        1 => String::new(),
        _ => format!("a shop with a long name, number {}", number / 2),
    });
    (
        (text, (!number.is_multiple_of(5)).then_some(number as i32 % 100 - 50), (number / 2) as i64 - 5),
        random.below(1000) as i64,
    )
}

fn batch(rows: &[(Key, i64)]) -> ColumnBatch {
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("text", Arc::new(rows.iter().map(|row| row.0.0.clone()).collect::<StringArray>()), true),
        ("small", Arc::new(rows.iter().map(|row| row.0.1).collect::<Int32Array>()), true),
        ("number", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.2))), false),
        ("value", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))), false),
        ("price", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1 as f64 / 2.0))), false),
    ];
    ColumnBatch::new(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

fn shape(schema: &SchemaRef, keys: &[usize]) -> Arc<Shape> {
    let fields: Vec<Field> = keys.iter().map(|place| schema.field(*place).clone()).collect();
    let calls = [
        AggregateCall::count("rows"),
        AggregateCall::sum("value", "sum"),
        AggregateCall::min("value", "least"),
        AggregateCall::sum("price", "price"),
    ];
    Arc::new(Shape::new(KeyShape::new(&fields).unwrap(), Layout::new(schema, &calls).unwrap().0))
}

/// A table beside a plain map.
struct Both {
    keys: &'static [usize],
    shape: Arc<Shape>,
    table: Groups,
    reference: BTreeMap<RowKey2, Held>,
}

/// Only the parts of a key that count.
type RowKey2 = (Option<Option<String>>, Option<Option<i32>>, i64);

impl Both {
    fn new(keys: &'static [usize]) -> Self {
        let shape = shape(&batch(&[]).schema(), keys);
        Both { keys, table: Groups::new(shape.clone()), shape, reference: BTreeMap::new() }
    }

    fn key(&self, (text, small, number): &Key) -> RowKey2 {
        let has = |place| self.keys.contains(&place);
        (has(0).then(|| text.clone()), has(1).then_some(*small), *number)
    }

    fn add(&mut self, random: &mut Random, keys: u64, rows: u64) {
        let rows: Vec<_> = (0..rows).map(|_| row(random, keys)).collect();
        let batch = batch(&rows);
        let words = self.shape.keys.read(&KeyColumns::of(&batch, self.keys.iter().copied()).unwrap()).unwrap();
        let parts = self.shape.layout.columns(&batch).unwrap();
        // Either all rows or every second one.
        let some: Vec<u32> = (0..rows.len() as u32).step_by(2).collect();
        let step = 1 + random.below(2) as usize;
        let added = if step == 1 { Rows::All(rows.len()) } else { Rows::Some(&some) };
        self.table.add(&words, &parts, added).unwrap();
        for (key, value) in rows.iter().step_by(step) {
            let held = self.reference.entry(self.key(key)).or_insert((0, 0, i64::MAX, 0.0));
            *held = (held.0 + 1, held.1 + value, held.2.min(*value), held.3 + *value as f64 / 2.0);
        }
    }

    fn content(&self, table: &Groups) -> BTreeMap<RowKey2, Held> {
        let content: BTreeMap<RowKey2, Held> = table
            .iter()
            .map(|group| {
                let mut cells = table.row_key(&group);
                let mut cells = cells_of(&mut cells).into_iter();
                let has = |place| self.keys.contains(&place);
                let text = has(0).then(|| cells.next().unwrap().map(|cell| cell.1));
                let small = has(1).then(|| cells.next().unwrap().map(|cell| cell.0 as i32));
                let number = cells.next().unwrap().unwrap().0;
                let words = group.parts;
                let held = (words[0] as i64, words[1] as i64, words[2] as i64, f64::from_bits(words[3]));
                ((text, small, number), held)
            })
            .collect();
        assert_eq!(content.len(), table.len());
        content
    }
}

/// The values of a key: as number and as text; `None` for null.
fn cells_of(key: &mut RowKey) -> Vec<Option<(i64, String)>> {
    use crate::columnar::row_key::Cell;
    key.cells()
        .map(|cell| match cell {
            Cell::Null => None,
            Cell::Bits32(value) => Some((i64::from(value as i32), String::new())),
            Cell::Bits64(value) => Some((value as i64, String::new())),
            Cell::Text(text) => Some((0, text.to_string())),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn restored(shape: &Arc<Shape>, sections: Vec<Section>) -> Groups {
    let mut table = Groups::new(shape.clone());
    for section in sections.into_iter().map(|section| section.into_restored(0)) {
        assert!(!section.removal);
        let mut reader = section.reader().unwrap();
        while let Some((key, words)) = reader.entry::<(RowKey, Words)>().unwrap() {
            table.set(&key, &words).unwrap();
        }
    }
    table
}

#[test]
fn groups_are_those_of_a_plain_map() {
    for (seed, keys) in [(1, 20), (2, 900), (3, 3_000), (4, 100_000)] {
        for columns in KEYS {
            let mut random = Random(seed);
            let (mut one, mut other) = (Both::new(columns), Both::new(columns));
            for rows in [1, 700, 1024, 3, 1024, 1024] {
                one.add(&mut random, keys, rows);
                other.add(&mut random, keys, rows / 3);
            }
            assert_eq!(one.content(&one.table), one.reference, "seed {seed}, keys {columns:?}");
            one.table.absorb(&other.table).unwrap();
            for (key, (rows, sum, least, price)) in std::mem::take(&mut other.reference) {
                let held = one.reference.entry(key).or_insert((0, 0, i64::MAX, 0.0));
                *held = (held.0 + rows, held.1 + sum, held.2.min(least), held.3 + price);
            }
            assert_eq!(one.content(&one.table), one.reference, "seed {seed}, keys {columns:?}, together");
            one.table.clear();
            one.reference.clear();
            one.add(&mut random, keys, 500);
            assert_eq!(one.content(&one.table), one.reference, "seed {seed}, keys {columns:?}, emptied");
        }
    }
}

fn copies(seed: u64) {
    let mut random = Random(seed);
    // Few, some, and so many that a snapshot writes them in several units.
    let (keys, columns, rounds) = [(3_000, 0, 8), (20_000, 1, 8), (10_000, 0, 8), (200_000, 2, 6)][seed as usize];
    let mut both = Both::new(KEYS[columns]);
    let mut chains: BTreeMap<u16, Vec<Section>> = BTreeMap::new();
    let (mut deltas, mut fresh) = (0, true);
    while both.table.len() < keys as usize / 3 || !both.table.is_large() {
        both.add(&mut random, keys, 1024);
    }
    for round in 0..rounds {
        let mode = match random.below(5) {
            0 => SnapshotMode::Detached,
            _ => SnapshotMode::Checkpoint { fresh: fresh || random.below(8) == 0 },
        };
        let moment = both.reference.clone();
        let mut parts = SnapshotParts::new(mode);
        both.table.begin_snapshot("groups", &mut parts);
        let mut sections = parts.sections;
        loop {
            let mut run = CopyRun::new(1 + random.below(40_000) as usize);
            let done = both.table.copy_some(&mut run).unwrap();
            sections.append(&mut run.sections);
            if done {
                break;
            }
            let rows = random.below(300);
            both.add(&mut random, keys, rows);
        }
        let saved = match mode {
            SnapshotMode::Checkpoint { .. } => {
                fresh = false;
                assert_eq!(parts.roster, ["groups"]);
                let mut begun = false;
                for section in sections {
                    let part = section.chain.clone().unwrap();
                    let chain = chains.entry(part.unit).or_default();
                    if part.begins {
                        chain.clear();
                        begun = true;
                    }
                    chain.push(section);
                }
                deltas += usize::from(!begun);
                chains.values().flatten().cloned().collect()
            }
            _ => sections,
        };
        let saved = restored(&both.shape, saved);
        assert_eq!(both.content(&saved), moment, "seed {seed} round {round} mode {mode:?}");
        assert_eq!(both.content(&both.table), both.reference, "seed {seed} round {round}");
        let rows = random.below(keys / 8).min(1024);
        both.add(&mut random, keys, rows);
    }
    assert!(keys < 10_000 || deltas > 0, "seed {seed}: no checkpoint wrote only what had changed");
}

#[test]
fn copies_are_of_their_moment_and_chains_replay_to_it() {
    (0..4).for_each(copies);
}

#[test]
fn the_state_of_the_typed_lanes_tables_is_read_and_written() {
    let mut random = Random(7);
    let mut both = Both::new(KEYS[0]);
    while !both.table.is_large() {
        both.add(&mut random, 5_000, 1024);
    }
    // What stood in state before there were tables of this lane.
    let mut before: Table<RowKey, Words> = Table::default();
    for group in both.table.iter() {
        before.insert(both.table.row_key(&group), Words(SmallVec::from_slice(group.parts)));
    }
    let mut parts = SnapshotParts::new(SnapshotMode::Detached);
    before.begin_snapshot("groups", &mut parts).unwrap();
    let mut run = CopyRun::whole();
    assert!(before.copy_some(&mut run).unwrap());
    let mut saved = restored(&both.shape, std::mem::take(&mut run.sections));
    assert_eq!(both.content(&saved), both.reference);
    let mut parts = SnapshotParts::new(SnapshotMode::Detached);
    saved.begin_snapshot("groups", &mut parts);
    assert!(saved.copy_some(&mut run).unwrap());
    let sections: Vec<_> = run.sections.into_iter().map(|section| section.into_restored(0)).collect();
    let mut back: Table<RowKey, Words> = Table::default();
    back.load(&sections, |_| true).unwrap();
    assert_eq!(back.len(), before.len());
    for (key, words) in before.iter() {
        assert_eq!(back.get(key), Some(words));
    }
}

#[test]
fn state_of_other_columns_is_refused() {
    let both = Both::new(KEYS[2]);
    let mut other = Both::new(KEYS[1]);
    other.add(&mut Random(1), 100, 10);
    let group = other.table.iter().next().unwrap();
    let (key, words) = (other.table.row_key(&group), Words(SmallVec::from_slice(group.parts)));
    let mut table = both.table;
    assert!(table.set(&key, &words).unwrap_err().to_string().contains("none of the columns"));
    assert!(table.set(&key, &Words(SmallVec::new())).unwrap_err().to_string().contains("has not the parts"));
}
