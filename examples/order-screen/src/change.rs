//! What an event changes: amounts to add to rows of the tables (negative ones to take back), joined batch by batch before
//! they travel, so that the busiest row costs one record a batch and not one an order.

use hashbrown::HashMap;
use order_generator::order::Gender;
use order_generator::time::{MINUTE_MS, window_start};
use serde::{Deserialize, Serialize};
use tidemill::engine::Records;
use tidemill::engine::operator::{Operator, Out};
use tidemill::prelude::*;

/// Ten minutes, in ms.
pub const TEN_MINUTES_MS: i64 = 10 * MINUTE_MS;

/// Which row of which table. Days and windows are given by their first millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cell {
    /// `orders.minute`, and through it the day's total.
    Minute(i64),
    /// `orders.category`.
    Category(i64, String),
    /// `orders.brand`: day, category, brand.
    Brand(i64, String, String),
    /// `orders.gender`.
    Gender(i64, Gender),
    /// `orders.gender_10min`.
    GenderWindow(i64, Gender),
    /// `orders.province`.
    Province(i64, String),
    /// A spender: day and user id.
    User(i64, String),
    /// The day's counts that belong to no order: duplicates, unpaid and cancelled orders, how far time has come.
    Day(i64),
}

/// What is added to a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Sales in fen.
    pub fen: i64,
    /// Pieces sold.
    pub quantity: i64,
    /// Orders sold.
    pub orders: i64,
    /// Ordered, not paid: fen and orders.
    pub unpaid: (i64, i64),
    /// Cancelled: fen and orders.
    pub cancelled: (i64, i64),
    /// Events that came again word for word.
    pub duplicates: i64,
    /// Events that came after their minute was closed.
    pub late: i64,
    /// Records that could not be read.
    pub dead_letters: i64,
    /// The largest event time seen; 0 when none.
    pub event_time_ms: i64,
    /// The newest name of a spender with its event time.
    pub name: Option<(i64, String)>,
}

impl Amounts {
    /// Adds what another change adds.
    pub fn add(&mut self, other: Amounts) {
        self.fen += other.fen;
        self.quantity += other.quantity;
        self.orders += other.orders;
        self.unpaid.0 += other.unpaid.0;
        self.unpaid.1 += other.unpaid.1;
        self.cancelled.0 += other.cancelled.0;
        self.cancelled.1 += other.cancelled.1;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
        self.event_time_ms = self.event_time_ms.max(other.event_time_ms);
        if other.name > self.name {
            self.name = other.name;
        }
    }
}

/// Amounts for a row.
pub type Change = (Cell, Amounts);

/// The minute and the ten minutes an event time lies in, and its day at UTC+8.
pub fn minute_of(time_ms: i64) -> i64 {
    window_start(time_ms, MINUTE_MS)
}

/// Joins the changes of a batch row by row. Keeps nothing between batches, so it needs no state.
#[derive(Default)]
pub struct Combine {
    joined: HashMap<Cell, Amounts>,
}

impl Operator<Change, Change> for Combine {
    fn on_batch(&mut self, batch: Records<Change>, out: &mut Out<Change>) -> Result<()> {
        for (_, (cell, amounts)) in batch {
            self.joined.entry(cell).or_default().add(amounts);
        }
        self.joined.drain().try_for_each(|change| out.emit(NO_TIMESTAMP, change))
    }
}
