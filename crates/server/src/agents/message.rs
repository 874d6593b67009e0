//! What an agent and the server say to each other: JSON bodies, each with a MAC made with the join secret, which itself is
//! never sent. A beat names the server's present boot and a number that only grows, so an old one is worth nothing;
//! an answer names the beat it answers.

use std::path::Path;

use ring::hmac;
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

use crate::jobs::spec::JobSpec;

/// The header that carries the MAC, as hexadecimal digits.
pub const MAC_HEADER: &str = "x-tidemill-mac";

/// The shortest join secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The processes an agent may report.
pub const PROCESSES_MAX: usize = 256;

/// What servers and agents of one installation know.
#[derive(Clone)]
pub struct JoinSecret(hmac::Key);

impl std::fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

impl JoinSecret {
    /// A secret of at least 16 bytes.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() < SECRET_BYTES_MIN {
            return Err(Error::input(format!("the join secret must have at least {SECRET_BYTES_MIN} characters"))
                .hint("make one with `openssl rand -hex 32`"));
        }
        Ok(JoinSecret(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// The secret in a file, without white space around it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io(format!("read the join secret from `{}`", path.display()), e))?;
        JoinSecret::new(text.trim()).map_err(|e| e.context(format!("`{}`", path.display())))
    }

    /// The MAC of a body; `kind` keeps beats and answers apart.
    pub fn sign(&self, kind: &str, body: &[u8]) -> String {
        hex(hmac::sign(&self.0, &[kind.as_bytes(), b"\n", body].concat()).as_ref())
    }

    /// Whether `mac` is that of the body.
    pub fn verify(&self, kind: &str, body: &[u8], mac: &str) -> bool {
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let Some(mac) = mac.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>() else { return false };
        hmac::verify(&self.0, &[kind.as_bytes(), b"\n", body].concat(), &mac).is_ok()
    }

    /// The secret of one start of one job, which its processes show each other.
    pub fn of_job(&self, job: &str, generation: u64) -> String {
        self.sign("job", format!("{job} {generation}").as_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kind of a beat, for its MAC.
pub const BEAT: &str = "beat";
/// The kind of an answer.
pub const ANSWER: &str = "answer";

/// An agent's sign of life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// The agent's name, its own in the installation.
    pub name: String,
    /// The server's boot, as its last answer said; empty in the first beat.
    pub boot: String,
    /// The newest term of a server it has heard of; see `lease`.
    pub term: u64,
    /// Grows from beat to beat.
    pub number: u64,
    /// Workers it has room for.
    pub slots: usize,
    /// The address its processes are reached at.
    pub host: String,
    /// Ports nobody listens on.
    pub ports: Vec<u16>,
    /// What it runs, or has run and was told to.
    pub processes: Vec<ProcessState>,
}

/// A process of a job on an agent's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// The job.
    pub job: String,
    /// Which start of it.
    pub generation: u64,
    /// Which process of it.
    pub process: usize,
    /// How it ended, or why it could not be started; `None` while it runs.
    pub ended: Option<String>,
}

/// The server's answer to a beat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The server's boot: random, new at each start. An answer with another boot than the beat's is only that.
    pub boot: String,
    /// The server's term: an agent that has heard of a newer one leaves the answer alone.
    pub term: u64,
    /// The beat it answers.
    pub number: u64,
    /// What the agent is to run; what else it runs, it ends. `None`: the beat was not taken, nothing changes.
    pub assignments: Option<Vec<Assignment>>,
}

/// A process an agent is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// The job.
    pub job: String,
    /// What it is started with.
    pub spec: JobSpec,
    /// Where its processes are.
    pub start: Start,
    /// Which of them.
    pub process: usize,
}

/// Where the processes of one start of a job are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which start of the job.
    pub generation: u64,
    /// The job's parallelism.
    pub parallelism: usize,
    /// Slots of all processes together; 0 in records of servers that did not count them.
    #[serde(default)]
    pub slots: usize,
    /// `host:port` of each process.
    pub addresses: Vec<String>,
    /// Whether they speak to each other by TLS.
    #[serde(default)]
    pub tls: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_secret_can_sign() {
        let (ours, other) =
            (JoinSecret::new("0123456789abcdef").unwrap(), JoinSecret::new("0123456789abcdeX").unwrap());
        let mac = ours.sign(BEAT, b"body");
        assert!(ours.verify(BEAT, b"body", &mac));
        assert!(!ours.verify(BEAT, b"bodx", &mac) && !ours.verify(ANSWER, b"body", &mac));
        assert!(!other.verify(BEAT, b"body", &mac));
        for mac in ["", "zz", "0", "é", &mac[2..]] {
            assert!(!ours.verify(BEAT, b"body", mac), "{mac}");
        }
        assert!(JoinSecret::new("short").is_err());
        assert_ne!(ours.of_job("a", 1), ours.of_job("a", 2));
    }
}
