//! The same CPU-bound jobs with one worker and with two, in turns.
//!
//! Figure wanted: two workers do at least 1.7 of the work of one. Each worker is a thread and needs a core of its own. What the
//! machine gives beside it, since no job can be above that: two threads that only compute, and two jobs of one worker each,
//! side by side on a half of the events each, which share the caches and the memory and nothing else. Medians; one worker and two
//! come to the same checksum.
//!
//! `scaling [rounds] [events in millions] [the beginning of a job's name]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compact_str::format_compact;
use tidemill_benches::{Failure, load, median, number};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::Data;
use tidemill_engine::stream::{DataStream, ProcessContext, ProcessFunction, WatermarkStrategy};
use tidemill_engine::window::{Count, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 100_000;
const WORDS: u64 = 20_000;
const EVENTS_PER_MS: u64 = 1_000;

/// splitmix64
fn random(place: u64) -> u64 {
    let mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// About a quarter of a microsecond.
fn work(seed: u64) -> u64 {
    (0..64).fold(seed, |seed, _| random(seed))
}

/// Adds results up, a subtask for itself.
#[derive(Clone)]
struct Sum {
    all: Arc<AtomicU64>,
    own: u64,
}

impl ProcessFunction<u64, u64> for Sum {
    fn process(&mut self, result: u64, _: &mut ProcessContext<'_, u64>) -> tidemill_core::Result<()> {
        self.own = self.own.wrapping_add(result);
        Ok(())
    }

    fn close(&mut self) -> tidemill_core::Result<()> {
        self.all.fetch_add(self.own, Ordering::Relaxed);
        Ok(())
    }
}

fn generated<T: Data>(
    env: &Environment,
    events: u64,
    event: impl Fn(u64) -> T + Clone + Send + Sync + 'static,
) -> DataStream<(u64, T)> {
    let source = GeneratorSource::new("events", move |index| (index, event(index))).count(events).split_count(2);
    let times = WatermarkStrategy::monotonous().with_timestamps(|event: &(u64, T), _| (event.0 / EVENTS_PER_MS) as i64);
    env.from_source(source, times, "events")
}

/// Work on each event, none between them.
fn map(env: &Environment, events: u64) -> DataStream<u64> {
    generated(env, events, random).map(|(_, seed)| work(seed))
}

/// Events of a key in 10 s of a skewed set of keys.
fn window(env: &Environment, events: u64) -> DataStream<u64> {
    let count = |key: &u64, window: Window, count: u64| Some(random(*key ^ window.end_ms as u64).wrapping_mul(count));
    generated(env, events, |index| random(index) % KEYS * (random(!index) % KEYS) / KEYS)
        .key_by(|event| event.1)
        .window(Tumbling::event_time(Duration::from_secs(10)))
        .aggregate_with(Count, count)
}

/// The running count of a word.
fn words(env: &Environment, events: u64) -> DataStream<u64> {
    let counted =
        generated(env, events, |index| format_compact!("word {}", random(index) % WORDS)).map(|(_, word)| (word, 1u64));
    counted.key_by_ref(|(word, _)| word.as_str()).sum(|(_, count)| count).map(|(word, count)| count ^ word.len() as u64)
}

type Job = fn(&Environment, u64) -> DataStream<u64>;

/// The checksum, and the seconds it took.
fn run(job: Job, workers: usize, events: u64) -> Result<(u64, f64), Failure> {
    let settings = JobSettings { parallelism: Some(workers), ..JobSettings::default() };
    let env = Environment::with_settings(settings);
    let all = Arc::new(AtomicU64::new(0));
    job(&env, events).process(Sum { all: all.clone(), own: 0 }).collect();
    let begin = Instant::now();
    env.execute("scaling")?;
    Ok((all.load(Ordering::Relaxed), begin.elapsed().as_secs_f64()))
}

/// Two jobs of one worker each, side by side: the seconds it takes until both are done.
fn apart(job: Job, events: u64) -> Result<f64, Failure> {
    let begin = Instant::now();
    let handles: [_; 2] =
        std::array::from_fn(|_| std::thread::spawn(move || run(job, 1, events / 2).map_err(|e| e.to_string())));
    for handle in handles {
        handle.join().map_err(|_| "a job panicked")??;
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Threads that share nothing: the seconds it takes to do all of the work.
fn threads(threads: u64, events: u64) -> Result<f64, Failure> {
    let begin = Instant::now();
    let each = |thread| {
        std::thread::spawn(move || (thread..events).step_by(threads as usize).map(work).fold(0, u64::wrapping_add))
    };
    let handles: Vec<_> = (0..threads).map(each).collect();
    for handle in handles {
        std::hint::black_box(handle.join().map_err(|_| "a thread panicked")?);
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn main() -> Result<(), Failure> {
    let (rounds, events) = (number(1, 5), number(2, 10) * 1_000_000);
    println!("one worker against two, {} M events, medians of {rounds} rounds, load {}", events / 1_000_000, load());
    let mut alone = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (count, seconds) in (1..).zip(&mut alone) {
            seconds.push(threads(count, events)?);
        }
    }
    let [one, two] = alone.each_mut().map(|seconds| median(seconds));
    println!("  {:<28} {:4.2}", "threads that share nothing", one / two);
    let jobs: [(&str, Job); 3] = [("map", map), ("keyed window count", window), ("word count", words)];
    let wanted = std::env::args().nth(3).unwrap_or_default();
    for (name, job) in jobs.into_iter().filter(|(name, _)| name.starts_with(&wanted)) {
        let (mut seconds, mut apart_seconds, mut expected) = ([Vec::new(), Vec::new()], Vec::new(), None);
        for _ in 0..rounds {
            for (workers, seconds) in (1..).zip(&mut seconds) {
                let (checksum, took) = run(job, workers, events)?;
                if *expected.get_or_insert(checksum) != checksum {
                    return Err(format!("{name}: {workers} workers come to other results").into());
                }
                seconds.push(took);
            }
            apart_seconds.push(apart(job, events)?);
        }
        let [one, two] = seconds.each_mut().map(|seconds| median(seconds));
        let (rate, apart) = (events as f64 / 1e6 / one, median(&mut apart_seconds));
        let (two, apart) = (one / two, one / apart);
        println!("  {name:<28} {two:4.2} (1.7 wanted)   two jobs {apart:4.2}   one worker {rate:6.2} M events/s");
    }
    Ok(())
}
