//! A job is stopped with a savepoint over REST and started again: what it has published stays, and nothing comes twice.

use serde_json::{Value, json};
use tidemill_topic::{TopicConfig, Topics};

use crate::sum_kills::{append, lines, published, sums};
use crate::support::server::Server;
use crate::support::{eventually, orders};

#[test]
fn a_job_stopped_with_a_savepoint_and_restarted_publishes_everything_once() {
    let server = Server::start();
    let topics = Topics::open(server.topics()).unwrap();
    let entries = topics.create("entries", &TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let lines = lines(8, 4_000);
    append(&entries, &lines[..2_000]).unwrap();
    let files = server.data().join("stopped").display().to_string();
    // An hour between checkpoints: what the savepoint holds stands in none.
    let args = ["--from", "entries", "--into", "stopped", "--files", &files];
    let job = server.submit("sums", &args, 2, 3_600_000);
    let call = |what: &str, body: Value| {
        let (status, answer) = server.http.post(&format!("/api/jobs/{job}/{what}"), &body);
        assert_eq!(status, 200, "{what}: {answer}\n{}", server.logs(&job));
    };
    let has_read = |records: u64| {
        eventually("the job has read its input", || {
            let detail = server.job(&job);
            let read =
                detail["vertices"].as_array().into_iter().flatten().filter_map(|v| v["records_in"].as_u64()).max();
            if detail["state"] == "RUNNING" && read >= Some(records) {
                Ok(())
            } else {
                Err(format!("{read:?}\n{}", server.logs(&job)))
            }
        });
    };
    let shown = || orders::records(&topics.open_topic("stopped").unwrap()).len();
    has_read(2_000);
    assert_eq!(shown(), 0, "no checkpoint yet");
    call("stop", json!({"drain": false}));
    assert_eq!(server.job(&job)["state"], "SUSPENDED");
    assert_eq!(shown(), 2_000, "the savepoint publishes");
    append(&entries, &lines[2_000..]).unwrap();
    call("restart", json!({}));
    has_read(2_000);
    call("stop", json!({"drain": true}));
    assert_eq!(shown(), 4_000);

    let calm = sums(server.data(), 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert_eq!(published(server.data(), "stopped"), published(server.data(), "calm"));
}
