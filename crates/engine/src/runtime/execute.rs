//! The life of one attempt of a job in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_core::report::{CheckpointsReport, EdgeReport, OperatorReport, Report, VertexReport};
use tidemill_core::sink::{Committer, SinkScope};
use tidemill_core::{Error, Result};
use timely::worker::Worker;

use super::board::Board;
use super::control::JobControl;
use super::metrics::SubtaskMetrics;
use super::settings::JobSettings;
use super::socket;
use crate::checkpoint::coordinator::{Coordinator, CoordinatorConfig, Event, SavepointRequest};
use crate::checkpoint::restore::RestorePoint;
use crate::checkpoint::{CheckpointFolder, writer};
use crate::driver::build::{self, BuildShared};
use crate::driver::timestamp::Ts;
use crate::graph::{Graph, Plan, ShipKind};

/// A worker looks at least this often whether the job has failed elsewhere.
const PARK_MAX: Duration = Duration::from_secs(1);

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// All input was processed.
    Finished,
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

/// What can be asked of a running job from other threads.
#[derive(Clone)]
pub(crate) struct JobHandle {
    control: Arc<JobControl>,
    events: Sender<Event>,
    describe: Arc<Describe>,
}

struct Describe {
    settings: JobSettings,
    name: String,
    start_ms: i64,
    parallelism: usize,
    vertices: Vec<(VertexReport, Vec<Arc<SubtaskMetrics>>)>,
    edges: Vec<EdgeReport>,
    checkpoints: Arc<Mutex<CheckpointsReport>>,
}

impl JobHandle {
    pub fn report(&self) -> Report {
        let describe = &self.describe;
        Report {
            job_id: describe.settings.job_id.clone(),
            name: describe.name.clone(),
            state: "RUNNING".to_string(),
            start_ms: describe.start_ms,
            now_ms: describe.settings.clock.now_ms(),
            pid: std::process::id(),
            parallelism: describe.parallelism,
            vertices: describe
                .vertices
                .iter()
                .map(|(vertex, metrics)| VertexReport {
                    subtasks: metrics.iter().map(|subtask| subtask.report()).collect(),
                    ..vertex.clone()
                })
                .collect(),
            edges: describe.edges.clone(),
            checkpoints: describe.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Takes a savepoint and waits for it.
    pub fn savepoint(&self, folder: Option<PathBuf>, stop: bool, drain: bool) -> Result<PathBuf> {
        let (reply, answer) = sync_channel(1);
        let ended = || Error::external("the job has ended");
        self.events.send(Event::Savepoint(SavepointRequest { folder, stop, drain, reply })).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// Takes a checkpoint now and waits for it.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        let (reply, answer) = sync_channel(1);
        let ended = || Error::external("the job has ended");
        self.events.send(Event::Checkpoint { reply }).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// Makes the job fail, as a crash would.
    pub fn fail(&self, error: Error) {
        self.control.fail(error);
    }
}

/// Runs the job to its end. `started` gets a handle as soon as there is one.
pub(crate) fn execute(
    graph: Graph,
    name: &str,
    settings: JobSettings,
    started: impl FnOnce(JobHandle),
) -> Result<JobResult> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let plan = graph.plan(settings.parallelism.unwrap_or(cores))?;
    let workers = plan.workers();
    let folder = settings.checkpoint_dir.clone().map(CheckpointFolder::open).transpose()?;
    let restore = restore_point(&settings, folder.as_ref())?;
    restore.check_all_claimed(&plan.uids.iter().cloned().collect(), settings.allow_non_restored_state)?;
    let attempt = count_attempt(&settings)?;
    let committers = recover_sinks(&plan, &restore, &settings)?;

    let (events, inbox) = channel();
    let target: writer::Target = Arc::default();
    let mut writer_inboxes = Vec::new();
    let writers = (0..workers)
        .map(|_| {
            let (sender, receiver) = channel();
            writer_inboxes.push(receiver);
            sender
        })
        .collect();
    let control = Arc::new(JobControl::new(
        settings.clock.clone(),
        Board::new(plan.groups.clone()),
        restore.epoch(),
        events.clone(),
        writers,
    ));
    let checkpoints = Arc::new(Mutex::new(CheckpointsReport {
        restored_epoch: restore.is_some().then(|| restore.epoch()),
        ..CheckpointsReport::default()
    }));
    let metrics: Vec<Vec<Arc<SubtaskMetrics>>> =
        plan.heads.iter().map(|&head| (0..plan.parallelism[head]).map(|_| Arc::default()).collect()).collect();
    let describe = Arc::new(describe(&plan, name, &settings, &metrics, checkpoints.clone()));
    let subtasks: BTreeSet<(usize, usize)> = metrics
        .iter()
        .enumerate()
        .flat_map(|(task, subtasks)| (0..subtasks.len()).map(move |subtask| (task, subtask)))
        .collect();
    let coordinator = Coordinator::new(
        CoordinatorConfig {
            job_id: settings.job_id.clone(),
            job_name: name.to_string(),
            checkpoints: folder,
            savepoints: settings.savepoint_dir.clone(),
            interval_ms: settings.checkpoint_interval_ms.filter(|_| settings.checkpoint_dir.is_some()),
            timeout_ms: settings.checkpoint_timeout_ms,
            retained: settings.checkpoints_retained,
            restored_epoch: restore.epoch(),
            subtasks,
        },
        control.clone(),
        target.clone(),
        checkpoints,
        committers,
    );
    let handle = JobHandle { control: control.clone(), events: events.clone(), describe: describe.clone() };
    let socket = match &settings.job_dir {
        Some(dir) => Some(socket::listen(dir, handle.clone())?),
        None => None,
    };
    started(handle.clone());

    let shared = Arc::new(BuildShared {
        plan,
        restore,
        control: control.clone(),
        metrics,
        job_id: settings.job_id.clone(),
        attempt,
        building: workers.into(),
    });
    for inbox in writer_inboxes {
        let (events, target) = (events.clone(), target.clone());
        spawn("checkpoint-writer", move || writer::run(inbox, events, target))?;
    }
    let coordinator = spawn("checkpoint-coordinator", move || coordinator.run(inbox))?;
    let workers_ended = run_workers(workers, shared);
    let report = handle.report();
    // From here on nobody answers; the coordinator hears that the workers have ended and ends too.
    control.tell(Event::Done);
    let coordinator_ended = coordinator.join();
    drop(socket);
    workers_ended?;
    coordinator_ended.map_err(|_| Error::bug("the checkpoint coordinator panicked"))?;
    match control.failure() {
        Some(error) => Err(error),
        None => {
            let end = if control.suspended() { JobEnd::Suspended } else { JobEnd::Finished };
            Ok(JobResult { end, report })
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(run)
        .map_err(|e| Error::io(format!("start the thread `{name}`"), e))
}

/// The newest complete checkpoint of the job itself, else the savepoint it was told to start from.
fn restore_point(settings: &JobSettings, folder: Option<&CheckpointFolder>) -> Result<RestorePoint> {
    if let Some(folder) = folder {
        folder.remove_incomplete()?;
        if let Some(&newest) = folder.complete()?.last() {
            return RestorePoint::open(&folder.path(newest));
        }
    }
    settings.restore_from.as_deref().map_or_else(|| Ok(RestorePoint::default()), RestorePoint::open)
}

/// Counts the starts of the job, so that unpublished things of different attempts have different names.
fn count_attempt(settings: &JobSettings) -> Result<u64> {
    let Some(folder) = &settings.checkpoint_dir else { return Ok(1) };
    let path = folder.join("attempt");
    let attempt = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) + 1;
    std::fs::write(&path, attempt.to_string()).map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
    Ok(attempt)
}

/// Before any worker writes: sinks publish what the restored checkpoint names and remove what an earlier attempt left.
fn recover_sinks(
    plan: &Plan,
    restore: &RestorePoint,
    settings: &JobSettings,
) -> Result<BTreeMap<(String, usize), Box<dyn Committer>>> {
    let mut committers = BTreeMap::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(sink) = &node.sink else { continue };
        let uid = &plan.uids[index];
        let scope = SinkScope { job_id: settings.job_id.clone(), uid: uid.clone() };
        let named = |e: Error| e.context(format!("sink `{}`", node.name));
        sink.recover(&scope, &restore.tokens(uid)?).map_err(named)?;
        for subtask in 0..plan.parallelism[index] {
            if let Some(committer) = sink.committer(&scope).map_err(named)? {
                committers.insert((uid.clone(), subtask), committer);
            }
        }
    }
    Ok(committers)
}

fn describe(
    plan: &Plan,
    name: &str,
    settings: &JobSettings,
    metrics: &[Vec<Arc<SubtaskMetrics>>],
    checkpoints: Arc<Mutex<CheckpointsReport>>,
) -> Describe {
    let id = |task: usize| plan.uids[plan.heads[task]].to_string();
    let vertices = metrics
        .iter()
        .enumerate()
        .map(|(task, subtasks)| {
            let operators = plan
                .members(task)
                .map(|node| OperatorReport { uid: plan.uids[node].clone(), name: plan.nodes[node].name.clone() })
                .collect();
            let vertex = VertexReport {
                id: id(task),
                name: plan.task_name(task),
                operators,
                parallelism: subtasks.len(),
                subtasks: Vec::new(),
            };
            (vertex, subtasks.clone())
        })
        .collect();
    let mut edges = Vec::new();
    for (to, node) in plan.nodes.iter().enumerate() {
        for input in node.inputs.iter().filter(|input| plan.task_of[input.from] != plan.task_of[to]) {
            let rescaled = input.kind == ShipKind::Forward && plan.parallelism[input.from] != plan.parallelism[to];
            let kind = if rescaled { ShipKind::Rebalance } else { input.kind };
            edges.push(EdgeReport {
                from: id(plan.task_of[input.from]),
                to: id(plan.task_of[to]),
                ship: kind.name().to_string(),
            });
        }
    }
    Describe {
        settings: settings.clone(),
        name: name.to_string(),
        start_ms: settings.clock.now_ms(),
        parallelism: plan.workers(),
        vertices,
        edges,
        checkpoints,
    }
}

fn run_workers(workers: usize, shared: Arc<BuildShared>) -> Result<()> {
    let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
    let control = shared.control.clone();
    let guards = timely::execute(config, move |worker| work(worker, &shared))
        .map_err(|e| Error::bug(format!("the workers could not be started: {e}")))?;
    for outcome in guards.join() {
        if outcome.is_err() {
            control.fail(Error::bug("a worker panicked outside of any task; what it said stands on standard error"));
        }
    }
    Ok(())
}

fn work(worker: &mut Worker, shared: &BuildShared) {
    let control = &shared.control;
    if let Err(error) = worker.dataflow::<Ts, _, _>(|scope| build::build(scope, shared)) {
        control.fail(error);
    }
    while worker.has_dataflows() && !control.failed() {
        worker.step_or_park(Some(PARK_MAX));
    }
    // After a failure what is left is dropped as it stands; the next attempt starts from the last checkpoint.
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}
