//! A server of the test's own: `tidemill serve` over a folder that goes with it, and its jobs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::http::Http;
use super::process::{self, Process, tidemill};
use super::{eventually, folder, programs};
use crate::free_port::free_port;

pub struct Server {
    dir: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    /// Further arguments of `serve`.
    more: Vec<String>,
    process: Option<Process>,
    pub http: Http,
}

impl Server {
    /// A server that answers.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// A server that answers, with further arguments.
    pub fn start_with(more: &[&str]) -> Server {
        let dir = folder();
        let data = dir.path().join("d");
        let server = Server::over(dir, data, free_port().unwrap(), more);
        server.ready();
        server
    }

    /// A server over a data folder that is there, on this port.
    pub fn start_over(data: PathBuf, port: u16) -> Server {
        Server::over(folder(), data, port, &[])
    }

    /// A server that waits for the end of this one over the same folder, with the same further arguments.
    pub fn standby(&self) -> Server {
        let more: Vec<&str> = self.more.iter().map(String::as_str).chain(["--standby"]).collect();
        Server::over(folder(), self.data.clone(), free_port().unwrap(), &more)
    }

    /// Starts the process again, as one that waits for the end of another.
    pub fn launch_standby(&mut self) {
        self.more.push("--standby".to_string());
        self.launch();
    }

    fn over(dir: tempfile::TempDir, data: PathBuf, port: u16, more: &[&str]) -> Server {
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        let mut server =
            Server { data, dir, port, more: more.iter().map(|word| word.to_string()).collect(), process: None, http };
        server.launch();
        server
    }

    /// Starts the process and does not wait for it.
    pub fn launch(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command();
        self.process = Some(Process::start(command.stdout(log.try_clone().unwrap()).stderr(log)));
    }

    fn command(&self) -> Command {
        let mut command = tidemill(&["serve", "--keep-jobs", "--listen", &format!("127.0.0.1:{}", self.port)]);
        command.arg("--data").arg(&self.data).arg("--jobs").arg(programs::folder()).args(&self.more);
        command
    }

    /// Waits until it answers.
    pub fn ready(&self) {
        eventually("the server answers", || match self.http.try_get("/healthz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}, log:\n{}", std::fs::read_to_string(self.log()).unwrap_or_default())),
        });
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process, while it was not killed.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// What it has written.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn topics(&self) -> PathBuf {
        self.data.join("topics")
    }

    /// Submits a job that is started again at once whenever it ends badly.
    pub fn submit(&self, program: &str, args: &[&str], parallelism: u64, interval_ms: u64) -> String {
        let restart = json!({"strategy": "exponential-delay", "initial_ms": 1, "max_ms": 5, "jitter": 0.0});
        let spec = json!({"program": program, "args": args, "parallelism": parallelism,
            "checkpoint_interval_ms": interval_ms, "restart": restart});
        let (status, body) = self.http.post("/api/jobs", &spec);
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub fn job(&self, id: &str) -> Value {
        self.http.get(&format!("/api/jobs/{id}"))
    }

    /// The number of the job's newest complete checkpoint.
    pub fn checkpoint(&self, id: &str) -> u64 {
        self.job(id)["checkpoints"]["latest"]["id"].as_u64().unwrap_or(0)
    }

    /// The job's process, as soon as there is one.
    pub fn job_process(&self, id: &str) -> i32 {
        eventually("the job has a process", || {
            process::with_variable("TIDEMILL_JOB_ID", id).first().copied().ok_or("none".to_string())
        })
    }

    pub fn kill_job(&self, id: &str) {
        process::with_variable("TIDEMILL_JOB_ID", id).into_iter().for_each(process::kill);
    }

    /// What the job and the server wrote, for a test that fails.
    pub fn logs(&self, id: &str) -> String {
        let tail = |path: PathBuf| {
            let text = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&text[text.len().saturating_sub(6000)..]).into_owned()
        };
        format!("job:\n{}\nserver:\n{}", tail(self.data.join("jobs").join(id).join("job.log")), tail(self.log()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the one that would start jobs again.
        self.process = None;
        process::kill_jobs_of(&self.data);
    }
}
