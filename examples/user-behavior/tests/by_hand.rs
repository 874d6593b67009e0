//! The reference against a few lines counted by hand: window borders, ties, what is no page view, bad lines.

use tidemill_core::error::Kind;
use user_behavior::reference::{PageViews, hot_items, hot_pages, is_static, page_views, parse_access, parse_behavior};

const HOUR: i64 = 3_600_000;

#[test]
fn an_event_is_in_twelve_windows_and_the_end_is_outside() {
    let windows = hot_items("1,10,7,pv,3600\n2,20,7,pv,3899\n3,10,7,buy,3600\n".as_bytes()).unwrap();
    // Both lie in 01:00–01:05, so in the windows that end from 01:05 to 02:00.
    let ends: Vec<i64> = windows.keys().copied().collect();
    assert_eq!(ends, (1..=12).map(|n| HOUR + n * 300_000).collect::<Vec<_>>());
    assert!(windows.values().all(|top| { top.iter().map(|entry| (entry.of, entry.views)).eq([(10, 1), (20, 1)]) }));
    let at_the_border = hot_items("1,10,7,pv,3900\n".as_bytes()).unwrap();
    assert_eq!(at_the_border.keys().next(), Some(&(HOUR + 600_000)));
}

#[test]
fn five_items_at_most_and_ties_go_to_the_smaller_id() {
    let mut text = String::new();
    for item in [9, 8, 7, 6, 5, 4, 4, 30, 30, 30] {
        text.push_str(&format!("1,{item},1,pv,0\n"));
    }
    let windows = hot_items(text.as_bytes()).unwrap();
    let top: Vec<(u64, u64)> = windows[&300_000].iter().map(|entry| (entry.of, entry.views)).collect();
    assert_eq!(top, [(30, 3), (4, 2), (5, 1), (6, 1), (7, 1)]);
}

#[test]
fn visitors_are_counted_once_an_hour() {
    let got = page_views("1,1,1,pv,0\n1,2,1,pv,3599\n2,1,1,pv,10\n3,1,1,fav,10\n1,1,1,pv,3600\n".as_bytes()).unwrap();
    let rows: Vec<(i64, PageViews)> = got.into_iter().collect();
    assert_eq!(rows, [(HOUR, PageViews { pv: 3, uv: 2 }), (2 * HOUR, PageViews { pv: 1, uv: 1 })]);
}

#[test]
fn pages_are_gets_of_no_static_file() {
    let line = |time: &str, method: &str, path: &str| format!("1.2.3.4 - - 01/01/1970:{time} +0000 {method} {path}\n");
    let log = [
        line("00:00:07", "GET", "/b"),
        line("00:00:09", "GET", "/a"),
        line("00:00:04", "GET", "/late"),
        line("00:00:07", "POST", "/b"),
        line("00:00:07", "GET", "/style.css?v=2"),
        line("00:00:07", "GET", "/b.js"),
    ]
    .concat();
    let windows = hot_pages(log.as_bytes()).unwrap();
    let at = |end_ms: i64| windows[&end_ms].iter().map(|entry| entry.of.as_str()).collect::<Vec<_>>();
    assert_eq!(at(5_000), ["/late"]);
    assert_eq!(at(10_000), ["/a", "/b", "/late"]);
    assert_eq!(at(600_000), ["/a", "/b", "/late"]);
    assert_eq!(at(605_000), ["/a", "/b"]);
    assert_eq!(windows.keys().next_back(), Some(&605_000));
    assert!(is_static("/X.PNG") && is_static("/f.woff2#i") && !is_static("/js") && !is_static("/a?f=.css"));
}

#[test]
fn times_of_the_log_are_utc() {
    let time_ms = |time: &str| parse_access(&format!("1.2.3.4 - - {time} +0000 GET /")).map(|access| access.time_ms);
    assert_eq!(time_ms("17/05/2015:10:05:03"), Some(1_431_857_103_000));
    assert_eq!(time_ms("29/02/2016:23:59:59"), Some(1_456_790_399_000));
    for wrong in ["29/02/2015:00:00:00", "00/01/2015:00:00:00", "01/13/2015:00:00:00", "01/01/2015:24:00:00", "x"] {
        assert_eq!(time_ms(wrong), None, "{wrong}");
    }
    assert_eq!(parse_access("1.2.3.4 - - 17/05/2015:10:05:03 +0800 GET /"), None);
}

#[test]
fn a_line_that_is_not_understood_is_named() {
    let error = hot_items("1,2,3,pv,4\n1,2,pv,4\n".as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("user_behavior.csv line 2"), "{error}");
    assert_eq!(parse_behavior("1,2,3,pv,x"), None);
    assert_eq!(parse_behavior("543462,1715,1464116,pv,1511658000").map(|line| line.time_ms), Some(1_511_658_000_000));
}
