//! The job of the kill tests: a topic of lines `key,time in ms,amount` becomes a topic of running sums by key, and files
//! of sums by key and second; both exactly once. With `--bounded` it ends where the topic ended when it began; with
//! `--slow` it takes a second for 10,000 lines, so that there is something to disturb; with `--apart` its windows have slots
//! of their own.

use std::path::PathBuf;
use std::process::ExitCode;

use tidemill::connectors::file::FileSink;
use tidemill::connectors::format::Text;
use tidemill::connectors::topic::{TopicSink, TopicSource};
use tidemill::prelude::*;

/// Key, event time, amount.
type Entry = (String, i64, i64);

fn main() -> ExitCode {
    run_job("sums", build)
}

/// The word behind `--<name>`.
fn option(name: &str) -> Result<String> {
    let mut words = std::env::args().skip_while(|word| *word != format!("--{name}")).skip(1);
    words.next().ok_or_else(|| Error::input(format!("`--{name}` is missing")))
}

fn read(line: &str) -> Option<Entry> {
    let mut fields = line.split(',');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn build(env: &Environment) -> Result<()> {
    let data = std::env::var("TIDEMILL_DATA").map_err(|_| Error::input("`TIDEMILL_DATA` is not set"))?;
    let topics = PathBuf::from(data).join("topics");
    let (from, into, files) = (option("from")?, option("into")?, option("files")?);
    let told = |name: &str| std::env::args().any(|word| word == name);
    let (bounded, slow, group) =
        (told("--bounded"), told("--slow"), if told("--apart") { "windows" } else { "default" });
    let mut read_lines = 0u32;
    // At the source, so that each partition has a watermark of its own and nothing is ever late.
    let times = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(500))
        .with_timestamps(|line: &String, _| read(line).map_or(NO_TIMESTAMP, |entry| entry.1));
    let entries = env
        .from_source(TopicSource::new(&topics, from, Text).bounded(bounded), times, "entries")
        .uid("entries")
        .flat_map(move |line: String| {
            read_lines = read_lines.wrapping_add(1);
            if slow && read_lines.is_multiple_of(20) {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            read(&line)
        });
    let by_key = entries.key_by(|entry| entry.0.clone());
    // The running sum stands beside the newest amount, so that order shows, too.
    by_key
        .flat_map_with_state(|entry: Entry, sum: &mut Option<i64>| {
            let now = sum.unwrap_or(0) + entry.2;
            *sum = Some(now);
            [format!("{},{},{},{now}", entry.0, entry.1, entry.2)]
        })
        .uid("sums")
        .sink_to(
            TopicSink::new(&topics, into, Text)
                .key(|line: &String| line.split(',').next().unwrap_or_default().as_bytes().to_vec())
                .create_if_missing(Default::default()),
        )
        .uid("into-topic");
    by_key
        .window(Tumbling::event_time(Duration::from_secs(1)))
        .reduce_with(
            |a, b| a.2 += b.2,
            |key: &String, window, entry: Entry| [format!("{key},{},{}", window.start_ms, entry.2)],
        )
        .uid("seconds")
        .slot_sharing_group(group)
        .sink_to(FileSink::new(files, Text))
        .uid("into-files");
    Ok(())
}
