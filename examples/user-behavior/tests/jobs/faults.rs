//! Bad lines and late lines cost themselves, and are told.

use std::fs;
use std::time::Duration;

use user_behavior::input::{ACTIONS_SAMPLE, Input, Missed};
use user_behavior::reference;

use crate::run::{self, PARALLELISMS};

#[test]
fn bad_lines_are_counted_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user_behavior.csv");
    let mut bytes = Vec::new();
    for (at, line) in ACTIONS_SAMPLE.lines().enumerate() {
        match at {
            3 => bytes.extend_from_slice(b"1,2,3,pv\n"),
            7 => bytes.extend_from_slice(b"\n1,2,3,pv,yesterday\n"),
            11 => bytes.extend_from_slice(b"1,2,\xff,pv,4\n"),
            _ => {}
        }
        bytes.extend_from_slice(format!("{line}\n").as_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let input = Input::File(path);
    let expected = reference::hot_items(ACTIONS_SAMPLE.as_bytes()).unwrap();
    for parallelism in PARALLELISMS {
        let missed = Missed::default();
        assert_eq!(run::hot_items(&input, parallelism, &missed), expected);
        let (count, told) = missed.dead.counted();
        assert_eq!(count, 4, "{told:?}");
        assert!(told[0].contains("line 4") && told[0].contains("`seconds` is missing"), "{told:?}");
        assert!(told[3].contains("not UTF-8"), "{told:?}");
        assert_eq!(missed.late.counted().0, 0);
    }
}

/// The ends of the windows that would hold the late line.
const LATE_WINDOWS: std::ops::RangeInclusive<i64> = 1_735_693_215_000..=1_735_693_810_000;

/// Two lines a minute from midnight on, so that event time is far ahead of any line that is read with the last ones.
fn requests(count: u32) -> Vec<String> {
    let line = |at: u32| {
        let (hour, minute, second) = (at / 120, at / 2 % 60, at % 2 * 30);
        format!("192.0.2.1 - - 01/01/2025:{hour:02}:{minute:02}:{second:02} +0000 GET /page/{}\n", at % 7)
    };
    (0..count).map(line).collect()
}

#[test]
fn late_lines_are_told_and_lines_within_the_delay_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web_access.log");
    let mut lines = requests(2800);
    let on_time = lines.concat();
    // An hour late, at a place where the watermark is at most 1024 lines behind.
    lines.insert(2000, "192.0.2.1 - - 01/01/2025:01:00:10 +0000 GET /late\n".to_string());
    fs::write(&path, lines.concat()).unwrap();
    let input = Input::File(path);
    let expected = reference::hot_pages(on_time.as_bytes()).unwrap();
    for parallelism in PARALLELISMS {
        let missed = Missed::default();
        let mut got = run::hot_pages(&input, parallelism, &missed);
        let mut expected = expected.clone();
        if parallelism > 1 {
            // The line is behind the watermark of the worker that read it; another may not have got so far and count it.
            got.retain(|end_ms, _| !LATE_WINDOWS.contains(end_ms));
            expected.retain(|end_ms, _| !LATE_WINDOWS.contains(end_ms));
        }
        assert!(got == expected, "parallelism {parallelism}");
        let (count, told) = missed.late.counted();
        assert_eq!(count, 1);
        assert!(told[0].contains("/late") && told[0].contains("behind the watermark"), "{told:?}");
        // A delay of a day waits for it.
        let missed = Missed::default();
        let got = run::hot_pages_after(Duration::from_secs(86_400), &input, parallelism, &missed);
        assert!(got == reference::hot_pages(lines.concat().as_bytes()).unwrap());
        assert_eq!(missed.late.counted().0, 0);
    }
}
