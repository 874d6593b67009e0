//! Live tables: against a small HTTP server that can refuse, be slow, and go away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill_connectors::buffered::BufferOptions;
use tidemill_connectors::conformance::{Alarm, DEADLINE, write, writer_context};
use tidemill_connectors::live::LiveSink;
use tidemill_core::Kind;
use tidemill_core::sink::{Sink, SinkWriter};

/// A request as the server saw it.
#[derive(Debug)]
struct Request {
    line: String,
    token: Option<String>,
    /// As it came.
    text: String,
    body: Value,
}

/// Answers each request with the next status it is given, or waits for it.
struct Server {
    port: u16,
    requests: Receiver<Request>,
    answers: Sender<u16>,
}

impl Server {
    fn start(listener: TcpListener) -> Server {
        let port = listener.local_addr().unwrap().port();
        let (seen, requests) = channel();
        let (answers, to_give) = channel();
        let to_give = Arc::new(Mutex::new(to_give));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, to_give) = (seen.clone(), Arc::clone(&to_give));
                std::thread::spawn(move || serve(stream, &seen, &to_give));
            }
        });
        Server { port, requests, answers }
    }

    fn next(&self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request comes")
    }
}

fn serve(stream: TcpStream, seen: &Sender<Request>, to_give: &Mutex<Receiver<u16>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let (mut length, mut token) = (0, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok()?,
                "x-tidemill-token" => token = Some(value.to_string()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let text = String::from_utf8(body).ok()?;
        let body = serde_json::from_str(&text).ok()?;
        seen.send(Request { line: line.trim().to_string(), token, text, body }).ok()?;
        let status = to_give.lock().ok()?.recv().ok()?;
        let text = "{\"errors\":[\"said the server\"]}";
        write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len()).ok()?;
    }
}

fn sink(port: u16) -> LiveSink<(u32, Option<u32>)> {
    let options = BufferOptions { retry_first_ms: 1, retry_most_ms: 20, queue_items_max: 100, ..Default::default() };
    let row = |(key, value): &(u32, Option<u32>)| (format!("k{key}"), value.map(Value::from));
    LiveSink::new(format!("http://127.0.0.1:{port}/"), "secret", "revenue", row).options(options)
}

type Writer = Box<dyn SinkWriter<(u32, Option<u32>)>>;

fn start(port: u16) -> (Writer, Arc<Alarm>) {
    let (alarm, waker) = Alarm::new();
    (sink(port).writer(writer_context(1, 2, 7, 1, waker)).unwrap(), alarm)
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn rows_are_sent_at_once_and_what_comes_meanwhile_goes_together() {
    let server = Server::start(listen());
    let (mut writer, alarm) = start(server.port);
    write(&mut *writer, &alarm, vec![(0, (1, Some(1)))]);
    let first = server.next();
    assert_eq!(first.line, "POST /api/live/revenue HTTP/1.1");
    assert_eq!(first.token.as_deref(), Some("secret"));
    assert!(!first.text.contains([' ', '\n']), "the server keeps values as they come: {}", first.text);
    let job = tidemill_connectors::conformance::scope().job_id;
    let rows = json!([{ "key": "k1", "value": 1 }]);
    assert_eq!(first.body, json!({ "job": job, "writer": "sink/1", "epoch": 7, "rows": rows }));
    // While it has no answer these wait, and go together, of each key the newest.
    for value in [2, 3, 4] {
        write(&mut *writer, &alarm, vec![(0, (1, Some(value))), (0, (2, None))]);
    }
    server.answers.send(200).unwrap();
    let second = server.next();
    assert_eq!(second.body["rows"], json!([{ "key": "k1", "value": 4 }, { "key": "k2", "value": null }]));
    let close = writer.pre_commit(7).unwrap();
    let closing = std::thread::spawn(close);
    assert!(!closing.is_finished(), "not before the answer");
    server.answers.send(200).unwrap();
    assert!(closing.join().unwrap().unwrap().is_empty());
    write(&mut *writer, &alarm, vec![(0, (3, Some(0)))]);
    assert_eq!(server.next().body["epoch"], 8);
}

#[test]
fn a_server_that_is_away_or_fails_is_tried_again_under_backpressure() {
    let listener = listen();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (mut writer, alarm) = start(port);
    let mut written = 0;
    while writer.ready() {
        written += 1;
        writer.write(vec![(0, (written % 10, Some(written)))]).unwrap();
    }
    assert!((100..=4200).contains(&written), "the queue is bounded: {written}");
    let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) else {
        eprintln!("SKIPPED: somebody took port {port} meanwhile");
        return;
    };
    let server = Server::start(listener);
    let close = writer.pre_commit(7).unwrap();
    let closing = std::thread::spawn(close);
    let mut table = BTreeMap::new();
    let mut failures = [500, 503, 429].into_iter();
    while !closing.is_finished() {
        let Ok(request) = server.requests.recv_timeout(std::time::Duration::from_millis(1)) else { continue };
        let status = failures.next().unwrap_or(200);
        if status == 200 {
            for row in request.body["rows"].as_array().unwrap() {
                table.insert(row["key"].as_str().unwrap().to_string(), row["value"].as_u64().unwrap());
            }
        }
        server.answers.send(status).unwrap();
    }
    closing.join().unwrap().unwrap();
    let newest = |key| (1..=u64::from(written)).rfind(|n| n % 10 == key).unwrap();
    let expected: BTreeMap<String, u64> = (0..10).map(|key| (format!("k{key}"), newest(key))).collect();
    assert_eq!(table, expected);
    write(&mut *writer, &alarm, vec![(0, (1, Some(1)))]);
}

#[test]
fn a_refusal_fails_the_sink_and_says_what_the_server_said() {
    for (status, expected) in [(400, "the server answered 400"), (401, "TIDEMILL_TOKEN")] {
        let server = Server::start(listen());
        let (mut writer, alarm) = start(server.port);
        write(&mut *writer, &alarm, vec![(0, (1, Some(1)))]);
        server.next();
        server.answers.send(status).unwrap();
        let error = match writer.pre_commit(7) {
            Ok(close) => close().expect_err("refused"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), Kind::Input);
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("said the server") && text.contains("`revenue`"), "{text}");
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    let (_alarm, waker) = Alarm::new();
    let sink = LiveSink::new("http://x", "", "a/b", |n: &u32| (n.to_string(), None));
    assert_eq!(sink.writer(writer_context(0, 1, 1, 1, waker)).map(drop).expect_err("refused").kind(), Kind::Input);
}
