//! Whom clients of a server believe its certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
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

/// Whom to believe, for clients by rustls: a file's authorities, or those of the machine.
pub(crate) fn roots(authority: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong_file(path, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Error::input("this machine names no certificate authorities to believe")
                    .hint("name a PEM file of them"));
            }
        }
    }
    Ok(roots)
}

/// The certificates of a file in PEM form.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let found = found.map_err(|error| wrong_file(path, &error))?;
    match found.is_empty() {
        true => Err(wrong_file(path, &"there is no certificate in it").hint("it has to be PEM")),
        false => Ok(found),
    }
}

/// A file that TLS cannot use.
pub(crate) fn wrong_file(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::input(format!("`{}` cannot be taken for TLS: {error}", path.display()))
}

/// TLS by rustls that checks the server's certificate.
pub(crate) fn client_config(authority: Option<&Path>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::input(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots(authority)?).with_no_client_auth())
}
