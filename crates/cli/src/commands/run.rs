//! `tidemill run`: a job here and now, without a server.

use std::fs::{File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tidemill_core::Error;
use tidemill_server::jobs::checkpoints::ClaimMode;
use tidemill_server::jobs::model::JobState;
use tidemill_server::jobs::process::{Launch, ServerAccess};
use tidemill_server::jobs::program::{self, Program};
use tidemill_server::jobs::spec::JobSpec;
use tidemill_server::{Server, random};

use super::{CheckpointArgs, DataArgs, claim_mode, runtime};
use crate::Context;
use crate::failure::Failure;
use crate::job_file::{JobFile, Work};
use crate::{pipeline, supervise};

/// The exit code of a job that was cancelled.
const CANCELLED: u8 = 130;

/// How long to wait for a folder whose last job may just be ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Run a job file or a program here and now, without a server
#[derive(Debug, Args)]
#[command(after_help = "\
A job that fails is started again from its last checkpoint, as [restart] of its file says. Where the file says nothing, a job
that fails before its first checkpoint ends: it would only fail again.")]
pub struct Run {
    /// A job file (`.toml`) or an executable
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Arguments for the program, behind `--`
    #[arg(last = true)]
    args: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Workers
    #[arg(short, long)]
    parallelism: Option<usize>,
    /// Milliseconds between checkpoints
    #[arg(long, value_name = "MS")]
    checkpoint_interval_ms: Option<u64>,
    #[command(flatten)]
    checkpoints: CheckpointArgs,
    /// Where keyed state stands: `memory` or `disk`
    #[arg(long, value_name = "BACKEND")]
    state_backend: Option<String>,
    /// Memory for state on disk, in bytes
    #[arg(long, value_name = "BYTES")]
    state_memory_max_bytes: Option<u64>,
    /// Measure one access in so many to the keyed state of functions
    #[arg(long, value_name = "N")]
    state_latency_sample_interval: Option<u32>,
    /// A savepoint to start from: its folder or URL
    #[arg(short = 's', long, value_name = "PLACE")]
    savepoint: Option<String>,
    /// Whose that savepoint is then: NO_CLAIM, its owner's, or CLAIM, the job's to delete [default: NO_CLAIM]
    #[arg(long, value_name = "MODE", value_parser = claim_mode)]
    claim_mode: Option<ClaimMode>,
    /// Leave state behind that no operator of the job takes
    #[arg(short = 'n', long)]
    allow_non_restored_state: bool,
    /// The job's folder: run again with the same one, and the job goes on from its last checkpoint [default: a new one]
    #[arg(long, value_name = "FOLDER")]
    job_dir: Option<PathBuf>,
    /// The server live sinks write to; its token is taken from the data folder
    #[arg(long, env = "TIDEMILL_SERVER", hide_env_values = true, default_value = "http://127.0.0.1:8081")]
    server: String,
    /// The authorities, PEM, by which live sinks check that server's certificate [default: the system's]
    #[arg(long, env = "TIDEMILL_SERVER_CA", hide_env_values = true, value_name = "FILE")]
    server_ca: Option<PathBuf>,
}

impl super::Run for Run {
    fn run(self, _: &Context) -> Result<(), Failure> {
        let path = self.file.canonicalize().map_err(|e| {
            let text = format!("`{}` cannot be run: {e}", self.file.display());
            Failure::not_found(Error::input(text).hint("name a job file or an executable"))
        })?;
        let work = self.work(&path)?;
        if std::env::var_os("TIDEMILL_JOB_DIR").is_some() {
            return Err(become_program(&work));
        }
        runtime()?.block_on(self.supervised(work))
    }
}

/// What is to run.
struct Job {
    program: Program,
    spec: JobSpec,
    /// The folder it runs in.
    folder: Option<PathBuf>,
    /// Whether its file says how to restart it.
    restarts: bool,
}

impl Run {
    fn work(&self, path: &Path) -> Result<Job, Failure> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if path.extension().is_none_or(|ending| ending != "toml") {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let program = program::find(parent, name)?;
            let spec = JobSpec { program: name.to_owned(), ..JobSpec::default() };
            return Ok(Job { program, spec: self.overridden(spec)?, folder: None, restarts: false });
        }
        let file = JobFile::read(path)?;
        let (folder, restarts) = (Some(parent.to_owned()), file.restarts);
        match &file.work {
            Work::Pipeline(pipeline) => {
                let data = std::env::var_os("TIDEMILL_DATA").map_or_else(|| self.data.data.clone(), PathBuf::from);
                if std::env::var_os("TIDEMILL_JOB_DIR").is_some() {
                    std::process::exit(pipeline::run(pipeline, parent, &data)?.into());
                }
                pipeline::check(pipeline, parent, &data)?;
                let program = Program { path: path.to_owned(), job_file: true };
                Ok(Job { program, spec: self.overridden(pipeline.spec.clone())?, folder, restarts })
            }
            Work::Program(spec) => {
                let program = program::find(parent, &spec.program)
                    .map_err(|e| e.context(format!("job file `{}`", path.display())))?;
                Ok(Job { program, spec: self.overridden((**spec).clone())?, folder, restarts })
            }
        }
    }

    /// The settings with what the command line says instead.
    fn overridden(&self, mut spec: JobSpec) -> Result<JobSpec, Failure> {
        spec.args.extend(self.args.iter().cloned());
        spec.parallelism = self.parallelism.or(spec.parallelism);
        spec.checkpoint_interval_ms = self.checkpoint_interval_ms.or(spec.checkpoint_interval_ms);
        spec.checkpoints = self.checkpoints.spec()?.or(spec.checkpoints);
        spec.state_backend = self.state_backend.clone().or(spec.state_backend);
        spec.state_memory_max_bytes = self.state_memory_max_bytes.or(spec.state_memory_max_bytes);
        spec.state_latency_sample_interval = self.state_latency_sample_interval.or(spec.state_latency_sample_interval);
        spec.savepoint = self.savepoint.clone().or(spec.savepoint);
        spec.claim_mode = self.claim_mode.or(spec.claim_mode);
        spec.allow_non_restored_state |= self.allow_non_restored_state;
        Ok(spec.checked()?)
    }

    async fn supervised(self, Job { program, spec, folder, restarts }: Job) -> Result<(), Failure> {
        let create = |path: PathBuf, option: &str| -> Result<PathBuf, Failure> {
            let made = std::fs::create_dir_all(&path).and_then(|()| path.canonicalize());
            Ok(made.map_err(|e| {
                let error = Error::io(format!("create the folder `{}`", path.display()), e);
                error.hint(format!("choose another one with `{option} <folder>`"))
            })?)
        };
        let data = create(self.data.data.clone(), "--data")?;
        let fresh_id = random::hex32()?;
        let dir = create(self.job_dir.clone().unwrap_or_else(|| data.join("run").join(&fresh_id)), "--job-dir")?;
        let _lock = lock(&dir)?;
        let job_id = kept_id(&dir, fresh_id)?;
        // Without a server on this data folder there is no token, and a live sink will say that it wants one.
        let token = std::fs::read_to_string(data.join(Server::WRITER_TOKEN)).ok();
        let runner = std::env::current_exe().map_err(|e| Error::io("find this program's own file", e))?;
        let launch = Launch {
            program,
            runner,
            job_id,
            dir: dir.clone(),
            data,
            server: token.map(|token| ServerAccess {
                url: self.server.clone(),
                token: token.trim().to_owned(),
                authority: self.server_ca.clone(),
            }),
            spec,
            folder,
            member: None,
            in_foreground: true,
        };
        let (state, why) = supervise::run(&launch, restarts).await?;
        if state == JobState::Finished && self.job_dir.is_none() {
            // Nothing can go on from a job that has done all its work. What stays is a folder too many, no error.
            let _ = std::fs::remove_dir_all(&dir);
        } else {
            tidemill_core::say(format_args!(
                "job `{}` is {}; go on from here with `--job-dir {}`",
                launch.spec.name,
                state.name(),
                dir.display()
            ));
        }
        match state {
            JobState::Canceled => Err(Failure::new(CANCELLED, format!("job `{}` was cancelled", launch.spec.name))),
            JobState::Failed => {
                let why = why.unwrap_or_else(|| "no reason was given".to_owned());
                Err(Failure::new(Failure::FAILED, format!("job `{}` failed: {why}", launch.spec.name)))
            }
            _ => Ok(()),
        }
    }
}

/// Held while the job runs: two processes on one folder would spoil each other's checkpoints. The job's process inherits it, so
/// it is held until that one is gone too, whatever becomes of us.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("run.lock");
    let failed = |doing: &str, e| Error::io(format!("{doing} `{}`", path.display()), e);
    let file = File::options().create(true).append(true).open(&path).map_err(|e| failed("open", e))?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).map_err(|e| failed("hand on", e.into()))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => {
                let error = Error::external(format!("a job runs in `{}` already", dir.display()));
                return Err(error.hint("end that one, or name another folder with `--job-dir`"));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
        }
    }
}

/// The id of the job in this folder: sinks know what they have written by it, so it stays the same.
fn kept_id(dir: &Path, fresh: String) -> Result<String, Error> {
    let path = dir.join("job.id");
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // Whole or not at all.
            let aside = path.with_extension("tmp");
            let written = std::fs::write(&aside, &fresh).and_then(|()| std::fs::rename(&aside, &path));
            written.map(|()| fresh).map_err(|e| Error::io(format!("write `{}`", path.display()), e))
        }
        Err(e) => Err(Error::io(format!("read `{}`", path.display()), e)),
    }
}

/// Started by a server: this process becomes the program, so that the server watches the program itself.
fn become_program(Job { program, spec, folder, .. }: &Job) -> Failure {
    let mut command = std::process::Command::new(&program.path);
    command.args(&spec.args).envs(&spec.env);
    // What the server was told when the job was submitted comes before what the file says.
    command.envs(spec.environment().into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let error = command.exec();
    Failure::new(Failure::USAGE, format!("program `{}` cannot be run: {error}", program.path.display()))
}
