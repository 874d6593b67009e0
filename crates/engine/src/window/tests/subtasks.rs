//! All subtasks of a pipeline in the harness for user functions, restarted under another parallelism and with another
//! backend at will.

use super::*;
use crate::operator::OutputTag;
use crate::state::StateHome;
use crate::stream::DataStream;
use crate::testing::{Harness, Snapshot};

/// Records that come too late.
pub const LATE: OutputTag<Event> = OutputTag::new("late");

type Pipeline = Box<dyn Fn(DataStream<Event>) -> DataStream<Fired>>;

pub struct Subtasks {
    pipeline: Pipeline,
    read_late: bool,
    now_ms: i64,
    running: Vec<Harness<Event, Fired>>,
    /// Dropped by subtasks that are no more.
    dropped_before: u64,
}

impl Subtasks {
    pub fn new(now_ms: i64, read_late: bool, home: &StateHome, pipeline: Pipeline) -> Self {
        let mut subtasks = Subtasks { pipeline, read_late, now_ms, running: Vec::new(), dropped_before: 0 };
        subtasks.restart(1, home).unwrap();
        subtasks
    }

    /// Saves everything, forgets everything, and goes on from what was saved.
    pub fn restart(&mut self, parallelism: usize, home: &StateHome) -> Result<()> {
        let mut saved = Vec::new();
        for subtask in &mut self.running {
            saved.push(subtask.snapshot()?);
            self.dropped_before += subtask.late_dropped()?;
        }
        let saved = Snapshot::merged(saved);
        self.running.clear();
        for subtask in 0..parallelism {
            let builder = Harness::builder(&self.pipeline).subtask(subtask, parallelism).clock(self.now_ms);
            let builder = if self.read_late { builder.side_output(LATE) } else { builder };
            self.running.push(builder.restore(&saved).state(home).build()?);
        }
        Ok(())
    }

    pub fn record(&mut self, event: Event) -> Result<()> {
        self.clock(self.now_ms)?;
        let owner = self.running.iter_mut().find(|subtask| subtask.owns(&event.key));
        owner.map_or(Ok(()), |subtask| subtask.push(event.time_ms, event))
    }

    pub fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        self.running.iter_mut().try_for_each(|subtask| subtask.watermark(watermark_ms))
    }

    pub fn clock(&mut self, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        self.running.iter_mut().try_for_each(|subtask| subtask.set_processing_time(now_ms))
    }

    /// Results since the last time, with their event times.
    pub fn fired(&mut self) -> Vec<(i64, Fired)> {
        self.running.iter_mut().flat_map(|subtask| subtask.take()).collect()
    }

    /// Records in the late side output since the last time.
    pub fn late(&mut self) -> Vec<u32> {
        self.running.iter_mut().flat_map(|subtask| subtask.take_side(LATE)).map(|(_, event)| event.id).collect()
    }

    pub fn late_dropped(&mut self) -> u64 {
        self.dropped_before + self.running.iter_mut().map(|subtask| subtask.late_dropped().unwrap()).sum::<u64>()
    }
}
