//! Connects a process with all others of its job: each connects to those before it and waits for those behind it.
//! Whoever cannot show the job's secret is refused, and the waiting goes on.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::net::sockopt;
use tidemill_core::{Error, Kind, Result, SharedClock};

use super::channel::Channel;
use super::handshake::{self, Identity, LinkKind, WORD_DEADLINE};
use super::settings::Cluster;

/// How many strangers may be in a handshake at once; further ones are closed.
const HANDSHAKES_MAX: usize = 64;

/// The pause before a process that does not answer yet is tried again, and between two looks at who has come.
const RETRY: Duration = Duration::from_millis(20);

/// How long one address may take to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A silent connection is asked for a sign of life so many times within the time-out.
const KEEPALIVE_PROBES: u32 = 3;

/// This process's connections.
pub(crate) struct Mesh {
    /// To each other process, for timely; `None` at this process's own place.
    pub data: Vec<Option<Channel>>,
    /// Process 0: to each other process; others: to process 0 alone. `None` elsewhere.
    pub control: Vec<Option<Channel>>,
}

type Links = BTreeMap<(LinkKind, usize), Channel>;

/// Connects with all other processes. An error when they are not all there within the start time-out, or one of them
/// says that this process will never be one of them.
pub(crate) fn join(cluster: &Cluster, identity: &Identity, clock: &SharedClock) -> Result<Mesh> {
    cluster.check()?;
    let (me, processes) = (cluster.process, cluster.processes());
    let deadline_ms = clock.steady_ms().saturating_add(cluster.start_timeout_ms);
    let mut waiting = Waiting::listen(cluster, identity)?;
    let mut links = Links::new();
    let mut wanted: Vec<(LinkKind, usize)> = (0..me).map(|to| (LinkKind::Data, to)).collect();
    wanted.extend((me > 0).then_some((LinkKind::Control, 0)));
    let mut last: Option<Error> = None;
    loop {
        waiting.take(&mut links, &mut last)?;
        let mut missing = Vec::new();
        for (link, to) in wanted {
            match dial(cluster, identity, link, to) {
                Ok(stream) => {
                    links.insert((link, to), stream);
                }
                Err(error) if error.kind() == Kind::Input => return Err(error),
                Err(error) => {
                    last = Some(error);
                    missing.push((link, to));
                }
            }
        }
        wanted = missing;
        let absent: Vec<usize> = (0..processes)
            .filter(|&other| other != me)
            .filter(|&other| {
                let controls = (me == 0 || other == 0) && !links.contains_key(&(LinkKind::Control, other));
                controls || !links.contains_key(&(LinkKind::Data, other))
            })
            .collect();
        if absent.is_empty() {
            break;
        }
        if clock.steady_ms() >= deadline_ms {
            let absent: Vec<String> = absent.iter().map(|&other| cluster.name(other)).collect();
            let last = last.map(|error| format!("; the last try: {error}")).unwrap_or_default();
            let within_ms = cluster.start_timeout_ms;
            return Err(Error::external(format!("{} did not join within {within_ms} ms{last}", absent.join(", "))));
        }
        std::thread::park_timeout(RETRY);
    }
    let mut mesh = Mesh { data: Vec::new(), control: Vec::new() };
    for other in 0..processes {
        mesh.data.push(links.remove(&(LinkKind::Data, other)));
        mesh.control.push(links.remove(&(LinkKind::Control, other)));
    }
    for stream in mesh.data.iter().chain(&mesh.control).flatten() {
        notice_silence(stream.socket(), cluster.peer_timeout_ms)?;
    }
    Ok(mesh)
}

fn dial(cluster: &Cluster, identity: &Identity, link: LinkKind, to: usize) -> Result<Channel> {
    let named = |e: Error| e.context(cluster.name(to));
    let address = &cluster.addresses[to];
    let addresses: Vec<SocketAddr> =
        address.to_socket_addrs().map_err(|e| Error::io(format!("find the address `{address}`"), e))?.collect();
    let mut refused = Error::external(format!("`{address}` has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_DEADLINE) {
            Ok(socket) => {
                let ends = (cluster.process, to);
                handshake::deadlines(&socket, Some(WORD_DEADLINE)).map_err(named)?;
                let mut channel = Channel::connect(socket, cluster.tls).map_err(named)?;
                handshake::connect(&mut channel, link, ends, identity, &cluster.secret).map_err(named)?;
                return Ok(channel);
            }
            Err(e) => refused = named(Error::io("connect", e)),
        }
    }
    Err(refused)
}

/// The processes that are still to come, and strangers.
struct Waiting {
    listener: Option<TcpListener>,
    arrived: Receiver<Arrival>,
    tell: Sender<Arrival>,
    in_handshake: Arc<AtomicUsize>,
    cluster: Arc<(Cluster, Identity)>,
}

type Arrival = (SocketAddr, Result<((LinkKind, usize), Channel)>);

impl Waiting {
    fn listen(cluster: &Cluster, identity: &Identity) -> Result<Self> {
        let address = cluster.listen.as_ref().unwrap_or(&cluster.addresses[cluster.process]);
        // Nobody connects to the last process.
        let listener = (cluster.process + 1 < cluster.processes()).then(|| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = listener.transpose().map_err(|e| Error::io(format!("listen on `{address}`"), e))?;
        let (tell, arrived) = channel();
        let cluster = Arc::new((cluster.clone(), identity.clone()));
        Ok(Waiting { listener, arrived, tell, in_handshake: Arc::default(), cluster })
    }

    /// Takes in who has come, and begins handshakes with who comes.
    fn take(&mut self, links: &mut Links, last: &mut Option<Error>) -> Result<()> {
        while let Some(Ok((stream, address))) = self.listener.as_ref().map(TcpListener::accept) {
            self.greet(stream, address)?;
        }
        loop {
            match self.arrived.recv_timeout(Duration::ZERO) {
                // Who comes twice has been started again meanwhile: the later connection counts.
                Ok((_, Ok((link, stream)))) => {
                    links.insert(link, stream);
                }
                Ok((address, Err(error))) => {
                    tracing::warn!(%address, %error, "refused a connection");
                    *last = Some(error.context(address));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn greet(&self, stream: TcpStream, address: SocketAddr) -> Result<()> {
        if self.in_handshake.fetch_add(1, Ordering::AcqRel) >= HANDSHAKES_MAX {
            self.in_handshake.fetch_sub(1, Ordering::AcqRel);
            return Ok(());
        }
        let (tell, busy, cluster) = (self.tell.clone(), self.in_handshake.clone(), self.cluster.clone());
        let run = move || {
            let (cluster, identity) = &*cluster;
            let accepted = stream
                .set_nonblocking(false)
                .map_err(|e| Error::io("answer", e))
                .and_then(|()| handshake::deadlines(&stream, Some(WORD_DEADLINE)))
                .and_then(|()| Channel::accept(stream, cluster.tls))
                .and_then(|mut channel| {
                    let link = handshake::accept(&mut channel, cluster.process, identity, &cluster.secret)?;
                    Ok((link, channel))
                });
            busy.fetch_sub(1, Ordering::AcqRel);
            let _ = tell.send((address, accepted));
        };
        let spawned = std::thread::Builder::new().name("handshake".to_string()).spawn(run);
        spawned.map(drop).map_err(|e| Error::io("start the thread `handshake`", e))
    }
}

/// Has the kernel break the connection when the other side is silent for so long, whether something is under way or not.
fn notice_silence(stream: &TcpStream, timeout_ms: u64) -> Result<()> {
    let set = || -> std::io::Result<()> {
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        let probe = Duration::from_secs(u64::from(timeout_ms / 1000 / (KEEPALIVE_PROBES + 1)).max(1));
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, probe)?;
        sockopt::set_tcp_keepintvl(stream, probe)?;
        sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
        sockopt::set_tcp_user_timeout(stream, timeout_ms)?;
        Ok(())
    };
    set().map_err(|e| Error::io("set the time-outs of a connection", e))
}
