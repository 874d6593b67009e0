//! Files that describe their own records, as columns: what they give, also after restores at any point, and how bad files
//! are told.

use std::path::Path;
use std::sync::Arc;

use apache_avro::types::{Record, Value};
use apache_avro::{Codec, Writer};
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, Int16Array, Int64Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tidemill_connectors::conformance::{Driven, check_bounded_source};
use tidemill_connectors::file::{AvroFiles, ContainerSource, ParquetFiles};
use tidemill_core::source::{Assignment, Boundedness, Poll, ReaderContext, Source, SourceOutput, SourceReader, Split};
use tidemill_core::{ColumnBatch, Result};

/// The batches of a source as text, which has an order.
struct AsText<S>(S);

struct TextReader(Box<dyn SourceReader<ColumnBatch>>);

fn text(batch: &ColumnBatch) -> String {
    format!("{:?} {:?}", batch.times_ms(), batch.columns().columns())
}

impl<S: Source<ColumnBatch>> Source<String> for AsText<S> {
    fn name(&self) -> String {
        self.0.name()
    }
    fn boundedness(&self) -> Boundedness {
        self.0.boundedness()
    }
    fn splits(&self) -> Result<Vec<Split>> {
        self.0.splits()
    }
    fn assignment(&self) -> Assignment {
        self.0.assignment()
    }
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn SourceReader<String>>> {
        Ok(Box::new(TextReader(self.0.reader(context)?)))
    }
}

impl SourceReader<String> for TextReader {
    fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.0.add_splits(splits)
    }
    fn poll(&mut self, output: &mut SourceOutput<String>) -> Result<Poll> {
        let mut batches = SourceOutput::with_capacity(output.room());
        let poll = self.0.poll(&mut batches)?;
        batches.take_rejected().into_iter().for_each(|letter| output.reject(letter));
        let finished = batches.take_finished();
        let (records, runs) = batches.take();
        let mut begin = 0;
        for (split, end) in runs {
            records[begin..end].iter().for_each(|(time_ms, batch)| output.push(split, *time_ms, text(batch)));
            begin = end;
        }
        finished.into_iter().for_each(|split| output.finish_split(split));
        Ok(poll)
    }
    fn snapshot(&mut self) -> Result<Vec<Split>> {
        self.0.snapshot()
    }
}

/// Everything a source gives, by one subtask: the batches, and how often it refused a record.
pub fn all(source: &dyn Source<ColumnBatch>) -> (Vec<ColumnBatch>, Vec<String>) {
    let mut reader = Driven::start(source, 0, 1, &source.splits().unwrap());
    assert!(reader.run_until(1024, |_| false));
    let told = reader.rejected.iter().map(|letter| format!("{}: {}", letter.position, letter.reason)).collect();
    (reader.records.values().flatten().cloned().collect(), told)
}

pub fn rows(batches: &[ColumnBatch]) -> usize {
    batches.iter().map(ColumnBatch::rows).sum()
}

/// What a source fails with.
pub fn failure(source: &dyn Source<ColumnBatch>) -> String {
    let context = ReaderContext::new(0, 1, std::task::Waker::noop().clone(), Arc::new(tidemill_core::SystemClock));
    let mut reader = source.reader(context).unwrap();
    reader.add_splits(source.splits().unwrap()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        assert!(std::time::Instant::now() < deadline, "the source fails within a minute");
        match reader.poll(&mut SourceOutput::with_capacity(16)) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => return error.to_string(),
        }
    }
}

const AVRO: &str = r#"{"type":"record","name":"visit","fields":[
    {"name":"user","type":["null","string"]},
    {"name":"other","type":{"type":"array","items":"long"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
    {"name":"kind","type":{"type":"enum","name":"kind","symbols":["view","buy"]}},
    {"name":"count","type":["long","string"]}]}"#;

fn avro_file(path: &Path, count: i64) {
    let schema = apache_avro::Schema::parse_str(AVRO).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), Codec::Deflate(Default::default())).unwrap();
    for n in 0..count {
        let mut record = Record::new(writer.schema()).unwrap();
        let user = if n % 5 > 0 { Value::String(format!("user {}", n % 7)) } else { Value::Null };
        record.put("user", Value::Union(u32::from(n % 5 > 0), Box::new(user)));
        record.put("other", Value::Array(vec![Value::Long(n)]));
        record.put("at", Value::TimestampMicros(n * 1_500));
        record.put("price", Value::Decimal((-n * 25).to_be_bytes().into()));
        record.put("kind", Value::Enum((n % 2) as u32, ["view", "buy"][(n % 2) as usize].to_string()));
        let bad = n == 1_500;
        let value = if bad { Value::String("many".to_string()) } else { Value::Long(n) };
        record.put("count", Value::Union(u32::from(bad), Box::new(value)));
        writer.append_value(record).unwrap();
    }
    std::fs::write(path, writer.into_inner().unwrap()).unwrap();
}

pub fn visits(scale: i8) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("price", DataType::Decimal128(12, scale), false),
        Field::new("user", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, false),
        Field::new("count", DataType::Int64, false),
        Field::new("absent", DataType::Boolean, true),
    ]))
}

/// The fourth visit has its columns and its time, and the batches of the source come once, wherever reading goes on.
pub fn are_visits_once_also_after_restores(source: impl Source<ColumnBatch>, batches: &[ColumnBatch]) {
    let first = batches.iter().find(|batch| batch.rows() == 1024).unwrap().slice(3, 1);
    let cells: Vec<String> = first
        .columns()
        .columns()
        .iter()
        .map(|column| format!("{column:?}").lines().nth(2).unwrap().trim().to_string())
        .collect();
    assert_eq!(cells, ["1970-01-01T00:00:00.004,", "-75,", "\"user 3\",", "\"buy\",", "3,", "null,"]);
    assert_eq!(first.times_ms(), [4]);
    let texts: Vec<String> = batches.iter().map(text).collect();
    check_bounded_source(&AsText(source), &texts, 1);
}

#[test]
fn avro_files_give_the_columns_asked_for_once_also_after_restores() {
    let folder = tempfile::tempdir().unwrap();
    avro_file(&folder.path().join("a.avro"), 3_000);
    avro_file(&folder.path().join("b.avro"), 10);
    let source = ContainerSource::new(folder.path(), AvroFiles::new(visits(2)).unwrap()).event_time("at").unwrap();
    let (batches, refused) = all(&source);
    assert_eq!(rows(&batches), 3_009);
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].ends_with("a.avro record 1501: field `count`: \"many\" where a whole number of 64 bits is expected")
    );
    are_visits_once_also_after_restores(source, &batches);
}

#[test]
fn bad_avro_files_are_told_with_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.avro");
    avro_file(&path, 3_000);
    let of = |scale| failure(&ContainerSource::new(&path, AvroFiles::new(visits(scale)).unwrap()));
    assert!(of(3).contains("field `price` is a decimal of scale 2, and its column of scale 3"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let told = of(2);
    assert!(told.contains("a.avro` behind record") && told.contains("not to be read as Avro"), "{told}");
    std::fs::write(&path, b"no avro at all").unwrap();
    assert!(of(2).contains("a.avro` behind record 0"));
}

/// Visits in row groups of 700; count 1,500 has no kind.
fn parquet_file(path: &Path, count: i64, compression: Compression) {
    let numbers = || 0..count;
    let prices = PrimitiveArray::<Decimal128Type>::from_iter_values(numbers().map(|n| i128::from(-n * 25)));
    let kinds = numbers().map(|n| (n != 1_500).then_some(["view", "buy"][(n % 2) as usize]));
    let users = numbers().map(|n| (n % 5 > 0).then(|| format!("user {}", n % 7)));
    let times = numbers().map(|n| n * 1_500);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("user", Arc::new(users.collect::<StringArray>())),
        ("at", Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter_values(times))),
        ("price", Arc::new(prices.with_precision_and_scale(9, 2).unwrap())),
        ("kind", Arc::new(kinds.collect::<StringArray>())),
        ("count", Arc::new(Int16Array::from_iter_values(numbers().map(|n| n as i16)))),
        ("other", Arc::new(Int64Array::from_iter_values(numbers()))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(700)).set_compression(compression);
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties.build())).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_files_give_the_columns_asked_for_once_also_after_restores() {
    let folder = tempfile::tempdir().unwrap();
    parquet_file(&folder.path().join("a.parquet"), 3_000, Compression::SNAPPY);
    parquet_file(&folder.path().join("b.parquet"), 10, Compression::ZSTD(Default::default()));
    parquet_file(&folder.path().join("c.parquet"), 10, Compression::GZIP(Default::default()));
    parquet_file(&folder.path().join("d.parquet"), 10, Compression::LZ4_RAW);
    let source = ContainerSource::new(folder.path(), ParquetFiles::new(visits(2)).unwrap()).event_time("at").unwrap();
    let (batches, refused) = all(&source);
    assert_eq!(rows(&batches), 3_029);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].ends_with("a.parquet record 1501: field `kind` is missing"), "{refused:?}");
    are_visits_once_also_after_restores(source, &batches);
}

#[test]
fn bad_parquet_files_are_told_with_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet_file(&path, 3_000, Compression::SNAPPY);
    let of = |scale| failure(&ContainerSource::new(&path, ParquetFiles::new(visits(scale)).unwrap()));
    let told = of(3);
    assert!(told.contains("its column `price` is Decimal128(9, 2), and Decimal128(12, 3) is wanted"), "{told}");
    let bytes = std::fs::read(&path).unwrap();
    // The first page is damaged, then the end is missing.
    let mut damaged = bytes.clone();
    damaged[8..300].fill(0xff);
    std::fs::write(&path, damaged).unwrap();
    let told = of(2);
    assert!(told.contains("a.parquet` behind record") && told.contains("not to be read as Parquet"), "{told}");
    std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    assert!(of(2).contains("not to be read as Parquet"));
    std::fs::write(&path, b"no parquet at all").unwrap();
    assert!(of(2).contains("a.parquet` behind record 0"));
}
