//! A job's output file: bounded, readable from its end, and locked by the job's process for as long as it lives.
//!
//! The process writes to the file itself (not to a pipe of the server), so it outlives a killed server. The open file
//! carries a lock that goes with it into the process: whoever gets the lock knows that no process of the job is left.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tidemill_core::{Error, Result};

/// The file's name in the job's folder; one older part is kept as `job.log.1`.
pub const LOG: &str = "job.log";
const OLDER: &str = "job.log.1";
/// When the file is longer, it is moved aside, in bytes.
pub const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the end is read for `tail` and error lines, in bytes.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// Opens the file for a new process and locks it. `Kind::External` when a process of the job still lives.
pub fn open_for_process(dir: &Path) -> Result<File> {
    let path = dir.join(LOG);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| Error::io(format!("open `{}`", path.display()), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::external("another process of this job still runs")
            .hint(format!("it holds `{}` open; end it and the job starts again", path.display()))),
        Err(std::fs::TryLockError::Error(e)) => Err(Error::io(format!("lock `{}`", path.display()), e)),
    }
}

/// Whether some process of the job still lives.
pub fn in_use(dir: &Path) -> bool {
    match File::open(dir.join(LOG)) {
        Ok(file) => matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Its length in bytes; 0 when absent.
pub fn length(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(LOG)).map_or(0, |meta| meta.len())
}

/// Moves the contents aside when the file is longer than `bytes_max`. The process goes on writing to the same file.
pub fn rotate(dir: &Path, bytes_max: u64) -> Result<bool> {
    if length(dir) <= bytes_max {
        return Ok(false);
    }
    let path = dir.join(LOG);
    let rotated =
        std::fs::copy(&path, dir.join(OLDER)).and_then(|_| OpenOptions::new().write(true).open(&path)?.set_len(0));
    rotated.map_err(|e| Error::io(format!("rotate `{}`", path.display()), e))?;
    Ok(true)
}

/// The last `lines` lines, at most 4 MiB.
pub fn tail(dir: &Path, lines: usize) -> Result<String> {
    let mut text = read_end(&dir.join(LOG), 0)?;
    if text.lines().count() < lines {
        text = read_end(&dir.join(OLDER), 0)? + &text;
    }
    let skip = text.lines().count().saturating_sub(lines);
    let mut kept: String = text.lines().skip(skip).collect::<Vec<_>>().join("\n");
    if !kept.is_empty() {
        kept.push('\n');
    }
    Ok(kept)
}

/// Why the process that began writing at `from` ended, as far as its output tells: the last `error:` line, else the
/// last panic message.
pub fn last_error(dir: &Path, from: u64) -> Option<String> {
    let text = read_end(&dir.join(LOG), from).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    if let Some(line) = lines.iter().rev().find_map(|line| line.strip_prefix("error: ")) {
        return Some(line.to_owned());
    }
    let at = lines.iter().rposition(|line| line.starts_with("thread ") && line.contains("panicked at"))?;
    let said = lines.get(at + 1).copied().unwrap_or_default();
    Some(format!("{} {said}", lines.get(at)?).trim().to_owned())
}

/// The file's text from `from` on, at most its last [`TAIL_BYTES_MAX`]; empty when absent. A file shorter than `from`
/// has been rotated in between and is read from its beginning.
fn read_end(path: &Path, from: u64) -> Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(Error::io(format!("read `{}`", path.display()), e)),
    };
    let mut read = || -> std::io::Result<Vec<u8>> {
        let length = file.metadata()?.len();
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.by_ref().take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|e| Error::io(format!("read `{}`", path.display()), e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_log_is_bounded_and_its_end_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = open_for_process(dir.path()).unwrap();
        assert!(in_use(dir.path()));
        assert!(open_for_process(dir.path()).unwrap_err().to_string().contains("still runs"));
        for i in 0..10 {
            writeln!(file, "line {i}").unwrap();
        }
        assert!(!rotate(dir.path(), 70).unwrap());
        writeln!(file, "line 10").unwrap();
        assert!(rotate(dir.path(), 70).unwrap());
        writeln!(file, "error: topic `x` is gone").unwrap();
        assert_eq!(tail(dir.path(), 2).unwrap(), "line 10\nerror: topic `x` is gone\n");
        assert_eq!(last_error(dir.path(), 70).unwrap(), "topic `x` is gone");
        drop(file);
        assert!(!in_use(dir.path()));
    }

    #[test]
    fn a_panic_is_told_when_there_is_no_error_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOG), "thread 'w' panicked at src/a.rs:1:2:\nno such key\nnote: run with\n")
            .unwrap();
        assert_eq!(last_error(dir.path(), 0).unwrap(), "thread 'w' panicked at src/a.rs:1:2: no such key");
        assert_eq!(last_error(&dir.path().join("none"), 0), None);
    }
}
