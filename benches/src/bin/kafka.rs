//! Kafka to Kafka, exactly once, records of 200 bytes: JSON taken apart and put together again, and raw bytes. Against a real
//! broker on the same machine, so the clock says little; the figure is records for each CPU second of our own process.
//!
//! Figures wanted: 300,000 a CPU second with JSON, 700,000 raw.
//!
//! `kafka [records in thousands] [rounds] [workers]`

#![allow(clippy::unwrap_used, reason = "a bench that breaks ends")]

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidemill_benches::{Failure, cpu_seconds, load, median, number};
use tidemill_connectors::format::{Json, Raw};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_connectors::kafka::{KafkaDecode, KafkaDelivery, KafkaPartitioner, KafkaSink, KafkaSource, KafkaStop};
use tidemill_core::Data;
use tidemill_core::format::Encode;
use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::{Environment, JobSettings};

#[path = "../../../crates/connectors/tests/connectors/free_port.rs"]
mod free_port;
#[path = "../../../crates/connectors/tests/connectors/kafka_broker.rs"]
mod kafka_broker;

use kafka_broker::Broker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 4;
const RECORD_BYTES: usize = 200;

/// An order, 200 bytes as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    id: u64,
    user: String,
    item: String,
    amount: u32,
    price_cents: i64,
    created_ms: i64,
    paid: bool,
    note: String,
}

fn order(index: u64) -> Order {
    let mut order = Order {
        id: 1_000_000_000 + index,
        user: format!("user-{:07}", index.wrapping_mul(7919) % 1_000_000),
        item: format!("item-{:05}", index % 10_000),
        amount: (index % 9) as u32 + 1,
        price_cents: (index % 100_000) as i64,
        created_ms: 1_700_000_000_000 + index as i64,
        paid: index.is_multiple_of(2),
        note: String::new(),
    };
    let bytes = serde_json::to_vec(&order).map_or(0, |text| text.len());
    order.note = "x".repeat(RECORD_BYTES.saturating_sub(bytes));
    order
}

/// Waits without sleeping; the broker's helpers call it by this name.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed().as_secs() < 60, "in vain: {what}");
        std::thread::yield_now();
    }
}

fn environment(folder: &tempfile::TempDir, workers: usize) -> Environment {
    Environment::with_settings(JobSettings {
        parallelism: Some(workers),
        checkpoint_dir: Some(folder.path().to_path_buf()),
        checkpoint_interval_ms: Some(1_000),
        ..JobSettings::default()
    })
}

/// Fills a topic with so many orders.
fn fill(broker: &Broker, count: u64, workers: usize) -> Result<String, Failure> {
    let topic = broker.topic("orders", PARTITIONS);
    let folder = tempfile::tempdir()?;
    let env = environment(&folder, workers);
    let orders = GeneratorSource::new("orders", order).count(count).split_count(workers as u32);
    env.from_source(orders, WatermarkStrategy::none(), "orders").sink_to(
        KafkaSink::new(broker.servers(), &topic, Json::new())
            .partitioner(KafkaPartitioner::Sticky)
            .delivery(KafkaDelivery::AtLeastOnce),
    );
    env.execute("fill")?;
    Ok(topic)
}

/// One run; CPU seconds and seconds.
fn copy<D, E>(
    broker: &Broker,
    source: KafkaSource<D>,
    from: &str,
    encode: E,
    workers: usize,
) -> Result<(f64, f64), Failure>
where
    D: KafkaDecode,
    D::Value: Data,
    E: Encode<D::Value>,
{
    let into = broker.topic("copy", PARTITIONS);
    let folder = tempfile::tempdir()?;
    let env = environment(&folder, workers);
    let source = source.topics([from]).bounded(KafkaStop::Latest);
    env.from_source(source, WatermarkStrategy::none(), "orders")
        .sink_to(KafkaSink::new(broker.servers(), &into, encode).partitioner(KafkaPartitioner::Sticky));
    let (cpu, begin) = (cpu_seconds("self"), Instant::now());
    env.execute("copy")?;
    Ok((cpu_seconds("self") - cpu, begin.elapsed().as_secs_f64()))
}

fn main() -> Result<(), Failure> {
    let count = number(1, 1_000) * 1_000;
    let rounds = number(2, 3);
    let workers = number(3, 2) as usize;
    let broker = Broker::shared();
    let servers = broker.servers();
    let from = fill(broker, count, workers)?;
    println!("{count} records of {RECORD_BYTES} bytes, {PARTITIONS} partitions, {workers} workers; load {}", load());
    let told = |name: &str, run: &dyn Fn() -> Result<(f64, f64), Failure>| -> Result<(), Failure> {
        let runs: Vec<(f64, f64)> = (0..rounds).map(|_| run()).collect::<Result<_, Failure>>()?;
        let rates = |seconds: fn(&(f64, f64)) -> f64| {
            median(&mut runs.iter().map(|run| count as f64 / seconds(run)).collect::<Vec<f64>>())
        };
        let (per_cpu, per_second) = (rates(|run| run.0), rates(|run| run.1));
        println!("  {name:5} {per_cpu:9.0} records a CPU second   {per_second:9.0} records a second");
        Ok(())
    };
    told("JSON", &|| copy(broker, KafkaSource::values(&servers, Json::<Order>::new()), &from, Json::new(), workers))?;
    told("raw", &|| copy(broker, KafkaSource::values(&servers, Raw), &from, Raw, workers))
}
