//! Joins of two streams against naive references, on random streams with printed seeds.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::Environment;
use tidemill_engine::stream::{DataStream, ProcessJoinContext, ProcessJoinFunction, WatermarkStrategy};
use tidemill_engine::window::{Sliding, Tumbling, Window};

use crate::windows::Chance;

/// Event time, key, and a number no other event of its side has.
pub type Event = (i64, u32, i64);

pub fn events(chance: &mut Chance, count: usize, disorder_ms: u64) -> Vec<Event> {
    let event = |at: usize| {
        let time = at as i64 * 5 - 3_000 - chance.below(disorder_ms + 1) as i64;
        (time, chance.below(11) as u32, at as i64)
    };
    (0..count).map(event).collect()
}

pub fn timed(env: &Environment, events: Vec<Event>, delay_ms: u64) -> DataStream<Event> {
    env.from_collection(events)
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(delay_ms))
                .with_timestamps(|event: &Event, _| event.0)
                .with_interval(Duration::ZERO),
        )
        // One subtask, so that each side's elements reach their window in the order of the collection.
        .set_parallelism(1)
}

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

/// Emits the times it was told beside the pair.
#[derive(Clone)]
struct Times;

impl ProcessJoinFunction<Event, Event, (i64, i64, i64)> for Times {
    fn process(
        &mut self,
        left: &Event,
        right: &Event,
        context: &mut ProcessJoinContext<'_, (i64, i64, i64)>,
    ) -> Result<()> {
        assert_eq!((context.left_timestamp_ms(), context.right_timestamp_ms()), (left.0, right.0));
        context.emit((left.2, right.2, context.timestamp_ms()))
    }
}

#[test]
fn interval_joins_equal_all_pairs_compared() {
    for seed in 1..=9u64 {
        let mut chance = Chance(seed * 7919);
        let lower = chance.below(300) as i64 - 200;
        let upper = lower + 1 + chance.below(250) as i64;
        let (no_lower, no_upper) = (chance.below(2) == 1, chance.below(3) == 1);
        let parallelism = 1 + (seed % 3) as usize;
        println!("seed {seed}: {lower} {no_lower} .. {upper} {no_upper}, parallelism {parallelism}");
        let (lefts, rights) = (events(&mut chance, 1500, 60), events(&mut chance, 1200, 40));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let left = timed(&env, lefts.clone(), 60).rebalance().map(|event| event).key_by(|event| event.1);
        let right = timed(&env, rights.clone(), 40).key_by(|event| event.1);
        let mut join = left.interval_join(&right).between(lower, upper);
        if no_lower {
            join = join.lower_bound_exclusive();
        }
        if no_upper {
            join = join.upper_bound_exclusive();
        }
        let pairs = join.process(Times).collect();
        env.execute("interval join").unwrap();
        let mut expected = Vec::new();
        for left in &lefts {
            let near = |right: &&Event| {
                let distance = right.0 - left.0;
                let above = distance > lower || (distance == lower && !no_lower);
                let below = distance < upper || (distance == upper && !no_upper);
                left.1 == right.1 && above && below
            };
            expected.extend(rights.iter().filter(near).map(|right| (left.2, right.2, left.0.max(right.0))));
        }
        assert!(expected.len() > 50, "seed {seed}: {}", expected.len());
        assert!(sorted(pairs.take()) == sorted(expected), "seed {seed}");
    }
}

/// Each key's and window's elements of one side, in the order they came.
fn by_window(events: &[Event], size: i64, slide: i64) -> BTreeMap<(i64, u32), Vec<i64>> {
    let mut windows: BTreeMap<(i64, u32), Vec<i64>> = BTreeMap::new();
    for (time, key, value) in events {
        let mut start = time - time.rem_euclid(slide);
        while start > time - size {
            windows.entry((start + size, *key)).or_default().push(*value);
            start -= slide;
        }
    }
    windows
}

#[test]
fn window_joins_and_co_groups_equal_the_reference() {
    for seed in 1..=9u64 {
        let mut chance = Chance(seed * 104_729);
        let size = 20 + chance.below(300) as i64;
        let slide = [size, 1 + chance.below(size as u64) as i64, size / 2 + 1][chance.below(3) as usize];
        let parallelism = 1 + (seed % 3) as usize;
        println!("seed {seed}: size {size} slide {slide} parallelism {parallelism}");
        let (lefts, rights) = (events(&mut chance, 600, 60), events(&mut chance, 500, 40));
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let (left, right) = (timed(&env, lefts.clone(), 60), timed(&env, rights.clone(), 40));
        let windows = Sliding::event_time(millis(size), millis(slide));
        let joined = left
            .join(&right)
            .where_key(|event| event.1)
            .equal_to(|event| event.1)
            .window(windows)
            .apply(|left, right| Some((left.1, left.2, right.2)));
        // The result's time is the window's last millisecond: windows of the same size again put it into the same.
        let again = joined
            .key_by(|pair| pair.0)
            .window(Tumbling::event_time(millis(1)))
            .apply(|_: &u32, window: Window, pairs: Vec<(u32, i64, i64)>| {
                pairs.into_iter().map(move |(key, left, right)| (window.end_ms, key, left, right)).collect::<Vec<_>>()
            })
            .collect();
        let groups = left
            .co_group(&right)
            .where_key(|event| event.1)
            .equal_to(|event| event.1)
            .window(windows)
            .apply(|key: &u32, window, lefts: Vec<Event>, rights: Vec<Event>| {
                let values = |events: Vec<Event>| events.into_iter().map(|event| event.2).collect::<Vec<_>>();
                Some(((window.end_ms, *key), values(lefts), values(rights)))
            })
            .collect();
        env.execute("window join").unwrap();
        let (of_left, of_right) = (by_window(&lefts, size, slide), by_window(&rights, size, slide));
        let mut expected = Vec::new();
        for (&(end, key), lefts) in &of_left {
            for right in of_right.get(&(end, key)).into_iter().flatten() {
                expected.extend(lefts.iter().map(|left| (end, key, *left, *right)));
            }
        }
        assert!(expected.len() > 50, "seed {seed}: {}", expected.len());
        assert!(sorted(again.take()) == sorted(expected), "seed {seed}");
        let mut expected: BTreeMap<(i64, u32), (Vec<i64>, Vec<i64>)> = BTreeMap::new();
        of_left.into_iter().for_each(|(at, values)| expected.entry(at).or_default().0 = values);
        of_right.into_iter().for_each(|(at, values)| expected.entry(at).or_default().1 = values);
        let groups: BTreeMap<_, _> = groups.take().into_iter().map(|(at, left, right)| (at, (left, right))).collect();
        assert!(groups == expected, "seed {seed}");
    }
}
