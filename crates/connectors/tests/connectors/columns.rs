//! Records decoded into columns: what becomes a row, what is refused and why, and that each row comes once also after
//! restores at any point.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use tidemill_connectors::conformance::Driven;
use tidemill_connectors::file::FileSource;
use tidemill_connectors::format::columns::{ColumnSource, CsvColumns, JsonColumns};
use tidemill_connectors::topic::TopicSource;
use tidemill_core::source::Source;
use tidemill_core::{ColumnBatch, DeadLetter};
use tidemill_topic::{NewRecord, TopicConfig, Topics};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("user", DataType::Utf8, true),
        Field::new("paid", DataType::Boolean, true),
        Field::new("count", DataType::Int32, true),
        Field::new("price", DataType::Decimal128(9, 2), true),
        Field::new("weight", DataType::Float64, true),
    ]))
}

/// All rows as text (decimals in units of their scale), with the dead letters, read by one subtask that is stopped and restored after every `pieces` batches
/// and dead letters.
fn read(source: &dyn Source<ColumnBatch>, pieces: usize) -> (Vec<(i64, String)>, Vec<DeadLetter>) {
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    let mut splits = source.splits().unwrap();
    loop {
        let mut reader = Driven::start(source, 0, 1, &splits);
        let ended = reader.run_until(1024, |reader| reader.count >= pieces);
        splits = reader.snapshot();
        for batch in reader.records.values().flatten() {
            rows.extend((0..batch.rows()).map(|row| (batch.times_ms()[row], text(batch, row))));
        }
        letters.append(&mut reader.rejected);
        if ended {
            return (rows, letters);
        }
    }
}

fn text(batch: &ColumnBatch, row: usize) -> String {
    let one = batch.slice(row, 1);
    let columns = one.columns().columns().iter().map(|column| {
        let text = format!("{column:?}");
        text.lines().nth(2).unwrap_or_default().trim().trim_end_matches(',').to_string()
    });
    columns.collect::<Vec<String>>().join("|")
}

const LINES: &str = r#"{"id":1,"at":1000,"user":"a","paid":true,"count":3,"price":12.5,"weight":1.5,"more":{"x":[1,2]}}
{"at":2000,"user":null,"count":-4,"price":"0.07","weight":2}
{"user":"no time"}
{"at":3000,"user":"cut
{"at":4000,"user":5}
{"at":5000,"count":3000000000}
{"at":6000,"price":1.234}
[1]
{"at":7000,"user":"twice","user":"\u4e94\n","paid":false,"note":"}"} 
{"at":8000,"user":"x"} y
{"at":9000,"paid":"yes"}
{"at":9500,"user":{"a":1}}
{"at":9900}
"#;

#[test]
fn json_lines_become_columns_and_bad_ones_dead_letters_with_reason_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.ndjson");
    std::fs::write(&path, [LINES.as_bytes(), b"{\"at\":9950,\"note\":\"\xff\"}\n"].concat()).unwrap();
    let format = JsonColumns::new(schema()).unwrap();
    for batch_rows in [1, 2, 100] {
        let path = path.clone();
        let source = ColumnSource::new(format.clone(), move |format| FileSource::new(&path, format)).unwrap();
        let source = source.event_time("at").unwrap().batch_rows(batch_rows);
        let (rows, letters) = read(&source, 1);
        let expected = [
            (1000, "1970-01-01T00:00:01|\"a\"|true|3|1250|1.5"),
            (2000, "1970-01-01T00:00:02|null|null|-4|7|2.0"),
            (7000, "1970-01-01T00:00:07|\"五\\n\"|false|null|null|null"),
            (9900, "1970-01-01T00:00:09.900|null|null|null|null|null"),
        ];
        assert_eq!(rows, expected.map(|(time_ms, text)| (time_ms, text.to_string())));
        let told: Vec<(&str, &str)> = letters
            .iter()
            .map(|letter| (letter.position.rsplit(' ').next().unwrap(), letter.reason.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("3", "missing field `at`"),
                ("4", "not JSON: EOF while parsing a string at column 22"),
                ("5", "field `user`: 5 where text is expected"),
                ("6", "field `count`: 3000000000 where a whole number of 32 bits is expected"),
                ("7", "field `price`: 1.234 where a decimal(9, 2) is expected"),
                ("8", "invalid type: sequence, expected a JSON object"),
                ("10", "not JSON: trailing characters at column 24"),
                ("11", "field `paid`: \"yes\" where a boolean is expected"),
                ("12", "field number 2: an object where a plain value is expected"),
                ("14", "not UTF-8 from byte 19"),
            ]
        );
    }
}

#[test]
fn csv_lines_become_columns_and_bad_ones_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.csv");
    let lines = "at;user;skipped;paid;count;price;weight\n1000;\"a;\"\"b\"\"\";x;TRUE;3;12.5;1e3\n2000;;x;;;;\n;late;x;;;;\n\
                 3000;b;x;maybe;;;\n4000;\"\";x;false;-1;-0.5;0\n5000;short\n";
    std::fs::write(&path, lines).unwrap();
    let names = ["at", "user", "skipped", "paid", "count", "price", "weight"];
    let format = CsvColumns::new(schema(), names).unwrap().delimiter(b';');
    let source = ColumnSource::new(format, move |format| FileSource::new(&path, format).skip_lines(1)).unwrap();
    let (rows, letters) = read(&source.event_time("at").unwrap(), 1);
    let expected = [
        (1000, "1970-01-01T00:00:01|\"a;\\\"b\\\"\"|true|3|1250|1000.0"),
        (2000, "1970-01-01T00:00:02|null|null|null|null|null"),
        (4000, "1970-01-01T00:00:04|\"\"|false|-1|-50|0.0"),
    ];
    assert_eq!(rows, expected.map(|(time_ms, text)| (time_ms, text.to_string())));
    let told: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(
        told,
        [
            "field `at`: \"\" where epoch milliseconds is expected",
            "field `paid`: \"maybe\" where a boolean is expected",
            "2 columns where 7 are expected",
        ]
    );
}

#[test]
fn each_row_comes_once_wherever_reading_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for file in 0..3i64 {
        let mut lines = String::new();
        for n in 0..3_000i64 {
            let line: Value =
                json!({ "skipped": "x".repeat(20), "n": file * 10_000 + n, "word": format!("w{}", n % 7) });
            lines.push_str(&if n % 100 == 99 { "broken".to_string() } else { line.to_string() });
            lines.push('\n');
            expected.extend((n % 100 != 99).then_some(file * 10_000 + n));
        }
        std::fs::write(folder.path().join(format!("{file}.ndjson")), lines).unwrap();
    }
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("word", DataType::Utf8, false), Field::new("n", DataType::Int64, false)]));
    let format = JsonColumns::new(schema).unwrap();
    for (batch_rows, pieces) in [(4096, 1), (700, 2), (97, 30), (1, 1_000)] {
        let path = folder.path().to_path_buf();
        let source = ColumnSource::new(format.clone(), move |format| FileSource::new(&path, format)).unwrap();
        let source = source.event_time("n").unwrap().batch_rows(batch_rows);
        let (rows, letters) = read(&source, pieces);
        let mut got: Vec<i64> = rows.iter().map(|(time_ms, _)| *time_ms).collect();
        got.sort_unstable();
        assert_eq!(got, expected, "{batch_rows} rows a batch, {pieces} pieces");
        assert!(rows.iter().all(|(n, text)| *text == format!("\"w{}\"|{n}", n % 10_000 % 7)));
        assert_eq!(letters.len(), 90);
    }
}

#[test]
fn topics_give_columns_with_their_own_times() {
    let folder = tempfile::tempdir().unwrap();
    let config = TopicConfig { partitions: 1, retention_ms: None, retention_bytes: None };
    let topic = Topics::open(folder.path()).unwrap().create("visits", &config).unwrap();
    let values: Vec<String> = (0..50).map(|n| json!({ "n": n, "user": "u" }).to_string()).collect();
    let record = |(n, value): (i64, _)| NewRecord { partition: 0, timestamp_ms: 500 + n, key: None, value };
    let records: Vec<NewRecord> = (0..).zip(values.iter().map(String::as_bytes)).map(record).collect();
    topic.append(&records, None, 0).unwrap();
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let path = folder.path().to_path_buf();
    let source = ColumnSource::new(JsonColumns::new(schema).unwrap(), move |format| {
        TopicSource::new(&path, "visits", format).bounded(true)
    });
    let (rows, letters) = read(&source.unwrap(), 1);
    assert_eq!(rows, (0..50).map(|n| (500 + n, n.to_string())).collect::<Vec<_>>());
    assert!(letters.is_empty());
}

#[test]
fn formats_that_cannot_work_are_refused() {
    let of = |data_type: DataType, nullable| -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("x", data_type, nullable)]))
    };
    let refused = |error: tidemill_core::Error| assert!(error.to_string().contains("`x`"), "{error}");
    refused(JsonColumns::new(of(DataType::Binary, false)).unwrap_err());
    refused(CsvColumns::new(of(DataType::Utf8, false), ["y"]).unwrap_err());
    for (data_type, nullable) in [(DataType::Utf8, false), (DataType::Int64, true)] {
        let format = JsonColumns::new(of(data_type, nullable)).unwrap();
        let source = ColumnSource::new(format, |format| FileSource::new("lines", format)).unwrap();
        refused(source.event_time("x").err().unwrap());
    }
}
