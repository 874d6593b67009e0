//! Programs whose answers depend on their input alone.

use std::fmt::Debug;

use tidemill::prelude::*;
use tutorial::{
    age_split, count_window, difference, event_time_sum, jump_filter, keyed_concat, pair_average, rolling_word_count,
    sorted_window,
};

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(ToString::to_string).collect()
}

fn keyed<V: Clone>(rows: &[(&str, V)]) -> Vec<(String, V)> {
    rows.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
}

fn timed(rows: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
    rows.iter().map(|(key, time, number)| (key.to_string(), *time, *number)).collect()
}

/// Runs a program with one worker, where order is certain, and with three, where it is certain for each key alone.
fn check<I, O>(
    build: impl Fn(&Environment, DataStream<I>) -> DataStream<O>,
    input: Vec<I>,
    expected: Vec<(String, O)>,
    key: fn(&O) -> &str,
) where
    I: tidemill::core::Data + Sync,
    O: tidemill::core::Data + PartialEq + Debug,
{
    for parallelism in [1, 3] {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let results = build(&env, env.from_collection(input.clone())).collect();
        env.execute("tutorial").unwrap();
        let mut got: Vec<(String, O)> = results.take().into_iter().map(|row| (key(&row).to_string(), row)).collect();
        let mut expected = expected.clone();
        if parallelism > 1 {
            got.sort_by(|a, b| a.0.cmp(&b.0));
            expected.sort_by(|a, b| a.0.cmp(&b.0));
        }
        assert_eq!(got, expected, "parallelism {parallelism}");
    }
}

fn with_keys<O: Clone>(rows: Vec<O>, key: fn(&O) -> &str) -> Vec<(String, O)> {
    rows.into_iter().map(|row| (key(&row).to_string(), row)).collect()
}

fn first<V>(row: &(String, V)) -> &str {
    &row.0
}

fn first_of_three(row: &(String, i64, i64)) -> &str {
    &row.0
}

#[test]
fn each_word_is_answered_with_its_count() {
    let input = lines(&["hello world", "", "hello  tidemill", "hello"]);
    let expected = keyed(&[("hello", 1), ("world", 1), ("hello", 2), ("tidemill", 1), ("hello", 3)]);
    check(rolling_word_count::build, input, with_keys(expected, first), first);
}

#[test]
fn four_of_a_word_make_a_window_and_the_rest_is_not_told() {
    let input = lines(&["a b a a", "b a a", "b", "a a a a"]);
    let expected = keyed(&[("a", 4), ("a", 4)]);
    check(count_window::build, input, with_keys(expected, first), first);
}

#[test]
fn a_window_is_told_in_the_order_of_event_time() {
    let input = timed(&[
        ("s1", 3000, 30),
        ("s1", 1000, 10),
        ("s2", 4000, 1),
        ("s1", 5000, 50),
        ("s1", 4999, 49),
        ("s1", 1000, 11),
        ("s1", 7000, 70),
    ]);
    let expected = timed(&[
        ("s1", 1000, 10),
        ("s1", 1000, 11),
        ("s1", 3000, 30),
        ("s1", 4999, 49),
        ("s1", 5000, 50),
        ("s1", 7000, 70),
    ]);
    let of_s1 = |env: &Environment, readings: DataStream<_>| {
        sorted_window::build(env, readings).filter(|reading| reading.0 == "s1")
    };
    check(of_s1, input.clone(), with_keys(expected, first_of_three), first_of_three);
    let of_s2 = |env: &Environment, readings: DataStream<_>| {
        sorted_window::build(env, readings).filter(|reading| reading.0 == "s2")
    };
    check(of_s2, input, with_keys(timed(&[("s2", 4000, 1)]), first_of_three), first_of_three);
}

#[test]
fn sums_are_one_then_six() {
    let input = timed(&[
        ("hello", 1_645_844_000, 1),
        ("hello", 1_645_845_000, 2),
        ("hello", 1_645_846_000, 1),
        ("hello", 1_645_847_000, 3),
        ("hello", 1_645_849_000, 1),
    ]);
    // The end of a bounded input is the end of event time: it closes the third window too.
    let expected = timed(&[("hello", 1_645_844_000, 1), ("hello", 1_645_845_000, 6), ("hello", 1_645_849_000, 1)]);
    check(event_time_sum::build, input, with_keys(expected, first_of_three), first_of_three);
}

#[test]
fn people_are_divided_by_age() {
    let input: Vec<(String, u32)> =
        keyed(&[("ann", 12), ("bob", 40), ("cid", 70), ("dan", 18), ("eve", 65), ("flo", 17), ("guy", 64)]);
    for parallelism in [1, 3] {
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let adults = age_split::build(&env, env.from_collection(input.clone()));
        let minors = adults.side_output(age_split::MINORS).collect();
        let seniors = adults.side_output(age_split::SENIORS).collect();
        let adults = adults.collect();
        env.execute("ages").unwrap();
        let names = |mut rows: Vec<(String, u32)>| {
            rows.sort();
            rows.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            [names(minors.take()), names(adults.take()), names(seniors.take())],
            ["ann flo", "bob dan guy", "cid eve"]
        );
    }
}

#[test]
fn texts_of_a_key_are_joined_in_order() {
    let text = |rows: &[(&str, &str)]| rows.iter().map(|(k, t)| (k.to_string(), t.to_string())).collect::<Vec<_>>();
    let input = text(&[("a", "x"), ("b", "1"), ("a", "y"), ("a", "z"), ("b", "2")]);
    let expected = text(&[("a", "x"), ("b", "1"), ("a", "xy"), ("a", "xyz"), ("b", "12")]);
    check(keyed_concat::build, input, with_keys(expected, first), first);
}

#[test]
fn a_number_is_told_by_its_difference_to_the_last() {
    let input = keyed(&[("s1", 18), ("s1", 20), ("s2", 7), ("s1", 25), ("s1", 28), ("s2", 4)]);
    let expected = keyed(&[("s1", 18), ("s1", 2), ("s2", 7), ("s1", 5), ("s1", 3), ("s2", -3)]);
    check(difference::build, input, with_keys(expected, first), first);
}

#[test]
fn every_two_numbers_of_a_key_have_an_average() {
    let input = keyed(&[("1", 3), ("1", 5), ("1", 7), ("2", 1), ("1", 4), ("1", 2), ("2", 9)]);
    let expected = keyed(&[("1", 4), ("1", 5), ("2", 5)]);
    check(pair_average::build, input, with_keys(expected, first), first);
}

#[test]
fn numbers_that_jump_above_the_average_go_through() {
    let input = keyed(&[("s1", 18), ("s1", 20), ("s1", 25), ("s2", 100), ("s1", 36), ("s2", 110)]);
    let expected = keyed(&[("s1", 18), ("s2", 100), ("s1", 36)]);
    check(jump_filter::build, input, with_keys(expected, first), first);
}
