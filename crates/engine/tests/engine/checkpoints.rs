//! What a job tells about its checkpoints, and what becomes of them when it is cancelled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidemill_core::{Clock, SystemClock};
use tidemill_engine::runtime::CheckpointRetention;
use tidemill_engine::stream::{JobClient, WatermarkStrategy};
use tidemill_engine::{Environment, JobSettings};

use crate::comes_about;

/// A job with keyed state that goes on until it is cancelled.
fn endless(folder: &Path, change: impl FnOnce(&Environment)) -> JobClient {
    described(folder, change).execute_async("endless").unwrap()
}

fn described(folder: &Path, change: impl FnOnce(&Environment)) -> Environment {
    let settings = JobSettings { parallelism: Some(2), ..JobSettings::default() };
    let env = Environment::with_settings(settings);
    env.enable_checkpointing(Duration::from_secs(3600), folder);
    change(&env);
    let numbers = env.from_sequence(1, 1 << 40).uid("numbers");
    let _nobody_reads = numbers.key_by(|n| n % 1000).reduce(|held, next| *held = (*held).max(next)).uid("largest");
    env
}

#[test]
fn the_history_tells_what_each_subtask_and_operator_saved() {
    let folder = tempfile::tempdir().unwrap();
    let job = endless(folder.path(), |_| {});
    let handle = job.handle().clone();
    assert!(comes_about(|| handle
        .report()
        .vertices
        .iter()
        .all(|vertex| { vertex.subtasks.iter().all(|subtask| subtask.records_in > 2000) })));
    handle.checkpoint().unwrap();
    handle.savepoint(Some(folder.path().join("savepoints")), false, false).unwrap();
    let report = handle.report();
    job.cancel().unwrap();

    let [savepoint, checkpoint] = &report.checkpoints.history[..] else { panic!("{:?}", report.checkpoints) };
    assert_eq!((savepoint.kind.as_str(), checkpoint.kind.as_str()), ("savepoint", "checkpoint"));
    let subtasks: usize = report.vertices.iter().map(|vertex| vertex.parallelism).sum();
    for one in [savepoint, checkpoint] {
        assert_eq!((one.subtasks, one.acknowledged, one.parts.len()), (subtasks, subtasks, subtasks), "{one:?}");
        assert_eq!(one.parts.iter().map(|part| part.bytes).sum::<u64>(), one.bytes);
        assert_eq!(one.operators.iter().map(|operator| operator.written_bytes).sum::<u64>(), one.written_bytes);
        let largest = one.operators.iter().find(|operator| operator.uid == "largest").unwrap();
        assert!(largest.entries == 1000 && largest.bytes > 1000, "{largest:?}");
        assert_eq!(one.alignment_ms, one.parts.iter().map(|part| part.alignment_ms).max().unwrap());
        assert!(one.parts.iter().all(|part| part.acknowledged_ms >= one.trigger_ms), "{one:?}");
    }
    assert_eq!(report.checkpoints.latest.as_ref().map(|latest| latest.id), Some(savepoint.id));
}

#[test]
fn checkpoints_of_a_cancelled_job_stay_unless_it_says_otherwise() {
    let left = |retention: Option<CheckpointRetention>| {
        let folder = tempfile::tempdir().unwrap();
        let job = endless(folder.path(), |env| {
            if let Some(retention) = retention {
                env.set_checkpoint_retention(retention);
            }
        });
        job.handle().checkpoint().unwrap();
        let savepoint = job.handle().savepoint(Some(folder.path().join("savepoints")), false, false).unwrap();
        job.cancel().unwrap();
        assert!(savepoint.join("_metadata").is_file(), "savepoints always stay");
        folder.path().join("chk-1").join("_metadata").is_file()
    };
    assert!(left(None));
    assert!(left(Some(CheckpointRetention::RetainOnCancellation)));
    assert!(!left(Some(CheckpointRetention::DeleteOnCancellation)));
}

#[test]
fn a_damaged_newest_checkpoint_is_told_and_the_job_goes_back_when_it_is_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let job = endless(folder.path(), |_| {});
    let [_, _, newest] = [(); 3].map(|()| job.handle().checkpoint().unwrap());
    job.cancel().unwrap();
    let told = |file: &Path, damage: &dyn Fn(&mut Vec<u8>)| {
        let whole = std::fs::read(file).unwrap();
        let mut damaged = whole.clone();
        damage(&mut damaged);
        std::fs::write(file, damaged).unwrap();
        let refused = described(folder.path(), |_| {}).execute("damaged").expect_err("damaged").to_string();
        std::fs::write(file, whole).unwrap();
        refused
    };
    let (manifest, files) = (newest.join("_metadata"), std::fs::read_dir(&newest).unwrap());
    let small = files.map(|file| file.unwrap().path()).find(|file| *file != manifest).unwrap();
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let flip = |bytes: &mut Vec<u8>, tenths: usize| {
        let at = bytes.len() * tenths / 10;
        bytes[at] ^= 1;
    };
    let mut all = vec![told(&manifest, &half), told(&small, &half)];
    // Some of it is read by one subtask alone: it fails while the others go on building.
    for tenths in 0..10 {
        all.push(told(&manifest, &|bytes| flip(bytes, tenths)));
        all.push(told(&small, &|bytes| flip(bytes, tenths)));
    }
    for refused in all {
        let named = refused.contains(&format!("{}/", newest.display()));
        assert!(named && refused.contains("damaged") && refused.contains("move its folder away"), "{refused}");
    }
    // An older one that is damaged is in nobody's way.
    let older = newest.with_file_name("chk-2").join("_metadata");
    std::fs::write(&older, "{").unwrap();
    let restored = || {
        let job = endless(folder.path(), |_| {});
        let restored = job.handle().report().checkpoints.restored_epoch;
        job.cancel().unwrap();
        restored
    };
    assert_eq!(restored(), Some(3));
    std::fs::remove_dir_all(older.parent().unwrap()).unwrap();
    std::fs::rename(&newest, folder.path().join("damaged")).unwrap();
    assert_eq!(restored(), Some(1));
}

/// The machine's time, as somebody has set it.
#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
    fn steady_ms(&self) -> i64 {
        SystemClock.steady_ms()
    }
}

#[test]
fn a_clock_that_is_set_stops_neither_checkpoints_nor_watermarks() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(SetClock::default()));
    let settings = JobSettings { parallelism: Some(1), clock: clock.clone(), ..JobSettings::default() };
    let env = Environment::with_settings(settings);
    env.enable_checkpointing(Duration::from_millis(5), folder.path());
    let times = WatermarkStrategy::bounded_out_of_orderness(Duration::ZERO)
        .with_timestamps(|n: &i64, _| *n)
        .with_interval(Duration::from_millis(5));
    let numbers = env.from_sequence(1, 1 << 40).assign_timestamps_and_watermarks(times);
    let _nobody_reads = numbers.key_by(|n| n % 10).reduce(|held, next| *held = next);
    let job = env.execute_async("set clock").unwrap();
    let handle = job.handle().clone();
    let state = || {
        let report = handle.report();
        let watermark_ms = report.vertices.iter().filter_map(|vertex| vertex.subtasks[0].watermark_ms).max();
        (report.checkpoints.completed, watermark_ms)
    };
    let mut went_on = Vec::new();
    for set_ms in [0, -3_600_000, 3_600_000, 0] {
        clock.0.store(set_ms, Ordering::Relaxed);
        let before = state();
        went_on.push(comes_about(|| {
            let now = state();
            now.0 > before.0 + 2 && now.1 > before.1
        }));
    }
    let failed = handle.report().checkpoints.failed;
    job.cancel().unwrap();
    assert_eq!((went_on, failed), (vec![true; 4], 0));
}
