//! Process functions for windows, windows over whole streams, and rankings by window in two steps.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::Environment;
use tidemill_engine::operator::OutputTag;
use tidemill_engine::state::{ListState, ValueState};
use tidemill_engine::stream::{Collected, DataStream, RuntimeContext, WatermarkStrategy};
use tidemill_engine::testing::{Harness, Snapshot};
use tidemill_engine::window::{
    Count, CountTrigger, GlobalWindows, ProcessWindowFunction, Session, Sliding, Tumbling, Window, WindowContext,
    WindowKind,
};

use crate::windows::Chance;

type Pair = (char, i64);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const FIRINGS: OutputTag<(char, u32)> = OutputTag::new("firings");

/// Tells each firing with all there is to know; counts firings of a window and windows of a key.
#[derive(Clone)]
struct Telling {
    firings: ValueState<u32>,
    seen: ListState<i64>,
    opened: bool,
}

impl Telling {
    fn new() -> Self {
        Telling { firings: ValueState::new("firings"), seen: ListState::new("ends"), opened: false }
    }
}

impl ProcessWindowFunction<char, Vec<Pair>, String> for Telling {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        assert_eq!(context.name, "Tumbling Window");
        self.opened = true;
        Ok(())
    }

    fn process(&mut self, pairs: Vec<Pair>, context: &mut WindowContext<'_, char, String>) -> Result<()> {
        assert!(self.opened);
        let firings = self.firings.get_or(context.window_state()?, || 0)?;
        *firings += 1;
        let firings = *firings;
        let (key, end_ms) = (*context.key(), context.window().end_ms);
        if firings == 1 {
            self.seen.add(context.global_state(), end_ms)?;
        }
        let ends = self.seen.get(context.global_state())?.to_vec();
        let (watermark, now) = (context.watermark_ms(), context.processing_time_ms());
        context.side_output(FIRINGS, (key, firings))?;
        let sum: i64 = pairs.iter().map(|pair| pair.1).sum();
        context.emit(format!("{key} until {end_ms}, firing {firings}: {sum}; windows {ends:?}; at {watermark}, {now}"))
    }

    fn clear(&mut self, context: &mut WindowContext<'_, char, String>) -> Result<()> {
        let had = self.firings.take(context.window_state()?)?;
        assert_eq!(self.firings.take(context.window_state()?)?, None);
        let line = format!("{} until {} is over after {had:?}", context.key(), context.window().end_ms);
        context.emit(line)
    }
}

fn telling(lateness_ms: u64, restored: Option<&Snapshot>) -> Harness<Pair, String> {
    let builder = Harness::builder(|input: DataStream<Pair>| {
        let windowed = input.key_by(|pair| pair.0).window(Tumbling::event_time(ms(10)));
        windowed.allowed_lateness(ms(lateness_ms)).process(Telling::new())
    });
    let builder = builder.side_output(FIRINGS).clock(77);
    match restored {
        Some(snapshot) => builder.restore(snapshot).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

#[test]
fn a_process_function_sees_window_times_and_both_kinds_of_state() {
    let mut told = telling(5, None);
    told.push(1, ('a', 1)).unwrap();
    told.push(2, ('a', 2)).unwrap();
    told.push(13, ('a', 4)).unwrap();
    told.watermark(11).unwrap();
    assert_eq!(told.take(), [(9, "a until 10, firing 1: 3; windows [10]; at 11, 77".to_string())]);
    // A restart in between loses neither the window's state nor the key's.
    let mut told = telling(5, Some(&told.snapshot().unwrap()));
    told.push(3, ('a', 8)).unwrap();
    assert_eq!(told.take(), [(9, "a until 10, firing 2: 11; windows [10]; at 11, 77".to_string())]);
    told.watermark(14).unwrap();
    assert_eq!(told.take(), [(9, "a until 10 is over after Some(2)".to_string())]);
    told.watermark(30).unwrap();
    assert_eq!(
        told.take(),
        [
            (19, "a until 20, firing 1: 4; windows [10, 20]; at 30, 77".to_string()),
            (19, "a until 20 is over after Some(1)".to_string()),
        ]
    );
    assert_eq!(told.take_side(FIRINGS), [(9, ('a', 2)), (19, ('a', 1))]);
}

/// What the combined forms give: the result of the aggregation alone.
#[derive(Clone)]
struct Labelled;

impl<R: std::fmt::Debug> ProcessWindowFunction<char, R, String> for Labelled {
    fn process(&mut self, result: R, context: &mut WindowContext<'_, char, String>) -> Result<()> {
        let line = format!("{} {:?} {:?}", context.key(), context.window().end_ms, result);
        context.emit(line)
    }
}

#[test]
fn aggregation_and_process_function_together_keep_the_accumulator_only() {
    let build = |input: DataStream<Pair>| {
        let windows = || input.key_by(|pair| pair.0).window(Tumbling::event_time(ms(10)));
        let counts = windows().aggregate_process(Count, Labelled);
        let sums = windows().reduce_process(|held, next| held.1 += next.1, Labelled);
        counts.union(&[&sums])
    };
    let lines = |records: i64| {
        let env = Environment::new();
        env.set_parallelism(1);
        let input = env.from_collection((0..records).map(|n| ('a', n % 10)).collect());
        let input = input
            .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|pair: &Pair, _| pair.1));
        let lines = build(input).collect();
        env.execute("combined").unwrap();
        lines.take()
    };
    let mut few = lines(3);
    few.sort();
    assert_eq!(few, ["a 10 ('a', 3)", "a 10 3"]);
    // The state of a window does not grow with its records.
    let size = |records: i64| {
        let mut window = Harness::new(|input: DataStream<Pair>| {
            let windows = input.key_by(|pair| pair.0).window(Tumbling::event_time(ms(10)));
            windows.aggregate_process(Count, Labelled)
        })
        .unwrap();
        (0..records).for_each(|n| window.push(n % 10, ('a', n)).unwrap());
        window.snapshot().unwrap().bytes()
    };
    assert_eq!(size(2), size(100));
}

/// Sorted, since the subtasks that collect race.
fn sorted<T: Ord>(collected: Collected<T>) -> Vec<T> {
    let mut rows = collected.take();
    rows.sort();
    rows
}

/// All windows of a whole stream: parallelism is one, whatever the job's.
#[test]
fn windows_over_a_whole_stream_see_all_of_it_on_one_subtask() {
    let env = Environment::new();
    env.set_parallelism(3);
    let numbers = env
        .from_collection((0..100).collect())
        .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamps(|n: &i64, _| *n));
    let spread = numbers.rebalance().map(|n| n);
    fn sums<W: WindowKind<i64>>(stream: &DataStream<i64>, windows: W) -> Collected<Vec<i64>> {
        let end = |_: &(), window: Window, sum: i64| Some(vec![window.start_ms, window.end_ms, sum]);
        stream.window_all(windows).reduce_with(|a, b| *a += b, end).collect()
    }
    let tumbling = sums(&spread, Tumbling::event_time(ms(50)));
    let sliding = sums(&spread, Sliding::event_time(ms(80), ms(40)));
    let session = sums(&spread.filter(|n| n % 10 == 0 && *n != 50), Session::event_time(ms(10)));
    let global = sums(&spread, GlobalWindows::with_end_of_stream_trigger());
    let count = spread.count_window_all(30).aggregate(Count).collect();
    let sliding_count = spread.sliding_count_window_all(4, 50).apply(|_, _, n: Vec<i64>| Some(n.len())).collect();
    let fired = spread.window_all(GlobalWindows::new()).trigger(CountTrigger::of(100)).sum(|n| n).collect();
    let result = env.execute("all").unwrap();
    assert_eq!(sorted(tumbling), [[0, 50, 1225], [50, 100, 3725]]);
    assert_eq!(sorted(sliding), [[-40, 40, 780], [0, 80, 3160], [40, 120, 4170], [80, 160, 1790]]);
    assert_eq!(sorted(session), [[0, 50, 100], [60, 100, 300]]);
    assert_eq!(sorted(global), [[i64::MAX, i64::MAX, 4950]]);
    assert_eq!((count.take(), sliding_count.take()), (vec![30; 3], vec![4; 2]));
    assert_eq!(fired.take(), [4950]);
    let windows = result.report.vertices.iter().filter(|vertex| vertex.name.contains("Window"));
    assert!(windows.map(|vertex| vertex.subtasks.len()).eq([1; 7]), "one subtask each");
}

#[test]
fn sums_and_extremes_of_windows() {
    let env = Environment::new();
    env.set_parallelism(2);
    let rows = vec![("a", 3, 30), ("a", 1, 10), ("b", 7, 70), ("a", 2, 20), ("a", 1, 11)];
    let rows: Vec<(String, i64, i64)> = rows.into_iter().map(|(key, n, m)| (key.to_string(), n, m)).collect();
    let stream = env.from_collection(rows);
    let windows = || stream.key_by(|row| row.0.clone()).window(GlobalWindows::with_end_of_stream_trigger());
    let results = [
        windows().sum(|row| &mut row.1).collect(),
        windows().min(|row| &mut row.1).collect(),
        windows().max(|row| &mut row.1).collect(),
        windows().min_by(|row| row.1).collect(),
        windows().max_by(|row| row.1).collect(),
    ];
    env.execute("extremes").unwrap();
    let [sum, min, max, min_by, max_by] = results.map(|rows| {
        let mut rows: Vec<_> = rows.take().into_iter().map(|row| (row.1, row.2)).collect();
        rows.sort();
        rows
    });
    assert_eq!(sum, [(7, 30), (7, 70)], "other fields are of the first record");
    assert_eq!(min, [(1, 30), (7, 70)]);
    assert_eq!(max, [(3, 30), (7, 70)]);
    assert_eq!(min_by, [(1, 10), (7, 70)], "the whole record; of equals the first");
    assert_eq!(max_by, [(3, 30), (7, 70)]);
}

/// Specification E13: results carry the last millisecond of their window, so a second window of the same size holds
/// together what the first has counted, and ranks it.
#[test]
fn a_ranking_by_window_in_two_steps() {
    for seed in 1..=4u64 {
        let mut chance = Chance(seed * 65_537);
        let clicks: Vec<(i64, u32)> =
            (0..3_000).map(|n| (n / 3, (chance.below(30) * chance.below(30) / 30) as u32)).collect();
        println!("seed {seed}");
        let mut counts: BTreeMap<(i64, u32), u64> = BTreeMap::new();
        for (time, item) in &clicks {
            *counts.entry((time - time % 100 + 100, *item)).or_default() += 1;
        }
        let mut expected: BTreeMap<i64, Vec<(u64, u32)>> = BTreeMap::new();
        for ((end_ms, item), count) in counts {
            expected.entry(end_ms).or_default().push((count, item));
        }
        for best in expected.values_mut() {
            best.sort_by_key(|(count, item)| (std::cmp::Reverse(*count), *item));
            best.truncate(3);
        }
        let env = Environment::new();
        env.set_parallelism(1 + (seed as usize % 3));
        let top = env
            .from_collection(clicks)
            .assign_timestamps_and_watermarks(
                WatermarkStrategy::monotonous().with_timestamps(|click: &(i64, u32), _| click.0),
            )
            .key_by(|click| click.1)
            .window(Tumbling::event_time(ms(100)))
            .aggregate_with(Count, |item: &u32, _, count| Some((count, *item)))
            .window_all(Tumbling::event_time(ms(100)))
            .apply(|_, window, mut items: Vec<(u64, u32)>| {
                items.sort_by_key(|(count, item)| (std::cmp::Reverse(*count), *item));
                items.truncate(3);
                Some((window.end_ms, items))
            })
            .collect();
        env.execute("top").unwrap();
        assert_eq!(sorted(top), Vec::from_iter(expected), "seed {seed}");
    }
}
