//! Jobs without a program: records go from a `[source]` into a `[sink]` as they are, exactly once where both can.
//!
//! ```toml
//! name = "archive"
//! [source]
//! connector = "topic"
//! topic = "orders"
//! format = "json"
//! dead_letters = "orders.dead"
//! [sink]
//! connector = "file"
//! folder = "archive"
//! ```
//!
//! Each connector offered here is a line in `source` or `sink` below.

mod database;
mod elasticsearch;
mod kafka;
mod records;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_connectors::blackhole::BlackholeSink;
use tidemill_connectors::file::{FileSink, FileSource};
use tidemill_connectors::format::{Json, Raw};
use tidemill_connectors::http::HttpSink;
use tidemill_connectors::live::LiveSink;
use tidemill_connectors::socket::SocketSource;
use tidemill_connectors::topic::{TopicSink, TopicSource, TopicStart};
use tidemill_core::{Error, Result};
use tidemill_engine::stream::{DataStream, Environment, WatermarkStrategy};

use self::records::{Checked, Record};

/// The options of one end, by name.
pub type Options = BTreeMap<String, String>;

/// Takes options out one by one, so that those left over are unknown.
struct Taken<'a> {
    part: &'a str,
    connector: String,
    left: Options,
    known: Vec<&'static str>,
}

impl<'a> Taken<'a> {
    fn new(part: &'a str, options: &Options) -> Result<Self> {
        let mut left = options.clone();
        let connector = left.remove("connector").ok_or_else(|| Error::input(format!("[{part}] has no `connector`")))?;
        Ok(Taken { part, connector, left, known: Vec::new() })
    }

    fn optional(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name)
    }

    fn required(&mut self, name: &'static str) -> Result<String> {
        self.optional(name).ok_or_else(|| Error::input(format!("[{}] `{}` has no `{name}`", self.part, self.connector)))
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &'static str, default: T) -> Result<T> {
        let (part, connector) = (self.part, self.connector.clone());
        match self.optional(name) {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| Error::input(format!("[{part}] `{connector}`: `{name}` cannot be `{text}`")))
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::input(format!("[{}] `{}` has no option `{name}`", self.part, self.connector))
                .hint(format!("it has: {}", self.known.join(", ")))),
        }
    }

    fn unknown(&self, offered: &str) -> Error {
        Error::input(format!("[{}]: connector `{}` is not offered in job files", self.part, self.connector))
            .hint(format!("take one of {offered}, or write a program"))
    }
}

/// Builds the pipeline on an environment. Relative paths are below `folder`, embedded topics in `<data>/topics`.
pub fn build(env: &Environment, folder: &Path, data: &Path, from: &Options, to: &Options) -> Result<()> {
    let topics = data.join("topics");
    let required = match to.get("connector").map(String::as_str) {
        // A row of a live table has a key.
        Some("live") => to.get("key").map(|key| vec![key.clone()]),
        Some("elasticsearch") => Some(elasticsearch::required(to)),
        _ => None,
    };
    let (records, format) = source(env, folder, &topics, Taken::new("source", from)?, required)?;
    sink(&records, &format, folder, &topics, Taken::new("sink", to)?)
}

fn source(
    env: &Environment,
    folder: &Path,
    topics: &Path,
    mut options: Taken<'_>,
    required: Option<Vec<String>>,
) -> Result<(DataStream<Record>, Checked)> {
    if options.connector == "database" {
        // Rows have names, so they are JSON, whether or not that is said.
        options.left.entry("format".to_string()).or_insert_with(|| "json".to_string());
    }
    let format = Checked::new(&mut options)?;
    let format = match required {
        Some(fields) => format.requiring(fields)?,
        None => format,
    };
    let dead_letters = options.optional("dead_letters");
    let name = options.connector.clone();
    let none = WatermarkStrategy::none;
    let records = match name.as_str() {
        "database" => env.from_source(database::source(&format, &mut options)?, none(), &name),
        "file" => {
            let path = folder.join(options.required("path")?);
            let follow = options.parsed("follow", false)?;
            env.from_source(FileSource::new(path, format.clone()).follow(follow), none(), &name)
        }
        "kafka" => env.from_source(kafka::source(format.clone(), folder, &mut options)?, none(), &name),
        "socket" => {
            let (host, port) = (options.required("host")?, options.parsed("port", 9999)?);
            env.from_source(SocketSource::new(host, port).format(format.clone()), none(), &name).set_parallelism(1)
        }
        "topic" => {
            let start = match options.optional("start").as_deref() {
                None | Some("earliest") => TopicStart::Earliest,
                Some("latest") => TopicStart::Latest,
                Some(other) => {
                    return Err(
                        Error::input(format!("[source]: `start` cannot be `{other}`")).hint("take earliest or latest")
                    );
                }
            };
            let bounded = options.parsed("bounded", false)?;
            let source =
                TopicSource::new(topics, options.required("topic")?, format.clone()).start(start).bounded(bounded);
            env.from_source(source, none(), &name)
        }
        _ => return Err(options.unknown("database, file, kafka, socket, topic")),
    };
    options.finish()?;
    if let Some(topic) = dead_letters {
        let sink = TopicSink::new(topics, topic, Json::new()).create_if_missing(Default::default());
        records.dead_letters().sink_to(sink).uid("dead-letters");
    }
    Ok((records.uid("source"), format))
}

fn sink(
    records: &DataStream<Record>,
    format: &Checked,
    folder: &Path,
    topics: &Path,
    mut options: Taken<'_>,
) -> Result<()> {
    let end = match options.connector.as_str() {
        "blackhole" => records.sink_to(BlackholeSink),
        "database" => records.sink_to(database::sink(format, &mut options)?),
        "print" => records.map(|record| String::from_utf8_lossy(&record).into_owned()).print(),
        "elasticsearch" => records.sink_to(elasticsearch::sink(folder, &mut options)?),
        "file" => {
            let into: PathBuf = folder.join(options.required("folder")?);
            records.sink_to(FileSink::new(into, Raw).suffix(options.parsed("suffix", ".txt".to_string())?))
        }
        "http" => {
            let mut sink = HttpSink::new(options.required("url")?, |record: &Record| Ok(record.clone()))
                .timeout(Duration::from_millis(options.parsed("timeout_ms", 10_000)?));
            if options.parsed("batched", false)? {
                sink = sink.batched();
            }
            for name in ["authorization", "content_type"] {
                if let Some(value) = options.optional(name) {
                    sink = if name == "authorization" { sink.header(name, value) } else { sink.content_type(value) };
                }
            }
            records.sink_to(sink)
        }
        "kafka" => records.sink_to(kafka::sink(format, folder, &mut options)?),
        "topic" => {
            let sink = TopicSink::new(topics, options.required("topic")?, Raw);
            records.sink_to(sink.create_if_missing(Default::default()))
        }
        "live" => {
            let environment = |name: &str| {
                std::env::var(name).map_err(|_| {
                    Error::input(format!("[sink] `live` needs `{name}`")).hint("submit the job to a server")
                })
            };
            let (table, field) = (options.required("table")?, options.required("key")?);
            let row = move |record: &Record| {
                let value: serde_json::Value = serde_json::from_slice(record).unwrap_or_default();
                let key = match &value[&field] {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                (key, Some(value))
            };
            records.sink_to(LiveSink::new(environment("TIDEMILL_SERVER")?, environment("TIDEMILL_TOKEN")?, table, row))
        }
        _ => return Err(options.unknown("blackhole, database, elasticsearch, file, http, kafka, live, print, topic")),
    };
    options.finish()?;
    end.uid("sink");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn fails(from: &str, to: &str) -> String {
        let folder = Path::new("folder");
        build(&Environment::new(), folder, folder, &options(from), &options(to)).expect_err("refused").to_string()
    }

    #[test]
    fn records_go_from_file_to_topic_to_file_and_bad_ones_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("in.jsonl"), "{\"a\":1}\nbroken\n{\"a\":2}\n").expect("written");
        let run = |from: &str, to: &str| {
            let env = Environment::new();
            env.set_parallelism(2);
            build(&env, folder.path(), folder.path(), &options(from), &options(to)).expect("built");
            env.execute("pipeline").expect("runs");
        };
        run("connector=file path=in.jsonl format=json dead_letters=dead", "connector=topic topic=t");
        run("connector=topic topic=t bounded=true", "connector=file folder=out");
        run("connector=topic topic=dead bounded=true", "connector=file folder=bad");
        let read = |name: &str| {
            let files = std::fs::read_dir(folder.path().join(name)).expect("a folder");
            let text = files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text"));
            let mut lines: Vec<String> =
                text.flat_map(|text| text.lines().map(String::from).collect::<Vec<_>>()).collect();
            lines.sort();
            lines
        };
        assert_eq!(read("out"), ["{\"a\":1}", "{\"a\":2}"]);
        let bad = read("bad");
        assert!(bad.len() == 1 && bad[0].contains("broken") && bad[0].contains("line 2"), "{bad:?}");
    }

    #[test]
    fn rows_go_from_a_table_to_another_and_lines_of_csv_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.db");
        let database = rusqlite::Connection::open(&file).expect("opened");
        let tables =
            "CREATE TABLE a (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y'), (3, NULL);
            CREATE TABLE b (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE c (id INTEGER, name TEXT)";
        database.execute_batch(tables).expect("made");
        std::fs::write(folder.path().join("in.csv"), "7,seven\n8,eight\n").expect("written");
        let run = |from: &str, to: &str| {
            let env = Environment::new();
            env.set_parallelism(2);
            build(&env, folder.path(), folder.path(), &options(from), &options(to)).expect("built");
            env.execute("pipeline").expect("runs");
        };
        let url = format!("sqlite:{}", file.display());
        run(
            &format!("connector=database url={url} table=a key=id filter=id<3"),
            &format!("connector=database url={url} table=b key=id"),
        );
        run(
            "connector=file path=in.csv format=csv columns=id,name",
            &format!("connector=database url={url} table=c delivery=exactly-once"),
        );
        let rows = |table: &str| -> Vec<(i64, String)> {
            let mut query = database.prepare(&format!("SELECT id, name FROM {table} ORDER BY id")).expect("prepared");
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("asked");
            rows.map(|row| row.expect("a row")).collect()
        };
        assert_eq!(rows("b"), [(1, "x".to_string()), (2, "y".to_string())]);
        assert_eq!(rows("c"), [(7, "seven".to_string()), (8, "eight".to_string())]);
        let text = fails("connector=file path=x", &format!("connector=database url={url} table=c"));
        assert!(text.contains("take the format json or csv"), "{text}");
        let text = fails(&format!("connector=database url={url} table=a"), "connector=print");
        assert!(text.contains("`database` has no `key`"), "{text}");
    }

    #[test]
    fn a_row_of_a_live_table_has_a_key() {
        let mut checked = Checked::Json { fields: Vec::new() }.requiring(vec!["id".into()]).expect("json has fields");
        let mut reason = |line: &str| tidemill_core::format::Decode::decode(&mut checked, line.as_bytes()).err();
        assert_eq!(reason(r#"{"id":0}"#), None);
        for keyless in [r#"{"n":1}"#, r#"{"id":null}"#, "[1]", "7"] {
            assert_eq!(reason(keyless).as_deref(), Some("there is no field `id` to take the key from"), "{keyless}");
        }
        assert!(fails("connector=file path=x", "connector=live table=t key=id").contains("`format = \"json\"`"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(fails("connector=file", "connector=print").contains("`file` has no `path`"));
        let error = fails("connector=file path=x fllow=true", "connector=print");
        assert!(error.contains("no option `fllow`") && error.contains("follow"), "{error}");
        assert!(fails("connector=redis", "connector=print").contains("not offered in job files"));
        let kafka = "connector=kafka servers=127.0.0.1:1";
        assert!(fails(kafka, "connector=print").contains("either `topic` or `topic_pattern`"));
        assert!(fails(&format!("{kafka} topic=t start=soon"), "connector=print").contains("`start` cannot be `soon`"));
        let twice = "connector=kafka servers=127.0.0.1:1 topic=t delivery=twice";
        let offsets = format!("{kafka} topic=t offsets=t/0");
        assert!(fails(&offsets, "connector=print").contains("`t/0` is no offset"));
        let secret = format!("{kafka} topic=t security.protocol=SASL_SSL sasl.mechanism=GSSAPI");
        assert!(fails(&secret, "connector=print").contains("[source] `kafka`: `sasl.mechanism` cannot be `GSSAPI`"));
        let keyed = "connector=kafka servers=127.0.0.1:1 topic=t key=user";
        assert!(fails("connector=file path=x", keyed).contains("take the format json or csv"));
        assert!(fails("connector=file path=x format=csv columns=id,name", keyed).contains("no column `user`"));
        assert!(fails("connector=file path=x columns=id", "connector=print").contains("those of the format csv"));
        assert!(fails("connector=file path=x", twice).contains("`delivery` cannot be `twice`"));
        let elastic =
            |options: &str| fails("connector=file path=x format=json", &format!("connector=elasticsearch {options}"));
        assert!(elastic("url=http://h").contains("`elasticsearch` has no `index`"));
        assert!(elastic("url=http://h index=a{b").contains("`index` cannot be `a{b`"));
        assert!(elastic("url=http://h index=i password=p").contains("`password` would put a secret among the options"));
        assert!(elastic("url=http://h index=i user=u").contains("either `user` and a password, or an API key"));
        assert!(elastic("url=http://h index=i api_key_env=NOT_THERE_AT_ALL").contains("`NOT_THERE_AT_ALL`"));
        let text = fails("connector=file path=x", "connector=elasticsearch url=http://h index=i");
        assert!(text.contains("only records of JSON") && text.contains("`format = \"json\"`"), "{text}");
        assert!(fails("connector=socket host=h port=http", "connector=print").contains("`port` cannot be `http`"));
        assert!(fails("connector=file path=x format=xml", "connector=print").contains("format `xml`"));
    }
}
