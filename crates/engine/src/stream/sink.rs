//! Where streams end: sinks of connectors, printing, collecting.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tidemill_core::sink::{Committer, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Data, Error, Result};

use super::data_stream::DataStream;
use super::print::flink_text;
use crate::driver::Records;
use crate::driver::build::TaskBuilder;
use crate::driver::codec::codec;
use crate::driver::rows::RowBytes;
use crate::graph::SinkHooks;
use crate::operator::{Operator, Out, SnapshotParts};

struct SinkOperator<T> {
    writer: Box<dyn SinkWriter<T>>,
    row_bytes: RowBytes,
}

impl<T: Data> Operator<T, ()> for SinkOperator<T> {
    fn on_batch(&mut self, batch: Records<T>, _out: &mut Out<()>) -> Result<()> {
        let codec = codec::<T>();
        let row_bytes = self.row_bytes.note(codec.row_bytes(&batch));
        self.writer.weigh(row_bytes.saturating_mul(codec.rows(&batch)));
        self.writer.write(batch)
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<()>) -> Result<()> {
        self.writer.watermark(watermark_ms)?;
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        parts.pre_commit = Some(self.writer.pre_commit(epoch)?);
        Ok(())
    }

    fn ready(&mut self) -> bool {
        self.writer.ready()
    }
}

/// Takes the place of a writer on workers that the sink's parallelism leaves out.
struct Absent;

impl<T> SinkWriter<T> for Absent {
    fn write(&mut self, _batch: Vec<(i64, T)>) -> Result<()> {
        Err(Error::bug("a record came to a subtask that does not take part"))
    }

    fn pre_commit(&mut self, _epoch: u64) -> Result<tidemill_core::sink::PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}

struct Hooks<T>(Arc<dyn Sink<T>>);

impl<T: 'static> SinkHooks for Hooks<T> {
    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        self.0.recover(scope, tokens)
    }

    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        self.0.committer(scope)
    }
}

fn writer<T: Data>(sink: &dyn Sink<T>, builder: &TaskBuilder<'_, '_>, node: usize) -> Result<Box<dyn SinkWriter<T>>> {
    let Some(subtask) = builder.subtask else { return Ok(Box::new(Absent)) };
    let shared = builder.shared;
    sink.writer(WriterContext {
        scope: SinkScope {
            metrics: builder.metrics_of(node),
            ..SinkScope::new(shared.job_id.clone(), shared.plan.uids[node].clone())
        },
        subtask,
        parallelism: shared.plan.parallelism[node],
        epoch: shared.restore.epoch() + 1,
        attempt: shared.attempt,
        checkpoint_interval_ms: shared.checkpoint_interval_ms,
        waker: builder.waker(),
        clock: shared.control.clock().clone(),
    })
    .map_err(|e| e.context(sink.name()))
}

/// How a job says that the other end of its standard output is closed (`| head`): starting it again cannot help.
pub const NOBODY_READS: &str = "nobody reads standard output any more";

struct PrintOperator {
    prefix: String,
}

impl<T: Data> Operator<T, ()> for PrintOperator {
    fn on_batch(&mut self, batch: Records<T>, _out: &mut Out<()>) -> Result<()> {
        let mut text = String::new();
        for (_, value) in &batch {
            text.push_str(&self.prefix);
            text.push_str(&flink_text(value)?);
            text.push('\n');
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
            std::io::ErrorKind::BrokenPipe => Error::input(NOBODY_READS),
            _ => Error::io("write to standard output", e),
        })
    }
}

struct CollectOperator<T>(Arc<Mutex<Vec<T>>>);

impl<T: Data> Operator<T, ()> for CollectOperator<T> {
    fn on_batch(&mut self, batch: Records<T>, _out: &mut Out<()>) -> Result<()> {
        let mut collected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        collected.extend(batch.into_iter().map(|(_, value)| value));
        Ok(())
    }
}

/// What [`DataStream::collect`] gathers.
#[derive(Clone)]
pub struct Collected<T>(Arc<Mutex<Vec<T>>>);

impl<T> Collected<T> {
    /// Takes what was gathered so far.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much was gathered and not taken.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Data> DataStream<T> {
    /// Writes the stream to a sink. The returned stream is empty; it serves to name the operator.
    pub fn sink_to(&self, sink: impl Sink<T>) -> DataStream<()> {
        let sink: Arc<dyn Sink<T>> = Arc::new(sink);
        let name = format!("Sink: {}", sink.name());
        let hooks = Hooks(sink.clone());
        self.add_node(
            &name,
            move |builder, node| {
                Ok(SinkOperator { writer: writer(sink.as_ref(), builder, node)?, row_bytes: RowBytes::default() })
            },
            Some(Box::new(hooks)),
        )
    }

    /// Prints each value on standard output in Flink's form; with several subtasks each line begins with `n> `.
    pub fn print(&self) -> DataStream<()>
    where
        T: Serialize,
    {
        self.print_as("")
    }

    /// Prints each value behind `prefix> `, or `prefix:n> ` with several subtasks.
    pub fn print_as(&self, prefix: &str) -> DataStream<()> {
        let prefix = prefix.to_string();
        self.add_operator("Sink: Print", move |builder, node| {
            let context = builder.runtime_context(node);
            let prefix = match (prefix.as_str(), context.parallelism) {
                ("", 1) => String::new(),
                ("", _) => format!("{}> ", context.subtask + 1),
                (prefix, 1) => format!("{prefix}> "),
                (prefix, _) => format!("{prefix}:{}> ", context.subtask + 1),
            };
            Ok(PrintOperator { prefix })
        })
    }

    /// Gathers the values in memory, to be taken after `execute`. For tests and small results; a restarted job gathers anew.
    pub fn collect(&self) -> Collected<T> {
        let collected = Arc::new(Mutex::new(Vec::new()));
        let shared = collected.clone();
        let _: DataStream<()> = self.add_operator("Sink: Collect", move |_, _| Ok(CollectOperator(shared.clone())));
        Collected(collected)
    }
}
