//! Running the binary and looking at what it does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing in these tests takes longer, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// What a run of the binary left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// The run succeeded; what it printed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The run failed with this code and exactly one line that begins with `error: `; the rest of that line.
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((lines.len(), self.err.lines().last()), (1, lines.last().copied()), "{self:?}");
        lines[0]["error: ".len()..].to_owned()
    }
}

/// The binary, not started yet, with nothing of our own environment that it listens to.
pub fn tidemill(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMILL_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
pub fn run(args: &[&str]) -> Done {
    run_with(args, "")
}

/// Runs the binary to its end, with standard input.
pub fn run_with(args: &[&str], input: &str) -> Done {
    let mut child = tidemill(args).stdin(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    finish(child)
}

/// Waits for its end.
pub fn finish(child: Child) -> Done {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Sends SIGTERM.
pub fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

/// A folder with a short name (Unix sockets have short addresses).
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("c").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Writes a shell program.
pub fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Tries again until there is a result.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Some(done) => return done,
            None if Instant::now() > deadline => panic!("not in time: {what}"),
            None => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// A server or demo that runs until it is dropped.
pub struct Background {
    pub child: Child,
    pub lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Background {
    pub fn start(args: &[&str]) -> Background {
        let mut child = tidemill(args).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Background { child, lines }
    }

    /// The next line it prints.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("it prints a line").unwrap()
    }

    /// SIGTERM, and its exit code.
    pub fn end(mut self) -> i32 {
        terminate(&self.child);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            terminate(&self.child);
            let _ = self.child.wait();
        }
    }
}
