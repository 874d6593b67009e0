//! The worker's side of the source: positions are settled before the first record, and committed when a checkpoint completes.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_core::metrics::{Counter, Gauge, SharedMetrics};
use tidemill_core::source::{Poll, ReaderContext, SourceOutput, SourceReader, Split};
use tidemill_core::{Error, Result};

use super::client::{Cluster, commit_offsets, patiently};
use super::fetch::KafkaFetch;
use super::record::KafkaDecode;
use super::security::Access;
use super::source::{Reading, START_PATIENCE, partition_of};
use super::start::{Finder, KafkaPosition, OLDEST};
use crate::fetcher::FetchReader;

/// How long one commit of offsets is tried; the next checkpoint brings newer ones.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// The [`FetchReader`], given positions that are settled: "the newest record" must mean the same after a restart.
pub struct KafkaReader<D: KafkaDecode>
where
    D::Value: Send + 'static,
{
    reading: Reading,
    inner: FetchReader<KafkaFetch<D>>,
    /// Whether partitions that come without a position were created later.
    started: bool,
    /// The positions of the newest snapshot.
    snapshot: Vec<(String, i32, i64)>,
    committing: Option<Committing>,
    metrics: SharedMetrics,
    /// By split: the offset of the last record emitted, as it is reported.
    current: Vec<Gauge>,
    committed: Commits,
}

impl<D: KafkaDecode> KafkaReader<D>
where
    D::Value: Send + 'static,
{
    /// `restored`: the source goes on from a checkpoint, so a partition without a position was created later.
    pub(super) fn new(reading: Reading, inner: FetchReader<KafkaFetch<D>>, context: &ReaderContext) -> Self {
        let metrics = context.metrics.clone();
        KafkaReader {
            reading,
            inner,
            started: context.restored,
            snapshot: Vec::new(),
            committing: None,
            current: Vec::new(),
            committed: Commits::new(&metrics),
            metrics,
        }
    }

    /// Shows how far each partition has come.
    fn report(&self) {
        for (split, gauge) in self.current.iter().enumerate() {
            if let Some(position) = self.inner.position(split) {
                gauge.set((position.next - 1).max(-1) as f64);
            }
        }
    }

    /// Asks the cluster where splits without a position begin, and where those without an end do.
    fn settle(&self, splits: &mut [Split]) -> Result<()> {
        let mut settled = Vec::with_capacity(splits.len());
        for split in splits.iter() {
            settled.push(match &split.position {
                serde_json::Value::Null => None,
                saved => Some(position(&split.id, saved)?),
            });
        }
        let created_later = self.started || settled.iter().any(Option::is_some);
        let mut fresh = Vec::new();
        let mut endless = Vec::new();
        for (split, position) in splits.iter().zip(&mut settled) {
            let partition = partition_of(&split.id)?;
            if position.is_none() {
                if created_later {
                    *position = Some(KafkaPosition { next: OLDEST, end: None });
                } else {
                    fresh.push(partition.clone());
                }
            }
            if self.reading.stop.is_some() && position.is_none_or(|position| position.end.is_none()) {
                endless.push(partition);
            }
        }
        let (starts, ends) = patiently(START_PATIENCE, || {
            let mut cluster = Cluster::new(&self.reading.access)?;
            let mut finder = Finder {
                cluster: &mut cluster,
                group: self.reading.group.as_deref(),
                read_committed: self.reading.fetch.read_committed,
            };
            let starts = match fresh.is_empty() {
                true => Default::default(),
                false => finder.starts(&self.reading.start, &fresh)?,
            };
            let ends = match &self.reading.stop {
                Some(stop) if !endless.is_empty() => finder.ends(stop, &endless)?,
                _ => Default::default(),
            };
            Ok((starts, ends))
        })?;
        for (split, position) in splits.iter_mut().zip(settled) {
            let partition = partition_of(&split.id)?;
            let next = match position {
                Some(position) => position.next,
                None => *starts
                    .get(&partition)
                    .ok_or_else(|| Error::external(format!("Kafka names no offset for {}", split.id)))?,
            };
            // A job may be started again the other way: what it is told now counts.
            let end = match &self.reading.stop {
                None => None,
                Some(_) => position.and_then(|position| position.end).or_else(|| ends.get(&partition).copied()),
            };
            split.position = serde_json::to_value(KafkaPosition { next, end })
                .map_err(|error| Error::bug(format!("a position does not become JSON: {error}")))?;
        }
        Ok(())
    }
}

fn position(id: &str, saved: &serde_json::Value) -> Result<KafkaPosition> {
    serde_json::from_value(saved.clone())
        .map_err(|error| Error::corrupt(format!("position of `{id}` is not one: {error}")))
}

impl<D> SourceReader<D::Value> for KafkaReader<D>
where
    D: KafkaDecode,
    D::Value: Send + 'static,
{
    fn add_splits(&mut self, mut splits: Vec<Split>) -> Result<()> {
        if splits.is_empty() {
            self.started = true;
            return Ok(());
        }
        // Later ones begin at their oldest record and have no end, so nobody has to be asked: a worker does not wait.
        self.settle(&mut splits)?;
        self.started = true;
        for split in &splits {
            let (topic, partition) = partition_of(&split.id)?;
            self.current.push(partition_gauge(&self.metrics, &topic, partition, "currentOffset"));
        }
        self.inner.add_splits(splits)?;
        self.report();
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<D::Value>) -> Result<Poll> {
        let polled = self.inner.poll(output)?;
        self.report();
        Ok(polled)
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        self.inner.pause_splits(paused)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        let splits = self.inner.snapshot()?;
        if self.reading.group.is_some() {
            self.snapshot.clear();
            for split in &splits {
                let (topic, partition) = partition_of(&split.id)?;
                let next = position(&split.id, &split.position)?.next;
                if next >= 0 {
                    self.snapshot.push((topic, partition, next));
                }
            }
        }
        Ok(splits)
    }

    fn checkpoint_complete(&mut self, _epoch: u64) -> Result<()> {
        // The newest snapshot is that of the epoch: no later one is taken before its end is told.
        let Some(group) = &self.reading.group else { return Ok(()) };
        if self.snapshot.is_empty() {
            return Ok(());
        }
        let committing = match &mut self.committing {
            Some(committing) => committing,
            none => none.insert({
                let gauges = (self.metrics.clone(), self.committed.clone());
                Committing::start(&self.reading.access, group.clone(), gauges)?
            }),
        };
        committing.commit(self.snapshot.clone());
        Ok(())
    }

    fn pending_records(&self) -> Option<u64> {
        self.inner.pending_records()
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.inner.fetched_ms()
    }
}

/// How commits of offsets went.
#[derive(Clone)]
struct Commits {
    succeeded: Counter,
    failed: Counter,
}

impl Commits {
    fn new(metrics: &SharedMetrics) -> Commits {
        Commits {
            succeeded: metrics.counter("KafkaSourceReader.commitsSucceeded"),
            failed: metrics.counter("KafkaSourceReader.commitsFailed"),
        }
    }
}

/// An offset of a partition, named as in Flink.
fn partition_gauge(metrics: &SharedMetrics, topic: &str, partition: i32, what: &str) -> Gauge {
    metrics.gauge(&format!("KafkaSourceReader.topic.{topic}.partition.{partition}.{what}"))
}

/// What waits to be committed; only the newest matters.
#[derive(Default)]
struct Waiting {
    offsets: Option<Vec<(String, i32, i64)>>,
    ended: bool,
}

/// Commits offsets on a thread of its own. Nothing depends on it, so a commit that fails is left to the next.
struct Committing {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Committing {
    fn start(access: &Access, group: String, (metrics, commits): (SharedMetrics, Commits)) -> Result<Committing> {
        let shared: Arc<(Mutex<Waiting>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&shared);
        let mut cluster = Cluster::new(access)?;
        let mut committed: HashMap<(String, i32), Gauge> = HashMap::new();
        let run = move || {
            while let Some(offsets) = next(&theirs) {
                let commit = || commit_offsets(&mut cluster, &group, &offsets);
                if patiently(COMMIT_PATIENCE, commit).is_err() {
                    commits.failed.inc();
                    continue;
                }
                commits.succeeded.inc();
                for (topic, partition, next) in offsets {
                    let gauge = committed
                        .entry((topic.clone(), partition))
                        .or_insert_with(|| partition_gauge(&metrics, &topic, partition, "committedOffset"));
                    gauge.set(next as f64);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("kafka offsets".into())
            .spawn(run)
            .map_err(|error| Error::io("start the thread that commits offsets to Kafka", error))?;
        Ok(Committing { shared, thread: Some(thread) })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, offsets: Vec<(String, i32, i64)>) {
        self.lock().offsets = Some(offsets);
        self.shared.1.notify_all();
    }
}

/// The next offsets to commit; `None` at the end.
fn next(shared: &(Mutex<Waiting>, Condvar)) -> Option<Vec<(String, i32, i64)>> {
    let mut waiting = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(offsets) = waiting.offsets.take() {
            return Some(offsets);
        }
        if waiting.ended {
            return None;
        }
        waiting = shared.1.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Committing {
    /// The offsets of a job's last checkpoint come right before its end: they are waited for, as long as one commit is tried.
    fn drop(&mut self) {
        self.lock().ended = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
