//! An exactly-once job from Kafka into Kafka is killed again and again, each time with another parallelism; what those who
//! read committed records see is what an undisturbed run publishes, at every moment the beginning of it.

use std::collections::BTreeMap;

use crate::kafka_broker::{Broker, New};
use crate::sum_kills::lines;
use crate::support::job::Job;
use crate::support::seeds::{Random, seeds};
use crate::support::{eventually, folder, pause};

const KILLS: usize = 12;
const RECORDS: u64 = 150_000;
const PARTITIONS: i32 = 3;

/// The job, and where it publishes.
struct Run {
    job: Job,
    sums: String,
    seconds: String,
}

impl Run {
    fn new(broker: &Broker, data: &std::path::Path, number: u32, from: &str) -> Run {
        let (sums, seconds) = (broker.topic("sums", PARTITIONS), broker.topic("seconds", PARTITIONS));
        let mut job = Job::new(data, number, env!("CARGO_BIN_EXE_kafka_sums"));
        let servers = broker.servers();
        job.args =
            ["--servers", &servers, "--from", from, "--sums", &sums, "--seconds", &seconds].map(String::from).to_vec();
        Run { job, sums, seconds }
    }

    /// The number of the newest checkpoint, complete or not.
    fn newest_checkpoint(&self) -> u64 {
        let folder = std::fs::read_dir(self.job.dir.join("checkpoints")).into_iter().flatten().flatten();
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("chk-")?.parse().ok();
        folder.filter_map(|entry| number(entry.file_name())).max().unwrap_or(0)
    }

    /// The committed lines of each key in their order, and those of all windows.
    fn published(&self, broker: &Broker) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
        let mut sums: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in broker.peer().values(&self.sums, PARTITIONS) {
            sums.entry(line.split(',').next().unwrap().to_owned()).or_default().push(line);
        }
        let mut seconds = broker.peer().values(&self.seconds, PARTITIONS);
        seconds.sort();
        (sums, seconds)
    }
}

#[test]
fn an_exactly_once_kafka_to_kafka_job_survives_kill_minus_9() {
    let broker = Broker::shared();
    let (mut kills, mut halfway) = (0, 0);
    for seed in seeds("kafka sums", 1) {
        let mut random = Random::new(seed);
        let dir = folder();
        let from = broker.topic("entries", PARTITIONS);
        let mut shares: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for line in lines(seed, RECORDS) {
            let partition =
                tidemill_topic::partition_for(line.split(',').next().unwrap().as_bytes(), PARTITIONS as u32);
            shares.entry(partition).or_default().push(line);
        }
        for (partition, lines) in &shares {
            let records: Vec<New<'_>> = lines.iter().map(|line| (0, None, Some(line.as_str()))).collect();
            let mut peer = broker.peer();
            records.chunks(10_000).for_each(|records| peer.write(&from, *partition as i32, records));
        }
        let calm = Run::new(broker, dir.path(), 2, &from);
        assert_eq!(calm.job.start(2, &["--bounded"]).wait(), 0, "{}", calm.job.log());
        let expected = calm.published(broker);
        assert_eq!(expected.0.values().map(Vec::len).sum::<usize>() as u64, RECORDS);
        assert!(expected.1.len() > 1000, "{} windows", expected.1.len());

        let killed = Run::new(broker, dir.path(), 1, &from);
        for _ in 0..KILLS {
            let mut process = killed.job.start(1 + random.below(3), &["--slow"]);
            // Every third time while it starts, else when it has made some checkpoints, however long that takes here.
            if random.below(3) > 0 {
                let wanted = killed.newest_checkpoint() + 1 + random.below(4);
                eventually("checkpoints are made", || match process.ended() {
                    Some(code) => panic!("it ended by itself with {code}: {}", killed.job.log()),
                    None if killed.newest_checkpoint() < wanted => Err(killed.job.log()),
                    None => Ok(()),
                });
            }
            pause(random.moment());
            assert_eq!(process.ended(), None, "it ended by itself: {}", killed.job.log());
            process.kill();
            kills += 1;
            let (sums, seconds) = killed.published(broker);
            for (key, lines) in &sums {
                let whole = &expected.0[key];
                assert!(whole.starts_with(lines), "seed {seed}, {key}: {} lines are not the first ones", lines.len());
            }
            assert!(seconds.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}: a window twice");
            halfway += usize::from(!sums.is_empty() && sums != expected.0);
        }
        assert_eq!(killed.job.start(1 + random.below(3), &["--bounded"]).wait(), 0, "{}", killed.job.log());
        // What has ended is not published twice.
        assert_eq!(killed.job.start(1 + random.below(3), &["--bounded"]).wait(), 0, "{}", killed.job.log());
        let published = killed.published(broker);
        for (key, lines) in &expected.0 {
            assert_eq!(published.0.get(key), Some(lines), "seed {seed}, {key}");
        }
        assert_eq!(published, expected, "seed {seed}");
        let open = broker.peer().open_transactions();
        assert!(open.is_empty(), "nothing is left open: {open:?}");
    }
    assert!(halfway > 0, "no kill came when a part was published");
    eprintln!("kafka sums: survived {kills} kills, {halfway} of them with a part published");
}
