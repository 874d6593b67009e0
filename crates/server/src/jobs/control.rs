//! Talks to a job process over its control socket: one JSON line out, one JSON line in, each with a deadline.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::report::Report;
use tidemill_core::{Error, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The socket's name in the job's folder.
pub const SOCKET: &str = "control.sock";
/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long a report may take.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a cancel request may take to be acknowledged.
const CANCEL_DEADLINE: Duration = Duration::from_secs(2);
/// How long a savepoint may take.
const SAVEPOINT_DEADLINE: Duration = Duration::from_secs(600);
/// Socket paths longer than this do not fit into a Unix address (108 bytes with the closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The job's report.
pub async fn report(dir: &Path) -> Result<Report> {
    let answer = ask(dir, &json!({"op": "report"}), REPORT_DEADLINE).await?;
    serde_json::from_value(answer).map_err(|e| Error::external(format!("the job's report cannot be read: {e}")))
}

/// Takes a savepoint; with `stop` the process ends behind it, with `drain` after firing what is left. Its folder.
pub async fn savepoint(dir: &Path, stop: bool, drain: bool) -> Result<String> {
    let request = json!({"op": "savepoint", "dir": null, "stop": stop, "drain": drain});
    let answer = ask(dir, &request, SAVEPOINT_DEADLINE).await?;
    match (answer["ok"].as_bool(), answer["path"].as_str()) {
        (Some(true), Some(path)) => Ok(path.to_owned()),
        _ => Err(Error::external(format!("the job took no savepoint: {}", refusal(&answer)))),
    }
}

/// Asks the process to end without a savepoint.
pub async fn cancel(dir: &Path) -> Result<()> {
    let answer = ask(dir, &json!({"op": "cancel"}), CANCEL_DEADLINE).await?;
    if answer["ok"].as_bool() == Some(true) {
        return Ok(());
    }
    Err(Error::external(format!("the job refused to cancel: {}", refusal(&answer))))
}

fn refusal(answer: &Value) -> String {
    answer["error"].as_str().map_or_else(|| answer.to_string(), str::to_owned)
}

async fn ask(dir: &Path, request: &Value, deadline: Duration) -> Result<Value> {
    let asked = tokio::time::timeout(deadline, exchange(dir, request)).await;
    let line = match asked {
        Ok(Ok(line)) => line,
        Ok(Err(e)) => {
            return Err(Error::external(format!("the job's control socket does not answer: {e}")));
        }
        Err(_) => {
            return Err(Error::external(format!(
                "the job did not answer `{}` within {} s",
                request["op"],
                deadline.as_secs()
            )));
        }
    };
    serde_json::from_str(&line).map_err(|e| Error::external(format!("the job's answer is no JSON: {e}")))
}

async fn exchange(dir: &Path, request: &Value) -> std::io::Result<String> {
    let mut stream = connect(dir).await?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(line)
}

/// Connects to the socket. Where the path is too long for a Unix address, the way goes over an open folder.
async fn connect(dir: &Path) -> std::io::Result<UnixStream> {
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let folder = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())).await
}
