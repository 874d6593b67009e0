//! A gigabyte of keyed state in memory while records change it: the rate with and without checkpoints, the longest pause of
//! the worker, and how long a restart takes until the first record is processed.
//!
//! Figures wanted: checkpoints leave at least 80 % of the rate, no pause above 50 ms, a restart within 10 s.
//!
//! `state_large [MB of state] [seconds of each phase] [memory|disk] [large|few|small]`: all keys change between checkpoints; one
//! in a hundred does; values of 16 bytes instead of 1000

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemill_benches::{Failure, load, number, resident_mb};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::Result;
use tidemill_engine::state::{StateBackend, ValueState};
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHECKPOINT_INTERVAL_MS: i64 = 5_000;

/// What the operator tells while it runs.
#[derive(Default)]
struct Watch {
    records: AtomicU64,
    /// The longest time between two records, in µs.
    longest_pause_us: AtomicU64,
    first: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Update {
    held: ValueState<(u64, Vec<u8>)>,
    value_bytes: usize,
    watch: Arc<Watch>,
    before: Option<Instant>,
}

impl KeyedProcessFunction<u64, u64, u64> for Update {
    fn process(&mut self, _: u64, context: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        let key = *context.key();
        let held = self.held.get_or(context, || (0, vec![key as u8; self.value_bytes]))?;
        held.0 += 1;
        held.1[key as usize % self.value_bytes] ^= 1;
        let now = Instant::now();
        match self.before.replace(now) {
            Some(before) => {
                let pause = now.duration_since(before).as_micros() as u64;
                self.watch.longest_pause_us.fetch_max(pause, Ordering::Relaxed);
            }
            None => *self.watch.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(now),
        }
        self.watch.records.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn settings(folder: &Path, backend: StateBackend) -> JobSettings {
    JobSettings {
        parallelism: Some(1),
        checkpoint_dir: Some(folder.join("checkpoints")),
        checkpoint_interval_ms: None,
        state_backend: backend,
        state_dir: Some(folder.join("scratch")),
        ..JobSettings::default()
    }
}

/// What is done with the state.
#[derive(Clone, Copy)]
struct Work {
    keys: u64,
    /// Those that change once all are there.
    changing: u64,
    value_bytes: usize,
}

fn build(env: &Environment, work: Work, watch: &Arc<Watch>) {
    let Work { keys, changing, value_bytes } = work;
    // First each key once, then keys at random.
    let key = move |index: u64| match index < keys {
        true => index,
        false => (index ^ (index >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) % changing,
    };
    let source = GeneratorSource::new("keys", key).split_count(1);
    let update = Update { held: ValueState::new("held"), value_bytes, watch: watch.clone(), before: None };
    env.from_source(source, WatermarkStrategy::none(), "keys").key_by(|key: &u64| *key).process(update).collect();
}

/// Records a second and the longest pause in ms, over some time.
fn measure(watch: &Watch, lasting: Duration) -> (f64, f64) {
    watch.longest_pause_us.store(0, Ordering::Relaxed);
    let (before, started) = (watch.records.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(lasting);
    let records = watch.records.load(Ordering::Relaxed) - before;
    let pause_ms = watch.longest_pause_us.load(Ordering::Relaxed) as f64 / 1e3;
    (records as f64 / started.elapsed().as_secs_f64(), pause_ms)
}

fn main() -> Result<(), Failure> {
    let (megabytes, seconds) = (number(1, 1000), number(2, 15));
    let backend = match std::env::args().nth(3) {
        Some(text) => text.parse()?,
        None => StateBackend::Memory,
    };
    let mode = std::env::args().nth(4).unwrap_or_else(|| "large".to_string());
    let value_bytes = if mode == "small" { 16 } else { 1000 };
    let keys = megabytes * 1_000_000 / value_bytes as u64;
    let changing = if mode == "few" { keys / 100 } else { keys };
    let work = Work { keys, changing, value_bytes };
    let folder = tempfile::tempdir()?;
    let watch = Arc::new(Watch::default());
    let env = Environment::with_settings(settings(folder.path(), backend));
    build(&env, work, &watch);
    let job = env.execute_async("large")?;
    while watch.records.load(Ordering::Relaxed) < keys {
        std::thread::sleep(Duration::from_millis(50));
    }
    let quiet = measure(&watch, Duration::from_secs(seconds));
    // Checkpoints by hand at the interval, so that both phases are of one run.
    let handle = job.handle().clone();
    let taking = std::thread::spawn(move || {
        let (mut bytes, mut took, started) = (Vec::new(), Vec::new(), Instant::now());
        while started.elapsed() < Duration::from_secs(seconds) {
            let begun = Instant::now();
            handle.checkpoint()?;
            took.push(begun.elapsed().as_millis());
            bytes.push(handle.report().checkpoints.latest.map_or(0, |latest| latest.written_bytes / 1_000_000));
            let next = Duration::from_millis(CHECKPOINT_INTERVAL_MS as u64);
            std::thread::sleep(next.saturating_sub(begun.elapsed()));
        }
        Ok::<_, tidemill_core::Error>((bytes, took))
    });
    let busy = measure(&watch, Duration::from_secs(seconds));
    let (bytes, took) = taking.join().map_err(|_| "the thread that takes checkpoints panicked")??;
    let resident = resident_mb("self");
    job.handle().fail("bench");
    drop(job.wait());
    println!(
        "{megabytes} MB of keyed state, {backend:?}, {mode}, 1 worker, load {}, {resident:.0} MB resident",
        load()
    );
    println!("  without checkpoints   {:>9.0} k records/s   longest pause {:>7.1} ms", quiet.0 / 1e3, quiet.1);
    println!(
        "  with checkpoints      {:>9.0} k records/s   longest pause {:>7.1} ms   {:.0} % of the rate without",
        busy.0 / 1e3,
        busy.1,
        100.0 * busy.0 / quiet.0
    );
    println!("  checkpoints took {took:?} ms and wrote {bytes:?} MB");

    let watch = Arc::new(Watch::default());
    let env = Environment::with_settings(settings(folder.path(), backend));
    build(&env, work, &watch);
    let started = Instant::now();
    let job = env.execute_async("again")?;
    let first = loop {
        if let Some(first) = *watch.first.lock().unwrap_or_else(PoisonError::into_inner) {
            break first;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    println!("  restart to the first record: {:.1} s", first.duration_since(started).as_secs_f64());
    job.handle().fail("bench");
    drop(job.wait());
    Ok(())
}
