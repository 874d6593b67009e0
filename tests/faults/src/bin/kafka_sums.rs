//! The job of the kill tests with Kafka: a topic of lines `key,time in ms,amount` becomes a topic of running sums by key and
//! a topic of sums by key and second, both exactly once. With `--bounded` it ends where the topic ended when it began; with `--slow` it
//! takes a second for 30,000 lines, so that there is something to disturb.

use std::process::ExitCode;

use tidemill::connectors::format::Text;
use tidemill::connectors::kafka::{KafkaSink, KafkaSource, KafkaStop};
use tidemill::prelude::*;

/// Key, event time, amount.
type Entry = (String, i64, i64);

fn main() -> ExitCode {
    run_job("kafka sums", build)
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

fn key(line: &str, key: &mut Vec<u8>) {
    key.extend_from_slice(line.split(',').next().unwrap_or_default().as_bytes());
}

fn build(env: &Environment) -> Result<()> {
    let (servers, from) = (option("servers")?, option("from")?);
    let (sums, seconds) = (option("sums")?, option("seconds")?);
    let told = |name: &str| std::env::args().any(|word| word == name);
    let slow = told("--slow");
    let mut read_lines = 0u32;
    let times = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(500))
        .with_timestamps(|line: &String, _| read(line).map_or(NO_TIMESTAMP, |entry| entry.1));
    let mut source = KafkaSource::values(&servers, Text).topics([from]).group_id("kafka-sums");
    if told("--bounded") {
        source = source.bounded(KafkaStop::Latest);
    }
    let entries = env.from_source(source, times, "entries").uid("entries").flat_map(move |line: String| {
        read_lines = read_lines.wrapping_add(1);
        if slow && read_lines.is_multiple_of(60) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        read(&line)
    });
    let by_key = entries.key_by(|entry| entry.0.clone());
    by_key
        .flat_map_with_state(|entry: Entry, sum: &mut Option<i64>| {
            let now = sum.unwrap_or(0) + entry.2;
            *sum = Some(now);
            [format!("{},{},{},{now}", entry.0, entry.1, entry.2)]
        })
        .uid("sums")
        .sink_to(KafkaSink::new(&servers, sums, Text).key(|line: &String, out| key(line, out)))
        .uid("into-sums");
    by_key
        .window(Tumbling::event_time(Duration::from_secs(1)))
        .reduce_with(
            |held: &mut Entry, next| held.2 += next.2,
            |key: &String, window, entry: Entry| [format!("{key},{},{}", window.start_ms, entry.2)],
        )
        .uid("seconds")
        .sink_to(KafkaSink::new(&servers, seconds, Text).key(|line: &String, out| key(line, out)))
        .uid("into-seconds");
    Ok(())
}
