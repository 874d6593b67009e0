//! Without faults a job's results are those of the reference, whatever the parallelism.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use tidemill::prelude::Result;
use user_behavior::input::{ACTIONS, ACTIONS_SAMPLE, Input, Missed, REQUESTS, REQUESTS_SAMPLE};
use user_behavior::reference;

use crate::run::{self, PARALLELISMS};

/// The file of the public sample data, which is no part of the project; `None` when it is not there.
fn whole_data(name: &str, test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TIDEMILL_SAMPLE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    match Input::in_folder(&folder, name) {
        Some(Input::File(path)) => Some(path),
        _ => {
            eprintln!("skipped {test}: no sample data `{name}`; set TIDEMILL_SAMPLE_DATA to its folder");
            None
        }
    }
}

/// Compares a job with the reference; nothing may be left out or late.
fn check<V: PartialEq + std::fmt::Debug>(
    input: &Input,
    lines: impl BufRead,
    expected: fn(Box<dyn BufRead + '_>) -> Result<V>,
    job: fn(&Input, usize, &Missed) -> V,
) {
    let expected = expected(Box::new(lines)).unwrap();
    for parallelism in PARALLELISMS {
        let missed = Missed::default();
        let got = job(input, parallelism, &missed);
        assert!(got == expected, "parallelism {parallelism}: got {got:?}, expected {expected:?}");
        assert_eq!((missed.dead.counted().0, missed.late.counted().0), (0, 0), "parallelism {parallelism}");
    }
}

#[test]
fn hot_items_of_the_built_in_sample() {
    check(&Input::Sample, ACTIONS_SAMPLE.as_bytes(), |lines| reference::hot_items(lines), run::hot_items);
}

#[test]
fn page_views_of_the_built_in_sample() {
    check(&Input::Sample, ACTIONS_SAMPLE.as_bytes(), |lines| reference::page_views(lines), run::page_views);
}

#[test]
fn hot_pages_of_the_built_in_sample() {
    check(&Input::Sample, REQUESTS_SAMPLE.as_bytes(), |lines| reference::hot_pages(lines), run::hot_pages);
}

#[test]
fn hot_items_of_the_whole_data() {
    let Some(path) = whole_data(ACTIONS, "hot_items_of_the_whole_data") else { return };
    let lines = reference::open(&path).unwrap();
    check(&Input::File(path), lines, |lines| reference::hot_items(lines), run::hot_items);
}

#[test]
fn page_views_of_the_whole_data() {
    let Some(path) = whole_data(ACTIONS, "page_views_of_the_whole_data") else { return };
    let lines = reference::open(&path).unwrap();
    check(&Input::File(path), lines, |lines| reference::page_views(lines), run::page_views);
}

#[test]
fn hot_pages_of_the_whole_data() {
    let Some(path) = whole_data(REQUESTS, "hot_pages_of_the_whole_data") else { return };
    let lines = reference::open(&path).unwrap();
    check(&Input::File(path), lines, |lines| reference::hot_pages(lines), run::hot_pages);
}
