//! Topics as a sink: exactly once, or at least once.

use tidemill_connectors::conformance::{Alarm, Target, check_two_phase_sink, scope, write, writer_context};
use tidemill_connectors::format::Json;
use tidemill_connectors::topic::TopicSink;
use tidemill_core::Kind;
use tidemill_core::NO_TIMESTAMP;
use tidemill_core::sink::Sink;
use tidemill_topic::{ReadOutcome, Topic, TopicConfig, Topics};

/// All records: partition, timestamp, key, value.
fn records(topic: &Topic) -> Vec<(u32, i64, Option<Vec<u8>>, u64)> {
    let mut all = Vec::new();
    for partition in 0..topic.partitions() {
        let ReadOutcome::Batches(batches) = topic.read(partition, 0, usize::MAX).unwrap() else { panic!("reads") };
        for record in batches.iter().flatten() {
            let value = serde_json::from_slice(record.value).unwrap();
            all.push((partition, record.timestamp_ms, record.key.map(<[u8]>::to_vec), value));
        }
    }
    all
}

fn topic(folder: &tempfile::TempDir) -> Topic {
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    Topics::open(folder.path()).unwrap().open_or_create("t", &config).unwrap()
}

#[test]
fn it_is_exactly_once_whatever_happens() {
    check_two_phase_sink(
        || {
            let folder = tempfile::tempdir().unwrap();
            let topic = topic(&folder);
            let sink = TopicSink::new(folder.path(), "t", Json::<u64>::new()).key(|n: &u64| n.to_le_bytes().to_vec());
            let published = move || {
                let _kept = &folder;
                records(&topic).into_iter().map(|(_, _, _, value)| value).collect()
            };
            Target { sink: Box::new(sink), published: Box::new(published) }
        },
        |n| n,
    );
}

#[test]
fn records_carry_key_partition_and_timestamp() {
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(&folder);
    let sink = TopicSink::new(folder.path(), "t", Json::<u64>::new()).key(|n: &u64| vec![*n as u8]);
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    write(&mut *writer, &alarm, vec![(5, 1), (NO_TIMESTAMP, 2)]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    assert_eq!(tokens.len(), 1);
    sink.committer(&scope()).unwrap().unwrap().commit(&tokens).unwrap();
    let mut read = records(&topic);
    read.sort_by_key(|record| record.3);
    let partition = |key: u8| topic.partition_for(&[key]);
    assert_eq!(read, [(partition(1), 5, Some(vec![1]), 1), (partition(2), 1_000_000, Some(vec![2]), 2)]);
}

#[test]
fn at_least_once_shows_records_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    let sink = TopicSink::new(folder.path(), "t", Json::<u64>::new()).at_least_once().create_if_missing(config);
    assert!(sink.committer(&scope()).unwrap().is_none());
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    let topic = topic(&folder);
    for n in 0..10 {
        write(&mut *writer, &alarm, vec![(0, n)]);
    }
    crate::wait_until("they are there before the checkpoint", || records(&topic).len() == 10);
    assert_eq!(writer.pre_commit(1).unwrap()().unwrap(), Vec::<Vec<u8>>::new());
    let mut values: Vec<u64> = records(&topic).into_iter().map(|record| record.3).collect();
    values.sort();
    assert_eq!(values, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_goes_away_fails_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    topic(&folder);
    let sink = TopicSink::new(folder.path(), "t", Json::<u64>::new());
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    Topics::open(folder.path()).unwrap().delete("t").unwrap();
    write(&mut *writer, &alarm, vec![(0, 1)]);
    let error = match writer.pre_commit(1) {
        Ok(close) => close().expect_err("the topic is gone"),
        Err(error) => error,
    };
    assert!(error.kind() == Kind::Input && error.to_string().contains("was deleted"), "{error}");
    assert!(writer.ready(), "so that the next write tells of it");
    assert!(writer.write(vec![(0, 2)]).is_err());
    assert!(sink.writer(writer_context(0, 1, 1, 1, Alarm::new().1)).is_err());
}
