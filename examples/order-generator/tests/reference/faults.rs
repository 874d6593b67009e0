//! One test or more, computed by hand, for each fault of the usual order screen that concerns computing: double counting
//! after a replay (a), the wrong clock (b), the ranking's filter and key (c), a short history (e), unpaid sales (f), no
//! deduplication (g), money as floats (h), silent late events (i), genders without amounts (j), ranks left to the
//! reader (k). A hot constant key (d) is no matter of results.

use order_generator::reference::live_tables;
use order_generator::time::{MINUTE_MS, parse_local};
use serde_json::{Value, json};

use crate::event::{DAY, Event, check, noon, order, tables};

#[test]
fn fault_a_a_replay_changes_no_sum() {
    let events = [order(1), order(2).costs("5.50"), order(3).status("待支付")];
    let twice: Vec<Event> = events.iter().chain(&events).cloned().collect();
    let (once, twice) = (tables(&events), tables(&twice));
    check(&twice, "orders.total", DAY, json!({"fen": 1550, "orders": 2, "unpaid_orders": 1, "duplicates": 3}));
    for (table, rows) in &once {
        assert!(table == "orders.total" || rows == &twice[table], "{table}");
    }
}

#[test]
fn fault_b_windows_are_of_event_time_and_ten_minutes_long() {
    // Told hours later, but bought at 12:09:59.999 and 12:10:00.000.
    let last = noon() + 10 * MINUTE_MS - 1;
    let got =
        tables(&[order(1).at(noon()), order(2).at(last).costs("1.00"), order(3).at(last + 1).with("gender", "男")]);
    check(
        &got,
        "orders.gender_10min",
        &format!("{:013}/女", noon()),
        json!({"window_ms": noon(), "fen": 1100, "quantity": 2}),
    );
    check(&got, "orders.gender_10min", &format!("{:013}/男", last + 1), json!({"fen": 1000, "quantity": 1}));
    assert_eq!(got["orders.gender_10min"].len(), 2);
}

#[test]
fn fault_b_a_day_begins_at_local_midnight() {
    let midnight = parse_local("2026-11-21 00:00:00").unwrap();
    let got = tables(&[order(1).at(midnight - 1), order(2).at(midnight).costs("3.00")]);
    check(&got, "orders.total", DAY, json!({"fen": 1000, "event_time_ms": midnight - 1, "yesterday_fen": null}));
    // Yesterday up to 00:00 had sold nothing.
    check(&got, "orders.total", "2026-11-21", json!({"fen": 300, "event_time_ms": midnight, "yesterday_fen": 0}));
}

#[test]
fn fault_c_small_orders_rank_and_equal_names_are_different_people() {
    let mut events = vec![order(1).by("U7", "李伟").costs("3000.00"), order(2).by("U8", "李伟").costs("2999.99")];
    events.extend((0..4).map(|index| order(10 + index).by("U9", "张敏").costs("1000.00")));
    let got = tables(&events);
    check(
        &got,
        "orders.user",
        &format!("{DAY}/01"),
        json!({"user_id": "U9", "user": "张敏", "fen": 400_000, "orders": 4}),
    );
    check(&got, "orders.user", &format!("{DAY}/02"), json!({"user_id": "U7", "user": "李伟", "fen": 300_000}));
    check(&got, "orders.user", &format!("{DAY}/03"), json!({"user_id": "U8", "user": "李伟", "fen": 299_999}));
}

#[test]
fn fault_e_the_history_of_minutes_has_no_end() {
    let events: Vec<Event> = (0..1500).map(|index| order(index).at(noon() + i64::from(index) * MINUTE_MS)).collect();
    let got = tables(&events);
    assert_eq!(got["orders.minute"].len(), 1500);
    check(
        &got,
        "orders.minute",
        &format!("{:013}", noon() + 149 * MINUTE_MS),
        json!({"fen": 1000, "orders": 1, "late": 0}),
    );
}

#[test]
fn fault_f_unpaid_orders_are_no_sales() {
    let paid_at = noon() + MINUTE_MS;
    let got = tables(&[
        order(1).status("待支付").costs("7.00"),
        order(2).status("待支付"),
        order(2).status("已支付").at(paid_at),
        order(3).status("待支付").costs("4.00"),
        order(3).status("已取消").costs("4.00").at(paid_at),
    ]);
    check(
        &got,
        "orders.total",
        DAY,
        json!({"fen": 1000, "quantity": 1, "orders": 1, "unpaid_fen": 700, "unpaid_orders": 1,
            "cancelled_fen": 400, "cancelled_orders": 1, "duplicates": 0}),
    );
    // The sale belongs to the minute of the payment.
    assert_eq!(got["orders.minute"].keys().collect::<Vec<_>>(), [&format!("{paid_at:013}")]);
}

#[test]
fn fault_f_a_sale_paid_back_leaves_its_minute() {
    let got = tables(&[
        order(1).status("已支付"),
        order(1).status("配送中").at(noon() + 3 * MINUTE_MS),
        order(2).status("已支付"),
        order(2).status("已取消").at(noon() + 5 * MINUTE_MS),
    ]);
    check(&got, "orders.minute", &format!("{:013}", noon()), json!({"fen": 1000, "orders": 1}));
    assert_eq!(got["orders.minute"].len(), 1, "shipping does not move a sale");
    check(&got, "orders.category", &format!("{DAY}/美食"), json!({"fen": 1000, "orders": 1}));
    check(&got, "orders.total", DAY, json!({"fen": 1000, "cancelled_fen": 1000, "cancelled_orders": 1}));
}

#[test]
fn fault_f_a_payment_that_overtakes_its_order_counts_the_same() {
    let placed = order(1).status("待支付");
    let paid = order(1).status("已支付").at(noon() + 2000);
    let shipped = order(1).status("配送中").at(noon() + 2 * MINUTE_MS);
    let usual = tables(&[placed.clone(), paid.clone(), shipped.clone()]);
    for events in [[shipped.clone(), paid.clone(), placed.clone()], [paid, placed, shipped]] {
        let mut got = tables(&events);
        // Only what tells about arrival itself may differ.
        for (field, row) in [("late", "orders.total"), ("late", "orders.minute")] {
            got.get_mut(row).unwrap().values_mut().for_each(|row| row[field] = json!(0));
        }
        assert_eq!(got, usual);
    }
}

#[test]
fn fault_g_the_same_order_and_status_count_once_word_for_word_or_not() {
    let got = tables(&[order(1), order(1), order(1).costs("99.00"), order(1).status("已完成")]);
    check(&got, "orders.total", DAY, json!({"fen": 1000, "orders": 1, "duplicates": 2}));
}

#[test]
fn fault_h_money_is_exact() {
    // Sums that floats get wrong: 0.1 + 0.2, ten thousand times 0.07, the largest amounts.
    check(&tables(&[order(1).costs("0.10"), order(2).costs("0.20")]), "orders.total", DAY, json!({"fen": 30}));
    let cents: Vec<Event> = (0..10_000).map(|id| order(id).costs("0.07")).collect();
    check(&tables(&cents), "orders.total", DAY, json!({"fen": 70_000, "orders": 10_000}));
    let large = tables(&[order(1).costs("9999999999.99"), order(2).costs("0.01")]);
    check(&large, "orders.total", DAY, json!({"fen": 1_000_000_000_000_i64}));
}

#[test]
fn fault_i_late_events_are_counted_and_said_to_be_late() {
    let minute_end = noon() + MINUTE_MS;
    let events = |greatest_ms: i64| [order(1).at(greatest_ms), order(2).at(noon()).costs("2.00"), order(2).at(noon())];
    // Watermark 12:00:59.998: the minute is open. One millisecond more closes it.
    let on_time = tables(&events(minute_end + 2_999));
    check(&on_time, "orders.total", DAY, json!({"fen": 1200, "late": 0, "duplicates": 1}));
    let late = tables(&events(minute_end + 3_000));
    check(&late, "orders.total", DAY, json!({"fen": 1200, "late": 1, "duplicates": 1}));
    check(&late, "orders.minute", &format!("{:013}", noon()), json!({"fen": 200, "orders": 1, "late": 1}));
}

#[test]
fn fault_i_what_cannot_be_read_is_counted_too_and_moves_no_watermark() {
    let bad = order(9).with("orderTimeSeries", 253_402_300_799_000_i64);
    let negative = order(9).costs("-5.00");
    let got = tables(&[negative, order(1), bad, order(2)]);
    check(
        &got,
        "orders.total",
        DAY,
        json!({"fen": 2000, "orders": 2, "dead_letters": 2, "late": 0, "event_time_ms": noon()}),
    );
    assert!(live_tables(["{\"orderId\":"]).values().all(|rows| rows.is_empty()));
}

#[test]
fn fault_j_genders_have_amount_pieces_and_orders() {
    let got = tables(&[order(1).with("num", 3).costs("30.00"), order(2).with("gender", "男"), order(3)]);
    check(
        &got,
        "orders.gender",
        &format!("{DAY}/女"),
        json!({"day": DAY, "gender": "女", "fen": 4000, "quantity": 4, "orders": 2}),
    );
    check(&got, "orders.gender", &format!("{DAY}/男"), json!({"fen": 1000, "quantity": 1, "orders": 1}));
}

#[test]
fn fault_k_ranks_are_rows_ten_of_them_and_ties_go_by_user_id() {
    let events: Vec<Event> = (0..12).map(|index| order(index).by(&format!("U{:02}", 11 - index), "某")).collect();
    let got = tables(&events);
    let ids: Vec<&Value> = got["orders.user"].values().map(|row| &row["user_id"]).collect();
    assert_eq!(ids, ["U00", "U01", "U02", "U03", "U04", "U05", "U06", "U07", "U08", "U09"]);
    assert_eq!(got["orders.user"].keys().next_back().unwrap(), &format!("{DAY}/10"));
}
