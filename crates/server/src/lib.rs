//! The control plane of Tidemill: one process that serves the API and the page, looks after jobs, keeps live tables
//! and topics. The only place that joins all parts.
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | starting and ending it |
//! | [`config`] | what it is started with |
//! | [`agents`] | further hosts that run processes of jobs |
//! | [`jobs`] | job processes, their restarts and records; free of HTTP |
//! | [`lease`] | which of several servers over one folder acts |
//! | [`live`] | live tables and their event streams |
//! | [`topics`] | embedded topics behind the API |
//! | [`api`] | HTTP: one resource, one file |
//! | [`database`] | the metadata database |
//! | [`random`] | ids, tokens, jitter |

pub mod agents;
pub mod api;
pub mod config;
pub mod database;
pub mod jobs;
pub mod lease;
pub mod live;
pub mod random;
pub mod server;
pub mod tls;
pub mod topics;

pub use config::ServerConfig;
pub use jobs::ServerEnd;
pub use server::Server;
