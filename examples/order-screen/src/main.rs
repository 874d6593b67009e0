//! `order-screen`: reads order events from a topic and keeps the live order screen.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use order_screen::job::OrderScreen;
use order_screen::row::{Row, Table};
use tidemill::connectors::format::Json;
use tidemill::connectors::live::LiveSink;
use tidemill::connectors::redis::RedisSink;
use tidemill::connectors::topic::TopicSink;
use tidemill::prelude::*;

/// Orders make many small values of different threads; this allocator costs a third of the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows in Redis are gone this long after they were written last.
const REDIS_TTL_MS: u64 = 4 * 24 * 3600 * 1000;

/// Computes the order screen's tables from order events in a topic.
#[derive(Parser)]
struct Options {
    /// Data folder; topics stand in its folder `topics`.
    #[arg(long, env = "TIDEMILL_DATA", default_value = "tidemill-data")]
    data: PathBuf,
    /// Topic of order events.
    #[arg(long, default_value = "orders")]
    topic: String,
    /// Topic for events that cannot be read or counted; made if missing.
    #[arg(long, default_value = "orders.dead")]
    dead_topic: String,
    /// Server with the live tables, such as http://127.0.0.1:8081; without it rows are printed.
    #[arg(long, env = "TIDEMILL_SERVER")]
    server: Option<String>,
    /// Token the server asks of writers.
    #[arg(long, env = "TIDEMILL_TOKEN", default_value = "", hide_env_values = true)]
    token: String,
    /// Also write the rows to this Redis, such as redis://127.0.0.1:6379.
    #[arg(long)]
    redis: Option<String>,
    /// End at the topic's present end.
    #[arg(long)]
    bounded: bool,
    /// A row is written at most once in this many ms.
    #[arg(long, default_value_t = 25)]
    tick_ms: u64,
    /// Orders are remembered this many minutes of event time.
    #[arg(long, default_value_t = 60)]
    remember_min: u64,
    /// An event this many hours ahead of its arrival in the topic is refused: its clock is wrong.
    #[arg(long, default_value_t = 24)]
    ahead_hours: u32,
}

fn main() -> ExitCode {
    let options = Options::parse();
    run_job("order-screen", move |env| build(env, &options))
}

fn build(env: &Environment, options: &Options) -> Result<()> {
    let topics = options.data.join("topics");
    let screen = OrderScreen {
        topics: topics.clone(),
        topic: options.topic.clone(),
        bounded: options.bounded,
        tick: Duration::from_millis(options.tick_ms),
        remember: Duration::from_secs(options.remember_min * 60),
        ahead: Duration::from_secs(u64::from(options.ahead_hours) * 3600),
        watermark_interval: Duration::from_millis(200),
    }
    .build(env);
    screen
        .dead_letters
        .sink_to(TopicSink::new(&topics, &options.dead_topic, Json::new()).create_if_missing(Default::default()))
        .name("Dead letters")
        .uid("dead-letters");
    // All rows meet on one subtask, which hands them to the tables' sinks in its own chain.
    let rows = screen.rows.map(|row| row).name("Rows").uid("rows").set_parallelism(1);
    match &options.server {
        Some(server) => {
            for table in Table::ALL {
                let row = |row: &Row| (row.key.clone(), row.value());
                rows.filter(move |row| row.table == table)
                    .set_parallelism(1)
                    .sink_to(LiveSink::new(server, &options.token, table.name(), row))
                    .set_parallelism(1)
                    .uid(table.name());
            }
        }
        None => {
            let line =
                |row: Row| format!("{} {} {}", row.table.name(), row.key, row.json.unwrap_or_else(|| "null".into()));
            rows.map(line).set_parallelism(1).print().set_parallelism(1);
        }
    }
    if let Some(redis) = &options.redis {
        let commands = |row: &Row| row.redis(Some(REDIS_TTL_MS));
        rows.sink_to(RedisSink::new(redis, commands)).set_parallelism(1).uid("redis");
    }
    Ok(())
}
