//! A keyed stream connected to a broadcast one: records of a key have keyed state and timers, and read the broadcast
//! state; broadcast records change it, and may reach into the keyed state of all keys. Timers belong to keys, so they are
//! set from the keyed side alone.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use tidemill_core::{Data, Result};

use super::broadcast::{BroadcastContext, BroadcastStream};
use super::broadcast_state::{BroadcastMap, BroadcastState, BroadcastStore};
use super::data_stream::{DataStream, fresh};
use super::either::{Either, either};
use super::keyed::KeyedStream;
use super::keyed_process::{KeyedContext, KeyedCore, TimeDomain, no_reserved};
use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use super::partition::ByKeyGroup;
use super::process::{ProcessContext, RuntimeContext};
use super::rich::KeyedScope;
use super::selector::KeySelector;
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, SnapshotParts};
use crate::state::{KeyedState, KeyedStore, Restored, StateAccess};

/// A keyed stream and a broadcast one; see [`KeyedStream::connect_broadcast`].
pub struct KeyedBroadcastConnectedStream<A, B, K, F> {
    keyed: KeyedStream<A, K, F>,
    broadcast: BroadcastStream<B>,
}

/// A function on a keyed stream and a broadcast one. State handles such as `ValueState` are its fields; they mean the
/// current key.
///
/// ```
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::state::ValueState;
/// use tidemill_engine::stream::{
///     BroadcastState, KeyedBroadcastContext, KeyedBroadcastProcessFunction, KeyedReadOnlyContext,
/// };
///
/// const PRICES: BroadcastState<String, u64> = BroadcastState::new("prices");
///
/// /// Counts sales of each article; a new price tells what was sold of it so far, and begins anew.
/// #[derive(Clone)]
/// struct Sales(ValueState<u64>);
///
/// impl KeyedBroadcastProcessFunction<String, String, (String, u64), (String, u64)> for Sales {
///     fn process(
///         &mut self,
///         _article: String,
///         context: &mut KeyedReadOnlyContext<'_, String, (String, u64)>,
///     ) -> Result<()> {
///         *self.0.get_or(context, || 0)? += 1;
///         Ok(())
///     }
///     fn process_broadcast(
///         &mut self,
///         (article, price): (String, u64),
///         context: &mut KeyedBroadcastContext<'_, String, (String, u64)>,
///     ) -> Result<()> {
///         let before = context.broadcast_state(&PRICES)?.put(article.clone(), price).unwrap_or(0);
///         let mut sold = None;
///         context.apply_to_keyed_state(&self.0, |scope| {
///             if *scope.key() == article {
///                 sold = self.0.take(scope)?;
///             }
///             Ok(())
///         })?;
///         sold.map_or(Ok(()), |sold| context.emit((article, sold * before)))
///     }
/// }
///
/// let env = Environment::new();
/// let prices = env.from_collection(vec![("tea".to_string(), 3)]).broadcast_with(&[&PRICES]);
/// let sales = env.from_collection(vec!["tea".to_string()]).key_by(|article| article.clone());
/// sales.connect_broadcast(&prices).process(Sales(ValueState::new("sold"))).collect();
/// env.execute("sales").unwrap();
/// ```
pub trait KeyedBroadcastProcessFunction<K: Key, A, B, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of either stream. No key is current here.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the keyed stream.
    fn process(&mut self, value: A, context: &mut KeyedReadOnlyContext<'_, K, O>) -> Result<()>;

    /// For each broadcast record; it comes to every subtask, so what is emitted here is emitted by every subtask.
    fn process_broadcast(&mut self, value: B, context: &mut KeyedBroadcastContext<'_, K, O>) -> Result<()>;

    /// A timer of the current key is due; `context.timestamp_ms()` is its time.
    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedReadOnlyContext<'_, K, O>) -> Result<()> {
        let _ = (domain, context);
        Ok(())
    }

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state and
    /// broadcast state are saved by themselves.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a function sees beside a keyed record or a timer: all that [`KeyedContext`] has, and broadcast state to be read.
pub struct KeyedReadOnlyContext<'a, K, O> {
    keyed: KeyedContext<'a, K, O>,
    broadcast: &'a BroadcastStore,
}

impl<'a, K, O> KeyedReadOnlyContext<'a, K, O> {
    /// This subtask's copy of a broadcast state. It can be held while results are emitted.
    pub fn broadcast_state<F: Key, V: Data>(&self, state: &BroadcastState<F, V>) -> Result<&'a BroadcastMap<F, V>> {
        self.broadcast.map(state)
    }
}

impl<K: Key, O> StateAccess for KeyedReadOnlyContext<'_, K, O> {
    type Key = K;

    fn keyed_state(&mut self) -> (&K, &mut KeyedStore<K>) {
        self.keyed.keyed_state()
    }
}

impl<'a, K, O> Deref for KeyedReadOnlyContext<'a, K, O> {
    type Target = KeyedContext<'a, K, O>;

    fn deref(&self) -> &Self::Target {
        &self.keyed
    }
}

impl<K, O> DerefMut for KeyedReadOnlyContext<'_, K, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.keyed
    }
}

/// What a function sees beside a broadcast record: all that [`BroadcastContext`] has, and the keyed state of all keys of
/// this subtask.
pub struct KeyedBroadcastContext<'a, K, O> {
    unkeyed: BroadcastContext<'a, O>,
    store: &'a mut KeyedStore<K>,
}

impl<K: Key, O> KeyedBroadcastContext<'_, K, O> {
    /// Calls the function once for each key of this subtask that has something in `state`, in no particular order, with
    /// the key as the current one. The keys are listed first, so the function may remove state.
    pub fn apply_to_keyed_state(
        &mut self,
        state: &impl KeyedState,
        mut function: impl FnMut(&mut KeyedScope<'_, K>) -> Result<()>,
    ) -> Result<()> {
        for key in state.keys(self.store)? {
            function(&mut KeyedScope { key: &key, store: self.store })?;
        }
        Ok(())
    }
}

impl<'a, K, O> Deref for KeyedBroadcastContext<'a, K, O> {
    type Target = BroadcastContext<'a, O>;

    fn deref(&self) -> &Self::Target {
        &self.unkeyed
    }
}

impl<K, O> DerefMut for KeyedBroadcastContext<'_, K, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.unkeyed
    }
}

impl<A: Data, K: Key, F: KeySelector<A, K>> KeyedStream<A, K, F> {
    /// This stream and a broadcast one, for an operator with keyed state, timers, and the latter's state on every subtask.
    pub fn connect_broadcast<B: Data>(&self, other: &BroadcastStream<B>) -> KeyedBroadcastConnectedStream<A, B, K, F> {
        KeyedBroadcastConnectedStream {
            keyed: KeyedStream::new(self.stream.clone(), self.selector.clone()),
            broadcast: BroadcastStream { stream: other.stream.clone(), states: other.states.clone() },
        }
    }
}

impl<A: Data, B: Data, K: Key, F: KeySelector<A, K>> KeyedBroadcastConnectedStream<A, B, K, F> {
    /// A function with keyed state, timers, broadcast state and side outputs.
    pub fn process<O: Data>(&self, function: impl KeyedBroadcastProcessFunction<K, A, B, O>) -> DataStream<O> {
        let (selector, mut key) = (self.keyed.selector.clone(), self.keyed.selector.clone());
        // Only the keyed side's edges are divided by key.
        let group = move |value: &Either<A, B>| match value {
            Either::Left(value) => key.key_group(value),
            Either::Right(_) => 0,
        };
        let by_key = Arc::new(ByKeyGroup::new(group));
        let both = either(&self.keyed.stream, &self.broadcast.stream, Some(by_key));
        let states = self.broadcast.states.clone();
        let functions = Mutex::new((selector, function));
        both.add_operator("Co-Process-Broadcast-Keyed", move |builder, node| {
            let (selector, function) = fresh(&functions);
            let context = builder.runtime_context(node);
            Ok(KeyedBroadcastOperator {
                selector,
                function,
                core: KeyedCore::new(&context),
                broadcast: BroadcastStore::new(&states)?,
                context,
                opened: false,
            })
        })
    }
}

struct KeyedBroadcastOperator<K, S, F> {
    selector: S,
    function: F,
    core: KeyedCore<K>,
    broadcast: BroadcastStore,
    context: RuntimeContext,
    opened: bool,
}

impl<K: Key, S, F> KeyedBroadcastOperator<K, S, F> {
    fn open<A, B, O>(&mut self) -> Result<()>
    where
        F: KeyedBroadcastProcessFunction<K, A, B, O>,
    {
        if std::mem::replace(&mut self.opened, true) { Ok(()) } else { self.function.open(&self.context) }
    }

    fn fire<A, B, O: 'static>(&mut self, domain: TimeDomain, due_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        F: KeyedBroadcastProcessFunction<K, A, B, O>,
    {
        self.open()?;
        while let Some((timestamp_ms, key)) = self.core.pop_due(domain, due_ms)? {
            let keyed = KeyedContext { key: &key, timestamp_ms, core: &mut self.core, out: &mut *out };
            self.function.on_timer(domain, &mut KeyedReadOnlyContext { keyed, broadcast: &self.broadcast })?;
        }
        Ok(())
    }
}

impl<A: Data, B: Data, K: Key, O: Data, S, F> Operator<Either<A, B>, O> for KeyedBroadcastOperator<K, S, F>
where
    S: KeySelector<A, K>,
    F: KeyedBroadcastProcessFunction<K, A, B, O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.function.initialize_state(&mut OperatorStateReader::new(&mut state))?;
        self.broadcast.restore(&mut state)?;
        self.core.restore(&mut state)?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<Either<A, B>>, out: &mut Out<O>) -> Result<()> {
        self.open()?;
        for (timestamp_ms, value) in batch {
            match value {
                Either::Left(value) => {
                    let key = self.selector.key(&value);
                    let keyed = KeyedContext { key: &key, timestamp_ms, core: &mut self.core, out: &mut *out };
                    let mut context = KeyedReadOnlyContext { keyed, broadcast: &self.broadcast };
                    self.function.process(value, &mut context)?;
                }
                Either::Right(value) => {
                    let (watermark_ms, clock) = (self.core.watermark_ms, &self.context.clock);
                    let process = ProcessContext { timestamp_ms, watermark_ms, clock, out: &mut *out };
                    let unkeyed = BroadcastContext { process, broadcast: &mut self.broadcast };
                    let mut context = KeyedBroadcastContext { unkeyed, store: &mut self.core.store };
                    self.function.process_broadcast(value, &mut context)?;
                }
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.core.watermark_ms = watermark_ms;
        self.fire(TimeDomain::Event, watermark_ms, out)?;
        out.watermark(watermark_ms)
    }

    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.fire(TimeDomain::Processing, now_ms, out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.core.processing_timers.next()
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.function.snapshot_state(&mut OperatorStateWriter::new(parts))?;
        no_reserved(parts)?;
        self.broadcast.snapshot(parts)?;
        self.core.begin_snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.core.copy_some(run)
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::broadcast_state::BroadcastDescriptor;
    use super::*;
    use crate::state::ValueState;
    use crate::testing::{Harness, Snapshot};

    const FACTORS: BroadcastState<String, i64> = BroadcastState::new("factors");
    const OTHERS: BroadcastState<u8, u8> = BroadcastState::new("others");

    /// Sums numbers by key. A timer asked for with a number emits the sum times the factor there is by then; the broadcast
    /// word "reset" empties all sums and emits each, any other word sets the factor.
    #[derive(Clone)]
    struct Sums {
        sum: ValueState<i64>,
        asks_for: BroadcastState<String, i64>,
    }

    type Input = Either<(u32, i64), (String, i64)>;
    type Summing = Harness<Input, (u32, i64)>;

    impl KeyedBroadcastProcessFunction<u32, (u32, i64), (String, i64), (u32, i64)> for Sums {
        fn process(
            &mut self,
            (_, n): (u32, i64),
            context: &mut KeyedReadOnlyContext<'_, u32, (u32, i64)>,
        ) -> Result<()> {
            *self.sum.get_or(context, || 0)? += n;
            let time = context.timestamp_ms();
            context.register_event_timer(time);
            context.register_processing_timer(time * 10);
            Ok(())
        }

        fn process_broadcast(
            &mut self,
            (word, n): (String, i64),
            context: &mut KeyedBroadcastContext<'_, u32, (u32, i64)>,
        ) -> Result<()> {
            if word != "reset" {
                context.broadcast_state(&FACTORS)?.put(word, n);
                return Ok(());
            }
            let mut sums = Vec::new();
            context.apply_to_keyed_state(&self.sum, |scope| {
                sums.push((*scope.key(), self.sum.take(scope)?.unwrap_or(0)));
                Ok(())
            })?;
            sums.into_iter().try_for_each(|sum| context.emit(sum))
        }

        fn on_timer(
            &mut self,
            domain: TimeDomain,
            context: &mut KeyedReadOnlyContext<'_, u32, (u32, i64)>,
        ) -> Result<()> {
            let word = format!("{domain:?}").to_lowercase();
            let factor = context.broadcast_state(&self.asks_for)?.get(&word);
            let sum = self.sum.get(context)?.copied().unwrap_or(0);
            let key = *context.key();
            factor.map_or(Ok(()), |factor| context.emit((key, sum * factor)))
        }
    }

    fn summing(
        states: &[&dyn BroadcastDescriptor],
        asks_for: BroadcastState<String, i64>,
        (subtask, parallelism): (usize, usize),
        snapshot: &Snapshot,
    ) -> Result<Summing> {
        let function = Sums { sum: ValueState::new("sum"), asks_for };
        let pipeline = |numbers: DataStream<(u32, i64)>, words: DataStream<(String, i64)>| {
            numbers.key_by(|number| number.0).connect_broadcast(&words.broadcast_with(states)).process(function)
        };
        Harness::two(pipeline).subtask(subtask, parallelism).restore(snapshot).build()
    }

    fn subtasks(parallelism: usize, snapshot: &Snapshot) -> Vec<Summing> {
        (0..parallelism)
            .map(|at| summing(&[&OTHERS, &FACTORS], FACTORS, (at, parallelism), snapshot).unwrap())
            .collect()
    }

    fn broadcast(subtasks: &mut [Summing], word: &str, n: i64) {
        subtasks.iter_mut().for_each(|harness| harness.push(0, Either::Right((word.to_string(), n))).unwrap());
    }

    fn results(subtasks: &mut [Summing]) -> Vec<(u32, i64)> {
        let mut all: Vec<_> = subtasks.iter_mut().flat_map(|harness| harness.take()).map(|(_, sum)| sum).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn timers_of_both_times_read_what_was_broadcast_until_then() {
        let mut one = subtasks(1, &Snapshot::default());
        one[0]
            .push_batch(vec![(10, Either::Left((1, 5))), (10, Either::Left((1, 6))), (11, Either::Left((2, 7)))])
            .unwrap();
        broadcast(&mut one, "event", 2);
        one[0].watermark(10).unwrap();
        assert_eq!(one[0].take(), [(10, (1, 22))]);
        broadcast(&mut one, "processing", 3);
        one[0].set_processing_time(100).unwrap();
        assert_eq!(one[0].take(), [(100, (1, 33))]);
        broadcast(&mut one, "event", 4);
        one[0].watermark(11).unwrap();
        assert_eq!(one[0].take(), [(11, (2, 28))]);
    }

    #[test]
    fn the_broadcast_side_reaches_the_state_of_all_keys() {
        let mut two = subtasks(2, &Snapshot::default());
        for key in 0..20 {
            let owner = two.iter_mut().find(|harness| harness.owns(&key)).unwrap();
            owner.push(0, Either::Left((key, i64::from(key) + 1))).unwrap();
        }
        broadcast(&mut two, "reset", 0);
        assert_eq!(results(&mut two), (0..20).map(|key| (key, i64::from(key) + 1)).collect::<Vec<_>>());
        broadcast(&mut two, "reset", 0);
        assert_eq!(results(&mut two), []);
    }

    #[test]
    fn every_subtask_has_a_copy_after_a_restore_with_more_or_fewer() {
        let mut running = subtasks(2, &Snapshot::default());
        broadcast(&mut running, "event", 10);
        let mut sums = [0; 12];
        for (round, parallelism) in [3, 5, 1, 4].into_iter().enumerate() {
            let saved = Snapshot::merged(running.iter_mut().map(|harness| harness.snapshot().unwrap()));
            running = subtasks(parallelism, &saved);
            for key in 0..12u32 {
                let owner = running.iter_mut().find(|harness| harness.owns(&key)).unwrap();
                owner.push(round as i64, Either::Left((key, 1))).unwrap();
                sums[key as usize] += 1;
            }
            running.iter_mut().for_each(|harness| harness.watermark(round as i64).unwrap());
            let expected: Vec<_> = (0..12).map(|key| (key, sums[key as usize] * 10)).collect();
            assert_eq!(results(&mut running), expected, "{parallelism} subtasks");
        }
        // States of keys that nobody has used since are found by the broadcast side.
        let saved = Snapshot::merged(running.iter_mut().map(|harness| harness.snapshot().unwrap()));
        let mut running = subtasks(2, &saved);
        broadcast(&mut running, "reset", 0);
        assert_eq!(results(&mut running), (0..12).map(|key| (key, 4)).collect::<Vec<_>>());
    }

    #[test]
    fn a_state_that_was_not_given_or_given_twice_is_named() {
        let none = Snapshot::default();
        let error = summing(&[&FACTORS, &FACTORS], FACTORS, (0, 1), &none).err().unwrap().to_string();
        assert!(error.contains("`factors` is given twice"), "{error}");
        let mut other = summing(&[&FACTORS], BroadcastState::new("facts"), (0, 1), &none).unwrap();
        other.push(1, Either::Left((1, 1))).unwrap();
        let error = other.watermark(1).unwrap_err().to_string();
        assert!(error.contains("no broadcast state `facts`") && error.contains("given were: factors"), "{error}");
        let mut saved = subtasks(1, &none);
        let saved = saved[0].snapshot().unwrap();
        let error = summing(&[&FACTORS], FACTORS, (0, 1), &saved).err().unwrap().to_string();
        assert!(error.contains("does not know the state `others`"), "{error}");
    }
}
