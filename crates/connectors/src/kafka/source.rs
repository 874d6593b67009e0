//! The source as a program describes it: which partitions, from where to where, and how records become values.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_core::format::Decode;
use tidemill_core::source::{Boundedness, ReaderContext, Source, SourceReader, Split};
use tidemill_core::{Error, Result};

use super::client::{Cluster, patiently};
use super::fetch::{FetchOptions, KafkaFetch};
use super::reader::KafkaReader;
use super::record::{FromRecord, KafkaDecode, KafkaRecord, KeysAndValues, Values};
use super::security::{Access, KafkaSecurity};
use super::start::{KafkaReset, KafkaStart, KafkaStop};
use crate::fetcher::FetchReader;

/// How often new partitions are looked for.
const DISCOVERY_INTERVAL_MS: i64 = 5 * 60_000;

/// How long a start waits for brokers that do not answer.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(30);

/// Which partitions are read.
#[derive(Debug, Clone)]
enum Subscription {
    Topics(BTreeSet<String>),
    Pattern(Arc<regex_lite::Regex>),
    Partitions(BTreeSet<(String, i32)>),
}

/// What is read from where: all that does not depend on the format.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub access: Access,
    subscription: Subscription,
    pub start: KafkaStart,
    pub stop: Option<KafkaStop>,
    pub group: Option<String>,
    pub fetch: FetchOptions,
    discovery_interval_ms: i64,
}

/// Reads topics of Apache Kafka, one split a partition; records carry Kafka's timestamps.
///
/// Positions live in checkpoints. With a group they are also committed to Kafka whenever a checkpoint completes, for
/// those who watch and for [`KafkaStart::GroupOffsets`]; the job itself never reads them back.
#[derive(Debug, Clone)]
pub struct KafkaSource<D> {
    reading: Reading,
    decode: D,
    discovery: Arc<Discovery>,
}

impl<D: Decode> KafkaSource<Values<D>> {
    /// The values of records, in a format. `servers`: brokers to begin with, `host:port`, comma separated.
    pub fn values(servers: impl Into<String>, format: D) -> Self {
        KafkaSource::with(servers, Values(format))
    }
}

impl<K: Decode, V: Decode> KafkaSource<KeysAndValues<K, V>> {
    /// Keys and values of records, each in a format; `None` where a record has none.
    pub fn keys_and_values(servers: impl Into<String>, key: K, value: V) -> Self {
        KafkaSource::with(servers, KeysAndValues { key, value })
    }
}

impl<F> KafkaSource<FromRecord<F>> {
    /// What `from` makes of records with their metadata; the reason it gives otherwise goes to the dead letters.
    pub fn records<T>(servers: impl Into<String>, from: F) -> Self
    where
        F: Fn(&KafkaRecord<'_>) -> Result<T, String> + Clone + Send + Sync + 'static,
    {
        KafkaSource::with(servers, FromRecord(from))
    }
}

impl<D: KafkaDecode> KafkaSource<D> {
    /// Records through a [`KafkaDecode`]. What to read is yet to be said, by [`KafkaSource::topics`] or one of its sisters.
    pub fn with(servers: impl Into<String>, decode: D) -> Self {
        let reading = Reading {
            access: Access { servers: servers.into(), security: KafkaSecurity::default() },
            subscription: Subscription::Topics(BTreeSet::new()),
            start: KafkaStart::default(),
            stop: None,
            group: None,
            fetch: FetchOptions::default(),
            discovery_interval_ms: DISCOVERY_INTERVAL_MS,
        };
        KafkaSource { reading, decode, discovery: Arc::default() }
    }

    fn set(mut self, change: impl FnOnce(&mut Reading)) -> Self {
        change(&mut self.reading);
        // What an earlier description found is none of this one's.
        self.discovery = Arc::default();
        self
    }

    /// How brokers are spoken to; default: in the open, without a login.
    pub fn security(self, security: KafkaSecurity) -> Self {
        self.set(|reading| reading.access.security = security)
    }

    /// Reads all partitions of these topics.
    pub fn topics<S: Into<String>>(self, topics: impl IntoIterator<Item = S>) -> Self {
        let topics = topics.into_iter().map(Into::into).collect();
        self.set(|reading| reading.subscription = Subscription::Topics(topics))
    }

    /// Reads all partitions of all topics whose whole name matches a regular expression; also of those created later.
    pub fn topic_pattern(self, pattern: &str) -> Result<Self> {
        let regex = regex_lite::Regex::new(&format!("^(?:{pattern})$"))
            .map_err(|error| Error::input(format!("`{pattern}` is no pattern of topics: {error}")))?;
        Ok(self.set(|reading| reading.subscription = Subscription::Pattern(Arc::new(regex))))
    }

    /// Reads exactly these partitions.
    pub fn partitions<S: Into<String>>(self, partitions: impl IntoIterator<Item = (S, i32)>) -> Self {
        let partitions = partitions.into_iter().map(|(topic, partition)| (topic.into(), partition)).collect();
        self.set(|reading| reading.subscription = Subscription::Partitions(partitions))
    }

    /// Where to begin; default: at the oldest records.
    pub fn start(self, start: KafkaStart) -> Self {
        self.set(|reading| reading.start = start)
    }

    /// Where to end; default: never.
    pub fn bounded(self, stop: KafkaStop) -> Self {
        self.set(|reading| reading.stop = Some(stop))
    }

    /// The group whose offsets are read at the start and committed when checkpoints complete. Default: none. The source is no
    /// member of it, so another program in the same group does not share its work.
    pub fn group_id(self, group: impl Into<String>) -> Self {
        let group = group.into();
        self.set(|reading| reading.group = Some(group))
    }

    /// How often to look for new partitions, in ms; default 5 minutes, 0 or less: never. A bounded source does not look.
    pub fn partition_discovery_interval_ms(self, interval_ms: i64) -> Self {
        self.set(|reading| reading.discovery_interval_ms = interval_ms)
    }

    /// Also reads records of transactions that are still open or were aborted. Default: only committed ones.
    pub fn read_uncommitted(self) -> Self {
        self.set(|reading| reading.fetch.read_committed = false)
    }

    /// What to do when the offset to go on from is not kept any more (or not there yet); default: fail.
    pub fn on_lost_records(self, reset: KafkaReset) -> Self {
        self.set(|reading| reading.fetch.on_lost_records = reset)
    }

    /// The most bytes asked for at once, of one partition and of one broker. Default 4 MiB and 8 MiB. A larger batch comes all the
    /// same.
    pub fn fetch_bytes_max(self, partition: usize, broker: usize) -> Self {
        self.set(|reading| {
            reading.fetch.partition_bytes_max = i32::try_from(partition).unwrap_or(i32::MAX);
            reading.fetch.broker_bytes_max = i32::try_from(broker).unwrap_or(i32::MAX);
        })
    }
}

impl Reading {
    fn title(&self) -> String {
        match &self.subscription {
            Subscription::Topics(topics) => {
                format!("kafka `{}`", topics.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Subscription::Pattern(pattern) => format!("kafka `{}`", pattern.as_str()),
            Subscription::Partitions(partitions) => {
                let topics: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
                format!(
                    "kafka `{}` ({} partitions)",
                    topics.into_iter().collect::<Vec<_>>().join(", "),
                    partitions.len()
                )
            }
        }
    }

    /// The partitions there are now.
    fn discover(&self) -> Result<Vec<(String, i32)>> {
        let mut cluster = Cluster::new(&self.access)?;
        let named = match &self.subscription {
            Subscription::Topics(topics) => Some(topics.iter().cloned().collect::<Vec<_>>()),
            Subscription::Pattern(_) => None,
            Subscription::Partitions(partitions) => {
                let topics: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
                Some(topics.into_iter().cloned().collect())
            }
        };
        if named.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::input("it is not said what to read from Kafka")
                .hint("name topics, a pattern of topics, or partitions"));
        }
        let found = cluster.topics(named.as_deref())?;
        if let Some(missing) = named.iter().flatten().find(|name| !found.iter().any(|topic| topic.topic == **name)) {
            return Err(Error::input(format!("there is no topic `{missing}` in Kafka")).hint("create it first"));
        }
        let all = found.iter().flat_map(|topic| topic.partitions.iter().map(|at| (topic.topic.clone(), *at)));
        match &self.subscription {
            Subscription::Topics(_) => Ok(all.collect()),
            Subscription::Pattern(pattern) => Ok(all.filter(|(topic, _)| pattern.is_match(topic)).collect()),
            Subscription::Partitions(partitions) => {
                let all: BTreeSet<(String, i32)> = all.collect();
                if let Some((topic, partition)) = partitions.difference(&all).next() {
                    return Err(Error::input(format!("the topic `{topic}` has no partition {partition}")));
                }
                Ok(partitions.iter().cloned().collect())
            }
        }
    }
}

/// What was found last. Asked again, it answers at once and looks anew on a thread of its own: a worker never waits.
#[derive(Debug, Default)]
struct Discovery {
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    partitions: Option<Vec<(String, i32)>>,
    looking: bool,
}

impl Discovery {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(self: &Arc<Self>, reading: &Reading) -> Result<Vec<(String, i32)>> {
        let mut found = self.lock();
        let Some(known) = found.partitions.clone() else {
            // The start of a job: all workers wait for the first answer.
            let partitions = patiently(START_PATIENCE, || reading.discover())?;
            found.partitions = Some(partitions.clone());
            return Ok(partitions);
        };
        if !found.looking && reading.interval_ms().is_some() {
            let (this, reading) = (Arc::clone(self), reading.clone());
            let look = move || {
                let seen = reading.discover();
                let mut found = this.lock();
                found.looking = false;
                // A cluster that does not answer now will at the next look.
                if let Ok(partitions) = seen {
                    found.partitions = Some(partitions);
                }
            };
            found.looking = std::thread::Builder::new().name("kafka discovery".into()).spawn(look).is_ok();
        }
        Ok(known)
    }
}

impl Reading {
    /// Half of what was asked for, since a partition is seen at one look and taken at the next.
    fn interval_ms(&self) -> Option<u64> {
        let wanted = self.stop.is_none() && self.discovery_interval_ms > 0;
        wanted.then_some((self.discovery_interval_ms as u64 / 2).max(1))
    }
}

/// The name of a partition's split. Topics have no `/` in their names.
pub(super) fn split_id(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The partition a split is of.
pub(super) fn partition_of(id: &str) -> Result<(String, i32)> {
    id.rsplit_once('/')
        .and_then(|(topic, partition)| Some((topic.to_string(), partition.parse().ok()?)))
        .ok_or_else(|| Error::input(format!("`{id}` is no split of a Kafka topic")))
}

/// Partitions of a topic follow each other around the subtasks, from a place its name decides; it must not depend on
/// what else is there.
fn slot(topic: &str, partition: i32) -> u32 {
    let start = topic.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (start.wrapping_mul(31) & 0x7fff_ffff).wrapping_add(partition as u32)
}

impl<D> Source<D::Value> for KafkaSource<D>
where
    D: KafkaDecode,
    D::Value: Send + 'static,
{
    fn name(&self) -> String {
        self.reading.title()
    }

    fn boundedness(&self) -> Boundedness {
        if self.reading.stop.is_some() { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let partitions = self.discovery.partitions(&self.reading)?;
        let split = |(topic, partition): (String, i32)| Split {
            id: split_id(&topic, partition),
            slot: slot(&topic, partition),
            position: serde_json::Value::Null,
        };
        Ok(partitions.into_iter().map(split).collect())
    }

    fn discovery_interval_ms(&self) -> Option<u64> {
        self.reading.interval_ms()
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<D::Value>>> {
        let title = self.reading.title();
        let fetch = KafkaFetch::new(&title, &self.reading, self.decode.clone(), &context.metrics)?;
        let inner = FetchReader::new(&title, &context, fetch);
        Ok(Box::new(KafkaReader::new(self.reading.clone(), inner, &context)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Text;

    #[test]
    fn partitions_spread_over_subtasks() {
        assert_eq!(partition_of(&split_id("a.b-c_d", 12)).expect("a split"), ("a.b-c_d".into(), 12));
        assert!(partition_of("partition-3").is_err());
        let mut taken: Vec<u32> = (0..6).map(|partition| slot("orders", partition) % 3).collect();
        taken.sort();
        assert_eq!(taken, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn wrong_descriptions_are_told() {
        let told = |source: KafkaSource<Values<Text>>| source.splits().expect_err("refused").to_string();
        let source = |servers: &str| KafkaSource::values(servers, Text);
        assert!(told(source("nowhere:1")).contains("what to read"));
        assert!(told(source("").topics(["t"])).contains("no Kafka broker is named"));
        assert!(told(source("nowhere").topics(["t"])).contains("`nowhere` is no address"));
        assert!(source("a:1").topic_pattern("orders-(").is_err());
    }
}
