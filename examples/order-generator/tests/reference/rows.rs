//! Rows of the reference that no fault covers, computed by hand.

use order_generator::reference::without_empty_rows;
use order_generator::time::{DAY_MS, MINUTE_MS};
use serde_json::json;

use crate::event::{DAY, check, noon, order, tables};

#[test]
fn yesterday_counts_up_to_and_including_the_same_minute() {
    let yesterday = noon() - DAY_MS;
    let got = tables(&[
        order(1).at(yesterday - 3_600_000),
        order(2).at(yesterday + MINUTE_MS - 1).costs("1.00"),
        order(3).at(yesterday + MINUTE_MS).costs("50.00"),
        order(4).at(noon() + 7),
    ]);
    check(&got, "orders.total", DAY, json!({"fen": 1000, "yesterday_fen": 1100}));
}

#[test]
fn provinces_and_brands_have_their_sums() {
    let got =
        tables(&[order(1), order(2).with("address", "西藏自治区").with("brand", "百草味"), order(3).costs("0.05")]);
    check(&got, "orders.province", &format!("{DAY}/广东省"), json!({"province": "广东省", "fen": 1005, "orders": 2}));
    check(
        &got,
        "orders.brand",
        &format!("{DAY}/美食/百草味"),
        json!({"day": DAY, "category": "美食", "brand": "百草味", "fen": 1000, "quantity": 1, "orders": 1}),
    );
    assert_eq!(got["orders.province"].len(), 2);
}

#[test]
fn rows_that_fell_back_to_nothing_can_be_left_out_of_a_comparison() {
    let mut of_a_job = tables(&[order(1).status("已支付"), order(1).status("已取消").at(noon() + 9)]);
    let expected = of_a_job.clone();
    of_a_job.get_mut("orders.minute").unwrap().insert(
        format!("{:013}", noon()),
        json!({"minute_ms": noon(), "fen": 0, "quantity": 0, "orders": 0, "late": 0}),
    );
    assert_ne!(of_a_job, expected);
    assert_eq!(without_empty_rows(of_a_job), expected);
}
