//! A batch of records of one partition as one blob: small records cost a few bytes each, and reading them back needs
//! no allocation per record.
//!
//! ```text
//! version u8 = 1 │ crc32 of all that follows, u32 LE │ count u32 LE │ records …
//! record: timestamp minus the previous one's (the first: minus 0), zigzag varint
//!         │ key length + 1, or 0 for no key, varint │ value length, varint │ key │ value
//! ```
//!
//! The blob does not know its offsets: staged batches get theirs when they are committed, without being written anew.

use std::sync::Arc;

use tidemill_core::{Error, Result};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;

/// One record of a [`RecordBatch`], borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its timestamp, epoch ms, as it was given.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

/// Records of one partition with consecutive offsets. Cheap to clone: clones share the bytes.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    blob: Arc<[u8]>,
    /// Where the first record begins in `blob`, and the timestamp of the one before it.
    begin: usize,
    previous_timestamp_ms: i64,
    base_offset: u64,
    count: u32,
}

impl RecordBatch {
    /// Checks a stored blob against its checksum and the count of its row.
    pub(crate) fn decode(blob: &[u8], base_offset: u64, count: u32) -> Result<RecordBatch> {
        let damaged = |what: &str| Error::corrupt(format!("batch at offset {base_offset}: {what}"));
        let Some((header, records)) = blob.split_at_checked(HEADER_BYTES) else {
            return Err(damaged("cut off in its header"));
        };
        if header[0] != VERSION {
            return Err(damaged(&format!("unknown version {}", header[0])));
        }
        let stored_crc = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        if crc32fast::hash(&blob[5..]) != stored_crc {
            return Err(damaged("checksum does not match"));
        }
        let stored_count = u32::from_le_bytes([header[5], header[6], header[7], header[8]]);
        if stored_count != count || count == 0 || (count as usize) > records.len() {
            return Err(damaged("record count does not match its row"));
        }
        Ok(RecordBatch { blob: Arc::from(blob), begin: HEADER_BYTES, previous_timestamp_ms: 0, base_offset, count })
    }

    /// The offset of the first record.
    pub fn base_offset(&self) -> u64 {
        self.base_offset
    }

    /// How many records; at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The offset behind the last record: where to read on.
    pub fn next_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// The bytes the batch holds in memory.
    pub fn bytes(&self) -> usize {
        self.blob.len()
    }

    /// The records in order.
    pub fn iter(&self) -> Records<'_> {
        Records {
            rest: &self.blob[self.begin..],
            offset: self.base_offset,
            timestamp_ms: self.previous_timestamp_ms,
            left: self.count,
        }
    }

    /// The same batch without its first `skipped` records; used to begin, or go on, in its middle.
    pub fn skip(&self, skipped: u32) -> RecordBatch {
        let skipped = skipped.min(self.count);
        let mut records = self.iter();
        for _ in 0..skipped {
            records.next();
        }
        RecordBatch {
            blob: Arc::clone(&self.blob),
            begin: self.blob.len() - records.rest.len(),
            previous_timestamp_ms: records.timestamp_ms,
            base_offset: self.base_offset + u64::from(skipped),
            count: self.count - skipped,
        }
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Iterates over the records of a batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    offset: u64,
    timestamp_ms: i64,
    left: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        // The checksum was right, so a record that does not parse cannot be; ending early is better than a panic.
        let timestamp_delta = unzigzag(read_varint(&mut self.rest)?);
        let key_len_plus_1 = usize::try_from(read_varint(&mut self.rest)?).ok()?;
        let value_len = usize::try_from(read_varint(&mut self.rest)?).ok()?;
        let (key, rest) = self.rest.split_at_checked(key_len_plus_1.saturating_sub(1))?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        self.rest = rest;
        self.left -= 1;
        self.timestamp_ms = self.timestamp_ms.wrapping_add(timestamp_delta);
        let offset = self.offset;
        self.offset += 1;
        Some(Record { offset, timestamp_ms: self.timestamp_ms, key: (key_len_plus_1 > 0).then_some(key), value })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// A finished blob with what its row says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedBatch {
    pub blob: Vec<u8>,
    pub count: u32,
    pub min_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
}

/// Collects records into a blob.
pub(crate) struct BatchBuilder {
    blob: Vec<u8>,
    count: u32,
    previous_timestamp_ms: i64,
    min_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    pub fn new() -> Self {
        BatchBuilder {
            blob: vec![0; HEADER_BYTES],
            count: 0,
            previous_timestamp_ms: 0,
            min_timestamp_ms: i64::MAX,
            max_timestamp_ms: i64::MIN,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.blob.len()
    }

    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: &[u8]) {
        write_varint(&mut self.blob, zigzag(timestamp_ms.wrapping_sub(self.previous_timestamp_ms)));
        write_varint(&mut self.blob, key.map_or(0, |key| key.len() as u64 + 1));
        write_varint(&mut self.blob, value.len() as u64);
        self.blob.extend_from_slice(key.unwrap_or_default());
        self.blob.extend_from_slice(value);
        self.count += 1;
        self.previous_timestamp_ms = timestamp_ms;
        self.min_timestamp_ms = self.min_timestamp_ms.min(timestamp_ms);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
    }

    pub fn finish(mut self) -> EncodedBatch {
        self.blob[0] = VERSION;
        self.blob[5..9].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32fast::hash(&self.blob[5..]);
        self.blob[1..5].copy_from_slice(&crc.to_le_bytes());
        EncodedBatch {
            blob: self.blob,
            count: self.count,
            min_timestamp_ms: self.min_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::Kind;

    use super::*;

    type Plain = (i64, Option<Vec<u8>>, Vec<u8>);

    fn encode(records: &[Plain]) -> EncodedBatch {
        let mut builder = BatchBuilder::new();
        for (timestamp_ms, key, value) in records {
            builder.push(*timestamp_ms, key.as_deref(), value);
        }
        builder.finish()
    }

    fn sample() -> Vec<Plain> {
        vec![
            (1_700_000_000_000, Some(b"k".to_vec()), b"value".to_vec()),
            (i64::MIN, None, Vec::new()),
            (i64::MAX, Some(Vec::new()), vec![7; 300]),
            (-5, None, b"x".to_vec()),
        ]
    }

    #[test]
    fn records_come_back_as_they_were() {
        let records = sample();
        let encoded = encode(&records);
        assert_eq!((encoded.min_timestamp_ms, encoded.max_timestamp_ms), (i64::MIN, i64::MAX));
        let batch = RecordBatch::decode(&encoded.blob, 40, encoded.count).expect("decodes");
        for skipped in 0..=records.len() {
            let rest = batch.skip(skipped as u32);
            let read: Vec<Plain> =
                rest.iter().map(|r| (r.timestamp_ms, r.key.map(<[u8]>::to_vec), r.value.to_vec())).collect();
            assert_eq!(read, records[skipped..]);
            let offsets: Vec<u64> = rest.iter().map(|r| r.offset).collect();
            assert_eq!(offsets, (40 + skipped as u64..44).collect::<Vec<_>>());
            assert_eq!((rest.base_offset(), rest.next_offset()), (40 + skipped as u64, 44));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let encoded = encode(&sample());
        for bit in 0..encoded.blob.len() * 8 {
            let mut blob = encoded.blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            let error = RecordBatch::decode(&blob, 0, encoded.count).expect_err("damaged");
            assert_eq!(error.kind(), Kind::Corrupt);
        }
        for len in 0..encoded.blob.len() {
            assert!(RecordBatch::decode(&encoded.blob[..len], 0, encoded.count).is_err());
        }
        assert!(RecordBatch::decode(&encoded.blob, 0, encoded.count + 1).is_err());
    }
}
