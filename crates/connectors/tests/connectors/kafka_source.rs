//! Kafka as a source: against a real broker.

use tidemill_connectors::conformance::{Driven, check_bounded_source};
use tidemill_connectors::format::{Json, Text};
use tidemill_connectors::kafka::{KafkaDecode, KafkaSource, KafkaStop, Values};
use tidemill_core::Kind;
use tidemill_core::source::{Boundedness, Source};

use crate::kafka_broker::Broker;

/// A bounded source over the values of a topic.
fn values(broker: &Broker, topic: &str) -> KafkaSource<Values<Text>> {
    KafkaSource::values(broker.servers(), Text).topics([topic]).bounded(KafkaStop::Latest)
}

/// Everything a bounded source gives, sorted.
pub fn read_all<D>(source: &KafkaSource<D>) -> Vec<D::Value>
where
    D: KafkaDecode,
    D::Value: Ord + Send + 'static,
{
    let splits = source.splits().unwrap();
    let mut driven = Driven::start(source, 0, 1, &splits);
    assert!(driven.run_until(100, |_| false), "it ends");
    let mut all: Vec<D::Value> = driven.records.into_values().flatten().collect();
    all.sort();
    all
}

#[test]
fn it_keeps_the_contract_of_sources() {
    let broker = Broker::shared();
    let topic = broker.topic("contract", 3);
    let mut peer = broker.peer();
    let numbers: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for (at, number) in numbers.iter().enumerate() {
        peer.write(&topic, at as i32 % 3, &[(at as i64, None, Some(number))]);
    }
    peer.write(&topic, 1, &[(0, Some("k"), Some("no number")), (0, Some("k"), None)]);
    let source = KafkaSource::values(broker.servers(), Json::<u64>::new()).topics([&topic]).bounded(KafkaStop::Latest);
    assert_eq!(source.boundedness(), Boundedness::Bounded);
    check_bounded_source(&source, &(0..40).collect::<Vec<u64>>(), 2);
}

#[test]
fn only_committed_records_are_read() {
    let broker = Broker::shared();
    let topic = broker.topic("committed", 1);
    let mut peer = broker.peer();
    peer.write(&topic, 0, &[(0, None, Some("plain"))]);
    peer.write_transaction(&format!("{topic}-a"), &topic, 0, &[(0, None, Some("aborted"))], Some(false));
    peer.write_transaction(&format!("{topic}-b"), &topic, 0, &[(0, None, Some("committed"))], Some(true));
    // The same producer, first so, then otherwise.
    peer.write_transaction(&format!("{topic}-b"), &topic, 0, &[(0, None, Some("aborted too"))], Some(false));
    peer.write_transaction(&format!("{topic}-a"), &topic, 0, &[(0, None, Some("later"))], Some(true));
    peer.write_transaction(&format!("{topic}-c"), &topic, 0, &[(0, None, Some("open"))], None);
    peer.write(&topic, 0, &[(0, None, Some("behind the open one"))]);
    assert_eq!(read_all(&values(broker, &topic)), ["committed", "later", "plain"]);
    let every = read_all(&values(broker, &topic).read_uncommitted());
    assert_eq!(every.len(), 7, "{every:?}");
    assert!(every.contains(&"open".to_string()) && every.contains(&"aborted too".to_string()));
}

#[test]
fn records_come_with_all_kafka_knows_of_them() {
    let broker = Broker::shared();
    let topic = broker.topic("metadata", 2);
    let mut peer = broker.peer();
    peer.write(&topic, 1, &[(1_000, Some("k"), Some("v")), (2_000, None, None)]);
    let source = KafkaSource::records(broker.servers(), |record| {
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let origin = record.headers.last("origin").flatten().map(<[u8]>::to_vec);
        assert!(!record.is_log_append_time && record.leader_epoch >= 0);
        let place = (record.topic.to_string(), record.partition, record.offset);
        Ok((place, record.timestamp_ms, text(record.key), text(record.value), origin))
    });
    let source = source.topics([&topic]).bounded(KafkaStop::Latest);
    let origin = Some(b"peer".to_vec());
    let expected = [
        ((topic.clone(), 1, 0), 1_000, Some("k".to_string()), Some("v".to_string()), origin.clone()),
        ((topic.clone(), 1, 1), 2_000, None, None, origin),
    ];
    assert_eq!(read_all(&source), expected);

    let both = KafkaSource::keys_and_values(broker.servers(), Text, Text).topics([&topic]).bounded(KafkaStop::Latest);
    assert_eq!(read_all(&both), [(None, None), (Some("k".into()), Some("v".into()))]);
    // Kafka's timestamps are the records' own.
    let splits = both.splits().unwrap();
    let mut driven = Driven::start(&both, 0, 1, &splits);
    let mut output = tidemill_core::source::SourceOutput::with_capacity(10);
    crate::wait_until("both are there", || {
        driven.reader().poll(&mut output).unwrap();
        output.room() == 8
    });
    let timestamps: Vec<i64> = output.take().0.into_iter().map(|(timestamp_ms, _)| timestamp_ms).collect();
    assert_eq!(timestamps, [1_000, 2_000]);
}

#[test]
fn the_time_of_the_broker_counts_where_the_topic_says_so() {
    let broker = Broker::shared();
    let topic = broker.topic("append-time", 1);
    let mut peer = broker.peer();
    let appended = format!("{topic}-broker");
    peer.create(&appended, 1, &[("message.timestamp.type", "LogAppendTime")]);
    peer.write(&appended, 0, &[(1_000, None, Some("v"))]);
    let source = KafkaSource::records(broker.servers(), |record| Ok((record.is_log_append_time, record.timestamp_ms)));
    let read = read_all(&source.topics([appended]).bounded(KafkaStop::Latest));
    assert!(read[0].0 && read[0].1 > 1_600_000_000_000, "{read:?}");
}

#[test]
fn topics_are_found_by_pattern_and_partitions_by_number() {
    let broker = Broker::shared();
    let one = broker.topic("pattern-one", 2);
    let two = broker.topic("pattern-two", 1);
    let mut peer = broker.peer();
    peer.write(&one, 0, &[(0, None, Some("1/0"))]);
    peer.write(&one, 1, &[(0, None, Some("1/1"))]);
    peer.write(&two, 0, &[(0, None, Some("2/0"))]);
    let source = KafkaSource::values(broker.servers(), Text).bounded(KafkaStop::Latest);
    let pattern = source.clone().topic_pattern("pattern-(one|two)-[0-9]+").unwrap();
    assert_eq!(read_all(&pattern), ["1/0", "1/1", "2/0"]);
    // The whole name has to match.
    assert_eq!(read_all(&source.clone().topic_pattern("pattern-two").unwrap()), Vec::<String>::new());
    assert_eq!(read_all(&source.clone().partitions([(&one, 1), (&two, 0)])), ["1/1", "2/0"]);
    let told = |source: KafkaSource<Values<Text>>| source.splits().unwrap_err();
    assert!(told(source.clone().partitions([(&one, 2)])).to_string().contains("has no partition 2"));
    let error = told(source.topics([&one, "no-such-topic"]));
    assert!(error.kind() == Kind::Input && error.to_string().contains("`no-such-topic`"), "{error}");
}

#[test]
fn a_new_partition_is_found_and_read_from_its_beginning() {
    let broker = Broker::shared();
    let topic = broker.topic("grows", 1);
    let mut peer = broker.peer();
    peer.write(&topic, 0, &[(0, None, Some("old"))]);
    let source = KafkaSource::values(broker.servers(), Text)
        .topics([&topic])
        .start(tidemill_connectors::kafka::KafkaStart::Latest)
        .partition_discovery_interval_ms(20);
    assert_eq!(source.discovery_interval_ms(), Some(10), "found at one look, taken at the next");
    assert_eq!(source.clone().partition_discovery_interval_ms(0).discovery_interval_ms(), None);
    assert_eq!(source.clone().bounded(KafkaStop::Latest).discovery_interval_ms(), None);
    let splits = source.splits().unwrap();
    let mut driven = Driven::start(&source, 0, 1, &splits);
    peer.grow(&topic, 2);
    peer.write(&topic, 1, &[(0, None, Some("new partition"))]);
    peer.write(&topic, 0, &[(0, None, Some("new record"))]);
    crate::wait_until("the new partition is found", || source.splits().unwrap().len() == 2);
    let new: Vec<_> = source.splits().unwrap().into_iter().filter(|split| !splits.contains(split)).collect();
    driven.reader().add_splits(new).unwrap();
    let mut output = tidemill_core::source::SourceOutput::with_capacity(10);
    crate::wait_until("both are read", || {
        driven.reader().poll(&mut output).unwrap();
        output.room() == 8
    });
    let mut read: Vec<String> = output.take().0.into_iter().map(|(_, value)| value).collect();
    read.sort();
    assert_eq!(read, ["new partition", "new record"], "and not what was there before the start");
    crate::wait_until("nothing waits any more", || driven.reader().pending_records() == Some(0));
}

#[test]
fn records_deleted_before_they_were_read_are_told() {
    use tidemill_connectors::kafka::{KafkaReset, KafkaStart};
    let broker = Broker::shared();
    let topic = broker.topic("lost", 1);
    let mut peer = broker.peer();
    peer.write(&topic, 0, &[(0, None, Some("a")), (0, None, Some("b")), (0, None, Some("c"))]);
    peer.delete_before(&topic, 0, 2);
    let start = KafkaStart::Offsets([((topic.clone(), 0), 1)].into(), KafkaReset::Fail);
    let source = values(broker, &topic).start(start);
    let splits = source.splits().unwrap();
    let mut driven = Driven::start(&source, 0, 1, &splits);
    let mut failure = None;
    crate::wait_until("it fails", || {
        failure = driven.poll(10).err();
        failure.is_some()
    });
    let error = failure.unwrap().to_string();
    assert!(error.contains("no record at offset 1") && error.contains("on_lost_records"), "{error}");
    assert_eq!(read_all(&source.clone().on_lost_records(KafkaReset::Earliest)), ["c"]);
    assert_eq!(read_all(&source.on_lost_records(KafkaReset::Latest)), Vec::<String>::new());
}

#[test]
fn no_partition_waits_until_another_is_read() {
    let broker = Broker::shared();
    let topic = broker.topic("turns", 3);
    let mut peer = broker.peer();
    let long = "x".repeat(1_000);
    for partition in 0..3 {
        for _ in 0..60 {
            peer.write(&topic, partition, &[(0, None, Some(&long))]);
        }
    }
    // An answer has room for a few records of one partition.
    let source = values(broker, &topic).fetch_bytes_max(4_096, 4_096);
    let splits = source.splits().unwrap();
    let mut driven = Driven::start(&source, 0, 1, &splits);
    assert!(!driven.run_until(1, |driven| driven.records.len() == 3));
    assert!(driven.count < 60, "{} records before the third partition had its turn", driven.count);
}
