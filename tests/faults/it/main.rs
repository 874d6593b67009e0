//! The whole under faults: processes killed with signal 9 at any moment, full disks, a Redis that goes away, bad input,
//! wrong use. Chance comes from seeds, which are printed; `TIDEMILL_SOAK_SEEDS` and `TIDEMILL_SOAK_MINUTES` make the kill
//! tests longer, `TIDEMILL_SEED` repeats one run.
//!
//! | module | shows |
//! |---|---|
//! | [`job_kills`] | the order job is killed |
//! | [`server_kills`] | the server is killed |
//! | [`kafka_kills`] | an exactly-once job from Kafka into Kafka is killed |
//! | [`kafka_job_files`] | job files from Kafka into Kafka: formats, keys, logins, a kill in the middle |
//! | [`kafka_torture`] | random graphs over Kafka, the broker killed and paused |
//! | [`database_kills`] | an exactly-once job file from a table into a table is killed |
//! | [`sum_kills`] | an exactly-once job is killed, and comes back with another parallelism |
//! | [`process_kills`] | any process of a job of several is killed |
//! | [`network`] | the network between hosts is slowed and cut |
//! | [`agents`] | jobs over agents: rescaled, agents and server killed |
//! | [`standby`] | a server stands by for another and takes over |
//! | [`torture`] | random dataflow graphs under random faults |
//! | [`torture_server`] | the same as jobs of a server, which is killed, too |
//! | [`stops`] | a job is stopped with a savepoint and started again |
//! | [`full_disk`] | no room for a checkpoint, none for a topic |
//! | [`redis_outage`] | Redis is killed and comes back |
//! | [`bad_input`] | what no job can read |
//! | [`behaviour`] | exit codes, the one line of an error, a second try |

// A helper that breaks fails its test, as it should.
#![allow(clippy::unwrap_used)]

mod agents;
mod bad_input;
mod behaviour;
mod database_kills;
#[path = "../../../crates/connectors/tests/connectors/free_port.rs"]
mod free_port;
mod full_disk;
mod https;
mod job_kills;
// A real broker, as the connectors' own tests use it.
#[path = "../../../crates/connectors/tests/connectors/kafka_broker.rs"]
mod kafka_broker;
mod kafka_job_files;
mod kafka_kills;
mod kafka_torture;
mod network;
mod process_kills;
mod redis_outage;
mod server_kills;
mod standby;
mod stops;
mod sum_kills;
mod support;
mod torture;
mod torture_server;

/// Waits until `done`; the broker's helpers call it by this name.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    support::eventually(what, || if done() { Ok(()) } else { Err("not yet".into()) });
}
