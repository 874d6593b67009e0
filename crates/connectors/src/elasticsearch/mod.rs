//! Results as documents into Elasticsearch or OpenSearch, by their common `_bulk` API.
//!
//! At least once: a checkpoint waits until the server has answered for every action before it, and after a restart those
//! since the last checkpoint are sent again. With an id that changes nothing in the end.
//!
//! Actions on one document keep their order: one bulk at a time (the default); an action that has to be tried again takes
//! all behind it on the same document along; and what follows a bulk waits for it. Several bulks at once overtake each other,
//! so then actions with an id must have a [version](Action::version), by which the server itself passes over what is older.
//! Among subtasks there is no order: actions on one document come from one of them (`key_by`), or have a version.

mod action;
mod answer;
mod bulk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidemill_core::sink::{Sink, SinkWriter, WriterContext};
use tidemill_core::{DeadLetter, Error, Result};

use self::action::Entry;
pub use self::action::{Action, Document, RawJson};
use self::bulk::{Bulks, Host};
use crate::async_sink::{AsyncSink, AsyncSinkOptions};
use crate::endpoint::{Client, Refused, address};

/// An answer may take so long unless the sink says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Of an answer, what is asked for.
const ANSWER: &str =
    "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";

/// The bounds of bulks, as Flink's are: 1000 actions, 2 MiB or 1 s. As many as four bulks wait; else as
/// [`AsyncSinkOptions::default`].
pub fn bulk_options() -> AsyncSinkOptions {
    AsyncSinkOptions {
        batch_entries_max: 1000,
        batch_bytes_max: 2 << 20,
        batch_age_ms: 1000,
        queue_entries_max: 4000,
        ..Default::default()
    }
}

type Actions<T> = Arc<dyn Fn(&T, &mut Vec<Action>) + Send + Sync>;

/// Writes documents into Elasticsearch or OpenSearch.
pub struct ElasticsearchSink<T> {
    cluster: Cluster,
    options: AsyncSinkOptions,
    actions: Actions<T>,
}

/// Where bulks go, and how.
#[derive(Clone)]
struct Cluster {
    urls: Vec<String>,
    headers: Vec<(String, String)>,
    authority: Option<PathBuf>,
    timeout: Duration,
    refused: Option<Refused>,
}

impl<T: 'static> ElasticsearchSink<T> {
    /// `urls`: `http` or `https`, with a path where a proxy wants one; several, with commas between, are tried in turn.
    /// `actions` makes of a record an [`Action`], or several, or none.
    pub fn new<A: IntoIterator<Item = Action>>(
        urls: impl AsRef<str>,
        actions: impl Fn(&T) -> A + Send + Sync + 'static,
    ) -> Self {
        let cluster = Cluster {
            urls: urls.as_ref().split(',').map(|url| url.trim().to_string()).collect(),
            headers: Vec::new(),
            authority: None,
            timeout: TIMEOUT,
            refused: None,
        };
        let actions: Actions<T> = Arc::new(move |record, into| into.extend(actions(record)));
        ElasticsearchSink { cluster, options: bulk_options(), actions }
    }

    /// A user and the password. Neither is ever shown.
    pub fn basic_auth(self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        let login = STANDARD.encode(format!("{}:{}", user.as_ref(), password.as_ref()));
        self.header("authorization", format!("Basic {login}"))
    }

    /// An API key, in the encoded form the server gave out. It is never shown.
    pub fn api_key(self, key: impl AsRef<str>) -> Self {
        self.header("authorization", format!("ApiKey {}", key.as_ref()))
    }

    /// A header of each request. Its value is never shown.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.cluster.headers.push((name.into(), value.into()));
        self
    }

    /// A file of authorities, PEM, that vouch for the server in place of the system's.
    pub fn authority(mut self, file: impl Into<PathBuf>) -> Self {
        self.cluster.authority = Some(file.into());
        self
    }

    /// How long an answer may take before the bulk is sent again, possibly to another host; default 60 s. The server is told to
    /// give up waiting for shards in half of it, so that it rarely writes what was sent again already.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.cluster.timeout = timeout;
        self
    }

    /// Bulks, how many at once, the queue and new tries; default [`bulk_options`].
    pub fn options(mut self, options: AsyncSinkOptions) -> Self {
        self.options = options;
        self
    }

    /// What becomes of an action the server refuses: `take` gets its document with index, id and reason, on a sending thread,
    /// and the sink goes on. It may get one again after a restart. Without this the first one fails the job.
    pub fn on_refused(mut self, take: impl Fn(DeadLetter) -> Result<()> + Send + Sync + 'static) -> Self {
        self.cluster.refused = Some(Arc::new(take));
        self
    }
}

/// A host without what may be secret.
fn title(url: &str) -> String {
    let url = url.parse::<ureq::http::Uri>().ok();
    let place =
        url.as_ref().and_then(|url| url.authority()).map(|at| at.as_str().rsplit('@').next().unwrap_or_default());
    format!("elasticsearch at `{}`", place.unwrap_or_default())
}

impl Cluster {
    fn host(&self, url: &str) -> Result<Host> {
        let uri = address("elasticsearch", url)?;
        let title = title(url);
        if uri.query().is_some() || uri.authority().is_some_and(|at| at.as_str().contains('@')) {
            return Err(Error::input(format!("{title}: the URL has a query, a user or a password"))
                .hint("end it with the path, and give the sink a user by `basic_auth`"));
        }
        let wait_ms = (self.timeout.as_millis() / 2).max(1);
        Ok(Host { url: format!("{}/_bulk?{ANSWER}&timeout={wait_ms}ms", url.trim_end_matches('/')), title })
    }

    fn bulks(&self, context: &WriterContext) -> Result<Bulks> {
        let hosts = self.urls.iter().map(|url| self.host(url)).collect::<Result<Vec<Host>>>()?;
        let mut headers = vec![("content-type".to_string(), "application/x-ndjson".to_string())];
        headers.extend(self.headers.iter().cloned());
        let client = Client::new(&self.title(), headers, self.timeout, self.authority.as_deref())?;
        let at = context.subtask % hosts.len().max(1);
        Ok(Bulks { client, hosts, at, refused: self.refused.clone(), bytes_max: usize::MAX, body: Vec::new() })
    }

    fn title(&self) -> String {
        let first = self.urls.first().map(|url| title(url)).unwrap_or_default();
        match self.urls.len() {
            0 | 1 => first,
            hosts => format!("{first} and {} more", hosts - 1),
        }
    }
}

impl<T: 'static> Sink<T> for ElasticsearchSink<T> {
    fn name(&self) -> String {
        self.cluster.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let (cluster, actions) = (self.cluster.clone(), Arc::clone(&self.actions));
        let ordered = self.options.requests_max <= 1;
        let convert = move |_, record: T, entries: &mut Vec<Entry>| {
            let mut made = Vec::new();
            actions(&record, &mut made);
            for action in made {
                let entry = Entry::new(action)?;
                if !(ordered || entry.versioned || entry.id.is_none()) {
                    return Err(Error::input(format!(
                        "`{}` has no version, and several bulks at once keep no order",
                        entry.place()
                    ))
                    .hint("give actions with an id a `version`, or take `requests_max: 1`"));
                }
                entries.push(entry);
            }
            Ok(())
        };
        AsyncSink::new(self.name(), self.options, move |context: &WriterContext| cluster.bulks(context), convert)
            .writer(context)
    }
}
