//! The reference against a second way of computing, event by event with corrections, as a streaming job must do it: on
//! generated events with every fault, both must hold the same sums.

use std::collections::{BTreeMap, HashMap, HashSet};

use order_generator::reference::{live_tables, live_tables_of};
use order_generator::time::{MINUTE_MS, day_text, window_start};
use order_generator::{Fraction, GeneratorConfig, Group, Note, Order, OrderGenerator};

fn faulty(seed: u64) -> GeneratorConfig {
    let share = Fraction::per_million;
    GeneratorConfig {
        seed,
        // A day and a half in one test: events are thin, days and minutes many.
        rate: 50,
        speed: 300,
        users: 60,
        duplicates: share(20_000),
        out_of_order: share(100_000),
        late: share(10_000),
        bad: share(5_000),
        ..GeneratorConfig::default()
    }
}

/// Sums kept up to date event by event.
#[derive(Default)]
struct Incremental {
    states: HashMap<String, Order>,
    seen: HashSet<Vec<u8>>,
    fen_by_day_and_group: BTreeMap<(String, Group), i64>,
    sales_by_minute: BTreeMap<i64, (i64, i64)>,
    fen_by_user: BTreeMap<(String, String), i64>,
    duplicates: i64,
    dead_letters: i64,
}

impl Incremental {
    fn take(&mut self, json: &[u8]) {
        let Ok(order) = Order::decode(json) else {
            self.dead_letters += 1;
            return;
        };
        if !self.seen.insert(json.to_vec()) {
            self.duplicates += 1;
            return;
        }
        let moves = |old: &Order| {
            let (old_group, group) = (old.status.group(), order.status.group());
            group > old_group || (group == old_group && order.order_time_series < old.order_time_series)
        };
        match self.states.get(order.order_id.as_str()).cloned() {
            Some(old) if moves(&old) => self.count(&old, -1),
            Some(_) => return,
            None => {}
        }
        self.count(&order, 1);
        self.states.insert(order.order_id.to_string(), order);
    }

    fn count(&mut self, order: &Order, sign: i64) {
        let day = day_text(order.order_time_series);
        let fen = sign * order.total_price.0;
        *self.fen_by_day_and_group.entry((day.clone(), order.status.group())).or_default() += fen;
        if order.status.group() == Group::Paid {
            let minute = self.sales_by_minute.entry(window_start(order.order_time_series, MINUTE_MS)).or_default();
            *minute = (minute.0 + fen, minute.1 + sign);
            *self.fen_by_user.entry((day, order.user_id.to_string())).or_default() += fen;
        }
    }
}

#[test]
fn event_by_event_with_corrections_gives_the_same() {
    for seed in 1..=3 {
        let events: Vec<Vec<u8>> = OrderGenerator::new(faulty(seed)).take(15_000).map(|event| event.json).collect();
        let mut incremental = Incremental::default();
        events.iter().for_each(|json| incremental.take(json));
        let tables = live_tables(&events);

        let total = |field: &str| tables["orders.total"].values().map(|row| row[field].as_i64().unwrap()).sum::<i64>();
        assert!(tables["orders.total"].len() >= 2, "seed {seed} covers more than a day");
        assert_eq!(total("duplicates"), incremental.duplicates, "seed {seed}");
        assert_eq!(total("dead_letters"), incremental.dead_letters, "seed {seed}");
        for (day, row) in &tables["orders.total"] {
            for (field, group) in
                [("fen", Group::Paid), ("unpaid_fen", Group::Unpaid), ("cancelled_fen", Group::Cancelled)]
            {
                let kept = incremental.fen_by_day_and_group.get(&(day.clone(), group)).copied().unwrap_or(0);
                assert_eq!(row[field].as_i64(), Some(kept), "seed {seed}, {field} of {day}");
            }
            let mut ranking: Vec<(i64, &str)> = incremental
                .fen_by_user
                .iter()
                .filter(|((of_day, _), fen)| of_day == day && **fen > 0)
                .map(|((_, user), fen)| (-fen, user.as_str()))
                .collect();
            ranking.sort_unstable();
            for (index, (fen, user)) in ranking.iter().take(10).enumerate() {
                let row = &tables["orders.user"][&format!("{day}/{:02}", index + 1)];
                assert_eq!(
                    (row["fen"].as_i64(), row["user_id"].as_str()),
                    (Some(-fen), Some(*user)),
                    "seed {seed}, {day}"
                );
            }
        }
        let minutes: BTreeMap<i64, (i64, i64)> =
            incremental.sales_by_minute.into_iter().filter(|(_, sums)| *sums != (0, 0)).collect();
        let rows = tables["orders.minute"].values().filter(|row| row["orders"] != 0);
        let reference: BTreeMap<i64, (i64, i64)> = rows
            .map(|row| {
                let field = |name: &str| row[name].as_i64().unwrap();
                (field("minute_ms"), (field("fen"), field("orders")))
            })
            .collect();
        assert_eq!(reference, minutes, "seed {seed}");
    }
}

#[test]
fn every_breakdown_adds_up_to_the_total() {
    let tables = live_tables(OrderGenerator::new(faulty(9)).take(15_000).map(|event| event.json));
    let sum = |table: &str, field: &str| tables[table].values().map(|row| row[field].as_i64().unwrap()).sum::<i64>();
    for table in ["orders.minute", "orders.category", "orders.brand", "orders.gender", "orders.province"] {
        for field in ["fen", "quantity", "orders"] {
            assert_eq!(sum(table, field), sum("orders.total", field), "{field} of {table}");
        }
    }
    assert_eq!(sum("orders.gender_10min", "fen"), sum("orders.total", "fen"));
    assert_eq!(sum("orders.minute", "late"), sum("orders.total", "late"));
}

#[test]
fn the_generators_late_events_are_late_and_no_others() {
    // Enough events that time goes on in every second of the quietest hour.
    let config = GeneratorConfig { rate: 400, late: Fraction::per_million(2_000), ..GeneratorConfig::default() };
    let events: Vec<_> = OrderGenerator::new(config).take(100_000).collect();
    let late = events.iter().filter(|event| event.info.note == Note::Late).count();
    let tables = live_tables_of(events.iter().map(|event| event.order()), 3_000);
    let counted: i64 = tables["orders.total"].values().map(|row| row["late"].as_i64().unwrap()).sum();
    assert_eq!((counted, late > 50), (late as i64, true));
}

#[test]
fn the_sequence_of_arrival_changes_only_what_tells_about_arrival() {
    let events: Vec<Vec<u8>> = OrderGenerator::new(faulty(4)).take(5_000).map(|event| event.json).collect();
    let turned: Vec<&Vec<u8>> = events.iter().rev().collect();
    let (mut there, mut back) = (live_tables(&events), live_tables(turned));
    for tables in [&mut there, &mut back] {
        for table in ["orders.total", "orders.minute"] {
            for row in tables.get_mut(table).unwrap().values_mut() {
                row["late"] = 0.into();
                row["dead_letters"] = 0.into();
            }
        }
        *tables = order_generator::reference::without_empty_rows(std::mem::take(tables));
    }
    assert_eq!(there, back);
}
