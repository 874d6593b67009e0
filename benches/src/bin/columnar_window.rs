//! The columnar lane against the typed one, and NDJSON decoded into columns.
//!
//! 1. Tumbling count and sum for each key, generated in memory: typed values against column batches, few keys and many, in one
//!    run and in turns. Wanted: columns at least 0.7 of values.
//! 2. An NDJSON file, about 200 bytes a line, 3 of 10 fields used, to a tumbling count for each key. Wanted: at least 2 M lines
//!    in a second of processor time, reading thread and worker together.
//!
//! `columnar_window [rows in millions] [lines in millions] [rounds]`

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tidemill_benches::{Failure, cpu_seconds, load, median, number};
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::columns::{ColumnSource, JsonColumns};
use tidemill_connectors::generator::GeneratorSource;
use tidemill_core::ColumnBatch;
use tidemill_engine::columnar::{AggregateCall, ColumnStream};
use tidemill_engine::stream::WatermarkStrategy;
use tidemill_engine::window::{Aggregate, Tumbling, Window};
use tidemill_engine::{Environment, JobSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WORKERS: usize = 2;
const ROWS_PER_MS: i64 = 1_000;
const WINDOW: Duration = Duration::from_secs(10);
/// Rows of a generated batch.
const BATCH_ROWS: i64 = 1024;

/// The key of row `index`: skewed, K·u³.
#[inline]
fn key(index: i64, keys: i64) -> i64 {
    let mixed = (index as u64 ^ (index as u64 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let u = (mixed >> 11) as f64 / (1u64 << 53) as f64;
    (keys as f64 * u * u * u) as i64
}

fn digest(key: i64, count: i64, sum: i64) -> i64 {
    (key.wrapping_mul(31).wrapping_add(count)).wrapping_mul(0x9e37_79b9).wrapping_add(sum)
}

#[derive(Clone)]
struct CountSum;

impl Aggregate<(i64, i64)> for CountSum {
    type Accumulator = (i64, i64);
    type Output = (i64, i64);

    fn create(&self) -> (i64, i64) {
        (0, 0)
    }
    #[inline]
    fn add(&mut self, held: &mut (i64, i64), value: (i64, i64)) {
        (held.0, held.1) = (held.0 + 1, held.1.wrapping_add(value.1));
    }
    fn merge(&mut self, held: &mut (i64, i64), other: (i64, i64)) {
        (held.0, held.1) = (held.0 + other.0, held.1.wrapping_add(other.1));
    }
    fn result(&mut self, held: (i64, i64)) -> (i64, i64) {
        held
    }
}

fn environment(workers: usize) -> Environment {
    Environment::with_settings(JobSettings { parallelism: Some(workers), ..JobSettings::default() })
}

fn typed(rows: i64, keys: i64) -> i64 {
    let env = environment(WORKERS);
    let source = GeneratorSource::new("rows", move |index| (key(index as i64, keys), index as i64))
        .count(rows as u64)
        .split_count(WORKERS as u32);
    let strategy = WatermarkStrategy::monotonous().with_timestamps(|row: &(i64, i64), _| row.1 / ROWS_PER_MS);
    let total = Arc::new(AtomicI64::new(0));
    let add = total.clone();
    env.from_source(source, strategy, "rows")
        .key_by(|row: &(i64, i64)| row.0)
        .window(Tumbling::event_time(WINDOW))
        .aggregate_with(CountSum, |key: &i64, _: Window, (count, sum)| Some(digest(*key, count, sum)))
        .filter(move |digest| {
            add.fetch_add(*digest, Ordering::Relaxed);
            false
        })
        .collect();
    env.execute("typed").expect("the bench job runs");
    total.load(Ordering::Relaxed)
}

/// Adds up the digests of results.
fn digested(results: &ColumnStream, key: &'static str) -> Arc<AtomicI64> {
    let total = Arc::new(AtomicI64::new(0));
    let add = total.clone();
    let digests = results.batches().filter(move |batch| {
        let numbers = |name: &str| batch.column(name).expect("a column").as_primitive::<Int64Type>().clone();
        let (keys, counts, sums) = (numbers(key), numbers("count"), numbers("sum"));
        let digests = keys.values().iter().zip(counts.values()).zip(sums.values());
        add.fetch_add(
            digests.fold(0, |all, ((key, count), sum)| all.wrapping_add(digest(*key, *count, *sum))),
            Ordering::Relaxed,
        );
        false
    });
    digests.collect();
    total
}

fn columnar(rows: i64, keys: i64) -> i64 {
    let env = environment(WORKERS);
    let fields = ["key", "value"].map(|name| Field::new(name, DataType::Int64, false));
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let of = schema.clone();
    let batch = move |number: u64| {
        let first = number as i64 * BATCH_ROWS;
        let range = first..(first + BATCH_ROWS).min(rows);
        let columns: [ArrayRef; 2] = [
            Arc::new(Int64Array::from_iter_values(range.clone().map(|index| key(index, keys)))),
            Arc::new(Int64Array::from_iter_values(range.clone())),
        ];
        let columns = RecordBatch::try_new(of.clone(), columns.to_vec()).expect("columns of the schema");
        let times: Vec<i64> = range.map(|index| index / ROWS_PER_MS).collect();
        ColumnBatch::new(columns).with_times(times.into()).expect("a time a row")
    };
    let source = GeneratorSource::new("rows", batch)
        .count((rows as u64).div_ceil(BATCH_ROWS as u64))
        .split_count(WORKERS as u32);
    let strategy = WatermarkStrategy::monotonous().with_timestamps(|batch: &ColumnBatch, _| batch.latest_ms());
    let results = env
        .from_columns(source, schema, strategy, "rows")
        .key_by(&["key"])
        .expect("a key")
        .window(Tumbling::event_time(WINDOW))
        .aggregate(&[AggregateCall::count("count"), AggregateCall::sum("value", "sum")])
        .expect("aggregations");
    let total = digested(&results, "key");
    env.execute("columnar").expect("the bench job runs");
    total.load(Ordering::Relaxed)
}

fn lanes(rows: i64, rounds: u64) {
    for keys in [1_000, 1_000_000] {
        let mut rates = [Vec::new(), Vec::new()];
        let expected = typed(rows, keys);
        for _ in 0..rounds {
            for (run, rates) in [typed, columnar].iter().zip(&mut rates) {
                let cpu = cpu_seconds("self");
                assert_eq!(run(rows, keys), expected, "both lanes come to the same results");
                rates.push(rows as f64 / (cpu_seconds("self") - cpu) / 1e6);
            }
        }
        let [typed, columnar] = rates.map(|mut rates| median(&mut rates));
        println!(
            "count and sum, {keys} keys: values {typed:.1} M rows a CPU second, columns {columnar:.1}: {:.2}",
            columnar / typed
        );
    }
}

/// The `n`-th line: ten fields, about 200 bytes.
fn line(n: u64) -> String {
    format!(
        "{{\"id\":{n},\"ts\":{},\"user\":\"user-{}\",\"amount\":{},\"currency\":\"CNY\",\"city\":\"Guangzhou\",\
         \"status\":\"paid\",\"note\":\"thank you for the order\",\"device\":\"mobile app 5.1, zh-CN\",\"address\":\"10.0.{}.{}\"}}\n",
        1_700_000_000_000 + n / 10,
        n.wrapping_mul(0x9e37_79b9) % 5_000,
        n % 977,
        n % 256,
        n % 199
    )
}

fn ndjson(lines: u64, rounds: u64) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("lines.ndjson");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let mut bytes = 0;
    for n in 0..lines {
        let line = line(n);
        bytes += line.len();
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Int64, false),
        Field::new("user", DataType::Utf8, false),
        Field::new("amount", DataType::Int64, false),
    ]));
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let env = environment(1);
        let from = path.clone();
        let format = JsonColumns::new(schema.clone())?;
        let source = ColumnSource::new(format, move |format| FileSource::new(&from, format))?.event_time("ts")?;
        let counted = env
            .from_columns(source, schema.clone(), WatermarkStrategy::monotonous(), "lines")
            .key_by(&["user"])?
            .window(Tumbling::event_time(WINDOW))
            .aggregate(&[AggregateCall::count("count"), AggregateCall::sum("amount", "sum")])?;
        let total = Arc::new(AtomicI64::new(0));
        let add = total.clone();
        let counts = counted.batches().filter(move |batch| {
            let counts = batch.column("count").expect("a column").as_primitive::<Int64Type>().clone();
            add.fetch_add(counts.values().iter().sum(), Ordering::Relaxed);
            false
        });
        counts.collect();
        let (begin, cpu) = (Instant::now(), cpu_seconds("self"));
        env.execute("ndjson")?;
        times.push(lines as f64 / begin.elapsed().as_secs_f64() / 1e6);
        rates.push(lines as f64 / (cpu_seconds("self") - cpu) / 1e6);
        assert_eq!(total.load(Ordering::Relaxed), lines as i64, "every line is counted once");
    }
    println!(
        "NDJSON, {} bytes a line, 3 of 10 fields, tumbling count a key: {:.2} M lines a CPU second, {:.2} M lines/s",
        bytes as u64 / lines,
        median(&mut rates),
        median(&mut times)
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let (rows, lines, rounds) = (number(1, 30) as i64 * 1_000_000, number(2, 5) * 1_000_000, number(3, 3));
    println!(
        "{WORKERS} workers, {} M rows, {} M lines, median of {rounds}, load {}",
        rows / 1_000_000,
        lines / 1_000_000,
        load()
    );
    lanes(rows, rounds);
    ndjson(lines, rounds)
}
