//! A process among the processes of its job: how they start together, run and end together. For a job of one process
//! all of this is empty.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_core::sink::Committer;
use tidemill_core::{Error, Result};
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Config, Hooks};

use super::cluster::channel::Channel;
use super::cluster::leader::{self, Members, RemoteReports};
use super::cluster::member;
use super::cluster::message::{Place, Start};
use super::cluster::transport::{Ended, Link, Transport};
use super::cluster::{self, Cluster, Identity, Mesh};
use super::control::JobControl;
use super::execute::{Allocators, spawn};
use super::metrics::SubtaskMetrics;
use super::settings::JobSettings;
use super::user_metrics::UserMetrics;
use crate::checkpoint::coordinator::Event;
use crate::checkpoint::restore::RestorePoint;
use crate::checkpoint::storage::Storages;
use crate::checkpoint::writer::Target;
use crate::graph::{Graph, Plan, above_max, check_max_parallelism};
use crate::key::KEY_GROUPS;
use crate::slot_sharing::Homes;

/// A worker that has not ended so long after the job failed is stuck in code of the job, and the process ends without it.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The exit code of a process with a stuck worker.
const EXIT_STUCK: i32 = 102;

/// How often a process of several looks whether the job has failed.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// The file in the checkpoint folder by which processes find out that they share it.
const WORD_FILE: &str = "word";

/// Parallelism of operators that say nothing. In processes of so many workers each it is the largest that has room there.
pub(crate) fn default_parallelism(graph: &Graph, settings: &JobSettings) -> Result<usize> {
    let max = check_max_parallelism(settings.max_parallelism.unwrap_or(KEY_GROUPS as usize), "the job")?;
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    match (settings.parallelism, &settings.cluster) {
        (Some(parallelism), _) if parallelism > max => Err(above_max("the job", parallelism, max)),
        (Some(parallelism), _) => Ok(parallelism),
        (None, None) => Ok(cores().min(max)),
        (None, Some(cluster)) => {
            let workers = cluster.workers.ok_or_else(|| {
                Error::input("a job of several processes needs its parallelism")
                    .hint("set TIDEMILL_PARALLELISM, or TIDEMILL_WORKERS for each process, the same in all of them")
            })?;
            Ok(graph.slot_demand(None).parallelism_within(workers * cluster.processes(), max).unwrap_or(1))
        }
    }
}

type Committers = BTreeMap<(String, usize), Box<dyn Committer>>;

/// What a process starts from.
pub(super) struct Role {
    pub restore: RestorePoint,
    pub attempt: u64,
    /// Of the first process alone.
    pub committers: Committers,
}

enum State {
    /// A job of one process.
    Alone,
    /// Connected.
    Joined(Cluster, Mesh),
    /// The first process, which has told the others what to start from.
    Leading(Cluster, leader::Links, Vec<Option<Channel>>),
    /// Another process, which has been told.
    Following(Cluster, Channel, Vec<Option<Channel>>),
    Running {
        cluster: Cluster,
        data: Mutex<Vec<Option<Channel>>>,
        control: Arc<JobControl>,
        links: Mutex<Option<Links>>,
        watch: Mutex<Option<JoinHandle<()>>>,
    },
}

enum Links {
    Leader(leader::Running),
    Member(member::Running),
}

/// The other processes of the job.
pub(super) struct Network {
    pub process: usize,
    /// Workers of this process, and of each other.
    pub workers: usize,
    state: State,
    workers_ended: Arc<Ended>,
    done: Arc<Ended>,
}

impl Network {
    /// Connects with the other processes, if there are any.
    pub fn join(plan: &Plan, settings: &JobSettings) -> Result<Self> {
        let (workers_ended, done) = (Arc::default(), Arc::default());
        let Some(cluster) = settings.cluster.clone() else {
            return Ok(Network { process: 0, workers: plan.workers(), state: State::Alone, workers_ended, done });
        };
        let workers = plan.workers().div_ceil(cluster.processes()).max(cluster.workers.unwrap_or(1));
        let identity = Identity {
            job_id: settings.job_id.clone(),
            generation: cluster.generation,
            processes: cluster.processes() as u32,
            workers: workers as u32,
            plan: plan.fingerprint(),
        };
        let mesh = cluster::join(&cluster, &identity, &settings.clock)?;
        tracing::info!(process = cluster.process, processes = cluster.processes(), workers, "all processes are there");
        Ok(Network { process: cluster.process, workers, state: State::Joined(cluster, mesh), workers_ended, done })
    }

    pub fn is_first(&self) -> bool {
        self.process == 0
    }

    /// Settles what to start from: the first process finds out by `prepare`, and tells the others.
    pub fn begin(
        self,
        target: &Target,
        checkpoints: Option<&Path>,
        storages: &Storages,
        prepare: impl FnOnce() -> Result<(RestorePoint, u64, Committers)>,
    ) -> Result<(Self, Role, Option<Members>)> {
        let role = |(restore, attempt, committers)| Role { restore, attempt, committers };
        match self.state {
            State::Joined(cluster, mut mesh) if self.process == 0 => {
                let prepared = prepare().and_then(|prepared| {
                    let restore =
                        prepared.0.folder().map(|folder| (Place::of(folder, checkpoints), prepared.0.epoch()));
                    let word =
                        checkpoints.map(|folder| leave_word(storages, folder, &cluster, prepared.1)).transpose()?;
                    Ok((Start { attempt: prepared.1, restore, word }, prepared))
                });
                let (start, prepared) = match prepared {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        leader::refuse(&mut mesh.control, &error);
                        return Err(error);
                    }
                };
                let (links, members) =
                    leader::open(mesh.control, &start, target.clone(), checkpoints.map(Path::to_path_buf));
                let state = State::Leading(cluster, links, mesh.data);
                Ok((Network { state, ..self }, role(prepared), Some(members)))
            }
            State::Joined(cluster, mut mesh) => {
                let mut stream = mesh.control.first_mut().and_then(Option::take).ok_or_else(no_link)?;
                let start = member::start(&mut stream, &cluster)?;
                check_word(start.word.as_deref(), storages, checkpoints)?;
                let restore = match start.restore {
                    None => RestorePoint::default(),
                    Some((place, epoch)) => {
                        let restore = RestorePoint::open(storages, &place.here(checkpoints)?)?;
                        if restore.epoch() != epoch {
                            let found = restore.epoch();
                            return Err(Error::input(format!(
                                "the checkpoint of epoch {epoch} is one of {found} here"
                            ))
                            .hint(SHARE_HINT));
                        }
                        restore
                    }
                };
                let role = Role { restore, attempt: start.attempt, committers: Committers::new() };
                Ok((Network { state: State::Following(cluster, stream, mesh.data), ..self }, role, None))
            }
            _ => Ok((self, role(prepare()?), None)),
        }
    }

    /// Starts the control links of the first process.
    pub fn lead(
        self,
        control: &Arc<JobControl>,
        events: &Sender<Event>,
        plan: &Plan,
        (reports, user): (RemoteReports, Arc<UserMetrics>),
    ) -> Result<Self> {
        let State::Leading(cluster, links, data) = self.state else { return Ok(self) };
        let shared = leader::Shared {
            control: control.clone(),
            events: events.clone(),
            reports,
            user,
            cluster: cluster.clone(),
            homes: Homes::new(plan, self.workers),
        };
        let links = Links::Leader(leader::run(links, shared)?);
        Network { state: State::Alone, ..self }.run(cluster, data, control, links)
    }

    /// Starts the control link of another process; `inbox` is what its tasks say.
    pub fn follow(
        self,
        control: &Arc<JobControl>,
        inbox: Receiver<Event>,
        plan: &Plan,
        (metrics, user): (&[Vec<Arc<SubtaskMetrics>>], Arc<UserMetrics>),
        target: Target,
        checkpoints: Option<PathBuf>,
    ) -> Result<Self> {
        let State::Following(cluster, stream, data) = self.state else { return Ok(self) };
        let homes = Homes::new(plan, self.workers);
        let ours = |task, subtask| homes.of_task(task, subtask) == Some(self.process);
        let all = metrics.iter().enumerate().flat_map(|(task, subtasks)| {
            subtasks.iter().enumerate().map(move |(subtask, metrics)| (task, subtask, metrics.clone()))
        });
        let shared = member::Shared {
            control: control.clone(),
            target,
            cluster: cluster.clone(),
            checkpoints,
            metrics: all.filter(|(task, subtask, _)| ours(*task, *subtask)).collect(),
            homes,
            user,
        };
        let links = Links::Member(member::run(stream, inbox, shared)?);
        Network { state: State::Alone, ..self }.run(cluster, data, control, links)
    }

    fn run(
        self,
        cluster: Cluster,
        data: Vec<Option<Channel>>,
        control: &Arc<JobControl>,
        links: Links,
    ) -> Result<Self> {
        let mut sockets = Vec::new();
        for stream in data.iter().flatten() {
            sockets.push(stream.try_clone().map_err(|e| Error::io("set up a connection", e))?);
        }
        let (watched, ended, done) = (control.clone(), self.workers_ended.clone(), self.done.clone());
        let watch = spawn("fate", move || watch(&watched, &ended, &done, &sockets))?;
        let state = State::Running {
            cluster,
            data: Mutex::new(data),
            control: control.clone(),
            links: Mutex::new(Some(links)),
            watch: Mutex::new(Some(watch)),
        };
        Ok(Network { state, ..self })
    }

    /// timely's workers of this process, connected with those of the others.
    pub fn allocators(&self, workers: usize) -> Result<Allocators> {
        let not_started = |e: String| Error::bug(format!("the workers could not be started: {e}"));
        let State::Running { cluster, data, control, .. } = &self.state else {
            let config = if workers == 1 { Config::Thread } else { Config::Process(workers) };
            return config.try_build().map_err(not_started);
        };
        let range = |process: usize| (process * workers) as u64..((process + 1) * workers) as u64;
        let data = std::mem::take(&mut *data.lock().unwrap_or_else(PoisonError::into_inner));
        let transport = |(process, socket): (usize, Option<Channel>)| {
            let link = Arc::new(Link {
                control: control.clone(),
                ended: self.workers_ended.clone(),
                name: cluster.name(process),
                theirs: range(process),
                ours: range(self.process),
            });
            socket.map(|socket| Transport::new(socket, link))
        };
        let transports: Vec<Option<Transport>> = data.into_iter().enumerate().map(transport).collect();
        let hooks = Hooks::default();
        let own = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), hooks.spill.clone());
        let (builders, guard) = initialize_networking_from_sockets(own, transports, self.process, workers, hooks)
            .map_err(|e| not_started(e.to_string()))?;
        Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard)))
    }

    /// What each of the workers calls when it has ended.
    pub fn worker_ends(&self, workers: usize) -> impl Fn() + Send + Sync + 'static {
        let (left, ended) = (AtomicUsize::new(workers), self.workers_ended.clone());
        move || {
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                ended.set();
            }
        }
    }

    /// All workers have ended, or were never started.
    pub fn workers_ended(&self) {
        self.workers_ended.set();
    }

    /// Ends the links: the first process waits for the others' last words.
    pub fn end(&self) {
        let State::Running { links, watch, .. } = &self.state else { return };
        match links.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Links::Leader(links)) => links.end(),
            Some(Links::Member(link)) => link.end(),
            None => {}
        }
        self.done.set();
        if let Some(watch) = watch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = watch.join();
        }
    }
}

/// When the job has failed, nothing more is read from the others; a process whose workers do not end is ended.
fn watch(control: &JobControl, workers_ended: &Ended, done: &Ended, sockets: &[Channel]) {
    while !done.wait(WATCH_EVERY) {
        if control.failed() {
            if !workers_ended.wait(STUCK_AFTER) {
                let why = control.failure().map(|error| error.to_string()).unwrap_or_default();
                tidemill_core::say(format_args!(
                    "error: {why}; and a worker did not end within {} s",
                    STUCK_AFTER.as_secs()
                ));
                std::process::exit(EXIT_STUCK);
            }
            // A connection that is gone already is shut down well enough.
            sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        }
    }
}

fn no_link() -> Error {
    Error::bug("a process without a link to the first one")
}

const SHARE_HINT: &str = "the checkpoint folder must be one and the same folder in all processes, on a shared disk";

/// Leaves a word in the checkpoint folder, by which the other processes see that they share it.
fn leave_word(storages: &Storages, folder: &Path, cluster: &Cluster, attempt: u64) -> Result<String> {
    let word = format!("start {attempt} of {}", cluster.addresses.join(","));
    storages.at(folder)?.write(&folder.join(WORD_FILE), word.as_bytes())?;
    Ok(word)
}

fn check_word(word: Option<&str>, storages: &Storages, checkpoints: Option<&Path>) -> Result<()> {
    let Some(word) = word else { return Ok(()) };
    let folder = Place::Checkpoints(Default::default()).here(checkpoints)?;
    match storages.at(&folder)?.read(&folder.join(WORD_FILE), None) {
        Ok(found) if found == word.as_bytes() => Ok(()),
        _ => {
            Err(Error::input(format!("`{}` is not the checkpoint folder of process 0", folder.display()))
                .hint(SHARE_HINT))
        }
    }
}
