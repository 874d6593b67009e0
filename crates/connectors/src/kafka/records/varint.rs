//! Numbers of variable length, zigzag coded as in Protocol Buffers.

/// Takes a number from the front of `bytes`; `None` when it is cut off or too long.
#[inline]
pub fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Takes a length: -1 for none.
#[inline]
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take(bytes)? {
        -1 => Some(None),
        length => {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            Some(Some(taken))
        }
    }
}

/// Appends a number.
#[inline]
pub fn put(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends bytes behind their length.
#[inline]
pub fn put_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes {
        Some(bytes) => {
            put(bytes.len() as i64, out);
            out.extend_from_slice(bytes);
        }
        None => put(-1, out),
    }
}

/// How many bytes a number takes.
#[inline]
pub fn size(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

/// How many bytes bytes take with their length.
#[inline]
pub fn size_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| size(bytes.len() as i64) + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_the_size_said() {
        for value in [0, -1, 1, 63, -64, 64, -65, 8191, 8192, i64::from(i32::MAX), i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            assert_eq!(bytes.len(), size(value), "{value}");
            let mut rest = &bytes[..];
            assert_eq!((take(&mut rest), rest.len()), (Some(value), 0));
            assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None, "cut off");
        }
        assert_eq!(take(&mut &[0xff; 11][..]), None, "too long");
        assert_eq!(take_bytes(&mut &[6, b'a', b'b'][..]), None, "three bytes, and two are there");
    }
}
