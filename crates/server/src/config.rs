//! What a server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidemill_core::{SharedClock, SystemClock};

use crate::agents::message::JoinSecret;
use crate::live::hub::LiveLimits;
use crate::tls::TlsFiles;

/// Configuration of a server; [`ServerConfig::new`] gives the defaults.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where to listen; default `127.0.0.1:8081`. Beyond loopback an administrator token is wanted.
    pub listen: SocketAddr,
    /// The data folder: metadata, topics, jobs. Created when absent.
    pub data: PathBuf,
    /// The folder programs are taken from; default `<data>/jobs-programs`.
    pub jobs_folder: Option<PathBuf>,
    /// The administrator token. With it everything that changes anything wants `Authorization: Bearer <token>`.
    pub admin_token: Option<String>,
    /// Host names other than loopback that requests may be addressed to while listening on loopback (a proxy's).
    pub allowed_hosts: Vec<String>,
    /// The executable that runs `.toml` job files; default: this very program.
    pub runner: Option<PathBuf>,
    /// The secret of agents; with it the server takes further hosts.
    pub join_secret: Option<JoinSecret>,
    /// The address other hosts reach this one at; default: the one listened on.
    pub host: Option<String>,
    /// Workers this host has room for once there are agents; default: the number of cores.
    pub slots: Option<usize>,
    /// Whether the processes of a job over several hosts speak to each other by TLS.
    pub job_tls: bool,
    /// Speaks HTTPS instead of HTTP. Jobs of this host then reach the server by [`ServerConfig::host`], or else by the
    /// address listened on, so the certificate must be valid for that.
    pub tls: Option<TlsFiles>,
    /// Whether to wait while another server uses the folder, and to take over when that one is gone.
    pub standby: bool,
    /// Bounds of the live tables.
    pub live: LiveLimits,
    /// The clock.
    pub clock: SharedClock,
}

/// The shortest administrator token accepted, in bytes.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;

impl ServerConfig {
    /// The defaults over a data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            data: data.into(),
            jobs_folder: None,
            admin_token: None,
            allowed_hosts: Vec::new(),
            runner: None,
            join_secret: None,
            host: None,
            slots: None,
            job_tls: false,
            tls: None,
            standby: false,
            live: LiveLimits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}
