//! The elasticsearch sink against a real OpenSearch, also one that is killed in the middle.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidemill_connectors::async_sink::AsyncSinkOptions;
use tidemill_connectors::conformance::{Alarm, write, writer_context};
use tidemill_connectors::elasticsearch::{Action, ElasticsearchSink, RawJson, bulk_options};
use tidemill_core::sink::{Sink, SinkWriter};
use tidemill_core::{DeadLetter, Kind, Result};

use crate::elasticsearch_server::OpenSearch;

/// Small waits; bulks are sent when the epoch closes, or full.
fn quick() -> AsyncSinkOptions {
    AsyncSinkOptions { batch_age_ms: u64::MAX, retry_first_ms: 1, retry_most_ms: 50, ..bulk_options() }
}

fn start<T: 'static>(sink: &ElasticsearchSink<T>) -> Result<(Box<dyn SinkWriter<T>>, Arc<Alarm>)> {
    let (alarm, waker) = Alarm::new();
    Ok((sink.writer(writer_context(0, 1, 1, 1, waker))?, alarm))
}

fn close<T>(writer: &mut dyn SinkWriter<T>, epoch: u64) -> Result<()> {
    let close = writer.pre_commit(epoch)?;
    std::thread::spawn(close).join().unwrap().map(|tokens| assert!(tokens.is_empty(), "there is nothing to commit"))
}

/// Writes the records and closes the epoch, as a job does.
fn send<T: 'static>(sink: &ElasticsearchSink<T>, records: Vec<T>) -> Result<()> {
    let (mut writer, alarm) = start(sink)?;
    write(&mut *writer, &alarm, records.into_iter().map(|record| (0, record)).collect());
    close(&mut *writer, 1)
}

/// A sink of actions, with what it refused.
fn of_actions(server: &OpenSearch) -> (ElasticsearchSink<Action>, Arc<Mutex<Vec<DeadLetter>>>) {
    let refused: Arc<Mutex<Vec<DeadLetter>>> = Arc::default();
    let taken = Arc::clone(&refused);
    let sink = ElasticsearchSink::new(server.url(), |action: &Action| action.clone()).options(quick());
    let sink = sink.on_refused(move |letter| {
        taken.lock().unwrap().push(letter);
        Ok(())
    });
    (sink, refused)
}

fn numbers(documents: &[Value]) -> Vec<i64> {
    documents.iter().map(|document| document["n"].as_i64().unwrap()).collect()
}

#[test]
fn every_action_does_what_it_says_also_twice() {
    let Some(server) = OpenSearch::shared() else { return };
    let actions = || {
        vec![
            Action::index("actions", "whole", &json!({ "old": 1 })),
            Action::index("actions", "whole", &json!({ "n": 1 })),
            Action::create("actions", "first", &json!({ "n": 2 })),
            Action::create("actions", "first", &json!({ "n": 3 })),
            Action::update("actions", "part", &json!({ "a": 1, "n": 4 })),
            Action::update("actions", "part", &json!({ "n": 5 })),
            Action::index("actions", "gone", &json!({ "n": 6 })),
            Action::delete("actions", "gone"),
            Action::delete("actions", "never there"),
            Action::delete("actions-never-there", "1"),
            // What came last as a version wins, not what comes last.
            Action::index("actions", "versioned", &json!({ "n": 8 })).version(8),
            Action::index("actions", "versioned", &json!({ "n": 7 })).version(7),
            Action::index("actions", "raw", &RawJson(b"{\r\n  \"n\": 9\n}")),
            Action::index("actions-2026-11-29", "1", &json!({ "n": 10 })).routing("elsewhere"),
            Action::append("actions-appended", &json!({ "n": 11 })),
        ]
    };
    let (sink, refused) = of_actions(server);
    for times in 1..=2 {
        send(&sink, actions()).unwrap();
        let document = |id: &str| server.document("actions", id);
        assert_eq!(document("whole"), Some(json!({ "n": 1 })));
        assert_eq!(document("first"), Some(json!({ "n": 2 })));
        assert_eq!(document("part"), Some(json!({ "a": 1, "n": 5 })));
        assert_eq!(document("versioned"), Some(json!({ "n": 8 })));
        assert_eq!(document("raw"), Some(json!({ "n": 9 })));
        assert_eq!(numbers(&server.documents("actions", "n")), [1, 2, 5, 8, 9], "none more, `gone` is gone");
        assert_eq!(server.document("actions-2026-11-29", "1?routing=elsewhere"), Some(json!({ "n": 10 })));
        // Without an id it is there as often as it was sent.
        assert_eq!(numbers(&server.documents("actions-appended", "n")), vec![11; times]);
    }
    assert_eq!(*refused.lock().unwrap(), []);
}

#[test]
fn a_document_that_does_not_fit_is_refused_alone_and_its_neighbours_arrive() {
    let Some(server) = OpenSearch::shared() else { return };
    server.ask("PUT", "mapped", Some(json!({ "mappings": { "properties": { "n": { "type": "long" } } } })));
    let actions = || {
        vec![
            Action::index("mapped", "1", &json!({ "n": 1 })),
            Action::index("mapped", "2", &json!({ "n": "two" })),
            Action::update("mapped", "3", &json!({ "n": 3 })).existing_only(),
            Action::index("mapped", "4", &json!({ "n": 4 })),
            Action::index("No Index", "5", &json!({ "n": 5 })),
            Action::index("mapped", "6", &json!({ "n": 6 })).pipeline("nowhere"),
            Action::index("mapped", "7", &json!({ "n": 7 })),
            Action::index("mapped", "8", &8),
        ]
    };
    let (sink, refused) = of_actions(server);
    send(&sink, actions()).unwrap();
    assert_eq!(numbers(&server.documents("mapped", "n")), [1, 4, 7]);
    let refused = refused.lock().unwrap();
    let seen: Vec<_> = refused.iter().map(|letter| (letter.position.as_str(), letter.payload.as_str())).collect();
    let expected = [
        ("mapped/2", r#"{"n":"two"}"#),
        ("mapped/3", r#"{"doc":{"n":3},"doc_as_upsert":false}"#),
        ("No Index/5", r#"{"n":5}"#),
        ("mapped/6", r#"{"n":6}"#),
        ("mapped/8", "8"),
    ];
    assert_eq!(seen, expected);
    let why = ["failed to parse field [n] of type [long]", "document missing", "Invalid index name", "nowhere", ""];
    for (letter, why) in refused.iter().zip(why) {
        assert!(letter.reason.contains(why) && letter.source.starts_with("elasticsearch at"), "{letter:?}");
    }

    let sink = ElasticsearchSink::new(server.url(), |action: &Action| action.clone()).options(quick());
    let error = send(&sink, actions()).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    for told in ["`mapped/2`", "400", "failed to parse field [n] of type [long]"] {
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn the_last_action_on_a_document_has_the_last_word() {
    let Some(server) = OpenSearch::shared() else { return };
    // Many bulks, in each of them every document several times.
    let options = AsyncSinkOptions { batch_entries_max: 17, ..quick() };
    let sink = ElasticsearchSink::new(server.url(), |n: &u64| {
        let id = (n % 5).to_string();
        match n % 7 {
            0 => Action::delete("ordered", id),
            1 => Action::update("ordered", id, &json!({ "n": n, "updated": n })),
            _ => Action::index("ordered", id, &json!({ "n": n })),
        }
    });
    let sink = sink.options(options);
    send(&sink, (0..1000).collect()).unwrap();
    let document = |id: &str| server.document("ordered", id);
    assert_eq!(document("0"), Some(json!({ "n": 995, "updated": 995 })), "990 wrote it whole, 995 updated it");
    for n in 996..1000u64 {
        assert_eq!(document(&(n % 5).to_string()), Some(json!({ "n": n })), "written whole");
    }
    send(&sink, vec![1001, 1003]).unwrap();
    assert_eq!(document("1"), None, "1001 deletes");
    assert_eq!(document("3"), Some(json!({ "n": 1003 })));
}

/// Eight bulks of one document's history at once overtake each other; versions tell the server what is older.
#[test]
fn versions_keep_the_order_of_several_bulks_at_once() {
    let Some(server) = OpenSearch::shared() else { return };
    let options = AsyncSinkOptions { requests_max: 8, batch_entries_max: 3, ..quick() };
    let of_version = |n: &u64| Action::index("versions", (n % 3).to_string(), &json!({ "n": n })).version(*n);
    let sink = ElasticsearchSink::new(server.url(), of_version).options(options);
    send(&sink, (0..600).collect()).unwrap();
    assert_eq!(numbers(&server.documents("versions", "n")), [597, 598, 599]);

    let without = ElasticsearchSink::new(server.url(), |n: &u64| Action::index("versions", n.to_string(), n));
    let (mut writer, _alarm) = start(&without.options(options)).unwrap();
    let error = writer.write(vec![(0, 1)]).unwrap_err();
    assert!(error.to_string().contains("`versions/1` has no version"), "{error}");
}

/// The server takes 1 MB at once: bulks are divided until they fit, and what is too large alone is refused.
#[test]
fn bulks_that_are_too_large_are_divided() {
    let Some(server) = OpenSearch::shared() else { return };
    let (sink, refused) = of_actions(server);
    let sized =
        |n: usize, bytes: usize| Action::index("sized", n.to_string(), &json!({ "n": n, "t": "x".repeat(bytes) }));
    let options = AsyncSinkOptions { batch_bytes_max: 64 << 20, ..quick() };
    let mut actions: Vec<Action> = (0..20).map(|n| sized(n, 300_000)).collect();
    actions.insert(7, sized(99, 1_500_000));
    send(&sink.options(options), actions).unwrap();
    let (status, answer) = server.ask("POST", "sized/_refresh", None);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(server.ask("GET", "sized/_count", None).1["count"], json!(20));
    let refused = refused.lock().unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].position == "sized/99" && refused[0].reason.contains("413"), "{:?}", refused[0].reason);
}

/// An id of more than 512 bytes makes the server refuse the whole bulk.
#[test]
fn what_spoils_a_whole_bulk_is_found() {
    let Some(server) = OpenSearch::shared() else { return };
    let (sink, refused) = of_actions(server);
    let long = "x".repeat(600);
    let id = |n: usize| if n % 40 == 13 { format!("{n}{long}") } else { n.to_string() };
    send(&sink, (0..100).map(|n| Action::index("spoilt", id(n), &json!({ "n": n }))).collect()).unwrap();
    assert_eq!(server.documents("spoilt", "n").len(), 97);
    let refused = refused.lock().unwrap();
    let payloads: Vec<_> = refused.iter().map(|letter| letter.payload.as_str()).collect();
    assert_eq!(payloads, [r#"{"n":13}"#, r#"{"n":53}"#, r#"{"n":93}"#]);
}

#[test]
fn a_wrong_path_and_a_locked_index_fail_the_job_with_what_to_do() {
    let Some(server) = OpenSearch::shared() else { return };
    let record = |index: &'static str| move |n: &u64| Action::index(index, n.to_string(), &json!({ "n": n }));
    let refused = |_| panic!("it is not about the document");
    let wrong = ElasticsearchSink::new(format!("{}/some/where", server.url()), record("paths"));
    let error = send(&wrong.options(quick()).on_refused(refused), vec![1, 2]).unwrap_err();
    assert!(format!("{error:?}").contains("correct the URL") && error.to_string().contains("no handler"), "{error:?}");

    assert_eq!(server.ask("PUT", "locked", Some(json!({ "settings": { "index.blocks.write": true } }))).0, 200);
    let locked = ElasticsearchSink::new(server.url(), record("locked")).options(quick()).on_refused(refused);
    let error = send(&locked, vec![1, 2]).unwrap_err();
    assert!(error.to_string().contains("`locked/1`") && format!("{error:?}").contains("block"), "{error:?}");
}

/// Five hundred documents get twenty thousand values; the server is killed twice on the way. In the end each has its last.
#[test]
fn a_search_server_killed_in_the_middle_costs_no_document() {
    const KEYS: u64 = 500;
    const RECORDS: u64 = 20_000;
    let Some(mut server) = OpenSearch::start() else { return };
    let options = AsyncSinkOptions { queue_entries_max: 1000, batch_entries_max: 200, ..quick() };
    let sink = ElasticsearchSink::new(server.url(), |n: &u64| {
        vec![
            Action::index("killed", (n % KEYS).to_string(), &json!({ "n": n })),
            Action::update("killed-parts", (n % KEYS).to_string(), &json!({ "n": n })),
        ]
    });
    let (mut writer, alarm) = start(&sink.options(options)).unwrap();
    let (mut epoch, mut away, mut held_up) = (0, false, 0);
    for begin in (0..RECORDS).step_by(100) {
        if begin == RECORDS / 4 || begin == RECORDS / 2 {
            server.kill();
            away = true;
        }
        // Backpressure while the server is away; it comes back only now.
        if away && !writer.ready() {
            held_up += 1;
            away = false;
            server.restart();
        }
        write(&mut *writer, &alarm, (begin..begin + 100).map(|n| (0, n)).collect());
        if begin % 4000 == 0 && !away {
            epoch += 1;
            close(&mut *writer, epoch).unwrap();
        }
    }
    close(&mut *writer, epoch + 1).unwrap();
    assert_eq!(held_up, 2, "the queue is bounded");
    let last: Vec<i64> = (RECORDS - KEYS..RECORDS).map(|n| n as i64).collect();
    assert_eq!(numbers(&server.documents("killed", "n")), last);
    assert_eq!(numbers(&server.documents("killed-parts", "n")), last);
}
