//! Tumbling and sliding windows whose contents are on disk: the same slices, in one table in order of slice and key. A window
//! that ends reads its slices one behind the other; what no window needs any more goes as whole files.
//!
//! What it saves is what windows in memory save, so either goes on from the other's checkpoints.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tidemill_core::{Data, Error, NO_TIMESTAMP, Result, WATERMARK_MIN};

use super::{TimeWindows, VALUES, slice_of};
use crate::driver::Records;
use crate::key::Key;
use crate::operator::{CopyRun, Operator, Out, OutputTag, SnapshotParts};
use crate::state::{AtTime, DiskTable, Restored, TableHasher};
use crate::stream::{KeySelector, RuntimeContext};
use crate::window::progress::{AlreadyFired, Progress};
use crate::window::{Aggregate, Window, WindowParts, floor, without_event_time};

/// A slice's running values by key.
type Values<K, A> = DiskTable<AtTime<K>, A>;

pub(super) struct DiskTimeWindows<K, T, S, A: Aggregate<T>, W> {
    windows: TimeWindows,
    slice_ms: i64,
    selector: S,
    aggregate: A,
    emit: W,
    /// Made by `restore`, which comes before all else.
    values: Option<Values<K, A::Accumulator>>,
    /// The starts of slices that some window still needs.
    slices: BTreeSet<i64>,
    /// No slice before this one is needed any more.
    live_from_ms: i64,
    /// The slice of the last record, as `[start, end)`, if its records are neither late nor fire again.
    hot: (i64, i64),
    /// Ends of windows that hold something and have not fired.
    pending_ends: BTreeSet<i64>,
    already_fired: AlreadyFired<K>,
    /// The watermark, or for processing time the last clock reading.
    now_ms: i64,
    lateness_ms: i64,
    late_tag: Option<OutputTag<T>>,
    late_dropped: u64,
    context: RuntimeContext,
}

fn not_restored() -> Error {
    Error::bug("a window operator is used before it was restored")
}

impl<K: Key, T: Data, S, A: Aggregate<T>, W> DiskTimeWindows<K, T, S, A, W> {
    pub fn new(windows: TimeWindows, parts: WindowParts<S, A, W>) -> Self {
        DiskTimeWindows {
            slice_ms: windows.slice_ms(),
            selector: parts.selector,
            aggregate: parts.aggregate,
            emit: parts.emit,
            values: None,
            slices: BTreeSet::new(),
            live_from_ms: i64::MIN,
            hot: (0, 0),
            pending_ends: BTreeSet::new(),
            already_fired: AlreadyFired::default(),
            now_ms: WATERMARK_MIN,
            lateness_ms: if windows.event_time { parts.allowed_lateness_ms } else { 0 },
            late_tag: parts.late_tag.map(OutputTag::new),
            late_dropped: 0,
            context: parts.context,
            windows,
        }
    }

    fn window(&self, end_ms: i64) -> Window {
        Window { start_ms: end_ms - self.windows.size_ms, end_ms }
    }

    /// Ends of the windows that cover a slice.
    fn ends_over(&self, slice_start_ms: i64) -> impl Iterator<Item = i64> + use<K, T, S, A, W> {
        let last = self.windows.last_start(slice_start_ms) + self.windows.size_ms;
        let (first, slide_ms) = (self.windows.first_end(slice_start_ms), self.windows.slide_ms);
        (0..).map(move |n| first + n * slide_ms).take_while(move |end| *end <= last)
    }

    /// Whether no window needs a slice any more.
    fn is_over(&self, slice_start_ms: i64) -> bool {
        let last_end = self.windows.last_start(slice_start_ms) + self.windows.size_ms;
        (last_end - 1).saturating_add(self.lateness_ms) <= self.now_ms
    }

    /// A slice holds something; true when it did not before.
    fn open_slice(&mut self, slice_start_ms: i64) -> bool {
        if !self.slices.insert(slice_start_ms) {
            return false;
        }
        let now_ms = self.now_ms;
        let ends: Vec<i64> = self.ends_over(slice_start_ms).filter(|end_ms| end_ms - 1 > now_ms).collect();
        self.pending_ends.extend(ends);
        true
    }

    /// Fires every window that ends at or before the time reached, and lets go of slices no window needs any more.
    fn advance<O: 'static, I>(&mut self, now_ms: i64, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        self.now_ms = self.now_ms.max(now_ms);
        self.hot = (0, 0);
        while let Some(end_ms) = self.pending_ends.first().copied().filter(|end_ms| end_ms - 1 <= self.now_ms) {
            self.pending_ends.pop_first();
            let tumbling = self.windows.size_ms == self.windows.slide_ms;
            let last_use = tumbling && (end_ms - 1).saturating_add(self.lateness_ms) <= self.now_ms;
            self.fire(self.window(end_ms), last_use, out)?;
        }
        // Of two slices the earlier one is over first.
        if let Some(last_ms) = self.slices.iter().take_while(|start_ms| self.is_over(**start_ms)).last().copied() {
            self.slices = self.slices.split_off(&(last_ms + 1));
            self.live_from_ms = last_ms + 1;
            self.keep_slices()?;
        }
        Ok(())
    }

    fn keep_slices(&mut self) -> Result<()> {
        let values = self.values.as_mut().ok_or_else(not_restored)?;
        values.keep_times(self.slices.iter().copied().collect(), self.live_from_ms);
        Ok(())
    }

    /// Emits the results of all keys of a window. `last_use` says that no later window covers its only slice.
    fn fire<O: 'static, I>(&mut self, window: Window, last_use: bool, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let skip = self.already_fired.take(window.end_ms);
        let covered: Vec<i64> = self.slices.range(window.start_ms..window.end_ms).copied().collect();
        let values = self.values.as_mut().ok_or_else(not_restored)?;
        let (aggregate, emit) = (&mut self.aggregate, &mut self.emit);
        let mut tell = |aggregate: &mut A, key: K, value| {
            if skip.contains(&key) {
                return Ok(());
            }
            let results = emit(&key, window, aggregate.result(value));
            results.into_iter().try_for_each(|output| out.emit(window.max_timestamp_ms(), output))
        };
        match covered[..] {
            [] => Ok(()),
            [only] if last_use => values.take_at(only, |key, value| tell(aggregate, key, value)),
            [only] => values.for_each_at(only, values.own(), |key, value| tell(aggregate, key, value)),
            _ => values.parts().into_iter().try_for_each(|groups| {
                let mut merged: HashMap<K, A::Accumulator, TableHasher> = HashMap::default();
                for slice_start_ms in &covered {
                    values.for_each_at(*slice_start_ms, groups, |key, value| {
                        match merged.entry(key) {
                            Entry::Occupied(mut held) => aggregate.merge(held.get_mut(), value),
                            Entry::Vacant(free) => drop(free.insert(value)),
                        }
                        Ok(())
                    })?;
                }
                merged.into_iter().try_for_each(|(key, value)| tell(aggregate, key, value))
            }),
        }
    }

    /// Emits the result of one key of a window again, after a late record.
    fn fire_key<O: 'static, I>(&mut self, window: Window, key: &K, out: &mut Out<O>) -> Result<()>
    where
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        let values = self.values.as_mut().ok_or_else(not_restored)?;
        let mut merged: Option<A::Accumulator> = None;
        for slice_start_ms in self.slices.range(window.start_ms..window.end_ms) {
            let Some(value) = values.get(&AtTime(key.clone(), *slice_start_ms))?.cloned() else { continue };
            match &mut merged {
                None => merged = Some(value),
                Some(merged) => self.aggregate.merge(merged, value),
            }
        }
        let Some(value) = merged else { return Ok(()) };
        let results = (self.emit)(key, window, self.aggregate.result(value));
        results.into_iter().try_for_each(|output| out.emit(window.max_timestamp_ms(), output))
    }

    /// Takes a record into a slice.
    fn take_in(&mut self, slice_start_ms: i64, value: T) -> Result<()>
    where
        S: KeySelector<T, K>,
    {
        let (values, aggregate) = (self.values.as_mut().ok_or_else(not_restored)?, &mut self.aggregate);
        let key = AtTime(self.selector.key(&value), slice_start_ms);
        let held = values.get_or_insert_with(&key, || aggregate.create())?;
        aggregate.add(held, value);
        Ok(())
    }

    /// Adds a record; `time_ms` decides its slice.
    fn add<O: 'static, I>(&mut self, timestamp_ms: i64, time_ms: i64, value: T, out: &mut Out<O>) -> Result<()>
    where
        S: KeySelector<T, K>,
        W: FnMut(&K, Window, A::Output) -> I,
        I: IntoIterator<Item = O>,
    {
        if time_ms >= self.hot.0 && time_ms < self.hot.1 {
            return self.take_in(self.hot.0, value);
        }
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
        self.open_slice(slice_start_ms);
        if self.windows.first_end(time_ms) - 1 > self.now_ms {
            self.hot = (slice_start_ms, slice_start_ms + self.slice_ms);
            return self.take_in(slice_start_ms, value);
        }
        let key = self.selector.key(&value);
        self.take_in(slice_start_ms, value)?;
        let (now_ms, lateness_ms) = (self.now_ms, self.lateness_ms);
        let fired = |end: &i64| end - 1 <= now_ms && (end - 1).saturating_add(lateness_ms) > now_ms;
        let ends: Vec<i64> = self.ends_over(slice_start_ms).filter(fired).collect();
        ends.into_iter().try_for_each(|end_ms| self.fire_key(self.window(end_ms), &key, out))
    }

    /// An entry of a slice comes back from a subtask that had come to `reached_ms`.
    fn take_back(&mut self, entry: &AtTime<K>, reached_ms: i64, value: &A::Accumulator) -> Result<()> {
        let AtTime(key, slice_start_ms) = entry;
        if self.is_over(*slice_start_ms) {
            return Ok(());
        }
        self.open_slice(*slice_start_ms);
        if reached_ms > self.now_ms {
            let now_ms = self.now_ms;
            let fired =
                self.ends_over(*slice_start_ms).filter(|end_ms| end_ms - 1 > now_ms && end_ms - 1 <= reached_ms);
            for end_ms in fired {
                self.already_fired.insert(end_ms, key.clone());
            }
        }
        self.aggregate.restored(value);
        self.values.as_mut().ok_or_else(not_restored)?.load_entry(entry, value)
    }
}

impl<K, T, O, S, A, W, I> Operator<T, O> for DiskTimeWindows<K, T, S, A, W>
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
        let at = (self.context.subtask, self.context.parallelism);
        self.values = self.context.state.timed_table(VALUES, at)?;
        self.already_fired.restore(&mut state)?;
        let progress = Progress::restore(&mut state)?;
        self.now_ms = progress.slowest_ms();
        // In memory a large slice has sections of its own.
        for section in state.take_where(|name| name == VALUES || slice_of(name).is_some()) {
            let reached_ms = progress.of(section.subtask);
            let slice = slice_of(&section.name);
            let mut reader = section.reader()?;
            loop {
                let entry = match slice {
                    None => reader.entry::<(AtTime<K>, A::Accumulator)>()?,
                    Some(slice_start_ms) => {
                        reader.entry::<(K, A::Accumulator)>()?.map(|(key, value)| (AtTime(key, slice_start_ms), value))
                    }
                };
                let Some((key, value)) = entry else { break };
                if state.owns(&key.0) {
                    self.take_back(&key, reached_ms, &value)?;
                }
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batch: Records<T>, out: &mut Out<O>) -> Result<()> {
        if self.windows.event_time {
            for (timestamp_ms, value) in batch {
                if timestamp_ms == NO_TIMESTAMP {
                    return Err(without_event_time());
                }
                self.add(timestamp_ms, timestamp_ms, value, out)?;
            }
            return Ok(());
        }
        let now_ms = self.context.clock.now_ms();
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
        self.keep_slices()?;
        self.values.as_mut().ok_or_else(not_restored)?.begin_snapshot(parts)?;
        Progress::snapshot(self.now_ms, parts)?;
        self.already_fired.snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.values.as_mut().ok_or_else(not_restored)?.copy_some(run)
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}
