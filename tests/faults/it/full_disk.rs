//! No room: for a checkpoint, for a topic. On file systems of two megabytes in memory, which only root may mount; else
//! the tests say that they were skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidemill_core::Kind;
use tidemill_topic::{NewRecord, Topic, TopicConfig, Topics};

use crate::sum_kills::{append, lines, published, sums};
use crate::support::process::{Done, tidemill};
use crate::support::server::Server;
use crate::support::{eventually, folder, orders};

/// A small file system, gone when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a line on standard error, where nothing may be mounted.
    pub fn mount(test: &str, at: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tidemill-faults"]).arg(at);
        if mount.output().is_ok_and(|done| done.status.success()) {
            return Some(SmallDisk(at.to_path_buf()));
        }
        eprintln!("SKIPPED: {test}: no small file system can be mounted here; root may");
        None
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let done = Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", self.ballast().display())).output();
        assert!(!done.unwrap().status.success(), "the disk has an end");
    }

    /// Gives back some of the room that was taken.
    pub fn give_back(&self, bytes: u64) {
        let ballast = std::fs::File::options().write(true).open(self.ballast()).unwrap();
        ballast.set_len(ballast.metadata().unwrap().len().checked_sub(bytes).expect("room is left to give")).unwrap();
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_at_a_checkpoint_is_told_and_got_over() {
    let dir = folder();
    let data = dir.path();
    let mut job = sums(data, 1, "full");
    job.interval_ms = 100;
    let checkpoints = job.dir.join("checkpoints");
    let Some(disk) = SmallDisk::mount("a full disk at a checkpoint", &checkpoints, "2m") else { return };
    let topics = Topics::open(data.join("topics")).unwrap();
    let entries = topics.create("entries", &TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let lines = lines(1, 6_000);
    let (first, rest) = lines.split_at(2_000);
    let (second, third) = rest.split_at(2_000);
    let number = |report: &Value, name: &str| report["checkpoints"][name].as_u64().unwrap();
    let await_report = |what: &str, right: &dyn Fn(&Value) -> bool| {
        eventually(what, || {
            let report = job.report()?;
            if right(&report) { Ok(report) } else { Err(report.to_string()) }
        })
    };
    let shown = || topics.open_topic("full").map_or(0, |topic| orders::records(&topic).len());

    append(&entries, first).unwrap();
    let mut process = job.start(2, &[]);
    eventually("the first lines are published", || if shown() == 2_000 { Ok(()) } else { Err(job.log()) });
    disk.fill();
    let before = await_report("checkpoints fail", &|report| number(report, "failed") >= 3);
    let failure = before["checkpoints"]["history"][0]["failure"].as_str().unwrap().to_owned();
    assert!(failure.contains(&checkpoints.display().to_string()), "it names the folder: {failure}");
    assert!(failure.contains("No space left on device"), "{failure}");
    append(&entries, second).unwrap();
    let read = |report: &Value| {
        let subtasks =
            report["vertices"].as_array().into_iter().flatten().flat_map(|vertex| vertex["subtasks"].as_array());
        subtasks.flatten().map(|subtask| subtask["records_in"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    let had = read(&before);
    await_report("the job goes on", &|report| read(report) >= had + 2_000);
    assert_eq!(shown(), 2_000, "nothing is published that no checkpoint holds");
    let done = number(&job.report().unwrap(), "completed");
    disk.free();
    await_report("the next checkpoint completes", &|report| number(report, "completed") > done);
    eventually("what waited is published", || if shown() == 4_000 { Ok(()) } else { Err(job.log()) });

    // Also when the job has to start again while there is no room.
    process.kill();
    disk.fill();
    append(&entries, third).unwrap();
    let mut process = job.start(3, &[]);
    let report = await_report("checkpoints fail again", &|report| number(report, "failed") >= 2);
    assert!(report["checkpoints"]["restored_epoch"].as_u64() > Some(1), "{report}");
    assert_eq!(shown(), 4_000);
    disk.free();
    eventually("all is published", || if shown() >= 6_000 { Ok(()) } else { Err(job.log()) });
    process.kill();

    let calm = sums(data, 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert_eq!(published(data, "full").sums, published(data, "calm").sums);
}

fn count(topic: &Topic) -> u64 {
    topic.info().unwrap().records
}

#[test]
fn a_full_disk_at_a_topic_is_told_and_nothing_is_half_written() {
    let server = Server::start();
    let Some(disk) = SmallDisk::mount("a full disk at a topic", &server.topics(), "4m") else { return };
    let topics = Topics::open(server.topics()).unwrap();
    let topic = topics.create("small", &TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let value = vec![b'7'; 40_000];
    let record = |partition| NewRecord { partition, timestamp_ms: 0, key: None, value: &value };
    let pair = [record(0), record(1)];
    topic.append(&pair, None, 0).unwrap();
    disk.fill();

    let mut stored = 1;
    let error = loop {
        match topic.append(&pair, None, 0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the disk is full");
    };
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert!(error.to_string().contains("topic `small`") && error.to_string().contains("free space"), "{error}");
    let line = [b"\"", &*value, b"\""].concat();
    let (status, body) = server.http.append("/api/topics/small/records", &line, "once").unwrap();
    assert_eq!(status, 507, "{body}");
    assert!(body["errors"][0].as_str().unwrap().contains("topic `small`"), "{body}");
    let input = server.data().join("line.json");
    std::fs::write(&input, &line).unwrap();
    let data = server.data().display().to_string();
    let produce =
        || Done::of(&mut tidemill(&["topic", "produce", "small", "--data", &data, "--file", input.to_str().unwrap()]));
    let said = produce().failed(1);
    assert!(said.contains("topic `small`") && said.contains("0 records are stored"), "{said}");
    assert_eq!(count(&topic), 2 * stored, "all of an append or nothing");
    assert_eq!(orders::records(&topic).len() as u64, 2 * stored, "and it can be read");

    // Room comes back page by page: while it is enough for one record of an append and not for both, neither is stored.
    while let Err(error) = topic.append(&pair, None, 0) {
        assert_eq!(error.kind(), Kind::Full, "{error}");
        assert_eq!(count(&topic), 2 * stored, "all of an append or nothing");
        disk.give_back(4096);
    }
    stored += 1;
    assert_eq!(count(&topic), 2 * stored);

    disk.free();
    topic.append(&pair, None, 0).unwrap();
    let (status, body) = server.http.append("/api/topics/small/records", &line, "once").unwrap();
    assert_eq!((status, &body["duplicate"]), (200, &Value::Bool(false)), "a refused append was not remembered: {body}");
    produce().ok();
    assert_eq!(count(&topic), 2 * stored + 4);
    assert_eq!(orders::records(&topic).len() as u64, 2 * stored + 4);
}
