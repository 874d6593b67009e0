//! `tidemill topic consume`: a topic's records on standard output.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidemill_core::Error;
use tidemill_topic::{ReadOutcome, Record, Topic};

use super::TopicArgs;
use crate::Context;
use crate::commands::Run;
use crate::failure::Failure;
use crate::output::{Output, write};

/// How much is read at once, in bytes.
const READ_BYTES_MAX: usize = 1 << 20;
/// How long a follower waits before it looks again even if it heard nothing.
const WAIT: Duration = Duration::from_secs(5);

/// Print the records of a topic
#[derive(Debug, Args)]
pub struct Consume {
    #[command(flatten)]
    topic: TopicArgs,
    /// Where to begin: `earliest`, `latest`, `offset:<n>` or `timestamp:<epoch ms>`
    #[arg(long, default_value = "earliest", value_name = "PLACE", value_parser = parse_place)]
    from: Place,
    /// Only this partition [default: all]
    #[arg(long)]
    partition: Option<u32>,
    /// Wait for more at the end
    #[arg(short, long)]
    follow: bool,
    /// Stop after so many records
    #[arg(short = 'n', long)]
    max: Option<u64>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Earliest,
    Latest,
    Offset(u64),
    Timestamp(i64),
}

fn parse_place(text: &str) -> Result<Place, String> {
    let bad = || "say `earliest`, `latest`, `offset:<n>` or `timestamp:<epoch ms>`".to_owned();
    match text.split_once(':') {
        None if text == "earliest" => Ok(Place::Earliest),
        None if text == "latest" => Ok(Place::Latest),
        Some(("offset", number)) => number.parse().map(Place::Offset).map_err(|_| bad()),
        Some(("timestamp", number)) => number.parse().map(Place::Timestamp).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

impl Run for Consume {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let topic = self.topic.open()?;
        let partitions = match self.partition {
            Some(partition) if partition >= topic.partitions() => {
                let text = format!(
                    "topic `{}` has partitions 0 to {}, not {partition}",
                    self.topic.topic,
                    topic.partitions() - 1
                );
                return Err(Failure::not_found(Error::input(text)));
            }
            Some(partition) => partition..partition + 1,
            None => 0..topic.partitions(),
        };
        let mut positions = Vec::new();
        for partition in partitions {
            positions.push((partition, self.start(&topic, partition)?));
        }
        // Before the first read, so that nothing appended in between is missed.
        let mut watch = if self.follow { Some(topic.watch()?) } else { None };
        let mut left = self.max.unwrap_or(u64::MAX);
        loop {
            let mut idle = true;
            for (partition, offset) in &mut positions {
                let before = left;
                read(&topic, *partition, offset, &mut left, context.output)?;
                idle &= before == left;
            }
            if left == 0 {
                return Ok(());
            }
            match &mut watch {
                None if idle => return Ok(()),
                Some(watch) if idle => drop(watch.wait(WAIT)?),
                _ => {}
            }
        }
    }
}

impl Consume {
    fn start(&self, topic: &Topic, partition: u32) -> Result<u64, Error> {
        match self.from {
            Place::Earliest => topic.earliest(partition),
            Place::Latest => topic.latest(partition),
            Place::Offset(offset) => Ok(offset.max(topic.earliest(partition)?).min(topic.latest(partition)?)),
            Place::Timestamp(at) => topic.offset_for_timestamp(partition, at),
        }
    }
}

/// Prints what one read gives, at most `left` records.
fn read(topic: &Topic, partition: u32, offset: &mut u64, left: &mut u64, output: Output) -> Result<(), Failure> {
    let batches = match topic.read(partition, *offset, READ_BYTES_MAX)? {
        ReadOutcome::Batches(batches) => batches,
        ReadOutcome::BelowEarliest { earliest } => {
            tidemill_core::say(format_args!(
                "note: records {offset} to {} of partition {partition} were deleted by retention",
                earliest - 1
            ));
            *offset = earliest;
            return Ok(());
        }
        ReadOutcome::AboveLatest { latest } => {
            let text = format!("partition {partition} ends at {latest}, before {offset}: the topic was created anew");
            return Err(Error::external(text).into());
        }
    };
    let mut text = Vec::new();
    for record in batches.iter().flat_map(|batch| batch.iter()) {
        if *left == 0 {
            break;
        }
        print(&mut text, partition, &record, output);
        *left -= 1;
        *offset = record.offset + 1;
    }
    if text.is_empty() { Ok(()) } else { write(&text) }
}

fn print(text: &mut Vec<u8>, partition: u32, record: &Record<'_>, output: Output) {
    match output {
        Output::Table => text.extend_from_slice(record.value),
        Output::Json => {
            let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let value = serde_json::from_slice::<Value>(record.value).unwrap_or_else(|_| as_text(record.value).into());
            let line = json!({"partition": partition, "offset": record.offset, "timestamp_ms": record.timestamp_ms,
                "key": record.key.map(as_text), "value": value});
            text.extend_from_slice(line.to_string().as_bytes());
        }
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_four_words() {
        assert_eq!(parse_place("earliest"), Ok(Place::Earliest));
        assert_eq!(parse_place("offset:7"), Ok(Place::Offset(7)));
        assert_eq!(parse_place("timestamp:-5"), Ok(Place::Timestamp(-5)));
        for bad in ["", "7", "offset:", "offset:-1", "timestamp:now"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
    }
}
