//! Kafka as a sink: against a real broker.

use std::sync::Arc;

use tidemill_connectors::conformance::{Alarm, Target, check_two_phase_sink, scope, write, writer_context};
use tidemill_connectors::format::{Json, Text};
use tidemill_connectors::kafka::{
    KafkaCompression, KafkaDelivery, KafkaPartitioner, KafkaSink, KafkaSource, KafkaStop,
};
use tidemill_core::sink::{Sink, SinkWriter, Token};
use tidemill_core::{Error, Kind, NO_TIMESTAMP};

use crate::kafka_broker::Broker;
use crate::kafka_source::read_all;

type Writer = Box<dyn SinkWriter<String>>;

fn open(sink: &KafkaSink<String, Text>, attempt: u64) -> (Writer, Arc<Alarm>) {
    let (alarm, waker) = Alarm::new();
    (sink.writer(writer_context(0, 1, 1, attempt, waker)).unwrap(), alarm)
}

/// Writes and closes the epoch.
fn pre_commit(writer: &mut Writer, alarm: &Alarm, records: &[&str], epoch: u64) -> Result<Vec<Token>, Error> {
    let batch = records.iter().map(|record| (0, record.to_string())).collect();
    while !writer.ready() {
        assert!(alarm.wait(tidemill_connectors::conformance::DEADLINE));
    }
    writer.write(batch)?;
    writer.pre_commit(epoch)?()
}

fn commit(sink: &KafkaSink<String, Text>, tokens: &[Token]) -> Result<(), Error> {
    sink.committer(&scope()).unwrap().unwrap().commit(tokens)
}

#[test]
fn it_is_exactly_once_whatever_happens() {
    let broker = Broker::shared();
    check_two_phase_sink(
        || {
            let topic = broker.topic("two-phase", 2);
            let sink = KafkaSink::new(broker.servers(), &topic, Json::<u64>::new())
                .key(|n: &u64, key| key.extend(n.to_le_bytes()))
                .transactional_id_prefix(&topic);
            let published =
                move || broker.peer().values(&topic, 2).iter().map(|value| value.parse().unwrap()).collect();
            Target { sink: Box::new(sink), published: Box::new(published) }
        },
        |n| n,
    );
}

#[test]
fn records_carry_key_headers_partition_and_timestamp() {
    let broker = Broker::shared();
    let topic = broker.topic("carry", 3);
    let sink = KafkaSink::new(broker.servers(), &topic, Text)
        .key(|record: &String, key| key.extend(record.bytes().take(1)))
        .headers(|record| vec![("length".to_string(), record.len().to_string().into_bytes())])
        .delete_when(|record| record.ends_with("gone"))
        .delivery(KafkaDelivery::AtLeastOnce);
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    let records = vec![(5, "apple".to_string()), (NO_TIMESTAMP, "berry".to_string()), (7, "c is gone".to_string())];
    write(&mut *writer, &alarm, records);
    assert!(writer.pre_commit(1).unwrap()().unwrap().is_empty());
    let mut seen = broker.peer().read(&topic, 3);
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    let texts: Vec<_> = seen.iter().map(|seen| seen.value.as_deref().map(String::from_utf8_lossy)).collect();
    assert_eq!(texts, [Some("apple".into()), Some("berry".into()), None]);
    assert_eq!(seen.iter().map(|seen| seen.timestamp_ms).collect::<Vec<_>>(), [5, 1_000_000, 7]);
    assert_eq!(seen[1].headers, [("length".to_string(), b"5".to_vec())]);
    for seen in &seen {
        let key = seen.key.as_deref().unwrap();
        assert_eq!(seen.partition as u32, tidemill_topic::partition_for(key, 3), "as Kafka's own producers do");
    }
}

#[test]
fn every_compression_passes_the_broker_and_comes_back() {
    let broker = Broker::shared();
    let all = [
        KafkaCompression::None,
        KafkaCompression::Gzip,
        KafkaCompression::Snappy,
        KafkaCompression::Lz4,
        KafkaCompression::Zstd,
    ];
    for compression in all {
        let topic = broker.topic("packed", 1);
        let sink = KafkaSink::new(broker.servers(), &topic, Text)
            .compression(compression)
            // Several batches.
            .batch_bytes_max(20_000)
            .delivery(KafkaDelivery::AtLeastOnce);
        let (mut writer, alarm) = open(&sink, 1);
        let records: Vec<String> = (0..3_000).map(|n| format!("record {n:05} {}", "ab".repeat(n % 40))).collect();
        let texts: Vec<&str> = records.iter().map(String::as_str).collect();
        pre_commit(&mut writer, &alarm, &texts, 1).unwrap();
        let source = KafkaSource::values(broker.servers(), Text).topics([&topic]).bounded(KafkaStop::Latest);
        assert!(read_all(&source) == records, "{compression:?}");
    }
}

#[test]
fn partitioners_spread_records() {
    let broker = Broker::shared();
    let spread = |partitioner: KafkaPartitioner<String>| {
        let topic = broker.topic("spread", 3);
        let sink = KafkaSink::new(broker.servers(), &topic, Text)
            .partitioner(partitioner)
            .delivery(KafkaDelivery::AtLeastOnce);
        let (mut writer, alarm) = open(&sink, 1);
        pre_commit(&mut writer, &alarm, &["a", "b", "c", "d", "e", "f"], 1).unwrap();
        let seen = broker.peer().read(&topic, 3);
        [0, 1, 2].map(|partition| seen.iter().filter(|seen| seen.partition == partition).count())
    };
    assert_eq!(spread(KafkaPartitioner::RoundRobin), [2, 2, 2]);
    assert_eq!(spread(KafkaPartitioner::Subtask), [6, 0, 0]);
    let mut sticky = spread(KafkaPartitioner::Sticky);
    sticky.sort();
    assert_eq!(sticky, [0, 0, 6]);
    assert_eq!(spread(KafkaPartitioner::By(Arc::new(|record, _| record.len()))), [0, 6, 0]);
}

#[test]
fn each_record_may_name_its_topic() {
    let broker = Broker::shared();
    let topics = [broker.topic("by-name", 1), broker.topic("by-name", 2)];
    let names = topics.clone();
    let sink = KafkaSink::new(broker.servers(), "", Text)
        .topic_by(move |record: &String| names[usize::from(record.starts_with('b'))].clone())
        .transactional_id_prefix(&topics[0]);
    sink.recover(&scope(), &[]).unwrap();
    let (mut writer, alarm) = open(&sink, 1);
    let tokens = pre_commit(&mut writer, &alarm, &["a", "b", "ab", "ba"], 1).unwrap();
    assert_eq!(tokens.len(), 1, "one transaction over all topics");
    commit(&sink, &tokens).unwrap();
    let mut second = broker.peer().values(&topics[1], 2);
    second.sort();
    assert_eq!(
        (broker.peer().values(&topics[0], 1), second),
        (vec!["a".into(), "ab".into()], vec!["b".into(), "ba".into()])
    );
}

#[test]
fn a_transaction_timeout_that_cannot_work_is_refused() {
    let broker = Broker::shared();
    let topic = broker.topic("timeouts", 1);
    let sink = |timeout_ms| {
        KafkaSink::new(broker.servers(), &topic, Text).transaction_timeout_ms(timeout_ms).restart_allowance_ms(5_000)
    };
    let too_long: Error = Sink::<String>::recover(&sink(900_001), &scope(), &[]).unwrap_err();
    assert_eq!(too_long.kind(), Kind::Input);
    assert!(too_long.to_string().contains("`transaction.max.timeout.ms` is 900000"), "{too_long}");
    Sink::<String>::recover(&sink(900_000), &scope(), &[]).unwrap();
    let writer =
        |timeout_ms| -> Result<Writer, Error> { sink(timeout_ms).writer(writer_context(0, 1, 1, 1, Alarm::new().1)) };
    // The checks make a checkpoint every 10 s.
    let too_short = writer(14_999).err().expect("refused");
    assert!(
        too_short.kind() == Kind::Input && too_short.to_string().contains("make it 15000 ms or longer"),
        "{too_short}"
    );
    assert!(writer(15_000).is_ok());
}

#[test]
fn a_transaction_aborted_by_its_timeout_is_told_and_never_passed_over() {
    let broker = Broker::shared();
    let topic = broker.topic("aborted", 1);
    let sink = KafkaSink::new(broker.servers(), &topic, Text)
        .transactional_id_prefix(&topic)
        .transaction_timeout_ms(11_000)
        .restart_allowance_ms(1_000);
    // Shorter than any checkpoint interval would allow.
    let sink_now = sink.clone().transaction_timeout_ms(1_000);
    let mut context = writer_context(0, 1, 1, 1, Alarm::new().1);
    context.checkpoint_interval_ms = None;
    let mut writer: Writer = sink_now.writer(context).unwrap();
    writer.write(vec![(0, "late".to_string())]).unwrap();
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    let mut peer = broker.peer();
    let ours = |open: Vec<String>| open.iter().filter(|id| id.starts_with(&topic)).count();
    assert_eq!(ours(peer.open_transactions()), 1);
    crate::wait_until("Kafka aborts it", || ours(peer.open_transactions()) == 0);
    let error = commit(&sink, &tokens).unwrap_err();
    assert!(error.kind() == Kind::Input && error.to_string().contains("longer than its timeout"), "{error}");
    assert!(sink.recover(&scope(), &tokens).is_err(), "neither does a restart pass over it");
    sink.clone().skip_lost_transactions().recover(&scope(), &tokens).unwrap();
    assert_eq!(peer.values(&topic, 1), Vec::<String>::new());
}

#[test]
fn a_writer_of_an_earlier_start_is_fenced() {
    let broker = Broker::shared();
    let topic = broker.topic("zombie", 1);
    let sink = KafkaSink::new(broker.servers(), &topic, Text).transactional_id_prefix(&topic);
    let (mut zombie, alarm) = open(&sink, 1);
    let in_doubt = pre_commit(&mut zombie, &alarm, &["old 1"], 1).unwrap();
    // It writes for the next epoch when another start takes over from a checkpoint without any of it.
    zombie.write(vec![(0, "old 2".to_string())]).unwrap();
    let mut peer = broker.peer();
    let ours = |open: Vec<String>| open.iter().filter(|id| id.starts_with(&topic)).count();
    crate::wait_until("both are under way", || ours(peer.open_transactions()) == 2);
    sink.recover(&scope(), &[]).unwrap();
    assert_eq!(ours(peer.open_transactions()), 0);
    let (mut heir, heirs_alarm) = open(&sink, 2);
    let tokens = pre_commit(&mut heir, &heirs_alarm, &["new"], 1).unwrap();
    let refused = pre_commit(&mut zombie, &alarm, &["old 3"], 2).unwrap_err();
    assert!(refused.to_string().contains("newer start of this job"), "{refused}");
    assert!(commit(&sink, &in_doubt).is_err(), "nor can it commit what it had pre-committed");
    commit(&sink, &tokens).unwrap();
    assert_eq!(peer.values(&topic, 1), ["new"]);
}

#[test]
fn at_least_once_shows_records_at_once_and_none_waits_for_nothing() {
    let broker = Broker::shared();
    for delivery in [KafkaDelivery::AtLeastOnce, KafkaDelivery::None] {
        let topic = broker.topic("promises", 1);
        let sink = KafkaSink::new(broker.servers(), &topic, Text).delivery(delivery);
        assert!(Sink::<String>::committer(&sink, &scope()).unwrap().is_none());
        let (mut writer, alarm) = open(&sink, 1);
        write(&mut *writer, &alarm, vec![(0, "now".to_string())]);
        crate::wait_until("it is there before the checkpoint", || broker.peer().values(&topic, 1) == ["now"]);
        assert!(writer.pre_commit(1).unwrap()().unwrap().is_empty());
    }
}

#[test]
fn what_kafka_refuses_fails_with_the_reason() {
    let broker = Broker::shared();
    let topic = broker.topic("refused", 1);
    let failure = |topic: &str, record: String| {
        let sink = KafkaSink::new(broker.servers(), topic, Text).transactional_id_prefix(topic);
        let (mut writer, alarm) = open(&sink, 1);
        pre_commit(&mut writer, &alarm, &[&record], 1).unwrap_err()
    };
    let large = failure(&topic, "x".repeat(2_000_000));
    assert!(large.kind() == Kind::Input && large.to_string().contains("max.message.bytes"), "{large}");
    let missing = failure("no-such-topic", "x".into());
    assert!(missing.to_string().contains("there is no topic `no-such-topic`"), "{missing}");
}
