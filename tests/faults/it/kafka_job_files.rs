//! Kafka in job files: `tidemill run job.toml` against a real broker, exactly once also when all of it is killed.

use std::path::{Path, PathBuf};

use tidemill_topic::Topics;

use crate::kafka_broker::{Broker, New, Seen};
use crate::support::process::{Done, Process, tidemill};
use crate::support::{eventually, folder, orders};

const RECORDS: usize = 20_000;

/// A folder with a job file, its data and its job.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: folder() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self, text: &str) -> std::process::Command {
        let file = self.folder.path().join("job.toml");
        std::fs::write(&file, text).unwrap();
        let (data, job) = (self.data(), self.folder.path().join("job"));
        let shown = |path: &Path| path.to_str().unwrap().to_owned();
        let words = ["run", &shown(&file), "--data", &shown(&data), "--job-dir", &shown(&job)];
        let mut command = tidemill(&words);
        command.args(["--parallelism", "2", "--checkpoint-interval-ms", "20"]);
        command
    }
}

fn value(seen: &Seen) -> &str {
    std::str::from_utf8(seen.value.as_deref().unwrap_or_default()).unwrap()
}

#[test]
fn json_goes_from_topic_to_topic_exactly_once_also_over_a_kill() {
    let broker = Broker::shared();
    let (from, into) = (broker.topic("job-in", 3), broker.topic("job-out", 3));
    let mut peer = broker.peer();
    let lines: Vec<String> = (0..RECORDS).map(|n| format!("{{\"id\":{n},\"user\":\"u{}\"}}", n % 50)).collect();
    for (partition, lines) in lines.chunks(RECORDS.div_ceil(3)).enumerate() {
        let records: Vec<New<'_>> = lines.iter().map(|line| (7, None, Some(line.as_str()))).collect();
        records.chunks(2_000).for_each(|some| peer.write(&from, partition as i32, some));
    }
    peer.write(&from, 1, &[(7, None, Some("{broken")), (7, Some("k"), None)]);
    let place = Place::new();
    let job = |bounded: bool| {
        format!(
            "name = \"copy\"\n[source]\nconnector = \"kafka\"\nservers = \"{servers}\"\ntopic = \"{from}\"\nformat = \"json\"\n\
             group = \"{from}\"\nbounded = {bounded}\ndead_letters = \"bad\"\n\
             [sink]\nconnector = \"kafka\"\nservers = \"{servers}\"\ntopic = \"{into}\"\nkey = \"user\"\n",
            servers = broker.servers()
        )
    };
    // Everything is killed, with a part published.
    let mut running = Process::start(&mut place.run(&job(false)));
    eventually("something is published", || {
        let count = broker.peer().read(&into, 3).len();
        if count > 0 { Ok(()) } else { Err("nothing".into()) }
    });
    running.kill();
    for _ in 0..2 {
        Done::of(&mut place.run(&job(true))).ok();
    }
    let published = broker.peer().read(&into, 3);
    let mut values: Vec<&str> = published.iter().map(value).collect();
    values.sort();
    let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
    expected.sort();
    assert!(values == expected, "{} of {RECORDS} records", values.len());
    for seen in published.iter().take(500) {
        let key = seen.key.as_deref().unwrap();
        assert!(value(seen).contains(&format!("\"user\":\"{}\"", String::from_utf8_lossy(key))));
        assert_eq!(seen.partition as u32, tidemill_topic::partition_for(key, 3));
        assert_eq!(seen.timestamp_ms, 7, "event time is Kafka's timestamp");
    }
    assert!(peer.committed(&from, &from, 0) > 0, "the group has heard of it");
    let bad = dead_letters(&place.data(), "bad");
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad.iter().any(|letter| letter.contains("{broken") && letter.contains("partition 1 offset")), "{bad:?}");
}

/// The records of an embedded topic, as text.
fn dead_letters(data: &Path, topic: &str) -> Vec<String> {
    let topic = Topics::open(data.join("topics")).unwrap().open_topic(topic).unwrap();
    orders::records(&topic).into_iter().map(|record| String::from_utf8(record).unwrap()).collect()
}

#[test]
fn csv_raw_and_each_start_do_what_the_file_says() {
    let broker = Broker::shared();
    let mut peer = broker.peer();
    let run = |from: &str, source: &str, sink: &str| {
        let into = broker.topic("formats", 1);
        let servers = broker.servers();
        let text = format!(
            "[source]\nconnector = \"kafka\"\nservers = \"{servers}\"\ntopic = \"{from}\"\nbounded = true\n{source}\n\
             [sink]\nconnector = \"kafka\"\nservers = \"{servers}\"\ntopic = \"{into}\"\n{sink}\n"
        );
        Done::of(&mut Place::new().run(&text)).ok();
        broker.peer().read(&into, 1)
    };
    let from = broker.topic("csv", 1);
    let lines = ["1,\"a, b\",x", "2,c", "3,d,y"];
    lines.iter().zip(1..).for_each(|(line, at)| peer.write(&from, 0, &[(at * 1_000, None, Some(line))]));
    let csv = "format = \"csv\"\ncolumns = \"id, name, tag\"\ndead_letters = \"bad\"";
    let seen = run(&from, csv, "key = \"name\"");
    assert_eq!(
        seen.iter().map(value).collect::<Vec<_>>(),
        ["1,\"a, b\",x", "3,d,y"],
        "as they came, but for the bad one"
    );
    let keys: Vec<&[u8]> = seen.iter().map(|seen| seen.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [&b"a, b"[..], b"d"]);

    let at = |start: &str| run(&from, start, "delivery = \"at-least-once\"").len();
    assert_eq!(at("start = \"earliest\""), 3);
    assert_eq!(at("start = \"latest\""), 0);
    assert_eq!(at("start = 2000"), 2);
    assert_eq!(at(&format!("start = \"offsets\"\noffsets = \"{from}/0:2\"")), 1);
    assert_eq!(at(&format!("group = \"{from}\"\nstart = \"group\"")), 3);
    assert_eq!(at(&format!("group = \"{from}\"\nstart = \"group\"")), 0, "the group has read them");

    let raw = broker.topic("raw", 1);
    peer.write_bytes(&raw, 0, &[0xff, 0x00, b'\n', 0xfe]);
    let seen = run(&raw, "format = \"raw\"", "");
    assert_eq!(
        seen.iter().map(|seen| seen.value.clone().unwrap()).collect::<Vec<_>>(),
        [vec![0xff, 0x00, b'\n', 0xfe]]
    );
}

#[test]
fn a_login_stands_in_the_file_and_its_password_in_the_environment() {
    let broker = Broker::secure();
    let (from, into) = (broker.topic("in", 1), broker.topic("out", 1));
    broker.peer().write(&from, 0, &[(0, None, Some("hello"))]);
    let place = Place::new();
    std::fs::copy(broker.tls_file("ca.pem"), place.folder.path().join("ca.pem")).unwrap();
    let end = |topic: &str| {
        format!(
            "connector = \"kafka\"\nservers = \"{}\"\ntopic = \"{topic}\"\nsecurity.protocol = \"SASL_SSL\"\n\
             sasl.mechanism = \"SCRAM-SHA-512\"\nsasl.username = \"alice\"\nsasl.password.env = \"KAFKA_PASSWORD\"\n\
             ssl.truststore.location = \"ca.pem\"\n",
            broker.secure_servers(4, "localhost")
        )
    };
    let text = format!("[source]\nbounded = true\n{}[sink]\n{}", end(&from), end(&into));
    let mut right = place.run(&text);
    Done::of(right.env("KAFKA_PASSWORD", "alice-scram")).ok();
    assert_eq!(broker.peer().values(&into, 1), ["hello"]);
    // From the beginning, so that nothing is left of the first.
    let ca = broker.tls_file("ca.pem");
    let text = format!("restart.strategy = \"none\"\n{}", text.replace("ca.pem", ca.to_str().unwrap()));
    let place = Place::new();
    let mut wrong = place.run(&text);
    let done = Done::of(wrong.env("KAFKA_PASSWORD", "guessed"));
    assert!(done.code != 0 && done.err.contains("does not let `alice` in"), "{done:?}");
    assert!(!done.err.contains("guessed") && !done.out.contains("guessed"), "{done:?}");
}
