//! The folder of topics: which there are, how one comes to be and goes away.

use std::path::{Path, PathBuf};

use tidemill_core::{Error, Result};

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
        Ok(Topics { folder: folder.as_ref().to_path_buf() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates a topic. `Kind::Input` when the name is not 1 to 128 letters, digits, `.`, `_`, `-` (beginning with a
    /// letter, digit or `_`), when the topic exists already ([`Topics::exists`]) or the configuration is out of bounds.
    pub fn create(&self, _name: &str, _config: &TopicConfig) -> Result<Topic> {
        Err(Error::bug("not written yet"))
    }

    /// Whether there is a topic of this name. `Kind::Input` for a name no topic can have.
    pub fn exists(&self, _name: &str) -> Result<bool> {
        Err(Error::bug("not written yet"))
    }

    /// All topics by name.
    pub fn list(&self) -> Result<Vec<TopicInfo>> {
        Err(Error::bug("not written yet"))
    }

    /// Deletes a topic with all records. Handles open elsewhere, in any process, answer `Kind::Input` from then on.
    /// `Kind::Input` when there is no such topic.
    pub fn delete(&self, _name: &str) -> Result<()> {
        Err(Error::bug("not written yet"))
    }

    /// Opens a topic. `Kind::Input` when there is none of this name.
    pub fn open_topic(&self, _name: &str) -> Result<Topic> {
        Err(Error::bug("not written yet"))
    }
}
