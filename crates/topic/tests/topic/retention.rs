//! Old batches go by age and by size; reading below them says so.

use tidemill_topic::{ReadOutcome, Topic, TopicConfig, Topics};

use crate::{record, values};

fn topic(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TopicConfig { partitions: 2, retention_ms, retention_bytes };
    let topic = Topics::open(folder.path()).and_then(|topics| topics.create("t", &config)).expect("creates");
    (folder, topic)
}

#[test]
fn batches_older_than_the_limit_go() {
    let (_folder, topic) = topic(Some(100), None);
    topic.append(&[record(0, 9_999, "a"), record(0, 9_999, "b"), record(1, 0, "c")], None, 0).expect("appends");
    topic.append(&[record(0, 0, "d")], None, 90).expect("appends");
    assert_eq!(topic.enforce_retention(100).unwrap(), 0);
    assert_eq!(topic.enforce_retention(101).unwrap(), 3);
    assert!(matches!(topic.read(0, 1, 1).unwrap(), ReadOutcome::BelowEarliest { earliest: 2 }));
    assert_eq!((values(&topic, 0, 2), values(&topic, 1, 1)), (vec!["d".to_string()], Vec::new()));
    assert_eq!(topic.offset_for_timestamp(0, i64::MIN).unwrap(), 2);
    // Offsets go on even when all is gone.
    topic.enforce_retention(1_000).expect("enforces");
    let done = topic.append(&[record(0, 0, "e")], None, 1_000).expect("appends");
    assert_eq!((done.base_offsets, topic.earliest(0).unwrap()), (vec![(0, 3)], 3));
    assert_eq!(topic.info().unwrap().records, 1);
}

#[test]
fn the_oldest_batches_of_all_partitions_go_when_it_is_too_much() {
    let (_folder, topic) = topic(None, Some(2_500));
    let text = "x".repeat(1_000);
    for now_ms in 0..4 {
        topic.append(&[record(now_ms as u32 % 2, 0, &text)], None, now_ms).expect("appends");
    }
    assert_eq!(topic.enforce_retention(10).unwrap(), 2);
    assert_eq!((topic.earliest(0).unwrap(), topic.earliest(1).unwrap()), (1, 1));
    assert!(topic.info().unwrap().bytes <= 2_500);
}

#[test]
fn appending_keeps_the_size_within_bounds() {
    const LIMIT: u64 = 4 << 20;
    let (folder, topic) = topic(None, Some(LIMIT));
    let text = "x".repeat(100_000);
    let records: Vec<_> = (0..10).map(|i| record(i % 2, 0, &text)).collect();
    for now_ms in 0..100 {
        topic.append(&records, None, now_ms * 10).expect("appends");
        assert!(topic.info().unwrap().bytes <= LIMIT + (6 << 20), "step {now_ms}");
    }
    let file_bytes = std::fs::metadata(folder.path().join("t.topic")).expect("stands").len();
    assert!(file_bytes < 40 << 20, "freed pages are used again, but the file has {file_bytes} bytes");
}
