//! Results to an HTTP endpoint: webhooks, alerts to chat robots and mail gateways, services without a client library.
//!
//! At least once: a checkpoint waits until the endpoint has answered for every record before it, and after a restart those
//! since the last checkpoint are sent again. With one request at a time (the default) they arrive in order.
//!
//! Three kinds of answers: what may pass (no connection, no answer in time, 408, 425, 429, 5xx) is tried again under
//! backpressure; what is about the address or the right to it (3xx, 401, 403, 404, 405, 410) fails the job, since no
//! record would arrive; any other 4xx is about the record, which fails the job unless [`HttpSink::on_refused`] takes it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidemill_core::sink::{Sink, SinkWriter, WriterContext};
use tidemill_core::{DeadLetter, Error, Kind, Result};
use ureq::http::Uri;

use crate::async_sink::{AsyncSink, AsyncSinkOptions, Submit};
use crate::endpoint::{Client, Refused, address};

/// An answer may take so long unless the sink says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// So much of an answer is read, for the reason of a refusal.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

type Body<T> = Arc<dyn Fn(&T) -> Result<Vec<u8>> + Send + Sync>;

/// Posts records to an HTTP endpoint.
pub struct HttpSink<T> {
    endpoint: Endpoint,
    options: AsyncSinkOptions,
    body: Body<T>,
}

/// Where bodies go, and how.
#[derive(Clone)]
struct Endpoint {
    url: String,
    headers: Vec<(String, String)>,
    content_type: String,
    batched: bool,
    timeout: Duration,
    refused: Option<Refused>,
}

impl<T: Serialize + 'static> HttpSink<T> {
    /// Each record as JSON, one a request.
    pub fn json(url: impl Into<String>) -> Self {
        Self::new(url, |record| {
            serde_json::to_vec(record).map_err(|e| Error::input(format!("a record cannot be written as JSON: {e}")))
        })
    }
}

impl<T: 'static> HttpSink<T> {
    /// One record a request, with the body that `body` makes of it. It is said to be JSON: see [`HttpSink::content_type`].
    pub fn new(url: impl Into<String>, body: impl Fn(&T) -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        let endpoint = Endpoint {
            url: url.into(),
            headers: Vec::new(),
            content_type: "application/json".to_string(),
            batched: false,
            timeout: TIMEOUT,
            refused: None,
        };
        HttpSink { endpoint, options: AsyncSinkOptions::default(), body: Arc::new(body) }
    }

    /// Many records a request, as a JSON array; the bodies must be JSON. Where the endpoint refuses an array, its records go
    /// again in arrays of one, so that only bad ones are refused.
    pub fn batched(mut self) -> Self {
        self.endpoint.batched = true;
        self
    }

    /// A header of each request, such as `authorization`. Its value is never shown.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.endpoint.headers.push((name.into(), value.into()));
        self
    }

    /// What the bodies are; default `application/json`.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.endpoint.content_type = content_type.into();
        self
    }

    /// How long an answer may take before the request is tried again; default 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.timeout = timeout;
        self
    }

    /// Batches, requests at once, queue and new tries.
    pub fn options(mut self, options: AsyncSinkOptions) -> Self {
        self.options = options;
        self
    }

    /// What becomes of a record the endpoint refuses: `take` gets it with the reason, on a sending thread, and the sink goes
    /// on. It may get one again after a restart. Without this the first one fails the job.
    pub fn on_refused(mut self, take: impl Fn(DeadLetter) -> Result<()> + Send + Sync + 'static) -> Self {
        self.endpoint.refused = Some(Arc::new(take));
        self
    }
}

impl Endpoint {
    /// The endpoint without what may be secret: robots of chat services have their token in the query or the path.
    fn title(&self) -> String {
        let host = self.url.parse::<Uri>().ok().and_then(|url| url.authority().map(|at| at.host().to_string()));
        format!("http endpoint at `{}`", host.unwrap_or_default())
    }

    fn poster(&self) -> Result<Poster> {
        address("http", &self.url)?;
        let title = self.title();
        let content_type = ("content-type".to_string(), self.content_type.clone());
        let headers = std::iter::once(content_type).chain(self.headers.iter().cloned()).collect();
        let client = Client::new(&title, headers, self.timeout, None)?;
        Ok(Poster { client, title, endpoint: self.clone() })
    }
}

impl<T: 'static> Sink<T> for HttpSink<T> {
    fn name(&self) -> String {
        self.endpoint.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let (endpoint, body) = (self.endpoint.clone(), Arc::clone(&self.body));
        let convert = move |_, record: T, entries: &mut Vec<Vec<u8>>| {
            entries.push(body(&record)?);
            Ok(())
        };
        AsyncSink::new(self.name(), self.options, move |_: &WriterContext| endpoint.poster(), convert).writer(context)
    }
}

/// Sends the bodies of one request at a time.
struct Poster {
    client: Client,
    title: String,
    endpoint: Endpoint,
}

/// What the endpoint said of a body.
enum Answer {
    Taken,
    Refused(String),
}

impl Poster {
    fn post(&self, body: &[u8]) -> Result<Answer> {
        let answer = self.client.post(&self.title, &self.endpoint.url, body, ANSWER_BYTES_MAX)?;
        let (status, reason) = (answer.status, answer.reason());
        let said = format!("the {} answered {status}: {reason}", self.title);
        match status {
            200..=299 => Ok(Answer::Taken),
            408 | 425 | 429 | 500..=599 => Err(Error::external(said)),
            401 | 403 => Err(Error::input(said).hint("give the sink the header the endpoint asks for")),
            404 | 405 | 410 => Err(Error::input(said).hint("correct the sink's URL")),
            400..=499 => Ok(Answer::Refused(said)),
            _ => Err(Error::input(said).hint("name the address that answers itself; redirects are not followed")),
        }
    }

    /// A body that was refused.
    fn refuse(&self, body: &[u8], reason: String) -> Result<()> {
        match &self.endpoint.refused {
            Some(take) => take(DeadLetter::new(&self.title, "", reason, body)),
            None => {
                Err(Error::input(reason).hint("let `on_refused` take such records, or send what the endpoint wants"))
            }
        }
    }

    fn post_one(&self, body: &[u8]) -> Result<()> {
        match self.post(body)? {
            Answer::Taken => Ok(()),
            Answer::Refused(reason) => self.refuse(body, reason),
        }
    }

    /// Bodies one by one: the indices of those that are left when one could not be sent for now.
    fn post_each(bodies: &[Vec<u8>], post: impl Fn(&[u8]) -> Result<()>) -> Result<Vec<usize>> {
        for (index, body) in bodies.iter().enumerate() {
            match post(body) {
                Ok(()) => {}
                // Those before it have arrived. An error would send them again.
                Err(error) if index > 0 && matches!(error.kind(), Kind::External | Kind::Full) => {
                    return Ok((index..bodies.len()).collect());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}

/// Bodies as a JSON array.
fn array<'a>(bodies: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let bodies: Vec<&[u8]> = bodies.into_iter().collect();
    [b"[".as_slice(), &bodies.join(&b','), b"]"].concat()
}

impl Submit for Poster {
    type Entry = Vec<u8>;

    fn bytes(&self, entry: &Vec<u8>) -> usize {
        entry.len()
    }

    fn submit(&mut self, entries: &[Vec<u8>]) -> Result<Vec<usize>> {
        if !self.endpoint.batched {
            return Self::post_each(entries, |body| self.post_one(body));
        }
        match self.post(&array(entries.iter().map(Vec::as_slice)))? {
            Answer::Taken => Ok(Vec::new()),
            // Which of them it is about, only they alone can tell.
            Answer::Refused(_) if entries.len() > 1 => {
                Self::post_each(entries, |body| match self.post(&array([body]))? {
                    Answer::Taken => Ok(()),
                    Answer::Refused(reason) => self.refuse(body, reason),
                })
            }
            Answer::Refused(reason) => {
                entries.iter().try_for_each(|body| self.refuse(body, reason.clone())).map(|()| Vec::new())
            }
        }
    }
}
