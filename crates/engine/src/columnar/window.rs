//! Aggregations over windows of the rows of a key. Before the exchange the rows of a batch are combined; behind it the
//! operator of the typed lane's time windows keeps the words of each key, so that slices, lateness, snapshots and restores
//! are the same on both lanes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_core::columns::failed;
use tidemill_core::{ColumnBatch, Error, Result};

use super::aggregate::{AggregateCall, Contribution, Gathering, Layout, Words};
use super::combine::{CombineOperator, Grouping};
use super::partition::ByColumns;
use super::row_key::{KeyColumns, RowKey, column_of};
use super::stream::{ColumnStream, KeyedColumnStream};
use crate::driver::Records;
use crate::driver::build::TaskBuilder;
use crate::graph::ShipKind;
use crate::operator::{CopyRun, Link, Operator, Out, Sides, Signal, SnapshotMode, SnapshotParts};
use crate::state::{Restored, SectionKind, Writer};
use crate::window::{TimeWindows, Window, WindowKind, WindowParts};

/// Columns of every result: the window it belongs to.
const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";

/// Windows over the rows of each key.
pub struct WindowedColumnStream<'a> {
    keyed: &'a KeyedColumnStream,
    windows: TimeWindows,
}

impl<'a> WindowedColumnStream<'a> {
    pub(super) fn new(keyed: &'a KeyedColumnStream, windows: TimeWindows) -> Self {
        WindowedColumnStream { keyed, windows }
    }

    /// One row for each key and window when the window has ended: the key columns, `window_start` and `window_end`
    /// (timestamps in ms), then a column for each call. Its event time is the window's last millisecond.
    ///
    /// Rows that come later than the end of their window are dropped and counted. Rows that take others back are
    /// subtracted; a key whose rows have all been taken back gives no result.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill_engine::Environment;
    /// use tidemill_engine::columnar::AggregateCall;
    /// use tidemill_engine::stream::WatermarkStrategy;
    /// use tidemill_engine::window::Tumbling;
    /// let env = Environment::new();
    /// // Time, shop, amount; the columns of a tuple are named by number.
    /// let orders = vec![(1i64, "a".to_string(), 5i64), (7, "a".to_string(), 2), (12, "b".to_string(), 1)];
    /// let totals = env
    ///     .from_collection(orders)
    ///     .to_columns()?
    ///     .assign_timestamps_and_watermarks("0", WatermarkStrategy::monotonous())?
    ///     .key_by(&["1"])?
    ///     .window(Tumbling::event_time(Duration::from_millis(10)))
    ///     .aggregate(&[AggregateCall::count("orders"), AggregateCall::sum("2", "total")])?;
    /// let totals = totals.select(&["1", "orders", "total"])?.rows::<(String, i64, i64)>().collect();
    /// env.execute("totals")?;
    /// let mut totals = totals.take();
    /// totals.sort();
    /// assert_eq!(totals, [("a".to_string(), 2, 7), ("b".to_string(), 1, 1)]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn aggregate(&self, calls: &[AggregateCall]) -> Result<ColumnStream> {
        let (stream, keys) = (&self.keyed.stream, self.keyed.places.clone());
        let windows = self.windows;
        <TimeWindows as WindowKind<Contribution>>::check(&windows)?;
        if !<TimeWindows as WindowKind<Contribution>>::is_event_time(&windows) {
            return Err(Error::input("windows over columns are of event time").hint("use `Tumbling::event_time`"));
        }
        let input = stream.schema();
        let (layout, results) = Layout::new(input, calls)?;
        let moment = || DataType::Timestamp(TimeUnit::Millisecond, None);
        let mut fields: Vec<Field> = keys.iter().map(|place| input.field(*place).clone()).collect();
        fields.extend([Field::new(WINDOW_START, moment(), false), Field::new(WINDOW_END, moment(), false)]);
        fields.extend(results);
        if let Some(twice) =
            fields.iter().enumerate().find(|(at, f)| fields[..*at].iter().any(|g| g.name() == f.name()))
        {
            return Err(Error::input(format!("the result would have two columns `{}`", twice.1.name()))
                .hint("name aggregations differently"));
        }
        let output: SchemaRef = Arc::new(Schema::new(fields));
        let grouping = Arc::new(Grouping::new(input, keys.clone(), windows, layout));
        let before = grouping.clone();
        // The keys stand in front of what goes over the exchange.
        let partition = Arc::new(ByColumns((0..keys.len()).collect()));
        let name = <TimeWindows as WindowKind<Contribution>>::name(&windows);
        let to = output.clone();
        let results = stream
            .batches()
            .add_operator("Combine", move |_, _| Ok(CombineOperator::new(before.clone())))
            .ship(ShipKind::Hash, partition)
            .add_operator(name, move |builder, node| {
                Ok(WindowOperator::new(grouping.clone(), to.clone(), builder, node))
            });
        Ok(ColumnStream::new(results, output))
    }
}

/// A result: key, window, words.
type Fired = (RowKey, Window, Words);

struct WindowOperator {
    grouping: Arc<Grouping>,
    windows: Box<dyn Operator<Contribution, Fired>>,
    /// Leads the results of `windows` into `fired`.
    inner: Out<Fired>,
    fired: Rc<RefCell<Records<ColumnBatch>>>,
    /// Rows that came too late.
    late: Rc<Cell<u64>>,
}

/// The side output of the inner operator for what came too late.
const LATE: &str = "late";

/// What the state holds, in words.
const CONTENT: &str = "columns";

impl WindowOperator {
    fn new(grouping: Arc<Grouping>, output: SchemaRef, builder: &TaskBuilder<'_, '_>, node: usize) -> Self {
        let (fired, late) = (Rc::default(), Rc::new(Cell::new(0)));
        let mut sides = Sides::default();
        sides.add::<Contribution>(LATE, Box::new(CountLate(late.clone())));
        let results = Results { grouping: grouping.clone(), output, batches: Rc::clone(&fired) };
        let windows = grouping.windows.operator(WindowParts {
            selector: |row: &Contribution| row.key.clone(),
            aggregate: Gathering(grouping.layout.clone()),
            emit: |key: &RowKey, window: Window, words: Words| {
                (words.rows() != 0).then(|| (key.clone(), window, words))
            },
            allowed_lateness_ms: 0,
            late_tag: Some(LATE),
            context: builder.runtime_context(node),
        });
        WindowOperator { grouping, windows, inner: Out::new(Box::new(results), sides), fired, late }
    }

    fn content(&self) -> String {
        let keys = &self.grouping.between.fields()[..self.grouping.keys.len()];
        let keys: Vec<String> = keys.iter().map(|field| field.data_type().to_string()).collect();
        format!("keys {keys:?}, {}", self.grouping.layout.describe())
    }

    /// Hands on what has fired.
    fn hand_on(&mut self, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.inner.flush()?;
        let fired = std::mem::take(&mut *self.fired.borrow_mut());
        out.emit_batch(fired)
    }
}

impl Operator<ColumnBatch, ColumnBatch> for WindowOperator {
    fn restore(&mut self, mut state: Restored) -> Result<()> {
        let own = self.content();
        for section in state.take(CONTENT) {
            let saved = section.reader()?.entry::<String>()?.unwrap_or_default();
            if saved != own {
                return Err(Error::input(format!("the restored windows hold {saved}, but now hold {own}"))
                    .hint("give the changed aggregation another uid"));
            }
        }
        self.windows.restore(state)
    }

    fn on_batch(&mut self, batches: Records<ColumnBatch>, out: &mut Out<ColumnBatch>) -> Result<()> {
        let width = self.grouping.keys.len();
        let places: Vec<usize> = (0..width).collect();
        for (_, batch) in batches {
            let keys = KeyColumns::of(&batch, &places)?;
            let parts = self.grouping.layout.read(&batch.columns().columns()[width..])?;
            let row = |(row, time_ms): (usize, &i64)| {
                let words = self.grouping.layout.words(&parts, row);
                (*time_ms, Contribution { key: keys.key(row), words, retracts: batch.kind(row).retracts() })
            };
            let rows: Records<Contribution> = batch.times_ms().iter().enumerate().map(row).collect();
            self.windows.on_batch(rows, &mut self.inner)?;
        }
        self.hand_on(out)
    }

    fn on_watermark(&mut self, watermark_ms: i64, out: &mut Out<ColumnBatch>) -> Result<()> {
        self.windows.on_watermark(watermark_ms, &mut self.inner)?;
        self.hand_on(out)?;
        out.watermark(watermark_ms)
    }

    fn snapshot(&mut self, epoch: u64, parts: &mut SnapshotParts) -> Result<()> {
        if parts.mode != SnapshotMode::Nothing {
            let mut content = Writer::new(CONTENT, SectionKind::Operator);
            content.entry(&self.content())?;
            parts.sections.push(content.finish());
        }
        self.windows.snapshot(epoch, parts)
    }

    fn copy_some(&mut self, run: &mut CopyRun) -> Result<bool> {
        self.windows.copy_some(run)
    }

    fn late_dropped(&self) -> u64 {
        self.late.get()
    }
}

/// Counts rows that came too late; combined ones stand for as many as they hold.
struct CountLate(Rc<Cell<u64>>);

impl Link<Contribution> for CountLate {
    fn push(&mut self, batch: Records<Contribution>) -> Result<()> {
        let rows: u64 = batch.iter().map(|(_, late)| late.words.rows().unsigned_abs()).sum();
        self.0.set(self.0.get() + rows);
        Ok(())
    }

    fn signal(&mut self, _: &mut Signal<'_>) -> Result<()> {
        Ok(())
    }

    fn ready(&mut self) -> bool {
        true
    }
}

/// Makes columns of results.
struct Results {
    grouping: Arc<Grouping>,
    output: SchemaRef,
    batches: Rc<RefCell<Records<ColumnBatch>>>,
}

impl Link<Fired> for Results {
    fn push(&mut self, fired: Records<Fired>) -> Result<()> {
        let mut times_ms = Vec::with_capacity(fired.len());
        let (mut keys, mut windows, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for (time_ms, (key, window, held)) in fired {
            times_ms.push(time_ms);
            keys.push(key);
            windows.push(window);
            words.push(held);
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
        for place in 0..self.grouping.keys.len() {
            columns.push(column_of(&keys, place, self.output.field(place).data_type())?);
        }
        let moments = |of: fn(&Window) -> i64| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from_iter_values(windows.iter().map(of)))
        };
        columns.extend([moments(|window| window.start_ms), moments(|window| window.end_ms)]);
        columns.extend(self.grouping.layout.results(&words)?);
        let columns = RecordBatch::try_new(self.output.clone(), columns).map_err(failed)?;
        let batch = ColumnBatch::new(columns).with_times(Int64Array::from(times_ms))?;
        self.batches.borrow_mut().push((batch.latest_ms(), batch));
        Ok(())
    }

    fn signal(&mut self, _: &mut Signal<'_>) -> Result<()> {
        Ok(())
    }

    fn ready(&mut self) -> bool {
        true
    }
}
