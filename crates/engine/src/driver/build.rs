//! Builds the tasks of a plan on one worker: for each task its chain from the last operator to the first, its output
//! ports, then its inputs. All workers run this on the same plan and so make the same channels in the same order.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use tidemill_core::source::ReaderContext;
use tidemill_core::{Data, DeadLetter, Error, Result, WATERMARK_MIN};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::SyncActivator;

use super::alignment::Aligner;
use super::codec::codec;
use super::flow::{Addressed, CreditReturn, Flow, connect};
use super::port::{
    AnyHead, AnyInput, AnyOutput, Head, Inlet, InputPort, Outlet, OutputPort, PortLink, Sender, TimelyOutlet,
};
use super::rows::{Channel, RowBytes, Rows};
use super::source::{Beginning, SourceHead, SourceParts, SourceTask, Stage, beginning, poll_output};
use super::task::{Task, TaskCore};
use super::timestamp::Ts;
use crate::checkpoint::restore::RestorePoint;
use crate::graph::{Logic, Plan};
use crate::operator::{FanOut, Link, Operator, OperatorLink, Out, Sides};
use crate::runtime::JobMode;
use crate::runtime::control::JobControl;
use crate::runtime::metrics::SubtaskMetrics;
use crate::runtime::user_metrics::UserMetrics;
use crate::state::{Restored, StateHome};
use crate::stream::partition::PartitionFactory;
use crate::stream::watermark::SplitWatermarks;

/// The side output every source has for records it could not read.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

/// What all workers of a process share while they build.
pub(crate) struct BuildShared {
    pub plan: Plan,
    pub restore: RestorePoint,
    pub control: Arc<JobControl>,
    /// By task, then subtask.
    pub metrics: Vec<Vec<Arc<SubtaskMetrics>>>,
    pub job_id: String,
    pub attempt: u64,
    pub checkpoint_interval_ms: Option<i64>,
    /// Workers of this process.
    pub workers: usize,
    /// Workers that have not built their tasks yet.
    pub building: AtomicUsize,
    /// What user functions count.
    pub user: Arc<UserMetrics>,
    /// What the job is to come to.
    pub mode: JobMode,
    /// Where keyed state stands.
    pub state: StateHome,
}

impl BuildShared {
    /// How many subtasks of a node run in the process of this worker.
    fn subtasks_beside(&self, worker: usize, node: usize) -> usize {
        self.plan.workers_of(node).iter().filter(|other| *other / self.workers == worker / self.workers).count()
    }
}

/// An edge that has its sender and waits for its receiver.
trait OpenEdge<'scope> {
    fn connect(
        self: Box<Self>,
        builder: &mut OperatorBuilder<'scope, Ts>,
        scope: Scope<'scope, Ts>,
        head: &dyn Any,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn AnyInput>>;
}

struct Edge<'scope, T: Data> {
    stream: Stream<'scope, Ts, Rows<T>>,
    flow: Flow,
    sender_address: Rc<[usize]>,
    /// The workers of the sending subtasks.
    senders: Vec<usize>,
}

impl<'scope, T: Data> OpenEdge<'scope> for Edge<'scope, T> {
    fn connect(
        self: Box<Self>,
        builder: &mut OperatorBuilder<'scope, Ts>,
        scope: Scope<'scope, Ts>,
        head: &dyn Any,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn AnyInput>> {
        let head: Head<T> = head
            .downcast_ref::<Head<T>>()
            .ok_or_else(|| Error::bug("an edge's type differs from its receiver's"))?
            .clone();
        let credit = connect(scope.worker(), self.sender_address, &self.flow, &self.senders);
        // No input time leads to an output time by itself: outputs follow the capabilities that the task holds.
        let handle = builder.new_input_connection(self.stream, Addressed, []);
        Ok(input_port(Box::new(handle), head, credit, self.senders.len(), metrics))
    }
}

/// The receiving end of an edge with so many senders.
pub(crate) fn input_port<T: Data>(
    inlet: Box<dyn Inlet<T>>,
    head: Head<T>,
    credit: CreditReturn,
    senders: usize,
    metrics: Arc<SubtaskMetrics>,
) -> Box<dyn AnyInput> {
    let sender = |_| Sender { watermark_ms: WATERMARK_MIN, decoder: codec::<T>().decoder() };
    let senders = (0..senders).map(sender).collect();
    Box::new(InputPort { inlet, head, credit, current: VecDeque::new(), later: VecDeque::new(), senders, metrics })
}

/// Edges that have their sender and wait for their receiver, by receiver and number of its input.
type OpenEdges<'scope> = HashMap<(usize, usize), Box<dyn OpenEdge<'scope> + 'scope>>;

/// The dataflow a task is built into.
pub(crate) struct Dataflow<'a, 'scope> {
    scope: Scope<'scope, Ts>,
    builder: OperatorBuilder<'scope, Ts>,
    open: &'a mut OpenEdges<'scope>,
}

/// What a task is built into.
pub(crate) enum Site<'a, 'scope> {
    /// Nothing: a chain that is stepped by hand has no exchanged edges.
    ByHand,
    Timely(Box<Dataflow<'a, 'scope>>),
    /// What stands in for a dataflow in the simulation.
    #[cfg(test)]
    Simulated(crate::runtime::tests::simulation::network::Place),
}

/// State to restore by hand, from no folder: for one operator, subtask and parallelism.
pub(crate) type RestoreByHand = dyn Fn(&str, usize, usize) -> Restored;

/// Builds one task on one worker, or one by hand (`crate::testing`), which has no dataflow and so no exchanged edges.
pub(crate) struct TaskBuilder<'a, 'scope> {
    pub shared: &'a BuildShared,
    site: Site<'a, 'scope>,
    outputs: Vec<Rc<dyn AnyOutput>>,
    by_hand: Option<&'a RestoreByHand>,
    task: usize,
    worker: usize,
    /// The task's subtask on this worker; `None` when it has none here.
    pub subtask: Option<usize>,
    metrics: Arc<SubtaskMetrics>,
    waker: Waker,
}

impl<'a> TaskBuilder<'a, 'static> {
    /// A builder of one subtask's chain without a dataflow.
    pub fn by_hand(shared: &'a BuildShared, subtask: usize, restore: &'a RestoreByHand, waker: Waker) -> Self {
        let builder = Self::new(shared, Site::ByHand, (0, subtask), waker);
        TaskBuilder { by_hand: Some(restore), subtask: Some(subtask), ..builder }
    }
}

impl<'a, 'scope> TaskBuilder<'a, 'scope> {
    /// A builder of one task on one worker.
    pub fn new(shared: &'a BuildShared, site: Site<'a, 'scope>, (task, worker): (usize, usize), waker: Waker) -> Self {
        let subtask = shared.plan.heads.get(task).and_then(|head| shared.plan.subtask_on(*head, worker));
        let metrics = subtask.and_then(|subtask| shared.metrics.get(task)?.get(subtask));
        TaskBuilder {
            shared,
            site,
            outputs: Vec::new(),
            by_hand: None,
            task,
            worker,
            subtask,
            metrics: metrics.cloned().unwrap_or_default(),
            waker,
        }
    }

    /// What an operator restores from.
    pub fn restored(&self, node: usize) -> Result<Restored> {
        let parallelism = self.shared.plan.parallelism[node];
        if let (Some(restore), Some(subtask)) = (self.by_hand, self.subtask) {
            return Ok(restore(&self.shared.plan.uids[node], subtask, parallelism));
        }
        match self.subtask {
            Some(subtask) => self.shared.restore.load(&self.shared.plan.uids[node], subtask, parallelism),
            None => Ok(Restored { uid: self.shared.plan.uids[node].clone(), parallelism, ..Restored::default() }),
        }
    }

    /// Wakes this task from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The link for an operator with everything below it.
    pub fn operator<I: Data, O: Data, P: Operator<I, O>>(
        &mut self,
        node: usize,
        mut operator: P,
    ) -> Result<Box<dyn Link<I>>> {
        let named = |e: Error| e.context(format!("operator `{}`", self.shared.plan.nodes[node].name));
        operator.restore(self.restored(node)?).map_err(named)?;
        let out = Out::new(self.downstream::<O>(node, None)?, self.sides(node)?);
        Ok(Box::new(OperatorLink {
            uid: self.shared.plan.uids[node].clone(),
            operator,
            out,
            mode: self.shared.mode,
            input: std::marker::PhantomData,
        }))
    }

    /// Everything that reads one output of a node.
    pub fn downstream<O: Data>(&mut self, node: usize, tag: Option<&'static str>) -> Result<Box<dyn Link<O>>> {
        let plan = &self.shared.plan;
        let mut links: Vec<Box<dyn Link<O>>> = Vec::new();
        for &(to, index) in &plan.outgoing[node] {
            let input = &plan.nodes[to].inputs[index];
            if input.tag != tag {
                continue;
            }
            if plan.task_of[to] == plan.task_of[node] {
                links.push(self.chained(to)?);
            } else {
                let factory = input
                    .partition
                    .downcast_ref::<Arc<dyn PartitionFactory<O>>>()
                    .ok_or_else(|| {
                        Error::input(format!(
                            "`{}` reads an output of `{}` with another type than it is written with",
                            plan.nodes[to].name, plan.nodes[node].name
                        ))
                    })?
                    .clone();
                links.push(self.port::<O>((to, index), factory.as_ref(), (node, to))?);
            }
        }
        match links.pop() {
            Some(only) if links.is_empty() => Ok(only),
            last => {
                links.extend(last);
                Ok(Box::new(FanOut(links)))
            }
        }
    }

    fn chained<O: Data>(&mut self, node: usize) -> Result<Box<dyn Link<O>>> {
        let plan = &self.shared.plan;
        let Logic::Operator(build) = &plan.nodes[node].logic else { return Err(Error::bug("a source has no input")) };
        let link = build(self, node)?;
        link.downcast::<Box<dyn Link<O>>>().map(|link| *link).map_err(|_| {
            Error::input(format!(
                "`{}` reads a side output with another type than it is written with",
                plan.nodes[node].name
            ))
        })
    }

    fn port<O: Data>(
        &mut self,
        edge: (usize, usize),
        factory: &dyn PartitionFactory<O>,
        (from, to): (usize, usize),
    ) -> Result<Box<dyn Link<O>>> {
        let (senders, receivers) = (self.shared.plan.workers_of(from), self.shared.plan.workers_of(to));
        let peers = match &self.site {
            Site::ByHand => return Err(Error::bug("an exchanged edge in a task built by hand")),
            Site::Timely(dataflow) => dataflow.scope.peers(),
            #[cfg(test)]
            Site::Simulated(place) => place.peers(),
        };
        // A worker without a subtask of the sender builds the port all the same and closes it at the start.
        let me = self.subtask.unwrap_or(0);
        let flow = Flow::new(peers);
        let outlet: Box<dyn Outlet<O>> = match &mut self.site {
            Site::ByHand => return Err(Error::bug("an exchanged edge in a task built by hand")),
            Site::Timely(dataflow) => {
                let (output, stream) = dataflow.builder.new_output_connection([]);
                let sender_address = dataflow.builder.operator_info().address;
                let open = Edge { stream, flow: flow.clone(), sender_address, senders: senders.to_vec() };
                dataflow.open.insert(edge, Box::new(open));
                Box::new(TimelyOutlet { output, capability: None })
            }
            #[cfg(test)]
            Site::Simulated(place) => place.outlet::<O>(edge, &flow, senders),
        };
        let port = Rc::new(RefCell::new(OutputPort {
            outlet,
            partition: factory.make(me, senders.len(), receivers.len()),
            buffers: receivers.iter().map(|_| Vec::new()).collect(),
            channels: receivers.iter().map(|_| Arc::new(Channel::new(codec::<O>().encoder()))).collect(),
            receivers: receivers.to_vec(),
            codec: codec::<O>(),
            row_bytes: RowBytes::default(),
            flow,
            me: me as u32,
            metrics: self.metrics.clone(),
        }));
        self.outputs.push(port.clone());
        Ok(Box::new(PortLink(port)))
    }

    /// The side outputs of a node that somebody reads. Their types are known to the readers' edges.
    fn sides(&mut self, node: usize) -> Result<Sides> {
        let plan = &self.shared.plan;
        let mut sides = Sides::default();
        let tags: BTreeSet<&'static str> =
            plan.outgoing[node].iter().filter_map(|&(to, index)| plan.nodes[to].inputs[index].tag).collect();
        for tag in tags {
            let Some(&(to, index)) =
                plan.outgoing[node].iter().find(|&&(to, index)| plan.nodes[to].inputs[index].tag == Some(tag))
            else {
                continue;
            };
            let input = &plan.nodes[to].inputs[index];
            (input.side)(self, node, tag, &mut sides)?;
        }
        Ok(sides)
    }

    fn core(&mut self, head: Rc<dyn AnyHead>) -> Result<TaskCore> {
        let (activator, from_elsewhere) = match &self.site {
            Site::ByHand => return Err(Error::bug("a task outside of any dataflow")),
            Site::Timely(dataflow) => {
                let (address, worker) = (dataflow.builder.operator_info().address, dataflow.scope.worker());
                (worker.activator_for(address.clone()), worker.sync_activator_for(address.to_vec()))
            }
            #[cfg(test)]
            Site::Simulated(place) => place.activators(),
        };
        self.shared.control.register(from_elsewhere);
        Ok(TaskCore {
            task: self.task,
            subtask: self.subtask.unwrap_or(0),
            worker: self.worker,
            epoch: self.shared.restore.epoch() + 1,
            head,
            outputs: std::mem::take(&mut self.outputs),
            control: self.shared.control.clone(),
            metrics: self.metrics.clone(),
            activator,
            waker: self.waker.clone(),
            wakes_at_ms: None,
            watermark_ms: WATERMARK_MIN,
            time_stands_still: self.shared.mode.time_stands_still(),
            closed: false,
            copying: false,
            copied_us: 0,
            flushed_ms: 0,
            save_afresh: Arc::default(),
            aligning_since_ms: None,
        })
    }
}

/// A built source task.
pub(crate) type SourceRun = Box<dyn SourceRunner>;

pub(crate) trait SourceRunner {
    fn run(&mut self) -> Result<()>;
    fn core(&mut self) -> &mut TaskCore;
}

impl<T: Data> SourceRunner for SourceTask<T> {
    fn run(&mut self) -> Result<()> {
        SourceTask::run(self)
    }

    fn core(&mut self) -> &mut TaskCore {
        &mut self.core
    }
}

/// Builds the source of a node with its chain.
pub(crate) fn source<T: Data>(
    builder: &mut TaskBuilder<'_, '_>,
    node: usize,
    parts: &SourceParts<T>,
) -> Result<SourceRun> {
    let link = builder.downstream::<T>(node, None)?;
    let head: Head<T> = Rc::new(RefCell::new(link));
    let plan = &builder.shared.plan;
    let reads_dead_letters =
        plan.outgoing[node].iter().any(|&(to, index)| plan.nodes[to].inputs[index].tag == Some(DEAD_LETTERS));
    let dead_letters: Option<Head<DeadLetter>> = match reads_dead_letters {
        true => Some(Rc::new(RefCell::new(builder.downstream(node, Some(DEAD_LETTERS))?))),
        false => None,
    };
    let parallelism = plan.parallelism[node];
    let core = builder.core(Rc::new(SourceHead { records: head.clone(), dead_letters: dead_letters.clone() }))?;
    let subtask = core.subtask;
    let clock = builder.shared.control.clock().clone();
    let restored = builder.restored(node)?;
    let mut context = ReaderContext::new(subtask, parallelism, builder.waker(), clock);
    context.restored = !restored.is_empty();
    context.metrics = builder.metrics_of(node);
    let reader = parts.source.reader(context).map_err(|e| e.context(parts.source.name()))?;
    let first_slot = plan.slots[&node];
    let subtasks = builder.shared.subtasks_beside(core.worker, node);
    let time_stands_still = builder.shared.mode.time_stands_still();
    let mut task = SourceTask {
        uid: plan.uids[node].clone(),
        source: parts.source.clone(),
        reader,
        output: poll_output(),
        row_bytes: RowBytes::default(),
        head,
        dead_letters,
        watermarks: SplitWatermarks::new(&parts.strategy, parallelism, time_stands_still),
        aligner: parts.strategy.alignment().filter(|_| !time_stands_still).map(Aligner::new),
        slot: first_slot + subtask,
        known: BTreeSet::new(),
        next_discovery_ms: None,
        finished: false,
        left_ms: None,
        committed: builder.shared.restore.epoch(),
        stage: Stage::default(),
        slots: first_slot..first_slot + parallelism,
        stage_over: false,
        pool: parts.pool.clone().map(|pool| (pool, subtasks)),
        core,
    };
    if builder.subtask.is_some() {
        task.core.metrics.source_begins(task.core.control.clock().as_ref());
        let Beginning { stage, splits } = beginning(parts.source.as_ref(), restored)?;
        task.stage = stage;
        task.begin(splits)?;
    }
    Ok(Box::new(task))
}

/// What a task does when it is scheduled.
enum Run {
    Source(SourceRun),
    Inputs(Box<Task>),
}

impl Run {
    fn core(&mut self) -> &mut TaskCore {
        match self {
            Run::Source(source) => source.core(),
            Run::Inputs(task) => &mut task.core,
        }
    }

    fn run(&mut self, frontiers: &[MutableAntichain<Ts>]) -> Result<()> {
        match self {
            Run::Source(source) => source.run(),
            Run::Inputs(task) => task.run(frontiers),
        }
    }
}

/// Wakes the task that is activated so, from any thread.
pub(crate) fn task_waker(task: SyncActivator) -> Waker {
    struct WakeTask(std::sync::Mutex<SyncActivator>);
    impl Wake for WakeTask {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            // An error means that the worker is gone already.
            let _ = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).activate();
        }
    }
    Waker::from(Arc::new(WakeTask(std::sync::Mutex::new(task))))
}

/// Builds all tasks on this worker.
pub(crate) fn build<'scope>(scope: Scope<'scope, Ts>, shared: &BuildShared) -> Result<()> {
    let mut open: OpenEdges<'scope> = HashMap::new();
    for (task, &head) in shared.plan.heads.iter().enumerate() {
        let operator = OperatorBuilder::new(shared.plan.task_name(task), scope);
        let waker = task_waker(scope.worker().sync_activator_for(operator.operator_info().address.to_vec()));
        let dataflow = Box::new(Dataflow { scope, builder: operator, open: &mut open });
        let mut builder = TaskBuilder::new(shared, Site::Timely(dataflow), (task, scope.index()), waker);
        let built = BuiltTask::build(&mut builder, head);
        let Site::Timely(dataflow) = builder.site else {
            return Err(Error::bug("a task lost its dataflow while it was built"));
        };
        let operator = dataflow.builder;
        match built {
            Ok(task) => install(operator, task),
            Err(error) => {
                // timely wants every operator it has begun; this one does nothing, and the job fails.
                operator.build(|_capabilities| |_frontiers| {});
                return Err(error);
            }
        }
    }
    if shared.building.fetch_sub(1, Ordering::AcqRel) == 1 {
        shared.restore.built();
    }
    Ok(())
}

fn run(builder: &mut TaskBuilder<'_, '_>, head: usize) -> Result<Run> {
    let shared = builder.shared;
    match &shared.plan.nodes[head].logic {
        Logic::Source(build) => Ok(Run::Source(build(builder, head)?)),
        Logic::Operator(build) => {
            let link = build(builder, head)?;
            Ok(Run::Inputs(Box::new(inputs(builder, head, link)?)))
        }
    }
}

fn inputs(builder: &mut TaskBuilder<'_, '_>, node: usize, link: Box<dyn Any>) -> Result<Task> {
    let make_head = builder.shared.plan.nodes[node].inputs[0].head;
    let (any_head, head) = make_head(link)?;
    let core = builder.core(any_head)?;
    let mut inputs = Vec::new();
    for index in 0..builder.shared.plan.nodes[node].inputs.len() {
        let metrics = builder.metrics.clone();
        inputs.push(match &mut builder.site {
            Site::ByHand => return Err(Error::bug("a task outside of any dataflow")),
            Site::Timely(dataflow) => {
                let edge = dataflow.open.remove(&(node, index)).ok_or_else(|| Error::bug("an edge has no sender"))?;
                edge.connect(&mut dataflow.builder, dataflow.scope, head.as_ref(), metrics)?
            }
            #[cfg(test)]
            Site::Simulated(place) => place.inlet((node, index), head.as_ref(), metrics)?,
        });
    }
    Ok(Task { core, inputs })
}

/// A task as it is scheduled. A failure or a panic in it fails the job, here and on all other workers.
pub(crate) struct BuiltTask {
    run: Run,
    name: String,
    control: Arc<JobControl>,
    metrics: Arc<SubtaskMetrics>,
    takes_part: bool,
}

impl BuiltTask {
    /// Builds the task that begins with node `head`.
    pub fn build(builder: &mut TaskBuilder<'_, '_>, head: usize) -> Result<Self> {
        Ok(BuiltTask {
            run: run(builder, head)?,
            name: builder.shared.plan.task_name(builder.task),
            control: builder.shared.control.clone(),
            metrics: builder.metrics.clone(),
            takes_part: builder.subtask.is_some(),
        })
    }

    /// Begins, with timely's capability for each output.
    pub fn start(&mut self, capabilities: impl Iterator<Item = Option<Capability<Ts>>>) {
        let core = self.run.core();
        for (output, capability) in core.outputs.iter().zip(capabilities) {
            output.start(capability, core.epoch);
        }
        core.activator.activate();
        if !self.takes_part {
            core.abandon();
        }
    }

    /// Does what can be done now; whether there will be more.
    pub fn schedule(&mut self, frontiers: &[MutableAntichain<Ts>]) -> bool {
        if self.run.core().closed {
            return false;
        }
        if self.control.failed() {
            self.run.core().abandon();
            return false;
        }
        let run = &mut self.run;
        let outcome = self.metrics.busy(|| catch_unwind(AssertUnwindSafe(|| run.run(frontiers))));
        let name = &self.name;
        let error = match outcome {
            Ok(Ok(())) => return !run.core().closed,
            Ok(Err(error)) => error.context(format!("task `{name}`")),
            Err(panic) => Error::input(format!("task `{name}` panicked: {}", panic_message(panic.as_ref()))),
        };
        run.core().abandon();
        self.control.fail(error);
        false
    }
}

/// Hands the task to timely.
fn install(operator: OperatorBuilder<'_, Ts>, mut task: BuiltTask) {
    operator.build_reschedule(move |capabilities: Vec<Capability<Ts>>| {
        task.start(capabilities.into_iter().map(Some));
        move |frontiers| task.schedule(frontiers)
    });
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
