//! Topics as their users see them: one binary, a module for each promise.

mod append;
mod change;
mod deletion;
mod fixture;
mod processes;
mod retention;
mod staging;

use tidemill_topic::{NewRecord, ReadOutcome, Record, Topic};

/// A record without a key.
pub fn record(partition: u32, timestamp_ms: i64, value: &str) -> NewRecord<'_> {
    NewRecord { partition, timestamp_ms, key: None, value: value.as_bytes() }
}

/// Reads a partition from `offset` to its end and gives each record to `each`.
pub fn for_each(topic: &Topic, partition: u32, mut offset: u64, mut each: impl FnMut(Record<'_>)) {
    loop {
        let ReadOutcome::Batches(batches) = topic.read(partition, offset, 1 << 20).expect("reads") else {
            panic!("offset {offset} of partition {partition} cannot be read");
        };
        let Some(last) = batches.last() else { return };
        for record in batches.iter().flatten() {
            assert_eq!(record.offset, offset, "offsets have no holes");
            offset += 1;
            each(record);
        }
        assert_eq!(last.next_offset(), offset);
    }
}

/// The values of a partition from `offset` on.
pub fn values(topic: &Topic, partition: u32, offset: u64) -> Vec<String> {
    let mut values = Vec::new();
    for_each(topic, partition, offset, |record| values.push(String::from_utf8_lossy(record.value).into_owned()));
    values
}
