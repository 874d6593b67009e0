//! Two inputs as one: the records of two streams as one stream of [`Either`].
//!
//! There is no second kind of operator for two inputs. Each input is wrapped by a small node in its sender's chain, and
//! each edge keeps its own way of spreading records; the operator below reads one type and takes the smaller watermark
//! of its inputs, as every operator does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, Result};

use super::data_stream::{DataStream, Origin};
use super::partition::{Broadcast, Forward, Global, Partition, PartitionFactory, Rebalance, Rescale, Shuffle};
use super::stateless::{BatchOperator, map};
use crate::driver::Records;
use crate::graph::ShipKind;
use crate::testing::two;

/// A record of one of two streams: of the one a function was called on (left, first) or of the other (right, second).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Either<L, R> {
    /// Of the first stream.
    Left(L),
    /// Of the second stream.
    Right(R),
}

/// How keyed edges spread their records, now that these are wrapped.
pub(super) type ByKeyOfEither<A, B> = Arc<dyn PartitionFactory<Either<A, B>>>;

/// Both streams as one. `by_key` takes the place of the partitioner on edges that are divided by key.
pub(super) fn either<A: Data, B: Data>(
    left: &DataStream<A>,
    right: &DataStream<B>,
    by_key: Option<ByKeyOfEither<A, B>>,
) -> DataStream<Either<A, B>> {
    left.env.meets(&right.env, "`connect`");
    if let ([left_origin], [right_origin]) = (left.origins.as_slice(), right.origins.as_slice())
        && let Some(node) = two::both((left_origin.node, left_origin.tag), (right_origin.node, right_origin.tag))
    {
        return DataStream::new(left.env.clone(), Origin::of(node, None));
    }
    let is_left = |value| if let Either::Left(value) = value { Some(value) } else { None };
    let is_right = |value| if let Either::Right(value) = value { Some(value) } else { None };
    let left = wrapped(left, "Left Input", (Either::Left, is_left), by_key.as_ref());
    left.union(&[&wrapped(right, "Right Input", (Either::Right, is_right), by_key.as_ref())])
}

/// How records are wrapped, and taken out again.
type Wrapping<T, O> = (fn(T) -> O, fn(O) -> Option<T>);

/// A partitioner that knows the unwrapped records alone, for wrapped ones.
struct Unwrapped<T, O> {
    inner: Arc<dyn PartitionFactory<T>>,
    wrap: fn(T) -> O,
    unwrap: fn(O) -> Option<T>,
}

struct UnwrappedPartition<T, O> {
    inner: Box<dyn Partition<T>>,
    wrap: fn(T) -> O,
    unwrap: fn(O) -> Option<T>,
    /// One a receiver, empty between two batches.
    buffers: Vec<Records<T>>,
}

impl<T: 'static, O: 'static> PartitionFactory<O> for Unwrapped<T, O> {
    fn make(&self, subtask: usize, senders: usize, receivers: usize) -> Box<dyn Partition<O>> {
        let (inner, wrap, unwrap) = (self.inner.make(subtask, senders, receivers), self.wrap, self.unwrap);
        Box::new(UnwrappedPartition { inner, wrap, unwrap, buffers: Vec::new() })
    }
}

impl<T, O> Partition<O> for UnwrappedPartition<T, O> {
    fn scatter(&mut self, batch: Records<O>, buffers: &mut [Records<O>]) -> Result<()> {
        let (wrap, unwrap) = (self.wrap, self.unwrap);
        self.buffers.resize_with(buffers.len(), Vec::new);
        let plain = batch.into_iter().filter_map(|(time_ms, value)| Some((time_ms, unwrap(value)?))).collect();
        self.inner.scatter(plain, &mut self.buffers)?;
        for (buffer, plain) in buffers.iter_mut().zip(&mut self.buffers) {
            buffer.extend(plain.drain(..).map(|(time_ms, value)| (time_ms, wrap(value))));
        }
        Ok(())
    }
}

/// A stream with each origin followed by a node that wraps its records, as parallel as the origin and so in its chain.
fn wrapped<T: Data, O: Data>(
    stream: &DataStream<T>,
    name: &str,
    (wrap, unwrap): Wrapping<T, O>,
    by_key: Option<&Arc<dyn PartitionFactory<O>>>,
) -> DataStream<O> {
    let mut origins = Vec::new();
    for origin in &stream.origins {
        let partition: Arc<dyn PartitionFactory<O>> = match (origin.kind, by_key) {
            (ShipKind::Hash, Some(by_key)) => by_key.clone(),
            (ShipKind::Forward | ShipKind::ForwardOnly | ShipKind::Hash, _) => Arc::new(Forward),
            (ShipKind::Rebalance, _) => Arc::new(Rebalance),
            (ShipKind::Rescale, _) => Arc::new(Rescale),
            (ShipKind::Shuffle { seed }, _) => Arc::new(Shuffle { seed }),
            (ShipKind::Custom, _) => Arc::new(Unwrapped { inner: origin.partition.clone(), wrap, unwrap }),
            (ShipKind::Broadcast, _) => Arc::new(Broadcast),
            (ShipKind::Global, _) => Arc::new(Global),
        };
        let before = DataStream::new(stream.env.clone(), Origin::<T>::of(origin.node, origin.tag));
        let after = before.add_operator(name, move |_, _| Ok(BatchOperator::new(map(wrap))));
        let after = after.parallel_to(origin.node);
        origins.extend(after.origins.into_iter().map(|new| Origin {
            kind: origin.kind,
            partition: partition.clone(),
            ..new
        }));
    }
    DataStream { env: stream.env.clone(), origins }
}
