//! How the records of a batch are packed. All of Kafka's ways are read; all are written, zstd at its fastest.

use std::io::{Read, Write};

/// How batches are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KafkaCompression {
    /// Not at all. The default.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy, in the frames of Java's library.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What frames of Java's snappy begin with, its version and the oldest that reads it.
const XERIAL: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// Java's snappy packs blocks of so many bytes.
const XERIAL_BLOCK: usize = 32 << 10;

/// The most bytes a batch may unpack to; brokers refuse batches above `max.message.bytes` (1 MB by default) packed.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

impl KafkaCompression {
    /// The way with this number in a batch's attributes.
    pub fn of_bits(bits: i16) -> Option<KafkaCompression> {
        Some(match bits {
            0 => KafkaCompression::None,
            1 => KafkaCompression::Gzip,
            2 => KafkaCompression::Snappy,
            3 => KafkaCompression::Lz4,
            4 => KafkaCompression::Zstd,
            _ => return None,
        })
    }

    /// Its number in a batch's attributes.
    pub fn bits(self) -> i16 {
        self as i16
    }

    /// Unpacks `bytes` into `out`, or says why not.
    pub fn unpack(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        let read = match self {
            KafkaCompression::None => {
                out.extend_from_slice(bytes);
                Ok(out.len())
            }
            KafkaCompression::Gzip => {
                flate2::read::MultiGzDecoder::new(bytes).take(UNPACKED_BYTES_MAX).read_to_end(out)
            }
            KafkaCompression::Snappy => return unpack_snappy(bytes, out),
            KafkaCompression::Lz4 => {
                lz4_flex::frame::FrameDecoder::new(bytes).take(UNPACKED_BYTES_MAX).read_to_end(out)
            }
            KafkaCompression::Zstd => ruzstd::decoding::StreamingDecoder::new(bytes)
                .map_err(|error| error.to_string())?
                .take(UNPACKED_BYTES_MAX)
                .read_to_end(out),
        };
        read.map(drop).map_err(|error| error.to_string())
    }

    /// Appends `bytes` packed to `out`.
    pub fn pack(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        match self {
            KafkaCompression::None => out.extend_from_slice(bytes),
            KafkaCompression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(bytes).and_then(|()| encoder.finish().map(drop)).map_err(failed)?;
            }
            KafkaCompression::Snappy => {
                out.extend_from_slice(&XERIAL);
                for block in bytes.chunks(XERIAL_BLOCK) {
                    let packed = snap::raw::Encoder::new().compress_vec(block).map_err(|error| error.to_string())?;
                    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                    out.extend_from_slice(&packed);
                }
            }
            KafkaCompression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(bytes).map_err(failed)?;
                encoder.finish().map_err(|error| error.to_string())?;
            }
            KafkaCompression::Zstd => {
                out.extend(ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest));
            }
        }
        Ok(())
    }
}

/// In frames, as Java writes it, or plain, as others do.
fn unpack_snappy(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut unpack = |block: &[u8]| {
        let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
        if (out.len() + length) as u64 > UNPACKED_BYTES_MAX {
            return Err(format!("more than {UNPACKED_BYTES_MAX} bytes"));
        }
        out.extend(snap::raw::Decoder::new().decompress_vec(block).map_err(|error| error.to_string())?);
        Ok(())
    };
    if !bytes.starts_with(&XERIAL[..8]) {
        return unpack(bytes);
    }
    let mut rest = bytes.get(XERIAL.len()..).ok_or("cut off")?;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or("cut off")?;
        let (block, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("cut off")?;
        unpack(block)?;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KafkaCompression; 5] = [
        KafkaCompression::None,
        KafkaCompression::Gzip,
        KafkaCompression::Snappy,
        KafkaCompression::Lz4,
        KafkaCompression::Zstd,
    ];

    #[test]
    fn bytes_come_back_and_damage_is_told() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(|n| (n % 300).to_be_bytes()).collect();
        for way in ALL {
            assert_eq!(KafkaCompression::of_bits(way.bits()), Some(way));
            let (mut packed, mut unpacked) = (Vec::new(), vec![1]);
            way.pack(&bytes, &mut packed).expect("packs");
            way.unpack(&packed, &mut unpacked).expect("unpacks");
            assert!(unpacked == bytes, "{way:?}");
            if way != KafkaCompression::None {
                assert!(packed.len() < bytes.len(), "{way:?}: {} bytes", packed.len());
                assert!(way.unpack(&packed[..packed.len() / 2], &mut unpacked).is_err(), "{way:?}: half of it");
            }
        }
        assert_eq!(KafkaCompression::of_bits(5), None);
    }

    #[test]
    fn snappy_without_frames_is_read_too() {
        let packed = snap::raw::Encoder::new().compress_vec(b"plain").expect("packs");
        let mut out = Vec::new();
        KafkaCompression::Snappy.unpack(&packed, &mut out).expect("unpacks");
        assert_eq!(out, b"plain");
    }
}
