//! Tumbling and sliding windows over event or processing time.
//!
//! Time is cut into *slices* of the greatest common divisor of size and slide, and each slice holds one running value for
//! each key: a record is added once, however many windows cover it (Flink copies it into each). When a window ends, the
//! slices it covers are merged. A tumbling window is one slice. (Slicing: Carbone et al., "Cutty", CIKM 2016.)
//!
//! ```text
//! size 10, slide 5:   slices   |--0--|--5--|--10-|--15-|
//!                     windows  [-----0-----)
//!                                    [-----5-----)
//! ```

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::hash_map;
use hashbrown::{HashMap, HashSet};
use tidemill_core::{Data, Error, NO_TIMESTAMP, Result, SharedClock, WATERMARK_MIN};

use super::progress::{AlreadyFired, Progress};
use super::{Aggregate, DefaultTrigger, Window, WindowKind, WindowParts, floor, millis, without_event_time};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotMode, SnapshotParts};
use crate::state::{Entry, FETCHED_AHEAD, Restored, RestoredSection, SectionKind, Table, TableHasher, Writer};
use crate::stream::KeySelector;

/// Windows of equal size that follow each other without overlap.
pub struct Tumbling;

/// Windows of equal size that begin every slide.
pub struct Sliding;

/// Tumbling or sliding windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindows {
    pub(crate) size_ms: i64,
    pub(crate) slide_ms: i64,
    offset_ms: i64,
    event_time: bool,
}

impl Tumbling {
    /// By the records' event time: `[n·size, (n+1)·size)` since 1970 UTC.
    pub fn event_time(size: Duration) -> TimeWindows {
        Sliding::event_time(size, size)
    }

    /// By the job's clock when the record arrives.
    pub fn processing_time(size: Duration) -> TimeWindows {
        Sliding::processing_time(size, size)
    }
}

impl Sliding {
    /// By the records' event time: `[n·slide, n·slide + size)` since 1970 UTC.
    pub fn event_time(size: Duration, slide: Duration) -> TimeWindows {
        TimeWindows { size_ms: millis(size), slide_ms: millis(slide), offset_ms: 0, event_time: true }
    }

    /// By the job's clock when the record arrives.
    pub fn processing_time(size: Duration, slide: Duration) -> TimeWindows {
        TimeWindows { event_time: false, ..Self::event_time(size, slide) }
    }
}

impl TimeWindows {
    /// Shifts all windows, for example by −8 h for days that begin at midnight in China.
    pub fn with_offset_ms(self, offset_ms: i64) -> Self {
        TimeWindows { offset_ms, ..self }
    }

    /// The slices' length.
    fn slice_ms(&self) -> i64 {
        let (mut a, mut b) = (self.size_ms, self.slide_ms);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The slice that holds `time_ms`.
    pub(crate) fn slice_of(&self, time_ms: i64) -> std::ops::Range<i64> {
        let start_ms = floor(time_ms, self.slice_ms(), self.offset_ms);
        start_ms..start_ms + self.slice_ms()
    }

    /// The start of the last window that begins at or before `time_ms`.
    pub(crate) fn last_start(&self, time_ms: i64) -> i64 {
        floor(time_ms, self.slide_ms, self.offset_ms)
    }

    /// The end of the first window that covers `time_ms`; windows with a slide larger than their size may not cover it.
    pub(crate) fn first_end(&self, time_ms: i64) -> i64 {
        let last = self.last_start(time_ms);
        let more = (self.size_ms - 1 - (time_ms - last)).max(0) / self.slide_ms;
        last - more * self.slide_ms + self.size_ms
    }
}

impl<T: Data> WindowKind<T> for TimeWindows {
    type Trigger = DefaultTrigger;

    fn name(&self) -> &'static str {
        if self.size_ms == self.slide_ms { "Tumbling Window" } else { "Sliding Window" }
    }

    fn check(&self) -> Result<()> {
        if self.size_ms <= 0 || self.slide_ms <= 0 {
            return Err(Error::input("a window's size and slide must be at least 1 ms"));
        }
        if self.offset_ms.abs() >= self.slide_ms {
            return Err(Error::input(format!(
                "a window's offset ({} ms) must be smaller than its slide ({} ms)",
                self.offset_ms, self.slide_ms
            )));
        }
        Ok(())
    }

    fn is_event_time(&self) -> bool {
        self.event_time
    }

    fn comes_in_parts(&self) -> bool {
        self.slice_ms() != self.size_ms
    }

    fn assign(&mut self, _: &T, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        let starts = (0..).map(|n| self.last_start(time_ms) - n * self.slide_ms);
        let covering = starts.take_while(|start_ms| *start_ms > time_ms - self.size_ms);
        windows.extend(covering.map(|start_ms| Window { start_ms, end_ms: start_ms + self.size_ms }));
        Ok(())
    }

    fn trigger(&self) -> DefaultTrigger {
        if self.event_time { DefaultTrigger::EventTime } else { DefaultTrigger::ProcessingTime }
    }

    fn operator<K, O, S, A, W, I>(&self, parts: WindowParts<S, A, W>) -> Box<dyn Operator<T, O>>
    where
        K: Key,
        O: Data,
        S: KeySelector<T, K>,
        A: Aggregate<T>,
        W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
        I: IntoIterator<Item = O>,
    {
        if parts.context.state.is_on_disk() {
            return Box::new(disk::DiskTimeWindows::new(*self, parts));
        }
        Box::new(TimeWindowOperator {
            windows: *self,
            slice_ms: self.slice_ms(),
            selector: parts.selector,
            contents: Contents {
                aggregate: parts.aggregate,
                emit: parts.emit,
                slices: Vec::new(),
                spare: None,
                already_fired: AlreadyFired::default(),
            },
            leaving: Vec::new(),
            pending_ends: BTreeSet::new(),
            hot: Hot::default(),
            now_ms: WATERMARK_MIN,
            lateness_ms: if self.event_time { parts.allowed_lateness_ms } else { 0 },
            late_tag: parts.late_tag.map(OutputTag::new),
            late_dropped: 0,
            clock: parts.context.clock,
        })
    }
}

struct Slice<K, A> {
    start_ms: i64,
    values: Table<K, A>,
}

/// What the windows hold, and what is made of it.
struct Contents<K, T, A: Aggregate<T>, W> {
    aggregate: A,
    emit: W,
    /// Ascending by start. Few: those between the oldest window that is kept and the newest record.
    slices: Vec<Slice<K, A::Accumulator>>,
    /// The empty table of a slice that is over. The next one is mostly as large, and fresh memory costs.
    spare: Option<Table<K, A::Accumulator>>,
    already_fired: AlreadyFired<K>,
}

/// A slice, as `[start, end)`, and its place; empty when there is none.
#[derive(Default)]
struct Hot {
    start_ms: i64,
    end_ms: i64,
    at: usize,
}

struct TimeWindowOperator<K, T, S, A: Aggregate<T>, W> {
    windows: TimeWindows,
    slice_ms: i64,
    selector: S,
    contents: Contents<K, T, A, W>,
    /// Slices no window needs any more, but a snapshot that is still being copied.
    leaving: Vec<Slice<K, A::Accumulator>>,
    /// Ends of windows that hold something and have not fired.
    pending_ends: BTreeSet<i64>,
    /// The slice of the last record, if its records are neither late nor fire again: most records are of the same slice
    /// as the one before, and need no arithmetic then.
    hot: Hot,
    /// The watermark, or for processing time the last clock reading.
    now_ms: i64,
    lateness_ms: i64,
    late_tag: Option<OutputTag<T>>,
    late_dropped: u64,
    clock: SharedClock,
}

impl<K: Key, T: Data, A: Aggregate<T>, W> Contents<K, T, A, W> {
    /// The place of the slice that starts at `start_ms`, made if needed; true when it is new.
    #[inline]
    fn slice(&mut self, start_ms: i64) -> (usize, bool) {
        // Records mostly belong to the newest slices.
        let mut at = self.slices.len();
        while at > 0 && self.slices[at - 1].start_ms > start_ms {
            at -= 1;
        }
        if at > 0 && self.slices[at - 1].start_ms == start_ms {
            return (at - 1, false);
        }
        let expected = self.slices.last().map_or(0, |slice| slice.values.len());
        let values = self.spare.take().unwrap_or_else(|| Table::with_capacity(expected));
        self.slices.insert(at, Slice { start_ms, values });
        (at, true)
    }

    /// Takes a record into the slice at a place.
    #[inline]
    fn add<S: KeySelector<T, K>>(&mut self, at: usize, selector: &mut S, value: T) {
        let aggregate = &mut self.aggregate;
        match self.slices[at].values.entry::<S::Lookup, _>(selector.find(&value), S::own) {
            Entry::Held(held) => aggregate.add(held, value),
            Entry::Free(free) => {
                let mut first = aggregate.create();
                aggregate.add(&mut first, value);
                free.insert(first);
            }
        }
    }

    /// Keeps an empty table that held so many entries for the next slice.
    fn keep_spare(&mut self, values: Table<K, A::Accumulator>, held: usize) {
        if values.is_large() && !values.is_wide_for(held) {
            self.spare = Some(values);
        }
    }

    fn covered(&self, window: Window) -> std::ops::Range<usize> {
        let from = self.slices.partition_point(|slice| slice.start_ms < window.start_ms);
        let to = self.slices.partition_point(|slice| slice.start_ms < window.end_ms);
        from..to
    }

    /// Emits the results of all keys of a window. `last_use` says that no later window covers its only slice.
    fn fire<O: 'static, I>(&mut self, window: Window, last_use: bool, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let covered = self.covered(window);
        let skip = self.already_fired.take(window.end_ms);
        match &mut self.slices[covered] {
            [] => Ok(()),
            [only] if last_use && !only.values.is_copying() => {
                let (aggregate, emit) = (&mut self.aggregate, &mut self.emit);
                let mut values = std::mem::take(&mut only.values);
                let entries = values.len();
                emit_all(aggregate, emit, window, &skip, values.drain(), out)?;
                self.keep_spare(values, entries);
                Ok(())
            }
            [only] => {
                let (aggregate, emit) = (&mut self.aggregate, &mut self.emit);
                let all = only.values.iter().map(|(key, value)| (key.clone(), value.clone()));
                emit_all(aggregate, emit, window, &skip, all, out)
            }
            slices => {
                let most = slices.iter().map(|slice| slice.values.len()).max().unwrap_or_default();
                let mut merged: HashMap<&K, A::Accumulator, TableHasher> =
                    HashMap::with_capacity_and_hasher(most, TableHasher::default());
                for slice in slices.iter() {
                    for (key, value) in slice.values.iter() {
                        match merged.entry(key) {
                            hash_map::Entry::Occupied(mut held) => self.aggregate.merge(held.get_mut(), value.clone()),
                            hash_map::Entry::Vacant(free) => {
                                free.insert(value.clone());
                            }
                        }
                    }
                }
                let all = merged.into_iter().map(|(key, value)| (key.clone(), value));
                emit_all(&mut self.aggregate, &mut self.emit, window, &skip, all, out)
            }
        }
    }

    /// Emits the result of one key of a window again, after a late record.
    fn fire_key<O: 'static, I>(&mut self, window: Window, key: &K, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let covered = self.covered(window);
        let mut values = self.slices[covered].iter().filter_map(|slice| slice.values.get(key).cloned());
        let Some(mut value) = values.next() else { return Ok(()) };
        for other in values {
            self.aggregate.merge(&mut value, other);
        }
        let result = self.aggregate.result(value);
        for output in (self.emit)(key, window, result) {
            out.emit(window.max_timestamp_ms(), output)?;
        }
        Ok(())
    }
}

/// Emits the results of a window's keys, except those that have fired before.
fn emit_all<K: Key, T, A: Aggregate<T>, W, O: 'static, I: IntoIterator<Item = O>>(
    aggregate: &mut A,
    emit: &mut W,
    window: Window,
    skip: &HashSet<K, TableHasher>,
    all: impl Iterator<Item = (K, A::Accumulator)>,
    out: &mut Out<O>,
) -> Result<()>
where
    W: FnMut(&K, Window, A::Output) -> I,
{
    for (key, value) in all {
        if skip.is_empty() || !skip.contains(&key) {
            let result = aggregate.result(value);
            for output in emit(&key, window, result) {
                out.emit(window.max_timestamp_ms(), output)?;
            }
        }
    }
    Ok(())
}

impl<K, T, S, A, W> TimeWindowOperator<K, T, S, A, W>
where
    K: Key,
    T: Data,
    A: Aggregate<T>,
{
    fn window(&self, end_ms: i64) -> Window {
        Window { start_ms: end_ms - self.windows.size_ms, end_ms }
    }

    /// Ends of the windows that cover a slice.
    fn ends_over(&self, slice_start_ms: i64) -> impl Iterator<Item = i64> + use<K, T, S, A, W> {
        let last = self.windows.last_start(slice_start_ms) + self.windows.size_ms;
        let (first, slide_ms) = (self.windows.first_end(slice_start_ms), self.windows.slide_ms);
        (0..).map(move |n| first + n * slide_ms).take_while(move |end| *end <= last)
    }

    /// Takes back entries of a slice from a subtask that had come to `reached_ms`.
    fn take_back(&mut self, slice_start_ms: i64, reached_ms: i64, entries: impl Iterator<Item = (K, A::Accumulator)>) {
        let ends: Vec<i64> = self.ends_over(slice_start_ms).filter(|end_ms| end_ms - 1 > self.now_ms).collect();
        for (key, value) in entries {
            for &end_ms in &ends {
                self.pending_ends.insert(end_ms);
                if end_ms - 1 <= reached_ms {
                    self.contents.already_fired.insert(end_ms, key.clone());
                }
            }
            self.contents.aggregate.restored(&value);
            let (at, _) = self.contents.slice(slice_start_ms);
            self.contents.slices[at].values.insert(key, value);
        }
    }

    /// Fires every window that ends at or before the time reached, and lets go of slices no window needs any more.
    fn advance<O: 'static, I>(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        self.now_ms = self.now_ms.max(now_ms);
        self.hot = Hot::default();
        while let Some(&end_ms) = self.pending_ends.first() {
            if end_ms - 1 > self.now_ms {
                break;
            }
            self.pending_ends.pop_first();
            let tumbling = self.windows.size_ms == self.windows.slide_ms;
            let last_use = tumbling && (end_ms - 1).saturating_add(self.lateness_ms) <= self.now_ms;
            self.contents.fire(self.window(end_ms), last_use, out)?;
        }
        let (windows, now_ms, lateness_ms) = (self.windows, self.now_ms, self.lateness_ms);
        let over = |slice: &Slice<K, A::Accumulator>| {
            let last_end = windows.last_start(slice.start_ms) + windows.size_ms;
            (last_end - 1).saturating_add(lateness_ms) <= now_ms
        };
        if self.contents.slices.iter().any(over) {
            let (gone, kept) = std::mem::take(&mut self.contents.slices).into_iter().partition(over);
            let gone: Vec<_> = gone;
            self.contents.slices = kept;
            let (copying, over): (Vec<_>, Vec<_>) = gone.into_iter().partition(|slice| slice.values.is_copying());
            self.leaving.extend(copying);
            self.let_go(over);
        }
        Ok(())
    }

    /// Slices nobody needs any more.
    fn let_go(&mut self, slices: Vec<Slice<K, A::Accumulator>>) {
        for Slice { mut values, .. } in slices {
            let held = values.len();
            values.clear();
            self.contents.keep_spare(values, held);
        }
    }

    /// Fetches what records will be added to, as far as it belongs to the slice most of them belong to, and as long as their
    /// keys cost nothing to take: not a copy on the heap.
    #[inline]
    fn fetch(&mut self, records: &[(i64, T)])
    where
        S: KeySelector<T, K>,
    {
        if std::mem::needs_drop::<S::Found<'_>>() {
            return;
        }
        if let Some(slice) = self.contents.slices.get(self.hot.at) {
            let selector = &mut self.selector;
            slice.values.fetch::<S::Lookup, _>(records.iter().map(|record| selector.find(&record.1)));
        }
    }

    /// Adds a record; `time_ms` decides its slice.
    #[inline]
    fn add<O: 'static, I>(&mut self, timestamp_ms: i64, time_ms: i64, value: T, out: &mut Out<O>) -> Result<()>
    where
        S: KeySelector<T, K>,
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        if time_ms >= self.hot.start_ms && time_ms < self.hot.end_ms {
            self.contents.add(self.hot.at, &mut self.selector, value);
            return Ok(());
        }
        self.add_slowly(timestamp_ms, time_ms, value, out)
    }

    #[inline(never)]
    fn add_slowly<O: 'static, I>(&mut self, timestamp_ms: i64, time_ms: i64, value: T, out: &mut Out<O>) -> Result<()>
    where
        S: KeySelector<T, K>,
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let last_end = self.windows.last_start(time_ms) + self.windows.size_ms;
        // Between windows, which can be when the slide is larger than the size, a record counts as late by its own time.
        let between = last_end <= time_ms;
        let last_ms = if between { time_ms } else { last_end - 1 };
        if last_ms.saturating_add(self.lateness_ms) <= self.now_ms {
            return match self.late_tag {
                Some(tag) if out.has_side(tag.name) => out.side(&tag, timestamp_ms, value),
                _ => {
                    self.late_dropped += 1;
                    Ok(())
                }
            };
        }
        if between {
            return Ok(());
        }
        let slice_start_ms = floor(time_ms, self.slice_ms, self.windows.offset_ms);
        let late = self.windows.first_end(time_ms) - 1 <= self.now_ms;
        let again = late.then(|| self.selector.key(&value));
        let (at, is_new) = self.contents.slice(slice_start_ms);
        if is_new {
            // Slices behind the new one have moved.
            self.hot = Hot::default();
        }
        self.contents.add(at, &mut self.selector, value);
        if !late {
            self.hot = Hot { start_ms: slice_start_ms, end_ms: slice_start_ms + self.slice_ms, at };
        }
        if is_new {
            let now_ms = self.now_ms;
            let ends: Vec<i64> = self.ends_over(slice_start_ms).filter(|end_ms| end_ms - 1 > now_ms).collect();
            self.pending_ends.extend(ends);
        }
        if let Some(key) = again {
            let (now_ms, lateness_ms) = (self.now_ms, self.lateness_ms);
            let fired = |end: &i64| end - 1 <= now_ms && (end - 1).saturating_add(lateness_ms) > now_ms;
            let ends: Vec<i64> = self.ends_over(slice_start_ms).filter(fired).collect();
            for end_ms in ends {
                self.contents.fire_key(self.window(end_ms), &key, out)?;
            }
        }
        Ok(())
    }
}

const VALUES: &str = "window-values";

/// The slice a section's name names.
fn slice_of(name: &str) -> Option<i64> {
    name.strip_prefix(VALUES)?.strip_prefix('/')?.parse().ok()
}

impl<K, T, O, S, A, W, I> Operator<T, O> for TimeWindowOperator<K, T, S, A, W>
where
    K: Key,
    T: Data,
    O: Data,
    S: KeySelector<T, K>,
    A: Aggregate<T>,
    W: FnMut(&K, Window, A::Output) -> I + Send + 'static,
    I: IntoIterator<Item = O>,
{
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        self.contents.already_fired.restore(&mut state)?;
        let progress = Progress::restore(&mut state)?;
        self.now_ms = progress.slowest_ms();
        // A large slice has its own sections, the small ones share one.
        let mut large: BTreeMap<(usize, i64), Vec<RestoredSection>> = BTreeMap::new();
        for section in state.take_where(|name| slice_of(name).is_some()) {
            let slice_start_ms = slice_of(&section.name).unwrap_or_default();
            large.entry((section.subtask, slice_start_ms)).or_default().push(section);
        }
        for ((subtask, slice_start_ms), sections) in large {
            let mut values: Table<K, A::Accumulator> = Table::default();
            values.load(&sections, |key| state.owns(key))?;
            let reached_ms = progress.of(subtask);
            self.take_back(slice_start_ms, reached_ms, values.into_entries());
        }
        for section in state.take(VALUES) {
            let reached_ms = progress.of(section.subtask);
            let mut reader = section.reader()?;
            while let Some((key, slice_start_ms, value)) = reader.entry::<(K, i64, A::Accumulator)>()? {
                if state.owns(&key) {
                    self.take_back(slice_start_ms, reached_ms, std::iter::once((key, value)));
                }
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        if self.windows.event_time {
            let mut records = batch.into_iter();
            while records.len() > 0 {
                let ahead = records.len().min(FETCHED_AHEAD);
                self.fetch(&records.as_slice()[..ahead]);
                records.by_ref().take(ahead).try_for_each(|(timestamp_ms, value)| {
                    if timestamp_ms == NO_TIMESTAMP {
                        return Err(without_event_time());
                    }
                    self.add(timestamp_ms, timestamp_ms, value, out)
                })?;
            }
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        self.advance(now_ms - 1, out)?;
        batch
            .into_iter()
            .try_for_each(|(timestamp_ms, value)| self.add(timestamp_ms, now_ms.max(self.now_ms + 1), value, out))
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<O>) -> Result<()> {
        if self.windows.event_time {
            self.advance(watermark_ms, out)?;
        }
        out.watermark(watermark_ms)
    }

    fn on_processing_time(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()> {
        // A window [start, end) is over when the clock shows its end.
        self.advance(now_ms - 1, out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        if self.windows.event_time { None } else { self.pending_ends.first().copied() }
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        // The copy they had to stay for is over.
        let copied = std::mem::take(&mut self.leaving);
        self.let_go(copied);
        let mut small = Writer::new(VALUES, SectionKind::Keyed);
        for slice in &mut self.contents.slices {
            if slice.values.is_large() {
                slice.values.begin_snapshot(&format!("{VALUES}/{}", slice.start_ms), parts)?;
            } else if parts.mode != SnapshotMode::Nothing {
                slice.values.iter().try_for_each(|(key, value)| small.entry(&(key, slice.start_ms, value)))?;
            }
        }
        parts.sections.push(small.finish());
        Progress::snapshot(self.now_ms, parts)?;
        self.contents.already_fired.snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        for slice in self.leaving.iter_mut().chain(&mut self.contents.slices) {
            if !slice.values.copy_some(run)? {
                return Ok(false);
            }
        }
        let copied = std::mem::take(&mut self.leaving);
        self.let_go(copied);
        Ok(true)
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}
