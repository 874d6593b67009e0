//! What sinks over HTTP share: an address that is checked, an agent, headers nobody is shown, and answers with their reason.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{DeadLetter, Error, Result};
use ureq::Agent;
use ureq::http::{HeaderName, HeaderValue, Uri};

use crate::authority::trusting;

/// So many characters of an answer are told.
const REASON_CHARS: usize = 500;

/// Takes records that an endpoint refuses.
pub(crate) type Refused = Arc<dyn Fn(DeadLetter) -> Result<()> + Send + Sync>;

/// The address of a sink; `kind` is the sink's name. No error shows it: a token may be in it.
pub(crate) fn address(kind: &str, url: &str) -> Result<Uri> {
    let url: Uri = url.parse().map_err(|e| Error::input(format!("the URL of an {kind} sink is none: {e}")))?;
    match matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty()) {
        true => Ok(url),
        false => Err(Error::input(format!("the URL of an {kind} sink has no scheme or no host"))
            .hint("write http://host/path or https://host/path")),
    }
}

/// Posts bodies.
pub(crate) struct Client {
    agent: Agent,
    headers: Vec<(String, String)>,
}

/// What an endpoint answered.
pub(crate) struct Answer {
    pub status: u16,
    /// The body, or why it could not be read.
    pub text: Result<String, ureq::Error>,
}

impl Answer {
    /// The begin of the body.
    pub fn reason(&self) -> String {
        begin(self.text.as_deref().unwrap_or_default())
    }
}

/// As much of a reason as is told.
pub(crate) fn begin(text: &str) -> String {
    text.trim().chars().take(REASON_CHARS).collect()
}

/// Whether a certificate was not believed.
fn distrusts(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

impl Client {
    /// With the headers of each request, the time an answer may take, and a file of authorities in place of the system's.
    pub fn new(
        title: &str,
        headers: Vec<(String, String)>,
        timeout: Duration,
        authority: Option<&Path>,
    ) -> Result<Client> {
        let wrong = headers.iter().find(|(name, value)| {
            HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err()
        });
        if let Some((name, _)) = wrong {
            return Err(Error::input(format!("{title}: header `{name}` cannot be sent")));
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(trusting(authority)?)
            .build()
            .new_agent();
        Ok(Client { agent, headers })
    }

    /// Posts a body. Of the answer at most so many bytes are read. Without an answer: an error
    /// of `Kind::External`, but for a certificate that is not believed.
    pub fn post(&self, title: &str, url: &str, body: &[u8], answer_bytes_max: u64) -> Result<Answer> {
        let mut request = self.agent.post(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Err(Error::input(format!("{title}: {error}")));
            }
            Err(error) if distrusts(&error) => {
                return Err(Error::input(format!("cannot trust the {title}: {error}")).hint(
                    "the authority that signed its certificate must be one of the machine's, or the sink's own",
                ));
            }
            Err(error) => return Err(Error::external(format!("cannot reach the {title}: {error}"))),
        };
        let status = response.status().as_u16();
        // Read to the end, so that the connection is used again.
        let text = response.body_mut().with_config().limit(answer_bytes_max).read_to_string();
        Ok(Answer { status, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_believed_is_no_outage() {
        let of = |error: rustls::Error| ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        assert!(distrusts(&of(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired))));
        assert!(!distrusts(&of(rustls::Error::HandshakeNotComplete)));
        assert!(!distrusts(&ureq::Error::ConnectionFailed));
    }
}
