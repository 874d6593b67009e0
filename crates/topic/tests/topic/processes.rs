//! Several processes at once, and processes that are killed: what was acknowledged stays, and nothing is there by half.
//!
//! The child is this very binary, started again with the one test [`child`] and told by the environment what to do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use tidemill_topic::{NewRecord, StageId, Topic, TopicConfig, Topics};

use crate::for_each;

const FOLDER: &str = "TIDEMILL_TOPIC_TEST_FOLDER";
const WRITER: &str = "TIDEMILL_TOPIC_TEST_WRITER";
const APPENDS: &str = "TIDEMILL_TOPIC_TEST_APPENDS";
const PARTITIONS: u32 = 3;
const RECORDS_PER_APPEND: usize = 900;

/// Appends as writer `WRITER` until `APPENDS` are done; says `acked <n>` on standard output after each.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let writer = std::env::var(WRITER).expect("set with the folder");
    let appends: usize = std::env::var(APPENDS).expect("set with the folder").parse().expect("a number");
    let topic = Topics::open(folder).and_then(|topics| topics.open_topic("t")).expect("opens");
    for append in 0..appends {
        let value = format!("{writer}:{append}:{}", "x".repeat(500));
        let records: Vec<NewRecord> = (0..RECORDS_PER_APPEND)
            .map(|i| NewRecord {
                partition: i as u32 % PARTITIONS,
                timestamp_ms: 0,
                key: None,
                value: value.as_bytes(),
            })
            .collect();
        topic.append(&records, None, 0).expect("appends");
        // Behind it, staged output of a job: committing it must be all or nothing too.
        let stage = StageId { scope: format!("{writer}/sink"), epoch: append as u64, subtask: 0, attempt: 1 };
        let value = format!("staged-{value}");
        let staged: Vec<NewRecord> =
            records.iter().map(|record| NewRecord { value: value.as_bytes(), ..*record }).collect();
        topic.stage(&stage, &staged, 0).expect("stages");
        topic.commit(&[stage.token()]).expect("commits");
        let mut out = std::io::stdout().lock();
        writeln!(out, "acked {append}").and_then(|()| out.flush()).expect("the parent listens");
    }
}

fn start(folder: &std::path::Path, writer: &str, appends: usize) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "processes::child", "--nocapture"])
        .env(FOLDER, folder)
        .env(WRITER, writer)
        .env(APPENDS, appends.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// How many records of each `writer:append` (and `staged-writer:append`) the topic holds.
fn count(topic: &Topic) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for partition in 0..PARTITIONS {
        for_each(topic, partition, 0, |record| {
            let text = std::str::from_utf8(record.value).expect("text");
            let name = text.rsplit_once(':').expect("three parts").0;
            *counts.entry(name.to_string()).or_default() += 1;
        });
    }
    counts
}

fn new_topic(folder: &std::path::Path) -> Topic {
    let config = TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() };
    Topics::open(folder).and_then(|topics| topics.create("t", &config)).expect("creates")
}

#[test]
fn several_processes_append_while_one_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let topic = new_topic(folder.path());
    let children: Vec<Child> = (0..3).map(|writer| start(folder.path(), &writer.to_string(), 4)).collect();
    let expected = 3 * 4 * 2 * RECORDS_PER_APPEND as u64;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while topic.info().expect("reads").records < expected {
        assert!(std::time::Instant::now() < deadline, "all arrive in time");
        count(&topic);
    }
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let counts = count(&topic);
    assert_eq!(counts.len(), 3 * 4 * 2);
    assert!(counts.values().all(|n| *n == RECORDS_PER_APPEND));
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_by_half() {
    let folder = tempfile::tempdir().expect("a folder");
    let topic = new_topic(folder.path());
    let mut acknowledged = Vec::new();
    for round in 0..8u32 {
        let mut child = start(folder.path(), &round.to_string(), usize::MAX);
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        // Killed at another point each time: so many acknowledged appends, then so many turns of waiting.
        let acks_wanted = round / 3 + 1;
        let mut acks = 0;
        while acks < acks_wanted {
            line.clear();
            assert!(lines.read_line(&mut line).expect("reads") > 0, "the child ended by itself");
            // libtest prints the test's name without a newline in front of the first line.
            if let Some((_, append)) = line.trim_end().rsplit_once("acked ") {
                acknowledged.push(format!("{round}:{append}"));
                acks += 1;
            }
        }
        let killed_at = std::time::Instant::now() + std::time::Duration::from_micros(700 * u64::from(round));
        while std::time::Instant::now() < killed_at {
            std::hint::spin_loop();
        }
        child.kill().expect("runs");
        child.wait().expect("ends");
        // Acknowledged after the last line read and before the end.
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("reads");
        let late = rest.lines().filter_map(|line| line.rsplit_once("acked "));
        acknowledged.extend(late.map(|(_, append)| format!("{round}:{append}")));
        topic.append(&[], None, 0).expect("others go on");
    }
    topic.recover("anything", &[]).expect("recovers");
    let counts = count(&topic);
    for (name, records) in &counts {
        assert_eq!(*records, RECORDS_PER_APPEND, "append {name} is there by half");
    }
    for name in &acknowledged {
        assert!(counts.contains_key(name), "append {name} was acknowledged");
        assert!(counts.contains_key(&format!("staged-{name}")), "the commit of {name} was acknowledged");
    }
}
