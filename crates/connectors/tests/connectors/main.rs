//! Connectors as a job uses them: one binary, a module for each connector.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod async_sink;
mod blackhole;
mod buffered;
mod columns;
mod database;
mod database_servers;
mod elasticsearch;
mod elasticsearch_answers;
mod elasticsearch_server;
mod fetcher;
mod file_container;
#[cfg(feature = "orc")]
mod file_orc;
mod file_sink;
mod file_source;
mod free_port;
mod generator;
mod http;
mod http_server;
mod hybrid;
mod kafka_broker;
mod kafka_metrics;
mod kafka_offsets;
mod kafka_outage;
mod kafka_security;
mod kafka_sink;
mod kafka_source;
mod live;
mod rate_limit;
mod redis;
mod socket;
mod topic_sink;
mod topic_source;
mod write_ahead;

use std::time::Instant;

use tidemill_connectors::conformance::DEADLINE;

/// Waits, without sleeping, until `done`; panics with `what` when it does not come to pass in time.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "in vain: {what}");
        std::thread::yield_now();
    }
}
