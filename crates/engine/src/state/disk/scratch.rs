//! The folder where a process keeps state on disk. It goes with the process; one that was killed leaves its folder behind,
//! and the next process that keeps state beside it takes it away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

/// A file in the folder that is locked as long as its process lives.
const LOCK: &str = "lock";

/// Folders of this name belong to one process each, and are of no use to another.
pub(crate) const OF_A_PROCESS: &str = "tidemill-state-";

/// A folder of this process.
pub(super) struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes `folder` empty, and removes those of its kind beside it whose processes are gone.
    pub fn open(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| Error::io(format!("empty `{}`", folder.display()), e))?;
        }
        fs::create_dir_all(&folder).map_err(|e| Error::io(format!("make `{}`", folder.display()), e))?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).map_err(|e| Error::io(format!("make `{}`", path.display()), e))?;
        lock.lock().map_err(|e| Error::io(format!("lock `{}`", path.display()), e))?;
        remove_abandoned(&folder);
        Ok(Scratch { folder, _lock: lock })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "the scratch folder of state could not be removed");
        }
    }
}

/// Whether a folder belongs to one process, by its name.
fn is_of_a_process(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(OF_A_PROCESS.as_bytes()))
}

/// Removes the folders of processes that are gone. One without a lock may be about to get it; others go next time.
fn remove_abandoned(own: &Path) {
    let Some(beside) = own.parent().filter(|_| is_of_a_process(own)).and_then(|parent| fs::read_dir(parent).ok())
    else {
        return;
    };
    for folder in beside.flatten().map(|entry| entry.path()).filter(|path| path != own && is_of_a_process(path)) {
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            match fs::remove_dir_all(&folder) {
                Ok(()) => tracing::info!(folder = %folder.display(), "removed the state of a process that is gone"),
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "left by a process that is gone"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_process_that_is_gone_goes_and_those_of_others_stay() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let living = Scratch::open(path("tidemill-state-1-0")).unwrap();
        // A process that was killed holds no lock any more.
        for left in ["tidemill-state-2-0", "somebody-elses"] {
            fs::create_dir(path(left)).unwrap();
            fs::write(path(left).join(LOCK), "").unwrap();
        }
        // One that is starting has made its folder only.
        fs::create_dir(path("tidemill-state-3-0")).unwrap();
        let next = Scratch::open(path("tidemill-state-4-0")).unwrap();
        let there = |name: &str| path(name).exists();
        assert!(!there("tidemill-state-2-0"));
        assert!(["tidemill-state-1-0", "tidemill-state-3-0", "somebody-elses"].into_iter().all(there));
        drop((living, next));
        assert!(!there("tidemill-state-1-0") && !there("tidemill-state-4-0"));
        // A folder of a job goes with the job: those beside it are not looked at.
        let job = Scratch::open(path("state")).unwrap();
        assert!(there("tidemill-state-3-0") && there("somebody-elses"));
        assert_eq!(job.folder(), path("state"));
    }
}
