//! Apache Kafka as source and sink: positions in checkpoints, transactions for exactly-once.
//!
//! * [`KafkaSource`]: topics by name, pattern or partition; from where to where; one split a partition.
//! * [`KafkaSink`]: a transaction an epoch and subtask, committed by tokens that stand in the checkpoint.
//! * [`KafkaSecurity`]: TLS and logins.
//! * `client`, `records`: the small client both stand on (docs/adr/0005).

mod client;
mod commit;
mod deliver;
mod fetch;
mod partitioner;
mod reader;
mod record;
mod records;
mod security;
mod sink;
mod source;
mod start;

pub use partitioner::{ChoosePartition, KafkaPartitioner};
pub use record::{FromRecord, KafkaDecode, KafkaHeaders, KafkaRecord, KeysAndValues, Values};
pub use records::KafkaCompression;
pub use security::{KafkaMechanism, KafkaPassword, KafkaSecurity, KafkaTls};
pub use sink::{KafkaDelivery, KafkaHeaderList, KafkaSink};
pub use source::KafkaSource;
pub use start::{KafkaOffsets, KafkaReset, KafkaStart, KafkaStop};
