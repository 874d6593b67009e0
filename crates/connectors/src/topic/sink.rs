//! A sink into an embedded topic: exactly once by staging, or at least once by plain appends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::format::Encode;
use tidemill_core::sink::{Committer, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, NO_TIMESTAMP, Result, SharedClock};
use tidemill_topic::{NewRecord, StageId, Topic, TopicConfig, Topics};

use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};

type KeyOf<T> = Arc<dyn Fn(&T) -> Vec<u8> + Send + Sync>;

/// Writes records into an embedded topic.
///
/// Exactly once (the default): records are staged in the topic as they come and shown when the checkpoint of their
/// epoch is complete. At least once: they are appended as they come; readers see them at once, and after a restart some
/// of them twice.
pub struct TopicSink<T, E> {
    folder: PathBuf,
    name: String,
    encode: E,
    key: Option<KeyOf<T>>,
    create: Option<TopicConfig>,
    exactly_once: bool,
    options: BufferOptions,
}

impl<T, E: Encode<T>> TopicSink<T, E> {
    /// Into the topic `name` of the topics folder `folder`, exactly once; the topic must be there.
    pub fn new(folder: impl AsRef<Path>, name: impl Into<String>, encode: E) -> Self {
        TopicSink {
            folder: folder.as_ref().to_path_buf(),
            name: name.into(),
            encode,
            key: None,
            create: None,
            exactly_once: true,
            // Each batch is a transaction, so under load they had better be large.
            options: BufferOptions { queue_items_max: 65_536, batch_items_max: 32_768, ..BufferOptions::default() },
        }
    }

    /// Gives each record a key, which is stored with it and chooses its partition. Without (the default) records go to
    /// the partitions in turn, a batch at a time.
    pub fn key(mut self, key: impl Fn(&T) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// Creates the topic with `config` when it is not there.
    pub fn create_if_missing(mut self, config: TopicConfig) -> Self {
        self.create = Some(config);
        self
    }

    /// Appends at once, with duplicates after a restart, instead of exactly once.
    pub fn at_least_once(mut self) -> Self {
        self.exactly_once = false;
        self
    }

    /// The bounds of queue, batches and new tries; by default 65536 waiting records and 32768 a transaction.
    pub fn options(mut self, options: BufferOptions) -> Self {
        self.options = options;
        self
    }

    fn title(&self) -> String {
        format!("topic `{}`", self.name)
    }

    fn open(&self) -> Result<Topic> {
        let topics = Topics::open(&self.folder)?;
        match &self.create {
            Some(config) => topics.open_or_create(&self.name, config),
            None => topics.open_topic(&self.name),
        }
    }
}

fn scope_name(scope: &SinkScope) -> String {
    format!("{}/{}", scope.job_id, scope.uid)
}

impl<T, E> Sink<T> for TopicSink<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let topic = self.open()?;
        let deliver = TopicDeliver {
            turn: context.subtask as u32 % topic.partitions(),
            topic,
            title: self.title(),
            encode: self.encode.clone(),
            key: self.key.clone(),
            exactly_once: self.exactly_once,
            id: StageId {
                scope: scope_name(&context.scope),
                epoch: context.epoch,
                subtask: context.subtask as u32,
                attempt: context.attempt,
            },
            staged_any: false,
            appends: 0,
            started_ms: context.clock.now_ms(),
            clock: context.clock,
            values: Vec::new(),
        };
        let buffer = Buffered::start(&self.title(), context.waker, self.options, deliver)?;
        let keep = |timestamp_ms, record, items: &mut Vec<(i64, T)>| {
            items.push((timestamp_ms, record));
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, keep)))
    }

    fn committer(&self, _scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        if !self.exactly_once {
            return Ok(None);
        }
        Ok(Some(Box::new(TopicCommitter(self.open()?))))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        // Also at least once: the job may have written exactly once before.
        self.open()?.recover(&scope_name(scope), tokens)
    }
}

struct TopicCommitter(Topic);

impl Committer for TopicCommitter {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        self.0.commit(tokens)
    }
}

struct TopicDeliver<T, E> {
    topic: Topic,
    title: String,
    encode: E,
    key: Option<KeyOf<T>>,
    exactly_once: bool,
    /// Of the epoch that is open.
    id: StageId,
    staged_any: bool,
    /// Numbers the appends, so that one that is tried again after an unclear failure counts once.
    appends: u64,
    /// When the writer was made: appends of another start of the job are other appends, whatever its attempt is called.
    started_ms: i64,
    /// The partition of the next batch without keys.
    turn: u32,
    clock: SharedClock,
    values: Vec<u8>,
}

impl<T, E> Deliver for TopicDeliver<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    type Item = (i64, T);

    fn deliver(&mut self, items: &[(i64, T)]) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.values.clear();
        let mut ends = Vec::with_capacity(items.len());
        for (_, record) in items {
            self.encode
                .encode(record, &mut self.values)
                .map_err(|reason| Error::input(format!("{}: a record {reason}", self.title)))?;
            ends.push(self.values.len());
        }
        let keys: Vec<Option<Vec<u8>>> =
            items.iter().map(|(_, record)| self.key.as_ref().map(|key| key(record))).collect();
        let mut begin = 0;
        let records: Vec<NewRecord<'_>> = items
            .iter()
            .zip(&keys)
            .zip(&ends)
            .map(|(((timestamp_ms, _), key), end)| {
                let value = &self.values[begin..*end];
                begin = *end;
                NewRecord {
                    partition: key.as_deref().map_or(self.turn, |key| self.topic.partition_for(key)),
                    timestamp_ms: if *timestamp_ms == NO_TIMESTAMP { now_ms } else { *timestamp_ms },
                    key: key.as_deref(),
                    value,
                }
            })
            .collect();
        if self.exactly_once {
            self.topic.stage(&self.id, &records, now_ms)?;
            self.staged_any = true;
        } else {
            let StageId { scope, subtask, attempt, .. } = &self.id;
            let once = format!("{scope}/{subtask}/{attempt}/{}/{}", self.started_ms, self.appends);
            self.topic.append(&records, Some(&once), now_ms)?;
            self.appends += 1;
        }
        self.turn = (self.turn + 1) % self.topic.partitions();
        Ok(())
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        let tokens = if self.staged_any { vec![self.id.token()] } else { Vec::new() };
        self.staged_any = false;
        // Unique is enough: the number of the next epoch is at least this one.
        self.id.epoch = self.id.epoch.max(epoch) + 1;
        Ok(tokens)
    }
}
