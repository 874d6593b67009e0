//! A job process without a server, as `docs/reference/job-process.md` describes it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, clean};

/// A job over a data folder: what it is started with each time.
pub struct Job {
    pub id: String,
    pub dir: PathBuf,
    pub data: PathBuf,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub interval_ms: u64,
    /// Its state is on disk, with as little memory as goes.
    pub on_disk: bool,
}

impl Job {
    pub fn new(data: &Path, number: u32, program: &str) -> Job {
        let id = format!("{number:032x}");
        let dir = data.join("jobs").join(&id);
        std::fs::create_dir_all(&dir).unwrap();
        Job {
            id,
            dir,
            data: data.to_path_buf(),
            program: program.into(),
            args: Vec::new(),
            interval_ms: 20,
            on_disk: false,
        }
    }

    pub fn command(&self, parallelism: u64) -> Command {
        let mut command = clean(&self.program);
        command.args(&self.args).env("TIDEMILL_JOB_ID", &self.id).env("TIDEMILL_JOB_DIR", &self.dir);
        command.env("TIDEMILL_DATA", &self.data).env("TIDEMILL_PARALLELISM", parallelism.to_string());
        command.env("TIDEMILL_CHECKPOINT_INTERVAL_MS", self.interval_ms.to_string());
        if self.on_disk {
            command.env("TIDEMILL_STATE_BACKEND", "disk").env("TIDEMILL_STATE_MEMORY_MAX_BYTES", (1 << 20).to_string());
        }
        command
    }

    pub fn start(&self, parallelism: u64, more: &[&str]) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("job.log")).unwrap();
        let mut command = self.command(parallelism);
        Process::start(command.args(more).stdout(log.try_clone().unwrap()).stderr(log))
    }

    /// Starts the job as several processes at these addresses, `generation` telling this start from others; `wrap` may
    /// change how each is started.
    pub fn start_all(
        &self,
        addresses: &[String],
        (parallelism, generation): (u64, u64),
        more: &[&str],
        wrap: impl Fn(usize, Command) -> Command,
    ) -> Vec<Process> {
        let secret = self.dir.join("secret");
        std::fs::write(&secret, "a secret of the fault tests").unwrap();
        let start = |process: usize| {
            let name = if process == 0 { "job.log".to_string() } else { format!("job-{process}.log") };
            let log = std::fs::File::options().create(true).append(true).open(self.dir.join(name)).unwrap();
            let mut command = self.command(parallelism);
            command.args(more).env("TIDEMILL_PROCESSES", addresses.join(",")).env("TIDEMILL_SECRET_FILE", &secret);
            command.env("TIDEMILL_PROCESS", process.to_string()).env("TIDEMILL_GENERATION", generation.to_string());
            // Every other start by TLS: what is kept does not depend on how it was sent.
            command.env("TIDEMILL_PROCESS_TLS", (generation % 2).to_string());
            command.env("TIDEMILL_PEER_TIMEOUT_MS", "3000").env("TIDEMILL_START_TIMEOUT_MS", "30000");
            Process::start(wrap(process, command).stdout(log.try_clone().unwrap()).stderr(log))
        };
        (0..addresses.len()).map(start).collect()
    }

    /// What its processes have said, one behind the other.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        read("job-1.log") + &read("job.log")
    }

    /// What the process says about itself.
    pub fn report(&self) -> Result<Value, String> {
        self.ask(r#"{"op":"report"}"#)
    }

    /// Asks the process over its socket.
    pub fn ask(&self, request: &str) -> Result<Value, String> {
        let ask = || -> std::io::Result<String> {
            let mut socket = UnixStream::connect(self.dir.join("control.sock"))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.write_all(format!("{request}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(socket).read_line(&mut line)?;
            Ok(line)
        };
        let line = ask().map_err(|e| format!("{e}; log: {}", self.log()))?;
        serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))
    }
}
