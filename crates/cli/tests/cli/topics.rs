//! `tidemill topic`, on a folder without a server.

use std::io::{BufRead, BufReader};

use serde_json::json;

use crate::support::{finish, folder, run, run_with, tidemill};

#[test]
fn lines_go_in_and_come_out() {
    let dir = folder();
    let data = dir.path().to_str().unwrap();
    fn on<'a>(data: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--data", data]].concat()
    }
    assert_eq!(
        run(&on(data, &["topic", "create", "orders", "-p", "2"])).ok(),
        "created topic orders with 2 partitions\n"
    );
    assert!(run(&on(data, &["topic", "create", "orders"])).failed(2).contains("orders"));
    let stored = run_with(
        &on(data, &["topic", "produce", "orders", "--key-field", "id"]),
        "{\"id\":1,\"n\":1}\n\n{\"id\":1,\"n\":2}\r\n{\"id\":\"x\",\"n\":3}",
    )
    .ok();
    assert_eq!(stored, "stored 3 records in topic orders\n");
    let consumed = run(&on(data, &["topic", "consume", "orders"])).ok();
    let mut lines: Vec<&str> = consumed.lines().collect();
    lines.sort();
    assert_eq!(lines, ["{\"id\":\"x\",\"n\":3}", "{\"id\":1,\"n\":1}", "{\"id\":1,\"n\":2}"]);
    let records: Vec<serde_json::Value> =
        run(&on(data, &["topic", "consume", "orders", "--output", "json", "--max", "3"]))
            .ok()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
    let second = records.iter().find(|record| record["value"]["n"] == 2).unwrap();
    assert_eq!((&second["key"], &second["offset"]), (&json!("1"), &json!(1)));

    let listed = run(&on(data, &["topic", "list"])).ok();
    let cells: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[1][..3], ["orders", "2", "3"], "{listed}");
    assert_eq!(run(&on(data, &["--output", "json", "topic", "list"])).json()[0]["records"], 3);
    assert_eq!(run(&on(data, &["topic", "consume", "orders", "--from", "latest"])).ok(), "");
    assert_eq!(
        run(&on(data, &["topic", "consume", "orders", "--from", "timestamp:0", "-n", "2"])).ok().lines().count(),
        2
    );
    assert_eq!(run(&on(data, &["topic", "consume", "orders", "--from", "offset:99"])).ok(), "");
    assert!(
        run(&on(data, &["topic", "consume", "orders", "--partition", "7"]))
            .failed(3)
            .contains("partitions 0 to 1, not 7")
    );
    assert_eq!(run(&on(data, &["topic", "delete", "orders"])).ok(), "deleted topic orders\n");
    for command in ["consume", "produce", "delete"] {
        assert!(run(&on(data, &["topic", command, "orders"])).failed(3).starts_with("there is no topic `orders` in"));
    }
}

#[test]
fn whoever_looks_into_a_folder_that_is_not_there_makes_none() {
    let dir = folder();
    let data = dir.path().join("typo");
    for args in [&["list"][..], &["consume", "t"], &["produce", "t"], &["delete", "t"]] {
        let words = [&["topic"], args, &["--data", data.to_str().unwrap()]].concat();
        assert!(run(&words).failed(3).starts_with("there is no data folder `"), "{words:?}");
    }
    assert!(!data.exists());
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_stored() {
    let dir = folder();
    let data = dir.path().to_str().unwrap();
    run(&["topic", "create", "t", "--data", data]).ok();
    let file = dir.path().join("in.jsonl");
    std::fs::write(&file, "{\"id\":1}\n{\"id\":2}\n{\"x\":3}\n{\"id\":4}\n").unwrap();
    let failed = run(&["topic", "produce", "t", "--data", data, "--key-field", "id", "--file", file.to_str().unwrap()])
        .failed(2);
    assert_eq!(failed, "2 records are stored, then: line 3: there is no field `id` to take the key from");
    assert_eq!(run(&["topic", "consume", "t", "--data", data]).ok().lines().count(), 2);
    assert!(
        run(&["topic", "produce", "t", "--data", data, "--file", "/no/such/file"]).failed(3).contains("/no/such/file")
    );
    assert!(run(&["topic", "create", "../x", "--data", data]).failed(2).contains("../x"));
}

#[test]
fn a_follower_sees_what_comes_later() {
    let dir = folder();
    let data = dir.path().to_str().unwrap().to_owned();
    run(&["topic", "create", "t", "--data", &data]).ok();
    let mut follower = tidemill(&["topic", "consume", "t", "--follow", "--max", "2", "--data", &data]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    run_with(&["topic", "produce", "t", "--data", &data], "one\n").ok();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    run_with(&["topic", "produce", "t", "--data", &data], "two\n").ok();
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert_eq!(finish(follower).code, 0);
}
