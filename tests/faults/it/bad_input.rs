//! What no job can read, from all sides: HTTP, command line, files. The job lives on, each bad record becomes a dead
//! letter with its reason and its place, and is counted where people look.

use std::path::Path;

use serde_json::{Value, json};
use tidemill_topic::Topics;

use crate::support::process::{Done, tidemill};
use crate::support::server::Server;
use crate::support::{folder, orders};

/// A good order, with some fields changed; a `null` takes the field away.
fn order(good: &Value, changes: Value) -> Vec<u8> {
    let mut order = good.clone();
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(order.as_object_mut().unwrap().remove(field)),
            value => order[field] = value.clone(),
        }
    }
    order.to_string().into_bytes()
}

fn produce(server: &Server, lines: &Path) -> Done {
    let data = server.data().display().to_string();
    Done::of(&mut tidemill(&["topic", "produce", "orders", "--data", &data, "--file", lines.to_str().unwrap()]))
}

#[test]
fn bad_orders_become_dead_letters_and_the_job_lives() {
    let server = Server::start();
    let topic = orders::create(&server.topics());
    let good: Vec<Vec<u8>> = orders::events(3, 400);
    let good: Vec<Vec<u8>> = good.into_iter().filter(|json| orders::refused(std::slice::from_ref(json)) == 0).collect();
    orders::append(&topic, &good[..200]);
    let job = server.submit("order-screen", orders::ARGS, 2, 50);
    let one: Value = serde_json::from_slice(&good[0]).unwrap();

    // What is JSON comes in over HTTP: the reasons each of them must get.
    let over_http = [
        (order(&one, json!({"num": "three"})), "\"three\""),
        (order(&one, json!({"userName": 17})), "integer `17`"),
        (order(&one, json!({"orderId": null})), "orderId"),
        (order(&one, json!({"totalPrice": null})), "totalPrice"),
        (order(&one, json!({"price": "-19.90"})), "below zero"),
        (order(&one, json!({"totalPrice": "19.999"})), "at most two digits"),
        (order(&one, json!({"orderTimeSeries": 0})), "outside the years 2000 to 2099"),
        (order(&one, json!({"orderTimeSeries": i64::MAX})), "outside the years 2000 to 2099"),
        (order(&one, json!({"orderTimeSeries": i64::MIN})), "outside the years 2000 to 2099"),
        (order(&one, json!({"orderTimeSeries": 1e300})), "floating point"),
        (order(&one, json!({"orderTime": "yesterday"})), "orderTime"),
        (order(&one, json!({"status": "verschenkt"})), "verschenkt"),
        (b"[]".to_vec(), "no order event"),
        (b"null".to_vec(), "no order event"),
        (b"\"orders\"".to_vec(), "no order event"),
        // Ten megabytes on one line.
        (order(&one, json!({"orderId": null, "userName": "x".repeat(10 << 20)})), "orderId"),
    ];
    for (number, (line, _)) in over_http.iter().enumerate() {
        let (status, body) = server.http.append("/api/topics/orders/records", line, &number.to_string()).unwrap();
        assert_eq!((status, &body["records"]), (200, &json!(1)), "{body}");
    }
    // What is none is refused there, all of it, with its line.
    let half = &good[1][..good[1].len() / 2];
    let mixed = [&good[0], half].join(&b'\n');
    let (status, body) = server.http.append("/api/topics/orders/records", &mixed, "half").unwrap();
    assert_eq!(status, 400, "{body}");
    assert!(body["errors"][0].as_str().unwrap().starts_with("line 2: "), "{body}");
    let (status, body) = server.http.append("/api/topics/orders/records", &vec![b'7'; 33 << 20], "huge").unwrap();
    assert_eq!(status, 413, "{body}");

    // The command line takes lines as they are.
    let over_cli: [(&[u8], &str); 5] = [
        (b"{\"orderId\":\"1\",,}", "no order event"),
        (b"not JSON at all", "no order event"),
        (b"\xff\xfe\xfd", "no order event"),
        (&[b'['; 100_000], "no order event"),
        (half, "no order event"),
    ];
    let dir = folder();
    let file = dir.path().join("lines");
    let lines: Vec<&[u8]> = over_cli.iter().map(|(line, _)| *line).collect();
    // The last line is half written: no line end behind it.
    std::fs::write(&file, lines.join(&b'\n')).unwrap();
    assert!(produce(&server, &file).ok().contains("stored 5 records"));
    std::fs::write(&file, vec![b'8'; 17 << 20]).unwrap();
    let longer = produce(&server, &file).failed(2);
    assert!(longer.contains("line 1 is longer than"), "{longer}");

    orders::append(&topic, &good[200..]);
    let mut all = good.clone();
    all.extend(over_http.iter().map(|(line, _)| line.clone()));
    all.extend(lines.iter().map(|line| line.to_vec()));
    orders::settles(&server, &job, &all);

    let letters: Vec<Value> =
        orders::records(&Topics::open(server.topics()).unwrap().open_topic("orders.dead").unwrap())
            .iter()
            .map(|letter| serde_json::from_slice(letter).unwrap())
            .collect();
    for (line, reason) in over_http.iter().map(|(line, why)| (&line[..], *why)).chain(over_cli) {
        let payload = String::from_utf8_lossy(&line[..line.len().min(4096)]).into_owned();
        let found: Vec<&Value> = letters.iter().filter(|letter| letter["payload"] == payload.as_str()).collect();
        assert_eq!(found.len(), 1, "{payload:.200}");
        let (why, place) = (found[0]["reason"].as_str().unwrap(), found[0]["position"].as_str().unwrap());
        assert!(why.contains(reason) && why.len() < 1_000, "{why:.2000} for {payload:.200}");
        let place: Vec<&str> = place.split(' ').collect();
        let (partition, offset) = (place[1].parse().unwrap(), place[3].parse().unwrap());
        assert_eq!((place[0], place[2]), ("partition", "offset"));
        let stored = topic.read(partition, offset, 1).unwrap();
        let tidemill_topic::ReadOutcome::Batches(batches) = stored else { panic!("{stored:?}") };
        let there = batches.iter().flat_map(|batch| batch.iter()).find(|record| record.offset == offset).unwrap();
        assert!(there.value == line, "the place is where the record stands");
        assert_eq!(found[0]["source"], "topic `orders`");
    }
    let detail = server.job(&job);
    let counted = detail["vertices"].as_array().unwrap().iter().map(|vertex| vertex["dead_letters"].as_u64().unwrap());
    assert_eq!(counted.sum::<u64>(), letters.len() as u64, "{detail}");
    assert_eq!((&detail["state"], &detail["restarts"]), (&json!("RUNNING"), &json!(0)));
}

#[test]
fn bad_lines_of_a_file_are_passed_over_by_a_job_file() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    let mut lines = b"{\"n\":1}\n{\"n\":\n\xff\xff\n{\"n\":2}\n".to_vec();
    lines.extend(vec![b'9'; 10 << 20]);
    lines.extend(b"\n{\"n\":3}\n{\"n\":4");
    std::fs::write(path("lines.json"), &lines).unwrap();
    let file = "name = \"copy\"\n[source]\nconnector = \"file\"\npath = \"lines.json\"\nformat = \"json\"\n\
         dead_letters = \"bad\"\n[sink]\nconnector = \"file\"\nfolder = \"out\"\n";
    std::fs::write(path("copy.toml"), file).unwrap();
    let data = path("data").display().to_string();
    Done::of(&mut tidemill(&["run", path("copy.toml").to_str().unwrap(), "--data", &data])).ok();
    let parts = std::fs::read_dir(path("out")).unwrap().flatten();
    let mut copied: Vec<String> = parts
        .flat_map(|part| std::fs::read_to_string(part.path()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    copied.sort();
    assert_eq!(copied, ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
    let letters = Topics::open(path("data").join("topics")).unwrap().open_topic("bad").unwrap();
    let bad: Vec<Value> =
        orders::records(&letters).iter().map(|letter| serde_json::from_slice(letter).unwrap()).collect();
    for place in ["line 2", "line 3", "line 5", "line 7"] {
        let found = bad.iter().filter(|letter| letter["position"].as_str().unwrap().ends_with(place));
        assert_eq!(found.count(), 1, "{place}: {:?}", bad.iter().map(|letter| &letter["position"]).collect::<Vec<_>>());
    }
    assert_eq!(bad.len(), 4);
    assert!(bad.iter().all(|letter| letter["payload"].as_str().unwrap().len() <= 3 * 4096), "payloads are cut");
}
