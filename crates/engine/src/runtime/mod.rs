//! Runs a job: settles where it starts from, starts workers, coordinator and checkpoint writers, and waits for the end.

pub mod board;
pub mod cluster;
pub(crate) mod control;
mod execute;
pub mod metrics;
mod process;
mod processes;
mod settings;
mod slots;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod user_metrics;

pub use cluster::{Cluster, Room, Secret};
pub use execute::{JobEnd, JobResult};
pub(crate) use execute::{JobHandle as ExecuteHandle, edges, execute, spawn, vertices};
pub use process::{run_job, run_job_with};
pub(crate) use processes::default_parallelism;
pub(crate) use settings::JobMode;
pub use settings::{CheckpointRetention, ClaimMode, JobSettings, RuntimeMode};
