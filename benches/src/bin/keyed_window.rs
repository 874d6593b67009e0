//! Keyed 10 s tumbling count over 1 M keys, generated in memory, against a program written by hand for the same work.
//!
//! Figures wanted: at least 25 M events/s with 2 workers and a checkpoint each second, at least 0.7 of the hand-written
//! program, checkpoints cost at most 15 %. The contestants take turns, so that a busy machine slows all alike; medians.
//!
//! `keyed_window [events in millions] [keys] [rounds] [hand|engine|checkpoints]`, the last for one run under a profiler

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tidemill_connectors::generator::GeneratorSource;
use tidemill_engine::key::{key_group, owner};
use tidemill_engine::state::TableHasher;
use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::window::{Aggregate, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WORKERS: usize = 2;
/// 10 M events in a window of 10 s.
const EVENTS_PER_MS: u64 = 1_000;
const WINDOW_MS: i64 = 10_000;

/// Event `index`: a skewed key (K·u³), a value and a time.
#[inline]
fn event(index: u64, keys: u64) -> (u64, u64) {
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let u = (mixed >> 11) as f64 / (1u64 << 53) as f64;
    ((keys as f64 * u * u * u) as u64, index)
}

#[inline]
fn time_ms(index: u64) -> i64 {
    (index / EVENTS_PER_MS) as i64
}

/// (count, sum): folded into a checksum so that nobody skips the work.
#[derive(Clone)]
struct CountSum;

impl Aggregate<(u64, u64)> for CountSum {
    type Accumulator = (u64, u64);
    type Output = (u64, u64);

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    #[inline]
    fn add(&mut self, held: &mut (u64, u64), value: (u64, u64)) {
        held.0 += 1;
        held.1 = held.1.wrapping_add(value.1);
    }
    fn merge(&mut self, held: &mut (u64, u64), other: (u64, u64)) {
        held.0 += other.0;
        held.1 = held.1.wrapping_add(other.1);
    }
    fn result(&mut self, held: (u64, u64)) -> (u64, u64) {
        held
    }
}

fn digest(end_ms: i64, key: u64, count: u64, sum: u64) -> u64 {
    (end_ms as u64).wrapping_mul(31).wrapping_add(key).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ count.wrapping_mul(7).wrapping_add(sum)
}

fn engine(events: u64, keys: u64, checkpoints: bool) -> u64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let env = Environment::with_settings(JobSettings {
        parallelism: Some(WORKERS),
        checkpoint_dir: checkpoints.then(|| folder.path().to_path_buf()),
        checkpoint_interval_ms: checkpoints.then_some(1_000),
        ..JobSettings::default()
    });
    let source =
        GeneratorSource::new("bids", move |index| event(index, keys)).count(events).split_count(WORKERS as u32);
    let strategy = WatermarkStrategy::monotonous().with_timestamps(|event: &(u64, u64), _| time_ms(event.1));
    let total = Arc::new(AtomicU64::new(0));
    let results = total.clone();
    env.from_source(source, strategy, "bids")
        .key_by(|event: &(u64, u64)| event.0)
        .window(Tumbling::event_time(Duration::from_millis(WINDOW_MS as u64)))
        .aggregate_with(CountSum, |key: &u64, window: Window, (count, sum): (u64, u64)| {
            Some(digest(window.end_ms, *key, count, sum))
        })
        .filter(move |digest| {
            results.fetch_add(*digest, Ordering::Relaxed);
            false
        })
        .collect();
    env.execute("keyed window").expect("the bench job runs");
    total.load(Ordering::Relaxed)
}

/// Two threads, each makes half of the events, sends what belongs to the other in batches, and counts its own keys.
fn by_hand(events: u64, keys: u64) -> u64 {
    type Batch = Vec<(u64, u64)>;
    type WindowValues = (i64, HashMap<u64, (u64, u64), TableHasher>);
    let mut channels: Vec<_> = (0..WORKERS).map(|_| sync_channel::<(usize, Batch, i64)>(64)).collect();
    let senders: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
    let threads: Vec<_> = channels
        .drain(..)
        .enumerate()
        .map(|(me, (_, inbox))| {
            let senders = senders.clone();
            std::thread::spawn(move || {
                let mut total = 0u64;
                let mut windows: Vec<WindowValues> = Vec::new();
                let mut watermarks = [i64::MIN; WORKERS];
                let mut buffers: Vec<Batch> = (0..WORKERS).map(|_| Vec::with_capacity(1024)).collect();
                let mut index = me as u64;
                let mut done = false;
                loop {
                    for _ in 0..4096 {
                        if index >= events {
                            break;
                        }
                        let event = event(index, keys);
                        buffers[owner(key_group(&event.0), WORKERS)].push(event);
                        index += WORKERS as u64;
                    }
                    let ended = index >= events;
                    let mut own: Vec<(usize, Batch, i64)> = Vec::new();
                    for to in 0..WORKERS {
                        if buffers[to].len() >= 1024 || (ended && !done) {
                            let batch = std::mem::replace(&mut buffers[to], Vec::with_capacity(5120));
                            let mark = if ended { i64::MAX } else { time_ms(index) - 1 };
                            if to == me {
                                own.push((me, batch, mark));
                            } else {
                                let mut message = Some((me, batch, mark));
                                while let Some(unsent) = message.take() {
                                    match senders[to].try_send(unsent) {
                                        Ok(()) => {}
                                        Err(std::sync::mpsc::TrySendError::Full(back)) => {
                                            message = Some(back);
                                            own.extend(inbox.try_iter());
                                        }
                                        Err(std::sync::mpsc::TrySendError::Disconnected(_)) => break,
                                    }
                                }
                            }
                        }
                    }
                    done |= ended;
                    if own.is_empty() && done && watermarks.iter().any(|mark| *mark < i64::MAX) {
                        own.extend(inbox.recv());
                    }
                    for (from, batch, mark) in own.into_iter().chain(inbox.try_iter()) {
                        for event in batch {
                            let end = time_ms(event.1) / WINDOW_MS * WINDOW_MS + WINDOW_MS;
                            let at = match windows.iter().rposition(|window| window.0 == end) {
                                Some(at) => at,
                                None => {
                                    windows.push((end, HashMap::default()));
                                    windows.len() - 1
                                }
                            };
                            let held = windows[at].1.entry(event.0).or_insert((0, 0));
                            held.0 += 1;
                            held.1 = held.1.wrapping_add(event.1);
                        }
                        watermarks[from] = mark;
                        let reached = watermarks.iter().copied().min().unwrap_or(i64::MIN);
                        while let Some(at) = windows.iter().position(|window| window.0 - 1 <= reached) {
                            let (end, values) = windows.swap_remove(at);
                            for (key, (count, sum)) in values {
                                total = total.wrapping_add(digest(end, key, count, sum));
                            }
                        }
                    }
                    if done && watermarks.iter().all(|mark| *mark == i64::MAX) {
                        return total;
                    }
                }
            })
        })
        .collect();
    drop(senders);
    threads.into_iter().map(|thread| thread.join().expect("a thread ends")).fold(0, u64::wrapping_add)
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let number =
        |at: usize, default: u64| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (events, keys, rounds) = (number(1, 60) * 1_000_000, number(2, 1_000_000), number(3, 3));
    if let Some(only) = std::env::args().nth(4) {
        let begin = (Instant::now(), cpu_seconds());
        let result = match only.as_str() {
            "hand" => by_hand(events, keys),
            _ => engine(events, keys, only == "checkpoints"),
        };
        let (seconds, cpu) = (begin.0.elapsed().as_secs_f64(), cpu_seconds() - begin.1);
        println!(
            "{only}: {:.1} M events/s, {:.1} CPU ns/event, digest {result:x}",
            events as f64 / seconds / 1e6,
            cpu * 1e9 / events as f64
        );
        return;
    }
    let mut measured = [const { (Vec::new(), Vec::new()) }; 3];
    let expected = by_hand(events, keys);
    for _ in 0..rounds {
        let runs: [&dyn Fn() -> u64; 3] =
            [&|| by_hand(events, keys), &|| engine(events, keys, false), &|| engine(events, keys, true)];
        for (run, (rates, costs)) in runs.iter().zip(&mut measured) {
            let (begin, cpu) = (Instant::now(), cpu_seconds());
            assert_eq!(run(), expected, "all contestants come to the same results");
            rates.push(events as f64 / begin.elapsed().as_secs_f64() / 1e6);
            costs.push((cpu_seconds() - cpu) * 1e9 / events as f64);
        }
    }
    let [hand, plain, checkpointed] = measured.map(|(rates, costs)| (median(rates), median(costs)));
    println!(
        "keyed 10 s tumbling count, {keys} keys, {WORKERS} workers, {} M events, median of {rounds}",
        events / 1_000_000
    );
    for (name, (rate, cpu)) in [("by hand", hand), ("engine", plain), ("engine, checkpoint 1 s", checkpointed)] {
        println!("  {name:<24} {rate:6.1} M events/s   {cpu:5.1} CPU ns/event   {:4.2} of by hand", rate / hand.0);
    }
    println!(
        "  checkpoints cost {:.0} % of the rate, {:.0} % more CPU",
        (1.0 - checkpointed.0 / plain.0) * 100.0,
        (checkpointed.1 / plain.1 - 1.0) * 100.0
    );
}
