//! The container on an exchanged edge: records with their event times, the subtask they come from and the worker they go to.

use std::cell::OnceCell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::Data;
use timely::bytes::arc::Bytes;
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;

use super::codec::{Decoder, Encoder};

/// Records with their event times in epoch milliseconds, in arrival order.
///
/// Hot loops take them by `try_for_each`, not by `for`: that asks for an `Option` of a record, whose tag may stand in a byte of
/// the record itself, and copying what is around that byte costs more than most operators do.
pub type Records<T> = Vec<(i64, T)>;

/// How many records travel together. Large enough to spread the cost of a message, small enough to stay in cache.
pub const BATCH_ROWS: usize = 1024;

/// So many travel together to another process, where each message wakes three threads.
pub(super) const FAR_BATCH_ROWS: usize = 8 * BATCH_ROWS;

/// Records that travel together have about so many bytes at most, or are a single one.
pub(super) const BATCH_BYTES: usize = 512 << 10;

/// About how many bytes a row has, over the last batches.
#[derive(Default)]
pub(crate) struct RowBytes(usize);

impl RowBytes {
    /// Takes in what was found for one batch, 0 when nothing was; tells what it has come to.
    pub fn note(&mut self, found: usize) -> usize {
        self.0 = match (self.0, found) {
            (held, 0) => held,
            (0, found) => found,
            (held, found) => (7 * held).saturating_add(found).div_ceil(8),
        };
        self.0
    }

    /// How many rows travel together of `most`.
    pub fn rows_together(&self, most: usize) -> usize {
        (BATCH_BYTES / self.0.max(1)).clamp(1, most)
    }
}

/// The sending end of a channel from one subtask to another.
pub(crate) struct Channel<T> {
    encoder: Mutex<Box<dyn Encoder<T>>>,
    /// Whether a message has gone to another process.
    is_far: AtomicBool,
}

impl<T> Channel<T> {
    pub fn new(encoder: Box<dyn Encoder<T>>) -> Self {
        Channel { encoder: Mutex::new(encoder), is_far: AtomicBool::new(false) }
    }

    /// How many rows travel together at most.
    pub fn batch_rows(&self) -> usize {
        if self.is_far.load(Ordering::Relaxed) { FAR_BATCH_ROWS } else { BATCH_ROWS }
    }

    fn encode(&self, records: &Records<T>) -> Result<Vec<u8>, String> {
        self.is_far.store(true, Ordering::Relaxed);
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(records)
    }
}

/// A batch on its way between workers.
#[derive(Clone)]
pub struct Rows<T> {
    body: Body<T>,
    pub(crate) from: u32,
    pub(crate) to: u32,
    rows: u32,
}

#[derive(Clone)]
enum Body<T> {
    /// Within a process. To another one it goes through its channel, when timely asks for its length and then its bytes.
    Records { records: Records<T>, channel: Option<Arc<Channel<T>>>, encoded: OnceCell<Encoded> },
    /// From another process, still as bytes: the receiving port has the other end of the channel.
    Wire(Bytes),
    /// Why a batch from another process could not be read: the job fails with it.
    Damaged(String),
}

#[derive(Clone)]
struct Encoded {
    kind: u32,
    body: Vec<u8>,
}

impl<T> Rows<T> {
    /// `records` of so many `rows`, to be written by `channel` if they leave the process.
    pub(crate) fn new(records: Records<T>, rows: usize, (from, to): (u32, u32), channel: Arc<Channel<T>>) -> Self {
        let body = Body::Records { records, channel: Some(channel), encoded: OnceCell::new() };
        Rows { body, from, to, rows: rows as u32 }
    }

    fn damaged(why: impl Into<String>) -> Self {
        Rows { body: Body::Damaged(why.into()), from: 0, to: 0, rows: 0 }
    }

    /// The rows inside.
    pub(crate) fn count(&self) -> usize {
        self.rows as usize
    }

    /// The records, read by the receiving end of the channel if they came over the wire.
    pub(crate) fn open(self, decoder: &mut dyn Decoder<T>) -> Result<Records<T>, String> {
        match self.body {
            Body::Records { records, .. } => Ok(records),
            Body::Wire(bytes) => decoder.decode(&bytes),
            Body::Damaged(why) => Err(why),
        }
    }
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        let body = Body::Records { records: Vec::new(), channel: None, encoded: OnceCell::new() };
        Rows { body, from: 0, to: 0, rows: 0 }
    }
}

impl<T> Accountable for Rows<T> {
    fn record_count(&self) -> i64 {
        i64::from(self.rows)
    }
}

const HEADER_BYTES: usize = 24;

/// The body holds records.
const RECORDS: u32 = 0;
/// The body says why there are none: the sender could not write them.
const UNWRITTEN: u32 = 1;

/// A body is shorter than this, so that its length has room in the header and in timely's message.
const BODY_BYTES_MAX: usize = 512 << 20;

impl<T: Data> Rows<T> {
    fn encoded(&self) -> &Encoded {
        static NOTHING: Encoded = Encoded { kind: UNWRITTEN, body: Vec::new() };
        let Body::Records { records, channel: Some(channel), encoded } = &self.body else { return &NOTHING };
        encoded.get_or_init(|| match channel.encode(records) {
            Ok(body) if body.len() <= BODY_BYTES_MAX => Encoded { kind: RECORDS, body },
            Ok(body) => unwritten(format!("a batch has {} bytes; at most {BODY_BYTES_MAX} are sent", body.len())),
            Err(why) => unwritten(why),
        })
    }

    fn receive(mut bytes: Bytes) -> Result<Self, String> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or("a batch without a header")?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (from, to, length, kind, rows) = (word(0), word(4), word(8) as usize, word(12), word(16));
        if bytes.len() - HEADER_BYTES < length {
            return Err("a batch is shorter than it says".into());
        }
        drop(bytes.extract_to(HEADER_BYTES));
        let body = bytes.extract_to(length);
        match kind {
            RECORDS => Ok(Rows { body: Body::Wire(body), from, to, rows }),
            _ => Err(String::from_utf8_lossy(&body).into_owned()),
        }
    }
}

fn unwritten(why: String) -> Encoded {
    Encoded { kind: UNWRITTEN, body: why.into_bytes() }
}

/// Between processes: from, to, length of the body, kind, rows, nothing, body, padding to eight bytes. Nothing that comes
/// in panics.
impl<T: Data> ContainerBytes for Rows<T> {
    fn from_bytes(bytes: Bytes) -> Self {
        Rows::receive(bytes).unwrap_or_else(Rows::damaged)
    }

    fn length_in_bytes(&self) -> usize {
        HEADER_BYTES + self.encoded().body.len().next_multiple_of(8)
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let Encoded { kind, body } = self.encoded();
        let mut header = [0u8; HEADER_BYTES];
        header[0..4].copy_from_slice(&self.from.to_le_bytes());
        header[4..8].copy_from_slice(&self.to.to_le_bytes());
        header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&kind.to_le_bytes());
        header[16..20].copy_from_slice(&self.rows.to_le_bytes());
        let padding = body.len().next_multiple_of(8) - body.len();
        writer
            .write_all(&header)
            .and_then(|()| writer.write_all(body))
            .and_then(|()| writer.write_all(&[0u8; 8][..padding]))
            .expect("timely hands out a buffer of the length asked for");
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::codec;
    use super::*;
    use timely::bytes::arc::BytesMut;

    fn written<T: Data>(records: Records<T>) -> Vec<u8> {
        let channel = Arc::new(Channel::new(codec::<T>().encoder()));
        let rows = Rows::new(records, 2, (3, 1), channel);
        let mut bytes = Vec::new();
        rows.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), rows.length_in_bytes());
        bytes
    }

    fn read<T: Data>(bytes: Vec<u8>) -> Rows<T> {
        Rows::from_bytes(BytesMut::from(bytes).freeze())
    }

    fn opened<T: Data>(rows: Rows<T>) -> Result<Records<T>, String> {
        rows.open(codec::<T>().decoder().as_mut())
    }

    #[test]
    fn a_batch_survives_the_wire() {
        let records = vec![(5, "五".to_string()), (-7, String::new())];
        let back: Rows<String> = read(written(records.clone()));
        assert_eq!((back.from, back.to, back.count()), (3, 1, 2));
        assert_eq!(opened(back), Ok(records));
    }

    #[test]
    fn more_rows_travel_together_to_another_process_as_far_as_their_bytes_allow() {
        let channel = Arc::new(Channel::new(codec::<u64>().encoder()));
        assert_eq!(channel.batch_rows(), BATCH_ROWS);
        Rows::new(vec![(1, 2u64)], 1, (3, 1), channel.clone()).length_in_bytes();
        assert_eq!(channel.batch_rows(), FAR_BATCH_ROWS);

        let mut row_bytes = RowBytes::default();
        assert_eq!((row_bytes.note(0), row_bytes.rows_together(FAR_BATCH_ROWS)), (0, FAR_BATCH_ROWS));
        assert_eq!((row_bytes.note(1024), row_bytes.rows_together(FAR_BATCH_ROWS)), (1024, BATCH_BYTES / 1024));
        // Large rows among small ones count by their share, and are forgotten again.
        assert_eq!(row_bytes.note(1024 + 8 * 1024), 2 * 1024);
        assert!((0..100).map(|_| row_bytes.note(8)).last().unwrap() < 16);
        row_bytes.note(usize::MAX);
        assert_eq!(row_bytes.rows_together(BATCH_ROWS), 1);
    }

    #[test]
    fn bytes_that_are_no_batch_are_damage_and_not_a_panic() {
        let good = written(vec![(1, "one".to_string())]);
        for cut in 0..good.len() - 4 {
            assert!(opened::<String>(read(good[..cut].to_vec())).is_err(), "{cut}");
        }
        for at in 8..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            let opened = opened::<String>(read(bytes));
            assert!(opened.is_err() || opened.is_ok_and(|records| records.len() == 1), "{at}");
        }
    }

    #[test]
    fn records_that_cannot_be_serialised_tell_so_at_the_receiver() {
        #[derive(Clone, Debug)]
        struct Odd;
        impl serde::Serialize for Odd {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("odd"))
            }
        }
        impl<'de> serde::Deserialize<'de> for Odd {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Ok(Odd)
            }
        }
        let back: Rows<Odd> = read(written(vec![(1, Odd)]));
        assert!(opened(back).unwrap_err().contains("cannot be serialised"));
    }
}
