//! The ranking in Redis holds who stands in the top ten now: who leaves it leaves the sorted set, too.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use order_screen::change::{Sales, Spent};
use order_screen::ranking::{DayRanking, ShardRanking, shard};
use tidemill::connectors::redis::RedisCommand;
use tidemill::engine::Environment;

/// Midnight at UTC+8.
const DAY_MS: i64 = 1_795_190_400_000;

fn change(user: usize, fen: i64) -> Spent {
    let sales = Sales { fen, quantity: fen.signum(), orders: fen.signum() };
    Spent { day: DAY_MS, user_id: format!("U{user:02}").into(), sales, name: Some((DAY_MS, "name".into())) }
}

#[test]
fn who_leaves_the_top_ten_leaves_the_sorted_set() {
    for parallelism in 1..=3 {
        // Twelve users; then the two first take everything back, and the two last come in.
        let bought = (0..12).map(|user| change(user, 1200 - 100 * user as i64));
        let changes = bought.chain([change(0, -1200), change(1, -1100)]).collect();
        let env = Environment::new();
        env.set_parallelism(parallelism);
        let rows = env
            .from_collection(changes)
            .key_by(shard)
            .process(ShardRanking::new(Duration::ZERO))
            .key_by(|top| top.0)
            .process(DayRanking::default())
            .collect();
        env.execute("ranking").unwrap();
        let mut redis: BTreeMap<String, f64> = BTreeMap::new();
        for command in rows.take().iter().flat_map(|row| row.redis(None)) {
            match command {
                RedisCommand::SortedSetAdd { member, score, .. } => drop(redis.insert(member, score)),
                RedisCommand::SortedSetRemove { member, .. } => drop(redis.remove(&member)),
                other => panic!("no command of a ranking: {other:?}"),
            }
        }
        let expected: BTreeMap<String, f64> =
            (2..12).map(|user| (format!("U{user:02}"), f64::from(1200 - 100 * user))).collect();
        assert_eq!(redis, expected, "parallelism {parallelism}");
    }
}
