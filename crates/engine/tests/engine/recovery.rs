//! A job that is crashed at any point and started again, also with another parallelism, gives what an undisturbed run gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidemill_core::sink::{Committer, PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result};
use tidemill_engine::state::{ListState, MapState, StateBackend, ValueState};
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::window::{Sliding, Window};
use tidemill_engine::{Environment, JobSettings};

use crate::windows::Chance;

pub type Row = (String, i64, i64);

/// A two-phase sink in memory: what is committed is visible, whatever attempt wrote it.
#[derive(Clone, Default)]
pub struct Ledger {
    committed: Arc<Mutex<BTreeMap<Vec<u8>, Vec<Row>>>>,
    staged: Arc<Mutex<BTreeMap<Vec<u8>, Vec<Row>>>>,
}

struct LedgerWriter {
    ledger: Ledger,
    context: WriterContext,
    rows: Vec<Row>,
}

impl SinkWriter<Row> for LedgerWriter {
    fn write(&mut self, batch: Vec<(i64, Row)>) -> Result<()> {
        self.rows.extend(batch.into_iter().map(|(_, row)| row));
        Ok(())
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        let rows = std::mem::take(&mut self.rows);
        let token = format!("{}-{epoch}-{}", self.context.attempt, self.context.subtask).into_bytes();
        let staged = self.ledger.staged.clone();
        Ok(Box::new(move || {
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            staged.lock().unwrap().insert(token.clone(), rows);
            Ok(vec![token])
        }))
    }
}

impl Committer for Ledger {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        for token in tokens {
            if let Some(rows) = self.staged.lock().unwrap().remove(token) {
                self.committed.lock().unwrap().insert(token.clone(), rows);
            } else if !self.committed.lock().unwrap().contains_key(token) {
                return Err(Error::bug("a token was never staged"));
            }
        }
        Ok(())
    }
}

impl Sink<Row> for Ledger {
    fn name(&self) -> String {
        "ledger".into()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<Row>>> {
        Ok(Box::new(LedgerWriter { ledger: self.clone(), context, rows: Vec::new() }))
    }
    fn committer(&self, _: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        Ok(Some(Box::new(self.clone())))
    }
    fn recover(&self, _: &SinkScope, tokens: &[Token]) -> Result<()> {
        self.clone().commit(tokens)?;
        self.staged.lock().unwrap().clear();
        Ok(())
    }
}

impl Ledger {
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.committed.lock().unwrap().values().flatten().cloned().collect();
        rows.sort();
        rows
    }
}

/// All kinds of keyed state and timers in one function: emits at a timer what it has seen since the last.
#[derive(Clone)]
struct Digest {
    count: ValueState<i64>,
    seen: ListState<i64>,
    by_digit: MapState<i64, i64>,
}

impl KeyedProcessFunction<i64, i64, Row> for Digest {
    fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        *self.count.get_or(context, || 0)? += 1;
        self.seen.add(context, value)?;
        let digit = value % 10;
        let before = self.by_digit.get(context, &digit)?.copied().unwrap_or(0);
        self.by_digit.put(context, digit, before + value)?;
        let at = context.timestamp_ms() - context.timestamp_ms().rem_euclid(500) + 500;
        context.register_event_timer(at);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _: tidemill_engine::stream::TimeDomain,
        context: &mut KeyedContext<'_, i64, Row>,
    ) -> Result<()> {
        // Only what was there before the timer's time is independent of how far the source had run ahead.
        let at = context.timestamp_ms();
        let seen = self.seen.take(context)?;
        let (due, rest): (Vec<i64>, Vec<i64>) = seen.into_iter().partition(|value| value / 40 < at);
        self.seen.update(context, rest)?;
        let key = *context.key();
        context.emit((format!("digest {key}"), at, due.iter().sum()))
    }
}

const LAST: i64 = 60_000;

pub fn build(env: &Environment, ledger: &Ledger) {
    let numbers = env.from_sequence(1, LAST).uid("numbers").assign_timestamps_and_watermarks(
        // The sequence is read in 128 ranges at once, so it is as disordered as it is long.
        WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(LAST as u64))
            .with_timestamps(|n: &i64, _| n / 40),
    );
    let windows = numbers
        .key_by(|n| n % 31)
        .window(Sliding::event_time(Duration::from_millis(200), Duration::from_millis(50)))
        .reduce_with(
            |a, b| *a += b,
            |key: &i64, window: Window, sum: i64| Some((format!("window {key}"), window.end_ms, sum)),
        )
        .uid("windows");
    let rolling = numbers
        .key_by(|n| n % 7)
        .count_window(5)
        .reduce_with(|a, b| *a += b, |key: &i64, _, _| Some((format!("fives {key}"), 0, 1)))
        .uid("fives");
    let digest = numbers
        .key_by(|n| n % 17)
        .process(Digest {
            count: ValueState::new("count"),
            seen: ListState::new("seen"),
            by_digit: MapState::new("digits"),
        })
        .uid("digest");
    windows.union(&[&rolling, &digest]).sink_to(ledger.clone()).uid("ledger");
}

pub fn settings(folder: &Path, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: Some(3),
        parallelism: Some(parallelism),
        ..JobSettings::default()
    }
}

/// Counts the starts, so that the backends of all of them are told by where the test stands.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// The same, with keyed state, windows and timers in memory or, one start in four, on disk with little memory.
pub fn either(folder: &Path, parallelism: usize) -> JobSettings {
    let start = STARTS.fetch_add(1, Ordering::Relaxed);
    let state_backend = if Chance(start).below(4) == 0 { StateBackend::Disk } else { StateBackend::Memory };
    JobSettings {
        state_backend,
        state_memory_max_bytes: 2 * tidemill_engine::state::STATE_MEMORY_MIN_BYTES,
        state_dir: Some(folder.join("scratch")),
        ..settings(folder, parallelism)
    }
}

pub fn undisturbed() -> Vec<Row> {
    let ledger = Ledger::default();
    let env = Environment::new();
    env.set_parallelism(2);
    build(&env, &ledger);
    env.execute("undisturbed").unwrap();
    ledger.rows()
}

/// A job crashed again and again until it is left alone, for each of some seeds. Each start is crashed at random within
/// the time that an undisturbed run takes on this machine.
pub struct Crashes {
    pub seeds: u64,
    /// After so many crashes it is left alone.
    pub crashes_max: usize,
    /// Each start has a parallelism from 1 to this.
    pub parallelism_max: u64,
    pub settings: fn(&Path, usize) -> JobSettings,
}

impl Crashes {
    /// The ledger must hold `expected` at the end of each. The folders of checkpoints that are left.
    pub fn survive(&self, expected: &[Row], build: impl Fn(&Environment, &Ledger)) -> Vec<tempfile::TempDir> {
        let (crashes, mut folders) = (std::cell::Cell::new(0), Vec::new());
        let mut within = self.undisturbed(&build);
        // Other tests may have slowed down that run: then none is crashed at first, and more are tried.
        for seed in (1..=10 * self.seeds).take_while(|seed| *seed <= self.seeds || crashes.get() == 0) {
            let mut chance = Chance(seed * 7919);
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::default();
            let mut attempts = Vec::new();
            loop {
                let parallelism = 1 + chance.below(self.parallelism_max) as usize;
                let env = Environment::with_settings((self.settings)(folder.path(), parallelism));
                build(&env, &ledger);
                let crash_after = Duration::from_micros(chance.below(within.as_micros() as u64));
                let leave_alone = attempts.len() >= self.crashes_max;
                let begun = std::time::Instant::now();
                let outcome = env.execute_with("crashing", |job| {
                    if !leave_alone {
                        std::thread::spawn(move || {
                            std::thread::park_timeout(crash_after);
                            job.fail("crash");
                        });
                    }
                });
                attempts.push(parallelism);
                match outcome {
                    Ok(_) if attempts.len() == 1 => {
                        within = within.min(begun.elapsed());
                        break;
                    }
                    Ok(_) => break,
                    Err(error) => assert!(error.to_string().contains("crash"), "seed {seed}: {error}"),
                }
                crashes.set(crashes.get() + 1);
            }
            assert!(ledger.rows() == expected, "seed {seed}, parallelism of attempts {attempts:?}");
            folders.push(folder);
        }
        assert!(crashes.get() > 0, "none of {} runs was crashed within {within:?}", self.seeds);
        folders
    }

    /// How long the job takes.
    fn undisturbed(&self, build: &impl Fn(&Environment, &Ledger)) -> Duration {
        let folder = tempfile::tempdir().unwrap();
        let env = Environment::with_settings((self.settings)(folder.path(), 2));
        build(&env, &Ledger::default());
        let started = Instant::now();
        env.execute("undisturbed").unwrap();
        started.elapsed()
    }
}

#[test]
fn crashes_at_random_points_with_changing_parallelism_lose_and_double_nothing() {
    let expected = undisturbed();
    assert!(expected.len() > 1000, "{}", expected.len());
    crash_at_random(25, build, &expected);
}

/// A job crashed at random points and started again with another parallelism, and with its state in memory or on disk, until
/// it is left alone; what it publishes must be `expected`, in any order.
pub fn crash_at_random(seeds: u64, build: impl Fn(&Environment, &Ledger), expected: &[Row]) {
    Crashes { seeds, crashes_max: 6, parallelism_max: 4, settings: either }.survive(expected, build);
}

/// Runs the job until a savepoint has stopped it, taken when an operator has seen so many records; the savepoint.
fn stopped(settings: JobSettings, savepoints: &Path, ledger: &Ledger, records: u64) -> PathBuf {
    let path: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let env = Environment::with_settings(settings);
    build(&env, ledger);
    let (taken, folder) = (path.clone(), savepoints.to_path_buf());
    let result = env
        .execute_with("first", |job| {
            std::thread::spawn(move || {
                let processed = || job.report().vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.records_in).max();
                while processed() < Some(records) {
                    std::thread::yield_now();
                }
                *taken.lock().unwrap() = job.savepoint(Some(folder), true, false).ok();
            });
        })
        .unwrap();
    let savepoint = loop {
        if let Some(path) = path.lock().unwrap().take() {
            break path;
        }
        std::thread::yield_now();
    };
    assert_eq!(result.end, tidemill_engine::runtime::JobEnd::Suspended);
    savepoint
}

#[test]
fn stop_with_a_savepoint_and_go_on_from_it_as_another_job() {
    let expected = undisturbed();
    let (first, second, savepoints) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::default();
    let savepoint = stopped(settings(first.path(), 3), savepoints.path(), &ledger, 0);
    assert!(ledger.rows().len() < expected.len(), "stopped before the end");
    let env = Environment::with_settings(JobSettings { restore_from: Some(savepoint), ..settings(second.path(), 2) });
    build(&env, &ledger);
    env.execute("second").unwrap();
    assert_eq!(ledger.rows(), expected);
}

#[test]
fn a_savepoint_of_a_running_job_publishes_nothing_and_may_be_moved() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let start = |own: &str, restore_from: Option<std::path::PathBuf>| {
        let own = settings(&folder.path().join(own), 2);
        let env = Environment::with_settings(JobSettings { checkpoint_interval_ms: None, restore_from, ..own });
        let some = env.from_sequence(1, 1 << 40).uid("numbers").filter(|n| n % 1_000 == 0);
        some.map(|n| ("some".to_string(), n, n)).sink_to(ledger.clone()).uid("ledger");
        env.execute_async("running").unwrap()
    };
    let job = start("first", None);
    let read = || job.handle().report().vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum::<u64>();
    assert!(crate::comes_about(|| read() > 10_000));
    let savepoint = job.handle().savepoint(Some(folder.path().join("savepoints")), false, false).unwrap();
    assert!(ledger.rows().is_empty(), "the job has not got over it: it may go back behind the savepoint");
    job.cancel().unwrap();
    let moved = folder.path().join("moved");
    std::fs::rename(savepoint, &moved).unwrap();
    let job = start("second", Some(moved));
    let published = ledger.rows().len();
    assert!(published > 0, "what is restored from is not gone behind any more");
    job.handle().checkpoint().unwrap();
    job.cancel().unwrap();
    let mut numbers: Vec<i64> = ledger.rows().into_iter().map(|row| row.2).collect();
    let all = numbers.len();
    numbers.dedup();
    assert!(numbers.len() == all && all >= published, "{all} rows, {} different", numbers.len());
}

#[test]
fn a_job_stopped_with_a_savepoint_and_started_again_publishes_nothing_twice() {
    let expected = undisturbed();
    let (folder, savepoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::default();
    // What the savepoint publishes stands in no checkpoint taken before.
    let settings = |parallelism| JobSettings { checkpoint_interval_ms: None, ..settings(folder.path(), parallelism) };
    let savepoint = stopped(settings(3), savepoints.path(), &ledger, 1_000);
    assert!(!ledger.rows().is_empty(), "the savepoint has published");
    // It is the owner's, who may move it away.
    std::fs::remove_dir_all(savepoint).unwrap();
    let env = Environment::with_settings(settings(2));
    build(&env, &ledger);
    env.execute("again").unwrap();
    assert_eq!(ledger.rows(), expected);
}

#[test]
fn state_that_no_operator_claims_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::with_settings(settings(folder.path(), 1));
    build(&env, &Ledger::default());
    env.execute("whole").unwrap();
    let changed = |allow: bool| {
        let env =
            Environment::with_settings(JobSettings { allow_non_restored_state: allow, ..settings(folder.path(), 1) });
        env.from_sequence(1, LAST).uid("numbers").collect();
        env.execute("changed")
    };
    let error = changed(false).unwrap_err().to_string();
    assert!(error.contains("windows") && error.contains("digest"), "{error}");
    changed(true).unwrap();
}
