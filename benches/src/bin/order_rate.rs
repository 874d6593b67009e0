//! Orders a second through the order screen's job, from JSON in an embedded topic to its rows.
//!
//! Figure wanted: at least 300,000 orders/s for each core. The topic is filled beforehand with generated orders (every
//! status, duplicates, late ones). The job runs as the program does (same tick, memory of orders, allocator, a
//! checkpoint every 5 s) to the topic's end, at 1 and 2 workers; its rows are counted and folded away. Beside it stands
//! the least anybody must do: decoding the same orders on one core. The contestants take turns; medians. Rates are by
//! processor time, which a busy machine falsifies least.
//!
//! `order_rate [orders in thousands] [rounds]`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use order_generator::generator::{OrderGenerator, key_of};
use order_generator::{GeneratorConfig, Order};
use order_screen::job::OrderScreen;
use tidemill_benches::{Failure, cpu_seconds, load, median, number};
use tidemill_engine::{Environment, JobSettings};
use tidemill_topic::{NewRecord, TopicConfig, Topics};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn fill(folder: &Path, orders: &[Vec<u8>]) -> Result<(), Failure> {
    let topic = Topics::open(folder)?.create("orders", &TopicConfig { partitions: 4, ..TopicConfig::default() })?;
    for chunk in orders.chunks(2000) {
        let records: Vec<NewRecord<'_>> = chunk
            .iter()
            .map(|json| NewRecord {
                partition: key_of(json).map_or(0, |key| topic.partition_for(key)),
                timestamp_ms: 0,
                key: None,
                value: json,
            })
            .collect();
        topic.append(&records, None, 0)?;
    }
    Ok(())
}

/// How many rows the job wrote.
fn job(topics: &Path, workers: usize) -> Result<u64, Failure> {
    let state = tempfile::tempdir()?;
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(workers),
        checkpoint_dir: Some(state.path().to_path_buf()),
        checkpoint_interval_ms: Some(5_000),
        ..JobSettings::default()
    });
    let screen = OrderScreen {
        topics: topics.to_path_buf(),
        topic: "orders".into(),
        bounded: true,
        tick: Duration::from_millis(25),
        remember: Duration::from_secs(3600),
        ahead: Duration::from_secs(24 * 3600),
        watermark_interval: Duration::from_millis(200),
    }
    .build(&env);
    let rows = Arc::new(AtomicU64::new(0));
    let counted = rows.clone();
    screen
        .rows
        .filter(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        })
        .collect();
    env.execute("order rate")?;
    Ok(rows.load(Ordering::Relaxed))
}

fn decode(orders: &[Vec<u8>]) -> u64 {
    orders.iter().filter(|json| Order::decode(json).is_ok()).count() as u64
}

fn main() -> Result<(), Failure> {
    let (count, rounds) = (number(1, 1000) as usize * 1000, number(2, 3));
    let config = GeneratorConfig { rate: 10_000, curve: false, ..GeneratorConfig::default() };
    let orders: Vec<Vec<u8>> = OrderGenerator::new(config).take(count).map(|event| event.json).collect();
    let topics = tempfile::tempdir()?;
    fill(topics.path(), &orders)?;
    let mut measured = [const { (Vec::new(), Vec::new()) }; 3];
    let mut rows = 0;
    for _ in 0..rounds {
        for (contestant, (walls, costs)) in measured.iter_mut().enumerate() {
            let (begin, cpu) = (Instant::now(), cpu_seconds("self"));
            match contestant {
                0 => assert_eq!(decode(&orders), count as u64, "all of them are orders"),
                workers => rows = job(topics.path(), workers)?,
            }
            walls.push(count as f64 / begin.elapsed().as_secs_f64());
            costs.push((cpu_seconds("self") - cpu) * 1e9 / count as f64);
        }
    }
    println!("order job, {count} JSON orders, median of {rounds}, about {rows} rows a run, load {}", load());
    let decoding = median(&mut measured[0].1);
    for (name, (mut walls, mut costs)) in ["decode alone", "job, 1 worker", "job, 2 workers"].iter().zip(measured) {
        let (wall, cost) = (median(&mut walls), median(&mut costs));
        println!(
            "  {name:<15} {:8.0} orders a CPU second   {cost:6.0} CPU ns/order ({:4.2} of decoding)   {wall:8.0} orders/s by the clock",
            1e9 / cost,
            cost / decoding
        );
    }
    Ok(())
}
