//! A harness for user functions: one subtask of a pipeline, stepped by hand. No workers, no threads, no waiting: records,
//! watermarks and the clock move when the test says so, and everything that comes out can be looked at between two steps.
//!
//! The pipeline is written with the same API as in a job, so a process function, a window or an operator of one's own is
//! tested as it will run; the exchange of records between subtasks alone is left out. State is saved by the same code as
//! in a checkpoint, and a [`Snapshot`] of any number of subtasks starts harnesses of any other number. An operator with two
//! inputs has [`Harness::two`].
//!
//! ```
//! use std::time::Duration;
//! use tidemill_engine::operator::OutputTag;
//! use tidemill_engine::testing::Harness;
//! use tidemill_engine::window::Tumbling;
//!
//! const LATE: OutputTag<(String, i64)> = OutputTag::new("late");
//! let mut sums = Harness::builder(|input: tidemill_engine::stream::DataStream<(String, i64)>| {
//!     input
//!         .key_by(|(name, _)| name.clone())
//!         .window(Tumbling::event_time(Duration::from_secs(10)))
//!         .side_output_late_data(LATE)
//!         .sum(|(_, n)| n)
//! })
//! .side_output(LATE)
//! .build()?;
//! sums.push(1_000, ("a".to_string(), 1))?;
//! sums.push(9_000, ("a".to_string(), 2))?;
//! sums.watermark(9_999)?;
//! assert_eq!(sums.take(), [(9_999, ("a".to_string(), 3))]);
//! sums.push(5_000, ("a".to_string(), 9))?;
//! assert_eq!(sums.take_side(LATE), [(5_000, ("a".to_string(), 9))]);
//! # Ok::<(), tidemill_core::Error>(())
//! ```

mod capture;
mod snapshot;
pub(crate) mod two;

pub use snapshot::Snapshot;

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tidemill_core::{Clock, Data, Error, ManualClock, Result, WATERMARK_MAX, WATERMARK_MIN};

use self::capture::{Capture, Captured};
use crate::checkpoint::coordinator::Event;
use crate::checkpoint::restore::RestorePoint;
use crate::driver::Records;
use crate::driver::build::{BuildShared, TaskBuilder};
use crate::graph::Logic;
use crate::key::{KEY_GROUPS, Key, key_group, owner};
use crate::operator::{ChainCopy, CopyRun, Link, OutputTag, Signal, SnapshotMode};
use crate::runtime::JobMode;
use crate::runtime::control::{HandIn, JobControl, WriterLink};
use crate::state::{Buffers, StateHome};
use crate::stream::{DataStream, Environment};

/// How long [`Harness::end`] waits to be woken.
const END_WAIT_MAX: Duration = Duration::from_secs(60);

/// Settles which subtask a harness is, what its clock shows, and what it starts from.
pub struct HarnessBuilder<I, O> {
    env: Environment,
    output: DataStream<O>,
    subtask: usize,
    parallelism: usize,
    now_ms: i64,
    batch: bool,
    restored: Option<Snapshot>,
    state: StateHome,
    sides: HashMap<&'static str, Box<dyn Any>>,
    input: std::marker::PhantomData<fn(I)>,
}

/// One subtask of a pipeline from records of `I` to records of `O`; see the head of this module.
pub struct Harness<I, O> {
    head: Box<dyn Link<I>>,
    output: Captured<O>,
    sides: HashMap<&'static str, Box<dyn Any>>,
    clock: Arc<ManualClock>,
    woken: Arc<Woken>,
    subtask: usize,
    parallelism: usize,
    epoch: u64,
    watermark_ms: i64,
    /// Kept, so that nothing the operators tell is an error.
    _told: (Receiver<Event>, Receiver<HandIn>),
}

/// Remembers that an operator's own thread has asked for the subtask to run.
#[derive(Default)]
struct Woken {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

impl<I: Data, O: Data> Harness<I, O> {
    /// The only subtask of a pipeline, with a clock that shows 0 and no state to start from.
    pub fn new(pipeline: impl FnOnce(DataStream<I>) -> DataStream<O>) -> Result<Self> {
        Self::builder(pipeline).build()
    }

    /// The same, with more to say.
    pub fn builder(pipeline: impl FnOnce(DataStream<I>) -> DataStream<O>) -> HarnessBuilder<I, O> {
        let env = Environment::new();
        let logic = Logic::Source(Box::new(|_, _| Err(Error::bug("the harness itself is the source"))));
        let input = env.source("Harness", logic);
        HarnessBuilder {
            output: pipeline(input),
            env,
            subtask: 0,
            parallelism: 1,
            now_ms: 0,
            batch: false,
            restored: None,
            state: StateHome::default(),
            sides: HashMap::new(),
            input: std::marker::PhantomData,
        }
    }
}

impl<I: Data, O: Data> HarnessBuilder<I, O> {
    /// Which subtask of how many the harness is; default the only one. A test that keys its records sends each to the
    /// harness that [owns](Harness::owns) its key.
    pub fn subtask(mut self, subtask: usize, parallelism: usize) -> Self {
        (self.subtask, self.parallelism) = (subtask, parallelism);
        self
    }

    /// What the clock shows at the beginning, epoch ms; default 0.
    pub fn clock(mut self, now_ms: i64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// Runs the pipeline in batch mode: final results only.
    pub fn batch(mut self) -> Self {
        self.batch = true;
        self
    }

    /// Reads a side output of the last operator.
    pub fn side_output<S: Data>(mut self, tag: OutputTag<S>) -> Self {
        let captured = Captured::default();
        capture(&self.output.side_output(tag), &captured);
        self.sides.insert(tag.name, Box::new(captured));
        self
    }

    /// Starts from what was saved; see [`Snapshot::merged`] for that of several subtasks.
    pub fn restore(mut self, snapshot: &Snapshot) -> Self {
        self.restored = Some(snapshot.clone());
        self
    }

    /// Where keyed state stands; default in memory.
    #[cfg(test)]
    pub(crate) fn state(mut self, home: &StateHome) -> Self {
        self.state = home.clone();
        self
    }

    /// The subtask, restored and ready.
    pub fn build(self) -> Result<Harness<I, O>> {
        if self.subtask >= self.parallelism || self.parallelism > KEY_GROUPS as usize {
            let (subtask, parallelism) = (self.subtask, self.parallelism);
            return Err(Error::input(format!("subtask {subtask} of {parallelism} does not exist"))
                .hint(format!("subtasks count from 0, and there are at most {KEY_GROUPS}")));
        }
        let output = Captured::default();
        capture(&self.output, &output);
        let graph = self.env.take_graph();
        two::check_both(&graph)?;
        let plan = graph.plan_by_hand(self.parallelism)?;
        let restored = self.restored.unwrap_or_default();
        restored.check_all_claimed(&plan.uids.iter().cloned().collect::<BTreeSet<_>>())?;
        let (clock, woken) = (Arc::new(ManualClock::new(self.now_ms)), Arc::new(Woken::default()));
        let ((events, heard), (writer, written)) = (channel(), channel());
        let writer = WriterLink { sender: Mutex::new(writer), queued: Arc::default(), buffers: Buffers::default() };
        let control = JobControl::new(clock.clone(), plan.board(), 0, events, true, vec![writer]);
        let shared = BuildShared {
            plan,
            restore: RestorePoint::default(),
            control: Arc::new(control),
            metrics: Vec::new(),
            job_id: "0".repeat(32),
            attempt: 1,
            checkpoint_interval_ms: None,
            workers: 1,
            building: 1.into(),
            user: Arc::default(),
            mode: if self.batch { JobMode::Batch } else { JobMode::Stream },
            state: self.state,
        };
        let restore = move |uid: &str, subtask, parallelism| restored.load(uid, subtask, parallelism);
        let waker = Waker::from(woken.clone());
        let head = TaskBuilder::by_hand(&shared, self.subtask, &restore, waker).downstream::<I>(0, None)?;
        Ok(Harness {
            head,
            output,
            sides: self.sides,
            clock,
            woken,
            subtask: self.subtask,
            parallelism: self.parallelism,
            epoch: 1,
            watermark_ms: WATERMARK_MIN,
            _told: (heard, written),
        })
    }
}

fn capture<T: Data>(stream: &DataStream<T>, into: &Captured<T>) {
    let into = into.clone();
    let _: DataStream<()> = stream.transform("Harness", move || Capture(into.clone()));
}

impl<I: Data, O: Data> Harness<I, O> {
    /// Gives the pipeline one record with its event time (`NO_TIMESTAMP` for none).
    pub fn push(&mut self, timestamp_ms: i64, value: I) -> Result<()> {
        self.push_batch(vec![(timestamp_ms, value)])
    }

    /// Gives the pipeline records in one batch.
    pub fn push_batch(&mut self, records: Records<I>) -> Result<()> {
        self.head.push(records)
    }

    /// Event time has come to `watermark_ms`; one that does not grow changes nothing, as in a job.
    pub fn watermark(&mut self, watermark_ms: i64) -> Result<()> {
        if watermark_ms <= self.watermark_ms {
            return Ok(());
        }
        self.watermark_ms = watermark_ms;
        self.head.signal(&mut Signal::Watermark(watermark_ms))
    }

    /// Moves the clock to `now_ms`; what is due by then is called.
    pub fn set_processing_time(&mut self, now_ms: i64) -> Result<()> {
        self.clock.set(now_ms);
        self.run()?;
        let mut due = None;
        self.head.signal(&mut Signal::NextProcessingTime(&mut due))?;
        match due {
            Some(at) if at <= now_ms => self.head.signal(&mut Signal::ProcessingTime(now_ms)),
            _ => Ok(()),
        }
    }

    /// Moves the clock on by `by_ms`.
    pub fn advance_processing_time(&mut self, by_ms: i64) -> Result<()> {
        self.set_processing_time(self.clock.now_ms().saturating_add(by_ms))
    }

    /// Has the pipeline hand on what was finished elsewhere, as a job does when it is woken.
    pub fn run(&mut self) -> Result<()> {
        self.head.signal(&mut Signal::Wake)
    }

    /// The end of the input: event time ends, what is under way elsewhere is waited for (at most `END_WAIT_MAX` from one
    /// wake-up to the next), and the pipeline closes.
    pub fn end(&mut self) -> Result<()> {
        self.watermark(WATERMARK_MAX)?;
        while self.under_way()? {
            if !self.wait_until_woken(END_WAIT_MAX) {
                return Err(Error::external("something is still under way elsewhere at the end of the pipeline"));
            }
            self.run()?;
        }
        self.head.signal(&mut Signal::Close)
    }

    /// Whether something that an operator began elsewhere is not handed on yet.
    pub fn under_way(&mut self) -> Result<bool> {
        let mut under_way = false;
        self.head.signal(&mut Signal::UnderWay(&mut under_way))?;
        Ok(under_way)
    }

    /// Copies the state, as a checkpoint does; the pipeline goes on.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshots = Vec::new();
        let mode = SnapshotMode::Detached;
        let buffers = &Buffers::default();
        self.head.signal(&mut Signal::Barrier { epoch: self.epoch, mode, buffers, snapshots: &mut snapshots })?;
        self.epoch += 1;
        let mut copy = ChainCopy { run: CopyRun::whole(), pieces: Vec::new(), deferred: Vec::new(), done: true };
        self.head.signal(&mut Signal::Copy(&mut copy))?;
        for (uid, deferred) in copy.deferred {
            deferred(&mut |section| {
                copy.pieces.push((uid.clone(), vec![section]));
                Ok(())
            })?;
        }
        Snapshot::of(self.subtask, snapshots, copy.pieces)
    }

    /// Takes what came out since the last time, each with its event time.
    pub fn take(&mut self) -> Records<O> {
        self.output.take()
    }

    /// Takes what came out under a tag named to the builder.
    pub fn take_side<S: Data>(&mut self, tag: OutputTag<S>) -> Records<S> {
        self.sides.get(tag.name).and_then(|side| side.downcast_ref::<Captured<S>>()).map_or(Vec::new(), Captured::take)
    }

    /// The event time that has come out at the end of the pipeline: `WATERMARK_MIN` before any.
    pub fn output_watermark_ms(&self) -> i64 {
        self.output.watermark_ms()
    }

    /// Records dropped as late so far.
    pub fn late_dropped(&mut self) -> Result<u64> {
        let mut late = 0;
        self.head.signal(&mut Signal::LateDropped(&mut late))?;
        Ok(late)
    }

    /// Whether the pipeline takes more now; a job would hold records back when it does not.
    pub fn ready(&mut self) -> bool {
        self.head.ready()
    }

    /// Whether this subtask owns a key.
    pub fn owns<K: Key>(&self, key: &K) -> bool {
        owner(key_group(key), self.parallelism) == self.subtask
    }

    /// The clock of the pipeline.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// Waits until a thread of an operator has woken the subtask, at most `timeout` of real time; whether it has.
    pub fn wait_until_woken(&mut self, timeout: Duration) -> bool {
        let asked = self.woken.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut asked, _) = self
            .woken
            .changed
            .wait_timeout_while(asked, timeout, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }
}
