//! The server is killed with signal 9, again and again, while orders come in over HTTP; sometimes its job with it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::http::Http;
use crate::support::seeds::{Random, seeds};
use crate::support::server::Server;
use crate::support::{eventually, orders, pause};

const KILLS: usize = 9;

/// Appends all events in their order, each append until it is acknowledged; `stop` is for a test that has failed.
fn feed(http: &Http, events: &[Vec<u8>], stop: &AtomicBool) -> u64 {
    let mut repeated = 0;
    for (number, chunk) in events.chunks(20).enumerate() {
        let keyed = |event: &&Vec<u8>| order_generator::generator::key_of(event).is_some();
        for (path, keyed_ones) in [("?key=orderId", true), ("", false)] {
            let lines: Vec<&[u8]> =
                chunk.iter().filter(|event| keyed(event) == keyed_ones).map(Vec::as_slice).collect();
            if lines.is_empty() {
                continue;
            }
            let (path, once) = (format!("/api/topics/orders/records{path}"), format!("{number}{path}"));
            eventually("an append is acknowledged", || {
                assert!(!stop.load(Ordering::Relaxed), "the test has failed elsewhere");
                let answer = http.append(&path, &lines.join(&b'\n'), &once)?;
                assert!(matches!(answer.0, 200 | 500..), "{answer:?}");
                repeated += u64::from(answer.1["duplicate"] == true);
                if answer.0 == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
        pause(std::time::Duration::from_millis(5));
    }
    repeated
}

/// Says so when it is dropped, on a panic as well.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn kill_minus_9_of_the_server_changes_nothing() {
    let (mut kills, mut repeated) = (0, 0);
    for seed in seeds("server", 3) {
        let mut random = Random::new(seed);
        let mut events = orders::events(seed + 1000, 5_000);
        // Over HTTP nothing gets in that is no JSON.
        events.retain(|event| serde_json::from_slice::<serde_json::Value>(event).is_ok());
        let mut server = Server::start();
        orders::create(&server.topics());
        let job = server.submit("order-screen", orders::ARGS, 1 + seed % 3, 30);
        let stop = AtomicBool::new(false);
        let http = server.http.clone();
        repeated += std::thread::scope(|scope| {
            let feeder = scope.spawn(|| feed(&http, &events, &stop));
            let guard = Stop(&stop);
            for kill in 0..KILLS {
                // Every third time it does not even come to answer.
                if kill % 3 != 2 {
                    server.ready();
                }
                pause(random.moment());
                server.kill();
                kills += 1;
                if random.below(4) == 0 {
                    server.kill_job(&job);
                }
                server.launch();
            }
            server.ready();
            let repeated = feeder.join().unwrap();
            drop(guard);
            repeated
        });
        orders::settles(&server, &job, &events);
    }
    eprintln!("server: survived {kills} kills, {repeated} appends came twice and counted once");
}
