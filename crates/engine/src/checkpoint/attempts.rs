//! Which start of a job this is. Names beside the checkpoints count the starts: sinks tell by the number what an earlier start
//! has written, and whoever finds a greater one knows that it was replaced. So no two starts may have the same number, even if
//! they begin at once, and none a smaller one than before, wherever the machine was lost.

use tidemill_core::{Error, Result};

use super::CheckpointFolder;

/// The folder whose names are the numbers: that of the newest start, for a moment also older ones.
const ATTEMPTS: &str = "attempts";

/// The file whose text was the number in versions before.
const ATTEMPT: &str = "attempt";

/// So many numbers are tried before a job gives up: others start it at the same moment.
const ATTEMPTS_TRIED_MAX: u64 = 100;

impl CheckpointFolder {
    /// Counts a start of the job: its number, from 1.
    pub(crate) fn begin_attempt(&self) -> Result<u64> {
        let (storage, folder) = (self.storage(), self.root().join(ATTEMPTS));
        storage.make_folder(&folder)?;
        for _ in 0..ATTEMPTS_TRIED_MAX {
            let attempt = self.newest_attempt()? + 1;
            if !storage.create_new(&folder.join(attempt.to_string()))? {
                continue;
            }
            storage.sync_folder(&folder)?;
            storage.sync_folder(self.root())?;
            let numbers = self.attempts()?;
            // Others may have had this number and gone on from it before it was taken again.
            if numbers.iter().any(|number| *number > attempt) {
                continue;
            }
            for old in numbers.into_iter().filter(|number| *number < attempt) {
                storage.remove_file(&folder.join(old.to_string()))?;
            }
            return Ok(attempt);
        }
        Err(Error::external(format!("`{}` is started by too many at once", self.root().display())))
    }

    /// The number of the newest start; 0 before the first.
    pub(crate) fn newest_attempt(&self) -> Result<u64> {
        self.attempts()?.into_iter().max().map_or_else(|| self.attempt_of_before(), Ok)
    }

    fn attempts(&self) -> Result<Vec<u64>> {
        let names = self.storage().list(&self.root().join(ATTEMPTS))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn attempt_of_before(&self) -> Result<u64> {
        let file = self.root().join(ATTEMPT);
        if !self.storage().exists(&file)? {
            return Ok(0);
        }
        let text = String::from_utf8_lossy(&self.storage().read(&file, None)?).into_owned();
        text.trim().parse().map_err(|_| {
            Error::corrupt(format!("`{}`, which counts the starts of the job, holds no number", file.display()))
                .hint("write a number into it that is greater than that of all starts, such as 1000000")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_start_that_was_lost_at_any_step_changes_no_other_number() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::open(dir.path()).unwrap();
        assert_eq!(folder.newest_attempt().unwrap(), 0);
        assert_eq!(folder.begin_attempt().unwrap(), 1);
        // Lost before it removed the number of the start before.
        fs::write(dir.path().join("attempts/2"), "").unwrap();
        assert_eq!(folder.begin_attempt().unwrap(), 3);
        let names = fs::read_dir(dir.path().join("attempts")).unwrap();
        assert_eq!(names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn starts_at_once_have_numbers_of_their_own() {
        const STARTS: u64 = 40;
        let dir = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::open(dir.path()).unwrap();
        let given = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..STARTS / 4 {
                        let attempt = folder.begin_attempt().unwrap();
                        given.lock().unwrap().push(attempt);
                    }
                });
            }
        });
        let mut given = given.into_inner().unwrap();
        given.sort_unstable();
        let all = given.len();
        given.dedup();
        assert_eq!((given.len(), all as u64), (all, STARTS), "{given:?}");
        assert_eq!(folder.newest_attempt().unwrap(), *given.last().unwrap());
    }

    #[test]
    fn a_job_of_a_version_before_is_counted_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::open(dir.path()).unwrap();
        // From the beginning again, sinks would take what it writes for written.
        fs::write(dir.path().join(ATTEMPT), "").unwrap();
        let error = folder.begin_attempt().unwrap_err().to_string();
        assert!(error.contains("attempt`, which counts the starts of the job, holds no number"), "{error}");
        fs::write(dir.path().join(ATTEMPT), "41").unwrap();
        assert_eq!(folder.begin_attempt().unwrap(), 42);
        assert_eq!(folder.begin_attempt().unwrap(), 43);
    }
}
