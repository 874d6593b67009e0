//! Chance, from the operating system: ids, tokens, the jitter of restarts. The edge of the server calls it.

use tidemill_core::{Error, Result};

/// 32 hex digits nobody has seen before.
pub fn hex32() -> Result<String> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Ok(_) => Err(Error::external("the operating system gave too few random bytes")),
        Err(e) => Err(Error::external(format!("the operating system gives no random bytes: {e}"))),
    }
}

/// A number from 0 to 1; the middle when there is no chance to be had.
pub fn unit() -> f64 {
    let mut bytes = [0u8; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        _ => 0.5,
    }
}
