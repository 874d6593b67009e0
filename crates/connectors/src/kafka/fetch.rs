//! What happens on a reading thread: one request to each leader at a time, batches taken apart, records decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tidemill_core::metrics::{Counter, SharedMetrics};
use tidemill_core::{DeadLetter, Error, Kind, Result};

use super::client::{CONSUMER, Cluster, OffsetSpec, error_of, is_code, list_offsets, topic_name};
use super::record::{KafkaDecode, KafkaRecord};
use super::records::{Batch, Batches, RawRecord};
use super::source::{Reading, partition_of};
use super::start::{KafkaPosition, KafkaReset, OLDEST};
use crate::fetcher::{Emitter, Fetch, Fetched};

/// How long a broker may wait for something to send.
const WAIT_MS: i32 = 500;

/// How long, when another broker has just sent something and may have more.
const WAIT_BUSY_MS: i32 = 10;

/// The pause after a broker failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How records are asked for.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    pub read_committed: bool,
    pub on_lost_records: KafkaReset,
    pub partition_bytes_max: i32,
    pub broker_bytes_max: i32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            read_committed: true,
            on_lost_records: KafkaReset::Fail,
            partition_bytes_max: 4 << 20,
            broker_bytes_max: 8 << 20,
        }
    }
}

/// A partition being read.
struct Partition {
    index: usize,
    topic: String,
    number: i32,
    position: KafkaPosition,
    /// Records known to wait behind the position.
    pending: u64,
    finished: bool,
    paused: bool,
}

impl Partition {
    fn is_read(&self) -> bool {
        !self.finished && !self.paused
    }
}

/// Reads the partitions of one subtask.
pub struct KafkaFetch<D> {
    cluster: Cluster,
    title: String,
    options: FetchOptions,
    decode: D,
    partitions: Vec<Partition>,
    /// The last round brought something.
    busy: bool,
    /// Counts the rounds.
    turn: usize,
    scratch: Vec<u8>,
    bytes_in: Counter,
}

impl<D: KafkaDecode> KafkaFetch<D>
where
    D::Value: Send + 'static,
{
    pub(super) fn new(title: &str, reading: &Reading, decode: D, metrics: &SharedMetrics) -> Result<Self> {
        Ok(KafkaFetch {
            cluster: Cluster::new(&reading.access)?,
            title: title.to_string(),
            options: reading.fetch,
            bytes_in: metrics.counter("numBytesIn"),
            decode,
            partitions: Vec::new(),
            busy: false,
            turn: 0,
            scratch: Vec::new(),
        })
    }

    /// Ends partitions that are read to their end; `false` when the reader is gone.
    fn finish(&mut self, out: &mut Emitter<D::Value, KafkaPosition>) -> bool {
        for partition in self.partitions.iter_mut().filter(|partition| !partition.finished) {
            if partition.position.end.is_some_and(|end| partition.position.next >= end) {
                partition.finished = true;
                partition.pending = 0;
                if !out.finish(partition.index) {
                    return false;
                }
            }
        }
        true
    }

    /// Finds out where the oldest records are.
    fn find_oldest(&mut self) -> Result<()> {
        let wanted: Vec<(String, i32)> = self
            .partitions
            .iter()
            .filter(|partition| partition.position.next == OLDEST)
            .map(|partition| (partition.topic.clone(), partition.number))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let found = list_offsets(&mut self.cluster, &wanted, OffsetSpec::Earliest, self.options.read_committed)?;
        for partition in self.partitions.iter_mut().filter(|partition| partition.position.next == OLDEST) {
            let key = (partition.topic.clone(), partition.number);
            partition.position.next = found.get(&key).copied().flatten().unwrap_or(0);
        }
        Ok(())
    }

    /// One request to each leader, then all answers.
    fn round(&mut self, out: &mut Emitter<D::Value, KafkaPosition>) -> Result<Round> {
        self.find_oldest()?;
        let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, partition) in self.partitions.iter().enumerate().filter(|(_, partition)| partition.is_read()) {
            by_leader.entry(self.cluster.leader(&partition.topic, partition.number)?).or_default().push(at);
        }
        let wait_ms = if by_leader.len() > 1 && self.busy { WAIT_BUSY_MS } else { WAIT_MS };
        for (leader, partitions) in &by_leader {
            let request = self.request(partitions, wait_ms);
            self.cluster.send(*leader, &request)?;
        }
        self.turn = self.turn.wrapping_add(1);
        let mut round = Round::Nothing;
        for leader in by_leader.keys() {
            let answer = self.cluster.receive::<FetchRequest>(*leader)?;
            match self.answer(answer, out)? {
                // Answers of other brokers would still come.
                Round::Stopped => {
                    self.cluster.disconnect();
                    return Ok(Round::Stopped);
                }
                Round::Read => round = Round::Read,
                Round::Nothing => {}
            }
        }
        Ok(round)
    }

    /// Each round another partition comes first: a broker fills its answer in the order asked, and what finds no room in it
    /// would wait for ever.
    fn request(&self, partitions: &[usize], wait_ms: i32) -> FetchRequest {
        let mut topics: Vec<(&str, Vec<FetchPartition>)> = Vec::new();
        let (behind, first) = partitions.split_at(self.turn % partitions.len());
        for partition in first.iter().chain(behind).map(|at| &self.partitions[*at]) {
            let wanted = FetchPartition::default()
                .with_partition(partition.number)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_fetch_offset(partition.position.next)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(self.options.partition_bytes_max);
            match topics.iter_mut().find(|(topic, _)| *topic == partition.topic) {
                Some((_, partitions)) => partitions.push(wanted),
                None => topics.push((&partition.topic, vec![wanted])),
            }
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions))
            .collect();
        FetchRequest::default()
            .with_replica_id(CONSUMER)
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(self.options.broker_bytes_max)
            .with_isolation_level(i8::from(self.options.read_committed))
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(topics)
    }

    fn answer(&mut self, answer: FetchResponse, out: &mut Emitter<D::Value, KafkaPosition>) -> Result<Round> {
        error_of(answer.error_code, || format!("read {}", self.title))?;
        let mut round = Round::Nothing;
        for topic in answer.responses {
            let name = topic.topic.0.as_str();
            for data in topic.partitions {
                let here = |partition: &Partition| partition.topic == name && partition.number == data.partition_index;
                let Some(at) = self.partitions.iter().position(here) else { continue };
                match self.partition(at, data, out)? {
                    Round::Stopped => return Ok(Round::Stopped),
                    Round::Read => round = Round::Read,
                    Round::Nothing => {}
                }
            }
        }
        Ok(round)
    }

    fn partition(
        &mut self,
        at: usize,
        data: PartitionData,
        out: &mut Emitter<D::Value, KafkaPosition>,
    ) -> Result<Round> {
        let partition = &mut self.partitions[at];
        if is_code(data.error_code, &[ResponseError::OffsetOutOfRange]) {
            return self.lost(at);
        }
        error_of(data.error_code, || format!("read partition {} of `{}`", partition.number, partition.topic))?;
        let mut aborted = Aborted::new(&data, self.options.read_committed);
        let mut round = Round::Nothing;
        let records = data.records.unwrap_or_default();
        self.bytes_in.add(records.len() as u64);
        for batch in Batches::new(records) {
            let damaged = |partition: &Partition, reason: String| {
                Error::corrupt(format!(
                    "partition {} of `{}` holds at offset {} or behind it {reason}",
                    partition.number, partition.topic, partition.position.next
                ))
            };
            let batch = batch.map_err(|reason| damaged(partition, reason))?;
            if batch.header.last_offset < partition.position.next {
                continue;
            }
            round = Round::Read;
            if !aborted.skips(&batch) {
                let mut emit = Emit { title: &self.title, decode: &mut self.decode, partition, out };
                match emit.batch(&batch, &mut self.scratch) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Round::Stopped),
                    Err(reason) => return Err(damaged(partition, reason)),
                }
            }
            let end = partition.position.end.unwrap_or(i64::MAX);
            partition.position.next = (batch.header.last_offset + 1).min(end.max(partition.position.next));
        }
        let readable = if self.options.read_committed { data.last_stable_offset } else { data.high_watermark };
        let end = partition.position.end.map_or(readable, |end| end.min(readable));
        partition.pending = u64::try_from(end - partition.position.next).unwrap_or(0);
        Ok(round)
    }

    /// The offset to go on from is not kept any more, or not there yet.
    fn lost(&mut self, at: usize) -> Result<Round> {
        let partition = &mut self.partitions[at];
        let key = [(partition.topic.clone(), partition.number)];
        let spec = match self.options.on_lost_records {
            KafkaReset::Fail => {
                return Err(Error::input(format!(
                    "partition {} of `{}` has no record at offset {} any more, or not yet",
                    partition.number, partition.topic, partition.position.next
                ))
                .hint(
                    "give the topic a longer retention, let the source skip lost records with `on_lost_records(…)`, or start \
                     without the old state if the topic was created anew",
                ));
            }
            KafkaReset::Earliest => OffsetSpec::Earliest,
            KafkaReset::Latest => OffsetSpec::Latest,
        };
        let found = list_offsets(&mut self.cluster, &key, spec, self.options.read_committed)?;
        partition.position.next = found.get(&key[0]).copied().flatten().unwrap_or(0);
        Ok(Round::Read)
    }
}

impl<D> Fetch for KafkaFetch<D>
where
    D: KafkaDecode,
    D::Value: Send + 'static,
{
    type Value = D::Value;
    type Position = KafkaPosition;

    fn add_split(&mut self, index: usize, id: &str, position: Option<KafkaPosition>) -> Result<()> {
        let (topic, number) = partition_of(id)?;
        let position = position.ok_or_else(|| Error::bug(format!("{}: no position for {id}", self.title)))?;
        self.partitions.push(Partition { index, topic, number, position, pending: 0, finished: false, paused: false });
        Ok(())
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn pause_splits(&mut self, paused: &[bool]) {
        for partition in &mut self.partitions {
            partition.paused = paused.get(partition.index).copied().unwrap_or(false);
        }
    }

    fn fetch(&mut self, out: &mut Emitter<D::Value, KafkaPosition>) -> Result<Fetched> {
        if !self.finish(out) {
            return Ok(Fetched::More);
        }
        if self.partitions.iter().all(|partition| partition.finished) {
            out.set_pending(0);
            return Ok(Fetched::Done);
        }
        if !self.partitions.iter().any(Partition::is_read) {
            return Ok(Fetched::Idle(PAUSE));
        }
        match self.round(out) {
            Ok(round) => {
                self.busy = round == Round::Read;
                out.set_pending(self.partitions.iter().map(|partition| partition.pending).sum());
                Ok(Fetched::More)
            }
            // Brokers come back, and partitions find another leader.
            Err(error) if error.kind() == Kind::External => {
                self.cluster.disconnect();
                Ok(Fetched::Idle(PAUSE))
            }
            Err(error) => Err(error),
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Nothing,
    Read,
    /// The reader is gone.
    Stopped,
}

/// Which batches of an answer belong to aborted transactions.
struct Aborted {
    read_committed: bool,
    /// First offset and producer of each, the last one first.
    coming: Vec<(i64, i64)>,
    /// Producers whose transaction here was aborted.
    producers: BTreeSet<i64>,
}

impl Aborted {
    fn new(data: &PartitionData, read_committed: bool) -> Aborted {
        let listed = data.aborted_transactions.iter().flatten();
        let mut coming: Vec<(i64, i64)> = listed.map(|aborted| (aborted.first_offset, aborted.producer_id.0)).collect();
        coming.sort_unstable_by(|a, b| b.cmp(a));
        Aborted { read_committed, coming, producers: BTreeSet::new() }
    }

    /// Whether no record of the batch counts. Has to see every batch.
    fn skips(&mut self, batch: &Batch) -> bool {
        let header = &batch.header;
        if self.read_committed {
            while let Some((first_offset, producer)) = self.coming.last().copied()
                && first_offset <= header.last_offset
            {
                self.producers.insert(producer);
                self.coming.pop();
            }
        }
        if header.is_control() {
            // The end of the producer's transaction, whichever way.
            self.producers.remove(&header.producer_id);
            return true;
        }
        header.is_transactional() && self.producers.contains(&header.producer_id)
    }
}

/// Emits the records of one partition.
struct Emit<'a, D: KafkaDecode> {
    title: &'a str,
    decode: &'a mut D,
    partition: &'a mut Partition,
    out: &'a mut Emitter<D::Value, KafkaPosition>,
}

impl<D: KafkaDecode> Emit<'_, D> {
    /// `false` when the reader is gone; an error when the batch is damaged.
    fn batch(&mut self, batch: &Batch, scratch: &mut Vec<u8>) -> Result<bool, String> {
        let header = batch.header;
        let partition = &mut *self.partition;
        let mut rest = batch.records(scratch)?;
        let mut record = KafkaRecord {
            topic: &partition.topic,
            partition: partition.number,
            offset: 0,
            timestamp_ms: header.max_timestamp_ms,
            is_log_append_time: header.is_log_append_time(),
            leader_epoch: header.leader_epoch,
            key: None,
            value: None,
            headers: Default::default(),
        };
        for _ in 0..header.count {
            let raw = RawRecord::take(&mut rest).ok_or("a damaged record")?;
            record.offset = header.base_offset + raw.offset_delta;
            if record.offset < partition.position.next {
                continue;
            }
            if partition.position.end.is_some_and(|end| record.offset >= end) {
                break;
            }
            if !record.is_log_append_time {
                record.timestamp_ms = header.base_timestamp_ms + raw.timestamp_delta;
            }
            (record.key, record.value, record.headers) = (raw.key, raw.value, raw.headers);
            partition.position.next = record.offset + 1;
            let value = self.decode.decode(&record).map_err(|reason| {
                let place = format!("partition {} offset {}", record.partition, record.offset);
                DeadLetter::new(self.title, place, reason, record.value.or(record.key).unwrap_or_default())
            });
            let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if !self.out.push(partition.index, record.timestamp_ms, value, bytes, partition.position) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
