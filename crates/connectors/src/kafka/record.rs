//! A record of Kafka as formats see it: key, value, headers and where it stood.

use tidemill_core::format::Decode;

pub use super::records::KafkaHeaders;

/// A record with everything Kafka knows of it.
#[derive(Debug, Clone, Copy)]
pub struct KafkaRecord<'a> {
    /// The topic it was read from.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp, epoch ms.
    pub timestamp_ms: i64,
    /// Whether the timestamp is the broker's; otherwise it is the writer's.
    pub is_log_append_time: bool,
    /// The epoch of the leader that took it.
    pub leader_epoch: i32,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; a record without one deletes its key.
    pub value: Option<&'a [u8]>,
    /// Its headers; each time they are asked for they are taken apart.
    pub headers: KafkaHeaders<'a>,
}

/// Turns a record into a value. Cloned once per reader, so it may keep scratch space.
pub trait KafkaDecode: Clone + Send + Sync + 'static {
    /// What a record becomes.
    type Value;

    /// The record's value, or the reason, in words, why there is none; such a record goes to the dead letters.
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<Self::Value, String>;
}

/// The values alone, in a format. A record without a value is refused.
#[derive(Debug, Clone)]
pub struct Values<D>(pub D);

impl<D: Decode> KafkaDecode for Values<D> {
    type Value = D::Value;

    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<D::Value, String> {
        self.0.decode(record.value.ok_or("a record without a value (it deletes its key)")?)
    }
}

/// Keys and values, each in a format of its own; what a record does not have is `None`.
#[derive(Debug, Clone)]
pub struct KeysAndValues<K, V> {
    /// Of the keys.
    pub key: K,
    /// Of the values.
    pub value: V,
}

impl<K: Decode, V: Decode> KafkaDecode for KeysAndValues<K, V> {
    type Value = (Option<K::Value>, Option<V::Value>);

    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<Self::Value, String> {
        let key = record.key.map(|key| self.key.decode(key)).transpose().map_err(|reason| format!("key: {reason}"))?;
        let value = record.value.map(|value| self.value.decode(value)).transpose();
        Ok((key, value.map_err(|reason| format!("value: {reason}"))?))
    }
}

/// Whatever a function makes of a record.
#[derive(Clone)]
pub struct FromRecord<F>(pub F);

impl<F, T> KafkaDecode for FromRecord<F>
where
    F: Fn(&KafkaRecord<'_>) -> Result<T, String> + Clone + Send + Sync + 'static,
{
    type Value = T;

    #[inline]
    fn decode(&mut self, record: &KafkaRecord<'_>) -> Result<T, String> {
        (self.0)(record)
    }
}
