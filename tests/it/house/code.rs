//! What stands in no source file: clocks where time is an argument, ways to give up, tests that cannot fail.

use super::rust_source::Code;
use super::tree::Tree;
use super::{Breaches, check};

/// Where core and engine may ask the machine for the time, and why.
const CLOCKS: &[(&str, &str)] = &[
    ("crates/core/src/clock.rs", "the one place that makes a clock of the machine's time"),
    ("crates/engine/src/runtime/metrics.rs", "busy time is a matter of the machine; no result depends on it"),
];

/// Ways to the machine's time and to waiting.
const TIME: [&str; 5] = ["SystemTime", "Instant::now", "chrono::Local", "sleep(", "sleep_until("];

/// Ways out of the process: only connectors, topic, server and cli have a network.
const NETWORK: [&str; 2] = ["std::net", "tokio::"];

/// Where the engine may, and why.
const NETWORKS: &[(&str, &str)] = &[
    ("crates/engine/src/runtime/cluster/", "the processes of one job speak to each other (ADR 4)"),
    ("crates/engine/src/runtime/processes.rs", "it holds their connections"),
    ("crates/engine/src/checkpoint/storage/object.rs", "checkpoints in an object store (ADR 7)"),
];

/// Whether all of a file is test or bench code.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.starts_with("benches/") || path.contains("/tests/") || path.contains("/benches/")
}

fn found(tree: &Tree, folders: &[&str], needles: &[&str], program_only: bool) -> Breaches {
    let mut breaches = Breaches::new();
    for (path, text) in folders.iter().flat_map(|folder| tree.rust(folder)) {
        if program_only && is_test(path) {
            continue;
        }
        let code = Code::of(text);
        for needle in needles {
            let lines = code.lines_with(needle, program_only).into_iter();
            breaches.extend(lines.map(|line| format!("{path}:{line}: `{needle}`")));
        }
    }
    breaches
}

fn clocks(tree: &Tree) -> Breaches {
    let mut breaches = found(tree, &["crates/core/src/", "crates/engine/src/"], &TIME, true);
    breaches.retain(|breach| !CLOCKS.iter().any(|(path, _)| breach.starts_with(&format!("{path}:"))));
    breaches
}

#[test]
fn core_and_engine_read_no_clock_and_never_sleep() {
    check(
        "core and engine read no clock and never sleep",
        "take a `Clock` (tidemill_core::clock) as an argument, and use timers or wakers instead of sleeping",
        clocks,
        &[
            ("crates/engine/src/a.rs", "//! `sleep(`\nfn a() { std::thread::sleep(b) }\nfn c() { Instant::now(); }"),
            ("crates/core/src/clock.rs", "fn a() { SystemTime::now(); }"),
            ("crates/server/src/a.rs", "fn a() { SystemTime::now(); }"),
        ],
        &["a.rs:2", "a.rs:3"],
    );
    let ours = Tree::ours();
    for (path, reason) in CLOCKS {
        let used = !found(&ours, &[path], &TIME, true).is_empty();
        assert!(used, "`{path}` ({reason}) reads no clock any more: take it off the list in {}", file!());
    }
}

fn networks(tree: &Tree) -> Breaches {
    let mut breaches = found(tree, &["crates/core/src/", "crates/engine/src/"], &NETWORK, true);
    breaches.retain(|breach| !NETWORKS.iter().any(|(place, _)| breach.starts_with(place)));
    breaches
}

#[test]
fn core_and_engine_have_no_network() {
    check(
        "core and engine have no network, but between the processes of a job",
        "move it into a connector, or into the server",
        networks,
        &[
            ("crates/engine/src/a.rs", "use std::net::TcpStream;\nuse std::os::unix::net::UnixListener;"),
            ("crates/engine/src/runtime/cluster/mesh.rs", "use std::net::TcpStream;"),
        ],
        &["a.rs:1"],
    );
}

/// Walls inside a crate: a word, the folder where it may not stand, and the parts of it where it may.
const WALLS: &[(&str, &str, &[&str])] = &[
    (
        "timely::",
        "crates/engine/src/",
        &[
            "crates/engine/src/driver/",
            "crates/engine/src/runtime/control.rs",
            "crates/engine/src/runtime/execute.rs",
            "crates/engine/src/runtime/processes.rs",
            "crates/engine/src/runtime/cluster/transport.rs",
        ],
    ),
    ("axum::", "crates/server/src/jobs/", &[]),
];

fn walls(tree: &Tree) -> Breaches {
    let mut breaches = Breaches::new();
    for (word, folder, doors) in WALLS {
        let mut there = found(tree, &[folder], &[word], true);
        there.retain(|breach| !doors.iter().any(|door| breach.starts_with(door)));
        breaches.extend(there);
    }
    breaches
}

#[test]
fn walls_inside_crates_stand() {
    check(
        "timely stays in the engine's driver, HTTP out of the server's jobs",
        "give the driver (or the api) a small method, and call that",
        walls,
        &[
            ("crates/engine/src/window/time.rs", "use timely::Antichain;"),
            ("crates/engine/src/driver/a.rs", "use timely::Antichain;"),
            ("crates/server/src/jobs/job.rs", "//! axum::\nuse axum::Json;"),
        ],
        &["time.rs:1", "job.rs:2"],
    );
}

#[test]
fn programs_do_not_unwrap() {
    check(
        "no `.unwrap()` outside tests",
        "return an error, or say why it cannot fail with `.expect(\"…\")`",
        |tree| found(tree, &[""], &[".unwrap()", ".unwrap_err()"], true),
        &[
            ("crates/a/src/b.rs", "fn a() { b.unwrap() }\n#[cfg(test)]\nmod tests { fn c() { d.unwrap() } }"),
            ("crates/a/tests/b.rs", "fn a() { b.unwrap() }"),
        ],
        &["crates/a/src/b.rs:1"],
    );
}

#[test]
fn nothing_is_left_open() {
    check(
        "no `todo!`, `unimplemented!`, `dbg!`, and no ignored test",
        "build it, return an error that says it is not built yet, or assert what it does today",
        |tree| found(tree, &[""], &["todo!", "unimplemented!", "dbg!", "#[ignore"], false),
        &[("crates/a/src/b.rs", "fn a() { todo!() }\n#[test]\n#[ignore]\nfn b() { \"todo!\" }")],
        &["b.rs:1", "b.rs:3"],
    );
}

#[test]
fn every_test_can_fail() {
    let dropped = |tree: &Tree| {
        let lines = |path: &str, text| {
            Code::of(text).dropped_matches().into_iter().map(move |line| (path.to_string(), line)).collect::<Vec<_>>()
        };
        let all = tree.rust("").flat_map(|(path, text)| lines(path, text));
        all.map(|(path, line)| format!("{path}:{line}: the answer of `matches!` is dropped")).collect()
    };
    check(
        "no `matches!(…);` whose answer is dropped",
        "put `assert!` around it",
        dropped,
        &[(
            "crates/a/tests/b.rs",
            "fn a() {\n  matches!(b, C { .. });\n  assert!(matches!(b, C));\n  let d = matches!(b, C);\n}",
        )],
        &["b.rs:2"],
    );
}
