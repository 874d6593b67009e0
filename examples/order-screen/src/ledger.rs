//! What each order counts as. An order counts once, in the furthest group any of its events names (unpaid < paid <
//! cancelled), with the amounts and at the time of the earliest event of that group; so the result does not depend on the
//! order in which events arrive. The same event again is a duplicate and changes nothing but its counter.
//!
//! Orders are remembered for a bounded event time after they were placed; an event about an order that is older than that
//! and not known any more cannot be counted safely, and goes to the dead letters.

use order_generator::order::{Gender, Group, Order, Status};
use order_generator::time::{MINUTE_MS, day_start, parse_local};
use serde::{Deserialize, Serialize};
use tidemill::prelude::*;

use crate::change::{Amounts, Cell, Change, TEN_MINUTES_MS, minute_of};

/// Events about orders that are not remembered any more.
pub const FORGOTTEN: OutputTag<DeadLetter> = OutputTag::new("forgotten");

/// Timers that forget orders are set for whole hours, so that many orders share one.
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// What the job remembers of an order.
#[derive(Clone, Serialize, Deserialize)]
struct Placed {
    /// One bit for each status seen.
    seen: u8,
    counted: Counted,
}

/// The event that counts.
#[derive(Clone, Serialize, Deserialize)]
struct Counted {
    group: Group,
    status: Status,
    time_ms: i64,
    fen: i64,
    quantity: i64,
    category: String,
    brand: String,
    user_id: String,
    user_name: String,
    gender: Gender,
    province: String,
}

/// The ledger of orders.
#[derive(Clone)]
pub struct Ledger {
    placed: ValueState<Placed>,
    remember_ms: i64,
}

impl Ledger {
    /// A ledger that remembers orders this long after they were placed.
    pub fn new(remember: Duration) -> Self {
        Ledger { placed: ValueState::new("placed"), remember_ms: remember.as_millis() as i64 }
    }
}

impl From<&Order> for Counted {
    fn from(order: &Order) -> Self {
        Counted {
            group: order.status.group(),
            status: order.status,
            time_ms: order.order_time_series,
            fen: order.total_price.0,
            quantity: i64::from(order.num),
            category: order.goods_type.clone(),
            brand: order.brand.clone(),
            user_id: order.user_id.clone(),
            user_name: order.user_name.clone(),
            gender: order.gender,
            province: order.address.clone(),
        }
    }
}

impl Counted {
    /// Further than, or as far as and earlier than another event of the same order.
    fn goes_before(&self, other: &Counted) -> bool {
        (std::cmp::Reverse(self.group), self.time_ms, self.status)
            < (std::cmp::Reverse(other.group), other.time_ms, other.status)
    }

    /// Adds the event to the tables, or with −1 takes it back.
    fn changes(&self, sign: i64, mut emit: impl FnMut(Change) -> Result<()>) -> Result<()> {
        let day = day_start(self.time_ms);
        let money = (sign * self.fen, sign);
        let sale = match self.group {
            Group::Unpaid => return emit((Cell::Day(day), Amounts { unpaid: money, ..Amounts::default() })),
            Group::Cancelled => return emit((Cell::Day(day), Amounts { cancelled: money, ..Amounts::default() })),
            Group::Paid => {
                Amounts { fen: sign * self.fen, quantity: sign * self.quantity, orders: sign, ..Amounts::default() }
            }
        };
        let name = (sign > 0).then(|| (self.time_ms, self.user_name.clone()));
        let window_ms = order_generator::time::window_start(self.time_ms, TEN_MINUTES_MS);
        emit((Cell::Minute(minute_of(self.time_ms)), sale.clone()))?;
        emit((Cell::Category(day, self.category.clone()), sale.clone()))?;
        emit((Cell::Brand(day, self.category.clone(), self.brand.clone()), sale.clone()))?;
        emit((Cell::Gender(day, self.gender), sale.clone()))?;
        emit((Cell::GenderWindow(window_ms, self.gender), sale.clone()))?;
        emit((Cell::Province(day, self.province.clone()), sale.clone()))?;
        emit((Cell::User(day, self.user_id.clone()), Amounts { name, ..sale }))
    }
}

/// When an order was placed, from the front of its id; `None` for ids of another form.
fn placed_ms(order_id: &str) -> Option<i64> {
    let digits = order_id.get(..14).filter(|front| front.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (date, time) = digits.split_at(8);
    parse_local(&format!("{}-{}-{} {}:{}:{}", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]))
}

impl KeyedProcessFunction<String, Order, Change> for Ledger {
    fn process(&mut self, order: Order, context: &mut KeyedContext<'_, String, Change>) -> Result<()> {
        let (time_ms, watermark_ms) = (order.order_time_series, context.watermark_ms());
        let (day, bit) = (day_start(time_ms), 1u8 << order.status as u8);
        let mut told = Amounts { event_time_ms: time_ms, ..Amounts::default() };
        let known = self.placed.take(context)?;
        if known.is_none() {
            let forget_ms = placed_ms(&order.order_id).unwrap_or(time_ms).saturating_add(self.remember_ms);
            if forget_ms <= watermark_ms {
                let reason = format!(
                    "order `{}` is older than the {} min orders are remembered",
                    order.order_id,
                    self.remember_ms / MINUTE_MS
                );
                let payload = serde_json::to_vec(&order).unwrap_or_default();
                let letter = DeadLetter::new("order ledger", order.order_id.as_str(), reason, &payload);
                return context.side_output(FORGOTTEN, letter);
            }
            context.register_event_timer(forget_ms - forget_ms.rem_euclid(HOUR_MS) + HOUR_MS);
        }
        if let Some(placed) = known.as_ref().filter(|placed| placed.seen & bit != 0) {
            let placed = placed.clone();
            self.placed.set(context, placed)?;
            told.duplicates = 1;
            return context.emit((Cell::Day(day), told));
        }
        let minute_ms = minute_of(time_ms);
        if minute_ms + MINUTE_MS - 1 <= watermark_ms {
            told.late = 1;
            context.emit((Cell::Minute(minute_ms), Amounts { late: 1, ..Amounts::default() }))?;
        }
        context.emit((Cell::Day(day), told))?;
        let event = Counted::from(&order);
        let placed = match known {
            None => {
                event.changes(1, |change| context.emit(change))?;
                Placed { seen: bit, counted: event }
            }
            Some(placed) if event.goes_before(&placed.counted) => {
                placed.counted.changes(-1, |change| context.emit(change))?;
                event.changes(1, |change| context.emit(change))?;
                Placed { seen: placed.seen | bit, counted: event }
            }
            Some(placed) => Placed { seen: placed.seen | bit, ..placed },
        };
        self.placed.set(context, placed)
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, String, Change>) -> Result<()> {
        self.placed.clear(context)
    }
}
