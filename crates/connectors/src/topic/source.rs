//! A source over an embedded topic: one split a partition, the position is the next offset.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::format::Decode;
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{DeadLetter, Error, Result};
use tidemill_topic::{ReadOutcome, Topic, Topics, Watch};

use crate::fetcher::{Emitter, Fetch, FetchReader, Fetched};

/// How much of one partition is read before the next has its turn.
const READ_BYTES: usize = 1 << 20;

/// The longest wait for a commit; the watch finds commits long before.
const WAIT: Duration = Duration::from_secs(10);

/// Where to begin in the partitions of a topic; only asked when there is no position from a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TopicStart {
    /// At the oldest record kept. The default.
    #[default]
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record with this timestamp, epoch ms, or a later one.
    Timestamp(i64),
    /// At these offsets by partition; partitions not named begin at their oldest record.
    Offsets(BTreeMap<u32, u64>),
}

/// Reads an embedded topic; records carry the topic's timestamps.
#[derive(Debug, Clone)]
pub struct TopicSource<D> {
    folder: PathBuf,
    name: String,
    format: D,
    start: TopicStart,
    bounded: bool,
    skip_lost_records: bool,
}

impl<D: Decode> TopicSource<D> {
    /// The topic `name` in the topics folder `folder`, from its oldest record on, for ever.
    pub fn new(folder: impl AsRef<Path>, name: impl Into<String>, format: D) -> Self {
        TopicSource {
            folder: folder.as_ref().to_path_buf(),
            name: name.into(),
            format,
            start: TopicStart::default(),
            bounded: false,
            skip_lost_records: false,
        }
    }

    /// Where to begin; default: at the oldest record.
    pub fn start(mut self, start: TopicStart) -> Self {
        self.start = start;
        self
    }

    /// Whether to end at what is the newest record when the job starts. Default: false.
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }

    /// What to do when retention has deleted records that were not read yet: go on with the oldest that is left, or
    /// (default) fail.
    pub fn skip_lost_records(mut self, skip: bool) -> Self {
        self.skip_lost_records = skip;
        self
    }

    fn title(&self) -> String {
        format!("topic `{}`", self.name)
    }

    fn open(&self) -> Result<Topic> {
        Topics::open(&self.folder)?.open_topic(&self.name)
    }
}

impl<D> Source<D::Value> for TopicSource<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    fn name(&self) -> String {
        self.title()
    }

    fn boundedness(&self) -> Boundedness {
        if self.bounded { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let partitions = self.open()?.partitions();
        let split = |slot| Split { id: slot_id(slot), slot, position: serde_json::Value::Null };
        Ok((0..partitions).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<D::Value>>> {
        let topic = self.open()?;
        let fetch = TopicFetch {
            watch: topic.watch()?,
            topic: topic.clone(),
            title: self.title(),
            decode: self.format.clone(),
            skip_lost_records: self.skip_lost_records,
            partitions: Vec::new(),
        };
        let inner = FetchReader::new(&self.title(), &context, fetch);
        Ok(Box::new(TopicReader { topic, source: self.clone(), inner }))
    }
}

fn slot_id(partition: u32) -> String {
    format!("partition-{partition}")
}

/// Where to go on in a partition.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct TopicPosition {
    /// The next offset.
    next: u64,
    /// Where a bounded source ends; in the position, because it must not move with a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
}

/// The [`FetchReader`], given positions that are settled: "the newest record" must mean the same after a restart.
struct TopicReader<D: Decode>
where
    D::Value: Send + 'static,
{
    topic: Topic,
    source: TopicSource<D>,
    inner: FetchReader<TopicFetch<D>>,
}

impl<D> SourceReader<D::Value> for TopicReader<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    fn add_splits(&mut self, mut splits: Vec<Split>) -> Result<()> {
        for split in &mut splits {
            let partition = partition_of(&split.id)?;
            let position = match &split.position {
                serde_json::Value::Null => first_position(&self.topic, &self.source, partition)?,
                saved => {
                    let mut saved: TopicPosition = serde_json::from_value(saved.clone())
                        .map_err(|error| Error::corrupt(format!("position of `{}` is not one: {error}", split.id)))?;
                    // A job may be started again the other way: what it is told now counts.
                    saved.end = match (self.source.bounded, saved.end) {
                        (true, None) => Some(self.topic.latest(partition)?),
                        (true, end) => end,
                        (false, _) => None,
                    };
                    saved
                }
            };
            split.position = serde_json::to_value(position)
                .map_err(|error| Error::bug(format!("a position does not become JSON: {error}")))?;
        }
        self.inner.add_splits(splits)
    }

    fn poll(&mut self, output: &mut SourceOutput<D::Value>) -> Result<Poll> {
        self.inner.poll(output)
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        self.inner.pause_splits(paused)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        self.inner.snapshot()
    }

    fn pending_records(&self) -> Option<u64> {
        self.inner.pending_records()
    }

    fn fetched_ms(&self) -> Option<i64> {
        self.inner.fetched_ms()
    }
}

fn partition_of(id: &str) -> Result<u32> {
    id.strip_prefix("partition-")
        .and_then(|partition| partition.parse().ok())
        .ok_or_else(|| Error::input(format!("`{id}` is no split of a topic")))
}

fn first_position<D>(topic: &Topic, source: &TopicSource<D>, partition: u32) -> Result<TopicPosition> {
    let next = match &source.start {
        TopicStart::Earliest => topic.earliest(partition)?,
        TopicStart::Latest => topic.latest(partition)?,
        TopicStart::Timestamp(timestamp_ms) => topic.offset_for_timestamp(partition, *timestamp_ms)?,
        TopicStart::Offsets(offsets) => match offsets.get(&partition) {
            Some(offset) => *offset,
            None => topic.earliest(partition)?,
        },
    };
    let end = if source.bounded { Some(topic.latest(partition)?) } else { None };
    Ok(TopicPosition { next, end })
}

struct TopicFetch<D> {
    topic: Topic,
    watch: Watch,
    title: String,
    decode: D,
    skip_lost_records: bool,
    partitions: Vec<Reading>,
}

/// A partition being read.
struct Reading {
    index: usize,
    partition: u32,
    position: TopicPosition,
    finished: bool,
    paused: bool,
}

impl<D> Fetch for TopicFetch<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    type Value = D::Value;
    type Position = TopicPosition;

    fn add_split(&mut self, index: usize, id: &str, position: Option<TopicPosition>) -> Result<()> {
        let partition = partition_of(id)?;
        let position = position.ok_or_else(|| Error::bug(format!("{}: no position for {id}", self.title)))?;
        self.partitions.push(Reading { index, partition, position, finished: false, paused: false });
        Ok(())
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn pause_splits(&mut self, paused: &[bool]) {
        for reading in &mut self.partitions {
            reading.paused = paused.get(reading.index).copied().unwrap_or(false);
        }
    }

    fn fetch(&mut self, out: &mut Emitter<D::Value, TopicPosition>) -> Result<Fetched> {
        let mut read_any = false;
        for at in 0..self.partitions.len() {
            match self.read_some(at, out)? {
                Turn::Stopped => return Ok(Fetched::More),
                Turn::Read => read_any = true,
                Turn::Nothing => {}
            }
        }
        if self.partitions.iter().all(|reading| reading.finished) {
            out.set_pending(0);
            return Ok(Fetched::Done);
        }
        let (mut pending, mut readable) = (0, 0);
        for reading in &self.partitions {
            let end = match reading.position.end {
                Some(end) => end,
                None => self.topic.latest(reading.partition)?,
            };
            let behind = end.saturating_sub(reading.position.next);
            pending += behind;
            readable += if reading.paused { 0 } else { behind };
        }
        out.set_pending(pending);
        if !read_any && readable == 0 {
            if !out.flush() {
                return Ok(Fetched::More);
            }
            self.watch.wait(WAIT)?;
        }
        Ok(Fetched::More)
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let waker = self.watch.waker();
        Box::new(move || waker.wake())
    }
}

enum Turn {
    Read,
    Nothing,
    Stopped,
}

impl<D> TopicFetch<D>
where
    D: Decode,
    D::Value: Send + 'static,
{
    fn read_some(&mut self, at: usize, out: &mut Emitter<D::Value, TopicPosition>) -> Result<Turn> {
        let reading = &mut self.partitions[at];
        if reading.finished || reading.paused {
            return Ok(Turn::Nothing);
        }
        let end = reading.position.end.unwrap_or(u64::MAX);
        if reading.position.next >= end {
            reading.finished = true;
            return Ok(if out.finish(reading.index) { Turn::Read } else { Turn::Stopped });
        }
        let partition = reading.partition;
        let batches = match self.topic.read(partition, reading.position.next, READ_BYTES)? {
            ReadOutcome::Batches(batches) => batches,
            ReadOutcome::BelowEarliest { earliest } if self.skip_lost_records => {
                reading.position.next = earliest;
                return Ok(Turn::Read);
            }
            ReadOutcome::BelowEarliest { earliest } => {
                return Err(Error::input(format!(
                    "{} partition {partition}: records {} to {} were deleted before they were read",
                    self.title,
                    reading.position.next,
                    earliest - 1
                ))
                .hint("give the topic a longer retention, or let the source skip lost records"));
            }
            ReadOutcome::AboveLatest { latest } => {
                return Err(Error::input(format!(
                    "{} partition {partition}: asked for offset {}, but it ends at {latest}",
                    self.title, reading.position.next
                ))
                .hint("was the topic deleted and created anew? start without the old state"));
            }
        };
        let read_any = !batches.is_empty();
        for record in batches.iter().flatten().take_while(|record| record.offset < end) {
            reading.position.next = record.offset + 1;
            let value = self.decode.decode(record.value).map_err(|reason| {
                let place = format!("partition {partition} offset {}", record.offset);
                DeadLetter::new(&self.title, place, reason, record.value)
            });
            if !out.push(reading.index, record.timestamp_ms, value, record.value.len(), reading.position) {
                return Ok(Turn::Stopped);
            }
        }
        Ok(if read_any { Turn::Read } else { Turn::Nothing })
    }
}
