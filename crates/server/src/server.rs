//! Starting and ending a server: its folder and lease, its tasks, its listener.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tidemill_core::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::agents::hub::Agents;
use crate::api::{self, App};
use crate::config::{ADMIN_TOKEN_BYTES_MIN, ServerConfig};
use crate::database;
use crate::jobs::ServerEnd;
use crate::jobs::store::JobStore;
use crate::jobs::supervisor::{Supervisor, SupervisorConfig};
use crate::lease::Lease;
use crate::live::hub::Live;
use crate::live::persist;
use crate::random;
use crate::tls::{self, TlsListener};
use crate::topics::TopicService;

/// How long open requests may take to finish when the server ends.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A running server. Dropping it does not end it: call [`Server::shutdown`].
pub struct Server {
    address: SocketAddr,
    url: String,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
    flushing: JoinHandle<()>,
    lease: Arc<Lease>,
    renewing: JoinHandle<()>,
    release: watch::Sender<bool>,
}

impl Server {
    /// The database's name in the data folder.
    pub const DATABASE: &'static str = "tidemill.db";
    /// The file with the token live sinks present.
    pub const WRITER_TOKEN: &'static str = "writer.token";

    /// Starts a server. `Kind::Input` when the configuration is refused (listening beyond loopback without a token, a
    /// database of a newer build), `Kind::External` when the port or the folder cannot be had.
    pub async fn start(config: ServerConfig) -> Result<Server> {
        check_token(&config)?;
        let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let data = create_folder(&config.data)?;
        let lease = Lease::take(&data, config.standby, config.listen, config.clock.clone()).await?;
        let listener = TcpListener::bind(config.listen).await.map_err(|e| bind_error(config.listen, e))?;
        let release = watch::Sender::new(false);
        let renewing = tokio::spawn(lease.clone().run(release.subscribe()));
        let address = listener.local_addr().map_err(|e| Error::io("read the address listened on", e))?;
        let programs = match &config.jobs_folder {
            Some(folder) => folder.clone(),
            None => create_folder(&data.join("jobs-programs"))?,
        };
        create_folder(&data.join("jobs"))?;
        let path = data.join(Self::DATABASE);
        let (jobs_database, live_database) = (database::open(&path)?, database::open(&path)?);
        let writer_token = writer_token(&data)?;
        let topics = TopicService::open(&data.join("topics"), config.clock.clone())?;
        let live = Live::new(random::hex32()?, config.live, config.clock.clone());
        persist::load(&live, &live_database)?;
        let stop = watch::Sender::new(false);
        let flushing = tokio::spawn(persist::run(live.clone(), live_database, lease.clone(), stop.subscribe()));
        let runner = match config.runner.clone() {
            Some(runner) => runner,
            None => std::env::current_exe().map_err(|e| Error::io("find this program's own file", e))?,
        };
        let url = url_of(&config, address);
        let agents = agents(&config, address, &lease)?;
        let supervisor = SupervisorConfig {
            agents,
            data,
            programs,
            runner,
            server: url.clone(),
            authority: config.tls.as_ref().and_then(|files| files.authority.clone()),
            writer_token: writer_token.clone(),
            lease: lease.clone(),
        };
        let store = JobStore::new(jobs_database, lease.clone());
        let supervisor = Supervisor::start(supervisor, store, config.clock.clone()).await?;
        let app = App::new(&config, address, supervisor, live, topics, writer_token, stop.subscribe());
        let router = api::router(app.clone());
        let serving = match acceptor {
            Some(acceptor) => {
                let listener = TlsListener::new(listener, acceptor);
                serve(listener.map_err(|e| Error::io("read the address listened on", e))?, router, stop.subscribe())
            }
            None => {
                let listener = listener.tap_io(|socket| {
                    // Small events must not wait for more bytes; a socket that refuses only is a little slower.
                    let _ = socket.set_nodelay(true);
                });
                serve(listener, router, stop.subscribe())
            }
        };
        tracing::info!(%address, "server listens");
        Ok(Server { address, url, app, stop, serving, flushing, lease, renewing, release })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base address for clients on this machine.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The token live sinks present.
    pub fn writer_token(&self) -> &str {
        &self.app.writer_token
    }

    /// The jobs.
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.app.supervisor
    }

    /// The topics.
    pub fn topics(&self) -> &TopicService {
        &self.app.topics
    }

    /// Returns when another server acts for the folder, with a text that says so. This one must then end at once: there is
    /// nothing left that it may change.
    pub async fn replaced(&self) -> String {
        self.lease.lost().await
    }

    /// Ends the server: no new requests, event streams are closed, job processes are left alone or ended, live tables
    /// are stored.
    pub async fn shutdown(self, jobs: ServerEnd) -> Result<()> {
        let end = if jobs == ServerEnd::No { ServerEnd::LeaveJobs } else { jobs };
        self.stop.send_replace(true);
        self.app.supervisor.shutdown(end).await;
        let aborted = self.serving.abort_handle();
        let served = tokio::time::timeout(DRAIN_DEADLINE, self.serving).await;
        aborted.abort();
        let flushed = self.flushing.await;
        self.release.send_replace(true);
        // What it cannot write in time expires.
        let _ = tokio::time::timeout(DRAIN_DEADLINE, self.renewing).await;
        flushed.map_err(|e| Error::bug(format!("storing the live tables broke: {e}")))?;
        match served {
            Ok(Ok(Err(e))) => Err(Error::io("serve requests", e)),
            _ => Ok(()),
        }
    }
}

/// Answers requests until the server ends.
fn serve<L>(listener: L, router: Router, mut ended: watch::Receiver<bool>) -> JoinHandle<std::io::Result<()>>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(async move { persist::stopped(&mut ended).await });
    tokio::spawn(serving.into_future())
}

/// The base address for clients on this machine. A certificate is for a name, so with one the host's counts.
fn url_of(config: &ServerConfig, address: SocketAddr) -> String {
    match (&config.tls, &config.host) {
        (None, _) => format!("http://{}", reachable(address)),
        (Some(_), None) => format!("https://{}", reachable(address)),
        (Some(_), Some(host)) if host.contains(':') => format!("https://[{host}]:{}", address.port()),
        (Some(_), Some(host)) => format!("https://{host}:{}", address.port()),
    }
}

fn check_token(config: &ServerConfig) -> Result<()> {
    match &config.admin_token {
        Some(token) if token.len() < ADMIN_TOKEN_BYTES_MIN || token.bytes().any(|b| !b.is_ascii_graphic()) => {
            Err(Error::input(format!(
                "the administrator token must have at least {ADMIN_TOKEN_BYTES_MIN} printable characters"
            ))
            .hint("make one with `openssl rand -hex 32`"))
        }
        None if !config.listen.ip().is_loopback() => {
            Err(Error::input(format!("refusing to listen on {} without an administrator token", config.listen))
                .hint("set TIDEMILL_ADMIN_TOKEN, or listen on 127.0.0.1"))
        }
        _ => Ok(()),
    }
}

/// The agents this server takes: none without a join secret.
fn agents(config: &ServerConfig, address: SocketAddr, lease: &Arc<Lease>) -> Result<Option<Arc<Agents>>> {
    let Some(secret) = config.join_secret.clone() else { return Ok(None) };
    let host = match &config.host {
        Some(host) => host.clone(),
        None if !address.ip().is_unspecified() => address.ip().to_string(),
        None => {
            return Err(Error::input("agents must know at which address they reach this host")
                .hint("name it with `--host-address <address>`, or listen on one address"));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let slots = config.slots.unwrap_or(cores);
    Ok(Some(Arc::new(Agents::new(secret, host, slots, config.job_tls, lease.clone(), config.clock.clone())?)))
}

fn create_folder(path: &Path) -> Result<PathBuf> {
    let created = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
    created.map_err(|e| {
        Error::io(format!("create the folder `{}`", path.display()), e)
            .hint("choose another one with `--data <folder>`")
    })
}

fn bind_error(address: SocketAddr, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::external(format!("port {} on {} is in use already", address.port(), address.ip()))
                .hint("end what listens there, or choose another one with `--listen <address:port>`")
        }
        _ => Error::io(format!("listen on {address}"), error).hint("choose another one with `--listen <address:port>`"),
    }
}

/// The token of live sinks: made once, kept, readable by the owner only.
fn writer_token(data: &Path) -> Result<String> {
    let path = data.join(Server::WRITER_TOKEN);
    let mut text = String::new();
    let kept = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
    if kept.is_ok() && !text.trim().is_empty() {
        return Ok(text.trim().to_owned());
    }
    let token = random::hex32()?;
    let written = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path);
    let written = written.and_then(|mut file| file.write_all(token.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|e| Error::io(format!("write `{}`", path.display()), e))?;
    Ok(token)
}

/// An address clients on this machine can use: "all addresses" becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => reachable.set_ip([127, 0, 0, 1].into()),
            SocketAddr::V6(_) => reachable.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        }
    }
    reachable
}
