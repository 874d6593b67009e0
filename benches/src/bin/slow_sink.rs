//! A sink that takes 1 % of what the job could deliver, for a minute: how much memory the process uses meanwhile, and how
//! long checkpoints take.
//!
//! Behind it documents of 100 kB into a sink that takes a hundred a second: what waits is bounded by bytes, too.
//!
//! Figures wanted: memory does not grow with time, a checkpoint within 10 s.
//!
//! `slow_sink [seconds] [keys in thousands] [seconds of documents]`

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemill_benches::{Failure, load, number, resident_mb};
use tidemill_connectors::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::sink::{Sink, SinkWriter, WriterContext};
use tidemill_core::{Data, Result};
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WORKERS: usize = 2;
const DOCUMENT_BYTES: usize = 100_000;
const DOCUMENTS_A_SECOND: u64 = 100;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// What reaches the outside, and how fast it may.
#[derive(Default)]
struct Outside {
    taken: AtomicU64,
    /// Results a second from each subtask; 0 for all there are.
    rate: AtomicU64,
}

struct Slow<T>(Arc<Outside>, PhantomData<fn(T)>);

impl<T> Slow<T> {
    fn new(outside: &Arc<Outside>) -> Self {
        Slow(outside.clone(), PhantomData)
    }
}

impl<T: Data> Sink<T> for Slow<T> {
    fn name(&self) -> String {
        "slow".to_string()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let buffer = Buffered::start("slow", context.waker, BufferOptions::default(), Slow::<T>::new(&self.0))?;
        let convert = |_, result, items: &mut Vec<T>| {
            items.push(result);
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, convert)))
    }
}

impl<T: Data> Deliver for Slow<T> {
    type Item = T;

    fn deliver(&mut self, items: &[T]) -> Result<()> {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate > 0 {
            std::thread::sleep(Duration::from_secs_f64(items.len() as f64 / rate as f64));
        }
        self.0.taken.fetch_add(items.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Clone)]
struct Count(ValueState<u64>);

impl KeyedProcessFunction<u64, u64, (u64, u64)> for Count {
    fn process(&mut self, key: u64, context: &mut KeyedContext<'_, u64, (u64, u64)>) -> Result<()> {
        let count = self.0.get_or(context, || 0)?;
        *count += 1;
        let count = *count;
        context.emit((key, count))
    }
}

/// Results a second over some time.
fn rate(outside: &Outside, lasting: Duration) -> f64 {
    let (before, begun) = (outside.taken.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(lasting);
    (outside.taken.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64()
}

/// Looks at the memory of the process until it is told that it is over; the most it has seen, in MB.
fn watch(over: &Arc<AtomicBool>) -> JoinHandle<f64> {
    let over = over.clone();
    std::thread::spawn(move || {
        let mut peak_mb = 0.0f64;
        while !over.load(Ordering::Relaxed) {
            peak_mb = peak_mb.max(resident_mb("self"));
            std::thread::sleep(Duration::from_millis(50));
        }
        peak_mb
    })
}

/// Documents by their number to a sink that takes some of them, between them an exchange.
fn documents(seconds: u64) -> Result<(), Failure> {
    let outside = Arc::new(Outside { rate: AtomicU64::new(DOCUMENTS_A_SECOND / WORKERS as u64), ..Outside::default() });
    let env = Environment::with_settings(JobSettings { parallelism: Some(WORKERS), ..JobSettings::default() });
    let source = GeneratorSource::new("documents", |index: u64| (index, "a".repeat(DOCUMENT_BYTES)));
    let source = source.split_count(WORKERS as u32);
    let keyed =
        env.from_source(source, WatermarkStrategy::none(), "documents").key_by(|document: &(u64, String)| document.0);
    keyed.flat_map_with_state(|document, _: &mut Option<u64>| Some(document)).sink_to(Slow::new(&outside));
    let before_mb = resident_mb("self");
    let job = env.execute_async("documents")?;
    let over = Arc::new(AtomicBool::new(false));
    let watching = watch(&over);
    std::thread::sleep(Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    let peak_mb = watching.join().map_err(|_| "the thread that watches memory panicked")?;
    job.handle().fail("bench");
    drop(job.wait());
    let taken = outside.taken.load(Ordering::Relaxed);
    println!(
        "documents of {} kB, {DOCUMENTS_A_SECOND} a second taken, {WORKERS} workers, load {}",
        DOCUMENT_BYTES / 1000,
        load()
    );
    println!("  {taken} taken in {seconds} s, {peak_mb:>6.0} MB resident at most, {before_mb:.0} MB before");
    Ok(())
}

fn main() -> Result<(), Failure> {
    let (seconds, keys) = (number(1, 60), number(2, 1000) * 1000);
    let folder = tempfile::tempdir()?;
    let outside = Arc::new(Outside::default());
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(WORKERS),
        checkpoint_dir: Some(folder.path().to_path_buf()),
        checkpoint_interval_ms: None,
        ..JobSettings::default()
    });
    let key = move |index: u64| (index ^ (index >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) % keys;
    let source = GeneratorSource::new("keys", key).split_count(WORKERS as u32);
    let keyed = env.from_source(source, WatermarkStrategy::none(), "keys").key_by(|key: &u64| *key);
    keyed.process(Count(ValueState::new("count"))).sink_to(Slow::new(&outside));
    let job = env.execute_async("slow sink")?;

    // Until all keys are there.
    rate(&outside, Duration::from_secs(3));
    let full = rate(&outside, Duration::from_secs(3));
    let before_mb = resident_mb("self");
    outside.rate.store((full / 100.0) as u64 / WORKERS as u64, Ordering::Relaxed);
    let over = Arc::new(AtomicBool::new(false));
    let watching = watch(&over);
    let handle = job.handle().clone();
    let taking = std::thread::spawn(move || {
        let (mut took, started) = (Vec::new(), Instant::now());
        while started.elapsed() < Duration::from_secs(seconds) {
            let begun = Instant::now();
            handle.checkpoint()?;
            took.push(begun.elapsed().as_secs_f64());
            std::thread::sleep(CHECKPOINT_INTERVAL.saturating_sub(begun.elapsed()));
        }
        Ok::<_, tidemill_core::Error>(took)
    });
    let slow = rate(&outside, Duration::from_secs(seconds));
    let took = taking.join().map_err(|_| "the thread that takes checkpoints panicked")??;
    over.store(true, Ordering::Relaxed);
    let peak_mb = watching.join().map_err(|_| "the thread that watches memory panicked")?;
    job.handle().fail("bench");
    drop(job.wait());
    let longest = took.iter().copied().fold(0.0, f64::max);
    println!("a count for each of {keys} keys, {WORKERS} workers, load {}", load());
    println!("  all taken     {:>9.0} k results/s   {before_mb:>6.0} MB resident", full / 1e3);
    println!("  1 % taken     {:>9.1} k results/s   {peak_mb:>6.0} MB resident at most, in {seconds} s", slow / 1e3);
    println!("  {} checkpoints meanwhile took {longest:.2} s at most", took.len());
    documents(number(3, 10))
}
