//! The general window operator (Flink's `WindowOperator`): every window kind, with triggers, evictors and process functions.
//! For each key it keeps a *pane* a window: contents and what the trigger remembers; timers stand beside them. Windows that
//! merge do so when a record comes, and their panes with them.
//!
//! It works record by record, so the kinds that can do without triggers bring faster operators of their own
//! (`WindowKind::operator`).
//!
//! A window's timer for its end (`cleanup_ms`) and the trigger's timers are the same kind of thing, as in Flink: one call of
//! the trigger for a window and a time, and then, at its end, the window is let go.

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, NO_TIMESTAMP, Result, WATERMARK_MIN};

use super::contents::{Contents, Held};
use super::evictor::EvictorContext;
use super::function::{ProcessWindowFunction, WindowContext, WindowState};
use super::trigger::{SetTimers, Trigger, TriggerContext, TriggerResult};
use super::{Aggregate, Window, WindowKey, WindowKind, WindowParts, without_event_time};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotParts};
use crate::state::{KeyedStore, Restored, SectionKind, StateTable, Timers, Writer};
use crate::stream::{KeySelector, RuntimeContext, TimeDomain};

/// A window of a key.
#[derive(Clone, Serialize, Deserialize)]
struct Pane<S, H> {
    window: Window,
    state: Option<S>,
    held: Option<H>,
}

impl<S, H> Pane<S, H> {
    fn new(window: Window) -> Self {
        Pane { window, state: None, held: None }
    }

    fn is_empty(&self) -> bool {
        self.state.is_none() && self.held.is_none()
    }
}

/// A key's windows, in order.
type Panes<T, G, A> = Vec<Pane<<G as Trigger<T>>::State, Held<T, <A as Aggregate<T>>::Accumulator>>>;

/// Timers of both domains, each of a key and a window.
struct WindowTimers<K> {
    event: Timers<WindowKey<K>>,
    processing: Timers<WindowKey<K>>,
}

impl<K: Key> WindowTimers<K> {
    fn of(&mut self, domain: TimeDomain) -> &mut Timers<WindowKey<K>> {
        match domain {
            TimeDomain::Event => &mut self.event,
            TimeDomain::Processing => &mut self.processing,
        }
    }
}

/// The timers of one key.
struct KeyTimers<'a, K> {
    at: &'a mut WindowKey<K>,
    timers: &'a mut WindowTimers<K>,
}

impl<K: Key> SetTimers for KeyTimers<'_, K> {
    fn register(&mut self, domain: TimeDomain, time_ms: i64, window: Window) {
        self.at.window = Some(window);
        self.timers.of(domain).register(time_ms, self.at);
    }

    fn delete(&mut self, domain: TimeDomain, time_ms: i64, window: Window) {
        self.at.window = Some(window);
        self.timers.of(domain).delete(time_ms, self.at);
    }
}

/// How far both times have come.
#[derive(Clone, Copy)]
struct Now {
    watermark_ms: i64,
    processing_time_ms: i64,
}

/// Asks the trigger something about a window.
fn ask<K: Key, S, R>(
    timers: &mut WindowTimers<K>,
    now: Now,
    at: &mut WindowKey<K>,
    window: Window,
    state: &mut Option<S>,
    question: impl FnOnce(&mut TriggerContext<'_, S>) -> R,
) -> R {
    question(&mut TriggerContext {
        state,
        window,
        watermark_ms: now.watermark_ms,
        processing_time_ms: now.processing_time_ms,
        timers: &mut KeyTimers { at, timers },
    })
}

/// The operator for a window kind with its trigger and evictor.
pub(crate) fn operator<K, T, O, W, S, A, F>(kind: W, parts: WindowParts<S, A, F>) -> Box<dyn Operator<T, O>>
where
    K: Key,
    T: Data,
    O: Data,
    W: WindowKind<T>,
    S: KeySelector<T, K>,
    A: Aggregate<T>,
    F: ProcessWindowFunction<K, A::Output, O>,
{
    let windows = Windows {
        trigger: kind.trigger(),
        contents: Contents { aggregate: parts.aggregate, evictor: kind.evictor() },
        lateness_ms: if kind.is_event_time() { parts.allowed_lateness_ms } else { 0 },
        kind,
        function: parts.emit,
        timers: WindowTimers {
            event: Timers::of("window/event-timers", &parts.context),
            processing: Timers::of("window/processing-timers", &parts.context),
        },
        store: KeyedStore::at(&parts.context),
        now: Now { watermark_ms: WATERMARK_MIN, processing_time_ms: i64::MIN },
        context: parts.context,
        opened: false,
        merged: Vec::new(),
    };
    Box::new(WindowOperator {
        selector: parts.selector,
        panes: StateTable::default(),
        windows,
        late_tag: parts.late_tag.map(OutputTag::new),
        late_dropped: 0,
        assigned: Vec::new(),
    })
}

struct WindowOperator<K, T, W, S, G: Trigger<T>, A: Aggregate<T>, F> {
    selector: S,
    /// Made anew by `restore`, which comes before all else.
    panes: StateTable<K, Panes<T, G, A>>,
    windows: Windows<K, T, W, G, A, F>,
    late_tag: Option<OutputTag<T>>,
    late_dropped: u64,
    /// The windows of the record at hand.
    assigned: Vec<Window>,
}

/// Everything but the panes.
struct Windows<K, T, W, G: Trigger<T>, A: Aggregate<T>, F> {
    kind: W,
    trigger: G,
    contents: Contents<T, A>,
    function: F,
    timers: WindowTimers<K>,
    store: KeyedStore<WindowKey<K>>,
    now: Now,
    lateness_ms: i64,
    context: RuntimeContext,
    opened: bool,
    /// Room for the panes that become one.
    merged: Panes<T, G, A>,
}

impl<K, T, W, G, A, F> Windows<K, T, W, G, A, F>
where
    K: Key,
    T: Data,
    W: WindowKind<T, Trigger = G>,
    G: Trigger<T>,
    A: Aggregate<T>,
{
    /// The domain the windows stand in.
    fn domain(&self) -> TimeDomain {
        if self.kind.is_event_time() { TimeDomain::Event } else { TimeDomain::Processing }
    }

    /// When a window is let go; never for the one that has no end.
    fn cleanup_ms(&self, window: Window) -> Option<i64> {
        (window != Window::GLOBAL).then(|| window.max_timestamp_ms().saturating_add(self.lateness_ms))
    }

    fn is_late(&self, window: Window) -> bool {
        self.kind.is_event_time() && self.cleanup_ms(window).is_some_and(|at_ms| at_ms <= self.now.watermark_ms)
    }

    /// The place of a window's pane, made if needed, with all that it touches merged into it.
    fn merge(&mut self, panes: &mut Panes<T, G, A>, at: &mut WindowKey<K>, window: Window) -> Result<usize> {
        let from = panes.partition_point(|pane| pane.window.end_ms < window.start_ms);
        let to = panes.partition_point(|pane| pane.window.start_ms <= window.end_ms);
        let cover = match &panes[from..to] {
            [] => {
                panes.insert(from, Pane::new(window));
                return Ok(from);
            }
            [first, .., last] => first.window.cover(last.window).cover(window),
            [only] => only.window.cover(window),
        };
        if panes[from].window == cover {
            return Ok(from);
        }
        let mut merged = std::mem::take(&mut self.merged);
        merged.extend(panes.drain(from..to));
        let mut pane = Pane::new(cover);
        let states: Vec<&G::State> = merged.iter().filter_map(|old| old.state.as_ref()).collect();
        let trigger = &mut self.trigger;
        ask(&mut self.timers, self.now, at, cover, &mut pane.state, |context| trigger.on_merge(&states, context))?;
        for mut old in merged.drain(..) {
            ask(&mut self.timers, self.now, at, old.window, &mut old.state, |context| self.trigger.clear(context))?;
            if let Some(cleanup_ms) = self.cleanup_ms(old.window) {
                at.window = Some(old.window);
                let domain = self.domain();
                self.timers.of(domain).delete(cleanup_ms, at);
            }
            self.contents.merge(&mut pane.held, old.held);
        }
        self.merged = merged;
        panes.insert(from, pane);
        Ok(from)
    }

    /// The context of the user's function.
    fn with_function<O: 'static>(
        &mut self,
        at: &mut WindowKey<K>,
        window: Window,
        cause_ms: i64,
        out: &mut Out<O>,
        call: impl FnOnce(&mut F, &mut WindowContext<'_, K, O>) -> Result<()>,
    ) -> Result<()>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        if !std::mem::replace(&mut self.opened, true) {
            self.function.open(&self.context)?;
        }
        let mut context = WindowContext {
            state: WindowState { at, store: &mut self.store },
            window,
            // The window of all time has no last millisecond to give.
            timestamp_ms: if window == Window::GLOBAL { cause_ms } else { window.max_timestamp_ms() },
            merges: self.kind.merges(),
            watermark_ms: self.now.watermark_ms,
            processing_time_ms: self.now.processing_time_ms,
            out,
        };
        call(&mut self.function, &mut context)
    }

    /// Does with a pane what the trigger said. `cause_ms` is the time of the record or timer; after its `last` firing the
    /// contents are not needed any more.
    fn settle<O: 'static>(
        &mut self,
        result: TriggerResult,
        last: bool,
        pane: &mut Pane<G::State, Held<T, A::Accumulator>>,
        at: &mut WindowKey<K>,
        cause_ms: i64,
        out: &mut Out<O>,
    ) -> Result<()>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        if result.fires() && pane.held.is_some() {
            let context = EvictorContext {
                window: pane.window,
                watermark_ms: self.now.watermark_ms,
                processing_time_ms: self.now.processing_time_ms,
            };
            if let Some(result) = self.contents.result(&mut pane.held, last || result.purges(), &context)? {
                self.with_function(at, pane.window, cause_ms, out, |function, context| {
                    function.process(result, context)
                })?;
            }
            self.contents.evict_after(&mut pane.held, &context)?;
        }
        if result.purges() {
            pane.held = None;
        }
        Ok(())
    }

    /// Takes a record into a window; gives it back when the window is late.
    fn add<O: 'static>(
        &mut self,
        panes: &mut Panes<T, G, A>,
        at: &mut WindowKey<K>,
        window: Window,
        timestamp_ms: i64,
        value: T,
        out: &mut Out<O>,
    ) -> Result<Option<T>>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        let merges = self.kind.merges();
        let index = if merges { self.merge(panes, at, window)? } else { place(panes, window) };
        let window = panes[index].window;
        if self.is_late(window) {
            panes.remove(index);
            return Ok(Some(value));
        }
        let pane = &mut panes[index];
        let trigger = &mut self.trigger;
        let result = ask(&mut self.timers, self.now, at, window, &mut pane.state, |context| {
            trigger.on_element(&value, timestamp_ms, context)
        })?;
        self.contents.add(&mut pane.held, timestamp_ms, value);
        self.settle(result, false, pane, at, timestamp_ms, out)?;
        if pane.is_empty() && !merges {
            panes.remove(index);
        }
        if let Some(cleanup_ms) = self.cleanup_ms(window) {
            at.window = Some(window);
            let domain = self.domain();
            self.timers.of(domain).register(cleanup_ms, at);
        }
        Ok(None)
    }

    /// A timer of a window is due.
    fn on_timer<O: 'static>(
        &mut self,
        panes: &mut Panes<T, G, A>,
        domain: TimeDomain,
        time_ms: i64,
        at: &mut WindowKey<K>,
        out: &mut Out<O>,
    ) -> Result<()>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        let Some(window) = at.window else { return Ok(()) };
        if self.kind.merges() && panes.binary_search_by_key(&window, |pane| pane.window).is_err() {
            // A timer its trigger has left behind; the window is part of another now.
            return Ok(());
        }
        let index = place(panes, window);
        let pane = &mut panes[index];
        let trigger = &mut self.trigger;
        let result = ask(&mut self.timers, self.now, at, window, &mut pane.state, |context| match domain {
            TimeDomain::Event => trigger.on_event_time(time_ms, context),
            TimeDomain::Processing => trigger.on_processing_time(time_ms, context),
        })?;
        let over = domain == self.domain() && self.cleanup_ms(window) == Some(time_ms);
        self.settle(result, over, pane, at, time_ms, out)?;
        if over {
            let trigger = &mut self.trigger;
            ask(&mut self.timers, self.now, at, window, &mut pane.state, |context| trigger.clear(context))?;
            self.with_function(at, window, time_ms, out, |function, context| function.clear(context))?;
        }
        if over || (pane.is_empty() && !self.kind.merges()) {
            panes.remove(index);
        }
        Ok(())
    }
}

/// The place of a window's pane, made if needed.
fn place<S, H>(panes: &mut Vec<Pane<S, H>>, window: Window) -> usize {
    panes.binary_search_by_key(&window, |pane| pane.window).unwrap_or_else(|index| {
        panes.insert(index, Pane::new(window));
        index
    })
}

impl<K, T, W, S, G, A, F> WindowOperator<K, T, W, S, G, A, F>
where
    K: Key,
    T: Data,
    W: WindowKind<T, Trigger = G>,
    G: Trigger<T>,
    A: Aggregate<T>,
{
    /// Fires the timers of one domain that are due.
    fn fire<O: 'static>(&mut self, domain: TimeDomain, due_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        while let Some((time_ms, mut at)) = self.windows.timers.of(domain).pop_due(due_ms)? {
            let panes = self.panes.get_or_insert_with(&at.key, Vec::new)?;
            self.windows.on_timer(panes, domain, time_ms, &mut at, out)?;
            if panes.is_empty() {
                self.panes.remove(&at.key)?;
            }
        }
        Ok(())
    }

    /// Reads the clock, which may go back, and fires what is due by it: a timer for a time when that has passed.
    fn advance_clock<O: 'static>(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        let now = &mut self.windows.now;
        now.processing_time_ms = now.processing_time_ms.max(now_ms);
        let due_ms = now.processing_time_ms - 1;
        self.fire(TimeDomain::Processing, due_ms, out)
    }

    fn add<O: 'static>(&mut self, timestamp_ms: i64, value: T, out: &mut Out<O>) -> Result<()>
    where
        S: KeySelector<T, K>,
        F: ProcessWindowFunction<K, A::Output, O>,
    {
        let windows = &mut self.windows;
        let event_time = windows.kind.is_event_time();
        if event_time && timestamp_ms == NO_TIMESTAMP {
            return Err(without_event_time());
        }
        let time_ms = if event_time { timestamp_ms } else { windows.now.processing_time_ms };
        self.assigned.clear();
        windows.kind.assign(&value, time_ms, &mut self.assigned)?;
        let mut at = WindowKey { key: self.selector.key(&value), window: None };
        let panes = self.panes.get_or_insert_with(&at.key, Vec::new)?;
        let (mut left, mut refused, mut taken) = (Some(value), None, false);
        let last = self.assigned.len().saturating_sub(1);
        for (index, window) in self.assigned.iter().enumerate() {
            let Some(value) = (if index < last { left.clone() } else { left.take() }) else { break };
            match windows.add(panes, &mut at, *window, timestamp_ms, value, out)? {
                Some(value) => refused = Some(value),
                None => taken = true,
            }
        }
        if panes.is_empty() {
            self.panes.remove(&at.key)?;
        }
        let late = event_time && timestamp_ms.saturating_add(windows.lateness_ms) <= windows.now.watermark_ms;
        match refused.or(left) {
            Some(value) if late && !taken => match self.late_tag {
                Some(tag) if out.has_side(tag.name) => out.side(&tag, timestamp_ms, value),
                _ => {
                    self.late_dropped += 1;
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }
}

// With a slash, since the states of the user's function stand beside them under names of the user's.
const PANES: &str = "window/panes";
const PROGRESS: &str = "window/progress";

impl<K, T, O, W, S, G, A, F> Operator<T, O> for WindowOperator<K, T, W, S, G, A, F>
where
    K: Key,
    T: Data,
    O: Data,
    W: WindowKind<T, Trigger = G>,
    S: KeySelector<T, K>,
    G: Trigger<T>,
    A: Aggregate<T>,
    F: ProcessWindowFunction<K, A::Output, O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let mut progress = Vec::new();
        for section in state.take(PROGRESS) {
            progress.extend(section.reader()?.entry::<i64>()?);
        }
        // Event time goes on from the slowest. What faster subtasks had fired has no timers any more.
        self.windows.now.watermark_ms = progress.into_iter().min().unwrap_or(WATERMARK_MIN);
        let saved = state.take(PANES);
        let context = &self.windows.context;
        self.panes = context.state.own_table(PANES, (context.subtask, context.parallelism))?;
        saved.iter().try_for_each(|section| self.panes.load(section, |key| state.owns(key)))?;
        self.panes.for_each_loaded(|_, panes| {
            let held = panes.iter().filter_map(|pane| pane.held.as_ref());
            held.for_each(|held| self.windows.contents.restored(held));
            Ok(())
        })?;
        self.windows.timers.event.restore(&mut state)?;
        self.windows.timers.processing.restore(&mut state)?;
        self.windows.store.restore(&mut state);
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        self.advance_clock(self.windows.context.clock.now_ms(), out)?;
        batch.into_iter().try_for_each(|(timestamp_ms, value)| self.add(timestamp_ms, value, out))
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        let now_ms = self.windows.context.clock.now_ms();
        let now = &mut self.windows.now;
        now.watermark_ms = now.watermark_ms.max(watermark_ms);
        now.processing_time_ms = now.processing_time_ms.max(now_ms);
        self.fire(TimeDomain::Event, watermark_ms, out)?;
        out.watermark(watermark_ms)
    }

    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        self.advance_clock(now_ms, out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.windows.timers.processing.next().map(|time_ms| time_ms.saturating_add(1))
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.panes.begin_snapshot(PANES, parts)?;
        let mut progress = Writer::new(PROGRESS, SectionKind::Operator);
        progress.entry(&self.windows.now.watermark_ms)?;
        parts.sections.push(progress.finish());
        self.windows.timers.event.begin_snapshot(parts)?;
        self.windows.timers.processing.begin_snapshot(parts)?;
        self.windows.store.begin_snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        let Windows { timers, store, .. } = &mut self.windows;
        Ok(self.panes.copy_some(run)?
            && timers.event.copy_some(run)?
            && timers.processing.copy_some(run)?
            && store.copy_some(run)?)
    }

    fn close(&mut self) -> Result<()> {
        if self.windows.opened { self.windows.function.close() } else { Ok(()) }
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}
