//! Programs on the typed DataStream API that `benches/flink/FlinkCases.java` has too, over the same files: word count,
//! keyed window count, windowed join and session windows; and state on disk that is much larger than the memory for it, which
//! is in RocksDB there. `make bench-flink` runs both in turns and compares.
//!
//! Figures wanted: at least ten times Flink's events/s for a CPU second, at most a tenth of its memory.
//!
//! `flink_cases`                               makes small files and runs the first four alone
//! `flink_cases make <folder> <thousand lines>`  writes the files, always the same for the same number
//! `flink_cases run <case> <folder>`           runs one case; says `{"count", "checksum", "seconds"}` of its results

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use tidemill_benches::{Failure, cpu_seconds, load, resident_mb};
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::Text;
use tidemill_core::Data;
use tidemill_core::format::Decode;
use tidemill_engine::state::ValueState;
use tidemill_engine::stream::{
    DataStream, KeyedContext, KeyedProcessFunction, ProcessContext, ProcessFunction, WatermarkStrategy,
};
use tidemill_engine::window::{Count, Session, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CASES: [&str; 4] = ["word_count", "window_count", "window_join", "session"];

/// Subtasks of every operator, and files of every input: one file a subtask.
const PARALLELISM: u64 = 2;
const WINDOW: Duration = Duration::from_secs(10);
/// Of state that is to be large, beside two numbers.
const NOTE_BYTES: usize = 100;
/// Odd, where all times are even: no record comes exactly at a session's end, where what it joins would hang on how far
/// the watermark had come.
const GAP: Duration = Duration::from_millis(1_001);
/// Records come out of order by less than this.
const LATENESS_MS: u64 = 500;
const FIRST_MS: u64 = 1_700_000_000_000;
const EVENTS_PER_MS: u64 = 40;
const KEYS: u64 = 200_000;
const WORDS: u64 = 20_000;
const WORDS_A_LINE: u64 = 10;

/// The number of random bits wanted, from where it is wanted (splitmix64).
fn random(place: u64) -> u64 {
    let mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `most`, small ones far more often: most · u³.
fn skewed(place: u64, most: u64) -> u64 {
    let u = (random(place) >> 11) as f64 / (1u64 << 53) as f64;
    (most as f64 * u * u * u) as u64
}

/// The files of one input, of `lines` lines together.
fn make_input(
    folder: &Path,
    lines: u64,
    mut line: impl FnMut(&mut dyn Write, u64) -> std::io::Result<()>,
) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for part in 0..PARALLELISM {
        let mut out = BufWriter::new(File::create(folder.join(format!("part-{part}.txt")))?);
        for index in (part..lines).step_by(PARALLELISM as usize) {
            line(&mut out, index)?;
        }
        out.flush()?;
    }
    Ok(())
}

fn make(folder: &Path, lines: u64) -> Result<(), Failure> {
    make_input(&folder.join("words"), lines / WORDS_A_LINE, |out, index| {
        for word in index * WORDS_A_LINE..(index + 1) * WORDS_A_LINE {
            let (number, separator) = (skewed(word, WORDS), if word % WORDS_A_LINE == 0 { "" } else { " " });
            // Two to nine letters.
            let letters = random(number).to_le_bytes().map(|byte| b'a' + byte % 26);
            out.write_all(separator.as_bytes())?;
            out.write_all(&letters[..2 + (number % 7) as usize])?;
        }
        out.write_all(b"\n")
    })?;
    let event = |out: &mut dyn Write, index: u64, key: u64, per_ms: u64| {
        let time_ms = FIRST_MS + 2 * (index / per_ms / 2) + random(!index) % (LATENESS_MS / 2) * 2;
        writeln!(out, "{time_ms},{key},{}", random(index) % 1_000)
    };
    make_input(&folder.join("events"), lines, |out, index| event(out, index, skewed(index, KEYS), EVENTS_PER_MS))?;
    // Each key twice, in an order of its own.
    make_input(&folder.join("wide"), lines, |out, index| {
        event(out, index, random(index) % (lines / 2), EVENTS_PER_MS)
    })?;
    for (input, from) in [("orders", 1 << 40), ("payments", 2 << 40)] {
        let key = |index: u64| random(from + index) % KEYS;
        make_input(&folder.join(input), lines / 2, |out, index| event(out, index, key(index), EVENTS_PER_MS / 2))?;
    }
    Ok(())
}

/// A line `time_ms,key,value`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Event {
    time_ms: i64,
    key: u64,
    value: u64,
}

/// Splits by hand, as the Java program does.
#[derive(Clone)]
struct EventLine;

impl Decode for EventLine {
    type Value = Event;

    fn decode(&mut self, line: &[u8]) -> Result<Event, String> {
        let mut numbers = [0u64; 3];
        let mut field = 0;
        for byte in line {
            match byte {
                b',' if field < 2 => field += 1,
                b'0'..=b'9' => numbers[field] = numbers[field].wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
                _ => return Err("not three numbers with commas between".into()),
            }
        }
        Ok(Event { time_ms: numbers[0] as i64, key: numbers[1], value: numbers[2] })
    }
}

fn events(env: &Environment, folder: &Path, input: &str) -> DataStream<Event> {
    let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(LATENESS_MS))
        .with_timestamps(|event: &Event, _| event.time_ms);
    env.from_source(FileSource::new(folder.join(input), EventLine), strategy, input)
}

/// How many results came, and the sum of their digests: the same in whatever order they come. A subtask adds its part at
/// its end, as Flink's accumulators do.
#[derive(Clone, Default)]
struct Tally(Arc<(AtomicU64, AtomicU64)>);

impl Tally {
    /// Takes the place of a sink.
    fn of<T: Data>(&self, results: DataStream<T>, digest: impl Fn(&T) -> u64 + Clone + Send + 'static) {
        results.process(Digests { tally: self.clone(), digest, count: 0, checksum: 0 }).collect();
    }
}

/// Counts the results, sums their digests, and lets none through.
#[derive(Clone)]
struct Digests<F> {
    tally: Tally,
    digest: F,
    count: u64,
    checksum: u64,
}

impl<T: Data, F: Fn(&T) -> u64 + Clone + Send + 'static> ProcessFunction<T, T> for Digests<F> {
    fn process(&mut self, result: T, _: &mut ProcessContext<'_, T>) -> tidemill_core::Result<()> {
        self.count += 1;
        self.checksum = self.checksum.wrapping_add((self.digest)(&result));
        Ok(())
    }

    fn close(&mut self) -> tidemill_core::Result<()> {
        self.tally.0.0.fetch_add(self.count, Ordering::Relaxed);
        self.tally.0.1.fetch_add(self.checksum, Ordering::Relaxed);
        Ok(())
    }
}

fn mix(a: u64, b: u64, c: u64) -> u64 {
    (a.wrapping_mul(31).wrapping_add(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ c.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A line's words: short texts, which stand in the record itself.
#[derive(Clone)]
struct Words;

impl ProcessFunction<String, (CompactString, u64)> for Words {
    fn process(
        &mut self,
        line: String,
        out: &mut ProcessContext<'_, (CompactString, u64)>,
    ) -> tidemill_core::Result<()> {
        // By hand, as the other program does it.
        let mut begin = 0;
        for end in memchr::memchr_iter(b' ', line.as_bytes()).chain([line.len()]) {
            out.emit((line[begin..end].into(), 1))?;
            begin = end + 1;
        }
        Ok(())
    }
}

/// The running count of each word.
fn word_count(env: &Environment, folder: &Path, tally: &Tally) {
    let lines = env.from_source(FileSource::new(folder.join("words"), Text), WatermarkStrategy::none(), "lines");
    let counts = lines.process(Words).key_by_ref(|(word, _)| word.as_str()).sum(|(_, count)| count);
    // A word by its length and its first and last four letters, or two: all of a word of up to eight, in a few steps, where a sum over
    // the letters would cost more than most of the work that is measured.
    tally.of(counts, |(word, count)| {
        let (bytes, four, two) = (word.as_bytes(), u32::from_le_bytes, u16::from_le_bytes);
        let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => (four(*first), four(*last)),
            _ => (bytes.first_chunk().map_or(0, |b| two(*b).into()), bytes.last_chunk().map_or(0, |b| two(*b).into())),
        };
        mix(first.into(), last.into(), mix(bytes.len() as u64, *count, 0))
    });
}

/// How many events of each key in 10 s.
fn window_count(env: &Environment, folder: &Path, tally: &Tally) {
    let counts = events(env, folder, "events")
        .key_by(|event| event.key)
        .window(Tumbling::event_time(WINDOW))
        .aggregate_with(Count, |key: &u64, window: Window, count| Some((*key, window.end_ms, count)));
    tally.of(counts, |(key, end_ms, count)| mix(*key, *end_ms as u64, *count));
}

/// Orders and payments of the same key within 10 s.
fn window_join(env: &Environment, folder: &Path, tally: &Tally) {
    let pairs = events(env, folder, "orders")
        .join(&events(env, folder, "payments"))
        .where_key(|order| order.key)
        .equal_to(|payment| payment.key)
        .window(Tumbling::event_time(WINDOW))
        .apply(|order, payment| Some((order.key, order.value, payment.value)));
    tally.of(pairs, |(key, ordered, paid)| mix(*key, *ordered, *paid));
}

/// How many events each key has in a row, with less than the gap between them.
fn session(env: &Environment, folder: &Path, tally: &Tally) {
    let sessions = events(env, folder, "events")
        .key_by(|event| event.key)
        .window(Session::event_time(GAP))
        .aggregate_with(Count, |key: &u64, window: Window, count| Some((*key, window.start_ms, window.end_ms, count)));
    tally.of(sessions, |(key, start_ms, end_ms, count)| {
        mix(*key, *start_ms as u64, *end_ms as u64).wrapping_add(*count)
    });
}

/// Of each key how many events there were, what they add up to, and a note that makes the state large.
#[derive(Clone)]
struct Balances(ValueState<(u64, u64, Vec<u8>)>);

impl KeyedProcessFunction<u64, Event, (u64, u64)> for Balances {
    fn process(&mut self, event: Event, context: &mut KeyedContext<'_, u64, (u64, u64)>) -> tidemill_core::Result<()> {
        let balance = self.0.get_or(context, || (0, 0, vec![0; NOTE_BYTES]))?;
        balance.0 += 1;
        balance.1 += event.value;
        let note = &mut balance.2[event.value as usize % NOTE_BYTES];
        *note = note.wrapping_add(1);
        let count = balance.0;
        context.emit((event.key, count))
    }
}

/// Reads and writes the state of a key with each event.
fn large_state(env: &Environment, folder: &Path, tally: &Tally) {
    let balances = Balances(ValueState::new("balances"));
    let counts = events(env, folder, "wide").key_by(|event| event.key).process(balances);
    tally.of(counts, |(key, count)| mix(*key, *count, 0));
}

/// Runs a case and tells what came of it, as JSON.
fn run(case: &str, folder: &Path) -> Result<serde_json::Value, Failure> {
    let settings = JobSettings::from_process()?;
    let env = Environment::with_settings(JobSettings { parallelism: Some(PARALLELISM as usize), ..settings });
    let tally = Tally::default();
    match case {
        "word_count" => word_count(&env, folder, &tally),
        "window_count" => window_count(&env, folder, &tally),
        "window_join" => window_join(&env, folder, &tally),
        "session" => session(&env, folder, &tally),
        "large_state" => large_state(&env, folder, &tally),
        _ => return Err(format!("no case `{case}`; there are {}", CASES.join(", ")).into()),
    }
    let begin = Instant::now();
    env.execute(case)?;
    let (count, checksum) = (tally.0.0.load(Ordering::Relaxed), tally.0.1.load(Ordering::Relaxed));
    let seconds = begin.elapsed().as_secs_f64();
    Ok(serde_json::json!({"count": count, "checksum": format!("{checksum:x}"), "seconds": seconds}))
}

/// What can be seen without Flink.
fn alone() -> Result<(), Failure> {
    let (folder, lines) = (tempfile::tempdir()?, 1_000_000);
    make(folder.path(), lines)?;
    println!(
        "Flink's cases alone, {lines} words or events, load {}; `make bench-flink` has Flink's figures too",
        load()
    );
    for case in CASES {
        let cpu = cpu_seconds("self");
        let results = run(case, folder.path())?["count"].clone();
        let cpu = cpu_seconds("self") - cpu;
        let (rate, memory) = (lines as f64 / 1e6 / cpu, resident_mb("self"));
        println!("  {case:<13} {rate:5.2} M events a CPU second   {memory:4.0} MB after it   {results} results");
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => alone(),
        ["make", folder, thousands] => make(Path::new(folder), thousands.parse::<u64>()? * 1_000),
        ["run", case, folder] => {
            println!("{}", run(case, Path::new(folder))?);
            Ok(())
        }
        _ => Err("usage: flink_cases [make <folder> <thousand lines> | run <case> <folder>]".into()),
    }
}
