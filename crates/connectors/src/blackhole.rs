//! A sink that takes everything and keeps nothing: to measure a job without its output (Flink's `blackhole`).

use tidemill_core::Result;
use tidemill_core::sink::{PreCommit, Sink, SinkWriter, WriterContext};

/// Throws records away; `stream.sink_to(BlackholeSink)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlackholeSink;

impl<T: 'static> Sink<T> for BlackholeSink {
    fn name(&self) -> String {
        "blackhole".to_string()
    }

    fn writer(&self, _context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(BlackholeSink))
    }
}

impl<T> SinkWriter<T> for BlackholeSink {
    fn write(&mut self, _batch: Vec<(i64, T)>) -> Result<()> {
        Ok(())
    }

    fn pre_commit(&mut self, _epoch: u64) -> Result<PreCommit> {
        Ok(Box::new(|| Ok(Vec::new())))
    }
}
