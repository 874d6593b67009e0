//! A job over several hosts, which are agents on this machine here: placed, rescaled on request, and still exactly once when
//! a process, an agent or the server is killed.

use serde_json::{Value, json};
use tidemill_topic::{TopicConfig, Topics};

use crate::sum_kills::{append, lines, published, published_sums, sums};
use crate::support::process::{Done, Process, kill, tidemill, with_variable};
use crate::support::server::Server;
use crate::support::{eventually, folder, programs};

const RECORDS: usize = 30_000;

/// A server that takes agents, with two slots of its own; its jobs' processes speak to each other by TLS.
fn server(secrets: &std::path::Path) -> (Server, String) {
    let secret = secrets.join("secret").display().to_string();
    std::fs::write(&secret, "a join secret of the tests").unwrap();
    (Server::start_with(&["--join-secret-file", &secret, "--slots", "2", "--job-tls"]), secret)
}

fn agent(server: &Server, secret: &str, name: &str) -> Process {
    agent_of(&[server], secret, name)
}

/// An agent that asks whichever of these servers acts.
pub fn agent_of(servers: &[&Server], secret: &str, name: &str) -> Process {
    let server = servers[0];
    let mut command = tidemill(&["agent", "--secret-file", secret, "--slots", "2"]);
    command.args(servers.iter().flat_map(|server| ["--join", server.http.url.as_str()]));
    command.args(["--name", name, "--data"]).arg(server.data()).arg("--jobs").arg(programs::folder());
    let log =
        std::fs::File::options().create(true).append(true).open(server.data().join(format!("{name}.log"))).unwrap();
    Process::start(command.stdout(log.try_clone().unwrap()).stderr(log))
}

fn alive(server: &Server) -> Vec<String> {
    let agents = server.http.get("/api/agents");
    let agents = agents["agents"].as_array().unwrap().clone();
    agents.iter().filter(|agent| agent["alive"] == true).map(|agent| agent["name"].as_str().unwrap().into()).collect()
}

/// Waits until so many hosts are there, the server's own among them.
pub fn joined(server: &Server, hosts: usize) {
    eventually("the agents have joined", || match alive(server) {
        all if all.len() == hosts => Ok(()),
        all => Err(format!("{all:?}\n{}", server.said())),
    });
}

/// Waits until the job runs with so many workers and has completed a checkpoint since.
pub fn runs_with(server: &Server, job: &str, workers: u64) -> u64 {
    eventually("the job runs with its workers", || {
        let detail = server.job(job);
        let newest = &detail["checkpoints"]["latest"];
        let started = detail["timestamps"]["RUNNING"].as_i64().unwrap_or(i64::MAX);
        let completed = newest["trigger_ms"].as_i64().unwrap_or(0) >= started;
        match (detail["state"].as_str(), detail["parallelism"].as_u64()) {
            (Some("RUNNING"), Some(now)) if now == workers && completed => Ok(newest["id"].as_u64().unwrap()),
            other => Err(format!("{other:?} {newest}\n{}", server.logs(job))),
        }
    })
}

fn members(job: &str) -> Vec<i32> {
    let ours = with_variable("TIDEMILL_JOB_ID", job);
    let first = with_variable("TIDEMILL_PROCESS", "0");
    ours.into_iter().filter(|pid| !first.contains(pid)).collect()
}

#[test]
fn a_job_over_agents_is_rescaled_and_survives_the_loss_of_processes_agents_and_the_server() {
    let secrets = folder();
    let (mut server, secret) = server(secrets.path());
    let mut one = agent(&server, &secret, "one");
    let _two = agent(&server, &secret, "two");
    joined(&server, 3);
    let topics = Topics::open(server.topics()).unwrap();
    let entries = topics.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    let lines = lines(5, RECORDS as u64);
    let mut parts = lines.chunks(RECORDS / 5);
    let mut more = || append(&entries, parts.next().unwrap()).unwrap();
    more();
    let files = server.data().join("moved").display().to_string();
    let restart = json!({"strategy": "exponential-delay", "initial_ms": 1, "max_ms": 5, "jitter": 0.0});
    let spec = json!({"program": "sums", "args": ["--from", "entries", "--into", "moved", "--files", &files, "--slow"],
        "parallelism": 4, "parallelism_min": 1, "checkpoint_interval_ms": 50, "restart": restart});
    let (status, body) = server.http.post("/api/jobs", &spec);
    assert_eq!(status, 201, "{body}");
    let job = body["id"].as_str().unwrap().to_owned();
    runs_with(&server, &job, 4);
    assert_eq!(members(&job).len(), 1, "one process here, one on an agent");
    let by_tls = with_variable("TIDEMILL_PROCESS_TLS", "1");
    assert!(with_variable("TIDEMILL_JOB_ID", &job).iter().all(|pid| by_tls.contains(pid)), "both by TLS");
    // Most of a key's records are summed by subtasks on the other host: the report has their counters, too.
    let summed = |server: &Server| {
        let vertices = server.job(&job)["vertices"].clone();
        (vertices[0]["records_out"].as_u64(), vertices[1]["records_in"].as_u64(), vertices[1]["parallelism"].as_u64())
    };
    eventually("counters of both hosts are seen", || match summed(&server) {
        // What is read goes to the sums and to the windows alike.
        (Some(out), Some(taken), Some(4)) if out == 2 * taken && taken as usize == RECORDS / 5 => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // Asked for six workers, it takes all three hosts; nothing is lost on the way.
    more();
    let (status, answer) = server.http.post(&format!("/api/jobs/{job}/rescale"), &json!({"parallelism": 6}));
    assert_eq!(status, 200, "{answer}\n{}", server.logs(&job));
    runs_with(&server, &job, 6);
    assert_eq!(members(&job).len(), 2);
    let (status, answer) = server.http.post(&format!("/api/jobs/{job}/rescale"), &json!({"parallelism": 32769}));
    assert_eq!(status, 400, "{answer}");

    // A process on another host dies: all start again from the last checkpoint.
    more();
    let restarts = |server: &Server| server.job(&job)["restarts"].as_u64().unwrap();
    let before = restarts(&server);
    kill(members(&job)[0]);
    eventually("the job is started again", || match restarts(&server) {
        now if now > before => Ok(()),
        now => Err(format!("{now} restarts\n{}", server.logs(&job))),
    });
    runs_with(&server, &job, 6);

    // The server dies; the job does not notice, and the next server finds it again.
    let first = server.job_process(&job);
    let processes = || {
        let mut all = with_variable("TIDEMILL_JOB_ID", &job);
        all.sort_unstable();
        all
    };
    let running = processes();
    assert!(running.contains(&first));
    server.kill();
    server.launch();
    server.ready();
    more();
    runs_with(&server, &job, 6);
    joined(&server, 3);
    assert_eq!(processes(), running, "the same processes as before\n{}", server.logs(&job));

    // A host is lost, with all that ran on it: the job goes on with what is left.
    let before = restarts(&server);
    one.kill();
    for pid in with_variable("TIDEMILL_JOB_ID", &job) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let notes = b"agents/one/";
        if environment.windows(notes.len()).any(|window| window == notes) {
            kill(pid);
        }
    }
    eventually("the loss is noticed", || match restarts(&server) {
        now if now > before => Ok(()),
        now => Err(format!("{now} restarts\n{}", server.logs(&job))),
    });
    runs_with(&server, &job, 4);

    // The host comes back: the job takes it again, by itself.
    more();
    let _one = agent(&server, &secret, "one");
    runs_with(&server, &job, 6);

    ends_with_everything_published(&server, &job, "moved");
}

#[test]
fn a_job_of_two_groups_is_given_the_slots_it_takes() {
    let secrets = folder();
    let (server, secret) = server(secrets.path());
    let _one = agent(&server, &secret, "one");
    joined(&server, 2);
    let topics = Topics::open(server.topics()).unwrap();
    let entries = topics.create("entries", &TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    append(&entries, &lines(6, RECORDS as u64)).unwrap();
    // The server's own host has room for its parallelism, but not for two groups of it.
    let files = server.data().join("apart").display().to_string();
    let spec = json!({"program": "sums", "args": ["--from", "entries", "--into", "apart", "--files", &files, "--slow", "--apart"],
        "parallelism": 2, "checkpoint_interval_ms": 50, "restart": {"strategy": "none"}});
    let (status, body) = server.http.post("/api/jobs", &spec);
    assert_eq!(status, 201, "{body}");
    let job = body["id"].as_str().unwrap().to_owned();
    runs_with(&server, &job, 2);
    let detail = server.job(&job);
    assert_eq!((&detail["slots"], &detail["restarts"]), (&json!(4), &json!(0)), "{}", server.logs(&job));
    assert_eq!(members(&job).len(), 1, "it has taken both hosts");
    let agents = server.http.get("/api/agents");
    let used: Vec<&Value> = agents["agents"].as_array().unwrap().iter().map(|agent| &agent["used"]).collect();
    assert_eq!(used, [2, 2]);

    // Rescaled it takes one slot for each group; more there is no room for.
    let rescale = |parallelism: usize| {
        server.http.post(&format!("/api/jobs/{job}/rescale"), &json!({"parallelism": parallelism}))
    };
    let (status, answer) = rescale(3);
    assert_eq!(status, 507, "{answer}");
    let (status, answer) = rescale(1);
    assert_eq!(status, 200, "{answer}\n{}", server.logs(&job));
    runs_with(&server, &job, 1);
    assert_eq!((&server.job(&job)["slots"], members(&job).len()), (&json!(2), 0));
    ends_with_everything_published(&server, &job, "apart");
}

/// Waits until the job has read all there is, lets it end, and compares with a run that nothing disturbed.
fn ends_with_everything_published(server: &Server, job: &str, into: &str) {
    let has_published = || published_sums(server.data(), into).values().map(Vec::len).sum::<usize>();
    eventually("everything is published", || match has_published() {
        RECORDS => Ok(()),
        count => Err(format!("{count}\n{}", server.logs(job))),
    });
    let (status, answer): (u16, Value) = server.http.post(&format!("/api/jobs/{job}/stop"), &json!({"drain": true}));
    assert_eq!(status, 200, "{answer}\n{}", server.logs(job));
    eventually("no process is left", || match with_variable("TIDEMILL_JOB_ID", job) {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let calm = sums(server.data(), 2, "calm");
    assert_eq!(calm.start(2, &["--bounded"]).wait(), 0, "{}", calm.log());
    assert!(published(server.data(), into) == published(server.data(), "calm"), "{}", server.logs(job));
}

#[test]
fn an_agent_without_the_secret_is_refused() {
    let secrets = folder();
    let (server, _) = server(secrets.path());
    let wrong = secrets.path().join("wrong");
    std::fs::write(&wrong, "another join secret, as long").unwrap();
    let mut command = tidemill(&["agent", "--join", &server.http.url, "--slots", "2", "--secret-file"]);
    let said = Done::of(command.arg(&wrong).arg("--data").arg(server.data())).failed(2);
    assert!(said.contains("does not prove the join secret"), "{said}");
    assert_eq!(alive(&server), ["server"]);
}
