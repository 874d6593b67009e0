//! A sink into part files, exactly once: a file becomes visible, by a rename, when the checkpoint of its epoch is
//! complete.
//!
//! ```text
//! .part-0-7-1-1c9f.json.inprogress   being written by subtask 0 in epoch 7 of attempt 1
//! .part-0-7-1-1c9f.json.pending      complete and on disk; its name is in the token
//! part-0-7-1-1c9f.json               published
//! ```
//!
//! A file may also go on over checkpoints. Each then holds how long it was, and a restore publishes it so long: nobody needs
//! to write on in a file of before.
//!
//! `1c9f…` stands for job and operator, so that several jobs may write into one folder. Files whose names begin with a
//! dot are nobody's input. With buckets the same happens in folders below.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::format::Encode;
use tidemill_core::sink::{Committer, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result, SharedClock, WATERMARK_MAX, WATERMARK_MIN};

use super::bucket::{self, Bucket, BucketTime, ByRecord, ByTime, OneBucket};
use super::bucket_commit::{BucketCommit, Marks};
use super::commit::{
    FileCommitter, IN_PROGRESS, OpenPart, PENDING, Parts, hidden, recover, remove_unpublished, scope_tag, sync_folder,
};
use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};

/// Writes records as lines into part files of a folder, exactly once: new files appear with each checkpoint.
#[derive(Debug, Clone)]
pub struct FileSink<E, B = OneBucket> {
    folder: PathBuf,
    encode: E,
    bucket: B,
    prefix: String,
    suffix: String,
    part_bytes_max: u64,
    part_age_max_ms: Option<i64>,
    part_silence_max_ms: Option<i64>,
    across_checkpoints: bool,
    marks: Option<Arc<Marks>>,
}

/// So many files are open at once; beyond, the one written longest ago is finished.
const OPEN_FILES_MAX: usize = 128;

impl<E> FileSink<E> {
    /// The default for [`FileSink::part_bytes_max`].
    pub const PART_BYTES_MAX: u64 = 128 << 20;

    /// Into `folder`, created when absent, as `part-<subtask>-<epoch>-<attempt>-<job>[-n]`.
    pub fn new(folder: impl AsRef<Path>, encode: E) -> Self {
        FileSink {
            folder: folder.as_ref().to_path_buf(),
            encode,
            bucket: OneBucket,
            prefix: "part".to_string(),
            suffix: String::new(),
            part_bytes_max: Self::PART_BYTES_MAX,
            part_age_max_ms: None,
            part_silence_max_ms: None,
            across_checkpoints: false,
            marks: None,
        }
    }
}

impl<E, B> FileSink<E, B> {
    /// After so long a file that goes on over checkpoints is finished unless something else is said.
    const ACROSS_MS: i64 = 60_000;

    /// Into folders below by time; see [`ByTime::new`].
    pub fn bucket_by_time(self, time: BucketTime, pattern: &str, zone: &str) -> Result<FileSink<E, ByTime>> {
        Ok(self.bucket(ByTime::new(time, pattern, zone)?))
    }

    /// Into the folder below that a function of the record names; `/` makes folders in folders.
    pub fn bucket_by<T, F>(self, name: F) -> FileSink<E, ByRecord<F>>
    where
        F: FnMut(&T) -> String + Clone + Send + Sync + 'static,
    {
        self.bucket(ByRecord(name))
    }

    /// Into folders below, as `bucket` names them. Default: all into the sink's own.
    pub fn bucket<C>(self, bucket: C) -> FileSink<E, C> {
        FileSink {
            folder: self.folder,
            encode: self.encode,
            bucket,
            prefix: self.prefix,
            suffix: self.suffix,
            part_bytes_max: self.part_bytes_max,
            part_age_max_ms: self.part_age_max_ms,
            part_silence_max_ms: self.part_silence_max_ms,
            across_checkpoints: self.across_checkpoints,
            marks: self.marks,
        }
    }

    /// Puts an empty file, `_SUCCESS`, into each bucket that is complete, for readers who wait for it; default: none. A
    /// bucket that gets more records afterwards gets the file again.
    pub fn bucket_commit(mut self, commit: BucketCommit) -> Self {
        self.marks = Some(Arc::new(Marks::new(commit)));
        self
    }

    /// Files go on over checkpoints until they are large, old or silent enough, as Flink's do, in place of being finished by each:
    /// fewer files, which are seen later. A checkpoint finishes those that are due, the end of the input all; those that were open
    /// when the job was stopped or failed are published when it goes on. Unless set otherwise they are old after a minute, and silent
    /// after a minute. Not together with [`FileSink::bucket_commit`].
    pub fn across_checkpoints(mut self) -> Self {
        self.across_checkpoints = true;
        self.part_age_max_ms.get_or_insert(Self::ACROSS_MS);
        self.part_silence_max_ms.get_or_insert(Self::ACROSS_MS);
        self
    }

    /// A file that was begun so long ago is finished before more is written, in ms of the job's clock; default: never.
    /// Whatever this says, each checkpoint finishes all, but for [`FileSink::across_checkpoints`].
    pub fn part_age_max_ms(mut self, ms: i64) -> Self {
        self.part_age_max_ms = Some(ms);
        self
    }

    /// A file to which nothing was written for so long is finished before more is, in ms of the job's clock; default: never.
    pub fn part_silence_max_ms(mut self, ms: i64) -> Self {
        self.part_silence_max_ms = Some(ms);
        self
    }

    /// What names begin with; default `part`. No `/`, and not a dot in front.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What names end with, such as `.json`; default nothing.
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// From this size on, in bytes, a subtask begins another file within an epoch; default 128 MiB. A file may grow
    /// beyond by one batch.
    pub fn part_bytes_max(mut self, bytes: u64) -> Self {
        self.part_bytes_max = bytes;
        self
    }

    fn title(&self) -> String {
        format!("files in `{}`", self.folder.display())
    }

    fn prepare(&self) -> Result<()> {
        if self.prefix.starts_with('.') || self.prefix.contains('/') || self.suffix.contains('/') {
            return Err(Error::input(format!(
                "{}: `{}` and `{}` give no file names",
                self.title(),
                self.prefix,
                self.suffix
            ))
            .hint("use a prefix without a dot in front, and no `/`"));
        }
        if self.across_checkpoints && self.marks.is_some() {
            let text = format!("{}: a bucket is not complete while files of it go on over checkpoints", self.title());
            return Err(Error::input(text).hint("leave out `bucket_commit` or `across_checkpoints`"));
        }
        fs::create_dir_all(&self.folder)
            .map_err(|e| Error::io(format!("create the folder `{}`", self.folder.display()), e))
    }
}

impl<T, E, B> Sink<T> for FileSink<E, B>
where
    T: Send + 'static,
    E: Encode<T>,
    B: Bucket<T>,
{
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.prepare()?;
        if let Some(marks) = &self.marks {
            marks.check(&self.bucket).map_err(|error| error.context(self.title()))?;
        }
        let deliver = FileDeliver {
            records: PhantomData::<fn(T)>,
            sink: self.clone(),
            tag: scope_tag(&context.scope),
            subtask: context.subtask,
            attempt: context.attempt,
            epoch: context.epoch,
            clock: context.clock.clone(),
            watermark_ms: WATERMARK_MIN,
            begun: 0,
            finished: Vec::new(),
            open: BTreeMap::new(),
            name: String::new(),
        };
        let buffer = Buffered::start(&self.title(), context.waker, BufferOptions::default(), deliver)?;
        let keep = |timestamp_ms, record, items: &mut Vec<(i64, T)>| {
            items.push((timestamp_ms, record));
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, keep)))
    }

    fn committer(&self, _scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        let marks = self.marks.as_ref().map(|marks| (marks.clone(), marks.subtask()));
        Ok(Some(Box::new(FileCommitter {
            folder: self.folder.clone(),
            bucket: self.bucket.clone(),
            marks,
            records: PhantomData,
        })))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        self.prepare()?;
        recover(&self.folder, tokens)?;
        let tag = scope_tag(scope);
        let failed = |e| Error::io(format!("clean up `{}`", self.folder.display()), e);
        remove_unpublished(&self.folder, &tag).map_err(failed)?;
        match &self.marks {
            Some(marks) => marks.find(&self.folder, &tag).map_err(failed),
            None => Ok(()),
        }
    }
}

struct FileDeliver<T, E, B> {
    records: PhantomData<fn(T)>,
    sink: FileSink<E, B>,
    tag: String,
    subtask: usize,
    attempt: u64,
    /// The epoch that is open.
    epoch: u64,
    clock: SharedClock,
    /// As of the end of the epoch that is being closed.
    watermark_ms: i64,
    /// How many files were begun in the epoch.
    begun: usize,
    /// The files that were finished in it, by final name.
    finished: Vec<String>,
    /// By bucket.
    open: BTreeMap<String, Open>,
    name: String,
}

struct Open {
    file: File,
    /// Its final name with its bucket in front.
    part: String,
    bytes: u64,
    began_ms: i64,
    written_ms: i64,
    /// Lines of the batch at hand.
    lines: Vec<u8>,
}

impl<T, E, B> FileDeliver<T, E, B> {
    fn open_part(&mut self, bucket: &str, now_ms: i64) -> Result<Open> {
        let number = match self.begun {
            0 => String::new(),
            n => format!("-{n}"),
        };
        let FileSink { folder, prefix, suffix, .. } = &self.sink;
        let name = format!("{prefix}-{}-{}-{}-{}{number}{suffix}", self.subtask, self.epoch, self.attempt, self.tag);
        let part = if bucket.is_empty() { name } else { format!("{bucket}/{name}") };
        let path = hidden(folder, &part, IN_PROGRESS);
        let created = match path.parent() {
            Some(parent) if !bucket.is_empty() => fs::create_dir_all(parent),
            _ => Ok(()),
        };
        let file = created.and_then(|()| File::create(&path));
        let file = file.map_err(|e| Error::io(format!("create `{}`", path.display()), e))?;
        self.begun += 1;
        Ok(Open { file, part, bytes: 0, began_ms: now_ms, written_ms: now_ms, lines: Vec::new() })
    }

    /// Makes an open file durable under its pending name.
    fn finish_part(&mut self, bucket: &str) -> Result<()> {
        let Some(open) = self.open.get(bucket) else { return Ok(()) };
        let in_progress = hidden(&self.sink.folder, &open.part, IN_PROGRESS);
        open.file
            .sync_all()
            .and_then(|()| fs::rename(&in_progress, hidden(&self.sink.folder, &open.part, PENDING)))
            .map_err(|e| Error::io(format!("finish `{}`", in_progress.display()), e))?;
        self.finished.extend(self.open.remove(bucket).map(|open| open.part));
        Ok(())
    }

    /// Finishes files that are large, old or silent enough, and the one written longest ago when there are too many.
    fn roll(&mut self, now_ms: i64) -> Result<()> {
        let FileSink { part_bytes_max, part_age_max_ms, part_silence_max_ms, .. } = &self.sink;
        let over = |since_ms: i64, most: &Option<i64>| most.is_some_and(|most| now_ms.saturating_sub(since_ms) >= most);
        let due = self.open.iter().filter(|(_, open)| {
            open.bytes >= *part_bytes_max
                || over(open.began_ms, part_age_max_ms)
                || over(open.written_ms, part_silence_max_ms)
        });
        let mut due: Vec<String> = due.map(|(bucket, _)| bucket.clone()).collect();
        if self.open.len() - due.len() > OPEN_FILES_MAX {
            let mut others: Vec<_> = self.open.iter().filter(|(bucket, _)| !due.contains(bucket)).collect();
            others.sort_by_key(|(_, open)| open.written_ms);
            let oldest: Vec<String> =
                others[..others.len() - OPEN_FILES_MAX].iter().map(|(b, _)| (*b).clone()).collect();
            due.extend(oldest);
        }
        due.iter().try_for_each(|bucket| self.finish_part(bucket))
    }

    /// Writes the lines gathered for each file. After a failure no file has any of them.
    fn write_lines(&mut self, now_ms: i64) -> Result<()> {
        let mut failed = None;
        for open in self.open.values_mut().filter(|open| !open.lines.is_empty()) {
            let written = open.file.seek(SeekFrom::Start(open.bytes)).and_then(|_| open.file.write_all(&open.lines));
            if let Err(error) = written {
                failed = Some(Error::io(format!("write `{}` in `{}`", open.part, self.sink.folder.display()), error));
                break;
            }
        }
        for open in self.open.values_mut().filter(|open| !open.lines.is_empty()) {
            if failed.is_some() {
                // Another try begins where this one did.
                let _ = open.file.set_len(open.bytes);
            } else {
                open.bytes += open.lines.len() as u64;
                open.written_ms = now_ms;
            }
            open.lines.clear();
        }
        failed.map_or(Ok(()), Err)
    }
}

impl<T, E, B> FileDeliver<T, E, B>
where
    E: Encode<T>,
    B: Bucket<T>,
{
    /// Appends each record's line to its file's.
    fn gather(&mut self, items: &[(i64, T)], now_ms: i64) -> Result<()> {
        let mut name = std::mem::take(&mut self.name);
        for (timestamp_ms, record) in items {
            // The sink's name is put in front by whoever hears of it.
            let refused = |reason| Error::input(format!("a record {reason}"));
            name.clear();
            let named = self.sink.bucket.name(*timestamp_ms, record, now_ms, &mut name);
            named.and_then(|()| bucket::check(&name)).map_err(refused)?;
            if !self.open.contains_key(&name) {
                let open = self.open_part(&name, now_ms)?;
                self.open.insert(name.clone(), open);
            }
            let Some(open) = self.open.get_mut(&name) else { continue };
            let encoded = self.sink.encode.encode(record, &mut open.lines);
            encoded.map_err(refused)?;
            open.lines.push(b'\n');
        }
        self.name = name;
        Ok(())
    }
}

impl<T, E, B> Deliver for FileDeliver<T, E, B>
where
    T: Send + 'static,
    E: Encode<T>,
    B: Bucket<T>,
{
    type Item = (i64, T);

    fn deliver(&mut self, items: &[(i64, T)]) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.roll(now_ms)?;
        if let Err(error) = self.gather(items, now_ms) {
            self.open.values_mut().for_each(|open| open.lines.clear());
            return Err(error);
        }
        self.write_lines(now_ms)
    }

    fn watermark(&mut self, watermark_ms: i64) {
        self.watermark_ms = watermark_ms;
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        if self.sink.across_checkpoints && self.watermark_ms < WATERMARK_MAX {
            self.roll(self.clock.now_ms())?;
        } else {
            let open: Vec<String> = self.open.keys().cloned().collect();
            open.iter().try_for_each(|bucket| self.finish_part(bucket))?;
        }
        let mut open = Vec::with_capacity(self.open.len());
        for Open { file, part, bytes, .. } in self.open.values() {
            file.sync_all().map_err(|e| Error::io(format!("write `{part}` in `{}`", self.sink.folder.display()), e))?;
            open.push(OpenPart { file: part.clone(), bytes: *bytes });
        }
        let mut folders: BTreeSet<&Path> = BTreeSet::new();
        for part in self.finished.iter().chain(open.iter().map(|open| &open.file)) {
            // A bucket may be new, and so may the folders it stands in.
            folders.extend(Path::new(part).ancestors().skip(1));
        }
        folders.iter().try_for_each(|below| sync_folder(&self.sink.folder.join(below)))?;
        let reached_ms = self.sink.marks.as_ref().map(|marks| marks.reached(self.watermark_ms, self.clock.now_ms()));
        let mut tokens = Vec::new();
        if !self.finished.is_empty() || !open.is_empty() || reached_ms.is_some() {
            tokens.push(Parts { files: self.finished.clone(), open, reached_ms }.token()?);
        }
        self.finished.clear();
        self.begun = 0;
        // Unique is enough: the number of the next epoch is at least this one.
        self.epoch = self.epoch.max(epoch) + 1;
        Ok(tokens)
    }
}
