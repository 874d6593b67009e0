//! The embedded topics behind the API: open handles, and appends that arrive together written in one transaction.
//!
//! An append waits for the disk. While one is under way, others for the same topic gather; the next transaction takes
//! all of them that carry no idempotency key (those are appended one by one, since a key belongs to one append).

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tidemill_core::{Error, Result, SharedClock};
use tidemill_topic::{NewRecord, Topic, TopicConfig, TopicInfo, Topics};
use tokio::sync::oneshot;

use crate::jobs::store::blocking;

/// Bytes of appends that may wait for the disk, over all topics.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Records one transaction takes together.
const GROUP_RECORDS_MAX: usize = 50_000;
/// Open topics kept.
const OPEN_MAX: usize = 256;

/// A record on its way into a topic.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Chooses the partition when there is one.
    pub key: Option<Bytes>,
    /// The record.
    pub value: Bytes,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Records stored (by the first append, for a duplicate).
    pub records: u64,
    /// The idempotency key was seen before; nothing changed.
    pub duplicate: bool,
}

/// The topics of the data folder.
pub struct TopicService {
    topics: Topics,
    clock: SharedClock,
    open: Mutex<HashMap<String, Arc<OpenTopic>>>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct OpenTopic {
    topic: Topic,
    /// Where the next record without key goes.
    next: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A thread is writing and will look here again.
    writing: bool,
}

struct Waiting {
    records: Vec<(u32, Incoming)>,
    idempotency_key: Option<String>,
    answer: oneshot::Sender<Result<Done>>,
    bytes: usize,
}

impl TopicService {
    /// Over the topics of a folder, which is created when absent.
    pub fn open(folder: &Path, clock: SharedClock) -> Result<TopicService> {
        let topics = Topics::open(folder)?;
        Ok(TopicService { topics, clock, open: Mutex::default(), waiting_bytes: Arc::default() })
    }

    /// All topics.
    pub async fn list(&self) -> Result<Vec<TopicInfo>> {
        let topics = self.topics.clone();
        blocking(move || topics.list()).await
    }

    /// Whether there is a topic of this name.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        let (topics, name) = (self.topics.clone(), name.to_owned());
        blocking(move || topics.exists(&name)).await
    }

    /// Creates a topic.
    pub async fn create(&self, name: String, config: TopicConfig) -> Result<()> {
        let topics = self.topics.clone();
        blocking(move || topics.create(&name, &config).map(|_| ())).await
    }

    /// Deletes a topic.
    pub async fn delete(&self, name: String) -> Result<()> {
        lock(&self.open).remove(&name);
        let topics = self.topics.clone();
        blocking(move || topics.delete(&name)).await
    }

    /// An open topic, to read from it.
    pub async fn topic(&self, name: &str) -> Result<Topic> {
        Ok(self.handle(name).await?.topic.clone())
    }

    async fn handle(&self, name: &str) -> Result<Arc<OpenTopic>> {
        if let Some(open) = lock(&self.open).get(name) {
            return Ok(open.clone());
        }
        let (topics, owned) = (self.topics.clone(), name.to_owned());
        let topic = blocking(move || topics.open_topic(&owned)).await?;
        let mut open = lock(&self.open);
        if open.len() >= OPEN_MAX {
            // Whoever uses a handle keeps it; the others are opened again when needed.
            open.clear();
        }
        let fresh = OpenTopic { topic, next: AtomicU32::new(0), queue: Mutex::default() };
        Ok(open.entry(name.to_owned()).or_insert_with(|| Arc::new(fresh)).clone())
    }

    /// Appends records in one transaction over all partitions. `Kind::Full` when too much waits for the disk already.
    pub async fn append(&self, name: &str, records: Vec<Incoming>, idempotency_key: Option<String>) -> Result<Done> {
        let open = match self.handle(name).await {
            Ok(open) => open,
            Err(e) => return Err(e),
        };
        let done = self.append_to(&open, records, idempotency_key).await;
        if done.is_err() {
            // The topic may have been deleted or made anew by another process: look again next time.
            lock(&self.open).remove(name);
        }
        done
    }

    async fn append_to(
        &self,
        open: &Arc<OpenTopic>,
        records: Vec<Incoming>,
        idempotency_key: Option<String>,
    ) -> Result<Done> {
        let bytes = records.iter().map(|record| record.value.len() + record.key.as_ref().map_or(0, Bytes::len)).sum();
        if self.waiting_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
            return Err(Error::full(format!("{WAITING_BYTES_MAX} bytes of appends wait for the disk already"))
                .hint("send again in a moment"));
        }
        let partitions = open.topic.partitions();
        let place = |record: Incoming| {
            let partition = match &record.key {
                Some(key) => open.topic.partition_for(key),
                None => open.next.fetch_add(1, Ordering::Relaxed) % partitions,
            };
            (partition, record)
        };
        let (answer, answered) = oneshot::channel();
        let records = records.into_iter().map(place).collect();
        let start = {
            let mut queue = lock(&open.queue);
            queue.waiting.push_back(Waiting { records, idempotency_key, answer, bytes });
            !std::mem::replace(&mut queue.writing, true)
        };
        if start {
            let (open, clock, waiting_bytes) = (open.clone(), self.clock.clone(), self.waiting_bytes.clone());
            // Not awaited: it may go on with appends of others. It answers over the channel.
            drop(tokio::task::spawn_blocking(move || write(&open, &clock, &waiting_bytes)));
        }
        answered.await.map_err(|_| Error::bug("an append got no answer"))?
    }
}

/// Writes what waits, group by group, until nothing does.
fn write(open: &OpenTopic, clock: &SharedClock, waiting_bytes: &AtomicUsize) {
    loop {
        let group = {
            let mut queue = lock(&open.queue);
            let group = take_group(&mut queue.waiting);
            queue.writing = !group.is_empty();
            group
        };
        if group.is_empty() {
            return;
        }
        let bytes: usize = group.iter().map(|waiting| waiting.bytes).sum();
        let now_ms = clock.now_ms();
        let together = match group.as_slice() {
            [_] => None,
            several => append(open, several, now_ms).ok(),
        };
        for waiting in group {
            // One append that is refused (a record too long, say) must not fail its neighbours: each by itself then.
            let done = match together {
                Some(()) => Ok(Done { records: waiting.records.len() as u64, duplicate: false }),
                None => append_one(open, &waiting, now_ms),
            };
            // The client may have gone meanwhile.
            let _ = waiting.answer.send(done);
        }
        waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// The next appends to write together: a single one with an idempotency key, or some without.
fn take_group(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut group: Vec<Waiting> = Vec::new();
    let mut records = 0;
    while let Some(next) = waiting.front() {
        let alone = next.idempotency_key.is_some();
        if !group.is_empty() && (alone || records + next.records.len() > GROUP_RECORDS_MAX) {
            break;
        }
        records += next.records.len();
        group.extend(waiting.pop_front());
        if alone {
            break;
        }
    }
    group
}

fn append(open: &OpenTopic, group: &[Waiting], now_ms: i64) -> Result<()> {
    let records: Vec<NewRecord<'_>> = group.iter().flat_map(|waiting| new_records(waiting, now_ms)).collect();
    open.topic.append(&records, None, now_ms).map(|_| ())
}

fn append_one(open: &OpenTopic, waiting: &Waiting, now_ms: i64) -> Result<Done> {
    let records: Vec<NewRecord<'_>> = new_records(waiting, now_ms).collect();
    let appended = open.topic.append(&records, waiting.idempotency_key.as_deref(), now_ms)?;
    Ok(Done { records: appended.records, duplicate: appended.duplicate })
}

fn new_records(waiting: &Waiting, now_ms: i64) -> impl Iterator<Item = NewRecord<'_>> {
    waiting.records.iter().map(move |(partition, record)| NewRecord {
        partition: *partition,
        timestamp_ms: now_ms,
        key: record.key.as_deref(),
        value: &record.value,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
