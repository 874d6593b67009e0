//! The sink as a program describes it: where records go, how they are written, and what is promised.

use std::sync::Arc;

use tidemill_core::format::Encode;
use tidemill_core::sink::{Committer, PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result};

use super::commit::KafkaCommitter;
use super::deliver::KafkaDeliver;
use super::partitioner::KafkaPartitioner;
use super::records::KafkaCompression;
use super::security::{Access, KafkaSecurity};
use crate::buffered::{BufferOptions, Buffered, BufferedWriter};

/// What the sink promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KafkaDelivery {
    /// Nothing: checkpoints do not wait for Kafka, and a crash loses what was under way.
    None,
    /// Every record arrives; after a restart some twice.
    AtLeastOnce,
    /// Every record shows once to those who read committed records only, when the checkpoint of its epoch is complete. The
    /// default.
    #[default]
    ExactlyOnce,
}

/// Appends a record's bytes of something.
pub(super) type Append<T> = Arc<dyn Fn(&T, &mut Vec<u8>) + Send + Sync>;
type Choose<T, R> = Arc<dyn Fn(&T) -> R + Send + Sync>;

/// Headers by name.
pub type KafkaHeaderList = Vec<(String, Vec<u8>)>;

/// Where a record goes.
pub(super) enum Destination<T> {
    Topic(String),
    By(Choose<T, String>),
}

/// Writes records into topics of Apache Kafka.
///
/// Exactly once (the default) each subtask writes a transaction an epoch. At the checkpoint it is pre-committed: all
/// records are in Kafka, and what it takes to commit them is in the checkpoint. When the checkpoint is complete they are
/// committed, if need be by the next start of the job.
pub struct KafkaSink<T, E> {
    pub(super) access: Access,
    pub(super) destination: Destination<T>,
    pub(super) encode: E,
    pub(super) key: Option<Append<T>>,
    pub(super) headers: Option<Choose<T, KafkaHeaderList>>,
    pub(super) deletes: Option<Choose<T, bool>>,
    pub(super) partitioner: KafkaPartitioner<T>,
    pub(super) delivery: KafkaDelivery,
    pub(super) compression: KafkaCompression,
    pub(super) batch_bytes_max: usize,
    pub(super) transaction_timeout_ms: i32,
    prefix: Option<String>,
    restart_allowance_ms: i64,
    skip_lost_transactions: bool,
    options: BufferOptions,
}

impl<T, E: Clone> Clone for KafkaSink<T, E> {
    fn clone(&self) -> Self {
        KafkaSink {
            access: self.access.clone(),
            destination: match &self.destination {
                Destination::Topic(topic) => Destination::Topic(topic.clone()),
                Destination::By(by) => Destination::By(Arc::clone(by)),
            },
            encode: self.encode.clone(),
            key: self.key.clone(),
            headers: self.headers.clone(),
            deletes: self.deletes.clone(),
            partitioner: self.partitioner.clone(),
            compression: self.compression,
            delivery: self.delivery,
            batch_bytes_max: self.batch_bytes_max,
            transaction_timeout_ms: self.transaction_timeout_ms,
            prefix: self.prefix.clone(),
            restart_allowance_ms: self.restart_allowance_ms,
            skip_lost_transactions: self.skip_lost_transactions,
            options: self.options,
        }
    }
}

impl<T, E: Encode<T>> KafkaSink<T, E> {
    /// Into a topic, exactly once; the topic must be there. `servers`: brokers to begin with, `host:port`, comma separated.
    pub fn new(servers: impl Into<String>, topic: impl Into<String>, encode: E) -> Self {
        KafkaSink {
            access: Access { servers: servers.into(), security: KafkaSecurity::default() },
            destination: Destination::Topic(topic.into()),
            encode,
            key: None,
            headers: None,
            deletes: None,
            partitioner: KafkaPartitioner::KeyHash,
            delivery: KafkaDelivery::default(),
            compression: KafkaCompression::default(),
            batch_bytes_max: 1_000_000,
            transaction_timeout_ms: 15 * 60_000,
            prefix: None,
            restart_allowance_ms: 60_000,
            skip_lost_transactions: false,
            // Under load the batches had better be large.
            options: BufferOptions { queue_items_max: 65_536, batch_items_max: 16_384, ..BufferOptions::default() },
        }
    }

    /// How brokers are spoken to; default: in the open, without a login.
    pub fn security(mut self, security: KafkaSecurity) -> Self {
        self.access.security = security;
        self
    }

    /// Each record to the topic a function names, instead of all to one.
    pub fn topic_by(mut self, topic: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.destination = Destination::By(Arc::new(topic));
        self
    }

    /// Appends each record's key to a buffer; where nothing is appended the record has none. Default: no keys.
    pub fn key(mut self, key: impl Fn(&T, &mut Vec<u8>) + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// Gives each record headers.
    pub fn headers(mut self, headers: impl Fn(&T) -> KafkaHeaderList + Send + Sync + 'static) -> Self {
        self.headers = Some(Arc::new(headers));
        self
    }

    /// Writes records for which this holds without a value: they delete their key from a compacted topic.
    pub fn delete_when(mut self, deletes: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.deletes = Some(Arc::new(deletes));
        self
    }

    /// How records are spread over partitions; default: by the hash of their key.
    pub fn partitioner(mut self, partitioner: KafkaPartitioner<T>) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// What is promised; default: exactly once.
    pub fn delivery(mut self, delivery: KafkaDelivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// What the names of this sink's transactions begin with. It must differ from that of every other sink of the cluster, and stay
    /// as it is over restarts. Default: made of the ids of job and operator.
    pub fn transactional_id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// After how long, in ms, Kafka aborts a transaction that was not committed, and with it an epoch of results; default
    /// 15 minutes, which is also the most brokers allow by default (`transaction.max.timeout.ms`).
    pub fn transaction_timeout_ms(mut self, timeout_ms: i32) -> Self {
        self.transaction_timeout_ms = timeout_ms;
        self
    }

    /// How long, in ms, a checkpoint and a restart may take together; default one minute. A transaction timeout that is shorter
    /// than this and the checkpoint interval together is refused.
    pub fn restart_allowance_ms(mut self, allowance_ms: i64) -> Self {
        self.restart_allowance_ms = allowance_ms;
        self
    }

    /// Goes on when a transaction of the checkpoint cannot be committed any more, because it was aborted by its timeout:
    /// **its records are lost**. Default: the job fails.
    pub fn skip_lost_transactions(mut self) -> Self {
        self.skip_lost_transactions = true;
        self
    }

    /// How batches are packed; default: not at all.
    pub fn compression(mut self, compression: KafkaCompression) -> Self {
        self.compression = compression;
        self
    }

    /// The most bytes of a batch before packing; default 1,000,000. Brokers refuse more than the topic's `max.message.bytes`.
    pub fn batch_bytes_max(mut self, bytes: usize) -> Self {
        self.batch_bytes_max = bytes;
        self
    }

    /// The bounds of queue, batches and new tries; by default 65536 waiting records and 16384 delivered at once.
    pub fn options(mut self, options: BufferOptions) -> Self {
        self.options = options;
        self
    }

    fn title(&self) -> String {
        match &self.destination {
            Destination::Topic(topic) => format!("kafka `{topic}`"),
            Destination::By(_) => "kafka".to_string(),
        }
    }

    fn prefix(&self, scope: &SinkScope) -> String {
        self.prefix.clone().unwrap_or_else(|| format!("tidemill-{}-{}", scope.job_id, scope.uid))
    }

    fn check_timeout(&self, checkpoint_interval_ms: i64) -> Result<()> {
        let needed_ms = checkpoint_interval_ms.saturating_add(self.restart_allowance_ms);
        if i64::from(self.transaction_timeout_ms) >= needed_ms {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: the transaction timeout of {} ms is too short: Kafka would abort results that wait for a checkpoint \
             ({checkpoint_interval_ms} ms) and a restart ({} ms)",
            self.title(),
            self.transaction_timeout_ms,
            self.restart_allowance_ms
        ))
        .hint(format!("make it {needed_ms} ms or longer, or the checkpoint interval shorter")))
    }
}

impl<T, E> Sink<T> for KafkaSink<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        if let (KafkaDelivery::ExactlyOnce, Some(interval_ms)) = (self.delivery, context.checkpoint_interval_ms) {
            self.check_timeout(interval_ms)?;
        }
        let prefix = self.prefix(&context.scope);
        let deliver = KafkaDeliver::new(self.clone(), &prefix, &context)?;
        let buffer = Buffered::start(&self.title(), context.waker, self.options, deliver)?;
        let writer = BufferedWriter::of_batches(buffer, Ok);
        Ok(match self.delivery {
            KafkaDelivery::None => Box::new(Unpromised(writer)),
            _ => Box::new(writer),
        })
    }

    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        if self.delivery != KafkaDelivery::ExactlyOnce {
            return Ok(None);
        }
        Ok(Some(Box::new(KafkaCommitter::new(&self.access, self.skip_lost_transactions, &scope.metrics)?)))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        // Tokens are committed whatever is promised now: the job may have written exactly once before.
        if self.delivery != KafkaDelivery::ExactlyOnce && tokens.is_empty() {
            return Ok(());
        }
        let mut committer = KafkaCommitter::new(&self.access, self.skip_lost_transactions, &scope.metrics)?;
        if self.delivery == KafkaDelivery::ExactlyOnce {
            committer.check_timeout(self.transaction_timeout_ms)?;
        }
        committer.commit(tokens)?;
        committer.abort_left_over(&self.prefix(scope))
    }
}

/// A writer whose checkpoints wait for nothing.
struct Unpromised<W>(W);

impl<T, W: SinkWriter<T>> SinkWriter<T> for Unpromised<W> {
    fn ready(&mut self) -> bool {
        self.0.ready()
    }

    fn weigh(&mut self, bytes: usize) {
        self.0.weigh(bytes);
    }

    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()> {
        self.0.write(batch)
    }

    fn pre_commit(&mut self, _epoch: u64) -> Result<PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}
