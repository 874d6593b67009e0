//! Every released format of the database must stay readable: `tests/fixtures/v<n>.topic` is one written at version n.
//!
//! `TIDEMILL_WRITE_FIXTURES=1 cargo test -p tidemill-topic fixture` writes the file of the present version anew.

use std::path::{Path, PathBuf};

use tidemill_topic::{NewRecord, StageId, Topic, TopicConfig, Topics};

use crate::{record, values};

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}.topic"))
}

fn staged() -> StageId {
    StageId { scope: "job/sink".into(), epoch: 3, subtask: 1, attempt: 2 }
}

fn write_sample(topic: &Topic) {
    topic.append(&[record(0, 10, "a"), record(1, 20, "b")], Some("request-1"), 5).expect("appends");
    let keyed = NewRecord { partition: 0, timestamp_ms: 30, key: Some(b"k"), value: b"c" };
    topic.append(&[keyed], None, 6).expect("appends");
    topic.stage(&staged(), &[record(1, 40, "staged")], 0).expect("stages");
}

fn check_sample(topic: &Topic) {
    let info = topic.info().expect("reads");
    assert_eq!((info.partitions, info.retention_ms, info.retention_bytes), (2, Some(86_400_000), None));
    assert_eq!((values(topic, 0, 0), values(topic, 1, 0)), (vec!["a".into(), "c".into()], vec!["b".to_string()]));
    let mut keys = Vec::new();
    crate::for_each(topic, 0, 0, |read| keys.push((read.timestamp_ms, read.key.map(<[u8]>::to_vec))));
    assert_eq!(keys, [(10, None), (30, Some(b"k".to_vec()))]);
    assert!(topic.append(&[record(0, 10, "a")], Some("request-1"), 7).expect("appends").duplicate);
    topic.commit(&[staged().token()]).expect("commits");
    assert_eq!(values(topic, 1, 0), ["b", "staged"]);
    topic.append(&[record(0, 0, "d")], None, 9).expect("appends");
    assert_eq!(values(topic, 0, 1), ["c", "d"]);
}

#[test]
fn version_1_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    if std::env::var("TIDEMILL_WRITE_FIXTURES").is_ok() {
        let config = TopicConfig { partitions: 2, retention_ms: Some(86_400_000), retention_bytes: None };
        let topic = Topics::open(folder.path()).and_then(|topics| topics.create("t", &config)).expect("creates");
        write_sample(&topic);
        drop(topic);
        assert!(!folder.path().join("t.topic-wal").exists(), "closing folds the log into the file");
        std::fs::copy(folder.path().join("t.topic"), fixture(1)).expect("writes the fixture");
        std::fs::remove_file(folder.path().join("t.topic")).expect("removes");
    }
    std::fs::copy(fixture(1), folder.path().join("t.topic")).expect("the fixture stands in the repository");
    let topic = Topics::open(folder.path()).and_then(|topics| topics.open_topic("t")).expect("opens");
    check_sample(&topic);
}

/// The token is in checkpoints, so its bytes are a format too.
#[test]
fn the_token_of_version_1_stays() {
    let token = staged().token();
    assert_eq!(
        token,
        b"\x01{\"attempt\":2,\"epoch\":3,\"scope\":\"job/sink\",\"subtask\":1}".to_vec(),
        "{}",
        String::from_utf8_lossy(&token)
    );
}
