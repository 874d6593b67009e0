//! Two streams of different types in one operator: map, flat map and process functions with one method for each.
//!
//! Records of the two streams come in no particular order between them. The watermark is the smaller of both, so a
//! stream without watermarks holds back event time for both.

use tidemill_core::{Data, Result};

use super::connected_keyed::KeyedConnectedStreams;
use super::data_stream::{DataStream, fresh};
use super::either::{Either, either};
use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use super::process::{ProcessContext, ProcessFunction, RuntimeContext};
use super::stateless::BatchOperator;
use crate::driver::Records;
use crate::key::Key;
use crate::operator::Out;

/// Two streams that go into one operator together; see [`DataStream::connect`].
pub struct ConnectedStreams<A, B> {
    left: DataStream<A>,
    right: DataStream<B>,
}

/// A function on two streams, with life cycle, timestamps, watermarks, side outputs and state of the operator. One copy on
/// each subtask.
pub trait CoProcessFunction<A, B, O>: Clone + Send + 'static {
    /// Takes back what was saved; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of either stream, or the first watermark.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream.
    fn process_first(&mut self, value: A, context: &mut ProcessContext<'_, O>) -> Result<()>;

    /// For each record of the second stream.
    fn process_second(&mut self, value: B, context: &mut ProcessContext<'_, O>) -> Result<()>;

    /// Event time of both streams has come to `watermark_ms`; see [`ProcessFunction::on_watermark`].
    fn on_watermark(&mut self, watermark_ms: i64, context: &mut ProcessContext<'_, O>) -> Result<()> {
        let _ = (watermark_ms, context);
        Ok(())
    }

    /// Saves what must survive a restart; called at each checkpoint, between two records.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One value for one value of either stream, from one function with fields of its own (Flink's `RichCoMapFunction`).
/// The fields are no state: they do not survive a restart.
pub trait CoMapFunction<A, B, O>: Clone + Send + 'static {
    /// Before the first record of either stream.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream.
    fn map_first(&mut self, value: A) -> Result<O>;

    /// For each record of the second stream.
    fn map_second(&mut self, value: B) -> Result<O>;

    /// After the last record.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Any number of values for one value of either stream, from one function with fields of its own (Flink's
/// `RichCoFlatMapFunction`). The fields are no state: they do not survive a restart.
pub trait CoFlatMapFunction<A, B, O>: Clone + Send + 'static {
    /// Before the first record of either stream.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the first stream; results are pushed onto `out`.
    fn flat_map_first(&mut self, value: A, out: &mut Vec<O>) -> Result<()>;

    /// For each record of the second stream; results are pushed onto `out`.
    fn flat_map_second(&mut self, value: B, out: &mut Vec<O>) -> Result<()>;

    /// After the last record.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<A: Data> DataStream<A> {
    /// This stream and one of another type, for an operator that reads both. Each keeps its own way of spreading its
    /// records: connect to `other.broadcast()` to have all of it on every subtask.
    ///
    /// ```
    /// use tidemill_engine::Environment;
    /// let env = Environment::new();
    /// let names = env.from_collection(vec!["seven".to_string()]);
    /// let numbers = env.from_collection(vec![7u32]);
    /// let texts = names.connect(&numbers).map(|name| name, |number| number.to_string()).collect();
    /// env.execute("texts").unwrap();
    /// let mut texts = texts.take();
    /// texts.sort();
    /// assert_eq!(texts, ["7", "seven"]);
    /// ```
    pub fn connect<B: Data>(&self, other: &DataStream<B>) -> ConnectedStreams<A, B> {
        ConnectedStreams { left: self.clone(), right: other.clone() }
    }
}

impl<A: Data, B: Data> ConnectedStreams<A, B> {
    fn either(&self) -> DataStream<Either<A, B>> {
        either(&self.left, &self.right, None)
    }

    /// One value for one value: `first` maps the first stream, `second` the second.
    pub fn map<O: Data>(
        &self,
        first: impl FnMut(A) -> O + Clone + Send + 'static,
        second: impl FnMut(B) -> O + Clone + Send + 'static,
    ) -> DataStream<O> {
        co_map(&self.either(), first, second)
    }

    /// Any number of values for one value: `first` for the first stream, `second` for the second.
    pub fn flat_map<O: Data, I: IntoIterator<Item = O> + 'static, J: IntoIterator<Item = O> + 'static>(
        &self,
        first: impl FnMut(A) -> I + Clone + Send + 'static,
        second: impl FnMut(B) -> J + Clone + Send + 'static,
    ) -> DataStream<O> {
        co_flat_map(&self.either(), first, second)
    }

    /// A map with life cycle, whose two methods share the function's fields.
    pub fn rich_map<O: Data>(&self, function: impl CoMapFunction<A, B, O>) -> DataStream<O> {
        self.either().process(CoMap(function)).name("Co-Map")
    }

    /// A flat map with life cycle, whose two methods share the function's fields.
    pub fn rich_flat_map<O: Data>(&self, function: impl CoFlatMapFunction<A, B, O>) -> DataStream<O> {
        self.either().process(CoFlatMap { function, results: Vec::new() }).name("Co-Flat Map")
    }

    /// A function with life cycle, timestamps, watermarks and side outputs.
    pub fn process<O: Data>(&self, function: impl CoProcessFunction<A, B, O>) -> DataStream<O> {
        self.either().process(CoProcess(function)).name("Co-Process")
    }

    /// Divides both streams by key: records of one key meet on one subtask, whichever stream they are of.
    pub fn key_by<K: Key, F, G>(&self, first: F, second: G) -> KeyedConnectedStreams<A, B, K, F, G>
    where
        F: FnMut(&A) -> K + Clone + Send + 'static,
        G: FnMut(&B) -> K + Clone + Send + 'static,
    {
        self.left.key_by(first).connect(&self.right.key_by(second))
    }
}

pub(super) fn co_map<A: Data, B: Data, O: Data>(
    stream: &DataStream<Either<A, B>>,
    mut first: impl FnMut(A) -> O + Clone + Send + 'static,
    mut second: impl FnMut(B) -> O + Clone + Send + 'static,
) -> DataStream<O> {
    let map = move |value| match value {
        Either::Left(value) => first(value),
        Either::Right(value) => second(value),
    };
    stream.map(map).name("Co-Map")
}

pub(super) fn co_flat_map<A: Data, B: Data, O: Data, I, J>(
    stream: &DataStream<Either<A, B>>,
    first: impl FnMut(A) -> I + Clone + Send + 'static,
    second: impl FnMut(B) -> J + Clone + Send + 'static,
) -> DataStream<O>
where
    I: IntoIterator<Item = O> + 'static,
    J: IntoIterator<Item = O> + 'static,
{
    let functions = std::sync::Mutex::new((first, second));
    stream.add_operator("Co-Flat Map", move |_, _| {
        let (mut first, mut second) = fresh(&functions);
        Ok(BatchOperator::new(move |batch: Records<Either<A, B>>, out: &mut Out<O>| {
            for (timestamp_ms, value) in batch {
                let mut emit = |result| out.emit(timestamp_ms, result);
                match value {
                    Either::Left(value) => first(value).into_iter().try_for_each(&mut emit)?,
                    Either::Right(value) => second(value).into_iter().try_for_each(&mut emit)?,
                }
            }
            Ok(())
        }))
    })
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

impl<A: Data, B: Data, O: Data, F: CoMapFunction<A, B, O>> ProcessFunction<Either<A, B>, O> for CoMap<F> {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut ProcessContext<'_, O>) -> Result<()> {
        let result = match value {
            Either::Left(value) => self.0.map_first(value)?,
            Either::Right(value) => self.0.map_second(value)?,
        };
        context.emit(result)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

impl<A: Data, B: Data, O: Data, F> ProcessFunction<Either<A, B>, O> for CoFlatMap<F, O>
where
    F: CoFlatMapFunction<A, B, O>,
{
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.function.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut ProcessContext<'_, O>) -> Result<()> {
        match value {
            Either::Left(value) => self.function.flat_map_first(value, &mut self.results)?,
            Either::Right(value) => self.function.flat_map_second(value, &mut self.results)?,
        }
        self.results.drain(..).try_for_each(|result| context.emit(result))
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

impl<A: Data, B: Data, O: Data, F: CoProcessFunction<A, B, O>> ProcessFunction<Either<A, B>, O> for CoProcess<F> {
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        self.0.initialize_state(saved)
    }

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.0.open(context)
    }

    fn process(&mut self, value: Either<A, B>, context: &mut ProcessContext<'_, O>) -> Result<()> {
        match value {
            Either::Left(value) => self.0.process_first(value, context),
            Either::Right(value) => self.0.process_second(value, context),
        }
    }

    fn on_watermark(&mut self, watermark_ms: i64, context: &mut ProcessContext<'_, O>) -> Result<()> {
        self.0.on_watermark(watermark_ms, context)
    }

    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        self.0.snapshot_state(state)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}
