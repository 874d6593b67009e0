//! Jobs: their processes, restarts, records. Free of HTTP, so that the command line can run a job with the same parts.
//!
//! | module | holds |
//! |---|---|
//! | [`spec`] | what a user submits, and its bounds |
//! | [`program`] | which files may be run |
//! | [`process`] | starting, watching and ending a process |
//! | [`control`] | the control socket |
//! | [`log`] | a job's output |
//! | [`ending`] | what an exit code means |
//! | [`checkpoints`] | what may be said about checkpoints, and what one consisted of |
//! | [`disposal`] | disposing of savepoints |
//! | [`restart`] | restart strategies |
//! | [`rates`] | reports into rates |
//! | [`model`] | jobs as the API shows and the disk keeps them |
//! | [`store`] | records on disk |
//! | [`job`] | one job in memory |
//! | [`supervisor`] | all jobs, and what can be asked of them |

pub mod checkpoints;
pub mod control;
pub mod disposal;
pub mod ending;
pub mod job;
pub mod log;
pub mod model;
pub mod process;
pub mod program;
pub mod rates;
pub mod restart;
pub mod spec;
pub mod store;
pub mod supervisor;
mod worker;

pub use worker::ServerEnd;
