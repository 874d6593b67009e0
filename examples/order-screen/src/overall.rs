//! The totals of the days and the line by minute. All of it stands on one key, since today's total needs yesterday's
//! minutes; it is reached by a few joined changes a batch, not by every order.

use std::collections::{BTreeMap, BTreeSet};

use order_generator::time::{DAY_MS, day_start, day_text};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill::prelude::*;

use crate::change::{Change, DayCounts, Sales, minute_of};
use crate::pace::Pace;
use crate::row::{Row, Table};

/// Days and minutes are kept this long behind the newest event time.
const KEPT_MS: i64 = 3 * DAY_MS;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Book {
    days: BTreeMap<i64, (Sales, DayCounts)>,
    /// Sales, and late events.
    minutes: BTreeMap<i64, (Sales, i64)>,
    /// Changed since they were written.
    changed_days: BTreeSet<i64>,
    changed_minutes: BTreeSet<i64>,
    /// Refused before any order was read: nobody can say of which day they are.
    early_dead_letters: i64,
}

impl Book {
    fn newest_ms(&self) -> Option<i64> {
        self.days.values().map(|(_, counts)| counts.event_time_ms).max().filter(|newest| *newest > 0)
    }

    fn take_in(&mut self, change: Change) {
        match change {
            Change::Minute(minute_ms, sales) => {
                let day = day_start(minute_ms);
                self.days.entry(day).or_default().0 += sales;
                self.minutes.entry(minute_ms).or_default().0 += sales;
                self.changed_minutes.insert(minute_ms);
                self.changed_days.insert(day);
                // The comparison with yesterday changes, too.
                if self.days.contains_key(&(day + DAY_MS)) {
                    self.changed_days.insert(day + DAY_MS);
                }
            }
            Change::Late(minute_ms, late) => {
                self.minutes.entry(minute_ms).or_default().1 += late;
                self.changed_minutes.insert(minute_ms);
            }
            Change::Day(0, counts) => match self.newest_ms().map(day_start) {
                Some(day) => self.count(day, counts),
                None => self.early_dead_letters += counts.dead_letters,
            },
            Change::Day(day, mut counts) => {
                counts.dead_letters += std::mem::take(&mut self.early_dead_letters);
                self.count(day, counts);
            }
        }
    }

    fn count(&mut self, day: i64, counts: DayCounts) {
        self.days.entry(day).or_default().1 += counts;
        self.changed_days.insert(day);
    }

    fn forget(&mut self) {
        if let Some(newest_ms) = self.newest_ms() {
            let kept_ms = day_start(newest_ms - KEPT_MS);
            self.days = self.days.split_off(&kept_ms);
            self.minutes = self.minutes.split_off(&kept_ms);
        }
    }

    /// Sales of the day before up to and including the same minute; nothing when that day is not known.
    fn yesterday_fen(&self, day: i64, event_time_ms: i64) -> Value {
        let yesterday = day - DAY_MS;
        if !self.days.contains_key(&yesterday) {
            return Value::Null;
        }
        let until_ms = minute_of(event_time_ms - DAY_MS);
        self.minutes.range(yesterday..=until_ms.max(yesterday)).map(|(_, (sales, _))| sales.fen).sum::<i64>().into()
    }
}

/// Keeps days and minutes.
#[derive(Clone)]
pub struct Overall {
    book: ValueState<Book>,
    pace: Pace,
}

impl Overall {
    /// Writes at most once a tick.
    pub fn new(tick: Duration) -> Self {
        Overall { book: ValueState::new("book"), pace: Pace::new(tick) }
    }

    fn write(&self, context: &mut KeyedContext<'_, u8, Row>) -> Result<()> {
        let (computed_ms, watermark_ms) = (context.processing_time_ms(), context.watermark_ms());
        let known = watermark_ms > tidemill::core::WATERMARK_MIN && watermark_ms < tidemill::core::WATERMARK_MAX;
        let watermark_ms = known.then_some(watermark_ms);
        let book = self.book.get_or(context, Book::default)?;
        let mut rows = Vec::new();
        for minute_ms in std::mem::take(&mut book.changed_minutes) {
            if let Some((sales, late)) = book.minutes.get(&minute_ms) {
                let value = json!({"minute_ms": minute_ms, "fen": sales.fen, "quantity": sales.quantity, "orders": sales.orders, "late": late});
                rows.push(Row::new(Table::Minute, format!("{minute_ms:013}"), &value));
            }
        }
        for day in std::mem::take(&mut book.changed_days) {
            if let Some((sales, counts)) = book.days.get(&day) {
                let text = day_text(day);
                let value = json!({
                    "day": text, "fen": sales.fen, "quantity": sales.quantity, "orders": sales.orders,
                    "unpaid_fen": counts.unpaid.0, "unpaid_orders": counts.unpaid.1,
                    "cancelled_fen": counts.cancelled.0, "cancelled_orders": counts.cancelled.1,
                    "duplicates": counts.duplicates, "late": counts.late, "dead_letters": counts.dead_letters,
                    "yesterday_fen": book.yesterday_fen(day, counts.event_time_ms),
                    "event_time_ms": counts.event_time_ms, "watermark_ms": watermark_ms, "computed_ms": computed_ms,
                });
                rows.push(Row::new(Table::Total, text, &value));
            }
        }
        book.forget();
        rows.into_iter().try_for_each(|row| context.emit(row))
    }
}

impl KeyedProcessFunction<u8, Change, Row> for Overall {
    fn process(&mut self, change: Change, context: &mut KeyedContext<'_, u8, Row>) -> Result<()> {
        self.book.get_or(context, Book::default)?.take_in(change);
        if self.pace.changed(context)? { self.write(context) } else { Ok(()) }
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, u8, Row>) -> Result<()> {
        if self.pace.due(context)? { self.write(context) } else { Ok(()) }
    }
}
