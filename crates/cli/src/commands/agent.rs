//! `tidemill agent --join`: this host runs processes of the jobs of a server elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidemill::connectors::authority::trusting;
use tidemill_core::{Clock, Error, Kind, Result, SystemClock};
use tidemill_server::agents::host::{Host, HostConfig};
use tidemill_server::agents::message::{ANSWER, Answer, BEAT, JoinSecret, MAC_HEADER};

use ureq::tls::TlsConfig;

use super::serve::log_to_stderr;
use super::{DataArgs, Run, runtime};
use crate::Context;
use crate::failure::Failure;
use crate::output::line;
use crate::supervise::{interrupts, wait_true};

/// How often the server is asked.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How long one beat may take.
const BEAT_DEADLINE: Duration = Duration::from_secs(5);
/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Run processes of the jobs of a server on this host, until Ctrl-C
#[derive(Debug, Args)]
pub struct Agent {
    /// The server's address, `http://host:port` or `https://host:port`; may be repeated, for servers that stand by for it
    #[arg(long, value_name = "SERVER", required = true)]
    join: Vec<String>,
    /// The authorities, PEM, by which the server's certificate is checked [default: the system's]
    #[arg(long, env = "TIDEMILL_SERVER_CA", hide_env_values = true, value_name = "FILE")]
    server_ca: Option<PathBuf>,
    /// Workers this host has room for [default: the number of cores]
    #[arg(long, value_name = "NUMBER")]
    slots: Option<usize>,
    /// The file with the secret that the server's `--join-secret-file` holds
    #[arg(long, env = "TIDEMILL_JOIN_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    secret_file: PathBuf,
    /// This agent's name, its own among all agents [default: its address]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The address this host is reached at by the others [default: the one the server is reached from]
    #[arg(long, value_name = "ADDRESS")]
    host_address: Option<String>,
    /// The folder programs are taken from [default: `<data>/jobs-programs`]
    #[arg(long, env = "TIDEMILL_JOBS", hide_env_values = true, value_name = "FOLDER")]
    jobs: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

impl Run for Agent {
    fn run(self, _: &Context) -> std::result::Result<(), Failure> {
        log_to_stderr();
        let has_scheme = |server: &String| server.starts_with("http://") || server.starts_with("https://");
        if let Some(server) = self.join.iter().find(|server| !has_scheme(server)) {
            let text = format!("`{server}` is no address an agent can join");
            return Err(Error::input(text).hint("write `http://host:port` or `https://host:port`").into());
        }
        let tls = trusting(self.server_ca.as_deref())?;
        let authority = self.server_ca.map(|file| file.canonicalize().unwrap_or(file));
        let secret = JoinSecret::read(&self.secret_file)?;
        let servers: Vec<String> = self.join.iter().map(|server| server.trim_end_matches('/').to_string()).collect();
        let host = match self.host_address {
            Some(host) => host,
            None => own_address(&servers[0])?,
        };
        let data = self.data.data.canonicalize().map_err(|e| {
            Error::io(format!("find the data folder `{}`", self.data.data.display()), e)
                .hint("it is the server's, on a disk that all hosts share; name it with `--data`")
        })?;
        let config = HostConfig {
            name: self.name.unwrap_or_else(|| host.clone()),
            slots: self.slots.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get())),
            host,
            programs: self.jobs.unwrap_or_else(|| data.join("jobs-programs")),
            data,
            runner: std::env::current_exe().map_err(|e| Error::io("find this program's own file", e))?,
            server: servers[0].clone(),
            authority,
        };
        runtime()?.block_on(async {
            let mut interrupted = interrupts()?;
            let asked = servers.join(" or ");
            line(format_args!("agent {} with {} slots asks {asked}", config.name, config.slots))?;
            let mut host = Host::open(config, secret.clone())?;
            tokio::select! {
                ended = serve(&mut host, &servers, &secret, &tls) => ended?,
                () = wait_true(&mut interrupted) => {}
            }
            host.end().await;
            Ok(())
        })
    }
}

/// Beats until a server refuses this agent for good. Of several servers one acts; the others do not answer.
async fn serve(host: &mut Host, servers: &[String], secret: &JoinSecret, tls: &TlsConfig) -> Result<()> {
    let asking = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(BEAT_DEADLINE));
    let asking: ureq::Agent = asking.tls_config(tls.clone()).build().into();
    let (mut boot, mut term, mut number) = (String::new(), 0u64, 0u64);
    // Which server is asked, and how many in a row have not answered.
    let (mut at, mut silent) = (0, 0);
    loop {
        let server = &servers[at];
        // Grows also over starts of the agent, so that nothing it has ever said can be said again by somebody else.
        number = (number + 1).max(u64::try_from(SystemClock.now_ms()).unwrap_or(0));
        let beat = host.beat(&boot, term, number).await?;
        let body = serde_json::to_vec(&beat).map_err(|e| Error::bug(format!("a beat is no JSON: {e}")))?;
        let (url, mac, kept) = (format!("{server}/api/agents/beat"), secret.sign(BEAT, &body), secret.clone());
        let asking = asking.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&asking, &url, &body, &mac, &kept));
        let unanswered = match asked.await.map_err(|e| Error::bug(format!("a beat broke: {e}")))? {
            Ok(answer) if answer.number != number => Error::external("it answered another beat"),
            Ok(answer) if answer.term < term => Error::external("another server has taken its place"),
            Ok(answer) => {
                if silent >= servers.len() || answer.term > term {
                    tracing::info!(server, term = answer.term, "the server answers");
                }
                silent = 0;
                (boot, term) = (answer.boot, answer.term);
                host.follow(server);
                if let Some(assignments) = answer.assignments {
                    host.settle(assignments).await;
                }
                tokio::time::sleep(BEAT_EVERY).await;
                continue;
            }
            Err(e) if e.kind() == Kind::Input => return Err(e),
            Err(e) => e,
        };
        // What runs goes on without a server.
        silent += 1;
        if silent == servers.len() {
            tracing::warn!(server, error = %unanswered, "no server answers; what runs goes on");
        }
        at = (at + 1) % servers.len();
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

fn ask(agent: &ureq::Agent, url: &str, body: &[u8], mac: &str, secret: &JoinSecret) -> Result<Answer> {
    let sent = agent.post(url).header(MAC_HEADER, mac).content_type("application/json").send(body);
    let mut answer = sent.map_err(|e| Error::external(e.to_string()))?;
    let mac = answer.headers().get(MAC_HEADER).and_then(|mac| mac.to_str().ok()).unwrap_or_default().to_string();
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let text = text.map_err(|e| Error::external(format!("the answer broke off: {e}")))?;
    match answer.status().as_u16() {
        200 if secret.verify(ANSWER, &text, &mac) => {
            serde_json::from_slice(&text).map_err(|e| Error::external(format!("the answer cannot be read: {e}")))
        }
        200 => Err(Error::input("the server does not prove the join secret")),
        status @ (401 | 403) => {
            Err(Error::input(format!("the server refuses this agent ({status}): {}", String::from_utf8_lossy(&text))))
        }
        status => Err(Error::external(format!("the server answered {status}"))),
    }
}

/// The address of this host on the way to the server.
fn own_address(server: &str) -> Result<String> {
    let authority = server.split("://").nth(1).unwrap_or(server).split('/').next().unwrap_or_default();
    let default_port = if server.starts_with("https://") { 443 } else { 80 };
    let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let target = if has_port { authority.to_string() } else { format!("{authority}:{default_port}") };
    let found = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        // Sends nothing: the system only chooses the way.
        socket.connect(&target)?;
        socket.local_addr()
    });
    found.map(|address| address.ip().to_string()).map_err(|e| {
        Error::io(format!("find the way to `{server}`"), e).hint("name this host's address with `--host-address`")
    })
}
