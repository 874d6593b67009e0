//! A stream connected to a broadcast one: every subtask sees all of the broadcast stream and keeps what it says in
//! broadcast state; records of the other stream go to one subtask each and read that state. Rules that change while the
//! job runs are its use.
//!
//! The broadcast side reads and writes, the other side only reads, and the types say so: else the copies of the subtasks
//! would drift apart. For the same reason what the broadcast side does must not depend on the subtask. There is no order
//! between the two streams, and subtasks may see a broadcast record at different times beside the records of the other
//! stream. The watermark is the smaller of both: a broadcast stream without watermarks holds back event time.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use tidemill_core::{Data, Result, WATERMARK_MIN};

use super::broadcast_state::{BroadcastDescriptor, BroadcastMap, BroadcastState, BroadcastStore, DeclaredState};
use super::data_stream::{DataStream, fresh};
use super::either::{Either, either};
use super::process::{ProcessContext, RuntimeContext};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{Operator, Out, SnapshotParts};
use crate::state::Restored;

/// A stream whose records go to every subtask, with the states they are kept in; see [`DataStream::broadcast_with`].
pub struct BroadcastStream<T> {
    pub(super) stream: DataStream<T>,
    pub(super) states: Vec<DeclaredState>,
}

/// A stream and a broadcast one; see [`DataStream::connect_broadcast`].
pub struct BroadcastConnectedStream<A, B> {
    stream: DataStream<A>,
    broadcast: BroadcastStream<B>,
}

/// A function on a stream and a broadcast one. One copy runs on each subtask.
pub trait BroadcastProcessFunction<A, B, O>: Clone + Send + 'static {
    /// Before the first record of either stream.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record of the stream that is not broadcast; it comes to one subtask.
    fn process(&mut self, value: A, context: &mut ReadOnlyContext<'_, O>) -> Result<()>;

    /// For each broadcast record; it comes to every subtask, so what is emitted here is emitted by every subtask.
    fn process_broadcast(&mut self, value: B, context: &mut BroadcastContext<'_, O>) -> Result<()>;

    /// After the last record.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a function sees beside a record that was not broadcast: all that [`ProcessContext`] has, and broadcast state to
/// be read.
pub struct ReadOnlyContext<'a, O> {
    process: ProcessContext<'a, O>,
    broadcast: &'a BroadcastStore,
}

impl<'a, O> ReadOnlyContext<'a, O> {
    /// This subtask's copy of a broadcast state. It can be held while results are emitted.
    pub fn broadcast_state<K: Key, V: Data>(&self, state: &BroadcastState<K, V>) -> Result<&'a BroadcastMap<K, V>> {
        self.broadcast.map(state)
    }
}

impl<'a, O> Deref for ReadOnlyContext<'a, O> {
    type Target = ProcessContext<'a, O>;

    fn deref(&self) -> &Self::Target {
        &self.process
    }
}

impl<O> DerefMut for ReadOnlyContext<'_, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.process
    }
}

/// What a function sees beside a broadcast record: all that [`ProcessContext`] has, and broadcast state to be changed.
pub struct BroadcastContext<'a, O> {
    pub(super) process: ProcessContext<'a, O>,
    pub(super) broadcast: &'a mut BroadcastStore,
}

impl<O> BroadcastContext<'_, O> {
    /// This subtask's copy of a broadcast state. Every subtask must change it alike.
    pub fn broadcast_state<K: Key, V: Data>(
        &mut self,
        state: &BroadcastState<K, V>,
    ) -> Result<&mut BroadcastMap<K, V>> {
        self.broadcast.map_mut(state)
    }
}

impl<'a, O> Deref for BroadcastContext<'a, O> {
    type Target = ProcessContext<'a, O>;

    fn deref(&self) -> &Self::Target {
        &self.process
    }
}

impl<O> DerefMut for BroadcastContext<'_, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.process
    }
}

impl<A: Data> DataStream<A> {
    /// Every record to every subtask of the operator it will be connected to, which keeps what they say in these states.
    pub fn broadcast_with(&self, states: &[&dyn BroadcastDescriptor]) -> BroadcastStream<A> {
        let states = states.iter().map(|state| state.declare()).collect();
        BroadcastStream { stream: self.broadcast(), states }
    }

    /// This stream and a broadcast one, for an operator that keeps the latter's state on every subtask.
    ///
    /// ```
    /// use tidemill_core::Result;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::stream::{BroadcastContext, BroadcastProcessFunction, BroadcastState, ReadOnlyContext};
    ///
    /// const LIMITS: BroadcastState<String, u32> = BroadcastState::new("limits");
    ///
    /// /// Emits what is above the limit of its kind; nothing is, as long as there is no limit.
    /// #[derive(Clone)]
    /// struct AboveLimit;
    ///
    /// impl BroadcastProcessFunction<(String, u32), (String, u32), (String, u32)> for AboveLimit {
    ///     fn process(
    ///         &mut self,
    ///         reading: (String, u32),
    ///         context: &mut ReadOnlyContext<'_, (String, u32)>,
    ///     ) -> Result<()> {
    ///         match context.broadcast_state(&LIMITS)?.get(&reading.0) {
    ///             Some(limit) if reading.1 > *limit => context.emit(reading),
    ///             _ => Ok(()),
    ///         }
    ///     }
    ///     fn process_broadcast(
    ///         &mut self,
    ///         (kind, limit): (String, u32),
    ///         context: &mut BroadcastContext<'_, (String, u32)>,
    ///     ) -> Result<()> {
    ///         context.broadcast_state(&LIMITS)?.put(kind, limit);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let env = Environment::new();
    /// let limits = env.from_collection(vec![("heat".to_string(), 30)]).broadcast_with(&[&LIMITS]);
    /// let readings = env.from_collection(vec![("heat".to_string(), 29), ("heat".to_string(), 31)]);
    /// let alarms = readings.connect_broadcast(&limits).process(AboveLimit).collect();
    /// env.execute("alarms").unwrap();
    /// // Whether the limit was there before the readings is not given.
    /// assert!(alarms.take().iter().all(|(_, heat)| *heat == 31));
    /// ```
    pub fn connect_broadcast<B: Data>(&self, other: &BroadcastStream<B>) -> BroadcastConnectedStream<A, B> {
        let broadcast = BroadcastStream { stream: other.stream.clone(), states: other.states.clone() };
        BroadcastConnectedStream { stream: self.clone(), broadcast }
    }
}

impl<A: Data, B: Data> BroadcastConnectedStream<A, B> {
    /// A function with life cycle, timestamps, watermarks and side outputs.
    pub fn process<O: Data>(&self, function: impl BroadcastProcessFunction<A, B, O>) -> DataStream<O> {
        let both = either(&self.stream, &self.broadcast.stream, None);
        let states = self.broadcast.states.clone();
        let function = Mutex::new(function);
        both.add_operator("Co-Process-Broadcast", move |builder, node| {
            Ok(BroadcastOperator {
                function: fresh(&function),
                broadcast: BroadcastStore::new(&states)?,
                context: builder.runtime_context(node),
                watermark_ms: WATERMARK_MIN,
                opened: false,
            })
        })
    }
}

struct BroadcastOperator<F> {
    function: F,
    broadcast: BroadcastStore,
    context: RuntimeContext,
    watermark_ms: i64,
    opened: bool,
}

impl<A: Data, B: Data, O: Data, F> Operator<Either<A, B>, O> for BroadcastOperator<F>
where
    F: BroadcastProcessFunction<A, B, O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.broadcast.restore(&mut state)?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<Either<A, B>>, out: &mut Out<O>) -> Result<()> {
        if !std::mem::replace(&mut self.opened, true) {
            self.function.open(&self.context)?;
        }
        for (timestamp_ms, value) in batch {
            let clock = &self.context.clock;
            let process = ProcessContext { timestamp_ms, watermark_ms: self.watermark_ms, clock, out: &mut *out };
            match value {
                Either::Left(value) => {
                    let mut context = ReadOnlyContext { process, broadcast: &self.broadcast };
                    self.function.process(value, &mut context)?;
                }
                Either::Right(value) => {
                    let mut context = BroadcastContext { process, broadcast: &mut self.broadcast };
                    self.function.process_broadcast(value, &mut context)?;
                }
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.watermark_ms = watermark_ms;
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.broadcast.snapshot(parts)
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }
}
