//! Topics over HTTP.

use serde_json::json;

use crate::support::{Http, TestServer};

fn create(http: &Http, name: &str, partitions: u32) {
    assert_eq!(http.post("/api/topics", &json!({"name": name, "partitions": partitions})).status, 201);
}

fn ndjson(http: &Http, path: &str, body: &str) -> crate::support::Answer {
    http.send("POST", path, &[("content-type", "application/x-ndjson")], body.as_bytes())
}

#[test]
fn topics_are_created_written_read_and_deleted() {
    let server = TestServer::start();
    let http = &server.http;
    create(http, "orders", 2);
    let again = http.post("/api/topics", &json!({"name": "orders"}));
    assert_eq!((again.status, again.error().contains("exists already")), (409, true));
    assert_eq!(
        http.post("/api/topics/orders/records", &json!({"id": 1})).json(),
        json!({"records": 1, "duplicate": false})
    );
    assert_eq!(http.post("/api/topics/orders/records", &json!([1, "two", null])).json()["records"], 3);
    assert_eq!(
        ndjson(http, "/api/topics/orders/records?key=id", "{\"id\":\"a\"}\n{\"id\":\"a\"}\n").json()["records"],
        2
    );
    let topics = http.get("/api/topics").json();
    assert_eq!((&topics["topics"][0]["name"], &topics["topics"][0]["records"]), (&json!("orders"), &json!(6)));
    let read = |partition: u32| http.get(&format!("/api/topics/orders/records?partition={partition}")).json();
    let both: Vec<_> = [read(0), read(1)].iter().flat_map(|page| page["records"].as_array().unwrap().clone()).collect();
    assert_eq!(both.len(), 6);
    let keyed: Vec<_> =
        both.iter().filter(|record| record["key"] == "a").map(|record| record["partition"].clone()).collect();
    assert_eq!((keyed.len(), &keyed[0]), (2, &keyed[1]), "one key, one partition");
    let page = http.get("/api/topics/orders/records?partition=0&offset=1&limit=1").json();
    assert_eq!((&page["records"][0]["offset"], &page["next_offset"]), (&json!(1), &json!(2)));
    let last = http.get("/api/topics/orders/records?partition=0&offset=latest&limit=1").json();
    assert_eq!(last["records"].as_array().unwrap().len(), 1);
    assert_eq!(http.delete("/api/topics/orders").status, 204);
    assert_eq!(http.get("/api/topics/orders/records").status, 404);
}

#[test]
fn the_same_request_twice_stores_once() {
    let server = TestServer::start();
    let http = &server.http;
    create(http, "t", 3);
    let headers = [("content-type", "application/json"), ("idempotency-key", "request-1")];
    let send = || http.send("POST", "/api/topics/t/records", &headers, b"[1,2,3]").json();
    assert_eq!(send(), json!({"records": 3, "duplicate": false}));
    assert_eq!(send(), json!({"records": 3, "duplicate": true}));
    assert_eq!(http.get("/api/topics").json()["topics"][0]["records"], 3);
}

#[test]
fn a_bad_line_stores_nothing_and_is_named() {
    let server = TestServer::start();
    let http = &server.http;
    create(http, "t", 2);
    let answer = ndjson(http, "/api/topics/t/records", "{\"a\":1}\n{\"a\":\n{\"a\":3}\n");
    assert_eq!(answer.status, 400);
    assert!(answer.error().starts_with("line 2: "), "{answer:?}");
    let answer = ndjson(http, "/api/topics/t/records?key=id", "{\"id\":1}\n{\"a\":1}\n");
    assert_eq!(answer.error(), "line 2: there is no field `id` to take the key from");
    assert_eq!(http.get("/api/topics").json()["topics"][0]["records"], 0);
    assert_eq!(ndjson(http, "/api/topics/none/records", "{}").status, 404);
    assert_eq!(http.send("POST", "/api/topics/t/records", &[("content-type", "text/plain")], b"{}").status, 415);
    assert_eq!(
        http.send("POST", "/api/topics/t/records", &[("content-type", "application/x-ndjson")], &vec![b' '; 33 << 20])
            .status,
        413
    );
    assert_eq!(http.get("/api/topics/t/records?partition=9").status, 404);
    assert_eq!(http.get("/api/topics/t/records?offset=77").status, 400);
    assert_eq!(http.get("/api/topics/t/records?offset=soon").status, 400);
    for bad in ["../x", "a/b", "", ".x"] {
        let answer = http.post("/api/topics", &json!({"name": bad}));
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    assert_eq!(http.post("/api/topics", &json!({"name": "x", "partitions": 0})).status, 400);
    assert_eq!(http.get("/api/topics/..%2F..%2Fetc%2Fpasswd/records").status, 400);
}

#[test]
fn appends_of_many_clients_at_once_are_all_stored() {
    let server = TestServer::start();
    let http = &server.http;
    create(http, "t", 4);
    let begun = std::time::Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let http = http.clone();
            std::thread::spawn(move || {
                for n in 0..25 {
                    let body: String =
                        (0..10).map(|i| format!("{{\"client\":{client},\"n\":{}}}\n", n * 10 + i)).collect();
                    assert_eq!(ndjson(&http, "/api/topics/t/records?key=client", &body).json()["records"], 10);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    println!("200 appends of 8 clients in {:?}", begun.elapsed());
    let mut next = [0; 8];
    for partition in 0..4 {
        let page = http.get(&format!("/api/topics/t/records?partition={partition}&limit=10000")).json();
        for record in page["records"].as_array().unwrap() {
            let client = record["value"]["client"].as_u64().unwrap() as usize;
            assert_eq!(record["value"]["n"], next[client], "the order of one client is kept");
            next[client] += 1;
        }
    }
    assert_eq!(next, [250; 8]);
}
