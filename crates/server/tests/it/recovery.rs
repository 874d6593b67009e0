//! What survives when the server process is killed: jobs, their processes, live rows.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tidemill_server::{Server, ServerConfig};

use crate::support::{Http, eventually, folder, install_fake_job};

/// A server process, when the variable is set; an empty test otherwise.
#[test]
fn server_process() {
    let Ok(data) = std::env::var("TEST_SERVER_DATA") else { return };
    let mut config = ServerConfig::new(PathBuf::from(data));
    config.listen = "127.0.0.1:0".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(config).await.unwrap();
        println!("listens {}", server.url());
        std::future::pending::<()>().await;
    });
}

struct ServerProcess {
    child: Child,
    http: Http,
}

impl ServerProcess {
    fn start(data: &Path) -> ServerProcess {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["recovery::server_process", "--exact", "--nocapture"])
            .env("TEST_SERVER_DATA", data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url =
            lines.map_while(Result::ok).find_map(|line| line.split_once("listens ").map(|(_, url)| url.to_owned()));
        let token = std::fs::read_to_string(data.join(Server::WRITER_TOKEN)).unwrap();
        ServerProcess { child, http: Http { url: url.expect("the server starts"), token } }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn pid(data: &Path, id: &str) -> String {
    let database = rusqlite::Connection::open(data.join(Server::DATABASE)).unwrap();
    let record: String = database.query_row("SELECT record FROM jobs WHERE id = ?1", [id], |row| row.get(0)).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["process"]["pid"].to_string()
}

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn running_jobs_are_taken_over_and_lost_ones_started_again() {
    let dir = folder();
    let data = dir.path();
    install_fake_job(&data.join("jobs-programs"));
    let first = ServerProcess::start(data);
    let (kept, lost) = (first.http.submit("run", json!({})), first.http.submit("run", json!({})));
    let done = first.http.submit("exit:0", json!({}));
    for id in [&kept, &lost] {
        first.http.await_state(id, "RUNNING");
    }
    first.http.await_state(&done, "FINISHED");
    let (kept_pid, lost_pid) = (pid(data, &kept), pid(data, &lost));
    first.kill();
    assert!(alive(&kept_pid), "jobs outlive the server");
    assert!(Command::new("kill").args(["-9", &lost_pid]).status().unwrap().success());
    eventually("the process is gone", || if alive(&lost_pid) { Err(()) } else { Ok(()) });

    let second = ServerProcess::start(data);
    let job = eventually("the lost job runs again", || {
        let job = second.http.job(&lost);
        if job["state"] == "RUNNING" && job["restarts"] == 1 && job["vertices"][0]["id"] == "source" {
            Ok(job)
        } else {
            Err(job)
        }
    });
    assert!(job["failure"].as_str().unwrap().contains("is gone"), "{job}");
    let job = eventually("the kept job is watched", || {
        let job = second.http.job(&kept);
        if job["records_in_per_s"].as_f64() > Some(0.0) { Ok(job) } else { Err(job) }
    });
    assert_eq!((&job["state"], &job["restarts"]), (&json!("RUNNING"), &json!(0)));
    assert_eq!(pid(data, &kept), kept_pid, "it is the same process");
    assert_eq!(second.http.job(&done)["state"], "FINISHED");

    let stopped = second.http.post(&format!("/api/jobs/{kept}/stop"), &json!({}));
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert_eq!(second.http.job(&kept)["state"], "SUSPENDED");
    eventually("the adopted process has ended", || if alive(&kept_pid) { Err(()) } else { Ok(()) });
    second.http.post(&format!("/api/jobs/{lost}/cancel"), &json!({}));
    second.kill();

    let third = ServerProcess::start(data);
    assert_eq!(third.http.job(&kept)["state"], "SUSPENDED");
    assert_eq!(third.http.job(&kept)["vertices"][0]["id"], "source", "an ended job keeps its last report");
    assert_eq!(third.http.job(&lost)["state"], "CANCELED");
    third.kill();
}

#[test]
fn an_adopted_process_that_dies_is_started_again() {
    let dir = folder();
    let data = dir.path();
    install_fake_job(&data.join("jobs-programs"));
    let first = ServerProcess::start(data);
    let id = first.http.submit("run", json!({}));
    first.http.await_state(&id, "RUNNING");
    first.kill();
    let second = ServerProcess::start(data);
    second.http.await_state(&id, "RUNNING");
    let old = pid(data, &id);
    assert!(Command::new("kill").args(["-9", &old]).status().unwrap().success());
    eventually("another process runs", || {
        let job = second.http.job(&id);
        if job["restarts"] == 1 && job["state"] == "RUNNING" && pid(data, &id) != old { Ok(()) } else { Err(job) }
    });
    second.http.post(&format!("/api/jobs/{id}/cancel"), &json!({}));
    second.kill();
}

#[test]
fn acknowledged_live_rows_survive_a_killed_server() {
    let dir = folder();
    let first = ServerProcess::start(dir.path());
    let rows = json!([{"key": "a", "value": {"n": 1}}, {"key": "b", "value": 2}, {"key": "c", "value": 3}]);
    assert_eq!(first.http.live("/api/live/orders.total", rows).status, 200);
    let rows = json!([{"key": "b", "value": null}, {"key": "a", "value": {"n": 9}}]);
    assert_eq!(first.http.live("/api/live/orders.total", rows).status, 200);
    first.kill();
    let second = ServerProcess::start(dir.path());
    let seen = second.http.get("/api/live/orders.total").json();
    let rows: Vec<_> =
        seen["rows"].as_array().unwrap().iter().map(|row| (row["key"].clone(), row["value"].clone())).collect();
    assert_eq!(rows, [(json!("a"), json!({"n": 9})), (json!("c"), json!(3))]);
    second.kill();
}
