//! Two-phase output: invisible until committed, committed once, cleaned up at recovery.

use tidemill_core::Kind;
use tidemill_topic::{StageId, Topic, TopicConfig, Topics};

use crate::{record, values};

fn topic() -> (tempfile::TempDir, Topic) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TopicConfig { partitions: 2, ..TopicConfig::default() };
    let topic = Topics::open(folder.path()).and_then(|topics| topics.create("t", &config)).expect("creates");
    (folder, topic)
}

fn id(scope: &str, epoch: u64, attempt: u64) -> StageId {
    StageId { scope: scope.into(), epoch, subtask: 0, attempt }
}

#[test]
fn staged_records_show_when_committed_and_only_once() {
    let (_folder, topic) = topic();
    let first = id("job/sink", 1, 1);
    topic.stage(&first, &[record(0, 7, "a"), record(1, 7, "x")], 0).expect("stages");
    topic.stage(&first, &[record(0, 8, "b")], 0).expect("stages");
    topic.append(&[record(0, 0, "between")], None, 0).expect("appends");
    assert_eq!(values(&topic, 0, 0), ["between"]);
    for _ in 0..2 {
        topic.commit(&[first.token()]).expect("commits");
        assert_eq!(values(&topic, 0, 0), ["between", "a", "b"]);
        assert_eq!(values(&topic, 1, 0), ["x"]);
    }
    assert_eq!(topic.info().unwrap().records, 4);
    assert_eq!(topic.offset_for_timestamp(0, 8).unwrap(), 2);
}

#[test]
fn recovery_commits_what_it_is_given_and_drops_the_rest_of_the_scope() {
    let (_folder, topic) = topic();
    for (staged, text) in [
        (id("a", 1, 1), "keep"),
        (id("a", 2, 1), "drop"),
        (id("b", 1, 1), "another job"),
        (StageId { subtask: 1, ..id("a", 1, 1) }, "keep too"),
    ] {
        topic.stage(&staged, &[record(0, 0, text)], 0).expect("stages");
    }
    let tokens = [id("a", 1, 1).token(), StageId { subtask: 1, ..id("a", 1, 1) }.token()];
    for _ in 0..2 {
        topic.recover("a", &tokens).expect("recovers");
        assert_eq!(values(&topic, 0, 0), ["keep", "keep too"]);
    }
    topic.commit(&[id("a", 2, 1).token(), id("b", 1, 1).token()]).expect("commits");
    assert_eq!(values(&topic, 0, 0), ["keep", "keep too", "another job"]);
}

#[test]
fn a_later_attempt_does_not_commit_an_earlier_ones_leftovers() {
    let (_folder, topic) = topic();
    topic.stage(&id("a", 5, 1), &[record(0, 0, "first attempt")], 0).expect("stages");
    topic.stage(&id("a", 5, 2), &[record(0, 0, "second attempt")], 0).expect("stages");
    topic.commit(&[id("a", 5, 2).token()]).expect("commits");
    assert_eq!(values(&topic, 0, 0), ["second attempt"]);
}

#[test]
fn bytes_that_are_no_token_are_refused() {
    let (_folder, topic) = topic();
    for token in [vec![], vec![9], b"\x01{}".to_vec(), b"\x01nonsense".to_vec()] {
        assert_eq!(topic.commit(&[token]).expect_err("refused").kind(), Kind::Corrupt);
    }
}
