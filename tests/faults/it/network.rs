//! The network between the hosts of a job, made of network namespaces: slowed, it is only slower; cut, all processes of the
//! job notice and end in bounded time, and the job goes on from its last checkpoint when the way is there again.
//! Where namespaces cannot be made the test says so and ends.

use std::time::{Duration, Instant};

use tidemill_topic::{TopicConfig, Topics};

use crate::sum_kills::{append, lines, published, sums};
use crate::support::hosts::Hosts;
use crate::support::{eventually, folder};

const RECORDS: u64 = 30_000;

#[test]
fn a_job_over_two_hosts_survives_a_network_that_is_slowed_and_cut() {
    let Some(hosts) = Hosts::new('j') else { return };
    hosts.slow();
    let dir = folder();
    let data = dir.path();
    let entries = Topics::open(data.join("topics")).unwrap();
    let entries = entries.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    append(&entries, &lines(3, RECORDS)).unwrap();
    let job = sums(data, 1, "cut");
    let addresses = ["10.77.0.1:7701".to_string(), "10.77.0.2:7702".to_string()];
    let start = |generation: u64, more: &[&str]| {
        job.start_all(&addresses, (4, generation), more, |host, command| hosts.command(host, command))
    };
    for generation in 0..2 {
        let mut running = start(generation, &["--slow"]);
        let completed = || job.report().map(|report| report["checkpoints"]["completed"].as_u64().unwrap_or(0));
        eventually("checkpoints complete over the network", || match completed() {
            Ok(count) if count >= 3 => Ok(()),
            other => Err(format!("{other:?}\n{}", job.log())),
        });
        let begun = Instant::now();
        if generation == 0 {
            hosts.cut()
        } else {
            hosts.unplug()
        }
        for process in &mut running {
            let code = eventually("a process notices the cut", || process.ended().ok_or(job.log()));
            assert_eq!(code, 1, "{}", job.log());
        }
        // Three seconds of silence are allowed.
        assert!(begun.elapsed() < Duration::from_secs(20), "noticed after {:?}", begun.elapsed());
        assert!(job.log().contains("is lost"), "{}", job.log());
        eprintln!("the cut was noticed by both processes after {:?}", begun.elapsed());
        hosts.plug();
    }
    for process in &mut start(9, &["--bounded"]) {
        assert_eq!(process.wait(), 0, "{}", job.log());
    }
    let calm = sums(data, 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert!(published(data, "cut") == published(data, "calm"), "{}", job.log());
}
