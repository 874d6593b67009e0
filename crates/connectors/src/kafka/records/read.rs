//! Batches as a fetch brings them: checked by their sum, unpacked, and taken apart record by record without copying.

use bytes::Bytes;

use super::compression::KafkaCompression;
use super::{MAGIC, attribute, place, varint};

/// The batches in the bytes of one partition. A last one that is cut off is left out: the next fetch brings it whole.
pub struct Batches {
    bytes: Bytes,
}

impl Batches {
    /// The batches in `bytes`.
    pub fn new(bytes: Bytes) -> Batches {
        Batches { bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.bytes.get(place::LENGTH..place::LENGTH + 4)?;
        let length = i32::from_be_bytes(length.try_into().ok()?);
        let Some(end) = usize::try_from(length).ok().and_then(|length| length.checked_add(place::LENGTH + 4)) else {
            self.bytes.clear();
            return Some(Err(format!("a batch of {length} bytes")));
        };
        if self.bytes.len() < end {
            return None;
        }
        Some(Batch::new(self.bytes.split_to(end)))
    }
}

/// What stands in front of the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record, also when compaction has removed it.
    pub last_offset: i64,
    /// The epoch of the leader that took it.
    pub leader_epoch: i32,
    /// The timestamp the records' own are counted from, epoch ms.
    pub base_timestamp_ms: i64,
    /// The largest timestamp, epoch ms.
    pub max_timestamp_ms: i64,
    /// Who wrote it; -1 for a producer without an id.
    pub producer_id: i64,
    /// How many records are left in it.
    pub count: i32,
    attributes: i16,
}

impl BatchHeader {
    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & attribute::TRANSACTIONAL != 0
    }

    /// Whether it holds a marker of a transaction's end instead of records.
    pub fn is_control(&self) -> bool {
        self.attributes & attribute::CONTROL != 0
    }

    /// Whether its timestamps are those of the broker.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & attribute::LOG_APPEND_TIME != 0
    }
}

/// One batch.
pub struct Batch {
    /// What stands in front.
    pub header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    fn new(bytes: Bytes) -> Result<Batch, String> {
        let magic = bytes.get(place::MAGIC).copied().ok_or("a batch that is too short")?;
        if magic != MAGIC {
            return Err(format!("a batch of format {magic}, from before Kafka 0.11"));
        }
        if bytes.len() < place::RECORDS {
            return Err("a batch that is too short".into());
        }
        let expected = u32::from_be_bytes(array(&bytes, place::CRC));
        let found = crc32c::crc32c(&bytes[place::ATTRIBUTES..]);
        if expected != found {
            return Err(format!("a batch whose checksum is {found:08x} instead of {expected:08x}"));
        }
        let base_offset = i64::from_be_bytes(array(&bytes, 0));
        let header = BatchHeader {
            base_offset,
            last_offset: base_offset + i64::from(i32::from_be_bytes(array(&bytes, place::LAST_OFFSET_DELTA))),
            leader_epoch: i32::from_be_bytes(array(&bytes, 12)),
            base_timestamp_ms: i64::from_be_bytes(array(&bytes, place::BASE_TIMESTAMP)),
            max_timestamp_ms: i64::from_be_bytes(array(&bytes, place::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(&bytes, place::PRODUCER_ID)),
            count: i32::from_be_bytes(array(&bytes, place::COUNT)),
            attributes: i16::from_be_bytes(array(&bytes, place::ATTRIBUTES)),
        };
        Ok(Batch { header, bytes })
    }

    /// The bytes of the records, unpacked into `scratch` where they are packed.
    pub fn records<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
        let bytes = &self.bytes[place::RECORDS..];
        let bits = self.header.attributes & attribute::COMPRESSION;
        match KafkaCompression::of_bits(bits) {
            Some(KafkaCompression::None) => Ok(bytes),
            Some(way) => match way.unpack(bytes, scratch) {
                Ok(()) => Ok(scratch),
                Err(reason) => Err(format!("a batch that cannot be unpacked ({way:?}): {reason}")),
            },
            None => Err(format!("a batch packed in an unknown way ({bits})")),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

/// A record in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Counted from the batch's first offset.
    pub offset_delta: i64,
    /// Counted from the batch's first timestamp.
    pub timestamp_delta: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; without one the record deletes its key.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: KafkaHeaders<'a>,
}

impl<'a> RawRecord<'a> {
    /// Takes a record from the front of `bytes`; `None` when it is damaged.
    #[inline]
    pub fn take(bytes: &mut &'a [u8]) -> Option<RawRecord<'a>> {
        let length = usize::try_from(varint::take(bytes)?).ok()?;
        let (mut inside, behind) = bytes.split_at_checked(length)?;
        *bytes = behind;
        let (_attributes, rest) = inside.split_first()?;
        inside = rest;
        let timestamp_delta = varint::take(&mut inside)?;
        let offset_delta = varint::take(&mut inside)?;
        let key = varint::take_bytes(&mut inside)?;
        let value = varint::take_bytes(&mut inside)?;
        let count = usize::try_from(varint::take(&mut inside)?).ok()?;
        Some(RawRecord {
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers: KafkaHeaders { bytes: inside, left: count },
        })
    }
}

/// The headers of a record, taken apart when they are asked for: each a name and perhaps a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KafkaHeaders<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> KafkaHeaders<'a> {
    /// The value of the last header of this name (`Some(None)`: it is there without a value).
    pub fn last(self, name: &str) -> Option<Option<&'a [u8]>> {
        self.filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }
}

impl<'a> Iterator for KafkaHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = varint::take_bytes(&mut self.bytes)??;
        let value = varint::take_bytes(&mut self.bytes)?;
        Some((name, value))
    }
}
