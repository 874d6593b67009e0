//! Checkpoints of every format version ever released can be restored. The fixture of a version is written once, by
//! [`write_the_fixture`] with `TIDEMILL_WRITE_FIXTURE=<folder>`, and never changed.

use std::path::Path;
use std::time::Duration;

use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

const LAST: i64 = 1_000_000;

/// Sums of numbers by key, and by key and window.
fn build(env: &Environment) -> tidemill_engine::stream::Collected<(i64, i64)> {
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

#[test]
fn write_the_fixture() {
    let Ok(folder) = std::env::var("TIDEMILL_WRITE_FIXTURE") else { return };
    let env = Environment::with_settings(settings(Path::new(&folder)));
    build(&env);
    let savepoints = Path::new(&folder).to_path_buf();
    env.execute_with("fixture", |job| {
        std::thread::spawn(move || {
            while job.report().vertices[0].subtasks.iter().map(|subtask| subtask.records_in).sum::<u64>() == 0 {
                std::thread::yield_now();
            }
            job.savepoint(Some(savepoints), true, false)
        });
    })
    .unwrap();
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
