//! The life of one attempt of a job in this process: the job's only one, the first of several, or one of the others.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::report::{CheckpointsReport, EdgeReport, OperatorReport, Report, VertexReport};
use tidemill_core::sink::{Committer, SinkScope};
use tidemill_core::{Error, Result};
use timely::WorkerConfig;
use timely::communication::AllocatorBuilder;
use timely::worker::Worker;

use super::cluster::leader::RemoteReports;
use super::control::{JobControl, WriterLink};
use super::metrics::SubtaskMetrics;
use super::processes::{self, Network, Role};
use super::settings::{CheckpointRetention, ClaimMode, JobMode, JobSettings};
use super::user_metrics::{MetricGroup, UserMetrics};
use super::{slots, socket};
use crate::checkpoint::coordinator::{Coordinator, CoordinatorConfig, Event, SavepointRequest};
use crate::checkpoint::restore::RestorePoint;
use crate::checkpoint::storage::{Storages, location};
use crate::checkpoint::writer::{self, CheckpointWriter};
use crate::checkpoint::{self, CheckpointFolder};
use crate::driver::build::{self, BuildShared};
use crate::driver::timestamp::Ts;
use crate::graph::{Graph, Plan, ShipKind};
use crate::state::Buffers;

/// A worker looks at least this often whether the job has failed elsewhere.
const PARK_MAX: Duration = Duration::from_secs(1);

/// How long a cancelled job waits for its checkpoints to be removed.
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// All input was processed.
    Finished,
    /// Somebody cancelled it; said by the processes but the first of a job of several.
    Cancelled,
    /// It was stopped with a savepoint.
    Suspended,
}

/// What a job that did not fail leaves.
#[derive(Debug, Clone)]
pub struct JobResult {
    /// How it ended.
    pub end: JobEnd,
    /// The last numbers of its operators.
    pub report: Report,
}

impl JobResult {
    /// What user functions have added up under a name since the process started, over all subtasks.
    pub fn accumulator<V: serde::de::DeserializeOwned>(&self, name: &str) -> Result<V> {
        let value = self.report.accumulators.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.report.accumulators.keys().map(String::as_str).collect();
            Error::input(format!("the job has no accumulator `{name}`"))
                .hint(format!("it has `{}`", known.join("`, `")))
        })?;
        serde_json::from_value(value.clone())
            .map_err(|e| Error::input(format!("accumulator `{name}` holds {value}, which is of another type: {e}")))
    }
}

/// What can be asked of a running job from other threads.
#[derive(Clone)]
pub(crate) struct JobHandle {
    /// Whether it runs as a batch, which takes no checkpoints but the last.
    batch: bool,
    control: Arc<JobControl>,
    events: Sender<Event>,
    describe: Arc<Describe>,
}

struct Describe {
    settings: JobSettings,
    name: String,
    start_ms: i64,
    parallelism: usize,
    slots: usize,
    vertices: Vec<(VertexReport, Vec<Arc<SubtaskMetrics>>)>,
    edges: Vec<EdgeReport>,
    checkpoints: Arc<Mutex<CheckpointsReport>>,
    /// What the job's other processes have told.
    remote: RemoteReports,
    user: Arc<UserMetrics>,
}

impl JobHandle {
    pub fn report(&self) -> Report {
        let describe = &self.describe;
        let remote = describe.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let subtask = |task: usize, subtask: usize, metrics: &SubtaskMetrics| {
            remote.get(&(task, subtask)).cloned().unwrap_or_else(|| metrics.report(describe.settings.clock.as_ref()))
        };
        Report {
            job_id: describe.settings.job_id.clone(),
            name: describe.name.clone(),
            state: "RUNNING".to_string(),
            start_ms: describe.start_ms,
            now_ms: describe.settings.clock.now_ms(),
            pid: std::process::id(),
            parallelism: describe.parallelism,
            slots: describe.slots,
            vertices: describe
                .vertices
                .iter()
                .enumerate()
                .map(|(task, (vertex, metrics))| {
                    let mut vertex = VertexReport {
                        subtasks: metrics
                            .iter()
                            .enumerate()
                            .map(|(index, metrics)| subtask(task, index, metrics))
                            .collect(),
                        ..vertex.clone()
                    };
                    for operator in &mut vertex.operators {
                        operator.metrics = describe.user.of(&operator.uid);
                    }
                    vertex
                })
                .collect(),
            edges: describe.edges.clone(),
            checkpoints: describe.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            accumulators: describe.user.accumulators(),
        }
    }

    /// Takes a savepoint and waits for it.
    pub fn savepoint(&self, folder: Option<PathBuf>, stop: bool, drain: bool) -> Result<PathBuf> {
        self.not_in_batch_mode()?;
        let folder = folder.map(|folder| location(&folder)).transpose()?;
        let (reply, answer) = sync_channel(1);
        let ended = || Error::external("the job has ended");
        self.events.send(Event::Savepoint(SavepointRequest { folder, stop, drain, reply })).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// Takes a checkpoint now and waits for it.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        self.not_in_batch_mode()?;
        let (reply, answer) = sync_channel(1);
        let ended = || Error::external("the job has ended");
        self.events.send(Event::Checkpoint { reply }).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    fn not_in_batch_mode(&self) -> Result<()> {
        match self.batch {
            true => Err(Error::input("a job in batch mode takes no checkpoints and no savepoints but the last")),
            false => Ok(()),
        }
    }

    /// Ends the job at once, here and in its other processes.
    pub fn cancel(&self) {
        self.discard_checkpoints();
        self.cancel_others();
        self.control.cancelled();
    }

    /// Removes the checkpoints of a job that is being cancelled, if it was told so. Nobody waits long for that: a
    /// coordinator that is busy leaves them behind.
    pub fn discard_checkpoints(&self) {
        if self.describe.settings.checkpoint_retention != CheckpointRetention::DeleteOnCancellation {
            return;
        }
        let (reply, answer) = sync_channel(1);
        let removed = match self.events.send(Event::Discard { reply }) {
            Ok(()) => answer.recv_timeout(DISCARD_MAX).map_err(|_| Error::external("the coordinator does not answer")),
            Err(_) => Err(Error::external("the job has ended")),
        };
        if let Err(error) = removed.and_then(|removed| removed) {
            tracing::warn!(%error, "the checkpoints of the cancelled job stay");
        }
    }

    /// Makes the job fail, as a crash would.
    pub fn fail(&self, error: Error) {
        self.control.fail(error);
    }

    /// Tells the job's other processes that it is cancelled; this one ends itself.
    pub fn cancel_others(&self) {
        if let Some(members) = self.control.members() {
            members.cancel();
        }
    }
}

/// Runs the job to its end. `started` gets a handle as soon as there is one.
pub(crate) fn execute(
    graph: Graph,
    name: &str,
    settings: JobSettings,
    started: impl FnOnce(JobHandle),
) -> Result<JobResult> {
    let settings = settings.with_locations()?;
    let storages = Arc::new(Storages::new(settings.storage_options.clone()));
    let (parallelism, demand) = (processes::default_parallelism(&graph, &settings)?, slots::demand(&graph, &settings));
    let plan = graph.plan(parallelism)?;
    slots::check(&demand, plan.workers(), &settings)?;
    let mode = plan.mode(settings.runtime_mode)?;
    let batch = mode == JobMode::Batch;
    let interval_ms = settings.checkpoint_interval_ms.filter(|_| settings.checkpoint_dir.is_some() && !batch);
    let folder =
        settings.checkpoint_dir.as_deref().map(|root| CheckpointFolder::open_in(&storages, root)).transpose()?;
    let settings = settings.with_job_id(folder.as_ref())?;
    let network = Network::join(&plan, &settings)?;
    let workers = network.workers;
    let target: writer::Target = Arc::default();
    let user = Arc::new(UserMetrics::default());
    let (network, role, members) = network.begin(&target, settings.checkpoint_dir.as_deref(), &storages, || {
        let restore = restore_point(&settings, folder.as_ref(), &storages)?;
        restore.check_all_claimed(&plan.uids.iter().cloned().collect(), settings.allow_non_restored_state)?;
        let attempt = folder.as_ref().map_or(Ok(1), CheckpointFolder::begin_attempt)?;
        let committers = recover_sinks(&plan, &restore, &settings, &user)?;
        Ok((restore, attempt, committers))
    })?;
    let Role { restore, attempt, committers } = role;

    // Of a start before this one, if not of this.
    let claimed = match &folder {
        Some(folder) if network.is_first() => checkpoint::claimed(folder)?,
        _ => None,
    };
    let (events, inbox) = channel();
    let mut writer_inboxes = Vec::new();
    let writers = (0..workers)
        .map(|_| {
            let (sender, receiver) = channel();
            let (queued, buffers): (Arc<AtomicUsize>, _) = (Arc::default(), Buffers::default());
            writer_inboxes.push((receiver, queued.clone(), buffers.clone()));
            WriterLink { sender: Mutex::new(sender), queued, buffers }
        })
        .collect();
    let board = plan.board();
    let keeps_state = settings.checkpoint_dir.is_some();
    let control = JobControl::new(settings.clock.clone(), board, restore.epoch(), events.clone(), keeps_state, writers);
    let control = Arc::new(control.with_members(members));
    let checkpoints = Arc::new(Mutex::new(CheckpointsReport {
        restored_epoch: restore.is_some().then(|| restore.epoch()),
        ..CheckpointsReport::default()
    }));
    let metrics: Vec<Vec<Arc<SubtaskMetrics>>> =
        plan.heads.iter().map(|&head| (0..plan.parallelism[head]).map(|_| Arc::default()).collect()).collect();
    let remote = RemoteReports::default();
    let describe = describe(&plan, name, &settings, &metrics, checkpoints.clone(), (remote.clone(), user.clone()));
    let describe = Arc::new(describe);
    let handle = JobHandle { control: control.clone(), events: events.clone(), describe: describe.clone(), batch };
    // Whoever asks about the job asks its first process.
    let socket = match &settings.job_dir {
        Some(dir) if network.is_first() => Some(socket::listen(dir, handle.clone())?),
        _ => None,
    };
    started(handle.clone());

    let coordinating = |inbox: Receiver<Event>| {
        let subtasks = |(task, metrics): (usize, &Vec<_>)| (0..metrics.len()).map(move |subtask| (task, subtask));
        let coordinator = Coordinator::new(
            CoordinatorConfig {
                job_id: settings.job_id.clone(),
                job_name: name.to_string(),
                checkpoints: folder,
                storages: storages.clone(),
                claimed,
                attempt,
                savepoints: settings.savepoint_dir.clone(),
                interval_ms,
                min_pause_ms: settings.checkpoint_min_pause_ms,
                timeout_ms: settings.checkpoint_timeout_ms,
                tolerable_failures: settings.tolerable_failed_checkpoints,
                retained: settings.checkpoints_retained,
                restored_epoch: restore.epoch(),
                subtasks: metrics.iter().enumerate().flat_map(subtasks).collect::<BTreeSet<_>>(),
                parallelism: plan.uids.iter().cloned().zip(plan.parallelism.iter().copied()).collect(),
            },
            control.clone(),
            target.clone(),
            checkpoints,
            committers,
        );
        spawn_guarded("checkpoint-coordinator", &control, move || coordinator.run(inbox))
    };
    let (network, coordinator) = if network.is_first() {
        (network.lead(&control, &events, &plan, (remote, user.clone()))?, Some(coordinating(inbox)?))
    } else {
        let checkpoints = settings.checkpoint_dir.clone();
        (network.follow(&control, inbox, &plan, (&metrics, user.clone()), target.clone(), checkpoints)?, None)
    };
    for (inbox, queued, buffers) in writer_inboxes {
        let (events, target, root, tasks) =
            (events.clone(), target.clone(), settings.checkpoint_dir.clone(), HashMap::new());
        let clock = settings.clock.clone();
        let storages = storages.clone();
        let writer = CheckpointWriter { events, clock, target, queued, buffers, storages, root, attempt, tasks };
        spawn_guarded("checkpoint-writer", &control, move || writer.run(inbox))?;
    }
    let state = settings.state_home()?;
    let shared = Arc::new(BuildShared {
        plan,
        restore,
        control: control.clone(),
        metrics,
        job_id: settings.job_id.clone(),
        attempt,
        checkpoint_interval_ms: settings.checkpoint_interval_ms.filter(|_| settings.checkpoint_dir.is_some()),
        workers,
        building: workers.into(),
        user,
        mode,
        state,
    });
    let workers_ended = network.allocators(workers).and_then(|allocators| run_workers(allocators, shared, &network));
    network.workers_ended();
    control.tell(Event::Done);
    network.end();
    // The coordinator has heard that the workers have ended and ends too; the last checkpoint is in the report then.
    let coordinator_ended = coordinator.map_or(Ok(()), |coordinator| coordinator.join());
    let report = handle.report();
    drop(socket);
    workers_ended?;
    coordinator_ended.map_err(|_| Error::bug("the checkpoint coordinator panicked"))?;
    if control.is_cancelled() {
        return Ok(JobResult { end: JobEnd::Cancelled, report });
    }
    match control.failure() {
        Some(error) => Err(error),
        None => {
            let end = if control.suspended() { JobEnd::Suspended } else { JobEnd::Finished };
            Ok(JobResult { end, report })
        }
    }
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(run)
        .map_err(|e| Error::io(format!("start the thread `{name}`"), e))
}

/// A thread without which the job cannot go on: a panic in it fails the job. It does not keep the job's control alive,
/// whose end is what ends it.
fn spawn_guarded(
    name: &'static str,
    control: &Arc<JobControl>,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>> {
    let control = Arc::downgrade(control);
    spawn(name, move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err()
            && let Some(control) = control.upgrade()
        {
            control.fail(Error::bug(format!("the thread `{name}` panicked; what it said stands on standard error")));
        }
    })
}

/// The newest complete checkpoint of the job itself, else the savepoint it was told to start from.
pub(super) fn restore_point(
    settings: &JobSettings,
    folder: Option<&CheckpointFolder>,
    storages: &Storages,
) -> Result<RestorePoint> {
    if let Some(folder) = folder {
        folder.remove_incomplete()?;
        if let Some(&newest) = folder.complete()?.last() {
            return RestorePoint::open(storages, &folder.path(newest));
        }
    }
    let Some(from) = settings.restore_from.as_deref() else { return Ok(RestorePoint::default()) };
    let restore = RestorePoint::open(storages, from)?;
    if settings.claim_mode == ClaimMode::Claim {
        let own = folder.ok_or_else(|| {
            Error::input(format!("the job cannot claim `{}`: it has no folder for checkpoints", from.display()))
                .hint("set one, or restore without a claim")
        })?;
        checkpoint::claim(own, from)?;
    }
    Ok(restore)
}

/// Before any worker writes: sinks publish what the restored checkpoint names and remove what an earlier attempt left.
pub(super) fn recover_sinks(
    plan: &Plan,
    restore: &RestorePoint,
    settings: &JobSettings,
    user: &Arc<UserMetrics>,
) -> Result<BTreeMap<(String, usize), Box<dyn Committer>>> {
    let mut committers = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(sink) = &node.sink else { continue };
        let uid = &plan.uids[index];
        let scope = |subtask: usize| SinkScope {
            metrics: Arc::new(MetricGroup::new(user.clone(), uid.clone(), subtask, settings.clock.clone())),
            ..SinkScope::new(settings.job_id.clone(), uid.clone())
        };
        let named = |e: Error| e.context(format!("sink `{}`", node.name));
        sink.recover(&scope(0), &restore.tokens(uid)?).map_err(named)?;
        for subtask in 0..plan.parallelism[index] {
            if let Some(committer) = sink.committer(&scope(subtask)).map_err(named)? {
                committers.insert((uid.clone(), subtask), committer);
            }
        }
    }
    Ok(committers)
}

fn task_id(plan: &Plan, task: usize) -> String {
    plan.uids[plan.heads[task]].clone()
}

/// The tasks of a plan, without subtasks.
pub(crate) fn vertices(plan: &Plan) -> Vec<VertexReport> {
    let operator = |node: usize| OperatorReport {
        uid: plan.uids[node].clone(),
        name: plan.nodes[node].name.clone(),
        description: plan.nodes[node].description.clone(),
        metrics: Vec::new(),
    };
    let vertex = |(task, &head): (usize, &usize)| VertexReport {
        id: task_id(plan, task),
        name: plan.task_name(task),
        operators: plan.members(task).map(operator).collect(),
        parallelism: plan.parallelism[head],
        slot_sharing_group: plan.sharing.name(head).to_string(),
        subtasks: Vec::new(),
    };
    plan.heads.iter().enumerate().map(vertex).collect()
}

/// The edges between the tasks of a plan.
pub(crate) fn edges(plan: &Plan) -> Vec<EdgeReport> {
    let mut edges = Vec::new();
    for (to, node) in plan.nodes.iter().enumerate() {
        for input in node.inputs.iter().filter(|input| plan.task_of[input.from] != plan.task_of[to]) {
            let rescaled = input.kind == ShipKind::Forward && plan.parallelism[input.from] != plan.parallelism[to];
            let kind = if rescaled { ShipKind::Rebalance } else { input.kind };
            edges.push(EdgeReport {
                from: task_id(plan, plan.task_of[input.from]),
                to: task_id(plan, plan.task_of[to]),
                ship: kind.name().to_string(),
            });
        }
    }
    edges
}

fn describe(
    plan: &Plan,
    name: &str,
    settings: &JobSettings,
    metrics: &[Vec<Arc<SubtaskMetrics>>],
    checkpoints: Arc<Mutex<CheckpointsReport>>,
    (remote, user): (RemoteReports, Arc<UserMetrics>),
) -> Describe {
    let vertices = vertices(plan).into_iter().zip(metrics.iter().cloned()).collect();
    let edges = edges(plan);
    Describe {
        settings: settings.clone(),
        name: name.to_string(),
        start_ms: settings.clock.now_ms(),
        parallelism: plan.parallelism(),
        slots: plan.workers(),
        vertices,
        edges,
        checkpoints,
        remote,
        user,
    }
}

/// timely's workers, not yet running, and what must live as long as they do.
pub(super) type Allocators = (Vec<AllocatorBuilder>, Box<dyn Any + Send>);

fn run_workers((builders, others): Allocators, shared: Arc<BuildShared>, network: &Network) -> Result<()> {
    let (control, ended) = (shared.control.clone(), network.worker_ends(builders.len()));
    let work = move |worker: &mut Worker| {
        // A worker that is gone would leave the others waiting for ever: they hear of it at once.
        if catch_unwind(AssertUnwindSafe(|| work(worker, &shared))).is_err() {
            shared.control.fail(Error::bug("a worker panicked outside of any task; see standard error"));
            let _ = catch_unwind(AssertUnwindSafe(|| drop_dataflows(worker)));
        }
        ended();
    };
    let guards = timely::execute::execute_from(builders, others, WorkerConfig::default(), work)
        .map_err(|e| Error::bug(format!("the workers could not be started: {e}")))?;
    let joined = catch_unwind(AssertUnwindSafe(|| guards.join().into_iter().all(|outcome| outcome.is_ok())));
    if !joined.unwrap_or(false) {
        control.fail(Error::bug("a thread of the workers panicked; what it said stands on standard error"));
    }
    Ok(())
}

fn work(worker: &mut Worker, shared: &BuildShared) {
    let control = &shared.control;
    worker.dataflow::<Ts, _, _>(|scope| {
        build::build(scope, shared).unwrap_or_else(|error| {
            control.fail(error);
            // Half a dataflow is not for timely: its next channels would be taken for other ones of the other workers.
            resume_unwind(Box::new("the dataflow could not be built"))
        })
    });
    while worker.has_dataflows() && !control.failed() {
        worker.step_or_park(Some(PARK_MAX));
    }
    // After a failure what is left is dropped as it stands; the next attempt starts from the last checkpoint.
    drop_dataflows(worker);
}

fn drop_dataflows(worker: &mut Worker) {
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}
