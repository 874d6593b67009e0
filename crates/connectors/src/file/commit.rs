//! The second half of the file sink: pending files get their names, leftovers go.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::sink::{Committer, SinkScope, Token};
use tidemill_core::{Error, Result};

use super::bucket::Bucket;
use super::bucket_commit::Marks;

const TOKEN_VERSION: u8 = 1;
/// Of a token that names files which go on.
const TOKEN_VERSION_OPEN: u8 = 2;
pub(super) const IN_PROGRESS: &str = ".inprogress";
pub(super) const PENDING: &str = ".pending";
/// A copy of a part of a file on its way.
const COPIED: &str = ".copied";

/// Job and operator in 16 hex digits.
pub(super) fn scope_tag(scope: &SinkScope) -> String {
    let name = format!("{}/{}", scope.job_id, scope.uid);
    // FNV-1a: stable, and no two sinks of one folder meet by it.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Removes what this job has left unpublished in a folder and those below.
pub(super) fn remove_unpublished(folder: &Path, tag: &str) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') {
                remove_unpublished(&entry.path(), tag)?;
            }
            continue;
        }
        let unpublished = [IN_PROGRESS, PENDING, COPIED].iter().any(|state| name.ends_with(state));
        if unpublished && name.starts_with('.') && name.contains(tag) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Where a part stands under another name until it is published; `part` may have a bucket in front.
pub(super) fn hidden(folder: &Path, part: &str, state: &str) -> PathBuf {
    match part.rsplit_once('/') {
        Some((bucket, name)) => folder.join(bucket).join(format!(".{name}{state}")),
        None => folder.join(format!(".{part}{state}")),
    }
}

/// The token: the files to publish, by their final names with their buckets in front.
#[derive(Serialize, Deserialize)]
pub(super) struct Parts {
    pub files: Vec<String>,
    /// Files that go on after the checkpoint. Whoever restores it publishes them as long as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenPart>,
    /// What a sink that marks complete buckets had reached, see [`Marks::reached`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_ms: Option<i64>,
}

/// How much of a file a checkpoint holds.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenPart {
    pub file: String,
    pub bytes: u64,
}

impl OpenPart {
    /// Publishes a copy of what was written up to the checkpoint: a thread or a job of before may still write on in the file itself.
    fn publish(&self, folder: &Path) -> io::Result<()> {
        let published = folder.join(&self.file);
        if published.exists() {
            return Ok(());
        }
        // In this order: whoever still writes it may finish it meanwhile.
        let opened = [IN_PROGRESS, PENDING].map(|state| File::open(hidden(folder, &self.file, state)));
        let is_gone = |file: &io::Result<File>| file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        // It was published, and somebody took it away.
        let Some(written) = opened.into_iter().find(|file| !is_gone(file)) else { return Ok(()) };
        let written = written?;
        let length = written.metadata()?.len();
        if length < self.bytes {
            let why = format!("it has {length} bytes, {} of which were on disk at the checkpoint", self.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let copied = hidden(folder, &self.file, COPIED);
        let mut copy = File::create(&copied)?;
        io::copy(&mut written.take(self.bytes), &mut copy).and_then(|_| copy.sync_all())?;
        fs::rename(&copied, &published)
    }
}

impl Parts {
    pub fn token(&self) -> Result<Token> {
        let json =
            serde_json::to_vec(self).map_err(|error| Error::bug(format!("a token does not become JSON: {error}")))?;
        let version = if self.open.is_empty() { TOKEN_VERSION } else { TOKEN_VERSION_OPEN };
        Ok([&[version], json.as_slice()].concat())
    }

    fn of(token: &Token) -> Result<Parts> {
        match token.split_first() {
            Some((&(TOKEN_VERSION | TOKEN_VERSION_OPEN), json)) => serde_json::from_slice(json)
                .map_err(|error| Error::corrupt(format!("a commit token does not read: {error}"))),
            _ => Err(Error::corrupt("a commit token of an unknown version")),
        }
    }
}

/// Publishes what one subtask has written.
pub(super) struct FileCommitter<T, B> {
    pub folder: PathBuf,
    pub bucket: B,
    /// With this subtask's place in them.
    pub marks: Option<(Arc<Marks>, usize)>,
    pub records: PhantomData<fn(T)>,
}

impl<T, B: Bucket<T>> Committer for FileCommitter<T, B> {
    fn commit(&mut self, tokens: &[Token]) -> Result<()> {
        let published = publish(&self.folder, tokens)?;
        let Some((marks, subtask)) = &self.marks else { return Ok(()) };
        for parts in published {
            marks.published(*subtask, &parts);
        }
        marks.mark(&self.folder, |bucket| self.bucket.begins_ms(bucket))
    }
}

/// Publishes what a checkpoint holds, to the byte, before anything more is written.
pub(super) fn recover(folder: &Path, tokens: &[Token]) -> Result<()> {
    for open in publish(folder, tokens)?.iter().flat_map(|parts| &parts.open) {
        open.publish(folder).map_err(|e| Error::io(format!("publish `{}` in `{}`", open.file, folder.display()), e))?;
        folder.join(&open.file).parent().map_or(Ok(()), sync_folder)?;
    }
    Ok(())
}

pub(super) fn publish(folder: &Path, tokens: &[Token]) -> Result<Vec<Parts>> {
    let mut renamed = BTreeSet::new();
    let published: Vec<Parts> = tokens.iter().map(Parts::of).collect::<Result<_>>()?;
    for file in published.iter().flat_map(|parts| &parts.files) {
        let published = folder.join(file);
        match fs::rename(hidden(folder, file, PENDING), &published) {
            Ok(()) => renamed.extend(published.parent().map(Path::to_path_buf)),
            // It was on disk before the token was: it has been published, and perhaps used and taken away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("publish `{file}` in `{}`", folder.display()), error)),
        }
    }
    renamed.iter().try_for_each(|folder| sync_folder(folder))?;
    Ok(published)
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|e| Error::io(format!("write the folder `{}` to disk", folder.display()), e))
}
