//! The http sink, against a small HTTP server that answers as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_connectors::async_sink::AsyncSinkOptions;
use tidemill_connectors::conformance::{Alarm, write, writer_context};
use tidemill_connectors::http::HttpSink;
use tidemill_core::sink::{Sink, SinkWriter};
use tidemill_core::{DeadLetter, Error, Result};

use crate::http_server::Server;

fn sink(server: &Server) -> HttpSink<u32> {
    HttpSink::json(format!("http://127.0.0.1:{}/robot/hush?token=hush", server.port)).options(AsyncSinkOptions {
        batch_age_ms: 5,
        retry_first_ms: 1,
        retry_most_ms: 2,
        ..Default::default()
    })
}

/// Writes the numbers and closes the epoch, as a job does.
fn send(sink: &HttpSink<u32>, numbers: &[u32]) -> Result<()> {
    let (alarm, waker) = Alarm::new();
    let mut writer: Box<dyn SinkWriter<u32>> = sink.writer(writer_context(0, 1, 1, 1, waker))?;
    write(&mut *writer, &alarm, numbers.iter().map(|n| (0, *n)).collect());
    let close = writer.pre_commit(1)?;
    std::thread::spawn(close).join().unwrap().map(|tokens| assert!(tokens.is_empty()))
}

fn told(error: &Error) -> String {
    format!("{error} {error:?}")
}

#[test]
fn each_record_is_a_request_in_order_with_the_headers_asked_for() {
    let server = Server::answering(&[200, 204, 201]);
    send(&sink(&server).header("Authorization", "Bearer hush"), &[7, 8, 9]).unwrap();
    let first = server.next();
    assert_eq!(first.line, "POST /robot/hush?token=hush HTTP/1.1");
    for header in ["content-type: application/json", "authorization: bearer hush"] {
        assert!(first.headers.iter().any(|sent| sent == header), "{:?}", first.headers);
    }
    assert_eq!((first.body, server.bodies(2)), ("7".to_string(), vec!["8".to_string(), "9".to_string()]));

    let server = Server::answering(&[200]);
    let text = HttpSink::new(format!("http://127.0.0.1:{}", server.port), |n: &u32| Ok(format!("number {n}").into()));
    send(&text.content_type("text/plain"), &[1]).unwrap();
    let sent = server.next();
    assert!(sent.body == "number 1" && sent.headers.contains(&"content-type: text/plain".to_string()));
}

#[test]
fn an_outage_is_waited_out_and_what_has_arrived_is_not_sent_again() {
    let server = Server::answering(&[200, 503, 429, 408, 500, 200, 200]);
    send(&sink(&server), &[1, 2, 3]).unwrap();
    assert_eq!(server.bodies(7), ["1", "2", "2", "2", "2", "2", "3"]);
    // No answer in time.
    let server = Server::answering(&[0, 200]);
    send(&sink(&server).timeout(Duration::from_millis(200)), &[1]).unwrap();
    assert_eq!(server.bodies(2), ["1", "1"]);
}

#[test]
fn a_refused_record_fails_the_sink_or_is_taken_and_others_go_on() {
    let server = Server::answering(&[200, 422]);
    let error = send(&sink(&server), &[1, 2, 3]).unwrap_err();
    assert!(error.to_string().contains("answered 422: it says so"), "{error}");

    let server = Server::answering(&[200, 400, 200]);
    let refused: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let taken = Arc::clone(&refused);
    let sink = sink(&server).on_refused(move |letter| {
        taken.lock().unwrap().push(letter);
        Ok(())
    });
    send(&sink, &[1, 2, 3]).unwrap();
    assert_eq!(server.bodies(3), ["1", "2", "3"]);
    let refused = refused.lock().unwrap();
    assert_eq!(refused.iter().map(|letter| letter.payload.as_str()).collect::<Vec<_>>(), ["2"]);
    assert!(refused[0].reason.contains("answered 400"), "{:?}", refused[0]);
}

#[test]
fn records_go_as_an_array_and_alone_when_it_is_refused() {
    let server = Server::answering(&[200, 400, 200, 400, 503, 200]);
    let refused: Arc<Mutex<Vec<String>>> = Arc::default();
    let taken = Arc::clone(&refused);
    let sink = sink(&server).batched().on_refused(move |letter| {
        taken.lock().unwrap().push(letter.payload);
        Ok(())
    });
    let whole =
        AsyncSinkOptions { batch_entries_max: 3, batch_age_ms: u64::MAX, retry_first_ms: 1, ..Default::default() };
    send(&sink.options(whole), &[1, 2, 3, 4, 5, 6]).unwrap();
    // The first array arrives; of the second 5 is bad, and 6 goes again behind a short outage.
    assert_eq!(server.bodies(6), ["[1,2,3]", "[4,5,6]", "[4]", "[5]", "[6]", "[6]"]);
    assert_eq!(*refused.lock().unwrap(), ["5"]);
}

#[test]
fn answers_about_the_address_fail_the_sink_and_no_secret_is_told() {
    for (status, hint) in [(401, "header"), (403, "header"), (404, "URL"), (410, "URL"), (302, "redirects")] {
        let server = Server::answering(&[status]);
        let sink = sink(&server).header("authorization", "hush").on_refused(|_| panic!("it is not about the record"));
        let error = send(&sink, &[1]).unwrap_err();
        assert!(told(&error).contains(hint) && error.to_string().contains(&format!("answered {status}")), "{error}");
        assert!(!told(&error).contains("hush") && !sink.name().contains("hush"), "{error:?}");
    }
}

#[test]
fn what_is_no_address_or_header_is_refused_at_the_start() {
    let refused = |sink: HttpSink<u32>, why: &str| {
        let error = send(&sink, &[]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(HttpSink::json("ftp://there/hush"), "no scheme or no host");
    refused(HttpSink::json("/path"), "no scheme or no host");
    refused(HttpSink::json("http://a b"), "the URL of an http sink is none");
    refused(HttpSink::json("http://here").header("a b", "c"), "header `a b` cannot be sent");
}
