//! Embedded topics: durable, partitioned, replayable logs in a folder, standing in for a Kafka of one's own.
//!
//! Several processes (the server, jobs, the command line) write and read the same topic at once, so each topic is one
//! SQLite database `<folder>/<name>.topic` in WAL mode: appends are transactions over all partitions and durable when
//! they return, readers never wait for writers, and a process may be killed at any point.
//!
//! | module | holds |
//! |---|---|
//! | [`topics`] | the folder: create, list, open, delete |
//! | [`topic`] | one topic: append, read, offsets |
//! | [`staging`] | output of a job that is stored but not visible until its checkpoint is complete |
//! | [`batch`] | how a run of records becomes the blob of a row, and back without copying |
//! | [`retention`] | deleting old batches by age and size |
//! | [`watch`] | waiting for new records without using the processor |
//! | [`key`] | key → partition, as Kafka does it |
//!
//! ```
//! use tidemill_topic::{NewRecord, ReadOutcome, TopicConfig, Topics};
//! # fn main() -> tidemill_core::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let topics = Topics::open(folder.path())?;
//! topics.create("orders", &TopicConfig { partitions: 4, ..TopicConfig::default() })?;
//! let orders = topics.open_topic("orders")?;
//! let partition = orders.partition_for(b"customer-7");
//! let now_ms = 1_000;
//! let record = NewRecord { partition, timestamp_ms: now_ms, key: Some(b"customer-7"), value: b"{}" };
//! orders.append(&[record], Some("request-1"), now_ms)?;
//! if let ReadOutcome::Batches(batches) = orders.read(partition, 0, 1 << 20)? {
//!     for record in batches.iter().flat_map(|batch| batch.iter()) {
//!         assert_eq!((record.offset, record.value), (0, b"{}".as_slice()));
//!     }
//! }
//! # Ok(()) }
//! ```

mod append;
pub mod batch;
mod database;
mod group;
mod idempotency;
pub mod key;
mod partition;
pub mod retention;
pub mod staging;
pub mod topic;
pub mod topics;
pub mod watch;

pub use batch::{Record, RecordBatch};
pub use key::partition_for;
pub use staging::StageId;
pub use topic::{Appended, NewRecord, ReadOutcome, Topic};
pub use topics::{TopicConfig, TopicInfo, Topics};
pub use watch::{Watch, WatchWaker};
