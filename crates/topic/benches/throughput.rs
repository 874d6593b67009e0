//! How fast a topic takes and gives records, how soon another handle sees a commit, and what watching costs.
//!
//! `cargo bench -p tidemill-topic --bench throughput [folder]`; every append is on disk before the next begins, so
//! the figures for appends are mostly those of the disk: the first lines tell what one synchronous write costs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidemill_topic::{NewRecord, ReadOutcome, Topic, TopicConfig, Topics};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let folder = given.map_or_else(std::env::temp_dir, PathBuf::from).join("tidemill-topic-bench");
    std::fs::create_dir_all(&folder)?;
    disk(&folder.join("disk"))?;
    let topics = Topics::open(&folder)?;
    for (appends, batch, writers) in [(300, 1_000, 1), (100, 10_000, 1), (40, 50_000, 1), (100, 1_000, 4)] {
        append_and_read(&topics, appends, batch, writers)?;
    }
    watching(&topics)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn disk(path: &std::path::Path) -> Outcome<()> {
    let mut file = File::create(path)?;
    let block = vec![7; 110_000];
    let begin = Instant::now();
    for _ in 0..50 {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    println!("disk: write + sync of 110 KB takes {:.2} ms", begin.elapsed().as_secs_f64() * 1e3 / 50.0);
    Ok(())
}

fn append_and_read(topics: &Topics, appends: usize, batch: usize, writers: usize) -> Outcome<()> {
    let name = format!("t{batch}-{writers}");
    let topic = topics.create(&name, &TopicConfig { partitions: 4, ..TopicConfig::default() })?;
    let value = [b'v'; 100];
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let topic = topic.clone();
            scope.spawn(move || {
                let records: Vec<NewRecord> = (0..batch)
                    .map(|i| NewRecord { partition: writer as u32, timestamp_ms: i as i64, key: None, value: &value })
                    .collect();
                for append in 0..appends {
                    if let Err(error) = topic.append(&records, None, append as i64) {
                        eprintln!("{error}");
                    }
                }
            });
        }
    });
    let records = (appends * batch * writers) as f64;
    let rate = records / begin.elapsed().as_secs_f64() / 1e6;
    println!("append, {writers} writers, {batch} records of 100 bytes a time: {rate:.2} M records/s");
    let begin = Instant::now();
    let mut read = 0u64;
    let mut sum = 0u64;
    for partition in 0..topic.partitions() {
        let mut offset = 0;
        while let ReadOutcome::Batches(batches) = topic.read(partition, offset, 4 << 20)? {
            let Some(last) = batches.last() else { break };
            offset = last.next_offset();
            for record in batches.iter().flatten() {
                read += 1;
                sum += u64::from(record.value[0]) + record.timestamp_ms as u64;
            }
        }
    }
    let rate = read as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("read the same: {rate:.2} M records/s (sum {sum})");
    topics.delete(&name)?;
    Ok(())
}

fn watching(topics: &Topics) -> Outcome<()> {
    let topic = topics.create("watched", &TopicConfig::default())?;
    topic.append(&[NewRecord { partition: 0, timestamp_ms: 0, key: None, value: b"x" }], None, 0)?;
    per_call("Topic::change_version", || Ok(topic.change_version()? as u64))?;
    per_call("Topic::latest", || Ok(topic.latest(0)?))?;
    let log = topics.folder().join("watched.topic-wal");
    per_call("stat of the log", || {
        let metadata = std::fs::metadata(&log)?;
        Ok(metadata.mtime_nsec() as u64 ^ metadata.len())
    })?;
    let index = File::open(topics.folder().join("watched.topic-shm"))?;
    per_call("48 bytes of the log's index", || {
        let mut head = [0; 48];
        index.read_exact_at(&mut head, 0)?;
        Ok(u64::from(head[8]))
    })?;
    idle_cost(&topic)
}

fn per_call(what: &str, mut call: impl FnMut() -> Outcome<u64>) -> Outcome<()> {
    const CALLS: u32 = 20_000;
    let begin = Instant::now();
    let mut sum = 0u64;
    for _ in 0..CALLS {
        sum = sum.wrapping_add(call()?);
    }
    std::hint::black_box(sum);
    println!("{what}: {:.2} µs", begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
    Ok(())
}

/// The processor time of asking every few milliseconds, from `/proc/self/stat`.
fn idle_cost(topic: &Topic) -> Outcome<()> {
    let gate = (std::sync::Mutex::new(()), std::sync::Condvar::new());
    let before = cpu_ticks()?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        topic.change_version()?;
        let guard = gate.0.lock().map_err(|_| "poisoned")?;
        drop(gate.1.wait_timeout(guard, Duration::from_millis(8)));
    }
    let percent = (cpu_ticks()? - before) as f64 / begin.elapsed().as_secs_f64();
    println!("asking every 8 ms: {percent:.2} % of a core");

    let mut watch = topic.watch()?;
    let before = cpu_ticks()?;
    let begin = Instant::now();
    watch.wait(Duration::from_secs(10))?;
    let percent = (cpu_ticks()? - before) as f64 / begin.elapsed().as_secs_f64();
    println!("Topic::watch, idle: {percent:.2} % of a core");
    latency(topic, watch)?;
    Ok(())
}

/// From the return of an append in one thread to the record in the hands of another.
fn latency(topic: &Topic, mut watch: tidemill_topic::Watch) -> Outcome<()> {
    const APPENDS: usize = 500;
    let (sent, appended) = std::sync::mpsc::channel::<Instant>();
    let (heard, next) = std::sync::mpsc::channel::<()>();
    let writer = topic.clone();
    let writing = std::thread::spawn(move || {
        for _ in 0..APPENDS {
            let record = NewRecord { partition: 1, timestamp_ms: 0, key: None, value: b"x" };
            let done = writer.append(&[record], None, 0).map(|_| Instant::now());
            if done.map(|at| sent.send(at)).is_err() || next.recv().is_err() {
                return;
            }
        }
    });
    let mut took = Vec::new();
    let mut offset = 0;
    while took.len() < APPENDS {
        watch.wait(Duration::from_secs(10))?;
        let ReadOutcome::Batches(batches) = topic.read(1, offset, 1 << 20)? else {
            continue;
        };
        let Some(last) = batches.last() else { continue };
        let now = Instant::now();
        offset = last.next_offset();
        took.push(now.saturating_duration_since(appended.recv()?));
        heard.send(())?;
    }
    writing.join().map_err(|_| "the writer panicked")?;
    took.sort();
    println!("append to read: median {:?}, p99 {:?}", took[APPENDS / 2], took[APPENDS * 99 / 100]);
    Ok(())
}

/// User and system time of this process, in ticks of 10 ms.
fn cpu_ticks() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("odd stat")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
