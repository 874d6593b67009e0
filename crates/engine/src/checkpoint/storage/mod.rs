//! Where checkpoints are kept: a file system, an object store that speaks S3, or HDFS (feature `hdfs`). Everything that touches their files
//! goes through [`Storage`], on the threads of coordinator, checkpoint writers and restore, never on a worker's.
//!
//! A *location* is a path, `file:///path`, `s3://bucket/prefix` or `hdfs://name:port/path`. It is carried as a [`Path`], whose `join`, `parent` and
//! `strip_prefix` mean the same for both.

mod local;
mod object;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::{Error, Result};

use local::LocalStorage;
use object::{ObjectStorage, Requests};

/// Threads that read a file system at a restore: one for the disk, while another checks what it has read.
const READS_AT_ONCE: usize = 2;

/// Files named by locations. Whatever returns without an error is durable and can be seen by everybody.
pub(crate) trait Storage: Send + Sync {
    /// Makes a folder ready for files.
    fn make_folder(&self, folder: &Path) -> Result<()>;
    /// Begins a file that is written piece by piece; it exists when it is finished.
    fn create(&self, file: &Path) -> Result<Box<dyn Output>>;
    /// Writes a file whole, in place of one that may be there.
    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()>;
    /// Makes a file exist, whole or not at all. In an object store, where a process believed dead may still write, one that
    /// is there already with other bytes is an error.
    fn publish(&self, file: &Path, bytes: &[u8]) -> Result<()>;
    /// Makes an empty file, of all who try at once for one alone; false when it is there. Its name is durable when its folder is.
    fn create_new(&self, file: &Path) -> Result<bool>;
    /// The bytes of a file, or a range of them. What is not there is a [`tidemill_core::Kind::External`] error.
    fn read(&self, file: &Path, range: Option<Range<u64>>) -> Result<Vec<u8>>;
    /// How many threads that read make a restore faster; 0 when it must not have any.
    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }
    /// Whether a file is there.
    fn exists(&self, file: &Path) -> Result<bool>;
    /// The names of what stands in a folder, which need not be there.
    fn list(&self, folder: &Path) -> Result<Vec<String>>;
    /// Removes a file, if it is there.
    fn remove_file(&self, file: &Path) -> Result<()>;
    /// Removes a folder with all files in it, if it is there.
    fn remove_folder(&self, folder: &Path) -> Result<()>;
    /// Gives a file of this storage a second place.
    fn copy(&self, from: &Path, to: &Path) -> Result<()>;
    /// Waits until the names of files in a folder are durable.
    fn sync_folder(&self, folder: &Path) -> Result<()>;
}

/// A file that is being written.
pub(crate) trait Output: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Waits until all of it is durable. An output that is dropped before leaves nothing that counts.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Opens storages by the scheme of a location, and keeps connections to object stores for all who ask.
pub(crate) struct Storages {
    options: BTreeMap<String, String>,
    /// By bucket, or by URL of a name node.
    stores: Mutex<BTreeMap<String, Arc<ObjectStorage>>>,
    requests: Mutex<Option<Arc<Requests>>>,
    /// In the simulation, what stands for all storages.
    #[cfg(test)]
    simulated: Option<Arc<dyn Storage>>,
}

impl Storages {
    /// `options` go before the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and their like).
    pub fn new(options: BTreeMap<String, String>) -> Self {
        Storages {
            options,
            stores: Mutex::default(),
            requests: Mutex::default(),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// One storage for all locations.
    #[cfg(test)]
    pub fn simulated(storage: Arc<dyn Storage>) -> Self {
        Storages { simulated: Some(storage), ..Storages::default() }
    }

    /// The storage of a location. An error for a scheme that is not built.
    pub fn at(&self, location: &Path) -> Result<Arc<dyn Storage>> {
        #[cfg(test)]
        if let Some(storage) = &self.simulated {
            return Ok(storage.clone());
        }
        let Some((scheme, rest)) = scheme(location) else { return Ok(Arc::new(LocalStorage)) };
        let root = rest.split('/').next().filter(|root| !root.is_empty());
        match scheme {
            "s3" | "s3a" => {
                let bucket = root.ok_or_else(|| {
                    Error::input(format!("`{}` names no bucket", location.display())).hint("write `s3://bucket/prefix`")
                })?;
                self.object_storage(bucket, |requests| ObjectStorage::open(bucket, &self.options, requests))
            }
            #[cfg(feature = "hdfs")]
            "hdfs" | "viewfs" => {
                let name = root.ok_or_else(|| {
                    Error::input(format!("`{}` names no name node", location.display()))
                        .hint("write `hdfs://name:port/path`, or the name of a name service")
                })?;
                let url = format!("{scheme}://{name}");
                self.object_storage(&url, |requests| ObjectStorage::hdfs(&url, &self.options, requests))
            }
            #[cfg(not(feature = "hdfs"))]
            "hdfs" | "viewfs" => {
                Err(Error::input(format!("`{}`: this program was built without HDFS", location.display()))
                    .hint("build it with the feature `hdfs`; or use a folder (HDFS can be mounted as one) or `s3://bucket/prefix`"))
            }
            "gs" | "az" | "abfs" | "abfss" | "oss" => {
                Err(Error::input(format!("checkpoints in `{scheme}://` are not built: `{}`", location.display()))
                    .hint("use a folder or `s3://bucket/prefix`"))
            }
            _ => Err(Error::input(format!("`{}` begins with an unknown scheme", location.display()))
                .hint("give a path, `file:///path` or `s3://bucket/prefix`")),
        }
    }

    /// The store known by a name, opened the first time.
    fn object_storage(
        &self,
        name: &str,
        open: impl FnOnce(Arc<Requests>) -> Result<ObjectStorage>,
    ) -> Result<Arc<dyn Storage>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stores.get(name) {
            return Ok(known.clone());
        }
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = match &*requests {
            Some(requests) => requests.clone(),
            None => requests.insert(Arc::new(Requests::start()?)).clone(),
        };
        let storage = Arc::new(open(requests)?);
        stores.insert(name.to_string(), storage.clone());
        Ok(storage)
    }
}

impl Default for Storages {
    fn default() -> Self {
        Storages::new(BTreeMap::new())
    }
}

fn scheme(location: &Path) -> Option<(&str, &str)> {
    location.to_str()?.split_once("://")
}

/// Whether two locations are in one storage, in which a file can be copied without being read.
pub(crate) fn same(one: &Path, other: &Path) -> bool {
    let bucket = |location| scheme(location).map(|(scheme, rest)| (scheme, rest.split('/').next()));
    bucket(one) == bucket(other)
}

/// A location as it is carried on: `file:///path` is a path.
pub(crate) fn location(text: &Path) -> Result<PathBuf> {
    match scheme(text) {
        Some(("file", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(("file", _)) => {
            Err(Error::input(format!("`{}` names a host", text.display())).hint("write `file:///path`"))
        }
        _ => Ok(text.to_path_buf()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_or_the_url_of_something_built() {
        let storages = Storages::default();
        assert_eq!(location(Path::new("file:///a/b")).unwrap(), Path::new("/a/b"));
        assert_eq!(location(Path::new("s3://a/b")).unwrap(), Path::new("s3://a/b"));
        assert_eq!(location(Path::new("a/b")).unwrap(), Path::new("a/b"));
        assert!(location(Path::new("file://host/b")).unwrap_err().to_string().contains("names a host"));
        let refused = |text: &str| storages.at(Path::new(text)).err().unwrap().to_string();
        #[cfg(not(feature = "hdfs"))]
        assert!(refused("hdfs://name/checkpoints").contains("built without HDFS"));
        #[cfg(feature = "hdfs")]
        assert!(refused("hdfs:///checkpoints").contains("names no name node"));
        assert!(refused("gs://name/checkpoints").contains("`gs://` are not built"));
        assert!(refused("ftp://name/checkpoints").contains("unknown scheme"));
        assert!(refused("s3:///prefix").contains("names no bucket"));
        let options = BTreeMap::from([("regoin".to_string(), "x".to_string())]);
        let error = Storages::new(options).at(Path::new("s3://bucket")).err().unwrap();
        assert!(error.to_string().contains("`regoin`"), "{error}");
    }
}
