//! Sources with stages, and splits that subtasks take one by one: who reads what when, and that no crash loses or doubles any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_core::Result;
use tidemill_core::source::{Assignment, Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_engine::stream::{SequenceSource, WatermarkStrategy};
use tidemill_engine::window::{Count, Tumbling};
use tidemill_engine::{Environment, JobSettings};

use crate::cluster::{all, run};
use crate::recovery::{Ledger, Row, crash_at_random};

/// The numbers 1 to `ends[0]`, then on to `ends[1]`, and so on; each stage goes on behind the highest end of the one before.
#[derive(Clone)]
struct Chain {
    ends: Vec<i64>,
}

impl Source<i64> for Chain {
    fn name(&self) -> String {
        "chain".to_string()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        self.stage_splits(0, &[])
    }

    fn stages(&self) -> u32 {
        self.ends.len() as u32
    }

    fn stage_splits(&self, stage: u32, ended: &[Split]) -> Result<Vec<Split>> {
        let first = ended.iter().filter_map(|split| split.position[1].as_i64()).max().unwrap_or(1);
        let splits = SequenceSource::new(first, self.ends[stage as usize]).splits()?;
        // Some stages have fewer splits than there are subtasks.
        let rest = splits.into_iter().filter(|split| stage != 1 || split.position[0] != split.position[1]);
        Ok(rest.map(|split| Split { id: format!("{stage}/{}", split.id), ..split }).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        SequenceSource::new(0, 0).reader(context)
    }
}

/// Counts what is read of each stage, and fails when something of a later one comes before its time.
fn counted(env: &Environment, chain: &Chain, read: &Arc<Vec<AtomicU64>>) {
    let (ends, read) = (chain.ends.clone(), read.clone());
    let numbers = env.from_source(chain.clone(), WatermarkStrategy::none(), "chain");
    numbers
        .map(move |n: i64| {
            let stage = ends.iter().position(|end| n <= *end).unwrap();
            if stage > 0 {
                let before = (ends[stage - 1] - if stage > 1 { ends[stage - 2] } else { 0 }) as u64;
                assert_eq!(
                    read[stage - 1].load(Ordering::SeqCst),
                    before,
                    "{n} came before stage {} was over",
                    stage - 1
                );
            }
            read[stage].fetch_add(1, Ordering::SeqCst);
            n
        })
        .collect();
}

#[test]
fn a_stage_begins_when_the_one_before_is_over_everywhere() {
    let chain = Chain { ends: vec![20_000, 20_002, 40_000] };
    for parallelism in 1..=4 {
        let read: Arc<Vec<AtomicU64>> = Arc::new((0..3).map(|_| AtomicU64::new(0)).collect());
        let env = Environment::new();
        env.set_parallelism(parallelism);
        counted(&env, &chain, &read);
        env.execute("chain").unwrap();
        let read: Vec<u64> = read.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        assert_eq!(read, [20_000, 2, 19_998], "parallelism {parallelism}");
    }
}

#[test]
fn stages_are_those_of_all_processes() {
    let chain = Chain { ends: vec![20_000, 20_002, 40_000] };
    let read: Arc<Vec<AtomicU64>> = Arc::new((0..3).map(|_| AtomicU64::new(0)).collect());
    let settings = JobSettings { parallelism: Some(4), ..JobSettings::default() };
    let (outcomes, _) = run(&settings, all(2), |_, env| counted(env, &chain, &read), |_, _| {});
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    let read: Vec<u64> = read.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(read, [20_000, 2, 19_998]);
}

/// Sums by last digit, as rows for the ledger.
fn ledgered(env: &Environment, source: impl Source<i64>, ledger: &Ledger) {
    let rows =
        env.from_source(source, WatermarkStrategy::none(), "numbers").uid("numbers").map(|n| (String::new(), n, 0));
    rows.uid("rows").sink_to(ledger.clone()).uid("ledger");
}

#[test]
fn crashes_in_any_stage_lose_and_double_nothing() {
    let expected: Vec<Row> = (1..=60_000).map(|n| (String::new(), n, 0)).collect();
    let chain = Chain { ends: vec![20_000, 20_002, 40_000, 60_000] };
    crash_at_random(15, |env, ledger| ledgered(env, chain.clone(), ledger), &expected);
}

#[test]
fn a_chain_cut_shorter_than_its_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |ends: &[i64]| {
        let settings = JobSettings { checkpoint_dir: Some(folder.path().to_path_buf()), ..JobSettings::default() };
        let env = Environment::with_settings(settings);
        env.from_source(Chain { ends: ends.to_vec() }, WatermarkStrategy::none(), "chain").uid("chain").collect();
        env.execute("chain").map(|_| ())
    };
    run(&[10, 20]).unwrap();
    let error = run(&[10]).unwrap_err().to_string();
    assert!(error.contains("fewer stages"), "{error}");
}

/// Splits of numbers that subtasks take one by one.
#[derive(Clone)]
struct Taken {
    numbers: SplitsOf,
    /// The first split of all stays unfinished until so many others are read.
    first_waits_for: Option<u64>,
    read: Arc<AtomicU64>,
}

#[derive(Clone)]
struct SplitsOf {
    first: i64,
    last: i64,
}

impl Source<i64> for Taken {
    fn name(&self) -> String {
        "taken".to_string()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let splits = SequenceSource::new(self.numbers.first, self.numbers.last).splits()?;
        // The range stands in the id: a split that nobody has begun has no position.
        let named = |split: Split| Split { id: split.position.to_string(), position: serde_json::Value::Null, ..split };
        Ok(splits.into_iter().map(named).collect())
    }

    fn assignment(&self) -> Assignment {
        Assignment::OnDemand
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<i64>>> {
        let inner = SequenceSource::new(0, 0).reader(ReaderContext { ..context.clone() })?;
        Ok(Box::new(TakenReader { inner, source: self.clone(), clock: context.clock, waits: false, counted: 0 }))
    }
}

struct TakenReader {
    inner: Box<dyn SourceReader<i64>>,
    source: Taken,
    clock: tidemill_core::SharedClock,
    waits: bool,
    counted: u64,
}

impl SourceReader<i64> for TakenReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        let positioned = |mut split: Split| {
            if split.position.is_null() {
                split.position = serde_json::from_str(&split.id).unwrap();
            }
            split
        };
        self.counted = splits.len() as u64;
        self.waits |= splits.iter().any(|split| split.slot == 0);
        self.inner.add_splits(splits.into_iter().map(positioned).collect())
    }

    fn poll(&mut self, output: &mut SourceOutput<i64>) -> Result<Poll> {
        if let (true, Some(others)) = (self.waits, self.source.first_waits_for) {
            if self.source.read.load(Ordering::SeqCst) < others {
                return Ok(Poll::Pending { wake_at_ms: Some(self.clock.now_ms() + 1) });
            }
            self.waits = false;
        }
        let polled = self.inner.poll(output)?;
        if polled == Poll::End {
            self.source.read.fetch_add(std::mem::take(&mut self.counted), Ordering::SeqCst);
        }
        Ok(polled)
    }

    fn snapshot(&mut self) -> Result<Vec<Split>> {
        self.inner.snapshot()
    }
}

fn taken(last: i64) -> Taken {
    Taken { numbers: SplitsOf { first: 1, last }, first_waits_for: None, read: Arc::default() }
}

#[test]
fn who_has_nothing_to_read_takes_the_splits_of_who_is_held_up() {
    for parallelism in 2..=3 {
        let source = Taken { first_waits_for: Some(127), ..taken(10_000) };
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let numbers = env.from_source(source, WatermarkStrategy::none(), "taken").collect();
        // By number, half of the splits would wait behind the first for ever.
        env.execute("taken").unwrap();
        let mut numbers = numbers.take();
        numbers.sort();
        assert_eq!(numbers, (1..=10_000).collect::<Vec<_>>());
    }
}

#[test]
fn event_time_waits_for_splits_that_nobody_has_begun() {
    let env = Environment::new();
    env.set_parallelism(3);
    // What is read last is oldest.
    let times =
        WatermarkStrategy::monotonous().with_timestamps(|n: &i64, _| (10_000 - *n) * 10).with_interval(Duration::ZERO);
    let numbers = env.from_source(taken(10_000), times, "taken");
    let counts =
        numbers.key_by(|n| n % 3).window(Tumbling::event_time(Duration::from_secs(1))).aggregate(Count).collect();
    let result = env.execute("oldest last").unwrap();
    let late: u64 = result.report.vertices.iter().flat_map(|vertex| &vertex.subtasks).map(|s| s.late_dropped).sum();
    let counted: u64 = counts.take().iter().sum();
    assert_eq!((counted, late), (10_000, 0));
}

#[test]
fn splits_taken_and_not_taken_survive_crashes() {
    let expected: Vec<Row> = (1..=60_000).map(|n| (String::new(), n, 0)).collect();
    crash_at_random(15, |env, ledger| ledgered(env, taken(60_000), ledger), &expected);
}

#[test]
fn each_process_gives_away_its_own_splits() {
    let settings = JobSettings { parallelism: Some(4), ..JobSettings::default() };
    let build =
        |_: usize, env: &Environment| env.from_source(taken(10_000), WatermarkStrategy::none(), "taken").collect();
    let (outcomes, collected) = run(&settings, all(2), build, |_, _| {});
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    collected.iter().flat_map(|numbers| numbers.take()).for_each(|n| *counts.entry(n).or_default() += 1);
    assert!(counts.len() == 10_000 && counts.values().all(|count| *count == 1));
}
