//! Where a job is built: sources, settings, and `execute`.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_core::report::{EdgeReport, VertexReport};
use tidemill_core::source::Source;
use tidemill_core::{Data, Error, Result};

use super::collection::{CollectionSource, SequenceSource};
use super::data_stream::{DataStream, Origin};
use super::watermark::WatermarkStrategy;
use crate::checkpoint::storage::{Storages, location};
use crate::checkpoint::{CheckpointFolder, SavepointReader};
use crate::driver::source::SourceParts;
use crate::graph::{Graph, Logic, Node, source_logic};
use crate::runtime::{
    CheckpointRetention, JobEnd, JobResult, JobSettings, RuntimeMode, default_parallelism, edges, execute, vertices,
};
use crate::state::StateBackend;

/// Collects the operators of a job; nothing runs before [`Environment::execute`].
#[derive(Clone)]
pub struct Environment {
    pub(crate) graph: Rc<RefCell<Graph>>,
    settings: Rc<RefCell<JobSettings>>,
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}

impl Environment {
    /// An environment with default settings: no checkpoint folder, parallelism = cores.
    pub fn new() -> Self {
        Self::with_settings(JobSettings::default())
    }

    /// An environment with these settings.
    pub fn with_settings(settings: JobSettings) -> Self {
        Environment { graph: Rc::default(), settings: Rc::new(RefCell::new(settings)) }
    }

    /// Parallelism of operators that say nothing themselves. Of four levels the first that says something counts: the
    /// operator, the environment (this), what the process was started with (`TIDEMILL_PARALLELISM`), the number of cores.
    pub fn set_parallelism(&self, parallelism: usize) -> &Self {
        self.settings.borrow_mut().parallelism = Some(parallelism);
        self
    }

    /// The most subtasks an operator can have that says nothing itself (Flink's `pipeline.max-parallelism`): 1 to 32768, the
    /// default. A greater parallelism that somebody asks for is refused; a default, such as the number of cores or of free
    /// slots, is cut down to it. State does not depend on it, so it may change from one start to the next.
    pub fn set_max_parallelism(&self, max_parallelism: usize) -> &Self {
        self.settings.borrow_mut().max_parallelism = Some(max_parallelism);
        self
    }

    /// Checkpoints every `interval` into `folder`, and a restart goes on from the newest one there.
    pub fn enable_checkpointing(&self, interval: Duration, folder: impl Into<PathBuf>) -> &Self {
        let mut settings = self.settings.borrow_mut();
        settings.checkpoint_interval_ms = Some(interval.as_millis() as i64);
        settings.checkpoint_dir = Some(folder.into());
        drop(settings);
        self
    }

    /// At least `pause` between the end of a checkpoint and the beginning of the next, so that a job whose checkpoints take
    /// long still gets on; default none.
    pub fn set_min_pause_between_checkpoints(&self, pause: Duration) -> &Self {
        self.settings.borrow_mut().checkpoint_min_pause_ms = pause.as_millis() as i64;
        self
    }

    /// The job fails, and is restarted, when more than `failures` checkpoints in a row have failed. By default it goes on
    /// whatever becomes of them (Flink's default is 0).
    pub fn set_tolerable_failed_checkpoints(&self, failures: u32) -> &Self {
        self.settings.borrow_mut().tolerable_failed_checkpoints = Some(failures);
        self
    }

    /// Whether checkpoints stay when the job is cancelled. By default they do.
    pub fn set_checkpoint_retention(&self, retention: CheckpointRetention) -> &Self {
        self.settings.borrow_mut().checkpoint_retention = retention;
        self
    }

    /// The settings, to be changed.
    pub fn settings(&self) -> std::cell::RefMut<'_, JobSettings> {
        self.settings.borrow_mut()
    }

    /// A stream of the elements, which ends behind the last.
    pub fn from_collection<T: Data + Sync>(&self, elements: Vec<T>) -> DataStream<T> {
        self.from_source(CollectionSource::new(elements), WatermarkStrategy::none(), "Collection")
            .set_parallelism_max(1)
    }

    /// A stream of the numbers `first..=last`, divided over the subtasks.
    pub fn from_sequence(&self, first: i64, last: i64) -> DataStream<i64> {
        self.from_source(SequenceSource::new(first, last), WatermarkStrategy::none(), "Sequence")
    }

    /// A stream of a source's records.
    pub fn from_source<T: Data>(
        &self,
        source: impl Source<T>,
        strategy: WatermarkStrategy<T>,
        name: &str,
    ) -> DataStream<T> {
        let boundedness = Some(source.boundedness());
        let alignment = strategy.alignment().map(|alignment| alignment.group.clone());
        let parts = SourceParts::new(Arc::new(source) as Arc<dyn Source<T>>, strategy);
        let stream = self.source(name, source_logic(parts)).bounded(boundedness);
        if let Some(node) = self.graph.borrow_mut().nodes.last_mut() {
            node.alignment = alignment;
        }
        stream
    }

    /// A stream without inputs.
    pub(crate) fn source<T: Data>(&self, name: &str, logic: Logic) -> DataStream<T> {
        let node = self.add(Node::new(format!("Source: {name}"), Vec::new(), logic));
        DataStream::new(self.clone(), Origin::of(node, None))
    }

    /// What was built so far; the environment is empty then.
    pub(crate) fn take_graph(&self) -> Graph {
        let mut graph = self.graph.borrow_mut();
        let chaining_off = graph.chaining_off;
        graph.max_parallelism = self.settings.borrow().max_parallelism;
        std::mem::replace(&mut *graph, Graph { chaining_off, ..Graph::default() })
    }

    /// Makes every operator a task of its own.
    pub fn disable_operator_chaining(&self) -> &Self {
        self.graph.borrow_mut().chaining_off = true;
        self
    }

    /// Whether the job runs as a stream or as a batch; see [`RuntimeMode`]. It goes before what the process was started with.
    pub fn set_runtime_mode(&self, mode: RuntimeMode) -> &Self {
        self.settings.borrow_mut().runtime_mode = mode;
        self
    }

    /// Where keyed state stands while the job runs: in memory (the default), or on disk with a cache of
    /// [`JobSettings::state_memory_max_bytes`]. It goes before what the process was started with.
    pub fn set_state_backend(&self, backend: StateBackend) -> &Self {
        self.settings.borrow_mut().state_backend = backend;
        self
    }

    /// What would run now: tasks with their operators and parallelism, and the edges between them.
    pub fn execution_plan(&self) -> Result<ExecutionPlan> {
        self.graph.borrow_mut().max_parallelism = self.settings.borrow().max_parallelism;
        let parallelism = default_parallelism(&self.graph.borrow(), &self.settings.borrow())?;
        self.graph.borrow().check(parallelism)?;
        let plan = self.take_graph().plan(parallelism)?;
        let (vertices, edges) = (vertices(&plan), edges(&plan));
        self.graph.borrow_mut().nodes = plan.nodes;
        Ok(ExecutionPlan { vertices, edges })
    }

    /// Streams of another environment cannot be joined to ones of this: neither of the two jobs will run.
    pub(super) fn meets(&self, other: &Environment, what: &str) {
        if !Rc::ptr_eq(&self.graph, &other.graph) {
            let fault = Error::input(format!("{what} takes streams of one environment, but these are of two"))
                .hint("build all streams of a job on one `Environment`, or on clones of it");
            self.graph.borrow_mut().fault.get_or_insert(fault.clone());
            other.graph.borrow_mut().fault.get_or_insert(fault);
        }
    }

    pub(crate) fn add(&self, node: Node) -> usize {
        let mut graph = self.graph.borrow_mut();
        graph.nodes.push(node);
        graph.nodes.len() - 1
    }

    /// Runs what was built so far and waits for its end; the environment is empty then, as in Flink.
    ///
    /// Records do not wait for a buffer to fill: an operator sends what it has gathered whenever it has nothing more to do, and
    /// under load what is full or 5 ms old. So there is nothing to set where Flink has a buffer time-out (100 ms).
    pub fn execute(&self, name: &str) -> Result<JobResult> {
        self.execute_with(name, |_| {})
    }

    /// Like `execute`; `started` gets a handle on the running job.
    pub fn execute_with(&self, name: &str, started: impl FnOnce(JobHandle)) -> Result<JobResult> {
        let graph = self.take_graph();
        let settings = self.settings.borrow().clone();
        execute(graph, name, settings, |handle| started(JobHandle(handle)))
    }

    /// Runs what was built so far for the state it leaves, with which another job is to begin: functions are called with all
    /// records of the input, and no timer and no window fires, not even at its end, so that all of them are in the state. Watermark
    /// strategies only assign timestamps. (Flink's `OperatorTransformation.bootstrapWith`.)
    ///
    /// The state is left as a checkpoint in `folder`, from which the same call goes on if it is interrupted; [`SavepointWriter`]
    /// makes a savepoint of it. An error when a source does not end, and in a job of several processes.
    ///
    /// ```
    /// use tidemill_engine::checkpoint::SavepointWriter;
    /// use tidemill_engine::{Environment, JobSettings};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (scratch, place) = (folder.path().join("scratch"), folder.path().join("savepoint"));
    /// let env = Environment::new();
    /// let known = env.from_collection(vec![("ann".to_string(), 40u64), ("bob".to_string(), 2)]);
    /// let _nobody_reads = known.key_by(|pair| pair.0.clone()).sum(|pair| &mut pair.1).uid("totals");
    /// let state = env.bootstrap("totals so far", &scratch)?;
    /// let mut writer = SavepointWriter::create(&place)?;
    /// writer.copy(&state, "totals", "totals")?;
    /// writer.finish()?;
    ///
    /// // The job that begins with it.
    /// let env = Environment::with_settings(JobSettings { restore_from: Some(place), ..JobSettings::default() });
    /// let orders = env.from_collection(vec![("ann".to_string(), 2u64)]);
    /// let totals = orders.key_by(|pair| pair.0.clone()).sum(|pair| &mut pair.1).uid("totals").collect();
    /// env.execute("totals")?;
    /// assert_eq!(totals.take(), [("ann".to_string(), 42)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`SavepointWriter`]: crate::checkpoint::SavepointWriter
    pub fn bootstrap(&self, name: &str, folder: impl Into<PathBuf>) -> Result<SavepointReader> {
        let graph = Graph { bootstraps: true, ..self.take_graph() };
        let folder = location(&folder.into())?;
        let settings = JobSettings { checkpoint_dir: Some(folder.clone()), ..self.settings.borrow().clone() };
        if settings.cluster.as_ref().is_some_and(|cluster| cluster.addresses.len() > 1) {
            return Err(Error::input("state is bootstrapped by one process, and this job has several")
                .hint("start it without `processes`"));
        }
        let options = settings.storage_options.clone();
        let ended = execute(graph, name, settings, |_| {})?.end;
        if ended != JobEnd::Finished {
            return Err(Error::external(
                "the bootstrap was stopped before the end of its input, and its state is not whole",
            )
            .hint("start it again: it goes on from its last checkpoint"));
        }
        let checkpoints = CheckpointFolder::open_in(&Storages::new(options.clone()), &folder)?;
        let newest = checkpoints.complete()?.last().map(|epoch| checkpoints.path(*epoch));
        let newest = newest.ok_or_else(|| Error::bug("a job has ended without its last checkpoint"))?;
        SavepointReader::open_with(newest, options)
    }

    /// Runs what was built so far on a thread of its own. An error here is one of the job's beginning.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// let numbers = env.from_sequence(1, 100).collect();
    /// let job = env.execute_async("numbers")?;
    /// println!("{}", job.handle().report().state);
    /// job.wait()?;
    /// assert_eq!(numbers.len(), 100);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn execute_async(&self, name: &str) -> Result<JobClient> {
        self.start(name, |_| {})
    }

    /// Like `execute_async`; `ended` sees how the job has ended, on its thread.
    pub(crate) fn start(
        &self,
        name: &str,
        ended: impl FnOnce(&Result<JobResult>) + Send + 'static,
    ) -> Result<JobClient> {
        let (graph, settings) = (self.take_graph(), self.settings.borrow().clone());
        let (tell, told) = sync_channel(1);
        let job = name.to_string();
        let run = move || {
            let result = execute(graph, &job, settings, |handle| {
                // Whoever asked waits for it.
                let _ = tell.send(handle);
            });
            ended(&result);
            result
        };
        let thread = std::thread::Builder::new()
            .name("job".to_string())
            .spawn(run)
            .map_err(|e| Error::io("start the thread `job`", e))?;
        match told.recv() {
            Ok(handle) => Ok(JobClient { handle: JobHandle(handle), thread }),
            Err(_) => Err(joined(thread).err().unwrap_or_else(|| Error::bug("a job ended before it began"))),
        }
    }
}

fn joined(thread: JoinHandle<Result<JobResult>>) -> Result<JobResult> {
    thread.join().unwrap_or_else(|_| Err(Error::bug("the thread of a job panicked; see standard error")))
}

/// What a job consists of, before it runs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ExecutionPlan {
    /// Tasks: chains of operators. They have no subtasks yet.
    pub vertices: Vec<VertexReport>,
    /// How they are connected.
    pub edges: Vec<EdgeReport>,
}

/// A job that runs in the background. Dropping it leaves the job running.
pub struct JobClient {
    handle: JobHandle,
    thread: JoinHandle<Result<JobResult>>,
}

impl JobClient {
    /// What can be asked of the job.
    pub fn handle(&self) -> &JobHandle {
        &self.handle
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<JobResult> {
        joined(self.thread)
    }

    /// Ends it at once, without a savepoint; what no checkpoint covers is not published.
    pub fn cancel(self) -> Result<JobResult> {
        self.handle.cancel();
        self.wait()
    }
}

/// What can be asked of a running job from another thread.
#[derive(Clone)]
pub struct JobHandle(crate::runtime::ExecuteHandle);

impl JobHandle {
    /// The job's numbers now.
    pub fn report(&self) -> tidemill_core::report::Report {
        self.0.report()
    }

    /// Takes a checkpoint now and waits until it is complete; returns its folder.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        self.0.checkpoint()
    }

    /// Takes a savepoint; with `stop` the job ends with it, with `drain` its event time does too.
    pub fn savepoint(&self, folder: Option<PathBuf>, stop: bool, drain: bool) -> Result<PathBuf> {
        self.0.savepoint(folder, stop, drain)
    }

    /// Ends the job at once, without a savepoint.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Makes the job fail as a crash would: nothing more is flushed or committed.
    pub fn fail(&self, reason: &str) {
        self.0.fail(tidemill_core::Error::external(reason));
    }
}
