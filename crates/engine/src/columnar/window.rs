//! Aggregations over windows of the rows of a key: combined before the exchange, kept in slices of time behind it.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_core::{ColumnBatch, Error, Result};

use super::aggregate::{AggregateCall, Layout};
use super::combine::{CombineOperator, Grouping};
use super::partition::ByColumns;
use super::slices::SlicesOperator;
use super::stream::{ColumnStream, KeyedColumnStream};
use crate::graph::ShipKind;
use crate::window::{TimeWindows, WindowKind};

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
        <TimeWindows as WindowKind<ColumnBatch>>::check(&windows)?;
        if !<TimeWindows as WindowKind<ColumnBatch>>::is_event_time(&windows) {
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
        let grouping = Arc::new(Grouping::new(input, keys.clone(), windows, layout)?);
        let before = grouping.clone();
        // The keys stand in front of what goes over the exchange.
        let partition = Arc::new(ByColumns((0..keys.len()).collect()));
        let name = <TimeWindows as WindowKind<ColumnBatch>>::name(&windows);
        let to = output.clone();
        let results = stream
            .batches()
            .add_operator("Combine", move |_, _| Ok(CombineOperator::new(before.clone())))
            .ship(ShipKind::Hash, partition)
            .add_operator(name, move |_, _| Ok(SlicesOperator::new(grouping.clone(), to.clone())));
        Ok(ColumnStream::new(results, output))
    }
}
