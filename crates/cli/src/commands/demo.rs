//! `tidemill demo`: server, order generator and order job in one command, with the page's address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use tidemill_core::Error;
use tidemill_server::jobs::model::JobState;
use tidemill_server::jobs::program;
use tidemill_server::jobs::spec::JobSpec;
use tidemill_server::{Server, ServerConfig, ServerEnd};
use tidemill_topic::TopicConfig;
use tokio::process::{Child, Command};

use super::{DataArgs, Run, address, runtime};
use crate::Context;
use crate::failure::Failure;
use crate::output::line;
use crate::supervise::{interrupts, wait_true};

/// The topic between generator and job.
const TOPIC: &str = "orders";
/// How long the topic keeps orders.
const RETENTION_MS: i64 = 3 * 24 * 3600 * 1000;
/// The share of orders that cannot be read, so that the dead letters can be seen too.
const BAD_SHARE: &str = "0.0005";
/// The generator has this long to end after the interrupt before it is killed.
const GENERATOR_GRACE: Duration = Duration::from_secs(5);

/// Start everything for the order screen: server, generator, job; ends all on Ctrl-C
#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    data: DataArgs,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8081", value_parser = address, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The job's program [default: `order-screen` beside this one]
    #[arg(long, value_name = "FILE")]
    order_screen: Option<PathBuf>,
    /// The generator's program [default: `order-generator` beside this one]
    #[arg(long, value_name = "FILE")]
    order_generator: Option<PathBuf>,
    /// Orders a second at the peak of the day
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Hours of history written at once at the start
    #[arg(long, default_value_t = 48, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(0..=8_784))]
    backfill: u32,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
}

impl Run for Demo {
    fn run(self, _: &Context) -> Result<(), Failure> {
        let screen = beside(self.order_screen.as_deref(), "order-screen")?;
        let generator = beside(self.order_generator.as_deref(), "order-generator")?;
        runtime()?.block_on(self.show(&screen, &generator))
    }
}

impl Demo {
    async fn show(self, screen: &Path, generator: &Path) -> Result<(), Failure> {
        let mut interrupted = interrupts()?;
        let mut config = ServerConfig::new(&self.data.data);
        config.listen = self.listen;
        let programs = self.data.data.join("jobs-programs");
        install(screen, &programs)?;
        config.jobs_folder = Some(programs);
        let server = Server::start(config).await?;
        let shown = self.feed(&server, screen, generator, &mut interrupted).await;
        server.shutdown(ServerEnd::EndJobs).await?;
        shown
    }

    /// Runs generator and job over a server until Ctrl-C, or until one of them fails for good. When somebody ends the job, it may
    /// be started again.
    async fn feed(
        &self,
        server: &Server,
        screen: &Path,
        generator: &Path,
        interrupted: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let fresh = !server.topics().exists(TOPIC).await?;
        if fresh {
            // Orders of the page's day and of the one before it, and no more.
            let config = TopicConfig { retention_ms: Some(RETENTION_MS), ..TopicConfig::default() };
            server.topics().create(TOPIC.to_owned(), config).await?;
        }
        let id = self.job(server, screen).await?;
        // A folder of an earlier demo has its history already.
        let mut generating = self.generator(generator, if fresh { self.backfill } else { 0 })?;
        let page = format!("{}/screen/orders", server.url());
        line(format_args!("screen: {page}"))?;
        line("end with Ctrl-C")?;
        if self.open {
            open(&page);
        }
        let job = server.supervisor().job(&id).map_err(|e| Failure::new(Failure::FAILED, e.to_string()))?;
        let mut changes = job.changes();
        let mut has_ended = false;
        let ended = loop {
            tokio::select! {
                () = wait_true(interrupted) => break Ok(()),
                status = generating.wait() => {
                    let status = status.map_err(|e| Error::io("wait for the order generator", e))?;
                    break Err(Failure::new(Failure::FAILED, format!("the order generator ended: {status}")));
                }
                Ok(_) = changes.wait_for(|_| job.state().ended() != has_ended) => {
                    let summary = job.summary();
                    if summary.state == JobState::Failed {
                        let why = summary.failure.unwrap_or_else(|| summary.state.name().to_owned());
                        break Err(Failure::new(Failure::FAILED, format!("the order job ended: {why}")));
                    }
                    // Somebody has ended it on the page, or started it again.
                    has_ended = !has_ended;
                    line(format_args!("the order job is {}; end with Ctrl-C", summary.state.name()))?;
                }
            }
        };
        end(&mut generating).await;
        ended
    }

    /// The order job: the one of an earlier demo on this folder goes on, else a new one.
    async fn job(&self, server: &Server, screen: &Path) -> Result<String, Failure> {
        let name = screen.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut known = server.supervisor().list().into_iter().filter(|job| job.record().spec.program == name);
        let failed = |e: tidemill_server::jobs::supervisor::JobError| Failure::new(Failure::FAILED, e.to_string());
        if let Some(job) = known.next() {
            if job.state().ended() && job.state() != JobState::Finished {
                server.supervisor().restart(&job.id).await.map_err(failed)?;
            }
            if !job.state().ended() {
                return Ok(job.id.clone());
            }
        }
        let spec = JobSpec {
            name: "order screen".to_owned(),
            program: name,
            args: vec!["--topic".to_owned(), TOPIC.to_owned()],
            checkpoint_interval_ms: Some(5000),
            ..JobSpec::default()
        };
        server.supervisor().submit(spec).await.map_err(failed)
    }

    fn generator(&self, program: &Path, backfill: u32) -> Result<Child, Failure> {
        let mut command = Command::new(program);
        command.arg("--data").arg(&self.data.data).args(["--topic", TOPIC]);
        command.args(["--rate", &self.rate.to_string(), "--backfill", &backfill.to_string(), "--bad", BAD_SHARE]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
        let started = command.spawn();
        Ok(started.map_err(|e| Error::io(format!("start the order generator `{}`", program.display()), e))?)
    }
}

/// A program that was named, or the one beside this executable.
fn beside(named: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let this = std::env::current_exe().map_err(|e| Error::io("find this program's own file", e))?;
            this.with_file_name(name)
        }
    };
    let option = format!("build it with `cargo build --release`, or name it with `--{name} <file>`");
    let found = path.canonicalize().map_err(|e| {
        Failure::not_found(Error::input(format!("there is no program `{}`: {e}", path.display())).hint(option.as_str()))
    })?;
    let parent = found.parent().unwrap_or(Path::new("/"));
    program::find(parent, &found.file_name().unwrap_or_default().to_string_lossy())?;
    Ok(found)
}

/// Puts the program into the jobs folder, which holds nothing else: what stands beside it is not to be run over HTTP.
fn install(program: &Path, folder: &Path) -> Result<(), Failure> {
    let put = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        if program.parent() == Some(folder.canonicalize()?.as_path()) {
            return Ok(());
        }
        let name = program.file_name().unwrap_or_default();
        let fresh = folder.join(".fresh");
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::hard_link(program, &fresh).or_else(|_| std::fs::copy(program, &fresh).map(|_| ()))?;
        std::fs::rename(&fresh, folder.join(name))?;
        // When both are links to one file already, renaming leaves them as they are.
        let _ = std::fs::remove_file(&fresh);
        Ok(())
    };
    put().map_err(|e| {
        let error = Error::io(format!("put `{}` into `{}`", program.display(), folder.display()), e);
        error.hint("choose another folder with `--data <folder>`").into()
    })
}

async fn end(generating: &mut Child) {
    let pid = generating.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // A generator that has ended already is what we want.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(GENERATOR_GRACE, generating.wait()).await.is_err() {
        // Dropping it would kill it too; a failure to kill leaves nothing more to do.
        let _ = generating.kill().await;
    }
}

/// Opens a page in the browser; without one the address on the screen has to do.
fn open(page: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = std::process::Command::new(opener).arg(page).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
