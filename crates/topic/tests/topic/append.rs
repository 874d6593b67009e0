//! Appending and reading in one process: order, offsets, idempotency, bounds.

use tidemill_core::Kind;
use tidemill_topic::{NewRecord, ReadOutcome, Topic, TopicConfig, Topics};

use crate::{record, values};

fn topic(partitions: u32) -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = Topics::open(folder.path()).expect("opens");
    let topic = topics.create("orders", &TopicConfig { partitions, ..TopicConfig::default() }).expect("creates");
    (folder, topic)
}

#[test]
fn records_are_read_in_order_from_any_offset() {
    let (_folder, topic) = topic(3);
    let texts: Vec<String> = (0..100).map(|i| format!("v{i}")).collect();
    for chunk in texts.chunks(7) {
        let records: Vec<_> = chunk.iter().map(|text| record(1, 5, text)).collect();
        topic.append(&records, None, 0).expect("appends");
    }
    for offset in 0..=100 {
        assert_eq!(values(&topic, 1, offset), texts[offset as usize..]);
    }
    assert_eq!((topic.earliest(1).unwrap(), topic.latest(1).unwrap()), (0, 100));
    assert_eq!((topic.latest(0).unwrap(), topic.latest(2).unwrap()), (0, 0));
}

#[test]
fn keys_and_timestamps_come_back() {
    let (_folder, topic) = topic(1);
    let given = NewRecord { partition: 0, timestamp_ms: -7, key: Some(b"k"), value: b"v" };
    topic.append(&[given], None, 0).expect("appends");
    crate::for_each(&topic, 0, 0, |read| {
        assert_eq!((read.timestamp_ms, read.key, read.value), (-7, Some(b"k".as_slice()), b"v".as_slice()));
    });
}

#[test]
fn one_append_goes_to_all_partitions_and_tells_the_offsets() {
    let (_folder, topic) = topic(3);
    topic.append(&[record(2, 0, "x")], None, 0).expect("appends");
    let done = topic.append(&[record(2, 0, "a"), record(0, 0, "b"), record(2, 0, "c")], None, 0).expect("appends");
    assert_eq!((done.duplicate, done.records, done.base_offsets), (false, 3, vec![(0, 0), (2, 1)]));
    assert_eq!(values(&topic, 2, 0), ["x", "a", "c"]);
    assert_eq!(topic.info().unwrap().records, 4);
}

#[test]
fn an_idempotency_key_makes_a_retry_harmless() {
    let (_folder, topic) = topic(1);
    let records = [record(0, 0, "a"), record(0, 0, "b")];
    assert!(!topic.append(&records, Some("r1"), 0).unwrap().duplicate);
    let again = topic.append(&records, Some("r1"), 1).unwrap();
    assert_eq!((again.duplicate, again.records), (true, 2));
    assert!(!topic.append(&records, Some("r2"), 2).unwrap().duplicate);
    assert_eq!(values(&topic, 0, 0), ["a", "b", "a", "b"]);
}

#[test]
fn an_idempotency_key_is_forgotten_after_its_time() {
    let (_folder, topic) = topic(1);
    topic.append(&[record(0, 0, "a")], Some("old"), 0).expect("appends");
    let later = Topic::IDEMPOTENCY_KEPT_MS + 1;
    topic.append(&[record(0, 0, "b")], Some("new"), later).expect("appends");
    assert!(!topic.append(&[record(0, 0, "a")], Some("old"), later).unwrap().duplicate);
    assert!(topic.append(&[record(0, 0, "b")], Some("new"), later).unwrap().duplicate);
}

#[test]
fn reading_outside_is_told_apart() {
    let (_folder, topic) = topic(1);
    topic.append(&[record(0, 0, "a")], None, 0).expect("appends");
    assert!(matches!(topic.read(0, 1, 1).unwrap(), ReadOutcome::Batches(batches) if batches.is_empty()));
    assert!(matches!(topic.read(0, 2, 1).unwrap(), ReadOutcome::AboveLatest { latest: 1 }));
    assert_eq!(topic.read(1, 0, 1).expect_err("no such partition").kind(), Kind::Input);
}

#[test]
fn wrong_records_change_nothing() {
    let (_folder, topic) = topic(2);
    let error = topic.append(&[record(0, 0, "a"), record(2, 0, "b")], None, 0).expect_err("no partition 2");
    assert_eq!((error.kind(), error.to_string().contains("no partition 2")), (Kind::Input, true));
    let long = "x".repeat(Topic::RECORD_BYTES_MAX + 1);
    assert_eq!(topic.append(&[record(0, 0, &long)], None, 0).expect_err("too long").kind(), Kind::Input);
    assert_eq!(topic.info().unwrap().records, 0);
    let longest = "x".repeat(Topic::RECORD_BYTES_MAX);
    topic.append(&[record(0, 0, "a"), record(0, 0, &longest), record(0, 0, "b")], None, 0).expect("fits");
    assert_eq!(values(&topic, 0, 0), ["a", &longest, "b"]);
}

#[test]
fn a_large_append_is_read_in_pieces() {
    let (_folder, topic) = topic(1);
    let text = "x".repeat(1000);
    let records: Vec<_> = (0..3000).map(|_| record(0, 0, &text)).collect();
    topic.append(&records, None, 0).expect("appends");
    let ReadOutcome::Batches(batches) = topic.read(0, 0, 1).unwrap() else { panic!("reads") };
    assert!(batches.len() == 1 && batches[0].bytes() <= Topic::BATCH_BYTES + 16, "one bounded batch");
    assert_eq!(values(&topic, 0, 0).len(), 3000);
}

#[test]
fn offsets_are_found_by_timestamp() {
    let (_folder, topic) = topic(1);
    for times in [[10, 30], [20, 40], [60, 50]] {
        topic.append(&times.map(|time| record(0, time, "x")), None, 0).expect("appends");
    }
    for (timestamp_ms, offset) in [(0, 0), (10, 0), (11, 1), (31, 3), (41, 4), (55, 4), (61, 6)] {
        assert_eq!(topic.offset_for_timestamp(0, timestamp_ms).unwrap(), offset, "from {timestamp_ms}");
    }
}

#[test]
fn threads_append_and_read_at_once() {
    const WRITERS: usize = 4;
    const APPENDS: usize = 25;
    let (folder, topic) = topic(2);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let own = Topics::open(folder.path()).and_then(|topics| topics.open_topic("orders")).expect("opens");
            // Two of them share a handle, two have their own.
            let topic = if writer % 2 == 0 { topic.clone() } else { own };
            scope.spawn(move || {
                for i in 0..APPENDS {
                    let text = format!("{writer}:{i}");
                    topic.append(&[record(0, 0, &text), record(1, 0, &text)], None, 0).expect("appends");
                }
            });
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        for partition in 0..2 {
            let topic = topic.clone();
            scope.spawn(move || {
                let mut read: Vec<String> = Vec::new();
                while read.len() < WRITERS * APPENDS {
                    assert!(std::time::Instant::now() < deadline, "everything arrives in time");
                    read.extend(values(&topic, partition, read.len() as u64));
                }
                for writer in 0..WRITERS {
                    let own = read.iter().filter(|text| text.starts_with(&format!("{writer}:")));
                    assert!(own.eq(&(0..APPENDS).map(|i| format!("{writer}:{i}")).collect::<Vec<_>>()));
                }
            });
        }
    });
}
