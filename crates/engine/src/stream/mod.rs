//! The typed DataStream API: build a graph of streams on an [`Environment`], then `execute` it.
//!
//! ```
//! use tidemill_engine::Environment;
//! let env = Environment::new();
//! let counts = env
//!     .from_collection(vec!["to be", "or not to be"].into_iter().map(String::from).collect())
//!     .flat_map(|line: String| line.split(' ').map(|word| (word.to_string(), 1u64)).collect::<Vec<_>>())
//!     .key_by(|(word, _)| word.clone())
//!     .sum(|(_, count)| count)
//!     .collect();
//! env.execute("word count").unwrap();
//! assert!(counts.take().contains(&("be".to_string(), 2)));
//! ```

mod accumulator;
mod assign;
mod async_io;
mod async_io_pool;
mod async_io_queue;
mod broadcast;
mod broadcast_keyed;
mod broadcast_state;
mod collect_iterator;
mod collection;
mod connected;
mod connected_keyed;
mod data_stream;
mod either;
mod environment;
mod interval_join;
mod keyed;
mod keyed_process;
mod operator_state;
pub(crate) mod partition;
mod print;
mod process;
mod rich;
mod rolling;
mod selector;
mod sink;
mod split;
pub(crate) mod stateless;
pub(crate) mod watermark;
mod window_join;
mod windowed;

pub use accumulator::{Accumulate, Accumulator, Average, DoubleCounter, LongCounter, Maximum, Minimum, Tally};
pub use async_io::{ASYNC_CAPACITY, AsyncFunction, AsyncOptions, AsyncRetry};
pub use async_io_pool::AsyncResult;
pub use broadcast::{
    BroadcastConnectedStream, BroadcastContext, BroadcastProcessFunction, BroadcastStream, ReadOnlyContext,
};
pub use broadcast_keyed::{
    KeyedBroadcastConnectedStream, KeyedBroadcastContext, KeyedBroadcastProcessFunction, KeyedReadOnlyContext,
};
pub use broadcast_state::{BroadcastDescriptor, BroadcastMap, BroadcastState, DeclaredState};
pub use collect_iterator::{COLLECT_ROWS_MAX, CollectIterator};
pub use collection::{CollectionSource, SequenceSource};
pub use connected::{CoFlatMapFunction, CoMapFunction, CoProcessFunction, ConnectedStreams};
pub use connected_keyed::{KeyedCoProcessFunction, KeyedConnectedStreams, RichCoFlatMapFunction, RichCoMapFunction};
pub use data_stream::DataStream;
pub(crate) use data_stream::fresh;
pub use either::Either;
pub use environment::{Environment, ExecutionPlan, JobClient, JobHandle};
pub use interval_join::{IntervalJoin, IntervalJoined, ProcessJoinContext, ProcessJoinFunction};
pub use keyed::KeyedStream;
pub use keyed_process::{KeyedContext, KeyedProcessFunction, TimeDomain};
pub use operator_state::{OperatorStateReader, OperatorStateWriter};
pub use print::flink_text;
pub use process::{ProcessContext, ProcessFunction, RuntimeContext};
pub use rich::{KeyedScope, RichFilterFunction, RichFlatMapFunction, RichMapFunction};
pub use selector::{ByRef, KeySelector};
pub use sink::{Collected, NOBODY_READS};
pub use split::SplitStream;
pub use watermark::{WatermarkGenerator, WatermarkStrategy};
pub use window_join::{CoGroup, Join, JoinedStreams, JoinedStreamsEqual, JoinedStreamsWhere, WindowJoin};
pub use windowed::{AllWindowedStream, WindowedStream};

pub use tidemill_core::metrics::{Counter, Gauge};

pub use crate::runtime::user_metrics::{Histogram, Meter, MetricGroup};
