//! The signal tailing readers wait on.

use std::time::Duration;

use tidemill_topic::{TopicConfig, Topics};

use crate::record;

#[test]
fn a_commit_of_anybody_changes_the_version_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = Topics::open(folder.path()).expect("opens");
    let reader = topics.create("orders", &TopicConfig::default()).expect("creates");
    let elsewhere = topics.open_topic("orders").expect("opens");
    let mut version = reader.change_version().unwrap();
    for writer in [&elsewhere, &reader, &elsewhere] {
        assert_eq!(reader.change_version().unwrap(), version);
        reader.read(0, 0, 1).expect("reads");
        assert_eq!(reader.change_version().unwrap(), version);
        writer.append(&[record(0, 0, "x")], None, 0).expect("appends");
        let changed = reader.change_version().unwrap();
        assert_ne!(changed, version);
        version = changed;
    }
}

#[test]
fn a_watcher_hears_of_commits_and_of_its_waker() {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = Topics::open(folder.path()).expect("opens");
    let reader = topics.create("orders", &TopicConfig::default()).expect("creates");
    let writer = topics.open_topic("orders").expect("opens");
    let mut watch = reader.watch().expect("watches");
    assert!(!watch.wait(Duration::from_millis(1)).unwrap());
    writer.append(&[record(0, 0, "before the wait")], None, 0).expect("appends");
    assert!(watch.wait(Duration::from_secs(60)).unwrap());
    assert!(!watch.wait(Duration::from_millis(1)).unwrap());
    for i in 0..20 {
        let waker = watch.waker();
        std::thread::scope(|scope| {
            scope.spawn(|| match i % 2 {
                0 => drop(writer.append(&[record(0, 0, "x")], None, 0).expect("appends")),
                _ => waker.wake(),
            });
            assert_eq!(watch.wait(Duration::from_secs(60)).unwrap(), i % 2 == 0);
        });
    }
}

#[test]
fn a_commit_whose_writer_did_not_ring_is_found_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = Topics::open(folder.path()).expect("opens");
    let reader = topics.create("orders", &TopicConfig::default()).expect("creates");
    let mut watch = reader.watch().expect("watches");
    // The writer rings another bell: the watched one is gone.
    std::fs::remove_file(folder.path().join("orders.topic-bell")).expect("removes");
    let writer = topics.open_topic("orders").expect("opens");
    std::thread::scope(|scope| {
        scope.spawn(|| writer.append(&[record(0, 0, "x")], None, 0).expect("appends"));
        assert!(watch.wait(Duration::from_secs(60)).unwrap());
    });
}
