//! The control socket of a job process (docs/reference/job-process.md): one JSON object a line in, one out.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_core::{Error, Result};

use super::execute::JobHandle;

/// A request longer than this is refused.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    Report,
    Checkpoint,
    Savepoint {
        #[serde(default)]
        dir: Option<PathBuf>,
        #[serde(default)]
        stop: bool,
        #[serde(default)]
        drain: bool,
    },
    Cancel,
}

/// How long an ending job waits for answers that are being written.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(5);

/// Removes the socket file when the job ends, once those who asked have their answers: the process may be gone right
/// behind it, and a savepoint that stopped the job must not look like one that failed.
pub(crate) struct SocketFile {
    path: PathBuf,
    answering: Arc<Answering>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let requests = self.answering.lock();
        let _ = self.answering.changed.wait_timeout_while(requests, LAST_ANSWERS_MAX, |requests| *requests > 0);
    }
}

/// How many requests have no answer yet.
#[derive(Default)]
struct Answering {
    requests: Mutex<usize>,
    changed: Condvar,
}

impl Answering {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request until what is returned is dropped.
    fn begin(&self) -> impl Drop + '_ {
        struct Request<'a>(&'a Answering);
        impl Drop for Request<'_> {
            fn drop(&mut self) {
                *self.0.lock() -= 1;
                self.0.changed.notify_all();
            }
        }
        *self.lock() += 1;
        Request(self)
    }
}

/// Answers on `control.sock` in the job's folder until the process ends.
pub(crate) fn listen(job_dir: &Path, job: JobHandle) -> Result<SocketFile> {
    std::fs::create_dir_all(job_dir)
        .map_err(|e| Error::io(format!("make the job folder `{}`", job_dir.display()), e))?;
    let path = job_dir.join("control.sock");
    let _ = std::fs::remove_file(&path);
    // A socket's address has room for about a hundred bytes; through the folder's descriptor the path is always short.
    let listener = std::fs::File::open(job_dir)
        .and_then(|dir| UnixListener::bind(format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd())))
        .map_err(|e| Error::io(format!("listen on the control socket `{}`", path.display()), e))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| Error::io(format!("keep the control socket `{}` to its owner", path.display()), e))?;
    let job_dir = job_dir.to_path_buf();
    let answering: Arc<Answering> = Arc::default();
    let socket = SocketFile { path, answering: answering.clone() };
    spawn(move || {
        for connection in listener.incoming().flatten() {
            let (job, job_dir, answering) = (job.clone(), job_dir.clone(), answering.clone());
            // Each connection has its own thread: a savepoint may take long, and reports go on meanwhile.
            let _ = spawn(move || serve(connection, &job, &job_dir, &answering));
        }
    })?;
    Ok(socket)
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name("control".to_string())
        .spawn(run)
        .map(drop)
        .map_err(|e| Error::io("start the thread `control`", e))
}

fn serve(connection: UnixStream, job: &JobHandle, job_dir: &Path, answering: &Answering) {
    let Ok(reading) = connection.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(reading), connection);
    loop {
        let mut line = String::new();
        match std::io::Read::take(&mut reader, REQUEST_BYTES_MAX).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let request = answering.begin();
        let (answer, cancel) = answer(&line, job);
        // At once: a value writes itself in hundreds of pieces, each a call of the system.
        if writer.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
        drop(request);
        if cancel {
            job.discard_checkpoints();
            job.cancel_others();
            super::process::write_outcome(job_dir, "CANCELED", None);
            let _ = std::fs::remove_file(job_dir.join("control.sock"));
            std::process::exit(super::process::EXIT_CANCELLED);
        }
    }
}

fn answer(line: &str, job: &JobHandle) -> (Value, bool) {
    let done = |result: Result<PathBuf>| match result {
        Ok(path) => json!({"ok": true, "path": path}),
        Err(error) => json!({"ok": false, "error": error.to_string()}),
    };
    match serde_json::from_str(line) {
        Ok(Request::Report) => {
            (serde_json::to_value(job.report()).unwrap_or_else(|e| json!({"ok": false, "error": e.to_string()})), false)
        }
        Ok(Request::Checkpoint) => (done(job.checkpoint()), false),
        Ok(Request::Savepoint { dir, stop, drain }) => (done(job.savepoint(dir, stop, drain)), false),
        Ok(Request::Cancel) => (json!({"ok": true}), true),
        Err(e) => (json!({"ok": false, "error": format!("not a request: {e}")}), false),
    }
}
