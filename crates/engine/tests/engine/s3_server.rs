//! A real server that speaks S3 for tests (scripts/s3.sh), with its objects as files in a folder.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::free_port::free_port;

/// A server on loopback with a bucket `checkpoints`.
pub struct S3Server {
    folder: tempfile::TempDir,
    port: u16,
    script: Child,
    pid: String,
}

impl S3Server {
    /// The server all tests of this run share. It ends with the process.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(S3Server::start)
    }

    /// A server for one test.
    pub fn start() -> S3Server {
        let folder = tempfile::Builder::new().prefix("tidemill-s3").tempdir().unwrap();
        let port = free_port().unwrap();
        let (script, pid) = spawn(&folder, port);
        S3Server { folder, port, script, pid }
    }

    /// What a job must be told to find it.
    pub fn options(&self) -> BTreeMap<String, String> {
        let options = [
            ("endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("access_key_id", "tidemill".into()),
            ("secret_access_key", "tidemill-secret".into()),
        ];
        options.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// Where a job may keep its checkpoints.
    pub fn place(&self, prefix: &str) -> PathBuf {
        PathBuf::from(format!("s3://checkpoints/jobs/{prefix}"))
    }

    /// The objects below such a place, as files.
    pub fn files(&self, prefix: &str) -> PathBuf {
        self.folder.path().join("data/checkpoints/jobs").join(prefix)
    }

    /// Kills it with signal 9.
    pub fn kill(&mut self) {
        let killed = Command::new("kill").args(["-9", &self.pid]).status().unwrap();
        assert!(killed.success(), "kill -9 {}", self.pid);
        self.end_script();
    }

    /// Starts it again where it was, on the data it left.
    pub fn restart(&mut self) {
        (self.script, self.pid) = spawn(&self.folder, self.port);
    }

    fn end_script(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.end_script();
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16) -> (Child, String) {
    let script = [env!("CARGO_MANIFEST_DIR"), "../../scripts/s3.sh"].iter().collect::<PathBuf>();
    let mut child = Command::new("bash")
        .arg(script.canonicalize().unwrap())
        .arg("run")
        .arg(folder.path())
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // It says so, or it ends.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.strip_prefix("ready ").unwrap_or_else(|| panic!("the S3 server did not start")).trim().to_string();
    (child, pid)
}
