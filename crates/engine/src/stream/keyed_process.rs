//! Process functions on keyed streams: keyed state, timers, side outputs.

use tidemill_core::{Data, Error, Result, SharedClock, WATERMARK_MAX, WATERMARK_MIN};

use super::operator_state::{OperatorStateReader, OperatorStateWriter};
use super::process::RuntimeContext;
use super::selector::KeySelector;
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotParts};
use crate::state::{FETCHED_AHEAD, KeyedStore, Restored, StateAccess, Timers};

/// Which time a timer is set in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeDomain {
    /// Event time: fires when the watermark has reached it.
    Event,
    /// Processing time: fires when the job's clock has reached it.
    Processing,
}

/// A function on a keyed stream. State handles such as `ValueState` are its fields; they always mean the current key. What
/// belongs to the subtask as a whole is saved and taken back by `snapshot_state` and `initialize_state`.
pub trait KeyedProcessFunction<K: Key, I, O>: Clone + Send + 'static {
    /// Takes back what was saved of the operator, not of a key; called once, before everything else, also when nothing was.
    fn initialize_state(&mut self, saved: &mut OperatorStateReader<'_>) -> Result<()> {
        let _ = saved;
        Ok(())
    }

    /// Before the first record of the subtask. No key is current here.
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// For each record.
    fn process(&mut self, value: I, context: &mut KeyedContext<'_, K, O>) -> Result<()>;

    /// A timer of the current key is due; `context.timestamp_ms()` is its time.
    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, K, O>) -> Result<()> {
        let _ = (domain, context);
        Ok(())
    }

    /// Saves what belongs to the operator and not to a key; called at each checkpoint, between two records. Keyed state is
    /// saved by itself.
    fn snapshot_state(&mut self, state: &mut OperatorStateWriter<'_>) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// After the last record of the subtask.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

const EVENT_TIMERS: &str = "event-timers";
const PROCESSING_TIMERS: &str = "processing-timers";

/// What functions may not call their state.
const RESERVED: &[&str] = &[EVENT_TIMERS, PROCESSING_TIMERS];

/// Refuses lists of a function that are called like what the operator keeps itself.
pub(super) fn no_reserved(parts: &SnapshotParts) -> Result<()> {
    match parts.sections.iter().find(|section| RESERVED.contains(&section.name.as_str())) {
        None => Ok(()),
        Some(section) => {
            let text =
                format!("a list cannot be called `{}`: the operator keeps its own under that name", section.name);
            Err(Error::input(text).hint("give it another name"))
        }
    }
}

/// State and timers of one keyed operator.
pub(crate) struct KeyedCore<K> {
    pub(super) store: KeyedStore<K>,
    pub(super) event_timers: Timers<K>,
    pub(super) processing_timers: Timers<K>,
    pub(super) watermark_ms: i64,
    clock: SharedClock,
    batch: bool,
}

impl<K: Key> KeyedCore<K> {
    /// Takes back timers, and all keyed state that is left.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.event_timers.restore(state)?;
        self.processing_timers.restore(state)?;
        self.store.restore(state);
        Ok(())
    }

    pub fn begin_snapshot(&mut self, parts: &mut SnapshotParts) -> Result<()> {
        self.event_timers.begin_snapshot(parts)?;
        self.processing_timers.begin_snapshot(parts)?;
        self.store.begin_snapshot(parts)
    }

    pub fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        Ok(self.event_timers.copy_some(run)? && self.processing_timers.copy_some(run)? && self.store.copy_some(run)?)
    }

    pub(super) fn new(context: &RuntimeContext) -> Self {
        KeyedCore {
            store: KeyedStore::of(context).reserving(RESERVED),
            event_timers: Timers::of(EVENT_TIMERS, context),
            processing_timers: Timers::of(PROCESSING_TIMERS, context),
            watermark_ms: WATERMARK_MIN,
            clock: context.clock.clone(),
            batch: context.batch,
        }
    }

    /// At the end of a batch all timers fire; those set meanwhile could go on for ever and are left out, as in Flink.
    fn takes_timers(&self) -> bool {
        !self.batch || self.watermark_ms < WATERMARK_MAX
    }

    /// Takes one timer that is due at `due_ms`, earliest first.
    pub(super) fn pop_due(&mut self, domain: TimeDomain, due_ms: i64) -> Result<Option<(i64, K)>> {
        let timers = match domain {
            TimeDomain::Event => &mut self.event_timers,
            TimeDomain::Processing => &mut self.processing_timers,
        };
        self.store.fetch(timers.fetch_ahead());
        timers.pop_due(due_ms)
    }
}

/// What a keyed function sees beside the record: key, time, state, timers; and where it puts results.
pub struct KeyedContext<'a, K, O> {
    pub(super) key: &'a K,
    pub(super) timestamp_ms: i64,
    pub(super) core: &'a mut KeyedCore<K>,
    pub(super) out: &'a mut Out<O>,
}

impl<K: Key, O> StateAccess for KeyedContext<'_, K, O> {
    type Key = K;

    fn keyed_state(&mut self) -> (&K, &mut KeyedStore<K>) {
        (self.key, &mut self.core.store)
    }
}

impl<K: Key, O: 'static> KeyedContext<'_, K, O> {
    /// The current key.
    pub fn key(&self) -> &K {
        self.key
    }

    /// The record's event time (`NO_TIMESTAMP` if it has none), or the timer's time.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// How far event time has come.
    pub fn watermark_ms(&self) -> i64 {
        self.core.watermark_ms
    }

    /// The job's clock.
    pub fn processing_time_ms(&self) -> i64 {
        self.core.clock.now_ms()
    }

    /// Emits a result with the record's or timer's time.
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

    /// Sets an event-time timer for the current key; a second one of the same time changes nothing.
    pub fn register_event_timer(&mut self, time_ms: i64) {
        if self.core.takes_timers() {
            self.core.event_timers.register(time_ms, self.key);
        }
    }

    /// Takes an event-time timer back.
    pub fn delete_event_timer(&mut self, time_ms: i64) {
        self.core.event_timers.delete(time_ms, self.key);
    }

    /// Sets a processing-time timer for the current key.
    pub fn register_processing_timer(&mut self, time_ms: i64) {
        if self.core.takes_timers() {
            self.core.processing_timers.register(time_ms, self.key);
        }
    }

    /// Takes a processing-time timer back.
    pub fn delete_processing_timer(&mut self, time_ms: i64) {
        self.core.processing_timers.delete(time_ms, self.key);
    }
}

pub(crate) struct KeyedProcessOperator<K, S, F> {
    function: F,
    selector: S,
    core: KeyedCore<K>,
    context: RuntimeContext,
    opened: bool,
    /// Of the records that come next. Empty between calls.
    keys: Vec<K>,
}

impl<K: Key, S, F> KeyedProcessOperator<K, S, F> {
    pub fn new(selector: S, function: F, context: RuntimeContext) -> Self {
        let core = KeyedCore::new(&context);
        KeyedProcessOperator { function, selector, core, context, opened: false, keys: Vec::new() }
    }

    fn open<I, O>(&mut self) -> Result<()>
    where
        F: KeyedProcessFunction<K, I, O>,
    {
        if std::mem::replace(&mut self.opened, true) { Ok(()) } else { self.function.open(&self.context) }
    }

    fn fire<I, O: 'static>(&mut self, domain: TimeDomain, due_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        F: KeyedProcessFunction<K, I, O>,
    {
        self.open()?;
        while let Some((timestamp_ms, key)) = self.core.pop_due(domain, due_ms)? {
            let mut context = KeyedContext { key: &key, timestamp_ms, core: &mut self.core, out: &mut *out };
            self.function.on_timer(domain, &mut context)?;
        }
        Ok(())
    }
}

impl<K: Key, I: Data, O: Data, S, F> Operator<I, O> for KeyedProcessOperator<K, S, F>
where
    S: KeySelector<I, K>,
    F: KeyedProcessFunction<K, I, O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.function.initialize_state(&mut OperatorStateReader::new(&mut state))?;
        self.core.restore(&mut state)?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<I>, out: &mut Out<O>) -> Result<()> {
        self.open()?;
        let mut records = batch.into_iter();
        while records.len() > 0 {
            let ahead = &records.as_slice()[..records.len().min(FETCHED_AHEAD)];
            self.keys.extend(ahead.iter().map(|record| self.selector.key(&record.1)));
            self.core.store.fetch(&self.keys);
            records.by_ref().take(self.keys.len()).enumerate().try_for_each(|(index, (timestamp_ms, value))| {
                let key = &self.keys[index];
                let mut context = KeyedContext { key, timestamp_ms, core: &mut self.core, out: &mut *out };
                self.function.process(value, &mut context)
            })?;
            self.keys.clear();
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.core.watermark_ms = watermark_ms;
        self.fire(TimeDomain::Event, watermark_ms, out)?;
        out.watermark(watermark_ms)
    }

    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.fire(TimeDomain::Processing, now_ms, out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.core.processing_timers.next()
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.function.snapshot_state(&mut OperatorStateWriter::new(parts))?;
        no_reserved(parts)?;
        self.core.begin_snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.core.copy_some(run)
    }

    fn close(&mut self) -> Result<()> {
        if self.opened { self.function.close() } else { Ok(()) }
    }
}
