//! Starts, watches and ends the process of a job: its environment, its own process group, and processes that a server
//! before this one started (adopted: they are not our children, so their exit code stays unknown).

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tidemill_core::slots::SlotDemand;
use tidemill_core::{Error, Kind, Result};

use super::log;
use super::program::Program;
use super::spec::JobSpec;
use crate::agents::message::Start;

/// How often an adopted process is looked at.
const ADOPTED_POLL: Duration = Duration::from_millis(250);

/// A server as its jobs reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAccess {
    /// Its base address.
    pub url: String,
    /// The token it asks of writers.
    pub token: String,
    /// The authorities by which its certificate is checked, PEM; `None`: the system's.
    pub authority: Option<PathBuf>,
}

/// Everything a process is started with.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What is run.
    pub program: Program,
    /// The executable that runs `.toml` job files: `tidemill` itself.
    pub runner: PathBuf,
    /// 32 hex digits.
    pub job_id: String,
    /// The job's folder.
    pub dir: PathBuf,
    /// The data folder.
    pub data: PathBuf,
    /// The server as the job reaches it.
    pub server: Option<ServerAccess>,
    /// Arguments, environment and settings.
    pub spec: JobSpec,
    /// Working directory; default: the caller's.
    pub folder: Option<PathBuf>,
    /// It belongs to this process: output goes to its terminal instead of the job's log, and the job ends when this process does.
    pub in_foreground: bool,
    /// Which process of a job of several it is.
    pub member: Option<Member>,
}

/// A process of a job of several.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which one, from 0.
    pub process: usize,
    /// Where all of them are.
    pub start: Start,
    /// The file with the secret of this start.
    pub secret_file: PathBuf,
}

impl Member {
    /// Where the output of a job's process goes: the first one's into the job's folder, others' into one of their own in it.
    pub fn folder(job: &Path, process: usize) -> PathBuf {
        if process == 0 { job.to_path_buf() } else { job.join(format!("process-{process}")) }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// An adopted process is gone.
    Unknown,
}

/// A process of a job that runs, as far as we know.
#[derive(Debug)]
pub struct Running {
    child: Option<tokio::process::Child>,
    id: ProcessId,
}

/// A process and the moment it started, so that a number used again is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: i32,
    /// The kernel's start time in clock ticks since boot; 0 when it could not be read.
    pub started: u64,
}

impl ProcessId {
    /// The process with this number as it is now.
    pub fn of(pid: i32) -> Self {
        ProcessId { pid, started: start_ticks(pid).unwrap_or(0) }
    }

    /// Whether this very process still lives. A zombie does not.
    pub fn alive(&self) -> bool {
        start_ticks(self.pid).is_some_and(|started| self.started == 0 || started == self.started)
    }

    /// Sends a signal to the process's group; a group that is gone is no error.
    pub fn signal_group(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|pid| !pid.is_init()) {
            // The only failure that can be is "no such group", which is what is wanted in the end.
            let _ = kill_process_group(pid, signal);
        }
    }
}

/// The start time of a process that lives, from `/proc`: field 22, counted behind the name in parentheses.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Running {
    /// Starts a process. `Kind::Input` when it can never start (not there, not executable, wrong format); anything else
    /// may be tried again.
    pub fn start(launch: &Launch) -> Result<Running> {
        let mut command = command(launch);
        command.process_group(0).stdin(Stdio::null());
        if launch.in_foreground {
            // In a group of its own the process could not read from a terminal anyway.
            if !std::io::stdin().is_terminal() {
                command.stdin(Stdio::inherit());
            }
        } else {
            let folder = Member::folder(&launch.dir, launch.member.as_ref().map_or(0, |member| member.process));
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(format!("make `{}`", folder.display()), e))?;
            let output = log::open_for_process(&folder)?;
            let clone = output.try_clone().map_err(|e| Error::io("open the job's log", e))?;
            command.stdout(Stdio::from(output)).stderr(Stdio::from(clone));
        }
        let name = launch.program.path.display().to_string();
        let child = command.spawn().map_err(|e| start_error(&name, e))?;
        let pid =
            child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| Error::bug("a fresh process has no id"))?;
        Ok(Running { id: ProcessId::of(pid), child: Some(child) })
    }

    /// Takes over a process that an earlier server started.
    pub fn adopt(id: ProcessId) -> Running {
        Running { child: None, id }
    }

    /// The process.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Waits for its end. May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                },
                Err(_) => Exit::Unknown,
            },
            None => {
                while self.id.alive() {
                    tokio::time::sleep(ADOPTED_POLL).await;
                }
                Exit::Unknown
            }
        }
    }

    /// SIGTERM, and after `grace` SIGKILL, to the whole group; how it ended.
    pub async fn end(&mut self, grace: Duration) -> Exit {
        self.id.signal_group(Signal::TERM);
        if let Some(exit) = self.wait_for(grace).await {
            return exit;
        }
        self.id.signal_group(Signal::KILL);
        self.wait().await
    }

    /// Waits for its end, at most this long.
    pub async fn wait_for(&mut self, deadline: Duration) -> Option<Exit> {
        tokio::time::timeout(deadline, self.wait()).await.ok()
    }
}

fn command(launch: &Launch) -> tokio::process::Command {
    let mut command = if launch.program.job_file {
        let mut command = tokio::process::Command::new(&launch.runner);
        command.arg("run").arg(&launch.program.path).arg("--");
        command
    } else {
        tokio::process::Command::new(&launch.program.path)
    };
    command.args(&launch.spec.args);
    // The server's own settings, its administrator token above all, are none of a job's business.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"TIDEMILL_") {
            command.env_remove(name);
        }
    }
    command.envs(&launch.spec.env);
    command
        .env("TIDEMILL_JOB_ID", &launch.job_id)
        .env("TIDEMILL_JOB_DIR", &launch.dir)
        .env("TIDEMILL_DATA", &launch.data);
    if let Some(ServerAccess { url, token, authority }) = &launch.server {
        command.env("TIDEMILL_SERVER", url).env("TIDEMILL_TOKEN", token);
        if let Some(authority) = authority {
            command.env("TIDEMILL_SERVER_CA", authority);
        }
    }
    if launch.in_foreground {
        command.env("TIDEMILL_PARENT", std::process::id().to_string());
    }
    command.envs(launch.spec.environment());
    if let Some(Member { process, start, secret_file }) = &launch.member {
        command
            .env("TIDEMILL_PARALLELISM", start.parallelism.to_string())
            .env("TIDEMILL_SLOTS", start.slots.to_string())
            .env("TIDEMILL_PROCESS", process.to_string())
            .env("TIDEMILL_PROCESSES", start.addresses.join(","))
            .env("TIDEMILL_GENERATION", start.generation.to_string())
            .env("TIDEMILL_SECRET_FILE", secret_file);
        if start.tls {
            command.env("TIDEMILL_PROCESS_TLS", "1");
        }
    }
    if let Some(folder) = &launch.folder {
        command.current_dir(folder);
    }
    command.kill_on_drop(false);
    command
}

fn start_error(name: &str, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{ExecutableFileBusy, NotFound, PermissionDenied};
    /// `ENOEXEC`, for which the standard library has no kind.
    const NO_EXEC: i32 = 8;
    if matches!(error.kind(), NotFound | PermissionDenied) || error.raw_os_error() == Some(NO_EXEC) {
        return Error::input(format!("program `{name}` cannot be run: {error}"));
    }
    if error.kind() == ExecutableFileBusy {
        return Error::external(format!("program `{name}` is being written just now: {error}"));
    }
    Error::io(format!("start program `{name}`"), error)
}

/// The slots a job takes, as its newest start has told; as many as its parallelism while none has.
pub fn slot_demand(dir: &Path) -> SlotDemand {
    let told = std::fs::read(dir.join(SlotDemand::FILE)).ok();
    told.and_then(|told| serde_json::from_slice(&told).ok()).unwrap_or_default()
}

/// Whether starting again can help.
pub fn retryable(error: &Error) -> bool {
    matches!(error.kind(), Kind::External | Kind::Full)
}

/// What a process wrote about its own end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Outcome {
    /// `FINISHED`, `SUSPENDED`, `CANCELED` or `FAILED`.
    pub state: String,
    /// Why, in words.
    #[serde(default)]
    pub message: Option<String>,
}

impl Outcome {
    /// The file's name in the job's folder.
    pub const FILE: &'static str = "outcome.json";

    /// Reads it, if it is there and whole.
    pub fn read(dir: &Path) -> Option<Outcome> {
        serde_json::from_slice(&std::fs::read(dir.join(Self::FILE)).ok()?).ok()
    }

    /// Removes it before a new start, so that it tells about that start alone.
    pub fn remove(dir: &Path) -> Result<()> {
        match std::fs::remove_file(dir.join(Self::FILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove the last outcome", e)),
            _ => Ok(()),
        }
    }
}
