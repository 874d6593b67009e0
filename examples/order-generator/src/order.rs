//! The order event as it stands in the topic `orders`: its fields, and the strict reading of its JSON. What the reading
//! refuses, with the reason in words, is a dead letter for the streaming job and for the reference alike.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::catalog::is_province;
use crate::money::Fen;
use crate::time::{EARLIEST_MS, LATEST_MS, parse_local};

/// 男 or 女.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Gender {
    /// 男
    #[serde(rename = "男")]
    Man,
    /// 女
    #[serde(rename = "女")]
    Woman,
}

impl Gender {
    /// The text in events and table keys.
    pub fn text(self) -> &'static str {
        match self {
            Gender::Man => "男",
            Gender::Woman => "女",
        }
    }
}

/// Where an order stands. Ordered by how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// 待支付
    #[serde(rename = "待支付")]
    Unpaid,
    /// 已支付
    #[serde(rename = "已支付")]
    Paid,
    /// 配送中
    #[serde(rename = "配送中")]
    Shipping,
    /// 已完成
    #[serde(rename = "已完成")]
    Done,
    /// 已取消
    #[serde(rename = "已取消")]
    Cancelled,
}

/// How an order counts. An order only ever moves forward: unpaid, then paid, then cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// Ordered, no money yet.
    Unpaid,
    /// A sale: paid, on its way or done.
    Paid,
    /// Given up or paid back.
    Cancelled,
}

impl Status {
    /// The text in events.
    pub fn text(self) -> &'static str {
        match self {
            Status::Unpaid => "待支付",
            Status::Paid => "已支付",
            Status::Shipping => "配送中",
            Status::Done => "已完成",
            Status::Cancelled => "已取消",
        }
    }

    /// How an order of this status counts.
    pub fn group(self) -> Group {
        match self {
            Status::Unpaid => Group::Unpaid,
            Status::Paid | Status::Shipping | Status::Done => Group::Paid,
            Status::Cancelled => Group::Cancelled,
        }
    }
}

/// One order event. Each event tells what happened at its own event time: `order_time_series` of the event with which
/// an order is paid is the moment of the payment (the moment the order was placed stands in front of its `order_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// `yyyyMMddHHmmssSSS` of the placing of the order, and digits.
    pub order_id: CompactString,
    /// Unique.
    pub user_id: CompactString,
    /// Shown, not unique.
    pub user_name: CompactString,
    /// 男 or 女.
    pub gender: Gender,
    /// What was bought.
    pub goods: CompactString,
    /// The category.
    pub goods_type: CompactString,
    /// The brand.
    pub brand: CompactString,
    /// The event time as local text, `yyyy-MM-dd HH:mm:ss`.
    pub order_time: CompactString,
    /// The event time, epoch ms.
    pub order_time_series: i64,
    /// Price of one piece.
    pub price: Fen,
    /// Pieces.
    pub num: u32,
    /// What the order costs.
    pub total_price: Fen,
    /// Where the order stands.
    pub status: Status,
    /// Full province name.
    pub address: CompactString,
    /// Phone number.
    pub phone: u64,
}

impl Order {
    /// The order event in the JSON text `bytes`, or the reason why there is none.
    ///
    /// Unknown fields are passed over. Refused are, besides what is no JSON of this shape: empty texts, an amount below
    /// zero, no pieces, an address that is none of the 34 provinces, a `/` in what becomes part of a table key, and an
    /// event time outside the years 2000 to 2099 or different from the same event's `orderTime`: one event from a wrong
    /// clock would otherwise move the watermark past all others.
    pub fn decode(bytes: &[u8]) -> Result<Order, String> {
        // Once for all of it: a check for each text in it costs more. Chinese text is checked three times as fast as by `std`.
        let text = simdutf8::compat::from_utf8(bytes).map_err(|e| format!("no order event: {e}"))?;
        let order: Order = serde_json::from_str(text).map_err(|e| format!("no order event: {e}"))?;
        order.check()?;
        Ok(order)
    }

    fn check(&self) -> Result<(), String> {
        for (field, text) in [
            ("orderId", &self.order_id),
            ("userId", &self.user_id),
            ("userName", &self.user_name),
            ("goodsType", &self.goods_type),
            ("brand", &self.brand),
        ] {
            if text.is_empty() {
                return Err(format!("`{field}` is empty"));
            }
        }
        for (field, text) in [("goodsType", &self.goods_type), ("brand", &self.brand)] {
            if text.contains('/') {
                return Err(format!("`{field}` is `{text}`, but `/` separates the parts of a key"));
            }
        }
        for (field, amount) in [("price", self.price), ("totalPrice", self.total_price)] {
            if amount < Fen(0) {
                return Err(format!("`{field}` is {amount}, below zero"));
            }
        }
        if self.num == 0 {
            return Err("`num` is 0".into());
        }
        if !is_province(&self.address) {
            return Err(format!("`address` is `{}`, none of the 34 provinces", self.address));
        }
        self.check_time()
    }

    fn check_time(&self) -> Result<(), String> {
        let time_ms = self.order_time_series;
        if !(EARLIEST_MS..LATEST_MS).contains(&time_ms) {
            return Err(format!("`orderTimeSeries` is {time_ms}, outside the years 2000 to 2099"));
        }
        match parse_local(&self.order_time) {
            Some(local_ms) if local_ms == time_ms - time_ms.rem_euclid(1000) => Ok(()),
            Some(_) => Err(format!("`orderTime` {} and `orderTimeSeries` {time_ms} differ", self.order_time)),
            None => Err(format!("`orderTime` is `{}`, not `yyyy-MM-dd HH:mm:ss`", self.order_time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({"orderId": "20261120182531042000001", "userId": "U1", "userName": "王芳", "gender": "女",
            "goods": "美食商品3", "goodsType": "美食", "brand": "卫龙", "orderTime": "2026-11-20 18:25:31",
            "orderTimeSeries": 1_795_170_331_042_i64, "price": "9.90", "num": 2, "totalPrice": "19.80",
            "status": "已支付", "address": "广东省", "phone": 13_800_000_000_u64})
    }

    fn refusal(field: &str, value: Value) -> String {
        let mut event = good();
        event[field] = value;
        Order::decode(event.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn a_good_event_is_read_and_written_again() {
        let order = Order::decode(good().to_string().as_bytes()).unwrap();
        assert_eq!((order.price, order.num, order.total_price), (Fen(990), 2, Fen(1980)));
        assert_eq!((order.status, order.gender), (Status::Paid, Gender::Woman));
        assert_eq!(serde_json::to_value(&order).unwrap(), good());
    }

    #[test]
    fn amounts_may_be_numbers_and_more_fields_may_come() {
        let text =
            good().to_string().replace("\"9.90\"", "9.9").replace("\"19.80\"", "19.80").replace('{', "{\"more\":[1],");
        let order = Order::decode(text.as_bytes()).unwrap();
        assert_eq!((order.price, order.total_price), (Fen(990), Fen(1980)));
    }

    #[test]
    fn it_travels_in_binary_form() {
        let order = Order::decode(good().to_string().as_bytes()).unwrap();
        let bytes = postcard::to_stdvec(&order).unwrap();
        assert_eq!(postcard::from_bytes::<Order>(&bytes).unwrap(), order);
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_field_in_the_reason() {
        for (field, value, part) in [
            ("num", json!("three"), "three"),
            ("num", json!(0), "num"),
            ("num", json!(1.5), "u32"),
            ("price", json!("9.905"), "9.905"),
            ("totalPrice", json!("-1.00"), "totalPrice"),
            ("status", json!("已丢失"), "已丢失"),
            ("gender", json!("X"), "X"),
            ("address", json!("内蒙古"), "address"),
            ("brand", json!("A/B"), "brand"),
            ("orderId", json!(""), "orderId"),
            ("orderTimeSeries", json!(0), "orderTimeSeries"),
            ("orderTimeSeries", json!(1_795_170_331_042_000_i64), "orderTimeSeries"),
            ("orderTimeSeries", json!(1_795_170_332_042_i64), "differ"),
            ("orderTimeSeries", json!("1795170331042"), "i64"),
            ("orderTime", json!("20.11.2026"), "orderTime"),
            ("phone", json!("13800000000"), "u64"),
        ] {
            let reason = refusal(field, value.clone());
            assert!(reason.contains(part), "{field} {value}: {reason}");
        }
        let mut missing = good();
        missing.as_object_mut().unwrap().remove("status");
        assert!(Order::decode(missing.to_string().as_bytes()).unwrap_err().contains("status"));
        for bytes in [&b""[..], b"{", b"null", b"[]", b"\xff\xfe", &good().to_string().as_bytes()[..60]] {
            assert!(Order::decode(bytes).is_err());
        }
    }
}
