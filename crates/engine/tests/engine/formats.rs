//! Checkpoints of every format version ever released can be restored. The fixture of a version is written once, by
//! [`write_the_fixture`] with `TIDEMILL_WRITE_FIXTURE=<folder>`, and never changed. That of version 1 is a savepoint; those
//! of versions 2 and 3 are checkpoints with files of earlier ones, removed keys among them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tidemill_core::Result;
use tidemill_engine::checkpoint::CheckpointFolder;
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{Collected, JobHandle, KeyedContext, KeyedProcessFunction, WatermarkStrategy};
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

const LAST: i64 = 1_000_000;

/// Sums of numbers by key, and by key and window.
fn build(env: &Environment) -> Collected<(i64, i64)> {
    let numbers = env.from_sequence(1, LAST).uid("numbers");
    let sums = numbers.map(|n| (n % 5, n)).key_by(|pair| pair.0).sum(|pair| &mut pair.1).uid("sums");
    let windows = numbers
        .assign_timestamps_and_watermarks(WatermarkStrategy::none().with_timestamps(|n: &i64, _| *n))
        .uid("times")
        .key_by(|n| n % 2)
        .window(Tumbling::event_time(Duration::from_millis(100_000)))
        .reduce_with(|a, b| *a += b, |key: &i64, _: Window, sum: i64| Some((100 + key, sum)))
        .uid("windows");
    sums.union(&[&windows]).collect()
}

fn settings(checkpoints: &Path) -> JobSettings {
    JobSettings { checkpoint_dir: Some(checkpoints.to_path_buf()), parallelism: Some(2), ..JobSettings::default() }
}

const KEYS: i64 = 5_000;
const CHANGES: i64 = 1_000_000;

/// Adds up the changes of a key; a number divisible by 400 takes the sum of its key away and emits it.
#[derive(Clone)]
struct Sums {
    sum: ValueState<i64>,
}

impl KeyedProcessFunction<i64, i64, (i64, i64)> for Sums {
    fn process(&mut self, n: i64, context: &mut KeyedContext<'_, i64, (i64, i64)>) -> Result<()> {
        if n % 400 == 0
            && let Some(sum) = self.sum.take(context)?
        {
            return context.emit((n, sum));
        }
        *self.sum.get_or(context, || 0)? += n;
        Ok(())
    }
}

/// Changes come one after the other; later ones reach only some of the keys, so that checkpoints have something to keep.
fn key_of(n: i64) -> i64 {
    if n < CHANGES / 8 { n % KEYS } else { n % 97 }
}

fn build_changes(env: &Environment) -> Collected<(i64, i64)> {
    let changes = env.from_collection((1..=CHANGES).collect()).uid("changes");
    changes.key_by(|n| key_of(*n)).process(Sums { sum: ValueState::new("sum") }).uid("sums").collect()
}

#[test]
fn write_the_fixture() {
    let Ok(folder) = std::env::var("TIDEMILL_WRITE_FIXTURE") else { return };
    let env = Environment::with_settings(settings(Path::new(&folder)));
    build_changes(&env);
    let read =
        |job: &JobHandle| job.report().vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum::<u64>();
    let failed = env.execute_with("fixture", |job| {
        std::thread::spawn(move || {
            for tenths in 2..5 {
                while read(&job) < tenths * CHANGES as u64 / 10 {
                    std::thread::yield_now();
                }
                job.checkpoint().unwrap();
            }
            job.fail("enough");
        });
    });
    assert!(failed.unwrap_err().to_string().contains("enough"));
}

#[test]
fn versions_2_and_3_are_restored() {
    for version in [2, 3] {
        changes_are_restored(&format!("tests/fixtures/checkpoint-v{version}"));
    }
}

fn changes_are_restored(fixture: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture);
    let newest = CheckpointFolder::open(&fixture).unwrap().complete().unwrap().pop().unwrap();
    let manifest = std::fs::read_to_string(fixture.join(format!("chk-{newest}/_metadata"))).unwrap();
    assert!(manifest.contains("removal") && manifest.contains("../shared/"), "{manifest}");
    for parallelism in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let env = Environment::with_settings(JobSettings {
            restore_from: Some(fixture.join(format!("chk-{newest}"))),
            parallelism: Some(parallelism),
            ..settings(folder.path())
        });
        let emitted = build_changes(&env);
        let result = env.execute("restored").unwrap();
        let again = result.report.vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum::<u64>() as i64;
        // All of it, one by one; what the fixture's job had emitted before its checkpoint is not emitted again.
        let (mut sums, mut expected) = (BTreeMap::new(), Vec::new());
        for n in 1..=CHANGES {
            let taken = if n % 400 == 0 { sums.remove(&key_of(n)) } else { None };
            match taken {
                Some(sum) if n > CHANGES - again => expected.push((n, sum)),
                Some(_) => {}
                None => *sums.entry(key_of(n)).or_insert(0) += n,
            }
        }
        let mut emitted = emitted.take();
        emitted.sort_unstable();
        assert!(again > 0 && again < CHANGES && emitted == expected, "parallelism {parallelism}, read again {again}");
    }
}

#[test]
fn version_1_is_restored() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint-v1");
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::with_settings(JobSettings {
        restore_from: Some(fixture),
        parallelism: Some(3),
        ..settings(folder.path())
    });
    let sums = build(&env);
    let result = env.execute("restored").unwrap();
    let restored = result.report.checkpoints.restored_epoch;
    assert!(restored.is_some_and(|epoch| epoch > 0), "{restored:?}");
    let sums = sums.take();
    // Part of the sequence was read before the fixture was written; all of it counts exactly once.
    let expected = |key: i64, of: i64| (1..=LAST).filter(|n| n % of == key).sum::<i64>();
    for key in 0..5 {
        assert_eq!(sums.iter().filter(|sum| sum.0 == key).map(|sum| sum.1).max(), Some(expected(key, 5)));
    }
    for key in 0..2 {
        let windows: Vec<i64> = sums.iter().filter(|sum| sum.0 == 100 + key).map(|sum| sum.1).collect();
        // The last number is even and begins an eleventh window.
        assert_eq!((windows.len() as i64, windows.iter().sum::<i64>()), (11 - key, expected(key, 2)));
    }
    assert!((sums.len() as i64) < LAST, "not all of it was read again");
}
