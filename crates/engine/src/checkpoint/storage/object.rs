//! Checkpoints in an object store that speaks S3, or in HDFS behind the same interface. Files are objects, folders are
//! prefixes.
//!
//! What a file system gives by renaming and syncing comes here from the store: an object is there whole when its writing
//! is answered, and "only if it is not there yet" is a condition of the request. Calls block the thread that makes them,
//! which is never a worker's; the requests themselves run on a thread of their own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path as Location;
use std::str::FromStr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tidemill_core::{Error, Result};
use tokio::runtime::{Builder, Runtime};

use super::{Output, Storage};

/// A file is sent in parts of about so many bytes; this much of each file under way is in memory.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// A request that fails is tried so many times again, within [`RETRY_TIMEOUT`]. Then the checkpoint fails, and the next
/// one is the retry.
const RETRIES_MAX: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Requests at a restore: each waits longer than it transfers.
const READS_AT_ONCE: usize = 8;

/// One request may take so long, and connecting so long of it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// So much of what a server says is passed on.
const TOLD_CHARS_MAX: usize = 400;

/// The thread on which requests run.
pub(super) struct Requests(Option<Runtime>);

impl Requests {
    pub fn start() -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("checkpoint-store").enable_all().build();
        Ok(Requests(Some(runtime.map_err(|e| Error::io("start the thread `checkpoint-store`", e))?)))
    }

    /// Runs a request to its end. The caller may be on any thread, also one of another runtime.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let gone = || Error::bug("the thread `checkpoint-store` has ended");
        let (reply, answer) = sync_channel(1);
        self.0.as_ref().ok_or_else(gone)?.spawn(async move {
            // Whoever asked waits for it.
            let _ = reply.send(request.await);
        });
        answer.recv().map_err(|_| gone())
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A bucket, or a file system of HDFS.
#[derive(Clone)]
pub(super) struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// What stands between `://` and the first `/` of its locations.
    bucket: String,
    /// Folders are there by themselves, also without files.
    has_folders: bool,
    requests: Arc<Requests>,
}

impl ObjectStorage {
    /// The file system of a name node or name service, `hdfs://<authority>`. `options` are Hadoop's, and go before the
    /// files in `HADOOP_CONF_DIR`. No request is made yet.
    #[cfg(feature = "hdfs")]
    pub fn hdfs(url: &str, options: &BTreeMap<String, String>, requests: Arc<Requests>) -> Result<Self> {
        let store = hdfs_native_object_store::HdfsObjectStoreBuilder::new().with_url(url).with_config(options.clone());
        let store = store.build().map_err(|e| Error::input(format!("`{url}` cannot be opened: {}", told(&e))))?;
        let bucket = url.split_once("://").map_or(url, |(_, authority)| authority).to_string();
        Ok(ObjectStorage { store: Arc::new(store), bucket, has_folders: true, requests })
    }

    /// A bucket, by `options` and the environment. No request is made yet.
    pub fn open(bucket: &str, options: &BTreeMap<String, String>, requests: Arc<Requests>) -> Result<Self> {
        static CRYPTOGRAPHY: Once = Once::new();
        // A program that has chosen another one keeps it.
        CRYPTOGRAPHY.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
        let backoff = BackoffConfig { max_backoff: BACKOFF_MAX, ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT };
        let mut builder = AmazonS3Builder::from_env().with_client_options(client).with_retry(retry);
        for (name, value) in options {
            let key = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()).map_err(|_| {
                Error::input(format!("`{name}` is no option of an object store")).hint(
                    "there are `endpoint`, `region`, `access_key_id`, `secret_access_key`, `allow_http` and others",
                )
            })?;
            builder = builder.with_config(key, value);
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            // Who writes `http://` means it.
            builder = builder.with_allow_http(true);
        }
        let store = builder
            .with_bucket_name(bucket)
            .build()
            .map_err(|e| Error::input(format!("the bucket `{bucket}` cannot be opened: {}", told(&e))))?;
        Ok(ObjectStorage { store: Arc::new(store), bucket: bucket.to_string(), has_folders: false, requests })
    }

    /// The object of a location. `..` leads out of a folder, as in a path.
    fn object(&self, location: &Location) -> Result<Path> {
        let text = location.to_str().and_then(|text| text.split_once("://")).map(|(_, rest)| rest).unwrap_or_default();
        let mut parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        if parts.next() != Some(&self.bucket) {
            return Err(Error::bug(format!("`{}` is not in the bucket `{}`", location.display(), self.bucket)));
        }
        let mut names = Vec::new();
        for part in parts {
            match part {
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        Ok(Path::from_iter(names))
    }

    /// Makes a request of the store about an object; an error says what was tried.
    fn request<T, R, F>(&self, doing: &str, location: &Location, request: R) -> Result<T>
    where
        T: Send + 'static,
        R: FnOnce(Arc<dyn ObjectStore>, Path) -> F,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let answer = self.requests.wait(request(self.store.clone(), self.object(location)?))?;
        answer.map_err(|e| error(&format!("{doing} `{}`", location.display()), e))
    }

    /// Writes an object if it is not there yet; false when it is.
    fn put_new(&self, file: &Location, bytes: &[u8]) -> Result<bool> {
        let bytes = bytes.to_vec();
        self.request("write", file, |store, path| async move {
            let only_new = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match store.put_opts(&path, bytes.into(), only_new).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        })
    }
}

/// What an error of the store says. Some servers answer a refusal with a page of text.
fn told(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let text = text.replace('\n', " ");
    match text.char_indices().nth(TOLD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn error(tried: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let text = told(&error);
    match &error {
        Store::NotFound { .. } if !text.contains("NoSuchBucket") => {
            Error::io(tried, std::io::Error::from(std::io::ErrorKind::NotFound))
        }
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => refused(tried, &text),
        _ if text.contains("403 Forbidden") => refused(tried, &text),
        _ => Error::external(format!("cannot {tried}: {text}")),
    }
}

fn refused(tried: &str, text: &str) -> Error {
    Error::external(format!("cannot {tried}: {text}"))
        .hint("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on the bucket")
}

/// A file under way: parts are sent as they become full. A file smaller than one part is one request.
struct ObjectOutput {
    storage: ObjectStorage,
    location: std::path::PathBuf,
    waiting: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl ObjectOutput {
    fn failed(&self, e: object_store::Error) -> Error {
        error(&format!("write `{}`", self.location.display()), e)
    }

    fn send_part(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.waiting);
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self
                .storage
                .request("write", &self.location, |store, path| async move { store.put_multipart(&path).await })?,
        };
        let part = upload.put_part(bytes.into());
        self.upload = Some(upload);
        self.storage.requests.wait(part)?.map_err(|e| self.failed(e))
    }
}

impl Output for ObjectOutput {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PART_BYTES { self.send_part() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.upload.is_none() {
            let bytes = std::mem::take(&mut self.waiting);
            return self.storage.write(&self.location, &bytes);
        }
        if !self.waiting.is_empty() {
            self.send_part()?;
        }
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        let done = self.storage.requests.wait(async move { upload.complete().await })?;
        done.map(drop).map_err(|e| self.failed(e))
    }
}

impl Drop for ObjectOutput {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            // Parts that stay are removed by the bucket's own rules.
            let _ = self.storage.requests.wait(async move { upload.abort().await });
        }
    }
}

impl Storage for ObjectStorage {
    fn make_folder(&self, _: &Location) -> Result<()> {
        Ok(())
    }

    fn create(&self, file: &Location) -> Result<Box<dyn Output>> {
        Ok(Box::new(ObjectOutput {
            storage: self.clone(),
            location: file.to_path_buf(),
            waiting: Vec::new(),
            upload: None,
        }))
    }

    fn write(&self, file: &Location, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.to_vec();
        self.request("write", file, |store, path| async move { store.put(&path, bytes.into()).await.map(drop) })
    }

    fn publish(&self, file: &Location, bytes: &[u8]) -> Result<()> {
        if self.put_new(file, bytes)? {
            return Ok(());
        }
        // The answer to our own first try may have been lost on its way.
        if self.read(file, None)? == bytes {
            return Ok(());
        }
        Err(Error::external(format!("`{}` is there already: another start of the job has written it", file.display())))
    }

    fn create_new(&self, file: &Location) -> Result<bool> {
        self.put_new(file, b"")
    }

    fn read(&self, file: &Location, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let wanted = range.as_ref().map(|range| range.end - range.start);
        let bytes = self.request("read", file, |store, path| async move {
            match range {
                Some(range) if range.is_empty() => Ok(Vec::new()),
                Some(range) => store.get_range(&path, range).await.map(Vec::from),
                None => store.get(&path).await?.bytes().await.map(Vec::from),
            }
        })?;
        match wanted {
            Some(wanted) if wanted != bytes.len() as u64 => {
                Err(Error::corrupt(format!("`{}` is shorter than it should be", file.display())))
            }
            _ => Ok(bytes),
        }
    }

    fn reads_at_once(&self) -> usize {
        READS_AT_ONCE
    }

    fn exists(&self, file: &Location) -> Result<bool> {
        self.request("look for", file, |store, path| async move {
            match store.head(&path).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        })
    }

    fn list(&self, folder: &Location) -> Result<Vec<String>> {
        self.request("list", folder, |store, path| async move {
            let found = store.list_with_delimiter(Some(&path)).await?;
            let names = found.common_prefixes.iter().chain(found.objects.iter().map(|object| &object.location));
            Ok(names.filter_map(|path| path.filename().map(str::to_string)).collect())
        })
    }

    fn remove_file(&self, file: &Location) -> Result<()> {
        self.request("remove", file, |store, path| async move {
            match store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn remove_folder(&self, folder: &Location) -> Result<()> {
        for name in self.list(folder)? {
            self.remove_file(&folder.join(name))?;
        }
        if self.has_folders { self.remove_file(folder) } else { Ok(()) }
    }

    fn copy(&self, from: &Location, to: &Location) -> Result<()> {
        let target = self.object(to)?;
        self.request("copy", from, |store, path| async move { store.copy(&path, &target).await })
    }

    fn sync_folder(&self, _: &Location) -> Result<()> {
        Ok(())
    }
}
