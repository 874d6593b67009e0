//! What happens on a writing thread: records become batches with numbers, batches are sent until each has arrived.
//!
//! Numbers are given once. A batch whose answer was lost is sent again as it is, and a broker that has it already says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use tidemill_core::format::Encode;
use tidemill_core::metrics::{Counter, Gauge, SharedMetrics};
use tidemill_core::sink::{Token, WriterContext};
use tidemill_core::{Error, NO_TIMESTAMP, Result, SharedClock};

use super::client::{Cluster, Producer, Transactions, error_of, gone, is_code, is_gone, topic_name};
use super::commit::{PreCommitted, transactional_id};
use super::records::{BATCH_OVERHEAD, BatchBuilder, record_size_max};
use super::sink::{Destination, KafkaDelivery, KafkaSink};
use crate::buffered::Deliver;

/// How many batches of a partition may be under way; brokers remember the last five.
const IN_FLIGHT_MAX: usize = 4;

/// How long a broker may wait for its replicas.
const ACKNOWLEDGE_MS: i32 = 30_000;

/// The room a batch begins with.
const BATCH_BYTES: usize = 64 << 10;

/// A transaction that is open.
struct Transaction {
    id: String,
    producer: Producer,
    /// Those its coordinator knows of.
    partitions: BTreeSet<(usize, usize)>,
}

/// A batch on its way.
struct Outgoing {
    topic: usize,
    partition: usize,
    bytes: Bytes,
    arrived: bool,
}

/// A topic that was written to.
struct Target {
    name: String,
    /// By partition: the batch being filled, and the number of its first record.
    partitions: Vec<(Option<BatchBuilder>, i32)>,
}

/// Writes the records of one subtask.
pub struct KafkaDeliver<T, E> {
    sink: KafkaSink<T, E>,
    prefix: String,
    subtask: usize,
    attempt: u64,
    /// Numbers the transactions of this start.
    number: u64,
    clock: SharedClock,
    cluster: Cluster,
    transaction: Option<Transaction>,
    /// Who writes, when it is not in transactions.
    producer: Option<Producer>,
    targets: Vec<Target>,
    by_name: HashMap<String, usize>,
    /// Batches of the items at hand, in order.
    outgoing: Vec<Outgoing>,
    /// Whether the items at hand have become batches.
    encoded: bool,
    turn: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    counts: Counts,
}

/// What is reported, named as in Flink.
struct Counts {
    records: Counter,
    bytes: Counter,
    retries: Counter,
    send_time_ms: Gauge,
}

impl Counts {
    fn new(metrics: &SharedMetrics) -> Counts {
        Counts {
            records: metrics.counter("numRecordsSend"),
            bytes: metrics.counter("numBytesSend"),
            retries: metrics.counter("retries"),
            send_time_ms: metrics.gauge("currentSendTime"),
        }
    }
}

impl<T, E> KafkaDeliver<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    pub fn new(sink: KafkaSink<T, E>, prefix: &str, context: &WriterContext) -> Result<Self> {
        Ok(KafkaDeliver {
            cluster: Cluster::new(&sink.access)?,
            counts: Counts::new(&context.scope.metrics),
            sink,
            prefix: prefix.to_string(),
            subtask: context.subtask,
            attempt: context.attempt,
            number: context.epoch,
            clock: context.clock.clone(),
            transaction: None,
            producer: None,
            targets: Vec::new(),
            by_name: HashMap::new(),
            outgoing: Vec::new(),
            encoded: false,
            turn: context.subtask,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    fn is_transactional(&self) -> bool {
        self.sink.delivery == KafkaDelivery::ExactlyOnce
    }

    /// Who writes now; begins a transaction where there is none.
    fn writer(&mut self) -> Result<Producer> {
        if !self.is_transactional() {
            return match self.producer {
                Some(producer) => Ok(producer),
                None => Ok(*self.producer.insert(Transactions(&mut self.cluster).idempotent_producer()?)),
            };
        }
        if let Some(transaction) = &self.transaction {
            return Ok(transaction.producer);
        }
        let id = transactional_id(&self.prefix, self.attempt, self.subtask, self.number);
        let producer = Transactions(&mut self.cluster).take_over(&id, self.sink.transaction_timeout_ms)?;
        self.restart_numbers();
        self.transaction = Some(Transaction { id, producer, partitions: BTreeSet::new() });
        Ok(producer)
    }

    fn restart_numbers(&mut self) {
        for target in &mut self.targets {
            target.partitions.fill_with(|| (None, 0));
        }
    }

    /// Looks up a topic; its partitions may have become more.
    fn target(&mut self, name: &str) -> Result<()> {
        let count = self.cluster.partitions(name)?;
        let at = match self.by_name.get(name) {
            Some(at) => *at,
            None => {
                self.targets.push(Target { name: name.to_string(), partitions: Vec::new() });
                self.by_name.insert(name.to_string(), self.targets.len() - 1);
                self.targets.len() - 1
            }
        };
        let partitions = &mut self.targets[at].partitions;
        if partitions.len() < count {
            partitions.resize_with(count, || (None, 0));
        }
        Ok(())
    }

    /// Looks up the topics of these items, so that nothing can fail for a while once numbers are given.
    fn find_targets(&mut self, items: &[(i64, T)]) -> Result<()> {
        match &self.sink.destination {
            Destination::Topic(topic) => {
                let topic = topic.clone();
                self.target(&topic)
            }
            Destination::By(by) => {
                let by = std::sync::Arc::clone(by);
                items.iter().try_for_each(|(_, record)| self.target(&by(record)))
            }
        }
    }

    fn encode(&mut self, items: &[(i64, T)], producer: Producer) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let bytes_max = self.sink.batch_bytes_max;
        for (timestamp_ms, record) in items {
            let topic = match &self.sink.destination {
                Destination::Topic(_) => 0,
                Destination::By(by) => self.by_name.get(&by(record)).copied().unwrap_or(0),
            };
            self.key.clear();
            if let Some(key) = &self.sink.key {
                key(record, &mut self.key);
            }
            let key = (!self.key.is_empty()).then_some(&self.key[..]);
            self.value.clear();
            let deletes = self.sink.deletes.as_ref().is_some_and(|deletes| deletes(record));
            if !deletes {
                self.sink
                    .encode
                    .encode(record, &mut self.value)
                    .map_err(|reason| Error::input(format!("a record {reason}")))?;
            }
            let value = (!deletes).then_some(&self.value[..]);
            let headers = self.sink.headers.as_ref().map(|headers| headers(record)).unwrap_or_default();
            let count = self.targets[topic].partitions.len();
            let partition = self.sink.partitioner.choose(record, key, count, self.subtask, &mut self.turn);
            let size = record_size_max(key, value, &headers);
            let slot = &mut self.targets[topic].partitions[partition];
            if slot.0.as_ref().is_some_and(|batch| batch.len() + size > bytes_max) {
                let sealed = seal(slot, producer, &self.sink)?;
                self.outgoing.push(Outgoing { topic, partition, bytes: sealed, arrived: false });
                self.turn = self.turn.wrapping_add(1);
            }
            let slot = &mut self.targets[topic].partitions[partition];
            let batch =
                slot.0.get_or_insert_with(|| BatchBuilder::with_capacity(BATCH_BYTES.max(size + BATCH_OVERHEAD)));
            let timestamp_ms = if *timestamp_ms == NO_TIMESTAMP { now_ms } else { *timestamp_ms };
            batch.push(timestamp_ms, key, value, &headers);
        }
        for (topic, target) in self.targets.iter_mut().enumerate() {
            for (partition, slot) in target.partitions.iter_mut().enumerate().filter(|(_, slot)| slot.0.is_some()) {
                let bytes = seal(slot, producer, &self.sink)?;
                self.outgoing.push(Outgoing { topic, partition, bytes, arrived: false });
            }
        }
        self.turn = self.turn.wrapping_add(1);
        Ok(())
    }

    /// Tells the coordinator which partitions are written to, before they are.
    fn add_partitions(&mut self) -> Result<()> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let new: BTreeSet<(usize, usize)> = self
            .outgoing
            .iter()
            .map(|batch| (batch.topic, batch.partition))
            .filter(|at| !transaction.partitions.contains(at))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let named: Vec<(String, i32)> =
            new.iter().map(|(topic, partition)| (self.targets[*topic].name.clone(), *partition as i32)).collect();
        Transactions(&mut self.cluster).add_partitions(&transaction.id, transaction.producer, &named)?;
        transaction.partitions.extend(new);
        Ok(())
    }

    /// Sends what has not arrived, a window at a time.
    fn send(&mut self) -> Result<()> {
        while self.outgoing.iter().any(|batch| !batch.arrived) {
            let requests = self.window()?;
            for (leader, batches) in &requests {
                let request = self.request(batches);
                self.cluster.send(*leader, &request)?;
            }
            let mut failed = Ok(());
            for (leader, batches) in &requests {
                let answer = self.cluster.receive::<ProduceRequest>(*leader)?;
                let taken = self.answer(batches, answer);
                if failed.is_ok() {
                    failed = taken;
                }
            }
            failed?;
        }
        self.outgoing.clear();
        Ok(())
    }

    /// Requests to be sent one after the other: each has one batch of a partition at most, and they keep its order.
    fn window(&mut self) -> Result<Vec<(i32, Vec<usize>)>> {
        let mut depths: HashMap<(usize, usize), usize> = HashMap::new();
        let mut requests: BTreeMap<(usize, i32), Vec<usize>> = BTreeMap::new();
        for (at, batch) in self.outgoing.iter().enumerate().filter(|(_, batch)| !batch.arrived) {
            let depth = depths.entry((batch.topic, batch.partition)).or_default();
            if *depth < IN_FLIGHT_MAX {
                let leader = self.cluster.leader(&self.targets[batch.topic].name, batch.partition as i32)?;
                requests.entry((*depth, leader)).or_default().push(at);
            }
            *depth += 1;
        }
        Ok(requests.into_iter().map(|((_, leader), batches)| (leader, batches)).collect())
    }

    fn request(&self, batches: &[usize]) -> ProduceRequest {
        let mut topics: BTreeMap<usize, Vec<PartitionProduceData>> = BTreeMap::new();
        for batch in batches.iter().map(|at| &self.outgoing[*at]) {
            let data = PartitionProduceData::default()
                .with_index(batch.partition as i32)
                .with_records(Some(batch.bytes.clone()));
            topics.entry(batch.topic).or_default().push(data);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, data)| {
                TopicProduceData::default().with_name(topic_name(&self.targets[topic].name)).with_partition_data(data)
            })
            .collect();
        let id = self.transaction.as_ref().map(|open| TransactionalId(StrBytes::from_string(open.id.clone())));
        ProduceRequest::default()
            .with_transactional_id(id)
            .with_acks(-1)
            .with_timeout_ms(ACKNOWLEDGE_MS)
            .with_topic_data(topics)
    }

    fn answer(&mut self, batches: &[usize], answer: ProduceResponse) -> Result<()> {
        let mut codes: HashMap<(&str, i32), (i16, Option<&StrBytes>)> = HashMap::new();
        for topic in &answer.responses {
            for partition in &topic.partition_responses {
                let told = (partition.error_code, partition.error_message.as_ref());
                codes.insert((topic.name.0.as_str(), partition.index), told);
            }
        }
        let mut failed = Ok(());
        for at in batches {
            let batch = &mut self.outgoing[*at];
            let (name, partition) = (self.targets[batch.topic].name.as_str(), batch.partition as i32);
            let Some((code, message)) = codes.get(&(name, partition)).copied() else {
                failed = Err(Error::external(format!("Kafka says nothing about partition {partition} of `{name}`")));
                continue;
            };
            if code == 0 || is_code(code, &[ResponseError::DuplicateSequenceNumber]) {
                batch.arrived = true;
            } else if is_gone(code) {
                return Err(match &self.transaction {
                    Some(transaction) => gone(code, &transaction.id, "write in"),
                    None => {
                        // Begins anew under another id; what arrived under the old one may come twice.
                        self.producer = None;
                        self.outgoing.clear();
                        self.encoded = false;
                        self.restart_numbers();
                        Error::external("Kafka does not know the producer any more")
                    }
                });
            } else if failed.is_ok() {
                let told = message.map(|message| format!(" ({})", message.as_str())).unwrap_or_default();
                failed = error_of(code, || {
                    format!("write {} bytes to partition {partition} of `{name}`{told}", batch.bytes.len())
                });
            }
        }
        failed
    }
}

/// Ends the batch of a partition and moves its numbers on.
fn seal<T, E>(
    (batch, next): &mut (Option<BatchBuilder>, i32),
    producer: Producer,
    sink: &KafkaSink<T, E>,
) -> Result<Bytes> {
    let batch = batch.take().ok_or_else(|| Error::bug("a batch that is not there is to be sent"))?;
    let sequence = *next;
    // Numbers begin again at 0 behind the largest.
    *next = (i64::from(sequence) + i64::from(batch.count())).rem_euclid(1 << 31) as i32;
    batch
        .finish(producer, sequence, sink.delivery == KafkaDelivery::ExactlyOnce, sink.compression)
        .map_err(|reason| Error::bug(format!("a batch for Kafka cannot be made: {reason}")))
}

impl<T, E> Deliver for KafkaDeliver<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    type Item = (i64, T);

    fn deliver(&mut self, items: &[(i64, T)]) -> Result<()> {
        if !self.encoded {
            let producer = self.writer()?;
            self.find_targets(items)?;
            self.encode(items, producer)?;
            self.encoded = true;
        }
        let bytes: usize = self.outgoing.iter().map(|batch| batch.bytes.len()).sum();
        let begin_ms = self.clock.now_ms();
        let sent = self.add_partitions().and_then(|()| self.send());
        if sent.is_err() {
            self.counts.retries.inc();
            // Answers may be under way that nobody waits for, and leaders may have moved.
            self.cluster.disconnect();
        }
        sent?;
        self.encoded = false;
        self.counts.records.add(items.len() as u64);
        self.counts.bytes.add(bytes as u64);
        self.counts.send_time_ms.set(self.clock.now_ms().saturating_sub(begin_ms) as f64);
        Ok(())
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        self.number = self.number.max(epoch) + 1;
        // New partitions are taken up with the next epoch.
        self.cluster.forget();
        let Some(transaction) = self.transaction.take() else { return Ok(Vec::new()) };
        let committed = PreCommitted { transactional_id: transaction.id, producer: transaction.producer };
        Ok(vec![committed.token()?])
    }
}
