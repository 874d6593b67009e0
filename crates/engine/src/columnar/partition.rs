//! Spreads the rows of column batches over subtasks by key group: hashed column by column, taken once for each receiver.

use arrow_array::UInt32Array;
use tidemill_core::{ColumnBatch, Result};

use super::key_columns::KeyColumns;
use crate::driver::Records;
use crate::key::owner;
use crate::stream::partition::{Partition, PartitionFactory};

/// By the key groups of the columns at these places.
pub(super) struct ByColumns(pub Vec<usize>);

struct Spread {
    places: Vec<usize>,
    /// For each subtask the rows it gets.
    rows: Vec<Vec<u32>>,
}

impl Partition<ColumnBatch> for Spread {
    fn scatter(&mut self, batch: Records<ColumnBatch>, buffers: &mut [Records<ColumnBatch>]) -> Result<()> {
        for (time_ms, columns) in batch {
            if self.rows.len() == 1 {
                buffers[0].push((time_ms, columns));
                continue;
            }
            self.rows.iter_mut().for_each(Vec::clear);
            let receivers = self.rows.len();
            let keys = KeyColumns::of(&columns, self.places.iter().copied())?;
            for (row, group) in keys.groups().enumerate() {
                self.rows[owner(group, receivers)].push(row as u32);
            }
            for (to, rows) in self.rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                let part = match rows.len() == columns.rows() {
                    true => columns.clone(),
                    false => columns.take(&UInt32Array::from(rows.clone()))?,
                };
                buffers[to].push((part.latest_ms(), part));
            }
        }
        Ok(())
    }
}

impl PartitionFactory<ColumnBatch> for ByColumns {
    fn make(&self, _subtask: usize, _senders: usize, receivers: usize) -> Box<dyn Partition<ColumnBatch>> {
        Box::new(Spread { places: self.0.clone(), rows: vec![Vec::new(); receivers] })
    }
}
