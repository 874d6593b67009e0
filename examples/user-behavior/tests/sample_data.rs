//! The reference against numbers found in another language on the public sample data. The data is no part of the
//! project: without it (`TIDEMILL_SAMPLE_DATA`, or `../shared/data` beside the workspace) these tests say so and end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use user_behavior::reference::{PageViews, Views, hot_items, hot_pages, open, page_views};

/// The sample file, packed or not; `None` when it is not there.
fn sample(name: &str, test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TIDEMILL_SAMPLE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let found =
        [format!("{name}.gz"), name.to_string()].iter().map(|file| folder.join(file)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped {test}: no sample data `{name}`; set TIDEMILL_SAMPLE_DATA to its folder");
    }
    found
}

fn pairs<T: Clone>(ranking: &[Views<T>]) -> Vec<(T, u64)> {
    ranking.iter().map(|entry| (entry.of.clone(), entry.views)).collect()
}

const MODULUS: u64 = 1_000_000_007;

#[test]
fn hot_items_of_the_sample() {
    let Some(path) = sample("user_behavior.csv", "hot_items_of_the_sample") else {
        return;
    };
    let windows = hot_items(open(&path).unwrap()).unwrap();
    assert_eq!(windows.len(), 38);
    let first = [(3_493_253, 3), (4_261_030, 3), (5_051_027, 3), (56_671, 2), (153_517, 2)];
    assert_eq!(pairs(&windows[&1_511_658_300_000]), first);
    let first_whole_hour = [(2_338_453, 27), (2_563_440, 18), (812_879, 17), (138_964, 14), (3_244_134, 12)];
    assert_eq!(pairs(&windows[&1_511_661_600_000]), first_whole_hour);
    let (last_end_ms, last) = windows.last_key_value().unwrap();
    assert_eq!(*last_end_ms, 1_511_669_400_000);
    assert_eq!(pairs(last), [(95_352, 1), (97_335, 1), (109_513, 1), (151_656, 1), (153_059, 1)]);
    let mut checksum = 0;
    for (end_ms, ranking) in &windows {
        for (rank, entry) in (1..).zip(ranking) {
            checksum += *end_ms as u64 / 1000 * rank * entry.of % 1_000_003 * entry.views;
        }
    }
    assert_eq!(checksum % MODULUS, 151_088_013);
}

#[test]
fn page_views_and_visitors_of_the_sample() {
    let Some(path) = sample("user_behavior.csv", "page_views_and_visitors_of_the_sample") else {
        return;
    };
    let expected = BTreeMap::from([
        (1_511_661_600_000, PageViews { pv: 41_890, uv: 28_196 }),
        (1_511_665_200_000, PageViews { pv: 48_022, uv: 32_160 }),
        (1_511_668_800_000, PageViews { pv: 8_449, uv: 6_936 }),
    ]);
    assert_eq!(page_views(open(&path).unwrap()).unwrap(), expected);
}

#[test]
fn hot_pages_of_the_sample() {
    let Some(path) = sample("web_access.log", "hot_pages_of_the_sample") else {
        return;
    };
    let windows = hot_pages(open(&path).unwrap()).unwrap();
    assert_eq!(windows.len(), 11_000);
    let at = |end_ms: i64| {
        pairs(&windows[&end_ms]).into_iter().map(|(path, views)| format!("{views} {path}")).collect::<Vec<_>>()
    };
    assert_eq!(at(1_431_857_105_000), ["1 /blog/tags/puppet?flav=rss20"]);
    let after_100_s = ["3 /blog/tags/puppet?flav=rss20", "2 /", "2 /blog/tags/firefox?flav=rss20"];
    assert_eq!(at(1_431_857_205_000), after_100_s);
    assert_eq!(at(1_431_875_160_000)[0], "17 /images/logstash_OSCON.pdf");
    assert_eq!(at(1_432_156_555_000), ["1 /blog/tags/wine", "1 /files/grok/?C=N;O=A", "1 /robots.txt"]);
    assert_eq!(windows.values().flatten().map(|entry| entry.views).sum::<u64>(), 142_670);
    let mut checksum = 0;
    for (end_ms, ranking) in &windows {
        for (rank, entry) in (1..).zip(ranking) {
            let letters: u64 = entry.of.bytes().map(u64::from).sum();
            checksum += (*end_ms as u64 / 1000 * rank + entry.of.len() as u64 * 7 + letters) * entry.views;
        }
    }
    assert_eq!(checksum % MODULUS, 522_869_068);
}
