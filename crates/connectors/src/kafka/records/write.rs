//! Batches on their way out.

use bytes::Bytes;

use super::compression::KafkaCompression;
use super::{MAGIC, attribute, place, varint};
use crate::kafka::client::Producer;

/// The bytes of a batch without its records.
pub const BATCH_OVERHEAD: usize = place::RECORDS;

/// The most bytes a record can take besides its key, value and headers: five lengths and two numbers.
const RECORD_OVERHEAD_MAX: usize = 40;

/// The most bytes a record of this key, value and headers can take in a batch.
pub fn record_size_max(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(String, Vec<u8>)]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 20).sum();
    RECORD_OVERHEAD_MAX + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    /// An empty batch with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> BatchBuilder {
        let mut buffer = Vec::with_capacity(bytes.max(BATCH_OVERHEAD));
        buffer.resize(BATCH_OVERHEAD, 0);
        BatchBuilder { bytes: buffer, count: 0, base_timestamp_ms: 0, max_timestamp_ms: i64::MIN }
    }

    /// Its bytes so far, not packed.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Its records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Adds a record.
    #[inline]
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(String, Vec<u8>)]) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let timestamp_delta = timestamp_ms - self.base_timestamp_ms;
        let offset_delta = i64::from(self.count);
        let of_headers = |(name, value): &(String, Vec<u8>)| {
            varint::size_bytes(Some(name.as_bytes())) + varint::size_bytes(Some(value))
        };
        let length = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + varint::size_bytes(key)
            + varint::size_bytes(value)
            + varint::size(headers.len() as i64)
            + headers.iter().map(of_headers).sum::<usize>();
        let out = &mut self.bytes;
        varint::put(length as i64, out);
        out.push(0);
        varint::put(timestamp_delta, out);
        varint::put(offset_delta, out);
        varint::put_bytes(key, out);
        varint::put_bytes(value, out);
        varint::put(headers.len() as i64, out);
        for (name, value) in headers {
            varint::put_bytes(Some(name.as_bytes()), out);
            varint::put_bytes(Some(value), out);
        }
        self.count += 1;
    }

    /// The batch as a broker takes it. `sequence` is the number of its first record among all its producer has written
    /// into the partition.
    pub fn finish(
        mut self,
        producer: Producer,
        sequence: i32,
        transactional: bool,
        compression: KafkaCompression,
    ) -> Result<Bytes, String> {
        if compression != KafkaCompression::None {
            let mut packed = Vec::with_capacity(self.bytes.len() / 2);
            packed.extend_from_slice(&self.bytes[..BATCH_OVERHEAD]);
            compression.pack(&self.bytes[BATCH_OVERHEAD..], &mut packed)?;
            self.bytes = packed;
        }
        let mut attributes = compression.bits();
        if transactional {
            attributes |= attribute::TRANSACTIONAL;
        }
        let length = self.bytes.len() - place::LENGTH - 4;
        let length = i32::try_from(length).map_err(|_| format!("a batch of {length} bytes"))?;
        let mut put = |at: usize, bytes: &[u8]| self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        put(place::LENGTH, &length.to_be_bytes());
        // The epoch of the leader is the broker's to fill in.
        put(12, &(-1i32).to_be_bytes());
        put(place::MAGIC, &[MAGIC]);
        put(place::ATTRIBUTES, &attributes.to_be_bytes());
        put(place::LAST_OFFSET_DELTA, &(self.count - 1).to_be_bytes());
        put(place::BASE_TIMESTAMP, &self.base_timestamp_ms.to_be_bytes());
        put(place::MAX_TIMESTAMP, &self.max_timestamp_ms.to_be_bytes());
        put(place::PRODUCER_ID, &producer.id.to_be_bytes());
        put(place::PRODUCER_EPOCH, &producer.epoch.to_be_bytes());
        put(place::BASE_SEQUENCE, &sequence.to_be_bytes());
        put(place::COUNT, &self.count.to_be_bytes());
        let sum = crc32c::crc32c(&self.bytes[place::ATTRIBUTES..]);
        self.bytes[place::CRC..place::ATTRIBUTES].copy_from_slice(&sum.to_be_bytes());
        Ok(Bytes::from(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batches, RawRecord};
    use super::*;

    const PRODUCER: Producer = Producer { id: 7, epoch: 3 };

    fn batch(compression: KafkaCompression) -> Bytes {
        let mut builder = BatchBuilder::with_capacity(0);
        builder.push(1_000, Some(b"key"), Some(b"value"), &[]);
        builder.push(900, None, None, &[("name".into(), b"header".to_vec()), ("name".into(), Vec::new())]);
        assert_eq!(builder.count(), 2);
        builder.finish(PRODUCER, 5, true, compression).expect("finishes")
    }

    #[test]
    fn what_is_written_is_read() {
        for compression in [KafkaCompression::None, KafkaCompression::Lz4] {
            let bytes = batch(compression);
            let two: Bytes = [&bytes[..], &bytes[..], &bytes[..20]].concat().into();
            let batches: Vec<_> = Batches::new(two).collect::<Result<_, _>>().expect("reads");
            assert_eq!(batches.len(), 2, "and the one cut off is left out");
            let header = batches[0].header;
            assert!(header.is_transactional() && !header.is_control() && !header.is_log_append_time());
            assert_eq!((header.last_offset, header.count, header.producer_id), (1, 2, 7));
            assert_eq!((header.base_timestamp_ms, header.max_timestamp_ms), (1_000, 1_000));
            let mut scratch = Vec::new();
            let mut rest = batches[1].records(&mut scratch).expect("unpacks");
            let first = RawRecord::take(&mut rest).expect("a record");
            assert_eq!((first.key, first.value, first.headers.count()), (Some(&b"key"[..]), Some(&b"value"[..]), 0));
            let second = RawRecord::take(&mut rest).expect("a record");
            assert_eq!((second.offset_delta, second.timestamp_delta, second.key, second.value), (1, -100, None, None));
            assert_eq!(second.headers.last("name"), Some(Some(&b""[..])));
            assert_eq!(second.headers.last("other"), None);
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn damage_is_told() {
        let good = batch(KafkaCompression::None);
        let damaged = |at: usize| {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1;
            Batches::new(bytes.into()).next()
        };
        for at in [place::ATTRIBUTES, place::RECORDS, good.len() - 1, place::CRC] {
            let reason = damaged(at).expect("a batch").err().expect("damaged");
            assert!(reason.contains("checksum"), "{reason}");
        }
        let old = damaged(place::MAGIC).expect("a batch").err().expect("another format");
        assert_eq!(old, "a batch of format 3, from before Kafka 0.11");
        assert_eq!(RawRecord::take(&mut &[200, 1, 0][..]), None);
    }
}
