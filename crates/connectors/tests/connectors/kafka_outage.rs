//! A Kafka broker that is killed and comes back: nothing is lost, nothing comes twice.

use tidemill_connectors::conformance::{Alarm, Driven, scope, write, writer_context};
use tidemill_connectors::format::Json;
use tidemill_connectors::kafka::{KafkaSink, KafkaSource};
use tidemill_core::sink::Sink;
use tidemill_core::source::Source;

use crate::kafka_broker::Broker;

const RECORDS: u64 = 12_000;
const EPOCHS: u64 = 4;

#[test]
fn a_broker_killed_in_the_middle_costs_and_doubles_nothing() {
    let mut broker = Broker::start();
    let topic = broker.topic("outage", 3);
    let sink =
        KafkaSink::new(broker.servers(), &topic, Json::<u64>::new()).key(|n: &u64, key| key.extend(n.to_le_bytes()));
    sink.recover(&scope(), &[]).unwrap();
    let source = KafkaSource::values(broker.servers(), Json::<u64>::new()).topics([&topic]);
    let mut reader = Driven::start(&source, 0, 1, &source.splits().unwrap());
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    let mut committer = sink.committer(&scope()).unwrap().unwrap();
    for epoch in 1..=EPOCHS {
        let share = RECORDS / EPOCHS;
        let first = (epoch - 1) * share;
        for begin in (first..first + share).step_by(500) {
            write(&mut *writer, &alarm, (begin..begin + 500).map(|n| (n as i64, n)).collect());
        }
        let close = writer.pre_commit(epoch).unwrap();
        // In turn: while records are sent, with a transaction in doubt, between epochs.
        let closing = std::thread::spawn(close);
        if epoch == 1 {
            broker.kill();
            broker.restart();
        }
        let tokens = closing.join().unwrap().unwrap();
        if epoch == 2 {
            broker.kill();
            broker.restart();
        }
        let mut tried = committer.commit(&tokens);
        crate::wait_until("the commit goes through", || {
            tried.is_ok() || {
                tried = committer.commit(&tokens);
                false
            }
        });
        if epoch == 3 {
            broker.kill();
            broker.restart();
        }
        let wanted = (epoch * share) as usize;
        reader.run_until(1_000, |driven| driven.count >= wanted);
    }
    let mut read: Vec<u64> = reader.records.values().flatten().copied().collect();
    read.sort();
    assert!(read == (0..RECORDS).collect::<Vec<_>>(), "{} of {RECORDS} records", read.len());
    let mut there: Vec<u64> = broker.peer().values(&topic, 3).iter().map(|value| value.parse().unwrap()).collect();
    there.sort();
    assert!(there == read, "{} records in Kafka", there.len());
}
