//! The eleven faults of the order screen ours is to beat, each as a test that our job does not have it: with orders
//! written by hand and the exact rows they must give.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use order_generator::order::Order;
use order_generator::time::{DAY_MS, MINUTE_MS};
use order_screen::cells::Cells;
use order_screen::change::{CELLS, Cell, Combine, Counted, Movement};
use order_screen::row::{Row, Table};
use serde_json::{Value, json};
use tidemill::connectors::generator::GeneratorSource;
use tidemill::connectors::redis::RedisCommand;
use tidemill::engine::stream::WatermarkStrategy;
use tidemill::engine::{Environment, JobSettings};

use shop::{Ran, Sale, at, drain, events, records_in, run, run_on, run_staged, sale, wait};
use support::{append, append_at, fill, newest, screen};

mod shop;
mod support;

/// What Redis holds after these commands. A command that adds to what is there, or reads it first, has no place here.
#[derive(Default, PartialEq, Debug)]
struct Redis(BTreeMap<(String, String), String>);

impl Redis {
    fn take_in(&mut self, row: &Row) {
        for command in row.redis(None) {
            match command {
                RedisCommand::Set { key, value, .. } => {
                    self.0.insert((key, String::new()), String::from_utf8(value).unwrap());
                }
                RedisCommand::HashSet { key, field, value, .. } => {
                    self.0.insert((key, field), String::from_utf8(value).unwrap());
                }
                RedisCommand::SortedSetAdd { key, member, score, .. } => {
                    self.0.insert((key, member), score.to_string());
                }
                RedisCommand::Delete { key } => self.0.retain(|(held, _), _| *held != key),
                RedisCommand::HashDelete { key, field: part } | RedisCommand::SortedSetRemove { key, member: part } => {
                    self.0.remove(&(key, part));
                }
            }
        }
    }
}

/// Tables without the fields that tell when the job looked.
fn timeless(mut ran: Ran) -> Ran {
    for row in ran.tables.get_mut("orders.total").into_iter().flat_map(BTreeMap::values_mut) {
        ["computed_ms", "watermark_ms"].iter().for_each(|field| drop(row.as_object_mut().unwrap().remove(*field)));
    }
    ran
}

#[test]
fn a_replay_after_a_crash_counts_nothing_twice() {
    let many: Vec<Sale> =
        (0..3000).map(|id| Sale { fen: 7, user: format!("U{}", id % 20), ..sale(id, "09:00:00") }).collect();
    let many = events(&many);
    let (before, after) = many.split_at(2000);
    let whole = timeless(run(&many));

    let (topics, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(topics.path(), 2, before);
    let settings = JobSettings {
        checkpoint_dir: Some(state.path().to_path_buf()),
        checkpoint_interval_ms: None,
        parallelism: Some(2),
        ..JobSettings::default()
    };
    let env = Environment::with_settings(settings.clone());
    let rows = screen(topics.path(), false).build(&env).rows.collect();
    let (folder, rest) = (topics.path().to_path_buf(), after.to_vec());
    let outcome = env.execute_with("order screen", move |job| {
        std::thread::spawn(move || {
            wait(&job, |report| records_in(report, "ledger") == 2000);
            if let Err(error) = job.checkpoint() {
                return job.fail(&error.to_string());
            }
            append(&folder, &rest);
            wait(&job, |report| records_in(report, "ledger") == 3000);
            // Rows of what is behind the checkpoint leave, too.
            std::thread::park_timeout(Duration::from_millis(100));
            job.fail("crash");
        });
    });
    assert!(outcome.is_err(), "the first attempt was to crash");
    let first = rows.take();
    let sold = |rows: &[Row]| newest(rows.to_vec())["orders.total"]["2026-11-20"]["orders"].as_i64().unwrap();
    assert!(sold(&first) > 2000, "rows from behind the checkpoint were out before the crash: {}", sold(&first));

    // The topic does not end, so this attempt does not either: it is stopped when it has caught up.
    let env = Environment::with_settings(settings);
    let rows = screen(topics.path(), false).build(&env).rows.collect();
    let end = topics.path().join("end");
    let outcome = env.execute_with("order screen", move |job| {
        std::thread::spawn(move || {
            wait(&job, |report| records_in(report, "ledger") == 1000);
            drain(&job, end);
        });
    });
    let again = rows.take();
    let report = outcome.unwrap().report;
    assert_eq!(report.checkpoints.restored_epoch, Some(1));
    assert_eq!(records_in(&report, "orders"), 1000, "exactly what is behind the checkpoint is read again");
    let all: Vec<Row> = first.into_iter().chain(again).collect();
    let seen = timeless(Ran { tables: newest(all.clone()), rows: Vec::new(), report });
    assert_eq!(seen.tables, whole.tables);
    assert_eq!(seen.total("fen"), 21_000);

    // In Redis the same: each row twice is each row once.
    let (mut once, mut twice) = (Redis::default(), Redis::default());
    for row in &all {
        once.take_in(row);
        twice.take_in(row);
        twice.take_in(row);
    }
    assert!(once.0.len() > 10, "{once:?}");
    assert_eq!(once, twice);
    let total: Value = serde_json::from_str(&once.0[&("orders:total:2026-11-20".into(), String::new())]).unwrap();
    assert_eq!((&total["fen"], &total["orders"]), (&json!(21_000), &json!(3000)));
}

#[test]
fn b_ten_minutes_are_ten_minutes_of_event_time() {
    // All of it runs in this very moment, long after or before those minutes.
    let mut last = sale(2, "09:09:59");
    last.time_ms += 999;
    let man = Sale { gender: "男", num: 4, fen: 250, ..sale(4, "09:10:00") };
    let sales = [sale(1, "09:00:00"), last, sale(3, "09:10:00"), man, sale(5, "2026-11-17 23:59:59")];
    let ran = run(&events(&sales));
    let row = |window: &str, gender: &str, fen: i64, quantity: i64| {
        let value = json!({"window_ms": at(window), "gender": gender, "fen": fen, "quantity": quantity});
        (format!("{:013}/{gender}", at(window)), value)
    };
    let expected = BTreeMap::from([
        row("2026-11-17 23:50:00", "女", 100, 1),
        row("09:00:00", "女", 200, 2),
        row("09:10:00", "女", 100, 1),
        row("09:10:00", "男", 250, 4),
    ]);
    assert_eq!(ran.tables["orders.gender_10min"], expected);
}

#[test]
fn c_small_orders_count_and_a_name_is_not_a_person() {
    let mut sales: Vec<Sale> =
        (0..100).map(|id| Sale { fen: 1000, user: "U2".into(), ..sale(id, "09:00:00") }).collect();
    sales.push(Sale { fen: 50_000, user: "U1".into(), ..sale(100, "09:00:01") });
    let ran = run(&events(&sales));
    let day = "2026-11-20";
    let expected = BTreeMap::from([
        (
            format!("{day}/01"),
            json!({"day": day, "rank": 1, "user_id": "U2", "user": "王芳", "fen": 100_000, "orders": 100}),
        ),
        (
            format!("{day}/02"),
            json!({"day": day, "rank": 2, "user_id": "U1", "user": "王芳", "fen": 50_000, "orders": 1}),
        ),
    ]);
    assert_eq!(ran.tables["orders.user"], expected);
}

#[test]
fn d_no_hot_key_gets_or_keeps_every_event() {
    let kept_bytes = |count: u32| {
        let sales: Vec<Sale> = (0..count).map(|id| sale(id, "09:00:00")).collect();
        let (topics, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(topics.path(), 1, &events(&sales));
        let settings = JobSettings {
            checkpoint_dir: Some(state.path().to_path_buf()),
            parallelism: Some(1),
            ..JobSettings::default()
        };
        let ran = run_on(topics.path(), settings);
        assert_eq!(ran.total("orders"), i64::from(count));
        assert_eq!(records_in(&ran.report, "ledger"), u64::from(count));
        // All of them are of one minute, brand, gender, province and user: the busiest key there can be.
        for uid in ["overall", "sums", "spenders"] {
            let changes = records_in(&ran.report, uid);
            assert!(changes > 0 && changes * 20 < u64::from(count), "`{uid}` got {changes} records of {count} orders");
        }
        // At the end of event time orders are forgotten; what is left are the rows.
        ran.report.checkpoints.latest.unwrap().bytes
    };
    let (few, many) = (kept_bytes(4_000), kept_bytes(16_000));
    assert!(many < few * 2, "state grows with the events of a key: {few} bytes, then {many}");
}

#[test]
fn e_history_is_a_row_a_minute_and_old_days_are_forgotten() {
    let first = sale(0, "09:00:00");
    let order = |day: i64, index: i64| {
        let time_ms = first.time_ms + day * DAY_MS + index / 3 * MINUTE_MS;
        Sale { id: (day * 150 + index) as u32, time_ms, placed_ms: time_ms, ..first.clone() }
    };
    let kept_bytes = |days: i64| {
        // Day by day: the state holds what event time has not passed yet, however much is read at once.
        let ran = run_staged((0..days).map(|day| (0..150).map(|index| order(day, index)).collect()).collect());
        let keys = ran.keys("orders.minute");
        assert_eq!(keys.len() as i64, days * 50, "one row for each minute, however many orders it has");
        assert!(keys.iter().all(|key| key.len() == 13 && key.parse::<i64>().unwrap() % MINUTE_MS == 0));
        ran.report.checkpoints.latest.unwrap().bytes
    };
    let (week, month) = (kept_bytes(6), kept_bytes(30));
    assert!(month < week * 3 / 2, "{week} bytes of state after 6 days, {month} after 30");
}

#[test]
fn f_unpaid_orders_are_no_sales_until_they_are_paid() {
    let ordered = |id| Sale { status: "待支付", ..sale(id, "09:00:00") };
    let paid = Sale { time_ms: at("09:05:00"), ..sale(2, "09:00:00") };
    let ran = timeless(run(&events(&[ordered(1), ordered(2), paid])));
    let day = "2026-11-20";
    let total = json!({
        "day": day, "fen": 100, "quantity": 1, "orders": 1, "unpaid_fen": 100, "unpaid_orders": 1, "cancelled_fen": 0,
        "cancelled_orders": 0, "duplicates": 0, "late": 0, "dead_letters": 0, "yesterday_fen": null,
        "event_time_ms": at("09:05:00"),
    });
    assert_eq!(ran.row("orders.total", day), total);
    let minute = json!({"minute_ms": at("09:05:00"), "fen": 100, "quantity": 1, "orders": 1, "late": 0});
    assert_eq!(ran.tables["orders.minute"], BTreeMap::from([(format!("{:013}", at("09:05:00")), minute)]));
    let category = json!({"day": day, "category": "美食", "fen": 100, "quantity": 1, "orders": 1});
    assert_eq!(ran.tables["orders.category"], BTreeMap::from([(format!("{day}/美食"), category)]));
}

#[test]
fn g_an_order_that_comes_again_is_dropped_and_counted() {
    let mut all = vec![sale(1, "09:00:00"); 5];
    all.push(Sale { fen: 999_999, ..sale(1, "09:00:00") });
    all.push(Sale { status: "已完成", time_ms: at("09:30:00"), ..sale(1, "09:00:00") });
    let ran = run(&events(&all));
    assert_eq!((ran.total("orders"), ran.total("quantity"), ran.total("fen")), (1, 1, 100));
    assert_eq!(ran.total("duplicates"), 5, "the same order in the same status; another status is news");
    assert_eq!(ran.row("orders.user", "2026-11-20/01")["orders"], 1);
    let minute = format!("{:013}", at("09:00:00"));
    assert_eq!(ran.keys("orders.minute"), [minute], "and it stays where it was paid first");
}

fn numbers(value: &Value, found: &mut Vec<serde_json::Number>) {
    match value {
        Value::Number(number) => found.push(number.clone()),
        Value::Array(values) => values.iter().for_each(|value| numbers(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| numbers(value, found)),
        _ => {}
    }
}

#[test]
fn h_a_million_dimes_are_a_hundred_thousand_exactly() {
    let order = Order::decode(&Sale { fen: 10, ..sale(1, "09:00:00") }.json()).unwrap();
    let dime = Movement {
        time_ms: order.order_time_series,
        duplicate: false,
        late: false,
        before: None,
        now: Some(Arc::new(Counted::from(order))),
    };
    let env = Environment::with_settings(JobSettings { parallelism: Some(1), ..JobSettings::default() });
    let rows = env
        .from_source(
            GeneratorSource::new("dimes", move |_| dime.clone()).count(1_000_000),
            WatermarkStrategy::none(),
            "dimes",
        )
        .transform("Combine", Combine::default)
        .side_output(CELLS)
        .filter(|(cell, _)| matches!(cell, Cell::Gender(..)))
        .key_by_ref(|(cell, _)| cell)
        .process(Cells::new(Duration::from_millis(5)))
        .collect();
    env.execute("dimes").unwrap();
    let last = rows.take().pop().unwrap().value().unwrap();
    assert_eq!(
        last,
        json!({"day": "2026-11-20", "gender": "女", "fen": 10_000_000, "quantity": 1_000_000, "orders": 1_000_000})
    );
}

#[test]
fn h_sums_beyond_what_a_float_can_hold_are_exact() {
    let large = Sale { fen: 999_999_999_999, ..sale(0, "09:00:00") };
    let mut all: Vec<Sale> = (0..10_000).map(|id| Sale { id, ..large.clone() }).collect();
    all.push(Sale { fen: 1, ..sale(10_000, "09:00:00") });
    // More than the largest amount: not counted, and told.
    all.push(Sale { fen: 1_000_000_000_001, ..sale(10_001, "09:00:00") });
    let ran = run(&events(&all));
    let exact = 9_999_999_999_990_001_i64;
    assert_ne!(exact as f64 as i64, exact, "a sum no `f64` holds");
    assert_eq!((ran.total("fen"), ran.total("dead_letters")), (exact, 1));
    assert_eq!(ran.row("orders.gender", "2026-11-20/女")["fen"], exact);
    assert_eq!(ran.row("orders.user", "2026-11-20/01")["fen"], exact);
    let mut found = Vec::new();
    ran.rows.iter().filter_map(Row::value).for_each(|value| numbers(&value, &mut found));
    assert!(found.len() > 50);
    assert!(found.iter().all(|number| number.is_i64()), "a number that is no integer: {found:?}");
}

#[test]
fn i_late_orders_are_counted_shown_and_in_the_sums() {
    let late = Sale { fen: 30, ..sale(3, "09:00:30") };
    let ran = run_staged(vec![vec![sale(1, "09:00:00")], vec![sale(2, "09:10:00")], vec![late]]);
    assert_eq!((ran.total("late"), ran.total("orders"), ran.total("fen")), (1, 3, 230));
    let minute = |time: &str, fen: i64, orders: i64, late: i64| {
        let value = json!({"minute_ms": at(time), "fen": fen, "quantity": orders, "orders": orders, "late": late});
        (format!("{:013}", at(time)), value)
    };
    let expected = BTreeMap::from([minute("09:00:00", 130, 2, 1), minute("09:10:00", 100, 1, 0)]);
    assert_eq!(ran.tables["orders.minute"], expected);
}

#[test]
fn j_genders_have_amount_pieces_and_orders() {
    let man = |id, fen, num| Sale { gender: "男", fen, num, ..sale(id, "09:00:00") };
    let woman = Sale { fen: 3333, ..sale(3, "09:00:00") };
    let ran = run(&events(&[man(1, 10_001, 2), man(2, 5, 1), woman]));
    let day = "2026-11-20";
    let expected = BTreeMap::from([
        (format!("{day}/女"), json!({"day": day, "gender": "女", "fen": 3333, "quantity": 1, "orders": 1})),
        (format!("{day}/男"), json!({"day": day, "gender": "男", "fen": 10_006, "quantity": 3, "orders": 2})),
    ]);
    assert_eq!(ran.tables["orders.gender"], expected);
    assert_eq!(ran.total("fen"), 3333 + 10_006, "a share is a row of one table by the sum of the same table");
}

#[test]
fn k_the_ranking_is_ten_rows_and_right_when_sales_are_taken_back() {
    // U00 has spent 100, U01 200, … U24 2500; the two best then take their orders back, and one more falls behind.
    let order = |user: u32, part: u32, fen: i64| Sale {
        user: format!("U{user:02}"),
        fen,
        ..sale(user * 10 + part, "09:00:00")
    };
    let mut sales: Vec<Sale> = (0..25).map(|user| order(user, 0, i64::from(user + 1) * 100)).collect();
    sales.push(order(20, 1, 5000));
    let back = |of: Sale| Sale { status: "已取消", time_ms: at("09:20:00"), ..of };
    let taken_back = vec![back(order(24, 0, 2500)), back(order(23, 0, 2400)), back(order(20, 1, 5000))];

    let ranking = |ran: &Ran| -> Vec<(String, String, i64, i64)> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let rows = ran.tables["orders.user"].iter();
        rows.map(|(key, row)| {
            (key.clone(), text(&row["user_id"]), row["fen"].as_i64().unwrap(), row["rank"].as_i64().unwrap())
        })
        .collect()
    };
    let ranks = |users: &[(u32, i64)]| -> Vec<(String, String, i64, i64)> {
        let row =
            |(at, (user, fen)): (i64, &(u32, i64))| (format!("2026-11-20/{at:02}"), format!("U{user:02}"), *fen, at);
        (1..).zip(users).map(row).collect()
    };
    let before = run_staged(vec![sales.clone()]);
    let down = |from: u32, to: u32| (to..=from).rev().map(|user| (user, i64::from(user + 1) * 100));
    let expected: Vec<_> = [(20, 7100)].into_iter().chain(down(24, 21)).chain(down(19, 15)).collect();
    assert_eq!(ranking(&before), ranks(&expected));

    let after = run_staged(vec![sales, taken_back.clone()]);
    let expected: Vec<_> = down(22, 13).collect();
    assert_eq!(ranking(&after), ranks(&expected));
    let is_second = |row: &&Row| row.table == Table::User && row.key == "2026-11-20/02";
    let seconds: Vec<&Row> = after.rows.iter().filter(is_second).collect();
    let was = seconds.iter().position(|row| row.json.as_ref().is_some_and(|json| json.contains("\"U24\"")));
    assert!(was.is_some_and(|at| at + 1 < seconds.len()), "rows were taken back, not only written late");

    // Never more than ten rows, whoever else has bought; and fewer users leave fewer rows behind.
    let keys = after.rows.iter().filter(|row| row.table == Table::User).map(|row| row.key.as_str());
    let allowed: Vec<String> = (1..=10).map(|rank| format!("2026-11-20/{rank:02}")).collect();
    assert!(keys.into_iter().all(|key| allowed.iter().any(|allowed| allowed == key)));
    let few: Vec<Sale> = [order(20, 0, 2100), order(23, 0, 2400), order(24, 0, 2500)].into();
    let gone = run_staged(vec![few, taken_back[..2].to_vec()]);
    assert_eq!(ranking(&gone), ranks(&[(20, 2100)]));
}

#[test]
fn an_event_from_the_far_future_is_refused_and_no_day_is_forgotten_for_it() {
    let topics = tempfile::tempdir().unwrap();
    fill(topics.path(), 1, &[]);
    let day = |text: &str, id| sale(id, text);
    append_at(topics.path(), &events(&[day("09:00:00", 1), day("2090-01-01 00:00:00", 2)]), at("09:00:01"));
    // A clock that is wrong by hours is believed, and orders of now still count.
    append_at(topics.path(), &events(&[day("2026-11-21 08:00:00", 3), day("09:00:02", 4)]), at("09:00:03"));
    let ran = run_on(topics.path(), JobSettings { parallelism: Some(1), ..JobSettings::default() });
    assert_eq!(ran.keys("orders.total"), ["2026-11-20", "2026-11-21"]);
    assert_eq!((ran.total("orders"), ran.row("orders.total", "2026-11-21")["orders"].as_i64()), (2, Some(1)));
    let dead: i64 = ran.tables["orders.total"].values().filter_map(|row| row["dead_letters"].as_i64()).sum();
    assert_eq!(dead, 1);
}
