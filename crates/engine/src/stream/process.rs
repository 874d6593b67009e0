//! Process functions without a key: life cycle, timestamps, watermarks, side outputs.

use tidemill_core::{Data, Result, SharedClock};

use crate::driver::Records;
use crate::driver::build::TaskBuilder;
use crate::operator::{Operator, Out, OutputTag};

/// Where a function runs.
#[derive(Clone)]
pub struct RuntimeContext {
    /// The operator's name.
    pub name: String,
    /// This subtask, from 0.
    pub subtask: usize,
    /// The number of subtasks.
    pub parallelism: usize,
    /// The job's clock.
    pub clock: SharedClock,
}

impl TaskBuilder<'_, '_> {
    pub(crate) fn runtime_context(&self, node: usize) -> RuntimeContext {
        let plan = &self.shared.plan;
        RuntimeContext {
            name: plan.nodes[node].name.clone(),
            subtask: self.subtask.unwrap_or(0),
            parallelism: plan.parallelism[node],
            clock: self.shared.control.clock().clone(),
        }
    }
}

/// A function from records of `I` to any number of records of `O`. One copy runs on each subtask.
pub trait ProcessFunction<I, O>: Clone + Send + 'static {
    /// Before the first record.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record.
    fn process(&mut self, value: I, context: &mut ProcessContext<'_, O>) -> Result<()>;

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
    pub fn emit(&mut self, value: O) -> Result<()> {
        self.out.emit(self.timestamp_ms, value)
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

impl<I: Data, O: Data, F: ProcessFunction<I, O>> Operator<I, O> for ProcessOperator<F> {
    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()> {
        if !std::mem::replace(&mut self.opened, true) {
            self.function.open(&self.context)?;
        }
        for (timestamp_ms, value) in batch {
            let mut context = ProcessContext {
                timestamp_ms,
                watermark_ms: self.watermark_ms,
                clock: &self.context.clock,
                out: &mut *out,
            };
            self.function.process(value, &mut context)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.watermark_ms = watermark_ms;
        out.watermark(watermark_ms)
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }
}
