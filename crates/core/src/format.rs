//! Formats turn the bytes of one record into a value and back. A format knows no connector and a connector no format.

/// Reads one record's bytes. Cloned once per reader, so it may keep scratch space.
pub trait Decode: Clone + Send + Sync + 'static {
    /// What a record becomes.
    type Value;

    /// The value in `bytes`, or the reason, in words, why there is none.
    fn decode(&mut self, bytes: &[u8]) -> Result<Self::Value, String>;
}

/// Writes one record's bytes.
pub trait Encode<T>: Clone + Send + Sync + 'static {
    /// Appends the record's bytes to `out`, without a separator behind it.
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String>;
}
