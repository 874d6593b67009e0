//! HTTPS: a listener that hands over connections whose handshake is done. Handshakes go on side by side, a bounded number
//! of them, so that a client that says nothing holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidemill_core::{Error, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// So many handshakes are under way at once; further connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;

/// A handshake may take so long.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be taken, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// By which files a server speaks HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those it was signed with, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities, PEM, by which jobs of this server and its agents check the certificate; default: the system's.
    pub authority: Option<PathBuf>,
}

/// What handshakes need.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor> {
    let unreadable = |what: &str, path: &Path, why: &dyn std::fmt::Display| {
        Error::input(format!("the {what} `{}` cannot be read: {why}", path.display())).hint("give a file in PEM form")
    };
    let path = &files.certificate;
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|why| unreadable("certificate", path, &why))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", path, &"there is none in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| unreadable("private key", &files.key, &why))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|why| {
        Error::input(format!("the certificate `{}` is of no use with its key: {why}", path.display()))
            .hint("give the key that belongs to it")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// A listener for [`axum::serve()`].
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<Accepted>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<TlsListener> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        Ok(TlsListener { address, ready, accepting: tokio::spawn(accept(listener, acceptor, sender)) })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Accepted>) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(place) = room.clone().acquire_owned().await {
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small events must not wait for more bytes; a socket that refuses only is a little slower.
        let _ = socket.set_nodelay(true);
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => drop(ready.send((stream, from)).await),
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
            drop(place);
        });
    }
}
