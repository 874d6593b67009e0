//! Where events go: a topic or standard output, a batch at a time.

use std::io::{ErrorKind, Write};

use order_generator::EventInfo;
use order_generator::generator::key_of;
use tidemill_core::{Clock, Error, Result, SystemClock};
use tidemill_topic::{NewRecord, Topic, TopicConfig, Topics};

use crate::options::Options;

/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 10_000;

/// Events to be written together: lines of JSON.
#[derive(Debug, Default)]
pub struct Batch {
    lines: Vec<u8>,
    /// Where each line ends (behind its line end), and what is known about its event.
    events: Vec<(usize, EventInfo)>,
}

impl Batch {
    /// Adds the event that `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> EventInfo) -> EventInfo {
        let info = write(&mut self.lines);
        self.lines.push(b'\n');
        self.events.push((self.lines.len(), info));
        info
    }

    /// Whether it is to be sent.
    pub fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS_MAX
    }

    /// Drops what it holds.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.events.clear();
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Written.
    Written,
    /// Whoever read standard output has gone, as `head` does: no error, but the end.
    ReaderGone,
}

/// Where events go.
pub enum Output {
    /// Standard output, one event a line.
    Stdout,
    /// A topic.
    Topic(Topic),
}

impl Output {
    /// Opens what the options name; a topic is created when it is not there.
    pub fn open(options: &Options) -> Result<Output> {
        let Some(data) = options.data.as_ref().filter(|_| !options.stdout) else {
            return Ok(Output::Stdout);
        };
        let topics = Topics::open(data.join("topics"))?;
        if topics.exists(&options.topic)? {
            return topics.open_topic(&options.topic).map(Output::Topic);
        }
        let config = TopicConfig { partitions: options.partitions, ..TopicConfig::default() };
        topics.create(&options.topic, &config).map(Output::Topic)
    }

    /// Writes the batch and empties it.
    pub fn send(&mut self, batch: &mut Batch) -> Result<Sent> {
        let sent = self.write(&batch.lines, &batch.events)?;
        batch.clear();
        Ok(sent)
    }

    /// Writes all but the last event, which stays in the batch alone.
    pub fn send_all_but_last(&mut self, batch: &mut Batch) -> Result<Sent> {
        let Some(last) = batch.events.pop() else {
            return Ok(Sent::Written);
        };
        let split = batch.events.last().map_or(0, |(end, _)| *end);
        let sent = self.write(&batch.lines[..split], &batch.events)?;
        batch.lines.drain(..split);
        batch.events.clear();
        batch.events.push((last.0 - split, last.1));
        Ok(sent)
    }

    fn write(&self, lines: &[u8], events: &[(usize, EventInfo)]) -> Result<Sent> {
        if events.is_empty() {
            return Ok(Sent::Written);
        }
        match self {
            Output::Stdout => write_stdout(lines),
            Output::Topic(topic) => append(topic, lines, events),
        }
    }
}

fn write_stdout(lines: &[u8]) -> Result<Sent> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Sent::Written),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Sent::ReaderGone),
        Err(error) => Err(Error::io("write to standard output", error)),
    }
}

/// All events of an order go to the partition of its id, so that its states are read in their sequence of arrival.
/// Events without a readable id go round the partitions.
fn append(topic: &Topic, lines: &[u8], events: &[(usize, EventInfo)]) -> Result<Sent> {
    let mut start = 0;
    let mut records = Vec::with_capacity(events.len());
    for &(end, info) in events {
        let value = &lines[start..end - 1];
        start = end;
        let key = key_of(value);
        let partition = match key {
            Some(key) => topic.partition_for(key),
            None => (info.arrival_order % u64::from(topic.partitions())) as u32,
        };
        records.push(NewRecord { partition, timestamp_ms: info.event_time_ms, key, value });
    }
    topic.append(&records, None, SystemClock.now_ms())?;
    Ok(Sent::Written)
}
