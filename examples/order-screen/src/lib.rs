//! The order screen's job: from order events in a topic to the live tables of `docs/reference/order-screen.md`.
//!
//! ```text
//! topic orders ─ decode ──► ledger (key: order) ─► combine (a batch) ─┬► cells   (key: table and row) ─┐
//!        │                  each order counts once  one change a row  ├► ranking (key: day, shard) ─► top (key: day)
//!        └ dead letters ─► topic orders.dead, counted ────────────────┴► overall (key: one) ───────────┴► live, Redis
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `ledger.rs` | what each order counts as: duplicates, changes of state, late events |
//! | `change.rs` | what an event changes in the tables, and joining changes before they travel |
//! | `cells.rs` | sums by category, brand, gender, province |
//! | `ranking.rs` | the top ten spenders |
//! | `overall.rs` | totals of the day and the line by minute |
//! | `row.rs` | rows of the tables, for the server and for Redis |
//! | `job.rs` | how the parts are joined |
//!
//! Sums are sums of whole fen; results are absolute values under stable keys, so that a replay writes the same again.

pub mod cells;
pub mod change;
pub mod job;
pub mod ledger;
pub mod overall;
pub mod pace;
pub mod ranking;
pub mod row;
