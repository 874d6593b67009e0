//! Generated orders with every fault, how they get into a topic, and what the live tables must hold in the end.

use std::collections::BTreeMap;
use std::path::Path;

use order_generator::config::GeneratorConfig;
use order_generator::generator::{OrderGenerator, key_of};
use order_generator::order::Order;
use order_generator::reference::{TABLES, Tables, live_tables, without_empty_rows};
use serde_json::Value;
use tidemill_topic::{NewRecord, Topic, TopicConfig, Topics};

use super::eventually;
use super::server::Server;

/// What `order-screen` is started with in these tests. Their orders are of one day, whatever the clock says.
pub const ARGS: &[&str] = &["--tick-ms", "5", "--remember-min", "6000", "--ahead-hours", "1000000"];

pub fn events(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let config = GeneratorConfig {
        seed,
        // Midnight at UTC+8 falls into the run.
        start_ms: 1_795_190_400_000 - 200_000,
        rate: 10,
        duplicates: "0.02".parse().unwrap(),
        out_of_order: "0.1".parse().unwrap(),
        late: "0.01".parse().unwrap(),
        bad: "0.01".parse().unwrap(),
        ..GeneratorConfig::default()
    };
    OrderGenerator::new(config).take(count).map(|event| event.json).collect()
}

/// How many of them no job can count.
pub fn refused(events: &[Vec<u8>]) -> u64 {
    events.iter().filter(|json| Order::decode(json).is_err()).count() as u64
}

pub fn create(topics: &Path) -> Topic {
    let topics = Topics::open(topics).unwrap();
    topics.create("orders", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap()
}

pub fn append(topic: &Topic, events: &[Vec<u8>]) {
    let records: Vec<NewRecord<'_>> = events
        .iter()
        .map(|json| NewRecord {
            partition: key_of(json).as_ref().map_or(0, |key| topic.partition_for(key.as_ref())),
            timestamp_ms: 0,
            key: None,
            value: json,
        })
        .collect();
    topic.append(&records, None, 0).unwrap();
}

/// What the tables must hold. Lateness, rows of late orders alone and the day of a dead letter depend on how far the
/// watermark was.
pub fn expected(events: &[Vec<u8>]) -> Tables {
    let mut tables = live_tables(events);
    for rows in tables.values_mut() {
        rows.retain(|_, row: &mut Value| {
            row.get("late").is_none() || row["orders"] != 0 || row.get("minute_ms").is_none()
        });
    }
    timeless(tables)
}

/// The live tables as they are now.
pub fn live(server: &Server) -> Result<Tables, String> {
    let mut tables = Tables::new();
    for table in TABLES {
        let (status, body) = server.http.try_get(&format!("/api/live/{table}?limit=100000"))?;
        let rows = match status {
            404 => Vec::new(),
            _ => body["rows"].as_array().cloned().ok_or_else(|| format!("{table}: {status} {body}"))?,
        };
        let row = |row: &Value| (row["key"].as_str().unwrap_or_default().to_string(), row["value"].clone());
        tables.insert(table.to_string(), rows.iter().map(row).collect());
    }
    Ok(tables)
}

pub fn timeless(mut tables: Tables) -> Tables {
    for value in tables.values_mut().flat_map(BTreeMap::values_mut) {
        if let Some(fields) = value.as_object_mut() {
            ["computed_ms", "watermark_ms", "late", "dead_letters"]
                .iter()
                .for_each(|field| drop(fields.remove(*field)));
        }
    }
    tables
}

/// What differs from the reference, if anything.
pub fn compare(live: Tables, expected: &Tables) -> Result<(), String> {
    let mut live = timeless(without_empty_rows(live));
    if let Some(minutes) = live.get_mut("orders.minute") {
        minutes.retain(|_, row| row["orders"] != 0);
    }
    for (table, rows) in expected {
        let none = BTreeMap::new();
        let have = live.get(table).unwrap_or(&none);
        if let Some(key) = rows.keys().chain(have.keys()).find(|key| rows.get(*key) != have.get(*key)) {
            return Err(format!("{table} {key}: {:?} instead of {:?}", have.get(key), rows.get(key)));
        }
    }
    Ok(())
}

/// The sum of a field over all days.
pub fn total(live: &Tables, field: &str) -> u64 {
    live["orders.total"].values().filter_map(|row| row[field].as_u64()).sum()
}

/// Everything in a topic, by partition and offset.
pub fn records(topic: &Topic) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for partition in 0..topic.partitions() {
        let mut offset = topic.earliest(partition).unwrap();
        while let tidemill_topic::ReadOutcome::Batches(batches) = topic.read(partition, offset, 1 << 20).unwrap() {
            if batches.is_empty() {
                break;
            }
            for record in batches.iter().flat_map(|batch| batch.iter()) {
                assert_eq!(record.offset, offset, "offsets have no gaps");
                all.push(record.value.to_vec());
                offset += 1;
            }
        }
    }
    all
}

/// Waits until the job has caught up; what it shows then, and goes on showing over further checkpoints, is what the
/// reference says, and the dead letters are each there once.
pub fn settles(server: &Server, job: &str, events: &[Vec<u8>]) {
    let expected = expected(events);
    let refused = refused(events);
    let right = || {
        let live = live(server)?;
        compare(live.clone(), &expected)?;
        let counted = total(&live, "dead_letters");
        (counted == refused).then_some(()).ok_or(format!("{counted} dead letters are counted, not {refused}"))?;
        let topic = Topics::open(server.topics()).and_then(|topics| topics.open_topic("orders.dead"));
        let letters = topic.map(|topic| records(&topic).len() as u64).map_err(|e| e.to_string())?;
        (letters == refused).then_some(()).ok_or(format!("{letters} dead letters are kept, not {refused}"))
    };
    eventually("the tables equal the reference", || right().map_err(|why| format!("{why}\n{}", server.logs(job))));
    let now = server.checkpoint(job);
    eventually("two more checkpoints", || {
        let newest = server.checkpoint(job);
        if newest >= now + 2 { Ok(()) } else { Err(format!("{newest} after {now}\n{}", server.logs(job))) }
    });
    right().unwrap_or_else(|why| panic!("it was right, and then: {why}"));
}
