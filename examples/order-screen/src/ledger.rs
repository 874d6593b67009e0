//! What each order counts as. An order counts once, in the furthest group any of its events names (unpaid < paid <
//! cancelled), with the amounts and at the time of the earliest event of that group; so the result does not depend on the
//! order in which events arrive. The same event again is a duplicate and changes nothing but its counter.
//!
//! Orders are remembered for a bounded event time after they were placed; an event about an order that is older than that
//! and not known any more cannot be counted safely, and goes to the dead letters. So does an event whose time is far ahead of
//! its arrival.

use std::sync::Arc;

use compact_str::CompactString;
use order_generator::order::Order;
use order_generator::time::{MINUTE_MS, parse_local};
use serde::{Deserialize, Serialize};
use tidemill::prelude::*;

use crate::change::{Counted, Movement, minute_of};

/// Events that can be read and not be counted: about orders that are not remembered any more, or from the far future.
pub const REFUSED: OutputTag<DeadLetter> = OutputTag::new("forgotten");

/// Timers that forget orders are set for whole hours, so that many orders share one.
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// What the job remembers of an order.
#[derive(Clone, Serialize, Deserialize)]
struct Placed {
    /// One bit for each status seen.
    seen: u8,
    counted: Arc<Counted>,
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

impl From<Order> for Counted {
    fn from(order: Order) -> Self {
        Counted {
            group: order.status.group(),
            status: order.status,
            time_ms: order.order_time_series,
            fen: order.total_price.0,
            quantity: i64::from(order.num),
            category: order.goods_type,
            brand: order.brand,
            user_id: order.user_id,
            user_name: order.user_name,
            gender: order.gender,
            province: order.address,
        }
    }
}

impl Counted {
    /// Further than, or as far as and earlier than another event of the same order.
    fn goes_before(&self, other: &Counted) -> bool {
        (std::cmp::Reverse(self.group), self.time_ms, self.status)
            < (std::cmp::Reverse(other.group), other.time_ms, other.status)
    }
}

/// When an order was placed, from the front of its id; `None` for ids of another form.
fn placed_ms(order_id: &str) -> Option<i64> {
    let digits = order_id.get(..14).filter(|front| front.bytes().all(|byte| byte.is_ascii_digit()))?;
    let mut text = *b"yyyy-MM-dd HH:mm:ss";
    let places = text.iter_mut().filter(|place| place.is_ascii_alphabetic());
    places.zip(digits.bytes()).for_each(|(place, digit)| *place = digit);
    parse_local(std::str::from_utf8(&text).ok()?)
}

impl KeyedProcessFunction<CompactString, Order, Movement> for Ledger {
    fn process(&mut self, order: Order, context: &mut KeyedContext<'_, CompactString, Movement>) -> Result<()> {
        if order.order_time_series != context.timestamp_ms() {
            let reason = format!("`orderTimeSeries` is {}, too far ahead of its arrival", order.order_time_series);
            return refuse(&order, reason, context);
        }
        let (time_ms, watermark_ms, bit) = (order.order_time_series, context.watermark_ms(), 1u8 << order.status as u8);
        let late = minute_of(time_ms) + MINUTE_MS - 1 <= watermark_ms;
        let mut movement = Movement { time_ms, duplicate: false, late, before: None, now: None };
        let Some(placed) = self.placed.get_mut(context)? else {
            let forget_ms = placed_ms(&order.order_id).unwrap_or(time_ms).saturating_add(self.remember_ms);
            if forget_ms <= watermark_ms {
                let remembered_min = self.remember_ms / MINUTE_MS;
                let reason =
                    format!("order `{}` is older than the {remembered_min} min orders are remembered", order.order_id);
                return refuse(&order, reason, context);
            }
            let counted = Arc::new(Counted::from(order));
            movement.now = Some(counted.clone());
            self.placed.set(context, Placed { seen: bit, counted })?;
            context.register_event_timer(forget_ms - forget_ms.rem_euclid(HOUR_MS) + HOUR_MS);
            return context.emit(movement);
        };
        if placed.seen & bit != 0 {
            (movement.duplicate, movement.late) = (true, false);
            return context.emit(movement);
        }
        placed.seen |= bit;
        let event = Counted::from(order);
        if event.goes_before(&placed.counted) {
            let event = Arc::new(event);
            movement.now = Some(event.clone());
            movement.before = Some(std::mem::replace(&mut placed.counted, event));
        }
        context.emit(movement)
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, CompactString, Movement>) -> Result<()> {
        self.placed.clear(context)
    }
}

fn refuse(order: &Order, reason: String, context: &mut KeyedContext<'_, CompactString, Movement>) -> Result<()> {
    let payload = serde_json::to_vec(order).unwrap_or_default();
    context.side_output(REFUSED, DeadLetter::new("order ledger", order.order_id.as_str(), reason, &payload))
}
