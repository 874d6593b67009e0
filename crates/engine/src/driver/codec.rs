//! How the records of an edge are counted, and how they are written between processes: values one by one in postcard's format,
//! column batches as an Arrow stream, whose schema goes once over a channel.

use std::any::Any;

use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamEncoder;
use arrow_schema::SchemaRef;
use tidemill_core::{ColumnBatch, Data};

use super::rows::{FAR_BATCH_ROWS, Records};
use crate::state::{Unreadable, Unwritable, decode, encode};

/// Both ends of a channel, for records of one type.
pub(crate) trait Codec<T>: 'static {
    /// What counts for credit and figures: the rows inside the records.
    fn rows(&self, records: &Records<T>) -> usize;
    /// About how many bytes one of the rows has, by a sample of the records. 0 when there are none.
    fn row_bytes(&self, records: &Records<T>) -> usize;
    /// The sending end of a channel from one subtask to another.
    fn encoder(&self) -> Box<dyn Encoder<T>>;
    /// The receiving end of such a channel.
    fn decoder(&self) -> Box<dyn Decoder<T>>;
}

/// Writes what one subtask sends to another, in order.
pub(crate) trait Encoder<T>: Send {
    fn encode(&mut self, records: &Records<T>) -> Result<Vec<u8>, String>;
}

/// Reads what an [`Encoder`] has written, in the same order.
pub(crate) trait Decoder<T> {
    fn decode(&mut self, body: &[u8]) -> Result<Records<T>, String>;
}

/// The codec of a type.
pub(crate) fn codec<T: Data>() -> &'static dyn Codec<T> {
    let columns: &'static dyn Codec<ColumnBatch> = &ArrowStream;
    // The one type that is a batch itself; all others are values.
    (&columns as &dyn Any).downcast_ref::<&'static dyn Codec<T>>().copied().unwrap_or(&Postcard { body_bytes: 0 })
}

/// Values one by one, each behind the difference of its time to the one before: times of a batch are close together.
#[derive(Default)]
struct Postcard {
    /// How long the last batch was.
    body_bytes: usize,
}

impl<T: Data> Codec<T> for Postcard {
    fn rows(&self, records: &Records<T>) -> usize {
        records.len()
    }

    fn row_bytes(&self, records: &Records<T>) -> usize {
        let Some((_, value)) = records.first() else { return 0 };
        let mut written = Vec::new();
        // What cannot be written is in the way only of who sends it to another process.
        let _ = encode(value, &mut written);
        written.len().max(size_of::<(i64, T)>())
    }

    fn encoder(&self) -> Box<dyn Encoder<T>> {
        Box::<Postcard>::default()
    }

    fn decoder(&self) -> Box<dyn Decoder<T>> {
        Box::<Postcard>::default()
    }
}

impl<T: Data> Encoder<T> for Postcard {
    fn encode(&mut self, records: &Records<T>) -> Result<Vec<u8>, String> {
        let failed = |e: Unwritable| format!("records of an edge cannot be serialised: {e}");
        let mut body = Vec::with_capacity(self.body_bytes + self.body_bytes / 8);
        encode(&records.len(), &mut body).map_err(failed)?;
        let mut before_ms = 0;
        for (timestamp_ms, value) in records {
            encode(&timestamp_ms.wrapping_sub(before_ms), &mut body).map_err(failed)?;
            encode(value, &mut body).map_err(failed)?;
            before_ms = *timestamp_ms;
        }
        self.body_bytes = body.len();
        Ok(body)
    }
}

impl<T: Data> Decoder<T> for Postcard {
    fn decode(&mut self, body: &[u8]) -> Result<Records<T>, String> {
        let failed = |e: Unreadable| format!("a batch cannot be read: {e}");
        let (count, mut rest) = decode::<usize>(body).map_err(failed)?;
        // A damaged count claims no more memory than an ordinary message.
        let mut records = Vec::with_capacity(count.min(2 * FAR_BATCH_ROWS));
        let mut timestamp_ms = 0i64;
        for _ in 0..count {
            let (difference_ms, behind) = decode::<i64>(rest).map_err(failed)?;
            timestamp_ms = timestamp_ms.wrapping_add(difference_ms);
            let (value, behind) = decode::<T>(behind).map_err(failed)?;
            records.push((timestamp_ms, value));
            rest = behind;
        }
        Ok(records)
    }
}

/// Column batches as an Arrow stream without end. Its schema, and dictionaries that have not changed, go over once; a
/// batch of another schema begins a new stream.
struct ArrowStream;

impl Codec<ColumnBatch> for ArrowStream {
    fn rows(&self, records: &Records<ColumnBatch>) -> usize {
        records.iter().map(|(_, batch)| batch.rows()).sum()
    }

    fn row_bytes(&self, records: &Records<ColumnBatch>) -> usize {
        records.first().map_or(0, |(_, batch)| batch.bytes().div_ceil(batch.rows().max(1)))
    }

    fn encoder(&self) -> Box<dyn Encoder<ColumnBatch>> {
        Box::new(ArrowEncoder(None))
    }

    fn decoder(&self) -> Box<dyn Decoder<ColumnBatch>> {
        Box::new(ArrowDecoder(StreamDecoder::new()))
    }
}

/// Before each batch: whether it begins a new stream, and the length of what follows.
const PREFIX_BYTES: usize = 5;

/// The stream of a channel with its schema.
struct ArrowEncoder(Option<(SchemaRef, StreamEncoder)>);

impl Encoder<ColumnBatch> for ArrowEncoder {
    fn encode(&mut self, records: &Records<ColumnBatch>) -> Result<Vec<u8>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("columns of an edge cannot be serialised: {e}");
        let mut body = Vec::new();
        for (_, batch) in records {
            let packed = batch.packed().map_err(|e| failed(&e))?;
            let goes_on = self.0.take().filter(|(schema, _)| *schema == packed.schema());
            let begins = goes_on.is_none();
            let (_, stream) = match goes_on {
                Some(stream) => self.0.insert(stream),
                None => {
                    let stream = StreamEncoder::try_new(packed.schema_ref()).map_err(|e| failed(&e))?;
                    self.0.insert((packed.schema(), stream))
                }
            };
            let pieces = stream.encode(&packed).map_err(|e| failed(&e))?;
            let length: usize = pieces.iter().map(Buffer::len).sum();
            let length = u32::try_from(length).map_err(|_| failed(&"a batch of more than 4 GiB"))?;
            body.push(u8::from(begins));
            body.extend_from_slice(&length.to_le_bytes());
            pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        }
        Ok(body)
    }
}

struct ArrowDecoder(StreamDecoder);

impl Decoder<ColumnBatch> for ArrowDecoder {
    fn decode(&mut self, mut body: &[u8]) -> Result<Records<ColumnBatch>, String> {
        let short = "a batch of columns is shorter than it says";
        let mut records = Vec::new();
        while !body.is_empty() {
            let (prefix, rest) = body.split_first_chunk::<PREFIX_BYTES>().ok_or(short)?;
            let [begins, length @ ..] = *prefix;
            let (piece, rest) = rest.split_at_checked(u32::from_le_bytes(length) as usize).ok_or(short)?;
            body = rest;
            if begins != 0 {
                self.0 = StreamDecoder::new();
            }
            let mut piece = Buffer::from(piece);
            let packed = self.0.decode(&mut piece).map_err(|e| format!("columns cannot be read: {e}"))?;
            let batch = ColumnBatch::unpacked(packed.ok_or(short)?).map_err(|e| e.to_string())?;
            records.push((batch.latest_ms(), batch));
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch};
    use tidemill_core::NO_TIMESTAMP;

    fn batch(name: &str, first: i64) -> ColumnBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 100));
        let words: DictionaryArray<Int32Type> =
            (0..100).map(|n| ["a", "b", "c"][n % (1 + first as usize % 3)]).collect();
        let columns = RecordBatch::try_from_iter([(name, numbers), ("word", Arc::new(words) as ArrayRef)]).unwrap();
        ColumnBatch::new(columns).with_times((first..first + 100).collect::<Vec<i64>>().into()).unwrap()
    }

    fn records(batches: &[ColumnBatch]) -> Records<ColumnBatch> {
        batches.iter().map(|batch| (batch.latest_ms(), batch.clone())).collect()
    }

    #[test]
    fn the_schema_goes_over_a_channel_once_and_again_when_it_changes() {
        let codec = codec::<ColumnBatch>();
        let (mut encoder, mut decoder) = (codec.encoder(), codec.decoder());
        let mut lengths = Vec::new();
        let kinds: Vec<u8> = (0..100).map(|n| n % 4).collect();
        for sent in [
            vec![batch("n", 0)],
            vec![batch("n", 3)],
            vec![batch("m", 1), batch("m", 2), batch("n", 5)],
            vec![batch("n", 4).with_kinds(kinds.into()).unwrap()],
        ] {
            let body = encoder.encode(&records(&sent)).unwrap();
            lengths.push(body.len());
            assert_eq!(codec.rows(&records(&sent)), 100 * sent.len());
            assert_eq!(decoder.decode(&body).unwrap(), records(&sent));
        }
        assert!(lengths[1] + 200 < lengths[0], "{lengths:?}");
    }

    #[test]
    fn other_types_go_as_values() {
        let codec = codec::<String>();
        let sent = vec![(1, "one".to_string()), (NO_TIMESTAMP, String::new())];
        let body = codec.encoder().encode(&sent).unwrap();
        assert_eq!((codec.rows(&sent), codec.decoder().decode(&body).unwrap()), (2, sent));
    }

    #[test]
    fn bytes_that_are_no_columns_are_refused_and_do_not_panic() {
        let codec = codec::<ColumnBatch>();
        let good = codec.encoder().encode(&records(&[batch("n", 0)])).unwrap();
        for cut in 1..good.len() {
            assert!(codec.decoder().decode(&good[..cut]).is_err(), "{cut}");
        }
    }
}
