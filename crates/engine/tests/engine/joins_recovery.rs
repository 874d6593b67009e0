//! Joins and connected streams that are crashed at any point and started again, also with another parallelism, give what
//! an undisturbed run gives.

use std::time::Duration;

use tidemill_engine::Environment;
use tidemill_engine::stream::DataStream;
use tidemill_engine::window::{Sliding, Window};

use crate::connected::{Tallied, Tally};
use crate::joins::{Event, events, timed};
use crate::recovery::{Ledger, Row, settings};
use crate::windows::Chance;

/// Runs a job that is crashed up to six times at random points, each time with another parallelism, for some seeds.
pub fn survives_crashes(seeds: u64, build: impl Fn(&Environment) -> DataStream<Row>) {
    let undisturbed = Ledger::default();
    let env = Environment::new();
    env.set_parallelism(2);
    build(&env).sink_to(undisturbed.clone()).uid("ledger");
    env.execute("undisturbed").unwrap();
    let expected = undisturbed.rows();
    assert!(expected.len() > 500, "{}", expected.len());
    let mut crashes = 0;
    for seed in 1..=seeds {
        let mut chance = Chance(seed * 7919);
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::default();
        let mut attempts = Vec::new();
        loop {
            let parallelism = 1 + chance.below(4) as usize;
            let env = Environment::with_settings(settings(folder.path(), parallelism));
            build(&env).sink_to(ledger.clone()).uid("ledger");
            let crash_after = Duration::from_micros(chance.below(60_000));
            let give_up = attempts.len() >= 6;
            let outcome = env.execute_with("crashing", |job| {
                if !give_up {
                    std::thread::spawn(move || {
                        std::thread::park_timeout(crash_after);
                        job.fail("crash");
                    });
                }
            });
            attempts.push(parallelism);
            match outcome {
                Ok(_) => break,
                Err(error) => assert!(error.to_string().contains("crash"), "seed {seed}: {error}"),
            }
            crashes += 1;
        }
        assert!(ledger.rows() == expected, "seed {seed}, parallelism of attempts {attempts:?}");
    }
    assert!(crashes > 0, "none of {seeds} runs was crashed");
}

/// Two streams of events, on one subtask each, whose watermarks follow them closely.
pub fn two(env: &Environment, seed: u64, count: usize) -> (DataStream<Event>, DataStream<Event>) {
    let mut chance = Chance(seed);
    let (left, right) = (events(&mut chance, count, 60), events(&mut chance, count, 40));
    let left = timed(env, left, 60).uid("left times");
    (left, timed(env, right, 40).uid("right times"))
}

#[test]
fn an_interval_join_loses_and_doubles_no_pair() {
    survives_crashes(6, |env| {
        let (left, right) = two(env, 11, 20_000);
        left.key_by(|event| event.1)
            .interval_join(&right.key_by(|event| event.1))
            .between(-40, 60)
            .apply(|left, right| Some(("pair".to_string(), left.2, right.2)))
            .uid("join")
    });
}

#[test]
fn window_joins_and_co_groups_lose_and_double_nothing() {
    survives_crashes(6, |env| {
        let (left, right) = two(env, 12, 20_000);
        let windows = Sliding::event_time(Duration::from_millis(60), Duration::from_millis(20));
        let joined = left
            .join(&right)
            .where_key(|event| event.1)
            .equal_to(|event| event.1)
            .window(windows)
            .apply(|left, right| Some(("pair".to_string(), left.2, right.2)))
            .uid("join");
        let grouped = left
            .co_group(&right)
            .where_key(|event| event.1)
            .equal_to(|event| event.1)
            .window(windows)
            .apply(|key: &u32, window: Window, lefts: Vec<Event>, rights: Vec<Event>| {
                let sum = |events: &[Event]| events.iter().map(|event| event.2).sum::<i64>();
                Some((format!("group {key} of {}", sum(&lefts)), window.end_ms, sum(&rights)))
            })
            .uid("group");
        joined.union(&[&grouped])
    });
}

#[test]
fn a_keyed_co_process_function_keeps_state_and_timers() {
    survives_crashes(6, |env| {
        let (left, right) = two(env, 13, 30_000);
        left.key_by(|event| event.1)
            .connect(&right.key_by(|event| event.1))
            .process(Tally::new())
            .uid("tally")
            .map(|(end, key, first, second): Tallied| (format!("{key} of {first}"), end, second))
    });
}
