//! The server's REST interface, as a client sees it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

/// An answer: status, body as JSON or text.
pub type Answer = (u16, Value);

#[derive(Clone)]
pub struct Http {
    agent: Agent,
    pub url: String,
}

impl Http {
    pub fn new(url: String) -> Http {
        Http::trusting(url, None)
    }

    /// Checks the server's certificate by the authorities of this file.
    pub fn trusting(url: String, authority: Option<&Path>) -> Http {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(tidemill::connectors::authority::trusting(authority).unwrap())
            // A server killed in between leaves connections that are dead.
            .max_idle_connections(0);
        Http { agent: config.build().new_agent(), url }
    }

    /// An error when nobody answers.
    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        read(self.agent.get(format!("{}{path}", self.url)).call())
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        read(self.agent.post(format!("{}{path}", self.url)).send_json(body)).unwrap()
    }

    /// Appends lines to a topic once, however often it is tried.
    pub fn append(&self, path: &str, lines: &[u8], once: &str) -> Result<Answer, String> {
        let request = self.agent.post(format!("{}{path}", self.url)).header("content-type", "application/x-ndjson");
        read(request.header("idempotency-key", once).send(lines))
    }
}

fn read(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = sent.map_err(|e| e.to_string())?;
    let text = response.body_mut().with_config().limit(256 << 20).read_to_string().map_err(|e| e.to_string())?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), body))
}
