//! The job against the naive reference of `order_generator::reference`, on generated events with every fault, at several
//! parallelisms, and crashed at random points.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use order_generator::config::GeneratorConfig;
use order_generator::generator::OrderGenerator;
use order_generator::reference::{Tables, live_tables, without_empty_rows};
use order_screen::row::Row;
use serde_json::Value;
use support::{append, fill, newest, screen};
use tidemill::engine::{Environment, JobSettings};

mod support;

fn events(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let config = GeneratorConfig {
        seed,
        // Midnight at UTC+8 falls into the run.
        start_ms: 1_795_190_400_000 - 600_000,
        rate: 10,
        duplicates: "0.02".parse().unwrap(),
        out_of_order: "0.1".parse().unwrap(),
        late: "0.01".parse().unwrap(),
        bad: "0.005".parse().unwrap(),
        ..GeneratorConfig::default()
    };
    OrderGenerator::new(config).take(count).map(|event| event.json).collect()
}

/// The newest row of each key; without what depends on when the job looked.
fn tables(rows: impl IntoIterator<Item = Row>) -> Tables {
    timeless(without_empty_rows(newest(rows)))
}

fn timeless(mut tables: Tables) -> Tables {
    for value in tables.values_mut().flat_map(BTreeMap::values_mut) {
        if let Some(fields) = value.as_object_mut() {
            // Lateness depends on how far the watermark was, and the day of a dead letter on what was read before it:
            // these are checked on their own.
            ["computed_ms", "watermark_ms", "late", "dead_letters"]
                .iter()
                .for_each(|field| drop(fields.remove(*field)));
        }
    }
    tables
}

fn compare(what: &str, got: &Tables, expected: &Tables) {
    for (table, rows) in expected {
        let none = BTreeMap::new();
        let have = got.get(table).unwrap_or(&none);
        let differs = rows.keys().chain(have.keys()).find(|key| rows.get(*key) != have.get(*key));
        let differs = differs.map(|key| (key, have.get(key), rows.get(key)));
        assert!(differs.is_none(), "{what}, table {table}: (key, got, expected) {differs:?}");
    }
}

/// Rows that hold only late events depend on the watermark, too.
fn expected(events: &[Vec<u8>]) -> Tables {
    let mut tables = live_tables(events);
    for rows in tables.values_mut() {
        rows.retain(|_, row: &mut Value| {
            row.get("late").is_none() || row["orders"] != 0 || row.get("minute_ms").is_none()
        });
    }
    timeless(tables)
}

fn without_late_only_minutes(mut tables: Tables) -> Tables {
    if let Some(minutes) = tables.get_mut("orders.minute") {
        minutes.retain(|_, row| row["orders"] != 0);
    }
    tables
}

/// The sum over all days of a field of the newest totals.
fn sum_of_days(rows: &[Row], field: &str) -> i64 {
    let totals = rows.iter().filter(|row| row.table == order_screen::row::Table::Total);
    let newest: BTreeMap<&str, i64> =
        totals.map(|row| (row.key.as_str(), row.value().unwrap()[field].as_i64().unwrap())).collect();
    newest.values().sum()
}

#[test]
fn equals_the_reference_at_every_parallelism() {
    for (seed, parallelism) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
        let folder = tempfile::tempdir().unwrap();
        let events = events(seed, 12_000);
        fill(folder.path(), 3, &events);
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let built = screen(folder.path(), true).build(&env);
        let (rows, dead) = (built.rows.collect(), built.dead_letters.collect());
        env.execute("order screen").unwrap();
        let rows = rows.take();
        let counted = sum_of_days(&rows, "dead_letters");
        compare(&format!("seed {seed}"), &without_late_only_minutes(tables(rows)), &expected(&events));
        let refused = events.iter().filter(|json| order_generator::order::Order::decode(json).is_err()).count();
        assert!(refused > 10, "the generator was told to make bad events");
        assert_eq!(dead.take().len(), refused, "every bad event is a dead letter with its reason");
        assert_eq!(counted, refused as i64, "and is counted on the screen");
    }
}

#[test]
fn late_orders_are_counted_in_the_sums_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = events(9, 6_000);
    // One more sale, hours behind all others.
    let mut late: Value =
        serde_json::from_slice(events.iter().find(|json| order_generator::order::Order::decode(json).is_ok()).unwrap())
            .unwrap();
    late["orderId"] = "20261120235000000999999".into();
    late["status"] = "已支付".into();
    fill(folder.path(), 3, &events);
    events.push(late.to_string().into_bytes());
    let env = Environment::new();
    env.set_parallelism(1);
    let rows = screen(folder.path(), true);
    append(folder.path(), &events[events.len() - 1..]);
    let rows = rows.build(&env).rows.collect();
    env.execute("order screen").unwrap();
    let rows = rows.take();
    assert!(sum_of_days(&rows, "late") >= 1, "late events are shown");
    compare("late", &without_late_only_minutes(tables(rows)), &expected(&events));
}

#[test]
fn crashes_at_random_points_change_nothing() {
    for seed in 1..=6u64 {
        let (topics, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let events = events(seed + 100, 8_000);
        fill(topics.path(), 3, &events);
        let mut all = Vec::new();
        for attempt in 0..=5u64 {
            let env = Environment::with_settings(JobSettings {
                checkpoint_dir: Some(state.path().to_path_buf()),
                checkpoint_interval_ms: Some(5),
                parallelism: Some(1 + ((seed + attempt) % 3) as usize),
                ..JobSettings::default()
            });
            let rows = screen(topics.path(), true).build(&env).rows.collect();
            let crash_after = Duration::from_millis((seed * 37 + attempt * 53) % 150);
            let outcome = env.execute_with("order screen", |job| {
                if attempt < 5 {
                    std::thread::spawn(move || {
                        std::thread::park_timeout(crash_after);
                        job.fail("crash");
                    });
                }
            });
            // What an attempt has sent stays sent, as in the server: rows are absolute, so a replay writes the same again.
            all.extend(rows.take());
            if outcome.is_ok() {
                break;
            }
            assert!(attempt < 5, "the last attempt is not disturbed: {outcome:?}");
        }
        compare(&format!("seed {seed}"), &without_late_only_minutes(tables(all)), &expected(&events));
    }
}
