//! A server stands by for another over the same data folder: it takes over when that one is killed or does not move, the
//! jobs go on, and who was halted meanwhile ends without a trace.

use serde_json::json;
use tidemill_topic::{TopicConfig, Topics};

use crate::agents::{agent_of, joined, runs_with};
use crate::sum_kills::{append, lines, published, published_sums, sums};
use crate::support::process::{halt, with_variable};
use crate::support::server::Server;
use crate::support::{eventually, folder};

const RECORDS: usize = 20_000;

#[test]
fn a_standby_takes_over_from_a_killed_and_from_a_halted_server_and_jobs_go_on() {
    let secrets = folder();
    let secret = secrets.path().join("secret").display().to_string();
    std::fs::write(&secret, "a join secret of the tests").unwrap();
    let mut first = Server::start_with(&["--join-secret-file", &secret, "--slots", "2"]);
    let mut second = first.standby();
    let _agent = agent_of(&[&first, &second], &secret, "one");
    joined(&first, 2);
    eventually("the second waits", || match second.said() {
        said if said.contains("standing by") => Ok(()),
        said => Err(said),
    });
    assert!(second.http.try_get("/healthz").is_err(), "who stands by does not answer");

    let topics = Topics::open(first.topics()).unwrap();
    let entries = topics.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    let lines = lines(11, RECORDS as u64);
    let mut parts = lines.chunks(RECORDS / 4);
    let mut more = || append(&entries, parts.next().unwrap()).unwrap();
    more();
    let files = first.data().join("moved").display().to_string();
    let spec = json!({"program": "sums", "args": ["--from", "entries", "--into", "moved", "--files", &files, "--slow"],
        "parallelism": 4, "checkpoint_interval_ms": 50});
    let (status, body) = first.http.post("/api/jobs", &spec);
    assert_eq!(status, 201, "{body}");
    let job = body["id"].as_str().unwrap().to_owned();
    runs_with(&first, &job, 4);
    let processes = || {
        let mut all = with_variable("TIDEMILL_JOB_ID", &job);
        all.sort_unstable();
        all
    };
    let running = processes();
    assert_eq!(running.len(), 2, "one process here, one on the agent");

    // Killed: the other takes over at once, finds the job and the agent again, and nothing was started anew.
    first.kill();
    second.ready();
    more();
    joined(&second, 2);
    runs_with(&second, &job, 4);
    assert_eq!(processes(), running, "{}", second.logs(&job));

    // Halted: its term is not renewed, and the first takes over again.
    first.launch_standby();
    let halted = second.process().0.id() as i32;
    halt(halted, true);
    more();
    first.ready();
    joined(&first, 2);
    runs_with(&first, &job, 4);

    // Who wakes up finds that it was replaced, and ends with the reason.
    halt(halted, false);
    assert_eq!(second.process().wait(), 1, "{}", second.said());
    let said = second.said();
    assert!(said.lines().last().unwrap_or_default().contains("another server has begun term"), "{said}");

    more();
    runs_with(&first, &job, 4);
    let has_published = || published_sums(first.data(), "moved").values().map(Vec::len).sum::<usize>();
    eventually("everything is published", || match has_published() {
        RECORDS => Ok(()),
        count => Err(format!("{count}\n{}", first.logs(&job))),
    });
    let (status, answer) = first.http.post(&format!("/api/jobs/{job}/stop"), &json!({"drain": true}));
    assert_eq!(status, 200, "{answer}\n{}", first.logs(&job));
    let calm = sums(first.data(), 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert!(published(first.data(), "moved") == published(first.data(), "calm"), "{}", first.logs(&job));
}
