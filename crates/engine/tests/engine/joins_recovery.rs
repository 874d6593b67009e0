//! Joins and connected streams that are crashed at any point and started again, also with another parallelism, give what
//! an undisturbed run gives.

use std::time::Duration;

use tidemill_engine::Environment;
use tidemill_engine::stream::DataStream;
use tidemill_engine::window::{Sliding, Window};

use crate::connected::{Tallied, Tally};
use crate::joins::{Event, events, timed};
use crate::recovery::{Ledger, Row, crash_at_random};
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
    crash_at_random(seeds, |env, ledger| drop(build(env).sink_to(ledger.clone()).uid("ledger")), &expected);
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
