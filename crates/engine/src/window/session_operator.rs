//! Session windows without trigger and evictor: the fast operator.
//!
//! A key has few open sessions, mostly one, which stands in the table itself. A session that grows costs nothing beside
//! its running value: its key stands in an index by the time at which it was due *once*, and moves on only when that
//! time has come. So there is one entry a key in the index, and firing looks at keys that are due, never at all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_core::{Data, NO_TIMESTAMP, Result, WATERMARK_MIN};

use super::session::{Gap, SessionWindows};
use super::{Aggregate, Window, WindowParts, without_event_time};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotParts};
use crate::state::{DiskTimers, FETCHED_AHEAD, Restored, SectionKind, StateTable, Writer};
use crate::stream::{KeySelector, RuntimeContext};

/// A session of one key.
#[derive(Clone, Serialize, Deserialize)]
struct OpenSession<A> {
    window: Window,
    /// Whether its value as it is now was emitted. It is kept for late records then.
    fired: bool,
    value: A,
}

impl<A> OpenSession<A> {
    /// When something is to be done about it: fire, or let it go.
    fn due_ms(&self, lateness_ms: i64) -> i64 {
        let last_ms = self.window.max_timestamp_ms();
        if self.fired { last_ms.saturating_add(lateness_ms) } else { last_ms }
    }
}

/// One or more of something: most keys have one session.
#[derive(Clone, Serialize, Deserialize)]
enum Few<V> {
    One(V),
    Many(Vec<V>),
}

impl<V> Few<V> {
    fn all(&self) -> &[V] {
        match self {
            Few::One(one) => std::slice::from_ref(one),
            Few::Many(many) => many,
        }
    }

    fn all_mut(&mut self) -> &mut [V] {
        match self {
            Few::One(one) => std::slice::from_mut(one),
            Few::Many(many) => many,
        }
    }
}

/// The sessions of one key in order of time, and the one time in the index at which the key counts.
#[derive(Clone, Serialize, Deserialize)]
struct KeySessions<A> {
    armed_ms: i64,
    open: Few<OpenSession<A>>,
}

/// Keys by the time at which they are due. A key armed anew leaves its old entry behind, which counts no more.
enum DueKeys<K> {
    Memory(BTreeMap<i64, Vec<K>>),
    Disk(Box<DiskTimers<K>>),
}

impl<K: Key> DueKeys<K> {
    fn of(context: &RuntimeContext) -> Self {
        match context.state.timers("session-due", (context.subtask, context.parallelism)) {
            Some(timers) => DueKeys::Disk(Box::new(timers)),
            None => DueKeys::Memory(BTreeMap::new()),
        }
    }

    #[inline]
    fn add(&mut self, time_ms: i64, key: K) -> Result<()> {
        match self {
            DueKeys::Memory(by_time) => by_time.entry(time_ms).or_default().push(key),
            DueKeys::Disk(timers) => timers.register(time_ms, &key)?,
        }
        Ok(())
    }

    fn next_ms(&self) -> Option<i64> {
        match self {
            DueKeys::Memory(by_time) => by_time.keys().next().copied(),
            DueKeys::Disk(timers) => timers.next(),
        }
    }

    /// The keys due until `now_ms` in the order they are popped, as far as they are in memory.
    fn next_until(&self, now_ms: i64) -> impl Iterator<Item = &K> {
        let by_time = match self {
            DueKeys::Memory(by_time) => Some(by_time.range(..=now_ms)),
            DueKeys::Disk(_) => None,
        };
        by_time.into_iter().flatten().flat_map(|(_, keys)| keys)
    }

    /// Takes keys that are due at `now_ms`, all of one time, or one of them.
    fn pop(&mut self, now_ms: i64) -> Result<Option<(i64, Vec<K>)>> {
        match self {
            DueKeys::Memory(by_time) => {
                let first = by_time.first_entry().filter(|first| *first.key() <= now_ms);
                Ok(first.map(|first| first.remove_entry()))
            }
            DueKeys::Disk(timers) => Ok(timers.pop_due(now_ms)?.map(|(time_ms, key)| (time_ms, vec![key]))),
        }
    }
}

pub(super) struct SessionOperator<K, T, G, S, A: Aggregate<T>, W> {
    gap: G,
    event_time: bool,
    selector: S,
    aggregate: A,
    emit: W,
    /// Made anew by `restore`, which comes before all else.
    keys: StateTable<K, KeySessions<A::Accumulator>>,
    due: DueKeys<K>,
    /// The watermark, or for processing time the last clock reading.
    now_ms: i64,
    lateness_ms: i64,
    late_tag: Option<OutputTag<T>>,
    late_dropped: u64,
    context: RuntimeContext,
}

impl<K: Key, T: Data, G: Gap<T>, S, A: Aggregate<T>, W> SessionOperator<K, T, G, S, A, W> {
    pub fn new(kind: SessionWindows<G>, parts: WindowParts<S, A, W>) -> Self {
        SessionOperator {
            gap: kind.gap,
            event_time: kind.event_time,
            selector: parts.selector,
            aggregate: parts.aggregate,
            emit: parts.emit,
            keys: StateTable::default(),
            due: DueKeys::of(&parts.context),
            now_ms: WATERMARK_MIN,
            lateness_ms: if kind.event_time { parts.allowed_lateness_ms } else { 0 },
            late_tag: parts.late_tag.map(OutputTag::new),
            late_dropped: 0,
            context: parts.context,
        }
    }

    fn refuse<O: 'static>(&mut self, timestamp_ms: i64, value: T, out: &mut Out<O>) -> Result<()> {
        match self.late_tag {
            Some(tag) if out.has_side(tag.name) => out.side(&tag, timestamp_ms, value),
            _ => {
                self.late_dropped += 1;
                Ok(())
            }
        }
    }

    /// Takes a record in; `time_ms` decides its session.
    #[inline]
    fn add<O: 'static, I>(&mut self, timestamp_ms: i64, time_ms: i64, value: T, out: &mut Out<O>) -> Result<()>
    where
        S: KeySelector<T, K>,
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let window = Window { start_ms: time_ms, end_ms: time_ms.saturating_add(self.gap.gap_ms(&value)?) };
        let key = self.selector.key(&value);
        let Some(sessions) = self.keys.get_mut(&key)? else {
            let last_ms = window.max_timestamp_ms();
            if last_ms.saturating_add(self.lateness_ms) <= self.now_ms {
                return self.refuse(timestamp_ms, value, out);
            }
            let mut session = OpenSession { window, fired: false, value: self.aggregate.create() };
            self.aggregate.add(&mut session.value, value);
            if last_ms <= self.now_ms {
                fire(&mut self.aggregate, &mut self.emit, &key, &mut session, true, out)?;
            }
            let armed_ms = session.due_ms(self.lateness_ms);
            self.keys.set(&key, KeySessions { armed_ms, open: Few::One(session) })?;
            return self.due.add(armed_ms, key);
        };
        let open = sessions.open.all();
        let from = open.partition_point(|session| session.window.end_ms < window.start_ms);
        let to = open.partition_point(|session| session.window.start_ms <= window.end_ms);
        if from == to {
            if window.max_timestamp_ms().saturating_add(self.lateness_ms) <= self.now_ms {
                return self.refuse(timestamp_ms, value, out);
            }
            let session = OpenSession { window, fired: false, value: self.aggregate.create() };
            sessions.change(|open| open.insert(from, session));
        } else if to - from > 1 {
            let aggregate = &mut self.aggregate;
            sessions.change(|open| {
                let others: Vec<_> = open.drain(from + 1..to).collect();
                for other in others {
                    open[from].window = open[from].window.cover(other.window);
                    aggregate.merge(&mut open[from].value, other.value);
                }
            });
        }
        let session = &mut sessions.open.all_mut()[from];
        session.window = session.window.cover(window);
        session.fired = false;
        self.aggregate.add(&mut session.value, value);
        if session.window.max_timestamp_ms() <= self.now_ms {
            // Late but allowed, so that a fired session has grown: its result is emitted again.
            fire(&mut self.aggregate, &mut self.emit, &key, session, true, out)?;
        }
        let due_ms = session.due_ms(self.lateness_ms);
        if due_ms < sessions.armed_ms {
            sessions.armed_ms = due_ms;
            self.due.add(due_ms, key)?;
        }
        Ok(())
    }

    /// Fires the sessions that are over at the time reached, and lets go of those that no late record can reach any more.
    fn advance<O: 'static, I>(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        self.now_ms = self.now_ms.max(now_ms);
        let mut fetched = 0;
        while let Some((time_ms, keys)) = self.due.pop(self.now_ms)? {
            let mut keys = keys.into_iter();
            while let Some(key) = keys.next() {
                if fetched == 0 {
                    // This key's too: the processor goes on with others while it waits.
                    let later = self.due.next_until(self.now_ms);
                    let ahead = std::iter::once(&key).chain(keys.as_slice()).chain(later);
                    self.keys.fetch::<K, _>(ahead.take(FETCHED_AHEAD));
                    fetched = FETCHED_AHEAD;
                }
                fetched -= 1;
                let Some(sessions) = self.keys.get_mut(&key)? else { continue };
                if sessions.armed_ms != time_ms {
                    continue;
                }
                let (lateness_ms, mut next_ms, mut over) = (self.lateness_ms, i64::MAX, false);
                for session in sessions.open.all_mut() {
                    if !session.fired && session.window.max_timestamp_ms() <= time_ms {
                        fire(&mut self.aggregate, &mut self.emit, &key, session, lateness_ms > 0, out)?;
                    }
                    match session.due_ms(lateness_ms) {
                        due_ms if due_ms > time_ms => next_ms = next_ms.min(due_ms),
                        _ => over = true,
                    }
                }
                if over {
                    if let Few::One(_) = sessions.open {
                        self.keys.remove(&key)?;
                        continue;
                    }
                    sessions.change(|open| open.retain(|session| session.due_ms(lateness_ms) > time_ms));
                    if sessions.open.all().is_empty() {
                        self.keys.remove(&key)?;
                        continue;
                    }
                }
                sessions.armed_ms = next_ms;
                self.due.add(next_ms, key)?;
            }
        }
        Ok(())
    }
}

impl<A> KeySessions<A> {
    /// Changes the list itself, not only what stands in it.
    fn change(&mut self, change: impl FnOnce(&mut Vec<OpenSession<A>>)) {
        let mut open = match std::mem::replace(&mut self.open, Few::Many(Vec::new())) {
            Few::One(one) => vec![one],
            Few::Many(many) => many,
        };
        change(&mut open);
        self.open = match open.len() {
            1 => open.pop().map_or(Few::Many(Vec::new()), Few::One),
            _ => Few::Many(open),
        };
    }
}

/// Emits a session's result. Without `keep` its value is not needed any more.
fn fire<K, T, A, W, I, O>(
    aggregate: &mut A,
    emit: &mut W,
    key: &K,
    session: &mut OpenSession<A::Accumulator>,
    keep: bool,
    out: &mut Out<O>,
) -> Result<()>
where
    A: Aggregate<T>,
    W: FnMut(&K, Window, A::Output) -> I,
    I: IntoIterator<Item = O>,
    O: 'static,
{
    session.fired = true;
    let value = if keep { session.value.clone() } else { std::mem::replace(&mut session.value, aggregate.create()) };
    let result = aggregate.result(value);
    emit(key, session.window, result)
        .into_iter()
        .try_for_each(|output| out.emit(session.window.max_timestamp_ms(), output))
}

const SESSIONS: &str = "sessions";
const PROGRESS: &str = "session-progress";

impl<K, T, O, G, S, A, W, I> Operator<T, O> for SessionOperator<K, T, G, S, A, W>
where
    K: Key,
    T: Data,
    O: Data,
    G: Gap<T>,
    S: KeySelector<T, K>,
    A: Aggregate<T>,
    W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
    I: IntoIterator<Item = O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let mut progress = Vec::new();
        for section in state.take(PROGRESS) {
            progress.extend(section.reader()?.entry::<i64>()?);
        }
        // Time goes on from the slowest; each session knows whether it has fired.
        self.now_ms = progress.into_iter().min().unwrap_or(WATERMARK_MIN);
        let saved = state.take(SESSIONS);
        self.keys = self.context.state.own_table(SESSIONS, (self.context.subtask, self.context.parallelism))?;
        saved.iter().try_for_each(|section| self.keys.load(section, |key| state.owns(key)))?;
        self.keys.for_each_loaded(|key, sessions| {
            sessions.open.all().iter().for_each(|session| self.aggregate.restored(&session.value));
            self.due.add(sessions.armed_ms, key.clone())
        })?;
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        let clock_ms = match self.event_time {
            true => None,
            false => {
                let now_ms = self.context.clock.now_ms();
                self.advance(now_ms - 1, out)?;
                Some(now_ms.max(self.now_ms + 1))
            }
        };
        let mut records = batch.into_iter();
        while records.len() > 0 {
            let ahead = records.len().min(FETCHED_AHEAD);
            // Making keys twice costs more than it gains.
            if !std::mem::needs_drop::<S::Found<'_>>() {
                let keys = records.as_slice()[..ahead].iter().map(|record| self.selector.find(&record.1));
                self.keys.fetch::<S::Lookup, _>(keys);
            }
            records.by_ref().take(ahead).try_for_each(|(timestamp_ms, value)| {
                let time_ms = clock_ms.unwrap_or(timestamp_ms);
                if time_ms == NO_TIMESTAMP {
                    return Err(without_event_time());
                }
                self.add(timestamp_ms, time_ms, value, out)
            })?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        if self.event_time {
            self.advance(watermark_ms, out)?;
        }
        out.watermark(watermark_ms)
    }

    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        // A window [start, end) is over when the clock shows its end.
        self.advance(now_ms - 1, out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        if self.event_time { None } else { self.due.next_ms().map(|time_ms| time_ms.saturating_add(1)) }
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        self.keys.begin_snapshot(SESSIONS, parts)?;
        let mut progress = Writer::new(PROGRESS, SectionKind::Operator);
        progress.entry(&self.now_ms)?;
        parts.sections.push(progress.finish());
        Ok(())
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.keys.copy_some(run)
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}
