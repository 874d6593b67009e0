//! Ports for servers and processes that a test or a bench starts next.
//!
//! Who asks the kernel for any port and gives it away gets one that the kernel may give to somebody else before the
//! server listens: another listener, or a connection's own end. Ports given here are outside of the range the kernel takes
//! them from by itself, and a process gives each only once (until it has been through all).

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// The lowest port given: below it many servers have their own.
const LOWEST: u16 = 20_000;
/// Where the kernel's range begins unless it says otherwise.
const KERNEL_RANGE: u16 = 32_768;
/// Each process begins elsewhere, so many ports after the one with the next smaller id.
const APART: u32 = 61;

/// A TCP port of this host nobody listens on at this moment, on any address.
pub fn free_port() -> std::io::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    match next_of(&range(), std::process::id().wrapping_mul(APART), &GIVEN) {
        Some(port) => Ok(port),
        // Where the kernel's range leaves none over, it is asked after all.
        None => TcpListener::bind("0.0.0.0:0")?.local_addr().map(|address| address.port()),
    }
}

/// The ports from [`LOWEST`] up to the kernel's range; empty where that begins before.
fn range() -> Range<u16> {
    let kernel = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let begins = kernel.and_then(|range| range.split_whitespace().next()?.parse().ok());
    LOWEST..begins.unwrap_or(KERNEL_RANGE)
}

/// The next port that is free, in turns through all of them; `given` counts those tried before.
fn next_of(ports: &Range<u16>, first: u32, given: &AtomicU32) -> Option<u16> {
    ports.clone().find_map(|_| {
        let at = first.wrapping_add(given.fetch_add(1, Ordering::Relaxed)) % ports.len() as u32;
        let port = ports.start + at as u16;
        TcpListener::bind(("0.0.0.0", port)).is_ok().then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_turns_and_never_one_somebody_listens_on() {
        let (mut start, given) = (free_port().unwrap(), AtomicU32::new(0));
        let ports = loop {
            // Five that are free: others take some meanwhile.
            let ports = start..start + 5;
            if ports.clone().all(|port| TcpListener::bind(("0.0.0.0", port)).is_ok()) {
                break ports;
            }
            start += 1;
        };
        let _listens = TcpListener::bind(("127.0.0.1", ports.start + 2)).unwrap();
        let four: Vec<u16> = (0..8).filter_map(|_| next_of(&ports, 0, &given)).map(|port| port - ports.start).collect();
        assert_eq!(four, [0, 1, 3, 4, 0, 1, 3, 4]);
        assert!(range().is_empty() || range().contains(&free_port().unwrap()));
        assert_eq!(next_of(&(7..7), 0, &given), None);
    }
}
