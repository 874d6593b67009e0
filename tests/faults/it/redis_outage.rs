//! Redis is killed and comes back while the order job writes to it: in the end it holds what the live tables hold.

use std::process::{Command, Stdio};
use std::time::Duration;

use order_generator::reference::Tables;
use redis::{Client, Commands, Connection};
use serde_json::Value;

use crate::free_port::free_port;
use crate::support::process::Process;
use crate::support::seeds::Random;
use crate::support::server::Server;
use crate::support::{eventually, folder, orders, pause};

/// A Redis that keeps every write before it answers.
struct Redis {
    dir: tempfile::TempDir,
    port: u16,
    process: Option<Process>,
}

impl Redis {
    fn start() -> Option<Redis> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: a Redis that goes away: redis-server is not installed");
            return None;
        }
        let mut redis = Redis { dir: folder(), port: free_port().unwrap(), process: None };
        redis.launch();
        Some(redis)
    }

    fn launch(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(self.dir.path());
        self.process = Some(Process::start(command.stdout(Stdio::null())));
        eventually("redis-server answers", || {
            redis::cmd("PING").exec(&mut self.connect()?).map_err(|error| error.to_string())
        });
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn connect(&self) -> Result<Connection, String> {
        let client = Client::open(self.url()).map_err(|error| error.to_string())?;
        client.get_connection_with_timeout(Duration::from_secs(5)).map_err(|error| error.to_string())
    }
}

/// What differs between the live tables and Redis, if anything. Of the ranking the first ten count: who fell out of it
/// stays in the sorted set.
fn compare(live: &Tables, redis: &mut Connection) -> Result<(), String> {
    let told = |error: redis::RedisError| error.to_string();
    let mut fields = 0;
    for (table, rows) in live {
        let name = table.replace('.', ":");
        for (key, row) in rows {
            let (front, field) = key.split_once('/').unwrap_or(("all", key));
            let held: Option<String> = match table.as_str() {
                "orders.total" => redis.get(format!("{name}:{key}")).map_err(told)?,
                "orders.user" => continue,
                _ => redis.hget(format!("{name}:{front}"), field).map_err(told)?,
            };
            let held = held.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if held.as_ref() != Some(row) {
                return Err(format!("{table} {key}: Redis holds {held:?}, not {row}"));
            }
            fields += usize::from(table != "orders.total");
        }
    }
    let keys: Vec<String> = redis.keys("orders:*").map_err(told)?;
    let hashes = keys.iter().filter(|key| !key.starts_with("orders:total:") && !key.starts_with("orders:user:"));
    let mut held = 0;
    for hash in hashes {
        held += redis.hlen::<_, usize>(hash).map_err(told)?;
    }
    if held != fields {
        return Err(format!("Redis holds {held} fields, not {fields}"));
    }
    let mut ranked: Vec<(String, i64)> = Vec::new();
    let mut held: Vec<(String, i64)> = Vec::new();
    for day in live["orders.total"].keys() {
        let of_day = live["orders.user"].iter().filter(|(key, _)| key.starts_with(day.as_str()));
        ranked
            .extend(of_day.map(|(_, row)| (row["user_id"].as_str().unwrap().to_owned(), row["fen"].as_i64().unwrap())));
        let first: Vec<(String, f64)> = redis.zrevrange_withscores(format!("orders:user:{day}"), 0, 9).map_err(told)?;
        held.extend(first.into_iter().map(|(user, fen)| (user, fen as i64)));
    }
    ranked.sort();
    held.sort();
    if ranked == held { Ok(()) } else { Err(format!("Redis ranks {held:?}, not {ranked:?}")) }
}

#[test]
fn redis_down_and_back_loses_nothing_and_doubles_nothing() {
    let Some(mut redis) = Redis::start() else { return };
    let mut random = Random::new(5);
    let events = orders::events(5, 3_000);
    let server = Server::start();
    let topic = orders::create(&server.topics());
    let url = redis.url();
    let args = [orders::ARGS, &["--redis", &url]].concat();
    let job = server.submit("order-screen", &args, 2, 50);
    for (number, share) in events.chunks(300).enumerate() {
        orders::append(&topic, share);
        pause(Duration::from_millis(random.below(200)));
        match number % 3 {
            1 => redis.kill(),
            2 => redis.launch(),
            _ => {}
        }
    }
    orders::settles(&server, &job, &events);
    let mut connection = redis.connect().unwrap();
    eventually("Redis holds the live tables", || {
        compare(&orders::live(&server)?, &mut connection).map_err(|why| format!("{why}\n{}", server.logs(&job)))
    });
    assert_eq!(server.job(&job)["restarts"], 0, "an outage does not fail the job");
}
