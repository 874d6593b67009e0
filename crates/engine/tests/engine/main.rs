//! The engine through its API, on real workers.

#![allow(clippy::unwrap_used)]

mod alignment;
mod async_io;
mod broadcast;
mod checkpoints;
mod cluster;
mod columnar;
mod connected;
mod formats;
#[path = "../../../connectors/tests/connectors/free_port.rs"]
mod free_port;
mod harness;
#[cfg(feature = "hdfs")]
mod hdfs;
mod joins;
mod joins_recovery;
mod large_state;
mod lifecycle;
mod migrations;
mod modes;
mod object_store;
mod partitions;
mod pressure;
mod recovery;
mod results;
mod s3_server;
mod savepoint_writer;
mod savepoints;
mod stages;
mod state_disk;
mod state_latency;
mod windows;
mod windows_process;
mod windows_recovery;
mod windows_session;
mod windows_trigger;
mod words;

/// Whether it came about within a minute. The caller lets the job end in either case.
pub fn comes_about(mut done: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !done() {
        if std::time::Instant::now() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}
