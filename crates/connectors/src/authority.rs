//! Whom clients of a server believe its certificate.

use std::path::Path;

use tidemill_core::{Error, Result};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The variable that names a file of authorities for the connection to the server, PEM; without it the system's count.
pub const SERVER_CA: &str = "TIDEMILL_SERVER_CA";

/// TLS of a client: by the authorities of a file in PEM form, or else by the system's. An error names a file that cannot be
/// read or holds no certificate.
pub fn trusting(authority: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = authority else {
        return Ok(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
    };
    let text = std::fs::read(path).map_err(|e| Error::io(format!("read the authorities `{}`", path.display()), e))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(Error::input(format!("the authorities `{}` cannot be read: {e}", path.display()))),
        }
    }
    if certificates.is_empty() {
        return Err(Error::input(format!("the file of authorities `{}` holds no certificate", path.display()))
            .hint("give certificates in PEM form"));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}
