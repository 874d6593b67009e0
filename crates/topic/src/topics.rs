//! The folder of topics: which there are, how one comes to be and goes away.
//!
//! Creating and deleting hold a lock on `<folder>/.lock`, so that files of one name never mix. A new database is
//! written under another name and renamed when it is complete. Deleting first empties the partition table in a
//! transaction: this is how handles in other processes learn of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidemill_core::{Error, Kind, Result};

use crate::database;
use crate::topic::Topic;

/// What a topic is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// How many partitions, 1 to [`TopicConfig::PARTITIONS_MAX`]; default 4. Fixed for the topic's life.
    pub partitions: u32,
    /// Batches appended longer ago than this are deleted; `None` (default) keeps them for ever.
    pub retention_ms: Option<i64>,
    /// The oldest batches are deleted while all partitions together hold more bytes; `None` (default): no limit.
    pub retention_bytes: Option<u64>,
}

impl TopicConfig {
    /// The most partitions a topic can have.
    pub const PARTITIONS_MAX: u32 = 1024;

    fn check(&self, name: &str) -> Result<()> {
        if !(1..=Self::PARTITIONS_MAX).contains(&self.partitions) {
            return Err(Error::input(format!(
                "topic `{name}`: {} partitions; give 1 to {}",
                self.partitions,
                Self::PARTITIONS_MAX
            )));
        }
        if self.retention_ms.is_some_and(|ms| ms <= 0) {
            return Err(Error::input(format!("topic `{name}`: retention_ms must be above 0")));
        }
        if self.retention_bytes == Some(0) {
            return Err(Error::input(format!("topic `{name}`: retention_bytes must be above 0")));
        }
        Ok(())
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig { partitions: 4, retention_ms: None, retention_bytes: None }
    }
}

/// A topic as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Records kept, over all partitions.
    pub records: u64,
    /// Bytes of the batches kept, over all partitions (without the database's own overhead).
    pub bytes: u64,
    /// See [`TopicConfig::retention_ms`].
    pub retention_ms: Option<i64>,
    /// See [`TopicConfig::retention_bytes`].
    pub retention_bytes: Option<u64>,
}

/// A folder of topics. Cheap to clone; holds no open files.
#[derive(Debug, Clone)]
pub struct Topics {
    folder: PathBuf,
}

impl Topics {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 128;

    /// Opens the folder, creating it when absent.
    pub fn open(folder: impl AsRef<Path>) -> Result<Topics> {
        let folder = folder.as_ref().to_path_buf();
        fs::create_dir_all(&folder)
            .map_err(|e| Error::io(format!("create the topics folder `{}`", folder.display()), e))?;
        Ok(Topics { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates a topic. `Kind::Input` when the name is not 1 to 128 letters, digits, `.`, `_`, `-` (beginning with a
    /// letter, digit or `_`), when the topic exists already ([`Topics::exists`]) or the configuration is out of bounds.
    pub fn create(&self, name: &str, config: &TopicConfig) -> Result<Topic> {
        let path = self.path(name)?;
        config.check(name)?;
        let _lock = self.lock()?;
        if path.exists() {
            match Topic::open(&path, name)? {
                // A delete that did not get to its end.
                None => self.remove_files(name)?,
                Some(_) => {
                    return Err(
                        Error::input(format!("topic `{name}` exists already")).hint("open it, or delete it first")
                    );
                }
            }
        }
        let unfinished = self.folder.join(format!("{name}.new"));
        // What a create that was killed left.
        for suffix in ["", "-wal", "-shm"] {
            remove_if_there(&self.folder.join(format!("{name}.new{suffix}")))?;
        }
        database::create(&unfinished, name, config)?;
        let tried = || format!("create topic `{name}` in `{}`", self.folder.display());
        fs::rename(&unfinished, &path).map_err(|e| Error::io(tried(), e))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(tried(), e))?;
        Topic::open(&path, name)?.ok_or_else(|| database::deleted(name))
    }

    /// Opens the topic, creating it first when there is none; `config` counts only then. Safe when several processes do
    /// this at once.
    pub fn open_or_create(&self, name: &str, config: &TopicConfig) -> Result<Topic> {
        if !self.exists(name)? {
            match self.create(name, config) {
                Err(_) if self.exists(name)? => {}
                created => return created,
            }
        }
        self.open_topic(name)
    }

    /// Whether there is a topic of this name. `Kind::Input` for a name no topic can have.
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.path(name)?.exists())
    }

    /// All topics by name.
    pub fn list(&self) -> Result<Vec<TopicInfo>> {
        let tried = || format!("list the topics folder `{}`", self.folder.display());
        let mut infos = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(tried(), e))? {
            let entry = entry.map_err(|e| Error::io(tried(), e))?;
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().and_then(|file| file.strip_suffix(SUFFIX)) else {
                continue;
            };
            let info = Topic::open(&entry.path(), name).and_then(|topic| topic.map_or(Ok(None), |t| t.try_info()));
            match info {
                Ok(info) => infos.extend(info),
                Err(_) if !entry.path().exists() => {}
                Err(error) => return Err(error),
            }
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    /// Deletes a topic with all records. Handles open elsewhere, in any process, answer `Kind::Input` from then on.
    /// `Kind::Input` when there is no such topic.
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        if !path.exists() {
            return Err(self.unknown(name));
        }
        match Topic::open(&path, name) {
            Ok(Some(topic)) => topic.mark_deleted()?,
            Ok(None) => {}
            // Damaged: taking it away is what was asked for.
            Err(error) if error.kind() == Kind::Corrupt => {}
            Err(error) => return Err(error),
        }
        self.remove_files(name)
    }

    /// Opens a topic. `Kind::Input` when there is none of this name.
    pub fn open_topic(&self, name: &str) -> Result<Topic> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(self.unknown(name));
        }
        Topic::open(&path, name)?.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::input(format!("there is no topic `{name}` in `{}`", self.folder.display())).hint("create it first")
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let begins_well = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
        if !begins_well || name.len() > Self::NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(Error::input(format!("`{name}` is no name for a topic")).hint(format!(
                "use 1 to {} letters, digits, `.`, `_`, `-`, beginning with a letter, digit or `_`",
                Self::NAME_BYTES_MAX
            )));
        }
        Ok(self.folder.join(format!("{name}{SUFFIX}")))
    }

    fn lock(&self) -> Result<File> {
        let path = self.folder.join(".lock");
        let tried = || format!("lock `{}`", path.display());
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| Error::io(tried(), e))?;
        file.lock().map_err(|e| Error::io(tried(), e))?;
        Ok(file)
    }

    fn remove_files(&self, name: &str) -> Result<()> {
        // The database first: from then on nobody can open it and begin a log under its name.
        for suffix in ["", "-wal", "-shm", "-bell"] {
            remove_if_there(&self.folder.join(format!("{name}{SUFFIX}{suffix}")))?;
        }
        Ok(())
    }
}

const SUFFIX: &str = ".topic";

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove `{}`", path.display()), error))
        }
        _ => Ok(()),
    }
}
