//! What stands in for timely in the simulation: channels and frontiers of all workers of all processes in one thread.
//!
//! timely cannot be stepped so: its allocators of several workers wait for each other when they are built, each on a
//! thread of its own. The ports of a task are the real ones; behind them stand here
//! * for each edge and pair of workers a queue of batches under way, which are *delivered* one by one;
//! * for each edge one log of what changes its frontier, in which each receiving worker has read up to some place of its
//!   own: what it knows may be old, but it is what once was true everywhere, as with timely;
//! * for each worker timely's own list of activations.
//!
//! As with timely a frontier counts the batches under way to all workers, and what a process does after it has failed is
//! not seen by the others. Between processes batches travel as bytes.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use tidemill_core::{Data, Error, Result};
use timely::bytes::arc::BytesMut;
use timely::communication::{Pull, Push};
use timely::dataflow::channels::ContainerBytes;
use timely::dataflow::operators::Capability;
use timely::progress::Timestamp;
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::{Activations, Activator, SyncActivator};

use crate::driver::build::{BuildShared, BuiltTask, Site, TaskBuilder, input_port, task_waker};
use crate::driver::flow::{Credit, CreditReturn, Flow};
use crate::driver::port::{AnyInput, Head, Inlet, Outlet};
use crate::driver::rows::Rows;
use crate::driver::timestamp::Ts;
use crate::runtime::metrics::SubtaskMetrics;

/// A receiver and the number of its input.
pub type EdgeId = (usize, usize);

/// All workers and the edges between them.
pub struct Network {
    /// Workers of each process.
    per_process: usize,
    activations: Vec<Rc<RefCell<Activations>>>,
    /// Tasks that were woken and have not run, by worker.
    active: RefCell<BTreeSet<(usize, usize)>>,
    edges: RefCell<BTreeMap<EdgeId, Rc<dyn AnyEdge>>>,
    /// Of each process, whether it has failed: the others see nothing more of what it does.
    cut: RefCell<Vec<bool>>,
}

/// Where a task is built: a worker of the network.
pub struct Place {
    network: Rc<Network>,
    /// The worker, counted over all processes.
    pub worker: usize,
    task: usize,
}

/// What can happen between workers.
#[derive(Debug, Clone, Copy)]
pub enum Transfer {
    /// The first batch under way from one worker to another arrives.
    Deliver(EdgeId, usize, usize),
    /// A worker hears of changes of an edge's frontier.
    Progress(EdgeId, usize),
}

impl Network {
    /// So many workers in each of so many processes.
    pub fn new(processes: usize, per_process: usize) -> Rc<Self> {
        let workers = processes * per_process;
        Rc::new(Network {
            per_process,
            activations: (0..workers).map(|_| Rc::new(RefCell::new(Activations::new(None)))).collect(),
            active: RefCell::default(),
            edges: RefCell::default(),
            cut: RefCell::new(vec![false; processes]),
        })
    }

    fn workers(&self) -> usize {
        self.activations.len()
    }

    /// Builds all tasks of one worker, as `driver::build::build` does for timely.
    pub fn build(self: &Rc<Self>, worker: usize, shared: &BuildShared) -> Result<Vec<BuiltTask>> {
        let mut tasks = Vec::new();
        for (task, &head) in shared.plan.heads.iter().enumerate() {
            let place = Place { network: self.clone(), worker, task };
            let waker = task_waker(place.activators().1);
            let mut builder = TaskBuilder::new(shared, Site::Simulated(place), (task, worker), waker);
            let mut task = BuiltTask::build(&mut builder, head)?;
            task.start(std::iter::repeat_with(|| None));
            tasks.push(task);
        }
        Ok(tasks)
    }

    /// The tasks that are to run, by worker.
    pub fn active(&self) -> Vec<(usize, usize)> {
        let mut active = self.active.borrow_mut();
        for (worker, activations) in self.activations.iter().enumerate() {
            activations.borrow_mut().advance();
            let found = RefCell::new(Vec::new());
            activations.borrow().map_active(|path| found.borrow_mut().extend(path.first().copied()));
            active.extend(found.into_inner().into_iter().map(|task| (worker, task)));
        }
        active.iter().copied().collect()
    }

    /// Runs one task with what its worker knows of the frontiers.
    pub fn run(&self, (worker, task): (usize, usize), inputs: &[EdgeId], built: &mut BuiltTask) -> bool {
        self.active.borrow_mut().remove(&(worker, task));
        let edges = self.edges.borrow();
        let frontiers: Vec<_> = inputs.iter().map(|edge| edges[edge].frontier(worker)).collect();
        drop(edges);
        built.schedule(&frontiers)
    }

    /// Nothing that the process does from now on is seen by the others.
    pub fn cut(&self, process: usize) {
        self.cut.borrow_mut()[process] = true;
    }

    /// Makes what tasks have told about their times since the last call part of the logs.
    pub fn publish(&self) {
        let cut = self.cut.borrow();
        self.edges.borrow().values().for_each(|edge| edge.publish(&cut));
    }

    /// What can happen now.
    pub fn transfers(&self) -> Vec<Transfer> {
        let mut all = Vec::new();
        for (id, edge) in self.edges.borrow().iter() {
            let pairs = (0..self.workers()).flat_map(|from| (0..self.workers()).map(move |to| (from, to)));
            let under_way = pairs.filter(|(from, to)| edge.under_way(*from, *to));
            all.extend(under_way.map(|(from, to)| Transfer::Deliver(*id, from, to)));
            let behind = (0..self.workers()).filter(|to| edge.behind(*to));
            all.extend(behind.map(|to| Transfer::Progress(*id, to)));
        }
        all
    }

    /// Lets it happen; of changes of a frontier at most so many.
    pub fn transfer(&self, transfer: Transfer, most: usize) {
        let edges = self.edges.borrow();
        let woken = match transfer {
            Transfer::Deliver(id, from, to) => {
                edges[&id].deliver(from, to);
                Some((to, id))
            }
            Transfer::Progress(id, to) => edges[&id].hear(to, most).then_some((to, id)),
        };
        if let Some((worker, id)) = woken {
            let task = edges[&id].receiver();
            self.active.borrow_mut().insert((worker, task));
        }
    }
}

impl Place {
    /// All workers.
    pub fn peers(&self) -> usize {
        self.network.workers()
    }

    /// What wakes the task from its own thread and from others.
    pub fn activators(&self) -> (Activator, SyncActivator) {
        let activations = &self.network.activations[self.worker];
        let own = Activator::new(Rc::from([self.task].as_slice()), activations.clone());
        (own, SyncActivator::new(vec![self.task], activations.borrow().sync()))
    }

    /// The sending end of an edge.
    pub fn outlet<T: Data>(&mut self, id: EdgeId, flow: &Flow, senders: &[usize]) -> Box<dyn Outlet<T>> {
        let mut edges = self.network.edges.borrow_mut();
        let new = || Rc::new(Edge::<T>::new(&self.network, senders)) as Rc<dyn AnyEdge>;
        let edge = edges.entry(id).or_insert_with(new).clone().as_any();
        let edge = edge.downcast::<Edge<T>>().expect("an edge has one type");
        let (queue, waker) = (edge.credits[self.worker].clone(), self.activators().0);
        flow.returns_by(Box::new(Returned { queue, next: None }));
        edge.senders_wake.borrow_mut().insert(self.worker, waker);
        Box::new(Sending { edge, worker: self.worker, time: None })
    }

    /// The receiving end of an edge.
    pub fn inlet(&mut self, id: EdgeId, head: &dyn Any, metrics: Arc<SubtaskMetrics>) -> Result<Box<dyn AnyInput>> {
        let edge = self.network.edges.borrow().get(&id).cloned().ok_or_else(|| Error::bug("an edge has no sender"))?;
        edge.connect(self.worker, self.task, head, metrics)
    }
}

/// An edge whose type is known to its ends.
trait AnyEdge {
    fn as_any(self: Rc<Self>) -> Rc<dyn Any>;
    fn connect(
        self: Rc<Self>,
        worker: usize,
        task: usize,
        head: &dyn Any,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn AnyInput>>;
    fn receiver(&self) -> usize;
    fn frontier(&self, worker: usize) -> MutableAntichain<Ts>;
    fn under_way(&self, from: usize, to: usize) -> bool;
    fn deliver(&self, from: usize, to: usize);
    fn behind(&self, worker: usize) -> bool;
    fn hear(&self, worker: usize, most: usize) -> bool;
    fn publish(&self, cut: &[bool]);
}

/// Changes of a frontier that belong together.
type Change = Vec<(Ts, i64)>;

/// A change in the log, and the process that alone sees it, if it is not for all.
type Logged = (Change, Option<usize>);

type Queue<T> = RefCell<VecDeque<(Ts, Rows<T>)>>;

struct Edge<T> {
    per_process: usize,
    /// The workers of the sending subtasks.
    senders: Vec<usize>,
    receiver: Cell<usize>,
    /// By sender and receiver.
    under_way: Vec<Vec<Queue<T>>>,
    /// By receiver.
    arrived: Vec<Queue<T>>,
    /// With who has made it: not yet in the log.
    said: RefCell<Vec<(usize, Change)>>,
    log: RefCell<Vec<Logged>>,
    /// By receiver: how far in the log it is, and what it makes of it.
    known: RefCell<Vec<(usize, MutableAntichain<Ts>)>>,
    /// By sender: credit that has come back.
    credits: Vec<Rc<RefCell<VecDeque<Credit>>>>,
    senders_wake: Rc<RefCell<BTreeMap<usize, Activator>>>,
}

impl<T: Data> Edge<T> {
    fn new(network: &Network, senders: &[usize]) -> Self {
        let workers = network.workers();
        // Each worker begins with a capability for the output, whether or not a subtask of the sender is there.
        let beginning = || {
            let mut frontier = MutableAntichain::new();
            frontier.update_iter([(Ts::minimum(), workers as i64)]);
            (0, frontier)
        };
        Edge {
            per_process: network.per_process,
            senders: senders.to_vec(),
            receiver: Cell::new(usize::MAX),
            under_way: (0..workers).map(|_| (0..workers).map(|_| Queue::default()).collect()).collect(),
            arrived: (0..workers).map(|_| Queue::default()).collect(),
            said: RefCell::default(),
            log: RefCell::default(),
            known: RefCell::new((0..workers).map(|_| beginning()).collect()),
            credits: (0..workers).map(|_| Rc::default()).collect(),
            senders_wake: Rc::default(),
        }
    }

    fn say(&self, worker: usize, change: Change) {
        self.said.borrow_mut().push((worker, change));
    }
}

impl<T: Data> AnyEdge for Edge<T> {
    fn as_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn connect(
        self: Rc<Self>,
        worker: usize,
        task: usize,
        head: &dyn Any,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn AnyInput>> {
        let head = head.downcast_ref::<Head<T>>().ok_or_else(|| Error::bug("an edge's type differs"))?.clone();
        self.receiver.set(task);
        let way = |(sender, queue): (usize, &Rc<RefCell<VecDeque<Credit>>>)| {
            let wake = self.senders_wake.clone();
            Box::new(Returning { queue: queue.clone(), sender, wake }) as Box<dyn Push<Credit>>
        };
        let credit = CreditReturn::new(self.credits.iter().enumerate().map(way).collect(), &self.senders, worker);
        let senders = self.senders.len();
        Ok(input_port(Box::new(Receiving { edge: self, worker }), head, credit, senders, metrics))
    }

    fn receiver(&self) -> usize {
        self.receiver.get()
    }

    fn frontier(&self, worker: usize) -> MutableAntichain<Ts> {
        self.known.borrow()[worker].1.clone()
    }

    fn under_way(&self, from: usize, to: usize) -> bool {
        !self.under_way[from][to].borrow().is_empty()
    }

    fn deliver(&self, from: usize, to: usize) {
        let Some((time, mut rows)) = self.under_way[from][to].borrow_mut().pop_front() else { return };
        if from / self.per_process != to / self.per_process {
            let mut bytes = Vec::with_capacity(rows.length_in_bytes());
            rows.into_bytes(&mut bytes);
            rows = Rows::from_bytes(BytesMut::from(bytes).freeze());
        }
        self.arrived[to].borrow_mut().push_back((time, rows));
    }

    fn behind(&self, worker: usize) -> bool {
        self.known.borrow()[worker].0 < self.log.borrow().len()
    }

    /// Reads on in the log; whether the frontier has moved.
    fn hear(&self, worker: usize, most: usize) -> bool {
        let log = self.log.borrow();
        let (at, frontier) = &mut self.known.borrow_mut()[worker];
        let news = &log[*at..log.len().min(*at + most)];
        *at += news.len();
        let process = worker / self.per_process;
        let seen = news.iter().filter(|(_, only)| only.is_none_or(|only| only == process));
        frontier.update_iter(seen.flat_map(|(change, _)| change.iter().copied())).count() > 0
    }

    fn publish(&self, cut: &[bool]) {
        let said = self.said.borrow_mut().drain(..).collect::<Vec<_>>();
        self.log.borrow_mut().extend(said.into_iter().map(|(worker, change)| {
            let process = worker / self.per_process;
            (change, cut[process].then_some(process))
        }));
    }
}

struct Sending<T> {
    edge: Rc<Edge<T>>,
    worker: usize,
    time: Option<Ts>,
}

impl<T: Data> Outlet<T> for Sending<T> {
    fn start(&mut self, _: Option<Capability<Ts>>, time: Ts) {
        self.time = Some(Ts::minimum());
        self.downgrade(time);
    }

    fn time(&self) -> Option<Ts> {
        self.time
    }

    fn send(&mut self, batches: &mut dyn Iterator<Item = Rows<T>>) {
        let Some(time) = self.time else { return };
        for rows in batches {
            self.edge.say(self.worker, vec![(time, rows.count() as i64)]);
            self.edge.under_way[self.worker][rows.to as usize].borrow_mut().push_back((time, rows));
        }
    }

    fn downgrade(&mut self, time: Ts) {
        if let Some(held) = self.time.replace(time) {
            self.edge.say(self.worker, vec![(held, -1), (time, 1)]);
        }
    }

    fn close(&mut self) {
        if let Some(held) = self.time.take() {
            self.edge.say(self.worker, vec![(held, -1)]);
        }
    }
}

struct Receiving<T> {
    edge: Rc<Edge<T>>,
    worker: usize,
}

impl<T: Data> Inlet<T> for Receiving<T> {
    fn take(&mut self, each: &mut dyn FnMut(Ts, Rows<T>)) {
        let arrived = std::mem::take(&mut *self.edge.arrived[self.worker].borrow_mut());
        for (time, rows) in arrived {
            self.edge.say(self.worker, vec![(time, -(rows.count() as i64))]);
            each(time, rows);
        }
    }
}

/// Credit on its way to a sender, which it wakes.
struct Returning {
    queue: Rc<RefCell<VecDeque<Credit>>>,
    sender: usize,
    wake: Rc<RefCell<BTreeMap<usize, Activator>>>,
}

impl Push<Credit> for Returning {
    fn push(&mut self, credit: &mut Option<Credit>) {
        if let Some(credit) = credit.take() {
            self.queue.borrow_mut().push_back(credit);
            if let Some(sender) = self.wake.borrow().get(&self.sender) {
                sender.activate();
            }
        }
    }
}

struct Returned {
    queue: Rc<RefCell<VecDeque<Credit>>>,
    next: Option<Credit>,
}

impl Pull<Credit> for Returned {
    fn pull(&mut self) -> &mut Option<Credit> {
        self.next = self.queue.borrow_mut().pop_front();
        &mut self.next
    }
}
