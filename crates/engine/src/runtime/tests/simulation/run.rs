//! One run of a seed: the job is started, its actors make steps in an order chosen by the seed, the machine is lost where it
//! is told, and it is started again until it has come to its end. Coordinator, tasks, checkpoint writers, folder, restore
//! and both ends of the control links are those that run in a job; the threads around them alone are left out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use tidemill_core::{Clock, Error, ManualClock, Result};

use super::chance::Chance;
use super::job::Shape;
use super::network::{EdgeId, Network, Transfer};
use super::world::{Loss, World};
use crate::checkpoint::coordinator::{Coordinator, CoordinatorConfig, Event, SavepointRequest};
use crate::checkpoint::restore::RestorePoint;
use crate::checkpoint::storage::Storages;
use crate::checkpoint::writer::{CheckpointWriter, Target};
use crate::checkpoint::{self, CheckpointFolder};
use crate::driver::build::{BuildShared, BuiltTask};
use crate::graph::Plan;
use crate::runtime::cluster::leader::{self, Members, Told};
use crate::runtime::cluster::member;
use crate::runtime::cluster::message::{Place, Start, ToLeader, ToMember};
use crate::runtime::cluster::{Cluster, Secret};
use crate::runtime::control::{HandIn, JobControl, WriterLink};
use crate::runtime::execute::{recover_sinks, restore_point};
use crate::runtime::metrics::SubtaskMetrics;
use crate::runtime::{ClaimMode, JobMode, JobSettings};
use crate::slot_sharing::Homes;
use crate::state::{Buffers, StateHome};

/// A start that has not ended after so many steps never will.
const STEPS_MAX: usize = 60_000;

/// After so many starts nothing fails any more.
const STARTS_WITH_FAULTS: usize = 6;

/// After so many starts something is wrong.
const STARTS_MAX: usize = 40;

/// What every error says that is a mistake of ours, also when it comes from another process.
const BUG: &str = "a bug of Tidemill";

/// The machine is lost at this effect, counted from the loss before.
pub type Moment = (usize, Loss);

/// What a run has come to.
pub struct Outcome {
    /// Effects until the first loss, or until the end.
    pub effects: usize,
    /// Starts of the job.
    pub starts: usize,
    /// What was wrong.
    pub wrong: Option<String>,
    /// What happened, if it was to be told.
    pub story: String,
}

/// Runs the job of a seed to its end; the machine is lost at these moments.
pub fn run(seed: u64, losses: &[Moment], tell: bool) -> Outcome {
    let mut chance = Chance::new(seed);
    let faults = [0, 0, 60, 12][chance.below(4)];
    let shape = Shape::of(seed);
    let mut losses = losses.iter().copied();
    let mut loss = losses.next();
    let at = |loss: Option<Moment>, now: usize| loss.map(|(at, _)| now + at);
    let world = World::new(seed, faults, at(loss, 0));
    if tell {
        world.remember();
        world.trace(|| format!("{shape:?}, one effect in {faults} fails"));
    }
    let clock = Arc::new(ManualClock::new(1_000));
    let mut outcome = Outcome { effects: 0, starts: 0, wrong: None, story: String::new() };
    let mut home = Home::default();
    loop {
        outcome.starts += 1;
        if outcome.starts > STARTS_WITH_FAULTS && loss.is_none() {
            world.calm();
        }
        let (processes, per_process) = (1 + chance.below(3) / 2, 1 + chance.below(3));
        world.trace(|| format!("START {}: {processes} processes of {per_process} workers", outcome.starts));
        let ended = Simulation::begin(&world, &clock, &shape, &home, (processes, per_process), &mut chance)
            .and_then(|simulation| simulation.run(&mut chance));
        world.trace(|| format!("START {} ended: {ended:?}", outcome.starts));
        if outcome.effects == 0 || loss.is_none() && losses.len() == 0 && outcome.starts == 1 {
            outcome.effects = world.effects();
        }
        if let Some(broken) = world.broken() {
            outcome.wrong = Some(broken);
        } else if let Some(bug) = ended.as_ref().err().map(Error::to_string).filter(|text| text.contains(BUG)) {
            outcome.wrong = Some(bug);
        } else if let Some((_, how)) = loss.filter(|_| world.lost()) {
            loss = losses.next();
            world.come_back(how, at(loss, world.effects()));
            continue;
        } else if matches!(ended, Ok(End::Finished)) {
            let (published, expected) = (world.published(), shape.expected());
            if published != expected {
                outcome.wrong = Some(format!("published {published:?}\ninstead of {expected:?}"));
            } else if world.waiting() > 0 {
                outcome.wrong = Some("something that was prepared is left behind".into());
            }
        } else if matches!(ended, Ok(End::Stuck)) {
            outcome.wrong = Some("it is stuck".into());
        } else if outcome.starts >= STARTS_MAX {
            outcome.wrong = Some(format!("it does not get to its end: {ended:?}"));
        } else {
            if matches!(ended, Ok(End::Suspended)) && chance.once_in(2) {
                home = home.next(&world, &mut chance);
            }
            continue;
        }
        outcome.story = world.story();
        return outcome;
    }
}

/// How a start has ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Finished,
    /// Stopped with a savepoint.
    Suspended,
    Stuck,
    /// The machine is lost, or the first process killed.
    Lost,
}

/// What an actor may do next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Task(usize, usize),
    Network(Transfer),
    Writer(usize, usize),
    Coordinator,
    /// A message to or from another process arrives, or is made of what it has to say.
    ToMember(usize),
    MemberSays(usize),
    ToLeader(usize),
    LeaderMarks(usize),
    /// A process drops its tasks because the job has failed.
    GiveUp(usize),
    /// A process notices that another is gone.
    Notice(usize),
    Clock,
}

impl Step {
    fn kind(&self) -> usize {
        match self {
            Step::Task(..) => 0,
            Step::Network(Transfer::Deliver(..)) => 1,
            Step::Network(Transfer::Progress(..)) => 2,
            Step::Writer(..) => 3,
            Step::Coordinator => 4,
            Step::ToMember(_) | Step::LeaderMarks(_) => 5,
            Step::ToLeader(_) | Step::MemberSays(_) => 6,
            Step::GiveUp(_) | Step::Notice(_) => 7,
            Step::Clock => 8,
        }
    }
}

const KINDS: usize = 9;

/// One process.
struct Process {
    control: Arc<JobControl>,
    /// By worker of this process.
    tasks: Vec<Vec<Option<BuiltTask>>>,
    writers: Vec<(Receiver<HandIn>, VecDeque<HandIn>, CheckpointWriter)>,
    /// What is told here: to the coordinator in the first process, to the link in others.
    events: Sender<Event>,
    inbox: Receiver<Event>,
    heard: VecDeque<Event>,
    /// Its workers have ended, and it has said so.
    over: bool,
    /// It was killed.
    dead: bool,
}

/// The control link of a process but the first.
struct Link {
    member: member::Shared,
    to_member: Receiver<ToMember>,
    waiting: VecDeque<ToMember>,
    to_leader: VecDeque<ToLeader>,
    member_told: Told,
    leader_told: Told,
    /// It has said its last word, and has heard it.
    ended: bool,
    done: bool,
}

struct Simulation {
    world: World,
    clock: Arc<ManualClock>,
    network: Rc<Network>,
    per_process: usize,
    processes: Vec<Process>,
    links: Vec<Link>,
    leader: leader::Shared,
    /// The edges into each task, in order of its inputs.
    inputs: Vec<Vec<EdgeId>>,
    coordinator: Option<Coordinator>,
    /// How likely each kind of step is.
    weights: [usize; KINDS],
    committed: u64,
    /// What people ask of the job: at which step.
    requests: VecDeque<(usize, Request)>,
    /// At which step a process is killed.
    killed_at: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Checkpoint,
    Savepoint { stop: bool, drain: bool },
}

/// Which job it is that starts, and where it keeps its checkpoints: the first, or one that goes on from the savepoint that has
/// stopped the one before.
#[derive(Default)]
struct Home {
    number: usize,
    restore_from: Option<PathBuf>,
    claim_mode: ClaimMode,
}

impl Home {
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/job-{}/checkpoints", self.number))
    }

    fn next(self, world: &World, chance: &mut Chance) -> Home {
        let claim_mode = if chance.once_in(2) { ClaimMode::Claim } else { ClaimMode::NoClaim };
        let (number, restore_from) = (self.number + 1, world.newest_savepoint());
        world.trace(|| format!("another job, number {number}, goes on from {restore_from:?} with {claim_mode:?}"));
        if claim_mode == ClaimMode::NoClaim {
            world.protect(restore_from.clone());
        }
        Home { number, restore_from, claim_mode }
    }
}

fn cluster(process: usize, processes: usize) -> Cluster {
    let addresses = (0..processes).map(|process| format!("host:{process}")).collect();
    Cluster::new(process, addresses, Secret::new("a secret of sixteen").unwrap())
}

impl Simulation {
    /// As `execute` begins.
    fn begin(
        world: &World,
        clock: &Arc<ManualClock>,
        shape: &Shape,
        home: &Home,
        (count, wanted): (usize, usize),
        chance: &mut Chance,
    ) -> Result<Self> {
        let retained = 1 + chance.below(2);
        let root = home.root();
        let settings = JobSettings {
            job_id: format!("{:0>32}", home.number),
            checkpoint_dir: Some(root.clone()),
            savepoint_dir: Some(PathBuf::from("/savepoints")),
            restore_from: home.restore_from.clone(),
            claim_mode: home.claim_mode,
            clock: clock.clone(),
            ..JobSettings::default()
        };
        let storages = Arc::new(Storages::simulated(Arc::new(world.clone())));
        let plan = || -> Result<Plan> { shape.graph(world).plan(count * wanted) };
        let folder = CheckpointFolder::open_in(&storages, &root)?;
        let restore = restore_point(&settings, Some(&folder), &storages)?;
        let first = plan()?;
        let per_process = first.workers().div_ceil(count);
        restore.check_all_claimed(&first.uids.iter().cloned().collect(), false)?;
        let attempt = folder.begin_attempt()?;
        let claimed = checkpoint::claimed(&folder)?;
        let committers = recover_sinks(&first, &restore, &settings, &Arc::default())?;
        world.trace(|| format!("restored epoch {}, attempt {attempt}", restore.epoch()));
        let metrics: Vec<Vec<Arc<SubtaskMetrics>>> =
            first.heads.iter().map(|&head| (0..first.parallelism[head]).map(|_| Arc::default()).collect()).collect();
        let subtasks: BTreeSet<(usize, usize)> =
            metrics.iter().enumerate().flat_map(|(task, all)| (0..all.len()).map(move |one| (task, one))).collect();
        world.begin(&root, attempt, subtasks.clone());
        let target = Target::default();
        let place = restore.folder().map(|folder| (Place::of(folder, Some(&root)), restore.epoch()));
        let start = Start { attempt, restore: place, word: None };
        let (members, outboxes) = Members::new(count - 1, &start, target.clone(), Some(root.clone()));
        let mut members = Some(members).filter(|_| count > 1);
        let inputs_of = |head: &usize| (0..first.nodes[*head].inputs.len()).map(|index| (*head, index)).collect();
        let inputs = first.heads.iter().map(inputs_of).collect();
        let (epoch, restored) = (restore.epoch(), restore.folder().map(Path::to_path_buf));
        let config = CoordinatorConfig {
            job_id: settings.job_id.clone(),
            job_name: "simulated".into(),
            checkpoints: Some(folder),
            storages: storages.clone(),
            claimed,
            attempt,
            savepoints: settings.savepoint_dir.clone(),
            interval_ms: Some([3, 20, 80][chance.below(3)]),
            min_pause_ms: [0, 0, 10][chance.below(3)],
            timeout_ms: [5, 200, 5_000][chance.below(3)],
            tolerable_failures: None,
            retained,
            restored_epoch: epoch,
            subtasks,
            parallelism: first.uids.iter().cloned().zip(first.parallelism.iter().copied()).collect(),
        };
        let network = Network::new(count, per_process);
        let (mut processes, mut links, mut leader, mut coordinator) = (Vec::new(), Vec::new(), None, None);
        let (mut first, mut config, mut committers) = (Some((first, restore)), Some(config), Some(committers));
        let mut outboxes = outboxes.into_iter();
        for process in 0..count {
            let (events, inbox) = channel();
            let (mut writers, mut inboxes) = (Vec::new(), Vec::new());
            for _ in 0..per_process {
                let ((sender, receiver), queued, buffers) = (channel(), Arc::default(), Buffers::default());
                let link =
                    WriterLink { sender: Mutex::new(sender), queued: Arc::clone(&queued), buffers: buffers.clone() };
                writers.push(link);
                inboxes.push((receiver, queued, buffers));
            }
            let (plan, restore) = match (first.take(), &restored) {
                (Some(first), _) => first,
                (None, Some(folder)) => (plan()?, RestorePoint::open(&storages, folder)?),
                (None, None) => (plan()?, RestorePoint::default()),
            };
            let (board, homes) = (plan.board(), Homes::new(&plan, per_process));
            let control = JobControl::new(clock.clone(), board, epoch, events.clone(), true, writers);
            let control = Arc::new(control.with_members(members.take()));
            let own_target = if process == 0 { target.clone() } else { Target::default() };
            if let (Some(config), Some(committers)) = (config.take(), committers.take()) {
                let mut own = Coordinator::new(config, control.clone(), own_target.clone(), Arc::default(), committers);
                own.pause = |_| {};
                coordinator = Some(own);
                leader = Some(leader::Shared {
                    user: Arc::default(),
                    control: control.clone(),
                    events: events.clone(),
                    reports: Arc::default(),
                    cluster: cluster(0, count),
                    homes,
                });
            } else if let Some(outbox) = outboxes.next() {
                links.push(Link {
                    member_told: Told::new(&homes.slots, |owner| owner == process),
                    leader_told: Told::new(&homes.slots, |owner| owner != process),
                    member: member::Shared {
                        user: Arc::default(),
                        control: control.clone(),
                        target: own_target.clone(),
                        cluster: cluster(process, count),
                        checkpoints: Some(root.clone()),
                        homes,
                        metrics: Vec::new(),
                    },
                    to_member: outbox,
                    waiting: VecDeque::new(),
                    to_leader: VecDeque::new(),
                    ended: false,
                    done: false,
                });
            }
            let writer = |(receiver, queued, buffers)| {
                let writer = CheckpointWriter {
                    events: events.clone(),
                    clock: clock.clone(),
                    target: own_target.clone(),
                    queued,
                    buffers,
                    storages: storages.clone(),
                    root: Some(root.clone()),
                    attempt,
                    tasks: HashMap::new(),
                };
                (receiver, VecDeque::new(), writer)
            };
            let writers = inboxes.into_iter().map(writer).collect();
            let shared = BuildShared {
                plan,
                restore,
                control: control.clone(),
                metrics: metrics.clone(),
                job_id: settings.job_id.clone(),
                attempt,
                checkpoint_interval_ms: None,
                workers: per_process,
                building: per_process.into(),
                user: Arc::default(),
                mode: JobMode::Stream,
                state: StateHome::default(),
            };
            let mut tasks = Vec::new();
            for worker in process * per_process..(process + 1) * per_process {
                tasks.push(network.build(worker, &shared)?.into_iter().map(Some).collect());
            }
            let heard = VecDeque::new();
            processes.push(Process { control, tasks, writers, events, inbox, heard, over: false, dead: false });
        }
        network.publish();
        let request = |chance: &mut Chance| match chance.below(4) {
            0 => Request::Checkpoint,
            1 => Request::Savepoint { stop: true, drain: false },
            _ => Request::Savepoint { stop: false, drain: false },
        };
        let asked = chance.below(3);
        let mut requests: Vec<(usize, Request)> = (0..asked).map(|_| (chance.below(1_500), request(chance))).collect();
        requests.sort_by_key(|(at, _)| *at);
        let killed_at = (count > 1 && chance.once_in(3)).then(|| chance.below(1_500));
        Ok(Simulation {
            world: world.clone(),
            clock: clock.clone(),
            network,
            per_process,
            processes,
            links,
            leader: leader.ok_or_else(|| Error::bug("no first process"))?,
            inputs,
            coordinator,
            weights: std::array::from_fn(|_| [1, 4, 16][chance.below(3)]),
            committed: epoch,
            requests: requests.into(),
            killed_at,
        })
    }

    /// Lets the actors make their steps until the start has ended.
    fn run(mut self, chance: &mut Chance) -> Result<End> {
        for number in 0..STEPS_MAX {
            if self.world.lost() || self.processes[0].dead {
                return Ok(End::Lost);
            }
            if self.world.broken().is_some() {
                return Err(Error::bug("an invariant is broken"));
            }
            if self.ended() {
                let control = &self.processes[0].control;
                return match control.failure() {
                    Some(error) => Err(error),
                    None if control.suspended() => Ok(End::Suspended),
                    None => Ok(End::Finished),
                };
            }
            self.disturb(number, chance);
            let steps = self.steps();
            // Time goes on when nothing else happens, and now and then before.
            let idle = steps.is_empty();
            let step = match self.next_time().filter(|_| idle || chance.once_in(200)) {
                Some(_) => Step::Clock,
                None if idle => break,
                None => self.choose(&steps, chance),
            };
            self.world.trace(|| format!("{number}: {step:?}"));
            self.step(step, chance);
            self.check();
        }
        Ok(End::Stuck)
    }

    /// All processes have come to their ends.
    fn ended(&self) -> bool {
        self.coordinator.is_none()
            && self.processes.iter().all(|process| process.over || process.dead)
            && self.links.iter().zip(&self.processes[1..]).all(|(link, process)| link.ended || process.dead)
    }

    fn choose(&self, steps: &[Step], chance: &mut Chance) -> Step {
        let weight = |step: &Step| self.weights[step.kind()];
        let mut at = chance.below(steps.iter().map(weight).sum());
        for step in steps {
            match at.checked_sub(weight(step)) {
                Some(rest) => at = rest,
                None => return *step,
            }
        }
        steps[0]
    }

    /// What comes from outside: requests of people, and the death of a process.
    fn disturb(&mut self, number: usize, chance: &mut Chance) {
        if let Some((_, request)) = self.requests.pop_front_if(|(at, _)| *at <= number) {
            self.world.trace(|| format!("asked for {request:?}"));
            let event = match request {
                Request::Checkpoint => Event::Checkpoint { reply: sync_channel(1).0 },
                Request::Savepoint { stop, drain } => {
                    Event::Savepoint(SavepointRequest { folder: None, stop, drain, reply: sync_channel(1).0 })
                }
            };
            let _ = self.processes[0].events.send(event);
        }
        if self.killed_at.is_some_and(|at| at <= number) {
            self.killed_at = None;
            let victim = chance.below(self.processes.len());
            self.world.trace(|| format!("process {victim} is killed"));
            let process = &mut self.processes[victim];
            process.dead = true;
            self.network.cut(victim);
            process.tasks.iter_mut().for_each(Vec::clear);
            process.writers.clear();
        }
    }

    fn process_of(&self, worker: usize) -> usize {
        worker / self.per_process
    }

    /// What can happen now.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (worker, task) in self.network.active() {
            let process = &self.processes[self.process_of(worker)];
            if process.tasks[worker % self.per_process].get(task).is_some_and(Option::is_some) {
                steps.push(Step::Task(worker, task));
            }
        }
        let dead = |worker: usize| self.processes[worker / self.per_process].dead;
        let alive = |transfer: &Transfer| match transfer {
            Transfer::Deliver(_, from, to) => !dead(*to) && (!dead(*from) || from == to),
            Transfer::Progress(_, to) => !dead(*to),
        };
        steps.extend(self.network.transfers().into_iter().filter(alive).map(Step::Network));
        let gone = self.processes.iter().any(|process| process.dead);
        for (number, process) in self.processes.iter_mut().enumerate().filter(|(_, process)| !process.dead) {
            for (worker, (receiver, waiting, _)) in process.writers.iter_mut().enumerate() {
                waiting.extend(receiver.try_iter());
                if !waiting.is_empty() {
                    steps.push(Step::Writer(number, worker));
                }
            }
            process.heard.extend(process.inbox.try_iter());
            let failed = process.control.failed();
            if failed && !process.over {
                steps.push(Step::GiveUp(number));
            }
            if gone && !failed && !process.over {
                steps.push(Step::Notice(number));
            }
        }
        let now_ms = self.clock.steady_ms();
        if let Some(coordinator) = &self.coordinator
            && !self.processes[0].dead
            && (!self.processes[0].heard.is_empty() || coordinator.due_ms().is_some_and(|due| due <= now_ms))
            && (!self.processes[0].control.failed() || !self.processes[0].heard.is_empty())
        {
            steps.push(Step::Coordinator);
        }
        for (at, link) in self.links.iter_mut().enumerate() {
            if self.processes[at + 1].dead {
                // What it said last still comes.
                steps.extend((!link.to_leader.is_empty()).then_some(Step::ToLeader(at)));
                continue;
            }
            link.waiting.extend(link.to_member.try_iter());
            if !link.waiting.is_empty() && !link.done {
                steps.push(Step::ToMember(at));
            }
            if !link.to_leader.is_empty() {
                steps.push(Step::ToLeader(at));
            }
            if !self.processes[at + 1].heard.is_empty() {
                steps.push(Step::MemberSays(at));
            }
        }
        steps
    }

    /// When something is due though nothing else happens.
    fn next_time(&self) -> Option<i64> {
        let coordinator = self.coordinator.as_ref().filter(|_| !self.processes[0].control.failed());
        // Marks of sources are passed on from time to time.
        let marks = (!self.links.is_empty()).then(|| self.clock.now_ms() + 50);
        [self.clock.next_wake_ms(), coordinator.and_then(Coordinator::due_ms), marks].into_iter().flatten().min()
    }

    fn step(&mut self, step: Step, chance: &mut Chance) {
        match step {
            Step::Task(worker, task) => {
                let (process, own) = (self.process_of(worker), worker % self.per_process);
                let place = &mut self.processes[process].tasks[own][task];
                if let Some(built) = place
                    && !self.network.run((worker, task), &self.inputs[task], built)
                {
                    *place = None;
                }
                if self.processes[process].control.failed() {
                    self.network.cut(process);
                }
                self.network.publish();
                self.tell_end(process);
            }
            Step::Network(transfer) => self.network.transfer(transfer, 1 + chance.below(4)),
            Step::Writer(process, worker) => {
                let Process { writers, events, .. } = &mut self.processes[process];
                let (_, waiting, writer) = &mut writers[worker];
                if let Some(event) = waiting.pop_front().and_then(|part| writer.step(part)) {
                    let _ = events.send(event);
                }
            }
            Step::Coordinator => {
                let event = self.processes[0].heard.pop_front();
                if let Some(Event::Acknowledged(answer)) = &event
                    && answer.failure.is_none()
                {
                    self.world.answered(answer.epoch, (answer.task, answer.subtask));
                }
                if let Some(coordinator) = &mut self.coordinator
                    && !coordinator.step(event)
                {
                    self.coordinator = None;
                }
            }
            Step::ToMember(at) => {
                let link = &mut self.links[at];
                if let Some(message) = link.waiting.pop_front() {
                    let message = over_the_wire(&message);
                    link.done = !member::heard(message, &link.member);
                }
            }
            Step::MemberSays(at) => {
                let event = self.processes[at + 1].heard.pop_front();
                let link = &mut self.links[at];
                link.to_leader.extend(member::said(event, &mut link.member_told, &link.member));
            }
            Step::ToLeader(at) => {
                let link = &mut self.links[at];
                let Some(message) = link.to_leader.pop_front() else { return };
                match leader::heard(at + 1, over_the_wire(&message), &self.leader) {
                    Ok(goes_on) => link.ended |= !goes_on,
                    Err(error) => self.world.fault(format!("the first process is told nonsense: {error}")),
                }
            }
            Step::LeaderMarks(at) => {
                let link = &mut self.links[at];
                let board = self.leader.control.board();
                let (marks, stages) = (link.leader_told.changes(board), link.leader_told.stages(board));
                link.waiting.extend((!stages.is_empty()).then_some(ToMember::Stages(stages)));
                link.waiting.extend((!marks.is_empty()).then_some(ToMember::Marks(marks)));
            }
            Step::GiveUp(process) => {
                self.network.cut(process);
                self.processes[process].tasks.iter_mut().for_each(Vec::clear);
                self.tell_end(process);
            }
            Step::Notice(process) => self.processes[process].control.fail(Error::external("a process is lost")),
            Step::Clock => {
                if let Some(at_ms) = self.next_time() {
                    self.clock.set(at_ms.max(self.clock.now_ms() + 1));
                }
                for at in 0..self.links.len() {
                    self.step(Step::LeaderMarks(at), chance);
                    let link = &mut self.links[at];
                    link.to_leader.extend(member::said(None, &mut link.member_told, &link.member));
                }
            }
        }
    }

    /// A process whose workers have all ended says so once.
    fn tell_end(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if !process.over && process.tasks.iter().flatten().all(Option::is_none) {
            process.over = true;
            process.control.tell(Event::Done);
        }
    }

    /// What must hold between any two steps.
    fn check(&mut self) {
        let committed = self.processes[0].control.committed();
        if committed < self.committed {
            self.world.fault(format!("the committed epoch goes back from {} to {committed}", self.committed));
        }
        if committed > self.committed {
            self.world.heard_complete(committed);
        }
        self.committed = committed;
        for process in &self.processes {
            if process.control.committed() > committed {
                self.world.fault("another process knows more than the first".into());
            }
        }
    }
}

/// As it comes out of the connection.
fn over_the_wire<M: serde::Serialize + serde::de::DeserializeOwned>(message: &M) -> M {
    postcard::from_bytes(&postcard::to_stdvec(message).unwrap()).unwrap()
}
