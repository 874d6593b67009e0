//! Speaks to a server: one place that turns its refusals into exit codes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;
use tidemill::connectors::authority::trusting;
use tidemill_core::Error;
use ureq::http;

use crate::failure::Failure;

/// How long a call may take: a savepoint is the longest.
const CALL_DEADLINE: Duration = Duration::from_secs(900);
/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How often the sign of life on the terminal moves.
const TICK: Duration = Duration::from_millis(100);

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server's address
    #[arg(long, env = "TIDEMILL_SERVER", hide_env_values = true, default_value = "http://127.0.0.1:8081")]
    pub server: String,
    /// The authorities, PEM, by which the server's certificate is checked [default: the system's]
    #[arg(long, env = "TIDEMILL_SERVER_CA", hide_env_values = true, value_name = "FILE")]
    pub server_ca: Option<PathBuf>,
    /// The administrator token, where the server wants one
    #[arg(long, env = "TIDEMILL_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

impl ServerArgs {
    /// Gets text.
    pub fn get_text(&self, path: &str) -> Result<String, Failure> {
        self.send("GET", path, None)
    }

    /// Gets JSON.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        parse(&self.get_text(path)?)
    }

    /// Posts JSON and gets JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        parse(&self.send("POST", path, Some(body))?)
    }

    /// Posts JSON and gets JSON; where somebody looks on, `doing` stands on the terminal until the answer comes.
    pub fn post_long(&self, doing: String, path: &str, body: &Value) -> Result<Value, Failure> {
        // Not shown where standard error is no terminal.
        let waiting = ProgressBar::new_spinner().with_message(doing);
        waiting.enable_steady_tick(TICK);
        let answer = self.post(path, body);
        waiting.finish_and_clear();
        answer
    }

    /// Deletes.
    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send("DELETE", path, None).map(|_| ())
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(trusting(self.server_ca.as_deref())?)
            .timeout_connect(Some(CONNECT_DEADLINE))
            .timeout_global(Some(CALL_DEADLINE))
            .build()
            .into();
        if !self.server.starts_with("http://") && !self.server.starts_with("https://") {
            let error = Error::input(format!("`{}` is no server address", self.server));
            return Err(error.hint("write it with `--server` as `http://host:port` or `https://host:port`").into());
        }
        let mut request =
            http::Request::builder().method(method).uri(format!("{}{path}", self.server.trim_end_matches('/')));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bad = |e: http::Error| Failure::from(Error::input(format!("`{}` is no server address: {e}", self.server)));
        let sent = match body {
            None => agent.run(request.body(()).map_err(bad)?),
            Some(body) => {
                agent.run(request.header("content-type", "application/json").body(body.to_string()).map_err(bad)?)
            }
        };
        let mut answer = sent.map_err(|e| {
            let text = format!(
                "the server at `{}` does not answer: {e}; start one with `tidemill serve`, or name it with `--server`",
                self.server
            );
            Failure::new(Failure::UNREACHABLE, text)
        })?;
        let text = answer.body_mut().read_to_string();
        let text =
            text.map_err(|e| Failure::new(Failure::UNREACHABLE, format!("the server's answer broke off: {e}")))?;
        if answer.status().is_success() {
            return Ok(text);
        }
        let said =
            serde_json::from_str::<Value>(&text).ok().and_then(|json| json["errors"][0].as_str().map(str::to_owned));
        let mut said = said.unwrap_or_else(|| format!("the server answered {}", answer.status()));
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            said += "; here it is given with `--token` or TIDEMILL_ADMIN_TOKEN";
        }
        Err(Failure::new(code(answer.status().as_u16()), said))
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    let bad =
        |e| Failure::new(Failure::FAILED, format!("the server's answer is no JSON: {e}; is it a tidemill server?"));
    serde_json::from_str(text).map_err(bad)
}

fn code(status: u16) -> u8 {
    match status {
        400 | 415 | 422 => Failure::USAGE,
        404 => Failure::NOT_FOUND,
        _ => Failure::FAILED,
    }
}
