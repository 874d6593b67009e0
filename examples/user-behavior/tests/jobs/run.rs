//! Runs a job over an input and gathers its results by window end, each window once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use tidemill::core::Data;
use tidemill::prelude::{DataStream, Environment, Result};
use user_behavior::input::{self, ACTIONS_DELAY, Input, Missed, REQUESTS_DELAY};
use user_behavior::ranking::Ranking;
use user_behavior::reference::{PageViews, Views};
use user_behavior::{hot_items, hot_pages, page_views};

/// The workers every test runs with.
pub const PARALLELISMS: [usize; 3] = [1, 2, 3];

pub fn hot_items(input: &Input, parallelism: usize, missed: &Missed) -> BTreeMap<i64, Vec<Views<u64>>> {
    rankings(run(parallelism, missed, |env| {
        Ok(hot_items::build(&input::item_actions(env, input, ACTIONS_DELAY, missed)?))
    }))
}

pub fn hot_pages(input: &Input, parallelism: usize, missed: &Missed) -> BTreeMap<i64, Vec<Views<String>>> {
    hot_pages_after(REQUESTS_DELAY, input, parallelism, missed)
}

pub fn hot_pages_after(
    delay: Duration,
    input: &Input,
    parallelism: usize,
    missed: &Missed,
) -> BTreeMap<i64, Vec<Views<String>>> {
    rankings(run(parallelism, missed, |env| Ok(hot_pages::build(&input::requests(env, input, delay, missed)?))))
}

pub fn page_views(input: &Input, parallelism: usize, missed: &Missed) -> BTreeMap<i64, PageViews> {
    let rows =
        run(parallelism, missed, |env| Ok(page_views::build(&input::hour_actions(env, input, ACTIONS_DELAY, missed)?)));
    by_window(rows.into_iter().map(|row| (row.window_end_ms, row.views)))
}

fn run<T: Data>(
    parallelism: usize,
    missed: &Missed,
    build: impl FnOnce(&Environment) -> Result<DataStream<T>>,
) -> Vec<T> {
    let env = Environment::new();
    env.set_parallelism(parallelism);
    let results = build(&env).unwrap().collect();
    let report = env.execute("user behavior").unwrap().report;
    let dropped: u64 =
        report.vertices.iter().flat_map(|vertex| &vertex.subtasks).map(|subtask| subtask.late_dropped).sum();
    assert!(dropped <= missed.late.counted().0, "windows have dropped {dropped} lines in silence");
    results.take()
}

fn rankings<T: Debug>(rows: Vec<Ranking<T>>) -> BTreeMap<i64, Vec<Views<T>>> {
    by_window(rows.into_iter().map(|row| (row.window_end_ms, row.best)))
}

fn by_window<V: Debug>(rows: impl Iterator<Item = (i64, V)>) -> BTreeMap<i64, V> {
    let mut windows = BTreeMap::new();
    for (window_end_ms, value) in rows {
        let before = windows.insert(window_end_ms, value);
        assert!(before.is_none(), "the window that ends at {window_end_ms} was told twice, first {before:?}");
    }
    windows
}
