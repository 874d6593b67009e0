//! The bytes of a connection, in the open or through TLS (rustls), and what its failures mean.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use tidemill_core::{Error, Result};

use crate::authority::{certificates, roots, wrong_file};
use crate::kafka::security::KafkaTls;

/// Where requests go and answers come from.
pub enum Transport {
    Open(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// Begins to talk over a socket to `host:port`.
    pub fn begin(socket: TcpStream, address: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Transport> {
        let Some(config) = tls else { return Ok(Transport::Open(socket)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| Error::input(format!("`{host}` is no name a certificate could be made out to")))?;
        let connection = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| Error::bug(format!("TLS cannot begin: {error}")))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| {
                let hung_up = error.kind() == io::ErrorKind::UnexpectedEof;
                let failed = failure(address, "agree with", error);
                // A listener without TLS hangs up, and so does a broker that ends.
                if hung_up { failed.hint("if it always does: see that this port speaks TLS") } else { failed }
            })?;
        }
        Ok(Transport::Tls(Box::new(stream)))
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Open(stream) => stream.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Transport::Open(stream) => stream.read_to_end(buffer),
            Transport::Tls(stream) => stream.read_to_end(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Open(stream) => stream.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Open(stream) => stream.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

/// What a failure of a connection means: what TLS refuses, nobody mends by trying again; everything else may come back.
pub fn failure(address: &str, doing: &str, error: io::Error) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return Error::external(format!("the connection to the Kafka broker `{address}` broke: {error}"));
    };
    let refused = |why: String, hint: &str| Error::input(why).hint(hint.to_string());
    match tls {
        rustls::Error::InvalidCertificate(reason) => {
            let (what, hint) = meaning(reason);
            refused(format!("the certificate of the Kafka broker `{address}` is not accepted: {what}"), hint)
        }
        rustls::Error::AlertReceived(alert) => refused(
            format!("the Kafka broker `{address}` refuses to talk: its TLS says {alert:?}"),
            "it may want a certificate of this job (`ssl.keystore.location`), or another one than it was shown",
        ),
        rustls::Error::InvalidMessage(_) => refused(
            format!("the Kafka broker `{address}` does not speak TLS there"),
            "name the port of its TLS listener, or set `security.protocol` to what this port speaks",
        ),
        other => Error::external(format!("cannot {doing} the Kafka broker `{address}` through TLS: {other}")),
    }
}

/// What a refused certificate has, and what to do.
fn meaning(reason: &CertificateError) -> (String, &'static str) {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("it has expired".into(), "give the broker a new certificate, and see that this machine's clock is right")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("it is not valid yet".into(), "see that this machine's clock is right")
        }
        CertificateError::UnknownIssuer => (
            "nobody this job believes has signed it".into(),
            "name the authority's certificate, a PEM file, with `ssl.truststore.location`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "it was made out to another host".into(),
            "name the broker as its certificate does; its `advertised.listeners` decide that, too",
        ),
        other => (format!("{other:?}"), "look at it with `openssl s_client -connect`"),
    }
}

/// What TLS works by; files are read here.
pub fn config(tls: &KafkaTls) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(tls.ca_file.as_deref())?);
    let failed = |error: &dyn std::fmt::Display| Error::input(format!("TLS for Kafka cannot be set up: {error}"));
    let checked = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| failed(&error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match tls.any_host {
        true => Arc::new(AnyHost(checked)),
        false => checked,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.client_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (chain, key) = identity(path)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong_file(path, &error))?
        }
    };
    Ok(Arc::new(config))
}

fn identity(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| {
        wrong_file(path, &error).hint("it needs the private key and the chain of certificates, both as PEM")
    })?;
    Ok((certificates(path)?, key))
}

/// Checks everything but whom a certificate was made out to.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        // The name is looked at last, so nothing else can be wrong then.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
