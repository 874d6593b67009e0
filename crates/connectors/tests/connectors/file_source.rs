//! Files: every line once, whatever the file looks like and however it grows.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tidemill_connectors::conformance::{Driven, check_bounded_source};
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::{Csv, Json, Text};
use tidemill_core::Kind;
use tidemill_core::source::{Boundedness, Source, Split};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Order {
    user: String,
    amount: u32,
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("line {i}")).collect()
}

#[test]
fn the_lines_of_a_folder_come_once_also_after_restarts() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), lines(0..10).join("\n")).unwrap();
    fs::write(folder.path().join("b.txt"), lines(10..20).join("\r\n") + "\r\n").unwrap();
    fs::write(folder.path().join("empty.txt"), "").unwrap();
    fs::write(folder.path().join(".hidden"), "not this").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let mut packed = GzEncoder::new(File::create(folder.path().join("c.txt.gz")).unwrap(), Compression::fast());
    packed.write_all((lines(20..30).join("\n") + "\n").as_bytes()).unwrap();
    packed.finish().unwrap();
    check_bounded_source(&FileSource::new(folder.path(), Text), &lines(0..30), 0);
    check_bounded_source(&FileSource::new(folder.path().join("?.t*t"), Text), &lines(0..20), 0);
}

#[test]
fn csv_and_json_lines_become_values_and_bad_ones_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let order = |user: &str, amount| Order { user: user.into(), amount };
    let csv = folder.path().join("orders.csv");
    fs::write(&csv, "user,amount\nann,1\n\nbob,many\n\"c, d\",3\n").unwrap();
    let source = FileSource::new(&csv, Csv::<Order>::new()).skip_lines(1).skip_blank_lines(true);
    check_bounded_source(&source, &[order("ann", 1), order("c, d", 3)], 1);
    let json = folder.path().join("orders.json");
    fs::write(&json, "{\"user\":\"ann\",\"amount\":1}\n{\"user\":\"bob\"}\n\n{\"user\":\"cyd\",\"amount\":3}").unwrap();
    let source = FileSource::new(&json, Json::<Order>::new());
    check_bounded_source(&source, &[order("ann", 1), order("cyd", 3)], 2);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    driven.run_until(100, |_| false);
    let letter = &driven.rejected[0];
    assert_eq!(letter.position, format!("{} line 2", json.display()));
    assert_eq!((letter.reason.as_str(), letter.payload.as_str()), ("missing field `amount`", "{\"user\":\"bob\"}"));
}

#[test]
fn a_line_of_10_mb_is_rejected_and_reading_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, format!("first\n{}\nlast\n{}", "x".repeat(10_000_000), "y".repeat(2_000_000))).unwrap();
    let source = FileSource::new(&path, Text);
    check_bounded_source(&source, &["first".to_string(), "last".to_string()], 2);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    driven.run_until(100, |_| false);
    let letter = &driven.rejected[0];
    assert!(letter.position.ends_with("log line 2") && letter.payload.len() == 4096, "{}", letter.position);
    assert!(letter.reason.contains("10000000 bytes") && letter.reason.contains("1048576"), "{}", letter.reason);
}

#[test]
fn many_lines_are_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, lines(0..50_000).join("\n")).unwrap();
    let source = FileSource::new(&path, Text);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    assert!(driven.run_until(333, |_| false));
    assert_eq!(driven.records[path.to_str().unwrap()], lines(0..50_000));
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for pattern in ["nothing", "*.csv"] {
        let source = FileSource::new(folder.path().join(pattern), Text);
        let error = source.splits().expect_err("nothing fits");
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains("no file fits"), "{error}");
        assert!(source.follow(true).splits().unwrap().is_empty());
    }
    assert!(FileSource::new(folder.path().join("no/*.csv"), Text).splits().is_err());
    // Gone, or shorter than its position, between listing and reading.
    let path = folder.path().join("log");
    fs::write(&path, "a\nb\n").unwrap();
    let source = FileSource::new(&path, Text);
    let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    driven.run_until(100, |_| false);
    let at_end = driven.snapshot();
    for (change, expected) in [("a\n", "ends before byte 4"), ("", "ends before byte 4")] {
        fs::write(&path, change).unwrap();
        let mut driven = Driven::start(&source, 0, 1, &at_end);
        let error = loop {
            match driven.poll(10) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

struct Followed {
    driven: Driven<String>,
    id: String,
}

impl Followed {
    fn start(source: &FileSource<Text>, splits: &[Split]) -> Followed {
        Followed { driven: Driven::start(source, 0, 1, splits), id: splits[0].id.clone() }
    }

    fn expect(&mut self, lines: &[&str]) {
        assert!(!self.driven.run_until(100, |driven| driven.count >= lines.len()), "it does not end");
        assert_eq!(self.driven.records.get(&self.id).map_or(&[][..], Vec::as_slice), lines);
    }
}

fn append(path: &Path, text: &str) {
    File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_growing_file_is_followed_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "one\ntw");
    let source = FileSource::new(&path, Text).follow(true);
    assert_eq!(source.boundedness(), Boundedness::Unbounded);
    let splits = source.splits().unwrap();
    let mut followed = Followed::start(&source, &splits);
    followed.expect(&["one"]);
    append(&path, "o\nthree");
    followed.expect(&["one", "two"]);
    // The half line is read again, whole, by a restored reader.
    let snapshot = followed.driven.snapshot();
    append(&path, "\n");
    followed.expect(&["one", "two", "three"]);
    Followed::start(&source, &snapshot).expect(&["three"]);
}

#[test]
fn a_rotated_file_is_read_to_its_end_and_then_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "one\n");
    let source = FileSource::new(&path, Text).follow(true);
    let splits = source.splits().unwrap();
    let mut followed = Followed::start(&source, &splits);
    followed.expect(&["one"]);
    let mut old = File::options().append(true).open(&path).unwrap();
    fs::rename(&path, folder.path().join("app.log.1")).unwrap();
    old.write_all(b"two\nlast").unwrap();
    append(&path, "new\n");
    followed.expect(&["one", "two", "last", "new"]);
    let snapshot = followed.driven.snapshot();
    // Rotated again while nobody reads: the position was in another file.
    fs::rename(&path, folder.path().join("app.log.2")).unwrap();
    append(&path, "newer\n");
    Followed::start(&source, &snapshot).expect(&["newer"]);
}

#[test]
fn a_file_that_became_shorter_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "one\ntwo\n");
    let source = FileSource::new(&path, Text).follow(true);
    let splits = source.splits().unwrap();
    let mut followed = Followed::start(&source, &splits);
    followed.expect(&["one", "two"]);
    let snapshot = followed.driven.snapshot();
    fs::write(&path, "new\n").unwrap();
    followed.expect(&["one", "two", "new"]);
    Followed::start(&source, &snapshot).expect(&["new"]);
}

#[test]
fn new_files_of_a_followed_folder_are_new_splits() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("b.log"), "b\n");
    let source = FileSource::new(folder.path().join("*.log"), Text).follow(true);
    assert!(source.discovery_interval_ms().is_some());
    let before = source.splits().unwrap();
    append(&folder.path().join("a.log"), "a\n");
    let after = source.splits().unwrap();
    assert_eq!((before.len(), after.len()), (1, 2));
    // A file keeps its slot when others come before it in the list.
    assert_eq!(before[0], after[1]);
    let mut followed = Followed::start(&source, &before);
    followed.expect(&["b"]);
    followed.driven.reader().add_splits(vec![after[0].clone()]).unwrap();
    let mut output = tidemill_core::source::SourceOutput::with_capacity(10);
    crate::wait_until("the new file is read", || {
        followed.driven.reader().poll(&mut output).unwrap();
        !output.is_empty()
    });
    assert_eq!(output.take(), (vec![(tidemill_core::NO_TIMESTAMP, "a".to_string())], vec![(1, 1)]));
}

#[test]
fn a_source_that_is_dropped_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, lines(0..200_000).join("\n")).unwrap();
    let source = FileSource::new(&path, Text);
    // The thread holds the file open while it waits for room; when it has stopped nobody does.
    let driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
    let open = || {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path))
    };
    crate::wait_until("the thread opens the file", open);
    drop(driven);
    crate::wait_until("the thread ends", || !open());
}
