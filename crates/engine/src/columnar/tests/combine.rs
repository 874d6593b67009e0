//! What the part before the exchange holds back, and when it lets go.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;

use super::*;
use crate::columnar::AggregateCall;
use crate::operator::{Link, Sides, Signal};
use crate::window::{Sliding, Tumbling};

/// What left, in order: rows as time, sign, key, count, sum; and watermarks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Row(i64, bool, i64, i64, i64),
    Watermark(i64),
}

#[derive(Clone, Default)]
struct Capture(Rc<RefCell<Vec<Left>>>);

impl Link<ColumnBatch> for Capture {
    fn push(&mut self, batches: Records<ColumnBatch>) -> Result<()> {
        for (_, batch) in batches {
            assert!(batch.rows() <= BATCH_ROWS);
            let numbers = |at: usize| batch.columns().column(at).as_primitive::<Int64Type>().clone();
            let (keys, counts, sums) = (numbers(0), numbers(1), numbers(2));
            self.0.borrow_mut().extend((0..batch.rows()).map(|row| {
                let taken_back = batch.kind(row).retracts();
                Left::Row(batch.times_ms()[row], taken_back, keys.value(row), counts.value(row), sums.value(row))
            }));
        }
        Ok(())
    }

    fn signal(&mut self, signal: &mut Signal<'_>) -> Result<()> {
        if let Signal::Watermark(watermark_ms) = signal {
            self.0.borrow_mut().push(Left::Watermark(*watermark_ms));
        }
        Ok(())
    }

    fn ready(&mut self) -> bool {
        true
    }
}

/// Rows of time, key and value.
fn batch(rows: &[(i64, i64, i64)]) -> ColumnBatch {
    let column =
        |of: fn(&(i64, i64, i64)) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let (keys, values) = (column(|row| row.1), column(|row| row.2));
    let columns = [("key", keys, false), ("value", values, false)];
    let columns = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    ColumnBatch::new(columns).with_times(rows.iter().map(|row| row.0).collect::<Vec<_>>().into()).unwrap()
}

struct Run {
    operator: CombineOperator,
    out: Out<ColumnBatch>,
    left: Capture,
}

impl Run {
    fn new(windows: TimeWindows) -> Self {
        let calls = [AggregateCall::count("rows"), AggregateCall::sum("value", "sum")];
        let schema = batch(&[]).schema();
        let (layout, _) = Layout::new(&schema, &calls).unwrap();
        let grouping = Arc::new(Grouping::new(&schema, vec![0], windows, layout).unwrap());
        let left = Capture::default();
        let out = Out::new(Box::new(left.clone()), Sides::default());
        Run { operator: CombineOperator::new(grouping), out, left }
    }

    fn batch(&mut self, batch: ColumnBatch) -> Vec<Left> {
        self.operator.on_batch(vec![(batch.latest_ms(), batch)], &mut self.out).unwrap();
        self.left()
    }

    fn rows(&mut self, rows: &[(i64, i64, i64)]) -> Vec<Left> {
        self.batch(batch(rows))
    }

    fn watermark(&mut self, watermark_ms: i64) -> Vec<Left> {
        self.operator.on_watermark(watermark_ms, &mut self.out).unwrap();
        self.left()
    }

    fn left(&mut self) -> Vec<Left> {
        self.out.flush().unwrap();
        let mut left = std::mem::take(&mut *self.left.0.borrow_mut());
        // Between watermarks they come in no particular order.
        left.split_mut(|one| matches!(one, Left::Watermark(_))).for_each(<[Left]>::sort);
        left
    }
}

#[test]
fn rows_are_held_until_the_watermark_comes_to_their_first_window() {
    use Left::{Row, Watermark};
    let mut run = Run::new(Tumbling::event_time(Duration::from_millis(10)));
    assert_eq!(run.rows(&[(1, 7, 100), (12, 7, 1), (2, 8, 10)]), []);
    assert_eq!(run.rows(&[(3, 7, 100)]), []);
    assert_eq!(run.watermark(8), [Watermark(8)]);
    assert_eq!(run.watermark(9), [Row(0, false, 7, 2, 200), Row(0, false, 8, 1, 10), Watermark(9)]);
    // Late here, perhaps in time on the other side: not held.
    assert_eq!(run.rows(&[(4, 7, 5), (15, 8, 1), (5, 7, 6)]), [Row(0, false, 7, 2, 11)]);
    assert_eq!(run.watermark(100), [Row(10, false, 7, 1, 1), Row(10, false, 8, 1, 1), Watermark(100)]);
    // Sliding windows: the first one that covers the slice counts.
    let mut run = Run::new(Sliding::event_time(Duration::from_millis(10), Duration::from_millis(5)));
    assert_eq!(run.rows(&[(6, 1, 1), (11, 1, 2)]), []);
    assert_eq!(run.watermark(9), [Row(5, false, 1, 1, 1), Watermark(9)]);
    assert_eq!(run.watermark(14), [Row(10, false, 1, 1, 2), Watermark(14)]);
}

#[test]
fn rows_taken_back_are_combined_by_themselves() {
    use Left::{Row, Watermark};
    let mut run = Run::new(Tumbling::event_time(Duration::from_millis(10)));
    let rows = batch(&[(1, 7, 100), (1, 7, 30), (2, 7, 20), (3, 7, 1)]);
    let kinds = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];
    let kinds: Vec<u8> = kinds.iter().map(|kind| *kind as u8).collect();
    assert_eq!(run.batch(rows.with_kinds(kinds.into()).unwrap()), []);
    assert_eq!(run.watermark(9), [Row(0, false, 7, 2, 120), Row(0, true, 7, 2, 31), Watermark(9)]);
}

#[test]
fn nothing_is_held_over_a_barrier() {
    let mut run = Run::new(Tumbling::event_time(Duration::from_millis(10)));
    assert_eq!(run.rows(&[(1, 7, 100), (22, 7, 1), (2, 7, 10)]), []);
    run.operator.before_barrier(&mut run.out).unwrap();
    assert_eq!(run.left(), [Left::Row(0, false, 7, 2, 110), Left::Row(20, false, 7, 1, 1)]);
    assert_eq!(run.watermark(100), [Left::Watermark(100)]);
}

#[test]
fn what_is_held_is_bounded_and_hopeless_combining_rests() {
    let mut run = Run::new(Tumbling::event_time(Duration::from_secs(1)));
    let (mut sum, mut rows, mut held_most, mut passed) = (0, 0, 0, 0);
    let (mut as_they_are, mut left_sum) = (0, 0);
    while as_they_are < 3 * GROUPS_MAX {
        // Every key is new.
        let batch: Vec<(i64, i64, i64)> = (rows..rows + 1000).map(|n| (n % 900, n, n)).collect();
        (rows, sum) = (rows + 1000, sum + batch.iter().map(|row| row.2).sum::<i64>());
        for left in run.rows(&batch) {
            let Left::Row(time_ms, false, _, 1, value) = left else { panic!("{left:?}") };
            // Combined rows stand at the start of their slice.
            as_they_are += usize::from(time_ms != 0);
            (passed, left_sum) = (passed + 1, left_sum + value);
        }
        held_most = held_most.max(rows - passed);
    }
    assert!(held_most < GROUPS_MAX as i64 + 1000, "{held_most} rows were held");
    run.operator.before_barrier(&mut run.out).unwrap();
    for left in run.left() {
        let Left::Row(_, _, _, _, value) = left else { panic!("{left:?}") };
        left_sum += value;
    }
    assert_eq!(left_sum, sum);
    // When keys have become few it is found out, if not at once.
    assert!(run.operator.untried > UNTRIED_ROWS / 2);
    run.operator.untried = 100_000;
    let mut combined = BTreeMap::new();
    for round in 0..200 {
        let batch: Vec<(i64, i64, i64)> = (0..1000).map(|n| (5, n % 10, round)).collect();
        *combined.entry(run.rows(&batch).len()).or_insert(0) += 1;
    }
    assert_eq!(combined.keys().copied().collect::<Vec<_>>(), [0, 1000], "as they are, later combined");
    assert_eq!(combined[&0], 100, "{combined:?}");
}
