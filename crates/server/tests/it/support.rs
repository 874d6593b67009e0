//! Starting servers, speaking HTTP to them, waiting for conditions with a deadline.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_server::{Server, ServerConfig, ServerEnd};
use ureq::http;

use crate::fake_job;

/// Nothing in these tests takes longer, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// A server in this process, with its data folder.
pub struct TestServer {
    pub http: Http,
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    pub dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The one line of a refusal.
    pub fn error(&self) -> String {
        let json = self.json();
        let errors = json["errors"].as_array().unwrap_or_else(|| panic!("no errors in {self:?}"));
        assert_eq!(errors.len(), 1);
        errors[0].as_str().unwrap().to_owned()
    }
}

/// Speaks to a server.
#[derive(Clone)]
pub struct Http {
    pub url: String,
    pub token: String,
}

impl Http {
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = agent();
        let answer = if body.is_empty() && !matches!(method, "POST" | "PUT") {
            agent.run(request.body(()).unwrap())
        } else {
            agent.run(request.body(body.to_vec()).unwrap())
        };
        let mut answer = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let text = answer.body_mut().with_config().limit(100 << 20).read_to_vec().unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], &[])
    }

    /// Writes live rows.
    pub fn live(&self, path: &str, rows: Value) -> Answer {
        let headers = [("content-type", "application/json"), ("x-tidemill-token", self.token.as_str())];
        let body = json!({"job": "j", "writer": 0, "epoch": 1, "rows": rows});
        self.send("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Submits a fake job; its id.
    pub fn submit(&self, behaviour: &str, more: Value) -> String {
        let mut spec = json!({"name": "fake", "program": "fake", "args": fake_job::ARGS, "env": {"FAKE_JOB": behaviour},
            "restart": {"strategy": "exponential-delay", "initial_ms": 1, "max_ms": 5}});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let answer = self.post("/api/jobs", &spec);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/jobs/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until the job is in this state.
    pub fn await_state(&self, id: &str, state: &str) -> Value {
        eventually(&format!("job {id} is {state}"), || {
            let job = self.job(id);
            (job["state"] == state).then(|| job.clone()).ok_or(job)
        })
    }

    /// Opens an event stream.
    pub fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut request = http::Request::builder().method("GET").uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = agent().run(request.body(()).unwrap()).unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut event = Event::default();
            while let Some(Ok(line)) = lines.next() {
                match line.split_once(": ") {
                    Some(("event", name)) => event.name = name.to_owned(),
                    Some(("id", id)) => event.id = Some(id.to_owned()),
                    Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                    _ => {
                        if sender.send((Instant::now(), std::mem::take(&mut event))).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Events(receiver)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0).build().into()
}

/// An event of a stream.
#[derive(Debug, Default)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Event {
    /// `key=value` of each row.
    pub fn rows(&self) -> Vec<String> {
        let rows = self.data["rows"].as_array().unwrap().iter();
        rows.map(|row| format!("{}={}", row["key"].as_str().unwrap(), row["value"])).collect()
    }
}

/// An open event stream.
pub struct Events(Receiver<(Instant, Event)>);

impl Events {
    /// The next event that is no heartbeat, with the moment it came.
    pub fn next_at(&self) -> (Instant, Event) {
        loop {
            let (at, event) = self.0.recv_timeout(DEADLINE).expect("an event comes");
            if event.name != "heartbeat" {
                return (at, event);
            }
        }
    }

    pub fn next(&self) -> Event {
        self.next_at().1
    }

    /// The next event of this name.
    pub fn named(&self, name: &str) -> Event {
        loop {
            let (_, event) = self.0.recv_timeout(DEADLINE).expect("an event comes");
            if event.name == name {
                return event;
            }
        }
    }

    /// Whether the server ends the stream.
    pub fn ends(&self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.0.recv_timeout(deadline - Instant::now()) {
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return true,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// Tries again until there is a result; the last reason otherwise.
pub fn eventually<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(e) if Instant::now() > deadline => panic!("not in time: {what}: {e:?}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

/// A folder that this binary can be linked into, with a short name (Unix sockets have short addresses).
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("t").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Puts this binary into the jobs folder as `fake`.
pub fn install_fake_job(jobs: &Path) {
    std::fs::create_dir_all(jobs).unwrap();
    let this = std::env::current_exe().unwrap();
    if std::fs::hard_link(&this, jobs.join("fake")).is_err() {
        std::fs::copy(&this, jobs.join("fake")).unwrap();
    }
}

impl TestServer {
    pub fn start() -> TestServer {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> TestServer {
        let dir = folder();
        let mut config = ServerConfig::new(dir.path());
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        install_fake_job(&dir.path().join("jobs-programs"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(config)).unwrap();
        let http = Http { url: server.url(), token: server.writer_token().to_owned() };
        TestServer { http, runtime, server: Some(server), dir }
    }

    /// Ends the server, and its jobs.
    pub fn end(mut self) -> tempfile::TempDir {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.shutdown(ServerEnd::EndJobs)).unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // Keeps no processes behind when a test fails.
            let _ = self.runtime.block_on(server.shutdown(ServerEnd::EndJobs));
        }
    }
}
