//! How the parts are joined to one job.

use std::path::PathBuf;

use order_generator::order::Order;
use tidemill::connectors::topic::TopicSource;
use tidemill::core::format::Decode;
use tidemill::prelude::*;

use crate::cells::Cells;
use crate::change::{CELLS, Change, Combine, DayCounts, SPENDERS};
use crate::ledger::{Ledger, REFUSED};
use crate::overall::Overall;
use crate::ranking::{DayRanking, ShardRanking, shard};
use crate::row::Row;

/// Order events as the generator's library reads them: strictly, with the reason for what it refuses.
#[derive(Clone)]
pub struct OrderFormat;

impl Decode for OrderFormat {
    type Value = Order;

    fn decode(&mut self, bytes: &[u8]) -> Result<Order, String> {
        Order::decode(bytes)
    }
}

/// The event time of an order that reached its topic at `arrived_ms` (not above 0: unknown). One too far ahead has none of its
/// own and does not move the watermark: after it all others would be late, and their days forgotten. The ledger sees by the
/// difference that it is one.
fn event_time(order: &Order, arrived_ms: i64, ahead_ms: i64) -> i64 {
    match order.order_time_series {
        time_ms if arrived_ms > 0 && time_ms > arrived_ms.saturating_add(ahead_ms) => arrived_ms,
        time_ms => time_ms,
    }
}

/// What the job is told.
#[derive(Clone)]
pub struct OrderScreen {
    /// The folder of topics.
    pub topics: PathBuf,
    /// The topic of order events.
    pub topic: String,
    /// Whether to end at the topic's present end.
    pub bounded: bool,
    /// A row is written at most once in this time.
    pub tick: Duration,
    /// Orders are remembered this long, in event time.
    pub remember: Duration,
    /// An event further ahead of its arrival than this is refused.
    pub ahead: Duration,
    /// How often the watermark moves.
    pub watermark_interval: Duration,
}

/// The results.
pub struct Screen {
    /// Rows of all live tables.
    pub rows: DataStream<Row>,
    /// Events that could not be read or counted.
    pub dead_letters: DataStream<DeadLetter>,
}

impl OrderScreen {
    /// Builds the job up to its rows.
    pub fn build(&self, env: &Environment) -> Screen {
        let ahead_ms = self.ahead.as_millis() as i64;
        let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(3))
            .with_timestamps(move |order: &Order, arrived_ms| event_time(order, arrived_ms, ahead_ms))
            .with_interval(self.watermark_interval)
            .with_idleness(Duration::from_secs(2));
        let source = TopicSource::new(&self.topics, &self.topic, OrderFormat).bounded(self.bounded);
        let orders = env.from_source(source, strategy, &self.topic).uid("orders");
        let ledger =
            orders.key_by_ref(|order| &order.order_id).process(Ledger::new(self.remember)).name("Ledger").uid("ledger");
        let dead_letters = orders.dead_letters().union(&[&ledger.side_output(REFUSED)]);
        let dead = dead_letters
            .map(|_| -> Change { Change::Day(0, DayCounts { dead_letters: 1, ..DayCounts::default() }) })
            .name("Count dead letters");
        let changes = ledger.transform("Combine", Combine::default);
        let tick = self.tick;
        let cells =
            changes.side_output(CELLS).key_by_ref(|(cell, _)| cell).process(Cells::new(tick)).name("Sums").uid("sums");
        let users = changes
            .side_output(SPENDERS)
            .key_by(shard)
            .process(ShardRanking::new(tick))
            .name("Spenders")
            .uid("spenders")
            .key_by(|(day, _, _)| *day)
            .process(DayRanking::default())
            .name("Top spenders")
            .uid("top-spenders");
        let overall = changes
            .union(&[&dead])
            .key_by(|_| 0u8)
            .process(Overall::new(tick))
            .name("Totals and minutes")
            .uid("overall");
        Screen { rows: cells.union(&[&users, &overall]), dead_letters }
    }
}
