//! The container on an exchanged edge: records with their event times, the worker they come from and the one they go to.

use std::io::Write;

use tidemill_core::Data;
use timely::bytes::arc::Bytes;
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;

/// Records with their event times in epoch milliseconds, in arrival order.
pub type Records<T> = Vec<(i64, T)>;

/// How many records travel together. Large enough to spread the cost of a message, small enough to stay in cache.
pub const BATCH_ROWS: usize = 1024;

/// A batch on its way between workers.
#[derive(Clone)]
pub struct Rows<T> {
    pub(crate) records: Records<T>,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows { records: Vec::new(), from: 0, to: 0 }
    }
}

impl<T> Accountable for Rows<T> {
    fn record_count(&self) -> i64 {
        self.records.len() as i64
    }
}

/// Between processes: from, to, length of the body, body, padding to eight bytes.
impl<T: Data> ContainerBytes for Rows<T> {
    fn from_bytes(bytes: Bytes) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (from, to, length) = (word(0), word(4), word(8) as usize);
        let records = postcard::from_bytes(&bytes[16..16 + length])
            .expect("peers of one job run the same program, so a batch decodes as it was encoded");
        Rows { records, from, to }
    }

    fn length_in_bytes(&self) -> usize {
        let body = postcard::experimental::serialized_size(&self.records).unwrap_or(0);
        16 + body.next_multiple_of(8)
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let body = postcard::to_stdvec(&self.records).expect("records of a stream can be serialised");
        let mut header = [0u8; 16];
        header[0..4].copy_from_slice(&self.from.to_le_bytes());
        header[4..8].copy_from_slice(&self.to.to_le_bytes());
        header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let padding = body.len().next_multiple_of(8) - body.len();
        writer
            .write_all(&header)
            .and_then(|()| writer.write_all(&body))
            .and_then(|()| writer.write_all(&[0u8; 8][..padding]))
            .expect("timely hands out a buffer of the length asked for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timely::bytes::arc::BytesMut;

    #[test]
    fn a_batch_survives_the_wire() {
        let rows = Rows { records: vec![(5, "五".to_string()), (-7, String::new())], from: 3, to: 1 };
        let mut bytes = Vec::new();
        rows.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), rows.length_in_bytes());
        let back: Rows<String> = Rows::from_bytes(BytesMut::from(bytes).freeze());
        assert_eq!((back.records, back.from, back.to), (rows.records, 3, 1));
    }
}
