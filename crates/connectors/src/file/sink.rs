//! A sink into part files, exactly once: a file becomes visible, by a rename, when the checkpoint of its epoch is
//! complete.
//!
//! ```text
//! .part-0-7-1-1c9f.json.inprogress   being written by subtask 0 in epoch 7 of attempt 1
//! .part-0-7-1-1c9f.json.pending      complete and on disk; its name is in the token
//! part-0-7-1-1c9f.json               published
//! ```
//!
//! `1c9f…` stands for job and operator, so that several jobs may write into one folder. Files whose names begin with a
//! dot are nobody's input.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidemill_core::format::Encode;
use tidemill_core::sink::{Committer, Sink, SinkScope, SinkWriter, Token, WriterContext};
use tidemill_core::{Error, Result};

use crate::buffered::{BufferOptions, Buffered, BufferedWriter, Deliver};

const TOKEN_VERSION: u8 = 1;
const IN_PROGRESS: &str = ".inprogress";
const PENDING: &str = ".pending";

/// Writes records as lines into part files of a folder, exactly once: new files appear with each checkpoint.
#[derive(Debug, Clone)]
pub struct FileSink<E> {
    folder: PathBuf,
    encode: E,
    prefix: String,
    suffix: String,
    part_bytes_max: u64,
}

impl<E> FileSink<E> {
    /// The default for [`FileSink::part_bytes_max`].
    pub const PART_BYTES_MAX: u64 = 128 << 20;

    /// Into `folder`, created when absent, as `part-<subtask>-<epoch>-<attempt>-<job>[-n]`.
    pub fn new(folder: impl AsRef<Path>, encode: E) -> Self {
        FileSink {
            folder: folder.as_ref().to_path_buf(),
            encode,
            prefix: "part".to_string(),
            suffix: String::new(),
            part_bytes_max: Self::PART_BYTES_MAX,
        }
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
        fs::create_dir_all(&self.folder)
            .map_err(|e| Error::io(format!("create the folder `{}`", self.folder.display()), e))
    }
}

/// Job and operator in 16 hex digits.
fn scope_tag(scope: &SinkScope) -> String {
    let name = format!("{}/{}", scope.job_id, scope.uid);
    // FNV-1a: stable, and no two sinks of one folder meet by it.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

impl<T, E> Sink<T> for FileSink<E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    fn name(&self) -> String {
        self.title()
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.prepare()?;
        let deliver = FileDeliver {
            records: PhantomData::<fn(T)>,
            sink: self.clone(),
            tag: scope_tag(&context.scope),
            subtask: context.subtask,
            attempt: context.attempt,
            epoch: context.epoch,
            parts: Vec::new(),
            open: None,
            lines: Vec::new(),
        };
        let buffer = Buffered::start(&self.title(), context.waker, BufferOptions::default(), deliver)?;
        let keep = |_, record, items: &mut Vec<T>| {
            items.push(record);
            Ok(())
        };
        Ok(Box::new(BufferedWriter::new(buffer, keep)))
    }

    fn committer(&self, _scope: &SinkScope) -> Result<Option<Box<dyn Committer>>> {
        Ok(Some(Box::new(FileCommitter { folder: self.folder.clone() })))
    }

    fn recover(&self, scope: &SinkScope, tokens: &[Token]) -> Result<()> {
        self.prepare()?;
        publish(&self.folder, tokens)?;
        let tag = scope_tag(scope);
        let tried = || format!("clean up `{}`", self.folder.display());
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(tried(), e))? {
            let entry = entry.map_err(|e| Error::io(tried(), e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let unpublished = name.ends_with(IN_PROGRESS) || name.ends_with(PENDING);
            if unpublished && name.starts_with('.') && name.contains(&tag) {
                fs::remove_file(entry.path()).map_err(|e| Error::io(tried(), e))?;
            }
        }
        Ok(())
    }
}

/// The token: the files to publish, by their final names.
#[derive(Serialize, Deserialize)]
struct Parts {
    files: Vec<String>,
}

struct FileCommitter {
    folder: PathBuf,
}

impl Committer for FileCommitter {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        publish(&self.folder, tokens)
    }
}

fn publish(folder: &Path, tokens: &[Token]) -> Result<()> {
    let mut renamed = false;
    for token in tokens {
        let parts: Parts = match token.split_first() {
            Some((&TOKEN_VERSION, json)) => serde_json::from_slice(json)
                .map_err(|error| Error::corrupt(format!("a commit token does not read: {error}")))?,
            _ => return Err(Error::corrupt("a commit token of an unknown version")),
        };
        for file in parts.files {
            match fs::rename(folder.join(format!(".{file}{PENDING}")), folder.join(&file)) {
                Ok(()) => renamed = true,
                // It was on disk before the token was: it has been published, and perhaps used and taken away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(format!("publish `{file}` in `{}`", folder.display()), error)),
            }
        }
    }
    if renamed { sync_folder(folder) } else { Ok(()) }
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|e| Error::io(format!("write the folder `{}` to disk", folder.display()), e))
}

struct FileDeliver<T, E> {
    records: PhantomData<fn(T)>,
    sink: FileSink<E>,
    tag: String,
    subtask: usize,
    attempt: u64,
    /// The epoch that is open.
    epoch: u64,
    /// The files of the epoch, by final name; the last one may be open.
    parts: Vec<String>,
    open: Option<Open>,
    lines: Vec<u8>,
}

struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl<T, E> FileDeliver<T, E> {
    fn open_part(&mut self) -> Result<Open> {
        let number = match self.parts.len() {
            0 => String::new(),
            n => format!("-{n}"),
        };
        let FileSink { prefix, suffix, .. } = &self.sink;
        let name = format!("{prefix}-{}-{}-{}-{}{number}{suffix}", self.subtask, self.epoch, self.attempt, self.tag);
        let path = self.sink.folder.join(format!(".{name}{IN_PROGRESS}"));
        let file = File::create(&path).map_err(|e| Error::io(format!("create `{}`", path.display()), e))?;
        self.parts.push(name);
        Ok(Open { file, path, bytes: 0 })
    }

    /// Makes the open file durable under its pending name.
    fn finish_part(&mut self) -> Result<()> {
        let (Some(open), Some(name)) = (&self.open, self.parts.last()) else { return Ok(()) };
        let pending = self.sink.folder.join(format!(".{name}{PENDING}"));
        open.file
            .sync_all()
            .and_then(|()| fs::rename(&open.path, &pending))
            .map_err(|e| Error::io(format!("finish `{}`", open.path.display()), e))?;
        self.open = None;
        Ok(())
    }
}

impl<T, E> Deliver for FileDeliver<T, E>
where
    T: Send + 'static,
    E: Encode<T>,
{
    type Item = T;

    fn deliver(&mut self, items: &[T]) -> Result<()> {
        self.lines.clear();
        for record in items {
            self.sink
                .encode
                .encode(record, &mut self.lines)
                .map_err(|reason| Error::input(format!("{}: a record {reason}", self.sink.title())))?;
            self.lines.push(b'\n');
        }
        if self.open.as_ref().is_some_and(|open| open.bytes >= self.sink.part_bytes_max) {
            self.finish_part()?;
        }
        if self.open.is_none() {
            self.open = Some(self.open_part()?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let written = open.file.seek(SeekFrom::Start(open.bytes)).and_then(|_| open.file.write_all(&self.lines));
        if let Err(error) = written {
            // Another try begins where this one did.
            let _ = open.file.set_len(open.bytes);
            return Err(Error::io(format!("write `{}`", open.path.display()), error));
        }
        open.bytes += self.lines.len() as u64;
        Ok(())
    }

    fn close(&mut self, epoch: u64) -> Result<Vec<Token>> {
        self.finish_part()?;
        let mut tokens = Vec::new();
        if !self.parts.is_empty() {
            sync_folder(&self.sink.folder)?;
            let json = serde_json::to_vec(&Parts { files: self.parts.clone() })
                .map_err(|error| Error::bug(format!("a token does not become JSON: {error}")))?;
            tokens.push([&[TOKEN_VERSION], json.as_slice()].concat());
        }
        self.parts.clear();
        // Unique is enough: the number of the next epoch is at least this one.
        self.epoch = self.epoch.max(epoch) + 1;
        Ok(tokens)
    }
}
