//! A connection between two processes, plain or by TLS 1.3. TLS here hides and protects the bytes; who is at the other end is
//! proved by the handshake inside, whose MAC covers what both ends of this very TLS session have agreed on
//! (`binding`): somebody in the middle has two sessions, and no proof that fits both. So there are no certificates,
//! no authority and no files: each process makes up a key when it starts and shows it as it is (ADR 14).
//!
//! timely reads a connection on one thread and writes it on another, which a TLS session cannot be divided between. The
//! session stands under a lock that nobody holds while waiting for the network: bytes are read before it is taken
//! and written behind it.

use std::io::{Error as IoError, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection};
use rustls::{PeerIncompatible, SignatureScheme};
use tidemill_core::{Error, Result};

/// What is read from the network at once.
const READ_BYTES: usize = 64 * 1024;
/// What is enciphered at once, four records.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// What both ends derive from their session, for the proof inside.
const BINDING_BYTES: usize = 32;
const BINDING_LABEL: &[u8] = b"EXPORTER-tidemill-job";
/// The name TLS wants of the other end; nobody looks at it.
const NAME: &str = "tidemill";

/// A connection; clones share it.
pub(crate) struct Channel {
    socket: TcpStream,
    session: Option<Arc<Session>>,
}

/// A TLS session.
struct Session {
    state: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    /// Enciphered bytes on their way out; its lock keeps them in order.
    outgoing: Mutex<Vec<u8>>,
    binding: [u8; BINDING_BYTES],
}

/// What was read from the network and not deciphered yet.
struct Incoming {
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// A connection without TLS.
    pub fn plain(socket: TcpStream) -> Self {
        Channel { socket, session: None }
    }

    /// TLS over a connection this process has made; `false`: without.
    pub fn connect(socket: TcpStream, tls: bool) -> Result<Self> {
        if !tls {
            return Ok(Channel::plain(socket));
        }
        let name = ServerName::try_from(NAME).map_err(|e| Error::bug(format!("no name for TLS: {e}")))?;
        let session = ClientConnection::new(Arc::new(client()?), name).map_err(not_set_up)?;
        Channel::open(socket, session.into())
    }

    /// TLS over a connection that has come; `false`: without.
    pub fn accept(socket: TcpStream, tls: bool) -> Result<Self> {
        if !tls {
            return Ok(Channel::plain(socket));
        }
        let session = ServerConnection::new(Arc::new(server()?)).map_err(not_set_up)?;
        Channel::open(socket, session.into())
    }

    fn open(mut socket: TcpStream, mut session: Connection) -> Result<Self> {
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|e| {
                Error::external(format!("TLS cannot be agreed on: {e}"))
                    .hint("set TIDEMILL_PROCESS_TLS in all processes of the job, or in none")
            })?;
        }
        let binding = session.export_keying_material([0; BINDING_BYTES], BINDING_LABEL, None).map_err(not_set_up)?;
        let incoming = Incoming { buffer: vec![0; READ_BYTES], at: 0, end: 0 };
        let session =
            Session { state: Mutex::new(session), incoming: Mutex::new(incoming), outgoing: Mutex::default(), binding };
        Ok(Channel { socket, session: Some(Arc::new(session)) })
    }

    /// What only the two ends of this session know; empty without TLS.
    pub fn binding(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |session| &session.binding)
    }

    /// The socket, for its settings alone.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The same connection once more.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Channel { socket: self.socket.try_clone()?, session: self.session.clone() })
    }

    /// No farewell of TLS: what is said over a channel says itself when it is whole.
    pub fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        self.socket.shutdown(how)
    }

    /// How long a read may wait.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// How long a write may wait.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.socket.set_write_timeout(timeout)
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match &self.session {
            None => self.socket.read(into),
            Some(session) => session.read(&mut self.socket, into),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &self.session {
            None => self.socket.write(bytes),
            Some(session) => session.write(&mut self.socket, bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Session {
    fn read(&self, socket: &mut TcpStream, into: &mut [u8]) -> std::io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        let Incoming { buffer, at, end } = &mut *incoming;
        loop {
            {
                let mut state = lock(&self.state);
                loop {
                    match state.reader().read(into) {
                        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                        read => return read,
                    }
                    if *at == *end {
                        break;
                    }
                    let mut rest = &buffer[*at..*end];
                    *at += state.read_tls(&mut rest)?;
                    state.process_new_packets().map_err(|e| IoError::new(ErrorKind::InvalidData, e))?;
                }
            }
            (*at, *end) = (0, 0);
            *end = socket.read(buffer)?;
            if *end == 0 {
                return Ok(0);
            }
        }
    }

    fn write(&self, socket: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
        let mut outgoing = lock(&self.outgoing);
        outgoing.clear();
        let taken = {
            let mut state = lock(&self.state);
            let taken = state.writer().write(&bytes[..bytes.len().min(WRITE_BYTES_MAX)])?;
            while state.wants_write() {
                state.write_tls(&mut *outgoing)?;
            }
            taken
        };
        // A part that is sent leaves the session of no more use: the error ends the connection.
        socket.write_all(&outgoing)?;
        Ok(taken)
    }
}

fn not_set_up(error: rustls::Error) -> Error {
    Error::bug(format!("TLS cannot be set up: {error}"))
}

fn cryptography() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

/// A key of this moment, shown without a certificate.
fn server() -> Result<ServerConfig> {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| Error::external("the operating system gives no random bytes"))?;
    let key = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.as_ref())).map_err(not_set_up)?;
    let shown = key.public_key().ok_or_else(|| Error::bug("a key that cannot be shown"))?;
    let shown = vec![CertificateDer::from(shown.as_ref().to_vec())];
    let keys = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(shown, key)));
    let config = ServerConfig::builder_with_provider(cryptography()).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = config.map_err(not_set_up)?.with_no_client_auth().with_cert_resolver(Arc::new(keys));
    // No session is taken up again.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client() -> Result<ClientConfig> {
    let provider = cryptography();
    let anyone = Arc::new(AnyKey(provider.clone()));
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    Ok(config.map_err(not_set_up)?.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
}

/// Takes whatever key the other end has, if it really has it. Whether it is one of the job's processes is proved behind this,
/// by the secret and the session's binding.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// Both ends of a session.
    fn pair() -> (Channel, Channel) {
        let (one, two) = sockets();
        let accepted = std::thread::spawn(move || Channel::accept(two, true).unwrap());
        (Channel::connect(one, true).unwrap(), accepted.join().unwrap())
    }

    #[test]
    fn both_ends_send_and_receive_at_once_and_agree_on_the_binding() {
        let (one, two) = pair();
        assert_eq!(one.binding(), two.binding());
        assert_ne!(one.binding(), pair().0.binding(), "another session");
        let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::thread::scope(|scope| {
            for channel in [&one, &two] {
                let (mut writer, mut reader) = (channel.try_clone().unwrap(), channel.try_clone().unwrap());
                let sent = &sent;
                scope.spawn(move || {
                    writer.write_all(sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut got = Vec::new();
                    let ended = reader.read_to_end(&mut got);
                    assert!(ended.is_ok(), "{ended:?}");
                    assert!(got == *sent, "{} bytes", got.len());
                });
            }
        });
    }

    #[test]
    fn bytes_changed_on_the_way_are_an_error() {
        let (one, mut two) = pair();
        let state = one.session.as_ref().unwrap();
        let mut bytes = Vec::new();
        state.state.lock().unwrap().writer().write_all(b"a word").unwrap();
        state.state.lock().unwrap().write_tls(&mut bytes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        (&one.socket).write_all(&bytes).unwrap();
        assert_eq!(two.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn who_speaks_no_tls_is_refused() {
        let (mut one, two) = sockets();
        one.write_all(b"TMLK\x02 and no TLS").unwrap();
        let refused = Channel::accept(two, true).err().unwrap();
        assert!(refused.to_string().contains("TLS cannot be agreed on"), "{refused}");
    }
}
