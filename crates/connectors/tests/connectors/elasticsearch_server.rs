//! A real OpenSearch for tests: one shared by a test run, or one of a test's own; and a plain client to look into it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;

use crate::free_port::free_port;

/// It is there in ten seconds, on a busy machine in more.
const START: Duration = Duration::from_secs(300);

/// A server on loopback with its data in a folder.
pub struct OpenSearch {
    folder: tempfile::TempDir,
    port: u16,
    script: Child,
    pid: String,
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/opensearch.sh"));
    command
}

impl OpenSearch {
    /// The server all tests of this run share; it ends with the process. `None`, with a line on standard error, where it
    /// has not been fetched.
    pub fn shared() -> Option<&'static OpenSearch> {
        static SHARED: OnceLock<Option<OpenSearch>> = OnceLock::new();
        SHARED.get_or_init(|| OpenSearch::launch(true)).as_ref()
    }

    /// A server for one test.
    pub fn start() -> Option<OpenSearch> {
        OpenSearch::launch(false)
    }

    fn launch(temporary: bool) -> Option<OpenSearch> {
        if !script().arg("installed").status().is_ok_and(|status| status.success()) {
            eprintln!(
                "SKIPPED: OpenSearch is not there (scripts/opensearch.sh folder), so its sink is not tested with it"
            );
            return None;
        }
        let folder = tempfile::Builder::new().prefix("tidemill-opensearch").tempdir().unwrap();
        let port = free_port().unwrap();
        let (script, pid) = spawn(&folder, port, temporary);
        Some(OpenSearch { folder, port, script, pid })
    }

    /// Where it is to be found.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it with signal 9.
    pub fn kill(&mut self) {
        let killed = Command::new("kill").args(["-9", &self.pid]).status().unwrap();
        assert!(killed.success(), "kill -9 {}", self.pid);
        self.end_script();
    }

    /// Starts it again where it was, on the data it left.
    pub fn restart(&mut self) {
        (self.script, self.pid) = spawn(&self.folder, self.port, false);
    }

    /// Asks it for something: the status and the answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}/{path}", self.url()));
        let request = request.header("content-type", "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let mut answer = agent.run(request.body(body).unwrap()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or_default())
    }

    /// A document of an index; `None` when it is not there.
    pub fn document(&self, index: &str, id: &str) -> Option<Value> {
        let (status, answer) = self.ask("GET", &format!("{index}/_doc/{id}"), None);
        (status == 200).then(|| answer["_source"].clone())
    }

    /// All documents of an index, by `sort`; 10000 at most.
    pub fn documents(&self, index: &str, sort: &str) -> Vec<Value> {
        let (status, answer) = self.ask("POST", &format!("{index}/_refresh"), None);
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = self.ask("GET", &format!("{index}/_search?size=10000&sort={sort}"), None);
        assert_eq!(status, 200, "{answer}");
        let hits = answer["hits"]["hits"].as_array().unwrap();
        hits.iter().map(|hit| hit["_source"].clone()).collect()
    }

    fn end_script(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        self.end_script();
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16, temporary: bool) -> (Child, String) {
    let mut child = script()
        .arg("run")
        .arg(folder.path())
        .arg(port.to_string())
        .env("OPENSEARCH_TEMPORARY", if temporary { "yes" } else { "no" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = said.read_line(&mut line);
        let _ = tell.send(line);
    });
    let line = told.recv_timeout(START).expect("opensearch is ready in time");
    let pid = line.trim().strip_prefix("ready ").expect("opensearch starts; see above why not").to_string();
    (child, pid)
}
