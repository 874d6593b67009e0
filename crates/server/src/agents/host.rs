//! An agent's own side: runs the processes it is told to, ends the others, and remembers them on disk, so that an agent
//! that is started again takes over what runs. It outlives the server: while nobody tells it anything, nothing changes.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use super::hub::free_port;
use super::message::{Assignment, Beat, JoinSecret, ProcessState};
use crate::jobs::process::{Exit, Launch, Member, ProcessId, Running, ServerAccess};
use crate::jobs::{log, program};

/// After SIGTERM a process has this long before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// Free ports offered at once.
const PORTS: usize = 8;

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Its own name.
    pub name: String,
    /// Workers it has room for.
    pub slots: usize,
    /// The address its processes are reached at.
    pub host: String,
    /// The data folder, the same as the server's, as this host sees it.
    pub data: PathBuf,
    /// The folder of programs.
    pub programs: PathBuf,
    /// The executable that runs `.toml` job files.
    pub runner: PathBuf,
    /// The server's address, for live sinks.
    pub server: String,
    /// The authorities by which they check its certificate, PEM; `None`: the system's.
    pub authority: Option<PathBuf>,
}

/// A process as it is remembered on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    job: String,
    generation: u64,
    process: usize,
    id: ProcessId,
}

struct Mine {
    kept: Option<Kept>,
    state: ProcessState,
    running: Option<Running>,
}

/// The processes of this host.
pub struct Host {
    config: HostConfig,
    secret: JoinSecret,
    /// Where this agent keeps its notes and the secrets of its processes; of this host alone.
    notes: PathBuf,
    mine: Vec<Mine>,
}

impl Host {
    /// Takes over what an earlier agent of this name has started.
    pub fn open(config: HostConfig, secret: JoinSecret) -> Result<Self> {
        let notes = config.data.join("agents").join(&config.name);
        std::fs::create_dir_all(&notes).map_err(|e| Error::io(format!("make `{}`", notes.display()), e))?;
        let mut mine = Vec::new();
        for entry in
            std::fs::read_dir(&notes).map_err(|e| Error::io(format!("list `{}`", notes.display()), e))?.flatten()
        {
            let kept = std::fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
            let Some(kept) = kept else { continue };
            if kept.id.alive() {
                let state = ProcessState {
                    job: kept.job.clone(),
                    generation: kept.generation,
                    process: kept.process,
                    ended: None,
                };
                tracing::info!(
                    job = kept.job,
                    process = kept.process,
                    pid = kept.id.pid,
                    "took over a running process"
                );
                mine.push(Mine { running: Some(Running::adopt(kept.id)), state, kept: Some(kept) });
            } else {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Host { config, secret, notes, mine })
    }

    /// The server whose live tables its processes write to from now on.
    pub fn follow(&mut self, server: &str) {
        self.config.server = server.to_string();
    }

    /// What this host says of itself.
    pub async fn beat(&mut self, boot: &str, term: u64, number: u64) -> Result<Beat> {
        for mine in &mut self.mine {
            if let Some(running) = &mut mine.running
                && let Some(exit) = running.wait_for(Duration::ZERO).await
            {
                running.id().signal_group(rustix::process::Signal::KILL);
                let why = log::last_error(&process_dir(&self.config.data, &mine.state), 0);
                mine.state.ended = Some(match (exit, why) {
                    (Exit::Code(0), _) => "well".to_string(),
                    (_, Some(why)) => why,
                    (exit, None) => format!("{exit:?}"),
                });
                mine.running = None;
            }
        }
        Ok(Beat {
            name: self.config.name.clone(),
            boot: boot.to_string(),
            term,
            number,
            slots: self.config.slots,
            host: self.config.host.clone(),
            ports: (0..PORTS).map(|_| free_port()).collect::<Result<_>>()?,
            processes: self.mine.iter().map(|mine| mine.state.clone()).collect(),
        })
    }

    /// Starts what is to run and does not, ends what runs and is not to.
    pub async fn settle(&mut self, assignments: Vec<Assignment>) {
        let same = |state: &ProcessState, assignment: &Assignment| {
            state.job == assignment.job
                && state.generation == assignment.start.generation
                && state.process == assignment.process
        };
        let mut kept = Vec::new();
        for mut mine in std::mem::take(&mut self.mine) {
            if assignments.iter().any(|assignment| same(&mine.state, assignment)) {
                kept.push(mine);
                continue;
            }
            if let Some(running) = &mut mine.running {
                tracing::info!(job = mine.state.job, process = mine.state.process, "ends a process");
                running.end(TERM_GRACE).await;
            }
            self.forget(&mine);
        }
        self.mine = kept;
        for assignment in assignments {
            if self.mine.iter().any(|mine| same(&mine.state, &assignment)) {
                continue;
            }
            let started = self.start(&assignment);
            let mut state = ProcessState {
                job: assignment.job,
                generation: assignment.start.generation,
                process: assignment.process,
                ended: None,
            };
            let mine = match started {
                Ok((kept, running)) => {
                    tracing::info!(job = state.job, process = state.process, pid = kept.id.pid, "started a process");
                    Mine { kept: Some(kept), state, running: Some(running) }
                }
                Err(error) => {
                    tracing::warn!(job = state.job, process = state.process, %error, "a process cannot be started");
                    state.ended = Some(error.to_string());
                    Mine { kept: None, state, running: None }
                }
            };
            self.mine.push(mine);
        }
    }

    /// Ends everything: the agent goes.
    pub async fn end(&mut self) {
        self.settle(Vec::new()).await;
    }

    fn start(&self, assignment: &Assignment) -> Result<(Kept, Running)> {
        let Assignment { job, spec, start, process } = assignment;
        if job.len() != 32 || !job.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::input("a job's id has 32 hex digits"));
        }
        let dir = self.config.data.join("jobs").join(job);
        if !dir.is_dir() {
            return Err(Error::input(format!("`{}` is not there on `{}`", dir.display(), self.config.name))
                .hint("give the agent the server's data folder, on a shared disk, with `--data`"));
        }
        let name = format!("{job}-{}-{process}", start.generation);
        let secret_file = write_secret(&self.notes, &name, &self.secret.of_job(job, start.generation))?;
        let launch = Launch {
            program: program::find(&self.config.programs, &spec.program)?,
            runner: self.config.runner.clone(),
            job_id: job.clone(),
            dir,
            data: self.config.data.clone(),
            server: Some(ServerAccess {
                url: self.config.server.clone(),
                token: writer_token(&self.config.data),
                authority: self.config.authority.clone(),
            }),
            spec: spec.clone(),
            folder: None,
            in_foreground: false,
            member: Some(Member { process: *process, start: start.clone(), secret_file }),
        };
        let running = Running::start(&launch)?;
        let kept = Kept { job: job.clone(), generation: start.generation, process: *process, id: running.id() };
        let note = self.notes.join(format!("{name}.json"));
        let text = serde_json::to_vec(&kept).map_err(|e| Error::bug(format!("a note is no JSON: {e}")))?;
        std::fs::write(&note, text).map_err(|e| Error::io(format!("write `{}`", note.display()), e))?;
        Ok((kept, running))
    }

    fn forget(&self, mine: &Mine) {
        let Some(kept) = &mine.kept else { return };
        let name = format!("{}-{}-{}", kept.job, kept.generation, kept.process);
        // What is left of it does no harm.
        let _ = std::fs::remove_file(self.notes.join(format!("{name}.json")));
        let _ = std::fs::remove_file(self.notes.join(format!("{name}.secret")));
    }
}

fn process_dir(data: &Path, state: &ProcessState) -> PathBuf {
    Member::folder(&data.join("jobs").join(&state.job), state.process)
}

/// The token of live sinks, which stands in the shared data folder; empty when it cannot be read.
fn writer_token(data: &Path) -> String {
    let text = std::fs::read_to_string(data.join(crate::Server::WRITER_TOKEN)).unwrap_or_default();
    text.trim().to_string()
}

/// Writes the secret of one start of a job into a file that only its owner reads.
pub fn write_secret(folder: &Path, name: &str, secret: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.secret"));
    let file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(secret.as_bytes()))
        .map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
    Ok(path)
}
