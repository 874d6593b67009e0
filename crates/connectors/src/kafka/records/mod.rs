//! Kafka's record batches (format 2) as bytes: reading them without copying, and writing them.

mod compression;
mod read;
mod varint;
mod write;

pub use compression::KafkaCompression;
pub use read::{Batch, Batches, KafkaHeaders, RawRecord};
pub use write::{BATCH_OVERHEAD, BatchBuilder, record_size_max};

/// Where things stand in the header of a batch.
mod place {
    pub const LENGTH: usize = 8;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// Bits of a batch's attributes.
mod attribute {
    pub const COMPRESSION: i16 = 0x07;
    pub const LOG_APPEND_TIME: i16 = 0x08;
    pub const TRANSACTIONAL: i16 = 0x10;
    pub const CONTROL: i16 = 0x20;
}

/// The only format written since Kafka 0.11.
const MAGIC: u8 = 2;
