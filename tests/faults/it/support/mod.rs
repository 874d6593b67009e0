//! What all tests share: programs, processes, HTTP, orders, chance, waiting.

pub mod http;
pub mod job;
pub mod orders;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod seeds;
pub mod server;

use std::time::{Duration, Instant};

/// Nothing that is waited for takes longer, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Tries again until there is a result; the reason of the last try is shown when the time is up.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) if Instant::now() > deadline => panic!("not within {DEADLINE:?}: {what}: {why}"),
            Err(_) => pause(Duration::from_millis(10)),
        }
    }
}

/// Lets some time pass.
pub fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

/// A folder that is gone with the test; its name is short, because sockets' addresses are.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tf").tempdir().unwrap()
}
