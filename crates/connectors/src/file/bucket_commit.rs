//! When a bucket is complete, and the file that says so to its readers: Flink's partition commit with the policies
//! `success-file` and `custom`.
//!
//! Each subtask says with each checkpoint how far it had come: by event time its watermark, by the clock its time. What the
//! slowest of them has passed is complete once the checkpoint's files are published. Which buckets wait for it is known
//! from what is published; at a restart the folders are looked through instead, so no state is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use tidemill_core::{Error, Result, WATERMARK_MAX, WATERMARK_MIN};

use super::bucket::Bucket;
use super::commit::{Parts, sync_folder};

/// When buckets are complete.
#[derive(Clone)]
pub struct BucketCommit {
    event_time: bool,
    delay_ms: i64,
    file_name: String,
    tell: Option<Tell>,
}

/// Hears of a complete bucket.
type Tell = Arc<dyn Fn(&Path) -> Result<()> + Send + Sync>;

impl fmt::Debug for BucketCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BucketCommit { event_time, delay_ms, file_name, tell } = self;
        let tell = tell.is_some();
        write!(
            f,
            "BucketCommit {{ event_time: {event_time}, delay_ms: {delay_ms}, file_name: {file_name:?}, tell: {tell} }}"
        )
    }
}

impl BucketCommit {
    /// When event time is more than `delay_ms` behind the time in the bucket's name, on all subtasks: for buckets of an
    /// hour take at least an hour. For buckets by time only ([`super::FileSink::bucket_by_time`]), or of one's own that
    /// say [`Bucket::begins_ms`]. Flink's trigger `partition-time`.
    pub fn by_event_time(delay_ms: i64) -> Self {
        BucketCommit { event_time: true, delay_ms, file_name: "_SUCCESS".to_string(), tell: None }
    }

    /// When the job's clock is more than `delay_ms` behind the bucket's first published file; with 0 at once. Flink's
    /// trigger `process-time`.
    pub fn by_processing_time(delay_ms: i64) -> Self {
        BucketCommit { event_time: false, ..Self::by_event_time(delay_ms) }
    }

    /// The file's name; default `_SUCCESS`.
    pub fn file_name(self, name: impl Into<String>) -> Self {
        BucketCommit { file_name: name.into(), ..self }
    }

    /// Also calls `tell` with the folder of a bucket that is complete, before its file is written, on a background thread: for a
    /// catalogue, say, or a program that reads the bucket. It may be called again for the same bucket after a failure; when it
    /// fails, it is tried again, and the job fails with it in the end. Flink's policy `custom`.
    pub fn tell(self, tell: impl Fn(&Path) -> Result<()> + Send + Sync + 'static) -> Self {
        BucketCommit { tell: Some(Arc::new(tell)), ..self }
    }
}

/// What is known of all subtasks of a sink.
#[derive(Debug)]
pub(super) struct Marks {
    commit: BucketCommit,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// How far each subtask has come.
    reached_ms: Vec<i64>,
    /// Buckets with published files that are not marked, and when the first of these was.
    waiting: BTreeMap<String, i64>,
}

impl Marks {
    pub fn new(commit: BucketCommit) -> Self {
        Marks { commit, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these buckets can be told complete.
    pub fn check<T>(&self, bucket: &impl Bucket<T>) -> Result<()> {
        let BucketCommit { event_time, delay_ms, file_name, .. } = &self.commit;
        if file_name.is_empty() || file_name.starts_with('.') || file_name.contains('/') {
            return Err(Error::input(format!("`{file_name}` is no name for a file that says a bucket is complete"))
                .hint("use a name without a dot in front and without `/`, such as `_SUCCESS`"));
        }
        if *delay_ms < 0 {
            return Err(Error::input(format!("a bucket cannot be complete {} ms before its time", -delay_ms)));
        }
        if *event_time && !bucket.has_time() {
            return Err(Error::input("its buckets have no time in their names that event time could pass")
                .hint("use `bucket_by_time`, or `BucketCommit::by_processing_time`"));
        }
        Ok(())
    }

    /// How far a subtask has come; the end of input is the end of either time.
    pub fn reached(&self, watermark_ms: i64, now_ms: i64) -> i64 {
        if self.commit.event_time || watermark_ms == WATERMARK_MAX { watermark_ms } else { now_ms }
    }

    /// A place for another subtask.
    pub fn subtask(&self) -> usize {
        let mut known = self.lock();
        known.reached_ms.push(WATERMARK_MIN);
        known.reached_ms.len() - 1
    }

    /// Forgets all and finds the buckets that hold files of this job, and wait. `tag` is in the files' names.
    pub fn find(&self, folder: &Path, tag: &str) -> std::io::Result<()> {
        let mut known = Known::default();
        self.find_below(folder, "", tag, &mut known.waiting)?;
        *self.lock() = known;
        Ok(())
    }

    fn find_below(
        &self,
        folder: &Path,
        bucket: &str,
        tag: &str,
        waiting: &mut BTreeMap<String, i64>,
    ) -> std::io::Result<()> {
        let (mut first_ms, mut marked) = (None::<i64>, false);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type()?.is_dir() {
                let below = if bucket.is_empty() { name.to_string() } else { format!("{bucket}/{name}") };
                self.find_below(&entry.path(), &below, tag, waiting)?;
            } else if name == self.commit.file_name {
                marked = true;
            } else if name.contains(tag) {
                let written = entry.metadata()?.modified()?;
                let ms = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
                first_ms = Some(first_ms.map_or(ms, |first| first.min(ms)));
            }
        }
        if let (Some(first_ms), false) = (first_ms, marked) {
            waiting.insert(bucket.to_string(), first_ms);
        }
        Ok(())
    }

    /// A subtask's files are published.
    pub fn published(&self, subtask: usize, parts: &Parts) {
        let Some(reached_ms) = parts.reached_ms else { return };
        let mut known = self.lock();
        for file in &parts.files {
            let bucket = file.rsplit_once('/').map_or("", |(bucket, _)| bucket);
            if !known.waiting.contains_key(bucket) {
                known.waiting.insert(bucket.to_string(), reached_ms);
            }
        }
        if let Some(before_ms) = known.reached_ms.get_mut(subtask) {
            *before_ms = reached_ms.max(*before_ms);
        }
    }

    /// Marks what all subtasks have passed; `begins_ms` is the time in a bucket's name. Done again after a failure.
    pub fn mark(&self, folder: &Path, begins_ms: impl Fn(&str) -> Option<i64>) -> Result<()> {
        let mut known = self.lock();
        let reached_ms = known.reached_ms.iter().copied().min().unwrap_or(WATERMARK_MIN);
        let delay_ms = self.commit.delay_ms;
        let complete = |(bucket, first_ms): (&String, &i64)| {
            let since_ms = if self.commit.event_time { begins_ms(bucket)? } else { *first_ms };
            let passed = reached_ms > since_ms.saturating_add(delay_ms) || !self.commit.event_time && delay_ms == 0;
            (passed || reached_ms == WATERMARK_MAX).then(|| bucket.clone())
        };
        let complete: Vec<String> = known.waiting.iter().filter_map(complete).collect();
        for bucket in complete {
            let (bucket_folder, file_name) = (folder.join(&bucket), &self.commit.file_name);
            if let Some(tell) = &self.commit.tell {
                tell(&bucket_folder)
                    .map_err(|e| e.context(format!("tell that `{}` is complete", bucket_folder.display())))?;
            }
            File::create(bucket_folder.join(file_name))
                .and_then(|file| file.sync_all())
                .map_err(|e| Error::io(format!("write `{file_name}` in `{}`", bucket_folder.display()), e))?;
            sync_folder(&bucket_folder)?;
            known.waiting.remove(&bucket);
        }
        Ok(())
    }
}
