//! A real Apache Kafka for tests: one broker shared by a test run, or one of a test's own; and a peer that is not our client,
//! which makes topics, writes, and reads what is committed.

#![allow(dead_code, reason = "each of the packages that share this file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, EndTxnRequest,
    FetchRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListTransactionsRequest, OffsetFetchRequest,
    ProduceRequest, ProducerId, RequestHeader, ResponseHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::free_port::free_port;

/// A broker is there in a few seconds; the first ever fetches it.
const START: Duration = Duration::from_secs(300);

/// A broker on loopback with its data in a folder.
pub struct Broker {
    folder: tempfile::TempDir,
    ports: (u16, u16),
    /// Of the listeners with TLS and logins; see `secure` in scripts/kafka.sh.
    secure: Vec<u16>,
    script: Child,
    pid: String,
}

impl Broker {
    /// The broker all tests of this run share. It ends with the process.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Broker::launch(true, 0))
    }

    /// A broker for one test.
    pub fn start() -> Broker {
        Broker::launch(false, 0)
    }

    /// A broker with the seven listeners that have TLS or logins.
    pub fn secure() -> Broker {
        Broker::launch(false, 7)
    }

    fn launch(temporary: bool, secure: usize) -> Broker {
        let folder = tempfile::Builder::new().prefix("tidemill-kafka").tempdir().unwrap();
        let port = || free_port().unwrap();
        let (ports, secure) = ((port(), port()), (0..secure).map(|_| port()).collect::<Vec<u16>>());
        let (script, pid) = spawn(&folder, ports, &secure, temporary);
        Broker { folder, ports, secure, script, pid }
    }

    /// Where it is to be found.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.0)
    }

    /// Where one of the secure listeners is to be found, by the host name it is asked for.
    pub fn secure_servers(&self, listener: usize, host: &str) -> String {
        format!("{host}:{}", self.secure[listener])
    }

    /// A file that was made with its certificates.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("tls").join(name)
    }

    /// Holds it up, or lets it go on.
    pub fn pause(&self, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success(), "kill {signal}");
    }

    /// Kills it with signal 9.
    pub fn kill(&mut self) {
        let killed = Command::new("kill").args(["-9", &self.pid]).status().unwrap();
        assert!(killed.success(), "kill -9 {}", self.pid);
        self.end_script();
    }

    /// Starts it again where it was, on the data it left.
    pub fn restart(&mut self) {
        (self.script, self.pid) = spawn(&self.folder, self.ports, &self.secure, false);
    }

    /// A connection of a peer.
    pub fn peer(&self) -> Peer {
        let stream = TcpStream::connect(("127.0.0.1", self.ports.0)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream }
    }

    /// A new topic, its name made of `name`.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let topic = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.peer().create(&topic, partitions, &[]);
        topic
    }

    fn end_script(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end_script();
    }
}

fn spawn(folder: &tempfile::TempDir, ports: (u16, u16), secure: &[u16], temporary: bool) -> (Child, String) {
    // This file serves packages at several depths.
    let mut scripts = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("scripts/kafka.sh"));
    let script = scripts.find(|script| script.exists()).expect("the script stands in the repository");
    let mut child = Command::new("bash")
        .arg(script)
        .arg("run")
        .arg(folder.path())
        .args([ports.0.to_string(), ports.1.to_string()])
        .env("KAFKA_SECURE", secure.iter().map(u16::to_string).collect::<Vec<_>>().join(" "))
        .env("KAFKA_TEMPORARY", if temporary { "yes" } else { "no" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = said.read_line(&mut line);
        let _ = tell.send(line);
        // Kept open, so that the script can go on writing.
        let _ = std::io::copy(&mut said, &mut std::io::sink());
    });
    let line = told.recv_timeout(START).expect("the broker is ready in time");
    let pid = line.trim().strip_prefix("ready ").expect("the broker starts; see above why not").to_string();
    (child, pid)
}

/// A record as the peer reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A record to be written: timestamp, key, value.
pub type New<'a> = (i64, Option<&'a str>, Option<&'a str>);

type NewBytes<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>);

fn as_bytes<'a>(records: &[New<'a>]) -> Vec<NewBytes<'a>> {
    let bytes = |(at, key, value): &New<'a>| (*at, key.map(str::as_bytes), value.map(str::as_bytes));
    records.iter().map(bytes).collect()
}

/// Talks to the broker with messages and batches of `kafka-protocol` alone.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let mut out = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        header.encode(&mut out, R::header_version(version)).unwrap();
        request.encode(&mut out, version).unwrap();
        self.stream.write_all(&(out.len() as u32).to_be_bytes()).unwrap();
        self.stream.write_all(&out).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining());
        response
    }

    /// Waits until there is a coordinator: the first question makes the topic it keeps its records in.
    fn coordinator(&mut self, kind: i8, key: &str) {
        let request = FindCoordinatorRequest::default().with_key(string(key)).with_key_type(kind);
        crate::wait_until("a coordinator", || self.call(&request, 3).error_code == 0);
    }

    /// Makes a topic.
    pub fn create(&mut self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let setting = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(string(name)).with_value(Some(string(value)))
        };
        let new = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(setting).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(30_000);
        let answer = self.call(&request, 5);
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
        // Known to the controller; the broker itself hears of it a moment later.
        for partition in 0..partitions {
            self.wait_for(topic, partition);
        }
    }

    fn wait_for(&mut self, topic: &str, partition: i32) {
        crate::wait_until("a partition is there", || self.fetch(topic, partition, 0, 0).error_code == 0);
    }

    /// Gives a topic more partitions, `count` in all.
    pub fn grow(&mut self, topic: &str, count: i32) {
        let more = CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(30_000);
        let answer = self.call(&request, 3);
        assert_eq!(answer.results[0].error_code, 0, "{answer:?}");
        self.wait_for(topic, count - 1);
    }

    /// Deletes records in front of an offset.
    pub fn delete_before(&mut self, topic: &str, partition: i32, offset: i64) {
        let from = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![from]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        assert_eq!(self.call(&request, 2).topics[0].partitions[0].error_code, 0);
    }

    /// What a group has committed; -1: nothing.
    pub fn committed(&mut self, group: &str, topic: &str, partition: i32) -> i64 {
        self.coordinator(0, group);
        let of = OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default().with_group_id(GroupId(string(group))).with_topics(Some(vec![of]));
        self.call(&request, 7).topics[0].partitions[0].committed_offset
    }

    /// Writes records.
    pub fn write(&mut self, topic: &str, partition: i32, records: &[New<'_>]) {
        self.produce(topic, partition, &as_bytes(records), None);
    }

    /// Writes a value that need not be text.
    pub fn write_bytes(&mut self, topic: &str, partition: i32, value: &[u8]) {
        self.produce(topic, partition, &[(0, None, Some(value))], None);
    }

    fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: &[NewBytes<'_>],
        writer: Option<(&str, ProducerId, i16, i32)>,
    ) {
        let record = |(at, (timestamp, key, value)): (usize, &NewBytes<'_>)| Record {
            transactional: writer.is_some(),
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: writer.map_or(-1, |writer| writer.1.0),
            producer_epoch: writer.map_or(-1, |writer| writer.2),
            timestamp_type: TimestampType::Creation,
            offset: at as i64,
            sequence: writer.map_or(0, |writer| writer.3) + at as i32,
            timestamp: *timestamp,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
            headers: [(string("origin"), Some(Bytes::from_static(b"peer")))].into_iter().collect(),
        };
        let records: Vec<Record> = records.iter().enumerate().map(record).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(bytes.freeze()));
        let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(writer.map(|writer| TransactionalId(string(writer.0))))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let answer = self.call(&request, 9);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
    }

    /// Writes records in a transaction of their own; it is ended as told, or left open.
    pub fn write_transaction(&mut self, id: &str, topic: &str, partition: i32, records: &[New<'_>], end: Option<bool>) {
        self.coordinator(1, id);
        let transactional_id = TransactionalId(string(id));
        let begin = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id.clone()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let mut begun = self.call(&begin, 4);
        crate::wait_until("a transaction begins", || {
            begun.error_code == 0 || {
                begun = self.call(&begin, 4);
                false
            }
        });
        let (producer, epoch) = (begun.producer_id, begun.producer_epoch);
        let of = AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let add = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id.clone())
            .with_v3_and_below_producer_id(producer)
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![of]);
        let added = self.call(&add, 3);
        assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
        self.produce(topic, partition, &as_bytes(records), Some((id, producer, epoch, 0)));
        if let Some(committed) = end {
            let end = EndTxnRequest::default()
                .with_transactional_id(transactional_id)
                .with_producer_id(producer)
                .with_producer_epoch(epoch)
                .with_committed(committed);
            assert_eq!(self.call(&end, 3).error_code, 0);
            // Until the markers are written the coordinator says that it is still ending.
            crate::wait_until("a transaction ends", || self.call(&end, 3).error_code == 0);
        }
    }

    /// The transactions that are open.
    pub fn open_transactions(&mut self) -> Vec<String> {
        self.coordinator(1, "any");
        let request = ListTransactionsRequest::default().with_state_filters(vec![string("Ongoing")]);
        let states = self.call(&request, 0).transaction_states;
        states.iter().map(|state| state.transactional_id.0.to_string()).collect()
    }

    fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        isolation: i8,
    ) -> kafka_protocol::messages::fetch_response::PartitionData {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_fetch_offset(offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(16 << 20);
        let request = FetchRequest::default()
            .with_max_bytes(32 << 20)
            .with_isolation_level(isolation)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![wanted])]);
        self.call(&request, 12).responses.remove(0).partitions.remove(0)
    }

    /// All committed records of a topic of `partitions`, by partition and offset.
    pub fn read(&mut self, topic: &str, partitions: i32) -> Vec<Seen> {
        let mut all = Vec::new();
        for partition in 0..partitions {
            let start = self.fetch(topic, partition, 0, 1);
            let mut next = if start.error_code == 1 { start.log_start_offset.max(0) } else { 0 };
            loop {
                let data = self.fetch(topic, partition, next, 1);
                assert_eq!(data.error_code, 0);
                if next >= data.last_stable_offset {
                    break;
                }
                next = read_batches(data, partition, next, &mut all);
            }
        }
        all
    }

    /// The values of all committed records, as text.
    pub fn values(&mut self, topic: &str, partitions: i32) -> Vec<String> {
        let text = |seen: Seen| String::from_utf8(seen.value.unwrap_or_default()).unwrap();
        self.read(topic, partitions).into_iter().map(text).collect()
    }
}

/// Appends the records of an answer that do not belong to aborted transactions; the offset to go on from.
fn read_batches(
    data: kafka_protocol::messages::fetch_response::PartitionData,
    partition: i32,
    from: i64,
    all: &mut Vec<Seen>,
) -> i64 {
    let aborted = data.aborted_transactions.unwrap_or_default();
    let mut bytes = data.records.unwrap();
    let records: Vec<Record> =
        RecordBatchDecoder::decode_all(&mut bytes).unwrap().into_iter().flat_map(|set| set.records).collect();
    // Where the markers of aborts stand: an aborted transaction reaches from its first offset to its producer's next one.
    let ends: Vec<(i64, i64)> =
        records.iter().filter(|record| record.control).map(|record| (record.producer_id, record.offset)).collect();
    let is_aborted = |record: &Record| {
        record.transactional
            && aborted.iter().any(|transaction| {
                let first = transaction.first_offset;
                let end = ends
                    .iter()
                    .filter(|end| end.0 == transaction.producer_id.0 && end.1 >= first)
                    .map(|end| end.1)
                    .min();
                transaction.producer_id.0 == record.producer_id
                    && record.offset >= first
                    && record.offset <= end.unwrap_or(i64::MAX)
            })
    };
    let header =
        |(name, value): (&StrBytes, &Option<Bytes>)| (name.to_string(), value.clone().unwrap_or_default().to_vec());
    let next = records.last().map_or(from, |record| record.offset + 1);
    for record in records.iter().filter(|record| record.offset >= from && !record.control && !is_aborted(record)) {
        all.push(Seen {
            partition,
            offset: record.offset,
            timestamp_ms: record.timestamp,
            key: record.key.as_ref().map(|key| key.to_vec()),
            value: record.value.as_ref().map(|value| value.to_vec()),
            headers: record.headers.iter().map(header).collect(),
        });
    }
    next
}

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn name(topic: &str) -> TopicName {
    TopicName(string(topic))
}
