//! Where a job is built: sources, settings, and `execute`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::source::Source;
use tidemill_core::{Data, Result};

use super::collection::{CollectionSource, SequenceSource};
use super::data_stream::{DataStream, Origin};
use super::watermark::WatermarkStrategy;
use crate::driver::source::SourceParts;
use crate::graph::{Graph, Logic, Node, source_logic};
use crate::runtime::{JobResult, JobSettings, execute};

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

    /// Parallelism of operators that say nothing themselves. It goes before what the process was started with.
    pub fn set_parallelism(&self, parallelism: usize) -> &Self {
        self.settings.borrow_mut().parallelism = Some(parallelism);
        self
    }

    /// Checkpoints every `interval` into `folder`, and a restart goes on from the newest one there.
    pub fn enable_checkpointing(&self, interval: Duration, folder: impl Into<std::path::PathBuf>) -> &Self {
        let mut settings = self.settings.borrow_mut();
        settings.checkpoint_interval_ms = Some(interval.as_millis() as i64);
        settings.checkpoint_dir = Some(folder.into());
        drop(settings);
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
        let parts = SourceParts { source: Arc::new(source) as Arc<dyn Source<T>>, strategy };
        self.source(name, source_logic(parts))
    }

    /// A stream without inputs.
    pub(crate) fn source<T: Data>(&self, name: &str, logic: Logic) -> DataStream<T> {
        let node = self.add(Node {
            name: format!("Source: {name}"),
            uid: None,
            parallelism: None,
            parallelism_max: usize::MAX,
            inputs: Vec::new(),
            chain: true,
            logic,
            sink: None,
        });
        DataStream::new(self.clone(), Origin::of(node, None))
    }

    /// What was built so far; the environment is empty then.
    pub(crate) fn take_graph(&self) -> Graph {
        std::mem::take(&mut *self.graph.borrow_mut())
    }

    pub(crate) fn add(&self, node: Node) -> usize {
        let mut graph = self.graph.borrow_mut();
        graph.nodes.push(node);
        graph.nodes.len() - 1
    }

    /// Runs what was built so far and waits for its end; the environment is empty then, as in Flink.
    pub fn execute(&self, name: &str) -> Result<JobResult> {
        self.execute_with(name, |_| {})
    }

    /// Like `execute`; `started` gets a handle on the running job.
    pub fn execute_with(&self, name: &str, started: impl FnOnce(JobHandle)) -> Result<JobResult> {
        let graph = self.take_graph();
        let settings = self.settings.borrow().clone();
        execute(graph, name, settings, |handle| started(JobHandle(handle)))
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
    pub fn checkpoint(&self) -> Result<std::path::PathBuf> {
        self.0.checkpoint()
    }

    /// Takes a savepoint; with `stop` the job ends with it, with `drain` its event time does too.
    pub fn savepoint(&self, folder: Option<std::path::PathBuf>, stop: bool, drain: bool) -> Result<std::path::PathBuf> {
        self.0.savepoint(folder, stop, drain)
    }

    /// Makes the job fail as a crash would: nothing more is flushed or committed.
    pub fn fail(&self, reason: &str) {
        self.0.fail(tidemill_core::Error::external(reason));
    }
}
