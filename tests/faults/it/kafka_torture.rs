//! Random dataflow graphs from Kafka into Kafka, with the broker as the victim: it is killed with signal 9 and started again, or
//! stands still for a while, and so does the job. What those who read committed records see in the end is what a naive
//! single-threaded reference computes. One broker serves all seeds; each has topics of its own.

use rustix::process::{Pid, Signal, kill_process};
use tidemill_faults::torture::graph::Graph;
use tidemill_faults::torture::kafka::KafkaPlace;

use crate::kafka_broker::{Broker, New};
use crate::support::job::Job;
use crate::support::seeds::{Random, seeds};
use crate::support::{eventually, folder, pause};
use crate::torture::difference;

/// Of the seeds of a torture so many are one of ours: a broker takes seconds to come back.
const ONE_OF: u64 = 50;
/// Seeds that are looked at in CI.
const SEEDS: u64 = 200;
/// After so many starts a job is left alone.
const STARTS: u64 = 4;
/// Of the topic with the results.
const PARTITIONS: i32 = 3;

#[derive(Debug, Default)]
struct Counts {
    broker_kills: u64,
    broker_pauses: u64,
    job_kills: u64,
    job_pauses: u64,
    stops: u64,
}

#[test]
fn graphs_from_kafka_into_kafka_survive_the_broker_being_killed_and_paused() {
    let mut broker = Broker::start();
    let mut counts = Counts::default();
    let mut ran = 0;
    for seed in seeds("kafka torture", SEEDS).filter(|seed| seed % ONE_OF == 0) {
        torture(seed, &mut broker, &mut counts);
        ran += 1;
    }
    eprintln!("kafka torture: {ran} seeds, {counts:?}");
    assert!(ran < 4 || counts.broker_kills > 0, "no broker was killed");
}

fn torture(seed: u64, broker: &mut Broker, counts: &mut Counts) {
    // Chance of its own, not that of the torture without Kafka.
    let (graph, mut random) = (Graph::of(seed), Random::new(seed ^ 0x006b_6166_6b61));
    let place =
        KafkaPlace { servers: broker.servers(), from: format!("torture-{seed}"), into: format!("results-{seed}") };
    fill(broker, &graph, &place);
    let dir = folder();
    let mut job = Job::new(dir.path(), seed as u32, env!("CARGO_BIN_EXE_torture"));
    job.interval_ms = 5 + random.below(100);
    let words = [&seed.to_string(), "-", "--kafka", &place.servers, &place.from, &place.into];
    job.args = words.map(String::from).to_vec();
    let mut history = Vec::new();
    for _ in 0..STARTS {
        let parallelism = 1 + random.below(4);
        let fault = random.below(6);
        let mut process = job.start(parallelism, &[]);
        pause(random.moment());
        match fault {
            0 | 1 => {
                history.push(format!("broker killed, parallelism {parallelism}"));
                broker.kill();
                // The job lives without it for a while, and with it again, or is killed without it.
                if random.below(2) == 0 {
                    pause(random.moment());
                    process.kill();
                }
                broker.restart();
                pause(random.moment());
                counts.broker_kills += 1;
            }
            2 | 3 => {
                history.push(format!("broker paused, parallelism {parallelism}"));
                broker.pause(true);
                pause(random.moment() * 2);
                broker.pause(false);
                pause(random.moment());
                counts.broker_pauses += 1;
            }
            4 => {
                history.push(format!("job paused, parallelism {parallelism}"));
                let pid = Pid::from_child(&process.0);
                let _ = kill_process(pid, Signal::STOP);
                pause(random.moment());
                let _ = kill_process(pid, Signal::CONT);
                counts.job_pauses += 1;
            }
            _ => {
                history.push(format!("stopped with a savepoint, parallelism {parallelism}"));
                // It may have ended, or not begun.
                let _ = job.ask(r#"{"op":"savepoint","stop":true}"#);
                counts.stops += 1;
            }
        }
        let ended = process.ended();
        // One that starts while the broker is away gives up after a while; whoever watches it starts it again, as we do.
        let right = matches!(ended, None | Some(0) | Some(-9)) || fault < 2 && ended == Some(1);
        assert!(right, "seed {seed}: it ended by itself with {ended:?}; {history:?}\n{graph}\n{}", job.log());
        counts.job_kills += u64::from(ended.is_none());
        process.kill();
    }
    // The second start finds everything done, and publishes nothing twice.
    for _ in 0..2 {
        let code = job.start(1 + random.below(4), &[]).wait();
        assert_eq!(code, 0, "seed {seed}: {history:?}\n{graph}\n{}", job.log());
    }
    let mut published = broker.peer().values(&place.into, PARTITIONS);
    published.sort();
    let expected = graph.expected();
    if published != expected {
        let (more, less) = (difference(&published, &expected), difference(&expected, &published));
        panic!("seed {seed}: published but wrong: {more:?}\nmissing: {less:?}\n{history:?}\n{graph}\n{}", job.log());
    }
    let ours = format!("tidemill-{:032x}-", seed as u32);
    let open = broker.peer().open_transactions();
    assert!(!open.iter().any(|id| id.starts_with(&ours)), "seed {seed}: left open: {open:?}");
}

/// Makes the topics of a graph and writes what its sources are to read.
fn fill(broker: &Broker, graph: &Graph, place: &KafkaPlace) {
    let mut peer = broker.peer();
    peer.create(&place.into, PARTITIONS, &[]);
    for (at, source) in graph.sources.iter().enumerate() {
        let topic = place.topic(at);
        peer.create(&topic, source.splits as i32, &[]);
        for partition in 0..source.splits {
            let records: Vec<(i64, String)> = KafkaPlace::records(source, partition).collect();
            let records: Vec<New<'_>> = records.iter().map(|(time_ms, line)| (*time_ms, None, Some(&**line))).collect();
            records.chunks(2_000).for_each(|some| peer.write(&topic, partition as i32, some));
        }
    }
    // Coordinators of transactions are there when the first job asks.
    eventually("transactions can be listed", || {
        let open = broker.peer().open_transactions();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    });
}
