//! Keyed state on disk under whole jobs: crashes, another parallelism and the other backend at random.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_core::Result;
use tidemill_engine::state::{ListState, MapState, ReducingState, StateBackend};
use tidemill_engine::stream::{KeyedContext, KeyedProcessFunction, TimeDomain};
use tidemill_engine::{Environment, JobSettings};

use crate::large_state;
use crate::recovery::{Crashes, Ledger, Row};
use crate::windows::Chance;

/// Counts the starts, so that the backends of all of them are told by where the test stands.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// Each start takes the one or the other backend.
fn either(folder: &Path, parallelism: usize) -> JobSettings {
    let start = STARTS.fetch_add(1, Ordering::Relaxed);
    let backend = if Chance(start).below(3) == 0 { StateBackend::Memory } else { StateBackend::Disk };
    JobSettings { state_backend: backend, ..on_disk(folder, parallelism) }
}

/// With so little memory that most of the state is in files.
fn on_disk(folder: &Path, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: Some(10),
        parallelism: Some(parallelism),
        state_backend: StateBackend::Disk,
        state_memory_max_bytes: 2 * tidemill_engine::state::STATE_MEMORY_MIN_BYTES,
        state_dir: Some(folder.join("scratch")),
        ..JobSettings::default()
    }
}

/// A list, a map and a fold for each key, told at the end of time.
#[derive(Clone)]
struct Digest {
    seen: ListState<i64>,
    remainders: MapState<i64, String>,
    sum: ReducingState<i64, fn(&mut i64, i64)>,
}

const NUMBERS: i64 = 60_000;
const KEYS: i64 = 3_000;

impl KeyedProcessFunction<i64, i64, Row> for Digest {
    fn process(&mut self, number: i64, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        self.seen.add(context, number)?;
        let remainder = number % 7;
        match self.remainders.get(context, &remainder)?.is_some() {
            true => drop(self.remainders.remove(context, &remainder)?),
            false => drop(self.remainders.put(context, remainder, "x".repeat(100))?),
        }
        self.sum.add(context, number)?;
        context.register_event_timer(NUMBERS);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        let seen = self.seen.take(context)?.into_iter().fold(0i64, |held, next| held.wrapping_mul(31) + next);
        let remainders: i64 = self.remainders.entries(context)?.into_iter().map(|(remainder, _)| 1 << remainder).sum();
        let sum = self.sum.get(context)?.copied().unwrap_or(-1);
        let key = *context.key();
        context.emit((format!("{key} {seen}"), remainders, sum))
    }
}

fn build(env: &Environment, ledger: &Ledger) {
    let numbers = env.from_collection((0..NUMBERS).collect::<Vec<i64>>()).uid("numbers");
    let sum: fn(&mut i64, i64) = |held, next| *held += next;
    let digest = Digest {
        seen: ListState::new("seen"),
        remainders: MapState::new("remainders"),
        sum: ReducingState::new("sum", sum),
    };
    // Each key's numbers come in bursts that are far apart, so that entries leave the cache between.
    numbers.key_by(|number| number / 4 % KEYS).process(digest).uid("digest").sink_to(ledger.clone()).uid("ledger");
}

fn in_memory(build: impl Fn(&Environment, &Ledger)) -> Vec<Row> {
    let ledger = Ledger::default();
    let env = Environment::new();
    env.set_parallelism(2);
    build(&env, &ledger);
    env.execute("in memory").unwrap();
    ledger.rows()
}

#[test]
fn crashes_with_state_on_disk_and_changes_of_the_backend_lose_and_double_nothing() {
    let expected = in_memory(large_state::build);
    Crashes { seeds: 2, crashes_max: 4, parallelism_max: 3, settings: either }.survive(&expected, large_state::build);
}

#[test]
fn lists_maps_and_folds_on_disk_survive_crashes() {
    let expected = in_memory(build);
    assert_eq!(expected.len(), KEYS as usize);
    Crashes { seeds: 3, crashes_max: 4, parallelism_max: 3, settings: either }.survive(&expected, build);
}

#[test]
fn nothing_is_left_in_the_scratch_folder() {
    let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::default());
    let env = Environment::with_settings(on_disk(folder.path(), 2));
    build(&env, &ledger);
    env.execute("on disk").unwrap();
    assert_eq!(ledger.rows(), in_memory(build));
    assert_eq!(std::fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);
}
