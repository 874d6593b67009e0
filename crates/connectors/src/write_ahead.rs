//! Exactly-once effects in a system without transactions (Flink's `GenericWriteAheadSink`): rows stay in the checkpoint until
//! it is complete, and only then are they written, by a writer that may write a row twice without harm. A log remembers
//! what was written, so that after a restart little is written again.
//!
//! A token is the rows themselves: version 2, then subtask, attempt and epoch, then the job's id behind its length, then the
//! rows as packed JSON. A job that goes on from the checkpoint of another asks the log of that one what was written. Version 1 had
//! no job.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_core::sink::{Committer, PreCommit, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result};

const TOKEN_VERSION: u8 = 2;

/// Version, subtask, attempt, epoch.
const HEAD_BYTES: usize = 1 + 4 + 8 + 8;

/// Writes rows to where they shall be. The same rows may come again after a crash, whole: writing them again must change
/// nothing (an upsert by key, a file of the batch's name).
pub trait WriteRows<T>: Send + 'static {
    /// Writes all of them and returns when they are there. An error is told to the job, which tries again.
    fn write(&mut self, batch: BatchId, rows: &[T]) -> Result<()>;
}

/// Names the rows of one subtask and epoch; no other rows of the job and operator ever have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchId {
    /// The subtask that took the rows.
    pub subtask: u32,
    /// Counts the starts of the job.
    pub attempt: u64,
    /// The checkpoint that holds them.
    pub epoch: u64,
}

/// Remembers which batches were written (Flink's `CheckpointCommitter`). Batches of a subtask come in the order of attempts and
/// epochs, so the newest of each says all.
pub trait CommitLog: Send + 'static {
    /// Whether the batch was marked as written.
    fn is_written(&mut self, batch: BatchId) -> Result<bool>;
    /// Marks it, durably.
    fn written(&mut self, batch: BatchId) -> Result<()>;
}

/// A log in a small file, one for each job and operator.
#[derive(Debug)]
pub struct FileCommitLog {
    path: PathBuf,
    newest: BTreeMap<u32, (u64, u64)>,
}

impl FileCommitLog {
    /// In `folder`, made when absent.
    pub fn open(folder: impl AsRef<Path>, scope: &SinkScope) -> Result<Self> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|e| Error::io(format!("create the folder `{}`", folder.display()), e))?;
        let uid: String = scope.uid.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = folder.join(format!("{}-{uid}.written", scope.job_id));
        let newest = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::corrupt(format!("`{}` is no log of written batches: {e}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Error::io(format!("read `{}`", path.display()), error)),
        };
        Ok(FileCommitLog { path, newest })
    }
}

impl CommitLog for FileCommitLog {
    fn is_written(&mut self, batch: BatchId) -> Result<bool> {
        Ok(self.newest.get(&batch.subtask).is_some_and(|newest| (batch.attempt, batch.epoch) <= *newest))
    }

    fn written(&mut self, batch: BatchId) -> Result<()> {
        self.newest.insert(batch.subtask, (batch.attempt, batch.epoch));
        let bytes = serde_json::to_vec(&self.newest)
            .map_err(|e| Error::bug(format!("a log of written batches does not become JSON: {e}")))?;
        let aside = self.path.with_extension("aside");
        File::create(&aside)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, &self.path))
            .and_then(|()| self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()))
            .map_err(|e| Error::io(format!("write `{}`", self.path.display()), e))
    }
}

type Make<R> = Arc<dyn Fn(&SinkScope) -> Result<R> + Send + Sync>;

/// Keeps rows in the checkpoint and writes them when it is complete.
pub struct WriteAheadSink<T> {
    name: String,
    writer: Make<Box<dyn WriteRows<T>>>,
    log: Make<Box<dyn CommitLog>>,
    epoch_bytes_max: usize,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> WriteAheadSink<T> {
    /// The default for [`WriteAheadSink::epoch_bytes_max`].
    pub const EPOCH_BYTES_MAX: usize = 32 << 20;

    /// `writer` makes what writes the rows, `log` what remembers them, such as a [`FileCommitLog`]; both in the job's first process.
    pub fn new<W: WriteRows<T>, L: CommitLog>(
        name: impl Into<String>,
        writer: impl Fn(&SinkScope) -> Result<W> + Send + Sync + 'static,
        log: impl Fn(&SinkScope) -> Result<L> + Send + Sync + 'static,
    ) -> Self {
        WriteAheadSink {
            name: name.into(),
            writer: Arc::new(move |scope| Ok(Box::new(writer(scope)?))),
            log: Arc::new(move |scope| Ok(Box::new(log(scope)?))),
            epoch_bytes_max: Self::EPOCH_BYTES_MAX,
        }
    }

    /// The most bytes of rows, as JSON, that one subtask keeps between two checkpoints; more fails the job, since rows stand in
    /// the checkpoint's manifest. Default 32 MiB.
    pub fn epoch_bytes_max(mut self, bytes: usize) -> Self {
        self.epoch_bytes_max = bytes;
        self
    }

    fn make_committer(&self, scope: &SinkScope) -> WriteAheadCommitter<T> {
        WriteAheadCommitter {
            name: self.name.clone(),
            scope: scope.clone(),
            writer: self.writer.clone(),
            log: self.log.clone(),
            jobs: BTreeMap::new(),
        }
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Sink<T> for WriteAheadSink<T> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        Ok(Box::new(WriteAheadWriter {
            name: self.name.clone(),
            job: context.scope.job_id,
            subtask: context.subtask as u32,
            attempt: context.attempt,
            epoch_bytes_max: self.epoch_bytes_max,
            rows: Vec::new(),
        }))
    }

    fn committer(&self, scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        Ok(Some(Box::new(self.make_committer(scope))))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        // Rows of no checkpoint were never anywhere else, so nothing is left to be removed.
        if tokens.is_empty() { Ok(()) } else { self.make_committer(scope).commit(tokens) }
    }
}

struct WriteAheadWriter {
    name: String,
    job: String,
    subtask: u32,
    attempt: u64,
    epoch_bytes_max: usize,
    /// Rows of the open epoch as JSON, each with a line end.
    rows: Vec<u8>,
}

impl<T: Serialize> SinkWriter<T> for WriteAheadWriter {
    fn write(&mut self, batch: Vec<(i64, T)>) -> Result<()> {
        for (_, row) in batch {
            serde_json::to_writer(&mut self.rows, &row)
                .map_err(|e| Error::input(format!("{}: a row does not become JSON: {e}", self.name)))?;
            self.rows.push(b'\n');
        }
        if self.rows.len() > self.epoch_bytes_max {
            let text =
                format!("{}: more than {} bytes of rows since the last checkpoint", self.name, self.epoch_bytes_max);
            return Err(Error::full(text).hint("make checkpoints more often, or raise `epoch_bytes_max`"));
        }
        Ok(())
    }

    fn pre_commit(&mut self, epoch: u64) -> Result<PreCommit> {
        let rows = std::mem::take(&mut self.rows);
        let (job, subtask, attempt) = (self.job.clone(), self.subtask, self.attempt);
        Ok(Box::new(move || {
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let mut token = vec![TOKEN_VERSION];
            token.extend_from_slice(&subtask.to_le_bytes());
            token.extend_from_slice(&attempt.to_le_bytes());
            token.extend_from_slice(&epoch.to_le_bytes());
            token.extend_from_slice(&(job.len() as u16).to_le_bytes());
            token.extend_from_slice(job.as_bytes());
            let mut packed = DeflateEncoder::new(token, Compression::fast());
            packed
                .write_all(&rows)
                .and_then(|()| packed.finish())
                .map(|token| vec![token])
                .map_err(|e| Error::io("pack rows", e))
        }))
    }
}

struct WriteAheadCommitter<T> {
    name: String,
    scope: SinkScope,
    writer: Make<Box<dyn WriteRows<T>>>,
    log: Make<Box<dyn CommitLog>>,
    /// By the job whose rows they are: this one, and before it those from whose checkpoints it goes on.
    jobs: BTreeMap<String, Parts<T>>,
}

struct Parts<T> {
    writer: Box<dyn WriteRows<T>>,
    log: Box<dyn CommitLog>,
}

/// Rows that were kept.
struct Kept<T> {
    job: String,
    batch: BatchId,
    rows: Vec<T>,
}

impl<T: DeserializeOwned> WriteAheadCommitter<T> {
    fn read(&self, token: &[u8]) -> Result<Kept<T>> {
        let wrong = |what: &str| Error::corrupt(format!("{}: a commit token {what}", self.name));
        let (head, rest) = token.split_at_checked(HEAD_BYTES).ok_or_else(|| wrong("is too short"))?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let batch = BatchId {
            subtask: number(&head[1..5]) as u32,
            attempt: number(&head[5..13]),
            epoch: number(&head[13..21]),
        };
        let (job, packed) = match head[0] {
            1 => (self.scope.job_id.clone(), rest),
            TOKEN_VERSION => {
                let (length, rest) = rest.split_at_checked(2).ok_or_else(|| wrong("is too short"))?;
                let (job, packed) =
                    rest.split_at_checked(number(length) as usize).ok_or_else(|| wrong("is too short"))?;
                (String::from_utf8(job.to_vec()).map_err(|_| wrong("names no job"))?, packed)
            }
            _ => return Err(wrong("is of an unknown version")),
        };
        let mut text = Vec::new();
        DeflateDecoder::new(packed).read_to_end(&mut text).map_err(|_| wrong("cannot be unpacked"))?;
        let rows = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows = rows.map(|row| serde_json::from_slice(row).map_err(|e| wrong(&format!("holds no such row: {e}"))));
        Ok(Kept { job, batch, rows: rows.collect::<Result<_>>()? })
    }

    /// The writer and the log of a job.
    fn parts(&mut self, job: &str) -> Result<&mut Parts<T>> {
        if !self.jobs.contains_key(job) {
            let scope = SinkScope { job_id: job.to_string(), ..self.scope.clone() };
            let parts = Parts { writer: (self.writer)(&scope)?, log: (self.log)(&scope)? };
            self.jobs.insert(job.to_string(), parts);
        }
        self.jobs.get_mut(job).ok_or_else(|| Error::bug("a writer that was just made is not there"))
    }
}

impl<T: DeserializeOwned + Send + 'static> Committer for WriteAheadCommitter<T> {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        let mut kept = tokens.iter().map(|token| self.read(token)).collect::<Result<Vec<_>>>()?;
        // Subtask by subtask the log wants them in order.
        kept.sort_by_key(|kept| (kept.batch.attempt, kept.batch.epoch));
        for Kept { job, batch, rows } in kept {
            let name = self.name.clone();
            let Parts { writer, log } = self.parts(&job)?;
            if !log.is_written(batch)? {
                writer.write(batch, &rows).map_err(|e| e.context(&name))?;
                log.written(batch)?;
            }
        }
        Ok(())
    }
}
