//! A sink into the server's live tables: the newest row of each key, seen by pages within moments.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tidemill_core::sink::{Sink, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result};
use ureq::Agent;

use crate::authority::{SERVER_CA, trusting};
use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};

/// How long one request may take before it is tried again.
const TIMEOUT: Duration = Duration::from_secs(10);

type RowOf<T> = Arc<dyn Fn(&T) -> (String, Option<Value>) + Send + Sync>;

/// A row: its key, and its value or `None` to delete it.
type Row = (String, Option<Value>);

/// Posts rows to `POST {server}/api/live/{table}`. One request is on its way at a time; what comes meanwhile goes with
/// the next, of each key only the newest row. While the server is away it is tried again and again, under backpressure. A
/// checkpoint waits until all before it was acknowledged; rows are upserts, so rows sent again change nothing.
pub struct LiveSink<T> {
    server: String,
    token: String,
    table: String,
    row: RowOf<T>,
    options: BufferOptions,
}

impl<T> LiveSink<T> {
    /// Into `table` of the server at `server` (`TIDEMILL_SERVER`, such as `http://127.0.0.1:8081`), which asks for
    /// `token` (`TIDEMILL_TOKEN`). A certificate is checked by the authorities in the file `TIDEMILL_SERVER_CA`, or else by
    /// the system's. `row` gives a record's key and value; the value `None` deletes the row.
    pub fn new(
        server: impl Into<String>,
        token: impl Into<String>,
        table: impl Into<String>,
        row: impl Fn(&T) -> (String, Option<Value>) + Send + Sync + 'static,
    ) -> Self {
        LiveSink {
            server: server.into().trim_end_matches('/').to_string(),
            token: token.into(),
            table: table.into(),
            row: Arc::new(row),
            options: BufferOptions::default(),
        }
    }

    /// The bounds of queue, batches and new tries.
    pub fn options(mut self, options: BufferOptions) -> Self {
        self.options = options;
        self
    }

    fn title(&self) -> String {
        format!("live table `{}`", self.table)
    }
}

impl<T: 'static> Sink<T> for LiveSink<T> {
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.table.is_empty() || !self.table.chars().all(plain) {
            return Err(Error::input(format!("`{}` is no name for a live table", self.table))
                .hint("use letters, digits, `.`, `_`, `-`"));
        }
        let authority = std::env::var_os(SERVER_CA).map(PathBuf::from);
        let tls = trusting(authority.as_deref()).map_err(|e| e.context(self.title()))?;
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        let deliver = LiveDeliver {
            agent,
            url: format!("{}/api/live/{}", self.server, self.table),
            token: self.token.clone(),
            title: self.title(),
            job: context.scope.job_id.clone(),
            writer: format!("{}/{}", context.scope.uid, context.subtask),
            epoch: context.epoch,
        };
        let buffer = Buffered::start(&self.title(), context.waker, self.options, deliver)?;
        let row = Arc::clone(&self.row);
        let convert = move |_, record: T, items: &mut Vec<Row>| {
            items.push(row(&record));
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, convert)))
    }
}

#[derive(Serialize)]
struct Body<'a> {
    job: &'a str,
    writer: &'a str,
    epoch: u64,
    rows: Vec<BodyRow<'a>>,
}

#[derive(Serialize)]
struct BodyRow<'a> {
    key: &'a str,
    value: &'a Option<Value>,
}

struct LiveDeliver {
    agent: Agent,
    url: String,
    token: String,
    title: String,
    job: String,
    writer: String,
    /// The epoch that is open.
    epoch: u64,
}

/// The newest row of each key, in the order of those rows.
fn newest(items: &[Row]) -> Vec<BodyRow<'_>> {
    let last: HashMap<&str, usize> = items.iter().enumerate().map(|(at, (key, _))| (key.as_str(), at)).collect();
    let kept = items.iter().enumerate().filter(|(at, (key, _))| last.get(key.as_str()) == Some(at));
    kept.map(|(_, (key, value))| BodyRow { key, value }).collect()
}

impl Deliver for LiveDeliver {
    type Item = Row;

    fn deliver(&mut self, items: &[Row]) -> Result<()> {
        let body = Body { job: &self.job, writer: &self.writer, epoch: self.epoch, rows: newest(items) };
        // Not ureq's own JSON: that is spread over lines, and the server keeps values as they come.
        let body = serde_json::to_vec(&body)
            .map_err(|e| Error::input(format!("{}: a row cannot be written as JSON: {e}", self.title)))?;
        let request = self.agent.post(&self.url).header("x-tidemill-token", &self.token);
        let sent = request.content_type("application/json").send(&body[..]);
        let mut response = match sent {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Err(Error::input(format!("{}: {error} in `{}`", self.title, self.url)));
            }
            Err(error) => return Err(Error::external(format!("cannot reach `{}`: {error}", self.url))),
        };
        let status = response.status().as_u16();
        // Read to the end, so that the connection is used again.
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let refused = || format!("{}: the server answered {status}: {}", self.title, text.trim());
        match status {
            200..=299 => Ok(()),
            408 | 429 | 500..=599 => Err(Error::external(refused())),
            401 | 403 => Err(Error::input(refused()).hint("give the sink the server's token (TIDEMILL_TOKEN)")),
            _ => Err(Error::input(refused())),
        }
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        self.epoch = epoch + 1;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_newest_row_stays() {
        let row = |key: &str, value: Option<i32>| (key.to_string(), value.map(Value::from));
        let rows = [row("a", Some(1)), row("b", Some(2)), row("a", Some(3)), row("c", Some(4)), row("c", None)];
        let kept: Vec<_> = newest(&rows).iter().map(|row| (row.key, row.value.clone())).collect();
        assert_eq!(kept, [("b", Some(Value::from(2))), ("a", Some(Value::from(3))), ("c", None)]);
    }
}
