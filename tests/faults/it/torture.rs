//! Random dataflow graphs under random faults: what a job publishes that was killed, paused, stopped with a savepoint, run
//! as other numbers of processes and workers, over a network that is slow, blocked and cut, on a disk without room and by a
//! clock that jumps is what a naive single-threaded reference computes; and from a checkpoint that is damaged no job starts.
//! `make torture` runs thousands of seeds.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidemill_faults::torture::graph::Graph;

use crate::free_port::free_port;
use crate::full_disk::SmallDisk;
use crate::support::job::Job;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::seeds::{Random, seeds};
use crate::support::{eventually, folder, pause};

/// Seeds of a run in CI.
const SEEDS: u64 = 200;
/// Seeds that run at the same time.
const AT_ONCE: usize = 6;
/// After so many starts a job is left alone.
const STARTS: u64 = 7;

#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    pauses: u64,
    full: u64,
    torn: u64,
    damaged: u64,
    jumps: u64,
    stops: u64,
    cuts: u64,
    blocks: u64,
    several: u64,
    ends: u64,
}

#[test]
fn what_random_graphs_publish_under_random_faults_is_what_the_reference_computes() {
    // Whoever is free takes the next.
    let next = Mutex::new(seeds("torture", SEEDS));
    let counts = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        let work = || {
            while let Some(seed) = { next.lock().unwrap().next() } {
                torture(seed, &counts);
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().expect("every seed comes out right");
        }
    });
    let counts = counts.into_inner().unwrap();
    eprintln!("torture: {counts:?}");
    assert!(counts.kills > 0 || std::env::var("TIDEMILL_SEED").is_ok(), "nobody was killed");
}

/// What happens to a start of the job.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    /// It stands still for a while, then it is killed.
    Pause,
    /// The disk is full for a while, then it is killed.
    Full,
    /// It is killed, and the beginning of another checkpoint lies about.
    Torn,
    /// It is killed, and its newest checkpoint is damaged for a while, in which it does not start.
    Damage,
    /// It is stopped with a savepoint.
    Stop,
    /// The connections between its processes break off.
    Cut,
    /// For a while nothing gets through between its processes.
    Block,
}

impl Fault {
    fn by_chance(random: &mut Random, processes: u64) -> Fault {
        if processes > 1 && random.below(3) == 0 {
            return if random.below(2) == 0 { Fault::Cut } else { Fault::Block };
        }
        match random.below(10) {
            0 => Fault::Pause,
            1 => Fault::Full,
            2 => Fault::Torn,
            3 | 4 => Fault::Stop,
            5 => Fault::Damage,
            _ => Fault::Kill,
        }
    }
}

fn torture(seed: u64, counts: &Mutex<Counts>) {
    let count = |add: &dyn Fn(&mut Counts)| add(&mut counts.lock().unwrap());
    let (graph, mut random) = (Graph::of(seed), Random::new(seed));
    let expected = graph.expected();
    let dir = folder();
    let disk = SmallDisk::mount("torture with a full disk", dir.path(), "128m");
    let out = dir.path().join("out");
    let mut job = Job::new(dir.path(), seed as u32, env!("CARGO_BIN_EXE_torture"));
    job.interval_ms = 1 + random.below(40);
    job.args = vec![seed.to_string(), out.display().to_string()];
    let mut history = Vec::new();
    // Of every other seed each start has its state in memory or on disk. By chance of its own: the others' stays what it was.
    let mut homes = Random::new(!seed);
    let mut on_disk = || seed.is_multiple_of(2) && homes.below(2) == 0;
    for generation in 0..STARTS {
        job.on_disk = on_disk();
        let (processes, workers) = (1 + random.below(4) / 3, 1 + random.below(4));
        let parallelism = workers.max(processes);
        let jumps = [String::from("--jumps"), random.below(1_000_000).to_string()];
        let jumps: Vec<&str> = match random.below(4) {
            0 => jumps.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let fault = Fault::by_chance(&mut random, processes);
        let home = if job.on_disk { "disk" } else { "memory" };
        history.push(format!("{fault:?} of {processes} processes, parallelism {parallelism}, {home} {jumps:?}"));
        count(&|counts| counts.several += processes - 1);
        count(&|counts| counts.jumps += u64::from(!jumps.is_empty()));
        let (mut running, ways) = start(&job, processes, (parallelism, generation), &jumps);
        let delay = Duration::from_micros(random.below(3) * random.below(2_000));
        ways.iter().for_each(|way| way.slow(delay));
        pause(random.moment());
        let mut may_fail = processes > 1;
        match fault {
            Fault::Kill => count(&|counts| counts.kills += 1),
            Fault::Pause => {
                let stopped = &running[random.below(processes) as usize];
                signal(stopped, Signal::STOP);
                pause(random.moment() / 4);
                signal(stopped, Signal::CONT);
                pause(random.moment());
                count(&|counts| counts.pauses += 1);
            }
            Fault::Full => {
                if let Some(disk) = &disk {
                    disk.fill();
                    pause(random.moment());
                    disk.free();
                    may_fail = true;
                    count(&|counts| counts.full += 1);
                }
            }
            Fault::Torn | Fault::Damage => {}
            Fault::Stop => {
                // It may have ended, or not begun.
                let _ = job.ask(r#"{"op":"savepoint","stop":true}"#);
                count(&|counts| counts.stops += 1);
            }
            Fault::Cut => {
                ways.iter().for_each(Proxy::cut);
                pause(random.moment());
                count(&|counts| counts.cuts += 1);
            }
            Fault::Block => {
                ways.iter().for_each(|way| way.block(true));
                pause(random.moment());
                ways.iter().for_each(|way| way.block(false));
                pause(random.moment());
                count(&|counts| counts.blocks += 1);
            }
        }
        let described = || format!("seed {seed}: {history:?}\n{graph}\n{}", job.log());
        let ends: Vec<Option<i32>> = running.iter_mut().map(Process::ended).collect();
        let right = |end: &Option<i32>| matches!(end, None | Some(0)) || may_fail && *end == Some(1);
        assert!(ends.iter().all(right), "it ended by itself with {ends:?}; {}", described());
        count(&|counts| counts.ends += u64::from(ends.iter().all(|end| *end == Some(0))));
        let victim = random.below(processes) as usize;
        running[victim].kill();
        // Of several, the others end by themselves, or are killed with it.
        if random.below(2) == 0 {
            let end = |process: &mut Process| eventually("the others end", || process.ended().ok_or(described()));
            running.iter_mut().for_each(|process| assert!(end(process) < 2, "{}", described()));
        }
        drop(running);
        if matches!(fault, Fault::Torn) {
            tear(&job.dir.join("checkpoints"));
            count(&|counts| counts.torn += 1);
        }
        if matches!(fault, Fault::Damage)
            && let Some((file, whole)) = damage(&job.dir.join("checkpoints"), &mut random)
        {
            let (end, log) = (job.start(parallelism, &[]).wait(), job.log());
            let told = log.lines().last().is_some_and(|line| line.contains("is damaged"));
            assert!(end == 1 && told, "it ended with {end} when `{}` was damaged; {}", file.display(), described());
            std::fs::write(&file, whole).unwrap();
            count(&|counts| counts.damaged += 1);
        }
    }
    job.on_disk = on_disk();
    let described = || format!("seed {seed}: {history:?}\n{graph}\n{}", job.log());
    // The second start finds everything done, and publishes nothing twice.
    for _ in 0..2 {
        let mut last = job.start(1 + random.below(4), &[]);
        assert_eq!(last.wait(), 0, "{}", described());
    }
    let published = published(&out);
    if published != expected {
        let (more, less) = (difference(&published, &expected), difference(&expected, &published));
        panic!("published but wrong: {more:?}\nmissing: {less:?}\n{}", described());
    }
}

/// The job's processes, and the ways to each where there are several.
fn start(
    job: &Job,
    processes: u64,
    (parallelism, generation): (u64, u64),
    more: &[&str],
) -> (Vec<Process>, Vec<Proxy>) {
    if processes == 1 {
        return (vec![job.start(parallelism, more)], Vec::new());
    }
    let ports: Vec<u16> = (0..processes).map(|_| free_port().unwrap()).collect();
    let ways: Vec<Proxy> = ports.iter().map(|port| Proxy::before(*port)).collect();
    let addresses: Vec<String> = ways.iter().map(|way| format!("127.0.0.1:{}", way.port)).collect();
    let running = job.start_all(&addresses, (parallelism, generation), more, |process, mut command| {
        command.env("TIDEMILL_PROCESS_LISTEN", format!("127.0.0.1:{}", ports[process]));
        // Whoever is killed before the others know it must not hold them up for long.
        command.env("TIDEMILL_START_TIMEOUT_MS", "2000");
        command
    });
    (running, ways)
}

fn signal(process: &Process, signal: Signal) {
    let pid = Pid::from_child(&process.0);
    // One that has ended is not waited for yet: the signal is lost on it.
    let _ = kill_process(pid, signal);
}

/// The numbers of the checkpoints in a folder.
fn numbers(checkpoints: &Path) -> impl Iterator<Item = u64> {
    let names = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("chk-")?.parse().ok())
}

/// Leaves what a process would that was killed while it wrote a checkpoint.
fn tear(checkpoints: &Path) {
    let torn = checkpoints.join(format!("chk-{}", numbers(checkpoints).max().unwrap_or(0) + 1));
    std::fs::create_dir_all(&torn).unwrap();
    std::fs::write(torn.join("small.state"), b"half of").unwrap();
    std::fs::write(torn.join("_metadata.tmp"), b"{\"version\": 2, \"epo").unwrap();
}

/// Damages the newest checkpoint, if there is one: its manifest is cut, or a bit of a file it names is another. Tells the
/// file and what stood in it.
fn damage(checkpoints: &Path, random: &mut Random) -> Option<(PathBuf, Vec<u8>)> {
    let is_complete = |number: &u64| checkpoints.join(format!("chk-{number}/_metadata")).is_file();
    let newest = numbers(checkpoints).filter(is_complete).max()?;
    let folder = checkpoints.join(format!("chk-{newest}"));
    let manifest = folder.join("_metadata");
    let bytes = std::fs::read(&manifest).unwrap();
    if random.below(2) == 0 {
        let cut = &bytes[..random.below(bytes.len() as u64) as usize];
        std::fs::write(&manifest, cut).unwrap();
        return Some((manifest, bytes));
    }
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    let operators = read["operators"].as_object().unwrap().values();
    let sections: Vec<&Value> = operators.flat_map(|operator| operator["sections"].as_array().unwrap()).collect();
    let number = |section: &Value, name: &str| section[name].as_u64().unwrap();
    // With fewer subtasks than before, all but the first copy of a broadcast state may be left unread: they are alike.
    let is_read = |section: &&Value| {
        number(section, "length") > 0 && (section["name"] != "known" || number(section, "subtask") == 0)
    };
    let sections: Vec<&Value> = sections.into_iter().filter(is_read).collect();
    let section = sections.get(random.below(sections.len().max(1) as u64) as usize)?;
    let file = folder.join(section["file"].as_str().unwrap());
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let at = number(section, "offset") + random.below(number(section, "length"));
    damaged[at as usize] ^= 1 << random.below(8);
    std::fs::write(&file, damaged).unwrap();
    Some((file, whole))
}

/// The lines of all part files that can be seen, sorted.
pub fn published(out: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for part in std::fs::read_dir(out).into_iter().flatten().flatten() {
        let name = part.file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "nothing unpublished is left behind: {name}");
        lines.extend(std::fs::read_to_string(part.path()).unwrap().lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

/// The first lines that are in one and not, or not so often, in the other.
pub fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let mut left = std::collections::HashMap::<&str, i64>::new();
    other.iter().for_each(|line| *left.entry(line).or_default() += 1);
    let extra = one.iter().filter(|line| {
        let left = left.entry(line).or_default();
        *left -= 1;
        *left < 0
    });
    extra.take(10).cloned().collect()
}
