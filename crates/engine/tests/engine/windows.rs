//! Windows against a naive reference, on random streams with printed seeds.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_engine::Environment;
use tidemill_engine::operator::OutputTag;
use tidemill_engine::stream::{DataStream, WatermarkStrategy};
use tidemill_engine::window::{Sliding, TimeWindows, Tumbling, Window};

type Event = (i64, u32, i64);

/// xorshift64*: enough chance for a test, and the same everywhere.
pub struct Chance(pub u64);
impl Chance {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn events(seed: u64, count: usize, disorder_ms: u64) -> Vec<Event> {
    let mut chance = Chance(seed | 1);
    (0..count)
        .map(|at| {
            let time = at as i64 * 7 - 20_000 - chance.below(disorder_ms + 1) as i64;
            (time, chance.below(13) as u32, chance.below(100) as i64)
        })
        .collect()
}

fn timed(env: &Environment, events: Vec<Event>, delay_ms: u64) -> DataStream<Event> {
    env.from_collection(events)
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(delay_ms))
                .with_timestamps(|event: &Event, _| event.0)
                .with_interval(Duration::ZERO),
        )
        // One subtask, so that elements reach their window in the order of the collection.
        .set_parallelism(1)
}

/// Every window that covers an event, by the book: E1 and E2 of the specification.
fn reference(events: &[Event], size: i64, slide: i64) -> BTreeMap<(i64, u32), (i64, Vec<i64>)> {
    let mut windows: BTreeMap<(i64, u32), (i64, Vec<i64>)> = BTreeMap::new();
    for (time, key, value) in events {
        let mut start = time - time.rem_euclid(slide);
        while start > time - size {
            let window = windows.entry((start + size, *key)).or_default();
            window.0 += value;
            window.1.push(*value);
            start -= slide;
        }
    }
    windows
}

/// Shows the first difference only.
fn same<V: PartialEq + std::fmt::Debug>(seed: u64, got: BTreeMap<(i64, u32), V>, expected: BTreeMap<(i64, u32), V>) {
    let keys = got.keys().chain(expected.keys()).find(|at| got.get(at) != expected.get(at));
    assert!(
        keys.is_none(),
        "seed {seed} at {keys:?}: got {:?}, expected {:?}",
        keys.map(|at| got.get(at)),
        keys.map(|at| expected.get(at))
    );
}

#[test]
fn tumbling_and_sliding_equal_the_reference() {
    for seed in 1..=12u64 {
        let mut chance = Chance(seed * 977);
        let size = 1 + chance.below(400) as i64;
        let slide = [size, 1 + chance.below(size as u64) as i64, size / 2 + 1, size + 30][chance.below(4) as usize];
        let parallelism = 1 + chance.below(4) as usize;
        let events = events(seed, 4000, 50);
        println!("seed {seed}: size {size} slide {slide} parallelism {parallelism}");
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let (size_d, slide_d) = (Duration::from_millis(size as u64), Duration::from_millis(slide as u64));
        let keyed = timed(&env, events.clone(), 50).key_by(|event| event.1);
        let sums = keyed
            .window(Sliding::event_time(size_d, slide_d))
            .aggregate_with(
                tidemill_engine::window::Reduce(|a: &mut Event, b: Event| a.2 += b.2),
                |key: &u32, window: Window, sum: Event| Some((window.end_ms, *key, sum.2)),
            )
            .collect();
        let lists = keyed
            .window(Sliding::event_time(size_d, slide_d))
            .apply(|key: &u32, window: Window, events: Vec<Event>| {
                Some((window.end_ms, *key, events.iter().map(|event| event.2).collect::<Vec<_>>()))
            })
            .collect();
        env.execute("windows").unwrap();
        let expected = reference(&events, size, slide);
        let got: BTreeMap<_, _> = sums.take().into_iter().map(|(end, key, sum)| ((end, key), sum)).collect();
        same(seed, got, expected.iter().map(|(at, (sum, _))| (*at, *sum)).collect());
        // Elements come in the order they arrived, also across slices.
        let got: BTreeMap<_, _> = lists.take().into_iter().map(|(end, key, list)| ((end, key), list)).collect();
        same(seed, got, expected.into_iter().map(|(at, (_, list))| (at, list)).collect());
    }
}

#[test]
fn the_tutorial_sum_is_one_then_six() {
    // Specification X1: the printed 4 of the tutorial cannot be had; Flink gives 1 and 6.
    let env = Environment::new();
    env.set_parallelism(1);
    let lines = [(1645844000i64, 1i64), (1645845000, 2), (1645846000, 1), (1645847000, 3), (1645849000, 1)];
    let sums = env
        .from_collection(lines.map(|(time, n)| ("hello".to_string(), time, n)).to_vec())
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1))
                .with_timestamps(|line: &(String, i64, i64), _| line.1),
        )
        .key_by(|line| line.0.clone())
        .window(Tumbling::event_time(Duration::from_secs(3)))
        .sum(|line| &mut line.2)
        .collect();
    env.execute("event time sum").unwrap();
    assert_eq!(
        sums.take().iter().map(|line| line.2).collect::<Vec<_>>(),
        [1, 6, 1],
        "the last window fires at the end of the input"
    );
}

/// A stream whose watermark moves behind every element, so that lateness is exact.
fn punctual(env: &Environment, events: Vec<Event>) -> DataStream<Event> {
    struct EachRecord;
    impl tidemill_engine::stream::WatermarkGenerator<Event> for EachRecord {
        fn on_event(&mut self, _: &Event, timestamp_ms: i64) -> Option<i64> {
            Some(timestamp_ms - 1)
        }
        fn on_periodic(&mut self) -> Option<i64> {
            None
        }
    }
    env.from_collection(events).assign_timestamps_and_watermarks(
        WatermarkStrategy::custom(|| EachRecord).with_timestamps(|event: &Event, _| event.0),
    )
}

#[test]
fn late_records_fire_again_then_go_aside() {
    const LATE: OutputTag<Event> = OutputTag::new("late");
    let env = Environment::new();
    env.set_parallelism(1);
    // Window [0,10): on time 1; fired at 12; 2 comes late but allowed (fires 1+2); at 15 the window is gone.
    let events = vec![(3, 0, 1), (12, 0, 10), (4, 0, 2), (16, 0, 20), (5, 0, 100), (30, 0, 7)];
    let sums = punctual(&env, events)
        .key_by(|event| event.1)
        .window(Tumbling::event_time(Duration::from_millis(10)))
        .allowed_lateness(Duration::from_millis(5))
        .side_output_late_data(LATE)
        .reduce_with(
            |a: &mut Event, b: Event| a.2 += b.2,
            |_: &u32, window: Window, sum: Event| Some((window.end_ms, sum.2)),
        );
    let late = sums.side_output(LATE).collect();
    let sums = sums.collect();
    env.execute("late").unwrap();
    assert_eq!(sums.take(), [(10, 1), (10, 3), (20, 30), (40, 7)]);
    assert_eq!(late.take(), [(5, 0, 100)]);
}

#[test]
fn late_records_nobody_reads_are_counted() {
    let env = Environment::new();
    env.set_parallelism(1);
    let windows: TimeWindows = Tumbling::event_time(Duration::from_millis(10));
    punctual(&env, vec![(3, 0, 1), (25, 0, 1), (4, 0, 1), (5, 0, 1)])
        .key_by(|event| event.1)
        .window(windows)
        .sum(|e| &mut e.2)
        .collect();
    let result = env.execute("late").unwrap();
    let late: u64 = result.report.vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.late_dropped).sum();
    assert_eq!(late, 2);
}

#[test]
fn count_windows_fire_on_the_count_and_leave_the_rest() {
    let env = Environment::new();
    env.set_parallelism(2);
    let keyed = env.from_sequence(1, 10).set_parallelism(1).map(|n| (n % 2, n)).key_by(|pair| pair.0);
    let four = keyed.count_window(4).apply(|key: &i64, _, pairs: Vec<(i64, i64)>| {
        Some((*key, pairs.into_iter().map(|pair| pair.1).collect::<Vec<_>>()))
    });
    let sliding = keyed.sliding_count_window(3, 2).apply(|key: &i64, _, pairs: Vec<(i64, i64)>| {
        Some((*key, pairs.into_iter().map(|pair| pair.1).collect::<Vec<_>>()))
    });
    let (four, sliding) = (four.collect(), sliding.collect());
    env.execute("count").unwrap();
    let sorted = |mut rows: Vec<(i64, Vec<i64>)>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(four.take()), [(0, vec![2, 4, 6, 8]), (1, vec![1, 3, 5, 7])]);
    assert_eq!(sorted(sliding.take()), [(0, vec![2, 4]), (0, vec![4, 6, 8]), (1, vec![1, 3]), (1, vec![3, 5, 7])]);
}

#[test]
fn an_event_time_window_refuses_records_without_time() {
    let env = Environment::new();
    env.from_sequence(1, 3)
        .key_by(|n| *n)
        .window(Tumbling::event_time(Duration::from_secs(1)))
        .reduce(|_, _| ())
        .collect();
    let error = env.execute("no time").unwrap_err().to_string();
    assert!(error.contains("without event time") && error.contains("assign timestamps"), "{error}");
}
