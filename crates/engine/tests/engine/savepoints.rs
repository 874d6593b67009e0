//! Savepoints and checkpoints in other hands than their job's: claimed, disposed of, read without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_core::Result;
use tidemill_engine::checkpoint::{CheckpointFolder, SavepointReader, Shape, dispose_savepoint};
use tidemill_engine::runtime::ClaimMode;
use tidemill_engine::state::{ListState, MapState, SectionKind, ValueState};
use tidemill_engine::stream::{JobClient, KeyedContext, KeyedProcessFunction, TimeDomain};
use tidemill_engine::{Environment, JobSettings};

use crate::comes_about;

const KEYS: i64 = 2_000;

fn settings(folder: &Path, parallelism: usize) -> JobSettings {
    JobSettings {
        checkpoint_dir: Some(folder.to_path_buf()),
        checkpoint_interval_ms: None,
        checkpoints_retained: 2,
        parallelism: Some(parallelism),
        ..JobSettings::default()
    }
}

/// A job with keyed state that goes on until it is cancelled.
fn endless(settings: JobSettings) -> Result<JobClient> {
    let env = Environment::with_settings(settings);
    let numbers = env.from_sequence(1, 1 << 40).uid("numbers");
    let _nobody_reads = numbers.key_by(|n| n % KEYS).reduce(|held, next| *held = (*held).max(next)).uid("largest");
    env.execute_async("endless")
}

/// A savepoint, and a folder with two checkpoints, of a job that has ended.
fn left_behind(folder: &Path) -> (PathBuf, PathBuf) {
    let checkpoints = folder.join("checkpoints");
    let job = endless(settings(&checkpoints, 2)).unwrap();
    let read = || job.handle().report().vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.records_in).sum::<u64>();
    assert!(comes_about(|| read() > 10_000));
    for _ in 0..2 {
        job.handle().checkpoint().unwrap();
    }
    let savepoint = job.handle().savepoint(Some(folder.join("savepoints")), false, false).unwrap();
    job.cancel().unwrap();
    (savepoint, checkpoints)
}

#[test]
fn what_is_claimed_goes_when_the_job_has_enough_checkpoints_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (savepoint, others) = left_behind(folder.path());
    for (at, (from, mode, stays)) in [
        (savepoint.clone(), ClaimMode::NoClaim, true),
        (savepoint.clone(), ClaimMode::Claim, false),
        (others.join("chk-1"), ClaimMode::Claim, false),
    ]
    .into_iter()
    .enumerate()
    {
        let own = folder.path().join(format!("own-{at}"));
        let start = JobSettings { restore_from: Some(from.clone()), claim_mode: mode, ..settings(&own, 1) };
        let job = endless(start.clone()).unwrap();
        job.handle().checkpoint().unwrap();
        assert!(from.join("_metadata").is_file(), "one checkpoint of its own is not enough");
        // What is claimed is remembered over restarts.
        job.handle().fail("crash");
        assert!(job.wait().is_err());
        let job = endless(start).unwrap();
        job.handle().checkpoint().unwrap();
        assert_eq!(from.exists(), stays, "{mode:?}");
        assert!(!own.join("claimed").exists());
        job.cancel().unwrap();
    }
    // The other checkpoint of the folder is whole.
    assert_eq!(CheckpointFolder::open(&others).unwrap().complete().unwrap(), [2]);
    let reader = SavepointReader::open(others.join("chk-2")).unwrap();
    let name = &reader.states().iter().find(|state| state.operator == "largest").unwrap().name.clone();
    let largest = reader.keyed_state::<i64, i64>("largest", name).unwrap();
    assert!(!largest.is_empty() && largest.iter().all(|(key, value)| value % KEYS == *key));
}

#[test]
fn claims_that_cannot_be_are_told() {
    assert!("LEGACY".parse::<ClaimMode>().unwrap_err().to_string().contains("LEGACY"));
    assert!("mine".parse::<ClaimMode>().unwrap_err().to_string().contains("`mine`"));
    assert_eq!("NO_CLAIM".parse::<ClaimMode>().unwrap(), ClaimMode::NoClaim);
    assert_eq!("claim".parse::<ClaimMode>().unwrap(), ClaimMode::Claim);
    let folder = tempfile::tempdir().unwrap();
    let (savepoint, _) = left_behind(folder.path());
    let nowhere = JobSettings {
        restore_from: Some(savepoint.clone()),
        claim_mode: ClaimMode::Claim,
        checkpoint_dir: None,
        ..settings(folder.path(), 1)
    };
    let error = endless(nowhere).err().unwrap().to_string();
    assert!(error.contains("no folder for checkpoints"), "{error}");
    assert!(savepoint.exists());
}

#[test]
fn a_savepoint_is_disposed_of_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let (savepoint, checkpoints) = left_behind(folder.path());
    let refused = |place: &Path| dispose_savepoint(place, BTreeMap::new()).unwrap_err().to_string();
    assert!(refused(&checkpoints.join("chk-2")).contains("is a checkpoint of job `endless`"));
    assert!(checkpoints.join("chk-2/_metadata").is_file());
    assert!(refused(folder.path()).contains("name the folder of a complete checkpoint or savepoint"));
    dispose_savepoint(&savepoint, BTreeMap::new()).unwrap();
    assert!(!savepoint.exists());
    assert!(refused(&savepoint).contains("_metadata"));
}

/// Keeps all kinds of state, or, started again, touches none of it.
#[derive(Clone)]
struct Keeps {
    touches: bool,
    last: ValueState<(i64, String)>,
    all: ListState<i64>,
    digits: MapState<u8, i64>,
}

impl KeyedProcessFunction<i64, i64, i64> for Keeps {
    fn process(&mut self, value: i64, context: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
        if self.touches {
            self.last.set(context, (value, format!("v{value}")))?;
            self.all.add(context, value)?;
            self.digits.put(context, (value % 10) as u8, value)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, _: &mut KeyedContext<'_, i64, i64>) -> Result<()> {
        Ok(())
    }
}

fn keep(folder: &Path, parallelism: usize, touches: bool) {
    let env = Environment::with_settings(settings(folder, parallelism));
    let function =
        Keeps { touches, last: ValueState::new("last"), all: ListState::new("all"), digits: MapState::new("digits") };
    env.from_sequence(1, 3 * KEYS).uid("numbers").key_by(|n| n % KEYS - 7).process(function).uid("keeps").collect();
    env.execute("keep").unwrap();
}

#[test]
fn states_are_read_without_their_job_also_after_another_parallelism_has_passed_them_on() {
    let folder = tempfile::tempdir().unwrap();
    keep(folder.path(), 3, true);
    let expected: BTreeMap<i64, Vec<i64>> =
        (0..KEYS).map(|key| (key - 7, (1..=3 * KEYS).filter(|n| n % KEYS == key).collect())).collect();
    for (parallelism, chk) in [(3, "chk-1"), (2, "chk-2")] {
        if parallelism == 2 {
            // Its input has ended already: it takes its state over and saves it again, untouched.
            keep(folder.path(), parallelism, false);
        }
        let reader = SavepointReader::open(folder.path().join(chk)).unwrap();
        let states = reader.states();
        let all = states.iter().find(|state| state.name == "all").unwrap();
        assert_eq!((all.operator.as_str(), all.kind, all.subtasks), ("keeps", SectionKind::Keyed, parallelism));
        assert_eq!(all.key_groups.first().map(|range| range.0), Some(0));
        assert_eq!(all.key_groups.last().map(|range| range.1), Some(32_767));

        let lists: BTreeMap<i64, Vec<i64>> = reader
            .keyed_state::<i64, Vec<i64>>("keeps", "all")
            .unwrap()
            .into_iter()
            .map(|(key, mut list)| {
                list.sort_unstable();
                (key, list)
            })
            .collect();
        assert_eq!(lists, expected, "{chk}");
        let digits = reader.keyed_state::<i64, Vec<(u8, i64)>>("keeps", "digits").unwrap();
        assert!(
            digits.len() as i64 == KEYS
                && digits.iter().all(|(_, map)| map.iter().all(|(d, n)| n % 10 == i64::from(*d)))
        );

        let shape = |text: &str| text.parse::<Shape>().unwrap();
        let shaped = reader.shaped("keeps", "last", Some(&shape("i64")), &shape("(i64, string)")).unwrap();
        let typed = reader.keyed_state::<i64, (i64, String)>("keeps", "last").unwrap();
        assert_eq!(shaped.len(), typed.len());
        for (key, value) in typed {
            let entry = shaped.iter().find(|entry| entry.key == Some(key.into())).unwrap();
            assert_eq!(entry.value, serde_json::json!([value.0, value.1]));
        }

        // It says itself what it is, whoever has passed it on.
        assert_eq!(reader.entries("keeps", "last").unwrap(), shaped, "{chk}");
        let said: Vec<Option<&str>> = states.iter().map(|state| state.entry.as_deref()).collect();
        let keeps = ["(i64, list<i64>)", "(i64, list<(u8, i64)>)", "(i64, (i64, string))"].map(Some);
        assert_eq!(said, [&keeps[..], &[None]].concat(), "{chk}");
        let wrong = reader.keyed_state::<i64, Vec<(i8, i64)>>("keeps", "digits").unwrap_err().to_string();
        assert!(wrong.contains("state `digits` of `keeps` is (i64, list<(u8, i64)>), and not"), "{wrong}");
        let untold = reader.entries("numbers", "splits").unwrap_err().to_string();
        assert!(untold.contains("`splits` of `numbers` does not say what it is"), "{untold}");

        let wrong = reader.shaped("keeps", "last", Some(&shape("i64")), &shape("(i64, i64)")).unwrap_err().to_string();
        assert!(wrong.contains("state `last` of `keeps`"), "{wrong}");
        let error = reader.keyed_state::<i64, String>("keeps", "lost").unwrap_err().to_string();
        assert!(error.contains("no state `lost`") && error.contains("`all`, `digits`, `last`"), "{error}");
        assert!(reader.raw("nobody", "x").unwrap_err().to_string().contains("`keeps`"));
        assert!(!reader.raw("numbers", "splits").unwrap().is_empty());
    }
}

#[test]
fn a_savepoint_holds_a_large_table_that_is_all_an_operator_has() {
    let folder = tempfile::tempdir().unwrap();
    let job = endless(settings(&folder.path().join("checkpoints"), 1)).unwrap();
    let read = || job.handle().report().vertices.iter().flat_map(|v| &v.subtasks).map(|s| s.records_in).sum::<u64>();
    assert!(comes_about(|| read() > 10_000));
    let savepoint = job.handle().savepoint(Some(folder.path().join("savepoints")), false, false).unwrap();
    job.cancel().unwrap();
    let reader = SavepointReader::open(savepoint).unwrap();
    let name = &reader.states().iter().find(|state| state.operator == "largest").unwrap().name.clone();
    assert_eq!(reader.keyed_state::<i64, i64>("largest", name).unwrap().len(), KEYS as usize);
}

/// Writes a state, leaves it alone, or counts where it is as it was written.
#[derive(Clone)]
struct Rarely {
    state: ValueState<i64>,
    /// 0, 1 or 2.
    does: Arc<AtomicU64>,
    found: Arc<AtomicU64>,
    records: Arc<AtomicU64>,
}

impl KeyedProcessFunction<i64, i64, ()> for Rarely {
    fn process(&mut self, _: i64, context: &mut KeyedContext<'_, i64, ()>) -> Result<()> {
        let key = *context.key();
        match self.does.load(Ordering::Relaxed) {
            0 => self.state.set(context, key * 7)?,
            2 if self.state.get(context)? == Some(&(key * 7)) => drop(self.found.fetch_add(1, Ordering::Relaxed)),
            2 => return Err(tidemill_core::Error::input(format!("the state of {key} is gone"))),
            _ => {}
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn state_that_nobody_touches_outlives_the_files_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let (does, found, records): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
    let start = || {
        let env = Environment::with_settings(JobSettings { checkpoints_retained: 1, ..settings(folder.path(), 2) });
        let rarely = Rarely {
            state: ValueState::new("rare"),
            does: does.clone(),
            found: found.clone(),
            records: records.clone(),
        };
        let numbers = env.from_sequence(1, 1 << 40).uid("numbers");
        let _nobody_reads = numbers.key_by(|n| n % KEYS).process(rarely).uid("rarely");
        env.execute_async("rarely").unwrap()
    };
    let job = start();
    let more = |than: u64| {
        let from = records.load(Ordering::Relaxed);
        assert!(comes_about(|| records.load(Ordering::Relaxed) > from + than));
    };
    more(100_000);
    job.handle().checkpoint().unwrap();
    job.handle().fail("crash");
    assert!(job.wait().is_err());
    does.store(1, Ordering::Relaxed);
    let job = start();
    more(10_000);
    let first = CheckpointFolder::open(folder.path()).unwrap().complete().unwrap();
    for _ in 0..3 {
        job.handle().checkpoint().unwrap();
        more(10_000);
    }
    let last = CheckpointFolder::open(folder.path()).unwrap().complete().unwrap();
    assert!(first.iter().all(|epoch| !last.contains(epoch)), "{first:?} {last:?}");
    does.store(2, Ordering::Relaxed);
    assert!(comes_about(|| found.load(Ordering::Relaxed) > 10_000));
    job.cancel().unwrap();
}
