//! What the elasticsearch sink makes of answers a real server gives only when it is in need: a small server gives them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidemill_connectors::async_sink::AsyncSinkOptions;
use tidemill_connectors::conformance::{Alarm, write, writer_context};
use tidemill_connectors::elasticsearch::{Action, ElasticsearchSink, bulk_options};
use tidemill_core::sink::Sink;
use tidemill_core::{Error, Kind, Result};

use crate::http_server::Server;

type Record = (&'static str, u32);

/// An upsert of the value under its id.
fn sink(urls: &str) -> ElasticsearchSink<Record> {
    let quick = AsyncSinkOptions { batch_age_ms: u64::MAX, retry_first_ms: 1, retry_most_ms: 2, ..bulk_options() };
    ElasticsearchSink::new(urls, |(id, n): &Record| Action::index("i", *id, n)).options(quick)
}

fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}/prefix/", server.port)
}

fn send(sink: &ElasticsearchSink<Record>, records: &[Record]) -> Result<()> {
    let (alarm, waker) = Alarm::new();
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker))?;
    write(&mut *writer, &alarm, records.iter().map(|record| (0, *record)).collect());
    let close = writer.pre_commit(1)?;
    std::thread::spawn(close).join().unwrap().map(drop)
}

/// The answer to a bulk whose entries got these statuses.
fn items(statuses: &[u16]) -> String {
    let items: Vec<_> = statuses
        .iter()
        .map(|status| match status {
            200..=299 => json!({ "index": { "status": status } }),
            _ => json!({ "index": { "status": status, "error": { "type": "a_kind", "reason": "it says so" } } }),
        })
        .collect();
    json!({ "errors": true, "items": items }).to_string()
}

const ARRIVED: &str = r#"{"errors":false}"#;

/// The values in a bulk, in their order.
fn values(body: &str) -> Vec<u32> {
    body.lines().skip(1).step_by(2).map(|line| line.parse().unwrap()).collect()
}

fn told(error: &Error) -> String {
    format!("{error} {error:?}")
}

/// Of five actions one is to be tried again: it goes again, with all behind it on its document, and nothing else does.
#[test]
fn an_action_tried_again_is_not_overtaken_by_later_ones_on_its_document() {
    let server = Server::start();
    server.answer(200, items(&[201, 429, 201, 200, 201]));
    server.answer(200, items(&[503, 200]));
    server.answer(200, items(&[200, 502]));
    server.answer(200, ARRIVED);
    send(&sink(&url(&server)), &[("a", 1), ("b", 2), ("c", 3), ("b", 4), ("a", 5)]).unwrap();
    let sent: Vec<Vec<u32>> = server.bodies(4).iter().map(|body| values(body)).collect();
    // 4 had arrived before 2. It arrives once more behind it; only then the document is right.
    assert_eq!(sent, [vec![1, 2, 3, 4, 5], vec![2, 4], vec![2, 4], vec![4]]);
}

#[test]
fn what_is_refused_behind_one_that_waits_is_judged_when_its_turn_has_come() {
    let server = Server::start();
    server.answer(200, items(&[429, 400, 400]));
    server.answer(200, items(&[200, 400]));
    let refused: Arc<Mutex<Vec<String>>> = Arc::default();
    let taken = Arc::clone(&refused);
    let sink = sink(&url(&server)).on_refused(move |letter| {
        taken.lock().unwrap().push(format!("{} {}", letter.position, letter.payload));
        Ok(())
    });
    send(&sink, &[("a", 1), ("a", 2), ("b", 3)]).unwrap();
    let sent: Vec<Vec<u32>> = server.bodies(2).iter().map(|body| values(body)).collect();
    assert_eq!(sent, [vec![1, 2, 3], vec![1, 2]]);
    assert_eq!(*refused.lock().unwrap(), ["i/b 3", "i/a 2"]);
}

#[test]
fn what_follows_a_divided_bulk_waits_for_its_first_part() {
    let server = Server::start();
    server.answer(413, "");
    // Halves by size: what did not arrive of the first keeps the second back.
    server.answer(200, items(&[200, 429]));
    server.answer(200, ARRIVED);
    server.answer(200, ARRIVED);
    send(&sink(&url(&server)), &[("a", 1), ("b", 2), ("b", 3), ("d", 4)]).unwrap();
    let sent: Vec<Vec<u32>> = server.bodies(4).iter().map(|body| values(body)).collect();
    assert_eq!(sent, [vec![1, 2, 3, 4], vec![1, 2], vec![2, 3], vec![4]]);
}

#[test]
fn an_outage_is_waited_out_at_one_host_after_the_other() {
    let (one, two) = (Server::answering(&[503, 0]), Server::answering(&[429, 500]));
    // More than once: on a slow machine an answer may come too late.
    [&one, &two, &one, &two].iter().for_each(|server| server.answer(200, ARRIVED));
    let both = sink(&format!("{}, {}", url(&one), url(&two))).timeout(Duration::from_millis(500));
    assert_eq!(both.name(), format!("elasticsearch at `127.0.0.1:{}` and 1 more", one.port));
    send(&both, &[("a", 1)]).unwrap();
    // 503, 429, no answer in time, 500, and then it has arrived.
    assert_eq!([one.bodies(3), two.bodies(2)].map(|bodies| bodies.len()), [3, 2]);
}

#[test]
fn a_bulk_says_who_asks_and_how_long_the_server_may_wait() {
    let server = Server::start();
    server.answer(200, ARRIVED);
    let asking = sink(&url(&server)).basic_auth("user", "pass").header("x-tenant", "t").timeout(Duration::from_secs(8));
    send(&asking, &[("a", 1)]).unwrap();
    let request = server.next();
    assert!(request.line.starts_with("POST /prefix/_bulk?filter_path=errors,"), "{}", request.line);
    assert!(request.line.contains("&timeout=4000ms "), "{}", request.line);
    for header in ["content-type: application/x-ndjson", "authorization: basic dxnlcjpwyxnz", "x-tenant: t"] {
        assert!(request.headers.iter().any(|sent| sent == header), "{:?}", request.headers);
    }
    assert_eq!(request.body, "{\"index\":{\"_index\":\"i\",\"_id\":\"a\"}}\n1\n");
}

#[test]
fn answers_about_the_address_or_the_login_fail_the_sink_and_no_secret_is_told() {
    let html = "<html>Welcome</html>";
    for (status, body, hint) in [
        (401, r#"{"error":{"type":"security_exception","reason":"who are you"}}"#, "API key"),
        (403, "no", "API key"),
        (404, "no", "correct the URL"),
        (405, "no", "correct the URL"),
        (302, "", "correct the URL"),
        (200, html, "correct the URL"),
        (200, r#"{"errors":true,"items":[]}"#, "0 of 1 entries"),
    ] {
        let server = Server::start();
        server.answer(status, body);
        let sink = sink(&url(&server)).api_key("hush").on_refused(|_| panic!("it is not about the document"));
        let error = send(&sink, &[("a", 1)]).unwrap_err();
        assert!(told(&error).contains(hint), "{error:?}");
        assert!(error.kind() == Kind::Input && !told(&error).contains("hush"), "{error:?}");
        assert!(error.to_string().contains(&server.port.to_string()), "{error}");
    }
    let server = Server::start();
    server.answer(200, items(&[403]));
    let error = send(&sink(&url(&server)), &[("a", 1)]).unwrap_err();
    assert!(told(&error).contains("the right to write") && error.to_string().contains("`i/a`"), "{error:?}");
}

/// A server may fail at a document, which is no outage, and it says 500 to both.
#[test]
fn a_document_the_server_fails_at_again_and_again_is_refused() {
    let server = Server::start();
    server.answer(200, items(&[200, 500, 200]));
    (0..8).for_each(|_| server.answer(200, items(&[500])));
    let refused: Arc<Mutex<Vec<String>>> = Arc::default();
    let taken = Arc::clone(&refused);
    let sink = sink(&url(&server)).on_refused(move |letter| {
        taken.lock().unwrap().push(format!("{} {}", letter.position, letter.payload));
        Ok(())
    });
    send(&sink, &[("a", 1), ("b", 2), ("c", 3)]).unwrap();
    assert_eq!(values(&server.bodies(9)[8]), [2]);
    assert_eq!(*refused.lock().unwrap(), ["i/b 2"]);
}

#[test]
fn what_never_arrives_within_the_tries_allowed_tells_why() {
    let server = Server::start();
    server.answer(200, items(&[429]));
    let once = AsyncSinkOptions { retries_max: Some(0), batch_age_ms: 1, ..bulk_options() };
    let error = send(&sink(&url(&server)).options(once), &[("a", 1)]).unwrap_err();
    assert!(error.to_string().contains("`i/a` has to wait: 429: a_kind: it says so"), "{error}");
}

#[test]
fn what_cannot_be_sent_is_refused_at_the_start() {
    let refused = |sink: ElasticsearchSink<Record>, why: &str| {
        let error = send(&sink, &[]).unwrap_err();
        assert!(told(&error).contains(why) && !told(&error).contains("hush"), "{error:?}");
        assert!(!sink.name().contains("hush"), "{}", sink.name());
    };
    refused(sink("localhost:9200"), "no scheme or no host");
    refused(sink(""), "the URL of an elasticsearch sink is none");
    refused(sink("http://hush:hush@here"), "`basic_auth`");
    refused(sink("http://here, http://there?hush"), "has a query");
    refused(sink("http://here").header("a b", "c"), "header `a b` cannot be sent");
    refused(sink("http://here").api_key("two\nlines"), "header `authorization` cannot be sent");
    refused(sink("https://here").authority("/not/there.pem"), "`/not/there.pem`");

    let (_alarm, waker) = Alarm::new();
    let actions = |action: &Action| action.clone();
    let sink = ElasticsearchSink::new("http://here", actions);
    let mut writer = sink.writer(writer_context(0, 1, 1, 1, waker)).unwrap();
    let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
    for (action, why) in [
        (Action::update("i", "1", &0).version(1), "update of `i/1`: only index and delete have a version"),
        (Action::append("i", &0).version(1), "create of `i/(a new id)`: only index and delete have a version"),
        (Action::delete("i", "1").pipeline("p"), "go through a pipeline"),
        (Action::index("i", "1", &unwritable), "cannot be written as JSON: key must be a string"),
    ] {
        let error = writer.write(vec![(0, action)]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
