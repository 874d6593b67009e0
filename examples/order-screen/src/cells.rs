//! Sums by category, brand, gender and province: one running sum a row.

use order_generator::time::{DAY_MS, day_text};
use serde_json::json;
use tidemill::prelude::*;

use crate::change::{Cell, Sales};
use crate::pace::Pace;
use crate::row::{Row, Table};

/// Rows of days are kept this long after their day.
const KEPT_MS: i64 = 3 * DAY_MS;

/// Keeps the sums.
#[derive(Clone)]
pub struct Cells {
    sums: ValueState<Sales>,
    pace: Pace,
}

impl Cells {
    /// Writes a row at most once a tick.
    pub fn new(tick: Duration) -> Self {
        Cells { sums: ValueState::new("sums"), pace: Pace::new(tick) }
    }

    fn write(&self, context: &mut KeyedContext<'_, Cell, Row>) -> Result<()> {
        let sums = self.sums.get(context)?.copied().unwrap_or_default();
        match row(context.key(), &sums) {
            Some(row) => context.emit(row),
            None => Ok(()),
        }
    }
}

/// The row of a cell.
fn row(cell: &Cell, sums: &Sales) -> Option<Row> {
    let (fen, quantity, orders) = (sums.fen, sums.quantity, sums.orders);
    Some(match cell {
        Cell::Category(day, category) => {
            let day = day_text(*day);
            let value = json!({"day": day, "category": category, "fen": fen, "quantity": quantity, "orders": orders});
            Row::new(Table::Category, format!("{day}/{category}"), &value)
        }
        Cell::Brand(day, category, brand) => {
            let day = day_text(*day);
            let value = json!({"day": day, "category": category, "brand": brand, "fen": fen, "quantity": quantity, "orders": orders});
            Row::new(Table::Brand, format!("{day}/{category}/{brand}"), &value)
        }
        Cell::Gender(day, gender) => {
            let (day, gender) = (day_text(*day), gender.text());
            let value = json!({"day": day, "gender": gender, "fen": fen, "quantity": quantity, "orders": orders});
            Row::new(Table::Gender, format!("{day}/{gender}"), &value)
        }
        Cell::GenderWindow(window_ms, gender) => {
            let gender = gender.text();
            let value = json!({"window_ms": window_ms, "gender": gender, "fen": fen, "quantity": quantity});
            Row::new(Table::GenderWindow, format!("{window_ms:013}/{gender}"), &value)
        }
        Cell::Province(day, province) => {
            let day = day_text(*day);
            let value = json!({"day": day, "province": province, "fen": fen, "quantity": quantity, "orders": orders});
            Row::new(Table::Province, format!("{day}/{province}"), &value)
        }
        Cell::Minute(_) => return None,
    })
}

/// The start of the day or window a cell belongs to.
fn begins_ms(cell: &Cell) -> i64 {
    match cell {
        Cell::Minute(ms) | Cell::GenderWindow(ms, _) | Cell::Gender(ms, _) => *ms,
        Cell::Category(ms, _) | Cell::Brand(ms, ..) | Cell::Province(ms, _) => *ms,
    }
}

impl KeyedProcessFunction<Cell, (Cell, Sales), Row> for Cells {
    fn process(&mut self, (_, sales): (Cell, Sales), context: &mut KeyedContext<'_, Cell, Row>) -> Result<()> {
        let forget_ms = begins_ms(context.key()) + KEPT_MS;
        *self.sums.get_or(context, Sales::default)? += sales;
        context.register_event_timer(forget_ms);
        if self.pace.changed(context)? { self.write(context) } else { Ok(()) }
    }

    fn on_timer(&mut self, domain: TimeDomain, context: &mut KeyedContext<'_, Cell, Row>) -> Result<()> {
        if self.pace.due(context)? {
            self.write(context)?;
        }
        if domain == TimeDomain::Event
            && context.timestamp_ms() == begins_ms(context.key()) + KEPT_MS
            && context.watermark_ms() < i64::MAX
        {
            self.sums.clear(context)?;
            self.pace.clear(context)?;
        }
        Ok(())
    }
}
