//! Session windows over many keys, generated in memory, against a program written by hand for the same work: one table of
//! open sessions a thread, and an ordered index of their ends.
//!
//! Half of the records go to few keys with long sessions, half to many keys with short ones. The contestants take turns, so
//! that a busy machine slows all alike; medians. The same sessions in the general operator (chosen by naming the trigger that
//! is theirs anyway) show what the fast one is worth.
//!
//! `session_window [events in millions] [keys] [rounds]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tidemill_connectors::generator::GeneratorSource;
use tidemill_engine::state::TableHasher;
use tidemill_engine::stream::{DataStream, WatermarkStrategy};
use tidemill_engine::window::{Aggregate, EventTimeTrigger, Session, Window};
use tidemill_engine::{Environment, JobSettings};

const EVENTS_PER_STEP: u64 = 100;
/// Odd, where all times are even: no record comes exactly at a session's end, where what it joins would depend on how far
/// the watermark had come.
const GAP_MS: i64 = 1_001;

/// Event `index`: a key and a value; even ones of 1 000 busy keys.
#[inline]
fn event(index: u64, keys: u64) -> (u64, u64) {
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11;
    (if index.is_multiple_of(2) { mixed % 1_000 } else { 1_000 + mixed % keys }, index)
}

#[inline]
fn time_ms(index: u64) -> i64 {
    2 * (index / EVENTS_PER_STEP) as i64
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

fn digest(start_ms: i64, end_ms: i64, key: u64, count: u64, sum: u64) -> u64 {
    (end_ms as u64).wrapping_mul(31).wrapping_add(key ^ start_ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ count.wrapping_mul(7).wrapping_add(sum)
}

/// The engine with one worker, without an exchange to speak of: what is measured is the window.
fn engine(events: u64, keys: u64, general: bool) -> u64 {
    let env = Environment::with_settings(JobSettings { parallelism: Some(1), ..JobSettings::default() });
    let source = GeneratorSource::new("clicks", move |index| event(index, keys)).count(events).split_count(1);
    let strategy = WatermarkStrategy::monotonous()
        .with_timestamps(|event: &(u64, u64), _| time_ms(event.1))
        .with_interval(Duration::ZERO);
    let total = Arc::new(AtomicU64::new(0));
    let results = total.clone();
    let emit = |key: &u64, window: Window, (count, sum): (u64, u64)| {
        Some(digest(window.start_ms, window.end_ms, *key, count, sum))
    };
    let sessions = env
        .from_source(source, strategy, "clicks")
        .key_by(|event: &(u64, u64)| event.0)
        .window(Session::event_time(Duration::from_millis(GAP_MS as u64)));
    let digests: DataStream<u64> = match general {
        false => sessions.aggregate_with(CountSum, emit),
        true => sessions.trigger(EventTimeTrigger).aggregate_with(CountSum, emit),
    };
    digests
        .filter(move |digest| {
            results.fetch_add(*digest, Ordering::Relaxed);
            false
        })
        .collect();
    env.execute("session window").expect("the bench job runs");
    total.load(Ordering::Relaxed)
}

struct Open {
    start_ms: i64,
    end_ms: i64,
    count: u64,
    sum: u64,
}

/// One thread: a table of open sessions, and their keys by the end they had when they were looked at last.
fn by_hand(events: u64, keys: u64) -> u64 {
    let mut total = 0u64;
    let mut open: HashMap<u64, Open, TableHasher> = HashMap::default();
    let mut ends: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    let fire = |total: &mut u64, key: u64, open: &Open| {
        *total = total.wrapping_add(digest(open.start_ms, open.end_ms, key, open.count, open.sum));
    };
    let mut batch: Vec<(u64, u64)> = Vec::with_capacity(1024);
    let mut index = 0;
    while index < events {
        batch.clear();
        batch.extend((index..events.min(index + 1024)).map(|index| event(index, keys)));
        index += batch.len() as u64;
        for (key, value) in &batch {
            let time = time_ms(*value);
            match open.entry(*key) {
                Entry::Occupied(mut held) => {
                    let held = held.get_mut();
                    // Times grow, so a session that is still here and ends before this record is over.
                    if held.end_ms < time {
                        fire(&mut total, *key, held);
                        *held = Open { start_ms: time, end_ms: time, count: 0, sum: 0 };
                    }
                    held.end_ms = time + GAP_MS;
                    held.count += 1;
                    held.sum = held.sum.wrapping_add(*value);
                }
                Entry::Vacant(free) => {
                    free.insert(Open { start_ms: time, end_ms: time + GAP_MS, count: 1, sum: *value });
                    ends.entry(time + GAP_MS).or_default().push(*key);
                }
            }
        }
        let reached = if index < events { time_ms(index) - 1 } else { i64::MAX - 1 };
        while let Some(first) = ends.first_entry() {
            if *first.key() - 1 > reached {
                break;
            }
            let (end, keys) = first.remove_entry();
            for key in keys {
                let Entry::Occupied(held) = open.entry(key) else { continue };
                if held.get().end_ms > end {
                    ends.entry(held.get().end_ms).or_default().push(key);
                } else {
                    fire(&mut total, key, &held.remove());
                }
            }
        }
    }
    total
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let number =
        |at: usize, default: u64| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (events, keys, rounds) = (number(1, 20) * 1_000_000, number(2, 1_000_000), number(3, 3));
    let mut measured = [const { Vec::new() }; 3];
    let expected = by_hand(events, keys);
    for _ in 0..rounds {
        let runs: [&dyn Fn() -> u64; 3] =
            [&|| by_hand(events, keys), &|| engine(events, keys, false), &|| engine(events, keys, true)];
        for (run, rates) in runs.iter().zip(&mut measured) {
            let begin = Instant::now();
            assert_eq!(run(), expected, "all contestants come to the same results");
            rates.push(events as f64 / begin.elapsed().as_secs_f64() / 1e6);
        }
    }
    let [hand, fast, general] = measured.map(median);
    println!(
        "sessions of {GAP_MS} ms gaps, {keys} + 1 000 keys, 1 worker, {} M events, median of {rounds}",
        events / 1_000_000
    );
    for (name, rate) in [("by hand", hand), ("engine", fast), ("engine, general operator", general)] {
        println!("  {name:<26} {rate:6.1} M events/s   {:4.2} of by hand", rate / hand);
    }
}
