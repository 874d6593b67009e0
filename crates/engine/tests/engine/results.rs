//! Jobs in the background, and their results as an iterator.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidemill_engine::Environment;
use tidemill_engine::runtime::JobEnd;
use tidemill_engine::stream::COLLECT_ROWS_MAX;

use crate::comes_about;

#[test]
fn all_rows_come_once_and_then_the_end() {
    for parallelism in 1..=3 {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let rows = env.from_sequence(1, 200_000).map(|n| n * 3).execute_and_collect("rows").unwrap();
        let mut rows: Vec<i64> = rows.collect::<Result<_, _>>().unwrap();
        rows.sort_unstable();
        assert!(rows.into_iter().eq((1..=200_000).map(|n| n * 3)), "parallelism {parallelism}");
    }
}

#[test]
fn a_reader_that_waits_holds_the_job_and_one_that_leaves_ends_it() {
    let made = Arc::new(AtomicI64::new(0));
    let counted = made.clone();
    let env = Environment::new();
    env.set_parallelism(2);
    let numbers = env.from_sequence(1, 1_000_000_000).map(move |n| {
        counted.fetch_add(1, Ordering::SeqCst);
        n
    });
    let mut rows = numbers.execute_and_collect("endless").unwrap();
    assert!(rows.next().unwrap().is_ok());
    // It stands still when no more is made over many looks.
    let (mut last, mut same) = (0, 0);
    let stood = comes_about(|| {
        let now = made.load(Ordering::SeqCst);
        same = if now > 0 && now == last { same + 1 } else { 0 };
        last = now;
        std::thread::park_timeout(std::time::Duration::from_millis(2));
        same > 50
    });
    assert!(stood && last <= COLLECT_ROWS_MAX as i64 + 20_000, "{last} made");
    let more: Vec<i64> = rows.by_ref().take(50_000).collect::<Result<_, _>>().unwrap();
    assert_eq!(more.len(), 50_000);
    // Returns when the job has ended, long before its input has.
    drop(rows);
    assert!(made.load(Ordering::SeqCst) < 1_000_000_000);
}

#[test]
fn a_job_that_fails_says_so_behind_its_rows() {
    let env = Environment::new();
    env.set_parallelism(1);
    let rows = env.from_sequence(1, 10).map(|n| if n == 7 { panic!("no sevens") } else { n });
    let mut rows: Vec<_> = rows.execute_and_collect("fails").unwrap().collect();
    let last = rows.pop().unwrap().unwrap_err().to_string();
    assert!(last.contains("no sevens") && rows.iter().all(|row| row.is_ok()), "{last}");
    let env = Environment::new();
    let rows = env.from_sequence(1, 10).set_parallelism(2).forward().map(|n| n).set_parallelism(3);
    assert!(rows.execute_and_collect("never begins").err().unwrap().to_string().contains("forward"));
}

#[test]
fn a_job_in_the_background_is_asked_waited_for_and_cancelled() {
    let env = Environment::new();
    env.set_parallelism(2);
    let sum = env.from_sequence(1, 1000).key_by(|_| 0u8).reduce(|sum, n| *sum += n).collect();
    let job = env.execute_async("short").unwrap();
    assert_eq!(job.handle().report().name, "short");
    assert_eq!(job.wait().unwrap().end, JobEnd::Finished);
    assert_eq!(sum.take().into_iter().max(), Some(500_500));
    env.from_sequence(1, i64::MAX / 2).map(|n| n).filter(|n| *n < 0).collect();
    let job = env.execute_async("long").unwrap();
    assert!(comes_about(|| job.handle().report().vertices[0].subtasks.iter().any(|subtask| subtask.records_in > 0)));
    assert!(!job.is_finished());
    assert_eq!(job.cancel().unwrap().end, JobEnd::Cancelled);
}
