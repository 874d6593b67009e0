//! The top ten spenders of a day, exact also when sales are taken back. Users are dealt to shards; each shard keeps the sums
//! of its users and its own top ten, which is looked for anew only when one of the ten falls; the day's top ten is among those.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use compact_str::CompactString;
use order_generator::time::{DAY_MS, day_text};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill::engine::key::key_group;
use tidemill::engine::state::TableHasher;
use tidemill::prelude::*;

use crate::change::{Name, Sales, Spent};
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
    user_id: CompactString,
    user: CompactString,
    orders: i64,
}

/// A day's shard, and the top ten in it.
pub type Top = (i64, u64, Vec<Spender>);

/// The shard of a user's sales.
pub fn shard(spent: &Spent) -> (i64, u64) {
    (spent.day, key_group(spent.user_id.as_str()) % SHARDS)
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Users {
    sums: HashMap<CompactString, (Sales, Name), TableHasher>,
    /// The first ten, in order; `None` when one of them has fallen and others may come before it.
    top: Option<Vec<Spender>>,
}

impl Users {
    fn take_in(&mut self, user_id: CompactString, sales: Sales, name: Name) {
        let (sum, held) = self.sums.entry(user_id.clone()).or_default();
        *sum += sales;
        if name > *held {
            *held = name;
        }
        let spender = spender(&user_id, sum, held);
        if sum.orders == 0 {
            self.sums.remove(&user_id);
        }
        let Some(top) = &mut self.top else { return };
        let listed = top.iter().position(|other| other.user_id == user_id);
        if listed.is_some() && sales.fen < 0 {
            self.top = None;
            return;
        }
        if let Some(at) = listed {
            top.remove(at);
        } else if sales.fen < 0 || (top.len() == LENGTH && top.last().is_some_and(|last| *last < spender)) {
            return;
        }
        let at = top.partition_point(|other| *other < spender);
        top.insert(at, spender);
        top.truncate(LENGTH);
    }

    fn top(&mut self) -> Vec<Spender> {
        let sums = &self.sums;
        let all = || {
            let mut all: Vec<Spender> = sums.iter().map(|(user_id, (sum, name))| spender(user_id, sum, name)).collect();
            all.sort();
            all.truncate(LENGTH);
            all
        };
        self.top.get_or_insert_with(all).clone()
    }
}

fn spender(user_id: &CompactString, sum: &Sales, name: &Name) -> Spender {
    let user = name.as_ref().map(|(_, name)| name.clone()).unwrap_or_default();
    Spender { fen: Reverse(sum.fen), user_id: user_id.clone(), user, orders: sum.orders }
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
        let top = self.users.get_or(context, Users::default)?.top();
        let (day, shard) = *context.key();
        context.emit((day, shard, top))
    }
}

impl KeyedProcessFunction<(i64, u64), Spent, Top> for ShardRanking {
    fn process(&mut self, spent: Spent, context: &mut KeyedContext<'_, (i64, u64), Top>) -> Result<()> {
        let Spent { day, user_id, sales, name } = spent;
        self.users.get_or(context, Users::default)?.take_in(user_id, sales, name);
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
        let left = |rank: usize| {
            let before = &shown.get(&rank)?.user_id;
            let stays = now.values().any(|spender| spender.user_id == *before);
            (!stays).then(|| before.to_string())
        };
        for (&rank, spender) in &now {
            if shown.get(&rank) != Some(spender) {
                let Spender { fen: Reverse(fen), user_id, user, orders } = spender;
                let value =
                    json!({"day": text, "rank": rank, "user_id": user_id, "user": user, "fen": fen, "orders": orders});
                let row = Row::new(Table::User, format!("{text}/{rank:02}"), &value);
                context.emit(Row { left: left(rank), ..row })?;
            }
        }
        for &rank in shown.keys().filter(|rank| !now.contains_key(rank)) {
            context.emit(Row { table: Table::User, key: format!("{text}/{rank:02}"), json: None, left: left(rank) })?;
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
