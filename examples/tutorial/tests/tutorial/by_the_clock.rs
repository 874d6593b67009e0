//! Programs that go by the clock, with a clock that moves only when told to. The words come over a socket, because the
//! end of the input would drop windows that are not over, as in Flink.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use tidemill::core::ManualClock;
use tidemill::core::report::Report;
use tidemill::engine::JobSettings;
use tidemill::prelude::*;
use tutorial::{WordCount, sliding_word_count, tumbling_word_count};

const DEADLINE: Duration = Duration::from_secs(60);

/// What is told after each step `(time in ms, line)`. A window shows when a line comes after its end.
fn run(
    build: impl Fn(&Environment, DataStream<String>) -> DataStream<WordCount>,
    parallelism: usize,
    steps: &[(i64, &str)],
) -> Vec<BTreeSet<WordCount>> {
    let checkpoints = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let env = Environment::with_settings(JobSettings {
        clock: clock.clone(),
        parallelism: Some(parallelism),
        checkpoint_dir: Some(checkpoints.path().to_path_buf()),
        checkpoint_interval_ms: None,
        ..JobSettings::default()
    });
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let lines = env.socket_text_stream("127.0.0.1", server.local_addr().unwrap().port());
    let counts = build(&env, lines).collect();
    std::thread::scope(|scope| {
        let told = counts.clone();
        let mut driver = None;
        env.execute_with("by the clock", |job| {
            driver = Some(scope.spawn(move || {
                let (mut connection, _) = server.accept().unwrap();
                let mut steps_told = Vec::new();
                for (at, (time_ms, line)) in steps.iter().enumerate() {
                    clock.set(*time_ms);
                    writeln!(connection, "{line}").unwrap();
                    wait_until(|| lines_read(&job.report()) > at as u64);
                    // A checkpoint is complete when every operator has processed what was read before it. Its barrier
                    // also makes each look at the clock; when the second one is complete they have done so.
                    job.checkpoint().unwrap();
                    job.checkpoint().unwrap();
                    steps_told.push(told.take().into_iter().collect());
                }
                steps_told
            }));
        })
        .unwrap();
        driver.unwrap().join().unwrap()
    })
}

fn lines_read(report: &Report) -> u64 {
    let source = report.vertices.iter().find(|vertex| vertex.name.starts_with("Source")).unwrap();
    source.subtasks.iter().map(|subtask| subtask.records_in).sum()
}

fn wait_until(done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "nothing came for {DEADLINE:?}");
        std::thread::yield_now();
    }
}

fn counts(rows: &[(&str, u64)]) -> BTreeSet<WordCount> {
    rows.iter().map(|(word, count)| (word.to_string(), *count)).collect()
}

#[test]
fn five_seconds_are_counted_when_they_are_over() {
    for parallelism in [1, 2] {
        let steps = [(1_000, "a b a"), (4_999, "a"), (5_000, "a"), (9_000, "b b"), (10_000, "c"), (21_000, "end")];
        let expected = [
            counts(&[]),
            counts(&[]),
            counts(&[("a", 3), ("b", 1)]),
            counts(&[]),
            counts(&[("a", 1), ("b", 2)]),
            counts(&[("c", 1)]),
        ];
        assert_eq!(run(tumbling_word_count::build, parallelism, &steps), expected, "parallelism {parallelism}");
    }
}

#[test]
fn a_word_is_counted_by_both_windows_that_cover_it() {
    for parallelism in [1, 2] {
        let steps = [(11_000, "a"), (15_000, "a b"), (20_000, "c"), (25_000, "."), (30_000, ".")];
        let expected = [
            counts(&[]),
            // [5 s, 15 s)
            counts(&[("a", 1)]),
            // [10 s, 20 s)
            counts(&[("a", 2), ("b", 1)]),
            // [15 s, 25 s)
            counts(&[("a", 1), ("b", 1), ("c", 1)]),
            // [20 s, 30 s)
            counts(&[("c", 1), (".", 1)]),
        ];
        assert_eq!(run(sliding_word_count::build, parallelism, &steps), expected, "parallelism {parallelism}");
    }
}
