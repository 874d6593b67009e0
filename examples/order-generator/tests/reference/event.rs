//! Order events and comparisons for tests computed by hand.

use order_generator::reference::{Tables, live_tables};
use order_generator::time::{parse_local, write_local};
use serde_json::{Value, json};

/// The day of most events.
pub const DAY: &str = "2026-11-20";

/// An order event in the making: order 1 of user `U1`, one piece at 10.00, paid at noon, unless said otherwise.
#[derive(Clone)]
pub struct Event(pub Value);

/// Noon of that day.
pub fn noon() -> i64 {
    parse_local("2026-11-20 12:00:00").expect("a time")
}

/// A new event of order `id`.
pub fn order(id: u32) -> Event {
    Event(
        json!({"orderId": format!("{id:023}"), "userId": "U1", "userName": "王芳", "gender": "女", "goods": "美食商品1",
        "goodsType": "美食", "brand": "卫龙", "orderTime": "", "orderTimeSeries": 0, "price": "10.00", "num": 1,
        "totalPrice": "10.00", "status": "已支付", "address": "广东省", "phone": 13_800_000_000_u64}),
    )
    .at(noon())
}

impl Event {
    /// With another value of a field.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Event {
        self.0[field] = value.into();
        self
    }

    /// At another event time.
    pub fn at(self, time_ms: i64) -> Event {
        let mut text = Vec::new();
        write_local(&mut text, time_ms);
        self.with("orderTime", String::from_utf8(text).expect("a local time is text")).with("orderTimeSeries", time_ms)
    }

    /// With another status.
    pub fn status(self, status: &str) -> Event {
        self.with("status", status)
    }

    /// With another total.
    pub fn costs(self, total: &str) -> Event {
        self.with("totalPrice", total)
    }

    /// Of another user.
    pub fn by(self, user_id: &str, name: &str) -> Event {
        self.with("userId", user_id).with("userName", name)
    }
}

/// The live tables after these events.
pub fn tables(events: &[Event]) -> Tables {
    live_tables(events.iter().map(|event| event.0.to_string()))
}

/// Compares the row's fields that `expected` names.
pub fn check(tables: &Tables, table: &str, key: &str, expected: Value) {
    let row = tables[table].get(key).unwrap_or_else(|| panic!("no row `{key}` in {:?}", tables[table]));
    for (field, value) in expected.as_object().expect("the fields expected") {
        assert_eq!(&row[field], value, "field `{field}` of `{key}` in {table}: {row}");
    }
}
