//! An order in numbers: what the generator keeps of an order until its last event, and how one of its events becomes
//! JSON. The bytes are written by hand, several times faster than by way of the [`Order`](crate::Order); a test holds
//! both to the same text.

use crate::catalog::CATEGORIES;
use crate::money::{Fen, write_integer};
use crate::order::{Gender, Status};
use crate::population::user;
use crate::random::Random;
use crate::time::{write_compact, write_local, write_padded};

/// How many different goods a brand has.
const GOODS_PER_BRAND: i64 = 40;
/// The most pieces of one order.
const PIECES_MAX: i64 = 9;
/// Goods from this price on are bought one at a time.
const ONE_PIECE_FROM: Fen = Fen(100_000);

/// The length of an order id: 17 digits of time, 6 of the serial number.
pub(crate) const ORDER_ID_BYTES: usize = 23;

/// An order before it is text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft {
    placed_ms: i64,
    serial: u32,
    user: u32,
    category: u8,
    brand: u8,
    goods: u8,
    pieces: u8,
    price: Fen,
}

impl Draft {
    /// A new order at `placed_ms`. `serial` is the number of the order.
    pub fn new(random: &mut Random, seed: u64, users: u32, placed_ms: i64, serial: u64) -> Draft {
        let number = random.skewed(0, i64::from(users.max(1)) - 1) as u32;
        let gender = user(seed, number).gender;
        let category = random.weighted(CATEGORIES.iter().map(|category| match gender {
            Gender::Man => category.weights.0,
            Gender::Woman => category.weights.1,
        }));
        let brand = random.weighted(CATEGORIES[category].brands.iter().map(|(_, weight)| *weight));
        let goods = random.between(1, GOODS_PER_BRAND) as u8;
        let price = price_of(category, brand, goods);
        let pieces = if price >= ONE_PIECE_FROM { 1 } else { random.skewed(1, PIECES_MAX) as u8 };
        let serial = (serial % 1_000_000) as u32;
        Draft { placed_ms, serial, user: number, category: category as u8, brand: brand as u8, goods, pieces, price }
    }

    /// Appends the event in which this order has `status` at `event_ms`, without a line end.
    pub fn write(&self, seed: u64, status: Status, event_ms: i64, out: &mut Vec<u8>) {
        let user = user(seed, self.user);
        let category = &CATEGORIES[usize::from(self.category)];
        out.extend_from_slice(b"{\"orderId\":\"");
        self.write_id(out);
        out.extend_from_slice(b"\",\"userId\":\"U");
        write_padded(out, u64::from(user.number), 8);
        out.extend_from_slice(b"\",\"userName\":\"");
        out.extend_from_slice(user.family_name.as_bytes());
        out.extend_from_slice(user.given_name.as_bytes());
        out.extend_from_slice(b"\",\"gender\":\"");
        out.extend_from_slice(user.gender.text().as_bytes());
        out.extend_from_slice(b"\",\"goods\":\"");
        out.extend_from_slice(category.name.as_bytes());
        out.extend_from_slice("商品".as_bytes());
        write_integer(out, u64::from(self.goods));
        out.extend_from_slice(b"\",\"goodsType\":\"");
        out.extend_from_slice(category.name.as_bytes());
        out.extend_from_slice(b"\",\"brand\":\"");
        out.extend_from_slice(category.brands[usize::from(self.brand)].0.as_bytes());
        out.extend_from_slice(b"\",\"orderTime\":\"");
        write_local(out, event_ms);
        out.extend_from_slice(b"\",\"orderTimeSeries\":");
        write_integer(out, event_ms.unsigned_abs());
        out.extend_from_slice(b",\"price\":\"");
        self.price.write_to(out);
        out.extend_from_slice(b"\",\"num\":");
        write_integer(out, u64::from(self.pieces));
        out.extend_from_slice(b",\"totalPrice\":\"");
        Fen(self.price.0 * i64::from(self.pieces)).write_to(out);
        out.extend_from_slice(b"\",\"status\":\"");
        out.extend_from_slice(status.text().as_bytes());
        out.extend_from_slice(b"\",\"address\":\"");
        out.extend_from_slice(user.province.as_bytes());
        out.extend_from_slice(b"\",\"phone\":");
        write_integer(out, user.phone);
        out.push(b'}');
    }

    /// Appends the order id: 17 digits of the time it was placed, 6 digits of its serial number.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        write_compact(out, self.placed_ms);
        write_padded(out, u64::from(self.serial), 6);
    }
}

/// The price of certain goods: the same in every run, cheap goods more common than dear ones.
fn price_of(category: usize, brand: usize, goods: u8) -> Fen {
    let (low, high) = CATEGORIES[category].price_yuan;
    let mut random = Random::new(((category as u64) << 32) | ((brand as u64) << 16) | u64::from(goods));
    let yuan = random.skewed(low, high - 1);
    let cents = [0, 0, 50, 80, 90, 99][random.below(6) as usize];
    Fen(yuan * 100 + cents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Order;

    #[test]
    fn the_fast_writing_is_the_order_as_serde_writes_it() {
        let mut random = Random::new(3);
        for serial in 0..2000 {
            let placed_ms = 1_795_170_331_042 + serial as i64 * 86_399;
            let draft = Draft::new(&mut random, 3, 500, placed_ms, serial);
            let mut bytes = Vec::new();
            draft.write(3, Status::Shipping, placed_ms + 60_000, &mut bytes);
            let order = Order::decode(&bytes).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), serde_json::to_string(&order).unwrap());
            assert_eq!(order.total_price.0, order.price.0 * i64::from(order.num));
            assert_eq!(order.order_id.len(), ORDER_ID_BYTES);
        }
    }

    #[test]
    fn prices_stay_in_their_range() {
        for (index, category) in CATEGORIES.iter().enumerate() {
            for goods in 1..=GOODS_PER_BRAND as u8 {
                let price = price_of(index, 0, goods);
                let (low, high) = category.price_yuan;
                assert!((low * 100..=high * 100).contains(&price.0), "{} {price}", category.name);
            }
        }
    }
}
