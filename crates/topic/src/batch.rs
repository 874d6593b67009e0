//! A batch of records of one partition as one blob: small records cost a few bytes each, and reading them back needs
//! no allocation per record.

use std::sync::Arc;

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
    base_offset: u64,
    count: u32,
}

impl RecordBatch {
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

    /// The records in order.
    pub fn iter(&self) -> Records<'_> {
        Records { rest: &self.blob }
    }
}

/// Iterates over the records of a batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let _ = self.rest;
        None
    }
}
