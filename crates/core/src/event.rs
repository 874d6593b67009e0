//! Event time in numbers, what a value on a stream must be able to do, and records that could not be read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The timestamp of a record nobody gave one (Flink's `Long.MIN_VALUE`).
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// The watermark before any progress is known.
pub const WATERMARK_MIN: i64 = i64::MIN;

/// The watermark after which nothing comes: the end of bounded input.
pub const WATERMARK_MAX: i64 = i64::MAX;

/// A value that may travel on a stream: it can be copied to several readers, sent to another worker thread, and
/// written as bytes to another process or into state.
pub trait Data: Clone + Send + Serialize + DeserializeOwned + 'static {}
impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Data for T {}

/// A record that could not be read: where it stood, why it was refused, and its bytes (cut at [`DeadLetter::PAYLOAD_MAX`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The source's name, for example ``topic `orders` ``.
    pub source: String,
    /// The position in the source, for example `partition 2 offset 1017` or `orders.csv line 12`.
    pub position: String,
    /// Why it was refused, in words.
    pub reason: String,
    /// The bytes, as text with invalid UTF-8 replaced, cut at [`DeadLetter::PAYLOAD_MAX`] bytes.
    pub payload: String,
}

impl DeadLetter {
    /// The longest payload kept, in bytes.
    pub const PAYLOAD_MAX: usize = 4096;

    /// A dead letter from the raw bytes of a record.
    pub fn new(
        source: impl Into<String>,
        position: impl Into<String>,
        reason: impl Into<String>,
        payload: &[u8],
    ) -> Self {
        let kept = &payload[..payload.len().min(Self::PAYLOAD_MAX)];
        DeadLetter {
            source: source.into(),
            position: position.into(),
            reason: reason.into(),
            payload: String::from_utf8_lossy(kept).into_owned(),
        }
    }
}
