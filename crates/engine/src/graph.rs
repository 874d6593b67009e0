//! The job as the user wrote it: nodes and edges, nothing running yet. The environment collects it, `plan` settles
//! parallelism and chains, and every worker builds the same tasks from it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tidemill_core::sink::{Committer, SinkScope, Token};
use tidemill_core::slots::SlotDemand;
use tidemill_core::source::Boundedness;
use tidemill_core::{Data, Error, Result};

use crate::driver::build::TaskBuilder;
use crate::driver::port::{AnyHead, Head};
use crate::driver::source::SourceParts;
use crate::key::KEY_GROUPS;
use crate::operator::{Link, Sides};
use crate::runtime::board::Board;
use crate::runtime::{JobMode, RuntimeMode};
use crate::slot_sharing::{DEFAULT_GROUP, SlotSharing, demand};
use crate::stream::partition::PartitionFactory;

/// The kind of an edge, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShipKind {
    /// Nothing was said: forward where the parallelism is equal, else round robin.
    Forward,
    /// Forward was asked for.
    ForwardOnly,
    Rebalance,
    Rescale,
    Shuffle {
        seed: u64,
    },
    Broadcast,
    Global,
    Hash,
    Custom,
}

impl ShipKind {
    pub fn name(self) -> &'static str {
        match self {
            ShipKind::Forward | ShipKind::ForwardOnly => "FORWARD",
            ShipKind::Rebalance => "REBALANCE",
            ShipKind::Rescale => "RESCALE",
            ShipKind::Shuffle { .. } => "SHUFFLE",
            ShipKind::Custom => "CUSTOM",
            ShipKind::Broadcast => "BROADCAST",
            ShipKind::Global => "GLOBAL",
            ShipKind::Hash => "HASH",
        }
    }
}

/// A task's chain: for signals, and as the `Head<T>` of its type for records.
pub(crate) type SharedHead = (Rc<dyn AnyHead>, Box<dyn Any>);

/// An edge into a node.
#[derive(Clone)]
pub(crate) struct Input {
    pub from: usize,
    /// A side output of `from`; `None` for its main output.
    pub tag: Option<&'static str>,
    pub kind: ShipKind,
    /// `Arc<dyn PartitionFactory<T>>` of the edge's type, boxed.
    pub partition: Arc<dyn Any + Send + Sync>,
    /// Shares the receiver's link, a `Box<dyn Link<T>>` of the edge's type, among the edges that feed it.
    pub head: fn(Box<dyn Any>) -> Result<SharedHead>,
    /// Adds the readers of this side output, of the edge's type.
    pub side: fn(&mut TaskBuilder<'_, '_>, usize, &'static str, &mut Sides) -> Result<()>,
}

impl Input {
    /// An edge of records of `T`.
    pub fn new<T: Data>(
        from: usize,
        tag: Option<&'static str>,
        kind: ShipKind,
        partition: Arc<dyn PartitionFactory<T>>,
    ) -> Self {
        Input {
            from,
            tag,
            kind,
            partition: Arc::new(partition),
            head: |link| {
                let link = link
                    .downcast::<Box<dyn Link<T>>>()
                    .map_err(|_| Error::bug("a receiver's type differs from its edge's"))?;
                let head: Head<T> = Rc::new(RefCell::new(*link));
                Ok((head.clone(), Box::new(head)))
            },
            side: |builder, node, tag, sides| {
                let link = builder.downstream::<T>(node, Some(tag))?;
                sides.add(tag, link);
                Ok(())
            },
        }
    }
}

type BuildLink = dyn Fn(&mut TaskBuilder<'_, '_>, usize) -> Result<Box<dyn Any>> + Send + Sync;
type BuildSource = dyn Fn(&mut TaskBuilder<'_, '_>, usize) -> Result<crate::driver::build::SourceRun> + Send + Sync;

/// What a node does, with its types erased.
pub(crate) enum Logic {
    /// Builds a `Box<dyn Link<I>>`, boxed.
    Operator(Box<BuildLink>),
    Source(Box<BuildSource>),
}

/// How a node's sink recovers and commits.
pub(crate) trait SinkHooks: Send + Sync {
    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()>;
    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>>;
}

/// One operator of the job.
pub(crate) struct Node {
    pub name: String,
    pub uid: Option<String>,
    pub parallelism: Option<usize>,
    /// What the program has set; more is refused where somebody asks for it, a default is cut down to it.
    pub max_parallelism: Option<usize>,
    /// Never more than this, whatever the environment says (1 for a source that cannot be divided).
    pub parallelism_max: usize,
    pub inputs: Vec<Input>,
    /// Whether it may be joined to the operator before it.
    pub chain: bool,
    /// Whether operators behind it may be joined to it.
    pub chain_next: bool,
    /// Where it was put; else with its inputs.
    pub slot_group: Option<String>,
    pub description: Option<String>,
    /// For a source, whether it ends.
    pub boundedness: Option<Boundedness>,
    /// For a source, the alignment group it is in.
    pub alignment: Option<String>,
    pub logic: Logic,
    pub sink: Option<Box<dyn SinkHooks>>,
}

impl Node {
    /// A node about which nothing else was said.
    pub fn new(name: String, inputs: Vec<Input>, logic: Logic) -> Self {
        Node {
            name,
            uid: None,
            parallelism: None,
            max_parallelism: None,
            parallelism_max: usize::MAX,
            inputs,
            chain: true,
            chain_next: true,
            slot_group: None,
            description: None,
            boundedness: None,
            alignment: None,
            logic,
            sink: None,
        }
    }
}

/// The whole job.
#[derive(Default)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    /// Whether every operator is a task of its own.
    pub chaining_off: bool,
    /// The maximum parallelism of operators that say nothing.
    pub max_parallelism: Option<usize>,
    /// What was built in a way that cannot run; told when the job is to.
    pub fault: Option<Error>,
    /// Whether it is run for the state it leaves.
    pub bootstraps: bool,
}

/// The job with everything settled: what each worker builds.
pub(crate) struct Plan {
    pub nodes: Vec<Node>,
    pub uids: Vec<String>,
    pub parallelism: Vec<usize>,
    /// For each node, the most it could have.
    pub max_parallelism: Vec<usize>,
    /// For each node, the task it belongs to.
    pub task_of: Vec<usize>,
    /// The first node of each task, in an order in which inputs come first.
    pub heads: Vec<usize>,
    /// For each node, its outgoing edges: (node, index among that node's inputs).
    pub outgoing: Vec<Vec<(usize, usize)>>,
    /// For each source node, the first of its subtasks' slots on the board.
    pub slots: BTreeMap<usize, usize>,
    /// The group of each slot.
    pub groups: Vec<usize>,
    /// The alignment group of each slot.
    pub alignments: Vec<Option<usize>>,
    /// Which workers run the subtasks of each node.
    pub sharing: SlotSharing,
    bootstraps: bool,
}

impl Graph {
    /// What cannot be planned, while the graph is still there.
    pub fn check(&self, default_parallelism: usize) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.nodes.is_empty() {
            return Err(Error::input("the job has no operators").hint("add a source and a sink before `execute`"));
        }
        uids(&self.nodes)?;
        for (to, node) in self.nodes.iter().enumerate() {
            let max = check_max_parallelism(self.max_parallelism(to), &format!("operator `{}`", node.name))?;
            if let Some(parallelism) = node.parallelism.filter(|parallelism| *parallelism > max) {
                return Err(above_max(&format!("operator `{}`", node.name), parallelism, max));
            }
            let parallelism = self.parallelism(to, default_parallelism);
            for input in node.inputs.iter().filter(|input| input.kind == ShipKind::ForwardOnly) {
                let before = self.parallelism(input.from, default_parallelism);
                if before != parallelism {
                    let from = &self.nodes[input.from].name;
                    return Err(Error::input(format!(
                        "forward from `{from}` to `{}` needs one parallelism, but it is {before} and {parallelism}",
                        node.name
                    ))
                    .hint("give both the same, or use `rebalance` or `rescale`"));
                }
            }
        }
        Ok(())
    }

    fn parallelism(&self, node: usize, default_parallelism: usize) -> usize {
        let max = self.max_parallelism(node);
        let node = &self.nodes[node];
        node.parallelism.unwrap_or(default_parallelism).min(node.parallelism_max).min(max).max(1)
    }

    /// The slots the job takes, by the parallelism of operators that say nothing; with `fixed` the program says that too.
    pub fn slot_demand(&self, fixed: Option<usize>) -> SlotDemand {
        let own: Vec<Option<usize>> = self.nodes.iter().map(|node| node.parallelism.or(fixed)).collect();
        let most = |node| self.max_parallelism(node).min(self.nodes[node].parallelism_max).max(1);
        let most: Vec<usize> = (0..self.nodes.len()).map(most).collect();
        demand(&slot_groups(&self.nodes), &own, &most)
    }

    fn max_parallelism(&self, node: usize) -> usize {
        self.nodes[node].max_parallelism.or(self.max_parallelism).unwrap_or(KEY_GROUPS as usize)
    }

    /// Settles parallelism and chains. `default_parallelism` is for operators that say nothing.
    pub fn plan(self, default_parallelism: usize) -> Result<Plan> {
        self.check(default_parallelism)?;
        let parallelism: Vec<usize> =
            (0..self.nodes.len()).map(|node| self.parallelism(node, default_parallelism)).collect();
        let max_parallelism = (0..self.nodes.len()).map(|node| self.max_parallelism(node)).collect();
        let Graph { nodes, chaining_off, bootstraps, .. } = self;
        let uids = uids(&nodes)?;
        let sharing = SlotSharing::new(&slot_groups(&nodes), &parallelism);
        let mut outgoing = vec![Vec::new(); nodes.len()];
        for (to, node) in nodes.iter().enumerate() {
            for (index, input) in node.inputs.iter().enumerate() {
                outgoing[input.from].push((to, index));
            }
        }
        let chained = |to: usize| {
            let node = &nodes[to];
            match node.inputs.as_slice() {
                [input] => {
                    let forward = matches!(input.kind, ShipKind::Forward | ShipKind::ForwardOnly);
                    let wanted = node.chain && nodes[input.from].chain_next && !chaining_off;
                    let alike = parallelism[input.from] == parallelism[to] && sharing.shared(input.from, to);
                    forward && wanted && alike
                }
                _ => false,
            }
        };
        // Nodes are added after their inputs, so the order of the list is an order in which inputs come first.
        let mut task_of = Vec::with_capacity(nodes.len());
        let mut heads = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if chained(index) {
                task_of.push(task_of[node.inputs[0].from]);
            } else {
                task_of.push(heads.len());
                heads.push(index);
            }
        }
        let (slots, groups) = slots(&nodes, &parallelism);
        let alignments = alignments(&nodes, &parallelism);
        Ok(Plan {
            nodes,
            uids,
            parallelism,
            max_parallelism,
            task_of,
            heads,
            outgoing,
            slots,
            groups,
            alignments,
            sharing,
            bootstraps,
        })
    }

    /// Everything as one task of one subtask among `parallelism`, for the harness: its first node is the only source.
    pub fn plan_by_hand(self, parallelism: usize) -> Result<Plan> {
        let mut plan = self.plan(parallelism)?;
        if let Some(node) = plan.nodes.iter().skip(1).find(|node| node.inputs.len() != 1) {
            return Err(Error::input(format!(
                "the harness cannot hold `{}`, which has {} inputs",
                node.name,
                node.inputs.len()
            ))
            .hint("test the branches one by one, or run a job"));
        }
        plan.task_of.fill(0);
        plan.heads = vec![0];
        plan.parallelism.fill(parallelism);
        plan.sharing = SlotSharing::new(&vec![DEFAULT_GROUP.to_string(); plan.nodes.len()], &plan.parallelism);
        Ok(plan)
    }
}

/// A maximum parallelism that can be, else an error that names `whose` it is.
pub(crate) fn check_max_parallelism(max: usize, whose: &str) -> Result<usize> {
    if (1..=KEY_GROUPS as usize).contains(&max) {
        return Ok(max);
    }
    Err(Error::input(format!("the maximum parallelism of {whose} is {max}, but must be 1 to {KEY_GROUPS}")))
}

pub(crate) fn above_max(whose: &str, parallelism: usize, max: usize) -> Error {
    Error::input(format!("the parallelism of {whose} is {parallelism}, above its maximum parallelism of {max}"))
        .hint("set a smaller parallelism or a greater maximum; the maximum may change at any time")
}

/// Given uids, and for operators without one a uid made from place and name.
fn uids(nodes: &[Node]) -> Result<Vec<String>> {
    let mut seen = BTreeMap::new();
    let mut uids = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let uid = node.uid.clone().unwrap_or_else(|| {
            let slug: String =
                node.name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
            format!("{index:02}-{slug}")
        });
        if let Some(other) = seen.insert(uid.clone(), &node.name) {
            return Err(Error::input(format!("operators `{other}` and `{}` have the same uid `{uid}`", node.name)));
        }
        uids.push(uid);
    }
    Ok(uids)
}

/// The group each node was put into, else that of its inputs if they are of one.
fn slot_groups(nodes: &[Node]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut inputs = node.inputs.iter().map(|input| &groups[input.from]);
        let first = inputs.next().cloned();
        let inherited = first.filter(|first| inputs.all(|other| other == first));
        groups.push(node.slot_group.clone().or(inherited).unwrap_or_else(|| DEFAULT_GROUP.to_string()));
    }
    groups
}

/// A slot for each source subtask; slots of sources whose records can meet are of one group.
fn slots(nodes: &[Node], parallelism: &[usize]) -> (BTreeMap<usize, usize>, Vec<usize>) {
    let mut component: Vec<usize> = (0..nodes.len()).collect();
    fn root(component: &mut [usize], mut node: usize) -> usize {
        while component[node] != node {
            component[node] = component[component[node]];
            node = component[node];
        }
        node
    }
    for (to, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            let (a, b) = (root(&mut component, to), root(&mut component, input.from));
            component[a] = b;
        }
    }
    let (mut slots, mut groups) = (BTreeMap::new(), Vec::new());
    for (index, node) in nodes.iter().enumerate() {
        if matches!(node.logic, Logic::Source(_)) {
            slots.insert(index, groups.len());
            let group = root(&mut component, index);
            groups.extend(std::iter::repeat_n(group, parallelism[index]));
        }
    }
    (slots, groups)
}

/// The alignment group of each slot, in the order of [`slots`]: sources of one group wait for each other wherever their
/// records go.
fn alignments(nodes: &[Node], parallelism: &[usize]) -> Vec<Option<usize>> {
    let mut names: Vec<&str> = Vec::new();
    let mut alignments = Vec::new();
    for (node, parallelism) in nodes.iter().zip(parallelism) {
        if matches!(node.logic, Logic::Source(_)) {
            let number = node.alignment.as_deref().map(|name| {
                names.iter().position(|known| *known == name).unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                })
            });
            alignments.extend(std::iter::repeat_n(number, *parallelism));
        }
    }
    alignments
}

impl Plan {
    /// A board for the sources of this plan.
    pub fn board(&self) -> Board {
        Board::new(self.groups.clone()).with_alignments(self.alignments.clone())
    }

    /// How the job runs.
    pub fn mode(&self, mode: RuntimeMode) -> Result<JobMode> {
        let unbounded = self.nodes.iter().find(|node| node.boundedness == Some(Boundedness::Unbounded));
        if self.bootstraps {
            return unbounded.map_or(Ok(JobMode::Bootstrap), |node| {
                Err(Error::input(format!("`{}` does not end, so the state would never be whole", node.name))
                    .hint("bound the source"))
            });
        }
        match (mode, unbounded) {
            (RuntimeMode::Streaming, _) | (RuntimeMode::Automatic, Some(_)) => Ok(JobMode::Stream),
            (RuntimeMode::Batch | RuntimeMode::Automatic, None) => Ok(JobMode::Batch),
            (RuntimeMode::Batch, Some(node)) => {
                Err(Error::input(format!("`{}` does not end, so the job cannot run in batch mode", node.name))
                    .hint("bound the source, or use the streaming or the automatic mode"))
            }
        }
    }

    /// The largest parallelism of any operator.
    pub fn parallelism(&self) -> usize {
        self.parallelism.iter().copied().max().unwrap_or(1)
    }

    /// The workers of all slot sharing groups: the slots the job takes.
    pub fn workers(&self) -> usize {
        self.sharing.workers()
    }

    /// The workers of a node's subtasks, in order.
    pub fn workers_of(&self, node: usize) -> &[usize] {
        &self.sharing.workers_of(node)[..self.parallelism[node]]
    }

    /// The subtask of a node that a worker runs.
    pub fn subtask_on(&self, node: usize, worker: usize) -> Option<usize> {
        self.workers_of(node).iter().position(|other| *other == worker)
    }

    /// For each slot on the board, the worker of the source subtask that fills it.
    pub fn slot_workers(&self) -> Vec<usize> {
        self.slots.keys().flat_map(|node| self.workers_of(*node).iter().copied()).collect()
    }

    /// What all processes of a job must have in common, so that their channels and subtasks mean the same.
    pub fn fingerprint(&self) -> String {
        let mut text = format!("{} {}\n", env!("CARGO_PKG_VERSION"), KEY_GROUPS);
        for (index, node) in self.nodes.iter().enumerate() {
            let place = (self.workers_of(index), self.task_of[index]);
            text.push_str(&format!("{} {} {place:?}", self.uids[index], node.name));
            for input in &node.inputs {
                text.push_str(&format!(" {} {} {:?}", input.from, input.kind.name(), input.tag));
            }
            text.push('\n');
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The nodes of a task, in order.
    pub fn members(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(move |node| self.task_of[*node] == task)
    }

    /// A task's name: its operators, joined.
    pub fn task_name(&self, task: usize) -> String {
        self.members(task).map(|node| self.nodes[node].name.as_str()).collect::<Vec<_>>().join(" -> ")
    }
}

/// Builds the source of a node; here because it names both the graph and the driver.
pub(crate) fn source_logic<T: tidemill_core::Data>(parts: SourceParts<T>) -> Logic {
    Logic::Source(Box::new(move |builder, node| crate::driver::build::source(builder, node, &parts)))
}
