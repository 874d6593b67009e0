//! Two keyed streams in one operator: records of one key meet on one subtask, and both streams see the same state and
//! timers of the key. This is the join one writes by hand: keep what came first, emit when the other comes, let a timer
//! forget what stayed alone.

use std::sync::Arc;

use tidemill_core::{Data, Result};

use super::connected::{co_flat_map, co_map};
use super::data_stream::DataStream;
use super::either::{Either, either};
use super::keyed::KeyedStream;
use super::keyed_process::{KeyedContext, KeyedProcessFunction, TimeDomain};
use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use super::partition::by_key;
use super::process::RuntimeContext;
use super::rich::{KeyedScope, scope};
use super::selector::KeySelector;
use crate::key::Key;

/// Two keyed streams that go into one operator together; see [`KeyedStream::connect`].
pub struct KeyedConnectedStreams<A, B, K, F, G> {
    left: KeyedStream<A, K, F>,
    right: KeyedStream<B, K, G>,
}

/// A function on two keyed streams. State handles such as `ValueState` are its fields; they mean the current key,
/// whichever stream the record is of.
///
/// ```
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::state::ValueState;
/// use tidemill_engine::stream::{KeyedCoProcessFunction, KeyedContext};
///
/// /// Pairs an order with its payment, whichever comes first.
/// #[derive(Clone)]
/// struct Pair {
///     order: ValueState<String>,
///     payment: ValueState<u32>,
/// }
///
/// impl KeyedCoProcessFunction<u64, (u64, String), (u64, u32), (String, u32)> for Pair {
///     fn process_first(
///         &mut self,
///         (_, order): (u64, String),
///         context: &mut KeyedContext<'_, u64, (String, u32)>,
///     ) -> Result<()> {
///         match self.payment.take(context)? {
///             Some(paid) => context.emit((order, paid)),
///             None => self.order.set(context, order),
///         }
///     }
///     fn process_second(
///         &mut self,
///         (_, paid): (u64, u32),
///         context: &mut KeyedContext<'_, u64, (String, u32)>,
///     ) -> Result<()> {
///         match self.order.take(context)? {
///             Some(order) => context.emit((order, paid)),
///             None => self.payment.set(context, paid),
///         }
///     }
/// }
///
/// let env = Environment::new();
/// env.set_parallelism(1);
/// let orders = env.from_collection(vec![(1u64, "tea".to_string()), (2, "rice".to_string())]).key_by(|order| order.0);
/// let payments = env.from_collection(vec![(2u64, 30u32)]).key_by(|payment| payment.0);
/// let paid = orders
///     .connect(&payments)
///     .process(Pair { order: ValueState::new("order"), payment: ValueState::new("payment") })
///     .collect();
/// env.execute("paid orders").unwrap();
/// assert_eq!(paid.take(), [("rice".to_string(), 30)]);
/// ```
pub trait KeyedCoProcessFunction<K: Key, A, B, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask. No key is current here.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream.
    fn process_first(&mut self, value: A, context: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// For each record of the second stream.
    fn process_second(&mut self, value: B, context: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// A timer of the current key is due; `context.timestamp_ms()` is its time. Event-time timers fire when the
    /// watermarks of both streams have reached it.
    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let _ = (domain, context);
        Ok(())
    }

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One value for one value of either stream, with keyed state that both share (Flink's `RichCoMapFunction` on keyed
/// streams).
pub trait RichCoMapFunction<K: Key, A, B, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream.
    fn map_first(&mut self, value: A, state: &mut KeyedScope<'_, K>) -> Result<O>;

    /// For each record of the second stream.
    fn map_second(&mut self, value: B, state: &mut KeyedScope<'_, K>) -> Result<O>;

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Any number of values for one value of either stream, with keyed state that both share (Flink's
/// `RichCoFlatMapFunction` on keyed streams).
pub trait RichCoFlatMapFunction<K: Key, A, B, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream; results are pushed onto `out`.
    fn flat_map_first(&mut self, value: A, state: &mut KeyedScope<'_, K>, out: &mut Vec<O>) -> Result<()>;

    /// For each record of the second stream; results are pushed onto `out`.
    fn flat_map_second(&mut self, value: B, state: &mut KeyedScope<'_, K>, out: &mut Vec<O>) -> Result<()>;

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<A: Data, K: Key, F: KeySelector<A, K>> KeyedStream<A, K, F> {
    /// This stream and another with keys of the same type, for an operator whose state and timers both share.
    pub fn connect<B: Data, G: KeySelector<B, K>>(
        &self,
        other: &KeyedStream<B, K, G>,
    ) -> KeyedConnectedStreams<A, B, K, F, G> {
        KeyedConnectedStreams {
            left: KeyedStream::new(self.stream.clone(), self.selector.clone()),
            right: KeyedStream::new(other.stream.clone(), other.selector.clone()),
        }
    }
}

impl<A, B, K, F, G> KeyedConnectedStreams<A, B, K, F, G>
where
    A: Data,
    B: Data,
    K: Key,
    F: KeySelector<A, K>,
    G: KeySelector<B, K>,
{
    /// Both streams as one that is divided by the same keys.
    pub(super) fn keyed(&self) -> KeyedStream<Either<A, B>, K, impl KeySelector<Either<A, B>, K> + use<A, B, K, F, G>> {
        let (mut first, mut second) = (self.left.selector.clone(), self.right.selector.clone());
        let selector = move |value: &Either<A, B>| match value {
            Either::Left(value) => first.key(value),
            Either::Right(value) => second.key(value),
        };
        let partition = Arc::new(by_key(selector.clone()));
        KeyedStream::new(either(&self.left.stream, &self.right.stream, Some(partition)), selector)
    }

    /// One value for one value: `first` maps the first stream, `second` the second.
    pub fn map<O: Data>(
        &self,
        first: impl FnMut(A) -> O + Clone + Send + 'static,
        second: impl FnMut(B) -> O + Clone + Send + 'static,
    ) -> DataStream<O> {
        co_map(&self.keyed().stream, first, second)
    }

    /// Any number of values for one value: `first` for the first stream, `second` for the second.
    pub fn flat_map<O: Data, I: IntoIterator<Item = O> + 'static, J: IntoIterator<Item = O> + 'static>(
        &self,
        first: impl FnMut(A) -> I + Clone + Send + 'static,
        second: impl FnMut(B) -> J + Clone + Send + 'static,
    ) -> DataStream<O> {
        co_flat_map(&self.keyed().stream, first, second)
    }

    /// A map with life cycle and keyed state.
    pub fn rich_map<O: Data>(&self, function: impl RichCoMapFunction<K, A, B, O>) -> DataStream<O> {
        self.keyed().process(CoMap(function)).name("Co-Map")
    }

    /// A flat map with life cycle and keyed state.
    pub fn rich_flat_map<O: Data>(&self, function: impl RichCoFlatMapFunction<K, A, B, O>) -> DataStream<O> {
        self.keyed().process(CoFlatMap { function, results: Vec::new() }).name("Co-Flat Map")
    }

    /// A function with keyed state, timers and side outputs.
    pub fn process<O: Data>(&self, function: impl KeyedCoProcessFunction<K, A, B, O>) -> DataStream<O> {
        self.keyed().process(CoProcess(function)).name("Co-Keyed-Process")
    }
}

#[derive(Clone)]
struct CoMap<F>(F);
#[derive(Clone)]
struct CoFlatMap<F, O> {
    function: F,
    results: Vec<O>,
}
#[derive(Clone)]
struct CoProcess<F>(F);

impl<K: Key, A: Data, B: Data, O: Data, F> KeyedProcessFunction<K, Either<A, B>, O> for CoMap<F>
where
    F: RichCoMapFunction<K, A, B, O>,
{
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let result = match value {
            Either::Left(value) => self.0.map_first(value, &mut scope(context))?,
            Either::Right(value) => self.0.map_second(value, &mut scope(context))?,
        };
        context.emit(result)
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

impl<K: Key, A: Data, B: Data, O: Data, F> KeyedProcessFunction<K, Either<A, B>, O> for CoFlatMap<F, O>
where
    F: RichCoFlatMapFunction<K, A, B, O>,
{
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.function.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.function.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        match value {
            Either::Left(value) => self.function.flat_map_first(value, &mut scope(context), &mut self.results)?,
            Either::Right(value) => self.function.flat_map_second(value, &mut scope(context), &mut self.results)?,
        }
        self.results.drain(..).try_for_each(|result| context.emit(result))
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.function.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

impl<K: Key, A: Data, B: Data, O: Data, F> KeyedProcessFunction<K, Either<A, B>, O> for CoProcess<F>
where
    F: KeyedCoProcessFunction<K, A, B, O>,
{
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        match value {
            Either::Left(value) => self.0.process_first(value, context),
            Either::Right(value) => self.0.process_second(value, context),
        }
    }

    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        self.0.on_timer(domain, context)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::OutputTag;
    use crate::state::ValueState;
    use crate::testing::Harness;

    const ALONE: OutputTag<String> = OutputTag::new("alone");

    /// The first stream sets a number, the second asks for it to be shown later, in either time.
    #[derive(Clone)]
    struct Later {
        number: ValueState<i64>,
        opened: bool,
    }

    impl KeyedCoProcessFunction<u8, (u8, i64), (u8, TimeInWords, i64), i64> for Later {
        fn open(&mut self, _: &RuntimeContext) -> Result<()> {
            self.opened = true;
            Ok(())
        }

        fn process_first(&mut self, (_, n): (u8, i64), context: &mut KeyedContext<'_, u8, i64>) -> Result<()> {
            assert!(self.opened, "opened before the first record");
            self.number.set(context, n)
        }

        fn process_second(
            &mut self,
            (_, time, at): (u8, TimeInWords, i64),
            context: &mut KeyedContext<'_, u8, i64>,
        ) -> Result<()> {
            match time.as_str() {
                "event" => context.register_event_timer(at),
                "clock" => context.register_processing_timer(at),
                _ => context.delete_event_timer(at),
            }
            Ok(())
        }

        fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, u8, i64>) -> Result<()> {
            match self.number.get(context)?.copied() {
                Some(n) => context.emit(n),
                None => context.side_output(ALONE, format!("{domain:?} {}", context.key())),
            }
        }
    }

    type TimeInWords = String;

    #[test]
    fn both_streams_share_a_keys_state_and_its_timers_of_both_times() {
        let function = Later { number: ValueState::new("number"), opened: false };
        let pipeline = |left: DataStream<(u8, i64)>, right: DataStream<(u8, TimeInWords, i64)>| {
            left.connect(&right).key_by(|number| number.0, |asked| asked.0).process(function)
        };
        let mut later = Harness::two(pipeline).side_output(ALONE).build().unwrap();
        let ask = |key, time: &str, at| (0, Either::Right((key, time.to_string(), at)));
        let asked = vec![ask(1, "event", 10), ask(1, "clock", 20), ask(2, "event", 10), ask(3, "event", 9)];
        later.push_batch(asked).unwrap();
        later.push_batch(vec![(0, Either::Left((1, 77))), ask(3, "never", 9)]).unwrap();
        later.watermark(9).unwrap();
        assert_eq!(later.take(), []);
        later.watermark(10).unwrap();
        assert_eq!((later.take(), later.take_side(ALONE)), (vec![(10, 77)], vec![(10, "Event 2".to_string())]));
        later.set_processing_time(20).unwrap();
        assert_eq!(later.take(), [(20, 77)]);
    }
}
