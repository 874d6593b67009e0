//! Batch mode: what a stream comes to in the end, and nothing on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_core::{ManualClock, NO_TIMESTAMP, Result};
use tidemill_engine::runtime::RuntimeMode;
use tidemill_engine::state::ListState;
use tidemill_engine::stream::{
    AsyncOptions, DataStream, KeyedContext, KeyedProcessFunction, TimeDomain, WatermarkStrategy,
};
use tidemill_engine::testing::Harness;
use tidemill_engine::window::{Sliding, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::harness::Held;
use crate::windows::Chance;

type Event = (u32, i64, i64);

fn events(seed: u64) -> Vec<Event> {
    let mut chance = Chance(seed * 7919);
    // Key, time, number; times in order but for a few.
    let event = |at: i64| {
        let late = chance.below(40) as i64;
        (chance.below(7) as u32, at * 5 - late, chance.below(1000) as i64)
    };
    (0..2000).map(event).collect()
}

/// All results of a job on the events, in the order in which each key's came.
fn run(mode: RuntimeMode, seed: u64) -> Vec<(String, u32, Vec<i64>)> {
    let parallelism = 1 + seed as usize % 3;
    let env = Environment::new();
    env.set_parallelism(parallelism).set_runtime_mode(mode);
    // Late enough for the disorder, so that a stream loses nothing either.
    let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(50))
        .with_timestamps(|event: &Event, _| event.1)
        .with_interval(Duration::ZERO);
    let events = env.from_collection(events(seed)).assign_timestamps_and_watermarks(strategy).set_parallelism(1);
    let keyed = events.key_by(|event| event.0);
    let row = |name: &'static str| move |(key, _, n): Event| (name.to_string(), key, n);
    let rolling = [
        keyed.reduce(|held, next| held.2 = held.2 * 31 % 65_537 + next.2).map(row("reduce")),
        keyed.sum(|event| &mut event.2).map(row("sum")),
        keyed.min(|event| &mut event.2).map(row("min")),
        keyed.max_by(|event| event.2).map(row("max by")),
    ];
    // The last value of a key goes on into another rolling sum.
    let twice = keyed.max(|event| &mut event.2).key_by(|event| event.0 % 2).max(|event| &mut event.2);
    let twice = twice.map(|(key, _, n)| ("twice".to_string(), key % 2, n));
    let window = |name: &'static str| {
        move |key: &u32, window: Window, event: Event| Some((name.to_string(), *key, window.end_ms * 100_000 + event.2))
    };
    let tumbling = Tumbling::event_time(Duration::from_millis(500));
    let sliding = Sliding::event_time(Duration::from_millis(400), Duration::from_millis(100));
    let windows = [
        keyed.window(tumbling).reduce_with(|a, b| a.2 += b.2, window("tumbling")),
        keyed.window(sliding).reduce_with(|a, b| a.2 += b.2, window("sliding")),
        keyed
            .count_window(9)
            .reduce_with(|a, b| a.2 += b.2, |key: &u32, _, e: Event| Some(("count".into(), *key, e.2))),
    ];
    let asked = events.async_map(AsyncOptions::timeout(Duration::from_secs(60)), |(key, _, n): Event| async move {
        Ok(("asked".to_string(), key, n))
    });
    let others: Vec<&DataStream<(String, u32, i64)>> =
        rolling[1..].iter().chain(&windows).chain([&twice, &asked]).collect();
    let results = rolling[0].union(&others).collect();
    env.execute("modes").unwrap();
    let mut by_key: BTreeMap<(String, u32), Vec<i64>> = BTreeMap::new();
    results.take().into_iter().for_each(|(name, key, n)| by_key.entry((name, key)).or_default().push(n));
    by_key.into_iter().map(|((name, key), numbers)| (name, key, numbers)).collect()
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_batch_gives_what_the_stream_comes_to() {
    for seed in 1..=9u64 {
        let (stream, batch) = (run(RuntimeMode::Streaming, seed), run(RuntimeMode::Batch, seed));
        // Windows and calls of one key come in any order.
        let in_order = |rows: Vec<(String, u32, Vec<i64>)>| -> BTreeMap<(String, u32), Vec<i64>> {
            rows.into_iter().map(|(name, key, numbers)| ((name, key), sorted(numbers))).collect()
        };
        let automatic = run(RuntimeMode::Automatic, seed);
        assert!(in_order(batch.clone()) == in_order(automatic), "seed {seed}: all sources end, so it is a batch");
        assert_eq!(stream.len(), batch.len(), "seed {seed}");
        for ((name, key, all), (of, same, last)) in stream.into_iter().zip(batch) {
            assert_eq!((&name, key), (&of, same));
            let rolling = !["tumbling", "sliding", "count", "asked"].contains(&name.as_str());
            let expected = if rolling { all[all.len() - 1..].to_vec() } else { all };
            assert_eq!(sorted(last), sorted(expected), "seed {seed}: {name} of {key}");
        }
    }
}

/// Sets a timer of each kind, and says which have fired; a timer sets itself again.
#[derive(Clone)]
struct Timed(ListState<i64>);

impl KeyedProcessFunction<u8, i64, (String, i64)> for Timed {
    fn process(&mut self, n: i64, context: &mut KeyedContext<'_, u8, (String, i64)>) -> Result<()> {
        self.0.add(context, n)?;
        context.register_processing_timer(1_000 + n);
        context.register_event_timer(2_000 - n);
        context.emit((format!("at {}", context.watermark_ms()), n))
    }

    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, u8, (String, i64)>) -> Result<()> {
        let at = context.timestamp_ms();
        context.register_processing_timer(at + 1);
        context.register_event_timer(at + 1);
        context.emit((format!("{domain:?}"), at))
    }
}

#[test]
fn all_timers_fire_at_the_end_once_those_of_event_time_first() {
    let pipeline = |input: DataStream<i64>| {
        let timed = input.key_by(|_| 0u8).process(Timed(ListState::new("seen")));
        // What is behind hears of the end only then.
        timed
            .key_by(|_| 0u8)
            .window(Tumbling::processing_time(Duration::from_secs(10)))
            .apply(|_: &u8, _: Window, rows: Vec<(String, i64)>| rows)
    };
    let mut timed = Harness::builder(pipeline).batch().build().unwrap();
    timed.push_batch(vec![(1, 1), (2, 2)]).unwrap();
    assert_eq!(timed.take(), []);
    timed.end().unwrap();
    let rows: Vec<(String, i64)> = timed.take().into_iter().map(|(_, row)| row).collect();
    let before = format!("at {}", i64::MIN);
    let expected: Vec<(String, i64)> = [
        (before.as_str(), 1),
        (&before, 2),
        ("Event", 1_998),
        ("Event", 1_999),
        ("Processing", 1_001),
        ("Processing", 1_002),
    ]
    .map(|(text, n)| (text.to_string(), n))
    .to_vec();
    assert_eq!(rows, expected);
    assert_eq!(timed.output_watermark_ms(), i64::MAX);
}

#[test]
fn the_clock_fires_nothing_before_the_end_of_a_batch() {
    let clock = Arc::new(ManualClock::new(0));
    let settings = JobSettings { clock: clock.clone(), ..JobSettings::default() };
    let env = Environment::with_settings(settings);
    env.set_parallelism(2).set_runtime_mode(RuntimeMode::Batch);
    let moved = clock.clone();
    let numbers = env.from_sequence(1, 10_000).map(move |n| {
        // The clock runs while the input is read.
        moved.advance(1);
        n
    });
    let timed = numbers.key_by(|n| (n % 5) as u8).process(Timed(ListState::new("seen"))).collect();
    env.execute("clock").unwrap();
    let rows = timed.take();
    let of = |name: &str| rows.iter().filter(|(text, _)| text == name).count();
    assert_eq!((of("Event"), of("Processing"), rows.len()), (10_000, 10_000, 30_000));
    assert!(rows.iter().all(|(text, _)| !text.starts_with("at ") || *text == format!("at {}", NO_TIMESTAMP)));
}

#[test]
fn a_batch_needs_an_end_and_takes_no_savepoint() {
    let source = || Held { released: Arc::new(AtomicBool::new(true)) };
    let run = |mode: RuntimeMode| {
        let env = Environment::new();
        env.set_runtime_mode(mode);
        let numbers = env.from_source(source(), WatermarkStrategy::none(), "held");
        let sums = numbers.key_by(|_| 0u8).reduce(|a, b| *a += b).collect();
        env.execute("held").map(|_| sums.take())
    };
    let error = run(RuntimeMode::Batch).unwrap_err().to_string();
    assert!(error.contains("`Source: held` does not end"), "{error}");
    run(RuntimeMode::Streaming).unwrap();
    run(RuntimeMode::Automatic).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::new();
    env.from_source(source(), WatermarkStrategy::none(), "held").collect();
    let error = env.bootstrap("held", folder.path().join("bootstrap")).err().unwrap().to_string();
    assert!(error.contains("`Source: held` does not end") && error.contains("bound the source"), "{error}");
    let env = Environment::with_settings(JobSettings {
        checkpoint_dir: Some(folder.path().to_path_buf()),
        checkpoint_interval_ms: Some(1),
        ..JobSettings::default()
    });
    env.set_runtime_mode(RuntimeMode::Batch);
    env.from_sequence(1, 300_000).map(|n| n).collect();
    let refused = Arc::new(AtomicBool::new(false));
    let seen = refused.clone();
    let result = env.execute_with("batch", move |job| {
        let error = job.savepoint(None, false, false).unwrap_err().to_string();
        seen.store(error.contains("batch mode") && job.checkpoint().is_err(), Ordering::SeqCst);
    });
    assert!(refused.load(Ordering::SeqCst));
    result.unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let checkpoints: Vec<_> = entries.filter(|name| name.to_string_lossy().starts_with("chk-")).collect();
    assert_eq!(checkpoints, ["chk-1"], "the last alone, which publishes");
    assert!("fast".parse::<RuntimeMode>().unwrap_err().to_string().contains("`fast`"));
    assert_eq!("BATCH".parse::<RuntimeMode>().unwrap(), RuntimeMode::Batch);
}
