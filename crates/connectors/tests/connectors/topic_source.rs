//! Topics as a source: positions, starts, bounds, tailing.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_connectors::conformance::{Driven, check_bounded_source};
use tidemill_connectors::format::{Json, Text};
use tidemill_connectors::topic::{TopicSource, TopicStart};
use tidemill_core::Kind;
use tidemill_core::source::{Boundedness, Poll, Source, SourceOutput};
use tidemill_topic::{NewRecord, Topic, TopicConfig, Topics};

fn topic(partitions: u32) -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().unwrap();
    let config = TopicConfig { partitions, retention_ms: Some(1_000_000), retention_bytes: None };
    let topic = Topics::open(folder.path()).unwrap().create("t", &config).unwrap();
    (folder, topic)
}

/// Appends `values`, value n to partition n modulo partitions, with timestamp n.
fn append(topic: &Topic, values: std::ops::Range<u64>) {
    let texts: Vec<(u64, String)> = values.map(|n| (n, n.to_string())).collect();
    let records: Vec<NewRecord> = texts
        .iter()
        .map(|(n, text)| NewRecord {
            partition: *n as u32 % topic.partitions(),
            timestamp_ms: *n as i64,
            key: None,
            value: text.as_bytes(),
        })
        .collect();
    topic.append(&records, None, 0).unwrap();
}

fn read_all(source: &TopicSource<Json<u64>>) -> Vec<u64> {
    let mut driven = Driven::start(source, 0, 1, &source.splits().unwrap());
    assert!(driven.run_until(100, |_| false));
    let mut all: Vec<u64> = driven.records.into_values().flatten().collect();
    all.sort();
    all
}

#[test]
fn every_record_comes_once_also_after_restarts() {
    let (folder, topic) = topic(4);
    append(&topic, 0..25);
    append(&topic, 25..40);
    topic.append(&[NewRecord { partition: 1, timestamp_ms: 0, key: None, value: b"bad" }], None, 0).unwrap();
    let source = TopicSource::new(folder.path(), "t", Json::<u64>::new()).bounded(true);
    assert_eq!(source.boundedness(), Boundedness::Bounded);
    check_bounded_source(&source, &(0..40).collect::<Vec<_>>(), 1);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    driven.run_until(100, |_| false);
    assert_eq!(driven.rejected[0].position, "partition 1 offset 10");
    assert_eq!(driven.reader().pending_records(), Some(0));
}

#[test]
fn it_begins_where_it_is_told() {
    let (folder, topic) = topic(2);
    append(&topic, 0..10);
    let source = |start| TopicSource::new(folder.path(), "t", Json::<u64>::new()).bounded(true).start(start);
    assert_eq!(read_all(&source(TopicStart::Earliest)), (0..10).collect::<Vec<_>>());
    assert_eq!(read_all(&source(TopicStart::Latest)), [0u64; 0]);
    assert_eq!(read_all(&source(TopicStart::Timestamp(7))), [7, 8, 9]);
    assert_eq!(read_all(&source(TopicStart::Timestamp(100))), [0u64; 0]);
    let offsets = TopicStart::Offsets(BTreeMap::from([(1, 4)]));
    assert_eq!(read_all(&source(offsets)), [0, 2, 4, 6, 8, 9]);
}

#[test]
fn where_it_began_is_settled_before_anything_is_read() {
    let (folder, topic) = topic(1);
    append(&topic, 0..5);
    let source = TopicSource::new(folder.path(), "t", Json::<u64>::new()).start(TopicStart::Latest);
    let snapshot = Driven::start(&source, 0, 1, &source.splits().unwrap()).snapshot();
    append(&topic, 5..7);
    let mut driven = Driven::start(&source, 0, 1, &snapshot);
    driven.run_until(100, |driven| driven.count == 2);
    assert_eq!(driven.records["partition-0"], [5, 6]);
    // And the end of a bounded one stays where it was.
    let bounded = source.start(TopicStart::Earliest).bounded(true);
    let snapshot = Driven::start(&bounded, 0, 1, &bounded.splits().unwrap()).snapshot();
    append(&topic, 7..9);
    let mut driven = Driven::start(&bounded, 0, 1, &snapshot);
    assert!(driven.run_until(100, |_| false));
    assert_eq!(driven.records["partition-0"], (0..7).collect::<Vec<_>>());
}

#[test]
fn started_again_bounded_it_ends_and_unbounded_it_goes_on() {
    let (folder, topic) = topic(1);
    append(&topic, 0..5);
    let unbounded = TopicSource::new(folder.path(), "t", Json::<u64>::new());
    let bounded = unbounded.clone().bounded(true);
    let snapshot = Driven::start(&unbounded, 0, 1, &unbounded.splits().unwrap()).snapshot();
    let mut driven = Driven::start(&bounded, 0, 1, &snapshot);
    assert!(driven.run_until(100, |_| false), "what ran without an end has one now");
    assert_eq!(driven.records["partition-0"], [0, 1, 2, 3, 4]);
    let snapshot = driven.snapshot();
    append(&topic, 5..7);
    let mut driven = Driven::start(&unbounded, 0, 1, &snapshot);
    driven.run_until(100, |driven| driven.count == 2);
    assert_eq!(driven.records["partition-0"], [5, 6], "what had an end has none now");
}

#[test]
fn a_tailing_reader_is_woken_by_new_records_and_knows_how_many_wait() {
    let (folder, topic) = topic(3);
    let source = TopicSource::new(folder.path(), "t", Json::<u64>::new());
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    for round in 0..20 {
        append(&topic, round * 3..round * 3 + 3);
        assert!(!driven.run_until(2, |driven| driven.count as u64 == round * 3 + 3));
    }
    assert_eq!(driven.poll(10).unwrap(), Poll::Pending { wake_at_ms: None });
    append(&topic, 60..63);
    crate::wait_until("the records that wait are counted", || driven.reader().pending_records() == Some(3));
    let mut output = SourceOutput::with_capacity(10);
    crate::wait_until("they are read", || {
        driven.reader().poll(&mut output).unwrap();
        output.room() == 7
    });
    let (records, _) = output.take();
    assert!(records.iter().all(|(timestamp_ms, value)| *timestamp_ms == *value as i64));
}

#[test]
fn lost_records_fail_the_source_or_are_skipped() {
    let (folder, topic) = topic(1);
    append(&topic, 0..3);
    let source = TopicSource::new(folder.path(), "t", Json::<u64>::new()).bounded(true);
    let snapshot = Driven::start(&source, 0, 1, &source.splits().unwrap()).snapshot();
    topic.enforce_retention(2_000_000).unwrap();
    let failed = |source: &TopicSource<Json<u64>>, splits: &[_]| {
        let mut driven = Driven::start(source, 0, 1, splits);
        loop {
            match driven.poll(10) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => return error,
            }
        }
    };
    let error = failed(&source, &snapshot);
    assert!(error.kind() == Kind::Input && error.to_string().contains("records 0 to 2 were deleted"), "{error}");
    append(&topic, 3..5);
    let skipping = source.clone().skip_lost_records(true).bounded(false);
    let mut beyond = snapshot.clone();
    beyond[0].position = serde_json::json!({ "next": 1 });
    let mut driven = Driven::start(&skipping, 0, 1, &beyond);
    driven.run_until(10, |driven| driven.count == 2);
    assert_eq!(driven.records["partition-0"], [3, 4]);
    beyond[0].position = serde_json::json!({ "next": 100 });
    let error = failed(&skipping, &beyond);
    assert!(error.to_string().contains("offset 100, but it ends at 5"), "{error}");
    beyond[0].position = serde_json::json!("nonsense");
    let (_alarm, waker) = tidemill_connectors::conformance::Alarm::new();
    let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
    let context = tidemill_core::source::ReaderContext::new(0, 1, waker, clock);
    assert!(source.reader(context).unwrap().add_splits(beyond).is_err());
}

#[test]
fn a_topic_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = TopicSource::new(folder.path(), "nothing", Text);
    let error = source.splits().expect_err("no topic");
    assert!(error.to_string().contains("there is no topic `nothing`"), "{error}");
}

/// Waiting costs next to nothing, and new records are there within 10 ms (here: with much room for a busy machine).
#[test]
fn an_idle_reader_hardly_uses_the_processor() {
    // A name of its own: the thread is found by it.
    let folder = tempfile::tempdir().unwrap();
    Topics::open(folder.path()).unwrap().create("idle", &TopicConfig::default()).unwrap();
    let source = TopicSource::new(folder.path(), "idle", Text);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    assert!(matches!(driven.poll(10).unwrap(), Poll::Pending { .. }));
    let switches = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let of_reader = |status: &String| status.starts_with("Name:\ttopic idle [0]");
        let statuses = tasks.flatten().flat_map(|task| std::fs::read_to_string(task.path().join("status")));
        let status: String = statuses.filter(of_reader).collect();
        let counts = status.lines().filter(|line| line.starts_with("voluntary_ctxt_switches:"));
        counts.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    crate::wait_until("the reader's thread is there", || switches() > 0);
    // Nobody wakes up more than some times a second, whatever the machine is like.
    let (alarm, _waker) = tidemill_connectors::conformance::Alarm::new();
    let before = switches();
    assert!(!alarm.wait(Duration::from_secs(1)));
    assert!(switches() - before <= 20, "woke up {} times in a second", switches() - before);
}
