//! Everything a Rust program needs to build and run streaming jobs.
//!
//! ```
//! use tidemill::prelude::*;
//!
//! let env = Environment::new();
//! let counts = env
//!     .from_collection(vec!["to be or not to be".to_string()])
//!     .flat_map(|line: String| line.split(' ').map(|word| (word.to_string(), 1u64)).collect::<Vec<_>>())
//!     .key_by(|(word, _)| word.clone())
//!     .sum(|(_, count)| count)
//!     .collect();
//! env.execute("word count").unwrap();
//! assert!(counts.take().contains(&("be".to_string(), 2)));
//! ```

mod connect;
pub mod pipeline;

pub use connect::Connect;
pub use tidemill_connectors as connectors;
pub use tidemill_core as core;
pub use tidemill_engine as engine;
pub use tidemill_engine::runtime::{run_job, run_job_with};

/// What nearly every program needs.
pub mod prelude {
    pub use std::time::Duration;

    pub use tidemill_core::{ColumnBatch, DeadLetter, Error, NO_TIMESTAMP, Result, RowKind};
    pub use tidemill_engine::columnar::{AggregateCall, ColumnStream};
    pub use tidemill_engine::operator::OutputTag;
    pub use tidemill_engine::runtime::{CheckpointRetention, ClaimMode, RuntimeMode, run_job};
    pub use tidemill_engine::state::{AggregatingState, ListState, MapState, ReducingState, Ttl, ValueState};
    pub use tidemill_engine::stream::{Accumulator, LongCounter, OperatorStateReader, OperatorStateWriter};
    pub use tidemill_engine::stream::{AsyncFunction, AsyncOptions, AsyncRetry};
    pub use tidemill_engine::stream::{
        BroadcastContext, BroadcastProcessFunction, BroadcastState, KeyedBroadcastContext,
        KeyedBroadcastProcessFunction, KeyedReadOnlyContext, ReadOnlyContext,
    };
    pub use tidemill_engine::stream::{
        CoFlatMapFunction, CoMapFunction, CoProcessFunction, Either, KeyedCoProcessFunction, ProcessJoinContext,
        ProcessJoinFunction, RichCoFlatMapFunction, RichCoMapFunction,
    };
    pub use tidemill_engine::stream::{
        DataStream, Environment, KeyedContext, KeyedProcessFunction, KeyedScope, ProcessContext, ProcessFunction,
        RichFilterFunction, RichFlatMapFunction, RichMapFunction, RuntimeContext, TimeDomain, WatermarkGenerator,
        WatermarkStrategy,
    };
    pub use tidemill_engine::window::{
        Aggregate, ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, Count, CountEvictor, CountTrigger,
        DeltaEvictor, DeltaTrigger, EventTimeTrigger, Evictor, EvictorContext, GlobalWindows, NeverTrigger,
        ProcessWindowFunction, ProcessingTimeTrigger, ProcessingTimeoutTrigger, PurgingTrigger, Session, Sliding,
        TimeEvictor, Trigger, TriggerContext, TriggerResult, Tumbling, Window, WindowContext,
    };

    pub use crate::Connect;
}
