//! `tidemill topic produce`: lines into a topic.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tidemill_core::{Clock, Error, SystemClock};
use tidemill_topic::{NewRecord, Topic};

use super::TopicArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;

/// Lines appended in one transaction.
const BATCH_RECORDS_MAX: usize = 10_000;
/// Bytes appended in one transaction.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How much is read ahead, in bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Append lines to a topic, one record each, from standard input or a file
#[derive(Debug, Args)]
pub struct Produce {
    #[command(flatten)]
    topic: TopicArgs,
    /// Read this file instead of standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Take the key, which chooses the partition, from this field of each line's JSON [default: no key, round robin]
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
}

impl Run for Produce {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let topic = self.topic.open()?;
        let (input, bytes): (Box<dyn Read>, Option<u64>) = match &self.file {
            None => (Box::new(std::io::stdin()), None),
            Some(path) => {
                let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
                let (bytes, file) = opened.map_err(|e| {
                    let error = Error::io(format!("read `{}`", path.display()), e);
                    Failure::not_found(error.hint("name a file of lines with `--file`"))
                })?;
                (Box::new(file), Some(bytes))
            }
        };
        let progress = progress(bytes)?;
        let mut producer = Producer::new(&topic, self.key_field.as_deref());
        let done = producer.read_all(BufReader::with_capacity(READ_AHEAD_BYTES, input), &progress);
        progress.finish_and_clear();
        done.map_err(|e| e.context(format!("{} records are stored, then", producer.stored)))?;
        let result = json!({"topic": self.topic.topic, "records": producer.stored});
        context.output.result(&result, format_args!("stored {} records in topic {}", producer.stored, self.topic.topic))
    }
}

fn progress(bytes: Option<u64>) -> Result<ProgressBar, Failure> {
    let bad = |e| Failure::from(Error::bug(format!("the progress bar's template: {e}")));
    // Neither is shown where standard error is no terminal.
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    Ok(bar.with_style(ProgressStyle::with_template(template).map_err(bad)?))
}

/// Gathers lines and appends them.
struct Producer<'a> {
    topic: &'a Topic,
    key_field: Option<&'a str>,
    /// All lines of the batch, one behind the other.
    bytes: Vec<u8>,
    /// Partition, key, and where the line ends in `bytes`.
    records: Vec<(u32, Option<Vec<u8>>, usize)>,
    /// Where the next line without a key goes.
    next: u32,
    stored: u64,
}

impl<'a> Producer<'a> {
    fn new(topic: &'a Topic, key_field: Option<&'a str>) -> Self {
        Producer { topic, key_field, bytes: Vec::new(), records: Vec::new(), next: 0, stored: 0 }
    }

    fn read_all(&mut self, mut input: BufReader<Box<dyn Read>>, progress: &ProgressBar) -> Result<(), Error> {
        for number in 1u64.. {
            let from = self.bytes.len();
            let limit = Topic::RECORD_BYTES_MAX as u64 + 2;
            let read = (&mut input).take(limit).read_until(b'\n', &mut self.bytes);
            let read = read.map_err(|e| Error::io(format!("read line {number}"), e))?;
            if read == 0 {
                break;
            }
            progress.inc(read as u64);
            let trimmed = self.bytes.get(from..).map_or(0, |line| line.trim_ascii_end().len());
            self.bytes.truncate(from + trimmed);
            if trimmed > Topic::RECORD_BYTES_MAX {
                return self.refuse(from, format!("line {number} is longer than {} bytes", Topic::RECORD_BYTES_MAX));
            }
            if trimmed > 0 {
                match self.place(from) {
                    Ok((partition, key)) => self.records.push((partition, key, self.bytes.len())),
                    Err(why) => return self.refuse(from, format!("line {number}: {why}")),
                }
            }
            // What has been read is stored before waiting for more: a slow writer's lines arrive at once.
            let waits = !input.buffer().contains(&b'\n');
            if waits || self.records.len() >= BATCH_RECORDS_MAX || self.bytes.len() >= BATCH_BYTES_MAX {
                self.append()?;
            }
        }
        self.append()
    }

    /// Stores what was read before the bad line, then says what is wrong with it.
    fn refuse(&mut self, from: usize, why: String) -> Result<(), Error> {
        self.bytes.truncate(from);
        self.append()?;
        Err(Error::input(why))
    }

    fn place(&mut self, from: usize) -> Result<(u32, Option<Vec<u8>>), String> {
        let Some(field) = self.key_field else {
            self.next = (self.next + 1) % self.topic.partitions();
            return Ok((self.next, None));
        };
        let line = self.bytes.get(from..).unwrap_or_default();
        let value: Value = serde_json::from_slice(line).map_err(|e| format!("no JSON to take the key from: {e}"))?;
        let key = match value.get(field) {
            None | Some(Value::Null) => return Err(format!("there is no field `{field}` to take the key from")),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        Ok((self.topic.partition_for(&key), Some(key)))
    }

    fn append(&mut self) -> Result<(), Error> {
        if self.records.is_empty() {
            self.bytes.clear();
            return Ok(());
        }
        let timestamp_ms = SystemClock.now_ms();
        let mut from = 0;
        let mut records = Vec::with_capacity(self.records.len());
        for (partition, key, end) in &self.records {
            let value = self.bytes.get(from..*end).unwrap_or_default();
            records.push(NewRecord { partition: *partition, timestamp_ms, key: key.as_deref(), value });
            from = *end;
        }
        self.topic.append(&records, None, timestamp_ms)?;
        self.stored += records.len() as u64;
        self.records.clear();
        self.bytes.clear();
        Ok(())
    }
}
