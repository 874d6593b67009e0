//! An exactly-once job from a topic into a topic and into files is killed again and again, each time with another
//! parallelism; what it has published in the end is what an undisturbed run publishes.

use std::collections::BTreeMap;
use std::path::Path;

use tidemill_topic::{NewRecord, Topic, TopicConfig, Topics};

use crate::support::job::Job;
use crate::support::process::Process;
use crate::support::seeds::{Random, seeds};
use crate::support::{folder, orders, pause};

const KILLS: usize = 12;
const RECORDS: u64 = 30_000;

/// Lines `key,time,amount`; times go back by less than the job's bound.
pub fn lines(seed: u64, count: u64) -> Vec<String> {
    let mut random = Random::new(seed);
    let line = |n: u64| format!("k{},{},{}", random.below(200), 1_000 + n * 3 + random.below(400), n);
    (0..count).map(line).collect()
}

pub fn append(topic: &Topic, lines: &[String]) -> tidemill_core::Result<()> {
    let key = |line: &str| topic.partition_for(line.split(',').next().unwrap().as_bytes());
    let records: Vec<NewRecord<'_>> = lines
        .iter()
        .map(|line| NewRecord { partition: key(line), timestamp_ms: 0, key: None, value: line.as_bytes() })
        .collect();
    topic.append(&records, None, 0).map(drop)
}

/// The job, publishing into a topic `into` and a folder of the same name.
pub fn sums(data: &Path, number: u32, into: &str) -> Job {
    let mut job = Job::new(data, number, env!("CARGO_BIN_EXE_sums"));
    let files = data.join(into).display().to_string();
    job.args = ["--from", "entries", "--into", into, "--files", &files].map(String::from).to_vec();
    job
}

/// What was published: the lines of each key in their order, and those of all part files.
#[derive(Debug, PartialEq)]
pub struct Published {
    pub sums: BTreeMap<String, Vec<String>>,
    pub seconds: Vec<String>,
}

/// The lines of each key in the topic so far.
pub fn published_sums(data: &Path, into: &str) -> BTreeMap<String, Vec<String>> {
    let mut sums: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in orders::records(&Topics::open(data.join("topics")).unwrap().open_topic(into).unwrap()) {
        let line = String::from_utf8(record).unwrap();
        sums.entry(line.split(',').next().unwrap().to_owned()).or_default().push(line);
    }
    sums
}

/// All that is published, when nothing writes any more.
pub fn published(data: &Path, into: &str) -> Published {
    let sums = published_sums(data, into);
    let mut seconds = Vec::new();
    for part in std::fs::read_dir(data.join(into)).unwrap().flatten() {
        let name = part.file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "nothing unpublished is left behind: {name}");
        seconds.extend(std::fs::read_to_string(part.path()).unwrap().lines().map(str::to_owned));
    }
    seconds.sort();
    Published { sums, seconds }
}

/// Lets the process work until `moment`; whether it ended by itself, well.
fn disturbed(mut process: Process, job: &Job, random: &mut Random) -> bool {
    pause(random.moment());
    let ended = process.ended();
    assert!(matches!(ended, None | Some(0)), "it ended by itself with {ended:?}: {}", job.log());
    ended.is_some()
}

#[test]
fn an_exactly_once_topic_to_topic_job_survives_kills() {
    let (mut kills, mut ends) = (0, 0);
    for seed in seeds("sums", 3) {
        let mut random = Random::new(seed);
        let dir = folder();
        let data = dir.path();
        let entries = Topics::open(data.join("topics")).unwrap();
        let entries = entries.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
        append(&entries, &lines(seed, RECORDS)).unwrap();
        let job = sums(data, 1, "killed");
        for _ in 0..KILLS {
            match disturbed(job.start(1 + random.below(3), &["--bounded", "--slow"]), &job, &mut random) {
                true => ends += 1,
                false => kills += 1,
            }
        }
        assert_eq!(job.start(1 + random.below(3), &["--bounded"]).wait(), 0, "{}", job.log());
        // What has ended is not published twice.
        assert_eq!(job.start(1 + random.below(3), &["--bounded"]).wait(), 0, "{}", job.log());

        let calm = sums(data, 2, "calm");
        assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
        let (killed, calm) = (published(data, "killed"), published(data, "calm"));
        assert_eq!(calm.sums.values().map(Vec::len).sum::<usize>() as u64, RECORDS);
        assert!(calm.seconds.len() > 1000, "{} windows", calm.seconds.len());
        for (key, lines) in &calm.sums {
            assert_eq!(killed.sums.get(key), Some(lines), "seed {seed}, {key}");
        }
        assert_eq!(killed.seconds, calm.seconds, "seed {seed}: the part files");
        assert_eq!(killed, calm, "seed {seed}");
    }
    eprintln!("sums: survived {kills} kills, and {ends} more ends");
}
