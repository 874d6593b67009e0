//! Process functions without a key: life cycle, timestamps, watermarks, side outputs, state of the operator.

use std::sync::Arc;

use tidemill_core::metrics::SharedMetrics;
use tidemill_core::{Data, NO_TIMESTAMP, Result, SharedClock};

use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use crate::driver::Records;
use crate::driver::build::TaskBuilder;
use crate::operator::{Operator, Out, OutputTag, SnapshotParts};
use crate::runtime::JobMode;
use crate::runtime::user_metrics::MetricGroup;
use crate::state::{Restored, StateHome};

/// Where a function runs.
#[derive(Clone)]
pub struct RuntimeContext {
    /// The operator's name.
    pub name: String,
    /// The operator's stable id.
    pub uid: String,
    /// The name of the task: all operators of its chain.
    pub task_name: String,
    /// This subtask, from 0.
    pub subtask: usize,
    /// The number of subtasks.
    pub parallelism: usize,
    /// The largest parallelism the state can be divided over: the number of key groups.
    pub max_parallelism: usize,
    /// Counts the starts of the job, from 1.
    pub attempt: u64,
    /// The job's id, 32 hex digits.
    pub job_id: String,
    /// Whether the job runs in batch mode, where only final results count.
    pub batch: bool,
    /// The job's clock.
    pub clock: SharedClock,
    /// Counters, gauges, meters and histograms of this subtask.
    pub metrics: MetricGroup,
    /// Where keyed state stands.
    pub(crate) state: StateHome,
}

impl TaskBuilder<'_, '_> {
    /// Where the source or sink of a node counts.
    pub(crate) fn metrics_of(&self, node: usize) -> SharedMetrics {
        let (uid, clock) = (self.shared.plan.uids[node].clone(), self.shared.control.clock().clone());
        Arc::new(MetricGroup::new(self.shared.user.clone(), uid, self.subtask.unwrap_or(0), clock))
    }

    pub(crate) fn runtime_context(&self, node: usize) -> RuntimeContext {
        let (shared, plan) = (self.shared, &self.shared.plan);
        let (uid, subtask) = (plan.uids[node].clone(), self.subtask.unwrap_or(0));
        let clock = shared.control.clock().clone();
        RuntimeContext {
            name: plan.nodes[node].name.clone(),
            uid: uid.clone(),
            task_name: plan.task_name(plan.task_of[node]),
            subtask,
            parallelism: plan.parallelism[node],
            max_parallelism: plan.max_parallelism[node],
            attempt: shared.attempt,
            job_id: shared.job_id.clone(),
            batch: shared.mode == JobMode::Batch,
            state: shared.state.clone(),
            metrics: MetricGroup::new(shared.user.clone(), uid, subtask, clock.clone()),
            clock,
        }
    }
}

/// A function from records of `I` to any number of records of `O`. One copy runs on each subtask.
///
/// A function that gathers records before a shuffle and hands on what it has at each watermark. What it holds is saved
/// at each checkpoint:
///
/// ```
/// use std::collections::BTreeMap;
/// use tidemill_core::Result;
/// use tidemill_engine::Environment;
/// use tidemill_engine::stream::{OperatorStateReader, OperatorStateWriter, ProcessContext, ProcessFunction};
///
/// #[derive(Clone, Default)]
/// struct CountBefore(BTreeMap<String, u64>);
///
/// impl ProcessFunction<String, (String, u64)> for CountBefore {
///     fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
///         for (word, count) in saved.list::<(String, u64)>("counts")? {
///             *self.0.entry(word).or_default() += count;
///         }
///         Ok(())
///     }
///     fn process(&mut self, word: String, _: &mut ProcessContext<'_, (String, u64)>) -> Result<()> {
///         *self.0.entry(word).or_default() += 1;
///         Ok(())
///     }
///     fn on_watermark(&mut self, _: i64, context: &mut ProcessContext<'_, (String, u64)>) -> Result<()> {
///         std::mem::take(&mut self.0).into_iter().try_for_each(|count| context.emit(count))
///     }
///     fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
///         let counts: Vec<(String, u64)> = self.0.clone().into_iter().collect();
///         state.list("counts", &counts)
///     }
/// }
///
/// let env = Environment::new();
/// let words = ["to", "be", "or", "not", "to", "be"].map(String::from).to_vec();
/// let counts = env.from_collection(words).process(CountBefore::default()).key_by(|(word, _)| word.clone());
/// let counts = counts.sum(|(_, count)| count).collect();
/// env.execute("count before the shuffle")?;
/// assert!(counts.take().contains(&("be".to_string(), 2)));
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub trait ProcessFunction<I, O>: Clone + Send + 'static {
    /// Takes back what was saved; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record or watermark.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record.
    fn process(&mut self, value: I, context: &mut ProcessContext<'_, O>) -> Result<()>;

    /// Event time has come to `watermark_ms`; at the end of the input to `WATERMARK_MAX`, also in streams without event
    /// time. What is emitted here leaves before the watermark does. There is no current record, so `emit` gives no event
    /// time: use `emit_at` where one is needed.
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

/// What a process function sees beside the record, and where it puts results.
pub struct ProcessContext<'a, O> {
    pub(super) timestamp_ms: i64,
    pub(super) watermark_ms: i64,
    pub(super) clock: &'a SharedClock,
    pub(super) out: &'a mut Out<O>,
}

impl<O: 'static> ProcessContext<'_, O> {
    /// The record's event time, `NO_TIMESTAMP` if it has none.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// How far event time has come.
    pub fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// The job's clock.
    pub fn processing_time_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Emits a result with the record's event time.
    #[inline]
    pub fn emit(&mut self, value: O) -> Result<()> {
        self.out.emit(self.timestamp_ms, value)
    }

    /// Emits a result with another event time.
    #[inline]
    pub fn emit_at(&mut self, timestamp_ms: i64, value: O) -> Result<()> {
        self.out.emit(timestamp_ms, value)
    }

    /// Emits to a side output.
    pub fn side_output<S: Data>(&mut self, tag: OutputTag<S>, value: S) -> Result<()> {
        self.out.side(&tag, self.timestamp_ms, value)
    }
}

pub(crate) struct ProcessOperator<F> {
    function: F,
    context: RuntimeContext,
    watermark_ms: i64,
    opened: bool,
}

impl<F> ProcessOperator<F> {
    pub fn new(function: F, context: RuntimeContext) -> Self {
        ProcessOperator { function, context, watermark_ms: tidemill_core::WATERMARK_MIN, opened: false }
    }
}

impl<F> ProcessOperator<F> {
    fn open<I, O>(&mut self) -> Result<()>
    where
        F: ProcessFunction<I, O>,
    {
        if std::mem::replace(&mut self.opened, true) { Ok(()) } else { self.function.open(&self.context) }
    }
}

impl<I: Data, O: Data, F: ProcessFunction<I, O>> Operator<I, O> for ProcessOperator<F> {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.function.initialize_state(&mut OperatorStateReader::new(&mut state))?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()> {
        self.open()?;
        batch.into_iter().try_for_each(|(timestamp_ms, value)| {
            let mut context = ProcessContext {
                timestamp_ms,
                watermark_ms: self.watermark_ms,
                clock: &self.context.clock,
                out: &mut *out,
            };
            self.function.process(value, &mut context)
        })
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.open()?;
        self.watermark_ms = watermark_ms;
        let timestamp_ms = NO_TIMESTAMP;
        let mut context = ProcessContext { timestamp_ms, watermark_ms, clock: &self.context.clock, out: &mut *out };
        self.function.on_watermark(watermark_ms, &mut context)?;
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.function.snapshot_state(&mut OperatorStateWriter::new(parts))
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }
}
