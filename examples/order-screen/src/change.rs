//! What events change in the tables. The ledger says of each event which order counts now and which no longer does; this
//! operator turns a batch of that into one change for each row it touches, so that the busiest row costs one record a
//! batch and not one an order. Each kind of change leaves by an output of its own, to those who keep such rows.

use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::HashMap;
use order_generator::order::{Gender, Group, Status};
use order_generator::time::{MINUTE_MS, day_start, window_start};
use serde::{Deserialize, Serialize};
use tidemill::engine::Records;
use tidemill::engine::operator::{Operator, Out};
use tidemill::prelude::*;

/// Ten minutes, in ms.
const TEN_MINUTES_MS: i64 = 10 * MINUTE_MS;

/// The event of an order that counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counted {
    /// How it counts.
    pub group: Group,
    /// The status the event tells.
    pub status: Status,
    /// Event time.
    pub time_ms: i64,
    /// What the order costs.
    pub fen: i64,
    /// Pieces.
    pub quantity: i64,
    /// Category.
    pub category: CompactString,
    /// Brand.
    pub brand: CompactString,
    /// User id.
    pub user_id: CompactString,
    /// User name.
    pub user_name: CompactString,
    /// Gender of the user.
    pub gender: Gender,
    /// Province.
    pub province: CompactString,
}

/// What one event tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Movement {
    /// Its event time.
    pub time_ms: i64,
    /// It came before, word for word.
    pub duplicate: bool,
    /// It came after its minute was closed.
    pub late: bool,
    /// What counted until now and does not any more.
    pub before: Option<Arc<Counted>>,
    /// What counts from now on.
    pub now: Option<Arc<Counted>>,
}

/// A row of sums of sales. Days and windows are given by their first millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cell {
    /// `orders.minute`, and through it the day's total: a row of its own keeper (see [`Change::Minute`]).
    Minute(i64),
    /// `orders.category`.
    Category(i64, CompactString),
    /// `orders.brand`: day, category, brand.
    Brand(i64, CompactString, CompactString),
    /// `orders.gender`.
    Gender(i64, Gender),
    /// `orders.gender_10min`.
    GenderWindow(i64, Gender),
    /// `orders.province`.
    Province(i64, CompactString),
}

/// Sums of sales.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sales {
    /// Fen.
    pub fen: i64,
    /// Pieces.
    pub quantity: i64,
    /// Orders.
    pub orders: i64,
}

impl std::ops::AddAssign for Sales {
    fn add_assign(&mut self, other: Self) {
        self.fen += other.fen;
        self.quantity += other.quantity;
        self.orders += other.orders;
    }
}

/// The day's counts beside its sales.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCounts {
    /// Ordered, not paid: fen and orders.
    pub unpaid: (i64, i64),
    /// Cancelled: fen and orders.
    pub cancelled: (i64, i64),
    /// Events that came again word for word.
    pub duplicates: i64,
    /// Events that came after their minute was closed.
    pub late: i64,
    /// Records that could not be read or counted.
    pub dead_letters: i64,
    /// The largest event time; 0 when none.
    pub event_time_ms: i64,
}

impl std::ops::AddAssign for DayCounts {
    fn add_assign(&mut self, other: Self) {
        self.unpaid = (self.unpaid.0 + other.unpaid.0, self.unpaid.1 + other.unpaid.1);
        self.cancelled = (self.cancelled.0 + other.cancelled.0, self.cancelled.1 + other.cancelled.1);
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
        self.event_time_ms = self.event_time_ms.max(other.event_time_ms);
    }
}

/// A spender's name with the event time it was told at.
pub type Name = Option<(i64, CompactString)>;

/// What a batch of events changes in the totals and the line by minute: the main output of [`Combine`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Change {
    /// Sales of a minute.
    Minute(i64, Sales),
    /// Late events of a minute.
    Late(i64, i64),
    /// The other counts of a day; day 0 stands for the newest.
    Day(i64, DayCounts),
}

/// Sales of the other rows of sums.
pub const CELLS: OutputTag<(Cell, Sales)> = OutputTag::new("cells");

/// Sales to users.
pub const SPENDERS: OutputTag<Spent> = OutputTag::new("spenders");

/// Sales to a user on a day.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spent {
    /// The day's first millisecond.
    pub day: i64,
    /// User id.
    pub user_id: CompactString,
    /// What was sold, less what was taken back.
    pub sales: Sales,
    /// The newest name.
    pub name: Name,
}

/// Joins what a batch of events changes. Keeps nothing between batches, so it needs no state.
#[derive(Default)]
pub struct Combine {
    cells: HashMap<Cell, Sales>,
    spenders: HashMap<(i64, CompactString), (Sales, Name)>,
    late: HashMap<i64, i64>,
    days: HashMap<i64, DayCounts>,
}

impl Combine {
    fn take_in(&mut self, movement: Movement) {
        let day = self.days.entry(day_start(movement.time_ms)).or_default();
        let (duplicates, late) = (i64::from(movement.duplicate), i64::from(movement.late));
        *day += DayCounts { duplicates, late, event_time_ms: movement.time_ms, ..DayCounts::default() };
        if movement.late {
            *self.late.entry(minute_of(movement.time_ms)).or_default() += 1;
        }
        if let Some(counted) = movement.before {
            self.count(&counted, -1);
        }
        if let Some(counted) = movement.now {
            self.count(&counted, 1);
        }
    }

    /// Adds an order to its rows, or with −1 takes it back.
    fn count(&mut self, order: &Counted, sign: i64) {
        let day = day_start(order.time_ms);
        let money = (sign * order.fen, sign);
        match order.group {
            Group::Unpaid => {
                *self.days.entry(day).or_default() += DayCounts { unpaid: money, ..DayCounts::default() };
                return;
            }
            Group::Cancelled => {
                *self.days.entry(day).or_default() += DayCounts { cancelled: money, ..DayCounts::default() };
                return;
            }
            Group::Paid => {}
        }
        let sales = Sales { fen: sign * order.fen, quantity: sign * order.quantity, orders: sign };
        let window_ms = window_start(order.time_ms, TEN_MINUTES_MS);
        for cell in [
            Cell::Minute(minute_of(order.time_ms)),
            Cell::Category(day, order.category.clone()),
            Cell::Brand(day, order.category.clone(), order.brand.clone()),
            Cell::Gender(day, order.gender),
            Cell::GenderWindow(window_ms, order.gender),
            Cell::Province(day, order.province.clone()),
        ] {
            *self.cells.entry(cell).or_default() += sales;
        }
        let (sum, name) = self.spenders.entry((day, order.user_id.clone())).or_default();
        *sum += sales;
        if sign > 0 {
            let told = Some((order.time_ms, order.user_name.clone()));
            if told > *name {
                *name = told;
            }
        }
    }
}

/// The minute an event time lies in.
pub fn minute_of(time_ms: i64) -> i64 {
    window_start(time_ms, MINUTE_MS)
}

impl Operator<Movement, Change> for Combine {
    fn on_batch(&mut self, batch: Records<Movement>, out: &mut Out<Change>) -> Result<()> {
        batch.into_iter().for_each(|(_, movement)| self.take_in(movement));
        for (cell, sales) in self.cells.drain() {
            match cell {
                Cell::Minute(minute_ms) => out.emit(NO_TIMESTAMP, Change::Minute(minute_ms, sales))?,
                cell => out.side(&CELLS, NO_TIMESTAMP, (cell, sales))?,
            }
        }
        for ((day, user_id), (sales, name)) in self.spenders.drain() {
            out.side(&SPENDERS, NO_TIMESTAMP, Spent { day, user_id, sales, name })?;
        }
        let late = self.late.drain().map(|(minute_ms, late)| Change::Late(minute_ms, late));
        let days = self.days.drain().map(|(day, counts)| Change::Day(day, counts));
        late.chain(days).try_for_each(|change| out.emit(NO_TIMESTAMP, change))
    }
}
