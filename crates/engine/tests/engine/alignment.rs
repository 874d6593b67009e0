//! Watermark alignment: who is ahead waits, whole subtasks and single splits, and nobody waits for who is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidemill_core::Result;
use tidemill_core::SharedClock;
use tidemill_core::source::{Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_engine::Environment;
use tidemill_engine::stream::WatermarkStrategy;

/// Where all splits of a job are, by number: the next timestamp of each.
type Places = Arc<Vec<AtomicI64>>;

/// Records with the timestamps 0, 1, … up to `last` in each split.
#[derive(Clone)]
struct Steps {
    /// The splits' numbers among the places, and how many records each gives in a poll.
    splits: Vec<(usize, usize)>,
    places: Places,
    last: i64,
    can_pause: bool,
    /// Stops here until all other splits are at their end.
    falls_silent_at: i64,
    /// Begins when the first split of all has been polled twice, so that its watermark is known.
    is_second: bool,
    /// The furthest that any split was ahead of the last one, before it was polled.
    ahead: Arc<AtomicI64>,
}

impl Steps {
    fn new(places: &Places, splits: &[(usize, usize)]) -> Self {
        Steps {
            splits: splits.to_vec(),
            places: places.clone(),
            last: 3000,
            can_pause: true,
            falls_silent_at: i64::MAX,
            is_second: false,
            ahead: Arc::default(),
        }
    }
}

fn places(count: usize) -> Places {
    Arc::new((0..count).map(|_| AtomicI64::new(0)).collect())
}

struct StepsReader {
    source: Steps,
    clock: SharedClock,
    own: Vec<(Split, bool)>,
}

impl Source<i64> for Steps {
    fn name(&self) -> String {
        "steps".to_string()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |(index, (number, _)): (usize, &(usize, usize))| Split {
            id: number.to_string(),
            slot: *number as u32,
            position: serde_json::json!(index),
        };
        Ok(self.splits.iter().enumerate().map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        Ok(Box::new(StepsReader { source: self.clone(), clock: context.clock, own: Vec::new() }))
    }
}

impl SourceReader<i64> for StepsReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.own.extend(splits.into_iter().map(|split| (split, false)));
        Ok(())
    }

    fn poll(&mut self, output: &mut SourceOutput<i64>) -> Result<Poll> {
        let Steps { splits, places, last, ahead, falls_silent_at, is_second, .. } = &self.source;
        let early = *is_second && places[0].load(Ordering::SeqCst) < 2;
        let (mut ended, mut moved) = (0, false);
        for (index, (split, paused)) in self.own.iter().enumerate() {
            let (number, a_poll) = splits[split.position.as_u64().unwrap() as usize];
            let at = places[number].load(Ordering::SeqCst);
            let others: Vec<i64> =
                places.iter().map(|place| place.load(Ordering::SeqCst)).filter(|at| at <= last).collect();
            if at > *last {
                ended += 1;
                continue;
            }
            let silent = early || at >= *falls_silent_at && others.len() > 1;
            if *paused || silent {
                continue;
            }
            moved = true;
            let slowest = others.into_iter().min().unwrap_or(at);
            ahead.fetch_max(at - slowest, Ordering::SeqCst);
            let end = (at + a_poll as i64).min(last + 1);
            (at..end).for_each(|timestamp_ms| output.push(index, timestamp_ms, timestamp_ms));
            places[number].store(end, Ordering::SeqCst);
            if end > *last {
                output.finish_split(index);
            }
        }
        Ok(match (ended == self.own.len(), moved) {
            (true, _) => Poll::End,
            (false, true) => Poll::More,
            (false, false) => Poll::Pending { wake_at_ms: Some(self.clock.now_ms() + 1) },
        })
    }

    fn pause_splits(&mut self, paused: &[bool]) -> bool {
        if self.source.can_pause {
            self.own.iter_mut().zip(paused).for_each(|((_, held), paused)| *held = *paused);
        }
        self.source.can_pause
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        Ok(self.own.iter().map(|(split, _)| split.clone()).collect())
    }
}

const DRIFT_MS: i64 = 100;

/// A poll of 16 may begin at the edge, and the watermark is one behind.
const SLACK_MS: i64 = 20;

fn aligned() -> WatermarkStrategy<i64> {
    WatermarkStrategy::monotonous().with_interval(Duration::ZERO).with_alignment(
        "group",
        Duration::from_millis(DRIFT_MS as u64),
        Duration::ZERO,
    )
}

#[test]
fn sources_of_a_group_stay_within_the_drift() {
    for parallelism in [1, 2] {
        let places = places(2);
        let (slow, fast) = (Steps::new(&places, &[(0, 1)]), Steps::new(&places, &[(1, 16)]));
        let fast = Steps { is_second: true, ..fast };
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let first = env.from_source(slow, aligned(), "slow");
        let second = env.from_source(fast.clone(), aligned(), "fast");
        let (first, second) = (first.collect(), second.collect());
        env.execute("aligned").unwrap();
        assert_eq!((first.len(), second.len()), (3001, 3001));
        let ahead = fast.ahead.load(Ordering::SeqCst);
        assert!(ahead <= DRIFT_MS + SLACK_MS, "{ahead} ms ahead with a parallelism of {parallelism}");
        assert!(parallelism > 1 || ahead >= DRIFT_MS / 2, "it did not run ahead at all: {ahead} ms");
    }
}

#[test]
fn single_splits_are_paused_and_the_slowest_goes_on() {
    let places = places(3);
    let source = Steps::new(&places, &[(0, 16), (1, 1), (2, 4)]);
    let env = Environment::new();
    env.set_parallelism(1);
    let all = env.from_source(source.clone(), aligned(), "splits").collect();
    env.execute("splits").unwrap();
    assert_eq!(all.len(), 3 * 3001);
    let ahead = source.ahead.load(Ordering::SeqCst);
    assert!((DRIFT_MS / 2..=DRIFT_MS + SLACK_MS).contains(&ahead), "{ahead} ms ahead");
}

#[test]
fn an_idle_source_holds_nobody() {
    let places = places(2);
    let silent = Steps { falls_silent_at: 5, ..Steps::new(&places, &[(0, 1)]) };
    let fast = Steps::new(&places, &[(1, 16)]);
    let env = Environment::new();
    env.set_parallelism(1);
    let idle = aligned().with_idleness(Duration::from_millis(20));
    let first = env.from_source(silent, idle, "silent").collect();
    let second = env.from_source(fast, aligned(), "fast").collect();
    // The silent one goes on only when the fast one is at its end.
    env.execute("idle").unwrap();
    assert_eq!((first.len(), second.len()), (3001, 3001));
}

#[test]
fn a_reader_that_cannot_pause_splits_is_refused_unless_that_is_accepted() {
    let run = |strategy: WatermarkStrategy<i64>| {
        let places = places(2);
        let source = Steps { can_pause: false, ..Steps::new(&places, &[(0, 16), (1, 1)]) };
        let env = Environment::new();
        env.set_parallelism(1);
        let all = env.from_source(source, strategy, "steps").collect();
        env.execute("steps").map(|_| all.len())
    };
    let error = run(aligned()).unwrap_err().to_string();
    assert!(error.contains("steps cannot pause single splits"), "{error}");
    assert_eq!(run(aligned().allow_unaligned_splits()).unwrap(), 6002);
}

#[test]
fn alignment_in_the_middle_of_a_job_is_refused() {
    let env = Environment::new();
    env.from_sequence(1, 10).assign_timestamps_and_watermarks(aligned()).collect();
    let error = env.execute("middle").unwrap_err().to_string();
    assert!(error.contains("only a source can wait"), "{error}");
}
