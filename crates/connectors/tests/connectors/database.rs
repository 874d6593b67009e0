//! Databases, each test with each of them: SQLite, a real Postgres and a real MariaDB.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_connectors::conformance::{
    Alarm, Driven, Target, check_bounded_source, check_two_phase_sink, scope, write, writer_context,
};
use tidemill_connectors::database::{Database, DatabaseSink, DatabaseSource, Row};
use tidemill_core::sink::{PreCommit, Sink, SinkScope};
use tidemill_core::source::Source;
use tidemill_core::{DeadLetter, Error, RowKind};

use crate::database_servers::{Kind, Server, each};

#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
struct Everything {
    id: i64,
    small: i16,
    yes: bool,
    part: f64,
    single: f32,
    price: String,
    name: String,
    note: Option<String>,
    bytes: Bytes,
    at: String,
    day: String,
    tags: Vec<String>,
    big: u64,
}

/// Bytes that say so: a plain `Vec<u8>` is a list of numbers to serde.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Bytes)
    }
}

fn everything(id: i64) -> Everything {
    Everything {
        id,
        small: -3,
        yes: true,
        part: 0.1,
        single: 0.1,
        price: "12.50".into(),
        name: "Gr\u{f6}\u{df}e \u{5927} 'a' \"b\" \\ `c`".into(),
        note: (id % 2 == 0).then(|| "even".to_string()),
        bytes: Bytes(vec![0, 255, 92]),
        at: "2026-11-29 23:59:59.123456".into(),
        day: "2026-11-29".into(),
        tags: vec!["a".into(), "b".into()],
        big: u64::from(u32::MAX) + 1,
    }
}

fn close<T>(sink: &dyn Sink<T>, records: Vec<T>) -> Result<(), Error>
where
    T: 'static,
{
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    write(&mut *writer, &alarm, records.into_iter().map(|record| (0, record)).collect());
    let close: PreCommit = writer.pre_commit(1)?;
    assert!(close()?.is_empty(), "there is nothing to commit");
    Ok(())
}

fn read<T: Clone + 'static>(source: &dyn Source<T>) -> Vec<T> {
    let splits = source.splits().unwrap();
    let mut driven = Driven::start(source, 0, 1, &splits);
    assert!(driven.run_until(100, |_| false), "it ends");
    assert_eq!(driven.rejected, []);
    driven.records.values().flatten().cloned().collect()
}

#[test]
fn each_value_goes_into_its_column_and_comes_back() {
    each(|server| {
        let (real, double, bytes, time) = match server.kind {
            Kind::Sqlite => ("REAL", "REAL", "BLOB", "TEXT"),
            Kind::Postgres => ("REAL", "DOUBLE PRECISION", "BYTEA", "TIMESTAMP"),
            Kind::MariaDb => ("FLOAT", "DOUBLE", "BLOB", "DATETIME(6)"),
        };
        let price = if server.kind == Kind::Sqlite { "TEXT" } else { "DECIMAL(12, 2)" };
        server.run(&format!(
            "CREATE TABLE everything (id BIGINT PRIMARY KEY, small SMALLINT, yes BOOLEAN, part {double}, single {real}, price {price}, \
             name TEXT, note TEXT, bytes {bytes}, at {time}, day DATE, tags {}, big BIGINT, more INT DEFAULT 5)",
            if server.kind == Kind::Sqlite { "TEXT" } else { "JSON" }
        ));
        let records: Vec<Everything> = (1..=700).map(everything).collect();
        let sink = DatabaseSink::new(server.url(), "everything").key(["id"]);
        close(&sink, records.clone()).unwrap();
        close(&sink, records.clone()).unwrap();
        let source = DatabaseSource::new(server.url(), "everything", "id");
        let mut found: Vec<Everything> = read(&source);
        // Postgres writes its JSON anew, with a space behind the comma.
        found.iter_mut().for_each(|record| record.tags.iter_mut().for_each(|tag| *tag = tag.trim().to_string()));
        assert_eq!(found, records);
        assert_eq!(server.rows("SELECT COUNT(*), MIN(more), MAX(more) FROM everything"), [["700", "5", "5"]]);
        let only =
            DatabaseSource::rows(server.url(), "everything", "id").columns(["name"]).filter("id < 3 AND note IS NULL");
        let rows: Vec<Row> = read(&only);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].to_json().starts_with(r#"{"id":1,"name":"#), "{}", rows[0].to_json());
        let asked = DatabaseSource::<BTreeMap<String, i64>>::query(
            server.url(),
            "SELECT small, COUNT(*) AS n, MIN(id) AS first FROM everything GROUP BY small",
            "small",
        );
        assert_eq!(read(&asked), [BTreeMap::from([("small".into(), -3), ("n".into(), 700), ("first".into(), 1)])]);
    });
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Total {
    shop: String,
    day: i64,
    fen: i64,
}

fn total(shop: &str, day: i64, fen: i64) -> Total {
    Total { shop: shop.into(), day, fen }
}

#[test]
fn changes_of_rows_with_a_key_are_upserts_and_deletions() {
    each(|server| {
        server.run("CREATE TABLE totals (shop VARCHAR(20), day INT, fen BIGINT, PRIMARY KEY (shop, day))");
        let sink = DatabaseSink::changelog(server.url(), "totals").key(["shop", "day"]);
        let changes = vec![
            (RowKind::Insert, total("a", 1, 5)),
            (RowKind::Insert, total("b", 1, 5)),
            (RowKind::UpdateBefore, total("a", 1, 5)),
            (RowKind::UpdateAfter, total("a", 1, 7)),
            (RowKind::Insert, total("c", 2, 1)),
            (RowKind::Delete, total("b", 1, 5)),
        ];
        for _ in 0..2 {
            close(&sink, changes.clone()).unwrap();
            let rows = server.rows("SELECT shop, day, fen FROM totals ORDER BY shop");
            assert_eq!(rows, [["a", "1", "7"], ["c", "2", "1"]], "{:?}", server.kind);
        }
        close(&sink, vec![(RowKind::Delete, total("c", 2, 0)), (RowKind::Delete, total("a", 1, 0))]).unwrap();
        assert!(server.rows("SELECT * FROM totals").is_empty());
    });
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Numbered {
    n: u64,
}

fn numbers(server: &Server, table: &str) -> Vec<Numbered> {
    let rows = server.rows(&format!("SELECT n FROM {table}"));
    rows.into_iter().map(|row| Numbered { n: row[0].parse().unwrap() }).collect()
}

#[test]
fn rows_without_a_key_come_exactly_once_whatever_happens() {
    each(|server| {
        let made = Cell::new(0);
        check_two_phase_sink(
            || {
                made.set(made.get() + 1);
                let table = format!("t{}", made.get());
                // Each is another job, with a log of its own.
                server.run(&format!("DROP TABLE IF EXISTS tidemill_commits; CREATE TABLE {table} (n BIGINT)"));
                let sink = DatabaseSink::new(server.url(), table.clone()).exactly_once();
                let server = Arc::clone(server);
                Target { sink: Box::new(sink), published: Box::new(move || numbers(&server, &table)) }
            },
            |n| Numbered { n },
        );
    });
}

#[test]
fn a_job_that_goes_on_from_another_s_checkpoint_writes_nothing_again() {
    each(|server| {
        server.run("CREATE TABLE once (n BIGINT)");
        let sink = DatabaseSink::new(server.url(), "once").exactly_once();
        let mut writer = sink.writer(writer_context(0, 1, 1, 1, Alarm::new().1)).unwrap();
        writer.write(vec![(0, Numbered { n: 1 }), (0, Numbered { n: 1 })]).unwrap();
        let tokens = writer.pre_commit(1).unwrap()().unwrap();
        sink.committer(&scope()).unwrap().unwrap().commit(&tokens).unwrap();
        let other = SinkScope { job_id: "other".into(), ..scope() };
        sink.recover(&other, &tokens).unwrap();
        // Also when the sink writes at least once from now on.
        DatabaseSink::<Numbered>::new(server.url(), "once").recover(&other, &tokens).unwrap();
        assert_eq!(numbers(server, "once"), [Numbered { n: 1 }, Numbered { n: 1 }]);
    });
}

#[test]
fn the_rows_of_a_table_come_once_wherever_reading_was_interrupted() {
    each(|server| {
        server.run("CREATE TABLE read_me (id BIGINT PRIMARY KEY, n VARCHAR(10), other INT)");
        let values: Vec<String> = (0..40).map(|n| format!("({}, '{}', {n})", n * 7 - 100, 1000 + n)).collect();
        server.run(&format!("INSERT INTO read_me VALUES {}, (1000, 'none', 0)", values.join(", ")));
        let expected: Vec<Numbered> = (0..40).map(|n| Numbered { n: 1000 + n }).collect();
        let source = || DatabaseSource::<Numbered>::new(server.url(), "read_me", "id").page_rows(7);
        check_bounded_source(&source(), &expected, 1);
        check_bounded_source(&source().parts(3, -100, 173), &expected, 1);
        // Keys of any order will do.
        server.run("CREATE TABLE by_name (name VARCHAR(20) PRIMARY KEY, n BIGINT)");
        server.run("INSERT INTO by_name VALUES ('b', 2), ('a', 1), ('\u{4e00}', 4), ('c''d', 3)");
        let by_name = DatabaseSource::<Numbered>::new(server.url(), "by_name", "name").page_rows(1);
        check_bounded_source(&by_name, &[1, 2, 3, 4].map(|n| Numbered { n }), 0);
        // Decimals are read as text, and not in the order of texts.
        server.run("CREATE TABLE by_price (price DECIMAL(10, 2) PRIMARY KEY, n BIGINT)");
        server.run("INSERT INTO by_price VALUES (9.5, 1), (10, 2), (100.25, 3), (-20, 4), (-3, 5)");
        let by_price = DatabaseSource::<Numbered>::new(server.url(), "by_price", "price").page_rows(1);
        check_bounded_source(&by_price, &[1, 2, 3, 4, 5].map(|n| Numbered { n }), 0);
    });
}

#[test]
fn a_growing_table_is_followed_also_over_an_outage() {
    each(|server| {
        server.run("CREATE TABLE growing (id BIGINT PRIMARY KEY, n BIGINT)");
        let insert = |from: u64, to: u64| {
            let rows: Vec<String> = (from..to).map(|n| format!("({n}, {n})")).collect();
            server.run(&format!("INSERT INTO growing VALUES {}", rows.join(", ")));
        };
        insert(0, 10);
        let source = DatabaseSource::<Numbered>::new(server.url(), "growing", "id").follow(Duration::from_millis(5));
        let splits = source.splits().unwrap();
        let mut driven = Driven::start(&source, 0, 1, &splits);
        driven.run_until(100, |driven| driven.count == 10);
        insert(10, 25);
        driven.run_until(100, |driven| driven.count == 25);
        server.kill();
        server.restart();
        insert(25, 30);
        driven.run_until(100, |driven| driven.count == 30);
        let restored = driven.snapshot();
        drop(driven);
        insert(30, 31);
        let mut driven = Driven::start(&source, 0, 1, &restored);
        driven.run_until(100, |driven| driven.count == 1);
        assert_eq!(driven.records.values().flatten().collect::<Vec<_>>(), [&Numbered { n: 30 }]);
    });
}

#[test]
fn a_database_that_is_killed_and_comes_back_loses_and_doubles_nothing() {
    each(|server| {
        server.run("CREATE TABLE kept (shop VARCHAR(20), day BIGINT PRIMARY KEY, fen BIGINT)");
        let sink = DatabaseSink::new(server.url(), "kept").key(["day"]);
        let (alarm, waker) = Alarm::new();
        let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
        for round in 0..6 {
            let rows = (0..500).map(|n| (0, total("a", round * 500 + n, n)));
            write(&mut *writer, &alarm, rows.collect());
            match round % 3 {
                1 => server.kill(),
                2 => server.restart(),
                _ => {}
            }
        }
        let close: PreCommit = writer.pre_commit(1).unwrap();
        close().unwrap();
        assert_eq!(server.rows("SELECT COUNT(*) FROM kept"), [["3000"]]);
    });
}

#[test]
fn a_row_that_is_refused_is_told_and_its_neighbours_arrive() {
    each(|server| {
        server.run("CREATE TABLE strict (n BIGINT NOT NULL, name VARCHAR(3) CHECK (LENGTH(name) <= 3))");
        #[derive(Clone, Serialize)]
        struct Named {
            n: Option<i64>,
            name: &'static str,
        }
        let records = vec![
            Named { n: Some(1), name: "abc" },
            Named { n: Some(2), name: "too long" },
            Named { n: None, name: "d" },
            Named { n: Some(4), name: "e" },
        ];
        let error = close(&DatabaseSink::new(server.url(), "strict"), records.clone()).unwrap_err();
        assert_eq!(error.kind(), tidemill_core::Kind::Input, "{error}");
        assert!(error.to_string().contains("cannot write to table `strict`"), "{error}");
        assert!(server.rows("SELECT * FROM strict").is_empty(), "a batch is written whole or not at all");
        let letters: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
        let taken = Arc::clone(&letters);
        let sink = DatabaseSink::new(server.url(), "strict").on_refused(move |letter| {
            taken.lock().unwrap().push(letter);
            Ok(())
        });
        close(&sink, records).unwrap();
        assert_eq!(server.rows("SELECT n FROM strict ORDER BY n"), [["1"], ["4"]]);
        let letters = letters.lock().unwrap();
        let payloads: Vec<&str> = letters.iter().map(|letter| letter.payload.as_str()).collect();
        assert_eq!(payloads, [r#"{"n":2,"name":"too long"}"#, r#"{"n":null,"name":"d"}"#]);
        assert!(letters.iter().all(|letter| !letter.reason.is_empty()), "{letters:?}");
    });
}

#[test]
fn what_is_wrong_with_a_database_is_told() {
    each(|server| {
        server.run("CREATE TABLE here (n BIGINT, id BIGINT)");
        server.run("INSERT INTO here VALUES (1, 1), (1, 2)");
        let told = |database: Database, table: &str| {
            let error = close(&DatabaseSink::new(database, table), vec![Numbered { n: 1 }]).unwrap_err();
            assert_eq!(error.kind(), tidemill_core::Kind::Input, "{error}");
            error.to_string()
        };
        assert!(told(server.url().into(), "nowhere").contains("nowhere"));
        let read_by = |key: &str| {
            let source = DatabaseSource::<Numbered>::new(server.url(), "here", key);
            let mut driven = Driven::start(&source, 0, 1, &source.splits().unwrap());
            loop {
                match driven.poll(10) {
                    Ok(_) => std::thread::yield_now(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        assert!(read_by("nothing").contains("there is no column `nothing`"));
        assert!(read_by("n").contains("two rows have the key 1"));
        if server.kind == Kind::Sqlite {
            let missing = format!("sqlite:{}", server.folder().join("missing.db").display());
            assert!(told(missing.into(), "here").contains("missing.db"));
            return;
        }
        let wrong = told(server.url().replace("p%40ss", "wrong").into(), "here");
        assert!(wrong.contains("tidemill") && !wrong.contains("wrong%2Fword"), "{wrong}");
        // TLS with somebody who speaks none, and with a certificate nobody knows.
        let here = if server.kind == Kind::Postgres { "?sslmode=require" } else { "?ssl-mode=required" };
        told(format!("{}{here}", server.url()).into(), "here");
        let authority = server.speak_tls("127.0.0.1");
        let unknown = told(format!("{}{here}", server.url()).into(), "here");
        assert!(unknown.contains("ertificate"), "{unknown}");
        let sink = DatabaseSink::new(Database::new(server.url()).authority(authority), "here");
        close(&sink, vec![Numbered { n: 9 }]).unwrap();
        assert_eq!(server.rows("SELECT COUNT(*) FROM here WHERE n = 9"), [["1"]]);
    });
}
