//! A count in a value state for each key: state in memory, on disk with a cache that holds all, on disk with state ten
//! times the cache. Keys evenly spread, which is the worst case of a cache, and skewed.
//!
//! Beside them, the same reads and writes without an engine: a table in memory and a store on disk are all there is to it.
//!
//! `state_disk [events in thousands] [keys in thousands] [rounds]`

use std::time::Instant;

use tidemill_benches::{Failure, cpu_seconds, load, median, number, resident_mb};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::Result;
use tidemill_engine::state::{StateBackend, ValueState};
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a decoded entry of a key and a count takes in the cache, about.
const ENTRY_BYTES: u64 = 100;

#[derive(Clone)]
struct Count(ValueState<u64>);

impl KeyedProcessFunction<u64, u64, u64> for Count {
    fn process(&mut self, _: u64, context: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        let count = self.0.get_or(context, || 0)?;
        *count += 1;
        let total = *count;
        if total.is_multiple_of(1 << 20) { context.emit(total) } else { Ok(()) }
    }
}

fn key(index: u64, keys: u64, skewed: bool) -> u64 {
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let u = (mixed >> 11) as f64 / (1u64 << 53) as f64;
    let place = if skewed { u * u * u } else { u };
    ((keys as f64 * place) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

struct Contestant {
    name: &'static str,
    memory: Option<u64>,
    skewed: bool,
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

/// Events a second behind the first half, which fills the state.
fn run(contestant: &mut Contestant, events: u64, keys: u64) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let skewed = contestant.skewed;
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(1),
        checkpoint_dir: Some(folder.path().join("checkpoints")),
        checkpoint_interval_ms: Some(10_000),
        state_backend: contestant.memory.map_or(StateBackend::Memory, |_| StateBackend::Disk),
        state_memory_max_bytes: contestant.memory.unwrap_or(1 << 30) as usize,
        state_dir: Some(folder.path().join("scratch")),
        ..JobSettings::default()
    });
    let source = GeneratorSource::new("keys", move |index| key(index, keys, skewed)).count(events).split_count(1);
    env.from_source(source, WatermarkStrategy::none(), "keys")
        .key_by(|key: &u64| *key)
        .process(Count(ValueState::new("count")))
        .collect();
    let (started, cpu) = (Instant::now(), cpu_seconds("self"));
    env.execute("count").map_err(|e| e.to_string())?;
    contestant.rates.push(events as f64 / started.elapsed().as_secs_f64());
    contestant.cpu.push((cpu_seconds("self") - cpu) * 1e9 / events as f64);
    Ok(())
}

fn main() -> Result<(), Failure> {
    let (events, keys, rounds) = (number(1, 4_000) * 1_000, number(2, 1_000) * 1_000, number(3, 3));
    let all = keys * ENTRY_BYTES;
    let contestant = |name, memory, skewed| Contestant { name, memory, skewed, rates: Vec::new(), cpu: Vec::new() };
    // Three eighths of the memory are for decoded entries.
    let memory_for = |decoded_bytes: u64| Some(decoded_bytes * 8 / 3);
    let mut contestants = [
        contestant("disk, state 10 x the cache, even keys", memory_for(all / 10), false),
        contestant("disk, state 10 x the cache, skewed keys", memory_for(all / 10), true),
        contestant("disk, cache holds all, even keys", Some(4 * all), false),
        contestant("memory, even keys", None, false),
        contestant("memory, skewed keys", None, true),
    ];
    for _ in 0..rounds {
        for contestant in &mut contestants {
            run(contestant, events, keys)?;
        }
    }
    println!(
        "count a key, {} k events, {} k keys, 1 worker, checkpoint 10 s, median of {rounds}, load {}, {:.0} MB at the end",
        events / 1000,
        keys / 1000,
        load(),
        resident_mb("self")
    );
    for contestant in &mut contestants {
        let (rate, cpu) = (median(&mut contestant.rates), median(&mut contestant.cpu));
        println!("  {:<42} {:>9.0} k events/s {:>8.0} CPU ns/event", contestant.name, rate / 1e3, cpu);
    }
    Ok(())
}
