//! The binary as a person runs it: what arrives in a topic and on standard output, errors, Ctrl-C.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use order_generator::generator::key_of;
use order_generator::time::parse_local;
use order_generator::{Fraction, GeneratorConfig, OrderGenerator};
use tidemill_topic::{ReadOutcome, Topics};

fn generator(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-generator"));
    command.args(arguments).env_remove("TIDEMILL_DATA");
    command
}

fn run(arguments: &[&str]) -> Output {
    generator(arguments).output().expect("the binary starts")
}

const START: &str = "2026-11-20 20:00:00";

/// What the library makes with the options the tests use.
fn expected(count: usize) -> Vec<Vec<u8>> {
    let config = GeneratorConfig {
        start_ms: parse_local(START).expect("a time") - 3_600_000,
        bad: Fraction::per_million(10_000),
        ..GeneratorConfig::default()
    };
    OrderGenerator::new(config).take(count).map(|event| event.json).collect()
}

#[test]
fn standard_output_holds_the_librarys_bytes() {
    let count = "12345";
    let output =
        run(&["--stdout", "--start", START, "--backfill", "1", "--bad", "0.01", "--count", count, "--unpaced"]);
    assert!(output.status.success());
    let mut lines = expected(12_345).join(&b'\n');
    lines.push(b'\n');
    assert!(output.stdout == lines);
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.starts_with("12345 events (") && summary.lines().count() == 1, "{summary}");
}

#[test]
fn a_topic_holds_every_event_and_an_order_stays_in_its_partition() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let started = Instant::now();
    // Backfill is written at once, though paced.
    let options = ["--data", data, "--start", START, "--backfill", "1", "--bad", "0.01", "--count", "20000"];
    assert!(run(&options).status.success());
    assert!(started.elapsed() < Duration::from_secs(60), "20,000 events would take minutes at 50 a second");

    let topic = Topics::open(folder.path().join("topics")).unwrap().open_topic("orders").unwrap();
    assert_eq!(topic.partitions(), 4);
    let mut partition_of = BTreeMap::new();
    let mut got = Vec::new();
    for partition in 0..4 {
        let mut offset = 0;
        loop {
            let ReadOutcome::Batches(batches) = topic.read(partition, offset, 1 << 20).unwrap() else {
                panic!("partition {partition} has no offset {offset}")
            };
            if batches.is_empty() {
                break;
            }
            for record in batches.iter().flat_map(|batch| batch.iter()) {
                offset = record.offset + 1;
                assert_eq!(record.key, key_of(record.value));
                if let Some(key) = record.key {
                    assert_eq!(*partition_of.entry(key.to_vec()).or_insert(partition), partition);
                }
                got.push(record.value.to_vec());
            }
        }
    }
    let mut wanted = expected(20_000);
    wanted.sort();
    got.sort();
    assert!(got == wanted);
}

#[test]
fn live_events_are_paced() {
    let started = Instant::now();
    let options = ["--stdout", "--rate", "100", "--curve", "off", "--count", "40", "--out-of-order", "0"];
    assert_eq!(run(&options).stdout.lines().count(), 40);
    assert!(started.elapsed() >= Duration::from_millis(200), "40 events of 100 a second in {:?}", started.elapsed());
}

#[test]
fn ctrl_c_ends_it_behind_a_whole_line() {
    let mut child = generator(&["--stdout", "--rate", "5000", "--curve", "off"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    stdout.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("}\n"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_error_is_one_clear_line() {
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--stdout", "--start", "yesterday"], 1, "error: --start `yesterday` is no time"),
        (&["--stdout", "--start", "0"], 1, "error: a start at 0 ms leaves the years"),
        (&["--data", "/dev/null/x", "--count", "1"], 1, "error: cannot"),
        (&["--stdout", "--bad", "1.5"], 2, "`1.5` is no fraction from 0 to 1"),
    ];
    for (arguments, code, part) in cases {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text.contains(part), "{text}");
        assert!(code == 2 || text.lines().count() == 1, "{text}");
    }
}
