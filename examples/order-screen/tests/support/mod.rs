//! How the order job is run in tests: on a topic in a folder of its own, with its rows folded to tables.

use std::path::Path;
use std::time::Duration;

use order_generator::generator::key_of;
use order_generator::reference::Tables;
use order_screen::job::OrderScreen;
use order_screen::row::Row;
use tidemill_topic::{NewRecord, TopicConfig, Topics};

/// Makes the topic `orders` with these events in it.
pub fn fill(folder: &Path, partitions: u32, events: &[Vec<u8>]) {
    let topics = Topics::open(folder).unwrap();
    topics.create("orders", &TopicConfig { partitions, ..TopicConfig::default() }).unwrap();
    append(folder, events);
}

/// Adds events, each order in the partition of its id. Nobody knows when they arrived.
pub fn append(folder: &Path, events: &[Vec<u8>]) {
    append_at(folder, events, 0);
}

/// Adds events that arrive at `arrived_ms`.
pub fn append_at(folder: &Path, events: &[Vec<u8>], arrived_ms: i64) {
    let topic = Topics::open(folder).unwrap().open_topic("orders").unwrap();
    for chunk in events.chunks(500) {
        let partition = |json: &Vec<u8>| key_of(json).map_or(0, |key| topic.partition_for(key));
        let records: Vec<NewRecord<'_>> = chunk
            .iter()
            .map(|json| NewRecord { partition: partition(json), timestamp_ms: arrived_ms, key: None, value: json })
            .collect();
        topic.append(&records, None, arrived_ms).unwrap();
    }
}

/// The job over that topic. It moves its watermark with every batch and writes rows every 5 ms.
pub fn screen(topics: &Path, bounded: bool) -> OrderScreen {
    OrderScreen {
        topics: topics.to_path_buf(),
        topic: "orders".into(),
        bounded,
        tick: Duration::from_millis(5),
        remember: Duration::from_secs(100 * 3600),
        ahead: Duration::from_secs(24 * 3600),
        watermark_interval: Duration::ZERO,
    }
}

/// The newest row of each key.
pub fn newest(rows: impl IntoIterator<Item = Row>) -> Tables {
    let mut tables: Tables = Tables::new();
    for row in rows {
        let table = tables.entry(row.table.name().to_string()).or_default();
        match row.value() {
            Some(value) => table.insert(row.key, value),
            None => table.remove(&row.key),
        };
    }
    tables
}
