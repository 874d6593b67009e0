//! The part of an aggregation behind the exchange: windows over the groups of each key.
//!
//! Time is cut into slices as on the typed lane (`window/time.rs`), and each slice has a table of groups. When a window
//! ends, the tables of the slices it covers are merged; a tumbling window is one slice. Results are columns made of the
//! tables' words. Sections of state have the names and entries of the typed lane's time windows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow_schema::SchemaRef;
use hashbrown::HashSet;
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, Result, WATERMARK_MIN};

use super::combine::Grouping;
use super::groups::{Group, Groups, Rows, Shape, Words};
use super::key_columns::KeyColumns;
use super::parts::PartColumn;
use super::row_key::RowKey;
use super::runs::runs;
use crate::driver::{BATCH_ROWS, Records};
use crate::operator::{CopyRun, Operator, Out, SnapshotMode, SnapshotParts};
use crate::state::{Restored, SectionKind, TableHasher, Writer};
use crate::window::Window;
use crate::window::progress::{AlreadyFired, Progress};

struct Slice {
    start_ms: i64,
    groups: Groups,
}

type Keys = HashSet<RowKey, TableHasher>;

pub(super) struct SlicesOperator {
    grouping: Arc<Grouping>,
    output: SchemaRef,
    /// Ascending by start. Few: those between the oldest window that is kept and the newest row.
    slices: Vec<Slice>,
    /// An empty table. The next one is mostly as large, and fresh memory costs.
    spare: Option<Groups>,
    /// Slices no window needs any more, but a snapshot that is still being copied.
    leaving: Vec<Slice>,
    /// Ends of windows that hold something and have not fired.
    pending_ends: BTreeSet<i64>,
    already_fired: AlreadyFired<RowKey>,
    watermark_ms: i64,
    late_dropped: u64,
}

/// What the state holds, in words.
const CONTENT: &str = "columns";
/// Groups: of a large slice with its start behind a stroke, of small ones together.
const VALUES: &str = "window-values";

/// The slice a section's name names.
fn slice_of(name: &str) -> Option<i64> {
    name.strip_prefix(VALUES)?.strip_prefix('/')?.parse().ok()
}

impl SlicesOperator {
    pub fn new(grouping: Arc<Grouping>, output: SchemaRef) -> Self {
        SlicesOperator {
            grouping,
            output,
            slices: Vec::new(),
            spare: None,
            leaving: Vec::new(),
            pending_ends: BTreeSet::new(),
            already_fired: AlreadyFired::default(),
            watermark_ms: WATERMARK_MIN,
            late_dropped: 0,
        }
    }

    fn content(&self) -> String {
        let Shape { keys, layout, .. } = &*self.grouping.shape;
        format!("keys {}, {}", keys.describe(), layout.describe())
    }

    /// The end of the last window that covers a slice. It is not behind the slice's start when none does, which can be
    /// where the slide is larger than the size.
    fn last_end(&self, slice_start_ms: i64) -> i64 {
        self.grouping.windows.last_start(slice_start_ms) + self.grouping.windows.size_ms
    }

    /// Ends of the windows that cover a slice and are not over.
    fn open_ends(&self, slice_start_ms: i64) -> Vec<i64> {
        let (first, last) = (self.grouping.windows.first_end(slice_start_ms), self.last_end(slice_start_ms));
        let ends = (0..).map(|n| first + n * self.grouping.windows.slide_ms);
        ends.take_while(|end| *end <= last).filter(|end| end - 1 > self.watermark_ms).collect()
    }

    fn fresh(&mut self) -> Groups {
        self.spare.take().unwrap_or_else(|| Groups::new(self.grouping.shape.clone()))
    }

    /// The groups of a slice, made if needed.
    fn slice(&mut self, start_ms: i64) -> &mut Groups {
        // Rows mostly belong to the newest slices.
        let at = self.slices.iter().rposition(|slice| slice.start_ms <= start_ms);
        let at = match at {
            Some(at) if self.slices[at].start_ms == start_ms => at,
            before => {
                let at = before.map_or(0, |at| at + 1);
                let groups = self.fresh();
                self.slices.insert(at, Slice { start_ms, groups });
                let ends = self.open_ends(start_ms);
                self.pending_ends.extend(ends);
                at
            }
        };
        &mut self.slices[at].groups
    }

    fn add(&mut self, batch: &ColumnBatch) -> Result<()> {
        let grouping = self.grouping.clone();
        let (width, shape) = (grouping.keys.len(), &grouping.shape);
        let keys = shape.keys.read(&KeyColumns::of(batch, 0..width)?)?;
        let parts = shape.layout.read(&batch.columns().columns()[width..])?;
        for run in runs(&grouping.windows, batch) {
            let rows = run.rows(batch.rows());
            let last_end = self.last_end(run.slice_start_ms);
            if last_end <= run.slice_start_ms {
                // Between windows a row counts as late by its own time.
                self.late_dropped += held(&parts, rows, |row| batch.times_ms()[row] <= self.watermark_ms);
            } else if last_end - 1 <= self.watermark_ms {
                self.late_dropped += held(&parts, rows, |_| true);
            } else if run.retracts {
                let parts: Vec<PartColumn> = parts.iter().map(PartColumn::negated).collect();
                self.slice(run.slice_start_ms).add(&keys, &parts, rows)?;
            } else {
                self.slice(run.slice_start_ms).add(&keys, &parts, rows)?;
            }
        }
        Ok(())
    }

    /// Fires every window that the watermark has come to, and lets go of slices no window needs any more.
    fn advance(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        while let Some(&end_ms) = self.pending_ends.first() {
            if end_ms - 1 > self.watermark_ms {
                break;
            }
            self.pending_ends.pop_first();
            self.fire(Window { start_ms: end_ms - self.grouping.windows.size_ms, end_ms }, out)?;
        }
        let over =
            self.slices.iter().take_while(|slice| self.last_end(slice.start_ms) - 1 <= self.watermark_ms).count();
        for slice in self.slices.drain(..over).collect::<Vec<_>>() {
            match slice.groups.is_copying() {
                true => self.leaving.push(slice),
                false => self.keep_spare(slice.groups),
            }
        }
        Ok(())
    }

    /// Emits the results of all keys of a window.
    fn fire(&mut self, window: Window, out: &mut Out<ColumnBatch>) -> Result<()> {
        let from = self.slices.partition_point(|slice| slice.start_ms < window.start_ms);
        let to = self.slices.partition_point(|slice| slice.start_ms < window.end_ms);
        let skip = self.already_fired.take(window.end_ms);
        if to - from < 2 {
            return match self.slices.get(from..to) {
                Some([only]) => self.emit_all(&only.groups, window, &skip, out),
                _ => Ok(()),
            };
        }
        let mut merged = self.fresh();
        self.slices[from..to].iter().try_for_each(|slice| merged.absorb(&slice.groups))?;
        self.emit_all(&merged, window, &skip, out)?;
        self.keep_spare(merged);
        Ok(())
    }

    /// Emits the results of groups, except those of keys that have fired before.
    fn emit_all(&self, groups: &Groups, window: Window, skip: &Keys, out: &mut Out<ColumnBatch>) -> Result<()> {
        let fires =
            |group: &Group<'_>| group.rows() != 0 && (skip.is_empty() || !skip.contains(&groups.row_key(group)));
        let mut firing = groups.iter().filter(fires);
        loop {
            let some: Vec<Group<'_>> = firing.by_ref().take(BATCH_ROWS).collect();
            if some.is_empty() {
                return Ok(());
            }
            let results = self.results(&some, window)?;
            out.emit_batch(vec![(window.max_timestamp_ms(), results)])?;
        }
    }

    fn results(&self, groups: &[Group<'_>], window: Window) -> Result<ColumnBatch> {
        let Shape { keys, layout, .. } = &*self.grouping.shape;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
        for at in 0..keys.columns() {
            columns.push(keys.column(at, groups)?);
        }
        let moments = |at_ms| Arc::new(TimestampMillisecondArray::from_value(at_ms, groups.len()));
        columns.extend([moments(window.start_ms) as ArrayRef, moments(window.end_ms)]);
        columns.extend(layout.results(groups)?);
        let columns = RecordBatch::try_new(self.output.clone(), columns).map_err(failed)?;
        ColumnBatch::new(columns).with_times(Int64Array::from_value(window.max_timestamp_ms(), groups.len()))
    }

    /// Takes back a group of a slice, of which the windows with these ends have fired.
    fn take_back(&mut self, slice_start_ms: i64, fired: &[i64], key: RowKey, words: &Words) -> Result<()> {
        self.slice(slice_start_ms).set(&key, words)?;
        for end_ms in fired {
            self.already_fired.insert(*end_ms, key.clone());
        }
        Ok(())
    }

    /// Ends of the windows over a slice that fired where event time had come to `reached_ms`, and not here.
    fn fired_ends(&self, slice_start_ms: i64, reached_ms: i64) -> Vec<i64> {
        self.open_ends(slice_start_ms).into_iter().filter(|end_ms| end_ms - 1 <= reached_ms).collect()
    }

    /// Keeps a table that is not needed any more for the next one, if that is worth it.
    fn keep_spare(&mut self, mut groups: Groups) {
        if self.spare.is_none() && groups.is_large() && !groups.is_wide() {
            groups.clear();
            self.spare = Some(groups);
        }
    }
}

/// How many rows of the input some rows of parts stand for.
fn held(parts: &[PartColumn], rows: Rows<'_>, counts: impl Fn(usize) -> bool) -> u64 {
    let Some(PartColumn::Whole(held)) = parts.first() else { return 0 };
    let count = |row: usize| if counts(row) { held.value(row).unsigned_abs() } else { 0 };
    match rows {
        Rows::All(rows) => (0..rows).map(count).sum(),
        Rows::Some(rows) => rows.iter().map(|row| count(*row as usize)).sum(),
    }
}

impl Operator<ColumnBatch, ColumnBatch> for SlicesOperator {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let own = self.content();
        for section in state.take(CONTENT) {
            let saved = section.reader()?.entry::<String>()?.unwrap_or_default();
            if saved != own {
                return Err(Error::input(format!("the restored windows hold {saved}, but now hold {own}"))
                    .hint("give the changed aggregation another uid"));
            }
        }
        self.already_fired.restore(&mut state)?;
        let progress = Progress::restore(&mut state)?;
        self.watermark_ms = progress.slowest_ms();
        // A key belonged to one subtask, and what that wrote of it later comes behind what it wrote earlier.
        for section in state.take_where(|name| slice_of(name).is_some()) {
            if section.removal {
                return Err(Error::corrupt("the state of windows over columns says that keys were removed"));
            }
            let slice_start_ms = slice_of(&section.name).unwrap_or_default();
            let fired = self.fired_ends(slice_start_ms, progress.of(section.subtask));
            let mut reader = section.reader()?;
            while let Some((key, words)) = reader.entry::<(RowKey, Words)>()? {
                if state.owns(&key) {
                    self.take_back(slice_start_ms, &fired, key, &words)?;
                }
            }
        }
        for section in state.take(VALUES) {
            let reached_ms = progress.of(section.subtask);
            let mut reader = section.reader()?;
            while let Some((key, slice_start_ms, words)) = reader.entry::<(RowKey, i64, Words)>()? {
                if state.owns(&key) {
                    let fired = self.fired_ends(slice_start_ms, reached_ms);
                    self.take_back(slice_start_ms, &fired, key, &words)?;
                }
            }
        }
        state.finish()
    }

    fn on_batch(&mut self, batches: Records<ColumnBatch>, _: &mut Out<ColumnBatch>) -> Result<()> {
        batches.iter().try_for_each(|(_, batch)| self.add(batch))
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        self.advance(out)?;
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, _epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        // The copy they had to stay for is over.
        self.leaving.clear();
        let mut small = Writer::new(VALUES, SectionKind::Keyed);
        for Slice { start_ms, groups } in &mut self.slices {
            if groups.is_large() {
                groups.begin_snapshot(&format!("{VALUES}/{start_ms}"), parts);
            } else if parts.mode != SnapshotMode::Nothing {
                groups.write_all(*start_ms, &mut small)?;
            }
        }
        if parts.mode != SnapshotMode::Nothing {
            let mut content = Writer::new(CONTENT, SectionKind::Operator);
            content.entry(&self.content())?;
            parts.sections.push(content.finish());
        }
        parts.sections.push(small.finish());
        Progress::snapshot(self.watermark_ms, parts)?;
        self.already_fired.snapshot(parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        for slice in self.leaving.iter_mut().chain(&mut self.slices) {
            if !slice.groups.copy_some(run)? {
                return Ok(false);
            }
        }
        self.leaving.clear();
        Ok(true)
    }

    fn late_dropped(&self) -> u64 {
        self.late_dropped
    }
}

#[cfg(test)]
#[path = "tests/slices.rs"]
mod tests;
