//! The part of an aggregation before the exchange: rows that belong to the same key and slice of time become one row of
//! parts, over as many batches as it takes until the parts are wanted on the other side.
//!
//! Nothing is held whose first window has ended by the watermark: it leaves before the watermark does, so that no row
//! comes late that would have been in time by itself. What is held leaves before a barrier, too; there is nothing to save,
//! and another parallelism is no matter. Where it hardly makes rows fewer it is left alone for long, and tried again.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, UInt8Array};
use arrow_schema::{Schema, SchemaRef};
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, NO_TIMESTAMP, Result, RowKind, WATERMARK_MIN};

use super::aggregate::Layout;
use super::groups::{Group, Groups, Shape};
use super::key_columns::{KeyColumns, KeyShape};
use super::parts::PartColumn;
use super::runs::{Run, runs};
use crate::driver::{BATCH_ROWS, Records};
use crate::operator::{Operator, Out};
use crate::window::TimeWindows;

/// Groups held at most. They stay in a processor's cache together, and what leaves at once stays small.
const GROUPS_MAX: usize = 16 * 1024;

/// Bytes of texts in their keys held at most.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tables held at most: one a slice and sign.
const HELD_MAX: usize = 256;

/// Combining must leave at most one row of so many to be worth its while.
const WORTHWHILE: u64 = 2;

/// So many rows are combined before that is judged, and of so many at most it is remembered.
const TRIED_ROWS_MIN: u64 = 8 * 1024;
const TRIED_ROWS_MAX: u64 = 1024 * 1024;

/// Where it was not worth its while, so many rows go on as they are before it is tried again.
const UNTRIED_ROWS: u64 = 2 * 1024 * 1024;

/// What the operators before and behind the exchange agree on.
pub(super) struct Grouping {
    pub windows: TimeWindows,
    /// The places of the key columns in the input.
    pub keys: Vec<usize>,
    pub shape: Arc<Shape>,
    /// Key columns, then parts: what goes over the exchange.
    pub between: SchemaRef,
}

impl Grouping {
    pub fn new(input: &SchemaRef, keys: Vec<usize>, windows: TimeWindows, layout: Layout) -> Result<Self> {
        let mut fields: Vec<_> = keys.iter().map(|place| input.fields()[*place].clone()).collect();
        let shape = Shape::new(KeyShape::new(fields.iter().map(|field| &**field))?, layout);
        fields.extend(shape.layout.part_fields().into_iter().map(Arc::new));
        Ok(Grouping { windows, keys, shape: Arc::new(shape), between: Arc::new(Schema::new(fields)) })
    }
}

/// The groups of a slice, of rows that all add or all take back.
struct Held {
    slice_start_ms: i64,
    retracts: bool,
    groups: Groups,
    /// Groups and bytes of texts when they were last counted.
    counted: (usize, usize),
}

pub(super) struct CombineOperator {
    grouping: Arc<Grouping>,
    held: Vec<Held>,
    /// Of all that is held.
    groups: usize,
    text_bytes: usize,
    /// Empty tables.
    spare: Vec<Groups>,
    /// Rows taken in, and rows that left for them, since it was last judged.
    tried: u64,
    left: u64,
    /// So many rows go on as they are.
    untried: u64,
    watermark_ms: i64,
}

/// Empty tables kept for the next slices.
const SPARE_MAX: usize = 16;

impl CombineOperator {
    pub fn new(grouping: Arc<Grouping>) -> Self {
        CombineOperator {
            grouping,
            held: Vec::new(),
            groups: 0,
            text_bytes: 0,
            spare: Vec::new(),
            tried: 0,
            left: 0,
            untried: 0,
            watermark_ms: WATERMARK_MIN,
        }
    }

    fn take_in(&mut self, batch: ColumnBatch, out: &mut Out<ColumnBatch>) -> Result<()> {
        let grouping = self.grouping.clone();
        if batch.times_ms().contains(&NO_TIMESTAMP) {
            return Err(Error::input("rows without event time came to an event-time window")
                .hint("assign timestamps and watermarks before the window"));
        }
        let layout = &grouping.shape.layout;
        if batch.kinds().is_some() && !layout.retracts() {
            return Err(Error::input("rows that are updated or deleted came to a minimum or maximum")
                .hint("only counts and sums can take rows back"));
        }
        let (parts, rows) = (layout.columns(&batch)?, batch.rows());
        if self.untried > 0 {
            self.untried = self.untried.saturating_sub(rows as u64);
            return self.hand_on(batch, parts, out);
        }
        let keys = KeyColumns::of(&batch, grouping.keys.iter().copied())?;
        let keys = grouping.shape.keys.read(&keys)?;
        for run in runs(&grouping.windows, &batch) {
            let at = self.held_for(&run);
            let held = &mut self.held[at];
            held.groups.add(&keys, &parts, run.rows(rows))?;
            let counted = (held.groups.len(), held.groups.text_bytes());
            self.groups += counted.0 - held.counted.0;
            self.text_bytes += counted.1 - held.counted.1;
            held.counted = counted;
        }
        self.tried += rows as u64;
        Ok(())
    }

    /// The rows as they are.
    fn hand_on(&self, batch: ColumnBatch, parts: Vec<PartColumn>, out: &mut Out<ColumnBatch>) -> Result<()> {
        let keys = self.grouping.keys.iter().map(|place| batch.columns().column(*place).clone());
        let columns = keys.chain(parts.into_iter().map(PartColumn::array)).collect();
        let columns = RecordBatch::try_new(self.grouping.between.clone(), columns).map_err(failed)?;
        out.emit(batch.latest_ms(), batch.with_columns(columns)?)
    }

    fn held_for(&mut self, run: &Run) -> usize {
        let same = |held: &Held| held.slice_start_ms == run.slice_start_ms && held.retracts == run.retracts;
        // Rows mostly belong to the newest slices.
        self.held.iter().rposition(same).unwrap_or_else(|| {
            let groups = self.spare.pop().unwrap_or_else(|| Groups::bounded(self.grouping.shape.clone()));
            let Run { slice_start_ms, retracts, .. } = *run;
            self.held.push(Held { slice_start_ms, retracts, groups, counted: (0, 0) });
            self.held.len() - 1
        })
    }

    /// Lets go of the groups of slices of which `leaves` says so.
    fn let_go(&mut self, leaves: impl Fn(&TimeWindows, i64) -> bool, out: &mut Out<ColumnBatch>) -> Result<()> {
        let windows = self.grouping.windows;
        let (gone, kept) =
            std::mem::take(&mut self.held).into_iter().partition(|held| leaves(&windows, held.slice_start_ms));
        self.held = kept;
        let gone: Vec<Held> = gone;
        let mut rows = gone.iter().flat_map(|held| held.groups.iter().map(move |group| (held, group)));
        loop {
            let some: Vec<(&Held, Group<'_>)> = rows.by_ref().take(BATCH_ROWS).collect();
            if some.is_empty() {
                break;
            }
            self.emit(&some, out)?;
            self.left += some.len() as u64;
        }
        drop(rows);
        for mut held in gone {
            self.groups -= held.counted.0;
            self.text_bytes -= held.counted.1;
            if self.spare.len() < SPARE_MAX {
                held.groups.clear();
                self.spare.push(held.groups);
            }
        }
        Ok(())
    }

    /// One row a group, as of the start of its slice.
    fn emit(&self, rows: &[(&Held, Group<'_>)], out: &mut Out<ColumnBatch>) -> Result<()> {
        let Shape { keys, layout, .. } = &*self.grouping.shape;
        let groups: Vec<Group<'_>> = rows.iter().map(|row| row.1).collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.grouping.between.fields().len());
        for at in 0..keys.columns() {
            columns.push(keys.column(at, &groups)?);
        }
        columns.extend(layout.part_columns(&groups));
        let columns = RecordBatch::try_new(self.grouping.between.clone(), columns).map_err(failed)?;
        let times_ms = Int64Array::from_iter_values(rows.iter().map(|(held, _)| held.slice_start_ms));
        let kind = |held: &Held| if held.retracts { RowKind::Delete } else { RowKind::Insert };
        let kinds = UInt8Array::from_iter_values(rows.iter().map(|(held, _)| kind(held) as u8));
        let batch = ColumnBatch::new(columns).with_times(times_ms)?.with_kinds(kinds)?;
        out.emit(batch.latest_ms(), batch)
    }

    fn let_all_go(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.let_go(|_, _| true, out)
    }

    /// Whether combining was worth its while so far; if not, it rests.
    fn judge(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        if self.tried < TRIED_ROWS_MIN {
            return Ok(());
        }
        if (self.left + self.groups as u64) * WORTHWHILE > self.tried {
            self.let_all_go(out)?;
            self.untried = UNTRIED_ROWS;
            (self.tried, self.left) = (0, 0);
            self.spare.clear();
        } else if self.tried > TRIED_ROWS_MAX {
            (self.tried, self.left) = (self.tried / 2, self.left / 2);
        }
        Ok(())
    }

    /// Lets go of what the watermark has come to.
    fn let_ended_go(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        let watermark_ms = self.watermark_ms;
        let ended = |windows: &TimeWindows, start_ms: i64| windows.first_end(start_ms) - 1 <= watermark_ms;
        if self.held.iter().any(|held| ended(&self.grouping.windows, held.slice_start_ms)) {
            self.let_go(ended, out)?;
            self.judge(out)?;
        }
        Ok(())
    }
}

impl Operator<ColumnBatch, ColumnBatch> for CombineOperator {
    fn on_batch(&mut self, batches: Records<ColumnBatch>, out: &mut Out<ColumnBatch>) -> Result<()> {
        for (_, batch) in batches.into_iter().filter(|(_, batch)| batch.rows() > 0) {
            self.take_in(batch, out)?;
            if self.groups >= GROUPS_MAX || self.text_bytes >= TEXT_BYTES_MAX || self.held.len() > HELD_MAX {
                self.let_all_go(out)?;
                self.judge(out)?;
            }
        }
        // Of rows behind the watermark some may still be in time on the other side.
        self.let_ended_go(out)
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.watermark_ms = watermark_ms;
        self.let_ended_go(out)?;
        out.watermark(watermark_ms)
    }

    fn before_barrier(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.let_all_go(out)
    }
}

#[cfg(test)]
#[path = "tests/combine.rs"]
mod tests;
