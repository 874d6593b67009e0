//! Hot items, PV and UV, hot pages, computed the obvious way from whole files: the oracle of the streaming job's tests.
//! Every line counts whatever its place in the file; a job that drops late events gives less on `web_access.log`, whose
//! lines are out of order by up to a minute.
//!
//! - Windows are aligned to 1970-01-01 UTC and named by their end in epoch ms; an event belongs to `[start, end)`.
//! - `user_behavior.csv`: user, item, category, behaviour, seconds, no header. All three results look at `pv` lines only.
//! - `web_access.log`: address, `-`, user, `dd/MM/yyyy:HH:mm:ss`, zone (only `+0000`), method, path. A page is the path as
//!   written, query included; whether it is a static file is seen from what stands before the query.
//! - A window without a single view is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// Hot items: the window's length.
pub const HOT_ITEMS_SIZE_MS: i64 = HOUR_MS;
/// Hot items: how far apart windows begin.
pub const HOT_ITEMS_SLIDE_MS: i64 = 5 * MINUTE_MS;
/// Hot items: how many a window has.
pub const HOT_ITEMS_TOP: usize = 5;
/// PV and UV: the window's length.
pub const PAGE_VIEWS_SIZE_MS: i64 = HOUR_MS;
/// Hot pages: the window's length.
pub const HOT_PAGES_SIZE_MS: i64 = 10 * MINUTE_MS;
/// Hot pages: how far apart windows begin.
pub const HOT_PAGES_SLIDE_MS: i64 = 5 * SECOND_MS;
/// Hot pages: how many a window has.
pub const HOT_PAGES_TOP: usize = 3;

/// The ends of static files, which are no pages.
pub const STATIC_FILES: [&str; 13] =
    [".css", ".js", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".bmp", ".svg", ".ttf", ".woff", ".woff2", ".eot"];

/// Something ranked, and how often it was viewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views<T> {
    /// The item or page.
    pub of: T,
    /// How often.
    pub views: u64,
}

/// Page views and visitors of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageViews {
    /// Page views.
    pub pv: u64,
    /// Different users among them.
    pub uv: u64,
}

/// One line of `user_behavior.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behavior {
    /// Who.
    pub user: u64,
    /// Which item.
    pub item: u64,
    /// Of which category.
    pub category: u64,
    /// `pv`, `cart`, `fav` or `buy`.
    pub behavior: String,
    /// When, epoch ms.
    pub time_ms: i64,
}

/// One line of `web_access.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// When, epoch ms.
    pub time_ms: i64,
    /// `GET`, …
    pub method: String,
    /// The path with its query.
    pub path: String,
}

/// Opens a file, unpacking it when its name ends in `.gz`.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(|e| Error::io(format_args!("open `{}`", path.display()), e))?;
    if path.extension().is_some_and(|ending| ending == "gz") {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(BufReader::new(file)))
    }
}

/// For each window end the most viewed items, most views first, equal ones by smaller item id.
pub fn hot_items(user_behavior: impl BufRead) -> Result<BTreeMap<i64, Vec<Views<u64>>>> {
    let mut windows: BTreeMap<i64, BTreeMap<u64, u64>> = BTreeMap::new();
    for view in page_view_lines(user_behavior)? {
        for end_ms in window_ends(view.time_ms, HOT_ITEMS_SIZE_MS, HOT_ITEMS_SLIDE_MS) {
            *windows.entry(end_ms).or_default().entry(view.item).or_default() += 1;
        }
    }
    Ok(windows.into_iter().map(|(end_ms, counts)| (end_ms, top(counts, HOT_ITEMS_TOP))).collect())
}

/// For each window end the page views and visitors.
pub fn page_views(user_behavior: impl BufRead) -> Result<BTreeMap<i64, PageViews>> {
    let mut windows: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for view in page_view_lines(user_behavior)? {
        for end_ms in window_ends(view.time_ms, PAGE_VIEWS_SIZE_MS, PAGE_VIEWS_SIZE_MS) {
            windows.entry(end_ms).or_default().push(view.user);
        }
    }
    let count = |(end_ms, users): (i64, Vec<u64>)| {
        let visitors: BTreeSet<&u64> = users.iter().collect();
        (end_ms, PageViews { pv: users.len() as u64, uv: visitors.len() as u64 })
    };
    Ok(windows.into_iter().map(count).collect())
}

/// For each window end the most viewed pages, most views first, equal ones by path.
pub fn hot_pages(web_access: impl BufRead) -> Result<BTreeMap<i64, Vec<Views<String>>>> {
    let mut windows: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
    for access in lines(web_access, "web_access.log", parse_access)? {
        if access.method != "GET" || is_static(&access.path) {
            continue;
        }
        for end_ms in window_ends(access.time_ms, HOT_PAGES_SIZE_MS, HOT_PAGES_SLIDE_MS) {
            *windows.entry(end_ms).or_default().entry(access.path.clone()).or_default() += 1;
        }
    }
    Ok(windows.into_iter().map(|(end_ms, counts)| (end_ms, top(counts, HOT_PAGES_TOP))).collect())
}

/// The ends of all windows that hold `time_ms`.
fn window_ends(time_ms: i64, size_ms: i64, slide_ms: i64) -> impl Iterator<Item = i64> {
    let last_start_ms = time_ms.div_euclid(slide_ms) * slide_ms;
    (0..)
        .map(move |n| last_start_ms - n * slide_ms)
        .take_while(move |s| s + size_ms > time_ms)
        .map(move |s| s + size_ms)
}

/// The first `length` by count, equal ones by themselves.
fn top<T: Ord>(counts: BTreeMap<T, u64>, length: usize) -> Vec<Views<T>> {
    let mut ranking: Vec<Views<T>> = counts.into_iter().map(|(of, views)| Views { of, views }).collect();
    // Stable, and the map was in order of the keys: that settles ties.
    ranking.sort_by_key(|entry| std::cmp::Reverse(entry.views));
    ranking.truncate(length);
    ranking
}

/// Whether the path names a static file.
pub fn is_static(path: &str) -> bool {
    let file = path.split(['?', '#']).next().unwrap_or(path).to_ascii_lowercase();
    STATIC_FILES.iter().any(|ending| file.ends_with(ending))
}

fn page_view_lines(user_behavior: impl BufRead) -> Result<Vec<Behavior>> {
    let mut all = lines(user_behavior, "user_behavior.csv", parse_behavior)?;
    all.retain(|line| line.behavior == "pv");
    Ok(all)
}

fn lines<T>(reader: impl BufRead, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let mut parsed = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|e| Error::io(format_args!("read {name} line {number}"), e))?;
        let value =
            parse(&line).ok_or_else(|| Error::input(format!("{name} line {number} is not understood: `{line}`")))?;
        parsed.push(value);
    }
    Ok(parsed)
}

/// Reads one line of `user_behavior.csv`.
pub fn parse_behavior(line: &str) -> Option<Behavior> {
    let [user, item, category, behavior, seconds] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
    Some(Behavior {
        user: user.parse().ok()?,
        item: item.parse().ok()?,
        category: category.parse().ok()?,
        behavior: behavior.to_string(),
        time_ms: seconds.parse::<i64>().ok()?.checked_mul(SECOND_MS)?,
    })
}

/// Reads one line of `web_access.log`.
pub fn parse_access(line: &str) -> Option<Access> {
    let [_, _, _, time, zone, method, path] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    if zone != "+0000" {
        return None;
    }
    Some(Access { time_ms: parse_access_time(time)?, method: method.to_string(), path: path.to_string() })
}

/// `dd/MM/yyyy:HH:mm:ss` UTC as epoch ms: the days counted year by year and month by month.
fn parse_access_time(text: &str) -> Option<i64> {
    let parts = text.split(['/', ':']).map(|part| part.parse().ok()).collect::<Option<Vec<i64>>>()?;
    let [day, month, year, hour, minute, second] = parts.try_into().ok()?;
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_of = |month: i64| match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month);
    if !in_range || !(1..=days_of(month)).contains(&day) {
        return None;
    }
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
        return None;
    }
    let years: i64 = (1970..year).map(|year| 365 + i64::from(leap(year))).sum();
    let months: i64 = (1..month).map(days_of).sum();
    Some((years + months + day - 1) * 24 * HOUR_MS + hour * HOUR_MS + minute * MINUTE_MS + second * SECOND_MS)
}
