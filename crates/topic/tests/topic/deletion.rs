//! Creating, naming, listing and deleting topics; handles that outlive their topic.

use tidemill_core::Kind;
use tidemill_topic::{TopicConfig, Topics};

use crate::{record, values};

fn folder() -> (tempfile::TempDir, Topics) {
    let folder = tempfile::tempdir().expect("a folder");
    let topics = Topics::open(folder.path().join("deep/topics")).expect("opens");
    (folder, topics)
}

#[test]
fn the_list_names_topics_with_their_sizes() {
    let (_folder, topics) = folder();
    assert!(topics.list().unwrap().is_empty());
    let config = TopicConfig { partitions: 2, retention_ms: Some(5), retention_bytes: Some(7_000) };
    let b = topics.create("b", &config).expect("creates");
    topics.create("a.1-x_y", &TopicConfig::default()).expect("creates");
    b.append(&[record(1, 0, "hello")], None, 0).expect("appends");
    let list = topics.list().unwrap();
    assert_eq!(list.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["a.1-x_y", "b"]);
    let b = &list[1];
    assert_eq!((b.partitions, b.records, b.retention_ms, b.retention_bytes), (2, 1, Some(5), Some(7_000)));
    assert!(b.bytes > 5);
}

#[test]
fn names_and_configurations_are_checked() {
    let (_folder, topics) = folder();
    let long = "x".repeat(Topics::NAME_BYTES_MAX + 1);
    for name in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "é", "a\0", &long] {
        let error = topics.create(name, &TopicConfig::default()).map(drop).expect_err(name);
        assert_eq!(error.kind(), Kind::Input, "{name}");
        assert!(topics.open_topic(name).is_err() && topics.exists(name).is_err() && topics.delete(name).is_err());
    }
    for partitions in [0, TopicConfig::PARTITIONS_MAX + 1] {
        assert!(topics.create("x", &TopicConfig { partitions, ..TopicConfig::default() }).is_err());
    }
    assert!(topics.create("x", &TopicConfig { retention_ms: Some(0), ..TopicConfig::default() }).is_err());
    assert!(!topics.exists("x").unwrap());
    let most = TopicConfig { partitions: TopicConfig::PARTITIONS_MAX, ..TopicConfig::default() };
    assert_eq!(topics.create("x", &most).expect("creates").partitions(), TopicConfig::PARTITIONS_MAX);
}

#[test]
fn a_topic_is_created_once() {
    let (_folder, topics) = folder();
    topics.create("orders", &TopicConfig::default()).expect("creates");
    let error = topics.create("orders", &TopicConfig::default()).map(drop).expect_err("exists");
    assert!(error.to_string().contains("exists already"), "{error}");
    let one = TopicConfig { partitions: 1, ..TopicConfig::default() };
    assert_eq!(topics.open_or_create("orders", &one).expect("opens").partitions(), 4);
    assert_eq!(topics.open_or_create("other", &one).expect("creates").partitions(), 1);
}

#[test]
fn a_handle_that_outlives_its_topic_does_no_harm() {
    let (_folder, topics) = folder();
    let old = topics.create("orders", &TopicConfig::default()).expect("creates");
    old.append(&[record(0, 0, "old")], None, 0).expect("appends");
    let old_elsewhere = topics.open_topic("orders").expect("opens");
    topics.delete("orders").expect("deletes");
    assert_eq!(topics.open_topic("orders").map(drop).expect_err("gone").kind(), Kind::Input);
    assert_eq!(topics.delete("orders").expect_err("gone").kind(), Kind::Input);

    let anew = topics.create("orders", &TopicConfig::default()).expect("creates");
    anew.append(&[record(0, 0, "new")], None, 0).expect("appends");
    for handle in [&old, &old_elsewhere] {
        let error = handle.append(&[record(0, 0, "lost")], None, 0).expect_err("deleted");
        assert!(error.kind() == Kind::Input && error.to_string().contains("was deleted"), "{error}");
        assert!(handle.read(0, 0, 1).is_err() && handle.latest(0).is_err() && handle.info().is_err());
    }
    // Closing the old handles must not take the new log away.
    drop((old, old_elsewhere));
    anew.append(&[record(0, 0, "newer")], None, 0).expect("appends");
    assert_eq!(values(&topics.open_topic("orders").expect("opens"), 0, 0), ["new", "newer"]);
}

#[test]
fn a_file_that_is_no_topic_is_refused_and_can_be_deleted() {
    let (_folder, topics) = folder();
    let path = topics.folder().join("odd.topic");
    std::fs::write(&path, b"this is not a database, but long enough to look at").expect("writes");
    assert_eq!(topics.open_topic("odd").map(drop).expect_err("refused").kind(), Kind::Corrupt);
    topics.delete("odd").expect("deletes");
    assert!(!path.exists());
}
