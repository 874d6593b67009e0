//! Where a Kafka source begins and ends, and what it commits to its group.

use tidemill_connectors::conformance::Driven;
use tidemill_connectors::format::Text;
use tidemill_connectors::kafka::{KafkaReset, KafkaSource, KafkaStart, KafkaStop, Values};
use tidemill_core::source::{Source, Split};

use crate::kafka_broker::Broker;
use crate::kafka_source::read_all;

/// A topic of two partitions with records `a` to `f` (timestamps 1000 to 6000) in one and `A` to `C` (1500 to 3500) in the
/// other.
fn topic(broker: &Broker, name: &str) -> String {
    let topic = broker.topic(name, 2);
    let mut peer = broker.peer();
    for (at, value) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        peer.write(&topic, 0, &[(1_000 * (at as i64 + 1), None, Some(value))]);
    }
    for (at, value) in ["A", "B", "C"].into_iter().enumerate() {
        peer.write(&topic, 1, &[(1_000 * (at as i64 + 1) + 500, None, Some(value))]);
    }
    topic
}

fn source(broker: &Broker, topic: &str) -> KafkaSource<Values<Text>> {
    KafkaSource::values(broker.servers(), Text).topics([topic]).bounded(KafkaStop::Latest)
}

/// Reads all of a bounded source as a job does that completes a checkpoint at the end.
fn read_and_commit(source: &KafkaSource<Values<Text>>, splits: &[Split]) -> Vec<Split> {
    let mut driven = Driven::start(source, 0, 1, splits);
    assert!(driven.run_until(100, |_| false));
    let snapshot = driven.snapshot();
    driven.reader().checkpoint_complete(1).unwrap();
    snapshot
}

#[test]
fn each_start_begins_where_it_says() {
    let broker = Broker::shared();
    let topic = topic(broker, "starts");
    let from = |start| read_all(&source(broker, &topic).start(start)).concat();
    assert_eq!(from(KafkaStart::Earliest), "ABCabcdef");
    assert_eq!(from(KafkaStart::Latest), "");
    assert_eq!(from(KafkaStart::Timestamp(3_000)), "Ccdef");
    assert_eq!(from(KafkaStart::Timestamp(3_600)), "def", "behind the newest where none is as new");
    let offsets = || [((topic.clone(), 0), 4)].into();
    assert_eq!(from(KafkaStart::Offsets(offsets(), KafkaReset::Earliest)), "ABCef");
    assert_eq!(from(KafkaStart::Offsets(offsets(), KafkaReset::Latest)), "ef");
    let failed = source(broker, &topic).start(KafkaStart::Offsets(offsets(), KafkaReset::Fail));
    let splits = failed.splits().unwrap();
    let (_, waker) = tidemill_connectors::conformance::Alarm::new();
    let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
    let context = tidemill_core::source::ReaderContext::new(0, 1, waker, clock);
    let error = failed.reader(context).unwrap().add_splits(splits).unwrap_err().to_string();
    assert!(error.contains("no offset to start at is given for partition 1"), "{error}");
}

#[test]
fn each_stop_ends_where_it_says() {
    let broker = Broker::shared();
    let topic = topic(broker, "stops");
    let to = |stop| read_all(&source(broker, &topic).bounded(stop)).concat();
    assert_eq!(to(KafkaStop::Latest), "ABCabcdef");
    assert_eq!(to(KafkaStop::Timestamp(3_000)), "ABab");
    assert_eq!(to(KafkaStop::Timestamp(9_000)), "ABCabcdef");
    assert_eq!(to(KafkaStop::Offsets([((topic.clone(), 0), 1), ((topic.clone(), 1), 0)].into())), "a");
    assert_eq!(to(KafkaStop::Offsets([((topic.clone(), 0), 2)].into())), "ABCab");
    assert_eq!(read_all(&source(broker, &topic).bounded(KafkaStop::GroupOffsets).group_id("stops-nobody")).len(), 0);
}

#[test]
fn an_end_stays_where_it_was_over_a_restart() {
    let broker = Broker::shared();
    let topic = topic(broker, "end-stays");
    let source = source(broker, &topic);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    driven.run_until(1, |driven| driven.count == 2);
    let snapshot = driven.snapshot();
    broker.peer().write(&topic, 0, &[(0, None, Some("too late"))]);
    let mut rest = Driven::start(&source, 0, 1, &snapshot);
    assert!(rest.run_until(100, |_| false));
    assert_eq!(driven.count + rest.count, 9);
    assert!(!rest.records.values().flatten().any(|value| value == "too late"));
}

#[test]
fn offsets_go_to_the_group_when_a_checkpoint_completes() {
    let broker = Broker::shared();
    let topic = topic(broker, "group");
    let mut peer = broker.peer();
    let group = format!("{topic}-group");
    let of_group = |reset| source(broker, &topic).group_id(&group).start(KafkaStart::GroupOffsets(reset));
    assert_eq!(read_all(&of_group(KafkaReset::Latest)).len(), 0, "nothing is committed yet");
    assert_eq!(peer.committed(&group, &topic, 0), -1, "and reading alone commits nothing");

    let to_three = of_group(KafkaReset::Earliest).bounded(KafkaStop::Offsets([((topic.clone(), 0), 3)].into()));
    let at_end = read_and_commit(&to_three, &to_three.splits().unwrap());
    assert_eq!((peer.committed(&group, &topic, 0), peer.committed(&group, &topic, 1)), (3, 3));
    assert_eq!(read_all(&of_group(KafkaReset::Fail)).concat(), "def", "a new job goes on behind them");
    assert_eq!(read_all(&source(broker, &topic).group_id(&group).bounded(KafkaStop::GroupOffsets)).concat(), "ABCabc");

    // Without a group nothing is committed, and a restored job does not ask the group.
    peer.write(&topic, 0, &[(0, None, Some("g"))]);
    let anonymous = source(broker, &topic).start(KafkaStart::Earliest);
    read_and_commit(&anonymous, &at_end);
    assert_eq!(peer.committed(&group, &topic, 0), 3);
    let unnamed = source(broker, &topic).start(KafkaStart::GroupOffsets(KafkaReset::Earliest));
    let (_, waker) = tidemill_connectors::conformance::Alarm::new();
    let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
    let context = tidemill_core::source::ReaderContext::new(0, 1, waker, clock);
    let splits = unnamed.splits().unwrap();
    let error = unnamed.reader(context).unwrap().add_splits(splits).unwrap_err().to_string();
    assert!(error.contains("no group is given"), "{error}");
}

/// Reads a partition to its end with a reader of one's own, and returns what came.
fn read_with(
    source: &KafkaSource<tidemill_connectors::kafka::Values<tidemill_connectors::format::Text>>,
    context: tidemill_core::source::ReaderContext,
    splits: Vec<tidemill_core::source::Split>,
) -> (Vec<String>, Box<dyn tidemill_core::source::SourceReader<String>>) {
    let mut reader = source.reader(context).unwrap();
    reader.add_splits(splits).unwrap();
    let mut read = Vec::new();
    crate::wait_until("all is read", || {
        let mut output = tidemill_core::source::SourceOutput::with_capacity(100);
        let polled = reader.poll(&mut output).unwrap();
        read.extend(output.take().0.into_iter().map(|(_, value)| value));
        polled == tidemill_core::source::Poll::End
    });
    (read, reader)
}

#[test]
fn a_restored_subtask_begins_new_partitions_at_their_oldest_record() {
    let broker = Broker::shared();
    let topic = topic(broker, "restored");
    let source = source(broker, &topic).start(KafkaStart::Latest).bounded(KafkaStop::Latest);
    for (restored, expected) in [(false, 0), (true, 9)] {
        let (_, waker) = tidemill_connectors::conformance::Alarm::new();
        let clock = std::sync::Arc::new(tidemill_core::ManualClock::new(0));
        let mut context = tidemill_core::source::ReaderContext::new(0, 1, waker, clock);
        context.restored = restored;
        // It holds none of the splits restored, and gets those that are new.
        assert_eq!(read_with(&source, context, source.splits().unwrap()).0.len(), expected, "restored: {restored}");
    }
}
