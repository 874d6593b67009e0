//! What the live tables of `docs/reference/order-screen.md` must hold, computed the obvious way from the full list of
//! messages: the oracle of the order job's tests. Slow, keeps everything, shares no code with the job but the reading
//! of the JSON.
//!
//! The rules, where the tables' document leaves a choice:
//!
//! - **Duplicates.** The first message of an (order, status) counts; every further one is a duplicate on the day of its
//!   own event time, whatever else it says.
//! - **State.** An order counts once: in the furthest group any of its events names (unpaid < paid < cancelled), with the
//!   amounts and at the event time of the earliest event of that group. So the result does not depend on the sequence of
//!   arrival; a sale that is cancelled leaves the day and the minute it was counted in; shipping does not move a sale.
//! - **Late.** With every message the watermark is the greatest event time before it minus the bound minus 1 ms. An event
//!   that is no duplicate and whose minute's last millisecond is at or before the watermark is late: counted in `late` of
//!   its minute and its day, and in all sums as well. (A job whose watermark lags counts fewer; one partition and a
//!   watermark for each event give this number.)
//! - **Dead letters** count on the day of the greatest event time before them, before any on the first one's day.
//! - **`event_time_ms`** is the greatest event time of the day, duplicates included; `yesterday_fen` adds up the minutes
//!   of the day before up to and including the same minute, and is null when the day before has no event at all.
//! - **Rows without content are not there**: a row appears when it counts an order or a late event (`orders.total`: any
//!   message). [`without_empty_rows`] brings a job's tables, which may keep rows that fell back to zero, to that form.
//! - **Ranking.** By amount, then by smaller user id. The name shown is that of the user's latest counted event.
//!
//! Not here, because they depend on when the job looked: `computed_ms`, `watermark_ms`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::order::{Group, Order};
use crate::time::{DAY_MS, MINUTE_MS, day_start, day_text, window_start};

/// Table name → key → row.
pub type Tables = BTreeMap<String, BTreeMap<String, Value>>;

/// The bound of the order job's watermark.
pub const OUT_OF_ORDERNESS_MS: i64 = 3_000;
/// The length of the ranking.
pub const RANKING_LENGTH: usize = 10;

/// The names of all live tables.
pub const TABLES: [&str; 8] = [
    "orders.total",
    "orders.minute",
    "orders.category",
    "orders.brand",
    "orders.user",
    "orders.gender",
    "orders.gender_10min",
    "orders.province",
];

/// The live tables after all `messages` in their sequence of arrival, with the order job's bound of 3 s.
pub fn live_tables<B: AsRef<[u8]>>(messages: impl IntoIterator<Item = B>) -> Tables {
    let readings = messages.into_iter().map(|bytes| Order::decode(bytes.as_ref()));
    live_tables_of(readings, OUT_OF_ORDERNESS_MS)
}

/// The same from messages already read, under another bound.
pub fn live_tables_of(readings: impl IntoIterator<Item = Result<Order, String>>, out_of_orderness_ms: i64) -> Tables {
    let arrivals = Arrivals::of(readings, out_of_orderness_ms);
    let counted = counted_events(&arrivals.accepted);
    let sales: Vec<&Order> = counted.iter().copied().filter(|order| order.status.group() == Group::Paid).collect();

    let mut tables: Tables = TABLES.iter().map(|name| (name.to_string(), BTreeMap::new())).collect();
    let mut put = |table: &str, rows: BTreeMap<String, Value>| tables.insert(table.to_string(), rows);
    put("orders.total", total_rows(&arrivals, &counted, &sales));
    put("orders.minute", minute_rows(&arrivals, &sales));
    put("orders.user", user_rows(&sales));
    put("orders.category", sum_rows(&sales, |o| vec![("day", day(o)), ("category", o.goods_type.to_string())]));
    put(
        "orders.brand",
        sum_rows(&sales, |o| {
            vec![("day", day(o)), ("category", o.goods_type.to_string()), ("brand", o.brand.to_string())]
        }),
    );
    put("orders.gender", sum_rows(&sales, |o| vec![("day", day(o)), ("gender", o.gender.text().to_string())]));
    put("orders.province", sum_rows(&sales, |o| vec![("day", day(o)), ("province", o.address.to_string())]));
    put("orders.gender_10min", gender_window_rows(&sales));
    tables
}

/// Removes the rows that hold nothing: no orders (or no pieces, where a row has no `orders`) and nothing late.
/// `orders.total` keeps all.
pub fn without_empty_rows(mut tables: Tables) -> Tables {
    for (name, rows) in &mut tables {
        if name != "orders.total" {
            rows.retain(|_, row| {
                ["orders", "quantity", "late"].iter().any(|field| row[*field].as_i64().unwrap_or(0) != 0)
            });
        }
    }
    tables
}

/// What the sequence of arrival decides.
#[derive(Default)]
struct Arrivals {
    /// The first message of each order and status.
    accepted: Vec<Order>,
    duplicates: BTreeMap<String, i64>,
    dead_letters: BTreeMap<String, i64>,
    late_by_day: BTreeMap<String, i64>,
    late_by_minute: BTreeMap<i64, i64>,
    greatest_time_by_day: BTreeMap<String, i64>,
}

impl Arrivals {
    fn of(readings: impl IntoIterator<Item = Result<Order, String>>, out_of_orderness_ms: i64) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let mut seen = BTreeSet::new();
        let mut greatest_ms: Option<i64> = None;
        let mut dead_before_any = 0;
        for reading in readings {
            let Ok(order) = reading else {
                match greatest_ms {
                    Some(time_ms) => *arrivals.dead_letters.entry(day_text(time_ms)).or_default() += 1,
                    None => dead_before_any += 1,
                }
                continue;
            };
            let time_ms = order.order_time_series;
            let day = day_text(time_ms);
            if greatest_ms.is_none() && dead_before_any > 0 {
                arrivals.dead_letters.insert(day.clone(), dead_before_any);
            }
            let greatest_of_day = arrivals.greatest_time_by_day.entry(day.clone()).or_insert(time_ms);
            *greatest_of_day = time_ms.max(*greatest_of_day);
            if seen.insert((order.order_id.clone(), order.status)) {
                let minute_ms = window_start(time_ms, MINUTE_MS);
                let last_of_minute_ms = minute_ms + MINUTE_MS - 1;
                if greatest_ms.is_some_and(|greatest| last_of_minute_ms < greatest - out_of_orderness_ms) {
                    *arrivals.late_by_day.entry(day).or_default() += 1;
                    *arrivals.late_by_minute.entry(minute_ms).or_default() += 1;
                }
                arrivals.accepted.push(order);
            } else {
                *arrivals.duplicates.entry(day).or_default() += 1;
            }
            greatest_ms = Some(greatest_ms.map_or(time_ms, |greatest| greatest.max(time_ms)));
        }
        arrivals
    }
}

/// The one event of each order that counts, by order id.
fn counted_events(accepted: &[Order]) -> Vec<&Order> {
    let mut by_order: BTreeMap<&str, Vec<&Order>> = BTreeMap::new();
    for order in accepted {
        by_order.entry(&order.order_id).or_default().push(order);
    }
    let furthest_then_earliest =
        |order: &&&Order| (Reverse(order.status.group()), order.order_time_series, order.status);
    by_order.values().filter_map(|events| events.iter().min_by_key(furthest_then_earliest).copied()).collect()
}

fn day(order: &Order) -> String {
    day_text(order.order_time_series)
}

fn minute(order: &Order) -> i64 {
    window_start(order.order_time_series, MINUTE_MS)
}

/// Amount, pieces and number of some orders.
fn sums<'a>(orders: impl Iterator<Item = &'a &'a Order>) -> (i64, i64, i64) {
    orders.fold((0, 0, 0), |(fen, quantity, count), order| {
        (fen + order.total_price.0, quantity + i64::from(order.num), count + 1)
    })
}

fn total_rows(arrivals: &Arrivals, counted: &[&Order], sales: &[&Order]) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for (day_name, &event_time_ms) in &arrivals.greatest_time_by_day {
        let of_group = |group| counted.iter().filter(move |o| o.status.group() == group && day(o) == *day_name);
        let (fen, quantity, orders) = sums(of_group(Group::Paid));
        let (unpaid_fen, _, unpaid_orders) = sums(of_group(Group::Unpaid));
        let (cancelled_fen, _, cancelled_orders) = sums(of_group(Group::Cancelled));
        let count = |counts: &BTreeMap<String, i64>| counts.get(day_name).copied().unwrap_or(0);
        let row = json!({
            "day": day_name, "fen": fen, "quantity": quantity, "orders": orders,
            "unpaid_fen": unpaid_fen, "unpaid_orders": unpaid_orders,
            "cancelled_fen": cancelled_fen, "cancelled_orders": cancelled_orders,
            "duplicates": count(&arrivals.duplicates), "late": count(&arrivals.late_by_day),
            "dead_letters": count(&arrivals.dead_letters),
            "yesterday_fen": yesterday_fen(arrivals, sales, event_time_ms), "event_time_ms": event_time_ms,
        });
        rows.insert(day_name.clone(), row);
    }
    rows
}

fn yesterday_fen(arrivals: &Arrivals, sales: &[&Order], event_time_ms: i64) -> Option<i64> {
    let same_minute_ms = window_start(event_time_ms - DAY_MS, MINUTE_MS);
    let from_ms = day_start(event_time_ms - DAY_MS);
    arrivals.greatest_time_by_day.get(&day_text(from_ms))?;
    Some(sums(sales.iter().filter(|o| o.order_time_series >= from_ms && minute(o) <= same_minute_ms)).0)
}

fn minute_rows(arrivals: &Arrivals, sales: &[&Order]) -> BTreeMap<String, Value> {
    let mut by_minute: BTreeMap<i64, Vec<&Order>> = BTreeMap::new();
    for sale in sales {
        by_minute.entry(minute(sale)).or_default().push(sale);
    }
    for minute_ms in arrivals.late_by_minute.keys() {
        by_minute.entry(*minute_ms).or_default();
    }
    let row = |(minute_ms, sales): (i64, Vec<&Order>)| {
        let (fen, quantity, orders) = sums(sales.iter());
        let late = arrivals.late_by_minute.get(&minute_ms).copied().unwrap_or(0);
        let row = json!({"minute_ms": minute_ms, "fen": fen, "quantity": quantity, "orders": orders, "late": late});
        (format!("{minute_ms:013}"), row)
    };
    by_minute.into_iter().map(row).collect()
}

fn user_rows(sales: &[&Order]) -> BTreeMap<String, Value> {
    let mut by_day_and_user: BTreeMap<String, BTreeMap<&str, Vec<&Order>>> = BTreeMap::new();
    for sale in sales {
        by_day_and_user.entry(day(sale)).or_default().entry(&sale.user_id).or_default().push(sale);
    }
    let mut rows = BTreeMap::new();
    for (day, users) in by_day_and_user {
        let mut ranking: Vec<_> = users.into_iter().collect();
        ranking.sort_by_key(|(user_id, sales)| (Reverse(sums(sales.iter()).0), *user_id));
        for (index, (user_id, sales)) in ranking.into_iter().take(RANKING_LENGTH).enumerate() {
            let rank = index + 1;
            let (fen, _, orders) = sums(sales.iter());
            let latest = sales.iter().max_by_key(|o| (o.order_time_series, &o.order_id));
            let user = latest.map_or("", |o| o.user_name.as_str());
            let row = json!({"day": day, "rank": rank, "user_id": user_id, "user": user, "fen": fen, "orders": orders});
            rows.insert(format!("{day}/{rank:02}"), row);
        }
    }
    rows
}

fn gender_window_rows(sales: &[&Order]) -> BTreeMap<String, Value> {
    let mut windows: BTreeMap<(i64, &str), Vec<&Order>> = BTreeMap::new();
    for sale in sales {
        let window_ms = window_start(sale.order_time_series, 10 * MINUTE_MS);
        windows.entry((window_ms, sale.gender.text())).or_default().push(sale);
    }
    let row = |((window_ms, gender), sales): ((i64, &str), Vec<&Order>)| {
        let (fen, quantity, _) = sums(sales.iter());
        let row = json!({"window_ms": window_ms, "gender": gender, "fen": fen, "quantity": quantity});
        (format!("{window_ms:013}/{gender}"), row)
    };
    windows.into_iter().map(row).collect()
}

/// Rows `{…key fields, fen, quantity, orders}` under the key fields joined by `/`.
fn sum_rows(sales: &[&Order], key: impl Fn(&Order) -> Vec<(&'static str, String)>) -> BTreeMap<String, Value> {
    let mut by_key: BTreeMap<Vec<(&str, String)>, Vec<&Order>> = BTreeMap::new();
    for sale in sales {
        by_key.entry(key(sale)).or_default().push(sale);
    }
    let mut rows = BTreeMap::new();
    for (key, sales) in by_key {
        let (fen, quantity, orders) = sums(sales.iter());
        let mut row = json!({"fen": fen, "quantity": quantity, "orders": orders});
        for (field, text) in &key {
            row[*field] = json!(text);
        }
        let parts: Vec<&str> = key.iter().map(|(_, text)| text.as_str()).collect();
        rows.insert(parts.join("/"), row);
    }
    rows
}
