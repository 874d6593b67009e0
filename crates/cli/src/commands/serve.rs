//! `tidemill serve`: the server, until Ctrl-C.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tidemill_core::Error;
use tidemill_server::agents::message::JoinSecret;
use tidemill_server::tls::TlsFiles;
use tidemill_server::{Server, ServerConfig, ServerEnd};

use super::{DataArgs, Run, address, runtime};
use crate::Context;
use crate::failure::Failure;
use crate::output::line;
use crate::supervise::{interrupts, wait_true};

/// Start the server: API, page, jobs, topics, live tables
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    data: DataArgs,
    /// Where to listen; beyond loopback an administrator token is wanted
    #[arg(
        long,
        env = "TIDEMILL_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:8081",
        value_parser = address,
        value_name = "ADDRESS:PORT"
    )]
    listen: SocketAddr,
    /// The folder programs are taken from [default: `<data>/jobs-programs`]
    #[arg(long, env = "TIDEMILL_JOBS", hide_env_values = true, value_name = "FOLDER")]
    jobs: Option<PathBuf>,
    /// The administrator token: with it everything that changes anything wants it
    #[arg(long, env = "TIDEMILL_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// A further host name requests may be addressed to, while listening on loopback; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// Take agents: the file with the secret they prove, at least 16 characters
    #[arg(long, env = "TIDEMILL_JOIN_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    join_secret_file: Option<PathBuf>,
    /// The address agents reach this host at [default: the one listened on]
    #[arg(long, value_name = "ADDRESS")]
    host_address: Option<String>,
    /// Workers this host has room for once there are agents [default: the number of cores]
    #[arg(long, value_name = "NUMBER")]
    slots: Option<usize>,
    /// Processes of a job on several hosts speak to each other by TLS
    #[arg(long)]
    job_tls: bool,
    /// Speak HTTPS by this certificate with its chain, PEM; jobs reach the server by `--host-address`
    #[arg(long, env = "TIDEMILL_TLS_CERT", hide_env_values = true, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate, PEM
    #[arg(long, env = "TIDEMILL_TLS_KEY", hide_env_values = true, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities, PEM, by which this server's jobs check that certificate [default: the system's]
    #[arg(long, env = "TIDEMILL_SERVER_CA", hide_env_values = true, value_name = "FILE")]
    server_ca: Option<PathBuf>,
    /// Wait while another server uses the data folder, and take over when that one is gone
    #[arg(long)]
    standby: bool,
    /// Leave the jobs running when the server ends; the next server takes them over
    #[arg(long)]
    keep_jobs: bool,
}

impl Run for Serve {
    fn run(self, _: &Context) -> Result<(), Failure> {
        log_to_stderr();
        let mut config = ServerConfig::new(self.data.data);
        config.listen = self.listen;
        config.jobs_folder = self.jobs;
        config.admin_token = self.token;
        config.allowed_hosts = self.allowed_hosts;
        config.join_secret = self.join_secret_file.as_deref().map(JoinSecret::read).transpose()?;
        config.host = self.host_address;
        config.slots = self.slots;
        config.job_tls = self.job_tls;
        let authority = self.server_ca.map(|file| file.canonicalize().unwrap_or(file));
        config.tls = self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsFiles { certificate, key, authority });
        config.standby = self.standby;
        let end = if self.keep_jobs { ServerEnd::LeaveJobs } else { ServerEnd::EndJobs };
        runtime()?.block_on(async {
            let mut interrupted = interrupts()?;
            let data = config.data.clone();
            let server = tokio::select! {
                server = Server::start(config) => server?,
                () = wait_true(&mut interrupted) => return Ok(()),
            };
            line(format_args!("listening on {} with data in {}", server.url(), data.display()))?;
            tokio::select! {
                () = wait_true(&mut interrupted) => server.shutdown(end).await?,
                why = server.replaced() => {
                    return Err(Error::external(why).hint("start it again with `--standby` to wait for that one's end").into());
                }
            }
            Ok(())
        })
    }
}

/// Logs go to standard error; `RUST_LOG` chooses which.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
