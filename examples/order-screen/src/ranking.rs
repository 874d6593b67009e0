//! The top ten spenders of a day, exact also when sales are taken back. Users are dealt to shards; each shard keeps all of
//! its users in order and hands on its own top ten; the day's top ten is among those.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use order_generator::time::{DAY_MS, day_text};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill::engine::key::key_group;
use tidemill::prelude::*;

use crate::change::{Cell, Change};
use crate::pace::Pace;
use crate::row::{Row, Table};

/// The length of the ranking.
pub const LENGTH: usize = 10;

/// Shards of a day's users.
const SHARDS: u64 = 16;

/// Rankings of days are kept this long after their day began.
const KEPT_MS: i64 = 3 * DAY_MS;

/// A spender in a ranking: larger amount first, then smaller id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spender {
    fen: Reverse<i64>,
    user_id: String,
    user: String,
    orders: i64,
}

/// A day's shard, and the top ten in it.
pub type Top = (i64, u64, Vec<Spender>);

/// The shard of a user's change.
pub fn shard((cell, _): &Change) -> (i64, u64) {
    match cell {
        Cell::User(day, user_id) => (*day, key_group(user_id) % SHARDS),
        _ => (0, 0),
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Users {
    /// User id → fen, orders, (time of the name, name).
    sums: HashMap<String, (i64, i64, (i64, String))>,
    order: BTreeSet<(Reverse<i64>, String)>,
}

impl Users {
    fn top(&self) -> Vec<Spender> {
        let spender = |(fen, user_id): &(Reverse<i64>, String)| {
            let (_, orders, (_, user)) = self.sums.get(user_id)?;
            Some(Spender { fen: *fen, user_id: user_id.clone(), user: user.clone(), orders: *orders })
        };
        self.order.iter().take(LENGTH).filter_map(spender).collect()
    }
}

/// The top ten of each shard.
#[derive(Clone)]
pub struct ShardRanking {
    users: ValueState<Users>,
    pace: Pace,
}

impl ShardRanking {
    /// Hands a shard's top ten on at most once a tick.
    pub fn new(tick: Duration) -> Self {
        ShardRanking { users: ValueState::new("users"), pace: Pace::new(tick) }
    }

    fn write(&self, context: &mut KeyedContext<'_, (i64, u64), Top>) -> Result<()> {
        let top = self.users.get(context)?.map(Users::top).unwrap_or_default();
        let (day, shard) = *context.key();
        context.emit((day, shard, top))
    }
}

impl KeyedProcessFunction<(i64, u64), Change, Top> for ShardRanking {
    fn process(&mut self, (cell, amounts): Change, context: &mut KeyedContext<'_, (i64, u64), Top>) -> Result<()> {
        let Cell::User(day, user_id) = cell else { return Ok(()) };
        let users = self.users.get_or(context, Users::default)?;
        let (fen, orders, name) = users.sums.entry(user_id.clone()).or_default();
        let before = *fen;
        *fen += amounts.fen;
        *orders += amounts.orders;
        if let Some(newer) = amounts.name.filter(|newer| newer > name) {
            *name = newer;
        }
        let (fen, gone) = (*fen, *orders == 0);
        users.order.remove(&(Reverse(before), user_id.clone()));
        if gone {
            users.sums.remove(&user_id);
        } else {
            users.order.insert((Reverse(fen), user_id));
        }
        context.register_event_timer(day + KEPT_MS);
        if self.pace.changed(context)? { self.write(context) } else { Ok(()) }
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, (i64, u64), Top>) -> Result<()> {
        if self.pace.due(context)? {
            self.write(context)?;
        }
        if context.timestamp_ms() == context.key().0 + KEPT_MS && context.watermark_ms() < i64::MAX {
            self.users.clear(context)?;
            self.pace.clear(context)?;
        }
        Ok(())
    }
}

/// The top ten of the day.
#[derive(Clone)]
pub struct DayRanking {
    shards: MapState<u64, Vec<Spender>>,
    shown: ValueState<BTreeMap<usize, Spender>>,
}

impl Default for DayRanking {
    fn default() -> Self {
        DayRanking { shards: MapState::new("shards"), shown: ValueState::new("shown") }
    }
}

impl KeyedProcessFunction<i64, Top, Row> for DayRanking {
    fn process(&mut self, (day, shard, top): Top, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        self.shards.put(context, shard, top)?;
        let shards = self.shards.entries(context)?;
        let mut all: Vec<Spender> = shards.into_iter().flat_map(|(_, top)| top.iter().cloned()).collect();
        all.sort();
        all.truncate(LENGTH);
        let shown = self.shown.take(context)?.unwrap_or_default();
        let now: BTreeMap<usize, Spender> =
            all.into_iter().enumerate().map(|(at, spender)| (at + 1, spender)).collect();
        let text = day_text(day);
        for (rank, spender) in &now {
            if shown.get(rank) != Some(spender) {
                let Spender { fen: Reverse(fen), user_id, user, orders } = spender;
                let value =
                    json!({"day": text, "rank": rank, "user_id": user_id, "user": user, "fen": fen, "orders": orders});
                context.emit(Row::new(Table::User, format!("{text}/{rank:02}"), &value))?;
            }
        }
        for rank in shown.keys().filter(|rank| !now.contains_key(rank)) {
            context.emit(Row { table: Table::User, key: format!("{text}/{rank:02}"), json: None })?;
        }
        self.shown.set(context, now)?;
        context.register_event_timer(day + KEPT_MS);
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, context: &mut KeyedContext<'_, i64, Row>) -> Result<()> {
        if context.watermark_ms() < i64::MAX {
            self.shards.clear(context)?;
            self.shown.clear(context)?;
        }
        Ok(())
    }
}
