//! How fast sources give records to a worker, and what a tailing reader costs and takes.
//!
//! `cargo bench -p tidemill-connectors --bench sources`

use std::io::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidemill_connectors::conformance::{Alarm, Driven, write, writer_context};
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::{Csv, Json, Text};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_connectors::topic::{TopicSink, TopicSource};
use tidemill_core::sink::Sink;
use tidemill_core::source::{Poll, ReaderContext, Source, SourceOutput};
use tidemill_topic::{NewRecord, TopicConfig, Topics};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    user: String,
    item: u64,
    amount: f64,
    at: i64,
}

fn order(n: u64) -> Order {
    Order { user: format!("user-{}", n % 1000), item: n, amount: n as f64 / 8.0, at: n as i64 }
}

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    rate("generator, one u64", &GeneratorSource::new("n", |n| n).count(200_000_000))?;
    let text = folder.join("orders.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&text)?);
    for n in 0..1_000_000 {
        writeln!(file, "{}", serde_json::to_string(&order(n))?)?;
    }
    file.flush()?;
    rate("file, text", &FileSource::new(&text, Text))?;
    rate("file, JSON", &FileSource::new(&text, Json::<Order>::new()))?;
    let csv = folder.join("orders.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&csv)?);
    for n in 0..1_000_000 {
        let Order { user, item, amount, at } = order(n);
        writeln!(file, "{user},{item},{amount},{at}")?;
    }
    file.flush()?;
    rate("file, CSV", &FileSource::new(&csv, Csv::<Order>::new()))?;
    topics(folder)
}

fn rate<T: Clone + 'static>(what: &str, source: &dyn Source<T>) -> Outcome<()> {
    let (alarm, waker) = Alarm::new();
    let clock = std::sync::Arc::new(tidemill_core::SystemClock);
    let mut reader = source.reader(ReaderContext::new(0, 1, waker, clock))?;
    reader.add_splits(source.splits()?)?;
    let mut output = SourceOutput::with_capacity(4096);
    let begin = Instant::now();
    let mut count = 0;
    loop {
        let polled = reader.poll(&mut output)?;
        count += output.take().0.len();
        match polled {
            Poll::More => {}
            Poll::End => break,
            Poll::Pending { .. } => drop(alarm.wait(Duration::from_secs(10))),
        }
    }
    let per_second = count as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("{what}: {per_second:.2} M records/s ({count} records)");
    Ok(())
}

fn topics(folder: &std::path::Path) -> Outcome<()> {
    let topics = Topics::open(folder)?;
    let topic = topics.create("orders", &TopicConfig::default())?;
    let sink = TopicSink::new(folder, "orders", Json::<Order>::new()).key(|order: &Order| order.user.clone().into());
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker))?;
    let begin = Instant::now();
    for chunk in 0..1000 {
        let batch = (chunk * 1000..chunk * 1000 + 1000).map(|n| (n as i64, order(n))).collect();
        write(&mut *writer, &alarm, batch);
    }
    let tokens = writer.pre_commit(1)?()?;
    let committer = sink.committer(&tidemill_connectors::conformance::scope())?;
    committer.ok_or("no committer")?.commit(&tokens)?;
    let per_second = 1.0 / begin.elapsed().as_secs_f64();
    println!("topic sink, exactly once, JSON: {per_second:.2} M records/s (1 M records in one epoch)");
    rate("topic source, text", &TopicSource::new(folder, "orders", Text).bounded(true))?;
    rate("topic source, JSON", &TopicSource::new(folder, "orders", Json::<Order>::new()).bounded(true))?;

    let source = TopicSource::new(folder, "orders", Text);
    let mut driven = Driven::start(&source, 0, 1, &source.splits()?);
    driven.run_until(4096, |driven| driven.count == 1_000_000);
    let before = cpu_ticks()?;
    let (alarm, _waker) = Alarm::new();
    alarm.wait(Duration::from_secs(20));
    let percent = (cpu_ticks()? - before) as f64 / 20.0;
    println!("topic source, idle: {percent:.2} % of a core");

    let mut took = Vec::new();
    for n in 0..500 {
        let record = NewRecord { partition: n % 4, timestamp_ms: 0, key: None, value: b"{}" };
        topic.append(&[record], None, 0)?;
        let appended = Instant::now();
        let goal = driven.count + 1;
        driven.run_until(10, |driven| driven.count == goal);
        took.push(appended.elapsed());
    }
    took.sort();
    println!("topic, append to emitted: median {:?}, p99 {:?}", took[250], took[495]);
    Ok(())
}

/// User and system time of this process, in ticks of 10 ms.
fn cpu_ticks() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("odd stat")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
