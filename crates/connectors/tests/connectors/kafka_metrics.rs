//! What Kafka's source and sink count of themselves, under the names Flink gives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidemill_connectors::conformance::{Alarm, scope, write, writer_context};
use tidemill_connectors::format::Text;
use tidemill_connectors::kafka::{KafkaSink, KafkaSource, KafkaStop};
use tidemill_core::ManualClock;
use tidemill_core::metrics::{Counter, Gauge, Metrics};
use tidemill_core::sink::{Sink, SinkScope};
use tidemill_core::source::{Poll, ReaderContext, Source, SourceOutput};

use crate::kafka_broker::Broker;

/// Keeps all numbers by their names, as a job does.
#[derive(Default)]
struct Kept {
    counters: Mutex<BTreeMap<String, Counter>>,
    gauges: Mutex<BTreeMap<String, Gauge>>,
}

impl Metrics for Kept {
    fn counter(&self, name: &str) -> Counter {
        self.counters.lock().unwrap().entry(name.to_string()).or_default().clone()
    }

    fn gauge(&self, name: &str) -> Gauge {
        self.gauges.lock().unwrap().entry(name.to_string()).or_default().clone()
    }
}

impl Kept {
    fn count(&self, name: &str) -> u64 {
        self.counters.lock().unwrap().get(name).unwrap_or_else(|| panic!("no `{name}`")).count()
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.gauges.lock().unwrap().get(name).map(Gauge::value)
    }
}

#[test]
fn the_source_tells_offsets_commits_bytes_and_when_it_fetched() {
    let broker = Broker::shared();
    let topic = broker.topic("source-metrics", 2);
    let mut peer = broker.peer();
    peer.write(&topic, 0, &[(1, None, Some("a")), (2, None, Some("b")), (3, None, Some("c"))]);
    let kept = Arc::new(Kept::default());
    let clock = Arc::new(ManualClock::new(70_000));
    let (alarm, waker) = Alarm::new();
    let mut context = ReaderContext::new(0, 1, waker, clock.clone());
    context.metrics = kept.clone();
    let source =
        KafkaSource::values(broker.servers(), Text).topics([&topic]).group_id(&topic).bounded(KafkaStop::Latest);
    let mut reader = source.reader(context).unwrap();
    reader.add_splits(source.splits().unwrap()).unwrap();
    let offset = |partition: i32, what: &str| {
        kept.value(&format!("KafkaSourceReader.topic.{topic}.partition.{partition}.{what}"))
    };
    assert_eq!((offset(0, "currentOffset"), offset(0, "committedOffset")), (Some(-1.0), None));
    let mut output = SourceOutput::with_capacity(2);
    while output.room() > 0 {
        if reader.poll(&mut output).unwrap() != Poll::More && output.room() > 0 {
            assert!(alarm.wait(tidemill_connectors::conformance::DEADLINE));
        }
    }
    assert_eq!(offset(0, "currentOffset"), Some(1.0), "of the last record emitted, whatever was fetched");
    clock.set(80_000);
    assert_eq!(reader.fetched_ms(), Some(70_000), "not when it was emitted");
    assert!(kept.count("numBytesIn") > 60, "a batch has more bytes than its records");
    reader.snapshot().unwrap();
    reader.checkpoint_complete(1).unwrap();
    crate::wait_until("offsets are committed", || kept.count("KafkaSourceReader.commitsSucceeded") == 1);
    crate::wait_until("that is shown", || offset(0, "committedOffset") == Some(2.0));
    assert_eq!((peer.committed(&topic, &topic, 0), kept.count("KafkaSourceReader.commitsFailed")), (2, 0));
}

#[test]
fn the_sink_tells_what_it_has_sent_and_how_transactions_end() {
    let broker = Broker::shared();
    let topic = broker.topic("sink-metrics", 1);
    let kept = Arc::new(Kept::default());
    let scope = SinkScope { metrics: kept.clone(), ..scope() };
    let sink = KafkaSink::new(broker.servers(), &topic, Text).transactional_id_prefix(&topic);
    let open = |attempt| {
        let (alarm, waker) = Alarm::new();
        let mut context = writer_context(0, 1, 1, attempt, waker);
        context.scope = scope.clone();
        (sink.writer(context).unwrap(), alarm)
    };
    let (mut writer, alarm) = open(1);
    write(&mut *writer, &alarm, vec![(0, "a".to_string()), (0, "b".to_string())]);
    let tokens = writer.pre_commit(1).unwrap()().unwrap();
    assert_eq!((kept.count("numRecordsSend"), kept.count("retries")), (2, 0));
    assert!(kept.count("numBytesSend") > 60 && kept.value("currentSendTime").is_some());
    Sink::<String>::committer(&sink, &scope).unwrap().unwrap().commit(&tokens).unwrap();
    assert_eq!((kept.count("transactionsCommitted"), kept.count("transactionsAborted")), (1, 0));
    // One that nobody holds a token of.
    write(&mut *writer, &alarm, vec![(0, "c".to_string())]);
    writer.pre_commit(2).unwrap()().unwrap();
    sink.recover(&scope, &tokens).unwrap();
    assert_eq!((kept.count("transactionsCommitted"), kept.count("transactionsAborted")), (2, 1));
    assert_eq!(broker.peer().values(&topic, 1), ["a", "b"]);
}
