//! Kafka at both ends of a graph: what its sources read stands in topics, one partition a split, and what it publishes goes
//! into a topic, exactly once.

use tidemill::connectors::format::Text;
use tidemill::connectors::kafka::{KafkaSink, KafkaSource, KafkaStop};
use tidemill::connectors::rate_limit::{RateLimit, RateLimitedSource};
use tidemill::prelude::*;

use super::graph::{Event, Source};

/// Where a graph reads and publishes.
pub struct KafkaPlace {
    /// A broker.
    pub servers: String,
    /// What the names of the topics of its sources begin with.
    pub from: String,
    /// The topic of its results.
    pub into: String,
}

impl KafkaPlace {
    /// The topic of a source.
    pub fn topic(&self, source: usize) -> String {
        format!("{}-{source}", self.from)
    }

    /// What a partition of a source's topic holds, in order.
    pub fn records(source: &Source, partition: u32) -> impl Iterator<Item = (i64, String)> {
        let source = *source;
        (0..source.rows).filter(move |index| index % u64::from(source.splits) == u64::from(partition)).map(
            move |index| {
                let (time_ms, event) = source.event(index);
                (time_ms, format!("{time_ms},{},{}", event.key, event.value))
            },
        )
    }

    /// Reads a source's topic.
    pub fn read(&self, source: Source, env: &Environment, at: usize) -> DataStream<Event> {
        let kafka = KafkaSource::values(&self.servers, Text).topics([self.topic(at)]).bounded(KafkaStop::Latest);
        let slowly = RateLimitedSource::new(kafka, RateLimit::PerJob(source.rate));
        let times = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(source.disorder_ms));
        env.from_source(slowly, times, &format!("source {at}"))
            .uid(&format!("source {at}"))
            .map(|line: String| event(&line))
            .uid(&format!("events {at}"))
    }

    /// Publishes the results.
    pub fn publish(&self, lines: &DataStream<String>) {
        lines.sink_to(KafkaSink::new(&self.servers, &self.into, Text)).uid("published");
    }
}

fn event(line: &str) -> Event {
    let mut numbers = line.split(',').map(|number| number.parse().expect("a number that was written as one"));
    let mut next = || numbers.next().expect("a line has three numbers");
    let _time_ms = next();
    Event { key: next(), value: next() }
}
