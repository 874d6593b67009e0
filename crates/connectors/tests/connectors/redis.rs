//! Redis: against a real server, also one that is killed in the middle.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Commands, Connection};
use tidemill_connectors::buffered::BufferOptions;
use tidemill_connectors::conformance::{Alarm, write, writer_context};
use tidemill_connectors::redis::{RedisCommand, RedisSink};
use tidemill_core::Kind;
use tidemill_core::sink::{PreCommit, Sink, SinkWriter};

use crate::free_port::free_port;

/// A Redis of the test's own: a free loopback port, a folder that goes with it, every write on disk before its answer.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// `None`, with a line on standard error, where there is no `redis-server`.
    fn start() -> Option<Server> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: redis-server is not installed, so the Redis sink is not tested");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let child = spawn(&folder, port);
        let server = Server { folder, port, child };
        server.wait_until_ready();
        Some(server)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port);
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn connect(&self) -> redis::RedisResult<Connection> {
        Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))
    }

    fn wait_until_ready(&self) {
        let ready = || self.connect().is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok());
        crate::wait_until("redis-server answers", ready);
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start<T: 'static>(sink: &RedisSink<T>) -> (Box<dyn SinkWriter<T>>, Arc<Alarm>) {
    let (alarm, waker) = Alarm::new();
    (sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap(), alarm)
}

fn close<T>(writer: &mut dyn SinkWriter<T>, epoch: u64) {
    let close: PreCommit = writer.pre_commit(epoch).unwrap();
    assert!(close().unwrap().is_empty(), "there is nothing to commit");
}

#[test]
fn every_command_does_what_it_says_also_twice() {
    let Some(server) = Server::start() else { return };
    let commands = vec![
        RedisCommand::Set { key: "s".into(), value: b"\xff1".to_vec(), ttl_ms: None },
        RedisCommand::Set { key: "s-ttl".into(), value: b"1".to_vec(), ttl_ms: Some(60_000) },
        RedisCommand::Set { key: "gone".into(), value: b"1".to_vec(), ttl_ms: None },
        RedisCommand::Delete { key: "gone".into() },
        RedisCommand::HashSet { key: "h".into(), field: "a".into(), value: b"1".to_vec(), ttl_ms: Some(60_000) },
        RedisCommand::HashSet { key: "h".into(), field: "b".into(), value: b"2".to_vec(), ttl_ms: None },
        RedisCommand::HashDelete { key: "h".into(), field: "a".into() },
        RedisCommand::SortedSetAdd { key: "z".into(), member: "x".into(), score: 1.5, ttl_ms: None },
        RedisCommand::SortedSetAdd { key: "z".into(), member: "y".into(), score: -2.0, ttl_ms: Some(60_000) },
        RedisCommand::SortedSetAdd { key: "z".into(), member: "w".into(), score: 9.0, ttl_ms: None },
        RedisCommand::SortedSetRemove { key: "z".into(), member: "w".into() },
    ];
    let sink = RedisSink::new(server.url(), move |_: &u8| commands.clone());
    let (mut writer, alarm) = start(&sink);
    let mut redis = server.connect().unwrap();
    for epoch in 1..=2 {
        write(&mut *writer, &alarm, vec![(0, 0)]);
        close(&mut *writer, epoch);
        assert_eq!(redis.get::<_, Vec<u8>>("s").unwrap(), b"\xff1");
        assert_eq!(redis.hgetall::<_, Vec<(String, String)>>("h").unwrap(), [("b".to_string(), "2".to_string())]);
        let members: Vec<(String, f64)> = redis.zrange_withscores("z", 0, -1).unwrap();
        assert_eq!(members, [("y".to_string(), -2.0), ("x".to_string(), 1.5)]);
        assert!(!redis.exists::<_, bool>("gone").unwrap());
        for (key, expires) in [("s", false), ("s-ttl", true), ("h", true), ("z", true)] {
            let ttl: i64 = redis.pttl(key).unwrap();
            assert_eq!((1..=60_000).contains(&ttl), expires, "{key}: {ttl}");
        }
    }
}

/// Ten thousand keys get a hundred thousand values; Redis is killed twice on the way. In the end each key has its last.
#[test]
fn killed_and_restarted_in_the_middle_nothing_is_lost() {
    const KEYS: u64 = 10_000;
    const RECORDS: u64 = 100_000;
    let Some(mut server) = Server::start() else { return };
    let options =
        BufferOptions { queue_items_max: 2000, batch_items_max: 500, retry_most_ms: 50, ..Default::default() };
    let sink = RedisSink::new(server.url(), |n: &u64| {
        let (key, value) = (format!("k{}", n % KEYS), n.to_string().into_bytes());
        vec![
            RedisCommand::Set { key: key.clone(), value: value.clone(), ttl_ms: None },
            RedisCommand::HashSet { key: "all".into(), field: key, value, ttl_ms: None },
        ]
    });
    let sink = sink.options(options);
    let (mut writer, alarm) = start(&sink);
    let mut epoch = 0;
    let mut held_up = 0;
    for begin in (0..RECORDS).step_by(500) {
        if begin == 30_000 || begin == 60_000 {
            server.kill();
        }
        if !writer.ready() {
            held_up += 1;
            // Backpressure while Redis is away; it comes back only now.
            if server.child.try_wait().unwrap().is_some() {
                server.restart();
            }
        }
        write(&mut *writer, &alarm, (begin..begin + 500).map(|n| (0, n)).collect());
        if begin % 25_000 == 0 {
            epoch += 1;
            if server.child.try_wait().unwrap().is_some() {
                server.restart();
            }
            close(&mut *writer, epoch);
        }
    }
    close(&mut *writer, epoch + 1);
    assert!(held_up > 0, "the queue is bounded");
    let mut redis = server.connect().unwrap();
    let all: std::collections::HashMap<String, u64> = redis.hgetall("all").unwrap();
    assert_eq!(all.len() as u64, KEYS);
    for n in RECORDS - KEYS..RECORDS {
        let key = format!("k{}", n % KEYS);
        assert_eq!((all[&key], redis.get::<_, u64>(&key).unwrap()), (n, n));
    }
}

#[test]
fn a_wrong_command_fails_the_sink_and_names_the_server() {
    let Some(server) = Server::start() else { return };
    server.connect().unwrap().set::<_, _, ()>("text", "x").unwrap();
    let sink = RedisSink::new(server.url(), |_: &u8| {
        vec![RedisCommand::HashSet { key: "text".into(), field: "f".into(), value: Vec::new(), ttl_ms: None }]
    });
    let (mut writer, alarm) = start(&sink);
    write(&mut *writer, &alarm, vec![(0, 0)]);
    let error = match writer.pre_commit(1) {
        Ok(close) => close().expect_err("of the wrong type"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", server.port)), "{error}");
}

#[test]
fn the_password_is_not_in_the_name() {
    let sink = RedisSink::new("redis://:secret@host:6379/1", |_: &u8| Vec::new());
    assert_eq!(sink.name(), "redis `host:6379/1`");
    let sink = RedisSink::new("nonsense", |_: &u8| Vec::new());
    let (_alarm, waker) = Alarm::new();
    let error = sink.writer(writer_context(0, 1, 1, 1, waker)).map(drop).expect_err("no URL");
    assert_eq!(error.kind(), Kind::Input);
}
