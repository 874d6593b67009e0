//! The columnar lane on real workers: what it gives, against a naive reference; crashed, rescaled, over several processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use serde::{Deserialize, Serialize};
use tidemill_core::{ColumnBatch, RowKind};
use tidemill_engine::columnar::{AggregateCall, ColumnStream};
use tidemill_engine::stream::{Collected, DataStream, WatermarkGenerator, WatermarkStrategy};
use tidemill_engine::window::{Sliding, TimeWindows, Tumbling};
use tidemill_engine::{Environment, JobSettings};

use crate::cluster;
use crate::recovery::{Ledger, Row, crash_at_random, settings};
use crate::windows::Chance;

const EVENTS: i64 = 20_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Event {
    time: i64,
    shop: Option<String>,
    kind: i32,
    amount: Option<i64>,
    price: f64,
}

/// Event `n` of a seed: few keys or many, some parts null.
fn event(seed: u64, keys: u64, n: i64) -> Event {
    let mut chance = Chance((seed << 32) ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let shop = chance.below(keys);
    Event {
        time: n / 3 - 1_000 - chance.below(50) as i64,
        shop: (shop > 0).then(|| format!("shop {shop}")),
        kind: chance.below(3) as i32 - 1,
        amount: (chance.below(5) > 0).then(|| chance.below(1_000) as i64 - 300),
        price: chance.below(64) as f64 / 4.0,
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Total {
    shop: Option<String>,
    kind: i32,
    window_end: i64,
    rows: i64,
    amounts: i64,
    amount: Option<i64>,
    least: Option<i64>,
    most: Option<i64>,
    price: f64,
    dearest: f64,
}

fn calls() -> Vec<AggregateCall> {
    vec![
        AggregateCall::count("rows"),
        AggregateCall::count_of("amount", "amounts"),
        AggregateCall::sum("amount", "amount"),
        AggregateCall::min("amount", "least"),
        AggregateCall::max("amount", "most"),
        AggregateCall::sum("price", "price"),
        AggregateCall::max("price", "dearest"),
    ]
}

/// All events are within this of the newest.
fn unordered() -> WatermarkStrategy<ColumnBatch> {
    WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(EVENTS as u64))
}

fn events(env: &Environment, seed: u64, keys: u64) -> ColumnStream {
    let events = env.from_sequence(1, EVENTS).uid("numbers").map(move |n| event(seed, keys, n));
    let columns = events.to_columns().unwrap();
    columns.assign_timestamps_and_watermarks("time", unordered()).unwrap()
}

fn totals(events: &ColumnStream, windows: TimeWindows) -> ColumnStream {
    events.key_by(&["shop", "kind"]).unwrap().window(windows).aggregate(&calls()).unwrap().uid("totals")
}

/// As lines, since nulls and floats have no order.
fn lines(totals: Vec<Total>) -> Vec<String> {
    let mut lines: Vec<String> = totals.iter().map(|total| format!("{total:?}")).collect();
    lines.sort();
    lines
}

fn reference(events: impl Iterator<Item = Event>, size: i64, slide: i64) -> Vec<Total> {
    let mut totals: BTreeMap<(i64, Option<String>, i32), Total> = BTreeMap::new();
    for event in events {
        let last = event.time.div_euclid(slide) * slide;
        for start in (0..).map(|n| last - n * slide).take_while(|start| *start > event.time - size) {
            let (shop, kind, window_end) = (event.shop.clone(), event.kind, start + size);
            let total = totals.entry((window_end, shop.clone(), kind)).or_insert(Total {
                shop,
                kind,
                window_end,
                rows: 0,
                amounts: 0,
                amount: None,
                least: None,
                most: None,
                price: 0.0,
                dearest: f64::MIN,
            });
            total.rows += 1;
            if let Some(amount) = event.amount {
                total.amounts += 1;
                total.amount = Some(total.amount.unwrap_or(0) + amount);
                total.least = Some(total.least.map_or(amount, |least| least.min(amount)));
                total.most = Some(total.most.map_or(amount, |most| most.max(amount)));
            }
            total.price += event.price;
            total.dearest = total.dearest.max(event.price);
        }
    }
    totals.into_values().collect()
}

#[test]
fn windows_over_columns_are_those_of_a_naive_reference() {
    for (seed, keys, parallelism) in [(1, 5, 1), (2, 5, 2), (3, 20_000, 3), (4, 40, 4), (5, 20_000, 1)] {
        let (size, slide) = if seed % 2 == 0 { (100, 50) } else { (100, 100) };
        let windows = Sliding::event_time(Duration::from_millis(size), Duration::from_millis(slide));
        let expected = reference((1..=EVENTS).map(|n| event(seed, keys, n)), size as i64, slide as i64);
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let got = totals(&events(&env, seed, keys), windows).rows::<Total>().collect();
        let result = env.execute("columnar").unwrap();
        let late: u64 = result.report.vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.late_dropped).sum();
        assert_eq!(late, 0);
        assert!(lines(got.take()) == lines(expected), "seed {seed}, {keys} keys, parallelism {parallelism}");
    }
}

/// What the ledger takes of a total.
fn row(total: Total) -> Row {
    let digest =
        total.rows * 7 + total.amount.unwrap_or(-1) * 31 + (total.price * 4.0) as i64 + total.least.unwrap_or(-9);
    (format!("{:?} {}", total.shop, total.kind), total.window_end, digest)
}

#[test]
fn crashes_at_random_points_with_changing_parallelism_lose_and_double_no_columns() {
    let windows = || Tumbling::event_time(Duration::from_millis(200));
    let mut expected: Vec<Row> =
        reference((1..=EVENTS).map(|n| event(9, 60, n)), 200, 200).into_iter().map(row).collect();
    expected.sort();
    let build = |env: &Environment, ledger: &Ledger| {
        let totals = totals(&events(env, 9, 60), windows());
        totals.rows::<Total>().map(row).sink_to(ledger.clone()).uid("ledger");
    };
    crash_at_random(12, build, &expected);
}

#[test]
fn crashes_with_more_keys_than_a_small_table_holds_lose_and_double_none() {
    // Checkpoints of these write what has changed, while rows go on changing it.
    let (size, slide) = (3_000, 1_500);
    let mut expected: Vec<Row> =
        reference((1..=EVENTS).map(|n| event(11, 20_000, n)), size, slide).into_iter().map(row).collect();
    expected.sort();
    let build = |env: &Environment, ledger: &Ledger| {
        let windows = Sliding::event_time(Duration::from_millis(size as u64), Duration::from_millis(slide as u64));
        totals(&events(env, 11, 20_000), windows).rows::<Total>().map(row).sink_to(ledger.clone()).uid("ledger");
    };
    crash_at_random(8, build, &expected);
}

#[test]
fn several_processes_give_what_one_gives() {
    let expected = lines(reference((1..=EVENTS).map(|n| event(7, 300, n)), 100, 100));
    for (processes, parallelism) in [(2, 2), (2, 3), (3, 3)] {
        let settings = JobSettings { parallelism: Some(parallelism), ..JobSettings::default() };
        let build = |_: usize, env: &Environment| -> Collected<Total> {
            totals(&events(env, 7, 300), Tumbling::event_time(Duration::from_millis(100))).rows().collect()
        };
        let (outcomes, kept) = cluster::run(&settings, cluster::all(processes), build, |_, _| {});
        outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        let got: Vec<Total> = kept.iter().flat_map(Collected::take).collect();
        assert!(lines(got) == expected, "{processes} processes, parallelism {parallelism}");
    }
}

/// A watermark behind each batch.
struct EachBatch;

impl WatermarkGenerator<ColumnBatch> for EachBatch {
    fn on_event(&mut self, batch: &ColumnBatch, _: i64) -> Option<i64> {
        Some(batch.latest_ms())
    }
    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

fn batch(rows: &[(i64, &str, i64)]) -> ColumnBatch {
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    let cents = Decimal128Array::from_iter_values(rows.iter().map(|row| i128::from(row.2)));
    let cents: ArrayRef = Arc::new(cents.with_precision_and_scale(12, 2).unwrap());
    ColumnBatch::new(RecordBatch::try_from_iter([("time", times), ("key", keys), ("cents", cents)]).unwrap())
}

fn batches(env: &Environment, batches: Vec<ColumnBatch>) -> ColumnStream {
    env.set_parallelism(1);
    let schema = batches[0].schema();
    let stream: DataStream<ColumnBatch> = env.from_collection(batches);
    stream.as_columns(schema).assign_timestamps_and_watermarks("time", WatermarkStrategy::custom(|| EachBatch)).unwrap()
}

#[test]
fn late_rows_are_dropped_and_each_is_counted() {
    let env = Environment::new();
    let events = batches(
        &env,
        vec![
            batch(&[(1, "a", 150), (2, "a", 50), (3, "b", 7)]),
            batch(&[(12, "a", 1), (15, "a", 1)]),
            // Three late rows, two of which are combined, and one that is in time.
            batch(&[(5, "a", 999), (6, "a", 999), (9, "b", 999), (13, "b", 30)]),
            batch(&[(25, "b", i64::MAX), (26, "b", i64::MAX)]),
        ],
    );
    let windows = Tumbling::event_time(Duration::from_millis(10));
    let calls = [AggregateCall::count("rows"), AggregateCall::sum("cents", "sum"), AggregateCall::min("cents", "min")];
    let totals = events.key_by(&["key"]).unwrap().window(windows).aggregate(&calls).unwrap();
    let totals = totals.batches().clone().collect();
    let result = env.execute("late").unwrap();
    let read: u64 = result.report.vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum();
    assert_eq!(read, 11, "a source counts the rows of its batches");
    let late: u64 = result.report.vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.late_dropped).sum();
    assert_eq!(late, 3);
    let mut got = Vec::new();
    for batch in totals.take() {
        let decimals = |name: &str| batch.column(name).unwrap().as_primitive::<Decimal128Type>().clone();
        assert_eq!(decimals("sum").data_type().to_string(), "Decimal128(38, 2)");
        assert_eq!(decimals("min").data_type().to_string(), "Decimal128(12, 2)");
        for row in 0..batch.rows() {
            let key = batch.column("key").unwrap().as_string::<i32>().value(row).to_string();
            got.push((batch.times_ms()[row], key, decimals("sum").value(row), decimals("min").value(row)));
        }
    }
    got.sort();
    let most = i128::from(i64::MAX);
    let expected = [(9, "a", 200, 50), (9, "b", 7, 7), (19, "a", 2, 1), (19, "b", 30, 30), (29, "b", 2 * most, most)];
    let expected = expected.map(|(time_ms, key, sum, min)| (time_ms, key.to_string(), sum, min));
    assert_eq!(got, expected);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Change {
    time: i64,
    key: i64,
    value: i64,
}

#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
struct Net {
    key: i64,
    rows: i64,
    sum: i64,
}

#[test]
fn rows_that_are_taken_back_are_subtracted() {
    for seed in 1..=5u64 {
        let mut chance = Chance(seed * 6_700_417);
        let mut held: Vec<Change> = Vec::new();
        let mut changes: Vec<(RowKind, Change)> = Vec::new();
        for time in 0..4_000 {
            match chance.below(3) {
                0 if !held.is_empty() => {
                    let gone = held.swap_remove(chance.below(held.len() as u64) as usize);
                    changes.push((RowKind::Delete, gone));
                }
                1 if !held.is_empty() => {
                    let at = chance.below(held.len() as u64) as usize;
                    let new = Change { value: chance.below(100) as i64, ..held[at].clone() };
                    changes.push((RowKind::UpdateBefore, std::mem::replace(&mut held[at], new.clone())));
                    changes.push((RowKind::UpdateAfter, new));
                }
                _ => {
                    let new = Change { time, key: chance.below(500) as i64, value: chance.below(100) as i64 };
                    held.push(new.clone());
                    changes.push((RowKind::Insert, new));
                }
            }
        }
        let mut expected: BTreeMap<i64, Net> = BTreeMap::new();
        for Change { key, value, .. } in held {
            let net = expected.entry(key).or_insert(Net { key, rows: 0, sum: 0 });
            (net.rows, net.sum) = (net.rows + 1, net.sum + value);
        }
        let env = Environment::new();
        env.set_parallelism(1 + seed as usize % 4);
        let columns = env.from_collection(changes.clone()).rebalance().changelog_to_columns().unwrap();
        assert_eq!(columns.schema().fields().len(), 3);
        let read = columns.changelog::<Change>().collect();
        let timed = columns.assign_timestamps_and_watermarks("time", unordered()).unwrap();
        let calls = [AggregateCall::count("rows"), AggregateCall::sum("value", "sum")];
        let windows = Tumbling::event_time(Duration::from_secs(10));
        let net = timed.key_by(&["key"]).unwrap().window(windows).aggregate(&calls).unwrap();
        let net = net.select(&["key", "rows", "sum"]).unwrap().rows::<Net>().collect();
        env.execute("changes").unwrap();
        let mut got = net.take();
        got.sort_by_key(|net| net.key);
        assert_eq!(got, expected.into_values().collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(read.len(), changes.len());
    }
}

#[test]
fn rows_of_a_key_meet_where_the_typed_lane_has_them() {
    let env = Environment::new();
    env.set_parallelism(4);
    let changes = || (0..2_000i64).map(|n| Change { time: n, key: n % 97 - 40, value: n }).collect::<Vec<_>>();
    let columns = env.from_collection(changes()).to_columns().unwrap();
    let rows = columns.key_by(&["key", "value"]).unwrap().rows_by_key().rows::<Change>();
    // Joined on the typed lane without another exchange: a key of another subtask would have two places.
    let places = rows.map(|change| (format!("{:?}", std::thread::current().id()), change));
    let places = places.collect();
    let typed = env.from_collection(changes()).key_by(|change| (change.key, change.value));
    let typed = typed.reduce(|_, _| {}).map(|change| (format!("{:?}", std::thread::current().id()), change)).collect();
    env.execute("places").unwrap();
    let by_value = |places: Collected<(String, Change)>| {
        places.take().into_iter().map(|(place, change)| (change.value, place)).collect::<BTreeMap<i64, String>>()
    };
    assert_eq!(by_value(places), by_value(typed));
}

#[test]
fn what_cannot_work_is_refused_and_named() {
    let env = Environment::new();
    let columns = events(&env, 1, 5);
    let refused = |error: tidemill_core::Error, named: &str| {
        assert!(error.to_string().contains(named), "{error}");
    };
    let window = || Tumbling::event_time(Duration::from_millis(10));
    refused(columns.key_by(&["town"]).err().unwrap(), "`town`");
    refused(columns.key_by(&["price"]).err().unwrap(), "`price`");
    refused(columns.select(&["cost"]).err().unwrap(), "`cost`");
    refused(columns.assign_timestamps_and_watermarks("shop", unordered()).err().unwrap(), "`shop`");
    let keyed = columns.key_by(&["shop"]).unwrap();
    refused(keyed.window(window()).aggregate(&[AggregateCall::sum("shop", "s")]).err().unwrap(), "`shop`");
    refused(keyed.window(window()).aggregate(&[AggregateCall::count("shop")]).err().unwrap(), "`shop`");
    let clock = Tumbling::processing_time(Duration::from_millis(10));
    refused(keyed.window(clock).aggregate(&calls()).err().unwrap(), "event time");
    // A row that is taken back comes to a minimum.
    let env = Environment::new();
    let gone = vec![(RowKind::Delete, Change { time: 1, key: 1, value: 1 })];
    let columns = env.from_collection(gone).changelog_to_columns().unwrap();
    let columns = columns.assign_timestamps_and_watermarks("time", unordered()).unwrap();
    let least = [AggregateCall::min("value", "least")];
    columns.key_by(&["key"]).unwrap().window(window()).aggregate(&least).unwrap().batches().clone().collect();
    refused(env.execute("least").unwrap_err(), "minimum");
}

#[test]
fn state_of_another_aggregation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |calls: &[AggregateCall]| {
        let env = Environment::with_settings(settings(folder.path(), 2));
        let keyed = events(&env, 1, 5).key_by(&["shop"]).unwrap();
        let totals = keyed.window(Tumbling::event_time(Duration::from_millis(10))).aggregate(calls).unwrap();
        totals.uid("totals").batches().clone().collect();
        env.execute("changing")
    };
    run(&[AggregateCall::sum("amount", "amount")]).unwrap();
    run(&[AggregateCall::sum("amount", "total")]).unwrap();
    let error = run(&[AggregateCall::sum("price", "amount")]).unwrap_err().to_string();
    assert!(error.contains("another uid") || error.contains("hold"), "{error}");
}
