//! A sink into Redis: every record becomes upserts, so that writing a record again changes nothing. At least once, and
//! with upserts that is all a reader can see.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, Cmd, Connection, Pipeline, RedisError};
use tidemill_core::sink::{Sink, SinkWriter, WriterContext};
use tidemill_core::{Error, Kind, Result};

use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};

/// How long connecting, or waiting for an answer, may take before it is tried again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One change to Redis that can be made twice. `ttl_ms`: the key is gone after so many ms; `None`: stays.
#[derive(Debug, Clone, PartialEq)]
pub enum RedisCommand {
    /// `SET key value`.
    Set {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// Time to live of the key, in ms.
        ttl_ms: Option<u64>,
    },
    /// `DEL key`.
    Delete {
        /// The key, of any type.
        key: String,
    },
    /// `HSET key field value`.
    HashSet {
        /// The key of the hash.
        key: String,
        /// The field in it.
        field: String,
        /// The field's new value.
        value: Vec<u8>,
        /// Time to live of the whole hash, in ms.
        ttl_ms: Option<u64>,
    },
    /// `HDEL key field`.
    HashDelete {
        /// The key of the hash.
        key: String,
        /// The field in it.
        field: String,
    },
    /// `ZADD key score member`: the member has this score from now on.
    SortedSetAdd {
        /// The key of the sorted set.
        key: String,
        /// The member.
        member: String,
        /// Its new score.
        score: f64,
        /// Time to live of the whole set, in ms.
        ttl_ms: Option<u64>,
    },
    /// `ZREM key member`.
    SortedSetRemove {
        /// The key of the sorted set.
        key: String,
        /// The member.
        member: String,
    },
}

impl RedisCommand {
    fn add_to(&self, pipeline: &mut Pipeline) {
        let mut expire = None;
        let command = match self {
            RedisCommand::Set { key, value, ttl_ms } => {
                let mut command = Cmd::new();
                command.arg("SET").arg(key).arg(value.as_slice());
                if let Some(ttl_ms) = ttl_ms {
                    command.arg("PX").arg(*ttl_ms);
                }
                command
            }
            RedisCommand::Delete { key } => Cmd::new().arg("DEL").arg(key).take(),
            RedisCommand::HashSet { key, field, value, ttl_ms } => {
                expire = ttl_ms.map(|ttl_ms| (key, ttl_ms));
                Cmd::new().arg("HSET").arg(key).arg(field).arg(value.as_slice()).take()
            }
            RedisCommand::HashDelete { key, field } => Cmd::new().arg("HDEL").arg(key).arg(field).take(),
            RedisCommand::SortedSetAdd { key, member, score, ttl_ms } => {
                expire = ttl_ms.map(|ttl_ms| (key, ttl_ms));
                Cmd::new().arg("ZADD").arg(key).arg(*score).arg(member).take()
            }
            RedisCommand::SortedSetRemove { key, member } => Cmd::new().arg("ZREM").arg(key).arg(member).take(),
        };
        pipeline.add_command(command).ignore();
        if let Some((key, ttl_ms)) = expire {
            pipeline.add_command(Cmd::new().arg("PEXPIRE").arg(key).arg(ttl_ms).take()).ignore();
        }
    }
}

type Commands<T> = Arc<dyn Fn(&T) -> Vec<RedisCommand> + Send + Sync>;

/// Writes records into Redis as the commands a function makes of them, in order for each subtask, in pipelines of
/// whatever waits. While Redis is away it is tried again and again, under backpressure, and nothing is lost; a checkpoint
/// waits until all before it was acknowledged. How durable that is, is up to Redis (`appendfsync`).
pub struct RedisSink<T> {
    url: String,
    commands: Commands<T>,
    options: BufferOptions,
}

impl<T> RedisSink<T> {
    /// Into the Redis at `url`, such as `redis://:password@host:6379/0`.
    pub fn new(url: impl Into<String>, commands: impl Fn(&T) -> Vec<RedisCommand> + Send + Sync + 'static) -> Self {
        RedisSink { url: url.into(), commands: Arc::new(commands), options: BufferOptions::default() }
    }

    /// The bounds of queue, batches and new tries.
    pub fn options(mut self, options: BufferOptions) -> Self {
        self.options = options;
        self
    }

    /// The URL without a password.
    fn title(&self) -> String {
        let address = self.url.rsplit_once('@').map_or_else(
            || self.url.split_once("://").map_or(self.url.as_str(), |(_, address)| address),
            |(_, address)| address,
        );
        format!("redis `{address}`")
    }
}

impl<T: 'static> Sink<T> for RedisSink<T> {
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let client = Client::open(self.url.as_str()).map_err(|error| {
            Error::input(format!("{}: {error}", self.title())).hint("write `redis://[:password@]host:port[/db]`")
        })?;
        let deliver = RedisDeliver { client, connection: None, title: self.title() };
        let buffer = Buffered::start(&self.title(), context.waker, self.options, deliver)?;
        let commands = Arc::clone(&self.commands);
        let convert = move |_, record: T, items: &mut Vec<RedisCommand>| {
            items.extend(commands(&record));
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, convert)))
    }
}

struct RedisDeliver {
    client: Client,
    connection: Option<Connection>,
    title: String,
}

impl RedisDeliver {
    fn connect(&self) -> std::result::Result<Connection, RedisError> {
        let connection = self.client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }

    fn send(&mut self, items: &[RedisCommand]) -> std::result::Result<(), RedisError> {
        // Kept only after success: behind a failure it may hold answers to the commands of this try.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let mut pipeline = Pipeline::with_capacity(items.len());
        for item in items {
            item.add_to(&mut pipeline);
        }
        pipeline.exec(&mut connection)?;
        self.connection = Some(connection);
        Ok(())
    }
}

impl Deliver for RedisDeliver {
    type Item = RedisCommand;

    fn deliver(&mut self, items: &[RedisCommand]) -> Result<()> {
        self.send(items).map_err(|error| {
            let message = format!("cannot write to {}: {error}", self.title);
            match kind(error) {
                Kind::Input => Error::input(message),
                Kind::Full => Error::full(message).hint("give Redis more memory, or let keys expire"),
                _ => Error::external(message),
            }
        })
    }
}

/// Whether trying again may help.
fn kind(error: RedisError) -> Kind {
    let code = error.code().map(str::to_string);
    let broken = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
    let codes: Vec<String> = match error.into_server_errors() {
        Some(errors) => errors.iter().map(|(_, error)| error.code().to_string()).collect(),
        None => code.into_iter().collect(),
    };
    // States of a server that pass: it starts, is being replaced, or cannot write to its disk.
    let passes = |code: &String| {
        matches!(
            code.as_str(),
            "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "BUSY" | "MISCONF" | "NOREPLICAS"
        )
    };
    if codes.is_empty() {
        return if broken { Kind::External } else { Kind::Input };
    }
    match codes.iter().find(|code| !passes(code)) {
        None => Kind::External,
        Some(code) if code == "OOM" => Kind::Full,
        Some(_) => Kind::Input,
    }
}
