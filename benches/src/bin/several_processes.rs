//! Two processes with one worker each, as on two hosts, plain and by TLS, against one process with two workers.
//!
//! Figures wanted, between two processes: a keyed count at 200,000 events/s with p50 below 1 ms and p99 below 5 ms from
//! source to sink; the keyed 10 s window at 0.8 of the throughput of two threads. The contestants take turns, so that a
//! busy machine slows all alike; medians. They run long enough that the time processes take to find each other, a tenth of a second,
//! hardly counts. Both give the same checksum. The processes are this program again.
//!
//! `several_processes [rounds] [events in millions] [keys] [seconds of the latency run]`

use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill_benches::{Failure, free_port, load, median, number};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_engine::runtime::{Cluster, Secret};
use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::window::{Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RATE: f64 = 200_000.0;
const LATENCY_KEYS: u64 = 100_000;
/// Latencies are counted in steps of so many microseconds, up to a tenth of a second.
const STEP_US: u64 = 5;
const STEPS: usize = 20_000;
/// What the first second brings is start-up.
const WARM_UP_NS: u64 = 1_000_000_000;
const ROLE: &str = "BENCH_ROLE";

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn key(index: u64, keys: u64) -> u64 {
    let mixed = (index ^ (index >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let u = (mixed >> 11) as f64 / (1u64 << 53) as f64;
    (keys as f64 * u * u * u) as u64
}

/// One process: `latency|window <process> <addresses or -> <count> <keys> <tls>`.
fn process(role: &str) -> Result<(), Failure> {
    let words: Vec<&str> = role.split(' ').collect();
    let [what, process, addresses, count, keys, tls] = words[..] else { return Err(format!("no role: {role}").into()) };
    let (count, keys): (u64, u64) = (count.parse()?, keys.parse()?);
    let cluster = match addresses {
        "-" => None,
        addresses => {
            let addresses = addresses.split(',').map(String::from).collect();
            let cluster = Cluster::new(process.parse()?, addresses, Secret::new("a secret of the benches")?);
            Some(Cluster { tls: tls.parse()?, ..cluster })
        }
    };
    let job_id = "5".repeat(32);
    let env =
        Environment::with_settings(JobSettings { job_id, parallelism: Some(2), cluster, ..JobSettings::default() });
    let begin = Instant::now();
    if what == "latency" {
        let histogram: Arc<Vec<AtomicU64>> = Arc::new((0..STEPS).map(|_| AtomicU64::new(0)).collect());
        let (noted, begun) = (histogram.clone(), now_ns());
        let source = GeneratorSource::new("events", move |index| (key(index, keys), now_ns()));
        let source = source.count(count).rate_per_second(RATE).split_count(2);
        env.from_source(source, WatermarkStrategy::none(), "events")
            .key_by(|event: &(u64, u64)| event.0)
            .flat_map_with_state(move |(_, sent_ns): (u64, u64), held: &mut Option<u64>| {
                let count = held.unwrap_or(0) + 1;
                *held = Some(count);
                if sent_ns > begun + WARM_UP_NS {
                    let step = now_ns().saturating_sub(sent_ns) / 1000 / STEP_US;
                    noted[(step as usize).min(STEPS - 1)].fetch_add(1, Ordering::Relaxed);
                }
                None::<u64>
            })
            .collect();
        env.execute("latency")?;
        for (step, count) in histogram.iter().map(|count| count.load(Ordering::Relaxed)).enumerate() {
            if count > 0 {
                println!("{step} {count}");
            }
        }
    } else {
        let (total, source) = (Arc::new(AtomicU64::new(0)), GeneratorSource::new("bids", move |i| (key(i, keys), i)));
        let results = total.clone();
        let times = WatermarkStrategy::monotonous().with_timestamps(|event: &(u64, u64), _| (event.1 / 1000) as i64);
        env.from_source(source.count(count).split_count(2), times, "bids")
            .key_by(|event: &(u64, u64)| event.0)
            .window(Tumbling::event_time(Duration::from_secs(10)))
            .reduce_with(
                |held, next| held.1 = held.1.wrapping_add(next.1),
                |key: &u64, window: Window, (_, sum): (u64, u64)| {
                    Some((window.end_ms as u64).wrapping_mul(31).wrapping_add(*key) ^ sum)
                },
            )
            .filter(move |digest| {
                results.fetch_add(*digest, Ordering::Relaxed);
                false
            })
            .collect();
        env.execute("window")?;
        println!("{} {}", total.load(Ordering::Relaxed), begin.elapsed().as_nanos());
    }
    Ok(())
}

fn start(role: String) -> Result<Child, Failure> {
    Ok(Command::new(std::env::current_exe()?).env(ROLE, role).stdout(Stdio::piped()).spawn()?)
}

/// Runs one contestant: the pairs of numbers all its processes print.
fn run(what: &str, (processes, tls): (usize, bool), count: u64, keys: u64) -> Result<Vec<(u64, u64)>, Failure> {
    let addresses = match processes {
        1 => "-".to_string(),
        _ => (0..processes)
            .map(|_| Ok(format!("127.0.0.1:{}", free_port()?)))
            .collect::<Result<Vec<_>, Failure>>()?
            .join(","),
    };
    let children: Vec<Child> = (0..processes)
        .map(|process| start(format!("{what} {process} {addresses} {count} {keys} {tls}")))
        .collect::<Result<_, _>>()?;
    let mut pairs = Vec::new();
    for child in children {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("a process of `{what}` failed").into());
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (a, b) = line.split_once(' ').ok_or("a process prints pairs")?;
            pairs.push((a.parse()?, b.parse()?));
        }
    }
    Ok(pairs)
}

/// The latency, in ms, that a share of all does not exceed.
fn share(histogram: &[(u64, u64)], share: f64) -> f64 {
    let mut sorted = histogram.to_vec();
    sorted.sort_unstable();
    let total: u64 = sorted.iter().map(|(_, count)| count).sum();
    let mut left = (total as f64 * share) as u64;
    for (step, count) in sorted {
        if left < count {
            return ((step + 1) * STEP_US) as f64 / 1000.0;
        }
        left -= count;
    }
    f64::NAN
}

fn bench() -> Result<(), Failure> {
    let (rounds, millions, keys, seconds) = (number(1, 3), number(2, 80), number(3, 1_000_000), number(4, 10));
    let contestants = [(1, false), (2, false), (2, true)];
    let names = ["one process, two workers", "two processes, one worker each", "the same by TLS"];
    let mut speeds = [const { Vec::new() }; 3];
    let mut latencies = [const { Vec::new() }; 3];
    let mut checksum = None;
    for _ in 0..rounds {
        for ((contestant, speeds), latencies) in contestants.into_iter().zip(&mut speeds).zip(&mut latencies) {
            let pairs = run("window", contestant, millions * 1_000_000, keys)?;
            let sum = pairs.iter().fold(0u64, |sum, (digest, _)| sum.wrapping_add(*digest));
            if *checksum.get_or_insert(sum) != sum {
                return Err("the contestants' results differ".into());
            }
            let longest_ns = pairs.iter().map(|(_, ns)| *ns).max().unwrap_or(0);
            speeds.push(millions as f64 * 1e3 / (longest_ns as f64 / 1e6));
            latencies.push(run("latency", contestant, RATE as u64 * seconds, LATENCY_KEYS)?);
        }
    }
    println!("{millions} M events, {keys} keys, medians of {rounds} rounds; load {}", load());
    let medians = speeds.each_mut().map(|speeds| median(speeds));
    for (name, speed) in names.iter().zip(medians) {
        println!("  {name:<32} {speed:7.2} M events/s");
    }
    println!("  {:<32} {:7.2} (0.8 wanted)", "ratio", medians[1] / medians[0]);
    println!("  {:<32} {:7.2}", "ratio by TLS", medians[2] / medians[0]);
    println!("latency at {RATE} events/s, {LATENCY_KEYS} keys, {seconds} s, medians of {rounds} rounds");
    for (name, runs) in names.iter().zip(latencies) {
        let of = |part: f64| median(&mut runs.iter().map(|run| share(run, part)).collect::<Vec<_>>());
        println!("  {name:<32} p50 {:6.3} ms   p99 {:6.3} ms   p99.9 {:6.3} ms", of(0.5), of(0.99), of(0.999));
    }
    Ok(())
}

fn main() -> ExitCode {
    let outcome = match std::env::var(ROLE) {
        Ok(role) => process(&role),
        Err(_) => bench(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
