//! The part of an aggregation before the exchange: the rows of a batch that belong to the same key and slice of time become
//! one row of parts. It keeps nothing between batches, so there is nothing to save. Where nearly every row has a key of its
//! own, rows go on as they are, and grouping is tried again later.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, UInt8Array, UInt32Array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::take::take;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, NO_TIMESTAMP, Result, RowKind};

use super::aggregate::Layout;
use super::row_key::KeyColumns;
use crate::driver::Records;
use crate::operator::{Operator, Out};
use crate::window::TimeWindows;

/// Grouping does not pay when more than this many of 8 rows are left.
const WORTHWHILE_EIGHTHS: usize = 6;

/// So many batches go on as they are after one where grouping did not pay.
const BATCHES_UNTRIED: u32 = 31;

/// What the operators before and behind the exchange agree on.
pub(super) struct Grouping {
    pub windows: TimeWindows,
    /// The places of the key columns in the input.
    pub keys: Vec<usize>,
    pub layout: Arc<Layout>,
    /// Key columns, then parts: what goes over the exchange.
    pub between: SchemaRef,
}

impl Grouping {
    pub fn new(input: &SchemaRef, keys: Vec<usize>, windows: TimeWindows, layout: Layout) -> Self {
        let mut fields: Vec<_> = keys.iter().map(|place| input.fields()[*place].clone()).collect();
        fields.extend(layout.part_fields().into_iter().map(Arc::new));
        Grouping { windows, keys, layout: Arc::new(layout), between: Arc::new(Schema::new(fields)) }
    }
}

pub(super) struct CombineOperator {
    grouping: Arc<Grouping>,
    /// Numbers of groups by key, slice and kind; empty between batches.
    table: HashTable<u32>,
    untried: u32,
}

impl CombineOperator {
    pub fn new(grouping: Arc<Grouping>) -> Self {
        CombineOperator { grouping, table: HashTable::new(), untried: 0 }
    }

    fn combine(&mut self, batch: &ColumnBatch) -> Result<ColumnBatch> {
        let grouping = self.grouping.clone();
        let places = &grouping.keys;
        let parts = grouping.layout.columns(batch)?;
        if batch.times_ms().contains(&NO_TIMESTAMP) {
            return Err(Error::input("rows without event time came to an event-time window")
                .hint("assign timestamps and watermarks before the window"));
        }
        if batch.kinds().is_some() && !grouping.layout.retracts() {
            return Err(Error::input("rows that are updated or deleted came to a minimum or maximum")
                .hint("only counts and sums can take rows back"));
        }
        if self.untried > 0 {
            self.untried -= 1;
            let keys = places.iter().map(|place| batch.columns().column(*place).clone());
            return self.between(keys.chain(parts.into_iter().map(|part| part.array())).collect(), batch.clone());
        }
        let (groups, firsts) = self.groups(batch)?;
        if firsts.len() * 8 > batch.rows() * WORTHWHILE_EIGHTHS {
            self.untried = BATCHES_UNTRIED;
        }
        let merged = grouping.layout.merge_rows(&parts, &groups, firsts.len());
        let times_ms: Vec<i64> = firsts.iter().map(|row| batch.times_ms()[*row as usize]).collect();
        let kinds: Vec<u8> = firsts.iter().map(|row| kind(batch, *row as usize)).collect();
        let rows = UInt32Array::from(firsts);
        let mut columns = Vec::with_capacity(grouping.between.fields().len());
        for place in places {
            columns.push(take(batch.columns().column(*place), &rows, None).map_err(failed)?);
        }
        columns.extend(merged.into_iter().map(|part| part.array()));
        let columns = RecordBatch::try_new(grouping.between.clone(), columns).map_err(failed)?;
        ColumnBatch::new(columns).with_times(Int64Array::from(times_ms))?.with_kinds(UInt8Array::from(kinds))
    }

    fn between(&self, columns: Vec<arrow_array::ArrayRef>, batch: ColumnBatch) -> Result<ColumnBatch> {
        batch.with_columns(RecordBatch::try_new(self.grouping.between.clone(), columns).map_err(failed)?)
    }

    /// The group of each row, and the first row of each group.
    fn groups(&mut self, batch: &ColumnBatch) -> Result<(Vec<u32>, Vec<u32>)> {
        let keys = KeyColumns::of(batch, &self.grouping.keys)?;
        let mut hashes = keys.hashes();
        let slices = self.slices(batch.times_ms());
        let retracts: Vec<bool> = (0..batch.rows()).map(|row| kind(batch, row) != RowKind::Insert as u8).collect();
        for ((hash, slice), retracts) in hashes.iter_mut().zip(&slices).zip(&retracts) {
            *hash ^= (*slice as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(*retracts);
        }
        let mut groups = Vec::with_capacity(batch.rows());
        let mut firsts: Vec<u32> = Vec::new();
        self.table.clear();
        for (row, hash) in hashes.iter().enumerate() {
            let same = |group: &u32| {
                let first = firsts[*group as usize] as usize;
                slices[first] == slices[row] && retracts[first] == retracts[row] && keys.same(first, row)
            };
            let place = self.table.entry(*hash, same, |group| hashes[firsts[*group as usize] as usize]);
            groups.push(match place {
                Entry::Occupied(held) => *held.get(),
                Entry::Vacant(free) => {
                    let group = firsts.len() as u32;
                    free.insert(group);
                    firsts.push(row as u32);
                    group
                }
            });
        }
        Ok((groups, firsts))
    }

    /// The start of each row's slice. Most rows are of the same slice as the one before.
    fn slices(&self, times_ms: &[i64]) -> Vec<i64> {
        let mut slice = self.grouping.windows.slice_of(times_ms.first().copied().unwrap_or_default());
        let of = |time_ms: &i64| {
            if !slice.contains(time_ms) {
                slice = self.grouping.windows.slice_of(*time_ms);
            }
            slice.start
        };
        times_ms.iter().map(of).collect()
    }
}

/// Whether a row adds or takes back, as a kind.
fn kind(batch: &ColumnBatch, row: usize) -> u8 {
    if batch.kind(row).retracts() { RowKind::Delete as u8 } else { RowKind::Insert as u8 }
}

impl Operator<ColumnBatch, ColumnBatch> for CombineOperator {
    fn on_batch(&mut self, batches: Records<ColumnBatch>, out: &mut Out<ColumnBatch>) -> Result<()> {
        for (_, batch) in batches.iter().filter(|(_, batch)| batch.rows() > 0) {
            let combined = self.combine(batch)?;
            out.emit(combined.latest_ms(), combined)?;
        }
        Ok(())
    }
}
