//! The container on an exchanged edge: records with their event times, the worker they come from and the one they go to.

use std::cell::OnceCell;
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
    /// Why a batch from another process could not be read: the job fails with it.
    pub(crate) damage: Option<String>,
    /// The body on the wire. timely asks for its length before it asks for its bytes.
    encoded: OnceCell<Encoded>,
}

#[derive(Clone)]
struct Encoded {
    kind: u32,
    body: Vec<u8>,
}

impl<T> Rows<T> {
    pub(crate) fn new(records: Records<T>, from: u32, to: u32) -> Self {
        Rows { records, from, to, damage: None, encoded: OnceCell::new() }
    }
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows::new(Vec::new(), 0, 0)
    }
}

impl<T> Accountable for Rows<T> {
    fn record_count(&self) -> i64 {
        self.records.len() as i64
    }
}

const HEADER_BYTES: usize = 16;

/// The body holds records.
const RECORDS: u32 = 0;
/// The body says why there are none: the sender could not write them.
const UNWRITTEN: u32 = 1;

/// A body is shorter than this, so that its length has room in the header and in timely's message.
const BODY_BYTES_MAX: usize = 512 << 20;

impl<T: Data> Rows<T> {
    fn encoded(&self) -> &Encoded {
        self.encoded.get_or_init(|| match postcard::to_stdvec(&self.records) {
            Ok(body) if body.len() <= BODY_BYTES_MAX => Encoded { kind: RECORDS, body },
            Ok(body) => unwritten(format!("a batch has {} bytes; at most {BODY_BYTES_MAX} are sent", body.len())),
            Err(e) => unwritten(format!("records of an edge cannot be serialised: {e}")),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or("a batch without a header")?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (from, to, length, kind) = (word(0), word(4), word(8) as usize, word(12));
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES + length).ok_or("a batch is shorter than it says")?;
        match kind {
            RECORDS => postcard::from_bytes(body)
                .map(|records| Rows::new(records, from, to))
                .map_err(|e| format!("a batch cannot be read: {e}")),
            _ => Err(String::from_utf8_lossy(body).into_owned()),
        }
    }
}

fn unwritten(why: String) -> Encoded {
    Encoded { kind: UNWRITTEN, body: why.into_bytes() }
}

/// Between processes: from, to, length of the body, kind, body, padding to eight bytes. Nothing that comes in panics.
impl<T: Data> ContainerBytes for Rows<T> {
    fn from_bytes(bytes: Bytes) -> Self {
        Rows::decode(&bytes).unwrap_or_else(|damage| Rows { damage: Some(damage), ..Rows::default() })
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
    use super::*;
    use timely::bytes::arc::BytesMut;

    #[test]
    fn a_batch_survives_the_wire() {
        let rows = Rows::new(vec![(5, "五".to_string()), (-7, String::new())], 3, 1);
        let mut bytes = Vec::new();
        rows.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), rows.length_in_bytes());
        let back: Rows<String> = Rows::from_bytes(BytesMut::from(bytes).freeze());
        assert_eq!((back.records, back.from, back.to), (rows.records, 3, 1));
    }

    #[test]
    fn bytes_that_are_no_batch_are_damage_and_not_a_panic() {
        let good = {
            let mut bytes = Vec::new();
            Rows::new(vec![(1, "one".to_string())], 0, 1).into_bytes(&mut bytes);
            bytes
        };
        let read = |bytes: Vec<u8>| -> Rows<String> { Rows::from_bytes(BytesMut::from(bytes).freeze()) };
        assert!(read(good.clone()).damage.is_none());
        for cut in 0..good.len() - 4 {
            assert!(read(good[..cut].to_vec()).damage.is_some(), "{cut}");
        }
        for at in 8..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            let rows = read(bytes);
            assert!(rows.damage.is_some() || rows.records.len() == 1, "{at}");
        }
    }

    #[test]
    fn records_that_cannot_be_serialised_tell_so_at_the_receiver() {
        #[derive(Clone)]
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
        let rows = Rows::new(vec![(1, Odd)], 0, 1);
        let mut bytes = Vec::new();
        rows.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), rows.length_in_bytes());
        let back: Rows<Odd> = Rows::from_bytes(BytesMut::from(bytes).freeze());
        assert!(back.damage.unwrap().contains("cannot be serialised"));
    }
}
