//! An exactly-once job that runs as several processes: any of them is killed at any moment, the others notice and end, and
//! the next start has another number of processes and workers. What is published is what one undisturbed process publishes.

use tidemill_topic::{TopicConfig, Topics};

use crate::free_port::free_port;
use crate::sum_kills::{append, lines, published, sums};
use crate::support::process::Process;
use crate::support::seeds::{Random, seeds};
use crate::support::{eventually, folder, pause};

const KILLS: usize = 8;
const RECORDS: u64 = 30_000;

fn addresses(processes: u64) -> Vec<String> {
    (0..processes).map(|_| format!("127.0.0.1:{}", free_port().unwrap())).collect()
}

/// Whether all have ended well.
fn all_ended(processes: &mut [Process]) -> bool {
    processes.iter_mut().all(|process| process.ended() == Some(0))
}

#[test]
fn an_exactly_once_job_of_several_processes_survives_kills_of_any_of_them() {
    let (mut kills, mut ends) = (0, 0);
    for seed in seeds("processes", 2) {
        let mut random = Random::new(seed);
        let dir = folder();
        let data = dir.path();
        let entries = Topics::open(data.join("topics")).unwrap();
        let entries = entries.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
        append(&entries, &lines(seed, RECORDS)).unwrap();
        let job = sums(data, 1, "killed");
        let start = |processes: u64, parallelism: u64, generation: u64, more: &[&str]| {
            job.start_all(&addresses(processes), (parallelism, generation), more, |_, command| command)
        };
        for generation in 0..KILLS as u64 {
            let processes = 1 + random.below(3);
            let parallelism = processes + random.below(3);
            let mut running = start(processes, parallelism, generation, &["--bounded", "--slow"]);
            pause(random.moment() * 2);
            if all_ended(&mut running) {
                ends += 1;
                continue;
            }
            let victim = random.below(processes) as usize;
            running[victim].kill();
            kills += 1;
            // Nobody goes on without it: the others end by themselves, in bounded time, and say why.
            for (number, other) in running.iter_mut().enumerate().filter(|(number, _)| *number != victim) {
                let code = eventually("the other processes end", || other.ended().ok_or("it runs".to_string()));
                assert!(matches!(code, 0 | 1), "seed {seed}: process {number} ended with {code}: {}", job.log());
            }
        }
        for parallelism in [3, 2] {
            // The second start finds everything done, and publishes nothing twice.
            for process in &mut start(2, parallelism, 100 + parallelism, &["--bounded"]) {
                assert_eq!(process.wait(), 0, "seed {seed}: {}", job.log());
            }
        }
        let calm = sums(data, 2, "calm");
        assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
        let (killed, calm) = (published(data, "killed"), published(data, "calm"));
        assert_eq!(calm.sums.values().map(Vec::len).sum::<usize>() as u64, RECORDS);
        assert!(killed == calm, "seed {seed}: what was published differs\n{}", job.log());
    }
    eprintln!("processes: survived {kills} kills, and {ends} ends");
}
