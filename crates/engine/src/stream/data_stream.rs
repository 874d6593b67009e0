//! A stream of values of one type, and the operators that need no key.

use std::hash::Hash;
use std::sync::Arc;

use tidemill_core::source::Boundedness;
use tidemill_core::{Data, DeadLetter, Result};

use super::environment::Environment;
use super::keyed::KeyedStream;
use super::partition::{Broadcast, Custom, Forward, Global, PartitionFactory, Rebalance, Rescale, Shuffle, by_key};
use super::process::{ProcessFunction, ProcessOperator};
use super::selector::ByRef;
use super::stateless::{BatchOperator, filter, flat_map, map};
use super::watermark::WatermarkStrategy;
use crate::driver::build::{DEAD_LETTERS, TaskBuilder};
use crate::graph::{Input, Logic, Node, ShipKind, SinkHooks};
use crate::key::Key;
use crate::operator::{Operator, OutputTag};

/// One output of one node, and how it is spread over the next operator's subtasks.
pub(crate) struct Origin<T> {
    pub(super) node: usize,
    pub(super) tag: Option<&'static str>,
    pub(super) kind: ShipKind,
    pub(super) partition: Arc<dyn PartitionFactory<T>>,
}

impl<T> Clone for Origin<T> {
    fn clone(&self) -> Self {
        Origin { node: self.node, tag: self.tag, kind: self.kind, partition: self.partition.clone() }
    }
}

impl<T: Data> Origin<T> {
    pub fn of(node: usize, tag: Option<&'static str>) -> Self {
        Origin { node, tag, kind: ShipKind::Forward, partition: Arc::new(Forward) }
    }
}

/// A stream of values of `T`, each with an event time. Cloning it lets several operators read the same stream.
pub struct DataStream<T> {
    pub(crate) env: Environment,
    pub(super) origins: Vec<Origin<T>>,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        DataStream { env: self.env.clone(), origins: self.origins.clone() }
    }
}

impl<T: Data> DataStream<T> {
    pub(crate) fn new(env: Environment, origin: Origin<T>) -> Self {
        DataStream { env, origins: vec![origin] }
    }

    /// Adds an operator that reads this stream.
    pub(crate) fn add_operator<O: Data, P: Operator<T, O>>(
        &self,
        name: &str,
        make: impl Fn(&mut TaskBuilder<'_, '_>, usize) -> Result<P> + Send + Sync + 'static,
    ) -> DataStream<O> {
        self.add_node::<O, P>(name, make, None)
    }

    pub(crate) fn add_node<O: Data, P: Operator<T, O>>(
        &self,
        name: &str,
        make: impl Fn(&mut TaskBuilder<'_, '_>, usize) -> Result<P> + Send + Sync + 'static,
        sink: Option<Box<dyn SinkHooks>>,
    ) -> DataStream<O> {
        let inputs = self
            .origins
            .iter()
            .map(|origin| Input::new(origin.node, origin.tag, origin.kind, origin.partition.clone()))
            .collect();
        let logic = Logic::Operator(Box::new(move |builder, node| {
            let operator = make(builder, node)?;
            let link = builder.operator::<T, O, P>(node, operator)?;
            Ok(Box::new(link) as Box<dyn std::any::Any>)
        }));
        let node = self.env.add(Node { sink, ..Node::new(name.to_string(), inputs, logic) });
        DataStream::new(self.env.clone(), Origin::of(node, None))
    }

    fn change_node(self, change: impl FnOnce(&mut Node)) -> Self {
        if let [origin] = self.origins.as_slice() {
            change(&mut self.env.graph.borrow_mut().nodes[origin.node]);
        }
        self
    }

    /// Names the operator that makes this stream, for graphs and messages.
    pub fn name(self, name: &str) -> Self {
        self.change_node(|node| {
            let prefix = if matches!(node.logic, Logic::Source(_)) { "Source: " } else { "" };
            node.name = format!("{prefix}{name}");
        })
    }

    /// The stable id under which the operator's state is found after the job was changed.
    pub fn uid(self, uid: &str) -> Self {
        self.change_node(|node| node.uid = Some(uid.to_string()))
    }

    /// The parallelism of the operator that makes this stream; goes before the environment's.
    pub fn set_parallelism(self, parallelism: usize) -> Self {
        self.change_node(|node| node.parallelism = Some(parallelism))
    }

    /// The most subtasks the operator that makes this stream can have; goes before the environment's.
    pub fn set_max_parallelism(self, max_parallelism: usize) -> Self {
        self.change_node(|node| node.max_parallelism = Some(max_parallelism))
    }

    pub(crate) fn bounded(self, boundedness: Option<Boundedness>) -> Self {
        self.change_node(|node| node.boundedness = boundedness)
    }

    pub(crate) fn set_parallelism_max(self, parallelism: usize) -> Self {
        self.change_node(|node| node.parallelism_max = parallelism)
    }

    /// Gives the operator that makes this stream the parallelism of another node, so that it can be chained to it.
    pub(super) fn parallel_to(self, node: usize) -> Self {
        let like = |other: &Node| (other.parallelism, other.max_parallelism, other.parallelism_max);
        let Some(its) = self.env.graph.borrow().nodes.get(node).map(like) else { return self };
        self.change_node(|node| (node.parallelism, node.max_parallelism, node.parallelism_max) = its)
    }

    /// Says in more words what the operator that makes this stream does, for graphs.
    pub fn set_description(self, description: &str) -> Self {
        self.change_node(|node| node.description = Some(description.to_string()))
    }

    /// Puts the operator that makes this stream, and those behind it that say nothing themselves, into a slot sharing
    /// group. Operators of one group share slots, each a worker thread with one subtask of each of them; operators of
    /// different groups never do. So a job takes as many slots as the largest parallelisms of its groups add up to, and a
    /// slow operator in a group of its own keeps no thread from the others. State does not depend on groups: they may
    /// change from one start to the next. Default: the group of the inputs if they are of one, else `default`.
    pub fn slot_sharing_group(self, group: &str) -> Self {
        self.change_node(|node| node.slot_group = Some(group.to_string()))
    }

    /// The operator that makes this stream is a task of its own, joined neither to the one before it nor to those behind.
    pub fn disable_chaining(self) -> Self {
        self.change_node(|node| (node.chain, node.chain_next) = (false, false))
    }

    /// The operator that makes this stream begins a task of its own.
    pub fn start_new_chain(self) -> Self {
        self.change_node(|node| node.chain = false)
    }

    /// One value for one value.
    pub fn map<O: Data>(&self, function: impl FnMut(T) -> O + Clone + Send + 'static) -> DataStream<O> {
        let function = std::sync::Mutex::new(function);
        self.add_operator("Map", move |_, _| Ok(BatchOperator::new(map(fresh(&function)))))
    }

    /// Any number of values for one value.
    pub fn flat_map<O: Data, I: IntoIterator<Item = O> + 'static>(
        &self,
        function: impl FnMut(T) -> I + Clone + Send + 'static,
    ) -> DataStream<O> {
        let function = std::sync::Mutex::new(function);
        self.add_operator("Flat Map", move |_, _| Ok(BatchOperator::new(flat_map(fresh(&function)))))
    }

    /// Keeps the values for which the function says true.
    pub fn filter(&self, function: impl FnMut(&T) -> bool + Clone + Send + 'static) -> DataStream<T> {
        let function = std::sync::Mutex::new(function);
        self.add_operator("Filter", move |_, _| Ok(BatchOperator::new(filter(fresh(&function)))))
    }

    /// A function with life cycle, timestamps, watermarks and side outputs.
    pub fn process<O: Data>(&self, function: impl ProcessFunction<T, O>) -> DataStream<O> {
        let function = std::sync::Mutex::new(function);
        self.add_operator("Process", move |builder, node| {
            Ok(ProcessOperator::new(fresh(&function), builder.runtime_context(node)))
        })
    }

    /// An operator of one's own, made once for each subtask: whole batches, watermarks, snapshots.
    pub fn transform<O: Data, P: Operator<T, O>>(
        &self,
        name: &str,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> DataStream<O> {
        self.add_operator(name, move |_, _| Ok(make()))
    }

    /// Gives records new event times and makes watermarks from them; those of the source end here.
    pub fn assign_timestamps_and_watermarks(&self, strategy: WatermarkStrategy<T>) -> DataStream<T> {
        let strategy = Arc::new(strategy);
        self.add_operator("Timestamps/Watermarks", move |builder, _| {
            super::assign::AssignOperator::new(&strategy, builder)
        })
    }

    /// All records of this stream and the others, in no particular order between them.
    pub fn union(&self, others: &[&DataStream<T>]) -> DataStream<T> {
        others.iter().for_each(|other| self.env.meets(&other.env, "`union`"));
        let mut origins = self.origins.clone();
        origins.extend(others.iter().flat_map(|other| other.origins.iter().cloned()));
        DataStream { env: self.env.clone(), origins }
    }

    /// Divides the stream by key: records of one key meet on one subtask, with state of their own.
    pub fn key_by<K: Key, F: FnMut(&T) -> K + Clone + Send + 'static>(&self, selector: F) -> KeyedStream<T, K, F> {
        let partition: Arc<dyn PartitionFactory<T>> = Arc::new(by_key(selector.clone()));
        KeyedStream::new(self.ship(ShipKind::Hash, partition), selector)
    }

    /// Divides the stream by a key that stands in the record: `selector` points at it. Rolling reductions, tumbling
    /// and sliding windows copy a key when it is new and not again, so this is [`DataStream::key_by`] for keys whose copies
    /// cost something, such as texts. Everything else gets a copy for each record, as it does there.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// env.set_parallelism(1);
    /// let words = env.from_collection(vec![("be".to_string(), 1), ("not".to_string(), 1), ("be".to_string(), 1)]);
    /// let counts = words.key_by_ref(|(word, _)| word.as_str()).sum(|(_, count)| count).collect();
    /// env.execute("word count").unwrap();
    /// assert_eq!(counts.take()[2], ("be".to_string(), 2));
    /// ```
    pub fn key_by_ref<Q, F>(&self, selector: F) -> KeyedStream<T, Q::Owned, ByRef<F, Q>>
    where
        Q: ToOwned<Owned: Key> + Hash + Eq + ?Sized + 'static,
        F: FnMut(&T) -> &Q + Clone + Send + 'static,
    {
        let selector = ByRef::new(selector);
        let partition: Arc<dyn PartitionFactory<T>> = Arc::new(by_key::<T, Q::Owned>(selector.clone()));
        KeyedStream::new(self.ship(ShipKind::Hash, partition), selector)
    }

    pub(crate) fn ship(&self, kind: ShipKind, partition: Arc<dyn PartitionFactory<T>>) -> DataStream<T> {
        let origins =
            self.origins.iter().map(|origin| Origin { kind, partition: partition.clone(), ..origin.clone() }).collect();
        DataStream { env: self.env.clone(), origins }
    }

    /// Round robin over all subtasks of the next operator.
    pub fn rebalance(&self) -> DataStream<T> {
        self.ship(ShipKind::Rebalance, Arc::new(Rebalance))
    }

    /// Each subtask sends to the one of its own number. Where the parallelism changes the job is refused.
    pub fn forward(&self) -> DataStream<T> {
        self.ship(ShipKind::ForwardOnly, Arc::new(Forward))
    }

    /// Round robin over a part of the next operator's subtasks, which differs from subtask to subtask: with 2 before and 4
    /// behind, the first sends to two of them and the second to the other two.
    pub fn rescale(&self) -> DataStream<T> {
        self.ship(ShipKind::Rescale, Arc::new(Rescale))
    }

    /// To a subtask of the next operator by chance, evenly. With the same seed and the same records it is the same one,
    /// until the job is restored: how far the chance had come is no state.
    pub fn shuffle(&self, seed: u64) -> DataStream<T> {
        self.ship(ShipKind::Shuffle { seed }, Arc::new(Shuffle { seed }))
    }

    /// To the subtask of the next operator that `partitioner` names, from a key and the number of subtasks. A number too
    /// large fails the job.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// let numbers = env.from_sequence(1, 10).partition_custom(|n: &i64, subtasks| *n as usize % subtasks, |n| n / 3);
    /// let numbers = numbers.map(|n| n).collect();
    /// env.execute("custom")?;
    /// assert_eq!(numbers.len(), 10);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn partition_custom<K>(
        &self,
        mut partitioner: impl FnMut(&K, usize) -> usize + Clone + Send + 'static,
        mut key: impl FnMut(&T) -> K + Clone + Send + 'static,
    ) -> DataStream<T> {
        let receiver = move |value: &T, receivers: usize| partitioner(&key(value), receivers);
        self.ship(ShipKind::Custom, Arc::new(Custom::new(receiver)))
    }

    /// Every record to every subtask of the next operator.
    pub fn broadcast(&self) -> DataStream<T> {
        self.ship(ShipKind::Broadcast, Arc::new(Broadcast))
    }

    /// Every record to the first subtask of the next operator.
    pub fn global(&self) -> DataStream<T> {
        self.ship(ShipKind::Global, Arc::new(Global))
    }

    /// What the operator that makes this stream emits under a tag.
    pub fn side_output<S: Data>(&self, tag: OutputTag<S>) -> DataStream<S> {
        let origins = self.origins.iter().map(|origin| Origin::of(origin.node, Some(tag.name))).collect();
        DataStream { env: self.env.clone(), origins }
    }

    /// The records this stream's source could not read. Reading them keeps the job alive on bad records; without a
    /// reader the first one fails the job with its position.
    pub fn dead_letters(&self) -> DataStream<DeadLetter> {
        self.side_output(OutputTag::new(DEAD_LETTERS))
    }
}

/// A copy of the user's function for one subtask.
pub(crate) fn fresh<F: Clone>(function: &std::sync::Mutex<F>) -> F {
    function.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}
