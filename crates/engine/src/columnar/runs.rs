//! The rows of a batch, divided by the slice of time they belong to and by their sign.

use std::collections::HashMap;

use tidemill_core::ColumnBatch;

use super::groups::Rows;
use crate::window::TimeWindows;

/// Rows of one slice that all add, or all take back.
pub(super) struct Run {
    pub slice_start_ms: i64,
    pub retracts: bool,
    /// Their numbers; `None` when it is the whole batch.
    rows: Option<Vec<u32>>,
}

impl Run {
    /// The rows, of a batch of so many.
    pub fn rows(&self, count: usize) -> Rows<'_> {
        self.rows.as_deref().map_or(Rows::All(count), Rows::Some)
    }
}

/// The runs of a batch that has rows, in the order of their first rows. Most batches are one.
pub(super) fn runs(windows: &TimeWindows, batch: &ColumnBatch) -> Vec<Run> {
    let times_ms = batch.times_ms();
    let Some(first_ms) = times_ms.first() else { return Vec::new() };
    let mut slice = windows.slice_of(*first_ms);
    let (least, most) = times_ms.iter().fold((i64::MAX, i64::MIN), |(a, b), time| (a.min(*time), b.max(*time)));
    if slice.contains(&least) && slice.contains(&most) && batch.kinds().is_none() {
        return vec![Run { slice_start_ms: slice.start, retracts: false, rows: None }];
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut known: HashMap<(i64, bool), usize> = HashMap::new();
    let mut last = None;
    for (row, time_ms) in times_ms.iter().enumerate() {
        // Most rows are of the same slice as the one before.
        if !slice.contains(time_ms) {
            slice = windows.slice_of(*time_ms);
        }
        let of = (slice.start, batch.kind(row).retracts());
        let at = match last {
            Some((last, at)) if last == of => at,
            _ => *known.entry(of).or_insert_with(|| {
                runs.push(Run { slice_start_ms: of.0, retracts: of.1, rows: Some(Vec::new()) });
                runs.len() - 1
            }),
        };
        last = Some((of, at));
        if let Some(rows) = &mut runs[at].rows {
            rows.push(row as u32);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;
    use crate::window::Tumbling;

    #[test]
    fn rows_are_divided_by_slice_and_sign() {
        let batch = |times: &[i64]| {
            let column: ArrayRef = Arc::new(Int64Array::from(times.to_vec()));
            let columns = RecordBatch::try_from_iter([("a", column)]).unwrap();
            ColumnBatch::new(columns).with_times(times.to_vec().into()).unwrap()
        };
        let windows = Tumbling::event_time(Duration::from_millis(10));
        let told = |batch: &ColumnBatch| {
            let runs = runs(&windows, batch);
            runs.into_iter().map(|run| (run.slice_start_ms, run.retracts, run.rows)).collect::<Vec<_>>()
        };
        assert!(told(&batch(&[])).is_empty());
        assert_eq!(told(&batch(&[5, 0, 9])), [(0, false, None)]);
        let rows = |rows: &[u32]| Some(rows.to_vec());
        assert_eq!(
            told(&batch(&[5, -1, 9, 12])),
            [(0, false, rows(&[0, 2])), (-10, false, rows(&[1])), (10, false, rows(&[3]))]
        );
        let kinds = batch(&[5, 6, 11, 7]).with_kinds(vec![0, 3, 0, 1].into()).unwrap();
        assert_eq!(told(&kinds), [(0, false, rows(&[0])), (0, true, rows(&[1, 3])), (10, false, rows(&[2]))]);
    }
}
