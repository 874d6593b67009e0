//! The shop behind the order screen: a deterministic generator of its order events, faults included, and the naive
//! reference computation of the screen's live tables. The binary `order-generator` writes the events to a topic or to
//! standard output; the order job's tests and the benches take them from here.
//!
//! | module | holds |
//! |---|---|
//! | [`order`] | the event, its statuses, the strict reading of its JSON |
//! | [`money`] | amounts in whole fen |
//! | [`time`] | the calendar at UTC+8 |
//! | [`generator`], [`config`] | the endless stream of events and what decides it |
//! | [`catalog`], [`population`], [`curve`] | goods and provinces, customers, the course of the day |
//! | [`bad`] | events that cannot be read |
//! | [`random`] | seeded chance |
//! | [`reference`](mod@reference) | what the live tables must hold |
//!
//! ```
//! use order_generator::{GeneratorConfig, OrderGenerator, reference};
//! let events: Vec<_> = OrderGenerator::new(GeneratorConfig::default()).take(1000).collect();
//! let tables = reference::live_tables(events.iter().map(|event| &event.json));
//! assert_eq!(tables["orders.total"].len(), 1);
//! ```

pub mod bad;
pub mod catalog;
pub mod config;
pub mod curve;
mod draft;
pub mod generator;
pub mod money;
pub mod order;
pub mod population;
pub mod random;
pub mod reference;
pub mod time;

pub use bad::BadKind;
pub use config::GeneratorConfig;
pub use generator::{EventInfo, GeneratedEvent, Note, OrderGenerator};
pub use money::Fen;
pub use order::{Gender, Group, Order, Status};
pub use random::Fraction;
